package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"
	"go.mongodb.org/mongo-driver/mongo/readconcern"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
)

// Errors of this package. A database that does not answer within two seconds is
// store.ErrUnavailable.
var (
	// ErrQueueFull says that more records wait than the queue holds. This one is
	// lost; it is counted, and the trail will say so.
	ErrQueueFull = errors.New("audit queue full")
	// ErrClosed says that the trail has been closed. The record is lost and counted.
	ErrClosed = errors.New("audit trail closed")
	// ErrInvalidRecord says that a record given to Log breaks a rule.
	ErrInvalidRecord = errors.New("invalid audit record")
	// ErrInvalidCursor says that a page cursor was not issued for this query.
	ErrInvalidCursor = errors.New("invalid cursor")
	// ErrNotTamperEvident says that the trail has no chains to verify.
	ErrNotTamperEvident = errors.New("audit trail is not tamper-evident")
)

// Collection is where the records of all apps are.
const Collection = "audit_events"

const (
	// headDelay is how long new records stay without a head that covers them.
	headDelay = time.Second
	// closeTimeout bounds Close where its context does not.
	closeTimeout = 10 * time.Second
	maxQueue     = 1 << 20
	maxBatch     = 1000
)

// Config configures a [Trail].
type Config struct {
	// App is the slug, required.
	App string
	// Retention is how long a record is kept. Default 90 days.
	Retention time.Duration
	// TamperEvident chains the records. It needs Signer.
	TamperEvident bool
	// Synchronous makes Write, Record and Log wait until the record is stored by a
	// majority, for at most two seconds. Records that arrive meanwhile are written
	// together, so that many requests wait for one write.
	Synchronous bool
	// Signer signs the chains. See [SignWith].
	Signer Signer
	// Cursors authenticates page cursors, required. [keys.App] does.
	Cursors Cursors
	// Queue is how many records may wait. Default 1024, at most about 5 KiB each.
	Queue int
	// Batch is how many are written at once. Default 128, at most 1000.
	Batch int
	// CheckpointEvery is how often a chain witnesses the others and renews its head
	// where nothing happens. Default one hour.
	CheckpointEvery time.Duration
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Logger receives what goes wrong. Default [slog.Default].
	Logger *slog.Logger
}

