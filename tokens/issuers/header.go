package issuers

import (
	"fmt"
	"slices"

	"github.com/golang-jwt/jwt/v5"

	"github.com/mandate-auth/mandate/tokens"
)

// methods are the algorithms, by name. The keys of every one of them are public:
// where a verifier knows both kinds, a public key can be passed off as a secret.
var methods = map[string]jwt.SigningMethod{
	"RS256": jwt.SigningMethodRS256, "RS384": jwt.SigningMethodRS384, "RS512": jwt.SigningMethodRS512,
	"ES256": jwt.SigningMethodES256, "ES384": jwt.SigningMethodES384, "EdDSA": jwt.SigningMethodEdDSA,
}

// header is what the header of a token says. Nothing of it is believed: it chooses
// among keys and types that are accepted anyway.
type header struct {
	algorithm string
	// key is the "kid", "" for none.
	key string
	// kind is the "typ", "" for none.
	kind string
}

// readHeader reads the header (RFC 7515 section 4.1). Its members are "alg", "kid",
// "typ" and the thumbprints "x5t" and "x5t#S256", which name a certificate and are
// of no use here. Every other one is refused: those that bring a key or say where to
// get it (jwk, jku, x5c, x5u), those that change what is verified (b64, zip, cty,
// enc), "crit", and what nobody knows.
func (c *Config) readHeader(raw []byte) (h header, err error) {
	members, err := object(raw)
	if err != nil {
		return h, fmt.Errorf("%w: header: %w", tokens.ErrMalformed, err)
	}
	for name := range members {
		var value string
		if value, err = text(members, name); err != nil {
			return h, fmt.Errorf("%w: header: %w", tokens.ErrInvalid, err)
		}
		switch name {
		case "alg":
			h.algorithm = value
		case "kid":
			h.key = value
		case "typ":
			h.kind = value
		case "x5t", "x5t#S256":
		default:
			return h, fmt.Errorf("%w: header: a member that is not accepted", tokens.ErrInvalid)
		}
	}
	if !slices.Contains(c.Algorithms, h.algorithm) {
		return h, fmt.Errorf("%w: header: an algorithm that is not accepted", tokens.ErrInvalid)
	}
	if !slices.Contains(c.TokenTypes, h.kind) {
		return h, fmt.Errorf("%w: header: a type that is not accepted", tokens.ErrInvalid)
	}
	return h, nil
}

// marked reports whether the type says that the token is an access token.
func (h *header) marked() bool { return h.kind == "at+jwt" || h.kind == "application/at+jwt" }
