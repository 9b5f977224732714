package issuers_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/issuers"
)

// fixed is a key that is the same in every process: workers of a fuzz target share
// what they find, and a signature that is made anew each time would look like news.
var fixed = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))

// FuzzVerify looks for a token that nobody signed and that is accepted, for an answer
// beside an error, and for a panic. Its inputs are tokens as they are, and headers and
// claims that are signed as they stand.
func FuzzVerify(f *testing.F) {
	keys := jwks(f, jwk(f, "d1", fixed, nil))
	i, _ := open(f, newEvil(f), func(c *issuers.Config) {
		c.Client = &http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(bytes.NewReader(keys))}, nil
		})}
	})
	set := newSet(f, i)
	seeds := []struct{ header, claims string }{
		{`{"alg":"EdDSA","kid":"d1","typ":"at+jwt"}`, `{"iss":"` + issuerURL + `","aud":["other"],"sub":"a","exp":4000000000}`},
		{`{"alg":"EdDSA"}`, `{"iss":"` + issuerURL + `","aud":"other","sub":"a","exp":4000000000,"iat":1,"nbf":1.5,"jti":"x","scope":["a"],"email":"a"}`},
		{`{"alg":"none","alg":"EdDSA"}`, `{"iss":null,"aud":{},"sub":[],"exp":"1","exp":1}`},
		{`{"alg":"EdDSA","kid":"d2","jku":"https://evil.example"}`, `{"iss":"` + issuerURL + `","aud":"other","sub":"\ud800","exp":1e999}`},
	}
	var signed []string
	for _, s := range seeds {
		token := sign(f, jwt.SigningMethodEdDSA, fixed, s.header, s.claims)
		signed = append(signed, token)
		f.Add(token, s.header, s.claims)
	}
	f.Add("..", "", "")
	f.Fuzz(func(t *testing.T, token, header, claims string) {
		if _, owned := set.Owns(token); !owned {
			if v, err := set.Verify(t.Context(), token); v != nil || !errors.Is(err, tokens.ErrInvalid) {
				t.Errorf("%q is nobody's and gives %v, %v", token, v, err)
			}
		}
		if v, err := i.Verify(t.Context(), token); (v != nil) != (err == nil) || (err == nil && !slices.Contains(signed, token)) {
			t.Errorf("%q: %v, %v", token, v, err)
		}
		v, err := i.Verify(t.Context(), sign(t, jwt.SigningMethodEdDSA, fixed, header, claims))
		switch {
		case (v != nil) != (err == nil):
			t.Errorf("%q %q: %v, %v", header, claims, v, err)
		case err == nil && (v.Subject() == "" || v.Claims()["iss"] != any(issuerURL) || v.ExpiresAt().IsZero() || v.IsMachine() != (v.Kind() == authz.KindService)):
			t.Errorf("%q %q is accepted", header, claims)
		case err != nil && !errors.Is(err, tokens.ErrInvalid) && !errors.Is(err, tokens.ErrMalformed) && !errors.Is(err, tokens.ErrExpired):
			t.Errorf("%q %q: an error of no kind: %v", header, claims, err)
		}
	})
}

// FuzzJWKS looks for a panic, and for a key that does not fit its algorithm.
func FuzzJWKS(f *testing.F) {
	// The generator of P-256 is a point that needs no key.
	const point = `"kty":"EC","crv":"P-256","x":"axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY","y":"T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"`
	modulus := b64(bytes.Repeat([]byte{0xff}, 256))
	f.Add(jwks(f, jwk(f, "d1", fixed, map[string]any{"use": "sig"}), jwk(f, "d2", fixed, map[string]any{"key_ops": []any{"verify"}})))
	f.Add([]byte(`{"keys":[{` + point + `,"kid":"e1","alg":"ES256"},{"kty":"RSA","n":"` + modulus + `","e":"AQAB"},{` + point + `,"use":"enc"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"oct","k":"AA"},{"kty":"AKP","alg":"ML-DSA-44","pub":"AA"},{"kty":"EC","crv":"P-256","x":"AA","y":"AA"},null]}`))
	f.Add([]byte(`{"keys":[],"keys":[]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		accepted, ignored, err := issuers.ParseKeys(raw, every)
		if err != nil && (len(accepted) != 0 || ignored != 0) {
			t.Errorf("keys beside an error: %v, %v", accepted, err)
		}
		for _, k := range accepted {
			if name, _, _ := strings.Cut(k, " "); !slices.Contains(every, name) {
				t.Errorf("a key for %q", name)
			}
		}
		if narrow, _, err := issuers.ParseKeys(raw, []string{"EdDSA"}); err == nil && len(narrow) > len(accepted) {
			t.Errorf("fewer algorithms give more keys: %v", narrow)
		}
	})
}
