package metrics

import (
	"encoding/json"
	"net/http"
	"time"
)

// Snapshot is the state of validation at one moment.
type Snapshot struct {
	// UptimeSeconds is the time since New or the last Reset.
	UptimeSeconds float64 `json:"uptime_seconds"`
	// TokensValidated and TokensFailed count the credentials that were accepted and
	// refused, TotalTokens both.
	TokensValidated uint64 `json:"tokens_validated"`
	TokensFailed    uint64 `json:"tokens_failed"`
	TotalTokens     uint64 `json:"total_tokens"`
	// SuccessRate is the share of accepted ones in percent, not rounded; 0 where
	// TotalTokens is 0.
	SuccessRate float64 `json:"success_rate"`
	// The mean and the percentiles of what validation took, in milliseconds, of
	// accepted and refused ones; 0 where nothing was measured.
	ValidationTimeAvgMS float64 `json:"validation_time_avg_ms"`
	ValidationTimeP95MS float64 `json:"validation_time_p95_ms"`
	ValidationTimeP99MS float64 `json:"validation_time_p99_ms"`
	// ErrorsByType says how many were refused for which reason. Its sum is
	// TokensFailed. Never nil.
	ErrorsByType map[string]uint64 `json:"errors_by_type"`
}

// Report is everything that was counted, for exporters. Its maps are never nil and
// belong to the caller.
type Report struct {
	App string
	Snapshot
	// Durations are those of validations, of the sample where [Collector.Start]
	// measured them.
	Durations Histogram
	// By result, code and rule.
	Logins, Refreshes, Denials, Limited map[string]uint64
	// By cache.
	CacheHits, CacheMisses map[string]uint64
	// ClientTokens is how many access tokens clients got.
	ClientTokens uint64
	// Database has what commands took, by their name.
	Database map[string]Histogram
	// What the functions of [Gauges] say; nil where there is none.
	FeedAge, PolicyAge *time.Duration
	AuditDropped       *uint64
}

// Snapshot returns the state of validation. Counts that change meanwhile are in it
// or not; its fields agree with each other.
func (c *Collector) Snapshot() Snapshot {
	if c == nil {
		return Snapshot{ErrorsByType: map[string]uint64{}}
	}
	snapshot, _ := c.state.Load().snapshot()
	return snapshot
}

// Report returns everything that was counted. That of a nil Collector is the zero
// value.
func (c *Collector) Report() Report {
	if c == nil {
		return Report{}
	}
	s := c.state.Load()
	snapshot, durations := s.snapshot()
	r := Report{
		App: c.app, Snapshot: snapshot, Durations: durations.coarse(),
		Logins: read(s.logins, (*counter).load), Refreshes: read(s.refreshes, (*counter).load),
		Denials: read(s.denials, (*counter).load), Limited: read(s.limited, (*counter).load),
		CacheHits: read(s.hits, (*counter).load), CacheMisses: read(s.misses, (*counter).load),
		ClientTokens: s.clientTokens.load(), Database: read(s.database, (*latency).read),
	}
	if g := c.gauges.Load(); g != nil {
		r.FeedAge, r.PolicyAge = age(g.FeedAge), age(g.PolicyAge)
		if g.AuditDropped != nil {
			r.AuditDropped = ptr(g.AuditDropped())
		}
	}
	return r
}

func age(of func() time.Duration) *time.Duration {
	if of == nil {
		return nil
	}
	if d := of(); d >= 0 {
		return &d
	}
	return nil
}

func ptr[T any](v T) *T { return &v }

func (s *state) snapshot() (Snapshot, *sample) {
	out := Snapshot{
		UptimeSeconds:   max(s.age().Seconds(), 0),
		TokensValidated: s.accepted.load(),
		ErrorsByType:    read(s.failures, (*counter).load),
	}
	durations := new(sample)
	for i := range s.durations {
		if h := s.durations[i].Load(); h != nil {
			durations.merge(h)
		}
	}
	for _, n := range out.ErrorsByType {
		out.TokensFailed += n
	}
	out.TotalTokens = out.TokensValidated + out.TokensFailed
	if out.TotalTokens > 0 {
		out.SuccessRate = 100 * float64(out.TokensValidated) / float64(out.TotalTokens)
	}
	out.ValidationTimeAvgMS = milliseconds(durations.mean())
	out.ValidationTimeP95MS = milliseconds(durations.percentile(95))
	out.ValidationTimeP99MS = milliseconds(durations.percentile(99))
	return out, durations
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// ServeHTTP answers GET and HEAD with the [Snapshot] as JSON, never to be cached,
// and any other method with 405. It asks for no credential: the figures tell how
// much an app is used and attacked, so put a guard before it.
func (c *Collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	body, err := json.Marshal(c.Snapshot())
	if err != nil {
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(append(body, '\n'))
}
