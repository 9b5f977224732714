package mail

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/wneessen/go-mail/smtp"

	"github.com/mandate-auth/mandate/tokens/secret"
)

// TLSMode says how the connection to an SMTP server is protected.
type TLSMode string

// The modes.
const (
	// STARTTLS begins in the clear and goes on only after STARTTLS (RFC 3207). A server
	// that does not offer it is refused.
	STARTTLS TLSMode = "starttls"
	// ImplicitTLS is TLS from the first byte (RFC 8314).
	ImplicitTLS TLSMode = "tls"
	// NoTLS is for a server on the loopback interface, without credentials.
	NoTLS TLSMode = "none"
)

// SMTPConfig configures an [SMTP].
type SMTPConfig struct {
	// Host is the server's name or address, required. Its certificate has to be for it.
	Host string
	// Port is the server's. Default 587, and 465 for [ImplicitTLS].
	Port int
	// Username and Password sign in, with PLAIN or LOGIN inside TLS. Both or neither.
	Username string
	Password secret.Value
	// TLS is the mode. Default [STARTTLS].
	TLS TLSMode
	// TLSConfig is for the certificates of a private authority. Default that of the
	// system. TLS 1.2 is the least; a config that skips the verification is refused.
	TLSConfig *tls.Config
	// Timeout bounds the sending of one message, from the connection to the server's
	// answer. Default 10 s.
	Timeout time.Duration
	// LocalName is how the service introduces itself. Default the host's name.
	LocalName string
	// Now is the clock of the Date header. Default time.Now.
	Now func() time.Time
}

func (c *SMTPConfig) setDefaults() {
	c.TLS = cmp.Or(c.TLS, STARTTLS)
	if c.TLS == ImplicitTLS {
		c.Port = cmp.Or(c.Port, 465)
	}
	c.Port = cmp.Or(c.Port, 587)
	c.Timeout = cmp.Or(c.Timeout, 10*time.Second)
	if c.TLSConfig == nil {
		c.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	c.TLSConfig = c.TLSConfig.Clone()
	c.TLSConfig.MinVersion = max(c.TLSConfig.MinVersion, tls.VersionTLS12)
	c.TLSConfig.ServerName = cmp.Or(c.TLSConfig.ServerName, c.Host)
	if c.Now == nil {
		c.Now = time.Now //nolint:forbidigo // the default of the injected clock
	}
}

func (c *SMTPConfig) check() error {
	switch {
	case c.Host == "" || strings.ContainsFunc(c.Host, notInNames) || strings.Contains(c.Host, "/"):
		return fmt.Errorf("mail: host %q: give the SMTP server's name, without a port", c.Host)
	case c.Port < 1 || c.Port > 65535:
		return fmt.Errorf("mail: port %d: give one between 1 and 65535", c.Port)
	case c.TLS != STARTTLS && c.TLS != ImplicitTLS && c.TLS != NoTLS:
		return fmt.Errorf("mail: tls %q: give starttls, tls or none", c.TLS)
	case c.TLS == NoTLS && !loopback(c.Host):
		return fmt.Errorf("mail: tls none is for a server on this machine, and %q is not a loopback address: use starttls or tls", c.Host)
	case (c.Username == "") != c.Password.IsZero():
		return errors.New("mail: an SMTP username needs a password, and a password a username")
	case c.TLS == NoTLS && c.Username != "":
		return errors.New("mail: SMTP credentials are sent inside TLS only: use starttls or tls")
	case strings.ContainsFunc(c.Username, unicode.IsControl):
		return errors.New("mail: the SMTP username holds a control character")
	case strings.ContainsFunc(c.LocalName, notInNames):
		return fmt.Errorf("mail: local name %q: give a host name", c.LocalName)
	case c.TLSConfig.InsecureSkipVerify:
		return errors.New("mail: an unverified SMTP server could read every link: give TLSConfig.RootCAs in place of InsecureSkipVerify")
	case c.Timeout < 0:
		return errors.New("mail: the timeout is negative")
	}
	return nil
}

func notInNames(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }

func loopback(host string) bool {
	address, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return host == "localhost" || err == nil && address.IsLoopback()
}

// SMTP sends messages to a server that delivers them (RFC 5321, RFC 6409). Each message
// has a connection of its own. It is safe for concurrent use.
//
// What the server says of the message or its recipient with a code of 500 and above is a
// [*PermanentError]. What it says of the service itself (a sender it does not take,
// credentials that are wrong) is temporary: it holds for every message, until somebody
// puts it right. So is whatever the network does.
type SMTP struct{ config SMTPConfig }

var _ Mailer = (*SMTP)(nil)

// NewSMTP returns the mailer that config describes. It does not connect.
func NewSMTP(config SMTPConfig) (*SMTP, error) {
	config.setDefaults()
	if err := config.check(); err != nil {
		return nil, err
	}
	return &SMTP{config: config}, nil
}

var (
	errPlaintext   = errors.New("the connection is not encrypted: credentials are not sent")
	errNoMechanism = errors.New("the server offers neither AUTH PLAIN nor AUTH LOGIN inside TLS")
)

// credentials sign in. The library's own choice would send them to "localhost" without
// encryption.
type credentials struct {
	username, password, host string
	chosen                   smtp.Auth
}

func (c *credentials) Start(server *smtp.ServerInfo) (string, []byte, error) {
	if !server.TLS {
		return "", nil, errPlaintext
	}
	switch {
	case slices.Contains(server.Auth, "PLAIN"):
		c.chosen = smtp.PlainAuth("", c.username, c.password, c.host, false)
	case slices.Contains(server.Auth, "LOGIN"):
		c.chosen = smtp.LoginAuth(c.username, c.password, c.host, false)
	default:
		return "", nil, errNoMechanism
	}
	return c.chosen.Start(server)
}

func (c *credentials) Next(fromServer []byte, more bool) ([]byte, error) {
	return c.chosen.Next(fromServer, more)
}
