package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/cookies"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/users"
)

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// The address decides who is limited and logged: what a client writes itself
// must never be it.
func TestClientAddress(t *testing.T) {
	t.Parallel()
	trusted := prefixes("10.0.0.0/8", "2001:db8:ffff::/48")
	tests := []struct {
		name, peer string
		forwarded  []string
		trusted    []netip.Prefix
		want, net  string
	}{
		{"direct", "203.0.113.7:1234", nil, trusted, "203.0.113.7", "203.0.113.7"},
		{"forged by a stranger", "203.0.113.7:1", []string{"198.51.100.1"}, trusted, "203.0.113.7", "203.0.113.7"},
		{"nobody is trusted", "10.0.0.1:1", []string{"198.51.100.1"}, nil, "10.0.0.1", "10.0.0.1"},
		{"one proxy", "10.0.0.1:1", []string{"198.51.100.1"}, trusted, "198.51.100.1", "198.51.100.1"},
		{"the client's own words come first", "10.0.0.1:1", []string{"1.1.1.1, 198.51.100.1, 10.0.0.2"}, trusted, "198.51.100.1", "198.51.100.1"},
		{"several headers", "10.0.0.1:1", []string{"1.1.1.1", "198.51.100.1"}, trusted, "198.51.100.1", "198.51.100.1"},
		{"garbage stops", "10.0.0.1:1", []string{"198.51.100.1, garbage"}, trusted, "10.0.0.1", "10.0.0.1"},
		{"garbage before", "10.0.0.1:1", []string{"garbage, 198.51.100.1"}, trusted, "198.51.100.1", "198.51.100.1"},
		{"only proxies", "10.0.0.1:1", []string{"10.0.0.3, 10.0.0.2"}, trusted, "10.0.0.3", "10.0.0.3"},
		{"empty header", "10.0.0.1:1", []string{""}, trusted, "10.0.0.1", "10.0.0.1"},
		{"unbalanced brackets", "10.0.0.1:1", []string{"]198.51.100.1["}, trusted, "10.0.0.1", "10.0.0.1"},
		{"IPv4 in brackets", "10.0.0.1:1", []string{"[198.51.100.1]"}, trusted, "10.0.0.1", "10.0.0.1"},
		{"an empty header last", "10.0.0.1:1", []string{"198.51.100.1", ""}, trusted, "10.0.0.1", "10.0.0.1"},
		{"a name", "10.0.0.1:1", []string{"unknown"}, trusted, "10.0.0.1", "10.0.0.1"},
		{"more proxies than anybody has", "10.0.0.1:1", []string{"198.51.100.1" + strings.Repeat(",10.0.0.2", 40)}, trusted, "10.0.0.2", "10.0.0.2"},
		{"with a port", "10.0.0.1:1", []string{"198.51.100.1:4711"}, trusted, "198.51.100.1", "198.51.100.1"},
		{"IPv6", "[2001:db8:1:2:3::4%eth0]:1", nil, trusted, "2001:db8:1:2:3::4", "2001:db8:1:2::/64"},
		{"IPv6 in brackets", "10.0.0.1:1", []string{"[2001:DB8:1:2:3::4]"}, trusted, "2001:db8:1:2:3::4", "2001:db8:1:2::/64"},
		{"IPv4 in IPv6", "[::ffff:203.0.113.7]:1", nil, trusted, "203.0.113.7", "203.0.113.7"},
		{"mapped proxy", "[::ffff:10.0.0.1]:1", []string{"::ffff:198.51.100.1"}, trusted, "198.51.100.1", "198.51.100.1"},
		{"no port", "203.0.113.7", nil, trusted, "203.0.113.7", "203.0.113.7"},
		{"a socket", "@", nil, trusted, "invalid IP", ""},
	}
	for _, tt := range tests {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = tt.peer
		r.Header["X-Forwarded-For"] = tt.forwarded
		addr := clientAddress(r, tt.trusted)
		if addr.String() != tt.want || network(addr) != tt.net {
			t.Errorf("%s: got %s of %q, want %s of %q", tt.name, addr, network(addr), tt.want, tt.net)
		}
	}
}

