package tokens

import "crypto"

// The algorithms that tokens can be signed with (RFC 7518 section 3.1, RFC 8037
// section 3.1). One app uses one.
const (
	HS256 = "HS256"
	EdDSA = "EdDSA"
	ES256 = "ES256"
	RS256 = "RS256"
)

// SigningKey is a key of an asymmetric algorithm.
type SigningKey struct {
	// ID is the "kid" that tokens name the key by.
	ID string
	// Algorithm is [EdDSA], [ES256] or [RS256]: the only one that the key is used
	// with (RFC 8725 section 3.1).
	Algorithm string
	// Private signs; nil for a key that only verifies.
	Private crypto.Signer
	// Public verifies.
	Public crypto.PublicKey
}
