package issuers_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/goleak"

	"github.com/mandate-auth/mandate/tokens/issuers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is a clock that the test moves.
type clock struct{ offset atomic.Int64 }

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func (c *clock) Now() time.Time       { return epoch.Add(time.Duration(c.offset.Load())) }
func (c *clock) Move(d time.Duration) { c.offset.Add(int64(d)) }

// private are the keys of the tests, made once.
type private struct {
	rsa, otherRSA, smallRSA *rsa.PrivateKey
	p256, otherP256         *ecdsa.PrivateKey
	p384, p521              *ecdsa.PrivateKey
	ed                      ed25519.PrivateKey
}

var material = sync.OnceValue(func() *private {
	var p private
	var errs [8]error
	p.rsa, errs[0] = rsa.GenerateKey(rand.Reader, 2048)
	p.otherRSA, errs[1] = rsa.GenerateKey(rand.Reader, 2048)
	p.smallRSA, errs[2] = rsa.GenerateKey(rand.Reader, 1024)
	p.p256, errs[3] = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p.otherP256, errs[4] = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p.p384, errs[5] = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	p.p521, errs[6] = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	_, p.ed, errs[7] = ed25519.GenerateKey(rand.Reader)
	for _, err := range errs {
		if err != nil {
			panic(err)
		}
	}
	return &p
})

// jwk returns the public key as members of a JWK, and more of them.
func jwk(tb testing.TB, kid string, key crypto.Signer, more map[string]any) map[string]any {
	tb.Helper()
	raw, err := json.Marshal(jose.JSONWebKey{Key: key.Public(), KeyID: kid})
	if err != nil {
		tb.Fatal(err)
	}
	members := map[string]any{}
	if err := json.Unmarshal(raw, &members); err != nil {
		tb.Fatal(err)
	}
	maps.Copy(members, more)
	return members
}

func jwks(tb testing.TB, keys ...map[string]any) []byte {
	tb.Helper()
	if keys == nil {
		keys = []map[string]any{}
	}
	raw, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		tb.Fatal(err)
	}
	return raw
}

// evil is an issuer that answers as the test wants.
type evil struct {
	server *httptest.Server
	mu     sync.Mutex
	routes map[string]http.HandlerFunc
	hits   map[string]int
}

func newEvil(tb testing.TB) *evil {
	tb.Helper()
	e := &evil{routes: map[string]http.HandlerFunc{}, hits: map[string]int{}}
	e.server = httptest.NewUnstartedServer(e)
	// What a client says that does not trust the certificate is expected.
	e.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	e.server.StartTLS()
	tb.Cleanup(e.server.Close)
	e.serve("/jwks", jwks(tb, jwk(tb, "r1", material().rsa, nil), jwk(tb, "e1", material().p256, nil), jwk(tb, "d1", material().ed, nil)))
	return e
}

func (e *evil) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	e.hits[r.URL.Path]++
	h := e.routes[r.URL.Path]
	e.mu.Unlock()
	if h == nil {
		http.NotFound(w, r)
		return
	}
	h(w, r)
}

func (e *evil) handle(path string, h http.HandlerFunc) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.routes[path] = h
}

func (e *evil) serve(path string, body []byte) {
	e.handle(path, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) })
}

func (e *evil) fail(path string) {
	e.handle(path, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
}

func (e *evil) count(path string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.hits[path]
}

const (
	issuerURL = "https://id.example/tenant"
	audience  = "https://api.example"
)

// open returns an issuer whose keys e has, and its clock.
func open(tb testing.TB, e *evil, edit ...func(*issuers.Config)) (*issuers.Issuer, *clock) {
	tb.Helper()
	c := &clock{}
	config := issuers.Config{
		Name: "corp", Issuer: issuerURL, Audience: []string{audience, "other"}, JWKSURL: e.server.URL + "/jwks", Now: c.Now,
		Client: e.server.Client(), Leeway: 30 * time.Second, Logger: slog.New(slog.DiscardHandler),
	}
	for _, f := range edit {
		f(&config)
	}
	i, err := issuers.New(config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := i.Close(context.WithoutCancel(tb.Context())); err != nil {
			tb.Error(err)
		}
	})
	return i, c
}

// good are claims that are accepted.
func good() map[string]any {
	return map[string]any{
		"iss": issuerURL, "sub": "worker", "aud": audience, "exp": epoch.Add(time.Hour).Unix(), "iat": epoch.Unix(), "jti": "t1",
		"client_id": "worker", "token_use": "access", "scope": "docs:read docs:write",
	}
}

// with returns the good claims with one more; nil takes it away.
func with(name string, value any) map[string]any {
	claims := good()
	if claims[name] = value; value == nil {
		delete(claims, name)
	}
	return claims
}

func b64(raw []byte) string { return base64.RawURLEncoding.EncodeToString(raw) }

func encode(tb testing.TB, value any) string {
	tb.Helper()
	if text, ok := value.(string); ok {
		return b64([]byte(text))
	}
	raw, err := json.Marshal(value)
	if err != nil {
		tb.Fatal(err)
	}
	return b64(raw)
}

// sign makes a token of any header and claims: values, or JSON as it stands.
func sign(tb testing.TB, method jwt.SigningMethod, key, header, claims any) string {
	tb.Helper()
	signed := encode(tb, header) + "." + encode(tb, claims)
	signature, err := method.Sign(signed, key)
	if err != nil {
		tb.Fatal(err)
	}
	return signed + "." + b64(signature)
}

// es signs with the first key of ES256.
func es(tb testing.TB, claims any) string {
	tb.Helper()
	return sign(tb, jwt.SigningMethodES256, material().p256, map[string]any{"alg": "ES256", "kid": "e1", "typ": "at+jwt"}, claims)
}

// esBy signs with a key of ES256 and its id.
func esBy(tb testing.TB, key *ecdsa.PrivateKey, kid string) string {
	tb.Helper()
	return sign(tb, jwt.SigningMethodES256, key, map[string]any{"alg": "ES256", "kid": kid, "typ": "at+jwt"}, good())
}

func segmentsOf(token string) []string { return strings.Split(token, ".") }
