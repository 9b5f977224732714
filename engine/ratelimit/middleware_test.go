package ratelimit_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mandate-auth/mandate/engine/ratelimit"
)

var quiet = slog.New(slog.DiscardHandler)

// through sends a request from an address and reports whether the handler was called.
func through(l *ratelimit.Limiter, opts *ratelimit.MiddlewareOptions, address string) (*httptest.ResponseRecorder, bool) {
	called := false
	h := ratelimit.Middleware(l, opts)(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		called = true
		w.WriteHeader(http.StatusTeapot)
	}))
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = address
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w, called
}

func memoryLimiter(t *testing.T, c *clock, rule ratelimit.Rule) *ratelimit.Limiter {
	t.Helper()
	l, err := ratelimit.New(rule, ratelimit.NewMemory(ratelimit.MemoryConfig{Now: c.now}))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestMiddleware(t *testing.T) {
	t.Parallel()
	c := newClock()
	l := memoryLimiter(t, c, login)
	for i, left := range []string{"2", "1", "0"} {
		w, called := through(l, nil, "192.0.2.1:1234")
		if !called || w.Code != http.StatusTeapot {
			t.Fatalf("request %d: %d", i+1, w.Code)
		}
		want := http.Header{
			"X-Ratelimit-Limit": {"3"}, "X-Ratelimit-Remaining": {left},
			"Ratelimit-Policy": {`"login";q=3;w=60`}, "Ratelimit": {`"login";r=` + left + `;t=60`},
		}
		if diff := cmp.Diff(want, w.Header()); diff != "" {
			t.Errorf("request %d: (-want +got)\n%s", i+1, diff)
		}
	}
	c.move(14_500 * time.Millisecond)
	w, called := through(l, nil, "192.0.2.1:4321")
	if called || w.Code != http.StatusTooManyRequests {
		t.Errorf("over the limit: called %t, %d", called, w.Code)
	}
	want := http.Header{
		"X-Ratelimit-Limit": {"3"}, "X-Ratelimit-Remaining": {"0"},
		"Ratelimit-Policy": {`"login";q=3;w=60`}, "Ratelimit": {`"login";r=0;t=46`}, "Retry-After": {"46"},
		"Content-Type": {"application/problem+json"}, "Cache-Control": {"no-store"},
	}
	if diff := cmp.Diff(want, w.Header()); diff != "" {
		t.Errorf("over the limit: (-want +got)\n%s", diff)
	}
	const body = `{"type":"about:blank","title":"Too many requests","status":429,"detail":"Rate limit exceeded; try again later.","code":"rate_limited"}`
	if got := strings.TrimSpace(w.Body.String()); got != body {
		t.Errorf("over the limit: %s", got)
	}
	c.move(45_500 * time.Millisecond)
	if _, called := through(l, nil, "192.0.2.1:1"); !called {
		t.Error("refused after what Retry-After said")
	}
}

func TestByAddress(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"192.0.2.1:80":              "192.0.2.1",
		"[::ffff:192.0.2.1]:80":     "192.0.2.1",
		"[2001:db8:1:2:3:4:5:6]:80": "2001:db8:1:2::/64",
		"[2001:db8:1:2::9%eth0]:80": "2001:db8:1:2::/64",
		"[2001:db8:1:3::9]:80":      "2001:db8:1:3::/64",
		"@":                         "",
		"":                          "",
	} {
		if got := ratelimit.ByAddress(&http.Request{RemoteAddr: address}); got != want {
			t.Errorf("%q counts as %q, want %q", address, got, want)
		}
	}
}

func TestKeyFunction(t *testing.T) {
	t.Parallel()
	l := memoryLimiter(t, newClock(), withMax(1))
	opts := &ratelimit.MiddlewareOptions{Key: func(r *http.Request) string {
		host, _, _ := strings.Cut(r.RemoteAddr, "-")
		return host
	}}
	for _, c := range []struct {
		address string
		want    bool
	}{{"a-1", true}, {"a-2", false}, {"b-1", true}, {"-1", true}, {"-2", false}} {
		if _, called := through(l, opts, c.address); called != c.want {
			t.Errorf("%s is let through: %t, want %t", c.address, called, c.want)
		}
	}
}

