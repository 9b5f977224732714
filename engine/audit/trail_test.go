package audit_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	driver "go.mongodb.org/mongo-driver/event"

	"github.com/mandate-auth/mandate/engine/audit"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/tokens/keys"
)

func TestNewTrailRefuses(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for name, change := range map[string]func(*audit.Config){
		"no app":             func(c *audit.Config) { c.App = "" },
		"no cursors":         func(c *audit.Config) { c.Cursors = nil },
		"no signer":          func(c *audit.Config) { c.Signer = nil },
		"short retention":    func(c *audit.Config) { c.Retention = time.Second },
		"negative retention": func(c *audit.Config) { c.Retention = -time.Hour },
		"negative queue":     func(c *audit.Config) { c.Queue = -1 },
		"huge queue":         func(c *audit.Config) { c.Queue = 1 << 21 },
		"huge batch":         func(c *audit.Config) { c.Batch = 1001 },
		"checkpoints":        func(c *audit.Config) { c.CheckpointEvery = -1 },
	} {
		config := b.config()
		change(&config)
		if trail, err := audit.NewTrail(b.db, config); err == nil {
			t.Errorf("%s is accepted", name)
			b.must(trail.Close(t.Context()))
		}
	}
	if _, err := audit.NewTrail(nil, b.config()); err == nil {
		t.Error("no database is accepted")
	}
}

// Every field of an event is in its record.
func TestWriteKeepsEveryField(t *testing.T) {
	t.Parallel()
	b := setup(t)
	trail := b.trail()
	e := sample(7)
	e.Time = b.clock.Now().Add(-time.Minute)
	ctx := event.WithRequest(t.Context(), e.Request)
	e.Request = event.Request{} // found in the context
	b.must(trail.Write(ctx, e))
	e.App = "other"
	b.must(trail.Write(ctx, e)) // not ours
	b.must(trail.Write(ctx, event.Event{Type: event.ClockSkewed, Result: event.Failure}))
	b.must(trail.Flush(t.Context()))
	got := b.all(trail, audit.Filter{Type: event.LoginFailed})
	if len(got) != 1 {
		t.Fatalf("%d records", len(got))
	}
	r := got[0]
	want := audit.Record{
		ID: r.ID, Time: e.Time, Type: event.LoginFailed, Result: event.Failure, UserID: "usr_7", ClientID: "cli_1", IsM2M: true,
		Actor: "usr_admin", SessionID: "ses_1", Reason: "invalid_credentials", Path: "/auth/login", Method: "POST", StatusCode: 401,
		IP: "192.0.2.1", UserAgent: "agent/1", RequestID: "req7", Metadata: map[string]string{"number": "7", "operation": "sign_in"},
		Chain: r.Chain, Seq: 2,
	}
	if fmt.Sprint(r) != fmt.Sprint(want) {
		t.Errorf("got  %+v\nwant %+v", r, want)
	}
	if skewed := b.all(trail, audit.Filter{Type: event.ClockSkewed}); len(skewed) != 1 || !skewed[0].Time.Equal(b.clock.Now()) {
		t.Errorf("an event of the engine, without time: %+v", skewed)
	}
}

