package issuers

import (
	"fmt"
	"slices"

	"github.com/mandate-auth/mandate/internal/strictjwt"
	"github.com/mandate-auth/mandate/tokens"
)

// readHeader reads the header (RFC 7515 section 4.1) and checks algorithm and type.
func (c *Config) readHeader(raw []byte) (h strictjwt.Header, err error) {
	members, err := strictjwt.Object(raw)
	if err != nil {
		return h, fmt.Errorf("%w: header: %w", tokens.ErrMalformed, err)
	}
	if h, err = strictjwt.HeaderOf(members); err != nil {
		return h, fmt.Errorf("%w: header: %w", tokens.ErrInvalid, err)
	}
	if !slices.Contains(c.Algorithms, h.Algorithm) {
		return h, fmt.Errorf("%w: header: an algorithm that is not accepted", tokens.ErrInvalid)
	}
	if !slices.Contains(c.TokenTypes, h.Type) {
		return h, fmt.Errorf("%w: header: a type that is not accepted", tokens.ErrInvalid)
	}
	return h, nil
}

// marked reports whether the type says that the token is an access token.
func marked(h *strictjwt.Header) bool {
	return h.Type == "at+jwt" || h.Type == "application/at+jwt"
}
