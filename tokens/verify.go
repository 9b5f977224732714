package tokens

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mandate-auth/mandate/authz"
)

// Verified is a token whose signature and every claim have been checked. Only
// [Service.Verify] builds one. It is immutable and shared by all requests that
// present the same token.
//
// That it has not been revoked is a question of its own: [Blacklist.Check].
type Verified struct {
	claims claims
	bearer authz.Principal
	cookie authz.Principal
	// header is the token's first segment, and ring the keys among which it was
	// found last.
	header string
	ring   atomic.Pointer[keyring]
	// clean is the version of the blacklist, plus one, in which the token was
	// last found not to be revoked.
	clean atomic.Uint64
	// used is when the token's use was last noted, in Unix milliseconds.
	used atomic.Int64
}

// Subject returns the account's id ("sub").
func (v *Verified) Subject() string { return v.claims.subject }

// ID returns the token's id ("jti").
func (v *Verified) ID() string { return v.claims.id }

// SessionID returns the session that the token belongs to ("sid").
func (v *Verified) SessionID() string { return v.claims.session }

// Kind returns the account's kind ("sub_type").
func (v *Verified) Kind() authz.Kind { return v.claims.kind }

// Epoch returns the epoch of the user's session head at the time of issue.
func (v *Verified) Epoch() int64 { return v.claims.epoch }

// AuthTime returns when the user last proved who they are ("auth_time").
func (v *Verified) AuthTime() time.Time { return v.claims.authTime }

// Lifetime returns when the token was issued and when it ends.
func (v *Verified) Lifetime() Lifetime { return v.claims.Lifetime }

// Claims returns the custom claims. The map is shared and must not be changed.
func (v *Verified) Claims() map[string]any { return v.claims.custom }

// Principal returns who presents the token, by the credential that carried it.
// It is built once and shared.
func (v *Verified) Principal(c authz.Credential) *authz.Principal {
	if c == authz.CredentialCookie {
		return &v.cookie
	}
	return &v.bearer
}

// Verify checks text by RFC 8725 section 3 and RFC 9068 section 4: form and
// length, the header, the signature, then issuer, audience, subject, type and
// times. It touches no database.
//
// The error is [ErrMalformed], [ErrInvalid] or [ErrExpired]. A token that was
// verified before is remembered by its exact bytes; only its times are checked
// again.
func (s *Service) Verify(text string) (*Verified, error) {
	now := s.config.Now()
	v := s.cache.Get(text)
	if s.config.Observe != nil {
		s.config.Observe(v != nil)
	}
	if v != nil {
		if err := s.Accepts(v); err != nil {
			return nil, err
		}
		if err := s.checkTimes(&v.claims, now); err != nil {
			return nil, err
		}
		return v, nil
	}
	v, err := s.verify(text)
	if err != nil {
		return nil, err
	}
	if err := s.checkTimes(&v.claims, now); err != nil {
		return nil, err
	}
	s.cache.Put(strings.Clone(text), v)
	return v, nil
}

// Accepts returns nil while the key that signed v is one of the service's keys, and
// [ErrUnknownKey] when that has ended since v was verified. It is asked after
// [Blacklist.Check], which may have learnt of new keys.
func (s *Service) Accepts(v *Verified) error {
	ring := s.ring.Load()
	if v.ring.Load() == ring {
		return nil
	}
	if _, known := ring.accepted[v.header]; !known {
		return ErrUnknownKey
	}
	v.ring.Store(ring)
	return nil
}

func (s *Service) verify(text string) (*Verified, error) {
	ring := s.ring.Load()
	signed, payload, signature, key, err := ring.split(text)
	if err != nil {
		return nil, err
	}
	mac, err := decodeSegment(signature)
	if err != nil {
		return nil, err
	}
	// The signature comes before the claims are parsed: nothing of what an
	// attacker can write is decoded.
	if err := key.method.Verify(signed, mac, key.key); err != nil {
		return nil, fmt.Errorf("%w: signature", ErrInvalid)
	}
	raw, err := decodeSegment(payload)
	if err != nil {
		return nil, err
	}
	v := &Verified{header: strings.Clone(signed[:strings.IndexByte(signed, '.')])}
	v.ring.Store(ring)
	c := &v.claims
	if err := c.decode(raw); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := s.checkClaims(c); err != nil {
		return nil, err
	}
	v.bearer = authz.Principal{
		ID: c.subject, Kind: c.kind, App: s.config.App, SessionID: c.session, TokenID: c.id, Credential: authz.CredentialBearer,
		AuthTime: c.authTime, ExpiresAt: c.ExpiresAt, Scopes: c.scopes, Claims: c.custom,
	}
	if c.kind == authz.KindService {
		v.bearer.Credential, v.bearer.ClientID = authz.CredentialClientToken, c.client
	}
	v.cookie = v.bearer
	v.cookie.Credential = authz.CredentialCookie
	return v, nil
}

