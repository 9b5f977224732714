package identity

import (
	"context"
	"errors"
	"slices"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/users"
)

// List returns the identities that sign in to the account: [users.MaxLinks] at most,
// so there are no pages.
func (s *Store) List(ctx context.Context, userID string) ([]Identity, error) {
	st, err := s.config.Users.State(ctx, userID)
	if err != nil {
		return nil, err
	}
	bounded, cancel := store.Context(ctx)
	defer cancel()
	cursor, err := s.coll.Find(bounded, bson.M{"app": s.config.App, "user_id": userID},
		options.Find().SetProjection(bson.M{"tokens": 0}).SetLimit(2*users.MaxLinks))
	if err != nil {
		return nil, store.Error("list identities", err)
	}
	var found []record
	if err := cursor.All(bounded, &found); err != nil {
		return nil, store.Error("list identities", err)
	}
	out := make([]Identity, 0, len(found))
	for _, link := range st.Links {
		for i := range found {
			if users.LinkOf(found[i].Provider, found[i].Subject) == link {
				out = append(out, found[i].Identity)
			}
		}
	}
	return out, nil
}

// ErrNoTokens says that no tokens of the provider are kept for the identity.
var ErrNoTokens = errors.New("no tokens are kept")

// Tokens returns what the provider issued at the last sign-in of the identity that
// signs in to the account. The error is [users.ErrNotFound] or [ErrNoTokens].
func (s *Store) Tokens(ctx context.Context, userID, provider, subject string) ([]byte, error) {
	st, err := s.config.Users.State(ctx, userID)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(st.Links, users.LinkOf(provider, subject)) {
		return nil, users.ErrNotFound
	}
	bounded, cancel := store.Context(ctx)
	defer cancel()
	var r record
	id := s.id(provider, subject)
	err = s.coll.FindOne(bounded, bson.M{"_id": id, "app": s.config.App, "user_id": userID}).Decode(&r)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil, users.ErrNotFound
	}
	if err != nil {
		return nil, store.Error("read the tokens of an identity", err)
	}
	if r.Tokens == "" {
		return nil, ErrNoTokens
	}
	return s.config.Keys.Open(Collection+"|"+id+"|tokens", r.Tokens)
}

// KeepTokens replaces the tokens that are kept for an identity.
func (s *Store) KeepTokens(ctx context.Context, userID string, a Arrival) error {
	id := s.id(a.Provider, a.Subject)
	ctx, cancel := store.Context(context.WithoutCancel(ctx))
	defer cancel()
	_, err := s.coll.UpdateOne(ctx, bson.M{"_id": id, "app": s.config.App, "user_id": userID},
		bson.M{"$set": bson.M{"tokens": s.config.Keys.Seal(Collection+"|"+id+"|tokens", a.Tokens)}})
	return store.Error("keep the tokens of an identity", err)
}
