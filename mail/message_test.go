package mail_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	netmail "net/mail"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mandate-auth/mandate/mail"
)

// sample is a message that is fine.
func sample(change ...func(*mail.Message)) *mail.Message {
	m := &mail.Message{
		ID: "mail_1", From: "The Shop <no-reply@shop.example>", To: "ann@example.com", Subject: "Hello",
		Text: "Open https://shop.example/x?a=b&c=d\n\n.\n.leading dot\nFrom here\n", HTML: "<p>Open <a href=\"https://shop.example/\">it</a></p>",
	}
	for _, c := range change {
		c(m)
	}
	return m
}

func subject(s string) func(*mail.Message) { return func(m *mail.Message) { m.Subject = s } }
func to(s string) func(*mail.Message)      { return func(m *mail.Message) { m.To = s } }

func TestValidate(t *testing.T) {
	t.Parallel()
	if err := sample().Validate(); err != nil {
		t.Fatal(err)
	}
	bad := map[string]func(*mail.Message){
		"from":             func(m *mail.Message) { m.From = "" },
		"list from":        func(m *mail.Message) { m.From = "a@x.example, b@x.example" },
		"name: address":    func(m *mail.Message) { m.From = "support@bank.example <a@x.example>" },
		"name: line break": func(m *mail.Message) { m.From = "The\r\nBcc: x <a@x.example>" },
		"name: encoded":    func(m *mail.Message) { m.From = "=?utf-8?q?=0D=0ABcc:_x?= <a@x.example>" },
		"name: quotes":     func(m *mail.Message) { m.From = `"The" <a@x.example>` },
		"name: long":       func(m *mail.Message) { m.From = strings.Repeat("n", 129) + " <a@x.example>" },
		"name: none":       func(m *mail.Message) { m.From = "<a@x.example>" },
		"name: two":        func(m *mail.Message) { m.From = "A <a@x.example> <b@x.example>" },
		"after >":          func(m *mail.Message) { m.From = "A <a@x.example>x" },
		"reply-to":         func(m *mail.Message) { m.ReplyTo = "a@x.example,b@x.example" },
		"to: name":         to("Ann <ann@example.com>"),
		"subject: none":    subject(""),
		"subject: CRLF":    subject("a\r\nBcc: x@x.example"),
		"subject: LF":      subject("a\nb"),
		"subject: NUL":     subject("a\x00b"),
		"subject: bidi":    subject("a\u202eb"),
		"subject: LS":      subject("a\u2028b"),
		"subject: spaces":  subject(" a"),
		"subject: UTF-8":   subject("a\xff"),
		"subject: long":    subject(strings.Repeat("s", mail.MaxSubject+1)),
		"id: header":       func(m *mail.Message) { m.ID = "x>\r\nBcc: y" },
		"id: @":            func(m *mail.Message) { m.ID = "a@b" },
		"id: long":         func(m *mail.Message) { m.ID = strings.Repeat("i", 65) },
		"text: none":       func(m *mail.Message) { m.Text = " \n" },
		"text: UTF-8":      func(m *mail.Message) { m.Text = "\xff" },
		"text: long":       func(m *mail.Message) { m.Text = strings.Repeat("x", mail.MaxBody+1) },
		"html: UTF-8":      func(m *mail.Message) { m.HTML = "\xff" },
	}
	for name, change := range bad {
		if err := sample(change).Validate(); !errors.Is(err, mail.ErrInvalidMessage) {
			t.Errorf("%s: got %v, want ErrInvalidMessage", name, err)
		}
	}
}

// A message that somebody logs does not tell the way into an account.
func TestMessageIsNotLogged(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", slog.Any("message", sample()))
	if s := out.String(); strings.Contains(s, "https") || strings.Contains(s, "ann@") || !strings.Contains(s, "mail_1") {
		t.Errorf("logged as %s", s)
	}
}

// parsedMail is a message as a reader of it finds it.
type parsedMail struct {
	headers                []string
	from, replyTo, to      string
	subject, id, date      string
	auto, text, html, kind string
}

// read parses what a server has received, with the standard library alone.
func read(data []byte) (*parsedMail, error) {
	m, err := netmail.ReadMessage(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	p := &parsedMail{headers: slices.Sorted(maps.Keys(m.Header))}
	for name, values := range m.Header {
		if len(values) != 1 {
			return nil, fmt.Errorf("%s is there %d times", name, len(values))
		}
	}
	p.from, p.replyTo, p.to = m.Header.Get("From"), m.Header.Get("Reply-To"), m.Header.Get("To")
	p.id, p.date, p.auto = m.Header.Get("Message-Id"), m.Header.Get("Date"), m.Header.Get("Auto-Submitted")
	if p.subject, err = new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject")); err != nil {
		return nil, err
	}
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		return nil, err
	}
	p.kind = kind
	if kind == "text/plain" {
		text, err := io.ReadAll(quotedprintable.NewReader(m.Body))
		p.text = unix(text)
		return p, err
	}
	parts := multipart.NewReader(m.Body, params["boundary"])
	for {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			return p, nil
		}
		if err != nil {
			return nil, err
		}
		body, err := io.ReadAll(part)
		if err != nil {
			return nil, err
		}
		switch kind := part.Header.Get("Content-Type"); {
		case strings.HasPrefix(kind, "text/plain"):
			p.text = unix(body)
		case strings.HasPrefix(kind, "text/html"):
			p.html = unix(body)
		default:
			return nil, fmt.Errorf("a part of the type %s", kind)
		}
	}
}

