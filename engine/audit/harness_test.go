package audit_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"

	"github.com/mandate-auth/mandate/engine/audit"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/tokens/keys"
	"github.com/mandate-auth/mandate/tokens/secret"
)

// clock is a clock that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

// newClock begins now: the database removes by its own clock what has expired.
func newClock() *clock { return &clock{now: time.Now().UTC().Truncate(time.Millisecond)} }

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

// bench is a database with the trails of one app in it.
type bench struct {
	t     testing.TB
	db    *mongo.Database
	clock *clock
	logs  *logs
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

func setup(t testing.TB) *bench {
	t.Helper()
	b := &bench{t: t, db: storetest.Database(t), clock: newClock(), logs: &logs{}}
	if _, err := b.trail().EnsureIndexes(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

func appKeys(t testing.TB, app string, secrets ...string) *keys.App {
	t.Helper()
	var values []secret.Value
	for _, s := range secrets {
		values = append(values, secret.FromString(strings.Repeat(s, 32)))
	}
	ring, err := keys.NewRing(values)
	if err != nil {
		t.Fatal(err)
	}
	derived, err := ring.App(app, bytes.Repeat([]byte{7}, 32), 1)
	if err != nil {
		t.Fatal(err)
	}
	return derived
}

// config is that of a tamper-evident trail of the app "shop".
func (b *bench) config() audit.Config {
	k := appKeys(b.t, "shop", "s")
	return audit.Config{
		App: "shop", TamperEvident: true, Signer: audit.SignWith(k, keys.Audit), Cursors: k,
		Now: b.clock.Now, Logger: slog.New(slog.NewTextHandler(b.logs, nil)),
	}
}

// trail is one more instance. It is closed when the test ends.
func (b *bench) trail(change ...func(*audit.Config)) *audit.Trail {
	b.t.Helper()
	return b.trailIn(b.db, change...)
}

func (b *bench) trailIn(db *mongo.Database, change ...func(*audit.Config)) *audit.Trail {
	b.t.Helper()
	config := b.config()
	for _, c := range change {
		c(&config)
	}
	trail, err := audit.NewTrail(db, config)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		if err := trail.Close(context.Background()); err != nil {
			b.t.Error(err)
		}
	})
	return trail
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// record writes n events, a millisecond later than what was before, and waits for
// them: so chains sort as they begin.
func (b *bench) record(trail *audit.Trail, n int) {
	b.t.Helper()
	b.clock.move(time.Millisecond)
	for i := range n {
		b.must(trail.Write(b.t.Context(), sample(i)))
	}
	b.must(trail.Flush(b.t.Context()))
}

// sample is an event with every field.
func sample(i int) event.Event {
	return event.Event{
		Type: event.LoginFailed, Result: event.Failure, App: "shop", UserID: fmt.Sprintf("usr_%d", i), Actor: "usr_admin",
		SessionID: "ses_1", ClientID: "cli_1", IsM2M: true, Reason: "invalid_credentials", StatusCode: 401,
		Metadata: map[string]string{"number": fmt.Sprint(i), "operation": "sign_in"},
		Request:  event.Request{ID: fmt.Sprintf("req%d", i), IP: "192.0.2.1", UserAgent: "agent/1", Method: "POST", Path: "/auth/login"},
	}
}

// all returns every record of the app, oldest first.
func (b *bench) all(trail *audit.Trail, f audit.Filter) []audit.Record {
	b.t.Helper()
	var out []audit.Record
	for cursor := ""; ; {
		page, next, err := trail.Query(b.t.Context(), f, audit.MaxLimit, cursor)
		b.must(err)
		for _, r := range page {
			out = append([]audit.Record{r}, out...)
		}
		if next == "" {
			return out
		}
		cursor = next
	}
}

func (b *bench) verify(known ...audit.Head) audit.Report {
	b.t.Helper()
	report, err := b.trail().Verify(b.t.Context(), known...)
	b.must(err)
	return report
}

// intact fails the test unless the trail is.
func (b *bench) intact(known ...audit.Head) audit.Report {
	b.t.Helper()
	report := b.verify(known...)
	if !report.Intact() {
		b.t.Fatalf("a trail that nobody has touched is reported: %s", show(report))
	}
	return report
}

func show(r audit.Report) string {
	out := fmt.Sprintf("unchained=%d", r.Unchained)
	for _, c := range r.Chains {
		out += fmt.Sprintf(" [%s %d..%d of %d", c.Chain, c.First, c.Last, c.Head.Seq)
		if c.Break != nil {
			out += fmt.Sprintf(" %s at %d %s", c.Break.Fault, c.Break.Seq, c.Break.RecordID)
		}
		out += "]"
	}
	return out
}

// events is the collection, for those who tamper with it.
func (b *bench) events() *mongo.Collection { return b.db.Collection(audit.Collection) }

func (b *bench) update(filter, change bson.D) {
	b.t.Helper()
	res, err := b.events().UpdateMany(b.t.Context(), filter, change)
	b.must(err)
	if res.MatchedCount == 0 {
		b.t.Fatalf("nothing matched %v", filter)
	}
}

func (b *bench) remove(filter bson.D) {
	b.t.Helper()
	res, err := b.events().DeleteMany(b.t.Context(), filter)
	b.must(err)
	if res.DeletedCount == 0 {
		b.t.Fatalf("nothing matched %v", filter)
	}
}

func (b *bench) document(filter bson.D) bson.D {
	b.t.Helper()
	var d bson.D
	b.must(b.events().FindOne(b.t.Context(), filter).Decode(&d))
	return d
}

func (b *bench) insert(d bson.D) {
	b.t.Helper()
	_, err := b.events().InsertOne(b.t.Context(), d)
	b.must(err)
}

func seq(n int) bson.D { return bson.D{{Key: "seq", Value: n}} }

func isHead() bson.D { return bson.D{{Key: "type", Value: "audit_head"}} }

// with returns the document with a field changed, or added.
func with(d bson.D, field string, value any) bson.D {
	out := append(bson.D(nil), d...)
	for i := range out {
		if out[i].Key == field {
			out[i].Value = value
			return out
		}
	}
	return append(out, bson.E{Key: field, Value: value})
}

func field(d bson.D, name string) any {
	for _, e := range d {
		if e.Key == name {
			return e.Value
		}
	}
	return nil
}

func set(name string, value any) bson.D {
	return bson.D{{Key: "$set", Value: bson.D{{Key: name, Value: value}}}}
}
