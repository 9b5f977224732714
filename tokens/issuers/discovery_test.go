package issuers_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/tokens/issuers"
)

// discovered returns an issuer that is e itself, under path, and a token of it.
func discovered(t *testing.T, e *evil, path string, edit ...func(*issuers.Config)) (*issuers.Issuer, string, *clock) {
	t.Helper()
	i, c := open(t, e, append([]func(*issuers.Config){func(c *issuers.Config) { c.JWKSURL, c.Issuer = "", e.server.URL+path }}, edit...)...)
	return i, es(t, with("iss", e.server.URL+path)), c
}

func document(t *testing.T, issuer, keys any) []byte {
	t.Helper()
	raw, err := json.Marshal(map[string]any{"issuer": issuer, "jwks_uri": keys, "x": []any{1}})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestDiscovery(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ path, at string }{
		{"", "/.well-known/openid-configuration"},
		{"/", "/.well-known/openid-configuration"},
		{"/tenant", "/tenant/.well-known/openid-configuration"},
		{"/tenant/", "/tenant/.well-known/openid-configuration"},
		{"", "/.well-known/oauth-authorization-server"},
		{"/tenant", "/.well-known/oauth-authorization-server/tenant"},
	} {
		e := newEvil(t)
		e.serve(test.at, document(t, e.server.URL+test.path, e.server.URL+"/jwks"))
		i, token, _ := discovered(t, e, test.path)
		accept(t, i, test.path+" at "+test.at, token)
		if e.count(test.at) != 1 || e.count("/jwks") != 1 {
			t.Errorf("%s: asked %d and %d times", test.at, e.count(test.at), e.count("/jwks"))
		}
	}
}

// A document that leads elsewhere is an attack or a mistake, and no key comes of it.
func TestDiscoveryRefuses(t *testing.T) {
	t.Parallel()
	other := newEvil(t)
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(jwks(t, jwk(t, "e1", material().p256, nil)))
	}))
	t.Cleanup(plain.Close)
	const at = "/.well-known/openid-configuration"
	tests := []struct {
		name string
		body func(self string) []byte
	}{
		{"another issuer", func(self string) []byte { return document(t, "https://evil.example", self+"/jwks") }},
		{"a slash more", func(self string) []byte { return document(t, self+"/", self+"/jwks") }},
		{"other case", func(self string) []byte { return document(t, strings.ToUpper(self), self+"/jwks") }},
		{"no issuer", func(self string) []byte { return []byte(`{"jwks_uri":"` + self + `/jwks"}`) }},
		{"issuer in a list", func(self string) []byte { return document(t, []any{self}, self+"/jwks") }},
		{"two issuers", func(self string) []byte {
			return []byte(`{"issuer":"https://evil.example","issuer":"` + self + `","jwks_uri":"` + self + `/jwks"}`)
		}},
		{"keys on another host", func(self string) []byte { return document(t, self, other.server.URL+"/jwks") }},
		{"keys over http", func(self string) []byte { return document(t, self, plain.URL) }},
		{"keys over http of the same host", func(self string) []byte { return document(t, self, "http"+strings.TrimPrefix(self, "https")+"/jwks") }},
		{"keys in a file", func(self string) []byte { return document(t, self, "file:///etc/passwd") }},
		{"keys with a user", func(self string) []byte { return document(t, self, strings.Replace(self, "://", "://u:p@", 1)+"/jwks") }},
		{"keys at a relative address", func(self string) []byte { return document(t, self, "/jwks") }},
		{"keys nowhere", func(self string) []byte { return document(t, self, nil) }},
		{"keys at a number", func(self string) []byte { return document(t, self, 1) }},
		{"keys at the host of a longer name", func(self string) []byte { return document(t, self, self+".evil.example/jwks") }},
		{"no JSON", func(string) []byte { return []byte("<html>") }},
		{"too large", func(self string) []byte { return append(document(t, self, self+"/jwks"), make([]byte, 600<<10)...) }},
	}
	for _, test := range tests {
		e := newEvil(t)
		e.serve(at, test.body(e.server.URL))
		// A second document must not save the first.
		e.serve("/.well-known/oauth-authorization-server", document(t, e.server.URL, e.server.URL+"/jwks"))
		i, token, _ := discovered(t, e, "", func(c *issuers.Config) { c.InsecureLoopback = true })
		unavailable(t, i, test.name, token)
		if e.count("/jwks") != 0 || e.count("/.well-known/oauth-authorization-server") != 0 {
			t.Errorf("%s: went on", test.name)
		}
	}
	if other.count("/jwks") != 0 {
		t.Error("another host was asked")
	}
	e := newEvil(t)
	e.handle(at, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.server.URL+at, http.StatusFound)
	})
	i, token, _ := discovered(t, e, "")
	unavailable(t, i, "redirect", token)
	if other.count(at) != 0 {
		t.Error("a redirect was followed")
	}
}

