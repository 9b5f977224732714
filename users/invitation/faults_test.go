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
