package tokens

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
	"go.mongodb.org/mongo-driver/mongo/options"
	"golang.org/x/sync/singleflight"

	"github.com/mandate-auth/mandate/internal/store"
)

const (
	// overlap is how far back a poll reads again: writes of one moment do not
	// become visible in the order of their dates.
	overlap = 10 * time.Second
	// reloadInterval is how often everything is read again, whatever the stream
	// or the polls said.
	reloadInterval = time.Minute
	// streamRetry is how long the feed polls before it tries a change stream
	// that failed again.
	streamRetry = 10 * time.Second
	// streamAwait is how long the server waits for events before it answers
	// with none. Each answer is a sign of life, so it must stay well below
	// every MaxStaleness.
	streamAwait = 250 * time.Millisecond
)

// FeedConfig configures a [Feed].
type FeedConfig struct {
	// PollInterval is how often the collection is read where there is no change
	// stream. Default 1 s.
	PollInterval time.Duration
	// DisableChangeStream makes the feed poll on every server.
	DisableChangeStream bool
	// Now is the clock by which entries expire. Default time.Now.
	Now func() time.Time
	// Logger receives outages and recoveries. Default slog.Default.
	Logger *slog.Logger
}

// Feed keeps the live revocations of one blacklist collection in memory, of all
// its apps. It follows the collection by a change stream where the server has
// one and polls it otherwise. It is safe for concurrent use.
type Feed struct {
	coll   *mongo.Collection
	config FeedConfig
	start  time.Time // the monotonic clock's zero

	views   sync.Map     // slug to *view
	fresh   atomic.Int64 // since start: when the newest complete read began
	loaded  atomic.Bool
	stream  atomic.Bool // whether a change stream is followed now
	highest atomic.Int64
	// interval is the time between two polls; it only ever shrinks.
	interval atomic.Int64
	renewal  singleflight.Group

	cancel context.CancelFunc
	ended  sync.WaitGroup
	ttl    bool
}

// Indexes returns the indexes of a blacklist collection.
func blacklistIndexes() []store.Index {
	return []store.Index{
		{Name: "revoked_at", Keys: bson.D{{Key: "revoked_at", Value: 1}}},
		{Name: "expires_at", Keys: bson.D{{Key: "expires_at", Value: 1}}, TTL: true},
	}
}

