package httpapi

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/internal/pathrule"
)

// Requirement is what one path rule asks of the requests that it is for.
type Requirement struct {
	pathrule.Rule
	// Methods are the credentials that count; none means all that the app takes. All
	// asks for every one of them, of one subject.
	Methods []Method
	All     bool
	// Optional lets requests without a valid credential pass as nobody.
	Optional bool
	// Roles asks for one of them, Permissions and Scopes for all.
	Roles       []string
	Permissions []authz.Permission
	Scopes      []string
	HumanOnly   bool
	MachineOnly bool
	// Internal asks for an address of the app's internal networks.
	Internal bool
	// FreshWithin asks for a sign-in that is not older. 0 asks for none.
	FreshWithin time.Duration
	// Limit is how many requests pass, nil for any number.
	Limit *Limit
}

// pathRules are the requirements of an app, compiled.
type pathRules struct {
	table  *pathrule.Table
	guards []*Guard
	// other is for paths without a rule.
	other *Guard
}

func (a *API) compile(list []Requirement) pathRules {
	rules := make([]pathrule.Rule, len(list))
	out := pathRules{guards: make([]*Guard, len(list)), other: a.Optional(nil)}
	if a.config.RequireAuth {
		out.other = a.RequireUser()
	}
	for i, q := range list {
		rules[i] = q.Rule
		out.guards[i] = a.requirement(q)
	}
	out.table = pathrule.New(rules)
	return out
}

// ByPath is the guard of the app's path rules: the first rule for the request's
// path decides, or auth_required where there is none. A path that can be read in
// several ways has to satisfy the rule of each.
func (a *API) ByPath() *Guard {
	g := a.guard(func(r *http.Request) (*authz.Principal, error) {
		var indexes [4]int
		found, err := a.rules.table.Lookup(r, indexes[:0])
		if err != nil {
			return nil, errPath
		}
		var buffer [4]*Guard
		guards := buffer[:0]
		for _, i := range found {
			guards = append(guards, a.rules.guard(i))
		}
		return runAll(r, guards)
	})
	g.limits = anyLimits(a.rules.guards)
	return g
}

var errPath = invalidRequest("path", "must not hold control characters, backslashes, invalid UTF-8 or doubly encoded characters")

func (l *pathRules) guard(i int) *Guard {
	if i == pathrule.None {
		return l.other
	}
	return l.guards[i]
}

// RulesOf returns the indexes of the rules that a request for the path comes
// under, -1 for none.
func (a *API) RulesOf(method, path string) ([]int, error) {
	u, err := url.ParseRequestURI(path)
	if err != nil {
		return nil, errPath
	}
	found, err := a.rules.table.Lookup(&http.Request{Method: method, URL: u}, nil)
	if err != nil {
		return nil, errPath
	}
	return found, nil
}

// requirement is the guard of one rule.
func (a *API) requirement(q Requirement) *Guard {
	identify := a.RequireUser()
	if len(q.Methods) > 0 {
		n := newNamed(q.Methods, q.All)
		identify = a.guard(func(r *http.Request) (*authz.Principal, error) { return a.userBy(r, n) })
	}
	g := a.guard(func(r *http.Request) (*authz.Principal, error) {
		p, err := identify.check(r)
		if err != nil {
			return nil, err
		}
		if q.Limit != nil && q.Limit.Key == LimitByUser {
			if err := a.limitGuarded(r, q.Limit, a.limitKey(r, q.Limit, p.ID, ""), p); err != nil {
				return nil, err
			}
		}
		return p, a.satisfied(r.Context(), p, &q)
	})
	if q.Optional {
		g = a.Optional(g)
	}
	g = a.limited(g, &q)
	if q.Internal {
		g = a.All(a.RequireInternal(), g)
	}
	return g
}

