package engine_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/tokens/oauth2"
)

// peopleInCookies is machines for an app whose people come with cookies.
var peopleInCookies = strings.Replace(machines, `"issuer":"https://shop.example"`, `"issuer":"https://shop.example","transport":"cookie"`, 1)

// Whoever may end clients takes no roles or rules from anybody else.
func TestOnlyClientsAreDeletedAsClients(t *testing.T) {
	t.Parallel()
	w := setup(t, machines)
	clerkID, clerk := w.newUser("clerk@example.com")
	victim, _ := w.newUser("eve@example.com")
	if err := w.app.Authz().AddRules(t.Context(), rule(clerkID, "mandate", "clients")); err != nil {
		t.Fatal(err)
	}
	if err := w.app.Authz().SetRoles(t.Context(), victim, "admin"); err != nil {
		t.Fatal(err)
	}
	before, _, err := w.app.Authz().Rules(t.Context(), authz.RuleFilter{}, authz.Page{})
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{victim, "user", "admin", "corp%7Cx", "cli_x"} {
		w.want(w.do("DELETE", "/auth/admin/clients/"+target, nil, clerk), 404, "not_found")
		if err := w.app.DeleteClient(t.Context(), target); !errors.Is(err, oauth2.ErrNotFound) {
			t.Errorf("delete %s as a client: %v", target, err)
		}
	}
	roles, err := w.app.Authz().AssignedRoles(t.Context(), victim)
	if err != nil || !slices.Equal(roles, []string{"admin"}) {
		t.Errorf("the roles of a user are %v, %v", roles, err)
	}
	after, _, err := w.app.Authz().Rules(t.Context(), authz.RuleFilter{}, authz.Page{})
	if err != nil || len(after) != len(before) {
		t.Errorf("%d rules became %d, %v", len(before), len(after), err)
	}
}

// Names that somebody makes up count as one, and all of them by their address.
func TestTokenLimits(t *testing.T) {
	t.Parallel()
	ask := func(w *world, id string) *response {
		return w.do("POST", "/auth/oauth2/token", form("grant_type", "client_credentials", "client_id", id, "client_secret", "x"), asForm)
	}
	limited := func(limits string, ids func(int) string) (n int) {
		w := setup(t, machines+`,"rate_limits":{`+limits+`}`)
		for i := range 20 {
			if r := ask(w, ids(i)); r.status == 429 && r.text("error") == "temporarily_unavailable" && r.header.Get("Retry-After") != "" {
				n++
			}
		}
		return n
	}
	made := func(i int) string { return fmt.Sprintf("made-up-%d", i) }
	formed := func(i int) string { return fmt.Sprintf("cli_%026d", i) }
	expect(t, limited(`"token":{"max":3}`, made), 17)
	expect(t, limited(`"token":{"max":3}`, formed), 0)
	expect(t, limited(`"token_address":{"max":5}`, formed), 15)
}

// The token of a session that has ended does not keep its owner from refreshing.
func TestRefreshIsLimitedBySession(t *testing.T) {
	t.Parallel()
	w := setup(t, `"rate_limits":{"refresh":{"max":3},"register":{"max":100},"login":{"max":100}}`)
	old := w.register().text("refresh_token")
	w.want(w.do("POST", "/auth/logout", obj("refresh_token", old)), 204, "")
	now := w.login().text("refresh_token")
	for range 3 {
		w.want(w.do("POST", "/auth/refresh", obj("refresh_token", old)), 401, "session_expired")
	}
	w.want(w.do("POST", "/auth/refresh", obj("refresh_token", old)), 429, "rate_limited")
	w.want(w.do("POST", "/auth/refresh", obj("refresh_token", now)), 200, "")
}

