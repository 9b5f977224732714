package mail_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/mandate-auth/mandate/mail"
	"github.com/mandate-auth/mandate/tokens/secret"
)

const password = "correct-horse-battery"

func withLogin(c *mail.SMTPConfig) {
	c.Username, c.Password = "shop", secret.FromString(password)
}

func TestSend(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		server *server
		login  bool
		auth   []string
	}{
		{"STARTTLS", &server{mode: mail.STARTTLS}, false, nil},
		{"implicit TLS", &server{mode: mail.ImplicitTLS}, false, nil},
		{"none, loopback", &server{mode: mail.NoTLS}, false, nil},
		{"STARTTLS and PLAIN", &server{mode: mail.STARTTLS, mechanisms: []string{"LOGIN", "PLAIN"}}, true, []string{"PLAIN shop " + password + " tls"}},
		{"TLS and PLAIN", &server{mode: mail.ImplicitTLS, mechanisms: []string{"PLAIN"}}, true, []string{"PLAIN shop " + password + " tls"}},
		{"TLS and LOGIN", &server{mode: mail.ImplicitTLS, mechanisms: []string{"LOGIN"}}, true, []string{"LOGIN shop " + password + " tls"}},
		{"STARTTLS, AUTH offered in the clear, too", &server{mode: mail.STARTTLS, insecure: true, mechanisms: []string{"PLAIN"}}, true, []string{"PLAIN shop " + password + " tls"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := tt.server
			s.user, s.pass = "shop", password
			s.start(t)
			m := s.mailer(t)
			if tt.login {
				m = s.mailer(t, withLogin)
			}
			if err := m.Send(t.Context(), sample()); err != nil {
				t.Fatal(err)
			}
			got := s.messages()
			if len(got) != 1 || got[0].from != "no-reply@shop.example" || !slices.Equal(got[0].to, []string{"ann@example.com"}) || got[0].utf8 {
				t.Fatalf("received %+v", got)
			}
			p, err := read(got[0].data)
			if err != nil || p.text != sample().Text || p.html != sample().HTML || p.subject != "Hello" || !slices.Equal(p.headers, wantHeaders) {
				t.Errorf("received %+v, %v", p, err)
			}
			if !slices.Equal(s.attempts(), tt.auth) {
				t.Errorf("signed in with %q, want %q", s.attempts(), tt.auth)
			}
		})
	}
}

// Neither a message nor a password goes to a server that is not the one that was meant,
// or through a connection that others read.
func TestSendRefusesTheConnection(t *testing.T) {
	t.Parallel()
	other, err := newIdentity()
	if err != nil {
		t.Fatal(err)
	}
	otherCA := func(c *mail.SMTPConfig) { c.TLSConfig = &tls.Config{RootCAs: other.pool, MinVersion: tls.VersionTLS12} }
	tests := []struct {
		name   string
		server *server
		change []func(*mail.SMTPConfig)
		says   string
	}{
		{"no STARTTLS", &server{mode: mail.STARTTLS, noStartTLS: true}, nil, "STARTTLS"},
		{"no STARTTLS, AUTH in the clear", &server{mode: mail.STARTTLS, noStartTLS: true, insecure: true, mechanisms: []string{"PLAIN"}}, []func(*mail.SMTPConfig){withLogin}, "STARTTLS"},
		{"another authority's certificate, STARTTLS", &server{mode: mail.STARTTLS, mechanisms: []string{"PLAIN"}}, []func(*mail.SMTPConfig){withLogin, otherCA}, "certificate"},
		{"another authority's certificate, TLS", &server{mode: mail.ImplicitTLS, mechanisms: []string{"PLAIN"}}, []func(*mail.SMTPConfig){withLogin, otherCA}, "certificate"},
		{"the system's authorities", &server{mode: mail.ImplicitTLS}, []func(*mail.SMTPConfig){func(c *mail.SMTPConfig) { c.TLSConfig = nil }}, "certificate"},
		{"a certificate for another name", &server{mode: mail.ImplicitTLS}, []func(*mail.SMTPConfig){func(c *mail.SMTPConfig) { c.TLSConfig.ServerName = "other.example" }}, "other.example"},
		{"TLS expected, clear text found", &server{mode: mail.NoTLS}, []func(*mail.SMTPConfig){func(c *mail.SMTPConfig) { c.TLS = mail.ImplicitTLS }}, "TLS"},
		{"no AUTH", &server{mode: mail.STARTTLS}, []func(*mail.SMTPConfig){withLogin}, "neither AUTH"},
		{"AUTH of another kind", &server{mode: mail.STARTTLS, mechanisms: []string{"CRAM-MD5"}}, []func(*mail.SMTPConfig){withLogin}, "neither AUTH"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := tt.server.start(t)
			temporary(t, s.mailer(t, tt.change...).Send(t.Context(), sample()), tt.says)
			if len(s.messages()) != 0 || len(s.attempts()) != 0 {
				t.Errorf("received %v, signed in with %q", s.messages(), s.attempts())
			}
		})
	}
}

