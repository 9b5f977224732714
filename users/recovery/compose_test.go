package recovery_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/mail"
	"github.com/mandate-auth/mandate/users"
	"github.com/mandate-auth/mandate/users/recovery"
)

// Every kind of mail says what it is about, opens its own page, and is the same when it is
// composed again.
func TestComposeKinds(t *testing.T) {
	t.Parallel()
	b := setup(t)
	u := b.person(t, ada, true)
	b.person(t, ben, false)
	from := recovery.From{IP: "203.0.113.5"}
	for page, ask := range map[string]func() error{
		"verify": func() error { return b.SendVerification(t.Context(), ben, from) },
		"reset":  func() error { return b.ForgotPassword(t.Context(), ada, from) },
		"magic":  func() error { return b.SendMagicLink(t.Context(), ada, "", from) },
		"change": func() error { return b.ChangeEmail(t.Context(), u.ID, "ses_1", "free@example.com", from) },
	} {
		must(t, ask())
		job := b.take(t)
		first, err := b.Compose(t.Context(), job)
		if err != nil || !strings.Contains(first.Text, site+page+"#token=mot_") || !strings.Contains(first.HTML, site+page+"#token=mot_") ||
			first.ID != job.ID || first.To != job.To || first.Subject == "" {
			t.Errorf("%s: %+v, %v", page, first, err)
			continue
		}
		if again, err := b.Compose(t.Context(), job); err != nil || again.Text != first.Text {
			t.Errorf("%s: again it is another", page)
		}
	}
}

// A code that is mailed again is another one, and only the last works.
func TestComposeCode(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.person(t, ada, true)
	flow, _, err := b.SendCode(t.Context(), ada, recovery.From{})
	must(t, err)
	job := b.take(t)
	if strings.Contains(job.Data["flow"], flow) {
		t.Error("the id of the flow is in the database")
	}
	code := func() string {
		msg, err := b.Compose(t.Context(), job)
		must(t, err)
		return codeIn.FindString(msg.Text)
	}
	first, second := code(), code()
	if first != second { // once in a million they are one
		_, err = b.ConsumeCode(t.Context(), flow, first)
		wantInvalid(t, "the first code", err)
	}
	if in, err := b.ConsumeCode(t.Context(), flow, second); err != nil || in.Reclaimed {
		t.Errorf("%+v, %v", in, err)
	}
	if msg, err := b.Compose(t.Context(), job); msg != nil || err != nil {
		t.Errorf("a code that was used is mailed again: %v, %v", msg, err)
	}
}

// Nobody is mailed anything for an address that is nobody's, or a disabled account's, or
// for what needs no mail any more.
func TestComposeNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	u, gone := b.person(t, ada, true), b.person(t, ben, true)
	const nobody = "nobody@example.com"
	asks := map[string]func(address string){
		"verification": func(a string) { must(t, b.SendVerification(t.Context(), a, recovery.From{})) },
		"reset":        func(a string) { must(t, b.ForgotPassword(t.Context(), a, recovery.From{})) },
		"link":         func(a string) { must(t, b.SendMagicLink(t.Context(), a, "", recovery.From{})) },
		"code": func(a string) {
			_, _, err := b.SendCode(t.Context(), a, recovery.From{})
			must(t, err)
		},
	}
	nothing := func(what string) {
		t.Helper()
		if msg := b.message(t); msg != nil {
			t.Errorf("%s: %q is mailed to %s", what, msg.Subject, msg.To)
		}
	}
	for name, ask := range asks {
		ask(nobody)
		nothing(name + " to nobody")
	}
	asks["verification"](ada)
	nothing("what is verified")
	must(t, b.ChangeEmail(t.Context(), u.ID, "", "free@example.com", recovery.From{}))
	change := b.take(t)
	must(t, b.ChangeEmail(t.Context(), gone.ID, "", "other@example.com", recovery.From{}))
	orphan := b.take(t)
	must(t, b.users.Delete(t.Context(), gone.ID))
	compose := func(what string, job mail.Job) {
		t.Helper()
		if msg, err := b.Compose(t.Context(), job); msg != nil || err != nil {
			t.Errorf("%s: %v, %v", what, msg, err)
		}
	}
	compose("an account that is gone", orphan)
	if _, err := b.users.ChangeEmail(t.Context(), u.ID, users.EmailChange{From: ada, To: "new@example.com", Stamp: b.stamp(t, u.ID)}); err != nil {
		t.Fatal(err)
	}
	compose("an address of before", change)
	if _, err := b.users.ChangeEmail(t.Context(), u.ID, users.EmailChange{From: "new@example.com", To: "free@example.com", Stamp: b.stamp(t, u.ID)}); err != nil {
		t.Fatal(err)
	}
	compose("the address that it has by now", change)
	must(t, b.users.Disable(t.Context(), u.ID, ""))
	for name, ask := range asks {
		ask("free@example.com")
		nothing(name + " to a disabled account")
	}
	compose("an invitation where nobody is invited", mail.Job{ID: mail.NewJobID(), Kind: "invitation", To: ada})
}

// Somebody's address is not given to others: its owner is told that somebody wants it.
func TestComposeChangeTaken(t *testing.T) {
	t.Parallel()
	b := setup(t)
	u := b.person(t, ada, true)
	b.person(t, ben, true)
	must(t, b.ChangeEmail(t.Context(), u.ID, "", ben, recovery.From{}))
	if msg := b.message(t); msg == nil || tokenIn.MatchString(msg.Text) || msg.To != ben {
		t.Errorf("%+v", msg)
	}
}

// A job of a version that knows more is kept for that, not dropped.
func TestComposeUnknown(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, kind := range []string{"later", ""} {
		if msg, err := b.Compose(t.Context(), mail.Job{ID: mail.NewJobID(), Kind: kind, To: ada}); err == nil || msg != nil {
			t.Errorf("%q: %v", kind, msg)
		}
	}
}

// Invitations are composed by who makes them.
func TestComposeInvitation(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.Use(b.outbox, func(_ context.Context, job mail.Job) (*mail.Message, error) {
		return b.Render(&job, mail.Invitation, mail.Data{Link: site + "in#token=x", Lifetime: time.Hour, InvitedBy: ben})
	})
	msg, err := b.Compose(t.Context(), mail.Job{ID: mail.NewJobID(), Kind: "invitation", To: ada, Lang: "en"})
	if err != nil || !strings.Contains(msg.Text, ben) || msg.To != ada {
		t.Errorf("%+v, %v", msg, err)
	}
}
