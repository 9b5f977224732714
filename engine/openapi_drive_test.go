package engine_test

import (
	"context"
	"encoding/base64"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/tokens/oauth2"
)

// undriven are answers that are described and that no request of the tests brings
// about, and why. "*" stands for every operation.
var undriven = map[string]string{
	"* 500":                            "is a defect, or a fault of the service's own code: TestInternalErrorsAreDescribed",
	"* 503":                            "is an outage: TestUnavailableIsDescribed",
	"* 429":                            "TestLimitsAreDescribed",
	"PATCH /auth/me 404":               "the account has to go between two calls of one request",
	"PATCH /auth/me 409":               "the account has to change between two calls of one request",
	"POST /auth/password 404":          "as PATCH /auth/me",
	"POST /auth/email/change 404":      "as PATCH /auth/me",
	"GET /auth/identities 404":         "as PATCH /auth/me",
	"POST /auth/register 202":          "where addresses are verified first: TestVerifiedRegistrationIsDescribed",
	"POST /auth/password 409":          "as PATCH /auth/me",
	"GET /auth/admin/audit/verify 404": "a trail without chains: TestTrailWithoutChainsIsDescribed",
	"GET /.well-known/jwks.json 404":   "an app with HS256 has no such operation: TestDocumentFollowsTheManifest",
	"GET /.well-known/oauth-authorization-server 404": "an app without clients has no such operation: TestDocumentFollowsTheManifest",
}

const formMedia = "application/x-www-form-urlencoded"

func sentAsForm(r *http.Request) { r.Header.Set("Content-Type", formMedia) }

