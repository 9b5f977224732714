package engine_test

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/engine/enginetest"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store/storetest"
)

func TestJourney(t *testing.T) {
	t.Parallel()
	w := setup(t, guests)
	first := w.register()
	for _, name := range []string{"access_token", "refresh_token", "device_token"} {
		if first.text(name) == "" {
			t.Errorf("the answer to a registration has no %s: %s", name, first.raw)
		}
	}
	if first.body["expires_in"] != 900.0 || first.text("token_type") != "Bearer" || first.at("user", "email") != email {
		t.Errorf("registered: %s", first.raw)
	}
	second := w.login()
	me := w.want(w.me(second.text("access_token")), 200, "")
	if me.at("principal", "id") != first.at("user", "id") || me.at("principal", "kind") != "human" {
		t.Errorf("me: %s", me.raw)
	}
	patched := w.want(w.do("PATCH", "/auth/me", obj("profile", obj("nick", "ada")), bearer(second.text("access_token"))), 200, "")
	if patched.at("user", "profile", "nick") != "ada" {
		t.Errorf("profile: %s", patched.raw)
	}
	list := w.want(w.do("GET", "/auth/sessions", nil, bearer(second.text("access_token"))), 200, "")
	sessions, _ := list.body["sessions"].([]any)
	if len(sessions) != 2 {
		t.Fatalf("sessions: %s", list.raw)
	}
	for _, s := range sessions {
		session, _ := s.(map[string]any)
		if session["current"] == false {
			w.want(w.do("DELETE", "/auth/sessions/"+session["id"].(string), nil, bearer(second.text("access_token"))), 204, "")
		}
	}
	w.want(w.me(first.text("access_token")), 401, "token_revoked")
	rotated := w.want(w.do("POST", "/auth/refresh", obj("refresh_token", second.text("refresh_token"))), 200, "")
	w.want(w.do("POST", "/auth/password", obj("current_password", password, "new_password", "another long passphrase"), bearer(rotated.text("access_token"))), 204, "")
	w.want(w.me(rotated.text("access_token")), 200, "")
	w.want(w.do("POST", "/auth/login", account), 401, "invalid_credentials")
	third := w.want(w.do("POST", "/auth/login", with(account, "password", "another long passphrase")), 200, "")
	w.want(w.do("DELETE", "/auth/sessions", nil, bearer(third.text("access_token"))), 204, "")
	w.want(w.me(rotated.text("access_token")), 401, "token_revoked")
	w.want(w.me(third.text("access_token")), 200, "")
	w.want(w.do("DELETE", "/auth/sessions?all=true", nil, bearer(third.text("access_token"))), 204, "")
	w.want(w.me(third.text("access_token")), 401, "token_revoked")
	w.want(w.do("POST", "/auth/refresh", obj("refresh_token", third.text("refresh_token"))), 401, "session_expired")
	fourth := w.want(w.do("POST", "/auth/login", with(account, "password", "another long passphrase")), 200, "")
	w.want(w.me(fourth.text("access_token")), 200, "") // a sign-in right after the end of all lives
	for range 2 {
		w.want(w.do("POST", "/auth/logout", obj("refresh_token", fourth.text("refresh_token"))), 204, "")
	}
	w.want(w.me(fourth.text("access_token")), 401, "token_revoked")
	w.want(w.do("GET", "/auth/health", nil), 200, "")
	for _, kind := range []event.Type{
		event.AppLoaded, event.UserRegistered, event.SessionStarted, event.LoginSucceeded, event.UserUpdated, event.SessionEnded, event.SessionRefreshed,
		event.PasswordChanged, event.LoginFailed, event.AllSessionsEnded,
	} {
		w.events.Wait(t, kind)
	}
}

