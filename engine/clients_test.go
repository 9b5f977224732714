package engine_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2/clientcredentials"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/tokens/oauth2"
)

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
