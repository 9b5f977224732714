// Package otel feeds OpenTelemetry with what [metrics.Collector]s count. It uses the
// API alone: which SDK reads the instruments, and where it sends them, is the
// service's choice. Only services that import it depend on OpenTelemetry.
//
// All instruments are observable: they are read when the SDK collects, and cost
// nothing between. OpenTelemetry has no observable histogram, and recording each
// duration as it happens would cost more than the validation it measures. So the
// distributions come as what can be observed: number and sum, from whose increase any
// reader has the mean of any interval, and for validations the 95th and 99th
// percentile since the start. Whoever needs the buckets takes engine/metrics/prom,
// or for the database the instrumentation of the driver.
//
//	instrument                             kind           unit           attributes
//	mandate.auth.validations               counter        {validation}   result, error.type of failures
//	mandate.auth.validation.duration.count counter        {validation}
//	mandate.auth.validation.duration.sum   counter        s
//	mandate.auth.validation.duration.avg   gauge          s
//	mandate.auth.validation.duration.p95   gauge          s
//	mandate.auth.validation.duration.p99   gauge          s
//	mandate.auth.logins                    counter        {attempt}      result
//	mandate.auth.refreshes                 counter        {attempt}      result
//	mandate.auth.denials                   counter        {request}      code
//	mandate.auth.rate_limited              counter        {request}      rule
//	mandate.auth.cache.lookups             counter        {lookup}       cache, result (hit, miss)
//	mandate.auth.client_tokens             counter        {token}
//	mandate.auth.revocation_feed.age       gauge          s
//	mandate.auth.policy.age                gauge          s
//	mandate.auth.audit.dropped             counter        {event}
//	mandate.db.operation.duration.count    counter        {operation}    db.operation.name
//	mandate.db.operation.duration.sum      counter        s              db.operation.name
//
// Every observation has the attribute mandate.app. What was not measured yet is not
// observed.
package otel

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/mandate-auth/mandate/engine/metrics"
)

// Register makes the instruments in meter and observes what source returns, which is
// asked at every collection: see [metrics.Of]. Nil ones are left out, and of several
// with one app only the first is observed. The returned function ends it; meter keeps
// the instruments, which say nothing any more. An error of meter says which
// instrument it refused, and nothing is registered.
func Register(meter metric.Meter, source func() []*metrics.Collector) (unregister func() error, err error) {
	in, err := newInstruments(meter)
	if err != nil {
		return nil, fmt.Errorf("metrics/otel: %w", err)
	}
	registration, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		seen := map[string]bool{}
		for _, c := range source() {
			if c == nil || seen[c.App()] {
				continue
			}
			seen[c.App()] = true
			r := c.Report()
			in.observe(app{o, attribute.String("mandate.app", r.App)}, &r)
		}
		return nil
	}, in.all...)
	if err != nil {
		return nil, fmt.Errorf("metrics/otel: %w", err)
	}
	return registration.Unregister, nil
}

// instruments are those of one registration.
type instruments struct {
	validations, durationCount, logins, refreshes, denials, limited, lookups, clientTokens, dropped, dbCount metric.Int64ObservableCounter

	durationSum, dbSum                metric.Float64ObservableCounter
	avg, p95, p99, feedAge, policyAge metric.Float64ObservableGauge

	all []metric.Observable
}

