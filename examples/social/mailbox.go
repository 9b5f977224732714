package main

import (
	"bytes"
	"context"
	"html/template"
	"net/http"
	"regexp"
	"slices"
	"sync"

	"github.com/mandate-auth/mandate/mail"
)

// kept is how many mails are kept.
const kept = 50

// mailbox is a [mail.Mailer] that sends nothing: it keeps the last mails and shows
// them to everybody who asks, which is good for trying things out and for nothing
// else. A service that leaves engine.Options.Mailer empty and sets auth.mail.smtp in
// the manifest sends them.
type mailbox struct {
	mu    sync.Mutex
	mails []mail.Message // the newest first
}

// Send keeps the message.
func (b *mailbox) Send(_ context.Context, m *mail.Message) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mails = slices.Insert(b.mails, 0, *m)
	b.mails = b.mails[:min(len(b.mails), kept)]
	return nil
}

// all returns the mails, the newest first.
func (b *mailbox) all() []mail.Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.mails)
}

var (
	mailsPage = template.Must(template.New("mails.html").Funcs(template.FuncMap{"parts": parts}).ParseFS(web, "web/mails.html"))
	links     = regexp.MustCompile(`https?://[^\s<>"]+`)
)

// part is some text of a mail, or a link in it.
type part struct {
	Text string
	Link bool
}

// parts finds the links of a text.
func parts(text string) []part {
	var found []part
	for {
		at := links.FindStringIndex(text)
		if at == nil {
			return append(found, part{Text: text})
		}
		found = append(found, part{Text: text[:at[0]]}, part{Text: text[at[0]:at[1]], Link: true})
		text = text[at[1]:]
	}
}

// show is the page with the mails.
func (b *mailbox) show(w http.ResponseWriter, _ *http.Request) {
	var page bytes.Buffer
	if err := mailsPage.Execute(&page, b.all()); err != nil {
		http.Error(w, "the mails cannot be shown", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(page.Bytes())
}
