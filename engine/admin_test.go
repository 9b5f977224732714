package engine_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/authz/policyfile"
	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/engine/event"
)

// office is an app with a clerk who looks after documents, an administrator of
// policies and one of users who are editors besides, and a root who may escalate.
const office = `"policy":{"authorization":{"model":"rbac_with_deny","matching":"prefix",
	"default_roles":["user","editor","clerk","policies","users","root"],"role_hierarchy":{"root":["policies","users"],"policies":["clerk"],"users":["clerk"],"clerk":["editor"]},
	"initial_policies":[["editor","docs/*","read"],["editor","docs/*","write"],["policies","mandate","policies"],["users","mandate","users"],["root","mandate","escalate"],
		["user","billing","read"],["clerk","docs/secret/*","read","deny"]]}}`

// staff makes one account of each role and returns their tokens.
func staff(w *world) (ids map[string]string, tokens map[string]request) {
	w.t.Helper()
	ids, tokens = map[string]string{}, map[string]request{}
	for _, role := range []string{"user", "clerk", "policies", "users", "root"} {
		id, token := w.newUser(role + "@example.com")
		if err := w.app.Authz().SetRoles(w.t.Context(), id, role); err != nil {
			w.t.Fatal(err)
		}
		ids[role], tokens[role] = id, token
	}
	return ids, tokens
}

// stored is the whole policy as text.
func (w *world) stored() string {
	w.t.Helper()
	var b bytes.Buffer
	if err := w.app.Authz().Export(w.t.Context(), &b, engine.PolicyCSV); err != nil {
		w.t.Fatal(err)
	}
	return b.String()
}

func rules1(subject, object, action string) map[string]any {
	return obj("subject", subject, "object", object, "action", action)
}

// TestAdministration: who may do what at every route of administration.
func TestAdministration(t *testing.T) {
	t.Parallel()
	w := setup(t, office)
	ids, tokens := staff(w)
	someone := ids["user"]
	for _, route := range []struct {
		method, path string
		body         any
		allowed      []string
	}{
		{"GET", "/auth/admin/policies", nil, []string{"policies", "root"}},
		{"POST", "/auth/admin/policies", obj("add", []any{rules1(someone, "docs/a", "read")}), []string{"policies", "root"}},
		{"GET", "/auth/admin/roles", nil, []string{"policies", "root"}},
		{"GET", "/auth/admin/roles/editor/permissions", nil, []string{"policies", "root"}},
		{"PUT", "/auth/admin/roles/editor/permissions", obj("permissions", []any{"docs/*:read", "docs/*:write"}), []string{"policies", "root"}},
		{"GET", "/auth/admin/roles/editor/users", nil, []string{"policies", "root"}},
		{"GET", "/auth/admin/users/" + someone + "/roles", nil, []string{"users", "root"}},
		{"PUT", "/auth/admin/users/" + someone + "/roles", obj("roles", []any{"user"}), []string{"users", "root"}},
		{"POST", "/auth/admin/users/" + someone + "/roles", obj("role", "editor"), []string{"users", "root"}},
		{"DELETE", "/auth/admin/users/" + someone + "/roles/editor", nil, []string{"users", "root"}},
	} {
		for role, token := range tokens {
			r := w.do(route.method, route.path, route.body, token)
			if may := slices.Contains(route.allowed, role); may != (r.status < 300) || (!may && r.code() != "forbidden") {
				t.Errorf("%s %s by %s: %d %s", route.method, route.path, role, r.status, r.raw)
			}
		}
		if r := w.do(route.method, route.path, route.body); r.status != 401 {
			t.Errorf("%s %s by nobody: %d", route.method, route.path, r.status)
		}
	}
	w.events.Wait(t, event.AccessDenied)
}

