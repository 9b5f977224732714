package casbin

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/casbin/casbin/v2"
	"github.com/casbin/casbin/v2/model"
	defaultrolemanager "github.com/casbin/casbin/v2/rbac/default-role-manager"
	"github.com/casbin/casbin/v2/util"

	"github.com/mandate-auth/mandate/authz"
)

// custom is a model of the service, which Casbin enforces.
type custom struct {
	text string
	// patterns are the functions of the matcher that make a regular expression out
	// of a rule's object.
	patterns []string
}

// roleDepth is over how many steps Casbin inherits roles of a custom model.
const roleDepth = 100

// functions are those that a matcher may call, besides g.
var functions = map[string]func(...any) (any, error){
	"keyMatch": util.KeyMatchFunc, "keyMatch2": util.KeyMatch2Func, "keyMatch3": util.KeyMatch3Func, "keyMatch4": util.KeyMatch4Func,
	"keyMatch5": util.KeyMatch5Func, "pathMatch": PathMatch, "prefixMatch": PrefixMatch,
}

// effects are those under which what no rule allows is refused, and for which the
// order of rules, which is not stored, does not matter.
var effects = map[string]bool{ // whether it knows denials
	"some(where (p_eft == allow))":                                 false,
	"some(where (p_eft == allow)) && !some(where (p_eft == deny))": true,
}

// customGrammar reads a model of a file. It refuses what would make decisions
// depend on more than the rules of the app, on their order, or on code in values:
// see docs/permissions.md.
func customGrammar(config *Config) (*grammar, error) {
	fault := func(format string, args ...any) (*grammar, error) {
		return nil, fmt.Errorf("casbin: the custom model: "+format, args...)
	}
	if config.Matching != MatchExact {
		return fault("objects are matched as its matcher says; leave matching out")
	}
	m, err := model.NewModelFromString(config.CustomModel)
	if err != nil {
		return fault("%w", err)
	}
	for section, keys := range map[string]string{"r": "r", "p": "p", "g": "g", "e": "e", "m": "m"} {
		for key := range m[section] {
			if key != keys {
				return fault("has a definition %s; the only ones that Mandate can store rules for are r, p, g, e and m", key)
			}
		}
	}
	value := func(key string) string {
		if a := m[key][key]; a != nil {
			return strings.Join(a.Tokens, " ")
		}
		return ""
	}
	if value("r") != "r_sub r_dom r_obj r_act" {
		return fault("the request has to be r = sub, dom, obj, act")
	}
	if p := value("p"); p != "p_sub p_dom p_obj p_act" && p != "p_sub p_dom p_obj p_act p_eft" {
		return fault("the policy has to be p = sub, dom, obj, act or p = sub, dom, obj, act, eft")
	}
	roles := m["g"]["g"]
	if roles != nil && strings.Count(roles.Value, "_") != 3 {
		return fault("the role definition has to be g = _, _, _ with the domain last")
	}
	effect, ok := m["e"]["e"]
	if !ok {
		return fault("has no policy effect")
	}
	deny, known := effects[effect.Value]
	if !known {
		return fault("the effect has to refuse what no rule allows and not to depend on the order of rules: some(where (p.eft == allow)), with && !some(where (p.eft == deny)) or without")
	}
	deny = deny && strings.HasSuffix(value("p"), "p_eft")
	matcher := m["m"]["m"]
	if matcher == nil {
		return fault("has no matcher m")
	}
	c := &custom{text: config.CustomModel}
	if err := c.checkMatcher(matcher.Value, roles != nil); err != nil {
		return fault("the matcher %w", err)
	}
	return &grammar{name: "of the file", domain: config.App, roles: roles != nil, deny: deny, matching: MatchExact, custom: c}, nil
}

