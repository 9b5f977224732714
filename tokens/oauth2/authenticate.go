package oauth2

import (
	"context"
	"crypto/subtle"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/tokens"
)

// entry is a client whose secret was right.
type entry struct {
	client *Client
	// byClient is outdated by a change of the client, bySecrets by one of its
	// secrets.
	byClient, bySecrets tokens.Remembered
	at                  time.Time
}

// recent reports whether the entry may be used without another look-up. A clock that
// went backwards makes it old, not new.
func (e *entry) recent(now time.Time) bool {
	age := now.Sub(e.at)
	return age >= 0 && age < Remembered
}

// Authenticate returns the client that has the id and the secret. It is shared and
// must not be changed. A token for it has to carry its epoch.
//
// The error is [ErrInvalidClient], alike and at like cost for an unknown client, a
// wrong secret and a client that is disabled. It wraps [tokens.ErrStale] or
// store.ErrUnavailable when this instance cannot know; the client must not be let
// through.
func (s *Store) Authenticate(ctx context.Context, id, secret string) (*Client, error) {
	// The form of an id is public: to refuse it at once tells nothing about clients.
	if !store.ValidID(id, clientPrefix) || secret == "" || len(secret) > maxSecret {
		s.report(ctx, event.ClientRefused, "", "unknown_client")
		return nil, ErrInvalidClient
	}
	sum, now := digestOf(id, secret), s.config.Now()
	e := s.table.Get(sum)
	if e == nil || !e.recent(now) {
		return s.lookUp(ctx, id, sum, now)
	}
	err := s.config.Blacklist.CheckRemembered(ctx, &e.byClient)
	if err == nil {
		err = s.config.Blacklist.CheckRemembered(ctx, &e.bySecrets)
	}
	switch {
	case errors.Is(err, tokens.ErrOutdated):
		return s.lookUp(ctx, id, sum, now)
	case err != nil:
		return nil, err
	}
	return e.client, nil
}

// AuthenticateNow is [Store.Authenticate] with a look-up in any case, for where
// nothing that is remembered is to count.
func (s *Store) AuthenticateNow(ctx context.Context, id, secret string) (*Client, error) {
	if !store.ValidID(id, clientPrefix) || secret == "" || len(secret) > maxSecret {
		return nil, ErrInvalidClient
	}
	return s.lookUp(ctx, id, digestOf(id, secret), s.config.Now())
}

// lookUp asks the database about a client and remembers a secret that is right.
// Others are not remembered: an attacker can make any number of them.
func (s *Store) lookUp(ctx context.Context, id string, sum digest, now time.Time) (*Client, error) {
	r, err := s.read(ctx, id)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	unknown := err != nil
	if unknown {
		r = &record{}
	}
	right := match(r.Secrets, sum.stored())
	reason := ""
	switch {
	case unknown:
		reason = "unknown_client"
	case !right:
		reason = "wrong_secret"
	case r.Status != Active:
		reason = "client_disabled"
	}
	if reason != "" {
		s.report(ctx, event.ClientRefused, id, reason)
		return nil, ErrInvalidClient
	}
	e := &entry{
		client:    s.client(r),
		byClient:  tokens.Remembered{Kind: tokens.RevokedClient, ID: r.ID, Epoch: r.Epoch},
		bySecrets: tokens.Remembered{Kind: tokens.RevokedClient, ID: secretsOf(r.ID), Epoch: r.SecretsEpoch},
		at:        now,
	}
	s.table.Put(sum, e)
	return e.client, nil
}

// nobody stands where a client has no secret. It is as long as a digest in base64 and
// none: the last character of one holds four bits only, and "-" is 62.
var nobody = strings.Repeat("-", len(digest{}.stored()))

// match reports whether one of the secrets has the hash. It compares as often for
// every client, one that is not there included.
func match(secrets []storedSecret, hash string) bool {
	found := 0
	for i := range maxSecrets {
		have := nobody
		if i < len(secrets) {
			have = secrets[i].Hash
		}
		found |= subtle.ConstantTimeCompare([]byte(have), []byte(hash))
	}
	return found == 1
}

// GrantScopes returns the scopes of a token for which requested was asked, a list
// with single spaces (RFC 6749 section 3.3): what was asked, in order and each once,
// or all of the client's when nothing was. The error is [ErrInvalidScope] when it is
// no such list or the client has not every one of them.
func GrantScopes(client *Client, requested string) ([]string, error) {
	if requested == "" {
		return slices.Clone(client.Scopes), nil
	}
	scopes := strings.Split(requested, " ")
	if len(scopes) > authz.MaxScopes {
		return nil, ErrInvalidScope
	}
	slices.Sort(scopes)
	scopes = slices.Compact(scopes)
	for _, scope := range scopes {
		if !slices.Contains(client.Scopes, scope) {
			return nil, ErrInvalidScope
		}
	}
	return scopes, nil
}
