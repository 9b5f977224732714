package enginetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/users"
)

// User is somebody who signs in.
type User struct {
	// Email names the user. An account is made when there is none.
	Email string
	// Profile is that of an account that is made.
	Profile map[string]any
	// Roles are granted besides the manifest's registration_role.
	Roles []string
}

// Password is that of every account that this package makes.
const Password = "a passphrase for tests only"

// Session is a sign-in.
type Session struct {
	UserID       string
	AccessToken  string
	RefreshToken string

	app *engine.App
}

// Start signs the user in to the app, without any HTTP, and makes the account
// when it is missing.
func (e *Env) Start(tb testing.TB, u User) *Session {
	tb.Helper()
	ctx := tb.Context()
	account, err := e.App.Users().GetByEmail(ctx, u.Email)
	if errors.Is(err, users.ErrNotFound) {
		account, err = e.App.Users().Create(ctx, users.NewUser{Email: u.Email, Password: Password, Profile: u.Profile})
	}
	if err != nil {
		tb.Fatalf("the user %s: %v", u.Email, err)
	}
	for _, role := range u.Roles {
		if err := e.App.Authz().GrantRole(ctx, account.ID, role); err != nil {
			tb.Fatalf("the role %s of %s: %v", role, u.Email, err)
		}
	}
	g, err := e.App.StartSession(ctx, account.ID, engine.Device{Name: "test"}, false)
	if err != nil {
		tb.Fatalf("sign in %s: %v", u.Email, err)
	}
	return &Session{UserID: account.ID, AccessToken: g.Access.Token, RefreshToken: g.Session.RefreshToken, app: e.App}
}

// SignIn makes the client carry a session of the user with every request, wherever
// it goes: as a bearer token, or as a cookie where the manifest's transport is
// "cookie". It takes the place of the session that the client carried before, and
// of one in its cookie jar. It refreshes nothing: a test that moves the clock signs
// in again.
//
// It wraps client.Transport, so the client must not be in use meanwhile. Two users
// need two clients; httptest.Server.Client returns the same one each time.
func (e *Env) SignIn(tb testing.TB, client *http.Client, u User) *Session {
	tb.Helper()
	s := e.Start(tb, u)
	SignOut(client)
	base := client.Transport
	if base == nil {
		base = http.DefaultTransport
	}
	client.Transport = &carrier{base: base, session: s}
	return s
}

// SignOut makes the client carry no session any more. The session lives on: what
// ends it is the app's route, or App.Logout.
func SignOut(client *http.Client) {
	if c, ok := client.Transport.(*carrier); ok {
		client.Transport = c.base
	}
}

// carrier sends a session with every request.
type carrier struct {
	base    http.RoundTripper
	session *Session
}

// RoundTrip implements [http.RoundTripper].
func (c *carrier) RoundTrip(r *http.Request) (*http.Response, error) {
	own := r.Clone(r.Context())
	c.session.Carry(own)
	return c.base.RoundTrip(own)
}

// CloseIdleConnections is what http.Client looks for: without it the connections
// of a client that is signed in would outlive the test.
func (c *carrier) CloseIdleConnections() {
	if base, ok := c.base.(interface{ CloseIdleConnections() }); ok {
		base.CloseIdleConnections()
	}
}

// Carry makes a request carry the session instead of the one that it may carry
// already.
func (s *Session) Carry(r *http.Request) {
	// A second credential, from a cookie jar for instance, would be refused.
	s.dropCookies(r)
	if s.app.Manifest().Auth.Tokens.Transport != "cookie" {
		r.Header.Set("Authorization", "Bearer "+s.AccessToken)
		return
	}
	// The name depends on the connection and on the manifest's domain; the app
	// reads the one that fits and no other.
	for _, prefix := range cookiePrefixes {
		r.AddCookie(&http.Cookie{Name: prefix + s.app.Slug() + "_access", Value: s.AccessToken})
	}
	r.Header.Set("X-Requested-With", "enginetest")
}

// cookiePrefixes begin the names of an app's cookies.
var cookiePrefixes = []string{"__Host-", "__Secure-", ""}

// dropCookies takes the session cookies of the app out of a request. All others
// stay byte for byte.
func (s *Session) dropCookies(r *http.Request) {
	var kept []string
	for _, line := range r.Header.Values("Cookie") {
		for pair := range strings.SplitSeq(line, ";") {
			name, _, _ := strings.Cut(strings.TrimSpace(pair), "=")
			ours := slices.ContainsFunc(cookiePrefixes, func(prefix string) bool {
				return name == prefix+s.app.Slug()+"_access" || name == prefix+s.app.Slug()+"_refresh"
			})
			if !ours {
				kept = append(kept, strings.TrimSpace(pair))
			}
		}
	}
	r.Header.Del("Cookie")
	if len(kept) > 0 {
		r.Header.Set("Cookie", strings.Join(kept, "; "))
	}
}

// Request returns a request for a handler that is called without a server. A body
// that is a string is sent as it is, any other as JSON; nil is none. as may be
// nil for nobody.
func (e *Env) Request(tb testing.TB, method, target string, body any, as *Session) *http.Request {
	tb.Helper()
	var reader io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		reader = strings.NewReader(b)
	default:
		raw, err := json.Marshal(b)
		if err != nil {
			tb.Fatal(err)
		}
		reader = bytes.NewReader(raw)
	}
	r := httptest.NewRequestWithContext(tb.Context(), method, target, reader)
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if as != nil {
		as.Carry(r)
	}
	return r
}
