package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/internal/pattern"
	"github.com/mandate-auth/mandate/tokens/secret"
)

// Policy is the key "auth.policy".
type Policy struct {
	Provider       string `json:"provider"`
	Required       bool   `json:"required"`
	AllowAnonymous bool   `json:"allow_anonymous"`
	// AllowedRoles to RequiredPermissions say who may enter the app at all.
	AllowedRoles        []string      `json:"allowed_roles"`
	AllowedUsers        []string      `json:"allowed_users"`
	DeniedUsers         []string      `json:"denied_users"`
	RequiredPermissions []string      `json:"required_permissions"`
	OwnerCanAccess      bool          `json:"owner_can_access"`
	Authorization       Authorization `json:"authorization"`
}

// Authorization is the key "auth.policy.authorization".
type Authorization struct {
	Model              string              `json:"model"`
	Matching           string              `json:"matching"`
	PoliciesCollection string              `json:"policies_collection"`
	LinkUsersRoles     bool                `json:"link_users_roles"`
	DefaultRoles       []string            `json:"default_roles"`
	RoleHierarchy      map[string][]string `json:"role_hierarchy"`
	// InitialPolicies are [subject, object, action] or [subject, object, action,
	// effect].
	InitialPolicies [][]string    `json:"initial_policies"`
	InitialRoles    []InitialRole `json:"initial_roles"`
	// URL and APIKey are those of a remote provider.
	URL    string `json:"url"`
	APIKey Secret `json:"api_key"`
}

// Secret is a text of the manifest that cannot be printed.
type Secret struct{ secret.Value }

// UnmarshalJSON reads the text.
func (s *Secret) UnmarshalJSON(raw []byte) error {
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return errors.New("a secret is a text")
	}
	s.Value = secret.FromString(text)
	return nil
}

// CustomModel reports whether the model is one of a file.
func (a *Authorization) CustomModel() bool { return strings.HasSuffix(a.Model, ".conf") }

// maxModel is the greatest size of a model in bytes.
const maxModel = 64 << 10

// ReadModel returns the text of the model's file, "" for a built-in model. A
// relative path begins at the folder of the manifest's file.
func (m *Manifest) ReadModel() (string, error) {
	a := &m.Auth.Policy.Authorization
	if !a.CustomModel() {
		return "", nil
	}
	path := a.Model
	if !filepath.IsAbs(path) {
		path = filepath.Join(m.dir, path)
	}
	f, err := os.Open(path) //nolint:gosec // the service names its own file
	if err != nil {
		return "", fmt.Errorf("the model of auth.policy.authorization.model: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(io.LimitReader(f, maxModel+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("the model of auth.policy.authorization.model: %w", err)
	case len(text) > maxModel:
		return "", fmt.Errorf("the model %s is larger than 64 KiB", path)
	}
	return string(text), nil
}

// HasRoles reports whether the model has roles.
func (a *Authorization) HasRoles() bool { return a.Model != "acl" }

// InitialRole is one of "auth.policy.authorization.initial_roles".
type InitialRole struct {
	User string `json:"user"`
	Role string `json:"role"`
}

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
	p.checkEntry(&m.Auth)
	p.checkProvider(&m.Auth.Policy)
	for i, d := range m.Auth.Users.DemoUsers {
		if d.Role != "" {
			p.known(a, fmt.Sprintf("/auth/users/demo_users/%d/role", i), d.Role)
		}
	}
}

// foreign reports whether the text names somebody of another issuer: "name|subject".
func foreign(a *Auth, text string) bool {
	name, rest, ok := strings.Cut(text, "|")
	return ok && rest != "" && slices.ContainsFunc(a.Issuers, func(i Issuer) bool { return i.Name == name })
}

// checkEntry checks who may enter the app.
func (p *parser) checkEntry(a *Auth) {
	policy := &a.Policy
	for i, role := range policy.AllowedRoles {
		p.known(&policy.Authorization, fmt.Sprintf("/auth/policy/allowed_roles/%d", i), role)
	}
	for key, list := range map[string][]string{"allowed_users": policy.AllowedUsers, "denied_users": policy.DeniedUsers} {
		for i, user := range list {
			at := fmt.Sprintf("/auth/policy/%s/%d", key, i)
			switch {
			case user != authz.SubjectAnonymous && !authz.IsID(user) && !foreign(a, user):
				p.fault(at, render(user), "must be the id of a user (usr_…) or a client (cli_…), \"name|subject\" of one of auth.issuers, or \"anonymous\"; addresses can change hands")
			case key == "allowed_users" && slices.Contains(policy.DeniedUsers, user):
				p.fault(at, render(user), "is one of denied_users, too, which wins; remove one of them")
			case key == "allowed_users" && user == authz.SubjectAnonymous && !policy.AllowAnonymous:
				p.fault(at, render(user), "needs allow_anonymous")
			}
		}
	}
	for i, text := range policy.RequiredPermissions {
		_, err := authz.ParsePermission(text)
		p.check(fmt.Sprintf("/auth/policy/required_permissions/%d", i), err)
	}
}

// checkProvider refuses what the provider would not look at.
func (p *parser) checkProvider(policy *Policy) {
	a := &policy.Authorization
	const at = "/auth/policy/authorization"
	given := func(key string) bool { _, ok := p.positions[at+key]; return ok }
	if policy.Provider != "casbin" {
		for _, key := range []string{"/matching", "/policies_collection", "/role_hierarchy"} {
			if given(key) {
				p.fault(at+key, "", "is for the provider casbin; %s has its own way", policy.Provider)
			}
		}
		if a.CustomModel() {
			p.fault(at+"/model", render(a.Model), "is for the provider casbin")
		}
	}
	if a.CustomModel() && given("/matching") {
		p.fault(at+"/matching", "", "is for the built-in models; the matcher of %s says how objects match", a.Model)
	}
	if policy.Provider != "oso" {
		for _, key := range []string{"/api_key", "/url"} {
			if given(key) {
				p.fault(at+key, "", "is for the provider oso; remove it")
			}
		}
		return
	}
	if a.APIKey.IsZero() {
		p.fault(at+"/api_key", "", "is required by the provider oso; write \"${OSO_AUTH}\"")
	}
	if a.Model == "rbac_with_deny" {
		p.fault(at+"/model", `"rbac_with_deny"`, "has rules that deny, and Oso Cloud's facts only allow; deny in its policy")
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

// checkPattern refuses an object that would not match what it seems to.
func (p *parser) checkPattern(a *Authorization, pointer, object string) {
	if err := pattern.Check(a.Matching, object); err != nil {
		p.fault(pointer, render(object), "is no pattern of matching %q: %s", a.Matching, err)
	}
}

func (p *parser) checkRule(a *Authorization, pointer string, entry []string) {
	r := Rule(entry)
	if r.Subject != authz.SubjectAnonymous && !authz.IsID(r.Subject) {
		p.known(a, pointer+"/0", r.Subject)
	}
	p.check(pointer, r.Check())
	p.checkPattern(a, pointer+"/1", r.Object)
	if r.Effect == authz.Deny && a.Model != "rbac_with_deny" && !a.CustomModel() {
		p.fault(pointer+"/3", `"deny"`, "needs the model \"rbac_with_deny\"")
	}
}
