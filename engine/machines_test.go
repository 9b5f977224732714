package engine_test

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/oauth2/clientcredentials"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/engine/enginetest"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/tokens/apikey"
	"github.com/mandate-auth/mandate/tokens/oauth2"
)

// machines is an app that takes every credential.
const machines = `"tokens":{"issuer":"https://shop.example"},"api_keys":{"enabled":true,"scopes":["documents:read","documents:write","documents:*","role:editor","*","reports"]},
	"clients":{"enabled":true},"policy":{"authorization":{"default_roles":["user","editor","admin"],"role_hierarchy":{"admin":["editor"],"editor":["user"]},
	"initial_policies":[["user","documents","read"],["editor","documents","write"],["admin","mandate","clients"],["admin","mandate","audit"],["admin","mandate","users"]]}}`

func apiKey(key string) request { return header("X-API-Key", key) }

// basicAuth sends a name and a secret as they are.
func basicAuth(name, secret string) request {
	return func(r *http.Request) {
		r.Header.Add("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(name+":"+secret)))
	}
}

// makeKey makes an API key of the account behind the token.
func (w *world) makeKey(token request, scopes ...string) (key, id string) {
	w.t.Helper()
	r := w.want(w.do("POST", "/auth/api-keys", obj("name", "test", "scopes", append([]string{}, scopes...)), token), 201, "")
	id, _ = r.at("api_key", "id").(string)
	return r.text("key"), id
}

// makeClient makes a client.
func (w *world) makeClient(name string, scopes ...string) (id, secret string) {
	w.t.Helper()
	c, err := w.app.Clients().Create(w.t.Context(), oauth2.NewClient{Name: name, Scopes: scopes})
	if err != nil {
		w.t.Fatal(err)
	}
	return c.ID, c.Secret
}

// form is the body of a request of OAuth 2.0.
func form(pairs ...string) string {
	v := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		v.Add(pairs[i], pairs[i+1])
	}
	return v.Encode()
}

func asForm(r *http.Request) { r.Header.Set("Content-Type", "application/x-www-form-urlencoded") }

// clientToken fetches an access token of the client.
func (w *world) clientToken(id, secret string) string {
	w.t.Helper()
	r := w.do("POST", "/auth/oauth2/token", form("grant_type", "client_credentials"), asForm, basicAuth(id, secret))
	if r.status != 200 {
		w.t.Fatalf("client_credentials: %d %s", r.status, r.raw)
	}
	return r.text("access_token")
}

