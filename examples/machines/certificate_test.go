package main

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine/enginetest"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/tokens/apikey"
	"github.com/mandate-auth/mandate/tokens/oauth2"
)

// client returns one that presents the certificate, whether or not the server says
// that it would take it; nil presents none.
func (s *service) client(t *testing.T, certificate *tls.Certificate) *http.Client {
	t.Helper()
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: s.ca.pool()}
	if certificate != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate, nil }
	}
	transport := &http.Transport{TLSClientConfig: config}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// certified returns a client with a certificate for the name.
func (s *service) certified(t *testing.T, ca *authority, name string) *http.Client {
	t.Helper()
	certificate, err := ca.client(name)
	if err != nil {
		t.Fatal(err)
	}
	return s.client(t, &certificate)
}

// another makes a client with the role of the worker.
func (s *service) another(t *testing.T) *oauth2.Created {
	t.Helper()
	made, err := s.App.Clients().Create(t.Context(), oauth2.NewClient{Name: "another", Scopes: []string{"readings:write"}})
	if err == nil {
		err = s.App.Authz().GrantRole(t.Context(), made.ID, "device")
	}
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func TestCertificateBesideOtherCredentials(t *testing.T) {
	t.Parallel()
	s := start(t)
	ada := s.Start(t, enginetest.User{Email: "ada@example.com"})
	key, err := s.App.APIKeys().Create(t.Context(), apikey.NewKey{UserID: ada.UserID, Name: "cron", Scopes: []string{"readings:write"}})
	if err != nil {
		t.Fatal(err)
	}
	certified, bare := s.certified(t, s.ca, s.worker.ID), s.client(t, nil)
	token, person := "Bearer "+s.token(t, s.worker.ID), "Bearer "+ada.AccessToken
	foreign := "Bearer " + s.token(t, s.another(t).ID)
	by := func(id string, c authz.Credential) string {
		return `"by":"` + id + `","credential":"` + string(c) + `"`
	}
	for _, c := range []struct {
		name   string
		client *http.Client
		to     string
		header []string
		status int
		want   string
	}{
		{"the right one", certified, "POST /readings", nil, 201, by(s.worker.ID, "certificate")},
		{"none", bare, "POST /readings", nil, 401, "unauthenticated"},
		{"none is not its business: a token counts", bare, "POST /readings", []string{"Authorization", token}, 201, by(s.worker.ID, authz.CredentialClientToken)},
		{"none is not its business: a key counts", bare, "POST /readings", []string{"X-API-Key", key.Key}, 201, by(ada.UserID, authz.CredentialAPIKey)},
		{"the token of its client", certified, "POST /readings", []string{"Authorization", token}, 201, by(s.worker.ID, authz.CredentialClientToken)},

		{"a wrong token", certified, "POST /readings", []string{"Authorization", "Bearer x.y.z"}, 401, "token_invalid"},
		{"a malformed token", certified, "POST /readings", []string{"Authorization", "Bearer a b"}, 400, "invalid_request"},
		{"a wrong key", certified, "POST /readings", []string{"X-API-Key", "mch_x"}, 401, ""},
		{"a token of somebody else", certified, "POST /readings", []string{"Authorization", foreign}, 400, "invalid_request"},
		{"a key of somebody else", certified, "POST /readings", []string{"X-API-Key", key.Key}, 400, "invalid_request"},
		{"a token that the rule does not name", certified, "POST /readings", []string{"Authorization", person}, 400, "invalid_request"},

		{"where no rule names it: recognised", certified, "GET /report", nil, 403, "human_required"},
		{"where no rule names it: a wrong token", certified, "GET /report", []string{"Authorization", "Bearer x.y.z"}, 401, "token_invalid"},
		{"where no rule names it: a right token counts alone", certified, "GET /report", []string{"Authorization", person}, 200, ""},

		{"where both are asked for: alone", certified, "PUT /calibration", nil, 401, "unauthenticated"},
		{"where both are asked for: the token alone", bare, "PUT /calibration", []string{"Authorization", token}, 401, "unauthenticated"},
		{"where both are asked for: both", certified, "PUT /calibration", []string{"Authorization", token}, 204, ""},
		{"where both are asked for: of two clients", certified, "PUT /calibration", []string{"Authorization", foreign}, 400, "invalid_request"},
	} {
		method, path, _ := strings.Cut(c.to, " ")
		status, body := s.call(t, c.client, method, s.secure.URL+path, c.header...)
		if status != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%s, %s: %d %s, want %d with %q", c.to, c.name, status, body, c.status, c.want)
		}
	}
}