// TestNobodyEscalates: whoever looks after policies or users gives and takes only
// what it has itself, and a refusal changes nothing.
func TestNobodyEscalates(t *testing.T) {
	t.Parallel()
	w := setup(t, office)
	ids, tokens := staff(w)
	denial := rules1("clerk", "docs/secret/*", "read")
	denial["effect"] = "deny"
	for _, try := range []struct {
		name, by, method, path string
		body                   any
	}{
		{"a permission for oneself", "policies", "POST", "/auth/admin/policies", obj("add", []any{rules1(ids["policies"], "billing", "read")})},
		{"a permission for one's role", "policies", "POST", "/auth/admin/policies", obj("add", []any{rules1("policies", "billing", "read")})},
		{"a permission for everybody", "policies", "POST", "/auth/admin/policies", obj("add", []any{rules1("user", "mandate", "users")})},
		{"escalation itself", "policies", "POST", "/auth/admin/policies", obj("add", []any{rules1("policies", "mandate", "escalate")})},
		{"everything by a pattern", "policies", "POST", "/auth/admin/policies", obj("add", []any{rules1("policies", "*", "read")})},
		{"what is partly denied", "policies", "POST", "/auth/admin/policies", obj("add", []any{rules1("user", "docs/*", "read")})},
		{"a wider pattern", "policies", "POST", "/auth/admin/policies", obj("add", []any{rules1("user", "doc*", "write")})},
		{"lifting the denial", "policies", "POST", "/auth/admin/policies", obj("remove", []any{denial})},
		{"lifting it beside what is allowed", "policies", "POST", "/auth/admin/policies", obj("add", []any{rules1("user", "docs/a", "write")}, "remove", []any{denial})},
		{"taking from somebody else", "policies", "POST", "/auth/admin/policies", obj("remove", []any{rules1("user", "billing", "read")})},
		{"denying to the stronger", "policies", "POST", "/auth/admin/policies", obj("add", []any{obj("subject", "root", "object", "mandate", "action", "escalate", "effect", "deny")})},
		{"a role's permissions", "policies", "PUT", "/auth/admin/roles/editor/permissions", obj("permissions", []any{"docs/*:read", "docs/*:write", "billing:read"})},
		{"a role's permissions away", "policies", "PUT", "/auth/admin/roles/root/permissions", obj("permissions", []any{})},
		{"a denial away", "policies", "PUT", "/auth/admin/roles/clerk/permissions", obj("permissions", []any{})},
		{"a role for oneself", "users", "POST", "/auth/admin/users/" + ids["users"] + "/roles", obj("role", "root")},
		{"another role for oneself", "users", "POST", "/auth/admin/users/" + ids["users"] + "/roles", obj("role", "policies")},
		{"a role for somebody else", "users", "PUT", "/auth/admin/users/" + ids["user"] + "/roles", obj("roles", []any{"user", "root"})},
		{"the role of the stronger", "users", "DELETE", "/auth/admin/users/" + ids["root"] + "/roles/root", nil},
		{"all roles of the stronger", "users", "PUT", "/auth/admin/users/" + ids["root"] + "/roles", obj("roles", []any{})},
	} {
		before := w.stored()
		w.want(w.do(try.method, try.path, try.body, tokens[try.by]), 403, "forbidden")
		if after := w.stored(); after != before {
			t.Errorf("%s: the policy was changed from\n%s\nto\n%s", try.name, before, after)
		}
		if w.do(try.method, try.path, try.body, tokens["root"]).status != 204 {
			t.Errorf("%s: refused to root", try.name)
		}
		// As it was before, for the next one.
		if _, err := w.app.Authz().Import(t.Context(), strings.NewReader(before), engine.Import{Format: engine.PolicyCSV, Replace: true}); err != nil {
			t.Fatal(err)
		}
		if w.stored() != before {
			t.Fatalf("%s: the policy was not put back", try.name)
		}
	}
	// What they have they may give, and take.
	w.want(w.do("POST", "/auth/admin/policies", obj("add", []any{rules1("user", "docs/public/*", "write")}), tokens["policies"]), 204, "")
	w.want(w.do("POST", "/auth/admin/policies", obj("remove", []any{rules1("user", "docs/public/*", "write")}), tokens["policies"]), 204, "")
	w.want(w.do("POST", "/auth/admin/users/"+ids["user"]+"/roles", obj("role", "clerk"), tokens["users"]), 204, "")
	// By the direct API as well.
	p := &engine.Principal{ID: ids["policies"], App: "shop", Kind: authz.KindHuman}
	if err := w.app.Authz().As(p).SetRules(t.Context(), ids["policies"], rule("", "billing", "read")); !errors.Is(err, engine.ErrEscalation) {
		t.Errorf("As: %v; want ErrEscalation", err)
	}
	foreign := &engine.Principal{ID: ids["root"], App: "other", Kind: authz.KindHuman}
	if err := w.app.Authz().As(foreign).Apply(t.Context(), authz.Change{Add: []authz.Rule{rule("user", "a", "b")}}); !errors.Is(err, engine.ErrEscalation) {
		t.Errorf("a principal of another app: %v; want ErrEscalation", err)
	}
	if err := w.app.Authz().As(nil).SetRoles(t.Context(), ids["user"], "root"); !errors.Is(err, engine.ErrEscalation) {
		t.Errorf("nobody: %v; want ErrEscalation", err)
	}
}