// limited counts the requests of a rule. Those that are counted by address are
// counted first: whoever has no credential must not try for free. Those that are
// counted by user are counted once it is known who that is, and those of nobody by
// their address.
func (a *API) limited(g *Guard, q *Requirement) *Guard {
	if q.Limit == nil {
		return g
	}
	l, inner := q.Limit, g
	g = a.guard(func(r *http.Request) (*authz.Principal, error) {
		if l.Key != LimitByUser {
			if err := a.limitGuarded(r, l, a.limitKey(r, l, "", ""), nil); err != nil {
				return nil, err
			}
			return inner.check(r)
		}
		p, err := inner.check(r)
		if err == nil && p != nil {
			return p, nil // counted
		}
		if anonymous := err == nil || AsProblem(err).Status == http.StatusUnauthorized; anonymous {
			if err := a.limitGuarded(r, l, a.limitKey(r, l, "", ""), nil); err != nil {
				return nil, err
			}
		}
		return nil, err
	})
	g.limits = true
	return g
}

// satisfied checks what a rule asks of a principal that is known.
func (a *API) satisfied(ctx context.Context, p *authz.Principal, q *Requirement) error {
	if q.HumanOnly && !p.IsHuman() {
		return refuseTo(p, CodeHumanRequired)
	}
	if q.MachineOnly && !p.IsM2M() {
		return refuseTo(p, CodeMachineRequired)
	}
	if q.FreshWithin > 0 && !a.fresh(p, q.FreshWithin) {
		return refuseTo(p, CodeFreshRequired)
	}
	for _, scope := range q.Scopes {
		if !p.HasScope(scope) {
			return lacking(p, q.Scopes)
		}
	}
	if len(q.Roles) > 0 {
		if ok, err := a.config.Authz.HasRole(ctx, p, q.Roles...); err != nil {
			return err
		} else if !ok {
			return denied(p)
		}
	}
	for _, permission := range q.Permissions {
		if ok, err := a.config.Authz.Can(ctx, p, permission.Object, permission.Action); err != nil {
			return err
		} else if !ok {
			return denied(p)
		}
	}
	return nil
}

// RequireInternal asks for an address of the app's internal networks, by the
// address of the client behind trusted proxies. It asks for no principal.
func (a *API) RequireInternal() *Guard {
	g := a.guard(func(r *http.Request) (*authz.Principal, error) {
		if !a.internal(r) {
			return nil, errForbidden
		}
		return nil, nil //nolint:nilnil // it says nothing about who is calling
	})
	g.silent = true
	return g
}

// internal reports whether the client is in the app's internal networks. A peer
// that passes on somebody else's request without being a trusted proxy is not
// believed to be internal itself: behind a proxy that nobody has configured every
// client would be.
func (a *API) internal(r *http.Request) bool {
	if !contains(a.config.InternalNetworks, clientAddress(r, a.config.TrustedProxies)) {
		return false
	}
	return !forwarded(r.Header) || contains(a.config.TrustedProxies, peer(r))
}

// forwardings are what proxies add to a request that they pass on: RFC 7239 and RFC
// 9110 section 7.6.3, and what is common.
var forwardings = []string{
	"X-Forwarded-For", "Forwarded", "Via", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Cf-Connecting-Ip", "True-Client-Ip",
}

func forwarded(h http.Header) bool {
	return slices.ContainsFunc(forwardings, func(name string) bool { return len(h[name]) > 0 })
}

// RequireScope asks for one of the scopes.
func (a *API) RequireScope(scopes ...string) *Guard {
	scopes = slices.Clone(scopes)
	return a.guard(func(r *http.Request) (*authz.Principal, error) {
		p, err := a.user(r, false)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(scopes, p.HasScope) {
			return nil, lacking(p, scopes)
		}
		return p, nil
	})
}

// RequireScopes asks for all of the scopes, and without any refuses everybody.
func (a *API) RequireScopes(scopes ...string) *Guard {
	if len(scopes) == 0 {
		return a.RequireScope()
	}
	return a.requirement(Requirement{Scopes: slices.Clone(scopes)})
}

func lacking(p *authz.Principal, scopes []string) error {
	problem := refuseTo(p, CodeInsufficientScope)
	problem.scope = strings.Join(scopes, " ")
	return problem
}
