package tokens

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Lifetime is when a token was issued and when it ends. Its methods answer
// what clients of an API ask; now is the time by which they answer.
type Lifetime struct {
	IssuedAt, ExpiresAt time.Time
}

// TimeLeft returns how long the token still lives, 0 when it is over.
func (l Lifetime) TimeLeft(now time.Time) time.Duration {
	return max(0, l.ExpiresAt.Sub(now))
}

// Age returns how long ago the token was issued, 0 when that is in the future.
func (l Lifetime) Age(now time.Time) time.Duration {
	return max(0, now.Sub(l.IssuedAt))
}

// Expired reports whether the token's time is over, without leeway.
func (l Lifetime) Expired(now time.Time) bool { return !now.Before(l.ExpiresAt) }

// ExpiringSoon reports whether the token ends within threshold, or has ended.
func (l Lifetime) ExpiringSoon(now time.Time, threshold time.Duration) bool {
	return l.TimeLeft(now) <= threshold
}

// ShouldRefresh reports whether it is time to fetch a new token: when less
// than a fifth of its life is left, and at the latest a minute before the end.
func (l Lifetime) ShouldRefresh(now time.Time) bool {
	return l.ExpiringSoon(now, max(time.Minute, l.ExpiresAt.Sub(l.IssuedAt)/5))
}

// Unverified is what a token says of itself. Nothing of it has been checked,
// not even the signature: it is good for showing and for planning a refresh,
// never for a decision about access.
type Unverified struct {
	// Type and KeyID are the "typ" and "kid" of the header.
	Type, KeyID string
	// ID, Subject, Issuer and SessionID are the claims of those names.
	ID, Subject, Issuer, SessionID string
	Lifetime
	// Claims are all claims, as JSON decodes them.
	Claims map[string]any
}

// Inspect reads what text says of itself without believing it. The error is
// [ErrMalformed].
func Inspect(text string) (*Unverified, error) {
	if len(text) > MaxLength {
		return nil, fmt.Errorf("%w: longer than %d bytes", ErrMalformed, MaxLength)
	}
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return nil, fmt.Errorf("%w: not three segments", ErrMalformed)
	}
	var head, body map[string]any
	for part, into := range map[string]*map[string]any{parts[0]: &head, parts[1]: &body} {
		raw, err := decodeSegment(part)
		if err != nil {
			return nil, err
		}
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.UseNumber()
		if err := dec.Decode(into); err != nil || *into == nil {
			return nil, fmt.Errorf("%w: not JSON", ErrMalformed)
		}
	}
	u := &Unverified{Claims: body}
	for name, into := range map[string]*string{"typ": &u.Type, "kid": &u.KeyID} {
		*into, _ = head[name].(string)
	}
	for name, into := range map[string]*string{"jti": &u.ID, "sub": &u.Subject, "iss": &u.Issuer, "sid": &u.SessionID} {
		*into, _ = body[name].(string)
	}
	u.IssuedAt, u.ExpiresAt = dateOf(body["iat"]), dateOf(body["exp"])
	return u, nil
}

// KeyID returns the "kid" of a token that says of itself that it is of this
// service, so that it may be worth to look for a new key, and "" for others.
// Nothing of it is believed.
func (s *Service) KeyID(text string) string {
	u, err := Inspect(text)
	if err != nil || u.Type != tokenType || u.Issuer != s.config.Issuer {
		return ""
	}
	return u.KeyID
}

func dateOf(v any) time.Time {
	n, ok := v.(json.Number)
	if !ok {
		return time.Time{}
	}
	seconds, err := n.Int64()
	if err != nil {
		return time.Time{}
	}
	return time.Unix(seconds, 0).UTC()
}
