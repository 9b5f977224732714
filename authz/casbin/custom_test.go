package casbin_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	stock "github.com/casbin/casbin/v2"
	"github.com/casbin/casbin/v2/model"
	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/authz/authztest"
	"github.com/mandate-auth/mandate/authz/casbin"
	"github.com/mandate-auth/mandate/internal/store/storetest"
)

// text writes a model of the parts that differ.
func text(policy, roles, effect, matcher string) string {
	if roles != "" {
		roles = "[role_definition]\n" + roles + "\n"
	}
	return "[request_definition]\nr = sub, dom, obj, act\n[policy_definition]\np = " + policy + "\n" + roles +
		"[policy_effect]\ne = " + effect + "\n[matchers]\nm = " + matcher + "\n"
}

const (
	fullPolicy = "sub, dom, obj, act, eft"
	threeRoles = "g = _, _, _"
	allowSome  = "some(where (p.eft == allow))"
	denySome   = allowSome + " && !some(where (p.eft == deny))"
	exactMatch = "r.dom == p.dom && r.obj == p.obj && r.act == p.act && g(r.sub, p.sub, r.dom)"
)

func withCustom(text string) func(*casbin.Config) {
	return func(c *casbin.Config) { c.Model, c.CustomModel = "", text }
}

// A model of the service that says what a built-in one says passes the suite.
func TestCustomModelConforms(t *testing.T) {
	t.Parallel()
	instances := map[*testing.T]*instance{}
	authztest.Run(t, authztest.Provider{
		New: func(t *testing.T, app string) authz.Provider {
			if instances[t] == nil {
				instances[t] = start(t, storetest.Database(t))
			}
			return instances[t].provider(app, withCustom(text(fullPolicy, threeRoles, denySome, exactMatch)))
		},
		MaxDepth: 100,
	})
}

// What a model may not hold stops the start, with a word about it.
func TestCustomModelsThatAreRefused(t *testing.T) {
	t.Parallel()
	in := start(t, storetest.Database(t))
	good := text(fullPolicy, threeRoles, allowSome, exactMatch)
	for name, test := range map[string]struct{ model, want string }{
		"nothing":              {" ", "missing required sections"},
		"eval":                 {text(fullPolicy, threeRoles, allowSome, `eval(p.sub) && r.obj == p.obj`), "eval"},
		"a regular expression": {text(fullPolicy, threeRoles, allowSome, `regexMatch(r.obj, p.obj)`), "regexMatch"},
		"a negation":           {text(fullPolicy, threeRoles, allowSome, `r.sub != p.sub`), `"!"`},
		"a method":             {text(fullPolicy, threeRoles, allowSome, `r.sub.Nuke() == p.sub`), "r_sub.Nuke"},
		"a foreign value":      {text(fullPolicy, threeRoles, allowSome, `r.sub.Age == p.sub`), "r_sub.Age"},
		"arithmetic":           {text(fullPolicy, threeRoles, allowSome, `r.sub == p.sub || 1 > 0`), `"1"`},
		"in":                   {text(fullPolicy, threeRoles, allowSome, `r.obj in ("a", "b")`), `"in"`},
		"g without roles":      {text(fullPolicy, "", allowSome, exactMatch), `"g"`},
		"allow by default":     {text(fullPolicy, threeRoles, "!some(where (p.eft == deny))", exactMatch), "effect"},
		"priorities":           {text(fullPolicy, threeRoles, "priority(p.eft) || deny", exactMatch), "effect"},
		"no domain":            {strings.Replace(good, "r = sub, dom, obj, act", "r = sub, obj, act", 1), "request"},
		"another order":        {text("sub, obj, dom, act", threeRoles, allowSome, exactMatch), "policy"},
		"a further value":      {text("sub, dom, obj, act, eft, more", threeRoles, allowSome, exactMatch), "policy"},
		"roles of no domain":   {text(fullPolicy, "g = _, _", allowSome, "g(r.sub, p.sub) && r.obj == p.obj"), "role definition"},
		"two role definitions": {text(fullPolicy, threeRoles+"\ng2 = _, _, _", allowSome, exactMatch), "g2"},
	} {
		_, err := casbin.New(in.store, casbin.Config{App: "shop", State: in.state, Watcher: in.watcher, CustomModel: test.model})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v; want an error about %s", name, err, test.want)
		}
	}
	if _, err := casbin.New(in.store, casbin.Config{App: "shop", State: in.state, Watcher: in.watcher, CustomModel: good, Matching: casbin.MatchPath}); err == nil {
		t.Error("a custom model with a matching was taken")
	}
}

