package engine_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/users"
)

// rules is the auth part of a manifest with these path rules, and what else it has.
func rules(list string, rest ...string) string {
	return strings.Join(append([]string{`"requirements":[` + list + `]`}, rest...), ",")
}

// ask sends a request to what the app protects.
func (w *world) ask(method, target string, edit ...request) *response {
	w.t.Helper()
	return do(w.t, w.app.Protect(ok), method, target, nil, edit...)
}

// cookied signs in by cookie and returns what the browser sends.
func (w *world) cookied() request {
	w.t.Helper()
	r := w.want(w.do("POST", "/auth/login", with(account, "transport", "cookie"), overTLS), 200, "")
	var pairs []string
	for _, line := range r.header["Set-Cookie"] {
		pair, _, _ := strings.Cut(line, ";")
		pairs = append(pairs, pair)
	}
	return func(r *http.Request) {
		overTLS(r)
		r.Header.Set("Cookie", strings.Join(pairs, "; "))
	}
}

// requirementKeyTests are those of keyTests about path rules.
var requirementKeyTests = map[string]func(t *testing.T){
	"/auth/requirements/path": func(t *testing.T) {
		w := setup(t, rules(`{"path":"/open/*","optional":true}`))
		expect(t, w.ask("GET", "/open/x").status, 200)
		expect(t, w.ask("GET", "/closed/x").status, 401)
	},
	"/auth/requirements/methods": func(t *testing.T) {
		w := setup(t, rules(`{"path":"/items","methods":["GET"],"optional":true}`))
		expect(t, w.ask("GET", "/items").status, 200)
		expect(t, w.ask("HEAD", "/items").status, 200)
		expect(t, w.ask("POST", "/items").status, 401)
	},
	"/auth/requirements/methods_allowed": func(t *testing.T) {
		w := setup(t, rules(`{"path":"/jwt","methods_allowed":["jwt"]},{"path":"/session","methods_allowed":["session"]}`))
		token := bearer(w.register().text("access_token"))
		expect(t, w.ask("GET", "/jwt", token).status, 200)
		expect(t, w.ask("GET", "/session", token).status, 401)
		cookie := w.cookied()
		expect(t, w.ask("GET", "/jwt", cookie).status, 401)
		expect(t, w.ask("GET", "/session", cookie).status, 200)
		w.want(w.ask("GET", "/jwt", token, cookie), 400, "invalid_request")
	},
	"/auth/requirements/strategy": func(t *testing.T) {
		for strategy, want := range map[string]int{"any": 200, "all": 401} {
			w := setup(t, rules(`{"path":"/x","methods_allowed":["jwt","session"],"strategy":"`+strategy+`"}`))
			token := bearer(w.register().text("access_token"))
			cookie := w.cookied()
			expect(t, w.ask("GET", "/x", token).status, want)
			expect(t, w.ask("GET", "/x", cookie).status, want)
			expect(t, w.ask("GET", "/x", token, cookie).status, 200)
			expect(t, w.ask("GET", "/x").status, 401)
			_, other := w.newUser("ben@example.com")
			w.want(w.ask("GET", "/x", other, cookie), 400, "invalid_request")
		}
	},
	"/auth/requirements/optional": func(t *testing.T) {
		w := setup(t, rules(`{"path":"/x","optional":true,"roles":["admin"]},{"path":"/y","roles":["admin"]}`))
		_, token := w.newUser(email)
		expect(t, w.ask("GET", "/x").status, 200)
		expect(t, w.ask("GET", "/x", token).status, 403) // somebody, and not an admin
		expect(t, w.ask("GET", "/y").status, 401)
	},
	"/auth/requirements/roles": func(t *testing.T) {
		w := setup(t, rules(`{"path":"/x","roles":["admin","auditor"]}`, policy(`"default_roles":["user","admin","auditor"]`)))
		id, token := w.newUser(email)
		w.want(w.ask("GET", "/x", token), 403, "forbidden")
		if err := w.app.Authz().GrantRole(t.Context(), id, "auditor"); err != nil {
			t.Fatal(err)
		}
		expect(t, w.ask("GET", "/x", token).status, 200)
	},
	"/auth/requirements/permissions": func(t *testing.T) {
		w := setup(t, rules(`{"path":"/x","permissions":["a:read","b:read"]}`))
		id, token := w.newUser(email)
		for _, object := range []string{"a", "b"} {
			w.want(w.ask("GET", "/x", token), 403, "forbidden")
			if err := w.app.Authz().AddRules(t.Context(), rule(id, object, "read")); err != nil {
				t.Fatal(err)
			}
		}
		expect(t, w.ask("GET", "/x", token).status, 200)
	},
	"/auth/requirements/scopes": func(t *testing.T) {
		for issued, want := range map[string]int{"": 403, "read": 403, "read write more": 200} {
			scopes := withScopes(strings.Fields(issued)...)
			w := newWorld(t, storetest.Database(t), manifestOf(t, "shop", rules(`{"path":"/x","scopes":["read","write"]}`)), scopes)
			_, token := w.newUser(email)
			expect(t, w.ask("GET", "/x", token).status, want)
		}
	},
	"/auth/requirements/human_only": func(t *testing.T) {
		// Machines come with the next kinds of credentials; people pass.
		w := setup(t, rules(`{"path":"/x","human_only":true}`))
		_, token := w.newUser(email)
		expect(t, w.ask("GET", "/x", token).status, 200)
		e, err := w.app.ExplainPath("GET", "/x")
		expect(t, err == nil && strings.Contains(e.String(), "a person"), true)
	},
	"/auth/requirements/internal": func(t *testing.T) {
		w := setup(t, rules(`{"path":"/x","internal":true,"optional":true},{"path":"/y","internal":true}`))
		inside, outside := from("10.1.2.3:4"), from("203.0.113.5:6")
		expect(t, w.ask("GET", "/x", inside).status, 200)
		w.want(w.ask("GET", "/x", outside), 403, "forbidden")
		expect(t, w.ask("GET", "/y", inside).status, 401)
	},
	"/auth/requirements/fresh_within": func(t *testing.T) {
		w := setup(t, rules(`{"path":"/x","fresh_within":"5m"}`))
		_, token := w.newUser(email)
		expect(t, w.ask("GET", "/x", token).status, 200)
		w.move(6 * time.Minute)
		w.want(w.ask("GET", "/x", token), 401, "fresh_required")
		expect(t, w.ask("GET", "/y", token).status, 200)
	},
	"/auth/internal_networks": func(t *testing.T) {
		for auth, want := range map[string]int{``: 403, `"internal_networks":["203.0.113.0/24"]`: 200} {
			w := setup(t, auth)
			expect(t, do(t, w.app.RequireInternal().Handler(ok), "GET", "/", nil, from("203.0.113.5:6")).status, want)
		}
	},
}