// checkMatcher admits comparisons of values with ==, the functions above and g,
// joined by && and ||, and notes which functions read patterns.
func (c *custom) checkMatcher(text string, roles bool) error {
	for rest := strings.TrimSpace(text); rest != ""; rest = strings.TrimSpace(rest) {
		word := rest[:len(rest)-len(strings.TrimLeft(rest, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_."))]
		switch {
		case word != "":
			rest = rest[len(word):]
			called := strings.HasPrefix(strings.TrimSpace(rest), "(")
			if err := c.checkWord(word, called, roles); err != nil {
				return err
			}
		case rest[0] == '"' || rest[0] == '\'':
			end := strings.IndexByte(rest[1:], rest[0])
			if end < 0 || strings.Contains(rest[1:end+1], `\`) {
				return errors.New("has a text without an end, or with a backslash")
			}
			rest = rest[end+2:]
		case strings.HasPrefix(rest, "==") || strings.HasPrefix(rest, "&&") || strings.HasPrefix(rest, "||"):
			rest = rest[2:]
		case strings.IndexByte("(),", rest[0]) >= 0:
			rest = rest[1:]
		default:
			return fmt.Errorf("has %q; it may compare with ==, join by && and ||, and call g and keyMatch functions", rest[:1])
		}
	}
	return nil
}

var matcherValues = []string{"r_sub", "r_dom", "r_obj", "r_act", "p_sub", "p_dom", "p_obj", "p_act"}

func (c *custom) checkWord(word string, called, roles bool) error {
	switch {
	case !called && slices.Contains(matcherValues, word):
		return nil
	case !called:
		return fmt.Errorf("has %q; values are r.sub, r.dom, r.obj, r.act, p.sub, p.dom, p.obj and p.act", word)
	case word == "g" && roles:
		return nil
	case functions[word] == nil:
		return fmt.Errorf("calls %q; it may call g, if roles are defined, keyMatch to keyMatch5, pathMatch and prefixMatch", word)
	}
	if !slices.Contains(c.patterns, word) {
		c.patterns = append(c.patterns, word)
	}
	return nil
}

// checkObject refuses an object that a function of the matcher cannot read as a
// pattern. One of them would make every check of the app fail.
func (c *custom) checkObject(object string) (err error) {
	bad := &authz.ValueError{Field: "object", Message: "is no pattern that the model's matcher can read"}
	defer func() {
		if recover() != nil {
			err = bad
		}
	}()
	for _, name := range c.patterns {
		if _, err := functions[name]("/", object); err != nil {
			return bad
		}
	}
	return nil
}

// maxRemembered is about how many pairs of names Casbin may remember to have, or
// not to have, a role. It forgets none by itself.
const maxRemembered = 200_000

// judge asks Casbin about the rules of one snapshot, one request at a time: asked by
// several at once, an enforcer with roles has refused what its rules allow, though
// none of them changes it (TestCustomModelConforms shows it without the lock).
type judge struct {
	of *snapshot

	mu       sync.Mutex
	enforcer *casbin.Enforcer
	// asked counts down to when the enforcer is replaced by one that remembers
	// nothing.
	asked, limit int64
}

func newJudge(s *snapshot) (*judge, error) {
	j := &judge{of: s}
	subjects := 1
	for _, shard := range s.subjects {
		subjects += len(shard)
	}
	j.limit = max(1000, int64(maxRemembered/subjects))
	return j, j.renew()
}

func (j *judge) renew() error {
	m, err := model.NewModelFromString(j.of.custom.text)
	if err != nil {
		return err
	}
	e, err := casbin.NewEnforcer(m)
	if err != nil {
		return err
	}
	e.EnableLog(false)
	for _, name := range []string{"pathMatch", "prefixMatch"} {
		e.AddFunction(name, functions[name])
	}
	if j.of.roles {
		e.SetRoleManager(defaultrolemanager.NewRoleManager(roleDepth))
	}
	app := j.of.domain
	var policies, groupings [][]string
	for _, shard := range j.of.subjects {
		for name := range shard {
			for _, r := range j.of.rowsOf(name) {
				if r.grouping {
					groupings = append(groupings, r.values(app))
				} else {
					policies = append(policies, r.values(app)[:len(m["p"]["p"].Tokens)])
				}
			}
		}
	}
	for role, inherited := range j.of.hierarchy {
		for _, other := range inherited {
			groupings = append(groupings, []string{role, other, app})
		}
	}
	if _, err := e.AddPoliciesEx(policies); err != nil {
		return err
	}
	if j.of.roles {
		if _, err := e.AddGroupingPoliciesEx(groupings); err != nil {
			return err
		}
	}
	j.asked, j.enforcer = j.limit, e
	return nil
}

func (j *judge) decide(name string, p authz.Permission) (authz.Decision, error) {
	allowed, _, err := j.enforce(name, p)
	switch {
	case err != nil:
		return authz.Decision{}, failed(err)
	case !allowed:
		return authz.Decision{Reason: authz.ReasonNoRule}, nil
	default:
		return authz.Decision{Allowed: true, Reason: authz.ReasonAllowed}, nil
	}
}

// explain tells the rule that Casbin names, and the roles on the way to it.
func (j *judge) explain(name string, p authz.Permission) (authz.Explanation, error) {
	allowed, why, err := j.enforce(name, p)
	if err != nil {
		return authz.Explanation{}, failed(err)
	}
	out := authz.Explanation{Decision: authz.Decision{Reason: authz.ReasonNoRule}}
	if allowed {
		out.Decision = authz.Decision{Allowed: true, Reason: authz.ReasonAllowed}
	}
	if len(why) < 4 {
		return out, nil
	}
	rule := authz.Rule{Subject: why[0], Permission: authz.Permission{Object: why[2], Action: why[3]}, Effect: authz.Allow}
	if len(why) > 4 && why[4] == string(authz.Deny) {
		rule.Effect, out.Reason = authz.Deny, authz.ReasonDenied
	}
	out.Rule = &rule
	if names, _ := j.of.reach(name, nil, nil); slices.Contains(names, rule.Subject) {
		out.Path = j.of.path(name, rule.Subject)
	}
	return out, nil
}

func (j *judge) enforce(name string, p authz.Permission) (allowed bool, rule []string, err error) {
	defer func() {
		if v := recover(); v != nil {
			allowed, err = false, fmt.Errorf("casbin panicked: %v", v)
		}
	}()
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.asked--; j.asked <= 0 {
		if err := j.renew(); err != nil {
			return false, nil, err
		}
	}
	return j.enforcer.EnforceEx(name, j.of.domain, p.Object, p.Action)
}
