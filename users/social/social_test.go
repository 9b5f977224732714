package social_test

import (
	"errors"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/users/social"
	"github.com/mandate-auth/mandate/users/social/socialtest"
)

// The whole way: who it is comes back, with what the caller gave along.
func TestSignIn(t *testing.T) {
	t.Parallel()
	e := setup(t)
	f, query := e.begin(t, social.BeginOptions{Next: "/cart?x=1&y=<2>", Data: []byte{0, 1, 255}})
	if !f.ExpiresAt.Equal(epoch.Add(10*time.Minute)) || f.ID == "" || social.CookieSuffix(query) != f.ID {
		t.Errorf("%+v, %q", f, social.CookieSuffix(query))
	}
	r, err := e.finish(t, query, f.Cookie)
	if err != nil {
		t.Fatal(err, e.log)
	}
	raw := r.Info.Raw
	r.Info.Raw = nil
	want := &social.Result{
		Info: social.UserInfo{
			Provider: "corp", Subject: "alice-1", Email: "alice@example.com", EmailVerified: true, Name: "Alice A.", GivenName: "Alice",
			FamilyName: "A.", Picture: "https://id.example/a.png", Locale: "de-AT",
		},
		Provider: "corp", Issuer: e.provider.URL, Next: "/cart?x=1&y=<2>", Data: []byte{0, 1, 255},
	}
	if !reflect.DeepEqual(r, want) || raw["sub"] != any("alice-1") {
		t.Errorf("got %+v\nwant %+v\nraw %v", r, want, raw)
	}
	if len(e.events.all()) != 0 {
		t.Errorf("a sign-in that succeeded is reported as refused: %v", e.events.all())
	}
}

// The authorization request has PKCE with S256, a nonce, and a state of 256 bits that is
// another every time; the cookie fits beside its name and is safe in a header.
func TestBegin(t *testing.T) {
	t.Parallel()
	e := setup(t, func(_ *env, c *social.ProviderConfig) {
		c.AuthParams = map[string]string{"prompt": "consent", "access_type": "offline"}
		c.Scopes = []string{"openid", "groups"}
	})
	seen := map[string]bool{}
	for range 3 {
		f, err := e.set.Begin(t.Context(), "corp", social.BeginOptions{
			Next: "/" + strings.Repeat("n", social.MaxNext-1), Data: make([]byte, social.MaxData), LoginHint: "alice@example.com", Prompt: "login select_account",
		})
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(f.URL)
		if err != nil {
			t.Fatal(err)
		}
		q := u.Query()
		for name, want := range map[string]string{
			"response_type": "code", "client_id": "client", "redirect_uri": "https://shop.example/auth/oauth/corp/callback", "scope": "openid groups",
			"code_challenge_method": "S256", "access_type": "offline", "prompt": "login select_account", "login_hint": "alice@example.com",
		} {
			if got := q[name]; len(got) != 1 || got[0] != want {
				t.Errorf("%s: got %q, want %q", name, got, want)
			}
		}
		for _, name := range []string{"state", "nonce", "code_challenge"} {
			if v := q.Get(name); len(v) != 43 || seen[v] {
				t.Errorf("%s is %q", name, v)
			} else {
				seen[v] = true
			}
			if strings.Contains(f.Cookie, q.Get(name)) || strings.Contains(f.ID, q.Get(name)) {
				t.Errorf("the cookie shows %s", name)
			}
		}
		c := &http.Cookie{Name: "__Host-" + strings.Repeat("s", 150) + "_oauth_" + f.ID, Value: f.Cookie}
		if len(f.Cookie) > social.MaxCookie || len(c.Name)+1+len(c.Value) > 4096 || c.Valid() != nil || c.String() != c.Name+"="+f.Cookie {
			t.Errorf("a cookie of %d bytes: %v", len(f.Cookie), c.Valid())
		}
	}
}

// A place to go on to must stay here, and what cannot be sealed into a cookie must fail
// before the person is sent away.
func TestBeginRefuses(t *testing.T) {
	t.Parallel()
	e := setup(t)
	tests := []struct {
		name     string
		provider string
		options  social.BeginOptions
		want     error
	}{
		{"unknown provider", "other", social.BeginOptions{}, social.ErrUnknownProvider},
		{"empty provider", "", social.BeginOptions{}, social.ErrUnknownProvider},
		{"another site", "corp", social.BeginOptions{Next: "https://evil.example/"}, social.ErrNext},
		{"no scheme", "corp", social.BeginOptions{Next: "//evil.example"}, social.ErrNext},
		{"backslash", "corp", social.BeginOptions{Next: `/\evil.example`}, social.ErrNext},
		{"long next", "corp", social.BeginOptions{Next: "/" + strings.Repeat("a", social.MaxNext)}, social.ErrNext},
		{"much data", "corp", social.BeginOptions{Data: make([]byte, social.MaxData+1)}, social.ErrOptions},
		{"together", "corp", social.BeginOptions{Data: make([]byte, social.MaxData), Next: "/" + strings.Repeat(`"`, social.MaxNext-1)}, social.ErrOptions},
		{"prompt", "corp", social.BeginOptions{Prompt: "none login"}, social.ErrOptions},
		{"prompt of another", "corp", social.BeginOptions{Prompt: "create"}, social.ErrOptions},
		{"hint", "corp", social.BeginOptions{LoginHint: "a\nb"}, social.ErrOptions},
	}
	for _, test := range tests {
		if f, err := e.set.Begin(t.Context(), test.provider, test.options); f != nil || !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, %v", test.name, f, err)
		}
	}
	if r, err := e.set.Finish(t.Context(), "other", nil, ""); r != nil || !errors.Is(err, social.ErrUnknownProvider) {
		t.Errorf("got %v, %v", r, err)
	}
}