func clientBasic(id, secret string) request {
	return header("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(id)+":"+url.QueryEscape(secret))))
}

// Every operation of the document, in every way that the document knows, is held
// against it. What is not driven fails.
func TestContract(t *testing.T) {
	t.Parallel()
	c := wholeWorld(t, wholeAuth)
	id, root := c.newUser("root@example.com")
	if err := c.app.Authz().SetRoles(t.Context(), id, "root"); err != nil {
		t.Fatal(err)
	}
	c.driveSignIn()
	user := c.want(c.do("POST", "/auth/login", account), 200, "")
	c.driveAccount(bearer(user.text("access_token")), user.text("refresh_token"))
	c.driveSessions()
	c.driveMachines(root)
	c.drivePolicies(root, user.at("user", "id").(string))
	c.driveRecords(root)
	c.driveMail()
	c.driveSignInByMail()
	c.driveInvitations(root)
	c.driveProviders()
	c.driveIdentities()
	c.everywhere(root)
	c.complete()
}

func (c *contract) driveSignIn() {
	const register, login, refresh, logout = "POST /auth/register", "POST /auth/login", "POST /auth/refresh", "POST /auth/logout"
	c.call(register, "", with(account, "profile", obj("nick", "ada"), "remember_me", true, "device", obj("id", "d1", "name", "phone")), 201, "")
	c.call(register, "", obj("email", "cookie@example.com", "password", password, "transport", "cookie"), 201, "")
	c.call(register, "", account, 409, "email_taken")
	c.call(register, "", obj("email", email), 400, "invalid_request")
	c.call(register, "", "{", 400, "invalid_json")
	c.call(register, "", with(account, "email", "ada"), 422, "invalid_field")
	c.call(register, "", obj("email", "x@example.com", "password", "short"), 422, "password_too_short")
	c.call(register, "", obj("email", "x@example.com", "password", strings.Repeat("ab cd ", 50)), 422, "password_too_long")
	c.call(register, "", obj("email", "x@example.com", "password", "passwordpassword"), 422, "password_common")

	in := c.call(login, "", account, 200, "")
	c.call(login, "", with(account, "device_token", in.text("device_token"), "transport", "bearer"), 200, "")
	browser := c.call(login, "", with(account, "transport", "cookie"), 200, "")
	c.call(login, "", with(account, "password", "wrong"), 401, "invalid_credentials")
	c.call(login, "", with(account, "transport", "pigeon"), 422, "invalid_field")
	c.call(login, "", obj("password", password), 400, "invalid_request")
	for range 5 {
		c.do("POST", "/auth/login", obj("email", "locked@example.com", "password", "wrong"))
	}
	c.call(login, "", obj("email", "locked@example.com", "password", "wrong"), 429, "account_locked")
	gone, _ := c.newUser("gone@example.com")
	if err := c.app.Users().Disable(c.t.Context(), gone, "test"); err != nil {
		c.t.Fatal(err)
	}
	c.call(login, "", obj("email", "gone@example.com", "password", password), 403, "account_disabled")

	full, _ := c.newUser("full@example.com")
	for range 19 {
		_ = c.mailedToken(full)
	}
	c.call(login, "", obj("email", "full@example.com", "password", password), 409, "session_limit")

	for _, route := range []string{"POST /auth/anonymous", "POST /auth/demo"} {
		c.call(route, "", nil, 200, "")
		c.call(route, "", obj("device_id", strings.Repeat("d", 32), "remember_me", true), 200, "")
		c.call(route, "", obj("device_id", "short"), 422, "invalid_field")
		c.call(route, "", obj("device_id", 1), 400, "invalid_request")
		for range 20 {
			c.do("POST", strings.TrimPrefix(route, "POST "), obj("device_id", strings.Repeat("e", 32)))
		}
		c.call(route, "", obj("device_id", strings.Repeat("e", 32)), 409, "session_limit")
	}

	c.call(refresh, "", obj("refresh_token", in.text("refresh_token")), 200, "")
	browser = c.call(refresh, "", nil, 200, "", cookieHeader(browser), xhr)
	c.call(refresh, "", nil, 401, "unauthenticated")
	c.call(refresh, "", obj("refresh_token", "mrt1.a.b.1.c"), 401, "token_invalid")
	c.call(refresh, "", obj("refresh_token", "x"), 400, "invalid_request", cookieHeader(browser))
	c.move(time.Minute)
	c.call(refresh, "", obj("refresh_token", in.text("refresh_token")), 401, "refresh_reused")
	c.call(logout, "", nil, 204, "", cookieHeader(browser), xhr)
	c.call(logout, "", obj("refresh_token", in.text("refresh_token")), 204, "")
	c.call(logout, "", obj("refresh_token", "x"), 401, "token_invalid")
}

func (c *contract) driveAccount(user request, refreshToken string) {
	const me, patch, check, change = "GET /auth/me", "PATCH /auth/me", "POST /auth/authorize", "POST /auth/password"
	c.call(me, "", nil, 200, "", user)
	c.call(me, "", nil, 400, "invalid_request", user, user)
	c.call(me, "", nil, 401, "token_invalid", bearer("a.b.c"))
	c.call(patch, "", obj("profile", obj("nick", "countess", "old", nil)), 200, "", user)
	c.call(patch, "", nil, 400, "invalid_request", user)
	c.call(patch, "", obj("profile", obj("$set", 1)), 422, "invalid_field", user)
	c.call("GET /auth/me/permissions", "", nil, 200, "", user)
	c.call("GET /auth/me/activity", "/auth/me/activity?limit=1", nil, 200, "", user)
	c.call("GET /auth/me/activity", "/auth/me/activity?limit=0", nil, 400, "invalid_request", user)
	c.call(check, "", obj("checks", []any{obj("object", "docs", "action", "read"), obj("object", "docs", "action", "burn")}), 200, "", user)
	c.call(check, "", obj("checks", []any{}), 400, "invalid_request", user)
	c.call(change, "", obj("current_password", "wrong", "new_password", "another long passphrase"), 401, "invalid_credentials", user)
	c.call(change, "", obj("current_password", password), 400, "invalid_request", user)
	c.call(change, "", obj("current_password", password, "new_password", "short"), 422, "password_too_short", user)
	c.call(change, "", obj("current_password", password, "new_password", "another long passphrase"), 204, "", user)
	c.call("POST /auth/logout", "", obj("refresh_token", refreshToken), 204, "", user)
}

func (c *contract) driveSessions() {
	_, user := c.newUser("sessions@example.com")
	list := c.call("GET /auth/sessions", "", nil, 200, "", user)
	sessions, _ := list.body["sessions"].([]any)
	c.call("DELETE /auth/sessions", "", nil, 204, "", user)
	c.call("DELETE /auth/sessions", "/auth/sessions?all=maybe", nil, 400, "invalid_request", user)
	c.call("DELETE /auth/sessions/{id}", "/auth/sessions/ses_x", nil, 404, "not_found", user)
	c.call("DELETE /auth/sessions/{id}", "/auth/sessions/"+objectAt(sessions[0])["id"].(string), nil, 204, "", user)
	_, user = c.newUser("sessions2@example.com")
	c.call("DELETE /auth/sessions", "/auth/sessions?all=true", nil, 204, "", user)
	c.call("GET /auth/sessions", "", nil, 401, "token_revoked", user)
}

func (c *contract) driveMachines(root request) {
	const keys, clients, one = "POST /auth/api-keys", "POST /auth/admin/clients", "/auth/admin/clients/"
	key := c.call(keys, "", obj("name", "script", "scopes", []any{"docs:read"}, "expires_in", 3600), 201, "", root)
	c.call(keys, "", obj("name", "bare"), 201, "", root)
	c.call(keys, "", obj("scopes", []any{}), 400, "invalid_request", root)
	c.call(keys, "", obj("name", "wide", "scopes", []any{"docs:burn"}), 422, "invalid_field", root)
	for range 3 {
		c.do("POST", "/auth/api-keys", obj("name", "more"), root)
	}
	c.call(keys, "", obj("name", "one too many"), 409, "api_key_limit", root)
	byKey := header("X-API-Key", key.text("key"))
	c.call("GET /auth/me", "", nil, 200, "", byKey)
	c.call(keys, "", obj("name", "of a machine"), 403, "human_required", byKey)
	c.call("GET /auth/api-keys", "/auth/api-keys?limit=1", nil, 200, "", root)
	c.call("GET /auth/api-keys", "/auth/api-keys?cursor=x", nil, 400, "invalid_request", root)
	c.call("DELETE /auth/api-keys/{id}", "/auth/api-keys/key_x", nil, 404, "not_found", root)
	c.call("DELETE /auth/api-keys/{id}", "/auth/api-keys/"+key.at("api_key", "id").(string), nil, 204, "", root)
	c.call("GET /auth/api-keys", "", nil, 200, "", root)

	made := c.call(clients, "", obj("name", "worker", "scopes", []any{"read"}, "token_ttl", 60), 201, "", root)
	c.call(clients, "", obj("name", "bare"), 201, "", root)
	c.call(clients, "", obj("name", "worker"), 409, "conflict", root)
	c.call(clients, "", nil, 400, "invalid_request", root)
	c.call(clients, "", obj("name", "greedy", "scopes", []any{"write"}), 422, "invalid_field", root)
	id, secret := made.at("client", "id").(string), made.text("client_secret")
	c.driveOAuth(id, secret)
	c.call("GET /auth/admin/clients", "/auth/admin/clients?limit=1", nil, 200, "", root)
	c.call("GET /auth/admin/clients/{id}", one+id, nil, 200, "", root)
	c.call("PATCH /auth/admin/clients/{id}", one+id, obj("scopes", []any{"read"}, "status", "disabled"), 200, "", root)
	c.call("PATCH /auth/admin/clients/{id}", one+id, obj("status", "active"), 200, "", root)
	c.call("PATCH /auth/admin/clients/{id}", one+id, obj("status", "away"), 422, "invalid_field", root)
	c.call("POST /auth/admin/clients/{id}/secrets", one+id+"/secrets", nil, 201, "", root)
	const remove = "DELETE /auth/admin/clients/{id}/secrets/{secret}"
	list, _ := c.do("GET", one+id, nil, root).at("client", "secrets").([]any)
	for i, want := range []int{204, 409} {
		code := map[int]string{409: "conflict"}[want]
		c.call(remove, one+id+"/secrets/"+objectAt(list[i])["id"].(string), nil, want, code, root)
	}
	c.call("DELETE /auth/admin/clients/{id}", one+id, nil, 204, "", root)
}

func (c *contract) driveOAuth(id, secret string) {
	const token, introspect, revoke = "POST /auth/oauth2/token", "POST /auth/oauth2/introspect", "POST /auth/oauth2/revoke"
	const grant = "grant_type=client_credentials"
	by := clientBasic(id, secret)
	issued := c.call(token, "", grant+"&scope=read", 200, "", sentAsForm, by)
	c.call(token, "", grant+"&client_id="+id+"&client_secret="+url.QueryEscape(secret), 200, "", sentAsForm)
	c.call(token, "", grant+"&scope=write", 400, "invalid_scope", sentAsForm, by)
	c.call(token, "", "grant_type=password", 400, "unsupported_grant_type", sentAsForm, by)
	c.call(token, "", grant, 400, "invalid_request", by)
	c.call(token, "", grant, 401, "invalid_client", sentAsForm)
	c.call(token, "", grant, 401, "invalid_client", sentAsForm, clientBasic(id, "wrong"))
	c.call("GET /auth/me", "", nil, 200, "", by)
	c.call("GET /auth/me", "", nil, 200, "", bearer(issued.text("access_token")))
	for _, route := range []string{introspect, revoke} {
		c.call(route, "", "token=x", 200, "", sentAsForm, by)
		c.call(route, "", "token="+issued.text("access_token"), 200, "", sentAsForm, by)
		c.call(route, "", "", 400, "invalid_request", sentAsForm, by)
		c.call(route, "", "token=x", 401, "invalid_client", sentAsForm)
	}
	_, person := c.newUser("person@example.com")
	r, _ := http.NewRequestWithContext(c.t.Context(), http.MethodGet, "/", http.NoBody)
	person(r)
	c.call(revoke, "", "token="+strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), 400, "invalid_grant", sentAsForm, by)
	for _, route := range []string{token, introspect, revoke} {
		c.call(route, "", strings.Repeat("x", 65<<10), 413, "invalid_request", sentAsForm, by)
	}
}

