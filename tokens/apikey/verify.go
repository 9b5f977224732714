package apikey

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/tokens"
)

// entry is a key that was looked up and may be used.
type entry struct {
	tokens.Remembered
	principal authz.Principal
	at        time.Time // when it was looked up
	used      atomic.Int64
}

// recent reports whether the entry may be used without another look-up. A clock that
// went backwards makes it old, not new.
func (e *entry) recent(now time.Time) bool {
	age := now.Sub(e.at)
	return age >= 0 && age < Remembered
}

// Owns reports whether text is meant to be a key of this app: it begins with the
// prefix. It says nothing about whether the key is good.
func (s *Store) Owns(text string) bool { return strings.HasPrefix(text, s.lead) }

// Verify returns who presents the key text. The principal is shared and must not be
// changed: its ID is the owner's, its TokenID the key's.
//
// The error is [tokens.ErrMalformed] for a text that is no key, [tokens.ErrInvalid]
// for a key that is not of this app, [tokens.ErrExpired], or [tokens.ErrRevoked] when
// the key was revoked or its owner may not sign in. It wraps [tokens.ErrStale] or
// store.ErrUnavailable when this instance cannot know; the key must not be let
// through.
func (s *Store) Verify(ctx context.Context, text string) (*authz.Principal, error) {
	// A text with a wrong checksum is refused before anything is asked: whoever
	// sends garbage causes no load on the database.
	if !wellFormed(s.lead, text) {
		return nil, tokens.ErrMalformed
	}
	sum, now := digestOf(text), s.config.Now()
	e := s.table.Get(sum)
	if e == nil || !e.recent(now) {
		s.observe(false)
		return s.lookUp(ctx, sum, now)
	}
	s.observe(true)
	if expired(e.principal.ExpiresAt, now) {
		return nil, s.refuse(ctx, e.UserID, e.ID, "expired", tokens.ErrExpired)
	}
	switch err := s.config.Blacklist.CheckRemembered(ctx, &e.Remembered); {
	case errors.Is(err, tokens.ErrOutdated):
		return s.lookUp(ctx, sum, now)
	case err != nil:
		return nil, err
	}
	s.use(e, now)
	return &e.principal, nil
}

// VerifyNow is [Store.Verify] with a look-up in any case, for where nothing that is
// remembered is to count.
func (s *Store) VerifyNow(ctx context.Context, text string) (*authz.Principal, error) {
	if !wellFormed(s.lead, text) {
		return nil, tokens.ErrMalformed
	}
	return s.lookUp(ctx, digestOf(text), s.config.Now())
}

func (s *Store) observe(hit bool) {
	if s.config.Observe != nil {
		s.config.Observe(hit)
	}
}

// refuse reports that a key was presented that is not good any more, or never was:
// the use of one that was revoked is what a leak looks like. A text that is no key is
// not reported. It returns err.
func (s *Store) refuse(ctx context.Context, owner, keyID, reason string, err error) error {
	s.report(ctx, event.APIKeyRefused, owner, keyID, reason)
	return err
}

// expired reports whether a key that ends at end is over. Zero is no end.
func expired(end, now time.Time) bool { return !end.IsZero() && !now.Before(end) }

// lookUp asks the database about a key and remembers one that is good. Others are
// not remembered: an attacker can make any number of them.
func (s *Store) lookUp(ctx context.Context, sum digest, now time.Time) (*authz.Principal, error) {
	r, err := s.find(ctx, sum)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, s.refuse(ctx, "", "", "unknown", tokens.ErrInvalid)
	case err != nil:
		return nil, err
	case !r.RevokedAt.IsZero():
		return nil, s.refuse(ctx, r.Owner, r.ID, "revoked", tokens.ErrRevoked)
	case expired(r.ExpiresAt, now):
		return nil, s.refuse(ctx, r.Owner, r.ID, "expired", tokens.ErrExpired)
	}
	// The epoch is taken before the account is read: a revocation that comes in
	// between outdates what is remembered.
	epoch := s.config.Blacklist.UserEpoch(r.Owner)
	kind, err := s.config.Accounts.Active(ctx, r.Owner)
	if errors.Is(err, ErrGone) || (err == nil && !mayOwn(kind)) {
		return nil, s.refuse(ctx, r.Owner, r.ID, "owner", fmt.Errorf("%w: its owner may not sign in", tokens.ErrRevoked))
	}
	if err != nil {
		return nil, err
	}
	scopes, err := s.left(ctx, r.Owner, r.Scopes)
	if err != nil {
		return nil, err
	}
	e := &entry{
		Remembered: tokens.Remembered{Kind: tokens.RevokedAPIKey, ID: r.ID, UserID: r.Owner, UserEpoch: epoch},
		principal: authz.Principal{
			ID: r.Owner, Kind: authz.KindAPIKey, App: s.config.App, TokenID: r.ID,
			Credential: authz.CredentialAPIKey, ExpiresAt: r.ExpiresAt, Scopes: scopes,
		},
		at: now,
	}
	if !r.LastUsedAt.IsZero() {
		e.used.Store(r.LastUsedAt.UnixMilli())
	}
	s.table.Put(sum, e)
	s.use(e, now)
	return &e.principal, nil
}

func (s *Store) find(ctx context.Context, sum digest) (*record, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	var r record
	err := s.coll.FindOne(ctx, bson.D{{Key: "hash", Value: sum.stored()}, {Key: "app", Value: s.config.App}},
		options.FindOne().SetProjection(bson.D{
			{Key: "owner", Value: 1},
			{Key: "scopes", Value: 1},
			{Key: "expires_at", Value: 1},
			{Key: "revoked_at", Value: 1},
			{Key: "last_used_at", Value: 1},
		})).Decode(&r)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil, store.ErrNotFound
	}
	if err != nil {
		return nil, store.Error("look up the API key", err)
	}
	return &r, nil
}
