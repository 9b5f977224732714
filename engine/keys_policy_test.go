package engine_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/users"
)

// policy is the auth part of a manifest with these keys of authorization.
func policy(authorization string) string {
	return `"policy":{"authorization":{` + authorization + `}}`
}

// fixed is a provider that allows everything, or is broken.
type fixed struct {
	authz.Provider
	err error
}

func (f fixed) Authorize(context.Context, authz.Request) (authz.Decision, error) {
	return authz.Decision{Allowed: f.err == nil, Reason: authz.ReasonAllowed}, f.err
}

// newUser makes a person by the direct API and returns the id and a token.
func (w *world) newUser(address string) (id string, token request) {
	w.t.Helper()
	user, err := w.app.Users().Create(w.t.Context(), users.NewUser{Email: address, Password: password})
	if err != nil {
		w.t.Fatal(err)
	}
	return user.ID, w.mailedToken(user.ID)
}

func (w *world) mailedToken(userID string) request {
	w.t.Helper()
	g, err := w.app.StartSession(w.t.Context(), userID, engine.Device{}, false)
	if err != nil {
		w.t.Fatal(err)
	}
	return bearer(g.Access.Token)
}

func (w *world) roles(userID string) []string {
	w.t.Helper()
	roles, err := w.app.Authz().AssignedRoles(w.t.Context(), userID)
	if err != nil {
		w.t.Fatal(err)
	}
	return roles
}

// through sends a request of the token to a guarded handler.
func (w *world) through(g *engine.Guard, edit ...request) *response {
	w.t.Helper()
	return do(w.t, g.Handler(ok), "GET", "/", nil, edit...)
}

func rule(subject, object, action string) authz.Rule {
	return authz.Rule{Subject: subject, Permission: authz.Permission{Object: object, Action: action}}
}

// osoKeys loads an app that a server on this machine decides for, and sees that the
// key reaches it.
func osoKeys(t *testing.T) {
	keys := make(chan string, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		keys <- r.Header.Get("Authorization")
		if r.URL.Path == "/api/authorize" && r.Header.Get("Authorization") == "Bearer canary-key" {
			_, _ = w.Write([]byte(`{"allowed":true}`))
			return
		}
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer server.Close()
	remote := func(key string) string {
		return `"policy":{"provider":"oso","authorization":{"url":"` + server.URL + `","api_key":"` + key + `","link_users_roles":false}}`
	}
	for key, want := range map[string]int{"canary-key": 200, "wrong": 503} {
		w := setup(t, remote(key))
		_, token := w.newUser(email)
		expect(t, w.through(w.app.RequirePermission("documents", "read"), token).status, want)
		expect(t, <-keys, "Bearer "+key)
		if strings.Contains(w.logs.String(), "Bearer") || strings.Contains(fmt.Sprintf("%+v", w.app.Manifest().Effective()), key) {
			t.Error("the key is shown")
		}
	}
	if _, err := setup(t, ``).eng.Load(t.Context(), manifestOf(t, "other", strings.Replace(remote("x"), server.URL, "http://oso.example", 1))); err == nil {
		t.Error("the key would have travelled in the clear")
	}
}

// customModel loads apps whose model is a file beside the manifest's.
func customModel(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const model = "[request_definition]\nr = sub, dom, obj, act\n[policy_definition]\np = sub, dom, obj, act, eft\n[role_definition]\ng = _, _, _\n" +
		"[policy_effect]\ne = some(where (p.eft == allow))\n[matchers]\nm = g(r.sub, p.sub, r.dom) && r.dom == p.dom && keyMatch(r.obj, p.obj) && r.act == p.act\n"
	write("model.conf", model)
	write("bad.conf", strings.Replace(model, "keyMatch(", "eval(", 1))
	write("flat.conf", strings.Replace(strings.Replace(model, "[role_definition]\ng = _, _, _\n", "", 1), "g(r.sub, p.sub, r.dom)", "r.sub == p.sub", 1))
	w := setup(t, ``)
	load := func(slug, rest string) (*engine.App, error) {
		return w.eng.LoadFile(t.Context(), write(slug+".json", `{"slug":"`+slug+`","auth":{`+policy(rest)+`}}`))
	}
	app, err := load("custom", `"model":"model.conf","initial_policies":[["user","docs/*","read"]]`)
	if err != nil {
		t.Fatal(err)
	}
	w.app = app
	_, token := w.newUser(email)
	expect(t, w.through(app.RequirePermission("docs/1", "read"), token).status, 200)
	expect(t, w.through(app.RequirePermission("notes/1", "read"), token).status, 403)
	for rest, want := range map[string]string{`"model":"bad.conf"`: "eval", `"model":"missing.conf"`: "missing.conf", `"model":"flat.conf"`: "link_users_roles"} {
		if _, err := load("other", rest); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v; want an error about %s", rest, err, want)
		}
	}
}

