package issuers

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/internal/strictjwt"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/m2m"
)

// Verified is a token of another issuer whose signature and claims have been
// checked. Only [Issuer.Verify] builds one. It is immutable and shared by all
// requests that present the same token.
//
// The app cannot revoke such a token; it ends by itself or with its key.
type Verified struct {
	issuer   *Config
	claims   *claims
	kind     authz.Kind
	metadata m2m.Metadata
	// key is the key that verified the token, and set the keys among which it was
	// found last.
	key strictjwt.Fingerprint
	set atomic.Pointer[keySet]
}

// Issuer returns "iss", the issuer's Config.Issuer.
func (v *Verified) Issuer() string { return v.issuer.Issuer }

// IssuerName returns the issuer's Config.Name.
func (v *Verified) IssuerName() string { return v.issuer.Name }

// Subject returns "sub", which is unique within the issuer only.
func (v *Verified) Subject() string { return v.claims.subject }

// ClientID returns the client that the token was issued to, "" if it does not say.
func (v *Verified) ClientID() string { return v.metadata.ClientID }

// Scopes returns the scopes. The slice is shared and must not be changed.
func (v *Verified) Scopes() []string { return v.metadata.Scopes }

// ID returns "jti", "" if there is none.
func (v *Verified) ID() string { return v.claims.id }

// ExpiresAt returns "exp".
func (v *Verified) ExpiresAt() time.Time { return v.claims.expires }

// IssuedAt returns "iat", zero if there is none.
func (v *Verified) IssuedAt() time.Time { return v.claims.issued }

// AuthTime returns when a person last proved to the issuer who they are
// ("auth_time"). It is zero if the token does not say it, says something that cannot
// be, or is no person's.
func (v *Verified) AuthTime() time.Time { return v.claims.authenticated }

// IsMachine reports whether a machine presents the token. False does not mean that
// a person does, see [Verified.Kind].
func (v *Verified) IsMachine() bool { return v.kind == authz.KindService }

// Kind returns [authz.KindService], [authz.KindHuman], or the zero value, which no
// guard lets pass, when the token does not say which ([m2m.Detector.Kind]).
func (v *Verified) Kind() authz.Kind { return v.kind }

// Claims returns all claims, numbers as float64. The map is shared and must not be
// changed.
func (v *Verified) Claims() map[string]any { return v.claims.all }

// Verify checks token: form and length, header, signature, then issuer, audience,
// subject and times. It waits for the issuer's keys where it has to, at most
// Config.Timeout or until ctx ends.
//
// The error wraps [tokens.ErrMalformed], [tokens.ErrInvalid], [tokens.ErrUnknownKey]
// (which is an ErrInvalid), [tokens.ErrExpired] or [ErrUnavailable]; nothing comes
// with any of them. A token without "kid" is accepted when exactly one key of the
// set has its algorithm.
//
// A token that was verified before is remembered by its exact bytes; its times, and
// that its key is still accepted, are checked again.
func (i *Issuer) Verify(ctx context.Context, token string) (*Verified, error) {
	now := i.config.Now()
	if v := i.cache.Get(token); v != nil {
		set, err := i.keys.current(ctx, now)
		if err != nil {
			return nil, err
		}
		if v.isKeyIn(set) {
			if err := i.config.checkTimes(v.claims, now); err != nil {
				i.cache.Drop(token)
				return nil, err
			}
			return v, nil
		}
		i.cache.Drop(token)
	}
	v, err := i.verify(ctx, token, now)
	if err != nil {
		return nil, err
	}
	if err := i.config.checkTimes(v.claims, i.config.Now()); err != nil {
		return nil, err
	}
	i.cache.Put(strings.Clone(token), v)
	return v, nil
}

func (i *Issuer) verify(ctx context.Context, token string, now time.Time) (*Verified, error) {
	parts, err := strictjwt.Split(token, tokens.MaxLength)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", tokens.ErrMalformed, err)
	}
	h, err := i.config.readHeader(parts.Header)
	if err != nil {
		return nil, err
	}
	set, key, err := i.keys.find(ctx, now, h.KeyID, h.Algorithm)
	if err != nil {
		return nil, err
	}
	// The signature comes before the claims are parsed: nothing of what an attacker
	// can write is read.
	if err := key.Method.Verify(parts.Signed, parts.Signature, key.Public); err != nil {
		return nil, fmt.Errorf("%w: signature", tokens.ErrInvalid)
	}
	claims, err := i.config.readClaims(parts.Payload, &h)
	if err != nil {
		return nil, err
	}
	v := &Verified{
		issuer: &i.config, claims: claims, key: key.Print,
		kind: i.detector.Kind(claims.all), metadata: i.detector.MetadataOf(claims.all),
	}
	if v.kind == authz.KindHuman {
		claims.authenticated = i.config.authTime(claims)
	}
	v.set.Store(set)
	return v, nil
}

// isKeyIn reports whether the key that verified the token is among those of set.
func (v *Verified) isKeyIn(set *keySet) bool {
	if v.set.Load() == set {
		return true
	}
	if !set.has(v.key) {
		return false
	}
	v.set.Store(set)
	return true
}