// What an app whose people come with cookies does not read in a request it still knows.
func TestMachinesOfACookieApp(t *testing.T) {
	t.Parallel()
	w := setup(t, peopleInCookies)
	id, _ := w.newUser(email)
	g, err := w.app.StartSession(t.Context(), id, engine.Device{}, false)
	if err != nil {
		t.Fatal(err)
	}
	client, secret := w.makeClient("worker")
	spy, spySecret := w.makeClient("spy", "mandate:introspect")
	token := w.clientToken(client, secret)
	h := w.app.RequireUser().Handler(ok)
	cookie := func(value string) request { return header("Cookie", "__Host-shop_access="+value) }
	w.want(do(t, h, "GET", "/", nil, cookie(g.Access.Token)), 200, "")
	w.want(do(t, h, "GET", "/", nil, bearer(g.Access.Token)), 400, "invalid_request")
	w.want(do(t, h, "GET", "/", nil, bearer(token)), 200, "")
	w.want(do(t, h, "GET", "/", nil, cookie(token)), 401, "token_invalid")
	if p, err := w.app.Verify(t.Context(), g.Access.Token); err != nil || p.ID != id {
		t.Errorf("Verify of a user's token: %+v, %v", p, err)
	}
	introspect := func(id, secret, token string) *response {
		return w.do("POST", "/auth/oauth2/introspect", form("token", token), asForm, basicAuth(id, secret))
	}
	if r := introspect(spy, spySecret, g.Access.Token); r.status != 200 || r.at("active") != true || r.at("sub") != id {
		t.Errorf("introspection with the scope: %d %s", r.status, r.raw)
	}
	// Without it a user's token is told from a forged one by nothing.
	a, b := introspect(client, secret, g.Access.Token), introspect(client, secret, g.Access.Token+"x")
	if a.status != 200 || a.raw != b.raw || a.at("active") != false {
		t.Errorf("introspection without: %d %s; a forged one %d %s", a.status, a.raw, b.status, b.raw)
	}
}

// A person of another issuer has no account here: no sessions, no keys.
func TestPeopleOfOtherIssuersHaveNoAccount(t *testing.T) {
	t.Parallel()
	c := newCorp(t)
	m := manifestOf(t, "shop", machines+`,"issuers":[{"name":"corp","issuer":"`+c.server.URL+`","audience":["shop"]}]`)
	w := newWorld(t, storetest.Database(t), m, func(o *engine.Options) { o.IssuerClient = c.server.Client() })
	person := bearer(c.signed(t, c.person()))
	w.want(do(t, w.app.RequireHuman().Handler(ok), "GET", "/", nil, person), 200, "")
	w.want(w.do("GET", "/auth/sessions", nil, person), 403, "forbidden")
	w.want(w.do("POST", "/auth/api-keys", obj("name", "x", "scopes", []string{"*"}), person), 403, "forbidden")
	w.want(w.do("GET", "/auth/me/activity", nil, person), 403, "forbidden")
	neither, unnamed := c.claims("sub", "thing"), c.person("sub", `a,b"c`)
	for _, claims := range []map[string]any{neither, unnamed} {
		w.want(do(t, w.app.RequireUser().Handler(ok), "GET", "/", nil, bearer(c.signed(t, claims))), 401, "token_invalid")
	}
}

// The owner of an account sees what operators did, not where they were.
func TestActivityHidesOperators(t *testing.T) {
	t.Parallel()
	w := setup(t, machines)
	id, token := w.newUser(email)
	rootID, root := w.newUser("root@example.com")
	if err := w.app.Authz().SetRoles(t.Context(), rootID, "admin"); err != nil {
		t.Fatal(err)
	}
	w.want(w.do("POST", "/auth/login", account, from("192.0.2.44:1"), header("User-Agent", "Owner/1")), 200, "")
	w.want(w.do("POST", "/auth/admin/users/"+id+"/roles", obj("role", "editor"), root, from("198.51.100.77:1"), header("User-Agent", "Operator/1")), 204, "")
	if err := w.app.Audit().Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := w.want(w.do("GET", "/auth/me/activity", nil, token), 200, "")
	for text, want := range map[string]bool{"role_granted": true, "198.51.100.77": false, "Operator/1": false, "192.0.2.44": true, "Owner/1": true} {
		if strings.Contains(r.raw, text) != want {
			t.Errorf("%q is shown: %t; %s", text, !want, r.raw)
		}
	}
}