// Only scheme, host and port together are the issuer's own address.
func TestKeysStayWithTheIssuer(t *testing.T) {
	t.Parallel()
	keys := jwks(t, jwk(t, "e1", material().p256, nil))
	for address, want := range map[string]bool{
		"https://id.example/jwks": true, "https://id.example:443/jwks": true, "https://ID.example/jwks?p=1": true,
		"https://id.example:8443/jwks": false, "https://keys.id.example/jwks": false, "https://id.example.evil/jwks": false, "https://evil.example/id.example": false,
		"https://id.example@evil.example/jwks": false, "https://id.example/jwks#x": false, "//id.example/jwks": false,
	} {
		asked := 0
		i, _ := open(t, newEvil(t), func(c *issuers.Config) {
			c.JWKSURL = ""
			c.Client = &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
				body := keys
				if asked++; strings.Contains(r.URL.Path, "/.well-known/") {
					body = document(t, issuerURL, address)
				}
				return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(bytes.NewReader(body))}, nil
			})}
		})
		_, err := i.Verify(t.Context(), es(t, good()))
		if (err == nil) != want || (asked == 2) != want {
			t.Errorf("%s: %v after %d requests", address, err, asked)
		}
	}
}

// An issuer whose document changes is believed only while it is right.
func TestDiscoveryIsRepeated(t *testing.T) {
	t.Parallel()
	const at = "/.well-known/openid-configuration"
	e := newEvil(t)
	e.serve(at, document(t, e.server.URL, e.server.URL+"/jwks"))
	i, token, c := discovered(t, e, "")
	accept(t, i, "first", token)
	e.serve("/moved", jwks(t, jwk(t, "e2", material().otherP256, nil)))
	e.serve(at, document(t, e.server.URL, e.server.URL+"/moved"))
	c.Move(10 * time.Minute)
	refuse(t, i, "a key of the old address", token)
}

func TestHTTPToThisMachine(t *testing.T) {
	t.Parallel()
	keys := jwks(t, jwk(t, "e1", material().p256, nil))
	var self string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/.well-known/") {
			_, _ = w.Write(document(t, self, self+"/jwks"))
			return
		}
		_, _ = w.Write(keys)
	}))
	t.Cleanup(server.Close)
	self = server.URL
	// With the issuer's own client, which has nothing to do with TLS here.
	i, _ := open(t, newEvil(t), func(c *issuers.Config) { c.Client, c.Issuer, c.JWKSURL, c.InsecureLoopback = nil, self, "", true })
	accept(t, i, "over http", es(t, with("iss", self)))
}

// The issuer's own client checks certificates: this one is signed by nobody it knows.
func TestCertificateIsChecked(t *testing.T) {
	t.Parallel()
	e := newEvil(t)
	i, _ := open(t, e, func(c *issuers.Config) { c.Client = nil })
	unavailable(t, i, "unknown authority", es(t, good()))
	if e.count("/jwks") != 0 {
		t.Error("asked all the same")
	}
}

// Whatever client the service gives, no cookies go out and no redirects are followed.
func TestRequest(t *testing.T) {
	t.Parallel()
	e := newEvil(t)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(e.server.URL)
	if err != nil {
		t.Fatal(err)
	}
	jar.SetCookies(u, []*http.Cookie{{Name: "a", Value: "secret"}})
	keys := jwks(t, jwk(t, "e1", material().p256, nil))
	e.handle("/jwks", func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || len(r.Cookies()) != 0 || r.Header.Get("Authorization") != "" || r.Header.Get("Accept") != "application/json" {
			t.Errorf("%s with %v", r.Method, r.Header)
		}
		w.Header().Set("Content-Type", "text/html") // not looked at
		http.SetCookie(w, &http.Cookie{Name: "b", Value: "c"})
		_, _ = w.Write(keys)
	})
	given := *e.server.Client()
	given.Jar = jar
	given.CheckRedirect = func(*http.Request, []*http.Request) error { return nil }
	i, _ := open(t, e, func(c *issuers.Config) { c.Client = &given })
	accept(t, i, "with cookies in the jar", es(t, good()))
	if len(jar.Cookies(u)) != 1 {
		t.Error("the jar was written to")
	}
	e.handle("/jwks", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/other", http.StatusFound) })
	e.serve("/other", keys)
	i, _ = open(t, e, func(c *issuers.Config) { c.Client = &given })
	unavailable(t, i, "redirect", es(t, good()))
	if e.count("/other") != 0 {
		t.Error("a redirect was followed")
	}
}
