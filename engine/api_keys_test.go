package engine_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/tokens/apikey"
)

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
