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
	// onRevoke is called before something is revoked.
	onRevoke func()
}

var errFake = errors.New("the blacklist failed")

func (f *fakes) AddSession(_ context.Context, id string, until time.Time, _ string) error {
	if f.fail.Load() {
		return errFake
	}
	if f.onRevoke != nil {
		f.onRevoke()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sessions[id] = until
	return nil
}

func (f *fakes) AddUser(_ context.Context, id string, epoch int64, _ string) error {
	if f.fail.Load() {
		return errFake
	}
	if f.onRevoke != nil {
		f.onRevoke()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.users[id] = epoch
	return nil
}

func (f *fakes) Active(context.Context, string) (authz.Kind, error) {
	if f.gone.Load() {
		return "", sessions.ErrGone
	}
	return authz.KindHuman, nil
}

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

func (f *fakes) count(kind mevent.Type) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.events[kind]
}

type bench struct {
	*fakes
	*sessions.Manager
	db     *mongo.Database
	offset atomic.Int64
	user   string
}

func (b *bench) now() time.Time          { return time.Now().Add(time.Duration(b.offset.Load())) }
func (b *bench) move(d time.Duration)    { b.offset.Add(int64(d)) }
func (b *bench) ctx() context.Context    { return context.Background() }
func (b *bench) coll() *mongo.Collection { return b.db.Collection("user_sessions") }

func setupOn(tb testing.TB, db *mongo.Database, edit ...func(*sessions.Config)) *bench {
	tb.Helper()
	b := &bench{db: db, user: store.NewID("usr_"), fakes: &fakes{
		sessions: map[string]time.Time{}, users: map[string]int64{}, events: map[mevent.Type]int{},
	}}
	config := sessions.Config{
		App: "shop", Keys: appKeys(tb, secret.FromString(strings.Repeat("s", 32))), Revoker: b.fakes, Accounts: b.fakes, Events: b.fakes, Now: b.now,
		RotationGrace: 10 * time.Second,
	}
	for _, f := range edit {
		f(&config)
	}
	var err error
	if b.Manager, err = sessions.New(db, config); err != nil {
		tb.Fatal(err)
	}
	if _, err := b.EnsureIndexes(b.ctx()); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := b.Close(context.Background()); err != nil {
			tb.Errorf("Close: %v", err)
		}
	})
	return b
}

func appKeys(tb testing.TB, s secret.Value) *keys.App {
	tb.Helper()
	ring, err := keys.NewRing([]secret.Value{s})
	if err != nil {
		tb.Fatal(err)
	}
	app, err := ring.App("shop", bytes.Repeat([]byte{1}, 32), 1)
	if err != nil {
		tb.Fatal(err)
	}
	return app
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
