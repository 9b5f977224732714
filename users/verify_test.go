package users_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/users"
)

func TestVerifyEmail(t *testing.T) {
	t.Parallel()
	b, k := kept(t, verifying)
	u := b.person(t, "Ada@Example.com")
	wantErr(t, "signing in before", b.login(t, ada, password), users.ErrUnverified)
	for range 2 { // a call that was not answered is made again
		got, err := b.VerifyEmail(t.Context(), u.ID, ada)
		wantPerson(t, got, err)
	}
	got, err := b.Get(t.Context(), u.ID)
	wantPerson(t, got, err)
	if !k.has("verified " + u.ID + " " + ada) {
		t.Errorf("the roles of the address: %v", k.calls)
	}
	must(t, b.login(t, ada, password))
}

// A proof of another address than the account's is worth nothing, nor one for an account
// that is disabled or gone.
func TestVerifyEmailRefuses(t *testing.T) {
	t.Parallel()
	b, k := kept(t)
	u := b.person(t, ada)
	guest, _ := b.guest(t)
	for name, c := range map[string]struct{ id, norm string }{
		"another address": {u.ID, ben}, "no address": {u.ID, ""}, "a guest without one": {guest, ""}, "nobody": {"usr_nobody", ada},
	} {
		_, err := b.VerifyEmail(t.Context(), c.id, c.norm)
		wantErr(t, name, err, users.ErrChanged)
	}
	b.disable(t, u.ID)
	_, err := b.VerifyEmail(t.Context(), u.ID, ada)
	wantErr(t, "disabled", err, users.ErrDisabled)
	if st := b.state(t, u.ID); st.User.EmailVerified || k.has("verified "+u.ID+" "+ada) {
		t.Error("it was verified all the same")
	}
}

// Roles that could not be given are given by the next call.
func TestVerifyEmailAgain(t *testing.T) {
	t.Parallel()
	b, k := kept(t)
	u := b.person(t, ada)
	k.failing(errKeeper)
	_, err := b.VerifyEmail(t.Context(), u.ID, ada)
	wantErr(t, "without roles", err, errKeeper)
	k.failing(nil)
	got, err := b.VerifyEmail(t.Context(), u.ID, ada)
	wantPerson(t, got, err)
	if !k.has("verified " + u.ID + " " + ada) {
		t.Errorf("%v", k.calls)
	}
}

// Whoever has made an account with somebody's address keeps nothing of it.
func TestReclaim(t *testing.T) {
	t.Parallel()
	b, k := kept(t)
	u := b.person(t, ada)
	must(t, b.AddLink(t.Context(), b.state(t, u.ID), "acme|1"))
	st := b.state(t, u.ID)
	by := users.ProveByMail(u.ID, st.Stamp)
	after, err := b.Reclaim(t.Context(), st)
	must(t, err)
	if after.Owner != st.Owner+2 || after.HasPassword || len(after.Links) != 0 || !after.User.EmailVerified || after.Stamp == st.Stamp {
		t.Errorf("%+v", after)
	}
	for _, call := range []string{"dispossess " + u.ID, "verified " + u.ID + " " + ada} {
		if !k.has(call) {
			t.Errorf("no %q: %v", call, k.calls)
		}
	}
	if !b.ender.has("all " + u.ID + " reclaimed") {
		t.Errorf("sessions: %v", b.ender.calls)
	}
	wantErr(t, "the password", b.login(t, ada, password), users.ErrInvalidCredentials)
	for name, proof := range map[string]*users.Proof{"the identity": users.ProveByLink(u.ID, "acme|1"), "what was mailed before": by} {
		_, err := b.Confirm(t.Context(), proof)
		wantErr(t, name, err, users.ErrChanged)
	}
	if _, err := b.Confirm(t.Context(), users.ProveByMail(u.ID, after.Stamp)); err != nil {
		t.Errorf("the owner: %v", err)
	}
	_, err = b.Reclaim(t.Context(), after)
	wantErr(t, "a verified account", err, users.ErrChanged)
}

