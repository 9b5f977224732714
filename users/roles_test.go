package users_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/users"
)

// keeper notes what accounts got and lost, and fails on demand.
type keeper struct {
	mu    sync.Mutex
	calls []string
	fail  error
}

var errKeeper = errors.New("roles could not be changed")

func (k *keeper) note(call string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fail != nil {
		return k.fail
	}
	k.calls = append(k.calls, call)
	return nil
}

func (k *keeper) failing(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fail = err
}

func (k *keeper) has(call string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Contains(k.calls, call)
}

// Welcome implements [users.RoleKeeper].
func (k *keeper) Welcome(_ context.Context, id, norm string, trusted bool) error {
	if trusted {
		return k.note("welcome trusted " + id + " " + norm)
	}
	return k.note("welcome " + id + " " + norm)
}

// Verified implements [users.RoleKeeper].
func (k *keeper) Verified(_ context.Context, id, norm string) error {
	return k.note("verified " + id + " " + norm)
}

// Dispossess implements [users.RoleKeeper].
func (k *keeper) Dispossess(_ context.Context, id string) error { return k.note("dispossess " + id) }

// Forget implements [users.RoleKeeper].
func (k *keeper) Forget(_ context.Context, id string) error { return k.note("forget " + id) }

const (
	ada   = "ada@example.com"
	ben   = "ben@example.com"
	fresh = "a new and better passphrase"
)

// kept is an app whose roles are kept.
func kept(t *testing.T, edit ...func(*users.Config)) (*bench, *keeper) {
	t.Helper()
	k := &keeper{}
	edit = append([]func(*users.Config){func(c *users.Config) { c.Roles = k }}, edit...)
	return setupOn(t, storetest.Database(t), edit...), k
}

func verifying(c *users.Config) { c.RequireVerified = true }

// person makes an account that registered by itself, whose address nobody has verified.
func (b *bench) person(t *testing.T, email string) *users.User {
	t.Helper()
	u, err := b.Register(t.Context(), users.NewUser{Email: email, Password: password})
	must(t, err)
	return u
}

// known is a person whose address is verified.
func (b *bench) known(t *testing.T, email string) *users.User {
	t.Helper()
	u, err := b.Create(t.Context(), users.NewUser{Email: email, Password: password, Verified: true})
	must(t, err)
	return u
}

// guest makes a guest and returns the id and its device.
func (b *bench) guest(t *testing.T) (id, device string) {
	t.Helper()
	device = users.NewDeviceID()
	u, err := b.Anonymous(t.Context(), device)
	must(t, err)
	return u.ID, device
}

func (b *bench) state(t *testing.T, id string) *users.State {
	t.Helper()
	st, err := b.State(t.Context(), id)
	must(t, err)
	return st
}

func (b *bench) mailed(t *testing.T, id string) users.Mailed {
	t.Helper()
	st := b.state(t, id)
	return users.Mailed{Stamp: st.Stamp}
}

func (b *bench) disable(t *testing.T, id string) {
	t.Helper()
	must(t, b.Disable(t.Context(), id, ""))
}

func (e *ender) has(call string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Contains(e.calls, call)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got %v, want %v", what, err, want)
	}
}

func wantPerson(t *testing.T, u *users.User, err error) {
	t.Helper()
	if err != nil || u.Kind != authz.KindHuman || !u.EmailVerified {
		t.Errorf("got %+v, %v; want a person with a verified address", u, err)
	}
}