// An API key says who its owner is, and may do what both may.
func TestAPIKeyHasTheRightsOfBoth(t *testing.T) {
	t.Parallel()
	w := setup(t, machines)
	id, token := w.newUser("ada@example.com")
	if err := w.app.Authz().SetRoles(t.Context(), id, "editor"); err != nil {
		t.Fatal(err)
	}
	key, _ := w.makeKey(token, "documents:read", "reports")
	me := w.want(w.do("GET", "/auth/me", nil, apiKey(key)), 200, "")
	if me.at("principal", "id") != id || me.at("principal", "kind") != "api_key" || me.at("principal", "is_m2m") != true || me.at("principal", "credential") != "api_key" {
		t.Errorf("the key is %s", me.raw)
	}
	roleKey, _ := w.makeKey(token, "role:editor")
	all, _ := w.makeKey(token, "*")
	many, _ := w.makeKey(token, "documents:*")
	a := w.app
	owner := func(*http.Request) (string, error) { return id, nil }
	for _, tt := range []struct {
		name   string
		guard  *engine.Guard
		key    request
		status int
		code   string
	}{
		{"its scope", a.RequirePermission("documents", "read"), apiKey(key), 200, ""},
		{"as a bearer token", a.RequirePermission("documents", "read"), bearer(key), 200, ""},
		{"the owner's, not its scope", a.RequirePermission("documents", "write"), apiKey(key), 403, "forbidden"},
		{"the owner's, by a key for all", a.RequirePermission("documents", "write"), apiKey(all), 200, ""},
		{"any action on the object", a.RequirePermission("documents", "write"), apiKey(many), 200, ""},
		{"its scope, not the owner's", a.RequirePermission("documents", "delete"), apiKey(many), 403, "forbidden"},
		{"another object", a.RequirePermission("documents2", "read"), apiKey(many), 403, "forbidden"},
		{"the owner's role without a scope", a.RequireRole("editor"), apiKey(key), 403, "forbidden"},
		{"the owner's role", a.RequireRole("editor"), apiKey(roleKey), 200, ""},
		{"a role that the owner lacks", a.RequireRole("admin"), apiKey(all), 403, "forbidden"},
		{"a word of the service", a.RequireScope("reports"), apiKey(key), 200, ""},
		{"a word that it lacks", a.RequireScope("reports"), apiKey(all), 403, "insufficient_scope"},
		{"people only", a.RequireHuman(), apiKey(all), 403, "human_required"},
		{"machines only", a.RequireMachine(), apiKey(key), 200, ""},
		{"what the owner owns", a.RequireOwnerOr(owner, nil), apiKey(key), 403, "forbidden"},
		{"what the owner owns, by a key for all", a.RequireOwnerOr(owner, nil), apiKey(all), 200, ""},
	} {
		if r := do(t, tt.guard.Handler(ok), "GET", "/", nil, tt.key); r.status != tt.status || r.code() != tt.code {
			t.Errorf("%s: %d %s", tt.name, r.status, r.raw)
		}
	}
	r := w.want(w.do("GET", "/auth/me/permissions", nil, apiKey(key)), 200, "")
	if r.raw != "{\"roles\":[],\"permissions\":[\"documents:read\"]}\n" {
		t.Errorf("the key may do %s", r.raw)
	}
	// What the owner loses the key loses.
	if err := w.app.Authz().SetRoles(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if r := do(t, a.RequirePermission("documents", "write").Handler(ok), "GET", "/", nil, apiKey(all)); r.status != 403 {
		t.Errorf("the key kept what its owner lost: %d", r.status)
	}
}

// With a key nobody makes another one, changes a password or ends sessions, and who
// owns a key follows from the session alone.
func TestAPIKeysCannotReachAccounts(t *testing.T) {
	t.Parallel()
	w := setup(t, machines)
	_, token := w.newUser("ada@example.com")
	victim, _ := w.newUser("eve@example.com")
	key, id := w.makeKey(token, "*")
	clientID, secret := w.makeClient("worker")
	machine := bearer(w.clientToken(clientID, secret))
	for _, as := range []request{apiKey(key), machine, basicAuth(clientID, secret)} {
		for _, route := range []string{
			"PATCH /me", "POST /password", "GET /sessions", "DELETE /sessions", "DELETE /sessions/x", "GET /api-keys", "POST /api-keys",
			"DELETE /api-keys/" + id, "GET /me/activity",
		} {
			method, path, _ := strings.Cut(route, " ")
			w.want(w.do(method, "/auth"+path, nil, as), 403, "human_required")
		}
	}
	w.want(w.do("GET", "/auth/me", nil, apiKey(key)), 200, "")
	for _, member := range []string{"user_id", "userId", "owner", "id", "hash", "prefix", "revoked_at", "last_used_at", "app", "kind"} {
		w.want(w.do("POST", "/auth/api-keys", obj("name", "x", member, victim), token), 400, "invalid_request")
	}
	list, err := w.app.APIKeys().List(t.Context(), victim, apikey.ListOptions{})
	if err != nil || len(list.Keys) != 0 {
		t.Errorf("somebody made keys for somebody else: %v, %v", list, err)
	}
	_, other := w.newUser("bob@example.com")
	w.want(w.do("DELETE", "/auth/api-keys/"+id, nil, other), 404, "not_found")
	w.want(w.do("DELETE", "/auth/api-keys/"+id, nil, token), 204, "")
	w.want(w.do("DELETE", "/auth/api-keys/"+id, nil, token), 204, "")
	w.want(w.do("GET", "/auth/me", nil, apiKey(key)), 401, "token_revoked")
	// Guests own none.
	guest := w.want(setup(t, machines+`,"users":{"allow_anonymous_users":true}`).do("POST", "/auth/anonymous", nil), 200, "")
	_ = guest
}

// A scope that the owner has not cannot be given.
func TestAPIKeyScopesAreTheOwners(t *testing.T) {
	t.Parallel()
	w := setup(t, strings.Replace(machines, `,"scopes":["documents:read","documents:write","documents:*","role:editor","*","reports"]`, ``, 1))
	_, token := w.newUser("ada@example.com")
	for scope, allowed := range map[string]bool{
		"documents:read": true, "documents:write": false, "role:user": true, "role:editor": false, "role:nobody": false, "*": false, "documents:*": false, "reports": false,
	} {
		r := w.do("POST", "/auth/api-keys", obj("name", "x", "scopes", []string{scope}), token)
		if allowed != (r.status == 201) || (!allowed && r.code() != "invalid_field") {
			t.Errorf("%s: %d %s", scope, r.status, r.raw)
		}
	}
}

// A disabled or deleted owner's keys are dead at once, here and elsewhere; an
// enabled one's live again.
func TestAPIKeysDieWithTheirOwner(t *testing.T) {
	t.Parallel()
	w := setup(t, machines)
	second := newWorld(t, storetest.Second(t, w.db, nil), manifestOf(t, "shop", machines))
	id, token := w.newUser("ada@example.com")
	key, _ := w.makeKey(token, "*")
	w.want(w.do("GET", "/auth/me", nil, apiKey(key)), 200, "")
	second.want(second.do("GET", "/auth/me", nil, apiKey(key)), 200, "")
	if err := w.app.Users().Disable(t.Context(), id, "test"); err != nil {
		t.Fatal(err)
	}
	w.want(w.do("GET", "/auth/me", nil, apiKey(key)), 401, "token_revoked")
	until(t, "the second engine refuses the key", func() bool { return second.do("GET", "/auth/me", nil, apiKey(key)).status == 401 })
	if err := w.app.Users().Enable(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	w.want(w.do("GET", "/auth/me", nil, apiKey(key)), 200, "")
	if err := w.app.Users().Delete(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if r := w.do("GET", "/auth/me", nil, apiKey(key)); r.status != 401 {
		t.Errorf("the key of a deleted account: %d %s", r.status, r.raw)
	}
}

// A repeated key or client token costs no round trip.
func TestRepeatedMachinesCostNoRoundTrip(t *testing.T) {
	t.Parallel()
	commands := &enginetest.Commands{}
	w := newWorld(t, storetest.Monitored(t, commands.Monitor()), manifestOf(t, "shop", machines))
	_, token := w.newUser("ada@example.com")
	key, _ := w.makeKey(token, "documents:read")
	id, secret := w.makeClient("worker")
	guard := w.app.RequireUser().Handler(ok)
	access := bearer(w.clientToken(id, secret))
	for name, as := range map[string]request{"key": apiKey(key), "token": access, "secret": basicAuth(id, secret)} {
		if r := do(t, guard, "GET", "/", nil, as); r.status != 200 {
			t.Fatalf("%s: %s", name, r.raw)
		}
		commands.Reset()
		for range 50 {
			if r := do(t, guard, "GET", "/", nil, as); r.status != 200 {
				t.Fatalf("%s: %s", name, r.raw)
			}
		}
		if got := requested(commands); got != "" {
			t.Errorf("%s: repeating it asked the database: %s", name, got)
		}
	}
	// client_credentials writes nothing.
	commands.Reset()
	w.clientToken(id, secret)
	if got := requested(commands); got != "" {
		t.Errorf("client_credentials asked the database: %s", got)
	}
}

// The grant, as RFC 6749 has it, with everything that is refused.
func TestClientCredentials(t *testing.T) {
	t.Parallel()
	w := setup(t, machines)
	id, secret := w.makeClient("worker", "read", "write")
	token := func(body string, edit ...request) *response {
		return w.do("POST", "/auth/oauth2/token", body, append([]request{asForm}, edit...)...)
	}
	grant := "grant_type=client_credentials"
	for _, tt := range []struct {
		name   string
		body   string
		edit   []request
		status int
		err    string
	}{
		{"by Basic", grant, []request{basicAuth(id, secret)}, 200, ""},
		{"by form", grant + "&" + form("client_id", id, "client_secret", secret), nil, 200, ""},
		{"by both", grant + "&" + form("client_id", id, "client_secret", secret), []request{basicAuth(id, secret)}, 400, "invalid_request"},
		{"Basic of one, id of another", grant + "&client_id=cli_x", []request{basicAuth(id, secret)}, 400, "invalid_request"},
		{"by nothing", grant, nil, 401, "invalid_client"},
		{"wrong secret", grant, []request{basicAuth(id, "wrong")}, 401, "invalid_client"},
		{"unknown client", grant, []request{basicAuth("cli_00000000000000000000000000", secret)}, 401, "invalid_client"},
		{"a user", grant, []request{basicAuth(email, password)}, 401, "invalid_client"},
		{"bearer", grant, []request{bearer("x")}, 401, "invalid_client"},
		{"no grant", form("client_id", id, "client_secret", secret), nil, 400, "invalid_request"},
		{"password grant", "grant_type=password", []request{basicAuth(id, secret)}, 400, "unsupported_grant_type"},
		{"a parameter twice", grant + "&" + grant, []request{basicAuth(id, secret)}, 400, "invalid_request"},
		{"another scope", grant + "&scope=admin", []request{basicAuth(id, secret)}, 400, "invalid_scope"},
		{"one scope", grant + "&scope=read", []request{basicAuth(id, secret)}, 200, ""},
		{"unknown parameter", grant + "&x=y", []request{basicAuth(id, secret)}, 200, ""},
		{"two headers", grant, []request{basicAuth(id, secret), basicAuth(id, secret)}, 400, "invalid_request"},
	} {
		r := token(tt.body, tt.edit...)
		if r.status != tt.status || r.text("error") != tt.err {
			t.Errorf("%s: %d %s", tt.name, r.status, r.raw)
		}
		if (r.status == 401) != (r.header.Get("WWW-Authenticate") != "") || r.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: headers %v", tt.name, r.header)
		}
	}
	// In the query, and as JSON.
	if r := w.do("POST", "/auth/oauth2/token?"+grant, "", asForm, basicAuth(id, secret)); r.text("error") != "invalid_request" {
		t.Errorf("parameters in the query: %d %s", r.status, r.raw)
	}
	if r := w.do("POST", "/auth/oauth2/token", obj("grant_type", "client_credentials"), basicAuth(id, secret)); r.text("error") != "invalid_request" {
		t.Errorf("JSON: %d %s", r.status, r.raw)
	}
	if r := w.do("GET", "/auth/oauth2/token", nil, basicAuth(id, secret)); r.status != 405 {
		t.Errorf("GET: %d", r.status)
	}
	r := token(grant+"&scope=read", basicAuth(id, secret))
	if r.text("scope") != "read" || r.text("token_type") != "Bearer" || r.body["expires_in"] != 900.0 || r.body["refresh_token"] != nil {
		t.Errorf("the answer is %s", r.raw)
	}
	me := w.want(w.me(r.text("access_token")), 200, "")
	if me.at("principal", "id") != id || me.at("principal", "client_id") != id || me.at("principal", "kind") != "service" || me.at("principal", "is_m2m") != true || me.at("principal", "session_id") != nil {
		t.Errorf("the client is %s", me.raw)
	}
	for guard, want := range map[*engine.Guard]int{
		w.app.RequireScope("read"): 200, w.app.RequireScope("write"): 403, w.app.RequireHuman(): 403, w.app.RequireMachine(): 200, w.app.RequireFresh(0): 401,
	} {
		if r := do(t, guard.Handler(ok), "GET", "/", nil, bearer(r.text("access_token"))); r.status != want {
			t.Errorf("got %d %s, want %d", r.status, r.raw, want)
		}
	}
}

// Roles and rules are given to clients as to users.
func TestClientsHaveRoles(t *testing.T) {
	t.Parallel()
	w := setup(t, machines)
	id, secret := w.makeClient("worker")
	token := bearer(w.clientToken(id, secret))
	guard := w.app.RequirePermission("documents", "write").Handler(ok)
	if r := do(t, guard, "GET", "/", nil, token); r.status != 403 {
		t.Errorf("without a role: %d", r.status)
	}
	if err := w.app.Authz().GrantRole(t.Context(), id, "editor"); err != nil {
		t.Fatal(err)
	}
	if r := do(t, guard, "GET", "/", nil, token); r.status != 200 {
		t.Errorf("with the role: %d %s", r.status, r.raw)
	}
	if err := w.app.Authz().GrantRole(t.Context(), "cli_00000000000000000000000000", "editor"); !errors.Is(err, oauth2.ErrNotFound) {
		t.Errorf("a client that is not there: %v", err)
	}
	if err := w.app.DeleteClient(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	w.want(do(t, guard, "GET", "/", nil, token), 401, "token_revoked")
	if roles := w.roles(id); len(roles) != 0 {
		t.Errorf("a deleted client has roles: %v", roles)
	}
}

// What ends a client ends its tokens and secrets, here and elsewhere.
func TestClientsEnd(t *testing.T) {
	t.Parallel()
	w := setup(t, machines)
	second := newWorld(t, storetest.Second(t, w.db, nil), manifestOf(t, "shop", machines))
	guard, other := w.app.RequireUser().Handler(ok), second.app.RequireUser().Handler(ok)
	for name, end := range map[string]func(id string) error{
		"disabled": func(id string) error { return w.app.Clients().Disable(t.Context(), id, "test") },
		"deleted":  func(id string) error { return w.app.DeleteClient(t.Context(), id) },
		"narrowed": func(id string) error { return w.app.Clients().SetScopes(t.Context(), id, []string{"read"}) },
	} {
		id, secret := w.makeClient(name, "read", "write")
		token := bearer(w.clientToken(id, secret))
		for _, h := range []http.Handler{guard, other} {
			if r := do(t, h, "GET", "/", nil, token); r.status != 200 {
				t.Fatalf("%s: %s", name, r.raw)
			}
			if r := do(t, h, "GET", "/", nil, basicAuth(id, secret)); r.status != 200 {
				t.Fatalf("%s: %s", name, r.raw)
			}
		}
		if err := end(id); err != nil {
			t.Fatal(name, err)
		}
		if r := do(t, guard, "GET", "/", nil, token); r.code() != "token_revoked" {
			t.Errorf("%s: its token: %d %s", name, r.status, r.raw)
		}
		if r := do(t, guard, "GET", "/", nil, basicAuth(id, secret)); (r.status == 401) != (name != "narrowed") {
			t.Errorf("%s: its secret: %d %s", name, r.status, r.raw)
		}
		until(t, name+" elsewhere", func() bool { return do(t, other, "GET", "/", nil, token).status == 401 })
	}
}

// Introspection and revocation ask which client it is, and tell nobody about what is
// somebody else's.
func TestIntrospectAndRevoke(t *testing.T) {
	t.Parallel()
	w := setup(t, machines)
	id, secret := w.makeClient("worker", "read")
	otherID, otherSecret := w.makeClient("other")
	gateway, gatewaySecret := w.makeClient("gateway", "mandate:introspect")
	token := w.clientToken(id, secret)
	userID, _ := w.newUser("ada@example.com")
	g, err := w.app.StartSession(t.Context(), userID, engine.Device{}, false)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(path, text string, as request) *response {
		return w.do("POST", "/auth/oauth2/"+path, form("token", text, "token_type_hint", "access_token"), asForm, as)
	}
	const inactive = "{\"active\":false}\n"
	own := ask("introspect", token, basicAuth(id, secret))
	if own.body["active"] != true || own.text("client_id") != id || own.text("sub") != id || own.text("scope") != "read" || own.text("iss") != "https://shop.example" || own.body["exp"] == nil {
		t.Errorf("its own token: %s", own.raw)
	}
	if r := ask("introspect", g.Access.Token, basicAuth(gateway, gatewaySecret)); r.body["active"] != true || r.text("sub") != userID {
		t.Errorf("a user's token, by one that may ask: %s", r.raw)
	}
	for name, r := range map[string]*response{
		"another client's":   ask("introspect", token, basicAuth(otherID, otherSecret)),
		"a user's":           ask("introspect", g.Access.Token, basicAuth(id, secret)),
		"garbage":            ask("introspect", "x", basicAuth(gateway, gatewaySecret)),
		"a refresh token":    ask("introspect", g.Session.RefreshToken, basicAuth(gateway, gatewaySecret)),
		"a tampered one":     ask("introspect", token[:len(token)-4]+"AAAA", basicAuth(gateway, gatewaySecret)),
		"another app's form": ask("introspect", strings.Repeat("a", 9000), basicAuth(gateway, gatewaySecret)),
	} {
		if r.status != 200 || r.raw != inactive {
			t.Errorf("%s: %d %s", name, r.status, r.raw)
		}
	}
	if r := ask("introspect", token, basicAuth(id, "wrong")); r.status != 401 || r.text("error") != "invalid_client" {
		t.Errorf("whoever asks: %d %s", r.status, r.raw)
	}
	if r := ask("revoke", token, basicAuth(otherID, otherSecret)); r.status != 400 || r.text("error") != "invalid_grant" {
		t.Errorf("revoking another client's: %d %s", r.status, r.raw)
	}
	if r := ask("revoke", g.Access.Token, basicAuth(id, secret)); r.status != 400 {
		t.Errorf("revoking a user's: %d %s", r.status, r.raw)
	}
	w.want(w.me(token), 200, "")
	for range 2 {
		if r := ask("revoke", token, basicAuth(id, secret)); r.status != 200 {
			t.Errorf("revoking its own: %d %s", r.status, r.raw)
		}
	}
	if r := ask("revoke", "unknown", basicAuth(id, secret)); r.status != 200 {
		t.Errorf("revoking what is not there: %d %s", r.status, r.raw)
	}
	w.want(w.me(token), 401, "token_revoked")
	if r := ask("introspect", token, basicAuth(id, secret)); r.raw != inactive {
		t.Errorf("a revoked token: %s", r.raw)
	}
}

// A client that we did not write gets its tokens and calls with them.
func TestOAuth2ClientLibrary(t *testing.T) {
	t.Parallel()
	w := setup(t, machines)
	id, secret := w.makeClient("worker", "read", "write")
	mux := http.NewServeMux()
	mux.Handle("/auth/", w.app.Handler())
	mux.Handle("/.well-known/", w.app.WellKnown())
	mux.Handle("/work", w.app.RequireScopes("read", "write").Handler(ok))
	server := httptest.NewServer(mux)
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	config := clientcredentials.Config{ClientID: id, ClientSecret: secret, TokenURL: server.URL + "/auth/oauth2/token", Scopes: []string{"read", "write"}}
	res, err := config.Client(ctx).Get(server.URL + "/work")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Errorf("the client's call: %s", res.Status)
	}
	config.ClientSecret = "wrong"
	if _, err := config.Token(ctx); err == nil || !strings.Contains(err.Error(), "invalid_client") {
		t.Errorf("a wrong secret: %v", err)
	}
	meta := do(t, mux, "GET", "/.well-known/oauth-authorization-server", nil)
	if meta.text("issuer") != "https://shop.example" || meta.text("token_endpoint") != "https://shop.example/auth/oauth2/token" || meta.status != 200 {
		t.Errorf("metadata: %d %s", meta.status, meta.raw)
	}
	if r := do(t, mux, "GET", "/.well-known/jwks.json", nil); r.status != 404 {
		t.Errorf("symmetric keys were published: %s", r.raw)
	}
}

// The service's hook adds claims, or builds the token.
func TestClientTokenHook(t *testing.T) {
	t.Parallel()
	hook := func(_ context.Context, app string, token *engine.ClientToken) error {
		switch token.Client.Name {
		case "own":
			token.Token = "opaque-of-the-service"
		case "refused":
			return oauth2.ErrInvalidClient
		case "reserved":
			token.Claims = map[string]any{"sub": "usr_x"}
		default:
			token.Claims = map[string]any{"tenant": app + "/" + strings.Join(token.Scopes, "+")}
		}
		return nil
	}
	w := newWorld(t, storetest.Database(t), manifestOf(t, "shop", machines), func(o *engine.Options) { o.ClientToken = hook })
	get := func(name string) *response {
		id, secret := w.makeClient(name, "read")
		return w.do("POST", "/auth/oauth2/token", form("grant_type", "client_credentials"), asForm, basicAuth(id, secret))
	}
	p, err := w.app.Verify(t.Context(), get("claims").text("access_token"))
	if err != nil || p.Claims["tenant"] != "shop/read" {
		t.Errorf("claims: %+v, %v", p, err)
	}
	if r := get("own"); r.text("access_token") != "opaque-of-the-service" {
		t.Errorf("its own token: %s", r.raw)
	}
	if r := get("refused"); r.status != 401 || r.text("error") != "invalid_client" {
		t.Errorf("refused: %d %s", r.status, r.raw)
	}
	if r := get("reserved"); r.status != 500 || r.text("error") != "server_error" || r.body["access_token"] != nil {
		t.Errorf("a reserved claim: %d %s", r.status, r.raw)
	}
}

// Administration of clients needs its permission and shows no secret twice.
func TestAdminClients(t *testing.T) {
	t.Parallel()
	w := setup(t, machines)
	_, user := w.newUser("ada@example.com")
	adminID, admin := w.newUser("root@example.com")
	if err := w.app.Authz().SetRoles(t.Context(), adminID, "admin"); err != nil {
		t.Fatal(err)
	}
	w.want(w.do("GET", "/auth/admin/clients", nil, user), 403, "forbidden")
	r := w.want(w.do("POST", "/auth/admin/clients", obj("name", "worker", "scopes", []string{"read"}, "token_ttl", 60), admin), 201, "")
	id, _ := r.at("client", "id").(string)
	secret := r.text("client_secret")
	w.want(w.do("POST", "/auth/admin/clients", obj("name", "worker"), admin), 409, "conflict")
	w.want(w.do("POST", "/auth/admin/clients", obj("name", "spy", "scopes", []string{"mandate:introspect"}), admin), 403, "forbidden")
	next := w.want(w.do("POST", "/auth/admin/clients/"+id+"/secrets", nil, admin), 201, "").text("client_secret")
	for _, s := range []string{secret, next} {
		w.clientToken(id, s)
	}
	shown := w.want(w.do("GET", "/auth/admin/clients/"+id, nil, admin), 200, "")
	list := w.want(w.do("GET", "/auth/admin/clients", nil, admin), 200, "")
	for _, s := range []string{secret, next} {
		if strings.Contains(shown.raw+list.raw, s) {
			t.Error("a secret is shown again")
		}
	}
	secrets, _ := shown.at("client", "secrets").([]any)
	if len(secrets) != 2 {
		t.Fatalf("secrets: %s", shown.raw)
	}
	oldest, _ := secrets[0].(map[string]any)["id"].(string)
	w.want(w.do("DELETE", "/auth/admin/clients/"+id+"/secrets/"+oldest, nil, admin), 204, "")
	if r := w.do("POST", "/auth/oauth2/token", form("grant_type", "client_credentials"), asForm, basicAuth(id, secret)); r.status != 401 {
		t.Errorf("a removed secret: %d", r.status)
	}
	token := w.clientToken(id, next)
	w.want(w.do("PATCH", "/auth/admin/clients/"+id, obj("status", "disabled"), admin), 200, "")
	w.want(w.me(token), 401, "token_revoked")
	w.want(w.do("PATCH", "/auth/admin/clients/"+id, obj("status", "gone"), admin), 422, "invalid_field")
	w.want(w.do("PATCH", "/auth/admin/clients/"+id, obj("status", "active"), admin), 200, "")
	w.want(w.me(token), 401, "token_revoked")
	w.clientToken(id, next)
	w.want(w.do("DELETE", "/auth/admin/clients/"+id, nil, admin), 204, "")
	w.want(w.do("GET", "/auth/admin/clients/"+id, nil, admin), 404, "not_found")
}

// Which credentials may be combined, and that one that is wrong never falls through
// to another.
func TestCombinedCredentials(t *testing.T) {
	t.Parallel()
	cert := authenticator(func(r *http.Request) (*engine.Principal, error) {
		switch r.Header.Get("X-Cert") {
		case "":
			return nil, nil
		case "bad":
			return nil, errors.New("the certificate is not ours")
		default:
			return &engine.Principal{ID: r.Header.Get("X-Cert"), Kind: authz.KindService}, nil
		}
	})
	rule := func(path, methods, strategy string) string {
		return `{"path":"` + path + `","methods_allowed":[` + methods + `],"strategy":"` + strategy + `"}`
	}
	requirements := `,"requirements":[` + strings.Join([]string{
		rule("/jwt", `"jwt"`, "any"), rule("/key", `"api_key"`, "any"), rule("/client", `"client"`, "any"), rule("/basic", `"basic"`, "any"),
		rule("/either", `"jwt","api_key"`, "any"), rule("/both", `"jwt","api_key"`, "all"), rule("/cert", `"cert"`, "any"),
		rule("/cert-and-client", `"cert","client"`, "all"), rule("/cert-or-jwt", `"cert","jwt"`, "any"), `{"path":"/optional","optional":true}`,
	}, ",") + `]`
	w := newWorld(t, storetest.Database(t), manifestOf(t, "shop", machines+requirements), func(o *engine.Options) {
		o.Authenticators = map[string]engine.NewAuthenticator{"cert": func(string) (engine.Authenticator, error) { return cert, nil }}
	})
	_, jwt := w.newUser("ada@example.com")
	_, bob := w.newUser("bob@example.com")
	key, _ := w.makeKey(jwt, "*")
	id, secret := w.makeClient("worker")
	client := bearer(w.clientToken(id, secret))
	with := func(name string) request { return header("X-Cert", name) }
	wrongKey := apiKey(key[:len(key)-1] + "_")
	h := w.app.Protect(ok)
	for _, tt := range []struct {
		path   string
		name   string
		edit   []request
		status int
		code   string
	}{
		{"/other", "a token", []request{jwt}, 200, ""},
		{"/other", "a key", []request{apiKey(key)}, 200, ""},
		{"/other", "a client's token", []request{client}, 200, ""},
		{"/other", "a client's secret", []request{basicAuth(id, secret)}, 200, ""},
		{"/other", "a password", []request{basicAuth("ada@example.com", password)}, 401, "invalid_credentials"},
		{"/other", "a certificate", []request{with("cert|x")}, 200, ""},
		{"/other", "a token and a key", []request{jwt, apiKey(key)}, 400, "invalid_request"},
		{"/other", "a wrong key beside a certificate", []request{wrongKey, with("cert|x")}, 401, "token_invalid"},
		{"/other", "a wrong token beside a certificate", []request{bearer("a.b.c"), with("cert|x")}, 401, "token_invalid"},
		{"/other", "a bad certificate", []request{with("bad")}, 401, "invalid_credentials"},
		{"/other", "nothing", nil, 401, "unauthenticated"},
		{"/jwt", "a token", []request{jwt}, 200, ""},
		{"/jwt", "a client's token", []request{client}, 401, "unauthenticated"},
		{"/jwt", "a key", []request{apiKey(key)}, 401, "unauthenticated"},
		{"/jwt", "a token and a key", []request{jwt, apiKey(key)}, 400, "invalid_request"},
		{"/key", "a key", []request{apiKey(key)}, 200, ""},
		{"/key", "a token", []request{jwt}, 401, "unauthenticated"},
		{"/key", "a certificate", []request{with("cert|x")}, 401, "unauthenticated"},
		{"/client", "a client's token", []request{client}, 200, ""},
		{"/client", "a client's secret", []request{basicAuth(id, secret)}, 200, ""},
		{"/client", "a user's token", []request{jwt}, 401, "unauthenticated"},
		{"/client", "a user's password", []request{basicAuth("ada@example.com", password)}, 401, "invalid_credentials"},
		{"/basic", "a password", []request{basicAuth("ada@example.com", password)}, 200, ""},
		{"/basic", "a wrong password", []request{basicAuth("ada@example.com", "wrong")}, 401, "invalid_credentials"},
		{"/basic", "a client's secret", []request{basicAuth(id, secret)}, 200, ""},
		{"/basic", "a token", []request{jwt}, 401, "unauthenticated"},
		{"/either", "a token", []request{jwt}, 200, ""},
		{"/either", "a key", []request{apiKey(key)}, 200, ""},
		{"/either", "both, of one", []request{jwt, apiKey(key)}, 200, ""},
		{"/either", "both, of two", []request{bob, apiKey(key)}, 400, "invalid_request"},
		{"/either", "one good, one wrong", []request{jwt, wrongKey}, 401, "token_invalid"},
		{"/either", "a client's token beside a key", []request{client, apiKey(key)}, 400, "invalid_request"},
		{"/both", "a token", []request{jwt}, 401, "unauthenticated"},
		{"/both", "both, of one", []request{jwt, apiKey(key)}, 200, ""},
		{"/both", "both, of two", []request{bob, apiKey(key)}, 400, "invalid_request"},
		{"/cert", "a certificate", []request{with("cert|x")}, 200, ""},
		{"/cert", "a certificate beside a token", []request{with("cert|x"), jwt}, 400, "invalid_request"},
		{"/cert", "nothing", nil, 401, "unauthenticated"},
		{"/cert-and-client", "both, of one", []request{with(id), client}, 200, ""},
		{"/cert-and-client", "both, of two", []request{with("cert|x"), client}, 400, "invalid_request"},
		{"/cert-and-client", "a token", []request{client}, 401, "unauthenticated"},
		{"/cert-and-client", "a bad certificate", []request{with("bad"), client}, 401, "invalid_credentials"},
		{"/cert-or-jwt", "a token", []request{jwt}, 200, ""},
		{"/cert-or-jwt", "a bad certificate beside a token", []request{with("bad"), jwt}, 401, "invalid_credentials"},
		{"/optional", "nothing", nil, 200, ""},
		{"/optional", "a wrong key", []request{wrongKey}, 200, ""},
		{"/optional", "a wrong secret", []request{basicAuth(id, "wrong")}, 200, ""},
		{"/optional", "a token and a key", []request{jwt, apiKey(key)}, 400, "invalid_request"},
	} {
		if r := do(t, h, "GET", tt.path, nil, tt.edit...); r.status != tt.status || r.code() != tt.code {
			t.Errorf("%s with %s: %d %s", tt.path, tt.name, r.status, r.raw)
		}
	}
	// Browsers send passwords by themselves: not for another site's page.
	cross := []request{basicAuth("ada@example.com", password), header("Sec-Fetch-Site", "cross-site"), header("Origin", "https://evil.example")}
	if r := do(t, h, "POST", "/basic", nil, cross...); r.code() != "csrf_failed" {
		t.Errorf("a password of another site's page: %d %s", r.status, r.raw)
	}
}

type authenticator func(*http.Request) (*engine.Principal, error)

func (f authenticator) Authenticate(r *http.Request) (*engine.Principal, error) { return f(r) }

// A principal that an authenticator makes up wrongly is a defect, not somebody.
func TestAuthenticatorsThatAreWrong(t *testing.T) {
	t.Parallel()
	for name, p := range map[string]*engine.Principal{
		"no id": {Kind: authz.KindService}, "no kind": {ID: "own|x"}, "another app": {ID: "own|x", Kind: authz.KindService, App: "blog"},
		"the name of a role": {ID: "admin", Kind: authz.KindService}, "the id of another one's": {ID: "corp|x", Kind: authz.KindService},
		"an id that no rule could name": {ID: "own|a,b", Kind: authz.KindService}, "nothing behind the name": {ID: "own", Kind: authz.KindService},
	} {
		w := newWorld(t, storetest.Database(t), manifestOf(t, "shop", ``), func(o *engine.Options) {
			o.Authenticators = map[string]engine.NewAuthenticator{"own": func(string) (engine.Authenticator, error) {
				return authenticator(func(*http.Request) (*engine.Principal, error) { return p, nil }), nil
			}}
		})
		if r := do(t, w.app.RequireUser().Handler(ok), "GET", "/", nil); r.status != 500 {
			t.Errorf("%s: %d %s", name, r.status, r.raw)
		}
	}
}

// A name that a rule uses and nobody has registered stops the start, and says what to
// write.
func TestUnknownAuthenticatorStopsTheStart(t *testing.T) {
	t.Parallel()
	w := setup(t, ``)
	_, err := w.eng.Load(t.Context(), manifestOf(t, "blog", `"requirements":[{"path":"/x","methods_allowed":["cert"]}]`))
	if err == nil || !strings.Contains(err.Error(), `engine.NewAuthenticator{"cert"`) {
		t.Errorf("got %v", err)
	}
	_, err = w.eng.Load(t.Context(), manifestOf(t, "wiki", `"audit":{"sinks":["siem"]}`))
	if err == nil || !strings.Contains(err.Error(), `AuditSinks: map[string]event.Sink{"siem"`) {
		t.Errorf("got %v", err)
	}
}

// 500 tries at once on two engines let as many through as the rule says.
func TestOneLimitForAllInstances(t *testing.T) {
	t.Parallel()
	auth := `"rate_limits":{"uploads":{"max":10,"window":"1h"}}`
	w := setup(t, auth)
	second := newWorld(t, storetest.Second(t, w.db, nil), manifestOf(t, "shop", auth))
	var passed atomic.Int64
	var wg sync.WaitGroup
	handlers := []http.Handler{w.app.RateLimited("uploads", nil).Handler(ok), second.app.RateLimited("uploads", nil).Handler(ok)}
	for i := range 500 {
		wg.Go(func() {
			r := do(t, handlers[i%2], "GET", "/", nil)
			switch {
			case r.status == 200:
				passed.Add(1)
			case r.code() != "rate_limited" || r.header.Get("Retry-After") == "" || r.header.Get("X-RateLimit-Remaining") != "0":
				t.Errorf("got %d %s %v", r.status, r.raw, r.header)
			}
		})
	}
	wg.Wait()
	if n := passed.Load(); n != 10 {
		t.Errorf("%d passed, want 10", n)
	}
}

// The limits of our own routes, with nothing but the defaults.
func TestDefaultLimits(t *testing.T) {
	t.Parallel()
	w := setup(t, `"rate_limits":{}`)
	w.register()
	codes := func(n int, f func() *response) (out []int) {
		for range n {
			out = append(out, f().status)
		}
		return out
	}
	wrong := with(account, "password", "wrong")
	if got := codes(6, func() *response { return w.do("POST", "/auth/login", wrong) }); !slices.Equal(got, []int{401, 401, 401, 401, 401, 429}) {
		t.Errorf("logins: %v", got)
	}
	// Another address is another matter, another spelling is not.
	w.want(w.do("POST", "/auth/login", with(account, "email", "ADA@example.com", "password", "wrong")), 429, "rate_limited")
	w.want(w.do("POST", "/auth/login", with(account, "email", "bob@example.com", "password", "wrong")), 401, "invalid_credentials")
	w.want(w.do("POST", "/auth/login", account, from("198.51.100.7:1234")), 200, "")
	if got := codes(3, func() *response { return w.do("POST", "/auth/register", with(account, "email", "x@example.com")) }); !slices.Equal(got, []int{201, 409, 429}) {
		t.Errorf("registrations: %v", got)
	}
	w.move(10*time.Minute + time.Second)
	r := w.want(w.do("POST", "/auth/login", account), 200, "")
	if r.header.Get("X-RateLimit-Limit") == "" || r.header.Get("RateLimit-Policy") == "" {
		t.Errorf("headers: %v", r.header)
	}
	refresh := r.text("refresh_token")
	last := 0
	for range 11 {
		r := w.do("POST", "/auth/refresh", obj("refresh_token", refresh))
		if last = r.status; last == 200 {
			refresh = r.text("refresh_token")
		}
	}
	if last != 429 {
		t.Errorf("the eleventh refresh: %d", last)
	}
}

// Whoever administers clients gets no secret of one that can do more: who has the
// secret is the client.
func TestNobodyBecomesAMightierClient(t *testing.T) {
	t.Parallel()
	w := setup(t, machines)
	clerkID, clerk := w.newUser("clerk@example.com")
	if err := w.app.Authz().AddRules(t.Context(), rule(clerkID, "mandate", "clients")); err != nil {
		t.Fatal(err)
	}
	weak, _ := w.makeClient("weak")
	role, _ := w.makeClient("role")
	rules, _ := w.makeClient("rules")
	scope, _ := w.makeClient("scope", "mandate:introspect")
	if err := w.app.Authz().GrantRole(t.Context(), role, "admin"); err != nil {
		t.Fatal(err)
	}
	if err := w.app.Authz().AddRules(t.Context(), rule(rules, "safe", "open")); err != nil {
		t.Fatal(err)
	}
	path := func(id string) string { return "/auth/admin/clients/" + id + "/secrets" }
	w.want(w.do("POST", path(weak), nil, clerk), 201, "")
	for name, id := range map[string]string{"a role": role, "a rule": rules, "a scope": scope} {
		if r := w.do("POST", path(id), nil, clerk); r.status != 403 || r.text("client_secret") != "" {
			t.Errorf("a secret of a client with %s: %d %s", name, r.status, r.raw)
		}
	}
	if err := w.app.Authz().AddRules(t.Context(), rule(clerkID, "mandate", "escalate"), rule(clerkID, "mandate", "introspect")); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{role, rules, scope} {
		w.want(w.do("POST", path(id), nil, clerk), 201, "")
	}
	w.want(w.do("POST", path("cli_00000000000000000000000000"), nil, clerk), 404, "not_found")
}

// The roles of a client are given and taken over HTTP as those of a user.
func TestRolesOfClientsOverHTTP(t *testing.T) {
	t.Parallel()
	w := setup(t, machines)
	rootID, root := w.newUser("root@example.com")
	if err := w.app.Authz().SetRoles(t.Context(), rootID, "admin"); err != nil {
		t.Fatal(err)
	}
	id, _ := w.makeClient("worker")
	path := "/auth/admin/users/" + id + "/roles"
	w.want(w.do("POST", path, obj("role", "editor"), root), 204, "")
	if r := w.want(w.do("GET", path, nil, root), 200, ""); !strings.Contains(r.raw, `"roles":["editor"]`) {
		t.Errorf("its roles: %s", r.raw)
	}
	w.want(w.do("DELETE", path+"/editor", nil, root), 204, "")
	w.want(w.do("GET", "/auth/admin/users/cli_00000000000000000000000000/roles", nil, root), 404, "not_found")
}

// Passwords by Basic are guessed no faster than at the sign-in, and right ones are not
// held up.
func TestGuessingByBasic(t *testing.T) {
	t.Parallel()
	w := setup(t, `"rate_limits":{"login_address":{"max":5},"register":{"max":100}},"requirements":[{"path":"/basic","methods_allowed":["basic"]}]`)
	w.register()
	h := w.app.Protect(ok)
	for range 10 {
		if r := do(t, h, "GET", "/basic", nil, basicAuth(email, password)); r.status != 200 {
			t.Fatalf("the right password: %d %s", r.status, r.raw)
		}
	}
	for i := range 5 {
		w.want(do(t, h, "GET", "/basic", nil, basicAuth("nobody"+strings.Repeat("x", i)+"@example.com", "wrong")), 401, "invalid_credentials")
	}
	before := w.hashes.Load()
	r := do(t, h, "GET", "/basic", nil, basicAuth("another@example.com", "wrong"))
	if r.status != 429 || r.code() != "rate_limited" || r.header.Get("Retry-After") == "" || w.hashes.Load() != before {
		t.Errorf("the sixth guess from one address: %d %s, %d hashes", r.status, r.raw, w.hashes.Load()-before)
	}
	if r := do(t, h, "GET", "/basic", nil, basicAuth(email, password), from("198.51.100.7:1")); r.status != 200 {
		t.Errorf("from elsewhere: %d %s", r.status, r.raw)
	}
}

// Where everything is asked, keys and secrets are too.
func TestStrictAsksAboutMachines(t *testing.T) {
	t.Parallel()
	commands := &enginetest.Commands{}
	w := newWorld(t, storetest.Monitored(t, commands.Monitor()), manifestOf(t, "shop", machines))
	_, token := w.newUser("ada@example.com")
	key, _ := w.makeKey(token, "documents:read")
	id, secret := w.makeClient("worker")
	h := w.app.Strict().Handler(ok)
	for name, as := range map[string]request{"key": apiKey(key), "secret": basicAuth(id, secret), "token": bearer(w.clientToken(id, secret))} {
		do(t, h, "GET", "/", nil, as)
		commands.Reset()
		if r := do(t, h, "GET", "/", nil, as); r.status != 200 || requested(commands) == "" {
			t.Errorf("%s: %d %s, asked %q", name, r.status, r.raw, requested(commands))
		}
	}
}

// Somebody of another issuer can be kept out by name.
func TestDeniedSubjectOfAnotherIssuer(t *testing.T) {
	t.Parallel()
	issuer := `,"issuers":[{"name":"idp","issuer":"https://idp.example","audience":["shop"]}]`
	if _, err := tryManifest("shop", `"policy":{"denied_users":["idp|123"]}`+issuer); err != nil {
		t.Errorf("a subject of the issuer: %v", err)
	}
	for _, user := range []string{"other|123", "idp|", "idp"} {
		if _, err := tryManifest("shop", `"policy":{"denied_users":["`+user+`"]}`+issuer); err == nil {
			t.Errorf("%s was taken", user)
		}
	}
}
