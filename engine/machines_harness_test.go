package engine_test

import (
	"encoding/base64"
	"net/http"
	"net/url"

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
