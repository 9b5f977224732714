package audit_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/engine/audit"
	"github.com/mandate-auth/mandate/engine/event"
)

// The chain says how far it goes, what it began with, and whether it ended in order.
func TestChain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	trail := b.trail()
	b.must(trail.Flush(t.Context())) // nothing yet, so no chain
	if report := b.intact(); len(report.Chains) != 0 {
		t.Fatalf("an instance that wrote nothing has a chain: %s", show(report))
	}
	b.record(trail, 3)
	c := b.intact().Chains[0]
	if c.First != 1 || c.Last != 4 || c.Records != 4 || c.Closed || c.Head.Seq != 4 || c.Head.MAC == "" {
		t.Errorf("got %+v", c)
	}
	b.must(trail.Close(t.Context()))
	b.must(trail.Close(t.Context()))
	if c := b.intact().Chains[0]; !c.Closed {
		t.Error("a chain that was ended in order is not said to be")
	}
	first := b.all(trail, audit.Filter{})[0]
	if first.Type != event.AuditStarted || first.Seq != 1 || first.Chain != c.Chain {
		t.Errorf("the chain begins with %+v", first)
	}
	b.record(b.trail(), 1)
	if report := b.intact(); len(report.Chains) != 2 || report.Chains[0].Chain != c.Chain {
		t.Errorf("the next start continues a chain or sorts before: %s", show(report))
	}
}

// Without a flush the head comes by itself.
func TestHeadFollows(t *testing.T) {
	t.Parallel()
	b := setup(t)
	trail := b.trail()
	b.must(trail.Write(t.Context(), sample(1)))
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		n, err := b.events().CountDocuments(t.Context(), bson.D{{Key: "head_seq", Value: 2}})
		b.must(err)
		if n == 1 {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("the head does not follow the records")
		}
	}
}

// What retention removes is not missed, and what it has not reached yet is.
func TestRetention(t *testing.T) {
	t.Parallel()
	b := setup(t)
	retention := func(c *audit.Config) { c.Retention = time.Hour }
	trail := b.trail(retention)
	b.record(trail, 3) // numbers 1 to 4, for an hour
	b.clock.move(30 * time.Minute)
	b.record(trail, 3) // 5 to 7, half an hour longer
	b.clock.move(31 * time.Minute)
	b.intact()
	// The database removes what has expired in any order.
	b.remove(seq(3))
	b.remove(seq(1))
	if c := b.intact().Chains[0]; c.First != 2 || c.Records != 5 {
		t.Errorf("got %+v", c)
	}
	n, err := trail.Sweep(t.Context())
	b.must(err)
	if n != 2 {
		t.Errorf("%d were swept, want the two that have expired", n)
	}
	if c := b.intact().Chains[0]; c.First != 5 || c.Last != 7 || c.Records != 3 {
		t.Errorf("got %+v", c)
	}
	// The next deletion is not the work of retention.
	five := b.document(seq(5))
	b.remove(seq(5))
	if c := b.verify().Chains[0]; c.Break == nil || c.Break.Fault != audit.Missing || c.Break.Seq != 5 {
		t.Errorf("a cut before its time is not found: %+v", c)
	}
	b.insert(five)
	// All expired: the chain may go whole, and goes on where it was.
	b.clock.move(time.Hour)
	if _, err := trail.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.intact()
	b.record(trail, 1)
	if c := b.intact().Chains[0]; c.First != 8 || c.Last != 8 {
		t.Errorf("got %+v", c)
	}
	b.clock.move(48 * time.Hour)
	if _, err := trail.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, err := b.events().CountDocuments(t.Context(), bson.D{}); err != nil || n != 0 {
		t.Errorf("%d documents are left, %v", n, err)
	}
	if report := b.verify(audit.Head{Chain: "01JT", Seq: 3, ExpiresAt: b.clock.Now()}); !report.Intact() {
		t.Errorf("a head that has expired still demands: %s", show(report))
	}
}

// A clock that goes back must not let a record expire before its predecessor: then
// a cut would hide what has not expired.
func TestClockGoesBack(t *testing.T) {
	t.Parallel()
	b := setup(t)
	trail := b.trail()
	b.record(trail, 1)
	b.clock.move(-30 * 24 * time.Hour)
	b.record(trail, 1)
	if x, y := field(b.document(seq(2)), "expires_at"), field(b.document(seq(3)), "expires_at"); x != y {
		t.Errorf("expiry falls along the chain: %v, %v", x, y)
	}
	b.intact()
}

// Instances share a database and nothing else.
func TestInstancesAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const instances, writers, each = 3, 4, 40
	var all sync.WaitGroup
	for range instances {
		trail := b.trail(func(c *audit.Config) { c.Batch = 16 })
		for range writers {
			all.Go(func() {
				for i := range each {
					if err := trail.Write(t.Context(), sample(i)); err != nil {
						t.Error(err)
					}
				}
				if err := trail.Checkpoint(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		all.Go(func() { // verification does not disturb, and is not disturbed
			report, err := trail.Verify(t.Context())
			if err != nil || !report.Intact() {
				t.Errorf("while all write: %s, %v", show(report), err)
			}
		})
	}
	all.Wait()
	report := b.intact()
	if len(report.Chains) != instances {
		t.Errorf("got %s, want a chain per instance", show(report))
	}
	if n := len(b.all(b.trail(), audit.Filter{Type: event.LoginFailed})); n != instances*writers*each {
		t.Errorf("%d records, want %d", n, instances*writers*each)
	}
}

// A chain longer than a page is walked whole, and a second record with the number
// of a page's last one is seen.
func TestVerifyPages(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.record(b.trail(func(c *audit.Config) { c.Queue = 2000 }), 1200)
	if c := b.intact().Chains[0]; c.Records != 1201 {
		t.Fatalf("got %+v", c)
	}
	for _, n := range []int{499, 500, 501, 1201} {
		b.insert(with(b.document(seq(n)), "_id", "7ZZZZZZZZZZZZZZZZZZZZZZZZZ"))
		if c := b.verify().Chains[0]; c.Break == nil || c.Break.Seq != int64(n) {
			t.Errorf("a second record %d is not seen: %+v", n, c)
		}
		b.remove(bson.D{{Key: "_id", Value: "7ZZZZZZZZZZZZZZZZZZZZZZZZZ"}})
	}
}

func TestWithoutChains(t *testing.T) {
	t.Parallel()
	b := setup(t)
	plain := func(c *audit.Config) { c.TamperEvident, c.Signer = false, nil }
	trail := b.trail(plain)
	b.record(trail, 3)
	for _, r := range b.all(trail, audit.Filter{}) {
		if r.Chain != "" || r.Seq != 0 || r.Type != event.LoginFailed {
			t.Errorf("got %+v", r)
		}
	}
	b.must(trail.Checkpoint(t.Context()))
	if _, err := trail.Verify(t.Context()); !errors.Is(err, audit.ErrNotTamperEvident) {
		t.Errorf("got %v: nothing can be proven", err)
	}
}
