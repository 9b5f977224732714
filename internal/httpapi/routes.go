package httpapi

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// route is one route of the app, relative to its base path.
type route struct {
	method, path string
	enabled      bool
	serve        func(http.ResponseWriter, *http.Request) error
	// machine says that it is for clients that never authenticate by a cookie, so that
	// a cookie beside it means nothing.
	machine bool

	// variables is how many the path has, and segments are its parts where it has any.
	variables int
	segments  []string
}

// table is every route of this version.
func (a *API) table() []route {
	c := &a.config
	people, accounts := c.UsersEnabled && c.People, c.UsersEnabled
	routes := []route{
		{method: http.MethodPost, path: "/register", enabled: people, serve: a.register},
		{method: http.MethodPost, path: "/login", enabled: people, serve: a.login},
		{method: http.MethodPost, path: "/anonymous", enabled: accounts && c.Guests, serve: a.anonymous},
		{method: http.MethodPost, path: "/demo", enabled: accounts && c.Demo, serve: a.demo},
		{method: http.MethodPost, path: "/refresh", enabled: accounts, serve: a.refresh},
		{method: http.MethodPost, path: "/logout", enabled: accounts, serve: a.logout},
		{method: http.MethodGet, path: "/me", enabled: accounts, serve: a.me},
		{method: http.MethodPatch, path: "/me", enabled: accounts, serve: a.patchMe},
		{method: http.MethodGet, path: "/me/permissions", enabled: accounts, serve: a.myPermissions},
		{method: http.MethodPost, path: "/authorize", enabled: accounts, serve: a.authorize},
		{method: http.MethodPost, path: "/password", enabled: people, serve: a.password},
		{method: http.MethodGet, path: "/sessions", enabled: accounts, serve: a.listSessions},
		{method: http.MethodDelete, path: "/sessions", enabled: accounts, serve: a.endSessions},
		{method: http.MethodDelete, path: "/sessions/{id}", enabled: accounts, serve: a.endSession},
		{method: http.MethodGet, path: "/health", enabled: true, serve: a.health},

		{method: http.MethodGet, path: "/admin/policies", enabled: accounts, serve: a.admin(ActionPolicies, a.listPolicies)},
		{method: http.MethodPost, path: "/admin/policies", enabled: accounts, serve: a.admin(ActionPolicies, a.changePolicies)},
		{method: http.MethodGet, path: "/admin/roles", enabled: accounts, serve: a.admin(ActionPolicies, a.listRoles)},
		{method: http.MethodGet, path: "/admin/roles/{role}/permissions", enabled: accounts, serve: a.admin(ActionPolicies, a.rolePermissions)},
		{method: http.MethodPut, path: "/admin/roles/{role}/permissions", enabled: accounts, serve: a.admin(ActionPolicies, a.setRolePermissions)},
		{method: http.MethodGet, path: "/admin/roles/{role}/users", enabled: accounts, serve: a.admin(ActionPolicies, a.roleUsers)},
		{method: http.MethodGet, path: "/admin/users/{id}/roles", enabled: accounts, serve: a.admin(ActionUsers, a.userRoles)},
		{method: http.MethodPut, path: "/admin/users/{id}/roles", enabled: accounts, serve: a.admin(ActionUsers, a.setUserRoles)},
		{method: http.MethodPost, path: "/admin/users/{id}/roles", enabled: accounts, serve: a.admin(ActionUsers, a.grantUserRole)},
		{method: http.MethodDelete, path: "/admin/users/{id}/roles/{role}", enabled: accounts, serve: a.admin(ActionUsers, a.revokeUserRole)},
	}
	return slices.Concat(routes, a.mailRoutes(people), a.socialRoutes(people), a.machineRoutes(accounts), a.recordRoutes(accounts))
}

