package mail_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/mandate-auth/mandate/mail"
)

// injections are put into fields that must be one thing.
var injections = []string{
	"", "\r\nBcc: evil@evil.example", "\nBcc: evil@evil.example", "\r\n\r\nbody", "\rX: y", "\x00", "\x0b", "\x1b[2J", "\u0085X: y", "\u2028X: y",
	"%0d%0aBcc: evil@evil.example", "=?utf-8?q?=0D=0ABcc:_evil@evil.example?=", "=?utf-8?b?DQpCY2M6IGV2aWxAZXZpbC5leGFtcGxl?=",
	"\\r\\nBcc: x", ",evil@evil.example", ";evil@evil.example", " evil@evil.example", "@evil.example", "<evil@evil.example>", ">", "<", "(c)", "\"", "'",
	"\u202ecod", "\u200b", "é", "😀", "＠evil.example", "  ", "\t", ".", "..", "\r\n.\r\nMAIL FROM:<evil@evil.example>", "<script>alert(1)</script>",
	"${jndi:ldap://evil.example}", "{{.Text}}", "' OR 1=1 --", "\xff\xfe", strings.Repeat("x", 500), strings.Repeat("é", 300), "`id`", "$(id)", "|id",
}

// What a server has received has one recipient, no header more than intended and the
// subject as it was given; or nothing was sent.
func TestHostileOnTheWire(t *testing.T) {
	t.Parallel()
	s := (&server{mode: mail.NoTLS, utf8: true}).start(t)
	m := s.mailer(t)
	total, sent := 0, 0
	try := func(recipient, subject string) {
		total++
		before := len(s.messages())
		err := m.Send(t.Context(), &mail.Message{ID: fmt.Sprint("m", total), From: "Shop <a@shop.example>", To: recipient, Subject: subject, Text: "x"})
		got := s.messages()[before:]
		if errors.Is(err, mail.ErrInvalidMessage) {
			if len(got) != 0 {
				t.Errorf("%q, %q was refused and sent", recipient, subject)
			}
			return
		}
		if err != nil || len(got) != 1 {
			t.Errorf("%q, %q: %v, %d messages", recipient, subject, err, len(got))
			return
		}
		sent++
		want, _ := mail.ParseAddress(recipient)
		p, err := read(got[0].data)
		headers := append([]string{"Content-Transfer-Encoding"}, wantHeaders...)
		slices.Sort(headers)
		if err != nil || !slices.Equal(got[0].to, []string{want}) || p.to != "<"+want+">" || p.subject != subject ||
			p.from != `"Shop" <a@shop.example>` || got[0].from != "a@shop.example" || strings.TrimSpace(p.text) != "x" || !slices.Equal(p.headers, headers) {
			t.Errorf("%q, %q arrived as %+v, %v, for %q", recipient, subject, p, err, got[0].to)
		}
	}
	for _, a := range injections {
		for _, form := range []string{"%sann@example.com", "an%sn@example.com", "ann%s@example.com", "ann@%sexample.com", "ann@exam%sple.com", "ann@example.com%s"} {
			try(fmt.Sprintf(form, a), "Hello")
		}
		for _, form := range []string{"%sHello", "Hello%s", "Hel%slo", "Hello %s you", "Grüße %s"} {
			try("ann@example.com", fmt.Sprintf(form, a))
		}
		for _, b := range injections[1:14] {
			try("ann@example.com", "x"+a+"y"+b+"z")
		}
	}
	for _, a := range hostile {
		try(a, "Hello")
	}
	if total < 1000 || sent < 200 || total-sent < 300 {
		t.Errorf("%d of %d were sent: the test tries too little", sent, total)
	}
	t.Logf("%d of %d were sent", sent, total)
}
