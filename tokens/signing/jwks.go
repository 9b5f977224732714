package signing

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/mandate-auth/mandate/tokens"
)

// keySet is a JSON Web Key Set and its entity tag.
type keySet struct {
	raw  []byte
	etag string
}

var emptyKeySet = tagged([]byte(`{"keys":[]}`))

// newKeySet publishes the public parts of list.
func newKeySet(list []tokens.SigningKey) (keySet, error) {
	set := jose.JSONWebKeySet{Keys: make([]jose.JSONWebKey, len(list))}
	for i, k := range list {
		set.Keys[i] = jose.JSONWebKey{Key: k.Public, KeyID: k.ID, Algorithm: k.Algorithm, Use: "sig"}
		// A private key in the place of a public one would be published.
		if !set.Keys[i].IsPublic() || !set.Keys[i].Valid() {
			return keySet{}, fmt.Errorf("%w: %s has no valid public part", ErrUnusable, k.ID)
		}
	}
	raw, err := json.Marshal(set)
	if err != nil {
		return keySet{}, fmt.Errorf("publish the signing keys: %w", err)
	}
	return tagged(raw), nil
}

func tagged(raw []byte) keySet {
	sum := sha256.Sum256(raw)
	return keySet{raw: raw, etag: `"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`}
}

// JWKS returns the set's public keys as a JSON Web Key Set (RFC 7517 section 5):
// kid, alg, use "sig" and the public members alone (RFC 7518 section 6, RFC 8037
// section 2), the signing key first. The bytes must not be changed.
func (set Set) JWKS() []byte { return set.jwks.raw }

// JWKS returns the key set of the last Load: see [Set.JWKS].
func (s *Store) JWKS() []byte { return s.set.Load().JWKS() }

// Handler serves the key set to GET and HEAD, as application/jwk-set+json (RFC 7517
// section 8.5.2). Verifiers may keep it for [MaxAge] and ask again by its entity tag
// (RFC 9110 section 13.1.2). Before the first Load it answers 503.
func (s *Store) Handler() http.Handler {
	age := "public, max-age=" + strconv.Itoa(int(MaxAge.Seconds()))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		set := s.set.Load()
		h := w.Header()
		switch {
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			h.Set("Allow", "GET, HEAD")
			w.WriteHeader(http.StatusMethodNotAllowed)
		case set.LoadedAt.IsZero():
			h.Set("Cache-Control", "no-store")
			h.Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			h.Set("Content-Type", "application/jwk-set+json")
			h.Set("Cache-Control", age)
			h.Set("ETag", set.jwks.etag)
			h.Set("X-Content-Type-Options", "nosniff")
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(set.jwks.raw))
		}
	})
}
