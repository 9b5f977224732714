package engine_test

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/internal/store/storetest"
)

// Who may not enter the app signs in, sees who it is and signs out, and may do
// nothing else.
func TestWhoMayNotEnter(t *testing.T) {
	t.Parallel()
	w := setup(t, `"policy":{"allowed_roles":["admin"],"authorization":{"role_hierarchy":{"admin":["user"]},"initial_policies":[["user","documents","read"]]}}`)
	id, token := w.newUser(email)
	question := map[string]any{"checks": []any{map[string]any{"object": "documents", "action": "read"}}}
	asked := func() bool {
		list, _ := w.want(w.do("POST", "/auth/authorize", question, token), 200, "").body["results"].([]any)
		return len(list) == 1 && list[0] == true
	}
	guards := map[string]*engine.Guard{
		"RequireUser": w.app.RequireUser(), "RequireHuman": w.app.RequireHuman(), "RequireFresh": w.app.RequireFresh(0), "Strict": w.app.Strict(),
		"RequireRole": w.app.RequireRole("user"), "RequirePermission": w.app.RequirePermission("documents", "read"), "Optional": w.app.Optional(nil),
		"RequireOwnerOr": w.app.RequireOwnerOr(func(r *http.Request) (string, error) { return id, nil }, nil),
		"Any":            w.app.Any(w.app.RequireRole("user"), w.app.RequireUser()), "All": w.app.All(w.app.RequireTLS(), w.app.RequireUser()),
	}
	for name, g := range guards {
		if r := w.through(g, token, overTLS); r.status != 403 {
			t.Errorf("%s: %d for somebody who may not enter", name, r.status)
		}
	}
	if asked() {
		t.Error("POST /authorize says that somebody may who may not enter")
	}
	if r := w.do("GET", "/auth/me/permissions", nil, token); r.status != 200 || len(r.body["permissions"].([]any)) != 0 {
		t.Errorf("GET /me/permissions: %d %v", r.status, r.body)
	}
	for _, route := range []string{"/auth/me", "/auth/sessions"} {
		expect(t, w.do("GET", route, nil, token).status, 200)
	}
	expect(t, w.login().status, 200)
	p := &engine.Principal{ID: id, App: "shop", Kind: authz.KindHuman}
	if e, err := w.app.Authz().Explain(t.Context(), p, "documents", "read"); err != nil || e.Reason != authz.ReasonNoEntry || e.Allowed {
		t.Errorf("explained as %+v, %v", e, err)
	}
	if has, err := w.app.Authz().HasRole(t.Context(), p, "user"); has || err != nil {
		t.Errorf("HasRole: %t, %v", has, err)
	}

	if err := w.app.Authz().GrantRole(t.Context(), id, "admin"); err != nil {
		t.Fatal(err)
	}
	for name, g := range guards {
		if r := w.through(g, token, overTLS); r.status != 200 {
			t.Errorf("%s: %d for somebody who may enter", name, r.status)
		}
	}
	expect(t, asked(), true)
	if e, err := w.app.Authz().Explain(t.Context(), p, "documents", "read"); err != nil || e.String() != "allowed: "+id+" → user may read documents" {
		t.Errorf("explained as %q, %v", e, err)
	}
}

// silent answers about roles with an error.
type silent struct{ fixed }

func (silent) HasRole(context.Context, string, ...string) (bool, error) {
	return true, errors.New("broken")
}

// Who may enter cannot be told without the provider, so nobody does.
func TestEntryFailsClosed(t *testing.T) {
	t.Parallel()
	for name, provider := range map[string]authz.Provider{
		"an error about roles":       silent{},
		"an error about permissions": fixed{err: authz.ErrUnavailable},
		"a panic":                    fixed{}, // HasRole of a nil interface
	} {
		own := func(o *engine.Options) {
			o.Providers = map[string]engine.NewProvider{"own": func(context.Context, string) (authz.Provider, error) { return provider, nil }}
		}
		rest := `"allowed_roles":["user"]`
		if name == "an error about permissions" {
			rest = `"required_permissions":["a:b"]`
		}
		w := newWorld(t, storetest.Database(t), manifestOf(t, "shop", `"policy":{"provider":"own",`+rest+`,"authorization":{"link_users_roles":false}}`), own)
		_, token := w.newUser(email)
		if r := w.through(w.app.RequireUser(), token); r.status < 500 {
			t.Errorf("%s: %d", name, r.status)
		}
		p := &engine.Principal{ID: "usr_x", App: "shop", Kind: authz.KindHuman}
		if ok, err := w.app.Authz().Enter(t.Context(), p); ok || err == nil {
			t.Errorf("%s: Enter says %t, %v", name, ok, err)
		}
	}
}
