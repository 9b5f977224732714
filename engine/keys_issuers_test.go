package engine_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/internal/store/storetest"
)

// corp is another issuer, on this machine. Its keys are found by discovery; /second
// publishes another key, which discovery does not know.
type corp struct {
	server        *httptest.Server
	first, second ed25519.PrivateKey
}

func newCorp(t *testing.T) *corp {
	t.Helper()
	c := &corp{}
	mux := http.NewServeMux()
	publish := func(path, kid string) ed25519.PrivateKey {
		public, private, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		set := obj("keys", []any{obj("kty", "OKP", "crv", "Ed25519", "alg", "EdDSA", "use", "sig", "kid", kid, "x", base64.RawURLEncoding.EncodeToString(public))})
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(set) })
		return private
	}
	c.first, c.second = publish("/first", "first"), publish("/second", "second")
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(obj("issuer", c.server.URL, "jwks_uri", c.server.URL+"/first"))
	})
	c.server = httptest.NewServer(mux)
	t.Cleanup(c.server.Close)
	return c
}

// signed is a token of the issuer.
func (c *corp) signed(t *testing.T, claims map[string]any, edit ...func(*jwt.Token)) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims(claims))
	token.Header["kid"], token.Header["typ"] = "first", "at+jwt"
	for _, f := range edit {
		f(token)
	}
	key := c.first
	if token.Header["kid"] == "second" {
		key = c.second
	}
	text, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// claims are what every token of the issuer says.
func (c *corp) claims(more ...any) map[string]any {
	now := time.Now().Unix()
	return with(obj("iss", c.server.URL, "aud", "shop", "iat", now, "exp", now+3600, "token_use", "access"), more...)
}

// person and machine are the claims of each.
func (c *corp) person(more ...any) map[string]any {
	return with(c.claims("sub", "ada", "username", "ada", "email", "ada@corp.example"), more...)
}

func (c *corp) machine(more ...any) map[string]any {
	return with(c.claims("sub", "robot", "client_id", "robots", "scope", "read"), more...)
}

// at loads an app that takes the tokens of the issuer, whose entry is changed.
func (c *corp) at(t *testing.T, changes ...any) *world {
	t.Helper()
	entry, err := json.Marshal(with(obj("name", "corp", "issuer", c.server.URL, "audience", []string{"shop"}), changes...))
	if err != nil {
		t.Fatal(err)
	}
	m := manifestOf(t, "shop", `"issuers":[`+string(entry)+`]`)
	return newWorld(t, storetest.Database(t), m, func(o *engine.Options) { o.IssuerClient = c.server.Client() })
}

// verified is who presents the token, nil when it is refused.
func (w *world) verified(token string) *engine.Principal {
	w.t.Helper()
	guarded := w.through(w.app.RequireUser(), bearer(token)).status
	p, err := w.app.Verify(w.t.Context(), token)
	expect(w.t, err == nil, guarded == 200)
	return p
}

// kindOf is the kind of who presents the token, "" when it is refused.
func (w *world) kindOf(token string) authz.Kind {
	w.t.Helper()
	if p := w.verified(token); p != nil {
		return p.Kind
	}
	return ""
}

// issuerKey presents a token to an app with the default, and to one whose entry is
// changed: one of them accepts it.
func issuerKey(usually bool, change func(c *corp) []any, claims func(c *corp) map[string]any, edit ...func(*jwt.Token)) func(*testing.T) {
	return func(t *testing.T) {
		c := newCorp(t)
		token := c.signed(t, claims(c), edit...)
		expect(t, c.at(t).verified(token) != nil, usually)
		expect(t, c.at(t, change(c)...).verified(token) != nil, !usually)
	}
}

// mappingKey presents a token to an app with the default mapping, and to one with
// another.
func mappingKey(mapping map[string]any, usually, then authz.Kind, claims func(c *corp) map[string]any) func(*testing.T) {
	return func(t *testing.T) {
		c := newCorp(t)
		token := c.signed(t, claims(c))
		expect(t, c.at(t).kindOf(token), usually)
		expect(t, c.at(t, "m2m", mapping).kindOf(token), then)
	}
}

func machineWith(more ...any) func(*corp) map[string]any {
	return func(c *corp) map[string]any { return c.machine(more...) }
}

func machineWithout(name string, more ...any) func(*corp) map[string]any {
	return func(c *corp) map[string]any {
		claims := c.machine(more...)
		delete(claims, name)
		return claims
	}
}

