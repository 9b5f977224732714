package social_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/mandate-auth/mandate/users/social"
	"github.com/mandate-auth/mandate/users/social/socialtest"
)

// publicIssuer is the issuer of google.
const publicIssuer = "https://accounts.google.com"

// google makes the provider Google, whose public address the transport takes to the
// test's server.
func google(e *env, c *social.ProviderConfig) {
	c.Preset, c.Issuer = "google", ""
	e.config.Client = &http.Client{Transport: toServer{e.provider}}
	e.provider.ChangeClaims(func(claims map[string]any) { claims["iss"] = publicIssuer })
	e.provider.Change(socialtest.Discovery, func(_ *http.Request, a *socialtest.Answer) {
		a.Edit("issuer", publicIssuer)
		for name, path := range map[string]string{
			"authorization_endpoint": "/authorize", "token_endpoint": "/token", "userinfo_endpoint": "/userinfo", "jwks_uri": "/jwks",
		} {
			a.Edit(name, publicIssuer+path)
		}
	})
}

// toServer takes the calls of a public address to the test's server, and no others.
type toServer struct{ provider *socialtest.Provider }

func (s toServer) RoundTrip(r *http.Request) (*http.Response, error) {
	u, err := url.Parse(s.provider.URL)
	if err != nil || !strings.HasPrefix(r.URL.String(), publicIssuer+"/") {
		return nil, http.ErrNotSupported
	}
	r = r.Clone(r.Context())
	r.URL.Scheme, r.URL.Host = u.Scheme, u.Host
	return s.provider.Client().Transport.RoundTrip(r)
}

// signInPublicly goes the way with the browser's part at the test's server.
func (e *env) signInPublicly(t *testing.T) (*social.Result, error) {
	t.Helper()
	f, err := e.set.Begin(t.Context(), "corp", social.BeginOptions{})
	if err != nil {
		return nil, err
	}
	query := e.provider.Follow(t, strings.Replace(f.URL, publicIssuer, e.provider.URL, 1))
	query.Set("iss", publicIssuer)
	return e.finish(t, query, f.Cookie)
}

// Google's hint for a domain can be taken out of the address by whoever signs in, so
// the token has to name the domain.
func TestGoogleDomain(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		want string
		got  any
		ok   bool
	}{
		{"", nil, true},
		{"corp.example", "corp.example", true},
		{"corp.example", "evil.example", false},
		{"corp.example", "CORP.example", false},
		{"corp.example", []string{"corp.example"}, false},
		{"corp.example", nil, false},
		{"*", "evil.example", true},
		{"*", "", false},
		{"*", nil, false},
	} {
		e := setup(t, google, func(_ *env, c *social.ProviderConfig) {
			if test.want != "" {
				c.AuthParams = map[string]string{"hd": test.want}
			}
		})
		e.provider.ChangeClaims(func(claims map[string]any) { claims["iss"], claims["hd"] = publicIssuer, test.got })
		r, err := e.signInPublicly(t)
		if !test.ok {
			refused(t, r, err, social.ErrProvider, "hosted_domain")
			continue
		}
		if err != nil || r.Issuer != publicIssuer || !r.Info.EmailVerified || e.provider.Calls(socialtest.UserInfo) != 0 {
			t.Errorf("%+v: %+v, %v", test, r, err)
		}
	}
}

// An issuer in public must not make the service call its own machine, nor be another
// spelling of itself, which the library accepts of Google.
func TestHostilePublicIssuers(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"https://127.0.0.1/x", "https://localhost/x", "https://[::1]/x", "http://127.0.0.1/x", "http://accounts.google.com/x"} {
		for _, name := range []string{"authorization_endpoint", "token_endpoint", "userinfo_endpoint", "jwks_uri"} {
			e := setup(t, google)
			e.provider.Change(socialtest.Discovery, func(_ *http.Request, a *socialtest.Answer) {
				for _, name := range []string{"authorization_endpoint", "token_endpoint", "userinfo_endpoint", "jwks_uri"} {
					a.Edit(name, publicIssuer+"/"+name)
				}
				a.Edit("issuer", publicIssuer)
				a.Edit(name, address)
			})
			r, err := e.signInPublicly(t)
			refused(t, r, err, social.ErrProvider, "discovery")
		}
	}
	e := setup(t, google)
	e.provider.ChangeClaims(func(claims map[string]any) { claims["iss"] = "accounts.google.com" })
	r, err := e.signInPublicly(t)
	refused(t, r, err, social.ErrProvider, "id_token")
}
