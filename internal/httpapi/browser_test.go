package httpapi_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/event"

	"github.com/mandate-auth/mandate/internal/store/storetest"
)

// origins are where a browser can send a request from, and whether cookies may
// be set or used for it.
var origins = []struct {
	name    string
	edits   []edit
	refused bool
}{
	{"no browser", nil, false},
	{"same origin", []edit{header("Sec-Fetch-Site", "same-origin"), header("Origin", "https://shop.example")}, false},
	{"typed address", []edit{header("Sec-Fetch-Site", "none")}, false},
	{"own origin, old browser", []edit{header("Origin", "https://shop.example")}, false},
	{"trusted", []edit{header("Sec-Fetch-Site", "cross-site"), header("Origin", "https://trusted.example")}, false},
	{"cross-site", []edit{header("Sec-Fetch-Site", "cross-site"), header("Origin", "https://evil.example")}, true},
	{"cross-site without Origin", []edit{header("Sec-Fetch-Site", "cross-site")}, true},
	{"same-site", []edit{header("Sec-Fetch-Site", "same-site"), header("Origin", "https://x.shop.example")}, true},
	{"unknown word", []edit{header("Sec-Fetch-Site", "same-origin ; x")}, true},
	{"foreign, old browser", []edit{header("Origin", "https://evil.example")}, true},
	{"null", []edit{header("Origin", "null")}, true},
	{"other port", []edit{header("Origin", "https://shop.example:8443")}, true},
	{"trailing dot", []edit{header("Origin", "https://shop.example.")}, true},
	{"user part", []edit{header("Origin", "https://shop.example@evil.example")}, true},
	{"suffix", []edit{header("Origin", "https://shop.example.evil.example")}, true},
	{"trusted name over http", []edit{header("Origin", "http://trusted.example")}, true},
	{"trusted name, other port", []edit{header("Origin", "https://trusted.example:444")}, true},
}

// A page of another origin can neither use a browser's cookies nor put cookies
// into it: not by signing it in as somebody else, and not by any other route.
func TestCookiesAcrossOrigins(t *testing.T) {
	t.Parallel()
	w := setup(t, everyone+`,"csrf":{"trusted_origins":["https://trusted.example"]}`, inDevelopment)
	w.register()
	for i, o := range origins {
		w.routes(func(route, method, path string) {
			traits := routeTraits[route]
			if traits.signIn {
				body := obj("transport", "cookie")
				switch route {
				case "POST /register":
					body = with(body, "email", fmt.Sprintf("new%d@example.com", i), "password", password)
				case "POST /login":
					body = with(account, "transport", "cookie")
				}
				r := w.do(method, path, body, o.edits...)
				if (r.code() == "csrf_failed") != o.refused || o.refused != (len(r.header["Set-Cookie"]) == 0) || (o.refused && r.status != 403) {
					t.Errorf("%s from %s: %d %q, cookies %v", route, o.name, r.status, r.code(), r.header["Set-Cookie"])
				}
			}
			if method == "GET" || traits.machine {
				return
			}
			// With cookies of a session: refused before anything is done.
			_, jar := w.signIn()
			r := w.do(method, path, nil, append(slices.Clone(o.edits), jar, xhr)...)
			if (r.code() == "csrf_failed") != o.refused {
				t.Errorf("%s with cookies from %s: %d %q", route, o.name, r.status, r.code())
			}
			if o.refused {
				w.want(w.do("GET", "/me", nil, jar), 200, "")
				// The refresh cookie alone authenticates as well.
				refresh := header("Cookie", "__Secure-shop_refresh=x")
				if r := w.do(method, path, nil, append(slices.Clone(o.edits), refresh, xhr, overHTTPS)...); r.code() != "csrf_failed" {
					t.Errorf("%s with the refresh cookie from %s: %d %q", route, o.name, r.status, r.code())
				}
				if len(r.header["Set-Cookie"]) != 0 {
					t.Errorf("%s from %s changed cookies: %v", route, o.name, r.header["Set-Cookie"])
				}
			}
		})
	}
}

