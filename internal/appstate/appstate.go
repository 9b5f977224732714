// Package appstate owns the collection app_state: one document for each app,
// keyed by its slug, that holds what all instances of the app agree on. Its keys
// are derived from it, its policies are versioned by it, and what is done once
// in the life of an app is recorded in it.
package appstate

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/internal/store"
)

// Collection is the name of the collection.
const Collection = "app_state"

// Store reads and writes the state of apps. It is safe for concurrent use.
type Store struct {
	coll *mongo.Collection
	now  func() time.Time
	// instance tells our leases from those of others.
	instance string

	mu    sync.Mutex
	turns map[string]chan struct{} // by app: who does what is done once
}

// State is what all instances of an app agree on.
type State struct {
	// Salt separates the keys of this app from those of another one that had
	// its slug before.
	Salt []byte `bson:"salt"`
	// Keys is the version of the app's keys: raising their epoch ends all tokens.
	Keys KeysVersion `bson:",inline"`
	// Seeded names what has been put into the database once.
	Seeded []string `bson:"seeded"`
}

// Open makes sure of the collection's indexes.
func Open(ctx context.Context, db *mongo.Database, now func() time.Time) (*Store, error) {
	coll := db.Collection(Collection)
	_, err := store.Indexes(ctx, coll, []store.Index{
		{Name: "changed_at", Keys: bson.D{{Key: "changed_at", Value: 1}}},
	})
	if err != nil {
		return nil, err
	}
	return &Store{coll: coll, now: now, instance: store.NewID(""), turns: map[string]chan struct{}{}}, nil
}

// Claim reads the app's state and makes it on first start. Two instances that
// start at once end with the same salt: one upsert inserts, the other matches.
func (s *Store) Claim(ctx context.Context, slug, digest string) (*State, error) {
	salt := make([]byte, 32)
	_, _ = rand.Read(salt) // never fails: see crypto/rand.Read
	update := bson.M{
		"$setOnInsert": bson.M{
			"status": "active", "salt": salt, "keys_epoch": int64(1), "policy_epoch": int64(0), "created_at": store.Time(s.now()),
		},
		"$set":         bson.M{"manifest_digest": digest},
		"$currentDate": bson.M{"changed_at": true},
	}
	var state State
	opts := options.FindOneAndUpdate().SetUpsert(true).SetProjection(bson.M{"salt": 1, "keys_epoch": 1, "keys_version": 1, "seeded": 1})
	for attempt := 0; ; attempt++ {
		err := s.change(ctx, bson.M{"_id": slug}, update, opts, &state)
		if mongo.IsDuplicateKeyError(err) && attempt == 0 {
			// Another instance inserted between our look-up and our insert.
			continue
		}
		if err != nil {
			return nil, store.Error("read the state of app "+slug, err)
		}
		if len(state.Salt) < 16 || state.Keys.Epoch < 1 {
			return nil, fmt.Errorf("the document %q of collection %s is damaged: salt or keys_epoch is missing; restore it from a backup, "+
				"or delete it to start the app with new keys", slug, Collection)
		}
		return &state, nil
	}
}

// change updates one document and reads what it is then.
func (s *Store) change(ctx context.Context, filter, update bson.M, opts *options.FindOneAndUpdateOptions, into any) error {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	return s.coll.FindOneAndUpdate(ctx, filter, update, opts.SetReturnDocument(options.After)).Decode(into)
}