// Without an answer of the store nobody gets in, and clients do not learn why.
func TestMiddlewareFailsClosed(t *testing.T) {
	t.Parallel()
	broken, err := ratelimit.New(login, liar{})
	if err != nil {
		t.Fatal(err)
	}
	for name, l := range map[string]*ratelimit.Limiter{"a store that fails": broken, "the zero limiter": {}, "no limiter": nil} {
		var log bytes.Buffer
		w, called := through(l, &ratelimit.MiddlewareOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))}, "192.0.2.1:1")
		if called || w.Code != http.StatusServiceUnavailable {
			t.Errorf("%s: called %t, %d", name, called, w.Code)
		}
		want := http.Header{"Retry-After": {"1"}, "Content-Type": {"application/problem+json"}, "Cache-Control": {"no-store"}}
		if diff := cmp.Diff(want, w.Header()); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", name, diff)
		}
		const body = `{"type":"about:blank","title":"Unavailable","status":503,"detail":"This is not available at the moment; try again.","code":"unavailable"}`
		if got := strings.TrimSpace(w.Body.String()); got != body {
			t.Errorf("%s: %s", name, got)
		}
		if !strings.Contains(log.String(), "level=ERROR") {
			t.Errorf("%s: the log says %q", name, log.String())
		}
	}
}

// Clients that hang up must not fill the log of errors.
func TestClientThatHangsUp(t *testing.T) {
	t.Parallel()
	l := memoryLimiter(t, newClock(), login)
	var log bytes.Buffer
	opts := &ratelimit.MiddlewareOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))}
	h := ratelimit.Middleware(l, opts)(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("called") }))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil))
	if w.Code != http.StatusServiceUnavailable || log.Len() > 0 {
		t.Errorf("%d, and the log says %q", w.Code, log.String())
	}
}

func TestRefuseIsReplaceable(t *testing.T) {
	t.Parallel()
	broken, err := ratelimit.New(login, liar{})
	if err != nil {
		t.Fatal(err)
	}
	full := memoryLimiter(t, newClock(), withMax(1))
	through(full, nil, "192.0.2.1:1")
	for name, c := range map[string]struct {
		l     *ratelimit.Limiter
		err   error
		retry string
	}{"limit": {full, nil, "60"}, "failure": {broken, errStore, "1"}} {
		w, called := through(c.l, &ratelimit.MiddlewareOptions{Logger: quiet, Refuse: func(w http.ResponseWriter, _ *http.Request, d ratelimit.Decision, err error) {
			if d.Allowed || !errors.Is(err, c.err) {
				t.Errorf("%s: %+v, %v", name, d, err)
			}
			http.Redirect(w, httptest.NewRequest(http.MethodGet, "/", nil), "/slow-down", http.StatusSeeOther)
		}}, "192.0.2.1:1")
		if called || w.Code != http.StatusSeeOther || w.Header().Get("Retry-After") != c.retry {
			t.Errorf("%s: called %t, %d %v", name, called, w.Code, w.Header())
		}
	}
}

// Limits behind each other: both count, and the response names both.
func TestNestedMiddleware(t *testing.T) {
	t.Parallel()
	c := newClock()
	outer := ratelimit.Middleware(memoryLimiter(t, c, ratelimit.Rule{Name: "all", Max: 5, Window: time.Minute}),
		&ratelimit.MiddlewareOptions{Key: func(*http.Request) string { return "" }})
	inner := ratelimit.Middleware(memoryLimiter(t, c, withMax(2)), nil)
	h := outer(inner(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	var codes []int
	var last http.Header
	for range 6 {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		codes, last = append(codes, w.Code), w.Header()
		if w.Code == http.StatusOK && (len(last["Ratelimit"]) != 2 || last.Get("X-RateLimit-Limit") != "2") {
			t.Errorf("the response names %v", last)
		}
	}
	if diff := cmp.Diff([]int{200, 200, 429, 429, 429, 429}, codes); diff != "" {
		t.Error(diff)
	}
	if last.Get("X-RateLimit-Limit") != "5" || len(last["Ratelimit"]) != 1 {
		t.Errorf("the outer limit refuses first, and the response says %v", last)
	}
}