// What a page can send without asking first (a form, an image) is refused with
// cookies even when the browser is too old to say where it comes from.
func TestSimpleRequestsWithCookies(t *testing.T) {
	t.Parallel()
	w := setup(t, everyone, inDevelopment)
	w.register()
	_, jar := w.signIn()
	for _, media := range []string{"", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain; application/json"} {
		w.routes(func(route, method, path string) {
			if method == "GET" || routeTraits[route].machine {
				return
			}
			r := w.do(method, path, "", jar, contentType(media))
			w.refused(route+" as "+media, r, 403, "csrf_failed")
		})
	}
	w.want(w.do("GET", "/me", nil, jar), 200, "")
}

// A session that the browser had before a sign-in is ended by it: who planted it
// is left with nothing, and signing in again takes no other device's place.
func TestSignInReplacesTheBrowsersSession(t *testing.T) {
	t.Parallel()
	w := setup(t, `"users":{"allow_anonymous_users":true},"sessions":{"max_per_user":2}`)
	phone := w.register()
	first, jar := w.signIn()
	for range 4 {
		again, next := w.signIn(jar)
		w.want(w.do("GET", "/me", nil, jar), 401, "token_revoked")
		w.want(w.do("POST", "/refresh", nil, jar, xhr), 401, "session_expired")
		w.want(w.do("GET", "/me", nil, next), 200, "")
		if cookieOf(t, again, "__Secure-shop_refresh") == cookieOf(t, first, "__Secure-shop_refresh") {
			t.Error("a sign-in kept the refresh token")
		}
		jar = next
	}
	w.want(w.do("GET", "/me", nil, bearer(phone.text("access_token"))), 200, "")
}

// What a sign-in by cookie ends, and what it leaves alone.
func TestPlantedSessionsDie(t *testing.T) {
	t.Parallel()
	w := setup(t, everyone, inDevelopment)
	w.register()
	for route, body := range map[string]map[string]any{
		"/register": obj("email", "new@example.com", "password", password), "/login": account, "/anonymous": {}, "/demo": {},
	} {
		planted := cookiesOf(w.want(w.do("POST", "/anonymous", obj("transport", "cookie")), 200, ""))
		r := w.do("POST", route, with(body, "transport", "cookie"), planted)
		if r.status/100 != 2 {
			t.Fatalf("%s: %d %s", route, r.status, r.raw)
		}
		w.want(w.do("GET", "/me", nil, planted), 401, "token_revoked")
		w.want(w.do("GET", "/me", nil, cookiesOf(r)), 200, "")
	}
	w.signIn(header("Cookie", "shop_refresh=garbage")) // means nothing and stands in nobody's way

	// A refused sign-in ends nothing, and a client with tokens of its own leaves
	// the browser's session alone.
	_, jar := w.signIn()
	w.want(w.do("POST", "/login", with(account, "password", "wrong", "transport", "cookie"), jar), 401, "invalid_credentials")
	w.want(w.do("GET", "/me", nil, jar), 200, "")
	w.want(w.do("POST", "/login", account, jar), 200, "")
	w.want(w.do("GET", "/me", nil, jar), 200, "")
}

// When the end of the old session cannot be stored the sign-in fails, sets
// nothing, and can be repeated.
func TestSignInFailsClosedWhenTheOldSessionCannotBeEnded(t *testing.T) {
	t.Parallel()
	var armed atomic.Bool
	var cuts atomic.Int64
	var link *storetest.Link
	// Only the end of the old session fails: what comes after it would work.
	db, link := storetest.LinkedAndMonitored(t, &event.CommandMonitor{
		Started: func(_ context.Context, e *event.CommandStartedEvent) {
			if target, _ := e.Command.Lookup(e.CommandName).StringValueOK(); e.CommandName == "findAndModify" && target == "user_sessions" && armed.Load() {
				cuts.Add(1)
				link.Cut()
			}
		},
		Failed: func(context.Context, *event.CommandFailedEvent) { link.Restore() },
	})
	w := setupOn(t, db, ``)
	w.register()
	_, jar := w.signIn()
	armed.Store(true)
	r := w.do("POST", "/login", with(account, "transport", "cookie"), jar)
	w.refused("a sign-in that could not end the old session", r, 503, "unavailable")
	if cuts.Load() == 0 || len(r.header["Set-Cookie"]) != 0 || r.header.Get("Retry-After") == "" {
		t.Errorf("%d cuts, headers %v", cuts.Load(), r.header)
	}
	armed.Store(false)
	link.Restore()
	deadline := time.Now().Add(8 * time.Second)
	for r.status != 200 && time.Now().Before(deadline) {
		r = w.do("POST", "/login", with(account, "transport", "cookie"), jar)
	}
	w.want(w.do("GET", "/me", nil, cookiesOf(r)), 200, "")
	w.want(w.do("GET", "/me", nil, jar), 401, "token_revoked")
}

