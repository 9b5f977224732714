package casbin_test

import (
	"errors"
	"testing"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/authz/casbin"
)

func withMatching(m casbin.Matching) func(*casbin.Config) {
	return func(c *casbin.Config) { c.Matching = m }
}

// What each way of matching lets through, and what it does not.
func TestMatching(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		matching casbin.Matching
		object   string
		yes, no  []string
	}{
		{casbin.MatchExact, "docs/*", []string{"docs/*"}, []string{"docs/1", "docs/"}},
		{casbin.MatchExact, "/a/{b}", []string{"/a/{b}"}, []string{"/a/1"}},
		{casbin.MatchPrefix, "docs/*", []string{"docs/1", "docs/", "docs/a/b", "docs/*", "docs/../x"}, []string{"docs", "doc/1", "Docs/1"}},
		{casbin.MatchPrefix, "*", []string{"anything", "/"}, nil},
		{casbin.MatchPrefix, "docs", []string{"docs"}, []string{"docs/1", "docsx"}},
		{casbin.MatchPath, "/users/{id}", []string{"/users/1", "/users/1/", "/users/{x}"}, []string{"/users", "/users/1/2", "/users/../1", "/users//1", "/users/1\x00", "users/1"}},
		{casbin.MatchPath, "/files/*", []string{"/files", "/files/a/b"}, []string{"/files/../etc", "/files/a//b", "/filesystem"}},
		{casbin.MatchPath, "documents", []string{"documents"}, []string{"documents/1", "/documents"}},
		{casbin.MatchPath, "/", []string{"/"}, []string{"/a", ""}},
	} {
		t.Run(string(test.matching)+" "+test.object, func(t *testing.T) {
			t.Parallel()
			p, _ := setup(t, withMatching(test.matching))
			apply(t, p, authz.Change{Add: []authz.Rule{rule("editor", test.object, "read")}, Assign: []authz.Assignment{{Subject: ada, Role: "editor"}}})
			for _, object := range test.yes {
				if !allowed(t, p, ada, object, "read") || allowed(t, p, ada, object, "write") {
					t.Errorf("%q is not what the rule allows to read", object)
				}
			}
			for _, object := range test.no {
				if allowed(t, p, ada, object, "read") {
					t.Errorf("%q is allowed", object)
				}
			}
		})
	}
}

// Patterns that would match something else than they say are refused when they
// are written, and stop the app when somebody else has written them.
func TestBadPatterns(t *testing.T) {
	t.Parallel()
	for matching, objects := range map[casbin.Matching][]string{
		casbin.MatchPrefix: {"a*b", "**", "*a"},
		casbin.MatchPath:   {"/a/*/b", "/a//b", "/{", "/a/../b", "/a*"},
	} {
		p, in := setup(t, withMatching(matching), withModel(casbin.ModelRBACWithDeny))
		for _, object := range objects {
			var value *authz.ValueError
			if err := p.Apply(t.Context(), authz.Change{Add: []authz.Rule{rule(ada, object, "read")}}); !errors.As(err, &value) || value.Field != "object" {
				t.Errorf("%s: %q: got %v, want a value error about the object", matching, object, err)
			}
		}
		in.put(bson.M{"ptype": "p", "v0": ada, "v1": "shop", "v2": objects[0], "v3": "read", "v4": "deny", "v5": ""})
		var damaged *casbin.DamagedError
		if err := p.Ready(t.Context()); !errors.As(err, &damaged) {
			t.Errorf("%s: a damaged rule was loaded: %v", matching, err)
		}
		// The way out: a rule that is no pattern can be removed.
		if err := p.Apply(t.Context(), authz.Change{Remove: []authz.Rule{{Subject: ada, Permission: authz.Permission{Object: objects[0], Action: "read"}, Effect: authz.Deny}}}); err != nil {
			t.Errorf("%s: removing it: %v", matching, err)
		}
		if err := p.Ready(t.Context()); err != nil {
			t.Errorf("%s: after the damaged rule was removed: %v", matching, err)
		}
	}
}

// A rule that shares its key with another one stays when that one is removed.
func TestPatternsOfOneKey(t *testing.T) {
	t.Parallel()
	p, _ := setup(t, withMatching(casbin.MatchPath))
	one, two := rule(ada, "/users/{id}", "read"), rule(ada, "/users/{name}", "read")
	apply(t, p, authz.Change{Add: []authz.Rule{one, two}})
	if !allowed(t, p, ada, "/users/1", "read") {
		t.Fatal("not allowed")
	}
	apply(t, p, authz.Change{Remove: []authz.Rule{one}})
	if !allowed(t, p, ada, "/users/1", "read") {
		t.Error("the second rule went with the first")
	}
	apply(t, p, authz.Change{Remove: []authz.Rule{two}})
	if allowed(t, p, ada, "/users/1", "read") {
		t.Error("allowed after both were removed")
	}
}

