package engine_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/users/identity"
	"github.com/mandate-auth/mandate/users/invitation"
	"github.com/mandate-auth/mandate/users/social/socialtest"
)

// everyProviderKey has every key of a provider. No provider has them all, so an app with
// it can be read and not loaded.
const everyProviderKey = `"acme":{"preset":"microsoft","tenant":"common","issuer":"https://acme.example","authorization_endpoint":"https://acme.example/a",
	"token_endpoint":"https://acme.example/t","userinfo_endpoint":"https://acme.example/u","client_id":"a","client_secret":"b","display_name":"Acme","scopes":["openid"],
	"claims":{"subject":"s","email":"e","email_verified":"v","name":"n","given_name":"g","family_name":"f","picture":"p","locale":"l"},
	"authorization_params":{"prompt":"login"}}`

// at is a world with one provider under the name "acme", whose entry in the manifest has
// these keys beside or in the place of the usual ones.
func at(t *testing.T, p *socialtest.Provider, keys map[string]any, edit ...func(*engine.Options)) *door {
	t.Helper()
	entry := with(obj("issuer", p.URL, "client_id", p.ClientID, "client_secret", p.ClientSecret), "keep_tokens", false)
	for name, value := range keys {
		if entry[name] = value; value == nil {
			delete(entry, name)
		}
	}
	raw, err := json.Marshal(entry)
	if err != nil {
		t.Fatal(err)
	}
	return &door{mailRoom: mailing(t, mails+`,"oauth":{"providers":{"acme":`+string(raw)+`}}`, edit...), acme: p}
}

func newProvider(t *testing.T) *socialtest.Provider {
	t.Helper()
	return socialtest.NewProvider(t, socialtest.Options{})
}

// sentTo begins a sign-in and returns where the browser is sent.
func (d *door) sentTo() *url.URL {
	d.t.Helper()
	r := d.want(d.do("GET", "/auth/oauth/acme/login", nil), 303, "")
	u, err := url.Parse(r.header.Get("Location"))
	if err != nil {
		d.t.Fatal(err)
	}
	return u
}

// identity is the one identity of somebody who comes.
func (d *door) identity() identity.Identity {
	d.t.Helper()
	list, err := d.app.Identities().List(d.t.Context(), d.comes(d.browser(), "acme", d.acme))
	if err != nil || len(list) != 1 {
		d.t.Fatalf("%d identities, %v", len(list), err)
	}
	return list[0]
}

// plain are the keys of a provider of OAuth 2.0 without OpenID Connect.
func plain(p *socialtest.Provider, claims map[string]any) map[string]any {
	return obj("issuer", nil, "authorization_endpoint", p.URL+"/authorize", "token_endpoint", p.URL+"/token", "userinfo_endpoint", p.URL+"/userinfo", "claims", claims)
}

// paramKey gives a provider a key and sees it in the address that the browser is sent to.
func paramKey(name string, value any, param, want string) func(*testing.T) {
	return func(t *testing.T) {
		p := newProvider(t)
		expect(t, at(t, p, obj(name, value)).sentTo().Query().Get(param), want)
		if usual := at(t, p, nil).sentTo().Query().Get(param); usual == want {
			t.Errorf("without the key it is %q as well", usual)
		}
	}
}

// claimKey says that a claim is in the member "here", and sees what is there arrive.
func claimKey(claim string, value any, read func(identity.Identity) any) func(*testing.T) {
	return func(t *testing.T) {
		p := newProvider(t)
		p.RegisterUser(socialtest.User{Claims: obj("sub", "1", "mail", email, "here", value, "there", "another text")})
		claims := obj("subject", "sub", "email", "mail")
		expect(t, read(at(t, p, plain(p, with(claims, claim, "here"))).identity()), value)
		if elsewhere := read(at(t, p, plain(p, with(claims, claim, "there"))).identity()); elsewhere == value {
			t.Errorf("%v is read from another member", value)
		}
	}
}

func profileKey(claim string, value string) func(*testing.T) {
	return claimKey(claim, value, func(i identity.Identity) any { return i.Profile[claim] })
}

// endpointKey moves an endpoint and sees it called there.
func endpointKey(key string, usual socialtest.Endpoint) func(*testing.T) {
	return func(t *testing.T) {
		const elsewhere socialtest.Endpoint = "/elsewhere"
		p := newProvider(t)
		p.RegisterUser(person("1", email, true))
		keys := with(plain(p, obj("subject", "sub")), key, p.URL+string(elsewhere))
		d := at(t, p, keys)
		if usual == socialtest.Authorize {
			expect(t, d.sentTo().Path, string(elsewhere))
		} else {
			d.refusedWith(d.come(d.browser(), "acme", p, ""), "provider_refused")
			expect(t, p.Calls(elsewhere) > 0 && p.Calls(usual) == 0, true)
		}
		at(t, p, plain(p, obj("subject", "sub"))).identity()
		expect(t, p.Calls(usual) > 0, true)
	}
}

