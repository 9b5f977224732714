package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/mandate-auth/mandate/mail"
)

func TestTheBoxKeepsTheLastMails(t *testing.T) {
	t.Parallel()
	box := &mailbox{}
	for i := range kept + 1 {
		if err := box.Send(t.Context(), &mail.Message{To: fmt.Sprintf("%d@example.com", i)}); err != nil {
			t.Fatal(err)
		}
	}
	got := box.all()
	if len(got) != kept || got[0].To != fmt.Sprintf("%d@example.com", kept) || got[kept-1].To != "1@example.com" {
		t.Errorf("%d mails, the newest to %s, the oldest to %s", len(got), got[0].To, got[len(got)-1].To)
	}
}

func TestLinksOfAMail(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]part{
		"no link": {{Text: "no link"}},
		"see http://localhost:8080/reset#token=a_b-c\nbye": {{Text: "see "}, {Text: "http://localhost:8080/reset#token=a_b-c", Link: true}, {Text: "\nbye"}},
		"https://a.example <https://b.example>":            {{}, {Text: "https://a.example", Link: true}, {Text: " <"}, {Text: "https://b.example", Link: true}, {Text: ">"}},
	} {
		if got := parts(text); !slices.Equal(got, want) {
			t.Errorf("%q has %+v, want %+v", text, got, want)
		}
	}
}

// What a mail says is shown as text, whoever wrote it.
func TestMailsAreShownAsText(t *testing.T) {
	t.Parallel()
	box := &mailbox{}
	if err := box.Send(t.Context(), &mail.Message{To: "<b>@example.com", Subject: "<script>", Text: `javascript:alert(1) <img src=x> http://localhost/a"onclick="x`}); err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	box.show(w, httptest.NewRequest(http.MethodGet, "/mails", nil))
	page := w.Body.String()
	for _, bad := range []string{"<script>", "<img", "<b>", `href="javascript`, `"onclick`} {
		if strings.Contains(page, bad) {
			t.Errorf("the page has %s:\n%s", bad, page)
		}
	}
	if !strings.Contains(page, `<a href="http://localhost/a">http://localhost/a</a>`) {
		t.Errorf("the page has no link:\n%s", page)
	}
}
