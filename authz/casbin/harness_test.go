package casbin_test

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/authz/casbin"
	"github.com/mandate-auth/mandate/internal/appstate"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

const (
	ada  = "usr_00000000000000000000000ada"
	ben  = "usr_00000000000000000000000ben"
	docs = "documents"
)

// instance is what one engine has: a store, a state and a watcher.
type instance struct {
	t       *testing.T
	db      *mongo.Database
	store   *casbin.Store
	state   *appstate.Store
	watcher *appstate.Watcher
	logs    logBuffer
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func start(t *testing.T, db *mongo.Database, edit ...func(*appstate.WatchConfig)) *instance {
	t.Helper()
	in := &instance{t: t, db: db}
	var err error
	handle := store.Handle(db)
	if in.state, err = appstate.Open(t.Context(), handle, time.Now); err != nil {
		t.Fatal(err)
	}
	config := appstate.WatchConfig{PollInterval: 20 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)}
	for _, f := range edit {
		f(&config)
	}
	if in.watcher, err = in.state.Watch(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeWith(t, in.watcher.Close) })
	if in.store, err = casbin.Open(t.Context(), db, ""); err != nil {
		t.Fatal(err)
	}
	return in
}

func closeWith(t *testing.T, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := f(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
}

// provider returns the provider of an app on the instance.
func (in *instance) provider(slug string, edit ...func(*casbin.Config)) *casbin.Provider {
	in.t.Helper()
	if _, err := in.state.Claim(in.t.Context(), slug, "digest"); err != nil {
		in.t.Fatal(err)
	}
	config := casbin.Config{App: slug, State: in.state, Watcher: in.watcher, Logger: slog.New(slog.NewTextHandler(&in.logs, nil))}
	for _, f := range edit {
		f(&config)
	}
	p, err := casbin.New(in.store, config)
	if err != nil {
		in.t.Fatal(err)
	}
	in.t.Cleanup(func() { closeWith(in.t, p.Close) })
	return p
}

func setup(t *testing.T, edit ...func(*casbin.Config)) (*casbin.Provider, *instance) {
	t.Helper()
	in := start(t, storetest.Database(t))
	return in.provider("shop", edit...), in
}

func withModel(m casbin.Model) func(*casbin.Config) { return func(c *casbin.Config) { c.Model = m } }

func rule(subject, object, action string) authz.Rule {
	return authz.Rule{Subject: subject, Permission: authz.Permission{Object: object, Action: action}}
}

func apply(t *testing.T, e authz.Editor, c authz.Change) {
	t.Helper()
	if err := e.Apply(t.Context(), c); err != nil {
		t.Fatalf("Apply(%+v): %v", c, err)
	}
}

// allowed asks the provider of the app "shop".
func allowed(t *testing.T, p authz.Provider, subject, object, action string) bool {
	t.Helper()
	d, err := p.Authorize(t.Context(), authz.Request{App: "shop", Subject: subject, Permission: authz.Permission{Object: object, Action: action}})
	if err != nil {
		t.Errorf("Authorize: %v", err)
	}
	return d.Allowed
}

// put writes a document past the provider, as a stock tool would.
func (in *instance) put(doc bson.M) {
	in.t.Helper()
	if _, err := in.db.Collection(casbin.DefaultCollection).InsertOne(in.t.Context(), doc); err != nil {
		in.t.Fatal(err)
	}
}

// until waits for something that happens in the background.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(8 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("waited 8 s for: %s", what)
		case <-tick.C:
		}
	}
}
