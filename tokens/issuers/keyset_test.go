package issuers_test

import (
	"crypto/ecdsa"
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/issuers"
)

var every = []string{"RS256", "ES256", "EdDSA", "ES384", "RS384", "RS512"}

// A key that should not have been taken verifies what should not have been accepted.
func TestWhichKeysAreTaken(t *testing.T) {
	t.Parallel()
	m := material()
	weak := jwk(t, "k", m.ed, map[string]any{"x": b64(make([]byte, 32))}) // a point of low order
	offCurve := jwk(t, "k", m.p256, map[string]any{"y": b64(make([]byte, 32))})
	infinity := jwk(t, "k", m.p256, map[string]any{"x": b64(make([]byte, 32)), "y": b64(make([]byte, 32))})
	otherCurve := jwk(t, "k", m.p256, map[string]any{"crv": "P-384"})
	short := jwk(t, "k", m.p256, map[string]any{"x": "AA"})
	huge := strings.Repeat("_", 1000)
	tests := []struct {
		name string
		key  map[string]any
		want string
	}{
		{"RSA", jwk(t, "k", m.rsa, nil), "RS256 k"},
		{"RSA for RS512", jwk(t, "k", m.rsa, map[string]any{"alg": "RS512"}), "RS512 k"},
		{"P-256", jwk(t, "k", m.p256, map[string]any{"alg": "ES256", "use": "sig"}), "ES256 k"},
		{"P-384", jwk(t, "k", m.p384, nil), "ES384 k"},
		{"Ed25519", jwk(t, "k", m.ed, nil), "EdDSA k"},
		{"to verify", jwk(t, "k", m.ed, map[string]any{"key_ops": []any{"verify"}}), "EdDSA k"},
		{"without an id", jwk(t, "", m.ed, nil), "EdDSA "},
		{"with certificates that nobody reads", jwk(t, "k", m.ed, map[string]any{"x5c": []any{"!"}, "x5u": ":", "x5t": "!"}), "EdDSA k"},
		{"with a member that nobody knows", jwk(t, "k", m.ed, map[string]any{"exp": 1, "iss": "x"}), "EdDSA k"},

		{"for encryption", jwk(t, "k", m.rsa, map[string]any{"use": "enc"}), ""},
		{"for no use", jwk(t, "k", m.rsa, map[string]any{"use": ""}), ""},
		{"use of wrong type", jwk(t, "k", m.rsa, map[string]any{"use": []any{"sig"}}), ""},
		{"to encrypt", jwk(t, "k", m.rsa, map[string]any{"key_ops": []any{"encrypt"}}), ""},
		{"operations of wrong type", jwk(t, "k", m.rsa, map[string]any{"key_ops": "verify"}), ""},
		{"for PS256", jwk(t, "k", m.rsa, map[string]any{"alg": "PS256"}), ""},
		{"for RSA-OAEP", jwk(t, "k", m.rsa, map[string]any{"alg": "RSA-OAEP"}), ""},
		{"for HS256", jwk(t, "k", m.rsa, map[string]any{"alg": "HS256"}), ""},
		{"for none", jwk(t, "k", m.rsa, map[string]any{"alg": "none"}), ""},
		{"RSA for ES256", jwk(t, "k", m.rsa, map[string]any{"alg": "ES256"}), ""},
		{"P-256 for ES384", jwk(t, "k", m.p256, map[string]any{"alg": "ES384"}), ""},
		{"P-256 for RS256", jwk(t, "k", m.p256, map[string]any{"alg": "RS256"}), ""},
		{"P-521", jwk(t, "k", m.p521, nil), ""},
		{"RSA of 1,024 bits", jwk(t, "k", m.smallRSA, nil), ""},
		{"RSA of 6,000 bits", jwk(t, "k", m.rsa, map[string]any{"n": huge}), ""},
		{"RSA with an even modulus", jwk(t, "k", m.rsa, map[string]any{"n": b64(append(m.rsa.N.Bytes()[:255], 0))}), ""},
		{"RSA with exponent 1", jwk(t, "k", m.rsa, map[string]any{"e": "AQ"}), ""},
		{"RSA with an even exponent", jwk(t, "k", m.rsa, map[string]any{"e": "AQAA"}), ""},
		{"RSA with a huge exponent", jwk(t, "k", m.rsa, map[string]any{"e": "AQAAAAE"}), ""},
		{"RSA without exponent", jwk(t, "k", m.rsa, map[string]any{"e": ""}), ""},
		{"a point that is not on the curve", offCurve, ""},
		{"the point at infinity", infinity, ""},
		{"a point of another curve", otherCurve, ""},
		{"half a point", short, ""},
		{"a weak point", weak, ""},
		{"X25519", jwk(t, "k", m.ed, map[string]any{"crv": "X25519"}), ""},
		{"no type", jwk(t, "k", m.ed, map[string]any{"kty": "x"}), ""},
		{"symmetric", map[string]any{"kty": "oct", "kid": "k", "k": b64(make([]byte, 32)), "alg": "HS256"}, ""},
		{"symmetric, called RS256", map[string]any{"kty": "oct", "kid": "k", "k": b64(make([]byte, 32)), "alg": "RS256"}, ""},
		{"private", jwk(t, "k", m.ed, map[string]any{"d": b64(m.ed.Seed())}), ""},
		{"a bit private", jwk(t, "k", m.rsa, map[string]any{"p": "AQAB"}), ""},
		{"id of wrong type", jwk(t, "k", m.ed, map[string]any{"kid": 1}), ""},
		{"long id", jwk(t, strings.Repeat("k", 256), m.ed, nil), ""},
		{"nothing", map[string]any{}, ""},
	}
	for _, test := range tests {
		got, ignored, err := issuers.ParseKeys(jwks(t, test.key), every)
		if err != nil || strings.Join(got, "; ") != test.want || (ignored == 1) != (test.want == "") {
			t.Errorf("%s: got %q, %d ignored, %v, want %q", test.name, got, ignored, err, test.want)
		}
	}
	got, ignored, err := issuers.ParseKeys(jwks(t, jwk(t, "a", m.smallRSA, nil), jwk(t, "b", m.ed, nil), jwk(t, "c", m.p256, nil)), []string{"EdDSA"})
	if err != nil || len(got) != 1 || ignored != 2 {
		t.Errorf("one bad key takes the others with it, or an algorithm that is not accepted is taken: %q, %d, %v", got, ignored, err)
	}
}

