package ratelimit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/internal/store"
)

// Collection holds the attempts of every app that counts in MongoDB.
const Collection = "rate_limits"

const (
	// expiryMargin keeps a document beyond its last attempt: TTL indexes go by the
	// server's clock, windows by the instances'.
	expiryMargin = 5 * time.Minute
	// maxRounds bounds how often a decision begins anew because others changed the
	// key meanwhile. One is usual, and two where a key is counted for the first time by
	// several at once.
	maxRounds = 8
)

// MongoConfig configures a [Mongo].
type MongoConfig struct {
	// App is the slug, required. It may not contain '|'.
	App string
	// Now is the clock. Default [time.Now].
	Now func() time.Time
}

// Mongo counts in MongoDB: all instances of an app share one limit, exactly. A
// decision that lets through is one conditional write, one that refuses writes
// nothing. Errors of the database wrap [store.ErrUnavailable].
//
// # Clocks
//
// Each instance goes by its own clock, in milliseconds, and attempts are kept in the
// order of their times, whoever wrote them. Where clocks differ by up to d, any time
// of Window − d has at most Max attempts, and an attempt is counted for Window + d at
// most. So keep clocks together to a small part of the shortest window.
//
// Keys are stored as SHA-256: addresses and account names cannot be read from the
// collection, though a list of candidates can be compared with it.
type Mongo struct {
	app  string
	now  func() time.Time
	coll *mongo.Collection
}

var _ Store = (*Mongo)(nil)

// NewMongo returns the store of the app that config names. Call
// [Mongo.EnsureIndexes] before it is used.
func NewMongo(db *mongo.Database, config MongoConfig) (*Mongo, error) {
	if db == nil {
		return nil, errors.New("ratelimit: a database is required")
	}
	if config.App == "" || strings.Contains(config.App, "|") {
		return nil, fmt.Errorf("ratelimit: app %q: give the app's slug, without '|'", config.App)
	}
	if config.Now == nil {
		config.Now = time.Now //nolint:forbidigo // the default of the injected clock
	}
	return &Mongo{app: config.App, now: config.Now, coll: store.Handle(db).Collection(Collection)}, nil
}

// EnsureIndexes makes sure of the collection's index. ttl is false when the server
// has no TTL indexes: then Sweep has to be called now and then.
func (m *Mongo) EnsureIndexes(ctx context.Context) (ttl bool, err error) {
	return store.Indexes(ctx, m.coll, []store.Index{
		{Name: "expires_at", Keys: bson.D{{Key: "expires_at", Value: 1}}, TTL: true},
	})
}

// Sweep removes the keys of the app none of whose attempts count, and returns how
// many.
func (m *Mongo) Sweep(ctx context.Context) (int64, error) {
	return store.Sweep(ctx, "sweep rate limits", m.coll, m.app, "expires_at", m.now())
}

// hits are the times of attempts, in order.
type hits []primitive.DateTime

type record struct {
	Hits hits `bson:"hits"`
}

// window returns those that count at now.
func (h hits) window(now primitive.DateTime, rule Rule) hits {
	i, _ := slices.BinarySearch(h, now-milliseconds(rule.Window)+1)
	return h[i:]
}

// decide describes what the stored attempts mean at now.
func (h hits) decide(rule Rule, allowed bool, now primitive.DateTime) Decision {
	counting := h.window(now, rule)
	var leaves time.Duration
	if n := len(counting); n > 0 {
		leaves = time.Duration(counting[max(0, n-rule.Max)]-now)*time.Millisecond + rule.Window
	}
	return decide(rule, allowed, len(counting), leaves)
}

func milliseconds(d time.Duration) primitive.DateTime { return primitive.DateTime(d.Milliseconds()) }

// Take implements [Store]. All of its calls together have [store.CallTimeout].
func (m *Mongo) Take(ctx context.Context, rule Rule, key string) (Decision, error) {
	if err := usable(ctx, rule); err != nil {
		return Decision{}, err
	}
	ctx, cancel := store.Context(ctx)
	defer cancel()
	id, now, stored := m.id(rule, key), m.now(), rule.Max
	at := primitive.NewDateTimeFromTime(now)
	for range maxRounds {
		after, err := m.push(ctx, id, rule, now, stored)
		if err == nil {
			return after.decide(rule, true, at), nil
		}
		if !mongo.IsDuplicateKeyError(err) {
			return Decision{}, store.Error("count the attempt", err)
		}
		// The document is there and did not match: the window is full, or another
		// instance was faster with the first attempt, or counts up to a higher Max.
		there, err := m.read(ctx, id)
		if err != nil {
			return Decision{}, err
		}
		if len(there.window(at, rule)) >= rule.Max {
			return there.decide(rule, false, at), nil
		}
		stored = max(rule.Max, len(there))
	}
	return Decision{}, fmt.Errorf("count the attempt: the key keeps changing: %w", store.ErrUnavailable)
}