// The hook takes scopes away, adds none, and cannot touch the client that others use.
func TestClientTokenHookAndScopes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, storetest.Database(t), manifestOf(t, "shop", machines), func(o *engine.Options) {
		o.ClientToken = func(_ context.Context, _ string, token *engine.ClientToken) error {
			switch token.Client.Name {
			case "less":
				token.Scopes = token.Scopes[:1]
			case "more":
				token.Scopes = append(token.Scopes, "added")
			}
			for i := range token.Client.Scopes {
				token.Client.Scopes[i] = "evil"
			}
			return nil
		}
	})
	ask := func(name string) (first, second *response) {
		id, secret := w.makeClient(name, "a", "b")
		fetch := func() *response {
			return w.do("POST", "/auth/oauth2/token", form("grant_type", "client_credentials"), asForm, basicAuth(id, secret))
		}
		return fetch(), fetch()
	}
	for name, want := range map[string]string{"same": "a b", "less": "a"} {
		first, second := ask(name)
		expect(t, first.text("scope"), want)
		expect(t, second.text("scope"), want)
		p, err := w.app.Verify(t.Context(), second.text("access_token"))
		if err != nil || strings.Join(p.Scopes, " ") != want {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
	if r, _ := ask("more"); r.status != 500 || r.text("access_token") != "" {
		t.Errorf("an added scope: %d %s", r.status, r.raw)
	}
}

// A client that was disabled is given no token by the direct API either, and one that
// lives is refused where everything is asked.
func TestDisabledClients(t *testing.T) {
	t.Parallel()
	for _, strict := range []bool{false, true} {
		auth := machines
		if strict {
			auth = strings.Replace(machines, `"issuer":"https://shop.example"`, `"issuer":"https://shop.example","revocation":{"mode":"strict"}`, 1)
		}
		w := setup(t, auth)
		id, _ := w.makeClient("worker")
		token, _, err := w.app.IssueClientToken(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		w.want(w.me(token), 200, "")
		if _, err := w.db.Collection("oauth_clients").UpdateByID(t.Context(), id, map[string]any{"$set": map[string]any{"status": "disabled"}}); err != nil {
			t.Fatal(err)
		}
		want, code := 200, "" // nothing says it to the others
		if strict {
			want, code = 401, "token_revoked"
		}
		w.want(w.me(token), want, code)
		if _, _, err := w.app.IssueClientToken(t.Context(), id); !errors.Is(err, oauth2.ErrInvalidClient) {
			t.Errorf("a token of a disabled client: %v", err)
		}
	}
}

// Two authenticators that both recognise a request, a page of another site, and those
// that a path rule does not name.
func TestManyAuthenticators(t *testing.T) {
	t.Parallel()
	known := func(name string) func(string) (engine.Authenticator, error) {
		return func(string) (engine.Authenticator, error) {
			return authenticator(func(r *http.Request) (*engine.Principal, error) {
				if r.Header.Get("X-"+name) == "" {
					return nil, nil
				}
				return &engine.Principal{ID: name + "|1", Kind: authz.KindService}, nil
			}), nil
		}
	}
	m := manifestOf(t, "shop", `"requirements":[{"path":"/a","methods_allowed":["a"]}]`)
	w := newWorld(t, storetest.Database(t), m, func(o *engine.Options) {
		o.Authenticators = map[string]engine.NewAuthenticator{"a": known("a"), "b": known("b")}
	})
	a, b, h := header("X-a", "1"), header("X-b", "1"), w.app.Protect(ok)
	w.want(do(t, h, "GET", "/x", nil, a), 200, "")
	w.want(do(t, h, "GET", "/x", nil, b), 200, "")
	w.want(do(t, h, "GET", "/x", nil, a, b), 400, "invalid_request")
	w.want(do(t, h, "GET", "/a", nil, b), 401, "unauthenticated")
	w.want(do(t, h, "GET", "/a", nil, a, b), 200, "") // b is not asked
	w.want(do(t, h, "POST", "/x", nil, a, header("Sec-Fetch-Site", "cross-site"), header("Origin", "https://evil.example")), 403, "csrf_failed")
}

// Names under which rules, or readers of a principal, could take one for another.
func TestNamesOfAuthenticators(t *testing.T) {
	t.Parallel()
	nobody := func(string) (engine.Authenticator, error) {
		return authenticator(func(*http.Request) (*engine.Principal, error) { return nil, nil }), nil
	}
	db := storetest.Database(t)
	for _, name := range []string{"", "A", "a b", "jwt", "session", "api_key", "client", "basic", "bearer", "cookie", "client_token", "client_secret"} {
		_, err := engine.New(t.Context(), db, &engine.Options{
			SecretKeys: []engine.Secret{engine.NewSecret(secretKey)}, Authenticators: map[string]engine.NewAuthenticator{name: nobody},
		})
		if !errors.Is(err, engine.ErrOptions) {
			t.Errorf("an authenticator called %q: %v", name, err)
		}
	}
	w := newWorld(t, db, manifestOf(t, "shop", ``), func(o *engine.Options) {
		o.Authenticators = map[string]engine.NewAuthenticator{"corp": nobody}
	})
	_, err := w.eng.Load(t.Context(), manifestOf(t, "blog", `"issuers":[{"name":"corp","issuer":"https://corp.example","audience":["x"]}]`))
	if !errors.Is(err, engine.ErrOptions) || !strings.Contains(err.Error(), `"corp"`) {
		t.Errorf("an issuer of the same name: %v", err)
	}
}

// Behind a proxy that nobody has configured nothing is internal, however it marks what
// it passes on.
func TestMarksOfProxies(t *testing.T) {
	t.Parallel()
	w := setup(t, ``)
	h := w.app.RequireInternal().Handler(ok)
	w.want(do(t, h, "GET", "/", nil, from("127.0.0.1:9")), 200, "")
	for _, name := range []string{"X-Forwarded-For", "Forwarded", "Via", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Cf-Connecting-Ip", "True-Client-Ip"} {
		w.want(do(t, h, "GET", "/", nil, from("127.0.0.1:9"), header(name, "203.0.113.5")), 403, "forbidden")
	}
}

// A sign-in by password for one request is a sign-in for those who watch.
func TestBasicIsASignIn(t *testing.T) {
	t.Parallel()
	w := setup(t, `"requirements":[{"path":"/x","methods_allowed":["basic"]}]`)
	id, _ := w.newUser(email)
	w.want(do(t, w.app.Protect(ok), "GET", "/x", nil, basicAuth(email, password)), 200, "")
	until(t, "the event", func() bool {
		for _, e := range w.events.All() {
			if e.Type == "login_succeeded" && e.Reason == "basic" && e.UserID == id {
				return true
			}
		}
		return false
	})
}

// A bearer API key beside one in its own header is two credentials.
func TestTwoKeys(t *testing.T) {
	t.Parallel()
	w := setup(t, machines)
	_, token := w.newUser(email)
	key, _ := w.makeKey(token, "*")
	h := w.app.RequireUser().Handler(ok)
	w.want(do(t, h, "GET", "/", nil, bearer(key)), 200, "")
	w.want(do(t, h, "GET", "/", nil, bearer(key), apiKey(key)), 400, "invalid_request")
}

// A scope of administration is given to a client by those who have it, when it is
// made and later.
func TestScopesOfClientsAreTheGivers(t *testing.T) {
	t.Parallel()
	w := setup(t, machines)
	clerkID, clerk := w.newUser("clerk@example.com")
	if err := w.app.Authz().AddRules(t.Context(), rule(clerkID, "mandate", "clients")); err != nil {
		t.Fatal(err)
	}
	id, _ := w.makeClient("worker", "read")
	change := func(scopes ...string) *response {
		return w.do("PATCH", "/auth/admin/clients/"+id, obj("scopes", scopes), clerk)
	}
	w.want(change("read", "mandate:introspect"), 403, "forbidden")
	w.want(change("read", "write"), 200, "")
	if err := w.app.Authz().AddRules(t.Context(), rule(clerkID, "mandate", "introspect")); err != nil {
		t.Fatal(err)
	}
	w.want(change("read", "mandate:introspect"), 200, "")
}

// A word of the service is a scope of the keys of those who have it.
func TestScopesOfKeysAreTheGivers(t *testing.T) {
	t.Parallel()
	var special atomic.Value
	w := newWorld(t, storetest.Database(t), manifestOf(t, "shop", machines), func(o *engine.Options) {
		o.Scopes = func(_ context.Context, _, userID string) ([]string, error) {
			if userID == special.Load() {
				return []string{"reports", "unlisted"}, nil
			}
			return nil, nil
		}
	})
	id, mine := w.newUser(email)
	_, other := w.newUser("bob@example.com")
	special.Store(id)
	create := func(as request, scope string) *response {
		return w.do("POST", "/auth/api-keys", obj("name", "x", "scopes", []string{scope}), as)
	}
	w.want(create(mine, "reports"), 201, "")
	w.want(create(mine, "unlisted"), 422, "invalid_field")
	w.want(create(other, "reports"), 422, "invalid_field")
}

// A rule that names credentials lets nobody in whom the app keeps out.
func TestNamedCredentialsAndEntry(t *testing.T) {
	t.Parallel()
	w := setup(t, `"users":{"allow_anonymous_users":true},"requirements":[{"path":"/x","methods_allowed":["jwt"]}]`)
	h := w.app.Protect(ok)
	id, token := w.newUser(email)
	w.want(do(t, h, "GET", "/x", nil, token), 200, "")
	guest := bearer(w.want(w.do("POST", "/auth/anonymous", nil), 200, "").text("access_token"))
	w.want(do(t, h, "GET", "/x", nil, guest), 403, "forbidden")
	denied := newWorld(t, storetest.Second(t, w.db, nil), manifestOf(t, "shop", `"policy":{"denied_users":["`+id+`"]},"requirements":[{"path":"/x","methods_allowed":["jwt"]}]`))
	w.want(do(t, denied.app.Protect(ok), "GET", "/x", nil, token), 403, "forbidden")
}