func newInstruments(meter metric.Meter) (*instruments, error) {
	in := &instruments{}
	var failures []error
	count := func(name, unit, description string) metric.Int64ObservableCounter {
		i, err := meter.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(description))
		failures, in.all = append(failures, err), append(in.all, i)
		return i
	}
	sum := func(name, description string) metric.Float64ObservableCounter {
		i, err := meter.Float64ObservableCounter(name, metric.WithUnit("s"), metric.WithDescription(description))
		failures, in.all = append(failures, err), append(in.all, i)
		return i
	}
	gauge := func(name, description string) metric.Float64ObservableGauge {
		i, err := meter.Float64ObservableGauge(name, metric.WithUnit("s"), metric.WithDescription(description))
		failures, in.all = append(failures, err), append(in.all, i)
		return i
	}
	in.validations = count("mandate.auth.validations", "{validation}", "Credentials that were checked.")
	in.durationCount = count("mandate.auth.validation.duration.count", "{validation}", "Validations that were measured.")
	in.durationSum = sum("mandate.auth.validation.duration.sum", "Time that the measured validations took.")
	in.avg = gauge("mandate.auth.validation.duration.avg", "Mean duration of the measured validations.")
	in.p95 = gauge("mandate.auth.validation.duration.p95", "Duration that 95 % of the measured validations do not exceed.")
	in.p99 = gauge("mandate.auth.validation.duration.p99", "Duration that 99 % of the measured validations do not exceed.")
	in.logins = count("mandate.auth.logins", "{attempt}", "Attempts to sign in.")
	in.refreshes = count("mandate.auth.refreshes", "{attempt}", "Attempts to refresh a session.")
	in.denials = count("mandate.auth.denials", "{request}", "Requests that were refused.")
	in.limited = count("mandate.auth.rate_limited", "{request}", "Requests over a rate limit.")
	in.lookups = count("mandate.auth.cache.lookups", "{lookup}", "Lookups in caches.")
	in.clientTokens = count("mandate.auth.client_tokens", "{token}", "Access tokens that clients got for their credentials.")
	in.feedAge = gauge("mandate.auth.revocation_feed.age", "Age of the view of revocations.")
	in.policyAge = gauge("mandate.auth.policy.age", "Age of the policy that decides.")
	in.dropped = count("mandate.auth.audit.dropped", "{event}", "Audit events that were lost because nothing took them in time.")
	in.dbCount = count("mandate.db.operation.duration.count", "{operation}", "Commands of the database that were measured.")
	in.dbSum = sum("mandate.db.operation.duration.sum", "Time that commands of the database took, failed ones included.")
	return in, errors.Join(failures...)
}

func (in *instruments) observe(o app, r *metrics.Report) {
	o.count(in.validations, r.TokensValidated, attribute.String("result", "success"))
	for errorType, n := range r.ErrorsByType {
		o.count(in.validations, n, attribute.String("result", "failure"), attribute.String("error.type", errorType))
	}
	o.count(in.durationCount, r.Durations.Count)
	o.sum(in.durationSum, r.Durations.Sum)
	if r.Durations.Count > 0 {
		o.gauge(in.avg, r.ValidationTimeAvgMS/1000)
		o.gauge(in.p95, r.ValidationTimeP95MS/1000)
		o.gauge(in.p99, r.ValidationTimeP99MS/1000)
	}
	o.counts(in.logins, r.Logins, "result")
	o.counts(in.refreshes, r.Refreshes, "result")
	o.counts(in.denials, r.Denials, "code")
	o.counts(in.limited, r.Limited, "rule")
	o.counts(in.lookups, r.CacheHits, "cache", attribute.String("result", "hit"))
	o.counts(in.lookups, r.CacheMisses, "cache", attribute.String("result", "miss"))
	o.count(in.clientTokens, r.ClientTokens)
	if r.FeedAge != nil {
		o.gauge(in.feedAge, r.FeedAge.Seconds())
	}
	if r.PolicyAge != nil {
		o.gauge(in.policyAge, r.PolicyAge.Seconds())
	}
	if r.AuditDropped != nil {
		o.count(in.dropped, *r.AuditDropped)
	}
	for command, h := range r.Database {
		name := attribute.String("db.operation.name", command)
		o.count(in.dbCount, h.Count, name)
		o.sum(in.dbSum, h.Sum, name)
	}
}

// app observes for one app.
type app struct {
	metric.Observer
	name attribute.KeyValue
}

func (o app) with(attrs []attribute.KeyValue) metric.MeasurementOption {
	return metric.WithAttributes(append([]attribute.KeyValue{o.name}, attrs...)...)
}

func (o app) count(i metric.Int64ObservableCounter, n uint64, attrs ...attribute.KeyValue) {
	o.ObserveInt64(i, int64(min(n, math.MaxInt64)), o.with(attrs))
}

func (o app) counts(i metric.Int64ObservableCounter, of map[string]uint64, label string, attrs ...attribute.KeyValue) {
	for value, n := range of {
		o.count(i, n, append([]attribute.KeyValue{attribute.String(label, value)}, attrs...)...)
	}
}

func (o app) sum(i metric.Float64ObservableCounter, d time.Duration, attrs ...attribute.KeyValue) {
	o.ObserveFloat64(i, d.Seconds(), o.with(attrs))
}

func (o app) gauge(i metric.Float64ObservableGauge, v float64) { o.ObserveFloat64(i, v, o.with(nil)) }
