package engine_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/apikey"
	"github.com/mandate-auth/mandate/tokens/oauth2"
)

const (
	// publicURL is the rest of a manifest whose app is an OAuth 2.0 server.
	publicURL = `"public_url":"https://shop.example"`
	// apiKeys and clients are auth parts that enable each.
	apiKeys = `"api_keys":{"enabled":true}`
	clients = `"clients":{"enabled":true}`
)

// withKeys is the auth part of an app with API keys and these keys of theirs.
func withKeys(rest string) string { return `"api_keys":{"enabled":true,` + rest + `}` }

// withClients is the auth part of an app with clients and these keys of theirs.
func withClients(rest string) string { return `"clients":{"enabled":true,` + rest + `}` }

// newKey makes an API key of the user.
func (w *world) newKey(userID string, scopes ...string) *apikey.Created {
	w.t.Helper()
	created, err := w.app.APIKeys().Create(w.t.Context(), apikey.NewKey{UserID: userID, Name: "ci", Scopes: scopes})
	if err != nil {
		w.t.Fatal(err)
	}
	return created
}

// newClient makes a client.
func (w *world) newClient(scopes ...string) *oauth2.Created {
	w.t.Helper()
	created, err := w.app.Clients().Create(w.t.Context(), oauth2.NewClient{Name: "worker", Scopes: scopes})
	if err != nil {
		w.t.Fatal(err)
	}
	return created
}

