package enginetest

import (
	"sync/atomic"
	"time"
)

// Clock runs like the real one, as far ahead of it as it was advanced. It is safe
// for concurrent use. The zero value is ready and shows the real time.
type Clock struct{ ahead atomic.Int64 }

// NewClock returns a clock that shows the real time.
func NewClock() *Clock { return &Clock{} }

// Now returns the time. It fits engine.Options.Now.
func (c *Clock) Now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

// Advance moves the clock forward, or back for a negative d. What the database
// dates and expires by itself goes by the server's clock, and is not moved.
func (c *Clock) Advance(d time.Duration) { c.ahead.Add(int64(d)) }
