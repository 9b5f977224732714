package invitation_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/users"
	"github.com/mandate-auth/mandate/users/invitation"
)

// making is a step just before the account is the person's.
var making = map[string]storetest.Step{
	"nobody's": {Command: "insert users", Nth: 1}, "a guest's": {Command: "findAndModify users", Nth: 1}, "a squatter's": {Command: "update users", Nth: 1},
}

// An invitation that is revoked while its account is being made has made none, and the
// squatter's, which was there, gets no role.
func TestRevokeWhileAccepting(t *testing.T) {
	t.Parallel()
	for account, at := range making {
		t.Run(account, func(t *testing.T) {
			t.Parallel()
			b, f := setup(t), &storetest.Faults{}
			a, by := b.meets(t, account, ada), b.through(t, f)
			f.Arm(storetest.Cancel, at, func() {
				if err := b.Revoke(t.Context(), a.id); err != nil {
					t.Errorf("revoke: %v", err)
				}
			})
			err := a.acceptBy(t, by)
			if trace, hits := f.Disarm(); hits == 0 || !errors.Is(err, invitation.ErrInvalid) {
				t.Errorf("%v of %v", err, trace)
			}
			u := a.made(t)
			if account != "a squatter's" && u != nil {
				t.Errorf("there is %+v", u)
			}
			if u != nil && slices.Contains(b.granted(), u.ID+" editor") {
				t.Error("and it has the role")
			}
			if got := b.find(t, a.id); got.State != invitation.Revoked {
				t.Errorf("%+v", got)
			}
		})
	}
}

// Of two who accept at once the list shows the one who has the account, whoever came
// first and whether or not the other has got as far as to make one.
func TestTwoAccept(t *testing.T) {
	t.Parallel()
	for _, second := range []string{"wins", "loses"} {
		t.Run(second, func(t *testing.T) {
			t.Parallel()
			b, f := setup(t), &storetest.Faults{}
			a, by := b.meets(t, "nobody's", ada), b.through(t, f)
			other := a.by
			other.Password = "another fine passphrase"
			var their error
			f.Arm(storetest.Cancel, making["nobody's"], func() {
				if second == "loses" {
					b.refusing(errors.New("no roles today"))
				}
				_, _, their = b.Accept(t.Context(), a.token, other)
				b.refusing(nil)
			})
			mine := a.acceptBy(t, by)
			f.Disarm()
			if (mine == nil) == (their == nil) || (their == nil) != (second == "wins") {
				t.Fatalf("the first: %v, the second: %v", mine, their)
			}
			u := a.made(t)
			if got := b.find(t, a.id); u == nil || got.UserID != u.ID {
				t.Errorf("listed as %+v, made %+v", got, u)
			}
		})
	}
}

// The address is looked at again when somebody registers it, or proves it, meanwhile.
func TestAcceptMeanwhile(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		account string
		act     func(*bench, *testing.T)
		want    error
	}{
		"a squatter":               {"nobody's", (*bench).squat, nil},
		"a squatter, and a guest":  {"a guest's", (*bench).squat, nil},
		"its owner":                {"nobody's", (*bench).own, users.ErrEmailTaken},
		"its owner, and a guest":   {"a guest's", (*bench).own, users.ErrEmailTaken},
		"its owner by the account": {"a squatter's", (*bench).prove, users.ErrEmailTaken},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, f := setup(t), &storetest.Faults{}
			a, by := b.meets(t, c.account, ada), b.through(t, f)
			f.Arm(storetest.Cancel, making[c.account], func() { c.act(b, t) })
			err := a.acceptBy(t, by)
			f.Disarm()
			if !errors.Is(err, c.want) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			for _, grant := range b.granted() {
				if a.by.Guest != "" && strings.HasPrefix(grant, a.by.Guest) {
					t.Errorf("the guest, who is one still, has got a role: %s", grant)
				}
			}
			if _, err := b.users.Authenticate(t.Context(), users.Credentials{Email: ada, Password: password}); (err == nil) != (c.want == nil) {
				t.Errorf("signing in: %v", err)
			}
		})
	}
}