// NewFeed makes sure of the collection's indexes, reads the live entries and
// follows the collection until Close. When it returns nil the feed is fresh.
func NewFeed(ctx context.Context, coll *mongo.Collection, config FeedConfig) (*Feed, error) {
	if config.PollInterval <= 0 {
		config.PollInterval = time.Second
	}
	if config.Now == nil {
		config.Now = time.Now //nolint:forbidigo // the default of the injected clock
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	f := &Feed{coll: coll, config: config, start: monotonic()}
	f.interval.Store(int64(config.PollInterval))
	var err error
	if f.ttl, err = store.Indexes(ctx, coll, blacklistIndexes()); err != nil {
		return nil, err
	}
	if err := f.load(ctx); err != nil {
		return nil, err
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f.cancel = cancel
	f.ended.Go(func() { f.run(run) })
	return f, nil
}

// monotonic reads the process's own clock. The age of knowledge is measured by
// it and not by the injected clock: a clock that is set back would make stale
// knowledge look fresh.
func monotonic() time.Time {
	return time.Now() //nolint:forbidigo // the monotonic reading is what is wanted
}

func (f *Feed) elapsed() time.Duration { return monotonic().Sub(f.start) }

// Close stops following the collection and waits for the goroutine, or for ctx.
func (f *Feed) Close(ctx context.Context) error {
	f.cancel()
	return store.Wait(ctx, &f.ended)
}

// Age returns how old the feed's knowledge is at most: the time since the
// newest complete read began.
func (f *Feed) Age() time.Duration {
	return f.elapsed() - time.Duration(f.fresh.Load())
}

// Live returns the number of revocations in memory.
func (f *Feed) Live() int {
	n := 0
	f.views.Range(func(_, v any) bool {
		n += v.(*view).len() //nolint:forcetypeassert // only views are stored
		return true
	})
	return n
}

// Mode returns "change_stream" or "poll", by how the feed follows now.
func (f *Feed) Mode() string {
	if f.stream.Load() {
		return "change_stream"
	}
	return "poll"
}

// CleanUp removes the entries that have expired and returns how many it
// removed. Servers with TTL indexes do it by themselves.
func (f *Feed) CleanUp(ctx context.Context) (int64, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	res, err := f.coll.DeleteMany(ctx, bson.M{"expires_at": bson.M{"$lt": f.config.Now()}})
	if err != nil {
		return 0, store.Error("clean up the blacklist", err)
	}
	return res.DeletedCount, nil
}

func (f *Feed) viewOf(app string) *view {
	if v, ok := f.views.Load(app); ok {
		return v.(*view) //nolint:forcetypeassert // only views are stored
	}
	v, _ := f.views.LoadOrStore(app, newView())
	return v.(*view) //nolint:forcetypeassert // only views are stored
}

// storedEntry is an entry as it is stored.
type storedEntry struct {
	ID        string    `bson:"_id"`
	Epoch     int64     `bson:"epoch"`
	ExpiresAt time.Time `bson:"expires_at"`
	RevokedAt time.Time `bson:"revoked_at"`
}

func (f *Feed) apply(e storedEntry) {
	app, kind, id, ok := splitEntryID(e.ID)
	if !ok {
		return
	}
	f.viewOf(app).apply(kind, id, entry{epoch: e.Epoch, expires: e.ExpiresAt})
	for at := e.RevokedAt.UnixMilli(); ; {
		old := f.highest.Load()
		if at <= old || f.highest.CompareAndSwap(old, at) {
			return
		}
	}
}

// freshSince records a complete read that began at the moment began.
func (f *Feed) freshSince(began time.Duration) {
	for {
		old := f.fresh.Load()
		if int64(began) <= old || f.fresh.CompareAndSwap(old, int64(began)) {
			return
		}
	}
}

// load reads every live entry.
func (f *Feed) load(ctx context.Context) error {
	now := f.config.Now()
	err := f.read(ctx, bson.M{"expires_at": bson.M{"$gt": now.Add(-expiryMargin)}})
	if err != nil {
		return err
	}
	f.loaded.Store(true)
	f.views.Range(func(_, v any) bool {
		v.(*view).purge(now) //nolint:forcetypeassert // only views are stored
		return true
	})
	return nil
}

// poll reads what was revoked lately.
func (f *Feed) poll(ctx context.Context) error {
	if !f.loaded.Load() {
		return f.load(ctx)
	}
	since := time.UnixMilli(f.highest.Load()).Add(-overlap)
	return f.read(ctx, bson.M{"revoked_at": bson.M{"$gte": since}})
}

func (f *Feed) read(ctx context.Context, filter bson.M) error {
	began := f.elapsed()
	ctx, cancel := store.Context(ctx)
	defer cancel()
	cursor, err := f.coll.Find(ctx, filter, options.Find().
		SetProjection(bson.M{"epoch": 1, "expires_at": 1, "revoked_at": 1}).SetBatchSize(5000))
	if err != nil {
		return store.Error("read revocations", err)
	}
	var entries []storedEntry
	// All reports a cursor that was lost half way: a part of the revocations is
	// never taken for all of them.
	if err := cursor.All(ctx, &entries); err != nil {
		return store.Error("read revocations", err)
	}
	for _, e := range entries {
		f.apply(e)
	}
	f.freshSince(began)
	return nil
}

// renew reads at once because a check found the knowledge too old. All checks
// that wait share one read; none of them can cancel it for the others.
func (f *Feed) renew(ctx context.Context) error {
	result := f.renewal.DoChan("read", func() (any, error) {
		return nil, f.poll(context.WithoutCancel(ctx))
	})
	timer := time.NewTimer(store.CallTimeout)
	defer timer.Stop()
	select {
	case r := <-result:
		return r.Err
	case <-timer.C:
		return fmt.Errorf("no answer within %s", store.CallTimeout)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// errUnsupported says that the server has no change streams.
var errUnsupported = errors.New("no change streams")

// PollAtLeastEvery shortens the poll interval for an app that asks for less.
func (f *Feed) PollAtLeastEvery(d time.Duration) {
	for {
		old := f.interval.Load()
		if int64(d) >= old || f.interval.CompareAndSwap(old, int64(d)) {
			return
		}
	}
}