// mailRoutes are those of what is done by mail.
func (a *API) mailRoutes(people bool) []route {
	c := &a.config
	mails, invitations := people && c.Recovery != nil, people && c.Invitations != nil
	return []route{
		{method: http.MethodPost, path: "/email/verify", enabled: mails, serve: a.verifyEmail},
		{method: http.MethodPost, path: "/email/verify/send", enabled: mails, serve: a.sendVerification},
		{method: http.MethodPost, path: "/password/forgot", enabled: mails, serve: a.forgotPassword},
		{method: http.MethodPost, path: "/password/reset", enabled: mails, serve: a.resetPassword},
		{method: http.MethodPost, path: "/email/change", enabled: mails, serve: a.changeEmail},
		{method: http.MethodPost, path: "/email/change/confirm", enabled: mails, serve: a.confirmEmail},
		{method: http.MethodPost, path: "/magic-link", enabled: mails && c.MagicLink, serve: a.sendMagicLink},
		{method: http.MethodPost, path: "/magic-link/consume", enabled: mails && c.MagicLink, serve: a.consumeMagicLink},
		{method: http.MethodPost, path: "/code", enabled: mails && c.EmailCode, serve: a.sendCode},
		{method: http.MethodPost, path: "/code/consume", enabled: mails && c.EmailCode, serve: a.consumeCode},
		{method: http.MethodGet, path: "/invitations", enabled: invitations, serve: a.admin(ActionUsers, a.listInvitations)},
		{method: http.MethodPost, path: "/invitations", enabled: invitations, serve: a.admin(ActionUsers, a.createInvitation)},
		{method: http.MethodDelete, path: "/invitations/{id}", enabled: invitations, serve: a.admin(ActionUsers, a.revokeInvitation)},
	}
}

// socialRoutes are those of sign-in by other providers.
func (a *API) socialRoutes(people bool) []route {
	enabled := people && a.config.Social != nil
	return []route{
		{method: http.MethodGet, path: "/oauth/providers", enabled: enabled, serve: a.listProviders},
		{method: http.MethodGet, path: "/oauth/{provider}/login", enabled: enabled, serve: a.beginOAuth},
		{method: http.MethodGet, path: "/oauth/{provider}/callback", enabled: enabled, serve: a.finishOAuth},
		{method: http.MethodGet, path: "/identities", enabled: enabled, serve: a.listIdentities},
		{method: http.MethodPost, path: "/identities/{provider}", enabled: enabled, serve: a.beginLink},
		{method: http.MethodDelete, path: "/identities", enabled: enabled, serve: a.unlink},
	}
}

// machineRoutes are those of API keys and of OAuth 2.0.
func (a *API) machineRoutes(accounts bool) []route {
	c := &a.config
	keys, clients := accounts && c.APIKeys != nil, c.Clients != nil
	return []route{
		{method: http.MethodGet, path: "/api-keys", enabled: keys, serve: a.listAPIKeys},
		{method: http.MethodPost, path: "/api-keys", enabled: keys, serve: a.createAPIKey},
		{method: http.MethodDelete, path: "/api-keys/{id}", enabled: keys, serve: a.revokeAPIKey},

		{method: http.MethodPost, path: "/oauth2/token", enabled: clients, serve: a.oauth(a.token), machine: true},
		{method: http.MethodPost, path: "/oauth2/introspect", enabled: clients, serve: a.oauth(a.introspect), machine: true},
		{method: http.MethodPost, path: "/oauth2/revoke", enabled: clients, serve: a.oauth(a.revoke), machine: true},

		{method: http.MethodGet, path: "/admin/clients", enabled: clients, serve: a.admin(ActionClients, a.listClients)},
		{method: http.MethodPost, path: "/admin/clients", enabled: clients, serve: a.admin(ActionClients, a.createClient)},
		{method: http.MethodGet, path: "/admin/clients/{id}", enabled: clients, serve: a.admin(ActionClients, a.getClient)},
		{method: http.MethodPatch, path: "/admin/clients/{id}", enabled: clients, serve: a.admin(ActionClients, a.patchClient)},
		{method: http.MethodDelete, path: "/admin/clients/{id}", enabled: clients, serve: a.admin(ActionClients, a.deleteClient)},
		{method: http.MethodPost, path: "/admin/clients/{id}/secrets", enabled: clients, serve: a.admin(ActionClients, a.rotateClient)},
		{method: http.MethodDelete, path: "/admin/clients/{id}/secrets/{secret}", enabled: clients, serve: a.admin(ActionClients, a.removeClientSecret)},
	}
}

