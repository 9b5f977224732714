package manifest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/mandate-auth/mandate/authz"
)

// Rule returns an entry of initial_policies as a rule.
func Rule(entry []string) authz.Rule {
	r := authz.Rule{Subject: entry[0], Permission: authz.Permission{Object: entry[1], Action: entry[2]}, Effect: authz.Allow}
	if len(entry) > 3 {
		r.Effect = authz.Effect(entry[3])
	}
	return r
}

// checkPolicy checks that every role that is named exists, and that the model
// has words for what is asked of it.
func (p *parser) checkPolicy(m *Manifest) {
	a := &m.Auth.Policy.Authorization
	const at = "/auth/policy/authorization"
	for i, role := range a.DefaultRoles {
		p.check(at+"/default_roles/"+strconv.Itoa(i), authz.CheckRole(role))
	}
	for _, role := range slices.Sorted(maps.Keys(a.RoleHierarchy)) {
		key := at + "/role_hierarchy/" + escape(role)
		p.known(a, key, role)
		for i, inherited := range a.RoleHierarchy[role] {
			p.known(a, key+"/"+strconv.Itoa(i), inherited)
		}
	}
	for i, entry := range a.InitialPolicies {
		p.checkRule(a, at+"/initial_policies/"+strconv.Itoa(i), entry)
	}
	for i, initial := range a.InitialRoles {
		key := fmt.Sprintf("%s/initial_roles/%d", at, i)
		p.known(a, key+"/role", initial.Role)
		if !strings.Contains(initial.User, "@") {
			p.fault(key+"/user", render(initial.User), "must be an e-mail address")
		}
	}
	if a.LinkUsersRoles && a.HasRoles() {
		p.known(a, "/auth/users/registration_role", m.Auth.Users.RegistrationRole)
	}
	for i, d := range m.Auth.Users.DemoUsers {
		if d.Role != "" {
			p.known(a, fmt.Sprintf("/auth/users/demo_users/%d/role", i), d.Role)
		}
	}
}

// check turns an error about a value into a fault at its key.
func (p *parser) check(pointer string, err error) {
	var value *authz.ValueError
	if errors.As(err, &value) {
		p.fault(pointer, "", "%s", value.Message)
	}
}

// known refuses a role that does not exist.
func (p *parser) known(a *Authorization, pointer, role string) {
	if !a.HasRoles() {
		p.fault(pointer, render(role), "is a role, and the model \"acl\" has none; set model to \"rbac\"")
		return
	}
	if slices.Contains(a.DefaultRoles, role) {
		return
	}
	p.fault(pointer, render(role), "is not one of policy.authorization.default_roles")
	if len(p.faults) > 0 {
		p.faults[len(p.faults)-1].Nearest = nearest(role, a.DefaultRoles)
	}
}

func (p *parser) checkRule(a *Authorization, pointer string, entry []string) {
	r := Rule(entry)
	if r.Subject != authz.SubjectAnonymous && !authz.IsID(r.Subject) {
		p.known(a, pointer+"/0", r.Subject)
	}
	p.check(pointer, r.Check())
	if r.Effect == authz.Deny && a.Model != "rbac_with_deny" {
		p.fault(pointer+"/3", `"deny"`, "needs the model \"rbac_with_deny\"")
	}
}