// Every code that the routes of this version can answer with.
func TestRefusals(t *testing.T) {
	t.Parallel()
	w := setup(t, `"users":{"allow_anonymous_users":true,"lockout":{"max_failures":3}},"sessions":{"max_per_user":3,"on_limit":"refuse"}`)
	access := bearer(w.register().text("access_token"))
	guest := w.want(w.do("POST", "/auth/anonymous", nil), 200, "")
	expired := w.login().text("access_token")
	const login, big = "/auth/login", 65 << 10
	tests := []struct {
		name, method, path string
		body               any
		edit               []request
		status             int
		code               string
	}{
		{"not JSON", "POST", login, "{", nil, 400, "invalid_json"},
		{"name twice", "POST", login, `{"email":"a@b.c","email":"d@e.f","password":"x"}`, nil, 400, "invalid_json"},
		{"two values", "POST", login, `{}{}`, nil, 400, "invalid_json"},
		{"invalid UTF-8", "POST", login, "{\"email\":\"\xff\"}", nil, 400, "invalid_json"},
		{"nested too deep", "POST", login, strings.Repeat("[", 20) + strings.Repeat("]", 20), nil, 400, "invalid_json"},
		{"an array", "POST", login, `[]`, nil, 400, "invalid_request"},
		{"unknown member", "POST", login, with(account, "role", "admin"), nil, 400, "invalid_request"},
		{"other case", "POST", login, obj("Email", email, "password", password), nil, 400, "invalid_request"},
		{"wrong type", "POST", login, obj("email", obj("$ne", ""), "password", password), nil, 400, "invalid_request"},
		{"null", "POST", login, `{"email":null,"password":"x"}`, nil, 400, "invalid_request"},
		{"no e-mail", "POST", login, obj("password", password), nil, 400, "invalid_request"},
		{"no password", "POST", "/auth/register", obj("email", email), nil, 400, "invalid_request"},
		{"no profile", "PATCH", "/auth/me", nil, []request{access}, 400, "invalid_request"},
		{"bad query", "DELETE", "/auth/sessions?all=maybe", nil, []request{access}, 400, "invalid_request"},
		{"no checks", "POST", "/auth/authorize", nil, []request{access}, 400, "invalid_request"},
		{"empty checks", "POST", "/auth/authorize", `{"checks":[]}`, []request{access}, 400, "invalid_request"},
		{"too many checks", "POST", "/auth/authorize", `{"checks":[` + strings.Repeat(`{"object":"a","action":"b"},`, 100) + `{"object":"a","action":"b"}]}`, []request{access}, 400, "invalid_request"},
		{"a check that is null", "POST", "/auth/authorize", `{"checks":[null]}`, []request{access}, 400, "invalid_request"},
		{"a check of another case", "POST", "/auth/authorize", `{"checks":[{"Object":"a","action":"b"}]}`, []request{access}, 400, "invalid_request"},
		{"a check for somebody else", "POST", "/auth/authorize", `{"checks":[{"object":"a","action":"b","subject":"admin"}]}`, []request{access}, 400, "invalid_request"},
		{"a check without an action", "POST", "/auth/authorize", `{"checks":[{"object":"a"}]}`, []request{access}, 400, "invalid_request"},
		{"a check with a comma", "POST", "/auth/authorize", `{"checks":[{"object":"a,b","action":"b"}]}`, []request{access}, 400, "invalid_request"},
		{"two Authorization headers", "GET", "/auth/me", nil, []request{access, access}, 400, "invalid_request"},
		{"Bearer with a space inside", "GET", "/auth/me", nil, []request{bearer("a b")}, 400, "invalid_request"},
		{"Bearer and nothing", "GET", "/auth/me", nil, []request{header("Authorization", "Bearer ")}, 400, "invalid_request"},
		{"bearer and cookie", "GET", "/auth/me", nil, []request{access, header("Cookie", "__Host-shop_access=x")}, 400, "invalid_request"},
		{"one cookie twice", "GET", "/auth/me", nil, []request{header("Cookie", "__Host-shop_access=x; __Host-shop_access=y")}, 400, "invalid_request"},
		{"unknown address", "POST", login, obj("email", "nobody@example.com", "password", password), nil, 401, "invalid_credentials"},
		{"no credential", "GET", "/auth/me", nil, nil, 401, "unauthenticated"},
		{"another scheme", "GET", "/auth/me", nil, []request{header("Authorization", "Basic YTpi")}, 401, "unauthenticated"},
		{"no refresh token", "POST", "/auth/refresh", nil, nil, 401, "unauthenticated"},
		{"not our token", "GET", "/auth/me", nil, []request{bearer("a.b.c")}, 401, "token_invalid"},
		{"not our refresh token", "POST", "/auth/refresh", obj("refresh_token", "mrt1.a.b.1.c"), nil, 401, "token_invalid"},
		{"logout with garbage", "POST", "/auth/logout", obj("refresh_token", "x"), nil, 401, "token_invalid"},
		{"expired", "GET", "/auth/me", nil, []request{func(*http.Request) { w.move(time.Hour) }, bearer(expired)}, 401, "token_expired"},
		{"wrong current password", "POST", "/auth/password", obj("current_password", "x", "new_password", "another long passphrase"), []request{bearer(guest.text("access_token"))}, 401, "token_expired"},
		{"no such route", "GET", "/auth/nothing", nil, nil, 404, "not_found"},
		{"demo outside development", "POST", "/auth/demo", nil, nil, 404, "not_found"},
		{"trailing slash", "GET", "/auth/me/", nil, nil, 404, "not_found"},
		{"outside the base path", "GET", "/other/me", nil, nil, 404, "not_found"},
		{"wrong method", "GET", login, nil, nil, 405, "method_not_allowed"},
		{"taken address", "POST", "/auth/register", account, nil, 409, "email_taken"},
		{"body too large", "POST", login, with(account, "password", strings.Repeat("x", big)), nil, 413, "too_large"},
		{"form", "POST", login, "email=a", []request{func(r *http.Request) { r.Header.Set("Content-Type", "application/x-www-form-urlencoded") }}, 415, "unsupported_media_type"},
		{"text", "POST", login, `{}`, []request{func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }}, 415, "unsupported_media_type"},
		{"other charset", "POST", login, `{}`, []request{func(r *http.Request) { r.Header.Set("Content-Type", "application/json; charset=utf-16") }}, 415, "unsupported_media_type"},
		{"not an address", "POST", "/auth/register", with(account, "email", "ada"), nil, 422, "invalid_field"},
		{"unknown transport", "POST", login, with(account, "transport", "pigeon"), nil, 422, "invalid_field"},
		{"bad device id", "POST", "/auth/anonymous", obj("device_id", "short"), nil, 422, "invalid_field"},
		{"profile with an operator", "POST", "/auth/register", with(account, "email", "x@example.com", "profile", obj("$set", 1)), nil, 422, "invalid_field"},
		{"short password", "POST", "/auth/register", obj("email", "x@example.com", "password", "short"), nil, 422, "password_too_short"},
		{"long password", "POST", "/auth/register", obj("email", "x@example.com", "password", strings.Repeat("ab cd ", 50)), nil, 422, "password_too_long"},
		{"common password", "POST", "/auth/register", obj("email", "x@example.com", "password", "passwordpassword"), nil, 422, "password_common"},
	}
	for _, tt := range tests {
		r := w.do(tt.method, tt.path, tt.body, tt.edit...)
		if r.status != tt.status || r.code() != tt.code {
			t.Errorf("%s: got %d %q, want %d %q: %s", tt.name, r.status, r.code(), tt.status, tt.code, r.raw)
		}
		w.checkRefusal(tt.name, r)
	}
}

