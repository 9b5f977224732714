package enginetest

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/engine/event"
)

// Events collects what an engine reports. It implements [event.Sink] and is safe
// for concurrent use. The zero value is ready.
type Events struct {
	mu   sync.Mutex
	seen []event.Event
	more chan struct{} // closed when an event comes
}

// Record implements [event.Sink].
func (e *Events) Record(_ context.Context, ev event.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seen = append(e.seen, ev)
	if e.more != nil {
		close(e.more)
		e.more = nil
	}
}

// All returns the events so far, in the order in which they came.
func (e *Events) All() []event.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.seen)
}

// Find returns the first event that matches. Events are delivered in the
// background: see [Events.Wait].
func (e *Events) Find(match func(event.Event) bool) (event.Event, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if i := slices.IndexFunc(e.seen, match); i >= 0 {
		return e.seen[i], true
	}
	return event.Event{}, false
}

// Reset forgets the events so far.
func (e *Events) Reset() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seen = nil
}

// waitTimeout is how long Wait waits.
const waitTimeout = 8 * time.Second

// Wait returns the first event of the type since the start or the last Reset, and
// waits for it up to eight seconds. Without one it ends the test, so it is called
// in the test's goroutine.
func (e *Events) Wait(tb testing.TB, kind event.Type) event.Event {
	tb.Helper()
	return e.WaitFor(tb, string(kind), func(ev event.Event) bool { return ev.Type == kind })
}

// WaitFor is Wait for an event that matches; what names it for people.
func (e *Events) WaitFor(tb testing.TB, what string, match func(event.Event) bool) event.Event {
	tb.Helper()
	timeout := time.NewTimer(waitTimeout)
	defer timeout.Stop()
	for {
		e.mu.Lock()
		i := slices.IndexFunc(e.seen, match)
		if i >= 0 {
			defer e.mu.Unlock()
			return e.seen[i]
		}
		if e.more == nil {
			e.more = make(chan struct{})
		}
		more := e.more
		e.mu.Unlock()
		select {
		case <-more:
		case <-timeout.C:
			tb.Fatalf("waited %s for the event %s", waitTimeout, what)
		}
	}
}
