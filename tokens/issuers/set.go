package issuers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mandate-auth/mandate/internal/strictjwt"
	"github.com/mandate-auth/mandate/tokens"
)

// Set are the issuers whose tokens an app accepts. It is safe for concurrent use.
// The nil Set owns nothing.
type Set struct {
	list []*Issuer
	// by finds them by "iss".
	by map[string]*Issuer
}

// NewSet returns the set of the issuers. Two of one name or of one "iss" are an
// error.
func NewSet(issuers ...*Issuer) (*Set, error) {
	s := &Set{list: slices.Clone(issuers), by: make(map[string]*Issuer, len(issuers))}
	names := map[string]bool{}
	for _, i := range issuers {
		c := &i.config
		if names[c.Name] || s.by[c.Issuer] != nil {
			return nil, fmt.Errorf("issuers: %q (%s) is given twice", c.Name, c.Issuer)
		}
		names[c.Name], s.by[c.Issuer] = true, i
	}
	return s, nil
}

// Owns returns the issuer whose business token is: the one that its "iss" names,
// byte for byte. It believes nothing of what it reads; [Issuer.Verify] decides. A
// text that is no token, or names no issuer of the set, is nobody's.
//
// For a token that was verified before, it reads nothing.
func (s *Set) Owns(token string) (issuer *Issuer, found bool) {
	if s == nil || len(token) > tokens.MaxLength {
		return nil, false
	}
	for _, i := range s.list {
		if i.cache.Get(token) != nil {
			return i, true
		}
	}
	_, rest, _ := strings.Cut(token, ".")
	payload, signature, two := strings.Cut(rest, ".")
	if !two || strings.Contains(signature, ".") {
		return nil, false
	}
	raw, err := strictjwt.DecodeSegment(payload)
	if err != nil {
		return nil, false
	}
	var claims struct {
		Issuer string `json:"iss"`
	}
	if json.Unmarshal(raw, &claims) != nil {
		return nil, false
	}
	issuer, found = s.by[claims.Issuer]
	return issuer, found
}

// Verify is [Issuer.Verify] of the issuer that owns token. A token that nobody owns
// is a [tokens.ErrInvalid].
func (s *Set) Verify(ctx context.Context, token string) (*Verified, error) {
	issuer, found := s.Owns(token)
	if !found {
		return nil, fmt.Errorf("%w: of no issuer that is accepted", tokens.ErrInvalid)
	}
	return issuer.Verify(ctx, token)
}

// Close closes every issuer.
func (s *Set) Close(ctx context.Context) error {
	if s == nil {
		return nil
	}
	var errs []error
	for _, i := range s.list {
		errs = append(errs, i.Close(ctx))
	}
	return errors.Join(errs...)
}
