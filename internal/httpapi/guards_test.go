package httpapi_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/engine"
)

// engineGuard is the zero value's type under a short name.
type engineGuard = engine.Guard

// A guard that does not ask who is calling must not make the handler forget it:
// behind RequireUser there is always a principal.
func TestGuardsInsideEachOther(t *testing.T) {
	t.Parallel()
	w := setup(t, guests)
	token := w.register().text("access_token")
	r := serve(t, w.app.RequireUser().Handler(who), "GET", "/", nil, bearer(token))
	id := r.text("who")
	if !strings.HasPrefix(id, "usr_") {
		t.Fatalf("got %s", r.raw)
	}
	a := w.app
	for name, h := range map[string]http.Handler{
		"TLS inside user":             a.RequireUser().Handler(a.RequireTLS().Handler(who)),
		"user inside TLS":             a.RequireTLS().Handler(a.RequireUser().Handler(who)),
		"All of TLS inside user":      a.RequireUser().Handler(a.All(a.RequireTLS()).Handler(who)),
		"optional TLS inside user":    a.RequireUser().Handler(a.Optional(a.RequireTLS()).Handler(who)),
		"All of both":                 a.All(a.RequireUser(), a.RequireTLS()).Handler(who),
		"All of All inside user":      a.RequireUser().Handler(a.All(a.All(a.RequireTLS())).Handler(who)),
		"fresh inside optional":       a.Optional(nil).Handler(a.RequireFresh(0).Handler(who)),
		"TLS inside optional, strict": a.Optional(a.Strict()).Handler(a.RequireTLS().Handler(who)),
	} {
		if r := serve(t, h, "GET", "/", nil, bearer(token), overHTTPS); r.text("who") != id {
			t.Errorf("%s: the handler sees %s", name, r.raw)
		}
	}
	// Nobody of this app stays nobody, whoever another guard has seen before.
	other := setup(t, guests)
	h := w.app.RequireUser().Handler(other.app.Optional(nil).Handler(who))
	if r := serve(t, h, "GET", "/", nil, bearer(token)); r.text("who") != "nobody" {
		t.Errorf("one app's Optional shows another app's user: %s", r.raw)
	}
}

// What All was made of cannot be changed afterwards.
func TestAllKeepsItsGuards(t *testing.T) {
	t.Parallel()
	w := setup(t, ``)
	list := []*engine.Guard{w.app.RequireTLS()}
	all := w.app.All(list...)
	list[0] = w.app.Optional(nil)
	if r := serve(t, all.Handler(who), "GET", "/", nil); r.code() != "tls_required" {
		t.Errorf("a guard was taken out from outside: %d %s", r.status, r.raw)
	}
}

// A WebSocket begins as a GET that any page can make the browser send with its
// cookies.
func TestWebSocketsAcrossOrigins(t *testing.T) {
	t.Parallel()
	w := setup(t, `"csrf":{"trusted_origins":["https://trusted.example"]}`)
	token := w.register().text("access_token")
	_, jar := w.signIn()
	upgrade := []edit{header("Connection", "Upgrade"), header("Upgrade", "websocket")}
	guard := w.app.RequireUser().Handler(who)
	for _, o := range origins {
		r := serve(t, guard, "GET", "/", nil, append(append([]edit{jar}, upgrade...), o.edits...)...)
		if (r.code() == "csrf_failed") != o.refused || (!o.refused && r.status != 200) {
			t.Errorf("a WebSocket from %s: %d %q", o.name, r.status, r.code())
		}
		if r := serve(t, guard, "GET", "/", nil, append([]edit{jar}, o.edits...)...); r.status != 200 {
			t.Errorf("reading from %s: %d %q", o.name, r.status, r.code())
		}
		if r := serve(t, guard, "GET", "/", nil, append(append([]edit{bearer(token)}, upgrade...), o.edits...)...); r.status != 200 {
			t.Errorf("a WebSocket by bearer from %s: %d %q", o.name, r.status, r.code())
		}
	}
}

// Refusals of guards carry the security headers, and keep the service's own.
func TestRefusalsOfGuardsHaveHeaders(t *testing.T) {
	t.Parallel()
	w := setup(t, ``)
	own := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Security-Policy", "default-src 'self'")
		rw.Header().Set("X-Request-Id", "the-services-own")
		w.app.RequireUser().Handler(who).ServeHTTP(rw, r)
	})
	r := serve(t, own, "GET", "/", nil, overHTTPS)
	w.refused("a guard", r, 401, "unauthenticated")
	if got := r.header.Get("Content-Security-Policy"); got != "default-src 'self'" {
		t.Errorf("the service's policy became %q", got)
	}
	if r.text("request_id") != "the-services-own" || r.header.Get("Strict-Transport-Security") == "" || r.header.Get("Referrer-Policy") == "" {
		t.Errorf("headers %v", r.header)
	}
	if r := serve(t, w.app.RequireUser().Handler(who), "GET", "/", nil); !strings.Contains(r.header.Get("Content-Security-Policy"), "frame-ancestors") {
		t.Errorf("headers %v", r.header)
	}
}

