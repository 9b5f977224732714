package recovery_test

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/users"
	"github.com/mandate-auth/mandate/users/recovery"
)

// reset has a link mailed that sets a new password, and returns its token.
func (b *bench) reset(t *testing.T, address string) string {
	t.Helper()
	must(t, b.ForgotPassword(t.Context(), address, recovery.From{}))
	return b.token(t)
}

func (b *bench) magic(t *testing.T, address, next string) string {
	t.Helper()
	must(t, b.SendMagicLink(t.Context(), address, next, recovery.From{}))
	return b.token(t)
}

func (b *bench) change(t *testing.T, id, to string) string {
	t.Helper()
	must(t, b.ChangeEmail(t.Context(), id, "ses_1", to, recovery.From{}))
	return b.token(t)
}

func (b *bench) login(t *testing.T, email, pw string) error {
	t.Helper()
	_, err := b.users.Authenticate(t.Context(), users.Credentials{Email: email, Password: pw})
	return err
}

func TestVerifyEmail(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.person(t, ada, false)
	must(t, b.SendVerification(t.Context(), ada, recovery.From{}))
	token := b.token(t)
	u, err := b.VerifyEmail(t.Context(), token)
	if err != nil || !u.EmailVerified {
		t.Fatalf("%+v, %v", u, err)
	}
	_, err = b.VerifyEmail(t.Context(), token)
	wantInvalid(t, "a second time", err)
}

// Each token does one thing, and nothing that was made up does any.
func TestPurposes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	u := b.person(t, ada, true)
	b.person(t, ben, false)
	must(t, b.SendVerification(t.Context(), ben, recovery.From{}))
	tokens := map[string]string{"verify": b.token(t), "reset": b.reset(t, ada), "magic": b.magic(t, ada, ""), "change": b.change(t, u.ID, "free@example.com")}
	uses := map[string]func(string) error{
		"verify": func(s string) error { _, err := b.VerifyEmail(t.Context(), s); return err },
		"reset":  func(s string) error { return b.ResetPassword(t.Context(), s, fresh, recovery.From{}) },
		"magic":  func(s string) error { _, err := b.ConsumeMagicLink(t.Context(), s); return err },
		"change": func(s string) error { return b.ConfirmEmail(t.Context(), s, recovery.From{}) },
		"code":   func(s string) error { _, err := b.ConsumeCode(t.Context(), s, "123456"); return err },
	}
	for use, f := range uses {
		for kind, token := range tokens {
			if use != kind {
				wantInvalid(t, kind+" as "+use, f(token))
			}
		}
		for _, nothing := range []string{"", "x", "mot_" + strings.Repeat("a", 43), "mof_" + strings.Repeat("a", 43)} {
			wantInvalid(t, nothing+" as "+use, f(nothing))
		}
	}
	for _, kind := range []string{"verify", "magic", "change"} {
		must(t, uses[kind](tokens[kind]))
	}
}

// A token is too late when its time is over, to the second.
func TestLives(t *testing.T) {
	t.Parallel()
	b := setup(t)
	u := b.person(t, ada, true)
	b.person(t, ben, false)
	for name, c := range map[string]struct {
		life time.Duration
		ask  func() func() error
	}{
		"verification": {24 * time.Hour, func() func() error {
			must(t, b.SendVerification(t.Context(), ben, recovery.From{}))
			token := b.token(t)
			return func() error { _, err := b.VerifyEmail(t.Context(), token); return err }
		}},
		"reset": {30 * time.Minute, func() func() error {
			token := b.reset(t, ada)
			return func() error { return b.ResetPassword(t.Context(), token, fresh, recovery.From{}) }
		}},
		"change": {time.Hour, func() func() error {
			token := b.change(t, u.ID, "free@example.com")
			return func() error { return b.ConfirmEmail(t.Context(), token, recovery.From{}) }
		}},
		"link": {15 * time.Minute, func() func() error {
			token := b.magic(t, ada, "")
			return func() error { _, err := b.ConsumeMagicLink(t.Context(), token); return err }
		}},
		"code": {10 * time.Minute, func() func() error {
			flow, _, err := b.SendCode(t.Context(), ada, recovery.From{})
			must(t, err)
			code := codeIn.FindString(b.message(t).Text)
			return func() error { _, err := b.ConsumeCode(t.Context(), flow, code); return err }
		}},
	} {
		late := c.ask()
		b.move(c.life)
		wantInvalid(t, name, late())
	}
}

