package mail_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/mandate-auth/mandate/mail"
)

// identity is a certificate for 127.0.0.1, and the pool that trusts it.
type identity struct {
	cert tls.Certificate
	pool *x509.CertPool
}

func newIdentity() (identity, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return identity{}, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mail.example"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return identity{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return identity{}, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return identity{cert: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool: pool}, nil
}

var trusted = sync.OnceValues(newIdentity)

// received is one message as a server has it.
type received struct {
	from string
	to   []string
	utf8 bool
	data []byte
}

// server is an SMTP server. Its fields are set before it starts.
type server struct {
	mode       mail.TLSMode
	noStartTLS bool
	utf8       bool
	insecure   bool     // AUTH is offered in the clear
	mechanisms []string // of AUTH
	user, pass string
	// The answers at each stage, nil for yes. onData may do harm to the connection.
	onMail, onRcpt error
	onData         func(c *smtp.Conn, r io.Reader) error

	port int
	mu   sync.Mutex
	got  []received
	auth []string // "mechanism user pass tls" of each attempt
}

func (s *server) messages() []received {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]received(nil), s.got...)
}

func (s *server) attempts() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.auth...)
}

// start listens on 127.0.0.1 until the test ends.
func (s *server) start(t testing.TB) *server {
	t.Helper()
	id, err := trusted()
	if err != nil {
		t.Fatal(err)
	}
	srv := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		plain := &session{server: s, conn: c}
		if len(s.mechanisms) == 0 {
			return plain, nil
		}
		return &authSession{plain}, nil
	}))
	srv.Domain, srv.ErrorLog, srv.EnableSMTPUTF8, srv.AllowInsecureAuth = "mail.example", log.New(io.Discard, "", 0), s.utf8, s.insecure
	config := &tls.Config{Certificates: []tls.Certificate{id.cert}, MinVersion: tls.VersionTLS12}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.port = l.Addr().(*net.TCPAddr).Port
	switch {
	case s.mode == mail.ImplicitTLS:
		l = tls.NewListener(l, config)
	case s.mode == mail.NoTLS || s.noStartTLS:
	default:
		srv.TLSConfig = config
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l)
	}()
	t.Cleanup(func() {
		_ = srv.Close()
		_ = l.Close() // the server may not know it yet
		<-done
	})
	return s
}

// config is that of a mailer for the server.
func (s *server) config(t testing.TB) mail.SMTPConfig {
	t.Helper()
	id, err := trusted()
	if err != nil {
		t.Fatal(err)
	}
	return mail.SMTPConfig{
		Host: "127.0.0.1", Port: s.port, TLS: s.mode, TLSConfig: &tls.Config{RootCAs: id.pool, MinVersion: tls.VersionTLS12},
		Now: func() time.Time { return sentAt },
	}
}

// sentAt is the clock of the mailers.
var sentAt = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

func (s *server) mailer(t testing.TB, change ...func(*mail.SMTPConfig)) *mail.SMTP {
	t.Helper()
	config := s.config(t)
	for _, c := range change {
		c(&config)
	}
	m, err := mail.NewSMTP(config)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// session is one connection of the server.
type session struct {
	server *server
	conn   *smtp.Conn
	now    received
}

func (s *session) Reset()        { s.now = received{} }
func (s *session) Logout() error { return nil }

func (s *session) Mail(from string, opts *smtp.MailOptions) error {
	s.now.from, s.now.utf8 = from, opts.UTF8
	return s.server.onMail
}

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.now.to = append(s.now.to, to)
	return s.server.onRcpt
}

func (s *session) Data(r io.Reader) error {
	if s.server.onData != nil {
		return s.server.onData(s.conn, r)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.now.data = data
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	s.server.got = append(s.server.got, s.now)
	return nil
}

// authSession is one that offers AUTH.
type authSession struct{ *session }

func (s *authSession) AuthMechanisms() []string { return s.server.mechanisms }

func (s *authSession) Auth(mechanism string) (sasl.Server, error) {
	_, encrypted := s.conn.TLSConnectionState()
	return &login{session: s.session, mechanism: mechanism, encrypted: encrypted}, nil
}

// login is the server's side of PLAIN and LOGIN.
type login struct {
	*session
	mechanism string
	encrypted bool
	user      string
	step      int
}

func (l *login) Next(response []byte) (challenge []byte, done bool, err error) {
	l.step++
	if l.mechanism == "PLAIN" {
		parts := bytes.Split(response, []byte{0})
		if len(parts) != 3 {
			return nil, false, errors.New("malformed")
		}
		return nil, true, l.decide(string(parts[1]), string(parts[2]))
	}
	switch l.step {
	case 1:
		return []byte("Username:"), false, nil
	case 2:
		l.user = string(response)
		return []byte("Password:"), false, nil
	default:
		return nil, true, l.decide(l.user, string(response))
	}
}

func (l *login) decide(user, pass string) error {
	s := l.server
	s.mu.Lock()
	defer s.mu.Unlock()
	protection := " clear"
	if l.encrypted {
		protection = " tls"
	}
	s.auth = append(s.auth, l.mechanism+" "+user+" "+pass+protection)
	if user != s.user || pass != s.pass {
		// A server that repeats what it was given.
		return &smtp.SMTPError{Code: 535, EnhancedCode: smtp.EnhancedCode{5, 7, 8}, Message: "wrong: " + pass}
	}
	return nil
}