func changing(pairs ...any) func(*corp) []any { return func(*corp) []any { return pairs } }

// says is the mapping of an issuer whose machines say outright what they are.
func says(values ...string) map[string]any {
	return obj("machine_claim", "gty", "machine_values", values)
}

// issuerKeyTests are those of keyTests about other issuers.
var issuerKeyTests = map[string]func(t *testing.T){
	"/auth/issuers/name": func(t *testing.T) {
		c := newCorp(t)
		token := c.signed(t, c.person())
		expect(t, c.at(t).verified(token).ID, "corp|ada")
		expect(t, c.at(t, "name", "partner").verified(token).ID, "partner|ada")
	},
	"/auth/issuers/issuer": func(t *testing.T) {
		c := newCorp(t)
		other := c.server.URL + "/tenant"
		elsewhere := c.signed(t, c.person("iss", other))
		expect(t, c.at(t).verified(elsewhere) == nil, true)
		expect(t, c.at(t, "issuer", other, "jwks_uri", c.server.URL+"/first").verified(elsewhere) != nil, true)
		refused(t, `"issuers":[{"name":"corp","issuer":"http://corp.example","audience":["shop"]}]`)
	},
	"/auth/issuers/audience": issuerKey(false, changing("audience", []string{"blog"}), func(c *corp) map[string]any { return c.person("aud", "blog") }),
	"/auth/issuers/audience_claim": issuerKey(false, changing("audience_claim", "client_id", "audience", []string{"robots"}),
		machineWithout("aud")),
	"/auth/issuers/algorithms":  issuerKey(true, changing("algorithms", []string{"RS256", "ES256"}), (*corp).plain),
	"/auth/issuers/token_types": issuerKey(true, changing("token_types", []string{"at+jwt"}), (*corp).plain, func(t *jwt.Token) { t.Header["typ"] = "JWT" }),
	"/auth/issuers/jwks_uri": issuerKey(false, func(c *corp) []any { return []any{"jwks_uri", c.server.URL + "/second"} }, (*corp).plain,
		func(t *jwt.Token) { t.Header["kid"] = "second" }),
	"/auth/issuers/m2m/username_claims":  mappingKey(obj("username_claims", []string{"login"}), authz.KindService, authz.KindHuman, machineWith("login", "ada")),
	"/auth/issuers/m2m/user_claims":      mappingKey(obj("user_claims", []string{"department"}), authz.KindService, authz.KindHuman, machineWith("department", "sales")),
	"/auth/issuers/m2m/token_use_claim":  mappingKey(obj("token_use_claim", "use"), "", authz.KindService, machineWithout("token_use", "use", "access")),
	"/auth/issuers/m2m/token_use_values": mappingKey(obj("token_use_values", []string{"client"}), "", authz.KindService, machineWith("token_use", "client")),
	"/auth/issuers/m2m/client_id_claims": mappingKey(obj("client_id_claims", []string{"azp"}), "", authz.KindService, machineWithout("client_id", "azp", "robots")),
	"/auth/issuers/m2m/scope_claims": func(t *testing.T) {
		c := newCorp(t)
		token := c.signed(t, c.machine("permissions", []string{"write", "delete"}))
		expect(t, strings.Join(c.at(t).verified(token).Scopes, " "), "read")
		expect(t, strings.Join(c.at(t, "m2m", obj("scope_claims", []string{"permissions"})).verified(token).Scopes, " "), "write delete")
	},
	"/auth/issuers/m2m/machine_claim": func(t *testing.T) {
		mappingKey(says("client-credentials"), authz.KindService, "", machineWith())(t)
		mappingKey(says("client-credentials"), authz.KindService, authz.KindService, machineWith("gty", "client-credentials"))(t)
	},
	"/auth/issuers/m2m/machine_values": func(t *testing.T) {
		mappingKey(says("client-credentials"), authz.KindService, "", machineWith("gty", "app"))(t)
		mappingKey(says("client-credentials", "app"), authz.KindService, authz.KindService, machineWith("gty", "app"))(t)
	},
	"/auth/issuers/m2m/subject_is_client": mappingKey(obj("subject_is_client", true), authz.KindService, "", machineWith()),
}

// plain are the claims of a person.
func (c *corp) plain() map[string]any { return maps.Clone(c.person()) }
