package metrics

import (
	"strings"
	"sync/atomic"
	"time"
)

// Config configures a [Collector].
type Config struct {
	// App is the slug of the app that is counted: the label of its series. Empty for
	// what belongs to no app, such as a client of the database that several share.
	App string
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Collector counts for one app. It is safe for concurrent use. A nil Collector
// counts nothing and costs nothing, for apps whose metrics are off.
type Collector struct {
	app    string
	now    func() time.Time
	state  atomic.Pointer[state]
	gauges atomic.Pointer[Gauges]
}

// state is everything that is counted. Reset replaces it whole: nothing of before
// and after is ever mixed.
type state struct {
	now   func() time.Time
	began time.Time

	accepted  *counter
	durations [distributions]atomic.Pointer[distribution] // made when needed: an idle app has none

	failures, logins, refreshes, denials, limited, hits, misses *family[counter]

	database     *family[latency]
	clientTokens *counter
}

// New returns the collector of the app that config describes. Characters of App that
// are no UTF-8 are replaced.
func New(config Config) *Collector {
	if config.Now == nil {
		config.Now = time.Now //nolint:forbidigo // the default of the injected clock
	}
	c := &Collector{app: strings.ToValidUTF8(config.App, "\uFFFD"), now: config.Now}
	c.Reset()
	return c
}

// Of returns a function that returns collectors, as the exporters take it. A service
// whose apps come and go passes a function of its own.
func Of(collectors ...*Collector) func() []*Collector {
	return func() []*Collector { return collectors }
}

// App returns the app that is counted.
func (c *Collector) App() string {
	if c == nil {
		return ""
	}
	return c.app
}

// Reset sets every count and the uptime to zero. A validation that [Collector.Start]
// began before counts as before. Functions set by SetGauges stay.
func (c *Collector) Reset() {
	if c == nil {
		return
	}
	labelled := func() *family[counter] { return newFamily(newCounter) }
	c.state.Store(&state{
		now: c.now, began: c.now(), accepted: newCounter(),
		failures: labelled(), logins: labelled(), refreshes: labelled(), denials: labelled(), limited: labelled(),
		hits: labelled(), misses: labelled(),
		database: newFamily(func() *latency { return new(latency) }), clientTokens: newCounter(),
	})
}

// ValidationSucceeded counts a credential that was accepted and took d to check. A
// negative d means that it was not measured.
func (c *Collector) ValidationSucceeded(d time.Duration) {
	if c != nil {
		c.state.Load().succeeded(here(), d)
	}
}

// ValidationFailed counts a credential that was refused and took d to check. The
// errorType says in a stable word why, such as "expired_token"; see the package for
// the bound on how many there are. A negative d means that it was not measured.
func (c *Collector) ValidationFailed(errorType string, d time.Duration) {
	if c != nil {
		c.state.Load().failed(here(), errorType, d)
	}
}

// Login counts an attempt to sign in, by how it ended: "success", "locked", ….
func (c *Collector) Login(result string) {
	if c != nil {
		c.state.Load().logins.of(result).add()
	}
}

// Refresh counts an attempt to refresh a session, by how it ended: "success",
// "reused", ….
func (c *Collector) Refresh(result string) {
	if c != nil {
		c.state.Load().refreshes.of(result).add()
	}
}

// Denied counts a request that was refused, by the code of the answer.
func (c *Collector) Denied(code string) {
	if c != nil {
		c.state.Load().denials.of(code).add()
	}
}

// Limited counts a request over a rate limit, by the rule's name.
func (c *Collector) Limited(rule string) {
	if c != nil {
		c.state.Load().limited.of(rule).add()
	}
}

// CacheHit counts something that the named cache knew.
func (c *Collector) CacheHit(cache string) {
	if c != nil {
		c.state.Load().hits.of(cache).add()
	}
}

// CacheMiss counts something that the named cache did not know.
func (c *Collector) CacheMiss(cache string) {
	if c != nil {
		c.state.Load().misses.of(cache).add()
	}
}

// ClientTokenIssued counts an access token that a client got for its credentials.
func (c *Collector) ClientTokenIssued() {
	if c != nil {
		c.state.Load().clientTokens.add()
	}
}

// DatabaseLatency counts one command that took d, failed ones included. A negative d
// is not counted. Package engine/metrics/database calls it for every command of a
// MongoDB client.
func (c *Collector) DatabaseLatency(command string, d time.Duration) {
	if c != nil && d >= 0 {
		c.state.Load().database.of(command).observe(d)
	}
}

// Gauges are what is asked for when somebody looks. Fields that are nil are not
// shown. The functions are called from several goroutines and must not block.
type Gauges struct {
	// FeedAge is how old the view of revocations is. Negative: there is none yet.
	FeedAge func() time.Duration
	// PolicyAge is how old the policy that decides is. Negative: there is none yet.
	PolicyAge func() time.Duration
	// AuditDropped is how many audit events were lost since the start.
	AuditDropped func() uint64
}

// SetGauges replaces what is asked for when somebody looks.
func (c *Collector) SetGauges(g Gauges) {
	if c != nil {
		c.gauges.Store(&g)
	}
}

// age is the time since the state began, not negative unless the clock was set back.
func (s *state) age() time.Duration { return s.now().Sub(s.began) }

func (s *state) succeeded(index uint32, d time.Duration) {
	s.accepted.addAt(index)
	s.observe(index, d)
}

func (s *state) failed(index uint32, errorType string, d time.Duration) {
	s.failures.of(errorType).addAt(index)
	s.observe(index, d)
}

func (s *state) observe(index uint32, d time.Duration) {
	if d < 0 {
		return
	}
	at := &s.durations[index%distributions]
	h := at.Load()
	if h == nil {
		at.CompareAndSwap(nil, new(distribution))
		h = at.Load()
	}
	h.observe(d)
}
