package social_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/mandate-auth/mandate/users/social"
	"github.com/mandate-auth/mandate/users/social/socialtest"
)

const (
	ours     = "11111111-2222-3333-4444-555555555555"
	theirs   = "99999999-2222-3333-4444-555555555555"
	personal = "9188040d-6c67-4c5b-b112-36a304b66dad"
)

// microsoft makes the provider a Microsoft whose documents name documentTenant, and
// whose tokens are of tid.
func microsoft(tenant, documentTenant, tid string) func(*env, *social.ProviderConfig) {
	return func(e *env, c *social.ProviderConfig) {
		c.Preset, c.Issuer, c.Tenant = "microsoft", e.provider.URL, tenant
		e.provider.Change(socialtest.Discovery, func(_ *http.Request, a *socialtest.Answer) {
			a.Edit("issuer", e.provider.URL+"/"+documentTenant+"/v2.0")
			a.Edit("authorization_response_iss_parameter_supported", nil)
		})
		e.provider.ChangeClaims(func(claims map[string]any) {
			claims["iss"], claims["tid"] = e.provider.URL+"/"+tid+"/v2.0", tid
		})
		e.provider.Change(socialtest.Authorize, func(_ *http.Request, a *socialtest.Answer) {
			location, _ := url.Parse(a.Header.Get("Location"))
			query := location.Query()
			query.Del("iss")
			location.RawQuery = query.Encode()
			a.Header.Set("Location", location.String())
		})
	}
}

// Which tenants get in, by what is configured. "{tenantid}" is how Microsoft's shared
// documents name every tenant.
func TestMicrosoftTenants(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, tenant, document, tid string
		reason                      string // "" for a sign-in
	}{
		{"GUID", ours, ours, ours, ""},
		{"GUID, token of another tenant", ours, ours, theirs, "id_token"},
		{"GUID, document of another tenant", ours, theirs, theirs, "discovery"},
		{"GUID, document of every tenant", ours, "{tenantid}", ours, "discovery"},
		{"domain", "corp.example", ours, ours, ""},
		{"domain, token of another tenant", "corp.example", ours, theirs, "id_token"},
		{"domain, document of every tenant", "corp.example", "{tenantid}", ours, "discovery"},
		{"domain, document without a tenant", "corp.example", "x", "x", "discovery"},
		{"common", "common", "{tenantid}", theirs, ""},
		{"common, personal", "common", "{tenantid}", personal, ""},
		{"common, no GUID", "common", "{tenantid}", "evil", "tenant"},
		{"common, empty", "common", "{tenantid}", "", "tenant"},
		{"common, capitals", "common", "{tenantid}", strings.ToUpper(personal), "tenant"},
		{"common, a path", "common", "{tenantid}", ours + "/v2.0/x", "tenant"},
		{"common, the template itself", "common", "{tenantid}", "{tenantid}", "tenant"},
		{"common, document of one tenant", "common", ours, ours, "discovery"},
		{"organizations", "organizations", "{tenantid}", theirs, ""},
		{"organizations, personal", "organizations", "{tenantid}", personal, "tenant"},
		{"consumers", "consumers", personal, personal, ""},
		{"consumers, organization", "consumers", personal, ours, "id_token"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e := setup(t, microsoft(test.tenant, test.document, test.tid))
			if test.reason != "" {
				r, err := attempt(t, e)
				refused(t, r, err, social.ErrProvider, test.reason)
				return
			}
			r := e.mustSignIn(t)
			if r.Issuer != e.provider.URL+"/"+test.tid+"/v2.0" || r.Info.Subject != "alice-1" {
				t.Errorf("got %+v", r)
			}
			// The account's own tenant wrote the address and calls it verified.
			if r.Info.Email != "alice@example.com" || r.Info.EmailVerified {
				t.Errorf("the address is believed: %+v", r.Info)
			}
			if e.provider.Calls(socialtest.UserInfo) != 0 {
				t.Error("Microsoft's user information is asked for")
			}
		})
	}
}

