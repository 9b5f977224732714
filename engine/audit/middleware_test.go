package audit_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/engine/audit"
	"github.com/mandate-auth/mandate/engine/event"
)

// recorder keeps the events of a middleware.
type recorder struct {
	mu     sync.Mutex
	events []event.Event
	seen   chan struct{}
}

func newRecorder() *recorder { return &recorder{seen: make(chan struct{}, 100)} }

func (r *recorder) record(_ context.Context, e event.Event) {
	r.mu.Lock()
	r.events = append(r.events, e)
	r.mu.Unlock()
	r.seen <- struct{}{}
}

func (r *recorder) all() []event.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]event.Event(nil), r.events...)
}

func serve(t *testing.T, config audit.MiddlewareConfig, h http.HandlerFunc, request *http.Request) []event.Event {
	t.Helper()
	r := newRecorder()
	audit.Middleware(r.record, config)(h).ServeHTTP(httptest.NewRecorder(), request)
	return r.all()
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// Each request is one event with what it was, whose, and how it ended.
func TestMiddleware(t *testing.T) {
	t.Parallel()
	now := newClock()
	config := audit.MiddlewareConfig{
		App: "shop", Now: now.Now,
		Describe: func(r *http.Request) (string, string, bool) { return r.Header.Get("X-Found"), "cli_1", true },
	}
	request := httptest.NewRequestWithContext(t.Context(), http.MethodPut, "/orders/7?token=hidden", strings.NewReader("body"))
	request.RemoteAddr = "[::ffff:192.0.2.4]:1234"
	request.Header.Set("User-Agent", "agent/1")
	got := serve(t, config, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if string(body) != "body" {
			t.Errorf("the handler read %q", body)
		}
		r.Header.Set("X-Found", "usr_1") // what a guard behind it leaves
		r.Method, r.URL.Path = "CHANGED", "/changed"
		now.move(time.Second)
		w.WriteHeader(http.StatusCreated)
	}, request)
	want := event.Event{
		Type: event.RequestPassed, Result: event.Success, App: "shop", Time: now.Now(), UserID: "usr_1", ClientID: "cli_1", IsM2M: true,
		StatusCode: 201, Request: event.Request{IP: "192.0.2.4", UserAgent: "agent/1", Method: "PUT", Path: "/orders/7"},
	}
	if len(got) != 1 || fmt.Sprint(got[0]) != fmt.Sprint(want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestMiddlewareStatus(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		handler http.HandlerFunc
		status  int
		result  event.Result
	}{
		"nothing": {func(http.ResponseWriter, *http.Request) {}, 200, event.Success},
		"a body":  {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "x") }, 200, event.Success},
		"bytes":   {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("x")) }, 200, event.Success},
		"a copy": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.Copy(w, struct{ io.Reader }{strings.NewReader("x")})
		}, 200, event.Success},
		"redirect": {status(302), 302, event.Success},
		"refused":  {status(403), 403, event.Failure},
		"broken":   {status(503), 503, event.Failure},
		"the first one": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			w.WriteHeader(http.StatusOK)
		}, 404, event.Failure},
		"body first": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte("x"))
			w.WriteHeader(http.StatusInternalServerError)
		}, 200, event.Success},
		"early hints": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusNotFound)
		}, 404, event.Failure},
		"flushed": {func(w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush()
			w.WriteHeader(http.StatusInternalServerError)
		}, 200, event.Success},
	} {
		got := serve(t, audit.MiddlewareConfig{}, tt.handler, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/x", nil))
		if len(got) != 1 || got[0].StatusCode != tt.status || got[0].Result != tt.result {
			t.Errorf("%s: got %+v, want %d", name, got, tt.status)
		}
	}
}

// A panic is recorded, and goes on with the value and the stack that it has.
func TestMiddlewarePanic(t *testing.T) {
	t.Parallel()
	for name, value := range map[string]any{"a defect": "defect", "aborted": http.ErrAbortHandler} {
		r := newRecorder()
		h := audit.Middleware(r.record, audit.MiddlewareConfig{})(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusOK)
			panic(value)
		}))
		func() {
			defer func() {
				if got := recover(); got != value {
					t.Errorf("%s: recovered %v", name, got)
				}
			}()
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/x", nil))
		}()
		if got := r.all(); len(got) != 1 || got[0].StatusCode != http.StatusInternalServerError || got[0].Reason != "panic" || got[0].Result != event.Failure {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// A path that is excluded is, and no other spelling hides what is not.
func TestMiddlewareExcludes(t *testing.T) {
	t.Parallel()
	config := audit.MiddlewareConfig{ExcludePaths: []string{"/health", "/static/*"}}
	for target, recorded := range map[string]bool{
		"/health":                              false,
		"/health?probe=1":                      false,
		"/static/app.js":                       false,
		"/static/":                             false,
		"/static/img/":                         false,
		"/static/a/b.css":                      false,
		"/health/":                             true,
		"/healthy":                             true,
		"/Health":                              true,
		"//health":                             true,
		"/h%65alth":                            true,
		"/static":                              true,
		"/statically/x":                        true,
		"/static/../admin":                     true,
		"/static/./x":                          true,
		"/static//x":                           true,
		"/static/%2e%2e/admin":                 true,
		"/static/..%2fadmin":                   true,
		"/static%2Fadmin":                      true,
		"/static/x;/../admin":                  true,
		"/static/x;p=1":                        true,
		`/static/..%5Cadmin`:                   true,
		"/admin/static/app.js":                 true,
		"/admin?next=/static/x":                true,
		"/":                                    true,
		"/static/..;/admin":                    true,
		"/static/%252e%252e/admin":             false,
		"/health%2F":                           true,
		"/health%3Fx":                          true,
		"/static/a%20b":                        false,
		"/static/" + strings.Repeat("a/", 500): false,
	} {
		got := serve(t, config, status(204), httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, nil))
		if (len(got) == 1) != recorded {
			t.Errorf("%s: %d events, want recorded=%t", target, len(got), recorded)
		}
	}
}

