package enginetest_test

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/engine/enginetest"
)

const cookieOnly = `{"slug":"shop","environment":"development","auth":{"tokens":{"transport":"cookie"}}}`

func TestSignIn(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]*enginetest.Options{
		"bearer": nil, "cookie": {Manifest: cookieOnly},
		"cookie for a domain": {Manifest: strings.Replace(cookieOnly, `"tokens"`, `"cookies":{"domain":"shop.example"},"tokens"`, 1)},
	} {
		for scheme, serve := range map[string]func(http.Handler) *httptest.Server{"http": httptest.NewServer, "https": httptest.NewTLSServer} {
			t.Run(name+" over "+scheme, func(t *testing.T) {
				t.Parallel()
				env := enginetest.New(t, opts)
				server := serve(service(env.App))
				defer server.Close()
				client := server.Client()
				defer client.CloseIdleConnections()
				if got := status(t, client, "GET", server.URL+"/who"); got != 401 {
					t.Errorf("nobody gets %d", got)
				}
				env.SignIn(t, client, enginetest.User{Email: "ada@example.com"})
				if got := status(t, client, "GET", server.URL+"/who"); got != 200 {
					t.Errorf("the user gets %d", got)
				}
				if got := status(t, client, "POST", server.URL+"/admin"); got != 403 {
					t.Errorf("the user gets %d from /admin", got)
				}
				env.SignIn(t, client, enginetest.User{Email: "ada@example.com", Roles: []string{"admin"}})
				if got := status(t, client, "POST", server.URL+"/admin"); got != 204 {
					t.Errorf("the admin gets %d from /admin", got)
				}
				env.Clock.Advance(16 * time.Minute)
				if got := status(t, client, "GET", server.URL+"/who"); got != 401 {
					t.Errorf("a token that is over gets %d", got)
				}
				enginetest.SignOut(client)
				if got := status(t, client, "GET", server.URL+"/who"); got != 401 {
					t.Errorf("nobody again gets %d", got)
				}
			})
		}
	}
}

// Two credentials are refused, so a session in the client's jar has to give way:
// that of ada, who came in by the login form.
func TestSignInOverACookieJar(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"cookie", "both"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			env := enginetest.New(t, &enginetest.Options{Manifest: strings.Replace(cookieOnly, `"cookie"`, `"`+transport+`"`, 1)})
			server := httptest.NewServer(service(env.App))
			defer server.Close()
			jar, err := cookiejar.New(nil)
			if err != nil {
				t.Fatal(err)
			}
			client := &http.Client{Jar: jar, Transport: server.Client().Transport}
			ada := env.Start(t, enginetest.User{Email: "ada@example.com"})
			login := env.Request(t, "POST", server.URL+"/auth/login", map[string]any{
				"email": "ada@example.com", "password": enginetest.Password, "transport": "cookie",
			}, nil)
			login.RequestURI = ""
			if got := send(t, client, login); !strings.Contains(got, ada.UserID) {
				t.Fatalf("login: %s", got)
			}
			base, err := url.Parse(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			jar.SetCookies(base, []*http.Cookie{{Name: "theme", Value: "dark"}})
			who := func() string { return send(t, client, get(t, server.URL+"/who")) }
			if got := who(); got != ada.UserID+" dark" {
				t.Fatalf("by the jar: %s", got)
			}
			bob := env.SignIn(t, client, enginetest.User{Email: "bob@example.com"})
			if got := who(); got != bob.UserID+" dark" {
				t.Errorf("the session of bob is %s", got)
			}
			enginetest.SignOut(client)
			if got := who(); got != ada.UserID+" dark" {
				t.Errorf("by the jar again: %s", got)
			}
		})
	}
}

func get(t *testing.T, url string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func send(t *testing.T, client *http.Client, r *http.Request) string {
	t.Helper()
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// The second client is made from the first one, session and all: it must not go
// on as the first user.
func TestTwoUsers(t *testing.T) {
	t.Parallel()
	env := enginetest.New(t, nil)
	server := httptest.NewServer(service(env.App))
	defer server.Close()
	first := server.Client()
	ada := env.SignIn(t, first, enginetest.User{Email: "ada@example.com"})
	second := &http.Client{Transport: first.Transport}
	bob := env.SignIn(t, second, enginetest.User{Email: "bob@example.com"})
	var wg sync.WaitGroup
	for client, session := range map[*http.Client]*enginetest.Session{first: ada, second: bob} {
		for range 4 {
			r := get(t, server.URL+"/who")
			wg.Go(func() {
				res, err := client.Do(r)
				if err != nil {
					t.Error(err)
					return
				}
				defer res.Body.Close()
				if body, _ := io.ReadAll(res.Body); string(body) != session.UserID {
					t.Errorf("got %s, want %s", body, session.UserID)
				}
			})
		}
	}
	wg.Wait()
}

// idle counts how often its idle connections are closed.
type idle struct {
	http.RoundTripper
	closed int
}

func (i *idle) CloseIdleConnections() { i.closed++ }

// Connections that stay would be goroutines that outlive the service's test.
func TestSignedInClientClosesItsConnections(t *testing.T) {
	t.Parallel()
	env := enginetest.New(t, nil)
	transport := &idle{}
	client := &http.Client{Transport: transport}
	env.SignIn(t, client, enginetest.User{Email: "ada@example.com"})
	if client.CloseIdleConnections(); transport.closed != 1 {
		t.Errorf("closed %d times", transport.closed)
	}
}
