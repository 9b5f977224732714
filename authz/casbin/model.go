package casbin

import "github.com/mandate-auth/mandate/authz"

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

func (m Model) roles() bool { return m != ModelACL }

func (m Model) deny() bool { return m == ModelRBACWithDeny }

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
	matchSubject = `
[matchers]
m = r.sub == p.sub && r.dom == p.dom && r.obj == p.obj && r.act == p.act
`
	matchRole = `
[matchers]
m = r.dom == p.dom && r.obj == p.obj && r.act == p.act && g(r.sub, p.sub, r.dom)
`
)

// Text returns the model in Casbin's own language: for stock tools that open the
// policies collection, and for comparing answers with Casbin's. The role
// hierarchy of a manifest is not in the collection; such a tool needs it as "g"
// rules.
func (m Model) Text() string {
	switch m {
	case ModelACL:
		return requestAndPolicy + allowEffect + matchSubject
	case ModelRBAC:
		return requestAndPolicy + roleDefinition + allowEffect + matchRole
	case ModelRBACWithDeny:
		return requestAndPolicy + roleDefinition + denyEffect + matchRole
	default:
		return ""
	}
}

// check refuses a change that the model has no words for.
func (m Model) check(c *authz.Change) error {
	if !m.roles() && len(c.Assign) > 0 {
		return &unsupported{"the model acl has no roles"}
	}
	if m.deny() {
		return nil
	}
	for _, r := range c.Add {
		if r.Effect == authz.Deny {
			return &unsupported{"the model " + string(m) + " has no rules that deny; use " + string(ModelRBACWithDeny)}
		}
	}
	return nil
}

// unsupported is [authz.ErrUnsupported] with a remedy.
type unsupported struct{ message string }

func (e *unsupported) Error() string { return e.message }

func (e *unsupported) Unwrap() error { return authz.ErrUnsupported }
