package engine

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/mandate-auth/mandate/engine/event"
)

// dispatchQueue is how many events may wait for slow sinks. At some 500 bytes
// each the queue is bounded by about half a megabyte.
const dispatchQueue = 1024

// dispatcher hands events to the sinks from a goroutine of its own, so that a
// slow or panicking sink never holds up a request. What does not fit into the
// queue is counted and logged.
type dispatcher struct {
	sinks   []event.Sink
	logger  *slog.Logger
	queue   chan delivery
	dropped atomic.Uint64

	closing   sync.RWMutex // held for reading while sending
	closed    bool
	delivered chan struct{}
}

// delivery is an event, and who receives it besides the sinks of all.
type delivery struct {
	event event.Event
	more  []event.Sink
}

func newDispatcher(sinks []event.Sink, logger *slog.Logger) *dispatcher {
	d := &dispatcher{
		sinks:     sinks,
		logger:    logger,
		queue:     make(chan delivery, dispatchQueue),
		delivered: make(chan struct{}),
	}
	go d.run()
	return d
}

// Record implements [event.Sink].
func (d *dispatcher) Record(ctx context.Context, e event.Event) {
	if e.Request == (event.Request{}) {
		e.Request = event.RequestFrom(ctx)
	}
	d.recordTo(e, nil)
}

// recordTo is Record with further sinks.
func (d *dispatcher) recordTo(e event.Event, more []event.Sink) {
	d.closing.RLock()
	defer d.closing.RUnlock()
	if d.closed {
		d.lost()
		return
	}
	select {
	case d.queue <- delivery{e, more}:
	default:
		d.lost()
	}
}

// lost counts an event that no sink will see. Logging each would make the
// overload worse, so only powers of two are logged.
func (d *dispatcher) lost() {
	n := d.dropped.Add(1)
	if n&(n-1) == 0 {
		d.logger.Warn("events lost: the sinks are slower than the events", slog.Uint64("lost", n))
	}
}

func (d *dispatcher) run() {
	defer close(d.delivered)
	for next := range d.queue {
		for _, sink := range slices.Concat(d.sinks, next.more) {
			d.deliver(sink, next.event)
		}
	}
}

func (d *dispatcher) deliver(sink event.Sink, e event.Event) {
	defer func() {
		if p := recover(); p != nil {
			d.logger.Error("an event sink panicked", slog.Any("panic", p), slog.String("type", string(e.Type)))
		}
	}()
	sink.Record(context.Background(), e)
}

// close delivers what is queued and ends the goroutine, or gives up with ctx.
func (d *dispatcher) close(ctx context.Context) error {
	d.closing.Lock()
	if !d.closed {
		d.closed = true
		close(d.queue)
	}
	d.closing.Unlock()
	select {
	case <-d.delivered:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
