package social

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	// metadataLife and keysLife are how long what was fetched is used. Nothing older
	// is: a sign-in needs the provider anyway. So a key that the provider withdraws is
	// accepted for at most keysLife.
	metadataLife, keysLife = time.Hour, 10 * time.Minute
	// minRefresh is the shortest time between two attempts that tokens of unknown keys
	// cause.
	minRefresh = 30 * time.Second
	// retry is how long a failure is remembered.
	retry = 5 * time.Second
)

// cached is something of a provider that is fetched when it is needed. However many
// callers wait, one fetch runs at a time, and it is nobody's in particular: a caller
// that gives up does not end it for the others.
type cached[T any] struct {
	fetch   func(context.Context) (T, error)
	life    time.Duration
	now     func() time.Time
	base    context.Context // ends with the set
	running *sync.WaitGroup

	mu        sync.Mutex
	value     T
	fetched   time.Time // zero without a value
	attempted time.Time
	failed    error // how the last attempt ended
	flight    *flight[T]
}

// flight is one fetch. Its result is to be read after done.
type flight[T any] struct {
	done  chan struct{}
	value T
	err   error
}

// get returns the value. newer asks for another than the one that is there, which is
// fetched unless that was tried within minRefresh.
func (c *cached[T]) get(ctx context.Context, newer bool) (T, error) {
	var none T
	c.mu.Lock()
	now := c.now()
	fresh := !c.fetched.IsZero() && now.Sub(c.fetched) < c.life
	switch {
	case fresh && !newer, fresh && c.flight == nil && c.failed == nil && now.Sub(c.attempted) < minRefresh:
		defer c.mu.Unlock()
		return c.value, nil
	case c.flight == nil && c.failed != nil && now.Sub(c.attempted) < retry:
		defer c.mu.Unlock()
		return none, c.failed
	case c.flight == nil && c.base.Err() != nil:
		defer c.mu.Unlock()
		return none, fmt.Errorf("%w: the providers are closed", errNoAnswer)
	case c.flight == nil:
		f := &flight[T]{done: make(chan struct{})}
		c.flight, c.attempted = f, now
		c.running.Go(func() { c.run(f, now) })
	}
	f := c.flight
	c.mu.Unlock()
	select {
	case <-f.done:
		return f.value, f.err
	case <-ctx.Done():
		return none, fmt.Errorf("%w: %w", errNoAnswer, ctx.Err())
	}
}

func (c *cached[T]) run(f *flight[T], now time.Time) {
	f.value, f.err = c.try()
	c.mu.Lock()
	c.flight, c.failed = nil, f.err
	if f.err == nil {
		c.value, c.fetched = f.value, now
	}
	c.mu.Unlock()
	close(f.done)
}

func (c *cached[T]) try() (value T, err error) {
	// The answer is a stranger's: if a parser trips over it, it is refused and the
	// service goes on.
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the parser failed: %v", r)
		}
	}()
	return c.fetch(c.base)
}

// close returns when no fetch begins any more. It is for when base has ended: who
// looked at base before that has left the lock then, and who comes later sees it.
func (c *cached[T]) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
}