// The description in the context is that of the app, which knows its proxies.
func TestMiddlewareRequest(t *testing.T) {
	t.Parallel()
	request := httptest.NewRequestWithContext(event.WithRequest(t.Context(), event.Request{ID: "r1", IP: "203.0.113.9"}), http.MethodGet, "/x", nil)
	if got := serve(t, audit.MiddlewareConfig{}, status(200), request); got[0].Request != (event.Request{ID: "r1", IP: "203.0.113.9"}) {
		t.Errorf("got %+v", got)
	}
	request = httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/x", nil)
	request.RemoteAddr = "@" // a socket of the machine's own
	if got := serve(t, audit.MiddlewareConfig{}, status(200), request); got[0].Request.IP != "" {
		t.Errorf("got %+v", got)
	}
	own := func(*http.Request) event.Request { return event.Request{Path: "/own"} }
	if got := serve(t, audit.MiddlewareConfig{Request: own}, status(200), request); got[0].Request.Path != "/own" {
		t.Errorf("got %+v", got)
	}
}

// On a real server a handler can flush and take the connection over, asked for
// by type or through the controller; the events come all the same.
func TestMiddlewareOnAServer(t *testing.T) {
	t.Parallel()
	r := newRecorder()
	flushed := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/stream", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "one\n")
		w.(http.Flusher).Flush()
		<-flushed
		_, _ = io.WriteString(w, "two\n")
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Errorf("the controller does not reach the server's writer: %v", err)
		}
	})
	hijack := func(take func(http.ResponseWriter) (net.Conn, *bufio.ReadWriter, error)) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			conn, rw, err := take(w)
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")
			_ = rw.Flush()
			_ = conn.Close()
		}
	}
	mux.HandleFunc("/typed", hijack(func(w http.ResponseWriter) (net.Conn, *bufio.ReadWriter, error) { return w.(http.Hijacker).Hijack() }))
	mux.HandleFunc("/controlled", hijack(func(w http.ResponseWriter) (net.Conn, *bufio.ReadWriter, error) {
		return http.NewResponseController(w).Hijack()
	}))
	server := httptest.NewServer(audit.Middleware(r.record, audit.MiddlewareConfig{})(mux))
	defer server.Close()

	res := get(t, server, "/stream")
	lines := bufio.NewReader(res.Body)
	if line, err := lines.ReadString('\n'); err != nil || line != "one\n" {
		t.Errorf("not flushed: %q, %v", line, err)
	}
	close(flushed)
	if rest, err := io.ReadAll(lines); err != nil || string(rest) != "two\n" {
		t.Errorf("got %q, %v", rest, err)
	}
	_ = res.Body.Close()
	for _, path := range []string{"/typed", "/controlled"} {
		res := get(t, server, path)
		if res.StatusCode != http.StatusSwitchingProtocols {
			t.Errorf("%s: %d", path, res.StatusCode)
		}
		_ = res.Body.Close()
	}
	for range 3 {
		<-r.seen
	}
	codes := map[string]int{}
	for _, e := range r.all() {
		codes[e.Request.Path] = e.StatusCode
	}
	if codes["/stream"] != 200 || codes["/typed"] != 101 || codes["/controlled"] != 101 {
		t.Errorf("got %v", codes)
	}
}

func get(t *testing.T, server *httptest.Server, path string) *http.Response {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Connection", "Upgrade")
	res, err := server.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// plainWriter can do nothing but write.
type plainWriter struct{ header http.Header }

func (w plainWriter) Header() http.Header         { return w.header }
func (w plainWriter) Write(b []byte) (int, error) { return len(b), nil }
func (w plainWriter) WriteHeader(int)             {}

// A writer must not promise what the server's cannot do.
func TestMiddlewarePromisesNothing(t *testing.T) {
	t.Parallel()
	r := newRecorder()
	audit.Middleware(r.record, audit.MiddlewareConfig{})(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if _, ok := w.(http.Flusher); ok {
			t.Error("it says that it can flush")
		}
		if _, ok := w.(http.Hijacker); ok {
			t.Error("it says that it can be taken over")
		}
		if err := http.NewResponseController(w).Flush(); !errors.Is(err, http.ErrNotSupported) {
			t.Errorf("got %v", err)
		}
	})).ServeHTTP(plainWriter{http.Header{}}, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/x", nil))
	audit.Middleware(r.record, audit.MiddlewareConfig{})(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if _, ok := w.(http.Hijacker); ok {
			t.Error("HTTP/2 has no connection to take over")
		}
	})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/x", nil))
}
