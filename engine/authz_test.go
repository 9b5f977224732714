package engine_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/mongo"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/users"
)

// library is an app with three roles in a hierarchy.
const library = `"policy":{"allow_anonymous":true,"authorization":{
	"default_roles":["user","editor","admin"],"role_hierarchy":{"admin":["editor"],"editor":["user"]},
	"initial_policies":[["user","documents","read"],["editor","documents","create"],["admin","documents","delete"],["anonymous","news","read"]]}},
	"users":{"allow_anonymous_users":true}`

// caller is somebody who calls the library.
type caller struct {
	id    string
	token request
}

// staff makes a user with each role.
func (w *world) staff() (user, editor, admin caller) {
	w.t.Helper()
	callers := map[string]*caller{"user": &user, "editor": &editor, "admin": &admin}
	for role, c := range callers {
		c.id, c.token = w.newUser(role + "@example.com")
		if err := w.app.Authz().SetRoles(w.t.Context(), c.id, role); err != nil {
			w.t.Fatal(err)
		}
	}
	return user, editor, admin
}

func TestGuardsOfRolesAndPermissions(t *testing.T) {
	t.Parallel()
	w := setup(t, library)
	user, editor, admin := w.staff()
	guest := bearer(w.do("POST", "/auth/anonymous", nil).text("access_token"))
	app := w.app
	none := func(*http.Request) {}
	tests := []struct {
		name  string
		guard *engine.Guard
		// the answers to nobody, a guest, the user, the editor and the admin
		want [5]int
	}{
		{"role user", app.RequireRole("user"), [5]int{401, 403, 200, 200, 200}},
		{"role editor", app.RequireRole("editor"), [5]int{401, 403, 403, 200, 200}},
		{"any of two roles", app.RequireRole("nobody", "editor"), [5]int{401, 403, 403, 200, 200}},
		{"no role", app.RequireRole(), [5]int{401, 403, 403, 403, 403}},
		{"an unknown role", app.RequireRole("owner"), [5]int{401, 403, 403, 403, 403}},
		{"admin", app.RequireAdmin(), [5]int{401, 403, 403, 403, 200}},
		{"read", app.RequirePermission("documents", "read"), [5]int{401, 403, 200, 200, 200}},
		{"create", app.RequirePermission("documents", "create"), [5]int{401, 403, 403, 200, 200}},
		{"delete", app.RequirePermission("documents", "delete"), [5]int{401, 403, 403, 403, 200}},
		{"what guests may", app.RequirePermission("news", "read"), [5]int{401, 200, 403, 403, 403}},
		{"nothing at all", app.RequirePermission("", ""), [5]int{401, 403, 403, 403, 403}},
		{"all", app.All(app.RequireRole("user"), app.RequirePermission("documents", "create")), [5]int{401, 403, 403, 200, 200}},
		{"any", app.Any(app.RequireAdmin(), app.RequirePermission("news", "read")), [5]int{401, 200, 403, 403, 200}},
		{"any of none", app.Any(), [5]int{500, 500, 500, 500, 500}},
		{"any with a zero guard", app.Any(&engine.Guard{}, app.RequireAdmin()), [5]int{500, 500, 500, 500, 200}},
		{"optional", app.Optional(app.RequireAdmin()), [5]int{200, 403, 403, 403, 200}},
		{"owner or delete", app.RequireOwnerOr(owns(editor.id, nil), app.RequirePermission("documents", "delete")), [5]int{401, 403, 403, 200, 200}},
		{"owner alone", app.RequireOwnerOr(owns(editor.id, nil), nil), [5]int{401, 403, 403, 200, 403}},
		{"nobody owns it", app.RequireOwnerOr(owns("", nil), nil), [5]int{401, 403, 403, 403, 403}},
		{"it is not there", app.RequireOwnerOr(owns("", engine.ErrNotFound), app.RequireAdmin()), [5]int{401, 404, 404, 404, 404}},
		{"MongoDB has it not", app.RequireOwnerOr(owns("", fmt.Errorf("find: %w", mongo.ErrNoDocuments)), nil), [5]int{401, 404, 404, 404, 404}},
		{"the lookup fails", app.RequireOwnerOr(owns(editor.id, errors.New("secret detail")), app.RequireAdmin()), [5]int{401, 500, 500, 500, 500}},
		{"the lookup panics", app.RequireOwnerOr(func(*http.Request) (string, error) { panic("x") }, app.RequireAdmin()), [5]int{401, 500, 500, 500, 500}},
	}
	for _, tt := range tests {
		for i, token := range []request{none, guest, user.token, editor.token, admin.token} {
			r := w.through(tt.guard, token)
			if r.status != tt.want[i] {
				t.Errorf("%s, caller %d: %d %s, want %d", tt.name, i, r.status, r.raw, tt.want[i])
			}
			if strings.Contains(r.raw, "secret detail") || strings.Contains(r.raw, editor.id) && i != 3 {
				t.Errorf("%s, caller %d: the answer tells too much: %s", tt.name, i, r.raw)
			}
		}
	}
	if !strings.Contains(w.logs.String(), "role=owner") {
		t.Error("nobody was told that a guard asks for an unknown role")
	}
}

