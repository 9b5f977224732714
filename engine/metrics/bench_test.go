package metrics_test

import (
	"testing"
	"time"

	"github.com/mandate-auth/mandate/engine/metrics"
)

// hotPaths are what a guarded request may cost: at most 50 ns with the clock, and
// no allocation.
var hotPaths = []struct {
	name string
	run  func(*metrics.Collector)
}{
	{"Start+Succeeded", func(c *metrics.Collector) { c.Start().Succeeded() }},
	{"Start+Failed", func(c *metrics.Collector) { c.Start().Failed("expired_token") }},
	{"Start+Succeeded+CacheHit", func(c *metrics.Collector) {
		t := c.Start()
		c.CacheHit("tokens")
		t.Succeeded()
	}},
	{"ValidationSucceeded", func(c *metrics.Collector) { c.ValidationSucceeded(1234) }},
	{"ValidationFailed", func(c *metrics.Collector) { c.ValidationFailed("expired_token", 1234) }},
	{"CacheHit", func(c *metrics.Collector) { c.CacheHit("tokens") }},
	{"Denied", func(c *metrics.Collector) { c.Denied("forbidden") }},
	{"DatabaseLatency", func(c *metrics.Collector) { c.DatabaseLatency("find", time.Millisecond) }},
}

func BenchmarkSerial(b *testing.B) {
	for _, path := range hotPaths {
		b.Run(path.name, func(b *testing.B) {
			c := metrics.New(metrics.Config{App: "shop"})
			b.ReportAllocs()
			for b.Loop() {
				path.run(c)
			}
		})
	}
}

func BenchmarkParallel(b *testing.B) {
	for _, path := range hotPaths {
		b.Run(path.name, func(b *testing.B) {
			c := metrics.New(metrics.Config{App: "shop"})
			b.ReportAllocs()
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					path.run(c)
				}
			})
		})
	}
}

// BenchmarkMeasuredWhole is what Start avoids: two readings of the clock.
func BenchmarkMeasuredWhole(b *testing.B) {
	c := metrics.New(metrics.Config{App: "shop"})
	b.ReportAllocs()
	for b.Loop() {
		start := time.Now()
		c.ValidationSucceeded(time.Since(start))
	}
}

func BenchmarkSnapshot(b *testing.B) {
	c := metrics.New(metrics.Config{App: "shop"})
	for i := range 1000 {
		c.ValidationSucceeded(time.Duration(i) * time.Microsecond)
	}
	b.ReportAllocs()
	for b.Loop() {
		c.Snapshot()
	}
}

func BenchmarkReport(b *testing.B) {
	c := metrics.New(metrics.Config{App: "shop"})
	c.Login("success")
	c.DatabaseLatency("find", time.Millisecond)
	b.ReportAllocs()
	for b.Loop() {
		c.Report()
	}
}
