package engine_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/mongo"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/engine/enginetest"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/manifest"
)

const (
	email    = "ada@example.com"
	password = "a fine long passphrase"
)

var secretKey = strings.Repeat("canary-secret-key-", 3)

func TestMain(m *testing.M) { storetest.Main(m) }

// world is one engine with one app, and what a test needs to look at it.
type world struct {
	t      *testing.T
	db     *mongo.Database
	eng    *engine.Engine
	app    *engine.App
	hashes atomic.Int64
	clock  enginetest.Clock
	logs   syncBuffer
	events enginetest.Events
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func (w *world) move(d time.Duration) { w.clock.Advance(d) }

// manifestOf builds a manifest for tests: JSON of the auth part, and of the rest.
func manifestOf(t *testing.T, slug, auth string, rest ...string) *manifest.Manifest {
	t.Helper()
	m, err := tryManifest(slug, auth, rest...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func tryManifest(slug, auth string, rest ...string) (*manifest.Manifest, error) {
	if !strings.Contains(auth, `"rate_limits"`) {
		auth = strings.TrimSuffix(generous+","+auth, ",")
	}
	text := fmt.Sprintf(`{"slug":%q,"auth":{%s}`, slug, auth)
	for _, r := range rest {
		text += "," + r
	}
	return manifest.Parse([]byte(text+"}"), nil)
}

// generous limits are for tests that are about something else: they try more often
// than anybody should.
const generous = `"rate_limits":{"login":{"max":1000},"login_address":{"max":1000},"register":{"max":1000},"anonymous":{"max":1000},"refresh":{"max":1000},` +
	`"password":{"max":1000},"token":{"max":1000},"token_address":{"max":1000},"api_keys":{"max":1000},` +
	`"mail":{"max":1000},"mail_address":{"max":1000},"consume":{"max":1000},"oauth":{"max":1000},"identities":{"max":1000},"invitations":{"max":1000}}`

// guests is the auth part that most tests want.
const guests = `"users":{"allow_anonymous_users":true}`

func newWorld(t *testing.T, db *mongo.Database, m *manifest.Manifest, edit ...func(*engine.Options)) *world {
	t.Helper()
	w := &world{t: t, db: db}
	opts := &engine.Options{
		SecretKeys: []engine.Secret{engine.NewSecret(secretKey)}, InsecureHashCost: 4, OnHash: func() { w.hashes.Add(1) },
		Now: w.clock.Now, Logger: slog.New(slog.NewTextHandler(&w.logs, nil)), Sinks: []event.Sink{event.SlogSink(slog.New(slog.NewTextHandler(&w.logs, nil))), &w.events},
		LookupEnv: func(string) (string, bool) { return "", false },
	}
	for _, f := range edit {
		f(opts)
	}
	var err error
	if w.eng, err = engine.New(t.Context(), db, opts); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	if w.app, err = w.eng.Load(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := w.eng.Close(ctx); err != nil {
		w.t.Errorf("close the engine: %v", err)
	}
}

func setup(t *testing.T, auth string, rest ...string) *world {
	t.Helper()
	return newWorld(t, storetest.Database(t), manifestOf(t, "shop", auth, rest...))
}

// response is an answer, read.
type response struct {
	status int
	header http.Header
	raw    string
	body   map[string]any
}

func (r *response) code() string { return r.text("code") }

func (r *response) text(name string) string {
	s, _ := r.body[name].(string)
	return s
}

func (r *response) at(path ...string) any {
	var v any = r.body
	for _, p := range path {
		m, _ := v.(map[string]any)
		v = m[p]
	}
	return v
}

// request edits a request before it is sent.
type request func(*http.Request)

func bearer(token string) request {
	return func(r *http.Request) { r.Header.Add("Authorization", "Bearer "+token) }
}

func header(name, value string) request {
	return func(r *http.Request) { r.Header.Add(name, value) }
}

func from(addr string) request { return func(r *http.Request) { r.RemoteAddr = addr } }

// do sends a request to a handler. A body that is a string is sent as it is,
// anything else as JSON.
func do(t *testing.T, h http.Handler, method, path string, body any, edit ...request) *response {
	t.Helper()
	var reader io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		reader = strings.NewReader(b)
	default:
		raw, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		reader = bytes.NewReader(raw)
	}
	r := httptest.NewRequestWithContext(t.Context(), method, path, reader)
	r.Host = "shop.example"
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, f := range edit {
		f(r)
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	out := &response{status: rec.Code, header: rec.Header(), raw: rec.Body.String(), body: map[string]any{}}
	_ = json.Unmarshal(rec.Body.Bytes(), &out.body)
	return out
}

func (w *world) do(method, path string, body any, edit ...request) *response {
	w.t.Helper()
	return do(w.t, w.app.Handler(), method, path, body, edit...)
}

func (w *world) want(r *response, status int, code string) *response {
	w.t.Helper()
	if r.status != status || r.code() != code {
		w.t.Errorf("got %d %q, want %d %q: %s", r.status, r.code(), status, code, r.raw)
	}
	return r
}

func obj(pairs ...any) map[string]any {
	out := map[string]any{}
	for i := 0; i < len(pairs); i += 2 {
		out[pairs[i].(string)] = pairs[i+1]
	}
	return out
}

func with(m map[string]any, pairs ...any) map[string]any {
	out := maps.Clone(m)
	maps.Copy(out, obj(pairs...))
	return out
}

var account = obj("email", email, "password", password)

// register makes the account and returns its first tokens.
func (w *world) register() *response {
	w.t.Helper()
	return w.want(w.do("POST", "/auth/register", account), 201, "")
}

func (w *world) login(edit ...request) *response {
	w.t.Helper()
	return w.want(w.do("POST", "/auth/login", account, edit...), 200, "")
}

func (w *world) me(token string) *response { return w.do("GET", "/auth/me", nil, bearer(token)) }

// cookieHeader turns the Set-Cookie of an answer into a Cookie.
func cookieHeader(r *response) request {
	var parts []string
	for _, line := range r.header["Set-Cookie"] {
		pair, attributes, _ := strings.Cut(line, ";")
		if !strings.Contains(attributes, "Max-Age=0") {
			parts = append(parts, pair)
		}
	}
	return header("Cookie", strings.Join(parts, "; "))
}

// ok is a handler behind guards under test.
var ok = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	p := engine.PrincipalFrom(r.Context())
	if p == nil {
		_, _ = io.WriteString(w, `{"who":"nobody"}`)
		return
	}
	_, _ = fmt.Fprintf(w, `{"who":%q}`, p.ID)
})

// until waits for something that another goroutine or instance brings about.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(8 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("waited 8 s for: %s", what)
		case <-tick.C:
		}
	}
}

// matrixManifest has every route of this version.
func matrixManifest(t *testing.T, slug string) *manifest.Manifest {
	t.Helper()
	return manifestOf(t, slug, `"users":{"allow_anonymous_users":true,"demo_users":[{"email":"demo@example.com","password":"x"}],"lockout":{"max_failures":100}},
		"sessions":{"max_per_user":100},"policy":{"allow_anonymous":true},"tokens":{"issuer":"https://`+slug+`.example"},`+apiKeys+`,`+clients+`,`+mails+`,`+outside,
		`"base_path":"/`+slug+`"`, `"environment":"development"`, publicShop)
}