func owns(id string, err error) func(*http.Request) (string, error) {
	return func(*http.Request) (string, error) { return id, err }
}

// Guests may do nothing where the manifest does not say so, not even what a rule
// allows them.
func TestGuestsWithoutThePolicy(t *testing.T) {
	t.Parallel()
	w := setup(t, strings.Replace(library, `"allow_anonymous":true`, `"allow_anonymous":false`, 1))
	guest := bearer(w.do("POST", "/auth/anonymous", nil).text("access_token"))
	w.want(w.through(w.app.RequirePermission("news", "read"), guest), 403, "forbidden")
	checks := obj("checks", []any{obj("object", "news", "action", "read")})
	if r := w.want(w.do("POST", "/auth/authorize", checks, guest), 200, ""); r.raw != `{"results":[false]}`+"\n" {
		t.Errorf("/authorize: %s", r.raw)
	}
	if r := w.want(w.do("GET", "/auth/me/permissions", nil, guest), 200, ""); r.raw != `{"roles":[],"permissions":[]}`+"\n" {
		t.Errorf("/me/permissions: %s", r.raw)
	}
}

func TestAuthorizeAndMyPermissions(t *testing.T) {
	t.Parallel()
	w := setup(t, library)
	user, _, admin := w.staff()
	guest := bearer(w.do("POST", "/auth/anonymous", nil).text("access_token"))
	checks := make([]any, 100)
	for i := range checks {
		checks[i] = obj("object", "documents", "action", []string{"read", "create", "delete", "x"}[i%4])
	}
	for _, tt := range []struct {
		token request
		want  string
	}{{user.token, "true,false,false,false"}, {admin.token, "true,true,true,false"}, {guest, "false,false,false,false"}} {
		r := w.want(w.do("POST", "/auth/authorize", obj("checks", checks), tt.token), 200, "")
		if want := `{"results":[` + strings.TrimSuffix(strings.Repeat(tt.want+",", 25), ",") + "]}\n"; r.raw != want {
			t.Errorf("got %s, want %s", r.raw, want)
		}
	}
	r := w.want(w.do("GET", "/auth/me/permissions", nil, admin.token), 200, "")
	if want := `{"roles":["admin","editor","user"],"permissions":["documents:create","documents:delete","documents:read"]}` + "\n"; r.raw != want {
		t.Errorf("got %s, want %s", r.raw, want)
	}
	r = w.want(w.do("GET", "/auth/me/permissions", nil, guest), 200, "")
	if want := `{"roles":[],"permissions":["news:read"]}` + "\n"; r.raw != want {
		t.Errorf("a guest: got %s, want %s", r.raw, want)
	}
}

