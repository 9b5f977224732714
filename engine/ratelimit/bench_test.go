package ratelimit_test

import (
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/engine/ratelimit"
)

// BenchmarkMemoryTake is the decision in memory, by the wall's clock: at one key that
// is mostly refused, at many with room, and at keys never seen in a full store.
func BenchmarkMemoryTake(b *testing.B) {
	rule := ratelimit.Rule{Name: "login", Max: 5, Window: time.Second}
	known := make([]string, 1<<14)
	for i := range known {
		known[i] = "192.0.2." + strconv.Itoa(i)
	}
	b.Run("known", func(b *testing.B) {
		m := ratelimit.NewMemory(ratelimit.MemoryConfig{})
		take(b, m, rule, func(int) string { return known[0] })
	})
	b.Run("many", func(b *testing.B) {
		m := ratelimit.NewMemory(ratelimit.MemoryConfig{})
		for _, key := range known {
			if _, err := m.Take(b.Context(), rule, key); err != nil {
				b.Fatal(err)
			}
		}
		take(b, m, rule, func(i int) string { return known[i%len(known)] })
	})
	b.Run("new", func(b *testing.B) {
		keys := make([]string, 1<<20)
		for i := range keys {
			keys[i] = "192.0.2." + strconv.Itoa(i)
		}
		m := ratelimit.NewMemory(ratelimit.MemoryConfig{MaxKeys: 10_000})
		take(b, m, rule, func(i int) string { return keys[i%len(keys)] })
	})
}

func take(b *testing.B, m *ratelimit.Memory, rule ratelimit.Rule, key func(int) string) {
	b.Helper()
	ctx := b.Context()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if _, err := m.Take(ctx, rule, key(i)); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

func BenchmarkMemoryTakeParallel(b *testing.B) {
	rule := ratelimit.Rule{Name: "login", Max: 5, Window: time.Second}
	m := ratelimit.NewMemory(ratelimit.MemoryConfig{})
	var worker atomic.Int64
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		ctx, n := b.Context(), worker.Add(1)
		keys := make([]string, 1024)
		for i := range keys {
			keys[i] = strconv.Itoa(i) + "/" + strconv.FormatInt(n, 10)
		}
		for i := 0; pb.Next(); i++ {
			if _, err := m.Take(ctx, rule, keys[i%len(keys)]); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkWriteHeaders(b *testing.B) {
	d := ratelimit.Decision{Allowed: true, Limit: 5, Remaining: 4, ResetAfter: 2 * time.Minute}
	rule := ratelimit.Rule{Name: "login", Max: 5, Window: 5 * time.Minute}
	h := http.Header{}
	b.ReportAllocs()
	for b.Loop() {
		clear(h)
		d.WriteHeaders(h, rule)
	}
}

// BenchmarkMongoTake is a round trip. Figures count on a real server only.
func BenchmarkMongoTake(b *testing.B) {
	s := mongoBench(b)
	rule := ratelimit.Rule{Name: "login", Max: 5, Window: 5 * time.Minute}
	i := 0
	for b.Loop() {
		s.take(b, rule, strconv.Itoa(i%100))
		i++
	}
}