// temporary fails the test unless err says so and keeps what is secret.
func temporary(t *testing.T, err error, says string) {
	t.Helper()
	var permanent *mail.PermanentError
	if err == nil || errors.As(err, &permanent) || errors.Is(err, mail.ErrInvalidMessage) || !strings.Contains(err.Error(), says) {
		t.Errorf("got %v, want a temporary error with %q", err, says)
	}
	quiet(t, err)
}

// quiet fails the test if err says what is in messages, or the password.
func quiet(t *testing.T, err error) {
	t.Helper()
	for _, part := range []string{password, "https://", "ann@example.com", "Hello", "%!"} {
		if err != nil && strings.Contains(err.Error(), part) {
			t.Errorf("the error says %q: %v", part, err)
		}
	}
}

// No combination of options leads there. Should one ever, the password stays here, also
// on this machine.
func TestNoCredentialsInTheClear(t *testing.T) {
	t.Parallel()
	for _, host := range []string{"mail.example", "localhost", "127.0.0.1"} {
		if err := mail.LoginInTheClear(host); err == nil || !strings.Contains(err.Error(), "not encrypted") {
			t.Errorf("%s: got %v, want a refusal", host, err)
		}
	}
}

func TestWrongCredentials(t *testing.T) {
	t.Parallel()
	for _, mechanism := range []string{"PLAIN", "LOGIN"} {
		s := (&server{mode: mail.STARTTLS, mechanisms: []string{mechanism}, user: "shop", pass: "another"}).start(t)
		// It holds for every message until somebody puts it right: none may be dropped.
		temporary(t, s.mailer(t, withLogin).Send(t.Context(), sample()), "535")
		if len(s.attempts()) != 1 || len(s.messages()) != 0 {
			t.Errorf("%s: %d attempts, %d messages", mechanism, len(s.attempts()), len(s.messages()))
		}
	}
}

func answer(code int) error {
	return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{code / 100, 1, 1}, Message: "about https://shop.example/x for ann@example.com"}
}

func answerData(code int) func(*smtp.Conn, io.Reader) error {
	return func(_ *smtp.Conn, r io.Reader) error {
		_, _ = io.Copy(io.Discard, r)
		return answer(code)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		server *server
		code   int // of a PermanentError, 0 for a temporary one
		says   string
	}{
		{"recipient, for good", &server{onRcpt: answer(550)}, 550, "recipient"},
		{"recipient, for now", &server{onRcpt: answer(450)}, 0, "recipient"},
		{"recipient, sign in first", &server{onRcpt: answer(530)}, 0, "recipient"},
		{"sender, for good", &server{onMail: answer(550)}, 0, "sender"},
		{"sender, for now", &server{onMail: answer(451)}, 0, "sender"},
		{"message, for good", &server{onData: answerData(554)}, 554, "message"},
		{"message, for now", &server{onData: answerData(452)}, 0, "message"},
		{"the server goes away", &server{onData: answerData(421)}, 0, "message"},
		{"the connection ends in the middle", &server{onData: func(c *smtp.Conn, _ io.Reader) error {
			return c.Conn().Close()
		}}, 0, "hung up"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := tt.server.start(t)
			err := s.mailer(t).Send(t.Context(), sample())
			if tt.code == 0 {
				temporary(t, err, tt.says)
				return
			}
			quiet(t, err)
			var permanent *mail.PermanentError
			if !errors.As(err, &permanent) || permanent.Code != tt.code || permanent.Enhanced != "5.1.1" || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want a permanent error with %d", err, tt.code)
			}
		})
	}
}

