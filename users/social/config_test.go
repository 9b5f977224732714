package social_test

import (
	"strings"
	"testing"

	"github.com/mandate-auth/mandate/tokens/secret"
	"github.com/mandate-auth/mandate/users/social"
	"github.com/mandate-auth/mandate/users/social/socialtest"
)

// A configuration that would accept too much, or would fail at the first sign-in, must
// not start.
func TestConfigurations(t *testing.T) {
	t.Parallel()
	oauth := func(c *social.ProviderConfig) {
		c.Issuer, c.AuthURL, c.TokenURL, c.UserInfoURL = "", "https://id.example/a", "https://id.example/t", "https://id.example/u"
		c.Claims.Subject = "id"
	}
	preset := func(name string) func(*social.ProviderConfig) {
		return func(c *social.ProviderConfig) { c.Preset, c.Issuer = name, "" }
	}
	both := func(first, then func(*social.ProviderConfig)) func(*social.ProviderConfig) {
		return func(c *social.ProviderConfig) { first(c); then(c) }
	}
	tests := []struct {
		name string
		edit func(*social.ProviderConfig)
		want string // in the error; "" for none
	}{
		{"OpenID Connect", func(*social.ProviderConfig) {}, ""},
		{"a path", func(c *social.ProviderConfig) { c.Issuer = "https://id.example/tenant/" }, ""},
		{"loopback", func(c *social.ProviderConfig) { c.Issuer = "http://127.0.0.1:8080" }, ""},
		{"OAuth 2.0", oauth, ""},
		{"OAuth 2.0 with an issuer", both(oauth, func(c *social.ProviderConfig) { c.Issuer = "https://id.example" }), ""},
		{"Google", preset("google"), ""},
		{"GitHub", preset("github"), ""},
		{"GitHub Enterprise", func(c *social.ProviderConfig) { c.Preset = "github" }, ""},
		{"GitLab", preset("gitlab"), ""},
		{"GitLab of one's own", func(c *social.ProviderConfig) { c.Preset = "gitlab" }, ""},
		{"Microsoft", both(preset("microsoft"), func(c *social.ProviderConfig) { c.Tenant = ours }), ""},
		{"Microsoft by domain", both(preset("microsoft"), func(c *social.ProviderConfig) { c.Tenant = "corp.onmicrosoft.com" }), ""},
		{"Microsoft for all", both(preset("microsoft"), func(c *social.ProviderConfig) { c.Tenant = "common" }), ""},

		{"no name", func(c *social.ProviderConfig) { c.Name = "" }, "name"},
		{"capitals", func(c *social.ProviderConfig) { c.Name = "Corp" }, "name"},
		{"a path in the name", func(c *social.ProviderConfig) { c.Name = "a/b" }, "name"},
		{"a line after the name", func(c *social.ProviderConfig) { c.Name = "corp\n" }, "name"},
		{"a long name", func(c *social.ProviderConfig) { c.Name = strings.Repeat("a", 33) }, "name"},
		{"nothing", preset(""), "required"},
		{"unknown preset", preset("facebook"), "preset"},
		{"issuer in the clear", func(c *social.ProviderConfig) { c.Issuer = "http://id.example" }, "https"},
		{"issuer with a query", func(c *social.ProviderConfig) { c.Issuer = "https://id.example?x" }, "query"},
		{"issuer with an empty query", func(c *social.ProviderConfig) { c.Issuer = "https://id.example?" }, "query"},
		{"issuer with a fragment", func(c *social.ProviderConfig) { c.Issuer = "https://id.example#" }, "fragment"},
		{"issuer with a user", func(c *social.ProviderConfig) { c.Issuer = "https://u:p@id.example" }, "user"},
		{"issuer without a host", func(c *social.ProviderConfig) { c.Issuer = "https:///x" }, "absolute"},
		{"issuer no URL", func(c *social.ProviderConfig) { c.Issuer = "https://id.example/%zz" }, "URL"},
		{"claims with an issuer", func(c *social.ProviderConfig) { c.Claims.Subject = "id" }, "claims"},
		{"claims with a preset", both(preset("github"), func(c *social.ProviderConfig) { c.Claims.Subject = "login" }), "claims"},
		{"no subject", both(oauth, func(c *social.ProviderConfig) { c.Claims = social.ClaimMap{Email: "email"} }), "subject"},
		{"a word about no address", both(oauth, func(c *social.ProviderConfig) { c.Claims.EmailVerified = "x" }), "email_verified"},
		{"an empty step", both(oauth, func(c *social.ProviderConfig) { c.Claims.Subject = "a..b" }), "names"},
		{"a long way", both(oauth, func(c *social.ProviderConfig) { c.Claims.Name = "a" + strings.Repeat(".a", 8) }), "names"},
		{"no token endpoint", both(oauth, func(c *social.ProviderConfig) { c.TokenURL = "" }), "token_endpoint"},
		{"user information in the clear", both(oauth, func(c *social.ProviderConfig) { c.UserInfoURL = "http://id.example/u" }), "userinfo_endpoint"},
		{"a state in the endpoint", both(oauth, func(c *social.ProviderConfig) { c.AuthURL = "https://id.example/a?STATE=x" }), "authorization_endpoint"},
		{"endpoints of Google", both(preset("google"), func(c *social.ProviderConfig) { c.TokenURL = "https://evil.example/t" }), "endpoints"},
		{"another Google", func(c *social.ProviderConfig) { c.Preset = "google" }, "Google"},
		{"GitHub in the clear", func(c *social.ProviderConfig) { c.Preset, c.Issuer = "github", "http://hub.example" }, "issuer"},
		{"Microsoft without a tenant", preset("microsoft"), "tenant"},
		{"a tenant that is a path", both(preset("microsoft"), func(c *social.ProviderConfig) { c.Tenant = "a/b" }), "tenant"},
		{"a tenant in capitals", both(preset("microsoft"), func(c *social.ProviderConfig) { c.Tenant = "COMMON" }), "tenant"},
		{"the template as tenant", both(preset("microsoft"), func(c *social.ProviderConfig) { c.Tenant = "{tenantid}" }), "tenant"},
		{"a tenant of nobody", func(c *social.ProviderConfig) { c.Tenant = ours }, "tenant"},
		{"no client", func(c *social.ProviderConfig) { c.ClientID = "" }, "client_id"},
		{"no secret", func(c *social.ProviderConfig) { c.ClientSecret = secret.Value{} }, "client_secret"},
		{"unknown way", func(c *social.ProviderConfig) { c.AuthStyle = "header" }, "auth_style"},
		{"no openid", func(c *social.ProviderConfig) { c.Scopes = []string{"email"} }, "openid"},
		{"two scopes in one", func(c *social.ProviderConfig) { c.Scopes = []string{"openid", "a b"} }, "scope"},
		{"a name with a line", func(c *social.ProviderConfig) { c.DisplayName = "a\nb" }, "display_name"},
		{"state as a parameter", func(c *social.ProviderConfig) { c.AuthParams = map[string]string{"state": "x"} }, "state"},
		{"redirect in capitals", func(c *social.ProviderConfig) { c.AuthParams = map[string]string{"REDIRECT_URI": "x"} }, "REDIRECT_URI"},
		{"plain PKCE", func(c *social.ProviderConfig) { c.AuthParams = map[string]string{"code_challenge_method": "plain"} }, "code_challenge"},
		{"max_age", func(c *social.ProviderConfig) { c.AuthParams = map[string]string{"max_age": "0"} }, "max_age"},
		{"form_post", func(c *social.ProviderConfig) { c.AuthParams = map[string]string{"response_mode": "form_post"} }, "response_mode"},
		{"an empty parameter", func(c *social.ProviderConfig) { c.AuthParams = map[string]string{"": "x"} }, "authorization_params"},
		{"an empty value", func(c *social.ProviderConfig) { c.AuthParams = map[string]string{"x": ""} }, "authorization_params"},
	}
	for _, test := range tests {
		p := social.ProviderConfig{Name: "corp", Issuer: "https://id.example", ClientID: "client", ClientSecret: secret.FromString("canary")}
		test.edit(&p)
		set, err := social.New(social.Config{
			App: "shop", Keys: appKeys(t, "shop"), RedirectBase: "https://shop.example/oauth/", Once: &socialtest.Once{}, Providers: []social.ProviderConfig{p},
		})
		switch {
		case test.want == "":
			if err != nil || set.Close(t.Context()) != nil {
				t.Errorf("%s: %v", test.name, err)
			}
		case set != nil || err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "canary") || strings.Contains(err.Error(), "u:p"):
			t.Errorf("%s: got %v, want an error about %q", test.name, err, test.want)
		}
	}
}