// Of many who reclaim at once one does, and what fails half way is done again.
func TestReclaimOnce(t *testing.T) {
	t.Parallel()
	b, k := kept(t)
	u := b.person(t, ada)
	st := b.state(t, u.ID)
	var won atomic.Int32
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			switch _, err := b.Reclaim(t.Context(), st); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, users.ErrChanged):
				t.Errorf("%v", err)
			}
		})
	}
	wg.Wait()
	if got := b.state(t, u.ID); won.Load() != 1 || got.Owner != 2 {
		t.Errorf("%d won, owner %d", won.Load(), got.Owner)
	}

	other := b.person(t, ben)
	b.ender.fail.Store(true)
	_, err := b.Reclaim(t.Context(), b.state(t, other.ID))
	wantErr(t, "sessions that cannot be ended", err, errEnder)
	b.ender.fail.Store(false)
	k.failing(errKeeper)
	_, err = b.Reclaim(t.Context(), b.state(t, other.ID))
	wantErr(t, "keys that cannot be revoked", err, errKeeper)
	k.failing(nil)
	if half := b.state(t, other.ID); half.User.EmailVerified || half.HasPassword {
		t.Errorf("half way it is %+v", half)
	}
	got, err := b.Reclaim(t.Context(), b.state(t, other.ID))
	if err != nil || !got.User.EmailVerified || got.Owner != 4 {
		t.Errorf("%+v, %v", got, err)
	}
}

// The state of before is worth nothing once the account is another one.
func TestReclaimChanged(t *testing.T) {
	t.Parallel()
	b, _ := kept(t)
	u := b.person(t, ada)
	st := b.state(t, u.ID)
	if _, err := b.ChangeEmail(t.Context(), u.ID, users.EmailChange{From: ada, To: ben, Stamp: st.Stamp}); err != nil {
		t.Fatal(err)
	}
	_, err := b.Reclaim(t.Context(), st)
	wantErr(t, "another address", err, users.ErrChanged)
}

func TestResetPassword(t *testing.T) {
	t.Parallel()
	b, k := kept(t)
	u := b.known(t, ada)
	must(t, b.AddLink(t.Context(), b.state(t, u.ID), "acme|1"))
	was := b.mailed(t, u.ID)
	_, err := b.ResetPassword(t.Context(), u.ID, was, "short")
	wantField(t, err, "new_password", "password_too_short")
	got, err := b.ResetPassword(t.Context(), u.ID, was, fresh)
	wantPerson(t, got, err)
	must(t, b.login(t, ada, fresh))
	wantErr(t, "the password of before", b.login(t, ada, password), users.ErrInvalidCredentials)
	if !b.ender.has("all " + u.ID + " password_reset") {
		t.Errorf("sessions: %v", b.ender.calls)
	}
	// It was the owner's before, so what else is the owner's stays.
	if st := b.state(t, u.ID); k.has("dispossess "+u.ID) || len(st.Links) != 1 || st.Owner != 0 {
		t.Errorf("%+v, %v", st, k.calls)
	}
	_, err = b.ResetPassword(t.Context(), u.ID, was, "one more fine passphrase")
	wantErr(t, "a second time", err, users.ErrChanged)
}

// A reset that was not answered is made again with the same password: what it had not
// come to is done then.
func TestResetPasswordAgain(t *testing.T) {
	t.Parallel()
	b, k := kept(t)
	u := b.person(t, ada)
	must(t, b.AddLink(t.Context(), b.state(t, u.ID), "acme|1"))
	was := b.mailed(t, u.ID)
	b.ender.fail.Store(true)
	_, err := b.ResetPassword(t.Context(), u.ID, was, fresh)
	wantErr(t, "sessions that cannot be ended", err, errEnder)
	b.ender.fail.Store(false)
	k.failing(errKeeper)
	_, err = b.ResetPassword(t.Context(), u.ID, was, fresh)
	wantErr(t, "keys that cannot be revoked", err, errKeeper)
	k.failing(nil)
	_, err = b.ResetPassword(t.Context(), u.ID, was, "one more fine passphrase")
	wantErr(t, "another password", err, users.ErrChanged)
	for range 2 {
		got, err := b.ResetPassword(t.Context(), u.ID, was, fresh)
		wantPerson(t, got, err)
	}
	if !b.ender.has("all "+u.ID+" password_reset") || !k.has("dispossess "+u.ID) || !k.has("verified "+u.ID+" "+ada) {
		t.Errorf("%v, %v", b.ender.calls, k.calls)
	}
	// The address was nobody's as far as anybody knew: the identity of before is gone.
	if st := b.state(t, u.ID); len(st.Links) != 0 || st.Owner != 2 || !st.User.EmailVerified {
		t.Errorf("%+v", st)
	}
}

