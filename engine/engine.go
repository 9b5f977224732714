// Package engine is the front door of Mandate: it takes a MongoDB database and
// manifests and gives back working apps, each with its routes, its guards and a
// direct API.
//
//	eng, err := engine.New(ctx, db, nil)
//	app, err := eng.LoadFile(ctx, "manifest.json")
//	mux.Handle("/auth/", app.Handler())
//	mux.Handle("GET /profile", app.RequireUser().Func(profile))
//
// It is also the only place that knows both manifests and the packages that do
// the work: users, sessions, tokens and cookies know nothing of each other.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"

	"github.com/mandate-auth/mandate/authz/casbin"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/appstate"
	"github.com/mandate-auth/mandate/internal/httpapi"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/mail"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/keys"
	"github.com/mandate-auth/mandate/users"
)

// Errors of this package.
var (
	// ErrClosed says that the engine has been closed.
	ErrClosed = errors.New("closed")
	// ErrLoaded says that an app of the same slug is loaded already.
	ErrLoaded = errors.New("app is loaded already")
	// ErrNotFound is for a service's own functions, such as the one that tells
	// [App.RequireOwnerOr] whose something is: it is answered 404.
	ErrNotFound = httpapi.ErrNotFound
)

// Engine runs any number of apps on one database. There is one in a process. It
// is safe for concurrent use.
type Engine struct {
	db     *mongo.Database
	opts   *Options
	ring   *keys.Ring
	hasher *users.Hasher
	// templates are the words of mails, read when they are needed first.
	templates func() (*mail.Templates, error)
	events    *dispatcher
	states    *appstate.Store
	// watcher learns when other instances change a policy.
	watcher      *appstate.Watcher
	policyMemory *casbin.Memory

	mu       sync.Mutex
	apps     map[string]*App
	feeds    map[string]*tokens.Feed
	policies map[string]*casbin.Store
	indexed  map[string]bool // what was asked for its indexes, and whether it has TTL
	closed   bool
	// starting admits one feed at a time to be begun.
	starting chan struct{}

	skewed atomic.Bool
	stop   context.CancelFunc
	upkeep sync.WaitGroup
}

// New returns an engine on db. The service owns the client: the engine never
// dials, and leaves the client alone when it is closed. The handle is derived
// anew with majority writes and reads from the primary.
//
// The error says what to do: a secret key that is missing or shorter than 32
// bytes, a database that does not answer.
func New(ctx context.Context, db *mongo.Database, opts *Options) (*Engine, error) {
	if db == nil {
		return nil, fmt.Errorf("%w: a database is required", ErrOptions)
	}
	o, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	ring, err := keys.NewRing(o.SecretKeys)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOptions, err)
	}
	hasher, err := users.NewHasher(users.HasherConfig{Slots: o.HashSlots, Peppers: o.Peppers, OnHash: o.OnHash, Foreign: o.PasswordVerifiers})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOptions, err)
	}
	templates := sync.OnceValues(func() (*mail.Templates, error) { return mail.NewTemplates(o.MailTemplates) })
	if o.MailTemplates != nil {
		if _, err := templates(); err != nil {
			return nil, fmt.Errorf("%w: MailTemplates: %w", ErrOptions, err)
		}
	}
	e := &Engine{
		templates: templates,
		db:        store.Handle(db), opts: o, ring: ring, hasher: hasher,
		apps: map[string]*App{}, feeds: map[string]*tokens.Feed{}, policies: map[string]*casbin.Store{}, indexed: map[string]bool{},
		starting: make(chan struct{}, 1), policyMemory: casbin.NewMemory(o.PolicyMemory, o.Logger),
	}
	if err := e.reach(ctx); err != nil {
		return nil, fmt.Errorf("MongoDB does not answer: %w; check that the server runs, that its address and "+
			"credentials are right and that this machine may reach it", err)
	}
	if e.states, err = appstate.Open(ctx, e.db, o.Now); err != nil {
		return nil, err
	}
	e.watcher, err = e.states.Watch(ctx, appstate.WatchConfig{DisableChangeStream: o.DisableChangeStreams, Logger: o.Logger})
	if err != nil {
		return nil, err
	}
	e.events = newDispatcher(o.Sinks, o.Logger) //nolint:contextcheck // events outlive the call that starts the engine
	if e.skewed.Load() {                        // found before there was anybody to tell
		e.events.Record(ctx, event.Event{Type: event.ClockSkewed, Result: event.Failure, Time: o.Now()})
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	e.stop = stop
	e.upkeep.Go(func() { e.maintain(run) })
	return e, nil
}