func TestEncrypted(t *testing.T) {
	t.Parallel()
	trusted := prefixes("10.0.0.0/8")
	for _, tt := range []struct {
		peer  string
		proto []string
		want  bool
	}{
		{"10.0.0.1:1", []string{"https"}, true},
		{"10.0.0.1:1", []string{"HTTPS"}, true},
		{"10.0.0.1:1", []string{"http"}, false},
		{"10.0.0.1:1", []string{"https", "http"}, false},
		{"10.0.0.1:1", nil, false},
		{"203.0.113.7:1", []string{"https"}, false},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = tt.peer
		r.Header["X-Forwarded-Proto"] = tt.proto
		if got := encrypted(r, trusted); got != tt.want {
			t.Errorf("%s %v: %t", tt.peer, tt.proto, got)
		}
	}
}

func TestBearer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		lines []string
		want  string
		bad   bool
	}{
		{nil, "", false},
		{[]string{"Bearer abc.DEF-_~+/="}, "abc.DEF-_~+/=", false},
		{[]string{"bEaReR abc"}, "abc", false},
		{[]string{"Bearer   abc "}, "abc", false},
		{[]string{"Basic abc"}, "", false},
		{[]string{"Bearer"}, "", true},
		{[]string{"Bearer a b"}, "", true},
		{[]string{"Bearer a,b"}, "", true},
		{[]string{"Bearer a\tb"}, "", true},
		{[]string{"Bearer é"}, "", true},
		{[]string{"Bearer a=b"}, "", true},
		{[]string{"Bearer ="}, "", true},
		{[]string{"Bearer ab=="}, "ab==", false},
		{[]string{"Bearer\tabc"}, "", false},
		{[]string{"Bearerabc"}, "", false},
		{[]string{"Bearer a", "Bearer a"}, "", true},
		{[]string{"Basic a", "Bearer a"}, "", true},
	} {
		r := &http.Request{Header: http.Header{"Authorization": tt.lines}}
		got, err := (&API{}).authorization(r)
		if got.text != tt.want || (err != nil) != tt.bad {
			t.Errorf("%q: got %q, %v", tt.lines, got.text, err)
		}
	}
}

func TestEveryCodeHasATemplate(t *testing.T) {
	t.Parallel()
	for _, c := range conditions {
		p := AsProblem(c.err)
		if p.Code != c.code || p.Status == 0 || !errors.Is(p, c.err) {
			t.Errorf("%v: %+v", c.err, p)
		}
	}
	for code, tmpl := range templates {
		if tmpl.status < 400 || tmpl.title == "" || !strings.HasSuffix(tmpl.detail, ".") {
			t.Errorf("%s: %+v", code, tmpl)
		}
	}
	secret := errors.New("dial tcp 10.1.2.3:27017: canary")
	if p := AsProblem(secret); p.Code != CodeInternal || strings.Contains(p.Detail, "canary") {
		t.Errorf("an unknown error is shown: %+v", p)
	}
}

