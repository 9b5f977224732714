package engine_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/internal/store/storetest"
)

func signedWith(algorithm string) string {
	return `"tokens":{"algorithm":"` + algorithm + `","issuer":"https://shop.example"},"clients":{"enabled":true}`
}

// published returns the keys that the app publishes, by their kid.
func published(t *testing.T, app *engine.App) map[string]jose.JSONWebKey {
	t.Helper()
	r := do(t, app.WellKnown(), "GET", "/.well-known/jwks.json", nil)
	if r.status != 200 || strings.Contains(r.raw, `"d":`) {
		t.Fatalf("the published keys: %d %s", r.status, r.raw)
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal([]byte(r.raw), &set); err != nil {
		t.Fatal(err)
	}
	out := map[string]jose.JSONWebKey{}
	for _, k := range set.Keys {
		out[k.KeyID] = k
	}
	return out
}

// outsider verifies a token as somebody does who has the published keys alone, and
// returns its kid.
func (w *world) outsider(text string) (kid string, err error) {
	keys := published(w.t, w.app)
	token, err := jwt.NewParser(jwt.WithTimeFunc(w.clock.Now), jwt.WithIssuer("https://shop.example"), jwt.WithAudience("shop")).Parse(text,
		func(token *jwt.Token) (any, error) {
			kid, _ = token.Header["kid"].(string)
			k, known := keys[kid]
			if !known || k.Algorithm != token.Method.Alg() {
				return nil, errors.New("no such key")
			}
			return k.Key, nil
		})
	if err == nil && !token.Valid {
		err = errors.New("not valid")
	}
	return kid, err
}

// Whoever has the published keys verifies the tokens of the app, users' and
// clients', and so does another instance.
func TestAsymmetricTokens(t *testing.T) {
	t.Parallel()
	for _, algorithm := range []string{"EdDSA", "ES256", "RS256"} {
		t.Run(algorithm, func(t *testing.T) {
			t.Parallel()
			w := setup(t, signedWith(algorithm))
			second := newWorld(t, storetest.Second(t, w.db, nil), manifestOf(t, "shop", signedWith(algorithm)))
			user := w.register().text("access_token")
			id, secret := w.makeClient("worker", "read")
			for _, text := range []string{user, w.clientToken(id, secret)} {
				if _, err := w.outsider(text); err != nil {
					t.Errorf("an outsider: %v", err)
				}
				second.want(second.me(text), 200, "")
			}
			// The same claims under the public key as a MAC's, or under no key.
			for _, forged := range []jwt.SigningMethod{jwt.SigningMethodHS256, jwt.SigningMethodNone} {
				claims := jwt.MapClaims{}
				token, _, err := jwt.NewParser().ParseUnverified(user, claims)
				if err != nil {
					t.Fatal(err)
				}
				token.Method = forged
				token.Header["alg"] = forged.Alg()
				var key any = []byte("public key")
				if forged == jwt.SigningMethodNone {
					key = jwt.UnsafeAllowNoneSignatureType
				}
				text, err := token.SignedString(key)
				if err != nil {
					t.Fatal(err)
				}
				w.want(w.me(text), 401, "token_invalid")
			}
		})
	}
}

// A key is published before it signs, signs while it is current, and is published
// until its last token is over.
func TestKeyRotation(t *testing.T) {
	t.Parallel()
	w := setup(t, signedWith("EdDSA"))
	second := newWorld(t, storetest.Second(t, w.db, nil), manifestOf(t, "shop", signedWith("EdDSA")))
	old := w.register().text("access_token")
	oldKid, err := w.outsider(old)
	if err != nil {
		t.Fatal(err)
	}
	next, err := w.app.Keys().Rotate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, early := published(t, w.app)[next.ID]; !early {
		t.Error("the next key is not published before it signs")
	}
	if kid, err := w.outsider(w.login().text("access_token")); err != nil || kid != oldKid {
		t.Errorf("before its time: kid %s, %v", kid, err)
	}
	until(t, "the second engine knows the next key", func() bool { _, known := published(t, second.app)[next.ID]; return known })
	for _, instance := range []*world{w, second} {
		instance.move(11 * time.Minute)
	}
	w.engineUpkeep()
	fresh := w.login().text("access_token")
	if kid, err := w.outsider(fresh); err != nil || kid != next.ID {
		t.Errorf("at its time: kid %s, want %s, %v", kid, next.ID, err)
	}
	w.want(w.me(old), 200, "")
	second.want(second.me(fresh), 200, "")
	second.want(second.me(old), 200, "")
	list, err := w.app.Keys().List(t.Context())
	if err != nil || len(list) != 2 {
		t.Errorf("keys: %+v, %v", list, err)
	}
}

// engineUpkeep does what the engine does once a minute.
func (w *world) engineUpkeep() {
	w.t.Helper()
	w.app.Upkeep(w.t.Context())
}

// A key that somebody else has is refused at once here, and elsewhere without
// anybody asking for it.
func TestRevokedKey(t *testing.T) {
	t.Parallel()
	w := setup(t, signedWith("ES256"))
	second := newWorld(t, storetest.Second(t, w.db, nil), manifestOf(t, "shop", signedWith("ES256")))
	token := w.register().text("access_token")
	kid, err := w.outsider(token)
	if err != nil {
		t.Fatal(err)
	}
	second.want(second.me(token), 200, "")
	if err := w.app.Keys().Revoke(t.Context(), kid); err != nil {
		t.Fatal(err)
	}
	w.want(w.me(token), 401, "token_invalid")
	if _, still := published(t, w.app)[kid]; still {
		t.Error("the key is still published")
	}
	until(t, "the second engine refuses the key's tokens", func() bool { return second.me(token).status == 401 })
	w.want(w.me(w.login().text("access_token")), 200, "")
}

// Ending all tokens ends those of every kind, on every instance, and nothing else.
func TestEndAllTokens(t *testing.T) {
	t.Parallel()
	for _, algorithm := range []string{"HS256", "EdDSA"} {
		t.Run(algorithm, func(t *testing.T) {
			t.Parallel()
			w := setup(t, signedWith(algorithm)+`,"api_keys":{"enabled":true}`)
			second := newWorld(t, storetest.Second(t, w.db, nil), manifestOf(t, "shop", signedWith(algorithm)+`,"api_keys":{"enabled":true}`))
			in := w.register()
			id, secret := w.makeClient("worker")
			machine := w.clientToken(id, secret)
			key, _ := w.makeKey(bearer(in.text("access_token")))
			if err := w.app.Keys().EndAllTokens(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.want(w.me(in.text("access_token")), 401, "token_invalid")
			w.want(w.me(machine), 401, "token_invalid")
			w.want(w.do("POST", "/auth/refresh", obj("refresh_token", in.text("refresh_token"))), 401, "token_invalid")
			until(t, "the second engine follows", func() bool { return second.me(in.text("access_token")).code() == "token_invalid" })
			second.want(second.do("POST", "/auth/refresh", obj("refresh_token", in.text("refresh_token"))), 401, "token_invalid")
			fresh := w.login().text("access_token")
			w.want(w.me(fresh), 200, "")
			until(t, "the second engine has the new keys", func() bool { return second.me(fresh).status == 200 })
			w.want(w.do("GET", "/auth/me", nil, apiKey(key)), 200, "")
			w.clientToken(id, secret)
		})
	}
}

// With HS256 there is nothing to rotate and nothing to publish.
func TestSymmetricKeysAreNotManaged(t *testing.T) {
	t.Parallel()
	w := setup(t, ``)
	for name, call := range map[string]func() error{
		"Rotate":    func() error { _, err := w.app.Keys().Rotate(t.Context()); return err },
		"RotateNow": func() error { _, err := w.app.Keys().RotateNow(t.Context()); return err },
		"List":      func() error { _, err := w.app.Keys().List(t.Context()); return err },
		"Revoke":    func() error { return w.app.Keys().Revoke(t.Context(), "x") },
	} {
		if err := call(); !errors.Is(err, engine.ErrSymmetric) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, path := range []string{"jwks.json", "oauth-authorization-server", "openid-configuration", ""} {
		w.want(do(t, w.app.WellKnown(), "GET", "/.well-known/"+path, nil), 404, "not_found")
	}
	w.want(do(t, w.app.WellKnown(), "POST", "/.well-known/jwks.json", nil), 405, "method_not_allowed")
}

// One app takes the tokens that another one publishes the keys of: people and
// machines apart, and neither as anybody of its own.
func TestTokensOfAnotherIssuer(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	defer server.Close()
	idp := setup(t, `"tokens":{"algorithm":"ES256","issuer":"`+server.URL+`","audience":"shop"},"clients":{"enabled":true}`)
	mux.Handle("/.well-known/", idp.app.WellKnown())
	shop := setup(t, `"tokens":{"issuer":"https://shop.example"},"clients":{"enabled":true},
		"issuers":[{"name":"idp","issuer":"`+server.URL+`","audience":["shop"],"token_types":["at+jwt"],
			"m2m":{"username_claims":["sid"],"user_claims":["auth_time"],"token_use_values":[],"subject_is_client":true}}],
		"requirements":[{"path":"/people","methods_allowed":["jwt"]},{"path":"/machines","methods_allowed":["client"]}]`)
	id, secret := idp.makeClient("worker", "read")
	machine := idp.clientToken(id, secret)
	if r := shop.me(machine); r.status != 200 || r.at("principal", "id") != "idp|"+id || r.at("principal", "kind") != "service" || r.at("principal", "issuer") != "idp" {
		t.Errorf("its machine: %d %s", r.status, r.raw)
	}
	h := shop.app.Protect(ok)
	for path, want := range map[string]int{"/machines": 200, "/people": 401, "/other": 200} {
		if r := do(t, h, "GET", path, nil, bearer(machine)); r.status != want {
			t.Errorf("%s: %d %s", path, r.status, r.raw)
		}
	}
	if r := do(t, shop.app.RequireScope("read").Handler(ok), "GET", "/", nil, bearer(machine)); r.status != 200 {
		t.Errorf("its scope: %d %s", r.status, r.raw)
	}
	// Rules may name it; nothing that is ours is it.
	if err := shop.app.Authz().AddRules(t.Context(), rule("idp|"+id, "documents", "read")); err != nil {
		t.Fatal(err)
	}
	if r := do(t, shop.app.RequirePermission("documents", "read").Handler(ok), "GET", "/", nil, bearer(machine)); r.status != 200 {
		t.Errorf("its rule: %d %s", r.status, r.raw)
	}
	if err := shop.app.Authz().AddRules(t.Context(), rule("other|"+id, "documents", "read")); err == nil {
		t.Error("a rule names an issuer that is not there")
	}
	shop.want(shop.do("GET", "/auth/sessions", nil, bearer(machine)), 403, "human_required")
	// A tampered one, and one by nobody.
	shop.want(shop.me(machine[:len(machine)-6]+"AAAAAA"), 401, "token_invalid")
	other := setup(t, `"tokens":{"algorithm":"ES256","issuer":"https://evil.example","audience":"shop"},"clients":{"enabled":true}`)
	evilID, evilSecret := other.makeClient("worker")
	shop.want(shop.me(other.clientToken(evilID, evilSecret)), 401, "token_invalid")
	// Its keys cannot be had: nobody knows, so nobody is let in, and not for long.
	server.Close()
	lonely := setup(t, `"issuers":[{"name":"idp","issuer":"`+server.URL+`","audience":["shop"]}]`)
	lonely.want(lonely.me(machine), 503, "unavailable")
	if !slices.Contains(lonely.app.Routes(), "GET /auth/me") {
		t.Error("an issuer that is away stopped the app")
	}
}
