package provider_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"go.uber.org/goleak"
	"golang.org/x/oauth2"

	"github.com/mandate-auth/mandate/examples/social/provider"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is a provider on loopback, and a client of it that is not from here.
type fixture struct {
	server  *httptest.Server
	browser *http.Client
	config  oauth2.Config
	ctx     context.Context
	ahead   atomic.Int64 // how far the provider's clock is ahead
}

func setup(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{}
	var handler http.Handler
	f.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	t.Cleanup(f.server.Close)
	p, err := provider.New(provider.Config{
		Issuer: f.server.URL, ClientID: "shop", ClientSecret: "s3cret", RedirectURI: "http://shop.example/callback",
		Now: func() time.Time { return time.Now().Add(time.Duration(f.ahead.Load())) },
	})
	if err != nil {
		t.Fatal(err)
	}
	handler = p
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	f.browser = f.server.Client()
	f.browser.Jar = jar
	f.browser.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
		if r.URL.Host == "shop.example" {
			return http.ErrUseLastResponse
		}
		return nil
	}
	f.config = oauth2.Config{
		ClientID: "shop", ClientSecret: "s3cret", RedirectURL: "http://shop.example/callback", Scopes: []string{"openid", "email", "profile"},
		Endpoint: oauth2.Endpoint{AuthURL: f.server.URL + "/authorize", TokenURL: f.server.URL + "/oauth/token"},
	}
	f.ctx = context.WithValue(t.Context(), oauth2.HTTPClient, f.server.Client())
	return f
}

// do makes a request and returns the answer and its body.
func (f *fixture) do(t *testing.T, method, target string, form url.Values) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := f.browser.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(raw)
}

var hidden = regexp.MustCompile(`name="id" value="([^"]+)"`)

// begin asks for authorization, and returns the id of the request that the page has.
func (f *fixture) begin(t *testing.T, verifier string) string {
	t.Helper()
	res, page := f.do(t, "GET", f.config.AuthCodeURL("the state", oauth2.S256ChallengeOption(verifier), oauth2.SetAuthURLParam("nonce", "the nonce")), nil)
	found := hidden.FindStringSubmatch(page)
	if res.StatusCode != http.StatusOK || found == nil {
		t.Fatalf("%d %s", res.StatusCode, page)
	}
	return found[1]
}

// pick picks an account and returns what the service would be told.
func (f *fixture) pick(t *testing.T, id, account string) url.Values {
	t.Helper()
	res, body := f.do(t, "POST", f.server.URL+"/login", url.Values{"id": {id}, "account": {account}})
	location, err := res.Location()
	if err != nil || location.Host != "shop.example" || location.Path != "/callback" {
		t.Fatalf("%d %s: %v, %v", res.StatusCode, body, location, err)
	}
	return location.Query()
}