func TestBodyFaultsComeTogether(t *testing.T) {
	t.Parallel()
	var email, id string
	var remember bool
	in := fields{"email": &email, "remember_me": &remember, "device": fields{"id": &id}}
	err := parseBody([]byte(`{"email":1,"role":"admin","remember_me":"x","device":{"id":null,"os":"x"}}`), in)
	var p *Problem
	if !errors.As(err, &p) || p.Code != CodeInvalidRequest {
		t.Fatalf("got %v", err)
	}
	var got []string
	for _, f := range p.Errors {
		got = append(got, f.Path+" "+f.Message)
	}
	want := []string{
		"device.id must not be null; leave it out", "device.os is not a member that this route knows", "email must be a string",
		"remember_me must be a boolean", "role is not a member that this route knows",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if err := parseBody([]byte(`{"email":"a","device":{"id":"x"}}`), in); err != nil || email != "a" || id != "x" {
		t.Errorf("a good body: %v, %q, %q", err, email, id)
	}
}

func FuzzBody(f *testing.F) {
	for _, s := range []string{`{"email":"a","device":{"id":"x"}}`, `{"email":{"$ne":""}}`, `{"a":1,"a":2}`, `[[[[`, `{"profile":{"a":null}}`, "\xff"} {
		f.Add([]byte(s))
	}
	f.Add([]byte(`{"email":"\ud83d\ude00\\ud800"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var email, id string
		var profile map[string]any
		err := parseBody(raw, fields{"email": &email, "profile": &profile, "device": fields{"id": &id}})
		var p *Problem
		if err != nil && (!errors.As(err, &p) || p.Status < 400 || p.Status >= 500) {
			t.Errorf("parseBody(%q) = %v", raw, err)
		}
	})
}

// A client decides how long the list is: reading its end must not cost more for
// what stands before.
func TestClientAddressReadsTheEndOnly(t *testing.T) {
	trusted := prefixes("10.0.0.0/8")
	r := &http.Request{RemoteAddr: "10.0.0.1:1", Header: http.Header{"X-Forwarded-For": {strings.Repeat(",", 1<<16) + "198.51.100.1"}}}
	if n := testing.AllocsPerRun(100, func() { clientAddress(r, trusted) }); n != 0 {
		t.Errorf("%v allocations for a long list", n)
	}
}

// Half a surrogate pair is no character; decoded it would be the same as any
// other half, and passwords that differ would open one account.
func TestSurrogates(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{"email":"\ud83d\ude00"}`:       "😀",
		`{"email":"\uD83D\uDE00x"}`:      "😀x",
		`{"email":"\\ud800"}`:            `\ud800`,
		`{"email":"\\\\ud800"}`:          `\\ud800`,
		`{"email":"\ufffd"}`:             "\ufffd",
		`{"email":"\ud800"}`:             "",
		`{"email":"\udc00"}`:             "",
		`{"email":"\ude00\ud83d"}`:       "",
		`{"email":"\ud83dx\ude00"}`:      "",
		`{"email":"\ud83d\\ude00"}`:      "",
		`{"email":"\\\ud800"}`:           "",
		`{"email":"x\ud800\u0041"}`:      "",
		`{"email":"x","\ud800":1}`:       "",
		`{"email":"\ud83d\ude00\ud83d"}`: "",
	} {
		var email string
		err := parseBody([]byte(body), fields{"email": &email})
		if (err == nil) != (want != "") || email != want {
			t.Errorf("%s: %q, %v, want %q", body, email, err, want)
		}
	}
}

// What a client wrote is repeated to some length only.
func TestRefusalsRepeatLittle(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é", 10_000)
	for _, body := range []string{`{"` + long + `":1,"` + long + `":1}`, `{"` + long + `":1}`, `{"device":{"` + long + `":1}}`} {
		var id string
		p := AsProblem(parseBody([]byte(body), fields{"device": fields{"id": &id}}))
		raw, err := json.Marshal(p)
		if err != nil || len(raw) > 1000 || !utf8.Valid(raw) {
			t.Errorf("%d bytes, %v", len(raw), err)
		}
	}
}

// bare is an API with one route and nothing behind it.
func bare(logs io.Writer, serve func(http.ResponseWriter, *http.Request) error) *API {
	a := &API{config: Config{
		App: "shop", BasePath: "/auth", Transport: TransportBearer, Events: event.Discard{}, Now: time.Now,
		Logger: slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelInfo})),
	}}
	a.routes = []route{{method: http.MethodGet, path: "/x", enabled: true, serve: serve}}
	return a
}

func get(a http.Handler) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	a.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/auth/x", nil))
	return w
}