func withScopes(scopes ...string) func(*engine.Options) {
	return func(o *engine.Options) {
		o.Scopes = scopesOf(scopes)
	}
}

// The first rule that matches counts, and paths without one follow auth_required.
func TestPathRulesInOrder(t *testing.T) {
	t.Parallel()
	list := `{"path":"/docs/public/*","optional":true},{"path":"/docs/{id}","methods":["DELETE"],"roles":["admin"]},{"path":"/docs/*"},{"path":"/health","internal":true,"optional":true}`
	for required, want := range map[string]int{"true": 401, "false": 200} {
		w := setup(t, rules(list), `"auth_required":`+required)
		_, token := w.newUser(email)
		expect(t, w.ask("GET", "/docs/public/a").status, 200)
		expect(t, w.ask("GET", "/docs/7").status, 401)
		expect(t, w.ask("GET", "/docs/7", token).status, 200)
		expect(t, w.ask("DELETE", "/docs/7", token).status, 403)
		expect(t, w.ask("POST", "/docs/7", token, header("X-HTTP-Method-Override", "DELETE")).status, 403)
		expect(t, w.ask("GET", "/docs/public/../7").status, 401)
		expect(t, w.ask("GET", "/DOCS/7").status, 401)
		expect(t, w.ask("GET", "/elsewhere").status, want)
		expect(t, w.ask("GET", "/elsewhere", token).status, 200)
		w.want(w.ask("GET", "/docs/%00"), 400, "invalid_request")
		r := httptest.NewRequest(http.MethodGet, "/docs/7", nil)
		token(r)
		p, err := w.app.RequireByPath().Check(r)
		if err != nil || p == nil {
			t.Errorf("RequireByPath.Check: %v, %v", p, err)
		}
	}
}