// What was mailed before the password changed is not valid, also for whoever knows the
// password that it was changed to: nothing is verified by it.
func TestResetPasswordSame(t *testing.T) {
	t.Parallel()
	b, k := kept(t)
	u := b.person(t, ada)
	was := b.mailed(t, u.ID)
	must(t, b.ChangePassword(t.Context(), u.ID, users.PasswordChange{Current: password, New: fresh}))
	_, err := b.ResetPassword(t.Context(), u.ID, was, fresh)
	wantErr(t, "the password that it has", err, users.ErrChanged)
	if k.has("verified "+u.ID+" "+ada) || b.state(t, u.ID).User.EmailVerified {
		t.Error("the address counts as verified")
	}
}

func TestResetPasswordRefuses(t *testing.T) {
	t.Parallel()
	b, _ := kept(t)
	u := b.known(t, ada)
	was := b.mailed(t, u.ID)
	_, err := b.ResetPassword(t.Context(), "usr_nobody", was, fresh)
	wantErr(t, "nobody", err, users.ErrChanged)
	_, err = b.ResetPassword(t.Context(), u.ID, users.Mailed{}, fresh)
	wantErr(t, "without a stamp", err, users.ErrChanged)
	linked, err := b.CreateLinked(t.Context(), users.LinkedUser{Email: ben, Link: "acme|1"})
	must(t, err)
	_, err = b.ResetPassword(t.Context(), linked.User.ID, was, "")
	wantErr(t, "an account without a password", err, users.ErrChanged)
	// Whoever has no password gets one by mail.
	got, err := b.ResetPassword(t.Context(), linked.User.ID, users.Mailed{Stamp: linked.Stamp}, fresh)
	wantPerson(t, got, err)
	must(t, b.login(t, ben, fresh))
	b.disable(t, u.ID)
	_, err = b.ResetPassword(t.Context(), u.ID, was, fresh)
	wantErr(t, "disabled", err, users.ErrDisabled)
}

// Of two resets at once with different passwords one counts.
func TestResetPasswordOnce(t *testing.T) {
	t.Parallel()
	b, _ := kept(t)
	u := b.person(t, ada)
	was := b.mailed(t, u.ID)
	passwords := []string{"the first fine passphrase", "the second fine passphrase", "the third fine passphrase"}
	won := make(chan string, len(passwords))
	var wg sync.WaitGroup
	for _, p := range passwords {
		wg.Go(func() {
			switch _, err := b.ResetPassword(t.Context(), u.ID, was, p); {
			case err == nil:
				won <- p
			case !errors.Is(err, users.ErrChanged):
				t.Errorf("%v", err)
			}
		})
	}
	wg.Wait()
	if len(won) != 1 {
		t.Fatalf("%d won", len(won))
	}
	must(t, b.login(t, ada, <-won))
}

// A demo user stays one, or the next start would take it for a person's account.
func TestResetPasswordDemo(t *testing.T) {
	t.Parallel()
	b, _ := kept(t)
	demo := []users.DemoUser{{Email: ada, Password: "x"}}
	must(t, b.SeedDemo(t.Context(), demo))
	u, err := b.GetByEmail(t.Context(), ada)
	must(t, err)
	got, err := b.ResetPassword(t.Context(), u.ID, b.mailed(t, u.ID), fresh)
	if err != nil || got.Kind != authz.KindDemo {
		t.Errorf("%+v, %v", got, err)
	}
	if verified, err := b.VerifyEmail(t.Context(), u.ID, ada); err != nil || verified.Kind != authz.KindDemo {
		t.Errorf("%+v, %v", verified, err)
	}
	must(t, b.SeedDemo(t.Context(), demo))
}

func TestChangeEmail(t *testing.T) {
	t.Parallel()
	b, k := kept(t)
	u := b.known(t, ada)
	c := users.EmailChange{From: ada, To: "Ben@Example.com", Stamp: b.state(t, u.ID).Stamp}
	for range 2 { // a call that was not answered is made again
		got, err := b.ChangeEmail(t.Context(), u.ID, c)
		wantPerson(t, got, err)
		if got.Email != "Ben@Example.com" {
			t.Errorf("%+v", got)
		}
	}
	if !k.has("verified " + u.ID + " " + ben) {
		t.Errorf("the roles of the address: %v", k.calls)
	}
	must(t, b.login(t, ben, password))
	wantErr(t, "the address of before", b.login(t, ada, password), users.ErrInvalidCredentials)
}

