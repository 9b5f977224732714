package httpapi_test

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
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/manifest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

const (
	email    = "ada@example.com"
	password = "a fine long passphrase"
)

// world is an app as a service would have it: the routes are tested with all
// that stands below them.
type world struct {
	t      *testing.T
	eng    *engine.Engine
	app    *engine.App
	offset atomic.Int64
	logs   logs
}

type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (w *world) move(d time.Duration) { w.offset.Add(int64(d)) }

// everyone enables every route of this version, for everybody.
const everyone = `"policy":{"authorization":{"initial_policies":[["user","mandate","policies"],["user","mandate","users"],["user","mandate","escalate"],["user","mandate","clients"],["user","mandate","audit"],["user","mandate","metrics"]]}},"tokens":{"issuer":"https://shop.example"},"api_keys":{"enabled":true},"clients":{"enabled":true},"users":{"allow_anonymous_users":true,"demo_users":[{"email":"demo@example.com","password":"x"}]},"sessions":{"max_per_user":100}`

// generous limits are for tests that are about something else.
const generous = `"rate_limits":{"login":{"max":1000},"login_address":{"max":1000},"register":{"max":1000},"anonymous":{"max":1000},"refresh":{"max":1000},"password":{"max":1000}}`

// guests is an app as it is in production.
const guests = `"users":{"allow_anonymous_users":true}`

func setup(t *testing.T, auth string, rest ...string) *world {
	t.Helper()
	return setupOn(t, storetest.Database(t), auth, rest...)
}

func setupOn(t *testing.T, db *mongo.Database, auth string, rest ...string) *world {
	t.Helper()
	text := fmt.Sprintf(`{"slug":"shop","auth":{%s}`, strings.TrimSuffix(generous+","+auth, ","))
	for _, r := range rest {
		text += "," + r
	}
	m, err := manifest.Parse([]byte(text+"}"), nil)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t}
	if w.eng, err = engine.New(t.Context(), db, &engine.Options{
		SecretKeys: []engine.Secret{engine.NewSecret(strings.Repeat("k", 32))}, InsecureHashCost: 4,
		Now:    func() time.Time { return time.Now().Add(time.Duration(w.offset.Load())) },
		Logger: slog.New(slog.NewTextHandler(&w.logs, nil)), LookupEnv: func(string) (string, bool) { return "", false },
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := w.eng.Close(ctx); err != nil {
			t.Errorf("close the engine: %v", err)
		}
	})
	if w.app, err = w.eng.Load(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	return w
}

// inDevelopment enables the routes that exist only there.
const inDevelopment = `"environment":"development"`

type response struct {
	status int
	header http.Header
	raw    string
	body   map[string]any
}

func (r *response) text(name string) string {
	s, _ := r.body[name].(string)
	return s
}

func (r *response) code() string { return r.text("code") }

// edit changes a request before it is served.
type edit func(*http.Request)

func header(name, value string) edit {
	return func(r *http.Request) { r.Header.Add(name, value) }
}

func bearer(token string) edit { return header("Authorization", "Bearer "+token) }

func contentType(value string) edit {
	return func(r *http.Request) { r.Header.Set("Content-Type", value) }
}

// xhr is what a page of the service's own origin sends.
var xhr = header("X-Requested-With", "test")

// overHTTPS makes the cookies secure, also in development.
func overHTTPS(r *http.Request) {
	r.URL.Scheme, r.TLS = "https", httptest.NewRequest(http.MethodGet, "https://x", nil).TLS
}

// serve sends one request. A body that is a string is sent as it is, anything
// else as JSON.
func serve(t *testing.T, h http.Handler, method, path string, body any, edits ...edit) *response {
	t.Helper()
	var reader io.Reader
	if text, ok := body.(string); ok {
		reader = strings.NewReader(text)
	} else if body != nil {
		raw, err := json.Marshal(body)
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
	for _, f := range edits {
		f(r)
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	out := &response{status: rec.Code, header: rec.Header(), raw: rec.Body.String(), body: map[string]any{}}
	_ = json.Unmarshal(rec.Body.Bytes(), &out.body) // not every answer has one
	return out
}

func (w *world) do(method, path string, body any, edits ...edit) *response {
	w.t.Helper()
	return serve(w.t, w.app.Handler(), method, "/auth"+path, body, edits...)
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

func (w *world) register() *response {
	w.t.Helper()
	return w.want(w.do("POST", "/register", account), 201, "")
}

// signIn signs a browser in and returns the cookies that it sends from then on.
func (w *world) signIn(edits ...edit) (*response, edit) {
	w.t.Helper()
	r := w.want(w.do("POST", "/login", with(account, "transport", "cookie"), edits...), 200, "")
	return r, cookiesOf(r)
}

func cookiesOf(r *response) edit {
	var pairs []string
	for _, line := range r.header["Set-Cookie"] {
		if pair, attributes, _ := strings.Cut(line, ";"); !strings.Contains(attributes, "Max-Age=0") {
			pairs = append(pairs, pair)
		}
	}
	return header("Cookie", strings.Join(pairs, "; "))
}

// cookieOf returns the value of one cookie of an answer.
func cookieOf(t *testing.T, r *response, name string) string {
	t.Helper()
	for _, line := range r.header["Set-Cookie"] {
		if rest, ok := strings.CutPrefix(line, name+"="); ok {
			value, _, _ := strings.Cut(rest, ";")
			return value
		}
	}
	t.Fatalf("no cookie %s in %v", name, r.header["Set-Cookie"])
	return ""
}

// who is a handler behind guards: it says whom it sees.
var who = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	id := "nobody"
	if p := engine.PrincipalFrom(r.Context()); p != nil {
		id = p.ID
	}
	_, _ = fmt.Fprintf(w, `{"who":%q}`, id)
})