// split takes the token apart and finds its key by the header.
func (r *keyring) split(text string) (signed, payload, signature string, key acceptedKey, err error) {
	if len(text) > MaxLength {
		return "", "", "", key, fmt.Errorf("%w: longer than %d bytes", ErrMalformed, MaxLength)
	}
	first := strings.IndexByte(text, '.')
	last := strings.LastIndexByte(text, '.')
	if first <= 0 || last <= first+1 || last == len(text)-1 || strings.IndexByte(text[first+1:last], '.') >= 0 {
		return "", "", "", key, fmt.Errorf("%w: not three segments", ErrMalformed)
	}
	key, known := r.accepted[text[:first]]
	if !known {
		return "", "", "", key, ErrUnknownKey
	}
	return text[:last], text[first+1 : last], text[last+1:], key, nil
}

// segments is strict: no padding, no line breaks, no stray bits at the end.
var segments = base64.RawURLEncoding.Strict()

// decodeSegment decodes one segment. A decoder alone is not strict enough: Go's
// skips CR and LF, so that one token would have several spellings.
func decodeSegment(text string) ([]byte, error) {
	if strings.ContainsAny(text, "\r\n") {
		return nil, fmt.Errorf("%w: line break", ErrMalformed)
	}
	raw, err := segments.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return raw, nil
}

func (s *Service) checkClaims(c *claims) error {
	switch {
	case c.issuer != s.config.Issuer:
		return fmt.Errorf("%w: issuer", ErrInvalid)
	case c.audience != s.config.Audience:
		return fmt.Errorf("%w: audience", ErrInvalid)
	case c.subject == "" || c.id == "" || !knownKind(c.kind):
		return fmt.Errorf("%w: a required claim is missing", ErrInvalid)
	case c.ExpiresAt.IsZero() || c.IssuedAt.IsZero():
		return fmt.Errorf("%w: a required time is missing", ErrInvalid)
	case c.kind == authz.KindService:
		// The rules for machines and for accounts exclude each other (RFC 8725
		// section 3.12).
		if c.client != c.subject || c.session != "" || !c.authTime.IsZero() {
			return fmt.Errorf("%w: not a client's", ErrInvalid)
		}
		return nil
	case c.client != s.config.App:
		return fmt.Errorf("%w: client", ErrInvalid)
	case c.session == "" || c.authTime.IsZero():
		return fmt.Errorf("%w: session or auth_time is missing", ErrInvalid)
	default:
		return nil
	}
}

// checkTimes runs on every use of a token, remembered or not.
func (s *Service) checkTimes(c *claims, now time.Time) error {
	if !now.Before(c.ExpiresAt.Add(s.config.Leeway)) {
		return ErrExpired
	}
	if now.Add(s.config.Leeway).Before(c.IssuedAt) || now.Add(s.config.Leeway).Before(c.notBefore) {
		return fmt.Errorf("%w: not valid yet; compare the clocks of the instances", ErrInvalid)
	}
	return nil
}

// VerifyEnded is [Service.Verify] for a token whose time may be over. It is for
// ending the token's session, and for nothing else.
func (s *Service) VerifyEnded(text string) (*Verified, error) {
	v, err := s.verify(text)
	if err != nil {
		return nil, err
	}
	if err := s.checkTimes(&v.claims, s.config.Now()); err != nil && !errors.Is(err, ErrExpired) {
		return nil, err
	}
	return v, nil
}

// NoteUse reports whether the token is used for the first time within interval,
// so that activity is written seldom and decided without a lock.
func (v *Verified) NoteUse(now time.Time, interval time.Duration) bool {
	last, at := v.used.Load(), now.UnixMilli()
	return at-last >= interval.Milliseconds() && v.used.CompareAndSwap(last, at)
}
