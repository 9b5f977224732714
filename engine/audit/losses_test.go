package audit_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/engine/audit"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store/storetest"
)

// What the queue does not hold is counted, logged, and said in the trail itself.
func TestOverflow(t *testing.T) {
	t.Parallel()
	for _, chained := range []bool{true, false} {
		t.Run(fmt.Sprintf("chained=%t", chained), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			link := &storetest.Link{}
			trail := b.trailIn(storetest.Second(t, b.db, link), func(c *audit.Config) { c.Queue, c.TamperEvident = 8, chained })
			link.Cut()
			lost := 0
			for i := range 30 {
				if err := trail.Write(t.Context(), sample(i)); errors.Is(err, audit.ErrQueueFull) {
					lost++
				} else if err != nil {
					t.Error(err)
				}
			}
			if lost != 22 || trail.Dropped() != 22 {
				t.Errorf("%d were refused and %d counted, want 22", lost, trail.Dropped())
			}
			if n := strings.Count(b.logs.String(), "audit events lost"); n != 5 {
				t.Errorf("logged %d times, want at 1, 2, 4, 8 and 16", n)
			}
			link.Restore()
			b.must(trail.Flush(t.Context()))
			said := lossesSaid(b, trail)
			if said != lost {
				t.Errorf("the trail says that %d are lost", said)
			}
			if n := len(b.all(trail, audit.Filter{Type: event.LoginFailed})); n != 8 {
				t.Errorf("%d were kept, want 8", n)
			}
			b.must(trail.Write(t.Context(), sample(1)))
			b.must(trail.Flush(t.Context()))
			if again := lossesSaid(b, trail); again != said {
				t.Errorf("the trail says that %d are lost, and nothing was since", again)
			}
			if chained {
				b.intact()
			}
		})
	}
}

// Losses at the end of a burst are recorded although no record follows that could
// bring them along.
func TestLossesAtTheEnd(t *testing.T) {
	t.Parallel()
	for _, flushed := range []bool{true, false} {
		t.Run(fmt.Sprintf("flushed=%t", flushed), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			link := &storetest.Link{}
			trail := b.trailIn(storetest.Second(t, b.db, link), func(c *audit.Config) { c.Queue = 1 })
			wait := func(what string, there func() bool) {
				for range 10_000 {
					if there() {
						return
					}
					time.Sleep(time.Millisecond)
				}
				t.Error(what)
			}
			b.must(trail.Write(t.Context(), sample(0)))
			b.must(trail.Flush(t.Context()))
			wait("the queue was never empty", func() bool { return trail.Stats().Waiting == 0 })
			link.Cut()
			b.must(trail.Write(t.Context(), sample(0)))
			wait("the record was never tried", func() bool { return trail.Stats().Failures > 0 })
			for i := range 3 {
				if err := trail.Write(t.Context(), sample(i)); !errors.Is(err, audit.ErrQueueFull) {
					t.Errorf("got %v", err)
				}
			}
			link.Restore()
			if flushed {
				b.must(trail.Flush(t.Context()))
				if said := lossesSaid(b, trail); said != 3 {
					t.Errorf("the trail says that %d are lost", said)
				}
			} else {
				wait("the losses were never recorded", func() bool { return lossesSaid(b, trail) == 3 })
				b.must(trail.Flush(t.Context()))
			}
			b.intact()
		})
	}
}

// lossesSaid adds up the losses that the trail has recorded.
func lossesSaid(b *bench, trail *audit.Trail) int {
	b.t.Helper()
	sum := 0
	for _, r := range b.all(trail, audit.Filter{Type: event.AuditLost, Result: event.Failure}) {
		n, err := strconv.Atoi(r.Metadata["events"])
		b.must(err)
		sum += n
	}
	return sum
}
