package tokens

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/follow"
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
	follow *follow.Follower

	views   sync.Map     // slug to *view
	highest atomic.Int64 // the newest revoked_at, in milliseconds
	ttl     bool
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
	f := &Feed{coll: coll, config: config}
	var err error
	if f.ttl, err = store.Indexes(ctx, coll, blacklistIndexes()); err != nil {
		return nil, err
	}
	f.follow, err = follow.Start(ctx, follow.Config{
		Collection: coll, Name: "revocations", Load: f.load, Poll: f.poll, Apply: f.applyRaw,
		PollInterval: config.PollInterval, DisableChangeStream: config.DisableChangeStream, Logger: config.Logger,
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Close stops following the collection and waits for the goroutine, or for ctx.
func (f *Feed) Close(ctx context.Context) error { return f.follow.Close(ctx) }

// Age returns how old the feed's knowledge is at most: the time since the
// newest complete read began.
func (f *Feed) Age() time.Duration { return f.follow.Age() }

// Mode returns "change_stream" or "poll", by how the feed follows now.
func (f *Feed) Mode() string { return f.follow.Mode() }

// PollAtLeastEvery shortens the poll interval for an app that asks for less.
func (f *Feed) PollAtLeastEvery(d time.Duration) { f.follow.PollAtLeastEvery(d) }

// Live returns the number of revocations in memory.
func (f *Feed) Live() int {
	n := 0
	f.views.Range(func(_, v any) bool {
		n += v.(*view).len() //nolint:forcetypeassert // only views are stored
		return true
	})
	return n
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
	// A date that is ahead, by a clock that was, must not hide what comes after it.
	if e.RevokedAt.After(f.config.Now().Add(follow.MaxAhead)) {
		return
	}
	for at := e.RevokedAt.UnixMilli(); ; {
		old := f.highest.Load()
		if at <= old || f.highest.CompareAndSwap(old, at) {
			return
		}
	}
}

func (f *Feed) applyRaw(raw bson.Raw) error {
	var e storedEntry
	if err := bson.Unmarshal(raw, &e); err != nil {
		return err
	}
	f.apply(e)
	return nil
}

// load reads every live entry, and sweeps where the server does not.
func (f *Feed) load(ctx context.Context) error {
	if !f.ttl {
		if _, err := f.CleanUp(ctx); err != nil {
			return err
		}
	}
	now := f.config.Now()
	if err := f.read(ctx, bson.M{"expires_at": bson.M{"$gt": now.Add(-expiryMargin)}}); err != nil {
		return err
	}
	f.views.Range(func(_, v any) bool {
		v.(*view).purge(now) //nolint:forcetypeassert // only views are stored
		return true
	})
	return nil
}

// poll reads what was revoked lately.
func (f *Feed) poll(ctx context.Context) error {
	since := time.UnixMilli(f.highest.Load()).Add(-follow.Overlap)
	return f.read(ctx, bson.M{"revoked_at": bson.M{"$gte": since}})
}

func (f *Feed) read(ctx context.Context, filter bson.M) error {
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
	return nil
}
