package httpapi_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// routeTraits says what every route of this version asks for. A route that is
// missing here fails the test: nothing is added without its refusals.
var routeTraits = map[string]struct {
	body    bool // takes JSON
	private bool // asks who is calling
	signIn  bool // begins a session
	machine bool // is of OAuth 2.0: a form, its own errors, and no cookies
	cached  bool // says the same to everybody
	members []string
}{
	"POST /register":        {body: true, signIn: true, members: []string{"email", "password", "profile.a", "transport", "remember_me", "device.id", "device.name"}},
	"POST /login":           {body: true, signIn: true, members: []string{"email", "password", "device_token", "transport", "remember_me", "device.id", "device.name"}},
	"POST /anonymous":       {body: true, signIn: true, members: []string{"device_id", "transport", "remember_me", "device.id", "device.name"}},
	"POST /demo":            {body: true, signIn: true, members: []string{"device_id", "transport", "remember_me", "device.id", "device.name"}},
	"POST /refresh":         {body: true, members: []string{"refresh_token"}},
	"POST /logout":          {body: true, members: []string{"refresh_token"}},
	"GET /me":               {private: true},
	"PATCH /me":             {body: true, private: true, members: []string{"profile"}},
	"GET /me/permissions":   {private: true},
	"POST /authorize":       {body: true, private: true, members: []string{"checks"}},
	"POST /password":        {body: true, private: true, members: []string{"current_password", "new_password"}},
	"GET /sessions":         {private: true},
	"DELETE /sessions":      {private: true},
	"DELETE /sessions/{id}": {private: true},
	"GET /health":           {},

	"GET /admin/policies":                   {private: true},
	"POST /admin/policies":                  {body: true, private: true, members: []string{"add", "remove"}},
	"GET /admin/roles":                      {private: true},
	"GET /admin/roles/{role}/permissions":   {private: true},
	"PUT /admin/roles/{role}/permissions":   {body: true, private: true, members: []string{"permissions", "denied"}},
	"GET /admin/roles/{role}/users":         {private: true},
	"GET /admin/users/{id}/roles":           {private: true},
	"PUT /admin/users/{id}/roles":           {body: true, private: true, members: []string{"roles"}},
	"POST /admin/users/{id}/roles":          {body: true, private: true, members: []string{"role"}},
	"DELETE /admin/users/{id}/roles/{role}": {private: true},

	"GET /api-keys":         {private: true},
	"POST /api-keys":        {body: true, private: true, members: []string{"name", "scopes", "expires_in"}},
	"DELETE /api-keys/{id}": {private: true},

	"POST /oauth2/token":      {machine: true},
	"POST /oauth2/introspect": {machine: true},
	"POST /oauth2/revoke":     {machine: true},

	"GET /admin/clients":                          {private: true},
	"POST /admin/clients":                         {body: true, private: true, members: []string{"name", "scopes", "token_ttl"}},
	"GET /admin/clients/{id}":                     {private: true},
	"PATCH /admin/clients/{id}":                   {body: true, private: true, members: []string{"scopes", "status"}},
	"DELETE /admin/clients/{id}":                  {private: true},
	"POST /admin/clients/{id}/secrets":            {private: true},
	"DELETE /admin/clients/{id}/secrets/{secret}": {private: true},

	"GET /me/activity":         {private: true},
	"GET /admin/audit":         {private: true},
	"GET /admin/audit/summary": {private: true},
	"GET /admin/audit/verify":  {private: true},
	"GET /metrics":             {private: true},
	"GET /openapi.json":        {cached: true},
}

// routes calls f for every route that the app serves.
func (w *world) routes(f func(route, method, path string)) {
	w.t.Helper()
	seen := 0
	for _, served := range w.app.Routes() {
		method, path, _ := strings.Cut(served, " ")
		path = strings.TrimPrefix(path, "/auth")
		route := method + " " + path
		if _, known := routeTraits[route]; !known {
			w.t.Errorf("%s is served and its refusals are not tested", route)
			continue
		}
		seen++
		f(route, method, strings.NewReplacer("{id}", "ses_x", "{role}", "user", "{secret}", "sec_x").Replace(path))
	}
	if seen != len(routeTraits) {
		w.t.Errorf("%d routes were served, want %d", seen, len(routeTraits))
	}
}