func TestAdministrationLists(t *testing.T) {
	t.Parallel()
	w := setup(t, office)
	ids, tokens := staff(w)
	get := func(path string) *response { return w.want(w.do("GET", path, nil, tokens["root"]), 200, "") }
	seen := []string{}
	for cursor := ""; ; {
		r := get("/auth/admin/policies?limit=3&cursor=" + cursor)
		list, _ := r.body["policies"].([]any)
		for _, p := range list {
			m, _ := p.(map[string]any)
			seen = append(seen, fmt.Sprint(m["subject"], " ", m["object"], " ", m["action"], " ", m["effect"]))
		}
		if cursor = r.text("next"); cursor == "" {
			break
		}
	}
	if len(seen) != 7 || !slices.IsSorted(seen) || seen[0] != "clerk docs/secret/* read deny" {
		t.Errorf("the policies are %q", seen)
	}
	if r := get("/auth/admin/policies?subject=editor&action=read"); len(r.body["policies"].([]any)) != 1 {
		t.Errorf("filtered: %s", r.raw)
	}
	if r := get("/auth/admin/roles"); !strings.Contains(r.raw, `{"role":"clerk","inherits":["editor"]}`) || !strings.Contains(r.raw, `{"role":"user","inherits":[]}`) {
		t.Errorf("roles: %s", r.raw)
	}
	if r := get("/auth/admin/roles/root/users"); fmt.Sprint(r.body["users"]) != "["+ids["root"]+"]" {
		t.Errorf("users of a role: %s", r.raw)
	}
	if r := get("/auth/admin/users/" + ids["users"] + "/roles"); fmt.Sprint(r.body["roles"], r.body["effective"]) != "[users] [clerk editor users]" {
		t.Errorf("roles of a user: %s", r.raw)
	}
	for _, bad := range []struct {
		method, path string
		body         any
		status       int
		code         string
	}{
		{"GET", "/auth/admin/policies?limit=0", nil, 400, "invalid_request"},
		{"GET", "/auth/admin/policies?limit=501", nil, 400, "invalid_request"},
		{"GET", "/auth/admin/policies?cursor=x", nil, 400, "invalid_request"},
		{"GET", "/auth/admin/policies?subject=a&subject=b", nil, 400, "invalid_request"},
		{"GET", "/auth/admin/policies?what=x", nil, 400, "invalid_request"},
		{"GET", "/auth/admin/users/" + ids["user"] + "/roles?x=y", nil, 400, "invalid_request"},
		{"GET", "/auth/admin/roles/boss/users", nil, 404, "not_found"},
		{"GET", "/auth/admin/users/usr_nobody/roles", nil, 404, "not_found"},
		{"POST", "/auth/admin/policies", obj(), 400, "invalid_request"},
		{"POST", "/auth/admin/policies", obj("add", []any{rules1("boss", "a", "b")}), 422, "invalid_field"},
		{"POST", "/auth/admin/policies", obj("add", []any{rules1("user", "a*b", "b")}), 422, "invalid_field"},
		{"POST", "/auth/admin/policies", obj("add", []any{rules1("user", "a,b", "b")}), 400, "invalid_request"},
		{"POST", "/auth/admin/policies", obj("add", []any{rules1("user", "a", "b")}, "remove", []any{rules1("user", "a", "b")}), 422, "invalid_field"},
		{"PUT", "/auth/admin/roles/user/permissions", obj("permissions", []any{"nothing"}), 400, "invalid_request"},
		{"PUT", "/auth/admin/roles/user/permissions", obj("denied", []any{"a:b"}), 400, "invalid_request"},
		{"POST", "/auth/admin/users/" + ids["user"] + "/roles", obj("role", "boss"), 422, "invalid_field"},
		{"POST", "/auth/admin/users/" + ids["user"] + "/roles", obj("role", ""), 400, "invalid_request"},
		{"PUT", "/auth/admin/users/" + ids["user"] + "/roles", obj(), 400, "invalid_request"},
	} {
		w.want(w.do(bad.method, bad.path, bad.body, tokens["root"]), bad.status, bad.code)
	}
	// A role whose name needs an escape.
	named := setup(t, policy(`"default_roles":["user","a b/c%"],"initial_policies":[["user","mandate","policies"]]`))
	_, token := named.newUser(email)
	named.want(named.do("GET", "/auth/admin/roles/a%20b%2fc%25/users", nil, token), 200, "")
	named.want(named.do("GET", "/auth/admin/roles/a%20b/c%25/users", nil, token), 404, "not_found")
}

