package metrics_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mandate-auth/mandate/engine/metrics"
)

type userKey struct{}

func hasUser(r *http.Request) bool { return r.Context().Value(userKey{}) != nil }

func answer(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }
}

func TestMiddlewareOutcomes(t *testing.T) {
	t.Parallel()
	known := func(h http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			metrics.Authenticated(r.Context())
			h(w, r)
		}
	}
	raise := func(v any) http.HandlerFunc { return func(http.ResponseWriter, *http.Request) { panic(v) } }
	for name, tc := range map[string]struct {
		handler   http.HandlerFunc
		user      bool // in the request from outside
		succeeded uint64
		failed    map[string]uint64
		panics    any
	}{
		"principal outside":    {handler: answer(200), user: true, succeeded: 1},
		"principal inside":     {handler: known(answer(200)), succeeded: 1},
		"principal, forbidden": {handler: answer(403), user: true, succeeded: 1},
		"principal and 401":    {handler: known(answer(401)), succeeded: 1},
		"401":                  {handler: answer(401), failed: map[string]uint64{"unauthorized": 1}},
		"401 after hints": {handler: func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusUnauthorized)
		}, failed: map[string]uint64{"unauthorized": 1}},
		"401 after the body": {handler: func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "x")
			w.WriteHeader(http.StatusUnauthorized)
		}},
		"anonymous":            {handler: answer(200)},
		"anonymous, forbidden": {handler: answer(403)},
		"nothing written":      {handler: func(http.ResponseWriter, *http.Request) {}},
		"panic with an error":  {handler: raise(io.EOF), failed: map[string]uint64{"*errors.errorString": 1}, panics: io.EOF},
		"panic with text":      {handler: known(raise("x")), failed: map[string]uint64{"string": 1}, panics: "x"},
		"panic after 401":      {handler: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized); panic(7) }, failed: map[string]uint64{"int": 1}, panics: 7},
		"aborted":              {handler: raise(http.ErrAbortHandler), panics: http.ErrAbortHandler},
		"aborted, principal":   {handler: known(raise(http.ErrAbortHandler)), succeeded: 1, panics: http.ErrAbortHandler},
		"aborted after the 401": {handler: func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusUnauthorized)
			panic(http.ErrAbortHandler)
		}, failed: map[string]uint64{"unauthorized": 1}, panics: http.ErrAbortHandler},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, _ := setup(t)
			r := httptest.NewRequest(http.MethodGet, "/profile", nil)
			if tc.user {
				r = r.WithContext(context.WithValue(r.Context(), userKey{}, "usr_1"))
			}
			h := c.Middleware(metrics.MiddlewareConfig{Principal: hasUser})(tc.handler)
			func() {
				defer func() {
					if got := recover(); got != tc.panics {
						t.Errorf("the panic became %v", got)
					}
				}()
				h.ServeHTTP(httptest.NewRecorder(), r)
			}()
			if tc.failed == nil {
				tc.failed = map[string]uint64{}
			}
			s := c.Snapshot()
			if d := cmp.Diff(tc.failed, s.ErrorsByType); d != "" || s.TokensValidated != tc.succeeded {
				t.Errorf("%d successes\n%s", s.TokensValidated, d)
			}
		})
	}
}

// A handler that ends its goroutine, as t.FailNow does, says nothing.
func TestMiddlewareGoexit(t *testing.T) {
	t.Parallel()
	c, _ := setup(t)
	h := c.Middleware(metrics.MiddlewareConfig{Principal: func(*http.Request) bool { return true }})(
		http.HandlerFunc(func(http.ResponseWriter, *http.Request) { runtime.Goexit() }))
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
	}()
	<-done
	if s := c.Snapshot(); s.TotalTokens != 0 {
		t.Errorf("%+v", s)
	}
}

func TestMiddlewareMeasuresTheHandler(t *testing.T) {
	t.Parallel()
	c, now := setup(t)
	h := c.Middleware(metrics.MiddlewareConfig{})(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		now.move(5 * time.Millisecond)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
	if s := c.Snapshot(); s.ValidationTimeAvgMS != 5 {
		t.Errorf("%+v", s)
	}
}

func TestMiddlewareExcludesPaths(t *testing.T) {
	t.Parallel()
	for path, counted := range map[string]bool{
		"/health": false, "/health/live": false, "/healthy": true, "/metrics": false, "/metrics/prometheus": false, "/": true, "/api/health": true,
	} {
		c, _ := setup(t)
		served := false
		h := c.Middleware(metrics.MiddlewareConfig{ExcludePaths: []string{"/health", "/metrics/", ""}})(
			http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				served = true
				w.WriteHeader(http.StatusUnauthorized)
			}))
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, path, nil))
		if got := c.Snapshot().TotalTokens == 1; got != counted || !served {
			t.Errorf("%s: counted %v, served %v", path, got, served)
		}
	}
	// Outside the middleware the mark has nobody to tell.
	metrics.Authenticated(t.Context())
}

// onlyReader hides WriterTo, so that the writer has to read.
type onlyReader struct{ io.Reader }

// A middleware that hides what the server's writer can do breaks streams and web
// sockets.
func TestMiddlewareKeepsTheWriter(t *testing.T) {
	t.Parallel()
	c, _ := setup(t)
	mux := http.NewServeMux()
	mux.HandleFunc("/flush", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "first\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done() // the client has what was flushed and is gone
	})
	mux.HandleFunc("/control", func(w http.ResponseWriter, _ *http.Request) {
		if err := http.NewResponseController(w).SetWriteDeadline(time.Time{}); err != nil {
			t.Error(err)
		}
	})
	mux.HandleFunc("/copy", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.Copy(w, onlyReader{strings.NewReader("copied")})
	})
	mux.HandleFunc("/hijack", func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\nhijacked")
		conn.Close()
	})
	server := httptest.NewServer(c.Middleware(metrics.MiddlewareConfig{})(mux))
	defer server.Close()
	client := server.Client()
	for path, want := range map[string]string{"/control": "", "/copy": "copied", "/hijack": "hijacked"} {
		resp, err := client.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(body) != want {
			t.Errorf("%s: %q", path, body)
		}
	}
	resp, err := client.Get(server.URL + "/flush")
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(resp.Body).ReadString('\n'); line != "first\n" {
		t.Errorf("%q %v", line, err)
	}
	resp.Body.Close()

	h := c.Middleware(metrics.MiddlewareConfig{})(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if _, _, err := w.(http.Hijacker).Hijack(); !errors.Is(err, http.ErrNotSupported) {
			t.Errorf("a writer that cannot be hijacked: %v", err)
		}
	}))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
}