// arrivesAndLinks says what becomes of somebody who comes by a provider with the address of an
// account, and of an identity with another address that the account's owner links.
func arrivesAndLinks(t *testing.T, policy string) (arrives, links string) {
	t.Helper()
	d := doorsWith(t, ``, fmt.Sprintf(`"link":%q`, policy))
	d.register()
	d.want(d.do("POST", "/auth/email/verify", obj("token", d.token(email))), 204, "")
	d.acme.RegisterUser(person("1", email, true))
	d.bolt.RegisterUser(person("2", bob, true))
	outcome := func(r *response) string {
		u, err := url.Parse(r.header.Get("Location"))
		if err != nil || r.status != 303 {
			t.Fatalf("%d %s %v", r.status, r.raw, err)
		}
		return u.Query().Get("error")
	}
	arrives = outcome(d.come(d.browser(), "acme", d.acme, ""))
	b := d.browser()
	d.want(b.do("POST", "/auth/login", with(account, "transport", "cookie")), 200, "")
	return arrives, outcome(d.link(b, "bolt", d.bolt))
}

// signInKeyTests are those of keyTests about people who come by other providers, and
// about who may come at all.
var signInKeyTests = map[string]func(t *testing.T){
	"/auth/users/require_verified_email": func(t *testing.T) {
		mailing(t, ``).want(mailing(t, ``).do("POST", "/auth/register", account), 201, "")
		m := mailing(t, `"users":{"require_verified_email":true}`)
		m.want(m.do("POST", "/auth/register", account), 202, "")
		m.token(email)
		m.want(m.do("POST", "/auth/login", account), 401, "invalid_credentials")
	},
	"/auth/oauth/providers/{name}/preset": func(t *testing.T) {
		d := at(t, newProvider(t), obj("preset", "github", "issuer", nil))
		expect(t, d.sentTo().Host, "github.com")
		expect(t, d.sentTo().Query().Get("scope"), "read:user user:email")
	},
	"/auth/oauth/providers/{name}/issuer": func(t *testing.T) {
		for range 2 {
			p := newProvider(t)
			to := at(t, p, nil).sentTo()
			expect(t, to.Scheme+"://"+to.Host, p.URL)
		}
	},
	"/auth/oauth/providers/{name}/tenant": func(t *testing.T) {
		for _, tenant := range []string{"contoso.example", "11111111-2222-3333-4444-555555555555"} {
			p := newProvider(t)
			asked := make(chan string, 10)
			p.Change(socialtest.Discovery, func(r *http.Request, a *socialtest.Answer) {
				asked <- r.URL.Path
				a.Edit("issuer", p.URL+"/11111111-2222-3333-4444-555555555555/v2.0")
			})
			at(t, p, obj("preset", "microsoft", "tenant", tenant)).sentTo()
			expect(t, <-asked, "/"+tenant+"/v2.0"+string(socialtest.Discovery))
		}
	},
	"/auth/oauth/providers/{name}/authorization_endpoint": endpointKey("authorization_endpoint", socialtest.Authorize),
	"/auth/oauth/providers/{name}/token_endpoint":         endpointKey("token_endpoint", socialtest.Token),
	"/auth/oauth/providers/{name}/userinfo_endpoint":      endpointKey("userinfo_endpoint", socialtest.UserInfo),
	"/auth/oauth/providers/{name}/claims/subject":         claimKey("subject", "somebody", func(i identity.Identity) any { return i.Subject }),
	"/auth/oauth/providers/{name}/claims/email":           claimKey("email", bob, func(i identity.Identity) any { return i.Email }),
	"/auth/oauth/providers/{name}/claims/email_verified":  claimKey("email_verified", true, func(i identity.Identity) any { return i.EmailVerified }),
	"/auth/oauth/providers/{name}/claims/name":            profileKey("name", "Ada Lovelace"),
	"/auth/oauth/providers/{name}/claims/given_name":      profileKey("given_name", "Ada"),
	"/auth/oauth/providers/{name}/claims/family_name":     profileKey("family_name", "Lovelace"),
	"/auth/oauth/providers/{name}/claims/picture":         profileKey("picture", "https://id.example/ada.png"),
	"/auth/oauth/providers/{name}/claims/locale":          profileKey("locale", "en-GB"),
	"/auth/oauth/providers/{name}/display_name": func(t *testing.T) {
		for want, keys := range map[string]map[string]any{"acme": nil, "Acme & Sons": obj("display_name", "Acme & Sons")} {
			list, _ := at(t, newProvider(t), keys).do("GET", "/auth/oauth/providers", nil).at("providers").([]any)
			first, _ := list[0].(map[string]any)
			expect(t, first["display_name"], any(want))
		}
	},
	"/auth/oauth/providers/{name}/client_id": paramKey("client_id", "another", "client_id", "another"),
	"/auth/oauth/providers/{name}/client_secret": func(t *testing.T) {
		p := newProvider(t)
		p.RegisterUser(person("1", email, true))
		at(t, p, nil).identity()
		d := at(t, p, obj("client_secret", "another"))
		d.refusedWith(d.come(d.browser(), "acme", p, ""), "provider_refused")
	},
	"/auth/oauth/providers/{name}/scopes": paramKey("scopes", []string{"openid", "calendar"}, "scope", "openid calendar"),
	"/auth/oauth/providers/{name}/token_endpoint_auth_method": func(t *testing.T) {
		for method, want := range map[string]bool{"client_secret_basic": true, "client_secret_post": false} {
			p := newProvider(t)
			p.RegisterUser(person("1", email, true))
			basic := make(chan bool, 10)
			p.Change(socialtest.Token, func(r *http.Request, _ *socialtest.Answer) {
				_, _, header := r.BasicAuth()
				basic <- header && !r.PostForm.Has("client_secret")
			})
			at(t, p, obj("token_endpoint_auth_method", method)).identity()
			expect(t, <-basic, want)
		}
	},
	"/auth/oauth/providers/{name}/authorization_params": paramKey("authorization_params", obj("hd", "shop.example"), "hd", "shop.example"),
	"/auth/oauth/providers/{name}/keep_tokens": func(t *testing.T) {
		for _, keep := range []bool{false, true} {
			p := newProvider(t)
			p.RegisterUser(person("1", email, true))
			d := at(t, p, obj("keep_tokens", keep))
			kept, err := d.app.Identities().Tokens(t.Context(), d.comes(d.browser(), "acme", p), "acme", "1")
			expect(t, errors.Is(err, identity.ErrNoTokens), !keep)
			expect(t, strings.Contains(string(kept), "access_token"), keep)
		}
	},
	"/auth/oauth/link": func(t *testing.T) {
		for policy, want := range map[string][2]string{
			"verified_email": {"", "link_forbidden"}, "signed_in": {"account_exists", ""}, "never": {"account_exists", "link_forbidden"},
		} {
			arrives, links := arrivesAndLinks(t, policy)
			expect(t, [2]string{arrives, links}, want)
		}
	},
	"/auth/oauth/create_users": func(t *testing.T) {
		for create, want := range map[string]string{"false": "registration_disabled", "true": ""} {
			d := doorsWith(t, `"users":{"allow_registration":`+map[string]string{"false": "true", "true": "false"}[create]+`}`, `"create_users":`+create)
			d.acme.RegisterUser(person("1", email, true))
			r := d.come(d.browser(), "acme", d.acme, "")
			if want == "" {
				expect(t, r.header.Get("Location"), "/")
				continue
			}
			d.refusedWith(r, want)
		}
	},
	"/auth/oauth/redirect_after_login": func(t *testing.T) {
		d := doorsWith(t, ``, `"redirect_after_login":"/welcome"`)
		d.acme.RegisterUser(person("1", email, true))
		expect(t, d.come(d.browser(), "acme", d.acme, "").header.Get("Location"), "/welcome")
		d.acme.SignIn("")
		expect(t, strings.HasPrefix(d.come(d.browser(), "acme", d.acme, "").header.Get("Location"), "/welcome?error=access_denied"), true)
	},
}