func TestInvalidIsNotSent(t *testing.T) {
	t.Parallel()
	s := (&server{}).start(t)
	if err := s.mailer(t).Send(t.Context(), sample(to("a@x.example,b@x.example"))); !errors.Is(err, mail.ErrInvalidMessage) {
		t.Errorf("got %v, want ErrInvalidMessage", err)
	}
	if len(s.messages()) != 0 {
		t.Error("an invalid message was sent")
	}
}

// An address beyond ASCII goes to servers that take them, and to no other: one that
// guesses could deliver to somebody else.
func TestBeyondASCII(t *testing.T) {
	t.Parallel()
	able, unable := (&server{utf8: true}).start(t), (&server{}).start(t)
	m := sample(to("jürgen@bücher.example"), subject("Grüße"))
	if err := able.mailer(t).Send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	got := able.messages()
	if len(got) != 1 || !got[0].utf8 || !slices.Equal(got[0].to, []string{"jürgen@xn--bcher-kva.example"}) {
		t.Fatalf("received %+v", got)
	}
	if p, err := read(got[0].data); err != nil || p.subject != "Grüße" || p.to != "<jürgen@xn--bcher-kva.example>" {
		t.Errorf("received %+v, %v", p, err)
	}
	err := unable.mailer(t).Send(t.Context(), m)
	var permanent *mail.PermanentError
	if !errors.As(err, &permanent) || permanent.Code != 0 || !strings.Contains(err.Error(), "SMTPUTF8") {
		t.Errorf("got %v, want a refusal that names SMTPUTF8", err)
	}
	// A domain is no reason, nor is a server that could: the next one may not.
	for _, s := range []*server{able, unable} {
		if err := s.mailer(t).Send(t.Context(), sample(to("ann@bücher.example"))); err != nil {
			t.Error(err)
		}
	}
	if all := append(able.messages()[1:], unable.messages()...); len(all) != 2 || all[0].utf8 || all[1].utf8 {
		t.Errorf("received %+v", all)
	}
}

// silent accepts connections, sends what it is told to and says nothing more until the
// test ends. It tells when somebody is there.
func silent(t *testing.T, greeting string) (port int, there <-chan struct{}) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	arrived, done := make(chan struct{}, 16), make(chan struct{})
	go func() {
		defer close(done)
		var open []net.Conn
		for {
			c, err := l.Accept()
			if err != nil {
				for _, c := range open {
					_ = c.Close()
				}
				return
			}
			_, _ = io.WriteString(c, greeting)
			open = append(open, c)
			arrived <- struct{}{}
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return l.Addr().(*net.TCPAddr).Port, arrived
}

func TestHangingServer(t *testing.T) {
	t.Parallel()
	for name, greeting := range map[string]string{"silence": "", "after the greeting": "220 mail.example\r\n", "half an answer": "220-mail"} {
		for _, mode := range []mail.TLSMode{mail.NoTLS, mail.ImplicitTLS} {
			t.Run(name+" "+string(mode), func(t *testing.T) {
				t.Parallel()
				port, there := silent(t, greeting)
				config := mail.SMTPConfig{Host: "127.0.0.1", Port: port, TLS: mode, Timeout: time.Hour}
				if mode == mail.ImplicitTLS && greeting != "" {
					return // a handshake fails there, it does not hang
				}
				m, err := mail.NewSMTP(config)
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				result := make(chan error, 1)
				go func() { result <- m.Send(ctx, sample()) }()
				<-there
				cancel()
				if err := <-result; !errors.Is(err, context.Canceled) {
					t.Errorf("got %v, want that of the context", err)
				}
				config.Timeout = 50 * time.Millisecond
				if m, err = mail.NewSMTP(config); err != nil {
					t.Fatal(err)
				}
				if err := m.Send(t.Context(), sample()); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v, want that of the timeout", err)
				}
			})
		}
	}
}