// policyKeyTests are those of keyTests about policies.
var policyKeyTests = map[string]func(t *testing.T){
	"/auth/policy/provider": func(t *testing.T) {
		own := func(o *engine.Options) {
			o.Providers = map[string]engine.NewProvider{"own": func(context.Context, string) (authz.Provider, error) { return fixed{}, nil }}
		}
		m := manifestOf(t, "shop", `"policy":{"provider":"own","authorization":{"link_users_roles":false}}`)
		w := newWorld(t, storetest.Database(t), m, own)
		_, token := w.newUser(email)
		expect(t, w.through(w.app.RequirePermission("a", "b"), token).status, 200)
		usual := setup(t, ``)
		_, token = usual.newUser(email)
		expect(t, usual.through(usual.app.RequirePermission("a", "b"), token).status, 403)
		if _, err := usual.eng.Load(t.Context(), manifestOf(t, "other", `"policy":{"provider":"own"}`)); err == nil {
			t.Error("an app started with a provider that nobody has registered")
		}
	},
	"/auth/policy/required": func(t *testing.T) {
		broken := func(o *engine.Options) {
			o.Providers = map[string]engine.NewProvider{"own": func(context.Context, string) (authz.Provider, error) { return nil, errors.New("broken") }}
		}
		m := manifestOf(t, "shop", `"policy":{"provider":"own","required":false,"authorization":{"link_users_roles":false}}`)
		w := newWorld(t, storetest.Database(t), m, broken)
		_, token := w.newUser(email)
		r := w.through(w.app.RequirePermission("a", "b"), token)
		w.want(r, 503, "unavailable")
		if _, err := w.eng.Load(t.Context(), manifestOf(t, "other", `"policy":{"provider":"own"}`)); err == nil {
			t.Error("an app started without the provider that it requires")
		}
	},
	"/auth/policy/allowed_roles": func(t *testing.T) {
		w := setup(t, `"policy":{"allowed_roles":["admin"]}`)
		id, token := w.newUser(email)
		w.want(w.through(w.app.RequireUser(), token), 403, "forbidden")
		expect(t, w.do("GET", "/auth/me", nil, token).status, 200) // signed in, to see who it is and to sign out
		if err := w.app.Authz().GrantRole(t.Context(), id, "admin"); err != nil {
			t.Fatal(err)
		}
		expect(t, w.through(w.app.RequireUser(), token).status, 200)
	},
	"/auth/policy/allowed_users": func(t *testing.T) {
		nobody := store.NewID("usr_")
		w := setup(t, `"policy":{"allow_anonymous":true,"allowed_users":["`+nobody+`","anonymous"]},"users":{"allow_anonymous_users":true}`)
		_, token := w.newUser(email)
		w.want(w.through(w.app.RequireUser(), token), 403, "forbidden")
		guest := bearer(w.want(w.do("POST", "/auth/anonymous", nil), 200, "").text("access_token"))
		expect(t, w.through(w.app.RequireUser(), guest).status, 200)
	},
	"/auth/policy/denied_users": func(t *testing.T) {
		db := storetest.Database(t)
		w := newWorld(t, db, manifestOf(t, "shop", ``))
		id, token := w.newUser(email)
		expect(t, w.through(w.app.RequireUser(), token).status, 200)
		if err := w.app.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		var err error
		if w.app, err = w.eng.Load(t.Context(), manifestOf(t, "shop", `"policy":{"allowed_roles":["user"],"denied_users":["`+id+`"]}`)); err != nil {
			t.Fatal(err)
		}
		w.want(w.through(w.app.RequireUser(), token), 403, "forbidden")
		w.want(w.through(w.app.Optional(nil), token), 403, "forbidden")
		can, err := w.app.Authz().Can(t.Context(), &engine.Principal{ID: id, App: "shop", Kind: authz.KindHuman}, "a", "b")
		expect(t, can || err != nil, false)
	},
	"/auth/policy/required_permissions": func(t *testing.T) {
		w := setup(t, `"policy":{"required_permissions":["shop:enter","shop:look"]}`)
		id, token := w.newUser(email)
		for _, action := range []string{"enter", "look"} {
			w.want(w.through(w.app.RequireUser(), token), 403, "forbidden")
			if err := w.app.Authz().AddRules(t.Context(), rule(id, "shop", action)); err != nil {
				t.Fatal(err)
			}
		}
		expect(t, w.through(w.app.RequireUser(), token).status, 200)
	},
	"/auth/policy/owner_can_access": func(t *testing.T) {
		for text, want := range map[string]int{"true": 200, "false": 403} {
			w := setup(t, `"policy":{"owner_can_access":`+text+`}`)
			id, token := w.newUser(email)
			mine := func(*http.Request) (string, error) { return id, nil }
			expect(t, w.through(w.app.RequireOwnerOr(mine, nil), token).status, want)
			gone := func(*http.Request) (string, error) { return "", engine.ErrNotFound }
			expect(t, w.through(w.app.RequireOwnerOr(gone, nil), token).status, 404)
		}
	},
	"/auth/policy/authorization/matching": func(t *testing.T) {
		for matching, want := range map[string][2]bool{"exact": {false, false}, "prefix": {true, false}, "path": {true, true}} {
			w := setup(t, policy(`"matching":"`+matching+`","initial_policies":[["user","/docs/*","read"]]`))
			_, token := w.newUser(email)
			expect(t, w.through(w.app.RequirePermission("/docs/1", "read"), token).status == 200, want[0])
			expect(t, w.through(w.app.RequirePermission("/docs", "read"), token).status == 200, want[1])
		}
	},
	"/auth/policy/authorization/url":     osoKeys,
	"/auth/policy/authorization/api_key": osoKeys,
	"/auth/policy/authorization/model": func(t *testing.T) {
		denied := rule(authz.SubjectAnonymous, "a", "b")
		denied.Effect = authz.Deny
		for model, want := range map[string][2]bool{"acl": {false, false}, "rbac": {true, false}, "rbac_with_deny": {true, true}} {
			w := setup(t, policy(`"model":"`+model+`"`))
			id, _ := w.newUser(email)
			expect(t, w.app.Authz().GrantRole(t.Context(), id, "admin") == nil, want[0])
			expect(t, w.app.Authz().AddRules(t.Context(), denied) == nil, want[1])
		}
		customModel(t)
	},
	"/auth/policy/authorization/policies_collection": func(t *testing.T) {
		w := setup(t, policy(`"policies_collection":"rules"`))
		w.newUser(email)
		n, err := w.db.Collection("rules").CountDocuments(t.Context(), bson.M{"v2": "shop"})
		if err != nil {
			t.Fatal(err)
		}
		expect(t, n, int64(1))
	},
	"/auth/policy/authorization/link_users_roles": func(t *testing.T) {
		for link, want := range map[string]int{"true": 1, "false": 0} {
			w := setup(t, policy(`"link_users_roles":`+link))
			id, _ := w.newUser(email)
			expect(t, len(w.roles(id)), want)
			if err := w.app.Authz().GrantRole(t.Context(), id, "admin"); err != nil {
				t.Fatal(err)
			}
			if err := w.app.Users().Delete(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			expect(t, len(w.roles(id)) == 0, link == "true")
		}
	},
	"/auth/policy/authorization/default_roles": func(t *testing.T) {
		for roles, want := range map[string]bool{`["user","auditor"]`: true, `["user"]`: false} {
			w := setup(t, policy(`"default_roles":`+roles))
			id, _ := w.newUser(email)
			expect(t, w.app.Authz().GrantRole(t.Context(), id, "auditor") == nil, want)
		}
	},
	"/auth/policy/authorization/role_hierarchy": func(t *testing.T) {
		for hierarchy, want := range map[string]int{`{"user":["admin"]}`: 200, `{}`: 403} {
			w := setup(t, policy(`"role_hierarchy":`+hierarchy))
			_, token := w.newUser(email)
			expect(t, w.through(w.app.RequireAdmin(), token).status, want)
		}
	},
	"/auth/policy/authorization/initial_policies": func(t *testing.T) {
		db := storetest.Database(t)
		m := manifestOf(t, "shop", policy(`"initial_policies":[["user","documents","read"]]`))
		w := newWorld(t, db, m)
		id, token := w.newUser(email)
		guard := w.app.RequirePermission("documents", "read")
		expect(t, w.through(guard, token).status, 200)
		// Once only: who removes one does not find it again after a restart.
		if err := w.app.Authz().RemoveRules(t.Context(), rule("user", "documents", "read")); err != nil {
			t.Fatal(err)
		}
		if err := w.app.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		again, err := w.eng.Load(t.Context(), manifestOf(t, "shop", policy(`"initial_policies":[["user","documents","read"],["user","documents","list"]]`)))
		if err != nil {
			t.Fatal(err)
		}
		w.app = again
		token = w.mailedToken(id)
		expect(t, w.through(w.app.RequirePermission("documents", "read"), token).status, 403)
		expect(t, w.through(w.app.RequirePermission("documents", "list"), token).status, 200)
	},
	"/auth/policy/authorization/initial_roles": func(t *testing.T) {
		w := setup(t, policy(`"initial_roles":[{"user":"BOSS@example.com","role":"admin"}]`))
		id, _ := w.newUser("boss@example.com")
		expect(t, len(w.roles(id)), 2)
		// Registering with the address proves nothing.
		other := setup(t, policy(`"initial_roles":[{"user":"boss@example.com","role":"admin"}]`))
		r := other.want(other.do("POST", "/auth/register", with(account, "email", "boss@example.com")), 201, "")
		id, _ = r.at("user", "id").(string)
		expect(t, len(other.roles(id)), 1)
	},
	"/auth/users/registration_role": func(t *testing.T) {
		w := setup(t, `"users":{"registration_role":"admin"}`)
		expect(t, w.through(w.app.RequireAdmin(), bearer(w.register().text("access_token"))).status, 200)
		usual := setup(t, ``)
		token := bearer(usual.register().text("access_token"))
		expect(t, usual.through(usual.app.RequireAdmin(), token).status, 403)
		expect(t, usual.through(usual.app.RequireRole("user"), token).status, 200)
	},
}
