package recovery_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/mail"
	"github.com/mandate-auth/mandate/users"
	"github.com/mandate-auth/mandate/users/recovery"
)

// What could not be done by mail later is refused at the start.
func TestNewRefuses(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for name, edit := range map[string]func(*recovery.Config){
		"app":                func(c *recovery.Config) { c.App = "" },
		"users":              func(c *recovery.Config) { c.Users = nil },
		"tokens":             func(c *recovery.Config) { c.Tokens = nil },
		"sessions":           func(c *recovery.Config) { c.Sessions = nil },
		"keys":               func(c *recovery.Config) { c.Keys = nil },
		"templates":          func(c *recovery.Config) { c.Templates = nil },
		"sender":             func(c *recovery.Config) { c.From = "" },
		"a path":             func(c *recovery.Config) { c.Links.VerifyEmail = "/verify" },
		"a fragment":         func(c *recovery.Config) { c.Links.ResetPassword = site + "#x" },
		"no URL":             func(c *recovery.Config) { c.Links.ChangeEmail = "https://%zz/" },
		"a magic path":       func(c *recovery.Config) { c.Links.MagicLink = "magic" },
		"a path to register": func(c *recovery.Config) { c.Links.Invitation = "//" },
	} {
		config := b.config
		edit(&config)
		if _, err := recovery.New(config); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := recovery.New(recovery.Config{
		App: "shop", Users: b.users, Tokens: b.tokens, Sessions: b.sessions, Keys: b.keys, Templates: b.config.Templates, From: "a@shop.example",
	}); err != nil {
		t.Errorf("with nothing but what is required: %v", err)
	}
}

// What is asked for an address is one job, whether or not somebody has the address, and
// what can be no address is refused under the name that it was given by.
func TestAsk(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.person(t, ada, true)
	from := recovery.From{Language: "de", IP: "203.0.113.5"}
	for kind, ask := range map[string]func(string) error{
		"verify_email":   func(a string) error { return b.SendVerification(t.Context(), a, from) },
		"reset_password": func(a string) error { return b.ForgotPassword(t.Context(), a, from) },
		"magic_link":     func(a string) error { return b.SendMagicLink(t.Context(), a, "/cart", from) },
		"email_code": func(a string) error {
			flow, life, err := b.SendCode(t.Context(), a, from)
			if err == nil && (len(flow) != 47 || life != 10*time.Minute) {
				t.Errorf("flow %q for %s", flow, life)
			}
			return err
		},
	} {
		for _, address := range []string{ada, ben} {
			must(t, ask(address))
			job := b.take(t)
			if job.Kind != kind || job.To != address || job.UserID != "" || job.Lang != "de" || job.Data["ip"] != "203.0.113.5" {
				t.Errorf("%s: %+v", kind, job)
			}
		}
		wantField(t, kind, ask("nobody"), "email")
		b.outbox.fail = mail.ErrInvalidJob
		wantField(t, kind+" to what cannot be mailed to", ask(ada), "email")
		b.outbox.fail = errAway
		if err := ask(ada); !errors.Is(err, errAway) {
			t.Errorf("%s without a database: %v", kind, err)
		}
		b.outbox.fail = nil
	}
	wantField(t, "next", b.SendMagicLink(t.Context(), ada, "//evil.example", from), "next")
	wantField(t, "a long next", b.SendMagicLink(t.Context(), ada, "/"+strings.Repeat("x", 2048), from), "next")
	must(t, b.SendMagicLink(t.Context(), ada, "/"+strings.Repeat("x", 2047), from))
}

// An app that signs nobody in by mail says so.
func TestDisabled(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *recovery.Config) { c.MagicLink, c.EmailCode = false, false })
	b.person(t, ada, true)
	_, _, err := b.SendCode(t.Context(), ada, recovery.From{})
	_, linkErr := b.ConsumeMagicLink(t.Context(), "mot_x")
	_, codeErr := b.ConsumeCode(t.Context(), "mof_x", "123456")
	for name, err := range map[string]error{
		"code": err, "link": b.SendMagicLink(t.Context(), ada, "", recovery.From{}), "use of a link": linkErr, "use of a code": codeErr,
	} {
		if !errors.Is(err, recovery.ErrDisabled) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if b.waiting() != 0 {
		t.Error("something is mailed all the same")
	}
}

