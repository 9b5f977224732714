package mail

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"time"

	gomail "github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"
)

// quitTimeout bounds the farewell: the message is delivered by then.
const quitTimeout = time.Second

// Send hands the message to the server. When ctx or the timeout ends first the error wraps
// that of the context, and it is open whether the server has taken the message.
func (s *SMTP) Send(ctx context.Context, m *Message) error {
	p, err := m.parse()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.config.Timeout)
	defer cancel()
	beyondASCII := !isASCII(p.to) || !isASCII(p.from.Address) || !isASCII(p.replyTo.Address)
	l := &line{}
	// The library leaves the connection open where a greeting or a login fails.
	defer l.hangUp()
	client, err := s.client(ctx, l, beyondASCII)
	if err != nil {
		return fmt.Errorf("mail: prepare the SMTP client: %w", err)
	}
	session, err := client.DialToSMTPClientWithContext(ctx)
	if err != nil {
		return l.explain(ctx, "open the SMTP session", err)
	}
	if offered, _ := session.Extension("SMTPUTF8"); beyondASCII && !offered {
		_ = l.farewell(session)
		return &PermanentError{Reason: "the SMTP server takes no addresses beyond ASCII (SMTPUTF8, RFC 6531)"}
	}
	out := p.onWire(s.config.Now())
	err = client.SendWithSMTPClient(session, out)
	if out.IsDelivered() {
		_ = l.farewell(session)
		return nil
	}
	return l.refused(ctx, err)
}

// client returns the library's client for one message.
func (s *SMTP) client(ctx context.Context, l *line, beyondASCII bool) (*gomail.Client, error) {
	c := &s.config
	options := []gomail.Option{
		gomail.WithPort(c.Port), gomail.WithTimeout(c.Timeout), gomail.WithTLSConfig(c.TLSConfig),
		gomail.WithoutNoop(), gomail.WithoutRset(), gomail.WithDialContextFunc(s.dial(ctx, l)),
	}
	if !beyondASCII {
		// A message that does not need it must not depend on servers further on.
		options = append(options, gomail.WithoutSMTPUTF8())
	}
	switch c.TLS {
	case ImplicitTLS:
		options = append(options, gomail.WithSSL())
	case NoTLS:
		options = append(options, gomail.WithTLSPolicy(gomail.NoTLS))
	default:
		options = append(options, gomail.WithTLSPolicy(gomail.TLSMandatory))
	}
	if c.LocalName != "" {
		options = append(options, gomail.WithHELO(c.LocalName))
	}
	if c.Username != "" {
		options = append(options, gomail.WithSMTPAuthCustom(&credentials{
			username: c.Username, password: string(c.Password.Reveal()), host: c.Host,
		}))
	}
	return gomail.NewClient(c.Host, options...)
}

var errNotLoopback = errors.New("the server is not on this machine, and tls is none")

// dial returns what connects to the server. The library watches its context only until
// then, and sets deadlines anew later: the line ends with whole, and keeps its deadline.
func (s *SMTP) dial(whole context.Context, l *line) gomail.DialContextFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		l.Conn = conn
		l.stop = context.AfterFunc(whole, func() { _ = conn.Close() })
		if tcp, ok := conn.RemoteAddr().(*net.TCPAddr); s.config.TLS == NoTLS && (!ok || !tcp.IP.IsLoopback()) {
			return nil, errNotLoopback
		}
		if s.config.TLS != ImplicitTLS {
			return l, nil
		}
		encrypted := tls.Client(l, s.config.TLSConfig)
		return encrypted, encrypted.HandshakeContext(ctx)
	}
}

// line is the connection under one message.
type line struct {
	net.Conn
	stop   func() bool
	broken error // the last error of the network
}

// SetDeadline does nothing: the whole message has one.
func (l *line) SetDeadline(time.Time) error { return nil }

func (l *line) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	if err != nil {
		l.broken = err
	}
	return n, err
}

func (l *line) Write(b []byte) (int, error) {
	n, err := l.Conn.Write(b)
	if err != nil {
		l.broken = err
	}
	return n, err
}

func (l *line) hangUp() {
	if l.Conn != nil {
		l.stop()
		_ = l.Conn.Close()
	}
}

// farewell ends the session as the server expects it to be ended.
func (l *line) farewell(session *smtp.Client) error {
	impatience := time.AfterFunc(quitTimeout, func() { _ = l.Conn.Close() })
	defer impatience.Stop()
	return session.Quit()
}

// explain describes what happened before there was a message. A server's words are left
// out, but for its code.
func (l *line) explain(ctx context.Context, what string, err error) error {
	var answer *textproto.Error
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("mail: %s: %w", what, ctx.Err())
	case errors.As(err, &answer):
		return fmt.Errorf("mail: %s: the SMTP server answered %d", what, answer.Code)
	case l.broken != nil:
		return fmt.Errorf("mail: %s: the connection broke: %w", what, l.broken)
	case malformed(err):
		return fmt.Errorf("mail: %s: the SMTP server hung up, or its answer makes no sense", what)
	default:
		return fmt.Errorf("mail: %s: %w", what, err)
	}
}

func malformed(err error) bool {
	var protocol textproto.ProtocolError
	return errors.As(err, &protocol) || errors.Is(err, smtp.ErrUnexpectedServerResponse)
}

// refused describes why a message was not taken.
func (l *line) refused(ctx context.Context, err error) error {
	var failure *gomail.SendError
	if !errors.As(err, &failure) || failure.ErrorCode() == 0 {
		if l.broken == nil && ctx.Err() == nil {
			err = textproto.ProtocolError("") // the library's error repeats what the server said
		}
		return l.explain(ctx, "send the message", err)
	}
	code, what := failure.ErrorCode(), ""
	switch failure.Reason {
	case gomail.ErrSMTPRcptTo:
		what = "the SMTP server refused the recipient"
	case gomail.ErrSMTPData, gomail.ErrSMTPDataClose:
		what = "the SMTP server refused the message"
	default:
		what = "the SMTP server refused the sender"
	}
	if code >= 500 && failure.Reason != gomail.ErrSMTPMailFrom && !aboutService(code) {
		return &PermanentError{Code: code, Enhanced: failure.EnhancedStatusCode(), Reason: what}
	}
	return fmt.Errorf("mail: %s for now: %d %s", what, code, failure.EnhancedStatusCode())
}

// aboutService reports whether the code speaks of credentials (RFC 4954, section 6) or of
// the order of commands.
func aboutService(code int) bool {
	return code == 503 || code == 530 || code == 534 || code == 535 || code == 538
}
