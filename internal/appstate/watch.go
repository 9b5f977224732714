package appstate

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/follow"
)

// WatchConfig configures a [Watcher].
type WatchConfig struct {
	// PollInterval is how often the collection is read where there is no change
	// stream. Default 1 s.
	PollInterval time.Duration
	// DisableChangeStream makes it poll on every server.
	DisableChangeStream bool
	// Logger receives outages and recoveries. Default slog.Default.
	Logger *slog.Logger
}

// Watcher learns of the changes that other instances make. There is one for all
// apps of an engine. It is safe for concurrent use.
type Watcher struct {
	store   *Store
	follow  *follow.Follower
	apps    sync.Map     // slug to *PolicyWatch
	keys    sync.Map     // slug to *keysWatch
	highest atomic.Int64 // the newest changed_at, in milliseconds
}

// Watch begins to watch, until Close.
func (s *Store) Watch(ctx context.Context, config WatchConfig) (*Watcher, error) {
	w := &Watcher{store: s}
	var err error
	w.follow, err = follow.Start(ctx, follow.Config{
		Collection: s.coll, Name: "versions of policies", Load: w.load, Poll: w.poll, Apply: w.applyRaw,
		PollInterval: config.PollInterval, DisableChangeStream: config.DisableChangeStream, Logger: config.Logger,
	})
	return w, err
}

// Close stops watching and waits for the goroutine, or for ctx.
func (w *Watcher) Close(ctx context.Context) error { return w.follow.Close(ctx) }

// PollAtLeastEvery shortens the poll interval for an app that asks for less.
func (w *Watcher) PollAtLeastEvery(d time.Duration) { w.follow.PollAtLeastEvery(d) }

// FreshAt returns when the newest complete read began, as [follow.Now] counts.
func (w *Watcher) FreshAt() time.Duration { return w.follow.FreshAt() }

// Renew reads at once. Everybody who waits shares one read.
func (w *Watcher) Renew(ctx context.Context) error { return w.follow.Renew(ctx) }

func (w *Watcher) load(ctx context.Context) error { return w.read(ctx, time.UnixMilli(0)) }

func (w *Watcher) poll(ctx context.Context) error {
	return w.read(ctx, time.UnixMilli(w.highest.Load()).Add(-follow.Overlap))
}

type versionOf struct {
	Slug string
	Version
	Keys KeysVersion
}

func (w *Watcher) read(ctx context.Context, since time.Time) error {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	cursor, err := w.store.coll.Find(ctx, bson.M{"changed_at": bson.M{"$gte": since}}, options.Find().
		SetProjection(bson.M{"policy_epoch": 1, "changed_at": 1, "keys_epoch": 1, "keys_version": 1}).SetBatchSize(5000))
	if err != nil {
		return store.Error("read versions of policies", err)
	}
	var all []bson.Raw
	if err := cursor.All(ctx, &all); err != nil {
		return store.Error("read versions of policies", err)
	}
	for _, raw := range all {
		_ = w.applyRaw(raw) // no error but for change streams
	}
	return nil
}

// applyRaw takes note of one document. What is not of its type counts as nothing, so
// that a damaged document holds up no other app than its own.
func (w *Watcher) applyRaw(raw bson.Raw) error {
	number := func(field string) int64 {
		n, _ := raw.Lookup(field).AsInt64OK()
		return n
	}
	v := versionOf{
		Version: Version{Epoch: number("policy_epoch")},
		Keys:    KeysVersion{Epoch: number("keys_epoch"), Version: number("keys_version")},
	}
	v.Slug, _ = raw.Lookup("_id").StringValueOK()
	v.ChangedAt, _ = raw.Lookup("changed_at").TimeOK()
	w.apply(v)
	return nil
}

func (w *Watcher) apply(v versionOf) {
	if p, ok := w.apps.Load(v.Slug); ok {
		p.(*PolicyWatch).Observe(v.Version) //nolint:forcetypeassert // only these are stored
	}
	if k, ok := w.keys.Load(v.Slug); ok {
		k.(*keysWatch).observe(v.Keys) //nolint:forcetypeassert // only these are stored
	}
	// A date that is ahead, by a clock that was, must not hide what comes after it.
	if v.ChangedAt.After(w.store.now().Add(follow.MaxAhead)) {
		return
	}
	for at := v.ChangedAt.UnixMilli(); ; {
		old := w.highest.Load()
		if at <= old || w.highest.CompareAndSwap(old, at) {
			return
		}
	}
}

// PolicyWatch is what is known of the version of one app's policy. It is safe
// for concurrent use.
type PolicyWatch struct {
	watcher *Watcher
	changed func()

	mu        sync.Mutex
	latest    Version
	installed Version
	outdated  atomic.Bool
	// current is when, as follow.Now counts, the installed version was last known to
	// be the current one, where it is outdated.
	current atomic.Int64
}

// Policy returns the watch of the app's policy. changed is called, and must not
// block, when a new version is seen.
func (w *Watcher) Policy(slug string, changed func()) *PolicyWatch {
	p := &PolicyWatch{watcher: w, changed: changed}
	w.apps.Store(slug, p)
	return p
}

// Forget ends the watch of the app's policy.
func (w *Watcher) Forget(slug string) { w.apps.Delete(slug) }

// Observe takes note of a version that was read.
func (p *PolicyWatch) Observe(v Version) {
	p.mu.Lock()
	later := p.latest.Outdated(v)
	if later {
		p.latest = v
		p.compare(p.watcher.follow.FreshAt())
	}
	p.mu.Unlock()
	if later && p.changed != nil {
		p.changed()
	}
}

// compare decides whether the installed version is outdated. When it has just
// become so it was current at the given moment.
func (p *PolicyWatch) compare(current time.Duration) {
	was, is := p.outdated.Load(), p.installed.Outdated(p.latest)
	if is && !was {
		p.current.Store(max(p.current.Load(), int64(current)))
	}
	p.outdated.Store(is)
}

// Now returns the moment as [PolicyWatch.Install] wants it.
func (p *PolicyWatch) Now() time.Duration { return follow.Now() }

// Install takes note of the version that decides from now on, which was the
// current one at the given moment.
func (p *PolicyWatch) Install(v Version, current time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.latest.Outdated(v) {
		p.latest = v
	}
	p.installed = v
	p.current.Store(int64(current))
	p.outdated.Store(false)
	p.compare(current)
}

// Age returns how long ago the installed version was surely the current one.
// Unless there is a newer one it is the age of the watcher's knowledge.
func (p *PolicyWatch) Age() time.Duration {
	if p.outdated.Load() {
		return follow.Now() - time.Duration(p.current.Load())
	}
	return p.watcher.follow.Age()
}

// Outdated reports whether a newer version than the installed one is known.
func (p *PolicyWatch) Outdated() bool { return p.outdated.Load() }

// Renew asks the database whether there is a newer version. Everybody who waits
// shares one read.
func (p *PolicyWatch) Renew(ctx context.Context) error { return p.watcher.follow.Renew(ctx) }