// refused holds an answer against what every refusal has to have.
func (w *world) refused(what string, r *response, status int, code string) {
	w.t.Helper()
	h := r.header
	switch {
	case r.status != status || r.code() != code:
		w.t.Errorf("%s: got %d %q, want %d %q: %s", what, r.status, r.code(), status, code, r.raw)
	case h.Get("Cache-Control") != "no-store" || h.Get("Content-Type") != "application/problem+json" || h.Get("X-Content-Type-Options") != "nosniff":
		w.t.Errorf("%s: headers %v", what, h)
	case r.text("request_id") == "" || r.text("request_id") != h.Get("X-Request-Id"):
		w.t.Errorf("%s: request id %q, header %q", what, r.text("request_id"), h.Get("X-Request-Id"))
	case (status == 401) != (h.Get("WWW-Authenticate") != ""):
		w.t.Errorf("%s: WWW-Authenticate %q", what, h.Get("WWW-Authenticate"))
	case len(r.raw) > 4096:
		w.t.Errorf("%s: the refusal repeats %d bytes", what, len(r.raw))
	}
}

// A body that is not exactly what a route asks for is refused by every route
// that takes one.
func TestEveryRouteRefusesBadBodies(t *testing.T) {
	t.Parallel()
	w := setup(t, everyone, inDevelopment)
	token := bearer(w.register().text("access_token"))
	long := strings.Repeat("n", 30<<10)
	tests := []struct {
		name, body string
		edit       edit
		status     int
		code       string
	}{
		{"not JSON", "{", nil, 400, "invalid_json"},
		{"two values", "{} {}", nil, 400, "invalid_json"},
		{"blank", " \n", nil, 400, "invalid_json"},
		{"a name twice", `{"x":1,"x":2}`, nil, 400, "invalid_json"},
		{"a name twice, once escaped", `{"x":1,"\u0078":2}`, nil, 400, "invalid_json"},
		{"a long name twice", `{"` + long + `":1,"` + long + `":2}`, nil, 400, "invalid_json"},
		{"a name twice, deep inside", `{"profile":{"a":[{"b":1,"b":2}]}}`, nil, 400, "invalid_json"},
		{"not UTF-8", "{\"x\":\"\xff\"}", nil, 400, "invalid_json"},
		{"half a surrogate pair", `{"x":"\ud800"}`, nil, 400, "invalid_json"},
		{"nested too deep", strings.Repeat(`{"a":`, 20) + "1" + strings.Repeat("}", 20), nil, 400, "invalid_json"},
		{"an array", `[]`, nil, 400, "invalid_request"},
		{"null", `null`, nil, 400, "invalid_request"},
		{"unknown member", `{"is_admin":true}`, nil, 400, "invalid_request"},
		{"unknown member with a long name", `{"` + long + `":1}`, nil, 400, "invalid_request"},
		{"too large", `{"x":"` + strings.Repeat("x", 64<<10) + `"}`, nil, 413, "too_large"},
		{"form", `{}`, contentType("application/x-www-form-urlencoded"), 415, "unsupported_media_type"},
		{"text", `{}`, contentType("text/plain"), 415, "unsupported_media_type"},
		{"no content type", `{}`, func(r *http.Request) { r.Header.Del("Content-Type") }, 415, "unsupported_media_type"},
		{"another charset", `{}`, contentType("application/json; charset=utf-16"), 415, "unsupported_media_type"},
		{"another parameter", `{}`, contentType("application/json; profile=x"), 415, "unsupported_media_type"},
	}
	w.routes(func(route, method, path string) {
		if !routeTraits[route].body {
			return
		}
		for _, tt := range tests {
			edits := []edit{}
			if routeTraits[route].private {
				edits = append(edits, token)
			}
			if tt.edit != nil {
				edits = append(edits, tt.edit)
			}
			w.refused(route+", "+tt.name, w.do(method, path, tt.body, edits...), tt.status, tt.code)
		}
	})
	w.want(w.do("POST", "/login", account, contentType(`application/json; charset="UTF-8"`)), 200, "")
}