// claims verifies an ID token with the published keys.
func (f *fixture) claims(t *testing.T, token *oauth2.Token) map[string]any {
	t.Helper()
	_, body := f.do(t, "GET", f.server.URL+"/keys", nil)
	var keys jose.JSONWebKeySet
	if err := json.Unmarshal([]byte(body), &keys); err != nil {
		t.Fatal(err)
	}
	text, _ := token.Extra("id_token").(string)
	signed, err := jose.ParseSignedCompact(text, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := signed.Verify(keys)
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(raw, &claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

func TestAnAccountSignsIn(t *testing.T) {
	t.Parallel()
	for _, account := range provider.Accounts {
		t.Run(account.Subject, func(t *testing.T) {
			t.Parallel()
			f := setup(t)
			verifier := oauth2.GenerateVerifier()
			told := f.pick(t, f.begin(t, verifier), account.Subject)
			if told.Get("state") != "the state" {
				t.Errorf("the state is %q", told.Get("state"))
			}
			token, err := f.config.Exchange(f.ctx, told.Get("code"), oauth2.VerifierOption(verifier))
			if err != nil {
				t.Fatal(err)
			}
			claims := f.claims(t, token)
			verified, _ := claims["email_verified"].(bool)
			if claims["iss"] != f.server.URL || claims["sub"] != account.Subject || claims["nonce"] != "the nonce" || claims["email"] != account.Email || verified != account.Verified {
				t.Errorf("the ID token says %v", claims)
			}
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.server.URL+"/userinfo", nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := f.config.Client(f.ctx, token).Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			var info map[string]any
			if err := json.NewDecoder(res.Body).Decode(&info); err != nil || info["sub"] != account.Subject || info["name"] != account.Name {
				t.Errorf("userinfo says %v, %v", info, err)
			}
			if _, err := f.config.Exchange(f.ctx, told.Get("code"), oauth2.VerifierOption(verifier)); err == nil {
				t.Error("the code works twice")
			}
		})
	}
}

func TestTheCodeIsBoundToItsVerifierAndSecret(t *testing.T) {
	t.Parallel()
	f := setup(t)
	verifier := oauth2.GenerateVerifier()
	told := f.pick(t, f.begin(t, verifier), "ada")
	if _, err := f.config.Exchange(f.ctx, told.Get("code"), oauth2.VerifierOption(oauth2.GenerateVerifier())); err == nil {
		t.Error("the code works with another verifier")
	}
	told = f.pick(t, f.begin(t, verifier), "ada")
	wrong := f.config
	wrong.ClientSecret = "another"
	if _, err := wrong.Exchange(f.ctx, told.Get("code"), oauth2.VerifierOption(verifier)); err == nil {
		t.Error("the code works with another secret")
	}
}

func TestCancelTellsTheService(t *testing.T) {
	t.Parallel()
	f := setup(t)
	id := f.begin(t, oauth2.GenerateVerifier())
	told := f.pick(t, id, "cancel")
	if told.Get("error") != "access_denied" || told.Get("state") != "the state" || told.Has("code") {
		t.Errorf("the service is told %v", told)
	}
	if res, _ := f.do(t, "POST", f.server.URL+"/login", url.Values{"id": {id}, "account": {"ada"}}); res.StatusCode != http.StatusNotFound {
		t.Errorf("what was cancelled goes on: %d", res.StatusCode)
	}
}

func TestNobodyIsLedAstray(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for name, change := range map[string]func(*oauth2.Config){
		"another redirect URI": func(c *oauth2.Config) { c.RedirectURL = "http://evil.example/callback" },
		"another path":         func(c *oauth2.Config) { c.RedirectURL += "/x" },
		"another client":       func(c *oauth2.Config) { c.ClientID = "bank" },
	} {
		c := f.config
		change(&c)
		if res, body := f.do(t, "GET", c.AuthCodeURL("x"), nil); res.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %d %s", name, res.StatusCode, body)
		}
	}
	id := f.begin(t, oauth2.GenerateVerifier())
	if res, _ := f.do(t, "POST", f.server.URL+"/login", url.Values{"id": {id}, "account": {"eve"}}); res.StatusCode != http.StatusUnprocessableEntity {
		t.Errorf("an account that is not there: %d", res.StatusCode)
	}
	if res, _ := f.do(t, "GET", f.server.URL+"/authorize/callback?id="+id, nil); res.Request.URL.Path != "/authorize/callback" && !strings.Contains(res.Header.Get("Location"), "error=interaction_required") {
		t.Errorf("nobody picked an account, and the service is told %s", res.Header.Get("Location"))
	}
}

func TestWaitingEnds(t *testing.T) {
	t.Parallel()
	f := setup(t)
	id := f.begin(t, oauth2.GenerateVerifier())
	f.ahead.Store(int64(10 * time.Minute))
	if res, _ := f.do(t, "GET", f.server.URL+"/login?id="+id, nil); res.StatusCode != http.StatusNotFound {
		t.Errorf("the page of a request that is over: %d", res.StatusCode)
	}
	if res, _ := f.do(t, "POST", f.server.URL+"/login", url.Values{"id": {id}, "account": {"ada"}}); res.StatusCode != http.StatusNotFound {
		t.Errorf("a request that is over goes on: %d", res.StatusCode)
	}
}

func TestItSaysWhatItIs(t *testing.T) {
	t.Parallel()
	f := setup(t)
	_, body := f.do(t, "GET", f.server.URL+"/.well-known/openid-configuration", nil)
	var said map[string]any
	if err := json.Unmarshal([]byte(body), &said); err != nil {
		t.Fatal(err)
	}
	if said["issuer"] != f.server.URL || said["authorization_endpoint"] != f.config.Endpoint.AuthURL || said["token_endpoint"] != f.config.Endpoint.TokenURL {
		t.Errorf("the configuration is %s", body)
	}
	if res, _ := f.do(t, "GET", f.server.URL+"/login?id="+f.begin(t, oauth2.GenerateVerifier()), nil); !strings.Contains(res.Header.Get("Content-Security-Policy"), "form-action 'self' http://shop.example;") {
		t.Errorf("the policy of the page is %q: browsers would not follow it back to the service", res.Header.Get("Content-Security-Policy"))
	}
}

func TestConfigIsAskedFor(t *testing.T) {
	t.Parallel()
	good := provider.Config{Issuer: "http://localhost:9998", ClientID: "a", ClientSecret: "b", RedirectURI: "http://localhost:8080/c"}
	for name, change := range map[string]func(*provider.Config){
		"no issuer":    func(c *provider.Config) { c.Issuer = "" },
		"no client":    func(c *provider.Config) { c.ClientID = "" },
		"no secret":    func(c *provider.Config) { c.ClientSecret = "" },
		"no redirect":  func(c *provider.Config) { c.RedirectURI = "" },
		"a local path": func(c *provider.Config) { c.RedirectURI = "/c" },
	} {
		c := good
		change(&c)
		if _, err := provider.New(c); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}