// checkRefusal holds every refusal against RFC 9457 and the contract.
func (w *world) checkRefusal(name string, r *response) {
	w.t.Helper()
	h := r.header
	if h.Get("Content-Type") != "application/problem+json" || h.Get("Cache-Control") != "no-store" || h.Get("X-Content-Type-Options") != "nosniff" {
		w.t.Errorf("%s: headers %v", name, h)
	}
	if r.text("title") == "" || r.text("type") == "" || r.text("request_id") != h.Get("X-Request-Id") || r.body["status"] != float64(r.status) {
		w.t.Errorf("%s: body %s", name, r.raw)
	}
	if (r.status == 401) != (h.Get("WWW-Authenticate") != "") {
		w.t.Errorf("%s: WWW-Authenticate %q", name, h.Get("WWW-Authenticate"))
	}
	if (r.status == 405) != (h.Get("Allow") != "") || (r.status == 429 || r.status == 503) != (h.Get("Retry-After") != "") {
		w.t.Errorf("%s: Allow %q, Retry-After %q", name, h.Get("Allow"), h.Get("Retry-After"))
	}
}

func TestRefusalsByState(t *testing.T) {
	t.Parallel()
	w := setup(t, `"users":{"lockout":{"max_failures":2}},"sessions":{"max_per_user":2,"on_limit":"refuse"}`)
	first := w.register()
	w.login()
	w.checkRefusal("session limit", w.want(w.do("POST", "/auth/login", account), 409, "session_limit"))
	w.want(w.do("POST", "/auth/logout", nil, bearer(first.text("access_token"))), 204, "")
	w.want(w.me(first.text("access_token")), 401, "token_revoked")
	w.want(w.do("POST", "/auth/refresh", obj("refresh_token", first.text("refresh_token"))), 401, "session_expired")

	second := w.login()
	w.want(w.do("POST", "/auth/refresh", obj("refresh_token", second.text("refresh_token"))), 200, "")
	w.move(time.Minute)
	w.want(w.do("POST", "/auth/refresh", obj("refresh_token", second.text("refresh_token"))), 401, "refresh_reused")

	third := w.login()
	access := bearer(third.text("access_token"))
	w.want(w.do("POST", "/auth/password", obj("current_password", "wrong", "new_password", "another long passphrase"), access), 401, "invalid_credentials")
	w.want(w.do("DELETE", "/auth/sessions/ses_nothing", nil, access), 404, "not_found")
	w.want(w.do("POST", "/auth/login", with(account, "password", "wrong")), 401, "invalid_credentials")
	for _, pw := range []string{"wrong", password} {
		r := w.want(w.do("POST", "/auth/login", with(account, "password", pw)), 429, "account_locked")
		w.checkRefusal("locked", r)
	}
	w.want(w.do("POST", "/auth/login", with(account, "device_token", third.text("device_token"))), 409, "session_limit")
	if err := w.app.Users().Unlock(t.Context(), email); err != nil {
		t.Fatal(err)
	}
	id, _ := third.at("user", "id").(string)
	if err := w.app.Users().Disable(t.Context(), id, "test"); err != nil {
		t.Fatal(err)
	}
	w.want(w.me(third.text("access_token")), 401, "token_revoked")
	w.want(w.do("POST", "/auth/login", account), 403, "account_disabled")
	w.want(w.do("POST", "/auth/login", with(account, "password", "wrong")), 401, "invalid_credentials")

	closed := setup(t, `"users":{"allow_registration":false}`)
	closed.checkRefusal("registration", closed.want(closed.do("POST", "/auth/register", account), 403, "registration_disabled"))
}

