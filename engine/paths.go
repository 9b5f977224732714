package engine

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/internal/httpapi"
	"github.com/mandate-auth/mandate/internal/pathrule"
	"github.com/mandate-auth/mandate/internal/pattern"
	"github.com/mandate-auth/mandate/manifest"
)

// methods are what counts as the names of methods_allowed. Other names are those of
// authenticators.
var methods = map[string][]authz.Credential{
	"jwt":     {authz.CredentialBearer},
	"session": {authz.CredentialCookie},
	"api_key": {authz.CredentialAPIKey},
	"client":  {authz.CredentialClientToken, authz.CredentialClientSecret},
	"basic":   {authz.CredentialBasic, authz.CredentialClientSecret},
}

// ownCredentials are what principals say they came with: no authenticator may be
// taken for one of them.
var ownCredentials = []authz.Credential{
	authz.CredentialBearer, authz.CredentialCookie, authz.CredentialAPIKey, authz.CredentialClientToken, authz.CredentialClientSecret, authz.CredentialBasic,
}

// requirements translates the path rules of a manifest.
func requirements(list []manifest.Requirement, limits map[string]*httpapi.Limit) ([]httpapi.Requirement, error) {
	out := make([]httpapi.Requirement, len(list))
	for i := range list {
		q := &list[i]
		path, err := pattern.ParsePath(q.Path)
		if err != nil {
			return nil, fmt.Errorf("auth.requirements %d: %w", i, err)
		}
		r := httpapi.Requirement{
			Rule: pathrule.Rule{Path: path, Methods: q.Methods}, All: q.Strategy == "all", Optional: q.Optional, Roles: q.Roles, Scopes: q.Scopes,
			HumanOnly: q.HumanOnly, MachineOnly: q.MachineOnly, Internal: q.Internal, FreshWithin: time.Duration(q.FreshWithin),
			Limit: limits[q.RateLimit], // none where the rule is off
		}
		for _, name := range q.MethodsAllowed {
			r.Methods = append(r.Methods, httpapi.Method{Name: name, Credentials: methods[name]})
		}
		for _, text := range q.Permissions {
			permission, err := authz.ParsePermission(text)
			if err != nil {
				return nil, err
			}
			r.Permissions = append(r.Permissions, permission)
		}
		out[i] = r
	}
	return out, nil
}

// RequireByPath asks for what the manifest's path rules (auth.requirements) ask
// of the request: the first rule for its path and method, or auth_required where
// there is none. A request that can be read in several ways, by an encoded slash,
// dot segments, another letter case, a header that names another method, has to
// satisfy the rule of each; one whose path holds control characters or a backslash
// is 400.
//
// A field "_method" of a form in the body is not looked at: do not let what stands
// behind this guard take its method from there.
func (app *App) RequireByPath() *Guard { return app.api.ByPath() }

// Protect puts every route of next behind [App.RequireByPath]. The app's own
// routes ([App.Handler]) guard themselves and belong beside it, not behind it.
func (app *App) Protect(next http.Handler) http.Handler { return app.RequireByPath().Handler(next) }

// RequireScope asks for an access token with one of the scopes: 403
// insufficient_scope otherwise (RFC 6750 section 3.1).
func (app *App) RequireScope(scopes ...string) *Guard { return app.api.RequireScope(scopes...) }

// RequireScopes asks for an access token with all of the scopes.
func (app *App) RequireScopes(scopes ...string) *Guard { return app.api.RequireScopes(scopes...) }

// RequireInternal asks for a client in one of the manifest's internal_networks: 403
// otherwise, and for requests that somebody has passed on who is not one of the
// trusted_proxies. It asks for no principal: combine it by [App.All], or use it alone for
// what nobody signs in to, such as a probe.
func (app *App) RequireInternal() *Guard { return app.api.RequireInternal() }

// PathExplanation says what [App.RequireByPath] asks of a request.
type PathExplanation struct {
	// Rules are the rules that the request comes under: one, unless its path can be
	// read in several ways, and then each has to be satisfied.
	Rules []PathRule `json:"rules"`
}

// PathRule is one rule of a [PathExplanation].
type PathRule struct {
	// Index is the rule's place in auth.requirements, -1 for auth_required.
	Index int `json:"index"`
	// Path is the rule's pattern, "" for auth_required.
	Path string `json:"path,omitempty"`
	// Asks is what the rule asks for, in words. Nothing means that everybody passes.
	Asks []string `json:"asks"`
}

// String says it in one line for each rule.
func (e PathExplanation) String() string {
	var lines []string
	for _, r := range e.Rules {
		name := "no rule, so auth_required decides"
		if r.Index >= 0 {
			name = fmt.Sprintf("rule %d, %s", r.Index, r.Path)
		}
		asks := strings.Join(r.Asks, ", ")
		if asks == "" {
			asks = "nothing"
		}
		lines = append(lines, name+": "+asks)
	}
	return strings.Join(lines, "\n")
}

// ExplainPath says which path rules a request would come under and what they ask
// for. path is as a client sends it, with escapes and maybe a query. The error is a
// [*Problem] for a path that is always refused.
func (app *App) ExplainPath(method, path string) (PathExplanation, error) {
	found, err := app.api.RulesOf(method, path)
	if err != nil {
		return PathExplanation{}, err
	}
	var out PathExplanation
	for _, i := range found {
		out.Rules = append(out.Rules, app.explainRule(i))
	}
	return out, nil
}

func (app *App) explainRule(i int) PathRule {
	m := app.manifest
	if i == pathrule.None {
		if m.AuthRequired {
			return PathRule{Index: i, Asks: []string{"a principal"}}
		}
		return PathRule{Index: i, Asks: []string{}}
	}
	q := &m.Auth.Requirements[i]
	asks := []string{}
	if q.Internal {
		asks = append(asks, "an internal network")
	}
	switch allowed := strings.Join(q.MethodsAllowed, " and "); {
	case q.Optional:
		asks = append(asks, "of those who sign in:")
	case q.Strategy == "all":
		asks = append(asks, "a principal by "+allowed)
	case allowed != "":
		asks = append(asks, "a principal by "+strings.Join(q.MethodsAllowed, " or "))
	default:
		asks = append(asks, "a principal")
	}
	before := len(asks)
	if q.HumanOnly {
		asks = append(asks, "a person")
	}
	if q.MachineOnly {
		asks = append(asks, "a machine")
	}
	if q.FreshWithin > 0 {
		asks = append(asks, "a sign-in within "+q.FreshWithin.String())
	}
	if len(q.Scopes) > 0 {
		asks = append(asks, "the scopes "+strings.Join(q.Scopes, " and "))
	}
	if len(q.Roles) > 0 {
		asks = append(asks, "the role "+strings.Join(q.Roles, " or "))
	}
	if len(q.Permissions) > 0 {
		asks = append(asks, "the permissions "+strings.Join(q.Permissions, " and "))
	}
	if q.Optional && len(asks) == before {
		asks = asks[:before-1] // nothing more is asked of those either
	}
	if q.RateLimit != "" {
		asks = append(asks, "no more requests than "+q.RateLimit+" allows")
	}
	return PathRule{Index: i, Path: q.Path, Asks: asks}
}
