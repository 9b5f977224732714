package apikey_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/mongo"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/apikey"
	"github.com/mandate-auth/mandate/tokens/internal/tokenstest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// clock is a clock that can be moved.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time       { return time.Now().Add(time.Duration(c.offset.Load())) }
func (c *clock) move(d time.Duration) { c.offset.Add(int64(d)) }

// accounts are people, except those that are said to be otherwise.
type accounts struct {
	mu    sync.Mutex
	kinds map[string]authz.Kind
	errs  map[string]error
	asked atomic.Int64
}

func (a *accounts) Active(_ context.Context, id string) (authz.Kind, error) {
	a.asked.Add(1)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.errs[id]; err != nil {
		return "", err
	}
	if kind := a.kinds[id]; kind != "" {
		return kind, nil
	}
	return authz.KindHuman, nil
}

func (a *accounts) set(id string, kind authz.Kind, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.kinds[id], a.errs[id] = kind, err
}

type recorder struct {
	mu     sync.Mutex
	events []event.Event
}

func (r *recorder) Record(_ context.Context, e event.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

func (r *recorder) types() (out []event.Type) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		out = append(out, e.Type)
	}
	return out
}

// lists is a blacklist that can fail to store and tells what it was asked to.
type lists struct {
	*tokens.Blacklist
	fail  atomic.Bool
	mu    sync.Mutex
	added []string
}

var errLists = errors.New("the blacklist failed")

func (l *lists) AddAPIKey(ctx context.Context, id, reason string) error {
	if l.fail.Load() {
		return errLists
	}
	l.mu.Lock()
	l.added = append(l.added, id)
	l.mu.Unlock()
	return l.Blacklist.AddAPIKey(ctx, id, reason)
}

func (l *lists) count(id string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.added {
		if a == id {
			n++
		}
	}
	return n
}

// bench is one instance of an app.
type bench struct {
	*apikey.Store
	*clock
	*accounts
	*recorder
	db   *mongo.Database
	list *lists
	user string
}

type option struct {
	tokenstest.Config
	config func(*apikey.Config)
}

func with(edit func(*apikey.Config)) option { return option{config: edit} }

// only keeps what the owner may give to scopes that begin with "may:".
func only(_ context.Context, _, scope string) (bool, error) {
	return strings.HasPrefix(scope, "may:"), nil
}

// on returns another instance of the app of b, on db, with a feed of its own.
func (b *bench) on(tb testing.TB, db *mongo.Database, opts ...option) *bench {
	tb.Helper()
	out := &bench{clock: b.clock, accounts: b.accounts, recorder: b.recorder, db: db, user: b.user}
	config := apikey.Config{
		App: "shop", Rights: only, Accounts: b.accounts, Events: b.recorder, Now: b.now,
		Logger: slog.New(slog.DiscardHandler),
	}
	var changes []tokenstest.Config
	for _, o := range opts {
		changes = append(changes, o.Config)
		if o.config != nil {
			o.config(&config)
		}
	}
	if config.Keys == nil {
		config.Keys = tokenstest.AppKeys(tb, config.App)
	}
	out.list = &lists{Blacklist: tokenstest.Blacklist(tb, db, config.App, changes...)}
	config.Blacklist = out.list
	s, err := apikey.New(db, config)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := s.EnsureIndexes(context.Background()); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			tb.Errorf("Close: %v", err)
		}
	})
	out.Store = s
	return out
}

func setup(tb testing.TB, opts ...option) *bench {
	tb.Helper()
	return setupOn(tb, storetest.Database(tb), opts...)
}

func setupOn(tb testing.TB, db *mongo.Database, opts ...option) *bench {
	tb.Helper()
	b := &bench{
		clock: &clock{}, recorder: &recorder{}, user: store.NewID("usr_"),
		accounts: &accounts{kinds: map[string]authz.Kind{}, errs: map[string]error{}},
	}
	return b.on(tb, db, opts...)
}

// create makes a key of the bench's user.
func (b *bench) create(tb testing.TB, edit ...func(*apikey.NewKey)) *apikey.Created {
	tb.Helper()
	n := apikey.NewKey{UserID: b.user, Name: "nightly", Scopes: []string{"may:read"}}
	for _, f := range edit {
		f(&n)
	}
	c, err := b.Create(tb.Context(), n)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// verify checks how Verify answers.
func (b *bench) verify(tb testing.TB, text string, want error) *authz.Principal {
	tb.Helper()
	p, err := b.Verify(tb.Context(), text)
	if !errors.Is(err, want) || (p != nil) != (want == nil) {
		tb.Fatalf("Verify: got %v, %v, want %v", p, err, want)
	}
	return p
}

// ids are those of a list.
func ids(page *apikey.Page) (out []string) {
	for _, k := range page.Keys {
		out = append(out, k.ID)
	}
	slices.Sort(out)
	return out
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