// The timeout is that of the whole: a server that hangs in the middle of the message
// does not get more of it.
func TestHangingInTheMiddle(t *testing.T) {
	t.Parallel()
	reached, release := make(chan struct{}), make(chan struct{})
	s := (&server{onData: func(*smtp.Conn, io.Reader) error {
		close(reached)
		<-release
		return nil
	}}).start(t)
	defer close(release)
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- s.mailer(t).Send(ctx, sample()) }()
	<-reached
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that of the context", err)
	}
}

func TestNoServer(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	m, err := mail.NewSMTP(mail.SMTPConfig{Host: "127.0.0.1", Port: port, TLS: mail.NoTLS})
	if err != nil {
		t.Fatal(err)
	}
	temporary(t, m.Send(t.Context(), sample()), "refused")
}

func TestOtherGreetings(t *testing.T) {
	t.Parallel()
	for _, greeting := range []string{"554 no service\r\n", "421 later\r\n", "SSH-2.0-x\r\n", "\r\n", "999\r\n", "220 mail.example\r\n550 no\r\n550 no\r\n"} {
		port, _ := silent(t, greeting)
		m, err := mail.NewSMTP(mail.SMTPConfig{Host: "127.0.0.1", Port: port, TLS: mail.NoTLS, Timeout: 300 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		temporary(t, m.Send(t.Context(), sample()), "open the SMTP session")
	}
}

func TestSMTPConfig(t *testing.T) {
	t.Parallel()
	bad := map[string]func(*mail.SMTPConfig){
		"no host":                func(c *mail.SMTPConfig) { c.Host = "" },
		"a URL":                  func(c *mail.SMTPConfig) { c.Host = "smtp://x.example" },
		"a socket":               func(c *mail.SMTPConfig) { c.Host = "unix:///x" },
		"a line break":           func(c *mail.SMTPConfig) { c.Host = "x\r\ny" },
		"port":                   func(c *mail.SMTPConfig) { c.Port = 70000 },
		"mode":                   func(c *mail.SMTPConfig) { c.TLS = "opportunistic" },
		"none, elsewhere":        func(c *mail.SMTPConfig) { c.TLS = mail.NoTLS },
		"none, another address":  func(c *mail.SMTPConfig) { c.TLS, c.Host = mail.NoTLS, "192.0.2.1" },
		"none, a name like it":   func(c *mail.SMTPConfig) { c.TLS, c.Host = mail.NoTLS, "localhost.evil.example" },
		"none, with credentials": func(c *mail.SMTPConfig) { c.TLS, c.Host = mail.NoTLS, "127.0.0.1"; withLogin(c) },
		"username alone":         func(c *mail.SMTPConfig) { c.Username = "x" },
		"password alone":         func(c *mail.SMTPConfig) { c.Password = secret.FromString(password) },
		"username with NUL":      func(c *mail.SMTPConfig) { withLogin(c); c.Username = "a\x00b" },
		"local name":             func(c *mail.SMTPConfig) { c.LocalName = "x\r\nMAIL FROM:<y>" },
		"not verified":           func(c *mail.SMTPConfig) { c.TLSConfig = &tls.Config{InsecureSkipVerify: true} },
		"timeout":                func(c *mail.SMTPConfig) { c.Timeout = -1 },
	}
	for name, change := range bad {
		c := mail.SMTPConfig{Host: "mail.example"}
		change(&c)
		if _, err := mail.NewSMTP(c); err == nil {
			t.Errorf("%s is accepted", name)
		} else {
			quiet(t, err)
		}
	}
	for _, host := range []string{"127.0.0.1", "::1", "localhost"} {
		if _, err := mail.NewSMTP(mail.SMTPConfig{Host: host, TLS: mail.NoTLS}); err != nil {
			t.Errorf("none for %s: %v", host, err)
		}
	}
}
