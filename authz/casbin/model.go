package casbin

import (
	"fmt"

	"github.com/mandate-auth/mandate/authz"
)

// Model names one of the built-in models.
type Model string

// The built-in models. All have the app's slug as the domain of every rule.
const (
	// ModelACL knows subjects and what they may do, and no roles.
	ModelACL Model = "acl"
	// ModelRBAC adds roles, which may have roles.
	ModelRBAC Model = "rbac"
	// ModelRBACWithDeny adds rules that deny. One of them outweighs all that
	// allow.
	ModelRBACWithDeny Model = "rbac_with_deny"
)

// Known reports whether there is such a model.
func (m Model) Known() bool { return m == ModelACL || m == ModelRBAC || m == ModelRBACWithDeny }

const (
	requestAndPolicy = `[request_definition]
r = sub, dom, obj, act

[policy_definition]
p = sub, dom, obj, act, eft
`
	roleDefinition = `
[role_definition]
g = _, _, _
`
	allowEffect = `
[policy_effect]
e = some(where (p.eft == allow))
`
	denyEffect = `
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
`
	matchSubject = "r.sub == p.sub && r.dom == p.dom"
	matchRole    = "r.dom == p.dom && g(r.sub, p.sub, r.dom)"
	matchAction  = "r.act == p.act"
)

// objects is how a matcher of Casbin compares objects.
var objects = map[Matching]string{
	MatchExact: "r.obj == p.obj", MatchPrefix: "prefixMatch(r.obj, p.obj)", MatchPath: "pathMatch(r.obj, p.obj)",
}

// Text returns the model in Casbin's own language: for stock tools that open the
// policies collection, and for comparing answers with Casbin's. Such a tool needs
// the functions [PathMatch] and [PrefixMatch] where objects are not matched
// exactly, and the role hierarchy of the manifest, which is not in the collection,
// as "g" rules. A model of a file is its own text.
func (m Model) Text(matching Matching) string {
	matchers := func(subject string) string {
		return "\n[matchers]\nm = " + subject + " && " + matchAction + " && " + objects[matching] + "\n"
	}
	switch m {
	case ModelACL:
		return requestAndPolicy + allowEffect + matchers(matchSubject)
	case ModelRBAC:
		return requestAndPolicy + roleDefinition + allowEffect + matchers(matchRole)
	case ModelRBACWithDeny:
		return requestAndPolicy + roleDefinition + denyEffect + matchers(matchRole)
	default:
		return ""
	}
}

// grammar is what rules of an app may say: those of a built-in model, or of a
// custom one.
type grammar struct {
	name        string
	domain      string
	roles, deny bool
	matching    Matching
	custom      *custom // nil for the built-in models
}

func newGrammar(config *Config) (*grammar, error) {
	if config.CustomModel != "" {
		return customGrammar(config)
	}
	m := config.Model
	switch {
	case !m.Known():
		return nil, fmt.Errorf("casbin: the model %q is not one of acl, rbac, rbac_with_deny", m)
	case !config.Matching.Known():
		return nil, fmt.Errorf("casbin: the matching %q is not one of exact, prefix, path", config.Matching)
	}
	return &grammar{name: string(m), domain: config.App, roles: m != ModelACL, deny: m == ModelRBACWithDeny, matching: config.Matching}, nil
}

func (g *grammar) String() string { return g.name }

// check refuses a change that the model has no words for.
func (g *grammar) check(c *authz.Change) error {
	if !g.roles && len(c.Assign) > 0 {
		return &unsupported{"the model " + g.name + " has no roles"}
	}
	for _, r := range c.Add {
		if !g.deny && r.Effect == authz.Deny {
			return &unsupported{"the model " + g.name + " has no rules that deny; use " + string(ModelRBACWithDeny)}
		}
		if err := g.checkObject(r.Object); err != nil {
			return err
		}
	}
	return nil
}

// checkObject refuses the object of a rule that cannot match what it seems to.
func (g *grammar) checkObject(object string) error {
	if g.custom != nil {
		return g.custom.checkObject(object)
	}
	return g.matching.check(object)
}

// unsupported is [authz.ErrUnsupported] with a remedy.
type unsupported struct{ message string }

func (e *unsupported) Error() string { return e.message }

func (e *unsupported) Unwrap() error { return authz.ErrUnsupported }
