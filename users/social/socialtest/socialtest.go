// Package socialtest is a provider to sign in with in tests: an OpenID provider that
// keeps to OpenID Connect Core and RFC 7636, and GitHub's endpoints beside it. Every
// answer can be changed, so that it can lie as well.
//
// It is on a loopback address and ends with the test.
package socialtest

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// Endpoint names one of the provider's endpoints by its path.
type Endpoint string

// The endpoints. Discovery is also found behind the path of an issuer with one.
const (
	Discovery    Endpoint = "/.well-known/openid-configuration"
	JWKS         Endpoint = "/jwks"
	Authorize    Endpoint = "/authorize"
	Token        Endpoint = "/token"
	UserInfo     Endpoint = "/userinfo"
	GitHubUser   Endpoint = "/user"
	GitHubEmails Endpoint = "/user/emails"
)

// Options configure a [Provider].
type Options struct {
	// ClientID and ClientSecret are the one client's. Defaults "client" and a text with
	// characters that have to be escaped.
	ClientID, ClientSecret string
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// TLS serves https with a certificate that [Provider.Client] trusts.
	TLS bool
}

// User is an account at the provider.
type User struct {
	// Claims are in ID tokens and user information; "sub" is required.
	Claims map[string]any
	// GitHub is the answer of GitHubUser, and Emails that of GitHubEmails.
	GitHub map[string]any
	Emails []any
}

// Answer is what an endpoint is about to answer.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Provider is a running provider. It is safe for concurrent use.
type Provider struct {
	// URL is its address, and the issuer.
	URL string
	// ClientID and ClientSecret are the client's.
	ClientID, ClientSecret string

	server *httptest.Server
	now    func() time.Time

	mu       sync.Mutex
	users    map[string]User
	signedIn string
	grants   map[string]*grant // by code
	access   map[string]string // subjects by access token
	calls    map[Endpoint]int
	answers  map[Endpoint]func(*http.Request, *Answer)
	header   func(map[string]any)
	claims   func(map[string]any)
	idToken  func(string) string
	keys     []Key
}

// grant is a person's consent.
type grant struct{ subject, clientID, redirect, challenge, nonce, scope, issuer string }

// NewProvider starts a provider with one key of EdDSA.
func NewProvider(tb testing.TB, o Options) *Provider {
	tb.Helper()
	p := &Provider{
		ClientID: o.ClientID, ClientSecret: o.ClientSecret, now: o.Now,
		users: map[string]User{}, grants: map[string]*grant{}, access: map[string]string{}, calls: map[Endpoint]int{},
		answers: map[Endpoint]func(*http.Request, *Answer){}, keys: []Key{NewKey(tb, "EdDSA", "k1")},
	}
	if p.ClientID == "" {
		p.ClientID = "client"
	}
	if p.ClientSecret == "" {
		p.ClientSecret = "a secret: 100 % & more+"
	}
	if p.now == nil {
		p.now = time.Now
	}
	p.server = httptest.NewUnstartedServer(p)
	// What a client says that does not trust the certificate is expected.
	p.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	if o.TLS {
		p.server.StartTLS()
	} else {
		p.server.Start()
	}
	p.URL = p.server.URL
	tb.Cleanup(p.server.Close)
	return p
}

// Client returns a client that trusts the provider's certificate.
func (p *Provider) Client() *http.Client { return p.server.Client() }

// RegisterUser adds or replaces the account of Claims["sub"], and signs it in at the
// provider.
func (p *Provider) RegisterUser(u User) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.signedIn, _ = u.Claims["sub"].(string)
	p.users[p.signedIn] = u
}

// SignIn says who sits in front of the browser from now on. Nobody ("") refuses every
// request with access_denied.
func (p *Provider) SignIn(subject string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.signedIn = subject
}

// Change has f change every answer of the endpoint. f may wait. nil ends it.
func (p *Provider) Change(e Endpoint, f func(*http.Request, *Answer)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answers[e] = f
}

// ChangeHeader has f change the header of ID tokens before they are signed. nil ends it.
func (p *Provider) ChangeHeader(f func(map[string]any)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.header = f
}

// ChangeClaims has f change the claims of ID tokens before they are signed. nil ends it.
func (p *Provider) ChangeClaims(f func(map[string]any)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.claims = f
}

// ChangeIDToken has f change ID tokens after they are signed. nil ends it.
func (p *Provider) ChangeIDToken(f func(string) string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idToken = f
}

// SetKeys replaces the keys. The first one signs; all are in the JWK Set.
func (p *Provider) SetKeys(keys ...Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = keys
}

// Key returns the key that signs.
func (p *Provider) Key() Key {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.keys[0]
}

// Calls returns how often the endpoint was called.
func (p *Provider) Calls(e Endpoint) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls[e]
}

// Follow does what a browser does: it opens the address of the authorization request
// and returns the query of the callback that the provider sends it to.
func (p *Provider) Follow(tb testing.TB, address string) url.Values {
	tb.Helper()
	client := *p.server.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	response, err := client.Get(address)
	if err != nil {
		tb.Fatal(err)
	}
	defer response.Body.Close()
	location, err := response.Location()
	if err != nil {
		tb.Fatalf("the provider answers %s: %v", response.Status, err)
	}
	return location.Query()
}

// ServeHTTP implements [http.Handler].
func (p *Provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	endpoint := Endpoint(r.URL.Path)
	if strings.HasSuffix(r.URL.Path, string(Discovery)) {
		endpoint = Discovery
	}
	a := &Answer{Status: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}, "Cache-Control": {"no-store"}}}
	if handle := p.handlers()[endpoint]; handle != nil {
		handle(r, a)
	} else {
		a.Status = http.StatusNotFound
	}
	p.mu.Lock()
	p.calls[endpoint]++
	change := p.answers[endpoint]
	p.mu.Unlock()
	if change != nil {
		change(r, a)
	}
	for name, values := range a.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(a.Status)
	_, _ = w.Write(a.Body)
}

// JSON makes value the body, and status the status.
func (a *Answer) JSON(status int, value any) {
	a.Status = status
	a.Body, _ = json.Marshal(value)
}

// Edit changes one member of the body, which is a JSON object; nil takes it away.
func (a *Answer) Edit(name string, value any) {
	members := map[string]any{}
	_ = json.Unmarshal(a.Body, &members)
	if members[name] = value; value == nil {
		delete(members, name)
	}
	a.Body, _ = json.Marshal(members)
}

func random() string {
	raw := make([]byte, 24)
	_, _ = rand.Read(raw)
	return base64.RawURLEncoding.EncodeToString(raw)
}