// An operator of MongoDB in any member, also of a nested object, of any route
// is refused: nothing from the wire becomes a filter.
func TestOperatorsInEveryMember(t *testing.T) {
	t.Parallel()
	w := setup(t, everyone, inDevelopment)
	token := bearer(w.register().text("access_token"))
	payloads := []any{
		obj("$ne", ""), obj("$gt", ""), obj("$regex", ".*"), obj("$where", "1"), obj("$in", []any{""}),
		[]any{obj("$ne", "")},
		[]any{},
		obj("$expr", obj("$eq", []any{1, 1})), 7,
	}
	w.routes(func(route, method, path string) {
		for _, member := range routeTraits[route].members {
			for _, payload := range payloads {
				if list, ok := payload.([]any); ok && len(list) == 0 && (member == "permissions" || member == "roles" || member == "scopes") {
					continue // an empty list of texts is one
				}
				if payload == 7 && (member == "expires_in" || member == "token_ttl") {
					continue // seconds
				}
				if member == "profile.a" {
					payload = obj("$set", payload)
				}
				body := map[string]any{}
				switch route {
				case "POST /register":
					body = with(account, "email", "new@example.com")
				case "POST /login":
					body = with(account)
				case "POST /api-keys", "POST /admin/clients":
					body = obj("name", "x")
				case "POST /password":
					body = obj("current_password", password, "new_password", "another long passphrase")
				}
				if outer, inner, nested := strings.Cut(member, "."); nested {
					body[outer] = obj(inner, payload)
				} else {
					body[member] = payload
				}
				r := w.do(method, path, body, token)
				if r.status != 400 && r.status != 422 {
					t.Errorf("%s with %s = %v: %d %s", route, member, payload, r.status, r.raw)
				}
			}
		}
	})
}