// A defect denies, says nothing, and can be found by the request id.
func TestPanicsAreFoundByRequestID(t *testing.T) {
	t.Parallel()
	broken := func() error { panic("canary") }
	var logs bytes.Buffer
	a := bare(&logs, func(http.ResponseWriter, *http.Request) error { return broken() })
	guard := a.guard(func(*http.Request) (*authz.Principal, error) { return nil, broken() })
	for name, h := range map[string]http.Handler{
		"route": a, "guard": guard.Handler(http.NotFoundHandler()), "guard in All": a.All(guard).Handler(http.NotFoundHandler()),
		"guard in Optional": a.Optional(guard).Handler(http.NotFoundHandler()),
	} {
		logs.Reset()
		w := get(h)
		id := w.Header().Get("X-Request-Id")
		if w.Code != 500 || strings.Contains(w.Body.String(), "canary") || id == "" {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
		if text := logs.String(); strings.Count(text, "level=ERROR") != 1 || !strings.Contains(text, "request_id="+id) || !strings.Contains(text, "panic: canary") || !strings.Contains(text, "TestPanicsAreFoundByRequestID") {
			t.Errorf("%s: logged %s", name, text)
		}
	}
	logs.Reset()
	if p, err := guard.Check(httptest.NewRequest(http.MethodGet, "/", nil)); p != nil || AsProblem(err).Code != CodeInternal || strings.Count(logs.String(), "panic: canary") != 1 {
		t.Errorf("Check: %v, %v, logged %s", p, err, logs.String())
	}
}

// The sentinel that ends a connection goes through.
func TestAbortGoesThrough(t *testing.T) {
	t.Parallel()
	defer func() {
		if v := recover(); v != http.ErrAbortHandler { //nolint:errorlint // what was panicked with, not an error that was returned
			t.Errorf("recovered %v", v)
		}
	}()
	get(bare(io.Discard, func(http.ResponseWriter, *http.Request) error { panic(http.ErrAbortHandler) }))
}

// What the layers below report, and what a client is told of it.
func TestAnswersToErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err    error
		status int
		code   string
		retry  string
		logged bool
	}{
		{fmt.Errorf("read: %w: %w", store.ErrUnavailable, context.DeadlineExceeded), 503, CodeUnavailable, "1", true},
		{fmt.Errorf("read: %w", context.Canceled), 503, CodeUnavailable, "1", false},
		{context.DeadlineExceeded, 503, CodeUnavailable, "1", true},
		{users.ErrBusy, 503, CodeUnavailable, "1", true},
		{tokens.ErrStale, 503, CodeUnavailable, "1", true},
		{&users.LockedError{RetryAfter: 1500 * time.Millisecond}, 429, CodeAccountLocked, "2", false},
		{&users.LockedError{}, 429, CodeAccountLocked, "1", false},
		{&users.FieldError{Field: "x", Code: "of another version", Message: "y"}, 422, CodeInvalidField, "", false},
		{cookies.ErrTooLarge, 500, CodeInternal, "", true},
		{errors.New("canary"), 500, CodeInternal, "", true},
	} {
		var logs bytes.Buffer
		w := get(bare(&logs, func(http.ResponseWriter, *http.Request) error { return tt.err }))
		var p Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != tt.status || p.Code != tt.code || w.Header().Get("Retry-After") != tt.retry {
			t.Errorf("%v: %d %s, Retry-After %q", tt.err, w.Code, w.Body, w.Header().Get("Retry-After"))
		}
		if strings.Contains(w.Body.String(), "canary") || (logs.Len() > 0) != tt.logged {
			t.Errorf("%v: answered %s, logged %q", tt.err, w.Body, logs.String())
		}
	}
}

func FuzzClientAddress(f *testing.F) {
	f.Add("10.0.0.1:1", "198.51.100.1, 10.0.0.2")
	f.Add("[::1]:1", "::ffff:1.2.3.4,,x")
	trusted := prefixes("10.0.0.0/8")
	f.Fuzz(func(t *testing.T, peerAddr, forwarded string) {
		r := &http.Request{RemoteAddr: peerAddr, Header: http.Header{"X-Forwarded-For": {forwarded}}}
		got := clientAddress(r, trusted)
		if p := peer(r); got != p && !contains(trusted, p) {
			t.Errorf("%q %q: a stranger chose the address %s", peerAddr, forwarded, got)
		}
		if got.Is4In6() || got.Zone() != "" {
			t.Errorf("%q %q: %s is not canonical", peerAddr, forwarded, got)
		}
	})
}

func FuzzBearer(f *testing.F) {
	f.Add("Bearer abc")
	f.Add("bearer  a=b")
	f.Fuzz(func(t *testing.T, line string) {
		found, err := (&API{}).authorization(&http.Request{Header: http.Header{"Authorization": {line}}})
		if strings.ContainsAny(found.text, " \t\r\n,;\"") || (err != nil && found.text != "") {
			t.Errorf("%q: %q, %v", line, found.text, err)
		}
	})
}