func TestCertificateOfAnotherAuthorityEndsTheHandshake(t *testing.T) {
	t.Parallel()
	s := start(t)
	other, err := newAuthority()
	if err != nil {
		t.Fatal(err)
	}
	server, err := s.ca.server()
	if err != nil {
		t.Fatal(err)
	}
	for name, client := range map[string]*http.Client{
		"another authority":     s.certified(t, other, s.worker.ID),
		"one meant for servers": s.client(t, &server),
	} {
		res, err := client.Get(s.secure.URL + "/report")
		if err == nil {
			res.Body.Close()
			t.Errorf("%s: answered with %s, want the end of the handshake", name, res.Status)
		}
	}
}

func TestCertificateThatNobodyHasVerifiedIsRefused(t *testing.T) {
	t.Parallel()
	s := start(t)
	careless := httptest.NewUnstartedServer(s.secure.Config.Handler)
	careless.TLS = s.secure.TLS.Clone()
	careless.TLS.ClientAuth = tls.RequestClientCert
	careless.StartTLS()
	defer careless.Close()
	other, err := newAuthority()
	if err != nil {
		t.Fatal(err)
	}
	for name, ca := range map[string]*authority{"the right authority": s.ca, "another authority": other} {
		status, body := s.call(t, s.certified(t, ca, s.worker.ID), "POST", careless.URL+"/readings")
		if status != http.StatusUnauthorized || !strings.Contains(body, "invalid_credentials") {
			t.Errorf("%s, on a listener that verifies nothing: %d %s, want 401 invalid_credentials", name, status, body)
		}
		if strings.Contains(body, "ClientAuth") {
			t.Errorf("%s: the answer %s tells how the service is set up", name, body)
		}
	}
	s.Events.Wait(t, event.AuthenticatorRefused) // or nobody would be told
}

func TestCertificateEndsWithItsClient(t *testing.T) {
	t.Parallel()
	s := start(t)
	made := s.another(t)
	certified := s.certified(t, s.ca, made.ID)
	want := func(what string, status int) {
		t.Helper()
		if got, body := s.call(t, certified, "POST", s.secure.URL+"/readings"); got != status {
			t.Errorf("the certificate of a client that is %s: %d %s, want %d", what, got, body, status)
		}
	}
	want("active", http.StatusCreated)
	if err := s.App.Clients().Disable(t.Context(), made.ID, "test"); err != nil {
		t.Fatal(err)
	}
	want("disabled", http.StatusUnauthorized)
	if err := s.App.Clients().Enable(t.Context(), made.ID); err != nil {
		t.Fatal(err)
	}
	want("enabled again", http.StatusCreated)
	if err := s.App.DeleteClient(t.Context(), made.ID); err != nil {
		t.Fatal(err)
	}
	want("deleted", http.StatusUnauthorized)
	for _, name := range []string{"", "cli_", "usr_00000000000000000000000000", "worker"} {
		if status, body := s.call(t, s.certified(t, s.ca, name), "POST", s.secure.URL+"/readings"); status != http.StatusUnauthorized {
			t.Errorf("a certificate for %q, which is no client: %d %s, want 401", name, status, body)
		}
	}
}

func TestCertificateIsLookedAtAnewOnAnOldConnection(t *testing.T) {
	t.Parallel()
	s := start(t)
	certificate, err := s.ca.client(s.worker.ID)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/", http.NoBody)
	r.TLS = &tls.ConnectionState{
		PeerCertificates: []*x509.Certificate{certificate.Leaf}, VerifiedChains: [][]*x509.Certificate{{certificate.Leaf, s.ca.certificate}},
	}
	for at, valid := range map[time.Duration]bool{-time.Second: true, time.Second: false} {
		c := &certificates{clients: s.App.Clients, now: func() time.Time { return certificate.Leaf.NotAfter.Add(at) }}
		p, err := c.Authenticate(r)
		if (err == nil) != valid || (p != nil) != valid {
			t.Errorf("%s after its end: %v, %v; want it to be accepted: %t", at, p, err, valid)
		}
	}
}
