package invitation_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/users"
	"github.com/mandate-auth/mandate/users/invitation"
)

// through is the app over a network that does harm.
func (b *bench) through(t *testing.T, f *storetest.Faults) *bench {
	t.Helper()
	f.Counts = func(bson.Raw) bool { return true }
	return setupOn(t, storetest.Faulty(t, b.db, f), "shop", func(c *invitation.Config) { c.Grant = b.grant })
}

// acceptance is an invitation to an editor, and what it is accepted with.
type acceptance struct {
	*bench
	id, email, token string
	by               users.NewUser
}

// whose are the accounts that an invitation can meet.
var whose = []string{"nobody's", "a guest's", "a squatter's"}

// meets is an invitation whose acceptance meets such an account.
func (b *bench) meets(t *testing.T, account, email string) *acceptance {
	t.Helper()
	a := &acceptance{bench: b, email: email, by: newcomer()}
	switch account {
	case "a guest's":
		a.by.Guest = b.guest(t)
	case "a squatter's":
		if _, err := b.users.Register(t.Context(), users.NewUser{Email: email, Password: "what the squatter knows"}); err != nil {
			t.Fatal(err)
		}
	}
	made, token := b.invite(t, email, "editor")
	a.id, a.token = made.ID, token
	return a
}

func (a *acceptance) accept(t *testing.T) error {
	t.Helper()
	return a.acceptBy(t, a.bench)
}

// acceptBy accepts it by another instance of the app.
func (a *acceptance) acceptBy(t *testing.T, b *bench) error {
	t.Helper()
	_, _, err := b.Accept(t.Context(), a.token, a.by)
	return err
}

// made returns the account of the person who was invited, nil while there is none.
func (a *acceptance) made(t *testing.T) *users.User {
	t.Helper()
	u, err := a.users.GetByEmail(t.Context(), a.email)
	switch {
	case errors.Is(err, users.ErrNotFound):
		return nil
	case err != nil:
		t.Fatal(err)
	case u.Kind == authz.KindAnonymous || !u.EmailVerified:
		return nil
	}
	return u
}

// again: the call is made again, and ends as the first one should have.
func (a *acceptance) again(t *testing.T, at storetest.Step) {
	t.Helper()
	err := a.accept(t)
	u := a.made(t)
	used := at.Command == "findAndModify onetime_tokens" // and that alone was not answered
	if (err != nil && (!used || !errors.Is(err, invitation.ErrInvalid))) || u == nil {
		t.Fatalf("again: %v, %+v", err, u)
	}
	if got := a.find(t, a.id); got.State != invitation.Accepted || got.UserID != u.ID {
		t.Errorf("listed as %+v, made %s", got, u.ID)
	}
	if !slices.Contains(a.granted(), u.ID+" editor") {
		t.Error("without the role")
	}
	if err := a.accept(t); !errors.Is(err, invitation.ErrInvalid) {
		t.Errorf("once more: %v", err)
	}
}

// revoked: what has made no account can be taken back, and makes none after that.
func (a *acceptance) revoked(t *testing.T, _ storetest.Step) {
	t.Helper()
	had := a.made(t) != nil
	err := a.Revoke(t.Context(), a.id)
	if had != errors.Is(err, invitation.ErrNotFound) || (err != nil && !had) {
		t.Fatalf("revoked with an account %t: %v", had, err)
	}
	if had {
		return
	}
	if err := a.accept(t); !errors.Is(err, invitation.ErrInvalid) || a.made(t) != nil {
		t.Errorf("accepted after that: %v, %+v", err, a.made(t))
	}
	if got := a.find(t, a.id); got.State != invitation.Revoked {
		t.Errorf("listed as %+v", got)
	}
}

// deleted: no second account is made of an invitation whose account goes.
func (a *acceptance) deleted(t *testing.T, _ storetest.Step) {
	t.Helper()
	u := a.made(t)
	if u == nil {
		return // TestAcceptanceThatFails asks for all that has to follow
	}
	if err := a.users.Delete(t.Context(), u.ID); err != nil {
		t.Fatal(err)
	}
	a.by.Guest = ""
	if err := a.accept(t); !errors.Is(err, invitation.ErrInvalid) || a.made(t) != nil {
		t.Errorf("accepted after that: %v, %+v", err, a.made(t))
	}
}

// Whatever write of an acceptance fails or is not answered: made again it ends well, what
// has made no account can be revoked, and no invitation makes two.
func TestAcceptanceThatFails(t *testing.T) {
	t.Parallel()
	for _, account := range whose {
		for then, check := range map[string]func(*acceptance, *testing.T, storetest.Step){
			"again": (*acceptance).again, "revoked": (*acceptance).revoked, "deleted": (*acceptance).deleted,
		} {
			t.Run(account+" "+then, func(t *testing.T) {
				t.Parallel()
				b := setup(t)
				writes := b.writes(t, account)
				if len(writes) < 4 {
					t.Fatalf("only %v", writes)
				}
				for i, step := range writes {
					for _, fault := range []storetest.Fault{storetest.Before, storetest.AfterCommit} {
						t.Logf("%s at %s", fault, step)
						a := b.meets(t, account, fmt.Sprintf("%d-%d@example.com", i, fault))
						f := &storetest.Faults{}
						by := b.through(t, f)
						f.Arm(fault, step, nil)
						err := a.acceptBy(t, by)
						if _, hits := f.Disarm(); hits == 0 || err == nil {
							t.Fatalf("not harmed: %v", err)
						}
						check(a, t, step)
					}
				}
			})
		}
	}
}

// writes are those of an acceptance that nothing happens to.
func (b *bench) writes(t *testing.T, account string) (writes []storetest.Step) {
	t.Helper()
	a, f := b.meets(t, account, ada), &storetest.Faults{}
	by := b.through(t, f)
	f.Watch()
	err := a.acceptBy(t, by)
	trace, _ := f.Disarm()
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range trace {
		if !strings.HasPrefix(step.Command, "find ") {
			writes = append(writes, step)
		}
	}
	return writes
}

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
