package recovery_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/mail"
	"github.com/mandate-auth/mandate/users/recovery"
)

// The longest life that a link may have is one that a mail may have.
func TestLongestLife(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *recovery.Config) { c.Lives.VerifyEmail = mail.MaxLife })
	for range 20 {
		must(t, b.SendVerification(t.Context(), ada, recovery.From{}))
	}
}

func TestPerHourBounds(t *testing.T) {
	t.Parallel()
	for n, taken := range map[int]bool{0: true, 25: true, -1: false, 26: false} {
		c := setup(t).config
		c.PerHour = n
		if _, err := recovery.New(c); (err == nil) != taken {
			t.Errorf("%d: %v", n, err)
		}
	}
}

// Wrong codes count for the account whose flow it is: whoever knows an id, and has no
// flow, ends nobody's codes.
func TestCodesOfAnID(t *testing.T) {
	t.Parallel()
	b := setup(t)
	u := b.person(t, ada, true)
	for range 100 {
		_, err := b.ConsumeCode(t.Context(), u.ID, "000000")
		wantInvalid(t, "nonsense", err)
	}
	flow, _, err := b.SendCode(t.Context(), ada, recovery.From{})
	must(t, err)
	if _, err := b.ConsumeCode(t.Context(), flow, codeIn.FindString(b.message(t).Text)); err != nil {
		t.Errorf("the owner with the right code: %v", err)
	}
}

// Many accounts that are to have one address fill nobody's mailbox.
func TestChangesToOneAddress(t *testing.T) {
	t.Parallel()
	b := setup(t)
	sent := 0
	for i := range 30 {
		u := b.person(t, fmt.Sprintf("eve%d@example.com", i), true)
		must(t, b.ChangeEmail(t.Context(), u.ID, "", "victim@example.com", recovery.From{Network: fmt.Sprint("192.0.2.", i%10)}))
		if b.message(t) != nil {
			sent++
		}
	}
	if sent != 20 {
		t.Errorf("%d mails of one kind to one address within an hour, want 20", sent)
	}
}

// A mail that goes out late promises no more than is left.
func TestLateMail(t *testing.T) {
	t.Parallel()
	b := setup(t)
	u := b.person(t, ada, true)
	b.person(t, ben, false)
	for name, c := range map[string]struct {
		ask        func() error
		life, left string
	}{
		"code":   {func() error { _, _, err := b.SendCode(t.Context(), ada, recovery.From{}); return err }, "10 minutes", "1 minute"},
		"link":   {func() error { return b.SendMagicLink(t.Context(), ada, "", recovery.From{}) }, "15 minutes", "6 minutes"},
		"reset":  {func() error { return b.ForgotPassword(t.Context(), ada, recovery.From{}) }, "30 minutes", "21 minutes"},
		"verify": {func() error { return b.SendVerification(t.Context(), ben, recovery.From{}) }, "1 day", "23 hours"},
		"change": {func() error { return b.ChangeEmail(t.Context(), u.ID, "", "free@example.com", recovery.From{}) }, "1 hour", "51 minutes"},
	} {
		must(t, c.ask())
		job := b.take(t)
		for _, want := range []string{c.life, c.left} { // first the server was away
			msg, err := b.Compose(t.Context(), job)
			must(t, err)
			if !strings.Contains(msg.Text, "good for "+want+" ") {
				t.Errorf("%s: not good for %s:\n%s", name, want, msg.Text)
			}
			b.move(9*time.Minute - 5*time.Second)
		}
	}
}

// A mail that is composed again, when the account is not what it was, would hold a link
// that never works.
func TestNoDeadLink(t *testing.T) {
	t.Parallel()
	b := setup(t)
	u := b.person(t, ada, true)
	must(t, b.ForgotPassword(t.Context(), ada, recovery.From{}))
	job := b.take(t)
	mailed := func() bool {
		msg, err := b.Compose(t.Context(), job)
		must(t, err)
		return msg != nil
	}
	for range 2 {
		if !mailed() {
			t.Error("not mailed while nothing has changed")
		}
	}
	must(t, b.users.SetPassword(t.Context(), u.ID, fresh))
	if mailed() {
		t.Error("a link is mailed that never works")
	}
}