// squat registers the address, and own does so on a proof.
func (b *bench) squat(t *testing.T) { t.Helper(); b.register(t, false) }
func (b *bench) own(t *testing.T)   { t.Helper(); b.register(t, true) }

func (b *bench) register(t *testing.T, verified bool) {
	t.Helper()
	if _, err := b.users.Register(t.Context(), users.NewUser{Email: ada, Password: "what others know", Verified: verified}); err != nil {
		t.Errorf("register: %v", err)
	}
}

// prove resets the password of the account, as its owner does.
func (b *bench) prove(t *testing.T) {
	t.Helper()
	st, err := b.users.StateByEmail(t.Context(), ada)
	if err == nil {
		_, err = b.users.ResetPassword(t.Context(), st.User.ID, users.Mailed{Stamp: st.Stamp}, "what the owner knows")
	}
	if err != nil {
		t.Errorf("reset: %v", err)
	}
}

// unnoted lets an acceptance fail when its account is stored, and before that is noted.
// Another one has taken the invitation over in between, and made nothing, where taken.
func (a *acceptance) unnoted(t *testing.T, taken bool) *users.User {
	t.Helper()
	f := &storetest.Faults{}
	by := a.through(t, f)
	f.Arm(storetest.Cancel, making["nobody's"], func() {
		if taken {
			a.refusing(errors.New("no roles today"))
			if err := a.accept(t); err == nil {
				t.Error("the other was let in")
			}
			a.refusing(nil)
		}
		f.Arm(storetest.Before, storetest.Step{Command: "update invitations", Nth: 1}, nil)
	})
	err := a.acceptBy(t, by)
	_, hits := f.Disarm()
	u := a.made(t)
	if hits == 0 || err == nil || u == nil {
		t.Fatalf("%d hits, %v, %+v", hits, err, u)
	}
	if got := a.find(t, a.id); (got.UserID == u.ID) == taken {
		t.Fatalf("%+v, made %s", got, u.ID)
	}
	return u
}

// No second account is made where nobody has noted the first and it is gone: neither under
// the address that it had, nor where another acceptance has taken the invitation over.
func TestForgetUnnoted(t *testing.T) {
	t.Parallel()
	for name, taken := range map[string]bool{"with another address": false, "and the invitation was taken over": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := setup(t).meets(t, "nobody's", ada)
			u := a.unnoted(t, taken)
			if err := a.Revoke(t.Context(), a.id); !errors.Is(err, invitation.ErrNotFound) {
				t.Errorf("revoked: %v", err)
			}
			if !taken {
				st, err := a.users.State(t.Context(), u.ID)
				if err == nil {
					_, err = a.users.ChangeEmail(t.Context(), u.ID, users.EmailChange{From: ada, To: "other@example.com", Stamp: st.Stamp})
				}
				if err != nil {
					t.Fatal(err)
				}
				if err := a.accept(t); !errors.Is(err, invitation.ErrInvalid) {
					t.Errorf("while it has another address: %v", err)
				}
			}
			if err := a.users.Delete(t.Context(), u.ID); err != nil {
				t.Fatal(err)
			}
			if err := a.accept(t); !errors.Is(err, invitation.ErrInvalid) || a.made(t) != nil {
				t.Errorf("accepted once more: %v", err)
			}
		})
	}
}

// An invitation that makes its account while it is looked at whether it can be revoked is
// not revoked.
func TestRevokeTooLate(t *testing.T) {
	t.Parallel()
	b, f := setup(t), &storetest.Faults{}
	a, by := b.meets(t, "nobody's", ada), b.through(t, f)
	b.refusing(errors.New("no roles today"))
	if err := a.accept(t); err == nil {
		t.Fatal("no error")
	}
	b.refusing(nil)
	f.Arm(storetest.Cancel, storetest.Step{Command: "update invitations", Nth: 2}, func() {
		if err := a.accept(t); err != nil {
			t.Errorf("accept: %v", err)
		}
	})
	err := by.Revoke(t.Context(), a.id)
	if trace, hits := f.Disarm(); hits == 0 || !errors.Is(err, invitation.ErrNotFound) {
		t.Errorf("%v of %v", err, trace)
	}
	if got := b.find(t, a.id); got.State != invitation.Accepted {
		t.Errorf("%+v", got)
	}
}