// A new password ends every session and everything else that was mailed, and its owner is
// told; a password that is not admitted leaves the link as it is.
func TestResetPassword(t *testing.T) {
	t.Parallel()
	b := setup(t)
	u := b.person(t, ada, true)
	token, link, change := b.reset(t, ada), b.magic(t, ada, ""), b.change(t, u.ID, ben)
	wantField(t, "too short", b.ResetPassword(t.Context(), token, "short", recovery.From{}), "new_password")
	must(t, b.ResetPassword(t.Context(), token, fresh, recovery.From{IP: "203.0.113.5"}))
	if !b.sessions.has(u.ID + " all password_reset") {
		t.Errorf("%v", b.sessions.ended)
	}
	if msg := b.message(t); msg == nil || msg.To != ada || tokenIn.MatchString(msg.Text) {
		t.Errorf("the notice: %+v", msg)
	}
	must(t, b.login(t, ada, fresh))
	wantInvalid(t, "a second time", b.ResetPassword(t.Context(), token, fresh, recovery.From{}))
	_, err := b.ConsumeMagicLink(t.Context(), link)
	wantInvalid(t, "a link of before", err)
	wantInvalid(t, "a change of before", b.ConfirmEmail(t.Context(), change, recovery.From{}))
}

// A reset that died half way is made again with the same link and the same password.
func TestResetPasswordAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.person(t, ada, true)
	token := b.reset(t, ada)
	b.sessions.fail = errors.New("sessions could not be ended")
	for stored := range 2 { // it fails before the password is stored, and after it
		b.sessions.works = stored
		if err := b.ResetPassword(t.Context(), token, fresh, recovery.From{}); !errors.Is(err, b.sessions.fail) {
			t.Fatalf("%v", err)
		}
		if in := b.login(t, ada, fresh) == nil; in != (stored == 1) {
			t.Errorf("the new password is stored: %t", in)
		}
	}
	b.sessions.fail = nil
	wantInvalid(t, "another password", b.ResetPassword(t.Context(), token, "one more fine passphrase", recovery.From{}))
	b.outbox.fail = errAway
	if err := b.ResetPassword(t.Context(), token, fresh, recovery.From{}); !errors.Is(err, errAway) {
		t.Errorf("the owner cannot be told: %v", err)
	}
	b.outbox.fail = nil
	must(t, b.ResetPassword(t.Context(), token, fresh, recovery.From{}))
	must(t, b.login(t, ada, fresh))
}

// Of twenty resets at once one is answered.
func TestResetPasswordOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.person(t, ada, true)
	token := b.reset(t, ada)
	var won atomic.Int32
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			switch err := b.ResetPassword(t.Context(), token, fresh, recovery.From{}); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, recovery.ErrInvalid):
				t.Errorf("%v", err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d were answered", won.Load())
	}
}

// An address that is confirmed is the account's, other sessions end and the old address is
// told, as its owner writes it.
func TestConfirmEmail(t *testing.T) {
	t.Parallel()
	for _, keep := range []bool{false, true} {
		b := setup(t, func(c *recovery.Config) { c.KeepOtherSessions = keep })
		u := b.person(t, "Ada@Example.com", true)
		token, reset := b.change(t, u.ID, ben), b.reset(t, ada)
		must(t, b.ConfirmEmail(t.Context(), token, recovery.From{}))
		if ended := b.sessions.has(u.ID + " but ses_1 email_changed"); ended == keep {
			t.Errorf("keep %v: %v", keep, b.sessions.ended)
		}
		if msg := b.message(t); msg.To != "Ada@Example.com" || !strings.Contains(msg.Text, ben) {
			t.Errorf("%+v", msg)
		}
		must(t, b.login(t, ben, password))
		wantInvalid(t, "a second time", b.ConfirmEmail(t.Context(), token, recovery.From{}))
		wantInvalid(t, "a reset of before", b.ResetPassword(t.Context(), reset, fresh, recovery.From{}))
	}
}

// What has changed since a change was asked for ends it, and an address that somebody else
// got meanwhile is taken.
func TestConfirmEmailRefuses(t *testing.T) {
	t.Parallel()
	b := setup(t)
	u := b.person(t, ada, true)
	taken, other := b.change(t, u.ID, ben), b.change(t, u.ID, "other@example.com")
	b.person(t, ben, false)
	if err := b.ConfirmEmail(t.Context(), taken, recovery.From{}); !errors.Is(err, users.ErrEmailTaken) {
		t.Errorf("%v", err)
	}
	must(t, b.users.Disable(t.Context(), u.ID, ""))
	wantInvalid(t, "disabled", b.ConfirmEmail(t.Context(), other, recovery.From{}))
	must(t, b.users.Delete(t.Context(), u.ID))
	wantInvalid(t, "gone", b.ConfirmEmail(t.Context(), other, recovery.From{}))
}

