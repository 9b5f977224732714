package metrics_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mandate-auth/mandate/engine/metrics"
)

// clock moves when it is told to and counts its readings.
type clock struct{ ahead, readings atomic.Int64 }

func (c *clock) Now() time.Time {
	c.readings.Add(1)
	return time.Unix(1_700_000_000, c.ahead.Load())
}

func (c *clock) move(d time.Duration) { c.ahead.Add(int64(d)) }

func setup(*testing.T) (*metrics.Collector, *clock) {
	now := &clock{}
	return metrics.New(metrics.Config{App: "shop", Now: now.Now}), now
}

// A count that is lost or made twice when requests run in parallel would make every
// figure a guess.
func TestCountsAreExactInParallel(t *testing.T) {
	t.Parallel()
	const goroutines, rounds = 16, 2000
	c := metrics.New(metrics.Config{App: "shop"})
	stop, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		var last uint64
		for {
			select {
			case <-stop:
				return
			default:
			}
			s := c.Snapshot()
			if s.TotalTokens != s.TokensValidated+s.TokensFailed || s.TotalTokens < last {
				t.Errorf("a snapshot that contradicts itself or the one before (%d): %+v", last, s)
				return
			}
			last = s.TotalTokens
		}
	}()
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := range rounds {
				c.Start().Succeeded()
				c.ValidationSucceeded(time.Duration(i))
				c.Start().Failed(fmt.Sprint("error_", i%4))
				c.ValidationFailed("measured", time.Microsecond)
				c.Login("success")
				c.Refresh("reused")
				c.Denied("forbidden")
				c.Limited("login")
				c.CacheHit("tokens")
				c.CacheMiss(fmt.Sprint("cache_", g))
				c.ClientTokenIssued()
				c.DatabaseLatency("find", time.Millisecond)
			}
		})
	}
	wg.Wait()
	close(stop)
	<-watched
	const n = goroutines * rounds
	r := c.Report()
	if r.TokensValidated != 2*n || r.TokensFailed != 2*n || r.TotalTokens != 4*n || r.SuccessRate != 50 {
		t.Errorf("%+v", r.Snapshot)
	}
	want := map[string]uint64{"error_0": n / 4, "error_1": n / 4, "error_2": n / 4, "error_3": n / 4, "measured": n}
	if d := cmp.Diff(want, r.ErrorsByType); d != "" {
		t.Error(d)
	}
	for label, got := range map[string]uint64{
		"logins": r.Logins["success"], "refreshes": r.Refreshes["reused"], "denials": r.Denials["forbidden"], "limited": r.Limited["login"],
		"hits": r.CacheHits["tokens"], "client tokens": r.ClientTokens, "commands": r.Database["find"].Count,
	} {
		if got != n {
			t.Errorf("%s: %d, not %d", label, got, n)
		}
	}
	if len(r.CacheMisses) != goroutines || r.CacheMisses["cache_3"] != rounds {
		t.Errorf("misses: %v", r.CacheMisses)
	}
	if r.Database["find"].Sum != n*time.Millisecond {
		t.Errorf("the sum is %v", r.Database["find"].Sum)
	}
	if r.Durations.Count < 2*n || r.Durations.Count > 4*n {
		t.Errorf("%d durations of %d that were given", r.Durations.Count, 2*n)
	}
}

// Whatever comes from a request by mistake must neither take memory without bound
// nor get lost.
func TestValuesAreBounded(t *testing.T) {
	t.Parallel()
	c, _ := setup(t)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 1000 {
				c.ValidationFailed(fmt.Sprintf("type_%d_%d", g, i), 0)
				c.DatabaseLatency(fmt.Sprintf("command_%d_%d", g, i), time.Second)
			}
		})
	}
	wg.Wait()
	r := c.Report()
	if len(r.ErrorsByType) != metrics.MaxValues+1 || r.ErrorsByType[metrics.Other] != 8000-metrics.MaxValues || r.TokensFailed != 8000 {
		t.Errorf("%d types, %d others, %d in all", len(r.ErrorsByType), r.ErrorsByType[metrics.Other], r.TokensFailed)
	}
	if len(r.Database) != metrics.MaxValues+1 || r.Database[metrics.Other].Count != 8000-metrics.MaxValues {
		t.Errorf("%d commands, %d others", len(r.Database), r.Database[metrics.Other].Count)
	}
}

func TestValuesThatCannotStandForThemselves(t *testing.T) {
	t.Parallel()
	c, _ := setup(t)
	longest := strings.Repeat("x", 64)
	for _, v := range []string{"", "\xff", longest + "x", metrics.Other, longest, "expired_token"} {
		c.ValidationFailed(v, -1)
		c.Login(v)
	}
	want := map[string]uint64{metrics.Other: 4, longest: 1, "expired_token": 1}
	r := c.Report()
	if d := cmp.Diff(want, r.ErrorsByType) + cmp.Diff(want, r.Logins); d != "" {
		t.Error(d)
	}
}