func (c *Config) setDefaults() {
	c.Retention = cmp.Or(c.Retention, 90*24*time.Hour)
	c.Queue = cmp.Or(c.Queue, 1024)
	c.Batch = cmp.Or(c.Batch, 128)
	c.CheckpointEvery = cmp.Or(c.CheckpointEvery, time.Hour)
	if c.Now == nil {
		c.Now = time.Now //nolint:forbidigo // the default of the injected clock
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
}

func (c *Config) check() error {
	switch {
	case c.App == "":
		return errors.New("audit: an app is required")
	case c.Cursors == nil:
		return errors.New("audit: cursors are required; keys.App makes them")
	case c.TamperEvident && c.Signer == nil:
		return errors.New("audit: a tamper-evident trail needs a signer; use SignWith")
	case c.Retention < time.Minute:
		return fmt.Errorf("audit: a retention of %s is under a minute", c.Retention)
	case c.Queue < 1 || c.Queue > maxQueue || c.Batch < 1 || c.Batch > maxBatch:
		return fmt.Errorf("audit: a queue of %d or a batch of %d is outside 1 to %d and 1 to %d", c.Queue, c.Batch, maxQueue, maxBatch)
	case c.CheckpointEvery < 0:
		return errors.New("audit: the time between checkpoints is negative")
	default:
		return nil
	}
}

// Trail is the audit trail of one app in MongoDB. It is safe for concurrent use.
type Trail struct {
	config    Config
	events    *mongo.Collection
	confirmed *mongo.Collection // reads what a majority has
	queue     *queue
	entropy   io.Reader // of the writer's goroutine only
	chain     *chain    // of the writer's goroutine only

	dropped  atomic.Uint64
	late     atomic.Uint64
	failures atomic.Uint64
	written  atomic.Uint64

	closing chan struct{}
	closed  sync.Once
	stop    context.CancelFunc
	ended   sync.WaitGroup
}

var _ event.Sink = (*Trail)(nil)

// NewTrail returns the trail that config describes. It does not ask the database. Close
// ends the goroutine that writes.
func NewTrail(db *mongo.Database, config Config) (*Trail, error) {
	if db == nil {
		return nil, errors.New("audit: a database is required")
	}
	config.setDefaults()
	if err := config.check(); err != nil {
		return nil, err
	}
	db = store.Handle(db)
	ctx, stop := context.WithCancel(context.Background())
	t := &Trail{
		config:    config,
		events:    db.Collection(Collection),
		confirmed: db.Collection(Collection, options.Collection().SetReadConcern(readconcern.Majority())),
		queue:     newQueue(config.Queue, min(config.Batch, max(1, config.Queue/2))),
		entropy:   newEntropy(),
		closing:   make(chan struct{}),
		stop:      stop,
	}
	t.ended.Go(func() { t.run(ctx) })
	return t, nil
}

// EnsureIndexes makes sure of the collection's indexes. ttl is false when the server
// has no TTL indexes: then Sweep has to be called now and then.
func (t *Trail) EnsureIndexes(ctx context.Context) (ttl bool, err error) {
	by := func(name string, fields ...string) store.Index {
		x := store.Index{Name: name, Keys: bson.D{{Key: "app", Value: 1}}}
		for _, f := range fields {
			x.Keys = append(x.Keys, bson.E{Key: f, Value: 1})
		}
		return x
	}
	where := func(x store.Index, field string, condition any) store.Index {
		x.Partial = bson.D{{Key: field, Value: condition}}
		return x
	}
	named := bson.D{{Key: "$gt", Value: ""}}
	return store.Indexes(ctx, t.events, []store.Index{
		by("app", "_id"),
		by("app_type", "type", "_id"),
		by("app_chain", "chain", "seq"),
		where(by("app_user", "user_id", "_id"), "user_id", named),
		where(by("app_client", "client_id", "_id"), "client_id", named),
		where(by("app_ip", "ip", "_id"), "ip", named),
		// Failures are few and sought after; successes are nearly all there is.
		where(by("app_failures", "result", "_id"), "result", string(event.Failure)),
		{Name: "expires_at", Keys: bson.D{{Key: "expires_at", Value: 1}}, TTL: true},
	})
}

// Sweep removes what has expired and returns how much. Where the server has TTL
// indexes there is nothing left for it.
func (t *Trail) Sweep(ctx context.Context) (int64, error) {
	return store.Sweep(ctx, "sweep the audit trail", t.events, t.config.App, "expires_at", t.config.Now())
}

// Stats are counters since the trail was made.
type Stats struct {
	// Written records are stored. Those of the trail itself count as well.
	Written uint64
	// Dropped events are lost: the queue was full, or the trail was closed before
	// they could be written.
	Dropped uint64
	// Late records of a synchronous trail were not stored within two seconds, and
	// were left to be written later.
	Late uint64
	// Failures are attempts to write that failed and were repeated.
	Failures uint64
	// Waiting records are in the queue or under way.
	Waiting int
}

// Stats returns the counters.
func (t *Trail) Stats() Stats {
	return Stats{
		Written: t.written.Load(), Dropped: t.dropped.Load(), Late: t.late.Load(),
		Failures: t.failures.Load(), Waiting: t.queue.waiting(),
	}
}

// Dropped returns how many events are lost. See [Stats].
func (t *Trail) Dropped() uint64 { return t.dropped.Load() }

// Flush returns once everything recorded before is stored, and covered by the
// chain's head. What was lost until then is recorded as well.
func (t *Trail) Flush(ctx context.Context) error { return t.ask(ctx, markFlush) }

// Checkpoint does what Flush does and witnesses the app's other chains first. It
// is done every hour by itself; before a backup it is worth an extra call.
func (t *Trail) Checkpoint(ctx context.Context) error { return t.ask(ctx, markCheckpoint) }

func (t *Trail) ask(ctx context.Context, mark mark) error {
	done := make(chan error, 1)
	if err := t.queue.put(entry{mark: mark, done: done}); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close writes what waits, ends the chain and the goroutine. It gives up with ctx, or
// after ten seconds: what is not stored by then is lost, counted and logged, and
// the error says how many records that are.
func (t *Trail) Close(ctx context.Context) error {
	t.closed.Do(func() {
		t.queue.close()
		close(t.closing)
	})
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	err := store.Wait(ctx, &t.ended)
	t.stop()
	if err == nil {
		return nil
	}
	t.ended.Wait() // the context of all its calls is over
	return fmt.Errorf("close the audit trail with %d lost: %w", t.dropped.Load(), err)
}