func unix(b []byte) string { return strings.ReplaceAll(string(b), "\r\n", "\n") }

var wantHeaders = []string{"Auto-Submitted", "Content-Type", "Date", "From", "Message-Id", "Mime-Version", "Subject", "To"}

func TestWire(t *testing.T) {
	t.Parallel()
	m := sample(func(m *mail.Message) { m.ReplyTo = "Grüße <help@shop.example>" })
	data, err := mail.Wire(m, sentAt)
	if err != nil {
		t.Fatal(err)
	}
	got, err := read(data)
	if err != nil {
		t.Fatalf("%v in %s", err, data)
	}
	want := &parsedMail{
		headers: slices.Sorted(slices.Values(append([]string{"Reply-To"}, wantHeaders...))),
		from:    `"The Shop" <no-reply@shop.example>`, replyTo: "=?utf-8?q?Gr=C3=BC=C3=9Fe?= <help@shop.example>", to: "<ann@example.com>",
		subject: "Hello", id: "<mail_1@shop.example>", date: "Wed, 04 Mar 2026 05:06:07 +0000", auto: "auto-generated",
		text: m.Text, html: m.HTML, kind: "multipart/alternative",
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(parsedMail{})); diff != "" {
		t.Errorf("the message (-want +got):\n%s", diff)
	}
	again, err := mail.Wire(m, sentAt)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := read(again); err != nil || second.id != got.id {
		t.Errorf("the Message-ID of a repetition is %v, %v", second, err)
	}
	random := map[string]bool{}
	for range 2 {
		data, err := mail.Wire(sample(func(m *mail.Message) { m.ID, m.HTML = "", "" }), sentAt)
		if err != nil {
			t.Fatal(err)
		}
		p, err := read(data)
		if err != nil || p.kind != "text/plain" || p.text != m.Text || !strings.HasSuffix(p.id, "@shop.example>") {
			t.Errorf("a message without HTML and ID: %+v, %v", p, err)
		}
		random[p.id] = true
	}
	if len(random) != 2 {
		t.Error("two messages without an ID have one Message-ID")
	}
}

func TestEncodeSubject(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"Hello", "Grüße", "a  b", "=?utf-8?q?=0D=0ABcc:_x?=", strings.Repeat("ü", 400), strings.Repeat("x", 900),
		strings.Repeat("word ", 170) + "end", "🔑" + strings.Repeat(" 钥匙", 80), "a" + strings.Repeat(" ", 200) + "b",
	} {
		encoded := mail.EncodeSubject(s)
		decoded, err := new(mime.WordDecoder).DecodeHeader(encoded)
		if err != nil || decoded != s {
			t.Errorf("%q is read as %q, %v", s, decoded, err)
		}
		for word := range strings.SplitSeq(encoded, " ") {
			if strings.HasPrefix(word, "=?") && len(word) > 75 {
				t.Errorf("a word of %d characters", len(word))
			}
		}
	}
}

// FuzzMessage looks for a field that adds a header, a recipient or a part.
func FuzzMessage(f *testing.F) {
	f.Add("The Shop <a@shop.example>", "ann@example.com", "Hello", "text\r\n.\r\nmore", "<p>x</p>")
	f.Add("a@shop.example", "jürgen@example.com", "Grüße =?utf-8?q?x?=", "\n--boundary--\n", "")
	f.Add("a\r\nBcc: x@x <a@shop.example>", "a@b,c@d", "s\r\nBcc: x", "\x00", "\r")
	f.Add("Größe <a@shop.example>", "a@b.example", "a  b   c", ".", "--")
	f.Fuzz(func(t *testing.T, from, recipient, subject, text, html string) {
		m := &mail.Message{ID: "id", From: from, To: recipient, Subject: subject, Text: text, HTML: html}
		data, err := mail.Wire(m, sentAt)
		if err != nil {
			if !errors.Is(err, mail.ErrInvalidMessage) {
				t.Errorf("%v", err)
			}
			return
		}
		p, err := read(data)
		if err != nil {
			t.Fatalf("%v in\n%s", err, data)
		}
		address, err := mail.ParseAddress(recipient)
		if err != nil || p.to != "<"+address+">" {
			t.Errorf("to %q is %q", recipient, p.to)
		}
		if list, err := netmail.ParseAddressList(p.from); err != nil || len(list) != 1 {
			t.Errorf("from %q is %v, %v", from, list, err)
		}
		headers := wantHeaders
		if html == "" { // the encoding is that of the whole, not of a part
			headers = slices.Sorted(slices.Values(append([]string{"Content-Transfer-Encoding"}, wantHeaders...)))
		}
		if p.subject != subject || !slices.Equal(p.headers, headers) {
			t.Errorf("subject %q is %q, headers %v", subject, p.subject, p.headers)
		}
		for line := range bytes.SplitSeq(data, []byte("\r\n")) {
			if len(line) > 998 || bytes.ContainsAny(line, "\r\n\x00") {
				t.Errorf("a line of %d bytes: %q", len(line), line)
			}
		}
	})
}
