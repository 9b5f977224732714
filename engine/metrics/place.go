package metrics

import (
	"runtime"
	"sync"
	"sync/atomic"
)

const (
	// cacheLine keeps the counters of different processors from invalidating each
	// other's caches.
	cacheLine = 64
	// maxStripes bounds a counter to 2 KiB.
	maxStripes = 32
	// distributions is how many distributions of durations share the load. They are
	// large, and in the sample they are used once in 16.
	distributions = 4

	// golden is 2⁶⁴ divided by the golden ratio, and sampleShift leaves the four
	// uppermost bits of a product with it: they are zero once in 16.
	golden      = 0x9E3779B97F4A7C15
	sampleShift = 60
)

// place says which stripe the running processor counts in. Between Get and Put it
// belongs to one goroutine, so calls needs no atomic operation.
type place struct {
	index uint32
	calls uint64
	_     [cacheLine - 16]byte
}

// places hands out one place per processor: a Pool gives a processor back what it
// put there last, and that is the only public way to learn which one is running. A
// random stripe would be in another processor's cache nearly every time, and the
// address of the stack tells goroutines apart, of which a server has thousands.
//
// It belongs to the process because processors do: one pool per app would cost
// 2,000 apps 128 bytes for each processor each. That a collection of garbage may
// drop a place only moves the counting elsewhere; each starts its calls where the one
// before did and one further, so that many new ones sample like one old.
var (
	places = sync.Pool{New: func() any {
		n := lastPlace.Add(1)
		return &place{index: n, calls: uint64(n)}
	}}

	lastPlace atomic.Uint32
)

// here returns the index of the running processor's stripe, to be cut to the number
// of stripes.
func here() uint32 {
	p := places.Get().(*place)
	index := p.index
	places.Put(p)
	return index
}

// hereSampled is here that also says whether this validation is to be measured. The
// multiples of the golden ratio keep no step with any period in the traffic, as
// counting to 16 would: a health check in every sixteenth request would be all that
// is measured, or never be.
func hereSampled() (index uint32, sampled bool) {
	p := places.Get().(*place)
	index, sampled = p.index, p.calls*golden>>sampleShift == 0
	p.calls++
	places.Put(p)
	return index, sampled
}

// stripes is how many stripes a counter made now has: a power of two, and four for each
// processor in use, because places are numbered as they come and two can meet.
func stripes() int {
	n := 1
	for n < 4*runtime.GOMAXPROCS(0) && n < maxStripes {
		n *= 2
	}
	return n
}

// counter is a count in stripes.
type counter struct{ cells []cell }

type cell struct {
	n atomic.Uint64
	_ [cacheLine - 8]byte
}

func newCounter() *counter { return &counter{cells: make([]cell, stripes())} }

func (c *counter) add() { c.addAt(here()) }

func (c *counter) addAt(index uint32) { c.cells[int(index)&(len(c.cells)-1)].n.Add(1) }

func (c *counter) load() uint64 {
	var sum uint64
	for i := range c.cells {
		sum += c.cells[i].n.Load()
	}
	return sum
}