// "tid" and "iss" must be of one tenant, and the key one that may sign for it.
func TestMicrosoftMismatch(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		arrange func(e *env)
		reason  string
	}{
		{"iss of another tenant than tid", func(e *env) {
			e.provider.ChangeClaims(func(c map[string]any) { c["iss"], c["tid"] = e.provider.URL+"/"+ours+"/v2.0", theirs })
		}, "id_token"},
		{"no tid", func(e *env) {
			e.provider.ChangeClaims(func(c map[string]any) { c["iss"] = e.provider.URL + "/" + ours + "/v2.0" })
		}, "tenant"},
		{"iss that is the template", func(e *env) {
			e.provider.ChangeClaims(func(c map[string]any) { c["iss"], c["tid"] = e.provider.URL+"/{tenantid}/v2.0", ours })
		}, "id_token"},
		{"tid a number", func(e *env) {
			e.provider.ChangeClaims(func(c map[string]any) { c["iss"], c["tid"] = e.provider.URL+"/"+ours+"/v2.0", 1 })
		}, "tenant"},
		{"a key of the personal accounts", func(e *env) {
			k := e.provider.Key()
			k.More = map[string]any{"issuer": e.provider.URL + "/" + personal + "/v2.0"}
			e.provider.SetKeys(k)
		}, "id_token"},
		{"iss parameter of another tenant", func(e *env) {
			e.provider.Change(socialtest.Authorize, func(_ *http.Request, a *socialtest.Answer) {
				location, _ := url.Parse(a.Header.Get("Location"))
				query := location.Query()
				query.Set("iss", e.provider.URL+"/"+theirs+"/v2.0")
				location.RawQuery = query.Encode()
				a.Header.Set("Location", location.String())
			})
		}, "issuer"},
		{"iss parameter that is the template", func(e *env) {
			e.provider.Change(socialtest.Authorize, func(_ *http.Request, a *socialtest.Answer) {
				location, _ := url.Parse(a.Header.Get("Location"))
				query := location.Query()
				query.Set("iss", e.provider.URL+"/{tenantid}/v2.0")
				location.RawQuery = query.Encode()
				a.Header.Set("Location", location.String())
			})
		}, "issuer"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e := setup(t, microsoft("common", "{tenantid}", ours))
			test.arrange(e)
			r, err := attempt(t, e)
			refused(t, r, err, social.ErrProvider, test.reason)
			if strings.HasSuffix(test.name, "parameter that is the template") && e.provider.Calls(socialtest.Token) != 0 {
				t.Error("the code was used although no tenant has that issuer")
			}
		})
	}
	e := setup(t, microsoft("common", "{tenantid}", ours))
	k := e.provider.Key()
	k.More = map[string]any{"issuer": e.provider.URL + "/{tenantid}/v2.0"}
	e.provider.SetKeys(k)
	e.mustSignIn(t)
}

// Only xms_edov makes an address of Microsoft's verified, and only when it is true.
func TestMicrosoftEmails(t *testing.T) {
	t.Parallel()
	for _, value := range []any{true, false, "true", 1, nil} {
		e := setup(t, microsoft("common", "{tenantid}", ours))
		e.provider.ChangeClaims(func(c map[string]any) {
			c["iss"], c["tid"], c["xms_edov"] = e.provider.URL+"/"+ours+"/v2.0", ours, value
		})
		if info := e.mustSignIn(t).Info; info.EmailVerified != (value == true) {
			t.Errorf("%v: %+v", value, info)
		}
	}
}

// gitHub makes the provider GitHub.
func gitHub(e *env, c *social.ProviderConfig) {
	c.Preset, c.Issuer = "github", ""
	c.AuthURL, c.TokenURL, c.UserInfoURL = e.provider.URL+"/authorize", e.provider.URL+"/token", e.provider.URL+"/user"
	c.KeepTokens = true
}

func TestGitHub(t *testing.T) {
	t.Parallel()
	e := setup(t, gitHub)
	e.provider.Change(socialtest.Token, edit("scope", "read:user,user:email"))
	r := e.mustSignIn(t)
	r.Info.Raw = nil
	want := social.UserInfo{
		Provider: "corp", Subject: "583231", Email: "alice@example.com", EmailVerified: true, Name: "Alice A.", Picture: "https://id.example/a.png",
	}
	if !reflect.DeepEqual(r.Info, want) || r.Issuer != e.provider.URL {
		t.Errorf("got %+v of %s", r.Info, r.Issuer)
	}
	if got := r.Tokens.Scopes; len(got) != 2 || got[0] != "read:user" || got[1] != "user:email" {
		t.Errorf("scopes %q", got)
	}
	if e.provider.Calls(socialtest.Discovery)+e.provider.Calls(socialtest.JWKS)+e.provider.Calls(socialtest.UserInfo) != 0 {
		t.Error("GitHub is asked for OpenID Connect")
	}
}

