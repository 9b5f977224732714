package recovery_test

import (
	"testing"
	"time"

	"github.com/mandate-auth/mandate/mail"
	"github.com/mandate-auth/mandate/users"
	"github.com/mandate-auth/mandate/users/recovery"
)

// kinds are the mails that others can have sent to somebody, and how.
func kinds(t *testing.T, b *bench) map[string]func() {
	t.Helper()
	other := b.person(t, "eve@example.com", true)
	return map[string]func(){
		"verify_email":   func() { must(t, b.SendVerification(t.Context(), ben, recovery.From{})) },
		"reset_password": func() { must(t, b.ForgotPassword(t.Context(), ada, recovery.From{})) },
		"magic_link":     func() { must(t, b.SendMagicLink(t.Context(), ada, "", recovery.From{})) },
		"email_code": func() {
			_, _, err := b.SendCode(t.Context(), ada, recovery.From{})
			must(t, err)
		},
		"account_exists": func() {
			must(t, b.Register(t.Context(), &users.Prepared{Email: ada, Hash: "another"}, recovery.From{}))
		},
		"change_email": func() {
			must(t, b.ChangeEmail(t.Context(), other.ID, "", "free@example.com", recovery.From{}))
		},
	}
}

// Nobody is mailed more of a kind than the app allows in an hour, whatever the lives of
// links and codes are and whether they are still kept; the next hour is another one.
func TestPerHour(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *recovery.Config) { c.PerHour = 2 })
	b.person(t, ada, true)
	b.person(t, ben, false)
	mailed := func(ask func()) bool {
		ask()
		return b.message(t) != nil
	}
	list := kinds(t, b)
	for kind, ask := range list {
		for i, want := range []bool{true, true, false} {
			if mailed(ask) != want {
				t.Errorf("%s: the mail %d of an hour is sent: %v", kind, i+1, !want)
			}
		}
	}
	// Codes and links live for less than an hour, and are swept.
	b.move(50 * time.Minute)
	if _, err := b.tokens.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	for kind, ask := range list {
		if mailed(ask) {
			t.Errorf("%s: a third within the hour", kind)
		}
	}
	b.move(11 * time.Minute)
	for kind, ask := range list {
		if !mailed(ask) {
			t.Errorf("%s: none in the next hour", kind)
		}
	}
}

// A mail that could not be sent at first is composed again, and does not count twice:
// while a mail server is away an owner may ask as often as the app allows, and gets that.
func TestComposedAgain(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *recovery.Config) { c.PerHour = 2 })
	b.person(t, ada, true)
	b.person(t, ben, false)
	for kind, ask := range kinds(t, b) {
		var jobs []mail.Job
		for range 3 {
			ask()
			jobs = append(jobs, b.take(t))
		}
		for round := range 3 {
			for i := range jobs {
				msg, err := b.Compose(t.Context(), jobs[i])
				if err != nil || (msg != nil) != (i < 2) {
					t.Errorf("%s: round %d, job %d: %v, %v", kind, round, i, msg != nil, err)
				}
			}
		}
	}
}

// One account's mails are not counted for another, nor one kind's for another kind.
func TestPerHourApart(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *recovery.Config) { c.PerHour = 1 })
	b.person(t, ada, true)
	b.person(t, ben, true)
	for _, address := range []string{ada, ben} {
		must(t, b.ForgotPassword(t.Context(), address, recovery.From{}))
		b.token(t)
		must(t, b.SendMagicLink(t.Context(), address, "", recovery.From{}))
		b.token(t)
	}
}