func TestLog(t *testing.T) {
	t.Parallel()
	b := setup(t)
	trail := b.trail()
	ctx := event.WithRequest(t.Context(), event.Request{ID: "r1", IP: "192.0.2.9", Path: "/export", Method: "POST", UserAgent: "ua"})
	b.must(trail.Log(ctx, audit.Record{
		ID: "mine", Seq: 99, Chain: "mine", Type: "sensitive_operation", UserID: "usr_1", Path: "/own",
		Metadata: map[string]string{"operation": "export", "result": "done"},
	}))
	b.must(trail.LogAuthSuccess(ctx, "svc_1", true, map[string]string{"data_type": "x"}))
	b.must(trail.LogAuthFailure(ctx, "bad_certificate", nil))
	b.must(trail.LogAccessDenied(ctx, "usr_1", "/secret/area", "not_owner", nil))
	b.must(trail.Flush(ctx))
	got := b.all(trail, audit.Filter{IP: "192.0.2.9"})
	if len(got) != 4 {
		t.Fatalf("%d records", len(got))
	}
	if r := got[0]; r.ID == "mine" || r.Seq != 2 || r.Result != event.Success || r.Path != "/own" || r.Method != http.MethodPost ||
		r.RequestID != "r1" || r.UserAgent != "ua" || r.Metadata["operation"] != "export" || !r.Time.Equal(b.clock.Now()) {
		t.Errorf("own event: %+v", r)
	}
	if r := got[1]; r.Type != "auth_success" || r.UserID != "svc_1" || !r.IsM2M || r.Metadata["data_type"] != "x" || r.Result != event.Success {
		t.Errorf("success: %+v", r)
	}
	if r := got[2]; r.Type != "auth_failure" || r.Reason != "bad_certificate" || r.Result != event.Failure || r.Path != "/export" {
		t.Errorf("failure: %+v", r)
	}
	if r := got[3]; r.Type != "access_denied" || r.UserID != "usr_1" || r.Path != "/secret/area" || r.Reason != "not_owner" || r.Result != event.Failure {
		t.Errorf("denied: %+v", r)
	}
}

func TestLogRefuses(t *testing.T) {
	t.Parallel()
	b := setup(t)
	trail := b.trail()
	many := map[string]string{}
	for i := range event.MaxMetadata + 1 {
		many[fmt.Sprintf("m%d", i)] = "x"
	}
	for name, r := range map[string]audit.Record{
		"no type":         {},
		"capital":         {Type: "Operation"},
		"digit first":     {Type: "1x"},
		"dash":            {Type: "a-b"},
		"long":            {Type: event.Type("a" + strings.Repeat("b", 64))},
		"the trail's own": {Type: event.AuditLost},
		"a head":          {Type: "audit_head"},
		"result":          {Type: "x", Result: "perhaps"},
		"many":            {Type: "x", Metadata: many},
		"name":            {Type: "x", Metadata: map[string]string{"a.b": "x"}},
		"operator":        {Type: "x", Metadata: map[string]string{"$set": "x"}},
		"no name":         {Type: "x", Metadata: map[string]string{"": "x"}},
		"value":           {Type: "x", Metadata: map[string]string{"a": strings.Repeat("x", 257)}},
	} {
		if err := trail.Log(t.Context(), r); !errors.Is(err, audit.ErrInvalidRecord) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	b.must(trail.Log(t.Context(), audit.Record{Type: event.Type("a" + strings.Repeat("b", 63))}))
	b.must(trail.Flush(t.Context()))
	if n := len(b.all(trail, audit.Filter{})); n != 2 {
		t.Errorf("%d records, want the opening and the right one", n)
	}
}

// A synchronous trail has stored what it has answered, before anybody flushes.
func TestSynchronous(t *testing.T) {
	t.Parallel()
	b := setup(t)
	trail := b.trail(func(c *audit.Config) { c.Synchronous = true })
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			// A caller that hangs up cannot keep its record from being written first.
			if err := trail.Write(gone, sample(i)); err != nil {
				t.Error(err)
			}
			n, err := b.events().CountDocuments(t.Context(), bson.D{{Key: "user_id", Value: fmt.Sprintf("usr_%d", i)}})
			if err != nil || n != 1 {
				t.Errorf("answered, and %d are stored, %v", n, err)
			}
		})
	}
	all.Wait()
	if s := trail.Stats(); s.Written != 21 || s.Dropped+s.Late+s.Failures != 0 || s.Waiting != 0 {
		t.Errorf("got %+v", s)
	}
	b.intact()
}