// A change is for the account as it was when it was asked for.
func TestChangeEmailRefuses(t *testing.T) {
	t.Parallel()
	b, _ := kept(t)
	u, other := b.known(t, ada), b.known(t, ben)
	guest, _ := b.guest(t)
	const free = "free@example.com"
	mine, theirs, guests := b.state(t, u.ID).Stamp, b.state(t, other.ID).Stamp, b.state(t, guest).Stamp
	for name, c := range map[string]struct {
		id     string
		change users.EmailChange
		want   error
	}{
		"taken":              {u.ID, users.EmailChange{From: ada, To: "BEN@example.com", Stamp: mine}, users.ErrEmailTaken},
		"from another":       {u.ID, users.EmailChange{From: ben, To: free, Stamp: mine}, users.ErrChanged},
		"from none":          {u.ID, users.EmailChange{To: free, Stamp: mine}, users.ErrChanged},
		"of another owner":   {u.ID, users.EmailChange{From: ada, To: free, Stamp: theirs}, users.ErrChanged},
		"of no account":      {u.ID, users.EmailChange{From: ada, To: free}, users.ErrChanged},
		"of nobody":          {"usr_nobody", users.EmailChange{From: ada, To: free, Stamp: mine}, users.ErrChanged},
		"of a guest":         {guest, users.EmailChange{To: free, Stamp: guests}, users.ErrChanged},
		"of another's to it": {other.ID, users.EmailChange{From: ada, To: free, Stamp: mine}, users.ErrChanged},
		"the address it has": {other.ID, users.EmailChange{From: free, To: ada, Stamp: theirs}, users.ErrChanged},
	} {
		_, err := b.ChangeEmail(t.Context(), c.id, c.change)
		wantErr(t, name, err, c.want)
	}
	_, err := b.ChangeEmail(t.Context(), u.ID, users.EmailChange{From: ada, To: "nobody"})
	wantField(t, err, "email", users.CodeInvalidField)
	b.disable(t, u.ID)
	_, err = b.ChangeEmail(t.Context(), u.ID, users.EmailChange{From: ada, To: free, Stamp: mine})
	wantErr(t, "disabled", err, users.ErrDisabled)
	_, err = b.ChangeEmail(t.Context(), u.ID, users.EmailChange{From: free, To: ada})
	wantErr(t, "disabled, and made before", err, users.ErrDisabled)
	if got := b.state(t, u.ID); got.EmailNorm != ada {
		t.Errorf("%+v", got)
	}
}

// The address that an account has and nobody has verified is not the end of a change.
func TestChangeEmailUnverified(t *testing.T) {
	t.Parallel()
	b, _ := kept(t)
	u := b.person(t, ada)
	_, err := b.ChangeEmail(t.Context(), u.ID, users.EmailChange{From: ben, To: ada})
	wantErr(t, "another change", err, users.ErrChanged)
}

// Of many accounts that get one address at once one has it.
func TestChangeEmailOnce(t *testing.T) {
	t.Parallel()
	b, _ := kept(t)
	var won atomic.Int32
	var wg sync.WaitGroup
	for _, from := range []string{"1@example.com", "2@example.com", "3@example.com", "4@example.com"} {
		u := b.known(t, from)
		c := users.EmailChange{From: from, To: ben, Stamp: b.state(t, u.ID).Stamp}
		wg.Go(func() {
			switch _, err := b.ChangeEmail(t.Context(), u.ID, c); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, users.ErrEmailTaken):
				t.Errorf("%v", err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d have the address", won.Load())
	}
}

// An account without an address gets its first one.
func TestFirstEmail(t *testing.T) {
	t.Parallel()
	b, _ := kept(t)
	st, err := b.CreateLinked(t.Context(), users.LinkedUser{Link: "acme|1"})
	must(t, err)
	got, err := b.ChangeEmail(t.Context(), st.User.ID, users.EmailChange{To: ada, Stamp: st.Stamp})
	wantPerson(t, got, err)
}
