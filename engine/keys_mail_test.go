package engine_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"math/big"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/mail"
)

// everyMailKey has every key of auth.mail.
const everyMailKey = `"mail":{"from":"Shop <no-reply@shop.example>","reply_to":"help@shop.example","smtp":{"host":"mail.shop.example","port":25,"username":"u","password":"p"}}`

// delivered is a message as a mail server has it.
type delivered struct {
	user, password, to string
	encrypted          bool
}

// mailServer is a real mail server on the loopback interface that takes everything.
type mailServer struct {
	host string
	port int
	ca   *x509.CertPool
	came chan delivered
}

// newMailServer listens on the address, with TLS from the first byte or on demand.
func newMailServer(t *testing.T, host string, implicit bool) *mailServer {
	t.Helper()
	cert, ca := certificate(t, host)
	m := &mailServer{host: host, ca: ca, came: make(chan delivered, 10)}
	srv := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		_, encrypted := c.TLSConnectionState()
		return &mailSession{server: m, now: delivered{encrypted: encrypted}}, nil
	}))
	srv.Domain, srv.ErrorLog, srv.AllowInsecureAuth = "mail.example", log.New(io.Discard, "", 0), true
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	m.port = l.Addr().(*net.TCPAddr).Port
	config := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	if implicit {
		l = tls.NewListener(l, config)
	} else {
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
	return m
}

// certificate is one for the address, and the pool that trusts it.
func certificate(t *testing.T, host string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.ParseIP(host)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

type mailSession struct {
	server *mailServer
	now    delivered
}

func (s *mailSession) Reset()                               { s.now.to = "" }
func (s *mailSession) Logout() error                        { return nil }
func (s *mailSession) Mail(string, *smtp.MailOptions) error { return nil }
func (s *mailSession) AuthMechanisms() []string             { return []string{sasl.Plain} }
func (s *mailSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.now.to = to
	return nil
}

func (s *mailSession) Data(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	s.server.came <- s.now
	return err
}

func (s *mailSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		s.now.user, s.now.password = user, password
		return nil
	}), nil
}

// sends has an app with these keys of smtp mail somebody.
func (m *mailServer) sends(t *testing.T, keys string) *world {
	t.Helper()
	smtpKeys := `"host":"` + m.host + `","port":` + strconv.Itoa(m.port)
	if keys != "" {
		smtpKeys += "," + keys
	}
	auth := `"mail":{"from":"no-reply@shop.example","smtp":{` + smtpKeys + `}}`
	w := newWorld(t, storetest.Database(t), manifestOf(t, "shop", auth, publicShop), func(o *engine.Options) {
		o.MailTLS = &tls.Config{RootCAs: m.ca, MinVersion: tls.VersionTLS12}
	})
	w.want(w.do("POST", "/auth/register", account), 201, "")
	return w
}

// takes waits for a message.
func (m *mailServer) takes(t *testing.T) delivered {
	t.Helper()
	timeout := time.NewTimer(10 * time.Second)
	defer timeout.Stop()
	select {
	case d := <-m.came:
		return d
	case <-timeout.C:
		t.Fatal("nothing was sent")
		return delivered{}
	}
}

// mailKey is the mail that an app with these keys sends to somebody who registers.
func mailKey(t *testing.T, keys string) mail.Message {
	t.Helper()
	m := mailing(t, `"mail":{"from":"no-reply@shop.example"`+keys+`}`)
	m.register()
	return m.mail(email)
}

// asks are how what is mailed is asked for, and spends how it is used.
var asks = map[string]func(m *mailRoom) (spend func() *response){
	"verify_email": func(m *mailRoom) func() *response {
		m.do("POST", "/auth/email/verify/send", obj("email", email))
		return m.spends("/auth/email/verify", obj())
	},
	"reset_password": func(m *mailRoom) func() *response {
		m.do("POST", "/auth/password/forgot", obj("email", email))
		return m.spends("/auth/password/reset", obj("new_password", "a new and better passphrase"))
	},
	"change_email": func(m *mailRoom) func() *response {
		m.want(m.do("POST", "/auth/email/change", obj("new_email", bob), bearer(m.login().text("access_token"))), 202, "")
		token := m.token(bob)
		return func() *response { return m.do("POST", "/auth/email/change/confirm", obj("token", token)) }
	},
	"magic_link": func(m *mailRoom) func() *response {
		m.do("POST", "/auth/magic-link", obj("email", email))
		return m.spends("/auth/magic-link/consume", obj())
	},
	"email_code": func(m *mailRoom) func() *response {
		r := m.want(m.do("POST", "/auth/code", obj("email", email)), 202, "")
		code := m.code(email)
		return func() *response {
			return m.do("POST", "/auth/code/consume", obj("flow_id", r.text("flow_id"), "code", code))
		}
	},
	"invitation": func(m *mailRoom) func() *response {
		m.invite(bob)
		token := m.token(bob)
		return func() *response {
			return m.do("POST", "/auth/register", with(account, "email", bob, "invitation", token))
		}
	},
}

// spends takes the token of the next mail and returns what posts it.
func (m *mailRoom) spends(path string, rest map[string]any) func() *response {
	m.t.Helper()
	body := with(rest, "token", m.token(email))
	return func() *response { return m.do("POST", path, body) }
}

// lifeKey asks for what is mailed under the life and under the default, and uses it
// after a while.
func lifeKey(name, life string, after time.Duration, works bool) func(*testing.T) {
	return func(t *testing.T) {
		for keys, want := range map[string]bool{``: !works, `,"ttl":{"` + name + `":"` + life + `"}`: works} {
			m := mailing(t, strings.TrimSuffix(mails, "}")+keys+`}`)
			m.register()
			m.token(email)
			spend := asks[name](m)
			m.move(after)
			if r := spend(); (r.status < 300) != want {
				t.Errorf("with %q after %s: %d %s", keys, after, r.status, r.raw)
			}
		}
	}
}