// The database is away: a synchronous trail says so in time and writes later.
func TestSynchronousWithoutDatabase(t *testing.T) {
	t.Parallel()
	b := setup(t)
	link := &storetest.Link{}
	trail := b.trailIn(storetest.Second(t, b.db, link), func(c *audit.Config) { c.Synchronous = true })
	link.Cut()
	began := time.Now()
	if err := trail.Write(t.Context(), sample(1)); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > 2*store.CallTimeout {
		t.Errorf("it took %s to say so", took)
	}
	if s := trail.Stats(); s.Late != 1 || s.Dropped != 0 || s.Waiting != 1 || !strings.Contains(b.logs.String(), "not stored yet") {
		t.Errorf("got %+v and %s", s, b.logs)
	}
	link.Restore()
	b.must(trail.Flush(t.Context()))
	if got := b.all(b.trail(), audit.Filter{UserID: "usr_1"}); len(got) != 1 {
		t.Errorf("%d records", len(got))
	}
	b.intact()
}

// Close gives up with its context, and says what was lost.
func TestCloseWithoutDatabase(t *testing.T) {
	t.Parallel()
	b := setup(t)
	link := &storetest.Link{}
	config := b.config()
	trail, err := audit.NewTrail(storetest.Second(t, b.db, link), config)
	b.must(err)
	link.Cut()
	for i := range 3 {
		b.must(trail.Write(t.Context(), sample(i)))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := trail.Close(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "3 lost") {
		t.Errorf("got %v", err)
	}
	if err := trail.Write(t.Context(), sample(4)); !errors.Is(err, audit.ErrClosed) || trail.Dropped() != 4 {
		t.Errorf("after the end: %v, %d lost", err, trail.Dropped())
	}
	if err := trail.Flush(t.Context()); !errors.Is(err, audit.ErrClosed) {
		t.Errorf("flush after the end: %v", err)
	}
}

func TestFlushGivesUp(t *testing.T) {
	t.Parallel()
	b := setup(t)
	link := &storetest.Link{}
	trail := b.trailIn(storetest.Second(t, b.db, link))
	link.Cut()
	b.must(trail.Write(t.Context(), sample(1)))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := trail.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	link.Restore()
	b.must(trail.Flush(t.Context()))
}

func TestIndexes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for range 2 { // several instances make them
		if ttl, err := b.trail().EnsureIndexes(t.Context()); err != nil || !ttl {
			t.Fatalf("ttl=%t, %v", ttl, err)
		}
	}
}

// Errors of a database that is away are told, and prove nothing.
func TestReadsWithoutDatabase(t *testing.T) {
	t.Parallel()
	b := setup(t)
	link := &storetest.Link{}
	k := appKeys(t, "shop", "s")
	trail := b.trailIn(storetest.Second(t, b.db, link), func(c *audit.Config) { c.Signer = audit.SignWith(k, keys.Audit) })
	link.Cut()
	var all sync.WaitGroup
	for name, call := range map[string]func() error{
		"query":   func() error { _, _, err := trail.Query(t.Context(), audit.Filter{}, 1, ""); return err },
		"summary": func() error { _, err := trail.Summary(t.Context(), time.Time{}, time.Time{}); return err },
		"verify":  func() error { _, err := trail.Verify(t.Context()); return err },
		"sweep":   func() error { _, err := trail.Sweep(t.Context()); return err },
	} {
		all.Go(func() {
			if err := call(); !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("%s: got %v", name, err)
			}
		})
	}
	all.Wait()
	link.Restore()
}

// A steady stream of records costs few inserts.
func TestGathering(t *testing.T) {
	t.Parallel()
	var inserts atomic.Int64
	b := setup(t)
	db := storetest.Monitored(t, &driver.CommandMonitor{Started: func(_ context.Context, e *driver.CommandStartedEvent) {
		if e.CommandName == "insert" {
			inserts.Add(1)
		}
	}})
	trail := b.trailIn(db)
	trail.Record(t.Context(), sample(0))
	b.must(trail.Flush(t.Context()))
	inserts.Store(0)
	const records = 100
	for i := range records {
		trail.Record(t.Context(), sample(i))
		time.Sleep(time.Millisecond)
	}
	b.must(trail.Flush(t.Context()))
	if n := inserts.Load(); n == 0 || n > records/2 {
		t.Errorf("%d records took %d inserts", records, n)
	}
}