func TestExplainPath(t *testing.T) {
	t.Parallel()
	w := setup(t, rules(`{"path":"/a","methods":["GET"],"optional":true},{"path":"/a","roles":["user","admin"],"permissions":["a:read"],"scopes":["s"],"fresh_within":"10m","human_only":true,"internal":true},`+
		`{"path":"/b","optional":true,"roles":["admin"]},{"path":"/c","methods_allowed":["jwt","session"],"strategy":"all"},{"path":"/d","methods_allowed":["jwt"]}`))
	for _, test := range []struct{ method, path, want string }{
		{"GET", "/a", "rule 0, /a: nothing"},
		{"POST", "/a", "rule 1, /a: an internal network, a principal, a person, a sign-in within 10m, the scopes s, the role user or admin, the permissions a:read"},
		{"GET", "/b", "rule 2, /b: of those who sign in:, the role admin"},
		{"GET", "/c?x=y", "rule 3, /c: a principal by jwt and session"},
		{"GET", "/d/", "rule 4, /d: a principal by jwt"},
		{"GET", "/e", "no rule, so auth_required decides: a principal"},
		{"GET", "/D", "no rule, so auth_required decides: a principal\nrule 4, /d: a principal by jwt"},
	} {
		if e, err := w.app.ExplainPath(test.method, test.path); err != nil || e.String() != test.want {
			t.Errorf("%s %s: %q, %v; want %q", test.method, test.path, e, err, test.want)
		}
	}
	var problem *engine.Problem
	for _, path := range []string{"/a%00", "", "a b"} {
		if _, err := w.app.ExplainPath("GET", path); !errors.As(err, &problem) || problem.Status != 400 {
			t.Errorf("%q: %v; want a problem of status 400", path, err)
		}
	}
}

func TestScopes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, storetest.Database(t), manifestOf(t, "shop", ``), withScopes("docs:read", "docs:list"))
	_, token := w.newUser(email)
	for _, test := range []struct {
		g    *engine.Guard
		want string
	}{
		{w.app.RequireScope("docs:write", "docs:read"), ""},
		{w.app.RequireScope("docs:write"), "docs:write"},
		{w.app.RequireScope(), "-"},
		{w.app.RequireScopes("docs:read", "docs:list"), ""},
		{w.app.RequireScopes("docs:read", "docs:write"), "docs:read docs:write"},
		{w.app.RequireScopes(), "-"},
	} {
		r := w.through(test.g, token)
		if test.want == "" {
			expect(t, r.status, 200)
			continue
		}
		w.want(r, 403, "insufficient_scope")
		scope := strings.TrimPrefix(test.want, "-")
		expect(t, r.header.Get("WWW-Authenticate"), `Bearer realm="shop", error="insufficient_scope", scope="`+scope+`"`)
		expect(t, w.through(test.g).status, 401)
	}
	me := w.do("GET", "/auth/me", nil, token)
	list, _ := me.at("principal", "scopes").([]any)
	expect(t, len(list) == 2 && list[0] == any("docs:read"), true)
}

// Scopes that cannot stand in a token make the sign-in fail, and leave no session
// behind.
func TestScopesThatAreNone(t *testing.T) {
	t.Parallel()
	for _, scopes := range [][]string{{"a b"}, {""}, {`a"`}, {"a", "a"}, make([]string, authz.MaxScopes+1)} {
		w := newWorld(t, storetest.Database(t), manifestOf(t, "shop", `"sessions":{"max_per_user":1,"on_limit":"refuse"}`), withScopes(scopes...))
		id := w.registered()
		if _, err := w.app.StartSession(t.Context(), id, engine.Device{}, false); err == nil {
			t.Errorf("%q: signed in", scopes)
		}
		if list, err := w.app.Sessions().List(t.Context(), id); err != nil || len(list) != 0 {
			t.Errorf("%q: %d sessions, %v", scopes, len(list), err)
		}
	}
}

func scopesOf(scopes []string) func(context.Context, string, string) ([]string, error) {
	return func(context.Context, string, string) ([]string, error) { return scopes, nil }
}

// registered makes a person without signing in.
func (w *world) registered() string {
	w.t.Helper()
	user, err := w.app.Users().Create(w.t.Context(), users.NewUser{Email: email, Password: password})
	if err != nil {
		w.t.Fatal(err)
	}
	return user.ID
}