// inviteOnly lets in who was invited, and nobody else.
func inviteOnly(t *testing.T) {
	t.Helper()
	m := mailing(t, `"users":{"allow_registration":"invite_only"}`)
	m.want(m.do("POST", "/auth/register", account), 403, "registration_disabled")
	m.invite(email)
	invited := with(account, "invitation", m.token(email))
	m.want(m.do("POST", "/auth/register", with(invited, "email", bob)), 422, "invalid_field")
	m.want(m.do("POST", "/auth/register", invited), 201, "")
	m.want(m.do("POST", "/auth/register", invited), 400, "link_invalid")
}

// invite invites somebody by the direct API.
func (m *mailRoom) invite(address string) {
	m.t.Helper()
	if _, err := m.app.Invitations().Create(m.t.Context(), invitation.NewInvitation{Email: address, InvitedBy: "usr_nobody"}); err != nil {
		m.t.Fatal(err)
	}
}

// Each limit of signing in by others and by mail limits what it is said to limit, and
// nothing but that.
func TestLimitsOfSignIn(t *testing.T) {
	t.Parallel()
	elsewhere := from("198.51.100.9:1")
	for rule, try := range map[string]func(d *door, nth int, edit ...request) *response{
		"mail": func(d *door, nth int, edit ...request) *response {
			path := []string{"/auth/email/verify/send", "/auth/password/forgot", "/auth/magic-link", "/auth/code"}[nth]
			return d.do("POST", path, obj("email", []string{email, "ADA@example.com"}[nth%2]), edit...)
		},
		"mail_address": func(d *door, nth int, edit ...request) *response {
			path := []string{"/auth/code", "/auth/magic-link", "/auth/password/forgot", "/auth/email/verify/send"}[nth]
			return d.do("POST", path, obj("email", fmt.Sprintf("somebody-%d@example.com", nth)), edit...)
		},
		"consume": func(d *door, nth int, edit ...request) *response {
			path := []string{"/auth/email/verify", "/auth/password/reset", "/auth/email/change/confirm", "/auth/magic-link/consume"}[nth]
			body := obj("token", "mot_x")
			if nth == 1 {
				body["new_password"] = password
			}
			r := d.do("POST", path, body, edit...)
			if r.code() == "link_invalid" {
				r.status = 200 // it was counted and looked at
			}
			return r
		},
		"oauth": func(d *door, nth int, edit ...request) *response {
			path := []string{"/auth/oauth/acme/login", "/auth/oauth/acme/callback", "/auth/oauth/bolt/login", "/auth/oauth/bolt/callback"}[nth]
			return d.do("GET", path, nil, edit...)
		},
	} {
		t.Run(rule, func(t *testing.T) {
			t.Parallel()
			d := doors(t, strings.Replace(generous, `"`+rule+`":{"max":1000}`, `"`+rule+`":{"max":2}`, 1))
			for nth := range 2 {
				if r := try(d, nth); r.status >= 400 {
					t.Errorf("try %d: %d %s", nth, r.status, r.raw)
				}
			}
			for nth := 2; nth < 4; nth++ {
				if r := d.want(try(d, nth), 429, "rate_limited"); r.header.Get("Retry-After") == "" {
					t.Error("it does not say when to come back")
				}
			}
			if r := try(d, 2, elsewhere); r.status >= 400 {
				t.Errorf("from elsewhere: %d %s", r.status, r.raw)
			}
		})
	}
}