// reach asks the server for its clock.
func (e *Engine) reach(ctx context.Context) error {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	before := e.opts.Now()
	var hello struct {
		LocalTime time.Time `bson:"localTime"`
	}
	if err := e.db.RunCommand(ctx, bson.D{{Key: "hello", Value: 1}}).Decode(&hello); err != nil {
		return store.Error("hello", err)
	}
	if !hello.LocalTime.IsZero() {
		e.compareClocks(ctx, before, hello.LocalTime)
	}
	return nil
}

// maxSkew is how far our clock and the server's may be apart.
const maxSkew = 5 * time.Second

// compareClocks notices a clock that is wrong: entries would expire early, and
// tokens of other instances would seem to come from the future.
func (e *Engine) compareClocks(ctx context.Context, ours, server time.Time) {
	skew := server.Sub(ours).Abs()
	was := e.skewed.Swap(skew > maxSkew)
	if skew <= maxSkew || was {
		return
	}
	e.opts.Logger.Warn("our clock and MongoDB's are apart; synchronise them", slog.Duration("by", skew))
	if e.events != nil {
		e.events.Record(ctx, event.Event{Type: event.ClockSkewed, Result: event.Failure, Time: ours})
	}
}

// upkeepInterval is how often clocks are compared, and collections are swept
// where the server does not.
const upkeepInterval = time.Minute

func (e *Engine) maintain(ctx context.Context) {
	ticker := time.NewTicker(upkeepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := e.reach(ctx); err != nil && ctx.Err() == nil {
			e.opts.Logger.Error("MongoDB does not answer", slog.Any("error", err))
			continue
		}
		for _, app := range e.loaded() {
			app.upkeep(ctx)
		}
	}
}

func (e *Engine) loaded() []*App {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([]*App, 0, len(e.apps))
	for _, app := range e.apps {
		if app.engine != nil { // not while it is being loaded
			out = append(out, app)
		}
	}
	return out
}

// App returns the loaded app of the slug, nil when there is none.
func (e *Engine) App(slug string) *App {
	e.mu.Lock()
	defer e.mu.Unlock()
	if app := e.apps[slug]; app != nil && app.engine != nil {
		return app
	}
	return nil // none, or one that is still being loaded
}

// Close closes every app, ends the engine's goroutines and delivers the events
// that are queued, or gives up with ctx. It leaves the client alone. Closing
// twice is harmless.
func (e *Engine) Close(ctx context.Context) error {
	e.mu.Lock()
	already := e.closed
	e.closed = true
	feeds := e.feeds
	e.mu.Unlock()
	if already {
		return nil
	}
	var errs []error
	for _, app := range e.loaded() {
		errs = append(errs, app.Close(ctx))
	}
	for _, f := range feeds {
		errs = append(errs, f.Close(ctx))
	}
	errs = append(errs, e.watcher.Close(ctx))
	e.stop()
	e.upkeep.Wait()
	errs = append(errs, e.events.close(ctx))
	return errors.Join(errs...)
}

// PrincipalFrom returns the principal of a request: always there behind a guard,
// nil without one, and nil for nobody under [App.Optional].
func PrincipalFrom(ctx context.Context) *Principal { return httpapi.PrincipalFrom(ctx) }

// AsProblem returns an error of the direct API or of [Guard.Check] as the routes
// would answer it.
func AsProblem(err error) *Problem { return httpapi.AsProblem(err) }
