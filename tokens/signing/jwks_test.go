package signing_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/signing"
)

// A verifier that we did not write takes our key set and the tokens signed by
// another library with our keys, and no key of one for the tokens of another.
func TestKeySetVerifiesTokens(t *testing.T) {
	t.Parallel()
	for _, algorithm := range []string{tokens.EdDSA, tokens.ES256, tokens.RS256} {
		t.Run(algorithm, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			s := b.loaded(t, func(c *signing.Config) { c.Algorithm = algorithm })
			if _, err := s.Rotate(t.Context()); err != nil {
				t.Fatal(err)
			}
			var set jose.JSONWebKeySet
			if err := json.Unmarshal(s.JWKS(), &set); err != nil {
				t.Fatal(err)
			}
			token, err := jose.ParseSignedCompact(sign(t, s.Current().Signing), []jose.SignatureAlgorithm{jose.SignatureAlgorithm(algorithm)})
			if err != nil {
				t.Fatal(err)
			}
			found := set.Key(token.Signatures[0].Header.KeyID)
			if len(found) != 1 || len(set.Keys) != 2 {
				t.Fatalf("%d keys of the token's kid among %d", len(found), len(set.Keys))
			}
			if _, err := token.Verify(found[0]); err != nil {
				t.Errorf("the key of the set does not verify: %v", err)
			}
			if _, err := token.Verify(set.Keys[1]); err == nil {
				t.Error("another key verifies")
			}
		})
	}
}

// A private member in the key set would be the end of the key. Members are listed
// one by one, so that none comes in unseen.
func TestKeySetIsPublic(t *testing.T) {
	t.Parallel()
	members := map[string][]string{
		tokens.EdDSA: {"alg", "crv", "kid", "kty", "use", "x"},
		tokens.ES256: {"alg", "crv", "kid", "kty", "use", "x", "y"},
		tokens.RS256: {"alg", "e", "kid", "kty", "n", "use"},
	}
	for algorithm, names := range members {
		t.Run(algorithm, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			s := b.loaded(t, func(c *signing.Config) { c.Algorithm = algorithm })
			if _, err := s.Rotate(t.Context()); err != nil {
				t.Fatal(err)
			}
			var set map[string][]map[string]string
			if err := json.Unmarshal(s.JWKS(), &set); err != nil {
				t.Fatal(err)
			}
			if len(set) != 1 || len(set["keys"]) != 2 {
				t.Fatalf("the set: %v", set)
			}
			for _, k := range set["keys"] {
				var got []string
				for name := range k {
					got = append(got, name)
				}
				slices.Sort(got)
				want(t, "members", got, names)
				if k["alg"] != algorithm || k["use"] != "sig" {
					t.Errorf("alg %q, use %q", k["alg"], k["use"])
				}
			}
		})
	}
}

func serve(s *signing.Store, method string, header ...string) *http.Response {
	r := httptest.NewRequest(method, "/.well-known/jwks.json", nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w.Result()
}

func TestHandler(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.instance(t)
	if got := serve(s, http.MethodGet); got.StatusCode != http.StatusServiceUnavailable || got.Header.Get("Cache-Control") != "no-store" || got.Header.Get("Retry-After") == "" {
		t.Errorf("before the first load: %d, %v", got.StatusCode, got.Header)
	}
	load(t, s)
	first := serve(s, http.MethodGet)
	body, err := io.ReadAll(first.Body)
	if err != nil || string(body) != string(s.JWKS()) {
		t.Errorf("body %q, %v", body, err)
	}
	for name, value := range map[string]string{
		"Content-Type": "application/jwk-set+json", "Cache-Control": "public, max-age=300", "X-Content-Type-Options": "nosniff",
	} {
		if got := first.Header.Get(name); got != value {
			t.Errorf("%s: %q, want %q", name, got, value)
		}
	}
	etag := first.Header.Get("ETag")
	if got := serve(s, http.MethodGet, "If-None-Match", etag); etag == "" || got.StatusCode != http.StatusNotModified {
		t.Errorf("entity tag %q: %d", etag, got.StatusCode)
	}
	head := serve(s, http.MethodHead)
	if body, _ := io.ReadAll(head.Body); head.StatusCode != http.StatusOK || len(body) != 0 {
		t.Errorf("HEAD: %d, %q", head.StatusCode, body)
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions} {
		if got := serve(s, method); got.StatusCode != http.StatusMethodNotAllowed || got.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %d", method, got.StatusCode)
		}
	}
	if _, err := s.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := serve(s, http.MethodGet, "If-None-Match", etag); got.StatusCode != http.StatusOK {
		t.Errorf("a changed set is told to be the same: %d", got.StatusCode)
	}
}
