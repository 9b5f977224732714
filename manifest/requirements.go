package manifest

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/internal/pathrule"
	"github.com/mandate-auth/mandate/internal/pattern"
)

// Requirement is one of "auth.requirements".
type Requirement struct {
	Path    string   `json:"path"`
	Methods []string `json:"methods"`
	// Strategy is "any", "all" or "", which is any.
	Strategy string `json:"strategy"`
	// MethodsAllowed are "jwt", "session", "api_key", "client", "basic" and the names of
	// authenticators; none means all that the app takes.
	MethodsAllowed []string `json:"methods_allowed"`
	Optional       bool     `json:"optional"`
	Roles          []string `json:"roles"`
	Permissions    []string `json:"permissions"`
	Scopes         []string `json:"scopes"`
	HumanOnly      bool     `json:"human_only"`
	Internal       bool     `json:"internal"`
	MachineOnly    bool     `json:"machine_only"`
	FreshWithin    Duration `json:"fresh_within"`
	RateLimit      string   `json:"rate_limit"`
}

// checkRequirements checks every path rule by itself, and that each can be reached.
func (p *parser) checkRequirements(m *Manifest) {
	var rules []pathrule.Rule
	complete := true
	for i := range m.Auth.Requirements {
		q := &m.Auth.Requirements[i]
		at := fmt.Sprintf("/auth/requirements/%d", i)
		path, err := pattern.ParsePath(q.Path)
		if err != nil {
			p.fault(at+"/path", render(q.Path), "%s", err)
			complete = false
		}
		rules = append(rules, pathrule.Rule{Path: path, Methods: q.Methods})
		p.checkRequirement(m, at, q)
	}
	if !complete {
		return
	}
	table := pathrule.New(rules)
	for i := range rules {
		at := fmt.Sprintf("/auth/requirements/%d/path", i)
		if j := table.Shadowed(i); j != pathrule.None {
			p.fault(at, render(rules[i].Path.String()), "is never reached: rule %d (%s) comes before it and is for the same requests; put the narrower one first", j, rules[j].Path)
		}
		for j := range i {
			if a, b := rules[i].Path.String(), rules[j].Path.String(); a != b && strings.EqualFold(a, b) {
				p.fault(at, render(a), "differs from that of rule %d in the case of letters only; many things do not tell them apart", j)
			}
		}
	}
}

func (p *parser) checkRequirement(m *Manifest, at string, q *Requirement) {
	for i, method := range q.Methods {
		if method == "HEAD" || slices.Contains(q.Methods[:i], method) {
			p.fault(fmt.Sprintf("%s/methods/%d", at, i), render(method), "is named already; GET stands for HEAD, too")
		}
	}
	for i, name := range q.MethodsAllowed {
		key := fmt.Sprintf("%s/methods_allowed/%d", at, i)
		if slices.Contains(q.MethodsAllowed[:i], name) {
			p.fault(key, render(name), "is named already")
		}
		if reason := untaken(&m.Auth, name); reason != "" {
			p.fault(key, render(name), "is a credential that the app does not take: %s", reason)
		}
	}
	if q.HumanOnly && q.MachineOnly {
		p.fault(at+"/machine_only", "true", "leaves nobody beside human_only")
	}
	if _, known := m.Auth.RateLimits[q.RateLimit]; q.RateLimit != "" && !known {
		p.fault(at+"/rate_limit", render(q.RateLimit), "is no rule of rate_limits")
	}
	if q.Strategy == "all" && len(q.MethodsAllowed) < 2 {
		p.fault(at+"/strategy", `"all"`, "needs two methods_allowed")
	}
	for i, role := range q.Roles {
		p.known(&m.Auth.Policy.Authorization, fmt.Sprintf("%s/roles/%d", at, i), role)
	}
	for i, text := range q.Permissions {
		_, err := authz.ParsePermission(text)
		p.check(fmt.Sprintf("%s/permissions/%d", at, i), err)
	}
	for i, scope := range q.Scopes {
		var value *authz.ValueError
		if errors.As(authz.CheckScope(scope), &value) {
			p.fault(fmt.Sprintf("%s/scopes/%d", at, i), render(scope), "%s", value.Message)
		}
	}
}

// untaken says why the app does not take what methods_allowed calls name, "" when it
// may.
func untaken(a *Auth, name string) string {
	switch name {
	case "jwt":
		if a.Tokens.Transport == "cookie" && len(a.Issuers) == 0 {
			return `tokens.transport is "cookie"`
		}
	case "session":
		if a.Tokens.Transport == "bearer" {
			return `tokens.transport is "bearer"`
		}
	case "api_key":
		if !a.APIKeys.Enabled {
			return "api_keys.enabled is false"
		}
	case "client":
		if !a.Clients.Enabled && len(a.Issuers) == 0 {
			return "clients.enabled is false and there are no issuers"
		}
	case "basic":
		if !a.Users.Enabled || a.Users.Strategy != "app_users" {
			return "users have no passwords"
		}
	}
	return ""
}
