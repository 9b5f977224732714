// Package metrics counts what happens in one app: credentials that were accepted
// and refused and how long that took, logins, refreshes, denials, limits, caches
// and calls of the database. It imports nothing but the standard library, so a
// service pays for an exporter only if it imports one: [Collector.ServeHTTP] writes
// the snapshot as JSON, engine/metrics/prom serves Prometheus, engine/metrics/otel
// feeds OpenTelemetry, and engine/metrics/database listens to the MongoDB driver.
//
//	c := metrics.New(metrics.Config{App: "shop"})
//	t := c.Start()
//	// … check the credential …
//	t.Succeeded() // or t.Failed("expired_token")
//
// # What is exact
//
// Every count is exact, whatever the number of goroutines. Durations are measured
// by [Collector.Start] for one validation in 16 on average, because two readings of
// the clock would cost more than everything else here together; the first are always
// among them. Which ones never depends on how long they take, so mean and percentiles
// of the sample stand for the whole, with the uncertainty of a sample: of 1,600
// validations 100 are measured, and the 99th percentile is one of those. Whoever
// measures every duration passes it to [Collector.ValidationSucceeded] and
// [Collector.ValidationFailed] and gets figures over all of them.
//
// The mean is computed from the exact sum of the durations. Percentiles come from
// buckets, of which 16 share each power of two: what is reported lies within 1/32
// (3.2 %) of the duration at that rank, and is exact up to 32 ns. Above 2³⁷ ns,
// which is 137 s, durations count as the last bucket, 133 to 137 s.
//
// # Bounds
//
// Memory is bounded: each label (a type of error, a result, a rule, …) keeps its
// first [MaxValues] values, and everything after them counts as [Other]. A value
// that is empty, longer than 64 bytes or no UTF-8 counts as [Other] too, so a label
// taken from a request by mistake cannot grow it.
//
// # Cost
//
// Counters are striped over cache lines by processor, so parallel requests do not
// wait for each other. Counting takes no lock and makes no garbage; only the first
// use of a label's value and the first durations allocate.
package metrics