func (c *contract) drivePolicies(root request, user string) {
	const policies, roles, users = "/auth/admin/policies", "/auth/admin/roles/", "/auth/admin/users/"
	rule := obj("subject", "editor", "object", "docs", "action", "write")
	c.call("POST "+policies, "", obj("add", []any{rule}, "remove", []any{with(rule, "action", "print", "effect", "deny")}), 204, "", root)
	c.call("POST "+policies, "", obj(), 400, "invalid_request", root)
	c.call("POST "+policies, "", obj("add", []any{with(rule, "subject", "no-such-role")}), 422, "invalid_field", root)
	c.call("GET "+policies, policies+"?subject=editor&object=docs&action=read&limit=1", nil, 200, "", root)
	c.call("GET "+policies, policies+"?limit=1", nil, 200, "", root)
	c.call("GET "+policies, policies+"?role=x", nil, 400, "invalid_request", root)
	c.call("GET /auth/admin/roles", "", nil, 200, "", root)
	c.call("GET /auth/admin/roles/{role}/permissions", roles+"editor/permissions?limit=1", nil, 200, "", root)
	set := "PUT /auth/admin/roles/{role}/permissions"
	c.call(set, roles+"editor/permissions", obj("permissions", []any{"docs:read"}, "denied", []any{"docs:burn"}), 204, "", root)
	c.call(set, roles+"editor/permissions", obj(), 400, "invalid_request", root)
	c.call("GET /auth/admin/roles/{role}/users", roles+"root/users?limit=1", nil, 200, "", root)
	c.call("GET /auth/admin/users/{id}/roles", users+user+"/roles", nil, 200, "", root)
	c.call("PUT /auth/admin/users/{id}/roles", users+user+"/roles", obj("roles", []any{"user"}), 204, "", root)
	c.call("PUT /auth/admin/users/{id}/roles", users+user+"/roles", obj("roles", []any{"no-such-role"}), 422, "invalid_field", root)
	c.call("POST /auth/admin/users/{id}/roles", users+user+"/roles", obj("role", "editor"), 204, "", root)
	c.call("POST /auth/admin/users/{id}/roles", users+user+"/roles", obj("role", "no-such-role"), 422, "invalid_field", root)
	c.call("DELETE /auth/admin/users/{id}/roles/{role}", users+user+"/roles/editor", nil, 204, "", root)
	_, nobody := c.newUser("nobody@example.com")
	c.call("GET /auth/admin/roles", "", nil, 403, "forbidden", nobody)
}

