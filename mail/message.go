package mail

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	netmail "net/mail"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ErrInvalidMessage says that a message, or the data of one, is not fit to be sent. Trying
// again does not help. The errors that wrap it name the field and never its value.
var ErrInvalidMessage = errors.New("mail: invalid message")

// The bounds of a [Message], in bytes.
const (
	// MaxSubject is what fits into one line of a header (RFC 5322, section 2.1.1).
	MaxSubject = 900
	// MaxBody bounds the text and the HTML each.
	MaxBody = 256 << 10
)

// Message is one mail to one person.
type Message struct {
	// ID names the message: letters, digits, "_", "-" and inner ".", at most 64. Its
	// Message-ID header follows from it, so that a repeated one is known for what it is.
	// Empty means a random one.
	ID string
	// From is the sender, required: an address, or a name and an address as in
	// "Shop <no-reply@shop.example>".
	From string
	// ReplyTo takes the answers, in the form of From. Empty means From.
	ReplyTo string
	// To is the recipient, required: one address and nothing else.
	To string
	// Subject is one line, required.
	Subject string
	// Text is the message for those who see no HTML, required.
	Text string
	// HTML is the message in HTML. Empty means that there is only text.
	HTML string
}

// Mailer sends messages. Send returns nil once somebody else has taken the message over.
// Its error is a [*PermanentError] or wraps [ErrInvalidMessage] when no repetition can
// help; any other is temporary. It returns soon after ctx has ended, is called from many
// goroutines at once, and its errors say nothing of the message's text: they are logged.
type Mailer interface {
	Send(ctx context.Context, m *Message) error
}

// PermanentError says that a message was refused for good.
type PermanentError struct {
	// Code is the server's (RFC 5321, section 4.2), Enhanced its enhanced one (RFC 3463),
	// such as "5.1.1". Zero where no server was asked.
	Code     int
	Enhanced string
	// Reason says in constant words what was refused.
	Reason string
}

// Error names the reason and the codes. The server's own words are left out: they may
// repeat what was sent.
func (e *PermanentError) Error() string {
	out := "mail: " + e.Reason
	if e.Code != 0 {
		out += ": " + strconv.Itoa(e.Code)
	}
	if e.Enhanced != "" {
		out += " " + e.Enhanced
	}
	return out
}

// LogValue names the message and leaves out what it says: that may be a way into an
// account.
func (m *Message) LogValue() slog.Value {
	return slog.GroupValue(slog.String("id", m.ID))
}

// Validate returns an error that wraps [ErrInvalidMessage] unless the message can be sent
// as it is: no field can add a recipient, a header or a part.
func (m *Message) Validate() error {
	_, err := m.parse()
	return err
}

// parsed is a message whose fields are known to be good.
type parsed struct {
	*Message
	from, replyTo netmail.Address
	to            string
}

var messageID = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)

func (m *Message) parse() (*parsed, error) {
	p := &parsed{Message: m}
	var err error
	if p.from, err = parseSender(m.From); err != nil {
		return nil, fmt.Errorf("%w: from: %w", ErrInvalidMessage, err)
	}
	if m.ReplyTo != "" {
		if p.replyTo, err = parseSender(m.ReplyTo); err != nil {
			return nil, fmt.Errorf("%w: reply-to: %w", ErrInvalidMessage, err)
		}
	}
	if p.to, err = parseAddress(m.To); err != nil {
		return nil, fmt.Errorf("%w: to: %w", ErrInvalidMessage, err)
	}
	switch {
	case m.ID != "" && (len(m.ID) > 64 || !messageID.MatchString(m.ID)):
		return nil, fmt.Errorf("%w: the id needs at most 64 letters, digits, '_', '-' and inner '.'", ErrInvalidMessage)
	case !validSubject(m.Subject):
		return nil, fmt.Errorf("%w: the subject needs to be one line of at most %d bytes without control characters", ErrInvalidMessage, MaxSubject)
	case strings.TrimSpace(m.Text) == "":
		return nil, fmt.Errorf("%w: the text is empty", ErrInvalidMessage)
	case !validBody(m.Text) || !validBody(m.HTML):
		return nil, fmt.Errorf("%w: text and HTML need to be valid UTF-8 of at most %d bytes each", ErrInvalidMessage, MaxBody)
	}
	return p, nil
}

func validSubject(s string) bool {
	return s != "" && len(s) <= MaxSubject && utf8.ValidString(s) && strings.TrimSpace(s) == s && !strings.ContainsFunc(s, disruptive)
}

func validBody(s string) bool { return len(s) <= MaxBody && utf8.ValidString(s) }

// disruptive reports whether r breaks a line, is not to be seen, or turns the order of
// what follows it.
func disruptive(r rune) bool {
	return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || r == '\ufeff' || unicode.Is(unicode.Bidi_Control, r)
}