// A login can be taken by somebody else and the public address is whatever the person
// writes: only the number and the verified primary address count.
func TestHostileGitHub(t *testing.T) {
	t.Parallel()
	entry := func(email string, primary, verified any) map[string]any {
		return map[string]any{"email": email, "primary": primary, "verified": verified}
	}
	for name, emails := range map[string][]any{
		"not verified":         {entry("victim@example.com", true, false)},
		"not primary":          {entry("victim@example.com", false, true)},
		"a text for true":      {entry("victim@example.com", "true", "true")},
		"one for true":         {entry("victim@example.com", 1, 1)},
		"none":                 {},
		"no objects":           {"victim@example.com", nil, []any{}},
		"primary and verified": {entry("victim@example.com", true, false), entry("mallory@example.com", false, true)},
		"two addresses in one": {entry("mallory@example.com,victim@example.com", true, true)},
	} {
		e := setup(t, gitHub)
		u := alice()
		u.Emails = emails
		e.provider.RegisterUser(u)
		if info := e.mustSignIn(t).Info; info.Email != "" || info.EmailVerified {
			t.Errorf("%s: %+v", name, info)
		}
	}
	tests := []struct {
		name     string
		endpoint socialtest.Endpoint
		change   func(*http.Request, *socialtest.Answer)
	}{
		{"no id", socialtest.GitHubUser, edit("id", nil)},
		{"id a text", socialtest.GitHubUser, edit("id", "583231")},
		{"id null", socialtest.GitHubUser, edit("id", json.RawMessage("null"))},
		{"id with a fraction", socialtest.GitHubUser, edit("id", json.RawMessage("583231.0"))},
		{"id with an exponent", socialtest.GitHubUser, edit("id", json.RawMessage("5.83231e5"))},
		{"id negative", socialtest.GitHubUser, edit("id", -1)},
		{"user a list", socialtest.GitHubUser, body("[]")},
		{"user refused", socialtest.GitHubUser, status(http.StatusForbidden)},
		{"addresses an object", socialtest.GitHubEmails, body("{}")},
		{"addresses refused", socialtest.GitHubEmails, status(http.StatusForbidden)},
		{"addresses without end", socialtest.GitHubEmails, body("[" + strings.Repeat(`"a",`, 1<<19) + `"a"]`)},
		{"addresses elsewhere", socialtest.GitHubEmails, redirect(http.StatusFound)},
	}
	for _, test := range tests {
		e := setup(t, gitHub)
		e.provider.Change(test.endpoint, test.change)
		r, err := attempt(t, e)
		refused(t, r, err, social.ErrProvider, "user_info")
	}
}

// Two long numbers that are one as float64 are two people.
func TestLongNumbersAreExact(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"9007199254740992", "9007199254740993"} {
		e := setup(t, gitHub)
		e.provider.Change(socialtest.GitHubUser, edit("id", json.RawMessage(id)))
		if r := e.mustSignIn(t); r.Info.Subject != id {
			t.Errorf("%s became %s", id, r.Info.Subject)
		}
	}
}

// plain is a provider of OAuth 2.0 with its own names.
func plain(e *env, c *social.ProviderConfig) {
	c.Issuer, c.Scopes = "", []string{"profile"}
	c.AuthURL, c.TokenURL, c.UserInfoURL = e.provider.URL+"/authorize", e.provider.URL+"/token", e.provider.URL+"/userinfo"
	c.Claims = social.ClaimMap{
		Subject: "data.user.id", Email: "data.mail", EmailVerified: "data.mail_ok", Name: "data.user.names.full", Picture: "a", Locale: "b",
	}
}

func TestPlainOAuth2(t *testing.T) {
	t.Parallel()
	e := setup(t, plain)
	e.provider.Change(socialtest.UserInfo, body(`{"data":{"user":{"id":"u-1","names":{"full":"Alice"}},"mail":"alice@example.com","mail_ok":true}}`))
	r := e.mustSignIn(t)
	r.Info.Raw = nil
	if !reflect.DeepEqual(r.Info, social.UserInfo{Provider: "corp", Subject: "u-1", Email: "alice@example.com", EmailVerified: true, Name: "Alice"}) {
		t.Errorf("got %+v", r.Info)
	}
	for _, text := range []string{
		`{"data":{"user":{"id":""}}}`, `{"data":{"user":{"id":null}}}`, `{"data":{"user":{"id":true}}}`, `{"data":{"user":{"id":["u-1"]}}}`,
		`{"data":{"user":["id"]}}`, `{"data":"user"}`, `{"data.user.id":"u-1"}`, `{"DATA":{"user":{"id":"u-1"}}}`, `{"data":{"user":{"id":1e3}}}`,
	} {
		e := setup(t, plain)
		e.provider.Change(socialtest.UserInfo, body(text))
		r, err := attempt(t, e)
		refused(t, r, err, social.ErrProvider, "user_info")
	}
	for _, text := range []string{`"true"`, `1`, `null`, `"yes"`} {
		e := setup(t, plain)
		e.provider.Change(socialtest.UserInfo, body(`{"data":{"user":{"id":7},"mail":"alice@example.com","mail_ok":`+text+`}}`))
		if info := e.mustSignIn(t).Info; info.Subject != "7" || info.EmailVerified {
			t.Errorf("%s: %+v", text, info)
		}
	}
	e = setup(t, plain, func(_ *env, c *social.ProviderConfig) { c.Issuer = "https://id.example" })
	r, err := attempt(t, e)
	refused(t, r, err, social.ErrProvider, "issuer")
}