// Two of our cookies of one name mean that somebody planted one of them.
func TestDoubledCookiesAreRefusedEverywhere(t *testing.T) {
	t.Parallel()
	w := setup(t, everyone, inDevelopment)
	w.register()
	for _, name := range []string{"shop_access", "shop_refresh", "shop_device"} {
		twice := header("Cookie", name+"=a; x=y; "+name+"=b")
		w.routes(func(route, method, path string) {
			if routeTraits[route].machine {
				return // a cookie means nothing there
			}
			r := w.do(method, path, map[string]any{}, twice, xhr)
			w.refused(route+" with two of "+name, r, 400, "invalid_request")
			if len(r.header["Set-Cookie"]) != 0 {
				t.Errorf("%s: %v", route, r.header["Set-Cookie"])
			}
		})
	}
	w.want(w.do("POST", "/login", account, header("Cookie", "theme=a; theme=b")), 200, "")
}

// Signing out clears what the browser has, with the attributes that it was set
// with, also when a cookie means nothing any more.
func TestLogoutClearsWhatWasSet(t *testing.T) {
	t.Parallel()
	w := setup(t, ``)
	w.register()
	in, jar := w.signIn()
	tests := []struct {
		name  string
		edits []edit
	}{
		{"both cookies", []edit{jar, xhr}},
		{"the same again", []edit{jar, xhr}},
		{"garbage for access", []edit{header("Cookie", "__Host-shop_access=garbage"), xhr}},
		{"garbage for refresh", []edit{header("Cookie", "__Secure-shop_refresh=garbage"), xhr}},
		{"nothing", nil},
	}
	for _, tt := range tests {
		out := w.want(w.do("POST", "/logout", nil, tt.edits...), 204, "")
		if len(out.header["Set-Cookie"]) != 2 {
			t.Fatalf("%s: cleared %v", tt.name, out.header["Set-Cookie"])
		}
		for i, line := range out.header["Set-Cookie"] {
			name, rest, _ := strings.Cut(line, "=")
			set := in.header["Set-Cookie"][i]
			attributes := set[strings.Index(set, "; Path="):]
			path, flags, _ := strings.Cut(strings.TrimPrefix(attributes, "; "), "; ")
			if !strings.HasPrefix(set, name+"=") || !strings.HasPrefix(rest, "; "+path+";") || !strings.HasSuffix(rest, flags) || !strings.Contains(rest, "Max-Age=0") {
				t.Errorf("%s: set %q, cleared %q", tt.name, attributes, line)
			}
		}
	}
	w.want(w.do("GET", "/me", nil, jar), 401, "token_revoked")
	// A token that a program sends is its own business: it is told.
	w.want(w.do("POST", "/logout", nil, bearer("a.b.c")), 401, "token_invalid")
}

// An origin that may read answers without the user's cookies may not send
// requests with them.
func TestCORSTrustsOnlyWithCredentials(t *testing.T) {
	t.Parallel()
	for auth, want := range map[string]int{
		`"cors":{"allow_origins":["https://spa.example"]}`:                          403,
		`"cors":{"allow_origins":["*"]}`:                                            403,
		`"cors":{"allow_origins":["https://spa.example"],"allow_credentials":true}`: 200,
	} {
		w := setup(t, auth)
		w.register()
		_, jar := w.signIn()
		from := []edit{jar, contentType("application/x-www-form-urlencoded"), header("Origin", "https://spa.example"), header("Sec-Fetch-Site", "cross-site")}
		if r := serve(t, w.app.RequireUser().Handler(who), "POST", "/", "a=b", from...); r.status != want {
			t.Errorf("%s: a form of that origin got %d, want %d", auth, r.status, want)
		}
	}
}