// What a request says about its language neither keeps a mail from being sent nor an
// owner from being told: whoever takes a session over would choose one.
func TestLanguageIsNoReason(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *recovery.Config) { c.Language = "de" })
	u := b.person(t, ada, true)
	for said, want := range map[string]string{
		"": "de", "en": "en", "de-AT": "de-AT", "zh-Hant-TW": "zh-Hant-TW", "en_US": "de", "!": "de", "x": "de", "en\r\nBcc: eve@example.com": "de", "*": "de",
		strings.Repeat("en-", 30) + "en": "de", "ägypten": "de", "en--US": "de",
	} {
		from := recovery.From{Language: said}
		must(t, b.PasswordChanged(t.Context(), u.ID, from))
		if job := b.take(t); job.Lang != want {
			t.Errorf("%q: the owner is told in %q", said, job.Lang)
		}
		must(t, b.ForgotPassword(t.Context(), ada, from))
		if job := b.take(t); job.Lang != want {
			t.Errorf("%q: mailed in %q", said, job.Lang)
		}
	}
}

// An address is changed to another one, by whoever owns the account.
func TestChangeEmailAsked(t *testing.T) {
	t.Parallel()
	b := setup(t)
	u := b.person(t, ada, true)
	wantField(t, "the same", b.ChangeEmail(t.Context(), u.ID, "ses_1", "ADA@example.com", recovery.From{}), "new_email")
	wantField(t, "no address", b.ChangeEmail(t.Context(), u.ID, "ses_1", "nobody", recovery.From{}), "new_email")
	if err := b.ChangeEmail(t.Context(), "usr_nobody", "", ben, recovery.From{}); !errors.Is(err, users.ErrNotFound) {
		t.Errorf("of nobody: %v", err)
	}
	must(t, b.ChangeEmail(t.Context(), u.ID, "ses_1", ben, recovery.From{}))
	if job := b.take(t); job.To != ben || job.UserID != u.ID || job.Data["from"] != ada || job.Data["session"] != "ses_1" {
		t.Errorf("%+v", job)
	}
	b.outbox.fail = mail.ErrInvalidJob
	wantField(t, "what cannot be mailed to", b.ChangeEmail(t.Context(), u.ID, "", ben, recovery.From{}), "new_email")
}

// Owners are told of changes at an address that is theirs as far as anybody knows.
func TestNotices(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *recovery.Config) {
		c.Provider = func(name string) string { return "The " + name }
	})
	known, unknown := b.person(t, ada, true), b.person(t, ben, false)
	for kind, tell := range map[string]func(id string) error{
		"password_changed":  func(id string) error { return b.PasswordChanged(t.Context(), id, recovery.From{IP: "203.0.113.5"}) },
		"identity_linked":   func(id string) error { return b.IdentityLinked(t.Context(), id, "acme") },
		"identity_removed":  func(id string) error { return b.IdentityRemoved(t.Context(), id, "acme") },
		"account_recovered": func(id string) error { return b.Recovered(t.Context(), id) },
	} {
		must(t, tell(known.ID))
		job := b.take(t)
		msg, err := b.Compose(t.Context(), job)
		if err != nil || job.Kind != kind || job.UserID != known.ID || msg.To != ada || msg.From != "Shop <no-reply@shop.example>" || msg.ReplyTo != "help@shop.example" {
			t.Errorf("%s: %+v, %v", kind, msg, err)
		}
		if strings.Contains(kind, "identity") != strings.Contains(msg.Text, "The acme") {
			t.Errorf("%s names the provider otherwise: %s", kind, msg.Text)
		}
		if tokenIn.MatchString(msg.Text) {
			t.Errorf("%s has a link", kind)
		}
		must(t, tell(unknown.ID))
		if kind == "account_recovered" {
			b.take(t) // whoever is told has just proved it
		} else if b.waiting() != 0 {
			t.Errorf("%s: somebody is told at an address that nobody has verified", kind)
		}
		if err := tell("usr_nobody"); !errors.Is(err, users.ErrNotFound) {
			t.Errorf("%s about nobody: %v", kind, err)
		}
		b.outbox.fail = mail.ErrInvalidJob
		if err := tell(known.ID); err != nil {
			t.Errorf("%s to an address without a mailbox: %v", kind, err)
		}
		b.outbox.fail = errAway
		if err := tell(known.ID); !errors.Is(err, errAway) {
			t.Errorf("%s without a database: %v", kind, err)
		}
		b.outbox.fail = nil
	}
}
