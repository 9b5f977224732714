package bench_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/event"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/authz/casbin"
)

// BenchmarkP5 is a change until it decides on the same instance, of 100,000 rules, and
// how many of them are read for it. One bare insert into the same collection comes
// beside it: on localmongo, which copies the index of a collection on every write, that
// is most of it. BenchmarkP5Snapshot in authz/casbin is the part in memory.
func BenchmarkP5(b *testing.B) {
	var read atomic.Int64
	db := database(b, &event.CommandMonitor{Succeeded: func(_ context.Context, e *event.CommandSucceededEvent) {
		for _, batch := range []string{"firstBatch", "nextBatch"} {
			if rules, ok := e.Reply.Lookup("cursor", batch).ArrayOK(); ok && e.Reply.Lookup("cursor", "ns").StringValue() == e.DatabaseName+"."+casbin.DefaultCollection {
				values, _ := rules.Values()
				read.Add(int64(len(values)))
			}
		}
	}})
	p := fixture{rules: 100_000, users: 1000, object: "object %d"}.provider(b, db)
	made := 0 // of all runs, so that no rule comes twice
	b.Run("bare insert", func(b *testing.B) {
		for b.Loop() {
			made++
			_, err := db.Collection(casbin.DefaultCollection).InsertOne(b.Context(),
				bson.M{"ptype": "p", "v0": user(7), "v1": "another", "v2": fmt.Sprint("new ", made), "v3": "read", "v4": "allow", "v5": ""})
			if err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, rules := range []int{1, 60, 100} {
		b.Run(fmt.Sprint(rules, " rules"), func(b *testing.B) {
			before, n := read.Load(), 0
			for b.Loop() {
				n++
				change := authz.Change{}
				for range rules {
					made++
					change.Add = append(change.Add, authz.Rule{
						Subject: fmt.Sprint("role", made%1000), Permission: authz.Permission{Object: fmt.Sprint("new ", made), Action: "read"},
					})
				}
				if err := p.Apply(b.Context(), change); err != nil {
					b.Fatal(err)
				}
				for _, r := range change.Add {
					d, err := p.Authorize(b.Context(), authz.Request{App: "shop", Subject: r.Subject, Permission: r.Permission})
					if err != nil || !d.Allowed {
						b.Fatal(d, err)
					}
				}
			}
			b.ReportMetric(float64(read.Load()-before)/float64(n), "rules-read/op")
		})
	}
}
