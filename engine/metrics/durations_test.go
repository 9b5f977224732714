package metrics_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/engine/metrics"
)

// sequence is a repeatable source of numbers below one.
type sequence uint64

func (s *sequence) next() float64 {
	*s = *s*6364136223846793005 + 1442695040888963407
	return float64(*s>>11) / (1 << 53)
}

// nearestRank is the definition that percentiles are held against.
func nearestRank(sorted []time.Duration, p float64) time.Duration {
	return sorted[max(int(math.Ceil(float64(len(sorted))*p/100))-1, 0)]
}

func TestPercentilesAgainstTheSortedSample(t *testing.T) {
	t.Parallel()
	shapes := map[string]func(*sequence) time.Duration{
		"uniform":     func(s *sequence) time.Duration { return time.Duration(s.next() * 1e6) },
		"exponential": func(s *sequence) time.Duration { return time.Duration(-math.Log(1-s.next()) * 5e4) },
		"long tail":   func(s *sequence) time.Duration { return time.Duration(300 * math.Pow(1-s.next(), -1.5)) },
		"two peaks": func(s *sequence) time.Duration {
			if s.next() < 0.94 {
				return 300 + time.Duration(s.next()*50)
			}
			return 20*time.Millisecond + time.Duration(s.next()*1e6)
		},
		"constant": func(*sequence) time.Duration { return 12345 },
		"minutes":  func(s *sequence) time.Duration { return time.Duration(s.next() * float64(2*time.Minute)) },
	}
	for name, shape := range shapes {
		for _, size := range []int{1, 2, 19, 20, 21, 100, 101, 5000} {
			c, _ := setup(t)
			s := sequence(len(name))
			var all []time.Duration
			var sum time.Duration
			for range size {
				d := shape(&s)
				all, sum = append(all, d), sum+d
				c.ValidationSucceeded(d)
			}
			slices.Sort(all)
			got := c.Snapshot()
			for what, pair := range map[string][2]float64{
				"p95": {got.ValidationTimeP95MS, float64(nearestRank(all, 95)) / 1e6},
				"p99": {got.ValidationTimeP99MS, float64(nearestRank(all, 99)) / 1e6},
			} {
				if math.Abs(pair[0]-pair[1]) > pair[1]/32+1e-6 {
					t.Errorf("%s of %d, %s: %v ms is more than 1/32 from %v ms", what, size, name, pair[0], pair[1])
				}
			}
			if want := float64(sum) / float64(size) / 1e6; math.Abs(got.ValidationTimeAvgMS-want) > 1e-6 {
				t.Errorf("mean of %d, %s: %v ms, not %v ms", size, name, got.ValidationTimeAvgMS, want)
			}
			if r := c.Report(); r.Durations.Count != uint64(size) || r.Durations.Sum != sum {
				t.Errorf("%d, %s: %d durations with the sum %v, not %v", size, name, r.Durations.Count, r.Durations.Sum, sum)
			}
		}
	}
}

// Every power of two and its neighbours lie where buckets begin and end.
func TestEveryDurationIsWithinTheBound(t *testing.T) {
	t.Parallel()
	c, _ := setup(t)
	for exp := range 37 {
		for _, d := range []time.Duration{1<<exp - 1, 1 << exp, 1<<exp + 1} {
			c.Reset()
			c.ValidationFailed("x", d)
			got := time.Duration(math.Round(c.Snapshot().ValidationTimeP95MS * 1e6))
			off := time.Duration(0)
			if d > 32 {
				off = d / 32
			}
			if want := max(d, 1); got < want-off || got > want+off {
				t.Errorf("%d ns is shown as %d ns", d, got)
			}
		}
	}
}

func TestDurationsOutOfRange(t *testing.T) {
	t.Parallel()
	c, _ := setup(t)
	c.ValidationSucceeded(-time.Second)
	c.ValidationFailed("x", -1)
	c.DatabaseLatency("find", -1)
	if r := c.Report(); r.TotalTokens != 2 || r.Durations.Count != 0 || r.ValidationTimeAvgMS != 0 || len(r.Database) != 0 {
		t.Errorf("a duration that was not measured is counted: %+v", r)
	}
	c.ValidationSucceeded(24 * time.Hour)
	r := c.Report()
	if r.ValidationTimeAvgMS != 86_400_000 || r.Durations.Sum != 24*time.Hour {
		t.Errorf("the mean of a day is %v ms", r.ValidationTimeAvgMS)
	}
	if r.ValidationTimeP99MS < 133_000 || r.ValidationTimeP99MS > 138_000 {
		t.Errorf("the last bucket is shown as %v ms", r.ValidationTimeP99MS)
	}
	if last := len(r.Durations.Bounds); r.Durations.Counts[last] != 1 {
		t.Errorf("a day is not above all bounds: %v", r.Durations.Counts)
	}
}