// What is revoked is refused with the next request here, and on another instance
// within the bound, with the same token.
func TestRevokedRolesAreRefused(t *testing.T) {
	t.Parallel()
	db := storetest.Database(t)
	w := newWorld(t, db, manifestOf(t, "shop", library))
	other := newWorld(t, storetest.Second(t, db, nil), manifestOf(t, "shop", library))
	id, token := w.newUser(email)
	guard := func(w *world) int {
		return w.through(w.app.RequirePermission("documents", "create"), token).status
	}
	expect(t, guard(w), 403)
	for range 3 {
		if err := w.app.Authz().GrantRole(t.Context(), id, "editor"); err != nil {
			t.Fatal(err)
		}
		expect(t, guard(w), 200)
		until(t, "the role to arrive", func() bool { return guard(other) == 200 })
		if err := w.app.Authz().RevokeRole(t.Context(), id, "editor"); err != nil {
			t.Fatal(err)
		}
		expect(t, guard(w), 403)
		until(t, "the revocation to arrive", func() bool { return guard(other) == 403 })
	}
}

func TestDirectAPIOfAuthorization(t *testing.T) {
	t.Parallel()
	w := setup(t, library)
	ctx, z := t.Context(), w.app.Authz()
	user, editor, admin := w.staff()
	roles, err := z.Roles(ctx, admin.id)
	expect(t, fmt.Sprint(roles, err), "[admin editor user] <nil>")
	roles, err = z.AssignedRoles(ctx, admin.id)
	expect(t, fmt.Sprint(roles, err), "[admin] <nil>")
	permissions, err := z.Permissions(ctx, editor.id)
	expect(t, fmt.Sprint(permissions, err), "[documents:create documents:read] <nil>")
	p := &engine.Principal{ID: user.id, Kind: authz.KindHuman, App: "shop"}
	for _, tt := range []struct {
		p    *engine.Principal
		want bool
	}{
		{p, true},
		{nil, false},
		{&engine.Principal{}, false},
		{&engine.Principal{ID: user.id, Kind: authz.KindHuman, App: "elsewhere"}, false},
		{&engine.Principal{ID: user.id, Kind: authz.KindAnonymous, App: "shop"}, false},
	} {
		can, err := z.Can(ctx, tt.p, "documents", "read")
		expect(t, fmt.Sprint(can, err), fmt.Sprint(tt.want, " <nil>"))
		has, err := z.HasRole(ctx, tt.p, "user")
		expect(t, fmt.Sprint(has, err), fmt.Sprint(tt.want, " <nil>"))
	}
	own := rule(user.id, "documents", "own")
	if err := z.AddRules(ctx, own); err != nil {
		t.Fatal(err)
	}
	has, err := z.HasRule(ctx, own)
	expect(t, fmt.Sprint(has, err), "true <nil>")
	can, err := z.Can(ctx, p, "documents", "own")
	expect(t, fmt.Sprint(can, err), "true <nil>")

	// Pages, and cursors that nobody can make up or take elsewhere.
	rules, next, err := z.Rules(ctx, authz.RuleFilter{}, authz.Page{Limit: 3})
	expect(t, fmt.Sprint(len(rules), next != "", err), "3 true <nil>")
	rest, end, err := z.Rules(ctx, authz.RuleFilter{}, authz.Page{Limit: 3, After: next})
	expect(t, fmt.Sprintf("%d %q %v", len(rest), end, err), `2 "" <nil>`)
	for _, cursor := range []string{next + "A", "x", `["a","b","c","d"]`, strings.Repeat("x", 20_000)} {
		if _, _, err := z.Rules(ctx, authz.RuleFilter{}, authz.Page{After: cursor}); !errors.Is(err, users.ErrInvalidCursor) {
			t.Errorf("a made-up cursor: %v", err)
		}
	}
	if _, _, err := z.Rules(ctx, authz.RuleFilter{Subject: "user"}, authz.Page{After: next}); !errors.Is(err, users.ErrInvalidCursor) {
		t.Errorf("a cursor of another list: %v", err)
	}
	members, next, err := z.UsersOfRole(ctx, "user", authz.Page{})
	expect(t, fmt.Sprintf("%v %q %v", members, next, err), "["+user.id+`] "" <nil>`)
}

