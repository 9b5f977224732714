package apikey

import (
	"context"
	"errors"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
)

// ListOptions choose a page of keys.
type ListOptions struct {
	// Limit is the size of the page, 1 to 500. Default 50.
	Limit int
	// Cursor is the Next of the page before. Empty means the first page.
	Cursor string
}

// Page is a page of keys in the order in which they were made.
type Page struct {
	Keys []APIKey `json:"keys"`
	// Next is the cursor of the next page, empty on the last.
	Next string `json:"next,omitempty"`
}

// List returns a page of the user's keys: those that live, and those that expired or
// were revoked within [Kept]. The error is [ErrInvalidCursor] for a cursor of
// another user or app.
func (s *Store) List(ctx context.Context, userID string, opts ListOptions) (*Page, error) {
	list := store.List[APIKey]{
		Op: "list API keys", Collection: s.coll, Filter: s.own(userID), Hidden: []string{"hash"},
		Cursors: s.config.Keys, Scope: "api_keys/" + userID, Invalid: ErrInvalidCursor,
		Position: func(k *APIKey) (time.Time, string) { return k.CreatedAt, k.ID },
	}
	keys, next, err := list.Page(ctx, opts.Limit, opts.Cursor)
	if err != nil {
		return nil, err
	}
	return &Page{Keys: keys, Next: next}, nil
}

// Get returns one key of the user. The error is [ErrNotFound] for any other.
func (s *Store) Get(ctx context.Context, userID, keyID string) (*APIKey, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	var r record
	err := s.coll.FindOne(ctx, s.own(userID, bson.E{Key: "_id", Value: keyID}),
		options.FindOne().SetProjection(bson.D{{Key: "hash", Value: 0}})).Decode(&r)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, store.Error("read the API key", err)
	}
	return &r.APIKey, nil
}

// Revoke ends a key of the user. When it returns nil this instance refuses the key,
// and the others do within the blacklist's bound. It may be repeated. The error is
// [ErrNotFound] for a key of somebody else.
func (s *Store) Revoke(ctx context.Context, userID, keyID, reason string) error {
	// A client that goes away must not leave a key half revoked.
	ctx = context.WithoutCancel(ctx)
	now := store.Time(s.config.Now())
	changed, err := s.end(ctx, userID, keyID, reason, now)
	if err != nil {
		return err
	}
	if !changed {
		// Either it is not there, or it was revoked before and the entry may be
		// missing: the call before has died on the way.
		if _, err := s.Get(ctx, userID, keyID); err != nil {
			return err
		}
	} else {
		s.report(ctx, event.APIKeyRevoked, userID, keyID, reason)
	}
	return s.config.Blacklist.AddAPIKey(ctx, keyID, reason)
}

// end marks a key as revoked and reports whether it was not before.
func (s *Store) end(ctx context.Context, userID, keyID, reason string, now time.Time) (bool, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	res, err := s.coll.UpdateOne(ctx,
		s.own(userID, bson.E{Key: "_id", Value: keyID}, notRevoked),
		bson.D{
			{Key: "$set", Value: bson.D{
				{Key: "revoked_at", Value: now}, {Key: "revoked_reason", Value: reason}, {Key: "purge_at", Value: now.Add(Kept)},
			}},
			{Key: "$unset", Value: bson.D{{Key: "slot", Value: ""}}},
		})
	if err != nil {
		return false, store.Error("revoke the API key", err)
	}
	return res.ModifiedCount > 0, nil
}

var notRevoked = bson.E{Key: "revoked_at", Value: bson.D{{Key: "$exists", Value: false}}}

// RevokeAll ends every key of the user, as the deletion of an account does. A call
// that fails half way is repeated whole.
func (s *Store) RevokeAll(ctx context.Context, userID, reason string) error {
	ctx = context.WithoutCancel(ctx)
	ids, err := s.toRevoke(ctx, userID)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := s.Revoke(ctx, userID, id, reason); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	return nil
}

// toRevoke returns the user's keys that are not revoked, and those that were of
// late: the call that did it may have died before the others could learn of it. What
// was revoked before is remembered by nobody any more.
func (s *Store) toRevoke(ctx context.Context, userID string) ([]string, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	since := s.config.Now().Add(-5 * Remembered)
	cursor, err := s.coll.Find(ctx, s.own(userID, bson.E{Key: "$or", Value: bson.A{
		bson.D{notRevoked}, bson.D{{Key: "revoked_at", Value: bson.D{{Key: "$gte", Value: since}}}},
	}}), options.Find().SetProjection(bson.D{{Key: "_id", Value: 1}}))
	if err != nil {
		return nil, store.Error("read the API keys of a user", err)
	}
	var found []record
	if err := cursor.All(ctx, &found); err != nil {
		return nil, store.Error("read the API keys of a user", err)
	}
	ids := make([]string, len(found))
	for i := range found {
		ids[i] = found[i].ID
	}
	return ids, nil
}