// Whoever is not known, no longer or not yet gets nothing from any private route.
func TestEveryPrivateRouteRefusesBadCredentials(t *testing.T) {
	t.Parallel()
	w := setup(t, everyone, inDevelopment)
	ended, old := w.register(), w.want(w.do("POST", "/login", account), 200, "")
	w.want(w.do("POST", "/logout", nil, bearer(ended.text("access_token"))), 204, "")
	live := bearer(w.do("POST", "/login", account).text("access_token"))
	other := setup(t, everyone, inDevelopment)
	foreign := other.register().text("access_token")
	tests := []struct {
		name   string
		edits  []edit
		status int
		code   string
	}{
		{"nobody", nil, 401, "unauthenticated"},
		{"another scheme", []edit{header("Authorization", "Negotiate YTpi")}, 401, "unauthenticated"},
		{"a password by Basic", []edit{header("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(email+":"+password)))}, 401, "invalid_credentials"},
		{"no pair by Basic", []edit{header("Authorization", "Basic x")}, 400, "invalid_request"},
		{"nobody's API key", []edit{header("X-API-Key", "mdk_x")}, 401, "token_invalid"},
		{"two API keys", []edit{header("X-API-Key", "mdk_x"), header("X-API-Key", "mdk_x")}, 400, "invalid_request"},
		{"an API key beside a token", []edit{live, header("X-API-Key", "mdk_x")}, 400, "invalid_request"},
		{"an API key in both places", []edit{bearer("mdk_x"), header("X-API-Key", "mdk_x")}, 400, "invalid_request"},
		{"no API key at all", []edit{header("X-API-Key", "a b")}, 400, "invalid_request"},
		{"garbage", []edit{bearer("a.b.c")}, 401, "token_invalid"},
		{"a refresh token", []edit{bearer(old.text("refresh_token"))}, 401, "token_invalid"},
		{"another installation's", []edit{bearer(foreign)}, 401, "token_invalid"},
		{"revoked", []edit{bearer(ended.text("access_token"))}, 401, "token_revoked"},
		{"two headers", []edit{live, live}, 400, "invalid_request"},
		{"an empty bearer", []edit{header("Authorization", "Bearer ")}, 400, "invalid_request"},
		{"padding in the middle", []edit{bearer("a=b")}, 400, "invalid_request"},
		{"bearer and cookie", []edit{live, header("Cookie", "shop_access=x"), xhr}, 400, "invalid_request"},
		{"a cookie twice", []edit{header("Cookie", "shop_access=x; shop_access=x"), xhr}, 400, "invalid_request"},
		{"another cookie twice", []edit{live, header("Cookie", "shop_refresh=x; shop_refresh=y"), xhr}, 400, "invalid_request"},
	}
	private := func(check func(route, method, path string, body any)) {
		w.routes(func(route, method, path string) {
			if routeTraits[route].private {
				var body any
				if routeTraits[route].body {
					body = map[string]any{}
				}
				check(route, method, path, body)
			}
		})
	}
	private(func(route, method, path string, body any) {
		for _, tt := range tests {
			w.refused(route+", "+tt.name, w.do(method, path, body, tt.edits...), tt.status, tt.code)
		}
		for _, query := range []string{"?access_token=", "?token=", "?bearer_token="} {
			r := w.do(method, path+query+old.text("access_token"), body)
			w.refused(route+" with a token in the query", r, 401, "unauthenticated")
		}
	})
	w.move(time.Hour)
	private(func(route, method, path string, body any) {
		w.refused(route+", expired", w.do(method, path, body, bearer(old.text("access_token"))), 401, "token_expired")
	})
}

// Every answer, good or bad, stays out of caches, and says so once.
func TestNothingIsCached(t *testing.T) {
	t.Parallel()
	w := setup(t, everyone+`,"cors":{"allow_origins":["https://spa.example"]}`, inDevelopment)
	in := w.register()
	check := func(what string, r *response) {
		if got := r.header["Cache-Control"]; len(got) != 1 || got[0] != "no-store" {
			t.Errorf("%s: %d with Cache-Control %q", what, r.status, got)
		}
	}
	w.routes(func(route, method, path string) {
		if routeTraits[route].cached {
			return
		}
		check(route, w.do(method, path, nil))
		check(route+" signed in", w.do(method, path, nil, bearer(w.do("POST", "/login", account).text("access_token"))))
		check("preflight of "+route, w.do("OPTIONS", path, nil, header("Origin", "https://spa.example"), header("Access-Control-Request-Method", method)))
	})
	check("login", w.do("POST", "/login", account))
	check("refresh", w.do("POST", "/refresh", obj("refresh_token", in.text("refresh_token"))))
	for _, path := range []string{"/nothing", "", "/"} {
		check("GET "+path, w.do("GET", path, nil))
	}
	for name, h := range map[string]http.Handler{
		"a guard":      w.app.RequireUser().Handler(who),
		"a zero guard": (*engineGuard)(nil).Handler(who),
	} {
		check(name, serve(t, h, "GET", "/", nil))
	}
}

// A path that a proxy could take for another one is no route.
func TestPathsAreTakenAsSent(t *testing.T) {
	t.Parallel()
	w := setup(t, everyone, inDevelopment)
	in := w.register()
	token := bearer(in.text("access_token"))
	list := w.want(w.do("GET", "/sessions", nil, token), 200, "")
	var sessions struct {
		Sessions []struct{ ID string }
	}
	if err := json.Unmarshal([]byte(list.raw), &sessions); err != nil || len(sessions.Sessions) != 1 {
		t.Fatalf("%v: %s", err, list.raw)
	}
	id := sessions.Sessions[0].ID
	for _, path := range []string{
		"/auth/me/", "/auth//me", "//auth/me", "/auth/./me", "/auth/x/../me", "/auth/ME", "/AUTH/me", "/auth/me;a=b", "/auth/me.", "/auth/me%20",
		"/auth%2fme", "/auth%2Fme", "/auth/%6de", "/auth/me%00", "/auth/me%2f", "/auth/%2e/me", "/authx/me", "/auth", "/me",
	} {
		if r := serve(t, w.app.Handler(), "GET", path, nil, token); r.status != 404 || r.code() != "not_found" {
			t.Errorf("GET %s: %d %s", path, r.status, r.raw)
		}
	}
	for _, path := range []string{
		"/auth/sessions%2f" + id, "/auth/sessions/" + id + "/", "/auth/sessions/" + id + "%00", "/auth/sessions//" + id, "/auth/sessions/../sessions/" + id,
		"/auth/sessions/x%2f" + id, "/auth/sessions/" + strings.ToUpper(id), "/auth/sessions/" + id[:len(id)-1], "/auth/sessions/%24ne",
	} {
		if r := serve(t, w.app.Handler(), "DELETE", path, nil, token); r.status != 404 || r.code() != "not_found" {
			t.Errorf("DELETE %s: %d %s", path, r.status, r.raw)
		}
	}
	w.want(w.do("GET", "/me", nil, token), 200, "")
	w.want(w.do("GET", "/me?next=/x", nil, token), 200, "")
}

func TestMethods(t *testing.T) {
	t.Parallel()
	w := setup(t, everyone, inDevelopment)
	token := bearer(w.register().text("access_token"))
	if r := w.do("HEAD", "/me", nil, token); r.status != 200 {
		t.Errorf("HEAD /me: %d", r.status)
	}
	if r := w.do("HEAD", "/me", nil); r.status != 401 || r.header.Get("WWW-Authenticate") == "" {
		t.Errorf("HEAD /me without a credential: %d %v", r.status, r.header)
	}
	for _, tt := range []struct{ method, path, allow string }{
		{"OPTIONS", "/me", "GET, HEAD, PATCH"},
		{"DELETE", "/me", "GET, HEAD, PATCH"},
		{"GET", "/login", "POST"},
		{"HEAD", "/login", "POST"},
		{"get", "/me", "GET, HEAD, PATCH"},
		{"TRACE", "/sessions", "GET, HEAD, DELETE"},
		{"POST", "/sessions/ses_x", "DELETE"},
	} {
		r := w.do(tt.method, tt.path, nil, token, header("X-HTTP-Method-Override", "GET"))
		if r.status != 405 || r.code() != "method_not_allowed" || r.header.Get("Allow") != tt.allow {
			t.Errorf("%s %s: %d %q, Allow %q, want %q", tt.method, tt.path, r.status, r.code(), r.header.Get("Allow"), tt.allow)
		}
	}
}

// What a client writes never becomes a header line.
func TestHeadersHoldNothingOfTheRequest(t *testing.T) {
	t.Parallel()
	w := setup(t, everyone, inDevelopment)
	w.register()
	const evil = "x\r\nSet-Cookie: evil=1\r\n\r\nevil"
	device := obj("id", evil, "name", evil)
	for _, r := range []*response{
		w.do("POST", "/login", with(account, "transport", "cookie", "device", device), header("User-Agent", evil), header("X-Request-Id", evil)),
		w.do("POST", "/login", with(account, "device_token", evil, "device", device)),
		w.do("POST", "/login", with(account, "email", evil)),
		w.do("POST", "/anonymous", obj("device_id", evil)),
		w.do("POST", "/refresh", obj("refresh_token", evil)),
		w.do("POST", "/refresh", nil, header("Cookie", "shop_refresh="+evil), xhr),
		w.do("GET", "/me", nil, header("Authorization", "Bearer "+evil)),
		w.do("GET", "/sessions?all="+"%0d%0aevil", nil),
	} {
		if got := fmt.Sprint(r.header); strings.Contains(got, "evil") {
			t.Errorf("%d: %s", r.status, got)
		}
	}
}

// Which of two values of a parameter counts must not depend on who reads them.
func TestQueryOfSessions(t *testing.T) {
	t.Parallel()
	w := setup(t, everyone, inDevelopment)
	token := bearer(w.register().text("access_token"))
	for _, query := range []string{"all=false&all=true", "all=true&all=true", "all=%zz", "all=true;x", "all=TRUE", "all=1"} {
		w.refused(query, w.do("DELETE", "/sessions?"+query, nil, token), 400, "invalid_request")
	}
	w.want(w.do("GET", "/me", nil, token), 200, "")
	w.want(w.do("DELETE", "/sessions?all=false", nil, token), 204, "")
	w.want(w.do("GET", "/me", nil, token), 200, "")
	w.want(w.do("DELETE", "/sessions?all=true", nil, token), 204, "")
	w.want(w.do("GET", "/me", nil, token), 401, "token_revoked")
}
