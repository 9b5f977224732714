package oauth2

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/tokens/secret"
)

// Initial is a client that the manifest names.
type Initial struct {
	// ID is the client's id, "cli_" and 26 characters as [Store.Create] makes them.
	// Empty means one that is made when the client is.
	ID string
	// Name tells the client from others and finds it again.
	Name string
	// Secret comes from the environment and has 32 to 512 bytes.
	Secret secret.Value
	// Scopes and TokenTTL are as in [NewClient].
	Scopes   []string
	TokenTTL time.Duration
}

// Ensure makes sure that the client is there as the manifest says. Any number of
// instances may call it at once and again. A secret that the client does not have
// becomes its newest; scopes and token life that differ are set, which ends the
// client's tokens; a client that was disabled stays so. A secret that was removed or
// rotated out is back when the environment still has it.
//
// The error is an [authz.ValueError] for a field that is wrong, and [ErrConflict] for
// a client of that name with another id.
func (s *Store) Ensure(ctx context.Context, initial Initial) (*Client, error) {
	n := NewClient{Name: initial.Name, Scopes: initial.Scopes, TokenTTL: initial.TokenTTL}
	if err := s.checkNew(&n); err != nil {
		return nil, err
	}
	if initial.ID != "" && !store.ValidID(initial.ID, clientPrefix) {
		return nil, fault("id", "must be %q and 26 characters of base32, as those that are made here", clientPrefix)
	}
	if l := initial.Secret.Len(); l < minSecret || l > maxSecret {
		return nil, fault("secret", "must have %d to %d bytes and has %d; make one with: openssl rand -hex 32", minSecret, maxSecret, l)
	}
	text := string(initial.Secret.Reveal()) //nolint:forbidigo // only its hash is kept
	r, err := s.findOrInsert(ctx, initial.ID, n, text)
	if err != nil {
		return nil, err
	}
	if initial.ID != "" && r.ID != initial.ID {
		return nil, fmt.Errorf("%w: %q is %s and not %s; name that one or delete it", ErrConflict, n.Name, r.ID, initial.ID)
	}
	if err := s.align(ctx, r, n); err != nil {
		return nil, err
	}
	if err := s.push(context.WithoutCancel(ctx), r.ID, digestOf(r.ID, text)); err != nil {
		return nil, err
	}
	return s.Get(ctx, r.ID)
}

// align gives the client the scopes and the token life of n where they differ.
func (s *Store) align(ctx context.Context, r *record, n NewClient) error {
	ttl := int64(n.TokenTTL / time.Second)
	if slices.Equal(r.Scopes, n.Scopes) && r.TokenTTL == ttl {
		return nil
	}
	update := bson.D{{Key: "$set", Value: bson.D{{Key: "scopes", Value: n.Scopes}, {Key: "token_ttl", Value: ttl}}}}
	if ttl == 0 {
		update = append(setting("scopes", n.Scopes), bson.E{Key: "$unset", Value: bson.D{{Key: "token_ttl", Value: ""}}})
	}
	return s.change(ctx, r.ID, update, event.ClientUpdated, "manifest")
}

// findOrInsert returns the client of that name, and makes it when there is none.
func (s *Store) findOrInsert(ctx context.Context, id string, n NewClient, text string) (*record, error) {
	byName := bson.D{{Key: "app", Value: s.config.App}, {Key: "name", Value: n.Name}}
	r, err := s.findOne(ctx, byName)
	if !errors.Is(err, ErrNotFound) {
		return r, err
	}
	if id == "" {
		id = store.NewID(clientPrefix)
	}
	r = s.newRecord(id, n, text)
	err = s.insert(ctx, r)
	if errors.Is(err, store.ErrDuplicate) {
		// Another instance was faster, or the id is that of a client of another name.
		if r, err = s.findOne(ctx, byName); errors.Is(err, ErrNotFound) {
			return nil, fmt.Errorf("%w: %s has not the name %q", ErrConflict, id, n.Name)
		}
		return r, err
	}
	if err != nil {
		return nil, err
	}
	s.report(ctx, event.ClientCreated, r.ID, "manifest")
	return r, nil
}