func TestConfigOfTheSet(t *testing.T) {
	t.Parallel()
	corp := social.ProviderConfig{Name: "corp", Issuer: "https://id.example", ClientID: "client", ClientSecret: secret.FromString("s")}
	for name, edit := range map[string]func(*social.Config){
		"no app":                 func(c *social.Config) { c.App = "" },
		"no keys":                func(c *social.Config) { c.Keys = nil },
		"no once":                func(c *social.Config) { c.Once = nil },
		"no base":                func(c *social.Config) { c.RedirectBase = "" },
		"base in the clear":      func(c *social.Config) { c.RedirectBase = "http://shop.example/" },
		"base without a slash":   func(c *social.Config) { c.RedirectBase = "https://shop.example/oauth" },
		"base without a path":    func(c *social.Config) { c.RedirectBase = "https://shop.example" },
		"base with a query":      func(c *social.Config) { c.RedirectBase = "https://shop.example/?a=/" },
		"a provider twice":       func(c *social.Config) { c.Providers = append(c.Providers, corp) },
		"a provider that is not": func(c *social.Config) { c.Providers = append(c.Providers, social.ProviderConfig{}) },
	} {
		c := social.Config{
			App: "shop", Keys: appKeys(t, "shop"), RedirectBase: "https://shop.example/oauth/", Once: &socialtest.Once{}, Providers: []social.ProviderConfig{corp},
		}
		edit(&c)
		if set, err := social.New(c); set != nil || err == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
