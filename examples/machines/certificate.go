package main

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/tokens/oauth2"
)

// certificates is an [engine.Authenticator] for TLS client certificates: one whose
// common name is the id of a client is another credential of that client. The TLS
// listener has verified it against the authority (tls.VerifyClientCertIfGiven) before
// any request is read.
type certificates struct {
	clients func() *oauth2.Store
	now     func() time.Time
}

// authenticators are the service's own. eng is asked for when somebody calls: the app
// is not there yet when its authenticators are made.
func authenticators(eng func() *engine.Engine) map[string]engine.NewAuthenticator {
	return map[string]engine.NewAuthenticator{
		"certificate": func(slug string) (engine.Authenticator, error) {
			return &certificates{clients: func() *oauth2.Store { return eng().App(slug).Clients() }, now: time.Now}, nil
		},
	}
}

// The refusals, all of them 401 invalid_credentials. What they say goes to the log,
// not to the caller.
var (
	errUnverified = errors.New("the listener has not verified the certificate: set ClientAuth to tls.VerifyClientCertIfGiven, and ClientCAs")
	errExpired    = errors.New("the certificate has expired")
	errDisabled   = errors.New("the certificate's client is disabled")
)

// Authenticate implements [engine.Authenticator].
func (c *certificates) Authenticate(r *http.Request) (*engine.Principal, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return nil, nil // no certificate: not ours, and no error
	}
	// What the peer sends is its own word until a chain leads to the authority.
	if len(r.TLS.VerifiedChains) == 0 {
		return nil, errUnverified
	}
	certificate := r.TLS.PeerCertificates[0]
	// The handshake has looked at the time; the connection may be older than a day.
	if c.now().After(certificate.NotAfter) {
		return nil, errExpired
	}
	// A client that was disabled or deleted must not live on in its certificate. A
	// database that is away stays 503.
	client, err := c.clients().Get(r.Context(), certificate.Subject.CommonName)
	if err != nil {
		return nil, fmt.Errorf("the certificate's client: %w", err)
	}
	if client.Status != oauth2.Active {
		return nil, errDisabled
	}
	return &engine.Principal{
		ID: client.ID, ClientID: client.ID, Kind: authz.KindService, Scopes: client.Scopes, ExpiresAt: certificate.NotAfter,
	}, nil
}
