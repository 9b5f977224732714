package mail

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"sync"
	"time"
	"unicode/utf8"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
)

// Collection holds the jobs of every app.
const Collection = "mail_outbox"

const (
	// DefaultLife is how long a job without NotAfter is tried.
	DefaultLife = 24 * time.Hour
	// MaxLife is how long a job may be tried.
	MaxLife = 7 * 24 * time.Hour
	// expiryMargin keeps a job beyond its time, so that it is dropped by somebody who
	// reports it. TTL indexes only clean up what no instance was there for.
	expiryMargin = 24 * time.Hour
	// sendPart is the part of the lease that composing and sending may take. The rest is
	// for clocks that differ.
	sendPart = 0.75

	idPrefix = "mail_"
	// maxValue bounds a member of Data. A registration that waits holds a profile.
	maxValue = 32 << 10

	defaultMaxAttempts = 8
	firstBackoff       = 5 * time.Second
	lastBackoff        = 15 * time.Minute
)

// ErrInvalidJob says that a job cannot be kept. The message names the field and never its
// value.
var ErrInvalidJob = errors.New("mail: invalid job")

// Job is the intent to tell somebody something. It holds no secret: what it says is at
// rest, and links and codes are made by [OutboxConfig.Compose].
type Job struct {
	// ID names the job and its message. Empty means a random one; one of the caller's
	// own comes from [NewJobID] and makes a repeated Enqueue harmless, until the message
	// has been sent and the job is forgotten.
	ID string
	// Kind says what the message is about, required: a lower-case letter, then up to 63
	// lower-case letters, digits and "_".
	Kind string
	// To is the recipient, required.
	To string
	// UserID is the account concerned, where there is one. It is in the events.
	UserID string
	// Lang is the language of the message, a BCP 47 tag.
	Lang string
	// Data is what the message needs: at most 16 members, their names like Kind, their
	// values at most 32 KiB of UTF-8.
	Data map[string]string
	// CreatedAt is when the job was enqueued. Enqueue sets it.
	CreatedAt time.Time
	// NotAfter is when the message is of no use any more. Default [DefaultLife] from now,
	// at most [MaxLife].
	NotAfter time.Time
}

// NewJobID returns an identifier for a [Job].
func NewJobID() string { return store.NewID(idPrefix) }

// OutboxConfig configures an [Outbox].
type OutboxConfig struct {
	// App is the slug, required.
	App string
	// Collection holds the jobs. Default [Collection].
	Collection string
	// Mailer sends, required. Its errors are logged.
	Mailer Mailer
	// Compose makes the message of a job, at every attempt anew, required. It is where
	// one-time tokens are made. Nil without an error means that there is nothing to send
	// and the job is done: so an unknown address is answered like any other. Errors are
	// those of a [Mailer]. It returns soon after ctx has ended.
	Compose func(ctx context.Context, job Job) (*Message, error)
	// Events receives mail_sent and mail_failed. Default none.
	Events event.Sink
	// Now is the clock of due times, leases and ends. Default time.Now.
	Now func() time.Time
	// Logger is told of failures. Default slog.Default.
	Logger *slog.Logger
	// Poll is how often the collection is asked for what other instances left over.
	// Default 15 s, and up to a fifth more so that instances do not ask together.
	Poll time.Duration
	// Lease is how long a job belongs to who has claimed it. Default 60 s. Composing and
	// sending have three quarters of it, so clocks may differ by the last one.
	Lease time.Duration
	// MaxAttempts is how often a job is tried. Default 8.
	MaxAttempts int
	// Backoff is how long to wait after the given attempt, from 1. Default 5 s, doubled
	// each time up to 15 min, of which a random part of up to a half is taken off.
	Backoff func(attempt int) time.Duration
	// Workers is how many messages are sent at once. Default 2.
	Workers int
}

