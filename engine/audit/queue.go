package audit

import "sync"

// mark says that an entry is no record.
type mark int

const (
	markNone mark = iota
	// markFlush asks for the head to be written.
	markFlush
	// markCheckpoint asks for the other chains to be witnessed, too.
	markCheckpoint
)

// entry is one thing for the writer to do.
type entry struct {
	record Record
	mark   mark
	// done receives the outcome, once. It has room for it, or is nil.
	done chan error
}

func (e *entry) answer(err error) {
	if e.done != nil {
		e.done <- err
	}
}

// maxMarks bounds the entries that are no records.
const maxMarks = 256

// spareEntries is how large a buffer is kept when nothing waits. A burst must not
// hold its memory for ever in each of thousands of apps.
const spareEntries = 256

// queue hands entries from many goroutines to one. Two buffers take turns: one is
// filled while the other is written.
type queue struct {
	// wake has a value when something waits, and hurry when it should not wait for
	// more: somebody asks for something, or there is a batch.
	wake, hurry chan struct{}

	mu       sync.Mutex
	limit    int
	batch    int
	filling  []entry
	spare    []entry
	underWay int
	closed   bool
}

func newQueue(limit, batch int) *queue {
	return &queue{limit: limit, batch: batch, wake: make(chan struct{}, 1), hurry: make(chan struct{}, 1)}
}

// put adds an entry, or returns [ErrQueueFull] or [ErrClosed].
func (q *queue) put(e entry) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	limit := q.limit
	if e.mark != markNone {
		limit += maxMarks
	}
	switch {
	case q.closed:
		return ErrClosed
	case len(q.filling)+q.underWay >= limit:
		return ErrQueueFull
	}
	q.filling = append(q.filling, e)
	if len(q.filling) == 1 {
		signal(q.wake)
	}
	if e.mark != markNone || len(q.filling) == q.batch {
		signal(q.hurry)
	}
	return nil
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// take returns all that waits. The slice is the writer's until it calls settle.
func (q *queue) take() []entry {
	q.mu.Lock()
	defer q.mu.Unlock()
	taken := q.filling
	q.filling, q.spare = q.spare, nil
	q.underWay = len(taken)
	return taken
}

// progress says that n of the entries taken are dealt with.
func (q *queue) progress(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.underWay -= n
}

// settle gives the slice of take back.
func (q *queue) settle(taken []entry) {
	clear(taken)
	if cap(taken) > spareEntries {
		taken = nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.underWay, q.spare = 0, taken[:0]
}

// waiting returns how many entries are not dealt with.
func (q *queue) waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.filling) + q.underWay
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
}
