// Package follow keeps what an instance holds in memory in step with a
// collection that every instance writes to: by a change stream where the server
// has one, by polling otherwise. It knows how fresh that knowledge is; what the
// knowledge is belongs to its owner.
package follow

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
	"golang.org/x/sync/singleflight"

	"github.com/mandate-auth/mandate/internal/store"
)

const (
	// Overlap is how far back a poll has to read again: writes of one moment do
	// not become visible in the order of their dates.
	Overlap = 10 * time.Second
	// MaxAhead is how far ahead of our clock a date may be that polls go by.
	MaxAhead = time.Minute
	// reloadInterval is how often everything is read again, whatever the stream
	// or the polls said.
	reloadInterval = time.Minute
	// streamRetry is how long the collection is polled before a change stream
	// that failed is tried again.
	streamRetry = 10 * time.Second
	// streamAwait is how long the server waits for events before it answers
	// with none. Each answer is a sign of life, so it must stay well below
	// every bound on staleness.
	streamAwait = 250 * time.Millisecond
	// fullBatch is how many events a batch may hold and still be taken for all
	// that there were. MongoDB ends one at 16 MiB.
	fullBatch = 1000
)

// Config says what is followed. Everything without a default is required.
type Config struct {
	Collection *mongo.Collection
	// Name is what is followed, in the plural, for people: "revocations".
	Name string
	// Load reads everything. Poll reads what has changed lately, [Overlap]
	// included. They return an error unless they have read all of it.
	Load, Poll func(context.Context) error
	// Apply takes one document of the change stream.
	Apply func(bson.Raw) error
	// PollInterval is how often the collection is read where there is no change
	// stream. Default 1 s.
	PollInterval time.Duration
	// DisableChangeStream makes it poll on every server.
	DisableChangeStream bool
	// Logger receives outages and recoveries. Default slog.Default.
	Logger *slog.Logger
}

// Follower follows one collection. It is safe for concurrent use.
type Follower struct {
	config Config

	fresh  atomic.Int64 // as Now counts: when the newest complete read began
	stream atomic.Bool  // whether a change stream is followed now
	// interval is the time between two polls; it only ever shrinks.
	interval atomic.Int64
	renewal  singleflight.Group

	cancel context.CancelFunc
	ended  sync.WaitGroup
}

// Start loads, and follows until Close. When the error is nil the knowledge is
// fresh.
func Start(ctx context.Context, config Config) (*Follower, error) {
	if config.PollInterval <= 0 {
		config.PollInterval = time.Second
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	f := &Follower{config: config}
	f.interval.Store(int64(config.PollInterval))
	if err := f.timed(ctx, config.Load); err != nil {
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

// processBegan is where [Now] counts from.
var processBegan = monotonic()

// Now returns the time since the process began, by its own clock.
func Now() time.Duration { return monotonic().Sub(processBegan) }

// FreshAt returns when the newest complete read began, as [Now] counts.
func (f *Follower) FreshAt() time.Duration { return time.Duration(f.fresh.Load()) }

// Age returns how old the knowledge is at most: the time since the newest
// complete read began.
func (f *Follower) Age() time.Duration { return Now() - f.FreshAt() }

// Close stops following and waits for the goroutine, or for ctx.
func (f *Follower) Close(ctx context.Context) error {
	f.cancel()
	return store.Wait(ctx, &f.ended)
}

// Mode returns "change_stream" or "poll", by how the collection is followed now.
func (f *Follower) Mode() string {
	if f.stream.Load() {
		return "change_stream"
	}
	return "poll"
}

// PollAtLeastEvery shortens the poll interval for somebody who asks for less.
func (f *Follower) PollAtLeastEvery(d time.Duration) {
	for {
		old := f.interval.Load()
		if int64(d) >= old || f.interval.CompareAndSwap(old, int64(d)) {
			return
		}
	}
}

// Renew reads at once because somebody found the knowledge too old. All who
// wait share one read; none of them can cancel it for the others.
func (f *Follower) Renew(ctx context.Context) error {
	result := f.renewal.DoChan("read", func() (any, error) {
		return nil, f.timed(context.WithoutCancel(ctx), f.config.Poll)
	})
	timer := time.NewTimer(store.CallTimeout)
	defer timer.Stop()
	select {
	case r := <-result:
		return r.Err
	case <-timer.C:
		return fmt.Errorf("no answer within %s: %w", store.CallTimeout, store.ErrUnavailable)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// timed reads, and records when a complete read began.
func (f *Follower) timed(ctx context.Context, read func(context.Context) error) error {
	began := Now()
	if err := read(ctx); err != nil {
		return err
	}
	f.freshSince(began)
	return nil
}

func (f *Follower) freshSince(began time.Duration) {
	for {
		old := f.fresh.Load()
		if int64(began) <= old || f.fresh.CompareAndSwap(old, int64(began)) {
			return
		}
	}
}

// errUnsupported says that the server has no change streams.
var errUnsupported = errors.New("no change streams")