// asClient is the access token of a client.
func (w *world) asClient(id string) request {
	w.t.Helper()
	token, _, err := w.app.IssueClientToken(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return bearer(token)
}

// token asks the token endpoint for a client's access token.
func (w *world) token(id, secret string) *response {
	w.t.Helper()
	return w.do("POST", "/auth/oauth2/token", "grant_type=client_credentials", asForm, basicAuth(id, secret))
}

// clientNamed finds a client by its name.
func (w *world) clientNamed(name string) *oauth2.Client {
	w.t.Helper()
	page, err := w.app.Clients().List(w.t.Context(), oauth2.ListOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	for i := range page.Clients {
		if page.Clients[i].Name == name {
			return &page.Clients[i]
		}
	}
	return nil
}

// initialClient loads an app that has a client from the start.
func initialClient(t *testing.T, name, secret string, scopes string) *world {
	t.Helper()
	return setup(t, withClients(`"initial":[{"name":"`+name+`","secret":"`+secret+`","scopes":[`+scopes+`]}]`), publicURL)
}

// jwks asks for the keys that verify the app's tokens.
func (w *world) jwks() *response {
	w.t.Helper()
	return do(w.t, w.app.WellKnown(), "GET", "/.well-known/jwks.json", nil)
}

// algorithmOf is how a token says that it is signed.
func algorithmOf(t *testing.T, token string) string {
	t.Helper()
	var h struct {
		Algorithm string `json:"alg"`
	}
	text, _, _ := strings.Cut(token, ".")
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(raw, &h)
	}
	if err != nil {
		t.Fatal(err)
	}
	return h.Algorithm
}

// signingKeys loads the app on another instance, whose clock is so far ahead, and
// returns how many keys it knows then.
func signingKeys(t *testing.T, tokensPart string, ahead time.Duration) int {
	t.Helper()
	m := manifestOf(t, "shop", `"tokens":{"algorithm":"EdDSA"`+tokensPart+`}`)
	first := newWorld(t, storetest.Database(t), m)
	later := newWorld(t, first.db, m, func(o *engine.Options) { o.Now = func() time.Time { return time.Now().Add(ahead) } })
	list, err := later.app.Keys().List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

var initialSecret = strings.Repeat("canary-of-a-client-", 2)

// machineKeyTests are those of keyTests about machines and what they sign in with.
var machineKeyTests = map[string]func(t *testing.T){
	"/auth/tokens/algorithm": func(t *testing.T) {
		for _, algorithm := range []string{tokens.HS256, tokens.EdDSA, tokens.ES256, tokens.RS256} {
			w := setup(t, `"tokens":{"algorithm":"`+algorithm+`"}`)
			token := w.register().text("access_token")
			u, err := tokens.Inspect(token)
			if err != nil {
				t.Fatal(err)
			}
			expect(t, algorithmOf(t, token), algorithm)
			expect(t, w.me(token).status, 200)
			published := w.jwks()
			if algorithm == tokens.HS256 {
				expect(t, published.status, 404)
				continue
			}
			keys, _ := published.body["keys"].([]any)
			if len(keys) != 1 || keys[0].(map[string]any)["alg"] != algorithm || keys[0].(map[string]any)["kid"] != u.KeyID {
				t.Errorf("%s: the keys are %s, that of the token is %s", algorithm, published.raw, u.KeyID)
			}
		}
		refused(t, `"tokens":{"algorithm":"none"}`)
	},
	"/auth/tokens/key_rotation": func(t *testing.T) {
		expect(t, signingKeys(t, ``, 25*time.Hour), 1)
		expect(t, signingKeys(t, `,"key_rotation":"1d"`, 25*time.Hour), 2)
		expect(t, signingKeys(t, ``, 91*24*time.Hour), 2)
		expect(t, signingKeys(t, `,"key_rotation":0`, 91*24*time.Hour), 1)
	},
	"/auth/api_keys/enabled": func(t *testing.T) {
		for auth, want := range map[string]int{``: 404, apiKeys: 200} {
			w := setup(t, auth)
			_, token := w.newUser(email)
			expect(t, w.do("GET", "/auth/api-keys", nil, token).status, want)
			expect(t, w.app.APIKeys() != nil, want == 200)
		}
	},
	"/auth/api_keys/prefix": func(t *testing.T) {
		db := storetest.Database(t)
		w := newWorld(t, db, manifestOf(t, "shop", withKeys(`"prefix":"acme"`)))
		id, _ := w.newUser(email)
		key := bearer(w.newKey(id).Key)
		if text := w.newKey(id).Key; !strings.HasPrefix(text, "acme_") {
			t.Error("a key does not begin with the prefix")
		}
		expect(t, w.through(w.app.RequireUser(), key).status, 200)
		usual := newWorld(t, db, manifestOf(t, "shop", apiKeys))
		expect(t, strings.HasPrefix(usual.newKey(id).Key, "mdk_"), true)
		expect(t, usual.through(usual.app.RequireUser(), key).status, 401)
	},
	"/auth/api_keys/max_per_user": func(t *testing.T) {
		for auth, code := range map[string]string{apiKeys: "", withKeys(`"max_per_user":1`): "api_key_limit"} {
			w := setup(t, auth)
			_, token := w.newUser(email)
			w.want(w.do("POST", "/auth/api-keys", obj("name", "one"), token), 201, "")
			expect(t, w.do("POST", "/auth/api-keys", obj("name", "two"), token).code(), code)
		}
	},
	"/auth/api_keys/default_ttl": func(t *testing.T) {
		for ttl, want := range map[string]int{`"1h"`: 401, `"3h"`: 200, `0`: 200} {
			w := setup(t, withKeys(`"default_ttl":`+ttl))
			id, _ := w.newUser(email)
			key := bearer(w.newKey(id).Key)
			expect(t, w.through(w.app.RequireUser(), key).status, 200)
			w.move(61 * time.Minute)
			expect(t, w.through(w.app.RequireUser(), key).status, want)
		}
	},
	"/auth/api_keys/scopes": func(t *testing.T) {
		for auth, want := range map[string][2]int{apiKeys: {422, 201}, withKeys(`"scopes":["reports"]`): {201, 422}} {
			w := setup(t, auth)
			id, token := w.newUser(email)
			if err := w.app.Authz().AddRules(t.Context(), rule(id, "documents", "read")); err != nil {
				t.Fatal(err)
			}
			for i, scope := range []string{"reports", "documents:read"} {
				expect(t, w.do("POST", "/auth/api-keys", obj("name", "ci", "scopes", []string{scope}), token).status, want[i])
			}
		}
	},
	"/auth/clients/enabled": func(t *testing.T) {
		w := setup(t, clients, publicURL)
		c := w.newClient()
		r := w.token(c.ID, c.Secret)
		expect(t, r.status, 200)
		expect(t, w.through(w.app.RequireMachine(), bearer(r.text("access_token"))).status, 200)
		usual := setup(t, ``, publicURL)
		expect(t, usual.token(c.ID, c.Secret).status, 404)
		expect(t, usual.app.Clients() == nil, true)
		refused(t, clients) // without a URL as issuer
	},
	"/auth/clients/scopes": func(t *testing.T) {
		for auth, want := range map[string]bool{clients: true, withClients(`"scopes":["read"]`): false} {
			w := setup(t, auth, publicURL)
			_, err := w.app.Clients().Create(t.Context(), oauth2.NewClient{Name: "other", Scopes: []string{"write"}})
			expect(t, err == nil, want)
			w.newClient("read")
		}
	},
	"/auth/clients/token_ttl": func(t *testing.T) {
		for auth, want := range map[string]float64{clients: 900, withClients(`"token_ttl":"2m"`): 120} {
			w := setup(t, auth, publicURL)
			c := w.newClient()
			r := w.token(c.ID, c.Secret)
			expect(t, r.body["expires_in"], any(want))
			w.move(3 * time.Minute)
			expect(t, w.through(w.app.RequireUser(), bearer(r.text("access_token"))).status == 200, want == 900)
		}
	},
	"/auth/clients/initial/name": func(t *testing.T) {
		w := initialClient(t, "billing", initialSecret, ``)
		expect(t, w.clientNamed("billing") != nil, true)
		expect(t, w.clientNamed("mailing") == nil, true)
		usual := setup(t, clients, publicURL)
		expect(t, usual.clientNamed("billing") == nil, true)
	},
	"/auth/clients/initial/secret": func(t *testing.T) {
		w := initialClient(t, "billing", initialSecret, ``)
		id := w.clientNamed("billing").ID
		expect(t, w.token(id, initialSecret).status, 200)
		expect(t, w.token(id, strings.Repeat("x", 32)).status, 401)
		if strings.Contains(w.logs.String(), initialSecret) {
			t.Error("the secret is in the log")
		}
		for _, s := range w.app.Manifest().Effective() {
			if text, err := json.Marshal(s); err != nil || strings.Contains(string(text), initialSecret) {
				t.Errorf("the secret is shown: %v", err)
			}
		}
	},
	"/auth/clients/initial/scopes": func(t *testing.T) {
		for scopes, want := range map[string]string{`"read","write"`: "read write", ``: ""} {
			w := initialClient(t, "billing", initialSecret, scopes)
			expect(t, w.token(w.clientNamed("billing").ID, initialSecret).text("scope"), want)
		}
	},
	"/auth/clients/initial/id": func(t *testing.T) {
		id := store.NewID("cli_")
		w := setup(t, withClients(`"initial":[{"id":"`+id+`","name":"billing","secret":"`+initialSecret+`"}]`), publicURL)
		expect(t, w.token(id, initialSecret).status, 200)
		usual := initialClient(t, "billing", initialSecret, ``)
		expect(t, usual.token(id, initialSecret).status, 401)
	},
	"/auth/clients/initial/roles": func(t *testing.T) {
		for roles, want := range map[string]int{`"admin"`: 200, ``: 403} {
			w := setup(t, withClients(`"initial":[{"name":"billing","secret":"`+initialSecret+`","roles":[`+roles+`]}]`), publicURL)
			machine := w.asClient(w.clientNamed("billing").ID)
			expect(t, w.through(w.app.RequireUser(), machine).status, 200)
			expect(t, w.through(w.app.RequireAdmin(), machine).status, want)
		}
		refused(t, withClients(`"initial":[{"name":"billing","secret":"`+initialSecret+`","roles":["nothing"]}]`), publicURL)
	},
	"/auth/requirements/human_only":      humanOnly,
	"/auth/requirements/machine_only":    machineOnly,
	"/auth/requirements/methods_allowed": methodsAllowed,
	"/auth/requirements/rate_limit": func(t *testing.T) {
		w := setup(t, rules(`{"path":"/x","rate_limit":"heavy","optional":true},{"path":"/y","optional":true}`)+`,"rate_limits":{"heavy":{"max":1,"window":"1h"}}`)
		first := w.want(w.ask("GET", "/x"), 200, "")
		expect(t, first.header.Get("X-Ratelimit-Limit"), "1")
		w.want(w.ask("GET", "/x"), 429, "rate_limited")
		expect(t, w.ask("GET", "/x", from("198.51.100.9:1")).status, 200)
		for range 3 {
			expect(t, w.ask("GET", "/y").status, 200)
		}
		refused(t, rules(`{"path":"/x","rate_limit":"missing"}`))
	},
}

func humanOnly(t *testing.T) {
	w := setup(t, rules(`{"path":"/x","human_only":true},{"path":"/y"}`, clients), publicURL)
	_, person := w.newUser(email)
	machine := w.asClient(w.newClient().ID)
	expect(t, w.ask("GET", "/x", person).status, 200)
	w.want(w.ask("GET", "/x", machine), 403, "human_required")
	expect(t, w.ask("GET", "/y", machine).status, 200)
	e, err := w.app.ExplainPath("GET", "/x")
	expect(t, err == nil && strings.Contains(e.String(), "a person"), true)
}

func machineOnly(t *testing.T) {
	w := setup(t, rules(`{"path":"/x","machine_only":true},{"path":"/y"}`, clients, apiKeys), publicURL)
	id, person := w.newUser(email)
	w.want(w.ask("GET", "/x", person), 403, "machine_required")
	expect(t, w.ask("GET", "/y", person).status, 200)
	expect(t, w.ask("GET", "/x", w.asClient(w.newClient().ID)).status, 200)
	expect(t, w.ask("GET", "/x", bearer(w.newKey(id).Key)).status, 200)
	refused(t, rules(`{"path":"/x","machine_only":true,"human_only":true}`))
}

// stamped recognises requests by a header of their own.
type stamped struct{}

func (stamped) Authenticate(r *http.Request) (*engine.Principal, error) {
	if r.Header.Get("X-Stamp") == "" {
		return nil, nil //nolint:nilnil // not its credential
	}
	return &engine.Principal{ID: "stamp|1", Kind: authz.KindService}, nil
}

// withStamps registers an authenticator.
func withStamps(o *engine.Options) {
	o.Authenticators = map[string]engine.NewAuthenticator{"stamp": func(string) (engine.Authenticator, error) { return stamped{}, nil }}
}

// methodsAllowed presents every credential to a path for each method.
func methodsAllowed(t *testing.T) {
	requirementKeyTests["/auth/requirements/methods_allowed"](t)
	var list []string
	methods := []string{"jwt", "session", "api_key", "client", "basic", "stamp"}
	for _, m := range methods {
		list = append(list, `{"path":"/`+m+`","methods_allowed":["`+m+`"]}`)
	}
	part := rules(strings.Join(list, ","), clients, apiKeys)
	w := newWorld(t, storetest.Database(t), manifestOf(t, "shop", part, publicURL), withStamps)
	token := w.register()
	id, _ := token.at("user", "id").(string)
	c := w.newClient()
	for name, credential := range map[string]struct {
		edit request
		ok   string
	}{
		"a user's token":    {bearer(token.text("access_token")), "jwt"},
		"a cookie":          {w.cookied(), "session"},
		"an API key":        {header("X-API-Key", w.newKey(id).Key), "api_key"},
		"an API key bearer": {bearer(w.newKey(id).Key), "api_key"},
		"a client's token":  {w.asClient(c.ID), "client"},
		"a client's secret": {basicAuth(c.ID, c.Secret), "client basic"},
		"a password":        {func(r *http.Request) { r.SetBasicAuth(email, password) }, "basic"},
		"a stamp":           {header("X-Stamp", "1"), "stamp"},
	} {
		for _, m := range methods {
			want := 401
			for _, ok := range strings.Fields(credential.ok) {
				if ok == m {
					want = 200
				}
			}
			if r := w.ask("GET", "/"+m, credential.edit); r.status != want {
				t.Errorf("%s where %s counts: got %d %s, want %d", name, m, r.status, r.raw, want)
			}
		}
	}
	if _, err := setup(t, ``).eng.Load(t.Context(), manifestOf(t, "other", part, publicURL)); err == nil || !strings.Contains(err.Error(), `"stamp"`) {
		t.Errorf("an authenticator that nobody has registered: %v", err)
	}
}
