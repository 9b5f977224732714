package metrics

import (
	"math"
	"math/bits"
	"slices"
	"sync/atomic"
	"time"
)

// Histogram is how durations are distributed.
type Histogram struct {
	// Bounds are the upper bounds of the buckets, each included, ascending.
	Bounds []time.Duration
	// Counts has how many durations lie in each bucket and not in an earlier one;
	// its last, one more than Bounds, counts those above all bounds.
	Counts []uint64
	// Count is how many durations there are, the sum of Counts.
	Count uint64
	// Sum is the exact sum of them.
	Sum time.Duration
}

const (
	// subBits makes 2⁴ buckets of each power of two.
	subBits = 4
	sub     = 1 << subBits
	// maxBits is how many bits of nanoseconds are told apart.
	maxBits = 37
	buckets = (maxBits - subBits + 1) * sub
)

// distribution counts durations in buckets that grow with them. A bucket excludes
// its lower and includes its upper bound, as Prometheus has it, and every power of
// two is a bound: so coarser histograms made of it are exact.
type distribution struct {
	counts [buckets]atomic.Uint64
	sum    atomic.Int64
}

func (h *distribution) observe(d time.Duration) {
	h.counts[bucketOf(d)].Add(1)
	h.sum.Add(int64(d))
}

// bucketOf returns the bucket of d, which must not be negative.
func bucketOf(d time.Duration) int {
	v := uint64(max(d, 1) - 1)
	if v >= 1<<maxBits {
		return buckets - 1
	}
	shift := max(bits.Len64(v)-subBits-1, 0)
	return shift*sub + int(v>>shift) //nolint:gosec // below 2⁵
}

// upperBound returns the longest duration of bucket i.
func upperBound(i int) time.Duration {
	shift := max(i/sub-1, 0)
	return time.Duration(i-shift*sub+1) << shift
}

// middle returns the duration that stands for bucket i: the middle of it, from which
// no duration of the bucket is more than 1/32 away.
func middle(i int) time.Duration {
	lower := time.Duration(1)
	if i > 0 {
		lower = upperBound(i-1) + 1
	}
	return lower + (upperBound(i)-lower)/2
}

// sample is a sum of distributions that nobody changes any more.
type sample struct {
	counts [buckets]uint64
	count  uint64
	sum    time.Duration
}

func (s *sample) merge(h *distribution) {
	for i := range h.counts {
		n := h.counts[i].Load()
		s.counts[i] += n
		s.count += n
	}
	s.sum += time.Duration(h.sum.Load())
}

// mean is 0 where there is nothing.
func (s *sample) mean() time.Duration {
	if s.count == 0 {
		return 0
	}
	return time.Duration(float64(s.sum) / float64(s.count))
}

// percentile returns the duration that p percent do not exceed, by nearest rank, and
// 0 where there is nothing.
func (s *sample) percentile(p float64) time.Duration {
	rank := uint64(math.Ceil(float64(s.count) * p / 100))
	var seen uint64
	for i, n := range s.counts {
		if seen += n; n > 0 && seen >= rank {
			return middle(i)
		}
	}
	return 0
}

// validationBounds are powers of four from 256 ns to 17 s: from a remembered token
// to a database that is about to time out.
var validationBounds = powersOfFour(8, 34)

func powersOfFour(from, to int) []time.Duration {
	var bounds []time.Duration
	for exp := from; exp <= to; exp += 2 {
		bounds = append(bounds, 1<<exp)
	}
	return bounds
}

// coarse is the sample in validationBounds.
func (s *sample) coarse() Histogram {
	h := Histogram{
		Bounds: slices.Clone(validationBounds), Counts: make([]uint64, len(validationBounds)+1),
		Count: s.count, Sum: s.sum,
	}
	at := 0
	for i, n := range s.counts {
		for at < len(h.Bounds) && upperBound(i) > h.Bounds[at] {
			at++
		}
		h.Counts[at] += n
	}
	return h
}

// databaseBounds are those of calls over a network.
var databaseBounds = [...]time.Duration{
	250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

// latency counts durations in databaseBounds. It is small because there is one for
// each command, and not striped because what it measures takes far longer.
type latency struct {
	counts [len(databaseBounds) + 1]atomic.Uint64
	sum    atomic.Int64
}

func (l *latency) observe(d time.Duration) {
	i, _ := slices.BinarySearch(databaseBounds[:], d)
	l.counts[i].Add(1)
	l.sum.Add(int64(d))
}

func (l *latency) read() Histogram {
	h := Histogram{
		Bounds: slices.Clone(databaseBounds[:]), Counts: make([]uint64, len(l.counts)),
		Sum: time.Duration(l.sum.Load()),
	}
	for i := range l.counts {
		h.Counts[i] = l.counts[i].Load()
		h.Count += h.Counts[i]
	}
	return h
}
