package identity_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/mongo"
	"golang.org/x/crypto/bcrypt"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/keys"
	"github.com/mandate-auth/mandate/tokens/secret"
	"github.com/mandate-auth/mandate/users"
	"github.com/mandate-auth/mandate/users/identity"
)

func TestMain(m *testing.M) { storetest.Main(m) }

const (
	ada      = "ada@example.com"
	ben      = "ben@example.com"
	password = "a fine long passphrase"
	issuer   = "https://acme.example"
)

// nobody has no sessions that could end.
type nobody struct{}

func (nobody) EndAll(context.Context, string, string) error            { return nil }
func (nobody) EndOthers(context.Context, string, string, string) error { return nil }
func (nobody) Forget(context.Context, string) error                    { return nil }

// keeper takes the identities of an account that changes hands or goes, as the engine does.
type keeper struct{ b *bench }

func (keeper) Welcome(context.Context, string, string, bool) error { return nil }
func (keeper) Verified(context.Context, string, string) error      { return nil }
func (k keeper) Dispossess(ctx context.Context, id string) error   { return k.b.Store.Forget(ctx, id) }

func (k keeper) Forget(ctx context.Context, id string) error { return k.b.Store.Forget(ctx, id) }

// bench is an app that people come to by other providers.
type bench struct {
	*identity.Store
	db    *mongo.Database
	users *users.Store
	keys  *keys.App

	mu    sync.Mutex
	told  []string
	fail  error
	event []event.Event
}

// Record implements [event.Sink].
func (b *bench) Record(_ context.Context, e event.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.event = append(b.event, e)
}

func (b *bench) count(kind event.Type) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.event {
		if e.Type == kind {
			n++
		}
	}
	return n
}

func (b *bench) tell(what string) func(context.Context, string, string) error {
	return func(_ context.Context, id, provider string) error {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.fail != nil {
			return b.fail
		}
		b.told = append(b.told, what+" "+provider+" "+id)
		return nil
	}
}

func setup(t *testing.T, edit ...func(*identity.Config)) *bench {
	t.Helper()
	return setupOn(t, storetest.Database(t), "shop", edit...)
}

func setupOn(t *testing.T, db *mongo.Database, slug string, edit ...func(*identity.Config)) *bench {
	t.Helper()
	b := &bench{db: db}
	ring, err := keys.NewRing([]secret.Value{secret.FromString(strings.Repeat("s", 32))})
	must(t, err)
	b.keys, err = ring.App(slug, bytes.Repeat([]byte{1}, 32), 1)
	must(t, err)
	hasher, err := users.NewHasher(users.HasherConfig{Slots: 2, QueuePerSlot: 1000, QueueDeadline: 20 * time.Second})
	must(t, err)
	b.users, err = users.New(db, users.Config{
		App: slug, BcryptCost: bcrypt.MinCost, Hasher: hasher, Keys: b.keys, Devices: tokens.NewDevices(b.keys), Sessions: nobody{}, Roles: keeper{b},
	})
	must(t, err)
	_, err = b.users.EnsureIndexes(t.Context())
	must(t, err)
	config := identity.Config{
		App: slug, Users: b.users, Keys: b.keys, CreateUsers: true, Linked: b.tell("linked"), Removed: b.tell("removed"), Events: b,
	}
	for _, f := range edit {
		f(&config)
	}
	b.Store, err = identity.New(db, config)
	must(t, err)
	_, err = b.EnsureIndexes(t.Context())
	must(t, err)
	return b
}

func policy(p identity.Policy) func(*identity.Config) {
	return func(c *identity.Config) { c.Link = p }
}

// acme is the arrival of a subject of acme, with an address that acme has verified.
func acme(subject, email string) identity.Arrival {
	return identity.Arrival{
		Provider: "acme", Issuer: issuer, Subject: subject, Email: email, EmailVerified: email != "", Profile: map[string]any{"name": "Ada"},
	}
}

// claimed is acme with an address that somebody merely claims.
func claimed(subject, email string) identity.Arrival {
	a := acme(subject, email)
	a.EmailVerified = false
	return a
}

// arrives has somebody let in.
func (b *bench) arrives(t *testing.T, a identity.Arrival) *identity.Arrived {
	t.Helper()
	in, err := b.Arrive(t.Context(), a)
	must(t, err)
	if _, err := b.users.Confirm(t.Context(), in.Proof); err != nil {
		t.Fatalf("arrived and not let in: %v", err)
	}
	return in
}

func (b *bench) person(t *testing.T, email string, verified bool) *users.User {
	t.Helper()
	u, err := b.users.Create(t.Context(), users.NewUser{Email: email, Password: password, Verified: verified})
	must(t, err)
	return u
}

func (b *bench) state(t *testing.T, id string) *users.State {
	t.Helper()
	st, err := b.users.State(t.Context(), id)
	must(t, err)
	return st
}

func (b *bench) guest(t *testing.T) string {
	t.Helper()
	u, err := b.users.Anonymous(t.Context(), users.NewDeviceID())
	must(t, err)
	return u.ID
}

// accounts is how many there are.
func (b *bench) accounts(t *testing.T) int {
	t.Helper()
	page, err := b.users.List(t.Context(), users.ListOptions{Limit: 500})
	must(t, err)
	return len(page.Users)
}

// listed are the identities of an account, as "provider subject".
func (b *bench) listed(t *testing.T, id string) (out []string) {
	t.Helper()
	list, err := b.List(t.Context(), id)
	must(t, err)
	for _, i := range list {
		out = append(out, i.Provider+" "+i.Subject)
	}
	return out
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