func TestImportAndExport(t *testing.T) {
	t.Parallel()
	w := setup(t, office)
	ids, _ := staff(w)
	z := w.app.Authz()
	before := w.stored()
	file := "p, user, shop, news, read\np, " + ids["user"] + ", shop, docs/x, read, deny\ng, " + ids["user"] + ", editor, shop\np, user, shop, billing, read"
	dry, err := z.Import(t.Context(), strings.NewReader(file), engine.Import{Format: engine.PolicyCSV, DryRun: true})
	if err != nil || len(dry.Add) != 2 || len(dry.Assign) != 1 || len(dry.Remove)+len(dry.Unassign) != 0 {
		t.Errorf("a dry run: %+v, %v", dry, err)
	}
	if w.stored() != before {
		t.Error("a dry run changed something")
	}
	done, err := z.Import(t.Context(), strings.NewReader(file), engine.Import{Format: engine.PolicyCSV})
	if err != nil || fmt.Sprint(done) != fmt.Sprint(dry) {
		t.Errorf("the import: %+v, %v", done, err)
	}
	replaced, err := z.Import(t.Context(), strings.NewReader(before), engine.Import{Format: engine.PolicyCSV, Replace: true})
	if err != nil || len(replaced.Remove) != 2 || len(replaced.Unassign) != 1 || w.stored() != before {
		t.Errorf("put back: %+v, %v", replaced, err)
	}
	var raw bytes.Buffer
	if err := z.Export(t.Context(), &raw, engine.PolicyJSON); err != nil {
		t.Fatal(err)
	}
	if same, err := z.Import(t.Context(), &raw, engine.Import{Format: engine.PolicyJSON, Replace: true}); err != nil || !same.Empty() {
		t.Errorf("what was exported changes something when it is imported: %+v, %v", same, err)
	}
	for text, want := range map[string]any{
		"p, user, blog, a, b":                        new(*policyfile.Error),
		"p, boss, shop, a, b":                        new(*authz.ValueError),
		"g, " + ids["user"] + ", boss, shop":         new(*authz.ValueError),
		"p, user, shop, a, b\np, user, shop, a*b, c": new(*authz.ValueError),
		"p, user, shop, a, b\ng, usr_" + strings.Repeat("0", 26) + ", user, shop": nil,
	} {
		_, err := z.Import(t.Context(), strings.NewReader(text), engine.Import{Format: engine.PolicyCSV})
		if err == nil || (want != nil && !errors.As(err, want)) {
			t.Errorf("%q: %v", text, err)
		}
		if w.stored() != before {
			t.Errorf("%q changed something", text)
		}
	}
	if _, err := z.Import(t.Context(), strings.NewReader(""), engine.Import{}); !errors.Is(err, authz.ErrUnsupported) {
		t.Errorf("no format: %v", err)
	}
}

// An import that is larger than one change is made in parts.
func TestLargeImport(t *testing.T) {
	t.Parallel()
	w := setup(t, ``)
	var b strings.Builder
	for i := range 10_500 {
		fmt.Fprintf(&b, "p, user, shop, document %05d, read\n", i)
	}
	done, err := w.app.Authz().Import(t.Context(), strings.NewReader(b.String()), engine.Import{Format: engine.PolicyCSV})
	if err != nil || len(done.Add) != 10_500 {
		t.Fatalf("%d rules, %v", len(done.Add), err)
	}
	if n, err := w.db.Collection("casbin_policies").CountDocuments(t.Context(), bson.M{"ptype": "p"}); err != nil || n != 10_500 {
		t.Errorf("%d rules are stored, %v", n, err)
	}
}

func TestSetRules(t *testing.T) {
	t.Parallel()
	w := setup(t, policy(`"initial_policies":[["user","a","read"],["user","b","read"],["admin","a","read"]]`))
	z := w.app.Authz()
	if err := z.SetRules(t.Context(), "user", rule("", "b", "read"), rule("user", "c", "read"), rule("", "b", "read")); err != nil {
		t.Fatal(err)
	}
	list, _, err := z.Rules(t.Context(), authz.RuleFilter{Subject: "user"}, authz.Page{})
	if err != nil || len(list) != 2 || list[0].Object != "b" || list[1].Object != "c" {
		t.Errorf("the rules are %v, %v", list, err)
	}
	if has, err := z.HasRule(t.Context(), rule("admin", "a", "read")); !has || err != nil {
		t.Errorf("another role lost its rule: %v", err)
	}
	var value *authz.ValueError
	if err := z.SetRules(t.Context(), "user", rule("admin", "x", "read")); !errors.As(err, &value) {
		t.Errorf("a rule of another subject: %v", err)
	}
	if err := z.SetRules(t.Context(), "user"); err != nil {
		t.Fatal(err)
	}
	if list, _, _ := z.Rules(t.Context(), authz.RuleFilter{Subject: "user"}, authz.Page{}); len(list) != 0 {
		t.Errorf("the rules are %v after they were set to none", list)
	}
}