// What one caller does to a problem is not seen by the next one.
func TestProblemsAreNotShared(t *testing.T) {
	t.Parallel()
	w := setup(t, ``)
	guard := w.app.RequireUser()
	check := func(edits ...edit) *engine.Problem {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		for _, f := range edits {
			f(r)
		}
		_, err := guard.Check(r)
		return engine.AsProblem(err)
	}
	twice := []edit{bearer("a"), bearer("b")}
	first := check(twice...)
	first.Code, first.Status, first.Errors[0].Message = "changed", 200, "changed"
	if second := check(twice...); second.Code != "invalid_request" || second.Status != 400 || second.Errors[0].Message == "changed" {
		t.Errorf("the next caller gets %+v", second)
	}
}

// The id of a request is the proxy's, if the proxy is trusted and the id is one
// that can stand in a log.
func TestRequestID(t *testing.T) {
	t.Parallel()
	w := setup(t, `"trusted_proxies":["10.0.0.0/8"]`)
	from := func(addr string) edit { return func(r *http.Request) { r.RemoteAddr = addr } }
	for _, tt := range []struct {
		name, id string
		edits    []edit
		taken    bool
	}{
		{"a proxy's", "req-1.A_b", []edit{from("10.0.0.1:1")}, true},
		{"a stranger's", "req-1.A_b", []edit{from("203.0.113.7:1")}, false},
		{"two", "req-1", []edit{from("10.0.0.1:1"), header("X-Request-Id", "req-2")}, false},
		{"spaces", "a b", []edit{from("10.0.0.1:1")}, false},
		{"markup", "<script>", []edit{from("10.0.0.1:1")}, false},
		{"line break", "a\nb", []edit{from("10.0.0.1:1")}, false},
		{"empty", "", []edit{from("10.0.0.1:1")}, false},
		{"longest", strings.Repeat("a", 128), []edit{from("10.0.0.1:1")}, true},
		{"too long", strings.Repeat("a", 129), []edit{from("10.0.0.1:1")}, false},
	} {
		r := w.do("GET", "/me", nil, append([]edit{header("X-Request-Id", tt.id)}, tt.edits...)...)
		got := r.header.Get("X-Request-Id")
		if got == "" || (got == tt.id) != tt.taken || r.text("request_id") != got {
			t.Errorf("%s: %q became %q", tt.name, tt.id, got)
		}
	}
}

// Not parallel: it counts allocations. Bearer and cookie alike cost one context
// and one request.
func TestGuardsAllocateLittle(t *testing.T) {
	w := setup(t, ``)
	token := w.register().text("access_token")
	_, jar := w.signIn()
	h := w.app.RequireUser().Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for name, credential := range map[string]edit{"bearer": bearer(token), "cookie": jar} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.Host = "shop.example"
		credential(r)
		rec := httptest.NewRecorder()
		if n := testing.AllocsPerRun(200, func() { h.ServeHTTP(rec, r) }); n > 3 || rec.Code != 200 {
			t.Errorf("%s: %v allocations, status %d; want at most 3", name, n, rec.Code)
		}
	}
}

// A sign-in of long ago is not fresh, for cookies as for bearer tokens.
func TestFreshByCookie(t *testing.T) {
	t.Parallel()
	w := setup(t, ``)
	w.register()
	_, jar := w.signIn()
	guard := w.app.RequireFresh(time.Minute).Handler(who)
	if r := serve(t, guard, "GET", "/", nil, jar); r.status != 200 {
		t.Errorf("just signed in: %s", r.raw)
	}
	w.move(2 * time.Minute)
	r := serve(t, guard, "GET", "/", nil, jar)
	w.refused("an old sign-in", r, 401, "fresh_required")
	if !strings.Contains(r.header.Get("WWW-Authenticate"), "insufficient_user_authentication") {
		t.Errorf("RFC 9470: %q", r.header.Get("WWW-Authenticate"))
	}
	_, jar = w.signIn(jar)
	if r := serve(t, guard, "GET", "/", nil, jar); r.status != 200 {
		t.Errorf("signed in again: %s", r.raw)
	}
}