// push adds an attempt where the window has room for it, and returns the attempts
// with it. The error is a duplicate key when there is no room or none is certain.
//
// stored is how many attempts the document may have for its room to be judged: among
// so many, in order, the window has room exactly when the one that is Max from the end
// has left it. Whatever is cut off has left the window too. That holds for each
// instance by its own Max, so that none forgets what another still counts.
func (m *Mongo) push(ctx context.Context, id string, rule Rule, now time.Time, stored int) (hits, error) {
	at := primitive.NewDateTimeFromTime(now)
	var after record
	err := m.coll.FindOneAndUpdate(ctx,
		bson.D{{Key: "_id", Value: id}, {Key: "app", Value: m.app}, {Key: "$or", Value: bson.A{
			bson.D{{Key: position(rule.Max - 1), Value: absent}},
			bson.D{
				{Key: position(stored), Value: absent},
				{Key: position(stored - rule.Max), Value: bson.D{{Key: "$lte", Value: at - milliseconds(rule.Window)}}},
			},
		}}},
		bson.D{
			{Key: "$push", Value: bson.D{{Key: "hits", Value: bson.D{
				{Key: "$each", Value: bson.A{at}}, {Key: "$sort", Value: 1}, {Key: "$slice", Value: -rule.Max},
			}}}},
			// Not less than before: another instance may have a longer window.
			{Key: "$max", Value: bson.D{{Key: "expires_at", Value: store.Time(now.Add(rule.Window + expiryMargin))}}},
			{Key: "$setOnInsert", Value: bson.D{{Key: "created_at", Value: store.Time(now)}}},
		},
		options.FindOneAndUpdate().SetUpsert(true).SetReturnDocument(options.After).SetProjection(onlyHits),
	).Decode(&after)
	return after.Hits, err
}

var (
	absent   = bson.D{{Key: "$exists", Value: false}}
	onlyHits = bson.D{{Key: "hits", Value: 1}}
)

func position(i int) string { return "hits." + strconv.Itoa(i) }

// read returns the stored attempts at a key, none when it has no document.
func (m *Mongo) read(ctx context.Context, id string) (hits, error) {
	var r record
	err := m.coll.FindOne(ctx, m.byID(id), options.FindOne().SetProjection(onlyHits)).Decode(&r)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil, nil
	}
	return r.Hits, store.Error("read the attempts", err)
}

// Peek implements [Store].
func (m *Mongo) Peek(ctx context.Context, rule Rule, key string) (Decision, error) {
	if err := usable(ctx, rule); err != nil {
		return Decision{}, err
	}
	ctx, cancel := store.Context(ctx)
	defer cancel()
	at := primitive.NewDateTimeFromTime(m.now())
	there, err := m.read(ctx, m.id(rule, key))
	if err != nil {
		return Decision{}, err
	}
	return there.decide(rule, len(there.window(at, rule)) < rule.Max, at), nil
}

// Reset implements [Store].
func (m *Mongo) Reset(ctx context.Context, rule Rule, key string) error {
	if err := usable(ctx, rule); err != nil {
		return err
	}
	ctx, cancel := store.Context(ctx)
	defer cancel()
	_, err := m.coll.DeleteOne(ctx, m.byID(m.id(rule, key)))
	return store.Error("reset the attempts", err)
}

// Clear implements [Store]. Of very many keys it may not get through all within its
// time; the error wraps [store.ErrUnavailable] then, and the next call goes on.
func (m *Mongo) Clear(ctx context.Context, rule Rule) error {
	if err := usable(ctx, rule); err != nil {
		return err
	}
	ctx, cancel := store.Context(ctx)
	defer cancel()
	prefix := m.prefix(rule)
	// What follows the prefix is hexadecimal.
	_, err := m.coll.DeleteMany(ctx, bson.D{
		{Key: "_id", Value: bson.D{{Key: "$gte", Value: prefix}, {Key: "$lt", Value: prefix + "g"}}}, {Key: "app", Value: m.app},
	})
	return store.Error("clear the attempts", err)
}

func (m *Mongo) prefix(rule Rule) string { return m.app + "|" + rule.Name + "|" }

func (m *Mongo) id(rule Rule, key string) string {
	sum := sha256.Sum256([]byte(key))
	return m.prefix(rule) + hex.EncodeToString(sum[:])
}

func (m *Mongo) byID(id string) bson.D {
	return bson.D{{Key: "_id", Value: id}, {Key: "app", Value: m.app}}
}
