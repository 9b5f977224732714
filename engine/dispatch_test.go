package engine

import (
	"context"
	"log/slog"
	"sync"
	"testing"

	"github.com/mandate-auth/mandate/engine/event"
)

type sinkFunc func(event.Event)

func (f sinkFunc) Record(_ context.Context, e event.Event) { f(e) }

// A sink that hangs or panics must hold up neither requests nor other sinks.
func TestDispatcher(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	var mu sync.Mutex
	seen := 0
	d := newDispatcher([]event.Sink{
		sinkFunc(func(event.Event) { <-release }),
		sinkFunc(func(event.Event) { panic("a defect") }),
		sinkFunc(func(event.Event) { mu.Lock(); seen++; mu.Unlock() }),
	}, slog.New(slog.DiscardHandler))
	for range 2 * dispatchQueue {
		d.Record(t.Context(), event.Event{})
	}
	lost := d.dropped.Load()
	if lost < dispatchQueue-2 {
		t.Errorf("%d events were lost, want about %d: the queue is not bounded", lost, dispatchQueue)
	}
	expired, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.close(expired); err == nil {
		t.Error("close does not give up with its context")
	}
	close(release)
	if err := d.close(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.Record(t.Context(), event.Event{})
	mu.Lock()
	defer mu.Unlock()
	if uint64(seen) != 2*dispatchQueue-lost || d.dropped.Load() != lost+1 {
		t.Errorf("%d events were delivered and %d counted as lost", seen, d.dropped.Load())
	}
}
