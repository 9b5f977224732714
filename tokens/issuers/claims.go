package issuers

import (
	"fmt"
	"slices"
	"time"

	"github.com/mandate-auth/mandate/internal/strictjwt"
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
func (c *Config) readClaims(raw []byte, h *strictjwt.Header) (*claims, error) {
	all, err := strictjwt.Object(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: claims: %w", tokens.ErrInvalid, err)
	}
	if all["iss"] != any(c.Issuer) {
		return nil, fmt.Errorf("%w: issuer", tokens.ErrInvalid)
	}
	if !c.isForUs(all) {
		return nil, fmt.Errorf("%w: audience", tokens.ErrInvalid)
	}
	if !marked(h) && isIDToken(all) {
		return nil, fmt.Errorf("%w: an ID token", tokens.ErrInvalid)
	}
	result := &claims{all: all}
	if result.subject, err = strictjwt.Text(all, "sub"); err != nil {
		return nil, fmt.Errorf("%w: %w", tokens.ErrInvalid, err)
	}
	if _, there := all["jti"]; there {
		if result.id, err = strictjwt.Text(all, "jti"); err != nil {
			return nil, fmt.Errorf("%w: %w", tokens.ErrInvalid, err)
		}
	}
	for name, into := range map[string]*time.Time{"exp": &result.expires, "iat": &result.issued, "nbf": &result.notBefore} {
		value, there := all[name]
		if !there && name != "exp" {
			continue
		}
		if *into, err = strictjwt.NumericDate(value); err != nil {
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

// authTime returns "auth_time" (OpenID Connect Core section 2), or zero. One that
// lies after the token's issue or in the future would make a sign-in look younger
// than it is.
func (c *Config) authTime(t *claims) time.Time {
	at, err := strictjwt.NumericDate(t.all["auth_time"])
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