// The label Other must not take the place of one of MaxValues.
func TestOtherIsNotCounted(t *testing.T) {
	t.Parallel()
	c, _ := setup(t)
	c.Denied("")
	for i := range metrics.MaxValues {
		c.Denied(fmt.Sprint(i))
	}
	if got := c.Report().Denials; len(got) != metrics.MaxValues+1 || got[metrics.Other] != 1 {
		t.Errorf("%v", got)
	}
}

func TestReset(t *testing.T) {
	t.Parallel()
	c, now := setup(t)
	c.SetGauges(metrics.Gauges{AuditDropped: func() uint64 { return 7 }})
	now.move(time.Hour)
	before := c.Start()
	c.ValidationSucceeded(time.Second)
	c.ValidationFailed("expired_token", time.Second)
	c.Login("success")
	c.Refresh("success")
	c.Denied("x")
	c.Limited("x")
	c.CacheHit("x")
	c.CacheMiss("x")
	c.ClientTokenIssued()
	c.DatabaseLatency("find", time.Second)
	c.Reset()
	before.Succeeded()
	before.Failed("late")
	fresh, _ := setup(t)
	fresh.SetGauges(metrics.Gauges{AuditDropped: func() uint64 { return 7 }})
	if d := cmp.Diff(fresh.Report(), c.Report()); d != "" {
		t.Errorf("something survived (-new +reset):\n%s", d)
	}
	now.move(time.Minute)
	c.ValidationSucceeded(time.Second)
	if s := c.Snapshot(); s.UptimeSeconds != 60 || s.TokensValidated != 1 || s.ValidationTimeAvgMS != 1000 {
		t.Errorf("after the reset: %+v", s)
	}
}

// Requests do not stop for a reset; under the race detector this also proves that it
// needs no lock.
func TestResetInParallel(t *testing.T) {
	t.Parallel()
	c, _ := setup(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 500 {
				c.Start().Succeeded()
				c.Start().Failed("x")
				c.DatabaseLatency("find", 1)
			}
		})
	}
	for range 100 {
		c.Reset()
		c.Report()
	}
	wg.Wait()
	c.Reset()
	c.Start().Succeeded()
	if s := c.Snapshot(); s.TotalTokens != 1 {
		t.Errorf("%+v", s)
	}
}

func TestGauges(t *testing.T) {
	t.Parallel()
	c, _ := setup(t)
	if r := c.Report(); r.FeedAge != nil || r.PolicyAge != nil || r.AuditDropped != nil {
		t.Errorf("gauges out of nowhere: %+v", r)
	}
	c.SetGauges(metrics.Gauges{
		FeedAge:      func() time.Duration { return 3 * time.Second },
		PolicyAge:    func() time.Duration { return -1 },
		AuditDropped: func() uint64 { return 5 },
	})
	r := c.Report()
	if r.FeedAge == nil || *r.FeedAge != 3*time.Second || r.AuditDropped == nil || *r.AuditDropped != 5 {
		t.Errorf("%+v", r)
	}
	if r.PolicyAge != nil {
		t.Errorf("a policy that was never loaded is %v old", *r.PolicyAge)
	}
}

// An app whose metrics are off has no collector.
func TestNilCollectorCountsNothing(t *testing.T) {
	t.Parallel()
	var c *metrics.Collector
	c.Start().Succeeded()
	c.Start().Failed("x")
	metrics.Timer{}.Succeeded()
	for _, path := range hotPaths {
		path.run(c)
	}
	c.Refresh("x")
	c.Login("x")
	c.Limited("x")
	c.CacheMiss("x")
	c.ClientTokenIssued()
	c.SetGauges(metrics.Gauges{})
	c.Reset()
	if s := c.Snapshot(); s.TotalTokens != 0 || s.ErrorsByType == nil || c.App() != "" {
		t.Errorf("%+v", s)
	}
	if d := cmp.Diff(metrics.Report{}, c.Report()); d != "" {
		t.Error(d)
	}
}

// An allocation for each request would be paid in collections of garbage by the
// whole service.
func TestHotPathsDoNotAllocate(t *testing.T) {
	c := metrics.New(metrics.Config{App: "shop"})
	for _, path := range hotPaths {
		if n := testing.AllocsPerRun(1000, func() { path.run(c) }); n != 0 {
			t.Errorf("%s: %v allocations", path.name, n)
		}
	}
}

func TestAppIsText(t *testing.T) {
	t.Parallel()
	if got := metrics.New(metrics.Config{App: "a\xffb"}).App(); got != "a\uFFFDb" {
		t.Errorf("%q", got)
	}
}
