package mail_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/mail"
)

// clock is a clock that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// logs collects what is logged, from many goroutines.
type logs struct {
	mu  sync.Mutex
	out bytes.Buffer
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out.Write(b)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out.String()
}

// sink hands events to the test.
type sink struct{ events chan event.Event }

func (s *sink) Record(_ context.Context, e event.Event) { s.events <- e }

// post is a mailer that the test looks into and decides for.
type post struct {
	mu       sync.Mutex
	sent     []mail.Message
	underWay map[string]int
	overlaps int
	// send decides, nil for yes.
	send func(ctx context.Context, m *mail.Message) error
}

// decide changes what send does.
func (p *post) decide(send func(ctx context.Context, m *mail.Message) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.send = send
}

func (p *post) Send(ctx context.Context, m *mail.Message) error {
	if err := m.Validate(); err != nil {
		return err
	}
	p.mu.Lock()
	if p.underWay[m.ID]++; p.underWay[m.ID] > 1 {
		p.overlaps++
	}
	send := p.send
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.underWay[m.ID]--
	}()
	if send != nil {
		if err := send(ctx, m); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent = append(p.sent, *m)
	return nil
}

func (p *post) messages() []mail.Message {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.sent)
}

// bench is a database with outboxes of one app in it.
type bench struct {
	t     testing.TB
	db    *mongo.Database
	clock *clock
	logs  *logs
	sink  *sink
	post  *post
}

func setup(t testing.TB) *bench { t.Helper(); return setupOn(t, storetest.Database(t)) }

func setupOn(t testing.TB, db *mongo.Database) *bench {
	t.Helper()
	b := &bench{
		t: t, db: db, clock: &clock{now: time.Now().UTC().Truncate(time.Millisecond)}, logs: &logs{},
		sink: &sink{events: make(chan event.Event, 4096)}, post: &post{underWay: map[string]int{}},
	}
	o, err := mail.NewOutbox(db, b.config())
	if err != nil {
		t.Fatal(err)
	}
	if ttl, err := o.EnsureIndexes(t.Context()); err != nil || !ttl {
		t.Fatalf("indexes: %t, %v", ttl, err)
	}
	return b
}

// errEarly is what a mailer says that may be asked again.
var errEarly = errors.New("try later")

func (b *bench) config() mail.OutboxConfig {
	return mail.OutboxConfig{
		App: "shop", Mailer: b.post, Events: b.sink, Now: b.clock.Now, Poll: time.Hour,
		Logger: slog.New(slog.NewTextHandler(b.logs, nil)),
		Compose: func(_ context.Context, job mail.Job) (*mail.Message, error) {
			return &mail.Message{From: "a@shop.example", To: job.To, Subject: "About " + job.Kind, Text: "https://shop.example/#secret-of-" + job.ID}, nil
		},
	}
}

// outbox is one more instance that has started. It is closed when the test ends.
func (b *bench) outbox(change ...func(*mail.OutboxConfig)) *mail.Outbox {
	b.t.Helper()
	return b.outboxOn(b.db, change...)
}

func (b *bench) outboxOn(db *mongo.Database, change ...func(*mail.OutboxConfig)) *mail.Outbox {
	b.t.Helper()
	config := b.config()
	for _, c := range change {
		c(&config)
	}
	o, err := mail.NewOutbox(db, config)
	b.must(err)
	o.Start()
	b.t.Cleanup(func() {
		if err := o.Close(context.Background()); err != nil {
			b.t.Error(err)
		}
	})
	return o
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// enqueue keeps one job and returns its id.
func (b *bench) enqueue(o *mail.Outbox, change ...func(*mail.Job)) string {
	b.t.Helper()
	job := mail.Job{ID: mail.NewJobID(), Kind: "verify_email", To: "ann@example.com", UserID: "usr_1", Lang: "de", Data: map[string]string{"ip": "192.0.2.1"}}
	for _, c := range change {
		c(&job)
	}
	b.must(o.Enqueue(b.t.Context(), job))
	return job.ID
}

// next waits for an event.
func (b *bench) next(want event.Type, reason string) event.Event {
	b.t.Helper()
	select {
	case e := <-b.sink.events:
		if e.Type != want || e.Reason != reason || e.App != "shop" {
			b.t.Fatalf("the event %+v, want %s %q", e, want, reason)
		}
		return e
	case <-time.After(20 * time.Second):
		b.t.Fatalf("no %s %q within 20 s; logged: %s", want, reason, b.logs)
		return event.Event{}
	}
}

// none fails the test if an event waits.
func (b *bench) none() {
	b.t.Helper()
	select {
	case e := <-b.sink.events:
		b.t.Errorf("an event that nobody expects: %+v", e)
	default:
	}
}

// stored are the documents there are.
func (b *bench) stored() []bson.M {
	b.t.Helper()
	cursor, err := b.db.Collection(mail.Collection).Find(context.Background(), bson.D{})
	b.must(err)
	var out []bson.M
	b.must(cursor.All(context.Background(), &out))
	return out
}

// until waits for what no signal tells.
func (b *bench) until(what string, condition func() bool) {
	b.t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline:
			b.t.Fatalf("waited 20 s for: %s; logged: %s", what, b.logs)
		case <-tick.C:
		}
	}
}

func (b *bench) empty() {
	b.t.Helper()
	b.until("the outbox to be empty", func() bool { return len(b.stored()) == 0 })
}

// attempts waits until the only job has been tried n times and waits again, and returns
// for how long.
func (b *bench) attempts(n int) (wait time.Duration) {
	b.t.Helper()
	b.until(fmt.Sprintf("attempt %d", n), func() bool {
		docs := b.stored()
		if len(docs) != 1 || docs[0]["attempts"] != int32(n) || docs[0]["holder"] != nil {
			return false
		}
		wait = docs[0]["next_at"].(interface{ Time() time.Time }).Time().Sub(b.clock.Now())
		return true
	})
	return wait
}
