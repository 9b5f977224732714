package engine

import (
	"context"
	"log/slog"
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
	queue   chan event.Event
	dropped atomic.Uint64

	closing   sync.RWMutex // held for reading while sending
	closed    bool
	delivered chan struct{}
}

func newDispatcher(sinks []event.Sink, logger *slog.Logger) *dispatcher {
	d := &dispatcher{
		sinks:     sinks,
		logger:    logger,
		queue:     make(chan event.Event, dispatchQueue),
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
	d.closing.RLock()
	defer d.closing.RUnlock()
	if d.closed {
		d.lost()
		return
	}
	select {
	case d.queue <- e:
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
	for e := range d.queue {
		for _, sink := range d.sinks {
			d.deliver(sink, e)
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
