package audit

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/engine/event"
)

// What waits is bounded together with what is under way, in order, and a burst does not
// hold its memory.
func TestQueue(t *testing.T) {
	t.Parallel()
	q := newQueue(2*spareEntries, spareEntries)
	number := func(n int) entry { return entry{record: Record{Seq: int64(n)}} }
	for i := range 2 * spareEntries {
		if err := q.put(number(i)); err != nil {
			t.Fatal(err)
		}
	}
	taken := q.take()
	if err := q.put(number(0)); !errors.Is(err, ErrQueueFull) {
		t.Errorf("what is under way does not count: %v", err)
	}
	if err := q.put(entry{mark: markFlush}); err != nil {
		t.Errorf("a full queue cannot be flushed: %v", err)
	}
	for i, e := range taken {
		if e.record.Seq != int64(i) {
			t.Fatalf("entry %d is number %d", i, e.record.Seq)
		}
	}
	q.progress(10)
	if n := q.waiting(); n != 2*spareEntries-10+1 {
		t.Errorf("%d wait", n)
	}
	q.settle(taken)
	if q.spare != nil || q.waiting() != 1 {
		t.Errorf("a buffer of %d entries is kept", cap(q.spare))
	}
	q.close()
	if err := q.put(number(0)); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
}

// What an event costs the request that it comes from: it is cleaned and queued. The
// writer takes what waits now and then, and stores nothing.
func BenchmarkWrite(b *testing.B) {
	t := &Trail{config: Config{App: "shop", Now: time.Now}, queue: newQueue(1024, 64)}
	e := event.Event{
		Type: event.RequestPassed, Result: event.Success, App: "shop", UserID: "usr_0123456789abcdefghjkmnpqrs", StatusCode: 200, Time: time.Now(),
		Request: event.Request{
			ID: "0123456789abcdef", IP: "192.0.2.1", Method: http.MethodGet, Path: "/orders/7",
			UserAgent: "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
		},
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := t.Write(b.Context(), e); err != nil {
			b.Fatal(err)
		}
		if i%128 == 0 {
			t.queue.settle(t.queue.take())
		}
	}
}

// What a record costs the writer: its identifier, its canonical text and its MAC.
func BenchmarkSeal(b *testing.B) {
	t := &Trail{config: Config{App: "shop", Now: time.Now, Signer: noSigner{}}, entropy: newEntropy(), chain: &chain{id: "c"}}
	r := Record{Type: event.RequestPassed, Result: event.Success, UserID: "usr_0123456789abcdefghjkmnpqrs", Path: "/orders/7", Time: time.Now()}
	b.ReportAllocs()
	for b.Loop() {
		_ = t.link(r, nil)
	}
}

type noSigner struct{}

func (noSigner) Sign(data []byte) (string, []byte)  { return "k", data[:32] }
func (noSigner) Verify(string, []byte, []byte) bool { return false }
