package casbin

import (
	"fmt"
	"runtime"
	"testing"
)

// BenchmarkSize compares the estimate of a snapshot's size with what it takes.
func BenchmarkSize(b *testing.B) {
	for _, subjects := range []int{1, 100, 10_000} {
		for _, rules := range []int{1, 10} {
			b.Run(fmt.Sprintf("%d subjects, %d rules", subjects, rules), func(b *testing.B) {
				const copies = 20
				var before, after runtime.MemStats
				for range b.N {
					runtime.GC()
					runtime.ReadMemStats(&before)
					var all [copies]*snapshot
					for i := range all {
						made := build(&snapshot{grammar: &grammar{matching: MatchExact}})
						for s := range subjects {
							name := fmt.Sprintf("usr_%022d%04d", s, i)
							made.add(row{grouping: true, subject: name, object: "editor"})
							for r := range rules {
								made.add(row{subject: name, object: [...]string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"}[r], action: "read"})
							}
						}
						all[i], _ = made.done(made.version)
					}
					runtime.GC()
					runtime.ReadMemStats(&after)
					taken := float64(after.HeapAlloc-before.HeapAlloc) / copies
					b.ReportMetric(taken, "bytes")
					b.ReportMetric(float64(emptySize+all[0].size)/taken, "estimated/taken")
					runtime.KeepAlive(&all)
				}
			})
		}
	}
}
