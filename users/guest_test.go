package users_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/users"
)

// A guest who registers is the person: the id stays, the device no longer opens it.
func TestAdopt(t *testing.T) {
	t.Parallel()
	b, k := kept(t)
	guest, device := b.guest(t)
	u, err := b.Register(t.Context(), users.NewUser{Email: ada, Password: password, Guest: guest, Profile: map[string]any{"nickname": "Ada"}})
	if err != nil || u.ID != guest || u.Kind != authz.KindHuman || u.EmailVerified || u.Profile["nickname"] != "Ada" {
		t.Fatalf("%+v, %v", u, err)
	}
	if !k.has("welcome "+guest+" "+ada) || k.has("forget "+guest) || k.has("dispossess "+guest) {
		t.Errorf("%v", k.calls)
	}
	must(t, b.login(t, ada, password))
	if again, err := b.Anonymous(t.Context(), device); err != nil || again.ID == guest {
		t.Errorf("the device still opens it: %+v, %v", again, err)
	}
	_, err = b.Register(t.Context(), users.NewUser{Email: ben, Password: password, Guest: guest})
	wantErr(t, "a person as a guest", err, users.ErrNotGuest)
}

// What is no guest of the app becomes nobody.
func TestAdoptRefuses(t *testing.T) {
	t.Parallel()
	b, _ := kept(t)
	other := setupOn(t, b.db, func(c *users.Config) { c.App = "other" })
	foreign, _ := other.guest(t)
	disabled, _ := b.guest(t)
	b.disable(t, disabled)
	demo, err := b.Demo(t.Context(), users.NewDeviceID())
	must(t, err)
	for name, id := range map[string]string{
		"another app's": foreign, "disabled": disabled, "a demo user": demo.ID, "nobody": "usr_00000000000000000000000000", "no id": "x",
	} {
		_, err := b.Register(t.Context(), users.NewUser{Email: ada, Password: password, Guest: id})
		wantErr(t, name, err, users.ErrNotGuest)
	}
	b.person(t, ben)
	guest, device := b.guest(t)
	_, err = b.Register(t.Context(), users.NewUser{Email: ben, Password: password, Guest: guest})
	wantErr(t, "a taken address", err, users.ErrEmailTaken)
	if again, err := b.Anonymous(t.Context(), device); err != nil || again.ID != guest || again.Email != "" {
		t.Errorf("the guest is %+v, %v", again, err)
	}
}

// Roles that cannot be given leave the guest a guest.
func TestAdoptWithoutRoles(t *testing.T) {
	t.Parallel()
	b, k := kept(t)
	guest, _ := b.guest(t)
	k.failing(errKeeper)
	_, err := b.Register(t.Context(), users.NewUser{Email: ada, Password: password, Guest: guest})
	wantErr(t, "without roles", err, errKeeper)
	if st := b.state(t, guest); st.User.Kind != authz.KindAnonymous || st.EmailNorm != "" {
		t.Errorf("%+v", st)
	}
}

// Where people are let in only once their address is verified, a guest becomes a person
// with one that is, or stays a guest who is let in.
func TestAdoptUnverified(t *testing.T) {
	t.Parallel()
	b, k := kept(t, verifying)
	guest, device := b.guest(t)
	_, err := b.Register(t.Context(), users.NewUser{Email: ada, Password: password, Guest: guest})
	wantErr(t, "not verified", err, users.ErrUnverified)
	if len(k.calls) != 0 {
		t.Errorf("%v", k.calls)
	}
	if again, err := b.Anonymous(t.Context(), device); err != nil || again.ID != guest || again.Email != "" {
		t.Errorf("%+v, %v", again, err)
	}
	u, err := b.Register(t.Context(), users.NewUser{Email: ada, Password: password, Guest: guest, Verified: true})
	wantPerson(t, u, err)
	must(t, b.login(t, ada, password))
}

// Of many who one guest becomes at once it becomes one.
func TestAdoptOnce(t *testing.T) {
	t.Parallel()
	b, _ := kept(t)
	guest, _ := b.guest(t)
	var won atomic.Int32
	var wg sync.WaitGroup
	for _, address := range []string{"1@example.com", "2@example.com", "3@example.com", "4@example.com"} {
		wg.Go(func() {
			_, err := b.Register(t.Context(), users.NewUser{Email: address, Password: password, Guest: guest})
			if err == nil {
				won.Add(1)
			} else if !errors.Is(err, users.ErrNotGuest) {
				t.Errorf("%v", err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d are the guest", won.Load())
	}
}

// What is claimed for an account is claimed before the account is there, for the id that
// it gets, and whoever hangs up then has the account all the same.
func TestClaim(t *testing.T) {
	t.Parallel()
	b, _ := kept(t)
	guest, _ := b.guest(t)
	for name, id := range map[string]string{"somebody new": "", "a guest": guest} {
		claimed := ""
		ctx, hangUp := context.WithCancel(t.Context())
		n := users.NewUser{Email: name[:1] + "@example.com", Password: password, Guest: id, Claim: func(_ context.Context, userID string) error {
			claimed = userID
			if st, err := b.State(t.Context(), userID); (err == nil && st.User.Kind != authz.KindAnonymous) || (id == "" && !errors.Is(err, users.ErrNotFound)) {
				t.Errorf("%s: already there: %+v, %v", name, st, err)
			}
			hangUp()
			return nil
		}}
		u, err := b.Create(ctx, n)
		if err != nil || claimed != u.ID {
			t.Errorf("%s: %+v, %v, claimed for %q", name, u, err, claimed)
		}
	}
	_, err := b.Create(t.Context(), users.NewUser{Email: ada, Password: password, Claim: func(context.Context, string) error { return errKeeper }})
	wantErr(t, "a claim that fails", err, errKeeper)
	_, err = b.GetByEmail(t.Context(), ada)
	wantErr(t, "and its account", err, users.ErrNotFound)
}