// pageKey sees the page in the mail.
func pageKey(name string) func(*testing.T) {
	return func(t *testing.T) {
		m := mailing(t, strings.TrimSuffix(mails, "}")+`,"links":{"`+name+`":"/our/page?x=1"}}`)
		m.register()
		if first := m.mail(email); name == "verify_email" {
			expect(t, strings.Contains(first.Text, "https://shop.example/our/page?x=1#token=mot_"), true)
			return
		} else if strings.Contains(first.Text, "/our/page") {
			t.Errorf("the page of another link: %s", first.Text)
		}
		to := map[string]string{"change_email": bob, "invitation": bob}[name]
		if to == "" {
			to = email
		}
		asks[name](m)
		sent := m.post.to(to)
		expect(t, strings.Contains(sent[len(sent)-1].Text, "https://shop.example/our/page?x=1#token=mot_"), true)
	}
}

// wayKey switches a way to sign in.
func wayKey(key, path string) func(*testing.T) {
	return func(t *testing.T) {
		for value, want := range map[string]int{"true": 202, "false": 404} {
			m := mailing(t, `"mail":{"from":"no-reply@shop.example","`+key+`":`+value+`}`)
			expect(t, m.do("POST", path, obj("email", email)).status, want)
		}
	}
}

// mailKeyTests are those of keyTests about mail.
var mailKeyTests = map[string]func(t *testing.T){
	"/auth/mail/from": func(t *testing.T) {
		expect(t, setup(t, ``).app.Recovery() == nil, true)
		m := mailing(t, `"mail":{"from":"Shop <no-reply@shop.example>"}`)
		m.register()
		expect(t, m.mail(email).From, "Shop <no-reply@shop.example>")
	},
	"/auth/mail/reply_to": func(t *testing.T) {
		expect(t, mailKey(t, `,"reply_to":"help@shop.example"`).ReplyTo, "help@shop.example")
		expect(t, mailKey(t, ``).ReplyTo, "")
	},
	"/auth/mail/language": func(t *testing.T) {
		expect(t, strings.Contains(mailKey(t, `,"language":"de"`).Subject, "Bestätigen"), true)
		expect(t, strings.Contains(mailKey(t, ``).Subject, "Bestätigen"), false)
	},
	"/auth/mail/smtp/host": func(t *testing.T) {
		for _, host := range []string{"127.0.0.1", "127.0.0.2"} {
			m := newMailServer(t, host, false)
			m.sends(t, ``)
			expect(t, m.takes(t).to, email)
		}
	},
	"/auth/mail/smtp/port": func(t *testing.T) {
		one, other := newMailServer(t, "127.0.0.1", false), newMailServer(t, "127.0.0.1", false)
		other.sends(t, ``)
		expect(t, other.takes(t).to, email)
		expect(t, len(one.came), 0)
	},
	"/auth/mail/smtp/username": func(t *testing.T) {
		m := newMailServer(t, "127.0.0.1", false)
		m.sends(t, `"username":"clerk","password":"canary"`)
		expect(t, m.takes(t).user, "clerk")
		m.sends(t, ``)
		expect(t, m.takes(t).user, "")
	},
	"/auth/mail/smtp/password": func(t *testing.T) {
		m := newMailServer(t, "127.0.0.1", false)
		for _, password := range []string{"canary", "another"} {
			m.sends(t, `"username":"clerk","password":"`+password+`"`)
			expect(t, m.takes(t).password, password)
		}
	},
	"/auth/mail/smtp/tls": func(t *testing.T) {
		for mode, encrypted := range map[string]bool{"starttls": true, "tls": true, "none": false} {
			m := newMailServer(t, "127.0.0.1", mode == "tls")
			m.sends(t, `"tls":"`+mode+`"`)
			expect(t, m.takes(t).encrypted, encrypted)
		}
	},
	"/auth/mail/links/verify_email":   pageKey("verify_email"),
	"/auth/mail/links/reset_password": pageKey("reset_password"),
	"/auth/mail/links/change_email":   pageKey("change_email"),
	"/auth/mail/links/magic_link":     pageKey("magic_link"),
	"/auth/mail/links/invitation":     pageKey("invitation"),
	"/auth/mail/ttl/verify_email":     lifeKey("verify_email", "48h", 30*time.Hour, true),
	"/auth/mail/ttl/reset_password":   lifeKey("reset_password", "2h", time.Hour, true),
	"/auth/mail/ttl/change_email":     lifeKey("change_email", "3h", 2*time.Hour, true),
	"/auth/mail/ttl/magic_link":       lifeKey("magic_link", "1h", 30*time.Minute, true),
	"/auth/mail/ttl/email_code":       lifeKey("email_code", "5m", 7*time.Minute, false),
	"/auth/mail/ttl/invitation":       lifeKey("invitation", "30d", 20*24*time.Hour, true),
	"/auth/mail/magic_link":           wayKey("magic_link", "/auth/magic-link"),
	"/auth/mail/email_code":           wayKey("email_code", "/auth/code"),
}

// A mail server whose certificate nobody vouches for gets nothing, and what waits is kept.
func TestMailTLS(t *testing.T) {
	t.Parallel()
	m := newMailServer(t, "127.0.0.1", false)
	_, m.ca = certificate(t, "127.0.0.1")
	w := m.sends(t, ``)
	until(t, "the first attempt", func() bool { return strings.Contains(w.logs.String(), "certificate") })
	p, err := w.app.Outbox().Pending(t.Context())
	expect(t, err == nil && p.Jobs == 1 && len(m.came) == 0, true)
}
