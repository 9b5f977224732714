package engine

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/internal/store"
)

// stateCollection holds one document for each app, keyed by its slug.
const stateCollection = "app_state"

// stateIndexes are the indexes of [stateCollection].
var stateIndexes = []store.Index{
	{Name: "changed_at", Keys: bson.D{{Key: "changed_at", Value: 1}}},
}

// appState is what all instances of an app agree on.
type appState struct {
	// Salt separates the keys of this app from those of another one that had
	// its slug before.
	Salt []byte `bson:"salt"`
	// KeysEpoch is part of every token key: raising it ends all tokens.
	KeysEpoch int64 `bson:"keys_epoch"`
	// ManifestDigest is the configuration that was loaded last.
	ManifestDigest string `bson:"manifest_digest"`
}

// claimState reads the app's state and makes it on first start. Two instances
// that start at once end with the same salt: one upsert inserts, the other
// matches.
func claimState(ctx context.Context, db *mongo.Database, slug, digest string, now time.Time) (*appState, error) {
	salt := make([]byte, 32)
	_, _ = rand.Read(salt) // never fails: see crypto/rand.Read
	filter := bson.D{{Key: "_id", Value: slug}}
	update := bson.D{
		{Key: "$setOnInsert", Value: bson.D{
			{Key: "status", Value: "active"},
			{Key: "salt", Value: salt},
			{Key: "keys_epoch", Value: int64(1)},
			{Key: "created_at", Value: store.Time(now)},
		}},
		{Key: "$set", Value: bson.D{{Key: "manifest_digest", Value: digest}}},
		{Key: "$currentDate", Value: bson.D{{Key: "changed_at", Value: true}}},
	}
	opts := options.FindOneAndUpdate().SetUpsert(true).SetReturnDocument(options.After)
	for attempt := 0; ; attempt++ {
		state, err := updateState(ctx, db, filter, update, opts)
		if mongo.IsDuplicateKeyError(err) && attempt == 0 {
			// Another instance inserted between our look-up and our insert.
			continue
		}
		if err != nil {
			return nil, store.Error("read the state of app "+slug, err)
		}
		if len(state.Salt) < 16 || state.KeysEpoch < 1 {
			return nil, fmt.Errorf("the document %q of collection %s is damaged: salt or keys_epoch is missing; restore it from a backup, "+
				"or delete it to start the app with new keys", slug, stateCollection)
		}
		return state, nil
	}
}

func updateState(ctx context.Context, db *mongo.Database, filter, update bson.D, opts *options.FindOneAndUpdateOptions) (*appState, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	var state appState
	if err := db.Collection(stateCollection).FindOneAndUpdate(ctx, filter, update, opts).Decode(&state); err != nil {
		return nil, err
	}
	return &state, nil
}