func (c *contract) driveRecords(root request) {
	const list = "/auth/admin/audit"
	c.call("GET "+list, list+"?type=login_failed&result=failure&limit=1&from=2020-01-01T00:00:00Z&until=2100-01-01T00:00:00Z", nil, 200, "", root)
	c.call("GET "+list, list+"?user_id=usr_x&client_id=cli_x&ip=192.0.2.1", nil, 200, "", root)
	c.call("GET "+list, list+"?from=yesterday", nil, 400, "invalid_request", root)
	c.call("GET "+list, list+"?limit=500", nil, 200, "", root)
	c.call("GET /auth/admin/audit/summary", list+"/summary?from=2020-01-01T00:00:00Z", nil, 200, "", root)
	c.call("GET /auth/admin/audit/summary", list+"/summary", nil, 200, "", root)
	c.call("GET /auth/admin/audit/verify", "", nil, 200, "", root)
	c.call("GET /auth/health", "", nil, 200, "")
	for _, edit := range []request{root, from("127.0.0.1:1")} {
		c.call("GET /auth/metrics", "", nil, 200, "", edit)
		c.call("GET /auth/metrics/prometheus", "", nil, 200, "", edit)
	}
	_, user := c.newUser("observer@example.com")
	for _, route := range []string{"GET /auth/metrics", "GET /auth/metrics/prometheus"} {
		c.call(route, "", nil, 401, "unauthenticated")
		c.call(route, "", nil, 403, "forbidden", user)
	}
	c.call("GET /auth/metrics/prometheus", "", nil, 200, "", root, header("Accept", "application/openmetrics-text; version=1.0.0"))
	c.call("GET /auth/openapi.json", "", nil, 200, "")
	keys := c.call("GET /.well-known/jwks.json", "", nil, 200, "")
	c.call("GET /.well-known/jwks.json", "", nil, 304, "", header("If-None-Match", keys.header.Get("ETag")))
	c.call("GET /.well-known/oauth-authorization-server", "", nil, 200, "")
}

