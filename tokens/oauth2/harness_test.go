package oauth2_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/mongo"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/internal/tokenstest"
	"github.com/mandate-auth/mandate/tokens/oauth2"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// clock is a clock that can be moved.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time       { return time.Now().Add(time.Duration(c.offset.Load())) }
func (c *clock) move(d time.Duration) { c.offset.Add(int64(d)) }

type recorder struct {
	mu     sync.Mutex
	events []event.Event
}

func (r *recorder) Record(_ context.Context, e event.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

func (r *recorder) all() []event.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// lists is a blacklist that can fail to store.
type lists struct {
	*tokens.Blacklist
	fail atomic.Bool
}

var errLists = errors.New("the blacklist failed")

func (l *lists) AddClient(ctx context.Context, id string, epoch int64, reason string) error {
	if l.fail.Load() {
		return errLists
	}
	return l.Blacklist.AddClient(ctx, id, epoch, reason)
}

// bench is one instance of an app.
type bench struct {
	*oauth2.Store
	*clock
	*recorder
	db   *mongo.Database
	list *lists
}

type option struct {
	tokenstest.Config
	config func(*oauth2.Config)
}

func with(edit func(*oauth2.Config)) option { return option{config: edit} }

// on returns another instance of the app of b, on db, with a feed of its own.
func (b *bench) on(tb testing.TB, db *mongo.Database, opts ...option) *bench {
	tb.Helper()
	out := &bench{clock: b.clock, recorder: b.recorder, db: db}
	config := oauth2.Config{App: "shop", Events: b.recorder, Now: b.now}
	var changes []tokenstest.Config
	for _, o := range opts {
		changes = append(changes, o.Config)
		if o.config != nil {
			o.config(&config)
		}
	}
	config.Keys = tokenstest.AppKeys(tb, config.App)
	out.list = &lists{Blacklist: tokenstest.Blacklist(tb, db, config.App, changes...)}
	config.Blacklist = out.list
	s, err := oauth2.New(db, config)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := s.EnsureIndexes(context.Background()); err != nil {
		tb.Fatal(err)
	}
	out.Store = s
	return out
}

func setup(tb testing.TB, opts ...option) *bench {
	tb.Helper()
	return setupOn(tb, storetest.Database(tb), opts...)
}

func setupOn(tb testing.TB, db *mongo.Database, opts ...option) *bench {
	tb.Helper()
	return (&bench{clock: &clock{}, recorder: &recorder{}}).on(tb, db, opts...)
}

func (b *bench) create(tb testing.TB, name string, scopes ...string) *oauth2.Created {
	tb.Helper()
	c, err := b.Create(context.Background(), oauth2.NewClient{Name: name, Scopes: scopes})
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// auth checks how Authenticate answers.
func (b *bench) auth(tb testing.TB, id, secret string, want error) *oauth2.Client {
	tb.Helper()
	c, err := b.Authenticate(tb.Context(), id, secret)
	if !errors.Is(err, want) || (c != nil) != (want == nil) {
		tb.Fatalf("Authenticate: got %v, %v, want %v", c, err, want)
	}
	return c
}

// must fails the test on an error.
func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func (b *bench) get(tb testing.TB, id string) *oauth2.Client {
	tb.Helper()
	c, err := b.Get(context.Background(), id)
	must(tb, err)
	return c
}

func (b *bench) rotate(tb testing.TB, id string) string {
	tb.Helper()
	text, err := b.Rotate(context.Background(), id)
	must(tb, err)
	return text
}

// until waits for the condition; there is no signal from another instance's view.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(5 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("waited 5 s for: %s", what)
		case <-tick.C:
		}
	}
}