// What the manifest does not enable is not there.
func TestDisabledRoutes(t *testing.T) {
	t.Parallel()
	all := []string{
		"POST /register", "POST /login", "POST /anonymous", "POST /demo", "POST /refresh", "POST /logout", "GET /me", "PATCH /me",
		"GET /me/permissions", "POST /authorize", "POST /password", "GET /sessions", "DELETE /sessions", "DELETE /sessions/x", "GET /health",
	}
	tests := []struct {
		name, auth string
		off        []string
	}{
		{"users off", `"users":{"enabled":false}`, slices.DeleteFunc(slices.Clone(all), func(s string) bool { return s == "GET /health" })},
		{"guests only", `"users":{"strategy":"anonymous_session","allow_anonymous_users":true}`, []string{"POST /register", "POST /login", "POST /password", "POST /demo"}},
		{"defaults", ``, []string{"POST /anonymous", "POST /demo"}},
	}
	for _, tt := range tests {
		w := setup(t, tt.auth)
		for _, route := range all {
			method, path, _ := strings.Cut(route, " ")
			r := w.do(method, "/auth"+path, nil)
			if off := slices.Contains(tt.off, route); off != (r.code() == "not_found") {
				t.Errorf("%s: %s answers %d %s", tt.name, route, r.status, r.code())
			}
		}
	}
}