func TestCovers(t *testing.T) {
	t.Parallel()
	prefix, _ := setup(t, withMatching(casbin.MatchPrefix), withModel(casbin.ModelRBACWithDeny))
	path, _ := setup(t, withMatching(casbin.MatchPath), withModel(casbin.ModelRBACWithDeny))
	denied := func(subject, object string) authz.Rule {
		r := rule(subject, object, "read")
		r.Effect = authz.Deny
		return r
	}
	apply(t, prefix, authz.Change{Add: []authz.Rule{
		rule("editor", "docs/*", "read"), rule(ada, "notes", "read"), denied(ada, "docs/secret/*"),
	}, Assign: []authz.Assignment{{Subject: ada, Role: "editor"}, {Subject: ben, Role: "editor"}}})
	apply(t, path, authz.Change{Add: []authz.Rule{rule(ada, "/users/{id}", "read"), rule(ben, "/users/*", "read"), denied(ben, "/users/{id}/keys")}})
	for _, test := range []struct {
		p       *casbin.Provider
		subject string
		object  string
		want    bool
	}{
		{prefix, ben, "docs/*", true},
		{prefix, ben, "docs/a/*", true},
		{prefix, ben, "docs/1", true},
		{prefix, ben, "doc*", false},
		{prefix, ben, "*", false},
		{prefix, ada, "docs/*", false}, // a part of it is denied
		{prefix, ada, "docs/secret/x*", false},
		{prefix, ada, "docs/open/*", true},
		{prefix, ada, "notes", true},
		{prefix, ada, "notes*", false},
		{path, ada, "/users/{name}", true},
		{path, ada, "/users/7", true},
		{path, ada, "/users/*", false}, // the text "/users/*" matches "/users/{id}", the rule would allow more
		{path, ben, "/users/{id}/posts", true},
		{path, ben, "/users/{id}/keys", false},
		{path, ben, "/users/{a}/{b}", false},
		{path, ben, "/users/*", false},
		{path, ben, "/*", false},
		{path, "", "/users/7", false},
	} {
		got, err := test.p.Covers(t.Context(), test.subject, authz.Permission{Object: test.object, Action: "read"})
		if err != nil || got != test.want {
			t.Errorf("%s covers %s: %t, %v; want %t", test.subject, test.object, got, err, test.want)
		}
		if got, _ := test.p.Covers(t.Context(), test.subject, authz.Permission{Object: test.object, Action: "write"}); got {
			t.Errorf("%s covers writing %s", test.subject, test.object)
		}
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	p, _ := setup(t, withMatching(casbin.MatchPrefix), withModel(casbin.ModelRBACWithDeny), func(c *casbin.Config) {
		c.Hierarchy = map[string][]string{"admin": {"editor"}, "editor": {"reader", "admin"}}
	})
	denial := rule("reader", "docs/secret", "read")
	denial.Effect = authz.Deny
	apply(t, p, authz.Change{
		Add:    []authz.Rule{rule("reader", "docs/*", "read"), rule("reader", "docs/public/*", "read"), rule(ada, "notes", "read"), denial},
		Assign: []authz.Assignment{{Subject: ada, Role: "admin"}, {Subject: ben, Role: "reader"}},
	})
	for _, test := range []struct{ subject, object, want string }{
		{ada, "docs/public/x", "allowed: " + ada + " → admin → editor → reader may read docs/public/*"},
		{ben, "docs/1", "allowed: " + ben + " → reader may read docs/*"},
		{ada, "notes", "allowed: " + ada + " may read notes"},
		{ada, "docs/secret", "denied: " + ada + " → admin → editor → reader may not read docs/secret"},
		{ben, "notes", "no_rule"},
		{"usr_nobody", "docs/1", "no_rule"},
		{"", "docs/1", "no_rule"},
	} {
		request := authz.Request{App: "shop", Subject: test.subject, Permission: authz.Permission{Object: test.object, Action: "read"}}
		e, err := p.Explain(t.Context(), request)
		if err != nil || e.String() != test.want {
			t.Errorf("%s, %s: got %q, %v; want %q", test.subject, test.object, e, err, test.want)
		}
		if d, err := p.Authorize(t.Context(), request); err != nil || d != e.Decision {
			t.Errorf("the explanation says %+v and the decision is %+v", e.Decision, d)
		}
	}
	if _, err := p.Explain(t.Context(), authz.Request{App: "other", Subject: ada}); err == nil {
		t.Error("explained a request of another app")
	}
}
