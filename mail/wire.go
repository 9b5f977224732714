package mail

import (
	"encoding/base64"
	netmail "net/mail"
	"strings"
	"time"
	"unicode/utf8"

	gomail "github.com/wneessen/go-mail"

	"github.com/mandate-auth/mandate/internal/store"
)

// onWire returns the message as it is sent.
func (p *parsed) onWire(at time.Time) *gomail.Msg {
	out := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	out.FromMailAddress(&p.from)
	out.ToMailAddress(&netmail.Address{Address: p.to})
	if p.replyTo.Address != "" {
		out.ReplyToMailAddress(&p.replyTo)
	}
	out.SetGenHeader(gomail.HeaderSubject, encodeSubject(p.Subject))
	out.SetDateWithValue(at)
	id := p.ID
	if id == "" {
		id = store.NewID("mail_")
	}
	_, domain, _ := strings.Cut(p.from.Address, "@")
	out.SetMessageIDWithValue(id + "@" + domain)
	// RFC 3834, section 5: nobody's absence answers it.
	out.SetGenHeader("Auto-Submitted", "auto-generated")
	out.SetBodyString(gomail.TypeTextPlain, p.Text)
	if p.HTML != "" {
		out.AddAlternativeString(gomail.TypeTextHTML, p.HTML)
	}
	return out
}

// wordBytes is how much of a subject one encoded word holds: 75 characters are the bound
// (RFC 2047, section 2), 12 of them frame the base64.
const wordBytes = 45

// encodeSubject encodes what a reader would not take as it is: characters beyond ASCII,
// spaces that folding could change, and what only looks as if it were encoded. The
// library would leave the last two alone.
func encodeSubject(s string) string {
	if isASCII(s) && !strings.Contains(s, "=?") && !strings.Contains(s, "  ") {
		return s
	}
	var words []string
	for s != "" {
		n := min(len(s), wordBytes)
		for n < len(s) && !utf8.RuneStart(s[n]) {
			n--
		}
		words = append(words, "=?utf-8?b?"+base64.StdEncoding.EncodeToString([]byte(s[:n]))+"?=")
		s = s[n:]
	}
	return strings.Join(words, " ")
}
