package onetime

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/internal/store"
)

// Quota bounds how often something may be done about a subject, for example how many
// links are mailed to it. Its window slides: any time of Window has at most Limit.
type Quota struct {
	Purpose Purpose
	Subject string
	// Limit is from 1 to 100, and a part of the quota's name: one with another limit
	// begins at nothing.
	Limit int
	// Window is in milliseconds at the finest.
	Window time.Duration
}

const (
	// quotaMargin keeps a quota beyond its window: TTL indexes go by the server's clock.
	quotaMargin = 5 * time.Minute
	// quotaRounds bounds how often a decision begins anew because others spent at the
	// same time. One is usual, and two where several begin a quota at once.
	quotaRounds = 8
	maxLimit    = 100
)

// spent is what was counted: which seed, and when.
type spent struct {
	Seed string             `bson:"seed"`
	At   primitive.DateTime `bson:"at"`
}

// Spend reports whether the quota has room, and takes it. One conditional write decides,
// so of many calls at once no more than Limit succeed. What was counted has room again,
// without being counted twice, for as long as it is remembered: seed, an id, says what it
// is.
func (s *Store) Spend(ctx context.Context, q Quota, seed string) (bool, error) {
	if q.Limit < 1 || q.Limit > maxLimit || q.Window < time.Millisecond || seed == "" {
		return false, fmt.Errorf("onetime: a quota of %d within %s, spent by %q: it needs 1 to %d, a window and a seed", q.Limit, q.Window, seed, maxLimit)
	}
	ctx, cancel := store.Context(ctx)
	defer cancel()
	id, seed := digest(fmt.Sprintf("quota/%s/%s/%d/%s", s.config.App, q.Purpose, q.Limit, q.Subject)), digest(seed)
	for range quotaRounds {
		err := s.spend(ctx, id, q, seed)
		if err == nil {
			return true, nil
		}
		if !mongo.IsDuplicateKeyError(err) {
			return false, store.Error("spend a quota", err)
		}
		// It is there and did not match: it was spent by this seed, or is full, or
		// another instance was faster with the first.
		if decided, ok, err := s.spentBefore(ctx, id, q, seed); decided || err != nil {
			return ok, err
		}
	}
	return false, fmt.Errorf("spend a quota: it keeps changing: %w", store.ErrUnavailable)
}

// spend counts the seed where that is due. The error is a duplicate key where it is not,
// or where it is not certain. As many are kept as may be spent, in the order of their
// times: there is room exactly when there are fewer, or the first has left the window.
func (s *Store) spend(ctx context.Context, id string, q Quota, seed string) error {
	now := store.Time(s.config.Now())
	_, err := s.coll.UpdateOne(ctx,
		bson.D{{Key: "_id", Value: id}, {Key: "app", Value: s.config.App}, {Key: "spent.seed", Value: bson.D{{Key: "$ne", Value: seed}}}, {Key: "$or", Value: bson.A{
			bson.D{{Key: "spent." + strconv.Itoa(q.Limit-1), Value: bson.D{{Key: "$exists", Value: false}}}},
			bson.D{{Key: "spent.0.at", Value: bson.D{{Key: "$lte", Value: now.Add(-q.Window)}}}},
		}}},
		bson.D{
			{Key: "$push", Value: bson.D{{Key: "spent", Value: bson.D{
				{Key: "$each", Value: bson.A{spent{Seed: seed, At: primitive.NewDateTimeFromTime(now)}}},
				{Key: "$sort", Value: bson.D{{Key: "at", Value: 1}}},
				{Key: "$slice", Value: -q.Limit},
			}}}},
			{Key: "$max", Value: bson.D{{Key: "expires_at", Value: now.Add(q.Window + quotaMargin)}}},
			{Key: "$setOnInsert", Value: bson.D{{Key: "purpose", Value: q.Purpose}, {Key: "subject", Value: q.Subject}, {Key: "created_at", Value: now}}},
		},
		options.Update().SetUpsert(true))
	return err
}

// spentBefore says what the quota as it is stored decides, if it does.
func (s *Store) spentBefore(ctx context.Context, id string, q Quota, seed string) (decided, ok bool, err error) {
	var r struct {
		Spent []spent `bson:"spent"`
	}
	err = s.coll.FindOne(ctx, bson.D{{Key: "_id", Value: id}, {Key: "app", Value: s.config.App}},
		options.FindOne().SetProjection(bson.D{{Key: "spent", Value: 1}})).Decode(&r)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return false, false, nil
	}
	if err != nil {
		return false, false, store.Error("read a quota", err)
	}
	began := primitive.NewDateTimeFromTime(s.config.Now().Add(-q.Window))
	within := 0
	for _, one := range r.Spent {
		if one.Seed == seed {
			return true, true, nil
		}
		if one.At > began {
			within++
		}
	}
	return within >= q.Limit, false, nil
}