func TestWhatIsNoSet(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{
		``, `null`, `[]`, `"keys"`, `{}`, `{"keys":null}`, `{"keys":{}}`, `{"keys":"x"}`, `{"keys":[]`, `{"keys":[]}{}`, `{"Keys":[]}`, `{"keys":[],"keys":[]}`,
		`{"keys":[{"kid":"a","kid":"b"}]}`, "{\"keys\":[],\"x\":\"\xff\"}", `<html>`, `{"keys":[` + strings.Repeat(`{},`, 200) + `{}]}`,
		strings.Repeat(`[`, 100000), `{"keys":` + strings.Repeat(`[`, 1000) + strings.Repeat(`]`, 1000) + `}`,
	} {
		if got, _, err := issuers.ParseKeys([]byte(raw), every); err == nil || len(got) != 0 {
			t.Errorf("%.40q: got %q, %v, want an error", raw, got, err)
		}
	}
	for _, raw := range []string{`{"keys":[]}`, `{"keys":[null,1,"x",[],{}],"x":1}`} {
		if got, _, err := issuers.ParseKeys([]byte(raw), every); err != nil || len(got) != 0 {
			t.Errorf("%s: got %q, %v, want a set without keys", raw, got, err)
		}
	}
}

// A token without "kid" has one key that it can mean, or none; one whose id is two
// keys' is nobody's.
func TestAmbiguousKeys(t *testing.T) {
	t.Parallel()
	m := material()
	by := func(key *ecdsa.PrivateKey, kid string) string {
		head := map[string]any{"alg": "ES256", "kid": kid}
		if kid == "" {
			delete(head, "kid")
		}
		return sign(t, jwt.SigningMethodES256, key, head, good())
	}
	e1, e2, r1 := jwk(t, "e1", m.p256, nil), jwk(t, "e2", m.otherP256, nil), jwk(t, "r1", m.rsa, nil)
	twin := maps.Clone(e2)
	twin["kid"] = "e1"
	family := maps.Clone(r1)
	family["kid"] = "e1"
	tests := []struct {
		name  string
		keys  []map[string]any
		token string
		good  bool
	}{
		{"one key fits", []map[string]any{e1, r1}, by(m.p256, ""), true},
		{"the only key has no id", []map[string]any{jwk(t, "", m.p256, nil), r1}, by(m.p256, ""), true},
		{"two keys fit", []map[string]any{e1, e2}, by(m.p256, ""), false},
		{"none fits", []map[string]any{r1}, by(m.p256, ""), false},
		{"another's signature", []map[string]any{e1, r1}, by(m.otherP256, ""), false},
		{"an id for a key without one", []map[string]any{jwk(t, "", m.p256, nil)}, by(m.p256, "e1"), false},
		{"two keys of one id: the first", []map[string]any{e1, twin}, by(m.p256, "e1"), false},
		{"two keys of one id: the second", []map[string]any{e1, twin}, by(m.otherP256, "e1"), false},
		{"the same key twice", []map[string]any{e1, e1}, by(m.p256, "e1"), false},
		{"one id in two families", []map[string]any{e1, family}, by(m.p256, "e1"), true},
	}
	for _, test := range tests {
		e := newEvil(t)
		e.serve("/jwks", jwks(t, test.keys...))
		i, _ := open(t, e)
		v, err := i.Verify(t.Context(), test.token)
		if (err == nil) != test.good || (v != nil) != test.good || (err != nil && !errors.Is(err, tokens.ErrInvalid)) {
			t.Errorf("%s: got %v", test.name, err)
		}
	}
}
