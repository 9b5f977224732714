package bench_test

import (
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/event"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/engine"
	mevent "github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/localmongo"
	"github.com/mandate-auth/mandate/manifest"
)

// P11: many apps in one process: what an idle one keeps, how long loading takes,
// how many connections there are. MANDATE_APPS sets how many apps, 100 by default.
func BenchmarkP11(b *testing.B) {
	apps := 100
	if text := os.Getenv("MANDATE_APPS"); text != "" {
		var err error
		if apps, err = strconv.Atoi(text); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		manyApps(b, apps)
	}
}

func manyApps(b *testing.B, apps int) {
	var connections atomic.Int64
	pool := &event.PoolMonitor{Event: func(e *event.PoolEvent) {
		switch e.Type {
		case event.ConnectionCreated:
			connections.Add(1)
		case event.ConnectionClosed:
			connections.Add(-1)
		}
	}}
	uri := os.Getenv("MONGODB_URI")
	if uri == "" {
		server, err := localmongo.Start(b.Context(), &localmongo.Options{Listen: true, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = server.Close(b.Context()) }()
		uri = server.URI()
	}
	client, err := mongo.Connect(b.Context(), options.Client().ApplyURI(uri).SetPoolMonitor(pool))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = client.Disconnect(b.Context()) }()
	db := client.Database("mandate_bench_apps_" + time.Now().Format("150405000000"))
	defer func() { _ = db.Drop(b.Context()) }()
	eng, err := engine.New(b.Context(), db, &engine.Options{
		SecretKeys: []engine.Secret{engine.NewSecret(strings.Repeat("k", 32))}, InsecureHashCost: 4,
		Logger: slog.New(slog.DiscardHandler), Sinks: []mevent.Sink{mevent.Discard{}},
	})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = eng.Close(b.Context()) }()
	loadOne := func(i int) time.Duration {
		m, err := manifest.Parse(fmt.Appendf(nil, `{"slug":"app%d","auth":{"policy":{"authorization":{"initial_policies":[["user","documents","read"],["admin","documents","write"]]}}}}`, i), nil)
		if err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		if _, err := eng.Load(b.Context(), m); err != nil {
			b.Fatal(err)
		}
		return time.Since(began)
	}
	loadOne(0)
	before := heap()
	took := make([]time.Duration, apps)
	for i := range took {
		took[i] = loadOne(i + 1)
	}
	kept := heap() - before
	slices.Sort(took)
	b.ReportMetric(float64(kept)/float64(apps)/1024, "KiB/app")
	b.ReportMetric(float64(took[apps/2].Microseconds())/1000, "load-p50-ms")
	b.ReportMetric(float64(took[apps*99/100].Microseconds())/1000, "load-p99-ms")
	b.ReportMetric(float64(connections.Load()), "connections")
}

// heap is what is in use after the garbage is gone. On localmongo the data of the
// apps is in it as well.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
