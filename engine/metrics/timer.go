package metrics

import "time"

// unmeasured is the duration of a validation outside the sample.
const unmeasured time.Duration = -1

// Timer is one validation under way, between [Collector.Start] and its end. End it
// once: each end counts one validation. The zero value counts nothing.
type Timer struct {
	state *state
	// at is when it began, since the state did; unmeasured outside the sample. Three
	// words travel in registers at half the cost of what a time.Time needs.
	at    time.Duration
	index uint32
}

// Start begins a validation. Its end counts it exactly; the clock is read for one in
// 16 only. See the package comment. The end may come from another goroutine.
func (c *Collector) Start() Timer {
	if c == nil {
		return Timer{}
	}
	s := c.state.Load()
	index, sampled := hereSampled()
	// The first is always measured, so that an app with little to do does not show a
	// mean of nothing.
	if sampled || s.durations[index%distributions].Load() == nil {
		return Timer{state: s, at: s.age(), index: index}
	}
	return Timer{state: s, at: unmeasured, index: index}
}

// Succeeded ends the validation of a credential that was accepted.
func (t Timer) Succeeded() {
	if t.state != nil {
		t.state.succeeded(t.index, t.elapsed())
	}
}

// Failed ends the validation of a credential that was refused, for the reason that
// errorType names as in [Collector.ValidationFailed].
func (t Timer) Failed(errorType string) {
	if t.state != nil {
		t.state.failed(t.index, errorType, t.elapsed())
	}
}

// elapsed is negative outside the sample, and where the clock was set back.
func (t Timer) elapsed() time.Duration {
	if t.at < 0 {
		return unmeasured
	}
	return t.state.age() - t.at
}
