package social_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/users/social"
	"github.com/mandate-auth/mandate/users/social/socialtest"
)

// What the libraries below take and nobody should: answers of every good status are read
// strictly, and what is kept of them is bounded.
func TestLenientAnswers(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*http.Request, *socialtest.Answer){
		"201 with a name twice": func(_ *http.Request, a *socialtest.Answer) {
			a.Status = http.StatusCreated
			a.Body = append([]byte(`{"access_token":"other",`), a.Body[1:]...)
		},
		"203 as text": func(_ *http.Request, a *socialtest.Answer) {
			a.Status = http.StatusNonAuthoritativeInfo
			a.Header.Set("Content-Type", "text/html")
		},
		"a megabyte of scopes": edit("scope", strings.Repeat("a ", 500_000)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := setup(t, func(_ *env, c *social.ProviderConfig) { c.KeepTokens = true })
			e.provider.Change(socialtest.Token, change)
			r, err := attempt(t, e)
			refused(t, r, err, social.ErrProvider, "token_endpoint")
		})
	}
}

// discovered is a provider whose endpoints are at a host.
type discovered struct{ host string }

func (d discovered) RoundTrip(r *http.Request) (*http.Response, error) {
	b := `{"issuer":"https://id.example","authorization_endpoint":"https://id.example/a","token_endpoint":"https://` + d.host + `/t","jwks_uri":"https://id.example/k"}`
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(b)), Request: r}, nil
}

// Only an issuer on this machine names addresses of this machine, however it spells them.
func TestEndpointsOnThisMachine(t *testing.T) {
	t.Parallel()
	for host, taken := range map[string]bool{
		"127.0.0.1": false, "0.0.0.0": false, "[::]": false, "[::1]": false, "[::ffff:127.0.0.1]": false, "localhost": false, "localhost.": false,
		"LOCALHOST": false, "x.localhost": false, "127.1": false, "2130706433": false, "0x7f000001": false, "0177.0.0.1": false, "127.0.0.1.": false,
		"id.example": true, "id.example.": true, "login.example": true, "192.0.2.1": true, "[2001:db8::1]": true, "localhost.example": true,
	} {
		e := setup(t, func(e *env, c *social.ProviderConfig) {
			e.config.Client = &http.Client{Transport: discovered{host}}
			c.Issuer = "https://id.example"
		})
		if _, err := e.set.Begin(t.Context(), "corp", social.BeginOptions{}); (err == nil) != taken {
			t.Errorf("%s: %v", host, err)
		}
	}
}

// A sign-in that cannot begin is in the events, like one that is refused in the end.
func TestBeginIsReported(t *testing.T) {
	t.Parallel()
	e := setup(t)
	e.provider.Change(socialtest.Discovery, func(_ *http.Request, a *socialtest.Answer) { a.Status = http.StatusNotFound })
	if _, err := e.set.Begin(t.Context(), "corp", social.BeginOptions{}); err == nil {
		t.Fatal("begun")
	}
	if list := e.events.all(); len(list) != 1 || list[0].Type != event.IdentityRefused || list[0].Reason != "discovery" || list[0].Metadata["provider"] != "corp" {
		t.Errorf("events %+v", list)
	}
}
