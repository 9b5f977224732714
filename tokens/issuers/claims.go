package issuers

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/mandate-auth/mandate/tokens"
)

// claims are the claims that are checked.
type claims struct {
	subject, id                string
	expires, issued, notBefore time.Time
	authenticated              time.Time
	all                        map[string]any
}

// readClaims reads and checks every claim but for the times.
func (c *Config) readClaims(raw []byte, h *header) (*claims, error) {
	all, err := object(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: claims: %w", tokens.ErrInvalid, err)
	}
	if all["iss"] != any(c.Issuer) {
		return nil, fmt.Errorf("%w: issuer", tokens.ErrInvalid)
	}
	if !c.isForUs(all) {
		return nil, fmt.Errorf("%w: audience", tokens.ErrInvalid)
	}
	if !h.marked() && isIDToken(all) {
		return nil, fmt.Errorf("%w: an ID token", tokens.ErrInvalid)
	}
	result := &claims{all: all}
	if result.subject, err = text(all, "sub"); err != nil {
		return nil, fmt.Errorf("%w: %w", tokens.ErrInvalid, err)
	}
	if _, there := all["jti"]; there {
		if result.id, err = text(all, "jti"); err != nil {
			return nil, fmt.Errorf("%w: %w", tokens.ErrInvalid, err)
		}
	}
	for name, into := range map[string]*time.Time{"exp": &result.expires, "iat": &result.issued, "nbf": &result.notBefore} {
		value, there := all[name]
		if !there && name != "exp" {
			continue
		}
		if *into, err = numericDate(value); err != nil {
			return nil, fmt.Errorf("%w: %q: %w", tokens.ErrInvalid, name, err)
		}
	}
	return result, nil
}

// isForUs reports whether the token is for this service: the audience claim names
// one of ours, and so does "aud" if that is another claim and there.
func (c *Config) isForUs(all map[string]any) bool {
	if value, there := all["aud"]; there && !c.names(value) {
		return false
	}
	return c.names(all[c.AudienceClaim])
}

// names reports whether the value is one of the audiences or a list of strings with
// one of them (RFC 7519 section 4.1.3). In a list with anything but strings nothing
// is looked for.
func (c *Config) names(value any) bool {
	if s, ok := value.(string); ok {
		return slices.Contains(c.Audience, s)
	}
	list, _ := value.([]any)
	found := false
	for _, item := range list {
		s, ok := item.(string)
		if !ok {
			return false
		}
		found = found || slices.Contains(c.Audience, s)
	}
	return found
}

// isIDToken reports whether the claims are those of an ID token (OpenID Connect
// Core section 3.1.3.6; "token_use" is Amazon Cognito's): who got one at a sign-in
// has no business with an API.
func isIDToken(all map[string]any) bool {
	for _, name := range []string{"at_hash", "c_hash", "s_hash"} {
		if _, there := all[name]; there {
			return true
		}
	}
	return all["token_use"] == any("id")
}

// numericDate reads a NumericDate (RFC 7519 section 2). Fractions are cut off.
func numericDate(value any) (time.Time, error) {
	seconds, ok := value.(float64)
	// Beyond year 9999 there is no date that anything else could write.
	if !ok || seconds < 1 || seconds > 253402300799 {
		return time.Time{}, errors.New("not a date")
	}
	return time.Unix(int64(math.Floor(seconds)), 0).UTC(), nil
}

// authTime returns "auth_time" (OpenID Connect Core section 2), or zero. One that
// lies after the token's issue or in the future would make a sign-in look younger
// than it is.
func (c *Config) authTime(t *claims) time.Time {
	at, err := numericDate(t.all["auth_time"])
	if err != nil || at.After(c.Now().Add(c.Leeway)) || (!t.issued.IsZero() && at.After(t.issued)) {
		return time.Time{}
	}
	return at
}

// checkTimes runs on every use of a token, remembered or not.
func (c *Config) checkTimes(t *claims, now time.Time) error {
	if !now.Before(t.expires.Add(c.Leeway)) {
		return tokens.ErrExpired
	}
	if now.Add(c.Leeway).Before(t.issued) || now.Add(c.Leeway).Before(t.notBefore) {
		return fmt.Errorf("%w: not valid yet; compare the clock with the issuer's", tokens.ErrInvalid)
	}
	return nil
}