// everywhere sends every operation what any of them refuses.
func (c *contract) everywhere(root request) {
	cookie := "shop_access=x" // as in development
	c.operations(func(route string, pointer []string, op map[string]any) {
		method, template, _ := strings.Cut(route, " ")
		path, responses := c.paths[route], objectAt(op, "responses")
		if path == "" || strings.HasPrefix(path, "/.well-known/") {
			return
		}
		content := objectAt(op, "requestBody", "content")
		body := c.bodies[route]
		c.call(route, path, nil, 400, "invalid_request", header("Cookie", cookie+"; "+cookie))
		if requires(op) {
			c.call(route, path, body, 401, "unauthenticated")
		}
		switch {
		case content[formMedia] != nil:
		case method != "GET":
			c.call(route, path, body, 403, "csrf_failed", header("Cookie", cookie), header("Sec-Fetch-Site", "cross-site"))
		case requires(op):
			c.call(route, path, nil, 403, "csrf_failed", header("Cookie", cookie), header("Sec-Fetch-Site", "cross-site"), header("Upgrade", "websocket"))
		}
		if content["application/json"] != nil {
			_, user := c.newUser(strings.ToLower(op["operationId"].(string)) + "@example.com")
			by := []request{user}
			if strings.HasPrefix(template, "/auth/admin/") || template == "/auth/invitations" {
				by = []request{root}
			} else if !requires(op) {
				by = nil
			}
			c.call(route, path, `{"a":"`+strings.Repeat("x", 65<<10)+`"}`, 413, "too_large", by...)
			c.call(route, path, body, 415, "unsupported_media_type", append(by, header("Content-Type", "x"), func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") })...)
			unknown := with(body.(map[string]any), "no_such_member", 1)
			c.call(route, path, unknown, 400, "invalid_request", by...)
			if c.valid(under(pointer, "requestBody", "content", "application/json", "schema"), asSent(c.t, "", unknown)) == nil {
				c.t.Errorf("%s refuses members that the document lets pass", route)
			}
		}
		if responses["404"] != nil && strings.Contains(template, "{") {
			missing := strings.NewReplacer("{id}", "usr_x", "{role}", "no-such-role", "{secret}", "sec_x", "{provider}", "nobody").Replace(template)
			c.call(route, missing, body, 404, "not_found", root)
		}
	})
}

// requires reports whether an operation needs a credential that the header or a
// cookie brings.
func requires(op map[string]any) bool {
	alternatives, _ := op["security"].([]any)
	return len(alternatives) > 0 && !slices.ContainsFunc(alternatives, func(a any) bool { return len(objectAt(a)) == 0 })
}

// complete fails for whatever is described and was not driven.
func (c *contract) complete() {
	c.t.Helper()
	used := map[string]bool{}
	c.operations(func(route string, _ []string, op map[string]any) {
		for _, status := range slices.Sorted(maps.Keys(objectAt(op, "responses"))) {
			name := route + " " + status
			_, excused := undriven[name]
			_, always := undriven["* "+status]
			used[name] = true
			switch seen := c.seen[route][atoi(status)]; {
			case seen && excused:
				c.t.Errorf("%s is excused and was driven", name)
			case !seen && !excused && !always:
				c.t.Errorf("%s is described and was not driven", name)
			}
		}
	})
	for name := range undriven {
		if !used[name] && !strings.HasPrefix(name, "* ") {
			c.t.Errorf("%s is excused and not described", name)
		}
	}
}

func atoi(text string) (n int) {
	for _, digit := range text {
		n = n*10 + int(digit-'0')
	}
	return n
}

// What fails because of an error of the service's own code is described.
func TestInternalErrorsAreDescribed(t *testing.T) {
	t.Parallel()
	broken := false
	fault := errors.New("the service's own code fails")
	c := wholeWorld(t, wholeAuth, func(o *engine.Options) {
		o.Claims = func(context.Context, string, string) (map[string]any, error) {
			if broken {
				return nil, fault
			}
			return nil, nil
		}
		o.ClientToken = func(context.Context, string, *engine.ClientToken) error { return fault }
	})
	in := c.register()
	broken = true
	c.call("POST /auth/login", "", account, 500, "internal")
	c.call("POST /auth/refresh", "", obj("refresh_token", in.text("refresh_token")), 500, "internal")
	made, err := c.app.Clients().Create(t.Context(), oauth2.NewClient{Name: "worker"})
	if err != nil {
		t.Fatal(err)
	}
	c.call("POST /auth/oauth2/token", "", "grant_type=client_credentials", 500, "server_error", sentAsForm, clientBasic(made.ID, made.Secret))
}

// A trail that proves nothing says so as the document has it.
func TestTrailWithoutChainsIsDescribed(t *testing.T) {
	t.Parallel()
	c := wholeWorld(t, wholeAuth+`,"audit":{"tamper_evident":false}`)
	id, root := c.newUser("root@example.com")
	if err := c.app.Authz().SetRoles(t.Context(), id, "root"); err != nil {
		t.Fatal(err)
	}
	c.call("GET /auth/admin/audit/verify", "", nil, 404, "not_found", root)
	c.call("GET /auth/admin/audit", "", nil, 200, "", root)
}