func (c *OutboxConfig) setDefaults() {
	c.Collection = cmp.Or(c.Collection, Collection)
	c.Poll = cmp.Or(c.Poll, 15*time.Second)
	c.Lease = cmp.Or(c.Lease, time.Minute)
	c.MaxAttempts = cmp.Or(c.MaxAttempts, defaultMaxAttempts)
	c.Workers = cmp.Or(c.Workers, 2)
	if c.Events == nil {
		c.Events = event.Discard{}
	}
	if c.Backoff == nil {
		c.Backoff = defaultBackoff
	}
	if c.Now == nil {
		c.Now = time.Now //nolint:forbidigo // the default of the injected clock
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
}

func (c *OutboxConfig) check() error {
	switch {
	case c.App == "":
		return errors.New("mail: an app is required")
	case c.Mailer == nil || c.Compose == nil:
		return errors.New("mail: an outbox needs a mailer and a function that composes")
	case c.Poll < 0 || c.Lease < 0 || c.MaxAttempts < 0 || c.Workers < 0:
		return errors.New("mail: a limit of the outbox is negative")
	}
	return nil
}

func defaultBackoff(attempt int) time.Duration {
	whole := lastBackoff
	if attempt < 9 { // 5 s, doubled eight times, is beyond the last
		whole = min(firstBackoff<<max(attempt-1, 0), lastBackoff)
	}
	return whole - random(whole/2)
}

// random returns a duration from 0 to below limit.
func random(limit time.Duration) time.Duration {
	var raw [8]byte
	_, _ = rand.Read(raw[:]) // never fails: see crypto/rand.Read
	if limit <= 0 {
		return 0
	}
	return time.Duration(binary.LittleEndian.Uint64(raw[:]) % uint64(limit)) //nolint:gosec // below limit
}

// Outbox sends the messages of one app. All instances that have one share the work. It is
// safe for concurrent use.
//
// # Once
//
// A job is claimed with one conditional write, for the time of a lease, and removed once
// its message is handed on. Two instances never send one job at the same time, as long as
// their clocks agree to a quarter of the lease. A message goes out twice only where it was
// accepted and its job could not be removed before the lease ended: the instance died, or
// it did not reach the database for so long. The second has the Message-ID of the first.
type Outbox struct {
	config OutboxConfig
	coll   *mongo.Collection

	wake    chan struct{} // something may be due
	slots   chan struct{} // one for each message under way
	closing chan struct{}
	ended   sync.WaitGroup
	// work is cancelled when Close gives up.
	work context.Context
	stop context.CancelFunc

	mu      sync.Mutex
	started bool
	closed  bool
	// sent are the jobs whose messages are handed on and that are not removed yet.
	sent map[string]bool
}

// NewOutbox returns the outbox of the app that config names. It sends nothing before
// [Outbox.Start].
func NewOutbox(db *mongo.Database, config OutboxConfig) (*Outbox, error) {
	if db == nil {
		return nil, errors.New("mail: a database is required")
	}
	config.setDefaults()
	if err := config.check(); err != nil {
		return nil, err
	}
	o := &Outbox{
		config: config, coll: store.Handle(db).Collection(config.Collection),
		wake: make(chan struct{}, 1), slots: make(chan struct{}, config.Workers), closing: make(chan struct{}),
		sent: map[string]bool{},
	}
	o.work, o.stop = context.WithCancel(context.Background())
	return o, nil
}

// EnsureIndexes makes sure of the collection's indexes. ttl is false when the server has
// no TTL indexes: then Sweep has to be called now and then.
func (o *Outbox) EnsureIndexes(ctx context.Context) (ttl bool, err error) {
	return store.Indexes(ctx, o.coll, []store.Index{
		// It serves the filter and the order of a claim.
		{Name: "app_next", Keys: bson.D{{Key: "app", Value: 1}, {Key: "next_at", Value: 1}}},
		{Name: "expires_at", Keys: bson.D{{Key: "expires_at", Value: 1}}, TTL: true},
	})
}

// Sweep removes the jobs of the app that no instance was there for until a day after their
// end, and returns how many. Where the server has TTL indexes there is nothing left for it.
func (o *Outbox) Sweep(ctx context.Context) (int64, error) {
	return store.Sweep(ctx, "sweep the mail outbox", o.coll, o.config.App, "expires_at", o.config.Now())
}

// record is a job as it is stored.
type record struct {
	ID        string            `bson:"_id"`
	App       string            `bson:"app"`
	Kind      string            `bson:"kind"`
	To        string            `bson:"to"`
	UserID    string            `bson:"user_id,omitempty"`
	Lang      string            `bson:"lang,omitempty"`
	Data      map[string]string `bson:"data,omitempty"`
	CreatedAt time.Time         `bson:"created_at"`
	NotAfter  time.Time         `bson:"not_after"`
	// NextAt is when the job may be claimed: when it is due, or when the lease of who
	// has claimed it ends.
	NextAt time.Time `bson:"next_at"`
	// Attempts is how often it was claimed, Holder names the last claim.
	Attempts  int       `bson:"attempts"`
	Holder    string    `bson:"holder,omitempty"`
	ExpiresAt time.Time `bson:"expires_at"`
}

func (r *record) job() Job {
	return Job{
		ID: r.ID, Kind: r.Kind, To: r.To, UserID: r.UserID, Lang: r.Lang, Data: r.Data,
		CreatedAt: r.CreatedAt, NotAfter: r.NotAfter,
	}
}

// Enqueue keeps the job, with one insert whatever it is, and wakes this instance's worker.
// When it returns nil the message is sent unless the job is dropped with an event. A job
// whose ID is kept already is not kept twice. The error is [ErrInvalidJob] or wraps
// store.ErrUnavailable: the outcome is open then, and a call with the same ID may be
// repeated.
func (o *Outbox) Enqueue(ctx context.Context, job Job) error {
	now := store.Time(o.config.Now())
	job.ID = cmp.Or(job.ID, NewJobID())
	if job.NotAfter.IsZero() {
		job.NotAfter = now.Add(DefaultLife)
	}
	end := store.Time(job.NotAfter)
	job.NotAfter = end
	if err := job.check(now); err != nil {
		return err
	}
	ctx, cancel := store.Context(ctx)
	defer cancel()
	_, err := o.coll.InsertOne(ctx, &record{
		ID: job.ID, App: o.config.App, Kind: job.Kind, To: job.To, UserID: job.UserID, Lang: job.Lang, Data: job.Data,
		CreatedAt: now, NotAfter: end, NextAt: now, ExpiresAt: end.Add(expiryMargin),
	})
	if err != nil && !mongo.IsDuplicateKeyError(err) {
		return store.Error("enqueue mail", err)
	}
	o.poke()
	return nil
}

var (
	jobName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)
	jobLang = regexp.MustCompile(`^[A-Za-z0-9-]{0,64}$`)
)

func (j *Job) check(now time.Time) error {
	fail := func(what string) error { return fmt.Errorf("%w: %s", ErrInvalidJob, what) }
	switch {
	case !store.ValidID(j.ID, idPrefix):
		return fail("the id is not one of NewJobID")
	case !jobName.MatchString(j.Kind):
		return fail("the kind needs up to 64 lower-case letters, digits and '_', a letter first")
	case len(j.UserID) > 128 || !utf8.ValidString(j.UserID):
		return fail("the user's id is too long")
	case !jobLang.MatchString(j.Lang):
		return fail("the language is not a BCP 47 tag")
	case !j.NotAfter.After(now) || j.NotAfter.After(now.Add(MaxLife)):
		return fail("it has to end in the future, within " + MaxLife.String())
	case len(j.Data) > 16:
		return fail("it has more than 16 members of data")
	}
	for name, value := range j.Data {
		if !jobName.MatchString(name) || len(value) > maxValue || !utf8.ValidString(value) {
			return fail("a member of its data has a name that is not like a kind, or more than 32 KiB, or is not UTF-8")
		}
	}
	if _, err := parseAddress(j.To); err != nil {
		return fmt.Errorf("%w: to: %w", ErrInvalidJob, err)
	}
	return nil
}
