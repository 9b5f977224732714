package casbin_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	stock "github.com/casbin/casbin/v2"
	"github.com/casbin/casbin/v2/model"
	defaultrolemanager "github.com/casbin/casbin/v2/rbac/default-role-manager"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/authz/casbin"
)

// oracle is stock Casbin with the built-in model's text and roles of any depth.
func oracle(t *testing.T, m casbin.Model, matching casbin.Matching, hierarchy map[string][]string) *stock.Enforcer {
	t.Helper()
	parsed, err := model.NewModelFromString(m.Text(matching))
	if err != nil {
		t.Fatal(err)
	}
	e, err := stock.NewEnforcer(parsed)
	if err != nil {
		t.Fatal(err)
	}
	e.AddFunction("pathMatch", casbin.PathMatch)
	e.AddFunction("prefixMatch", casbin.PrefixMatch)
	if m != casbin.ModelACL {
		e.SetRoleManager(defaultrolemanager.NewRoleManager(10_000))
		for role, inherited := range hierarchy {
			for _, r := range inherited {
				if _, err := e.AddGroupingPolicy(role, r, "shop"); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	return e
}

// vocabulary is what objects rules have and what objects are asked for: few, so
// that they meet.
var vocabulary = map[casbin.Matching]struct{ rules, asked []string }{
	casbin.MatchExact:  {[]string{"o0", "o1", "o2", "o3", "o*"}, []string{"o0", "o1", "o2", "o3", "o4"}},
	casbin.MatchPrefix: {[]string{"a", "a*", "a/*", "a/b", "a/b/*", "*", "b*"}, []string{"a", "a/", "a/b", "a/b/c", "ab", "b", "c"}},
	casbin.MatchPath: {
		[]string{"/a", "/a/{x}", "/a/{y}", "/a/*", "/{x}/b", "/{x}/{y}", "/a/b", "/{x}/b/*", "/*", "/", "plain"},
		[]string{"/", "/a", "/a/", "/a/b", "/c/b", "/a/b/c", "/c/b/d", "/c/d/e", "/a//b", "/a/../b", "/a/.", "plain", "/c"},
	},
}

// Random policies and requests get the answers that Casbin gives.
// MANDATE_ORACLE_PAIRS sets how many there are; CI asks 10,000.
func TestAnswersAreCasbins(t *testing.T) {
	t.Parallel()
	pairs := 10_000
	if text := os.Getenv("MANDATE_ORACLE_PAIRS"); text != "" {
		var err error
		if pairs, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range []casbin.Model{casbin.ModelACL, casbin.ModelRBAC, casbin.ModelRBACWithDeny} {
		for matching := range vocabulary {
			t.Run(string(m)+" "+string(matching), func(t *testing.T) {
				t.Parallel()
				const seed = 7
				rng := rand.New(rand.NewPCG(seed, uint64(len(m)+100*len(matching))))
				allowed, asked := 0, 0
				for asked < pairs/9 {
					// A test of its own closes what the round has opened.
					t.Run("round", func(t *testing.T) {
						yes, all := compareOnce(t, m, matching, rng)
						allowed, asked = allowed+yes, asked+all
					})
					if t.Failed() {
						return
					}
				}
				if allowed < asked/50 || allowed > asked*3/4 {
					t.Errorf("%d of %d requests are allowed: the dice say little", allowed, asked)
				}
				t.Logf("%d pairs, %d allowed", asked, allowed)
			})
		}
	}
}

func compareOnce(t *testing.T, m casbin.Model, matching casbin.Matching, rng *rand.Rand) (yes, asked int) {
	t.Helper()
	words := vocabulary[matching]
	names := []string{"a", "b", "c", "d", "e", "f", ada, ben, authz.SubjectAnonymous}
	name := func() string { return names[rng.IntN(len(names))] }
	object := func() string { return words.rules[rng.IntN(len(words.rules))] }
	action := func() string { return fmt.Sprint("x", rng.IntN(3)) }
	var hierarchy map[string][]string
	if m != casbin.ModelACL && rng.IntN(2) == 0 {
		hierarchy = map[string][]string{"a": {"b"}, "b": {"c"}}
	}
	e := oracle(t, m, matching, hierarchy)
	p, _ := setup(t, withModel(m), withMatching(matching), func(c *casbin.Config) { c.Hierarchy = hierarchy })
	for range 3 {
		var c authz.Change
		for range rng.IntN(12) {
			r := rule(name(), object(), action())
			if m == casbin.ModelRBACWithDeny && rng.IntN(4) == 0 {
				r.Effect = authz.Deny
			}
			if rng.IntN(3) > 0 {
				c.Add = append(c.Add, r)
			} else if !slices.ContainsFunc(c.Add, func(a authz.Rule) bool { return a == r }) {
				c.Remove = append(c.Remove, r)
			}
		}
		for range rng.IntN(6) {
			a := authz.Assignment{Subject: name(), Role: names[rng.IntN(6)]}
			if m != casbin.ModelACL && a.Subject != a.Role {
				c.Assign = append(c.Assign, a)
			}
		}
		// What is added and removed by one change has no order here.
		c.Remove = slices.DeleteFunc(c.Remove, func(r authz.Rule) bool { return slices.Contains(c.Add, r) })
		apply(t, p, c)
		tell(t, e, c)
	}
	for _, subject := range names {
		for _, object := range words.asked {
			for x := range 3 {
				action := fmt.Sprint("x", x)
				want, err := e.Enforce(subject, "shop", object, action)
				if err != nil {
					t.Fatal(err)
				}
				if asked++; want {
					yes++
				}
				if got := allowed(t, p, subject, object, action); got != want {
					t.Fatalf("%s, %s: %s %s %s: %t, Casbin says %t", m, matching, subject, action, object, got, want)
				}
			}
		}
	}
	return yes, asked
}

func tell(t *testing.T, e *stock.Enforcer, c authz.Change) {
	t.Helper()
	effect := func(r authz.Rule) string {
		if r.Effect == "" {
			return "allow"
		}
		return string(r.Effect)
	}
	for _, r := range c.Add {
		if _, err := e.AddPolicy(r.Subject, "shop", r.Object, r.Action, effect(r)); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range c.Remove {
		if _, err := e.RemovePolicy(r.Subject, "shop", r.Object, r.Action, effect(r)); err != nil {
			t.Fatal(err)
		}
	}
	for _, a := range c.Assign {
		if _, err := e.AddGroupingPolicy(a.Subject, a.Role, "shop"); err != nil {
			t.Fatal(err)
		}
	}
}
