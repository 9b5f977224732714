package audit

import (
	"context"
	"time"

	"github.com/mandate-auth/mandate/engine/event"
)

// Callback returns the sink that gives every event to call as a record, cleaned as
// those of a [Trail] are and without identifier and chain: for a service that sends
// its trail elsewhere. It is called as [event.Sink] says; where packages are used
// without the engine, from many goroutines at once. A nil call discards. A nil now
// is time.Now, for events that say no time.
func Callback(call func(context.Context, Record), now func() time.Time) event.Sink {
	if call == nil {
		return event.Discard{}
	}
	if now == nil {
		now = time.Now //nolint:forbidigo // the default of the injected clock
	}
	return callback{call: call, now: now}
}

type callback struct {
	call func(context.Context, Record)
	now  func() time.Time
}

// Record implements [event.Sink].
func (c callback) Record(ctx context.Context, e event.Event) {
	q := e.Request
	if q == (event.Request{}) {
		q = event.RequestFrom(ctx)
	}
	r := recordOf(&e, &q)
	r.clean(c.now())
	c.call(ctx, r)
}