// An account without an address gets one, and nobody else is told.
func TestConfirmFirstEmail(t *testing.T) {
	t.Parallel()
	b := setup(t)
	st, err := b.users.CreateLinked(t.Context(), users.LinkedUser{Link: "acme|1"})
	must(t, err)
	must(t, b.ConfirmEmail(t.Context(), b.change(t, st.User.ID, ada), recovery.From{}))
	if u, err := b.users.GetByEmail(t.Context(), ada); err != nil || u.ID != st.User.ID || b.waiting() != 0 {
		t.Errorf("%+v, %v, %d mails", u, err, b.waiting())
	}
}

// A link signs in once, as long as the account is what it was, and says where to go.
func TestMagicLink(t *testing.T) {
	t.Parallel()
	b := setup(t)
	u := b.person(t, ada, true)
	token := b.magic(t, ada, "/cart?x=1")
	in, err := b.ConsumeMagicLink(t.Context(), token)
	if err != nil || in.UserID != u.ID || in.Next != "/cart?x=1" || in.Reclaimed {
		t.Fatalf("%+v, %v", in, err)
	}
	if _, err := b.users.Confirm(t.Context(), in.Proof); err != nil {
		t.Errorf("%v", err)
	}
	_, err = b.ConsumeMagicLink(t.Context(), token)
	wantInvalid(t, "a second time", err)

	token = b.magic(t, ada, "")
	must(t, b.users.ChangePassword(t.Context(), u.ID, users.PasswordChange{Current: password, New: fresh}))
	if in, err = b.ConsumeMagicLink(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	if _, err := b.users.Confirm(t.Context(), in.Proof); !errors.Is(err, users.ErrChanged) {
		t.Errorf("after another password: %v", err)
	}
	token = b.magic(t, ada, "")
	must(t, b.users.Delete(t.Context(), u.ID))
	_, err = b.ConsumeMagicLink(t.Context(), token)
	wantInvalid(t, "gone", err)
}

// An account whose address nobody has verified is the owner's of the address, without what
// whoever made it has left there.
func TestArriveReclaims(t *testing.T) {
	t.Parallel()
	b := setup(t)
	u := b.person(t, ada, false)
	in, err := b.ConsumeMagicLink(t.Context(), b.magic(t, ada, ""))
	if err != nil || !in.Reclaimed {
		t.Fatalf("%+v, %v", in, err)
	}
	if got, err := b.users.Confirm(t.Context(), in.Proof); err != nil || !got.EmailVerified {
		t.Errorf("%+v, %v", got, err)
	}
	if !b.sessions.has(u.ID+" all reclaimed") || b.login(t, ada, password) == nil {
		t.Error("something of before is left")
	}
}

// An unverified account that has changed since is not given to whoever holds the link.
func TestArriveChanged(t *testing.T) {
	t.Parallel()
	b := setup(t)
	u := b.person(t, ada, false)
	token := b.magic(t, ada, "")
	must(t, b.users.ChangePassword(t.Context(), u.ID, users.PasswordChange{Current: password, New: fresh}))
	_, err := b.ConsumeMagicLink(t.Context(), token)
	wantInvalid(t, "another password", err)
	token = b.magic(t, ada, "")
	must(t, b.users.Disable(t.Context(), u.ID, ""))
	_, err = b.ConsumeMagicLink(t.Context(), token)
	wantInvalid(t, "disabled", err)
	if got, err := b.users.Get(t.Context(), u.ID); err != nil || got.EmailVerified {
		t.Errorf("%+v, %v", got, err)
	}
}

// What was mailed is good when the secret key has been replaced meanwhile, on verified
// accounts and on others, while the old key is configured.
func TestAcrossKeys(t *testing.T) {
	t.Parallel()
	db := storetest.Database(t)
	before := setupOn(t, db, []string{"a"}, false)
	before.person(t, ada, true)
	before.person(t, ben, false)
	known, unknown, reset := before.magic(t, ada, ""), before.magic(t, ben, ""), before.reset(t, ada)
	flow, _, err := before.SendCode(t.Context(), ada, recovery.From{})
	must(t, err)
	code := codeIn.FindString(before.message(t).Text)

	after := setupOn(t, db, []string{"b", "a"}, false)
	in, err := after.ConsumeMagicLink(t.Context(), known)
	must(t, err)
	if _, err := after.users.Confirm(t.Context(), in.Proof); err != nil {
		t.Errorf("a verified account: %v", err)
	}
	in, err = after.ConsumeMagicLink(t.Context(), unknown)
	if err != nil || !in.Reclaimed {
		t.Fatalf("an unverified account: %+v, %v", in, err)
	}
	in, err = after.ConsumeCode(t.Context(), flow, code)
	must(t, err)
	if _, err := after.users.Confirm(t.Context(), in.Proof); err != nil {
		t.Errorf("a code: %v", err)
	}
	must(t, after.ResetPassword(t.Context(), reset, fresh, recovery.From{}))
}