// What an account's owner may do so often counts by the account, wherever it is done from.
func TestLimitsOfOwners(t *testing.T) {
	t.Parallel()
	limits := func(rule string) string {
		return strings.Replace(generous, `"`+rule+`":{"max":1000}`, `"`+rule+`":{"max":2}`, 1)
	}
	t.Run("identities", func(t *testing.T) {
		t.Parallel()
		d := doors(t, limits("identities"))
		_, ada := d.newUser(email)
		_, ben := d.newUser(bob)
		d.want(d.do("POST", "/auth/identities/acme", obj(), ada), 200, "")
		d.want(d.do("DELETE", "/auth/identities?provider=acme&subject=1", nil, ada), 404, "not_found")
		d.want(d.do("POST", "/auth/identities/acme", obj(), ada, from("198.51.100.9:1")), 429, "rate_limited")
		d.want(d.do("DELETE", "/auth/identities?provider=acme&subject=1", nil, ada), 429, "rate_limited")
		d.want(d.do("POST", "/auth/identities/acme", obj(), ben), 200, "")
	})
	t.Run("invitations", func(t *testing.T) {
		t.Parallel()
		m := mailing(t, mails+`,`+office+`,`+limits("invitations"))
		_, tokens := staff(m.world)
		for _, address := range []string{"1@example.com", "2@example.com"} {
			m.want(m.do("POST", "/auth/invitations", obj("email", address), tokens["users"]), 201, "")
		}
		m.want(m.do("POST", "/auth/invitations", obj("email", "3@example.com"), tokens["users"], from("198.51.100.9:1")), 429, "rate_limited")
		m.want(m.do("POST", "/auth/invitations", obj("email", "3@example.com"), tokens["root"]), 201, "")
	})
}

// The clients of a test may talk to a provider by a client of their own.
func TestOAuthClient(t *testing.T) {
	t.Parallel()
	p := socialtest.NewProvider(t, socialtest.Options{TLS: true})
	p.RegisterUser(person("1", email, true))
	d := at(t, p, nil)
	d.refusedWith(d.do("GET", "/auth/oauth/acme/login", nil), "provider_unavailable")
	at(t, p, nil, func(o *engine.Options) { o.OAuthClient = p.Client() }).identity()
}
