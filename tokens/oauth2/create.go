package oauth2

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/tokens"
)

// maxName bounds the name of a client, in characters.
const maxName = 64

// NewClient is a wish for a client.
type NewClient struct {
	// Name is what people call the client: 1 to 64 characters, once in an app.
	Name string
	// Scopes are what its tokens may have at most.
	Scopes []string
	// TokenTTL is the life of its tokens, in whole seconds up to 24 hours. Zero means
	// Config.DefaultTokenTTL.
	TokenTTL time.Duration
}

// Created is a new client.
type Created struct {
	Client
	// Secret is its first secret. It is not stored and cannot be shown again.
	Secret string
}

// Create makes a client. The error is an [authz.ValueError] for a field that is
// wrong, or [ErrNameTaken].
//
// A call whose outcome is open takes the client away again as far as it can.
func (s *Store) Create(ctx context.Context, n NewClient) (*Created, error) {
	if err := s.checkNew(&n); err != nil {
		return nil, err
	}
	text := newSecret()
	r := s.newRecord(store.NewID(clientPrefix), n, text)
	// A client that goes away must not leave one behind whose secret nobody knows.
	ctx = context.WithoutCancel(ctx)
	err := s.insert(ctx, r)
	if errors.Is(err, store.ErrUnavailable) {
		s.discard(ctx, r.ID)
	}
	if errors.Is(err, store.ErrDuplicate) {
		return nil, fmt.Errorf("%w: %q", ErrNameTaken, n.Name)
	}
	if err != nil {
		return nil, err
	}
	s.report(ctx, event.ClientCreated, r.ID, "")
	return &Created{Client: *s.client(r), Secret: text}, nil
}

func (s *Store) newRecord(id string, n NewClient, secret string) *record {
	now := store.Time(s.config.Now())
	return &record{
		ID: id, App: s.config.App, Name: n.Name, Scopes: n.Scopes, TokenTTL: int64(n.TokenTTL / time.Second),
		// A client that is made anew under its old id begins above all epochs that the
		// old one was revoked with: nobody changes a client once a second.
		Status: Active, Epoch: now.Unix(), SecretsEpoch: now.Unix(), CreatedAt: now,
		Secrets: []storedSecret{{ID: store.NewID(secretPrefix), Hash: digestOf(id, secret).stored(), CreatedAt: now}},
	}
}

// checkNew checks the fields and brings the scopes into their normal form.
func (s *Store) checkNew(n *NewClient) error {
	switch count := utf8.RuneCountInString(n.Name); {
	case !utf8.ValidString(n.Name) || strings.IndexFunc(n.Name, unicode.IsControl) >= 0:
		return fault("name", "must be UTF-8 without control characters")
	case strings.TrimSpace(n.Name) != n.Name || count < 1 || count > maxName:
		return fault("name", "must have 1 to %d characters and no space at its ends", maxName)
	case n.TokenTTL < 0 || n.TokenTTL > tokens.MaxAccessTTL || n.TokenTTL%time.Second != 0:
		return fault("token_ttl", "must be whole seconds up to %s", tokens.MaxAccessTTL)
	}
	var err error
	n.Scopes, err = s.checkScopes(n.Scopes)
	return err
}

// checkScopes returns the scopes in order, each once, and never nil.
func (s *Store) checkScopes(scopes []string) ([]string, error) {
	scopes = append([]string{}, scopes...)
	slices.Sort(scopes)
	scopes = slices.Compact(scopes)
	if len(scopes) > authz.MaxScopes {
		return nil, fault("scopes", "must be %d at most", authz.MaxScopes)
	}
	for _, scope := range scopes {
		if err := authz.CheckScope(scope); err != nil {
			return nil, err
		}
		if s.config.AllowedScopes != nil && !slices.Contains(s.config.AllowedScopes, scope) {
			return nil, fault("scopes", "must be of those that the app gives to clients; %q is not", scope)
		}
	}
	return scopes, nil
}

func fault(field, format string, args ...any) error {
	return &authz.ValueError{Field: field, Message: fmt.Sprintf(format, args...)}
}

func (s *Store) insert(ctx context.Context, r *record) error {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	_, err := s.coll.InsertOne(ctx, r)
	return store.Error("store the client", err)
}

// discard takes away a client whose insertion was not answered.
func (s *Store) discard(ctx context.Context, id string) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	_, _ = s.coll.DeleteOne(ctx, s.byID(id))
}