// requested names the commands of a request. The account that was made before may
// still be followed up: an instance learns of its own changes as well.
func requested(commands *enginetest.Commands) string {
	return enginetest.Names(slices.DeleteFunc(commands.Foreground(), func(c enginetest.Command) bool { return c.Collection == "app_state" }))
}

// uncounted returns headers without what counts down: each has its place, and the
// limits are what they were.
func uncounted(h http.Header) http.Header {
	h = h.Clone()
	for name, part := range map[string]string{"X-Ratelimit-Remaining": `[0-9]+`, "Ratelimit": `;[rt]=[0-9]+`} {
		for i, value := range h[name] {
			h[name][i] = regexp.MustCompile(part).ReplaceAllString(value, "#")
		}
	}
	return h
}

// Whoever asks for an address must not learn from the answer whether it is
// known: not by body, headers, hashes or database calls.
func TestUnknownAndWrongAnswerAlike(t *testing.T) {
	t.Parallel()
	commands := &enginetest.Commands{}
	w := newWorld(t, storetest.Monitored(t, commands.Monitor()), manifestOf(t, "shop", ``))
	w.register()
	type trace struct{ body, header, commands, hashes string }
	ask := func(address string) trace {
		commands.Reset()
		before := w.hashes.Load()
		r := w.do("POST", "/auth/login", obj("email", address, "password", "a wrong passphrase"))
		id := r.text("request_id")
		strip := func(s string) string { return strings.ReplaceAll(s, id, "ID") }
		return trace{strip(r.raw), strip(fmt.Sprint(uncounted(r.header))), requested(commands), fmt.Sprint(w.hashes.Load() - before)}
	}
	for range 2 {
		known, unknown := ask(email), ask("nobody@example.com")
		if known != unknown {
			t.Errorf("known   %+v\nunknown %+v", known, unknown)
		}
		if known.hashes != "1" {
			t.Errorf("%s hashes, want 1", known.hashes)
		}
	}
}

// operators are what a database would take for more than a value.
func operators() []any {
	return []any{
		obj("$ne", ""), obj("$gt", ""), obj("$regex", ".*"), obj("$where", "1"),
		[]any{obj("$ne", "")},
		[]any{"a"},
		1, true,
		obj("a.b", obj("$ne", 1)), obj("$set", obj("status", "active")), obj("id", obj("$ne", "")), `{"$ne":""}`, `';return 1;//`, "\x00",
	}
}

// An operator of MongoDB in any member of any route is a refusal, never a 500
// and never a match.
func TestOperatorsInEveryField(t *testing.T) {
	t.Parallel()
	w := setup(t, guests)
	token := w.register().text("access_token")
	routes := map[string][]string{
		"POST /register":  {"email", "password", "profile", "transport", "device", "remember_me"},
		"POST /login":     {"email", "password", "device", "device_token", "remember_me", "transport"},
		"POST /anonymous": {"device_id", "transport", "device", "remember_me"},
		"POST /refresh":   {"refresh_token"},
		"POST /logout":    {"refresh_token"},
		"PATCH /me":       {"profile"},
		"POST /password":  {"current_password", "new_password"},
	}
	for route, members := range routes {
		method, path, _ := strings.Cut(route, " ")
		for _, member := range members {
			for _, payload := range operators() {
				body := with(account, "current_password", password, "new_password", "another long passphrase")
				for name := range body {
					if !slices.Contains(members, name) {
						delete(body, name)
					}
				}
				if route == "POST /register" {
					body["email"] = "new@example.com"
				}
				body[member] = payload
				edit := []request{}
				if method == "PATCH" || path == "/password" {
					edit = append(edit, bearer(token))
				}
				r := w.do(method, "/auth"+path, body, edit...)
				benign := (member == "remember_me" && payload == true) || (member == "device_token" && r.status == 200)
				if r.status < 400 && !benign {
					t.Errorf("%s with %s = %v: %d %s", route, member, payload, r.status, r.raw)
				}
				if r.status >= 500 {
					t.Errorf("%s with %s = %v: %d", route, member, payload, r.status)
				}
			}
			if err := w.app.Users().Unlock(t.Context(), email); err != nil {
				t.Fatal(err)
			}
		}
	}
}
