// Package provider is an OpenID provider for trying things out: it has a few ready
// accounts, and whoever opens its page picks one, without a password. It keeps
// everything in memory. The protocol is that of github.com/zitadel/oidc.
package provider

import (
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/zitadel/oidc/v3/pkg/op"
)

// Account is somebody who can sign in.
type Account struct {
	Subject  string
	Name     string
	Email    string
	Verified bool
}

// Accounts are those that [New] offers when the configuration has none: one address
// that the provider has verified, and one that it has not.
var Accounts = []Account{
	{Subject: "ada", Name: "Ada", Email: "ada@example.com", Verified: true},
	{Subject: "bob", Name: "Bob", Email: "bob@example.com"},
}

// Config says who the provider is, and the one service that uses it. All but
// Accounts and Now are required.
type Config struct {
	// Issuer is the URL that the provider is served on, without a path.
	Issuer string
	// ClientID, ClientSecret and RedirectURI are the service's.
	ClientID, ClientSecret, RedirectURI string
	// Accounts are who can sign in. Default [Accounts].
	Accounts []Account
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Provider is the provider's HTTP handler. It is safe for concurrent use.
type Provider struct {
	mux    *http.ServeMux
	op     *op.Provider
	store  *store
	origin string // of the service
}

// New returns a provider with a signing key of its own.
func New(c Config) (*Provider, error) {
	service, err := url.Parse(c.RedirectURI)
	if err != nil || service.Host == "" || c.Issuer == "" || c.ClientID == "" || c.ClientSecret == "" {
		return nil, errors.New("provider: set Issuer, ClientID, ClientSecret and an absolute RedirectURI")
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	if c.Accounts == nil {
		c.Accounts = Accounts
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	p := &Provider{
		mux: http.NewServeMux(), origin: service.Scheme + "://" + service.Host,
		store: newStore(&client{id: c.ClientID, secret: c.ClientSecret, redirect: c.RedirectURI}, &signingKey{id: rand.Text(), key: key}, c.Accounts, c.Now),
	}
	config := &op.Config{CodeMethodS256: true, AuthMethodPost: true}
	if _, err := rand.Read(config.CryptoKey[:]); err != nil {
		return nil, err
	}
	options := []op.Option{op.WithLogger(slog.New(slog.DiscardHandler))}
	if u, err := url.Parse(c.Issuer); err == nil && u.Scheme == "http" {
		options = append(options, op.WithAllowInsecure())
	}
	if p.op, err = op.NewProvider(config, p.store, op.StaticIssuer(c.Issuer), options...); err != nil {
		return nil, err
	}
	p.mux.HandleFunc("GET "+loginPath, p.choose)
	p.mux.HandleFunc("POST "+loginPath, p.chosen)
	p.mux.HandleFunc("GET "+stylePath, style)
	p.mux.Handle("/", p.op)
	return p, nil
}

// ServeHTTP answers the endpoints of OpenID Connect and the page to pick an account.
func (p *Provider) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.mux.ServeHTTP(w, r) }
