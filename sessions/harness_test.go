package sessions_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"

	"github.com/mandate-auth/mandate/authz"
	mevent "github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/sessions"
	"github.com/mandate-auth/mandate/tokens/keys"
	"github.com/mandate-auth/mandate/tokens/secret"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// fakes stand for the blacklist, the accounts and the sink.
type fakes struct {
	mu       sync.Mutex
	sessions map[string]time.Time
	users    map[string]int64
	events   map[mevent.Type]int
	gone     atomic.Bool
	fail     atomic.Bool
}

var errFake = errors.New("the blacklist failed")

func (f *fakes) AddSession(_ context.Context, id string, until time.Time, _ string) error {
	if f.fail.Load() {
		return errFake
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if until.After(f.sessions[id]) {
		f.sessions[id] = until // as the blacklist does: $max
	}
	return nil
}

func (f *fakes) AddUser(_ context.Context, id string, epoch int64, _ string) error {
	if f.fail.Load() {
		return errFake
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.users[id] = max(epoch, f.users[id])
	return nil
}

func (f *fakes) Active(context.Context, string) (authz.Kind, error) {
	if f.gone.Load() {
		return "", sessions.ErrGone
	}
	return authz.KindHuman, nil
}

func (f *fakes) Exists(context.Context, string) (bool, error) { return !f.gone.Load(), nil }

func (f *fakes) Record(_ context.Context, e mevent.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events[e.Type]++
}

func (f *fakes) revoked(id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.sessions[id]
	return ok
}

// kills reports whether the blacklist refuses the access token of issued for as
// long as it could live.
func (f *fakes) kills(issued *sessions.Issued) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	until, ok := f.sessions[issued.SessionID]
	return (ok && !until.Before(issued.AccessExpiresAt)) || issued.Epoch < f.users[issued.UserID]
}

func (f *fakes) count(kind mevent.Type) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.events[kind]
}

// clock is a clock that can be moved.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time       { return time.Now().Add(time.Duration(c.offset.Load())) }
func (c *clock) move(d time.Duration) { c.offset.Add(int64(d)) }

type bench struct {
	*fakes
	*clock
	*sessions.Manager
	db   *mongo.Database
	user string
	// base is the context of all calls, that of a client which may go away.
	base context.Context //nolint:containedctx // a test's stand-in for a request
}

func (b *bench) ctx() context.Context {
	if b.base != nil {
		return b.base
	}
	return context.Background()
}

func (b *bench) coll() *mongo.Collection { return b.db.Collection("user_sessions") }

// appKeys are the keys of an app, under the secret that all tests share unless
// another one is given.
func appKeys(tb testing.TB, slug string, own ...secret.Value) *keys.App {
	tb.Helper()
	if own == nil {
		own = []secret.Value{secret.FromString(strings.Repeat("s", 32))}
	}
	ring, err := keys.NewRing(own)
	if err != nil {
		tb.Fatal(err)
	}
	app, err := ring.App(slug, bytes.Repeat([]byte{1}, 32), 1)
	if err != nil {
		tb.Fatal(err)
	}
	return app
}

func setupOn(tb testing.TB, db *mongo.Database, edit ...func(*sessions.Config)) *bench {
	tb.Helper()
	f := &fakes{sessions: map[string]time.Time{}, users: map[string]int64{}, events: map[mevent.Type]int{}}
	return (&bench{fakes: f, clock: &clock{}, user: store.NewID("usr_")}).on(tb, db, edit...)
}

// on returns another instance of the same app on db: with the blacklist, the
// accounts, the clock and the user of b.
func (b *bench) on(tb testing.TB, db *mongo.Database, edit ...func(*sessions.Config)) *bench {
	tb.Helper()
	config := sessions.Config{
		App: "shop", Keys: appKeys(tb, "shop"), Revoker: b.fakes, Accounts: b.fakes, Events: b.fakes, Now: b.now,
		RotationGrace: 10 * time.Second,
	}
	for _, f := range edit {
		f(&config)
	}
	m, err := sessions.New(db, config)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := m.EnsureIndexes(b.ctx()); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			tb.Errorf("Close: %v", err)
		}
	})
	return &bench{fakes: b.fakes, clock: b.clock, Manager: m, db: db, user: b.user}
}

func setup(tb testing.TB, edit ...func(*sessions.Config)) *bench {
	tb.Helper()
	return setupOn(tb, storetest.Database(tb), edit...)
}

var laptop = sessions.Device{ID: "d1", Name: "laptop", UserAgent: "Browser/12.3 (Linux)", IP: "192.0.2.1", Network: "192.0.2.1"}

func (b *bench) signIn(tb testing.TB) *sessions.Issued {
	tb.Helper()
	issued, err := b.trySignIn(sessions.CreateOptions{Kind: authz.KindHuman, Device: laptop})
	if err != nil {
		tb.Fatal(err)
	}
	return issued
}

func (b *bench) trySignIn(opts sessions.CreateOptions) (*sessions.Issued, error) {
	start, err := b.Begin(b.ctx(), b.user)
	if err != nil {
		return nil, err
	}
	return b.Create(b.ctx(), start, opts)
}

func (b *bench) refresh(tb testing.TB, token string, want error) *sessions.Issued {
	tb.Helper()
	issued, err := b.Refresh(b.ctx(), token, laptop)
	if !errors.Is(err, want) {
		tb.Fatalf("Refresh: got %v, want %v", err, want)
	}
	return issued
}

func (b *bench) live(tb testing.TB) []sessions.Session {
	tb.Helper()
	list, err := b.List(b.ctx(), b.user)
	if err != nil {
		tb.Fatal(err)
	}
	return list
}

// head returns the ids that the user's head names.
func (b *bench) head(tb testing.TB) []string {
	tb.Helper()
	var h struct {
		Live []struct {
			SID string `bson:"sid"`
		} `bson:"live"`
	}
	if err := b.db.Collection("session_heads").FindOne(b.ctx(), bson.M{"_id": b.user}).Decode(&h); err != nil {
		tb.Fatal(err)
	}
	ids := make([]string, len(h.Live))
	for i, l := range h.Live {
		ids[i] = l.SID
	}
	return ids
}
