package users

import (
	"context"
	"errors"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/internal/store"
)

// codeFailuresKept is how long wrong codes are remembered after the last. Those of nobody
// count against nobody: they cost the same and go soon.
const (
	codeFailuresKept = 365 * 24 * time.Hour
	nobodysCodesKept = time.Hour
)

// codeID is what wrong codes are counted under: the user's id, or whatever else stands for
// somebody who is none, so that both cost the same.
func (s *Store) codeID(of string) string { return s.identifierID("code/" + of) }

// CountWrongCode counts a wrong code that was given for the user, or for what stands for
// nobody. After a hundred in a row none is right any more (NIST SP 800-63B-4 section
// 3.2.2), until the owner signs in by other means: see [Store.ForgetWrongCodes].
func (s *Store) CountWrongCode(ctx context.Context, of string) error {
	now := store.Time(s.config.Now())
	kept := nobodysCodesKept
	if store.ValidID(of, "usr_") {
		kept = codeFailuresKept
	}
	ctx, cancel := store.Context(context.WithoutCancel(ctx))
	defer cancel()
	var err error
	for range 2 {
		_, err = s.attempts.UpdateOne(ctx, bson.M{"_id": s.codeID(of), "app": s.config.App}, bson.M{
			"$inc": bson.M{"streak": 1}, "$set": bson.M{"expires_at": now.Add(kept)}, "$setOnInsert": bson.M{"created_at": now},
		}, options.Update().SetUpsert(true))
		if !mongo.IsDuplicateKeyError(err) {
			break
		}
		// Of two that begin to count at once the server refuses one.
	}
	return store.Error("count a wrong code", err)
}

// CodesAdmitted reports whether codes of the user are looked at.
func (s *Store) CodesAdmitted(ctx context.Context, userID string) (bool, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	var c counter
	err := s.attempts.FindOne(ctx, bson.M{
		"_id": s.codeID(userID), "app": s.config.App, "expires_at": bson.M{"$gt": s.config.Now()},
	}).Decode(&c)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return true, nil
	}
	return c.Streak < maxStreak && err == nil, store.Error("read the wrong codes", err)
}

// ForgetWrongCodes begins to count anew, after a right one or another sign-in.
func (s *Store) ForgetWrongCodes(ctx context.Context, userID string) error {
	ctx, cancel := store.Context(context.WithoutCancel(ctx))
	defer cancel()
	_, err := s.attempts.DeleteOne(ctx, bson.M{"_id": s.codeID(userID), "app": s.config.App})
	return store.Error("forget wrong codes", err)
}