// What names nobody, or somebody else's, is refused and changes nothing.
func TestGrantsAreChecked(t *testing.T) {
	t.Parallel()
	w := setup(t, library)
	ctx, z := t.Context(), w.app.Authz()
	user, _, _ := w.staff()
	other, err := w.eng.Load(ctx, manifestOf(t, "other", library, `"base_path":"/other"`))
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := other.Users().Create(ctx, users.NewUser{Email: email, Password: password})
	if err != nil {
		t.Fatal(err)
	}
	var value *authz.ValueError
	for name, err := range map[string]error{
		"an unknown role":         z.GrantRole(ctx, user.id, "owner"),
		"a role to a role":        z.GrantRole(ctx, "editor", "admin"),
		"a role to guests":        z.GrantRole(ctx, authz.SubjectAnonymous, "admin"),
		"a role to an address":    z.GrantRole(ctx, email, "admin"),
		"a rule for a typo":       z.AddRules(ctx, rule("editr", "a", "b")),
		"a rule with a comma":     z.AddRules(ctx, rule("editor", "a,b", "c")),
		"an empty subject":        z.RemoveRules(ctx, rule("", "a", "b")),
		"one good, one bad":       z.AddRules(ctx, rule("editor", "a", "b"), rule("editor", "a", "")),
		"a role of a wrong value": z.SetRoles(ctx, user.id, "admin", "a,b"),
	} {
		if !errors.As(err, &value) {
			t.Errorf("%s: %v; want an *authz.ValueError", name, err)
		}
	}
	for name, err := range map[string]error{
		"another app's user":             z.GrantRole(ctx, foreign.ID, "admin"),
		"a rule for another app's user":  z.AddRules(ctx, rule(foreign.ID, "a", "b")),
		"a user that is not there":       z.GrantRole(ctx, "usr_00000000000000000000000000", "admin"),
		"somebody and nobody in one":     z.Apply(ctx, authz.Change{Assign: []authz.Assignment{{Subject: user.id, Role: "admin"}, {Subject: foreign.ID, Role: "admin"}}}),
		"the other app's user elsewhere": z.SetRoles(ctx, foreign.ID, "admin"),
	} {
		if !errors.Is(err, users.ErrNotFound) {
			t.Errorf("%s: %v; want users.ErrNotFound", name, err)
		}
	}
	expect(t, fmt.Sprint(w.roles(user.id)), "[user]")
	if rules, _, err := z.Rules(ctx, authz.RuleFilter{}, authz.Page{}); err != nil || len(rules) != 4 {
		t.Errorf("%d rules, %v; want the four of the manifest", len(rules), err)
	}
	denied := rule("user", "a", "b")
	denied.Effect = authz.Deny
	if err := z.AddRules(ctx, denied); !errors.Is(err, authz.ErrUnsupported) {
		t.Errorf("a denial in rbac: %v", err)
	}
}

// Roles and rules of a user go with the user, and come before it.
func TestRolesLiveWithTheUser(t *testing.T) {
	t.Parallel()
	w := setup(t, library)
	ctx := t.Context()
	id, token := w.newUser(email)
	expect(t, fmt.Sprint(w.roles(id)), "[user]")
	if err := w.app.Authz().AddRules(ctx, rule(id, "mine", "read")); err != nil {
		t.Fatal(err)
	}
	if err := w.app.Users().Delete(ctx, id); err != nil {
		t.Fatal(err)
	}
	w.want(w.through(w.app.RequireUser(), token), 401, "token_revoked")
	expect(t, len(w.roles(id)), 0)
	if rules, _, err := w.app.Authz().Rules(ctx, authz.RuleFilter{Subject: id}, authz.Page{}); err != nil || len(rules) != 0 {
		t.Errorf("rules of the deleted: %v, %v", rules, err)
	}
	// An address that is taken leaves no roles of somebody who is not there.
	w.register()
	w.want(w.do("POST", "/auth/register", account), 409, "email_taken")
	members, _, err := w.app.Authz().UsersOfRole(ctx, "user", authz.Page{})
	if err != nil || len(members) != 1 {
		t.Errorf("members of user: %q, %v; want one", members, err)
	}
	// Guests have no roles: they are all one subject.
	guest := w.do("POST", "/auth/anonymous", nil)
	guestID, _ := guest.at("user", "id").(string)
	expect(t, len(w.roles(guestID)), 0)
}