// Nobody gets tokens who did not ask; who did gets them without any of them being
// printable.
func TestTokensAreKeptOnRequestOnly(t *testing.T) {
	t.Parallel()
	if r := setup(t).mustSignIn(t); r.Tokens != nil {
		t.Error("tokens without KeepTokens")
	}
	e := setup(t, func(_ *env, c *social.ProviderConfig) { c.KeepTokens, c.AuthStyle = true, "post" })
	k := e.mustSignIn(t).Tokens
	if k == nil || k.AccessToken.IsZero() || k.RefreshToken.IsZero() || k.IDToken.IsZero() || !k.Expiry.Equal(epoch.Add(time.Hour)) {
		t.Fatalf("%+v", k)
	}
	if !slices.Equal(k.Scopes, []string{"openid", "email", "profile"}) {
		t.Errorf("scopes %q", k.Scopes)
	}
}

// An address counts as verified only with a JSON true, and only the word about that
// very address counts: a user information that vouches for one address says nothing of
// the other one in the ID token.
func TestEmailVerified(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name            string
		idToken, more   map[string]any
		email           string
		verified        bool
		absentInIDToken bool
	}{
		{name: "both", idToken: map[string]any{}, email: "alice@example.com", verified: true},
		{name: "a text", idToken: map[string]any{"email_verified": "true"}, email: "alice@example.com"},
		{name: "one", idToken: map[string]any{"email_verified": 1}, email: "alice@example.com"},
		{name: "false", idToken: map[string]any{"email_verified": false}, email: "alice@example.com"},
		{name: "another address", idToken: map[string]any{"email": "victim@example.com", "email_verified": nil}, email: "victim@example.com"},
		{name: "only in the user information", absentInIDToken: true, email: "alice@example.com", verified: true},
		{name: "a word about the same address", idToken: map[string]any{"email_verified": nil}, email: "alice@example.com", verified: true},
		{name: "the ID token says no", idToken: map[string]any{"email_verified": false}, more: map[string]any{"email_verified": true}, email: "alice@example.com"},
		{name: "a list", idToken: map[string]any{"email": "a@example.com,b@example.com"}},
		{name: "HTML", idToken: map[string]any{"email": "<b>a@example.com</b>"}},
		{name: "a line", idToken: map[string]any{"email": "a@example.com\r\nBcc: b@example.com"}},
		{name: "two @", idToken: map[string]any{"email": "a@b@example.com"}},
		{name: "no text", idToken: map[string]any{"email": []string{"a@example.com"}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e := setup(t)
			e.provider.ChangeClaims(func(claims map[string]any) {
				if test.absentInIDToken {
					delete(claims, "email")
					delete(claims, "email_verified")
				}
				for name, value := range test.idToken {
					if claims[name] = value; value == nil {
						delete(claims, name)
					}
				}
			})
			info := e.mustSignIn(t).Info
			if info.Email != test.email || info.EmailVerified != test.verified {
				t.Errorf("got %q, %v", info.Email, info.EmailVerified)
			}
		})
	}
}

// What is shown to others must not carry code or lines of its own.
func TestTextsThatAreNoneAreLeftOut(t *testing.T) {
	t.Parallel()
	e := setup(t)
	u := alice()
	u.Claims = map[string]any{
		"sub": "alice-1", "name": strings.Repeat("n", 300), "given_name": "a\r\nSet-Cookie: b", "family_name": map[string]any{"a": 1},
		"picture": "javascript:alert(1)", "locale": 7,
	}
	e.provider.RegisterUser(u)
	info := e.mustSignIn(t).Info
	info.Raw = nil
	if !reflect.DeepEqual(info, social.UserInfo{Provider: "corp", Subject: "alice-1"}) {
		t.Errorf("got %+v", info)
	}
	for _, picture := range []string{
		"http://id.example/a.png", "//id.example/a.png", "/a.png", "https:a.png", "https://u:p@id.example/a.png", "data:image/png;base64,AA", "https://id.example/" + strings.Repeat("a", 2048),
	} {
		u.Claims["picture"] = picture
		e.provider.RegisterUser(u)
		if info := e.mustSignIn(t).Info; info.Picture != "" {
			t.Errorf("%.60q is a picture", picture)
		}
	}
}

// The answer to /oauth/providers shows names, and nothing that is a secret or an
// address.
func TestProviders(t *testing.T) {
	t.Parallel()
	e := setup(t, func(e *env, c *social.ProviderConfig) {
		c.DisplayName = "The Company"
		hub := oidc(e.provider, "hub")
		hub.Preset, hub.Issuer = "github", ""
		plain := oidc(e.provider, "plain")
		plain.Issuer, plain.AuthURL, plain.TokenURL, plain.UserInfoURL = "", e.provider.URL+"/a", e.provider.URL+"/t", e.provider.URL+"/u"
		plain.Claims.Subject = "id"
		e.config.Providers = []social.ProviderConfig{hub, plain}
	})
	want := []social.Info{
		{Name: "corp", DisplayName: "The Company", Kind: social.KindOIDC},
		{Name: "hub", DisplayName: "GitHub", Kind: social.KindOAuth2},
		{Name: "plain", DisplayName: "plain", Kind: social.KindOAuth2},
	}
	if got := e.set.Providers(); !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	if e.provider.Calls(socialtest.Discovery) != 0 {
		t.Error("a provider is called before it is needed")
	}
}
