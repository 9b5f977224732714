// Package prom shows what [metrics.Collector]s count to Prometheus. Only services
// that import it depend on client_golang.
//
// Three series have the names and units of the systems that Mandate follows:
// auth_tokens_validated_total, auth_success_rate (percent) and
// auth_validation_duration_avg_ms. The last two are NaN until there is something to
// divide by, so that no alert fires at an idle app. All others follow the conventions
// of Prometheus: base units, _total on counters.
//
// Every series has the label app. Quantiles and rates over several instances come
// from auth_validation_duration_seconds, whose count is that of the measured
// validations, not of all; see [metrics.Collector.Start].
package prom

import (
	"math"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/mandate-auth/mandate/engine/metrics"
)

// maxScrapes is how many scrapes [Handler] answers at once; more get 503.
const maxScrapes = 8

// Collector is a [prometheus.Collector]. It is safe for concurrent use.
type Collector struct {
	source func() []*metrics.Collector
}

var _ prometheus.Collector = (*Collector)(nil)

// NewCollector returns a collector of what source returns, which is asked at every
// scrape: see [metrics.Of]. Nil ones are left out. Each app may stand in it once; of
// several with one name only the first is shown, because Prometheus would refuse
// the scrape whole.
func NewCollector(source func() []*metrics.Collector) *Collector { return &Collector{source: source} }

// Handler returns the page that Prometheus scrapes: the series of source alone, from
// a registry of its own, in the text format or as OpenMetrics. It answers GET and HEAD
// and asks for no credential: the figures tell how much an app is used and attacked,
// so put a guard before it or serve it on an internal address.
func Handler(source func() []*metrics.Collector) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(NewCollector(source)) // nothing else is in it to collide with
	page := promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, EnableOpenMetrics: true, MaxRequestsInFlight: maxScrapes,
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		page.ServeHTTP(w, r)
	})
}

// Describe implements [prometheus.Collector].
func (*Collector) Describe(out chan<- *prometheus.Desc) {
	for _, desc := range all {
		out <- desc
	}
}

// Collect implements [prometheus.Collector].
func (c *Collector) Collect(out chan<- prometheus.Metric) {
	seen := map[string]bool{}
	for _, one := range c.source() {
		if one == nil || seen[one.App()] {
			continue
		}
		seen[one.App()] = true
		r := one.Report()
		s := scrape{out: out, app: r.App}
		if r.App != "" || r.TotalTokens+r.ClientTokens > 0 { // what only the database uses validates nothing
			s.validations(&r)
		}
		s.counters(&r)
		s.gauges(&r)
	}
}

// scrape writes the series of one app.
type scrape struct {
	out chan<- prometheus.Metric
	app string
}

func (s scrape) validations(r *metrics.Report) {
	rate, mean := math.NaN(), math.NaN()
	if r.TotalTokens > 0 {
		rate = r.SuccessRate
	}
	if r.Durations.Count > 0 {
		mean = r.ValidationTimeAvgMS
	}
	s.counter(validated, r.TokensValidated)
	s.gauge(successRate, rate)
	s.gauge(durationAvg, mean)
	s.counts(failed, r.ErrorsByType)
	s.histogram(duration, r.Durations)
	s.counter(clientTokens, r.ClientTokens)
}

func (s scrape) counters(r *metrics.Report) {
	s.counts(logins, r.Logins)
	s.counts(refreshes, r.Refreshes)
	s.counts(denials, r.Denials)
	s.counts(limited, r.Limited)
	s.counts(lookups, r.CacheHits, "hit")
	s.counts(lookups, r.CacheMisses, "miss")
	for command, h := range r.Database {
		s.histogram(database, h, command)
	}
}

func (s scrape) gauges(r *metrics.Report) {
	if r.FeedAge != nil {
		s.gauge(feedAge, r.FeedAge.Seconds())
	}
	if r.PolicyAge != nil {
		s.gauge(policyAge, r.PolicyAge.Seconds())
	}
	if r.AuditDropped != nil {
		s.counter(auditDropped, *r.AuditDropped)
	}
}

func (s scrape) counter(desc *prometheus.Desc, n uint64, labels ...string) {
	s.out <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(n), append([]string{s.app}, labels...)...)
}

func (s scrape) counts(desc *prometheus.Desc, of map[string]uint64, labels ...string) {
	for value, n := range of {
		s.counter(desc, n, append([]string{value}, labels...)...)
	}
}

func (s scrape) gauge(desc *prometheus.Desc, v float64) {
	s.out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v, s.app)
}

func (s scrape) histogram(desc *prometheus.Desc, h metrics.Histogram, labels ...string) {
	cumulated := make(map[float64]uint64, len(h.Bounds))
	var sum uint64
	for i, bound := range h.Bounds {
		sum += h.Counts[i]
		cumulated[float64(bound)/float64(time.Second)] = sum
	}
	s.out <- prometheus.MustNewConstHistogram(desc, h.Count, h.Sum.Seconds(), cumulated, append([]string{s.app}, labels...)...)
}