// recordRoutes are those of the audit trail, of metrics and of the document that
// describes the rest.
func (a *API) recordRoutes(accounts bool) []route {
	c := &a.config
	trail := c.Audit != nil
	routes := []route{
		{method: http.MethodGet, path: "/me/activity", enabled: accounts && trail, serve: a.myActivity},
		{method: http.MethodGet, path: "/admin/audit", enabled: trail, serve: a.admin(ActionAudit, a.listAudit)},
		{method: http.MethodGet, path: "/admin/audit/summary", enabled: trail, serve: a.admin(ActionAudit, a.auditSummary)},
		{method: http.MethodGet, path: "/admin/audit/verify", enabled: trail, serve: a.admin(ActionAudit, a.verifyAudit)},
		{method: http.MethodGet, path: "/metrics", enabled: c.Metrics != nil, serve: a.observer(c.Metrics)},
	}
	if c.Prometheus != nil {
		routes = append(routes, route{method: http.MethodGet, path: "/metrics/prometheus", enabled: true, serve: a.observer(c.Prometheus)})
	}
	if c.OpenAPI != nil {
		routes = append(routes, route{method: http.MethodGet, path: "/openapi.json", enabled: true, serve: a.openAPI})
	}
	return routes
}

// match finds the route of a request. allowed are the methods of its path.
func (a *API) match(r *http.Request) (found *route, allowed []string) {
	// As it was sent: what routes are called needs no escape, and a proxy that admits
	// paths by their text must not see another one than we do.
	path, ok := strings.CutPrefix(r.URL.EscapedPath(), a.config.BasePath)
	if !ok {
		return nil, nil
	}
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	var have []string // the path's segments, where a route has variables
	for i := range a.routes {
		rt := &a.routes[i]
		if rt.variables == 0 {
			if path != rt.path {
				continue
			}
		} else {
			if have == nil {
				have = strings.Split(path, "/")
			}
			if !rt.matches(r, have) {
				continue
			}
		}
		allowed = append(allowed, rt.method)
		if rt.method == http.MethodGet {
			allowed = append(allowed, http.MethodHead)
		}
		if rt.method == method {
			found = rt
		}
	}
	return found, allowed
}

// prepare leaves the routes that are enabled, and takes the paths of those with
// variables apart, once.
func prepare(routes []route) []route {
	routes = slices.Clone(slices.DeleteFunc(routes, func(rt route) bool { return !rt.enabled }))
	for i := range routes {
		rt := &routes[i]
		if rt.variables = strings.Count(rt.path, "{"); rt.variables > 0 {
			rt.segments = strings.Split(rt.path, "/")
		}
	}
	return routes
}

// matches compares the path segment by segment, and keeps its variables. The name of
// a role is decoded, once; identifiers need no escape and are taken as they were sent.
func (rt *route) matches(r *http.Request, have []string) bool {
	if len(rt.segments) != len(have) {
		return false
	}
	values := make([][2]string, 0, 4)
	for i, segment := range rt.segments {
		name, variable := strings.CutPrefix(segment, "{")
		if !variable {
			if segment != have[i] {
				return false
			}
			continue
		}
		name, value := strings.TrimSuffix(name, "}"), have[i]
		if name == "role" {
			var err error
			if value, err = url.PathUnescape(value); err != nil {
				return false
			}
		}
		if value == "" {
			return false
		}
		values = append(values, [2]string{name, value})
	}
	for _, v := range values {
		r.SetPathValue(v[0], v[1])
	}
	return true
}

// Paths returns "METHOD path" of every route that is served, for documents and
// tests that must not miss one.
func (a *API) Paths() []string {
	var out []string
	for _, rt := range a.routes {
		out = append(out, rt.method+" "+a.config.BasePath+rt.path)
	}
	slices.Sort(out)
	return out
}