// A custom model decides as Casbin does, also by functions that the built-in models
// have not.
func TestCustomModelDecidesAsCasbin(t *testing.T) {
	t.Parallel()
	custom := text(fullPolicy, threeRoles, denySome, `(g(r.sub, p.sub, r.dom) || p.sub == "anybody") && r.dom == p.dom && keyMatch2(r.obj, p.obj) && (r.act == p.act || p.act == "*")`)
	p, in := setup(t, withCustom(custom), func(c *casbin.Config) { c.Hierarchy = map[string][]string{"admin": {"editor"}} })
	denial := rule("editor", "/users/:id/keys", "read")
	denial.Effect = authz.Deny
	apply(t, p, authz.Change{
		Add: []authz.Rule{rule("editor", "/users/:id", "*"), rule("anybody", "/public/*", "read"), rule("editor", "/users/:id/keys", "*"), denial},
		Assign: []authz.Assignment{
			{Subject: ada, Role: "admin"},
		},
	})
	m, err := model.NewModelFromString(custom)
	if err != nil {
		t.Fatal(err)
	}
	e, err := stock.NewEnforcer(m)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range [][]any{{"editor", "shop", "/users/:id", "*", "allow"}, {"anybody", "shop", "/public/*", "read", "allow"}, {"editor", "shop", "/users/:id/keys", "*", "allow"}, {"editor", "shop", "/users/:id/keys", "read", "deny"}} {
		if _, err := e.AddPolicy(r...); err != nil {
			t.Fatal(err)
		}
	}
	for _, g := range [][]any{{ada, "admin", "shop"}, {"admin", "editor", "shop"}} {
		if _, err := e.AddGroupingPolicy(g...); err != nil {
			t.Fatal(err)
		}
	}
	yes := 0
	for _, subject := range []string{ada, ben, "anonymous"} {
		for _, object := range []string{"/users/1", "/users/1/keys", "/public/a", "/users/1/2", "/", ""} {
			for _, action := range []string{"read", "write"} {
				want, err := e.Enforce(subject, "shop", object, action)
				if err != nil {
					t.Fatal(err)
				}
				if got := allowed(t, p, subject, object, action); got != want {
					t.Errorf("%s %s %s: %t, Casbin says %t", subject, action, object, got, want)
				}
				if want {
					yes++
				}
			}
		}
	}
	if yes != 6 {
		t.Errorf("%d are allowed; want 6: users/1 read and write, its keys write, and the public for three", yes)
	}
	if got, err := p.Explain(t.Context(), authz.Request{App: "shop", Subject: ada, Permission: authz.Permission{Object: "/users/7", Action: "read"}}); err != nil ||
		got.String() != "allowed: "+ada+" → admin → editor may * /users/:id" {
		t.Errorf("explained as %q, %v", got, err)
	}
	// D20: a pattern that is none would make every check of the app fail.
	var value *authz.ValueError
	if err := p.Apply(t.Context(), authz.Change{Add: []authz.Rule{rule(ada, "/x/[", "read")}}); !errors.As(err, &value) {
		t.Errorf("a broken pattern: %v", err)
	}
	in.put(bson.M{"ptype": "p", "v0": ada, "v1": "shop", "v2": "/x/[", "v3": "read", "v4": "allow"})
	var damaged *casbin.DamagedError
	if err := p.Upkeep(t.Context()); !errors.As(err, &damaged) {
		t.Errorf("a broken pattern that somebody else has written: %v", err)
	}
	if !allowed(t, p, ada, "/users/1", "read") {
		t.Error("the rules that were there before decide no more")
	}
}

// D19: Casbin remembers every subject that it was asked about. It is replaced
// before that takes much memory, and decides alike.
func TestCustomModelForgetsStrangers(t *testing.T) {
	t.Parallel()
	p, _ := setup(t, withCustom(text(fullPolicy, threeRoles, allowSome, exactMatch)))
	var c authz.Change
	for i := range 199 {
		c.Add = append(c.Add, rule(fmt.Sprint("role", i), docs, "read"))
	}
	c.Assign = []authz.Assignment{{Subject: ada, Role: "role7"}}
	apply(t, p, c)
	if !allowed(t, p, ada, docs, "read") {
		t.Fatal("not allowed")
	}
	before := casbin.EnforcerOf(p)
	for i := range 1001 {
		if allowed(t, p, fmt.Sprint("stranger", i), docs, "read") {
			t.Fatal("a stranger is allowed")
		}
	}
	if casbin.EnforcerOf(p) == before {
		t.Error("the enforcer that remembers a thousand strangers is still there")
	}
	if !allowed(t, p, ada, docs, "read") || allowed(t, p, ben, docs, "read") {
		t.Error("the new enforcer decides differently")
	}
}