// A provider that fails, panics or only reads refuses, and tells clients nothing.
func TestProvidersThatFail(t *testing.T) {
	t.Parallel()
	with := func(p authz.Provider) *world {
		m := manifestOf(t, "shop", `"policy":{"provider":"own","authorization":{"link_users_roles":false}}`)
		return newWorld(t, storetest.Database(t), m, func(o *engine.Options) {
			o.Providers = map[string]engine.NewProvider{"own": func(context.Context, string) (authz.Provider, error) { return p, nil }}
		})
	}
	for name, tt := range map[string]struct {
		provider authz.Provider
		status   int
		code     string
	}{
		"unavailable": {fixed{err: fmt.Errorf("%w: secret detail", authz.ErrUnavailable)}, 503, "unavailable"},
		"broken":      {fixed{err: errors.New("secret detail")}, 500, "internal"},
		"panicking":   {panicking{}, 500, "internal"},
	} {
		w := with(tt.provider)
		_, token := w.newUser(email)
		r := w.want(w.through(w.app.RequirePermission("a", "b"), token), tt.status, tt.code)
		checks := w.want(w.do("POST", "/auth/authorize", obj("checks", []any{obj("object", "a", "action", "b")}), token), tt.status, tt.code)
		if strings.Contains(r.raw+checks.raw, "secret detail") {
			t.Errorf("%s: the answer tells a secret: %s", name, r.raw)
		}
	}
	w := with(fixed{})
	id, token := w.newUser(email)
	w.want(w.through(w.app.RequirePermission("a", "b"), token), 200, "")
	if err := w.app.Authz().GrantRole(t.Context(), id, "admin"); !errors.Is(err, authz.ErrUnsupported) {
		t.Errorf("a grant at a provider that only reads: %v", err)
	}
	if _, err := w.eng.Load(t.Context(), manifestOf(t, "x", `"policy":{"provider":"own","authorization":{"initial_policies":[["user","a","b"]]}}`)); !errors.Is(err, authz.ErrUnsupported) {
		t.Errorf("initial policies at a provider that only reads: %v", err)
	}
}

type panicking struct{ authz.Provider }

func (panicking) Authorize(context.Context, authz.Request) (authz.Decision, error) { panic("x") }

// A refusal names who was refused, a grant who granted, and a guard can answer in
// its own way.
func TestRefusalsAndEvents(t *testing.T) {
	t.Parallel()
	w := setup(t, library)
	user, _, admin := w.staff()
	guard := w.app.RequireAdmin().OnRefuse(func(rw http.ResponseWriter, r *http.Request, p *engine.Problem) {
		http.Redirect(rw, r, "/sign-in?because="+p.Code, http.StatusSeeOther)
	})
	r := w.through(guard, user.token)
	expect(t, fmt.Sprintf("%d %s", r.status, r.header.Get("Location")), "303 /sign-in?because=forbidden")
	expect(t, w.through(guard, admin.token).status, 200)
	w.want(w.through(w.app.RequireAdmin(), user.token), 403, "forbidden")
	w.events.WaitFor(t, "of the refusal", func(e event.Event) bool { return e.Type == event.AccessDenied && e.UserID == user.id })
	grant := w.app.RequireAdmin().Func(func(rw http.ResponseWriter, r *http.Request) {
		if err := w.app.Authz().GrantRole(r.Context(), user.id, "editor"); err != nil {
			t.Error(err)
		}
		if err := w.app.Authz().AddRules(r.Context(), rule("editor", "x", "y")); err != nil {
			t.Error(err)
		}
	})
	do(t, grant, "GET", "/", nil, admin.token)
	w.events.WaitFor(t, "of the grant", func(e event.Event) bool {
		return e.Type == event.RoleGranted && e.UserID == user.id && e.Actor == admin.id && e.Reason == "editor"
	})
	w.events.Wait(t, event.PolicyChanged)
}