// Exporters promise that a bucket includes its bound.
func TestHistogramsIncludeTheirBounds(t *testing.T) {
	t.Parallel()
	c, _ := setup(t)
	c.ValidationSucceeded(0)
	c.DatabaseLatency("find", 0)
	r := c.Report()
	for _, h := range []metrics.Histogram{r.Durations, r.Database["find"]} {
		if len(h.Counts) != len(h.Bounds)+1 || !slices.IsSorted(h.Bounds) {
			t.Fatalf("%d counts for %v", len(h.Counts), h.Bounds)
		}
	}
	for i, bound := range r.Durations.Bounds {
		c.ValidationSucceeded(bound)
		c.ValidationSucceeded(bound + 1)
		h := c.Report().Durations
		if h.Counts[i] != 2 || h.Counts[i+1] != 1 {
			t.Errorf("%v and 1 ns more lie in %v", bound, h.Counts)
		}
	}
	for i, bound := range r.Database["find"].Bounds {
		c.DatabaseLatency("find", bound)
		c.DatabaseLatency("find", bound+1)
		h := c.Report().Database["find"]
		if h.Counts[i] != 2 || h.Counts[i+1] != 1 {
			t.Errorf("%v and 1 ns more lie in %v", bound, h.Counts)
		}
	}
}

// Reading the clock for more than one validation in 16 would cost what the sample
// saves; never reading it would leave the figures empty.
func TestOneInSixteenIsMeasured(t *testing.T) {
	t.Parallel()
	c, now := setup(t)
	before := now.readings.Load()
	const n = 64_000
	for range n {
		c.Start().Succeeded()
	}
	readings := now.readings.Load() - before
	if measured := c.Report().Durations.Count; measured < n/20 || measured > n/13 || readings != int64(2*measured) {
		t.Errorf("%d of %d are measured with %d readings", measured, n, readings)
	}
	if s := c.Snapshot(); s.TokensValidated != n {
		t.Errorf("%d of %d are counted", s.TokensValidated, n)
	}
}

// Traffic has periods. A sample in step with one would show only its peaks, or none.
func TestSampleKeepsNoStepWithPeriods(t *testing.T) {
	t.Parallel()
	for _, period := range []int{2, 8, 13, 16, 21, 32, 64} {
		c, now := setup(t)
		for i := range 2000 * period {
			timer := c.Start()
			if i%period == 0 {
				now.move(time.Millisecond)
			}
			timer.Succeeded()
		}
		want := 1 / float64(period)
		if got := c.Snapshot().ValidationTimeAvgMS; math.Abs(got-want) > want/3 {
			t.Errorf("every %d. takes 1 ms: the mean is %v ms, not %v ms", period, got, want)
		}
	}
}

// An app that has done little must not show a mean of nothing.
func TestFirstValidationIsMeasured(t *testing.T) {
	t.Parallel()
	for range 40 {
		c, now := setup(t)
		timer := c.Start()
		now.move(2 * time.Millisecond)
		timer.Failed("expired_token")
		if s := c.Snapshot(); s.ValidationTimeAvgMS != 2 || s.TokensFailed != 1 || s.ErrorsByType["expired_token"] != 1 {
			t.Fatalf("%+v", s)
		}
	}
}

// A clock that is set back must not make a duration of centuries.
func TestClockSetBack(t *testing.T) {
	t.Parallel()
	c, now := setup(t)
	timer := c.Start()
	now.move(-time.Hour)
	timer.Succeeded()
	c.Start().Succeeded()
	if s := c.Snapshot(); s.TokensValidated != 2 || s.ValidationTimeAvgMS != 0 || s.UptimeSeconds != 0 {
		t.Errorf("%+v", s)
	}
}
