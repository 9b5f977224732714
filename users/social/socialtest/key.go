package socialtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
)

// Key is a key of a [Provider].
type Key struct {
	// ID is the "kid", "" for none.
	ID string
	// Algorithm is what it signs with.
	Algorithm string
	Private   crypto.Signer
	// More are further members of the JWK.
	More map[string]any
}

// NewKey makes a key of EdDSA, ES256 or RS256.
func NewKey(tb testing.TB, algorithm, id string) Key {
	tb.Helper()
	k := Key{ID: id, Algorithm: algorithm}
	var err error
	switch algorithm {
	case "EdDSA":
		_, k.Private, err = generateEd25519()
	case "ES256":
		k.Private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "RS256":
		k.Private, err = rsa.GenerateKey(rand.Reader, 2048)
	default:
		tb.Fatalf("no keys of %q", algorithm)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func generateEd25519() (crypto.PublicKey, crypto.Signer, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	return public, private, err
}

// Public returns the members of the public JWK.
func (k Key) Public() map[string]any {
	members := map[string]any{}
	raw, err := json.Marshal(jose.JSONWebKey{Key: k.Private.Public(), KeyID: k.ID, Algorithm: k.Algorithm, Use: "sig"})
	if err == nil {
		err = json.Unmarshal(raw, &members)
	}
	if err != nil {
		panic(err)
	}
	for name, value := range k.More {
		members[name] = value
	}
	return members
}

// Sign makes a token of a header and claims: values, or JSON as it stands. It is signed
// with the key and its algorithm, whatever the header says.
func (k Key) Sign(header, claims any) string {
	return SignWith(jwt.GetSigningMethod(k.Algorithm), k.Private, header, claims)
}

// SignWith is Sign with any method and key.
func SignWith(method jwt.SigningMethod, key, header, claims any) string {
	signed := segment(header) + "." + segment(claims)
	signature, err := method.Sign(signed, key)
	if err != nil {
		panic(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func segment(value any) string {
	raw, ok := value.(json.RawMessage)
	if !ok {
		var err error
		if raw, err = json.Marshal(value); err != nil {
			panic(err)
		}
	}
	return base64.RawURLEncoding.EncodeToString(raw)
}
