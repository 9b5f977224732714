package onetime_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/event"
	"go.mongodb.org/mongo-driver/mongo"

	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/tokens/internal/tokenstest"
	"github.com/mandate-auth/mandate/tokens/onetime"
)

func TestMain(m *testing.M) { storetest.Main(m) }

const (
	reset  onetime.Purpose = "reset"
	verify onetime.Purpose = "verify"
)

// clock is a clock that tests move.
type clock struct{ at atomic.Pointer[time.Time] }

func (c *clock) now() time.Time { return *c.at.Load() }

func (c *clock) move(d time.Duration) {
	next := c.now().Add(d)
	c.at.Store(&next)
}

type fixture struct {
	*onetime.Store
	db    *mongo.Database
	clock *clock
	// commands is how many the database was sent.
	commands atomic.Int64
}

func setup(tb testing.TB) *fixture {
	tb.Helper()
	f := &fixture{clock: &clock{}}
	f.db = storetest.Monitored(tb, &event.CommandMonitor{Started: func(context.Context, *event.CommandStartedEvent) { f.commands.Add(1) }})
	start := time.Now()
	f.clock.at.Store(&start)
	f.Store = f.store(tb, "shop")
	if _, err := f.EnsureIndexes(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	return f
}

// store is the tokens of an app in the same database.
func (f *fixture) store(tb testing.TB, app string) *onetime.Store {
	tb.Helper()
	s, err := onetime.New(f.db, onetime.Config{App: app, Keys: tokenstest.AppKeys(tb, app), Now: f.clock.now})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func (f *fixture) issue(tb testing.TB, p onetime.Purpose, subject string) string {
	tb.Helper()
	text, err := f.Issue(tb.Context(), onetime.NewToken{Purpose: p, Subject: subject, Data: map[string]string{"email": "a@example.com"}, TTL: time.Hour})
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

func wantInvalid(tb testing.TB, what string, err error) {
	tb.Helper()
	if !errors.Is(err, onetime.ErrInvalid) {
		tb.Errorf("%s: %v", what, err)
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	db := storetest.Database(t)
	for name, c := range map[string]onetime.Config{"no app": {Keys: tokenstest.AppKeys(t, "shop")}, "no keys": {App: "shop"}} {
		if _, err := onetime.New(db, c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// A token works once, for its app and its purpose, until it expires.
func TestConsume(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	text := f.issue(t, reset, "usr_1")

	_, err := f.Consume(ctx, verify, text)
	wantInvalid(t, "another purpose", err)
	_, err = f.store(t, "blog").Consume(ctx, reset, text)
	wantInvalid(t, "another app", err)

	known, err := f.Peek(ctx, reset, text)
	if err != nil || known.Subject != "usr_1" || known.Data["email"] != "a@example.com" {
		t.Fatalf("peek: %+v, %v", known, err)
	}
	used, err := f.Consume(ctx, reset, text)
	if err != nil || used.Subject != "usr_1" || used.Data["email"] != "a@example.com" || used.Purpose != reset {
		t.Fatalf("consume: %+v, %v", used, err)
	}
	_, err = f.Consume(ctx, reset, text)
	wantInvalid(t, "used", err)
	_, err = f.Peek(ctx, reset, text)
	wantInvalid(t, "peek at a used one", err)

	late := f.issue(t, reset, "usr_1")
	f.clock.move(time.Hour)
	_, err = f.Consume(ctx, reset, late)
	wantInvalid(t, "expired", err)
}

// What is no token is refused without asking the database.
func TestMalformed(t *testing.T) {
	t.Parallel()
	f := setup(t)
	text := f.issue(t, reset, "usr_1")
	before := f.commands.Load()
	for _, bad := range []string{
		"", " ", "mot_", text[4:], text[:len(text)-1], text + "0", text + "\n", " " + text, strings.ToUpper(text), "mot_" + strings.Repeat("-", 43),
		"mof_" + text[5:], strings.Replace(text, "mot_", "mot_$", 1), "null", "{\"$gt\":\"\"}", strings.Repeat("a", 1<<16),
	} {
		if bad == text {
			continue
		}
		_, err := f.Consume(t.Context(), reset, bad)
		wantInvalid(t, "consume "+bad[:min(len(bad), 60)], err)
		_, err = f.Peek(t.Context(), reset, bad)
		wantInvalid(t, "peek at "+bad[:min(len(bad), 60)], err)
		_, err = f.Try(t.Context(), reset, bad, "123456")
		wantInvalid(t, "try "+bad[:min(len(bad), 60)], err)
	}
	if n := f.commands.Load() - before; n != 0 {
		t.Errorf("%d commands for what can be no token", n)
	}
	if _, err := f.Consume(t.Context(), reset, text); err != nil {
		t.Errorf("the token itself: %v", err)
	}
}

// The database holds neither a token nor a code nor the id of a flow.
func TestNothingToSteal(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	text := f.issue(t, reset, f.Subject("a@example.com"))
	flow := onetime.NewFlow()
	code, err := f.Open(ctx, flow.Handle, onetime.NewToken{Purpose: verify, Subject: "usr_1", TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	cursor, err := f.db.Collection(onetime.Collection).Find(ctx, bson.M{})
	if err != nil {
		t.Fatal(err)
	}
	var all []bson.M
	if err := cursor.All(ctx, &all); err != nil || len(all) != 2 {
		t.Fatalf("%d documents, %v", len(all), err)
	}
	raw, err := bson.MarshalExtJSON(bson.M{"all": all}, false, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{text, text[4:], flow.ID, flow.ID[4:], `"` + code + `"`} {
		if strings.Contains(string(raw), secret) {
			t.Errorf("the database holds %q", secret)
		}
	}
}

// Of fifty uses at once one succeeds.
func TestOneUse(t *testing.T) {
	t.Parallel()
	f := setup(t)
	flow := onetime.NewFlow()
	code, err := f.Open(t.Context(), flow.Handle, onetime.NewToken{Purpose: verify, Subject: "usr_1", TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	text := f.issue(t, reset, "usr_1")
	for name, use := range map[string]func() error{
		"token": func() error { _, err := f.Consume(t.Context(), reset, text); return err },
		"code":  func() error { _, err := f.Try(t.Context(), verify, flow.ID, code); return err },
		"claim": func() error { return f.Claim(t.Context(), reset, "state", f.clock.now().Add(time.Minute)) },
	} {
		var won, refused atomic.Int32
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				switch err := use(); {
				case err == nil:
					won.Add(1)
				case errors.Is(err, onetime.ErrInvalid), errors.Is(err, onetime.ErrUsed):
					refused.Add(1)
				default:
					t.Errorf("%s: %v", name, err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 || refused.Load() != 49 {
			t.Errorf("%s: %d won, %d refused", name, won.Load(), refused.Load())
		}
	}
}

// Revoking ends what is about the subject, of these purposes, in this app.
func TestRevoke(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	gone, kept, other := f.issue(t, reset, "usr_1"), f.issue(t, verify, "usr_1"), f.issue(t, reset, "usr_2")
	if err := f.store(t, "blog").Revoke(ctx, "usr_1"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Peek(ctx, reset, gone); err != nil {
		t.Fatalf("another app ended it: %v", err)
	}
	if err := f.Revoke(ctx, "usr_1", reset); err != nil {
		t.Fatal(err)
	}
	_, err := f.Consume(ctx, reset, gone)
	wantInvalid(t, "revoked", err)
	if _, err := f.Consume(ctx, reset, other); err != nil {
		t.Errorf("of another subject: %v", err)
	}
	if err := f.Revoke(ctx, "usr_1"); err != nil {
		t.Fatal(err)
	}
	_, err = f.Consume(ctx, verify, kept)
	wantInvalid(t, "revoked with all purposes", err)
}

// A token of a seed is made again as it was, and is no other app's or purpose's.
func TestSeed(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	n := onetime.NewToken{Purpose: reset, Subject: "usr_1", TTL: time.Hour, Seed: "mail_1"}
	first, err := f.Issue(ctx, n)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := f.Issue(ctx, n); err != nil || again != first {
		t.Fatalf("again: %q, %v", again, err)
	}
	n.Purpose = verify
	if other, err := f.Issue(ctx, n); err != nil || other == first {
		t.Errorf("another purpose: %v", err)
	}
	n.Purpose, n.Seed = reset, "mail_2"
	if other, err := f.Issue(ctx, n); err != nil || other == first {
		t.Errorf("another seed: %v", err)
	}
	n.Seed = "mail_1"
	if other, err := f.store(t, "blog").Issue(ctx, n); err != nil || other == first {
		t.Errorf("another app: %v", err)
	}
	if _, err := f.Consume(ctx, reset, first); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Issue(ctx, n); err != nil {
		t.Fatal(err)
	}
	_, err = f.Consume(ctx, reset, first)
	wantInvalid(t, "used, and made again", err)
}

func TestSweep(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.issue(t, reset, "usr_1")
	if n, err := f.Sweep(t.Context()); err != nil || n != 0 {
		t.Fatalf("what lives: %d, %v", n, err)
	}
	f.clock.move(2 * time.Hour)
	if n, err := f.store(t, "blog").Sweep(t.Context()); err != nil || n != 0 {
		t.Fatalf("another app's: %d, %v", n, err)
	}
	if n, err := f.Sweep(t.Context()); err != nil || n != 1 {
		t.Fatalf("what has expired: %d, %v", n, err)
	}
}

// A call that is cancelled says so, and what could not be asked is not valid.
func TestUnavailable(t *testing.T) {
	t.Parallel()
	f := setup(t)
	text := f.issue(t, reset, "usr_1")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Peek(ctx, reset, text); err == nil || errors.Is(err, onetime.ErrInvalid) {
		t.Errorf("peek: %v", err)
	}
	if _, err := f.Issue(ctx, onetime.NewToken{Purpose: reset, Subject: "usr_1", TTL: time.Hour}); !errors.Is(err, context.Canceled) {
		t.Errorf("issue: %v", err)
	}
}
