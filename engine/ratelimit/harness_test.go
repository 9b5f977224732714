package ratelimit_test

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/mongo"

	"github.com/mandate-auth/mandate/engine/ratelimit"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// clock stands still until it is moved. It begins at the wall's time: the server
// removes what has expired by that.
type clock struct {
	base   time.Time
	offset atomic.Int64
}

func newClock() *clock { return &clock{base: store.Time(time.Now())} }

func (c *clock) now() time.Time       { return c.base.Add(time.Duration(c.offset.Load())) }
func (c *clock) move(d time.Duration) { c.offset.Add(int64(d)) }

// bench is two instances that share a limit: two stores on one database with a client
// each, or one in memory twice.
type bench struct {
	*clock
	stores [2]ratelimit.Store
	turn   atomic.Int64
}

// next is one instance after the other, so that no test sees one alone.
func (b *bench) next() ratelimit.Store { return b.stores[b.turn.Add(1)%2] }

func (b *bench) take(t testing.TB, rule ratelimit.Rule, key string) ratelimit.Decision {
	t.Helper()
	d, err := b.next().Take(t.Context(), rule, key)
	if err != nil {
		t.Fatalf("Take: %v", err)
	}
	return d
}

func (b *bench) peek(t testing.TB, rule ratelimit.Rule, key string) ratelimit.Decision {
	t.Helper()
	d, err := b.next().Peek(t.Context(), rule, key)
	if err != nil {
		t.Fatalf("Peek: %v", err)
	}
	return d
}

// takes makes n attempts and returns how many were let through.
func (b *bench) takes(t testing.TB, rule ratelimit.Rule, key string, n int) (allowed int) {
	t.Helper()
	for range n {
		if b.take(t, rule, key).Allowed {
			allowed++
		}
	}
	return allowed
}

func openMongo(t testing.TB, db *mongo.Database, now func() time.Time) *ratelimit.Mongo {
	t.Helper()
	m, err := ratelimit.NewMongo(db, ratelimit.MongoConfig{App: "shop", Now: now})
	if err != nil {
		t.Fatal(err)
	}
	if ttl, err := m.EnsureIndexes(t.Context()); err != nil || !ttl {
		t.Fatalf("EnsureIndexes: %t, %v", ttl, err)
	}
	return m
}

func mongoBench(t testing.TB) *bench {
	t.Helper()
	c, db := newClock(), storetest.Database(t)
	return &bench{clock: c, stores: [2]ratelimit.Store{
		openMongo(t, db, c.now), openMongo(t, storetest.Second(t, db, nil), c.now),
	}}
}

func memoryBench(testing.TB) *bench {
	c := newClock()
	m := ratelimit.NewMemory(ratelimit.MemoryConfig{Now: c.now})
	return &bench{clock: c, stores: [2]ratelimit.Store{m, m}}
}

// suite runs a test on each kind of store: whatever it says holds for both.
func suite(t *testing.T, test func(*testing.T, *bench)) {
	t.Helper()
	for name, open := range map[string]func(testing.TB) *bench{"memory": memoryBench, "mongodb": mongoBench} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

// model is the limit by the words of the manual: it forgets nothing and looks at
// everything each time.
type model map[[2]string][]time.Time

func (m model) counting(now time.Time, rule ratelimit.Rule, key string) []time.Time {
	var in []time.Time
	for _, at := range m[[2]string{rule.Name, key}] {
		if at.After(now.Add(-rule.Window)) {
			in = append(in, at)
		}
	}
	slices.SortFunc(in, time.Time.Compare)
	return in
}

// take decides and, unless it is only to peek, counts.
func (m model) take(now time.Time, rule ratelimit.Rule, key string, peek bool) ratelimit.Decision {
	in := m.counting(now, rule, key)
	d := ratelimit.Decision{Allowed: len(in) < rule.Max, Limit: rule.Max, ResetAfter: rule.Window}
	if d.Allowed && !peek {
		id := [2]string{rule.Name, key}
		m[id], in = append(m[id], now), append(in, now)
	}
	d.Remaining = max(0, rule.Max-len(in))
	// There is room for one more once fewer than Max − Remaining count.
	for i, at := range in {
		if len(in)-i-1 < rule.Max-d.Remaining {
			d.ResetAfter = at.Add(rule.Window).Sub(now)
			break
		}
	}
	if !d.Allowed {
		d.RetryAfter = d.ResetAfter
	}
	return d
}

func (m model) reset(rule ratelimit.Rule, key string) { delete(m, [2]string{rule.Name, key}) }

func (m model) clear(rule ratelimit.Rule) {
	for id := range m {
		if id[0] == rule.Name {
			delete(m, id)
		}
	}
}
