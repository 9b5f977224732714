package ratelimit_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"
	"go.mongodb.org/mongo-driver/event"

	"github.com/mandate-auth/mandate/engine/ratelimit"
	"github.com/mandate-auth/mandate/internal/store/storetest"
)

func TestNewMongo(t *testing.T) {
	t.Parallel()
	db := storetest.Database(t)
	if _, err := ratelimit.NewMongo(nil, ratelimit.MongoConfig{App: "shop"}); err == nil {
		t.Error("a store without a database")
	}
	// "a|b" would share documents with the rule "b" of "a".
	for _, app := range []string{"", "a|b"} {
		if _, err := ratelimit.NewMongo(db, ratelimit.MongoConfig{App: app}); err == nil {
			t.Errorf("a store of the app %q", app)
		}
	}
	m, err := ratelimit.NewMongo(db, ratelimit.MongoConfig{App: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		if d, err := m.Take(t.Context(), login, "k"); err != nil || d.Allowed != (i < 3) {
			t.Errorf("attempt %d by the wall's clock: %+v, %v", i+1, d, err)
		}
	}
}

// What is stored is what the design says, and the key cannot be read from it.
func TestDocument(t *testing.T) {
	t.Parallel()
	c, db := newClock(), storetest.Database(t)
	m := openMongo(t, db, c.now)
	began := c.now()
	for range 5 {
		if _, err := m.Take(t.Context(), login, "192.0.2.1"); err != nil {
			t.Fatal(err)
		}
		c.move(25 * time.Second)
	}
	var docs []bson.M
	cursor, err := db.Collection(ratelimit.Collection).Find(t.Context(), bson.M{})
	if err != nil {
		t.Fatal(err)
	}
	if err := cursor.All(t.Context(), &docs); err != nil {
		t.Fatal(err)
	}
	at := func(d time.Duration) primitive.DateTime { return primitive.NewDateTimeFromTime(began.Add(d)) }
	sum := sha256.Sum256([]byte("192.0.2.1"))
	want := bson.M{
		"_id": "shop|login|" + hex.EncodeToString(sum[:]), "app": "shop",
		"hits":       bson.A{at(50 * time.Second), at(75 * time.Second), at(100 * time.Second)},
		"created_at": at(0), "expires_at": at(100*time.Second + time.Minute + 5*time.Minute),
	}
	if len(docs) != 1 || fmt.Sprint(docs[0]) != fmt.Sprint(want) {
		t.Errorf("stored is %v, want %v", docs, want)
	}
}

// Attempts of a version with a longer window must not be cleaned up with those of a
// shorter one.
func TestExpiryNeverShrinks(t *testing.T) {
	t.Parallel()
	c, db := newClock(), storetest.Database(t)
	m := openMongo(t, db, c.now)
	hour := ratelimit.Rule{Name: "login", Max: 3, Window: time.Hour}
	for _, rule := range []ratelimit.Rule{hour, login} {
		if _, err := m.Take(t.Context(), rule, "k"); err != nil {
			t.Fatal(err)
		}
	}
	c.move(time.Hour)
	if n, err := m.Sweep(t.Context()); n != 0 || err != nil {
		t.Errorf("%d keys were swept within the margin, %v", n, err)
	}
	c.move(5*time.Minute + time.Millisecond)
	if n, err := m.Sweep(t.Context()); n != 1 || err != nil {
		t.Errorf("%d keys were swept, %v, want 1", n, err)
	}
}

// Apps share a collection and nothing else.
func TestAppsAreApart(t *testing.T) {
	t.Parallel()
	c, db := newClock(), storetest.Database(t)
	shop := openMongo(t, db, c.now)
	blog, err := ratelimit.NewMongo(db, ratelimit.MongoConfig{App: "blog", Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := shop.Take(t.Context(), login, "k"); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(when string) {
		t.Helper()
		if d, err := shop.Peek(t.Context(), login, "k"); err != nil || d.Allowed {
			t.Errorf("after %s of another app: %+v, %v", when, d, err)
		}
	}
	if d, err := blog.Take(t.Context(), login, "k"); err != nil || d.Remaining != 2 {
		t.Errorf("the attempts of another app count: %+v, %v", d, err)
	}
	if err := blog.Reset(t.Context(), login, "k"); err != nil {
		t.Fatal(err)
	}
	refused("the reset")
	if err := blog.Clear(t.Context(), login); err != nil {
		t.Fatal(err)
	}
	refused("the clear")
	c.move(30 * time.Second)
	refused("half a window")
	c.move(time.Hour)
	if n, err := blog.Sweep(t.Context()); n != 0 || err != nil {
		t.Errorf("%d keys of another app were swept, %v", n, err)
	}
	if n, err := shop.Sweep(t.Context()); n != 1 || err != nil {
		t.Errorf("%d keys were swept, %v, want 1", n, err)
	}
}

// watch lists the commands on the collection with their filters.
type watch struct {
	mu   sync.Mutex
	seen []string
	// stray are filters that do not name the app.
	stray []string
}

func (w *watch) monitor() *event.CommandMonitor {
	return &event.CommandMonitor{Started: func(_ context.Context, e *event.CommandStartedEvent) {
		if name, _ := e.Command.Lookup(e.CommandName).StringValueOK(); name != ratelimit.Collection || e.CommandName == "createIndexes" || e.CommandName == "listIndexes" {
			return
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.seen = append(w.seen, e.CommandName)
		for _, path := range [][]string{{"query"}, {"filter"}, {"deletes", "0", "q"}} {
			if q, err := e.Command.LookupErr(path...); err == nil && q.Document().Lookup("app").StringValue() != "shop" {
				w.stray = append(w.stray, e.Command.String())
			}
		}
	}}
}

func (w *watch) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := w.seen
	w.seen = nil
	return seen
}

// One write decides. A refusal costs a read besides, and changes nothing.
func TestCommands(t *testing.T) {
	t.Parallel()
	var w watch
	c := newClock()
	m := openMongo(t, storetest.Monitored(t, w.monitor()), c.now)
	take := func(rule ratelimit.Rule) func() error {
		return func() error { _, err := m.Take(t.Context(), rule, "k"); return err }
	}
	for _, step := range []struct {
		name string
		call func() error
		want []string
	}{
		{"first attempt", take(withMax(2)), []string{"findAndModify"}},
		{"second attempt", take(withMax(2)), []string{"findAndModify"}},
		{"refused", take(withMax(2)), []string{"findAndModify", "find"}},
		{"higher max", take(withMax(3)), []string{"findAndModify"}},
		{"lower max, refused", take(withMax(2)), []string{"findAndModify", "find"}},
		{"peek", func() error { _, err := m.Peek(t.Context(), login, "k"); return err }, []string{"find"}},
		{"next window", func() error { c.move(time.Minute); return take(withMax(3))() }, []string{"findAndModify"}},
		{"lower max, with room", take(withMax(2)), []string{"findAndModify", "find", "findAndModify"}},
		{"lower max, after it", take(withMax(3)), []string{"findAndModify"}},
		{"reset", func() error { return m.Reset(t.Context(), login, "k") }, []string{"delete"}},
		{"clear", func() error { return m.Clear(t.Context(), login) }, []string{"delete"}},
		{"sweep", func() error { _, err := m.Sweep(t.Context()); return err }, []string{"delete"}},
	} {
		if err := step.call(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if got := w.take(); !slices.Equal(got, step.want) {
			t.Errorf("%s: %v, want %v", step.name, got, step.want)
		}
	}
	if len(w.stray) > 0 {
		t.Errorf("commands without the app in their filter: %v", w.stray)
	}
}

func TestRefusalWritesNothing(t *testing.T) {
	t.Parallel()
	c, db := newClock(), storetest.Database(t)
	m := openMongo(t, db, c.now)
	stored := func() string {
		raw, err := db.Collection(ratelimit.Collection).FindOne(t.Context(), bson.M{"app": "shop"}).Raw()
		if err != nil {
			t.Fatal(err)
		}
		return raw.String()
	}
	for range 3 {
		if _, err := m.Take(t.Context(), login, "k"); err != nil {
			t.Fatal(err)
		}
	}
	before := stored()
	c.move(time.Second)
	if d, err := m.Take(t.Context(), login, "k"); err != nil || d.Allowed {
		t.Fatalf("%+v, %v", d, err)
	}
	if after := stored(); after != before {
		t.Errorf("a refusal has made %s of %s", after, before)
	}
}

// A document that is none of ours is no reason to let anything through.
func TestForeignDocument(t *testing.T) {
	t.Parallel()
	c, db := newClock(), storetest.Database(t)
	m := openMongo(t, db, c.now)
	sum := sha256.Sum256([]byte("k"))
	for _, hits := range []any{"none", 7, bson.M{"0": "x"}, bson.A{"x", "y", "z"}, bson.A{true, true, true, true}} {
		id := "shop|login|" + hex.EncodeToString(sum[:])
		if _, err := db.Collection(ratelimit.Collection).InsertOne(t.Context(), bson.M{"_id": id, "app": "shop", "hits": hits}); err != nil {
			t.Fatal(err)
		}
		if d, err := m.Take(t.Context(), login, "k"); err == nil || d != (ratelimit.Decision{}) {
			t.Errorf("hits of %v: %+v, %v", hits, d, err)
		}
		if err := m.Reset(t.Context(), login, "k"); err != nil {
			t.Fatal(err)
		}
	}
}

// Two instances whose clocks differ by d: no time of Window − d has more than Max
// attempts, and none counts for longer than Window + d.
func TestClocksDiffer(t *testing.T) {
	t.Parallel()
	c, db := newClock(), storetest.Database(t)
	const d = 10 * time.Second
	ahead := openMongo(t, db, func() time.Time { return c.now().Add(d) })
	behind := openMongo(t, storetest.Second(t, db, nil), c.now)
	for seed := range uint64(10) {
		random := rand.New(rand.NewPCG(seed, 0))
		var let []time.Time
		key := fmt.Sprint(seed)
		for range 80 {
			c.move(time.Duration(random.IntN(12)) * time.Second)
			m := []*ratelimit.Mongo{ahead, behind}[random.IntN(2)]
			got, err := m.Take(t.Context(), login, key)
			if err != nil {
				t.Fatal(err)
			}
			within := func(window time.Duration) (n int) {
				for _, at := range let {
					if at.After(c.now().Add(-window)) {
						n++
					}
				}
				return n
			}
			if got.Allowed && within(login.Window-d) >= login.Max {
				t.Fatalf("seed %d: one more than %d in %v", seed, login.Max, login.Window-d)
			}
			if !got.Allowed && within(login.Window+d) < login.Max {
				t.Fatalf("seed %d: refused although fewer than %d were let through in %v", seed, login.Max, login.Window+d)
			}
			if got.Allowed {
				let = append(let, c.now())
			}
		}
	}
}

// The order of hits decides. If it were that of the writes, an instance whose clock is
// behind would hide the older attempts of another.
func TestHitsAreKeptInOrder(t *testing.T) {
	t.Parallel()
	c, db := newClock(), storetest.Database(t)
	ahead := openMongo(t, db, func() time.Time { return c.now().Add(20 * time.Second) })
	behind := openMongo(t, db, c.now)
	for _, m := range []*ratelimit.Mongo{ahead, behind, ahead} {
		if d, err := m.Take(t.Context(), login, "k"); err != nil || !d.Allowed {
			t.Fatalf("%+v, %v", d, err)
		}
	}
	c.move(time.Minute)
	// By the clock behind, its own attempt has left and the two ahead have not.
	for i, want := range []bool{true, false} {
		if d, err := behind.Take(t.Context(), login, "k"); err != nil || d.Allowed != want {
			t.Errorf("attempt %d: %+v, %v", i+1, d, err)
		}
	}
}

// The index that cleans up is made once and compared afterwards.
func TestIndexConflict(t *testing.T) {
	t.Parallel()
	c, db := newClock(), storetest.Database(t)
	m := openMongo(t, db, c.now)
	if ttl, err := m.EnsureIndexes(t.Context()); err != nil || !ttl {
		t.Errorf("a second time: %t, %v", ttl, err)
	}
	coll := db.Collection(ratelimit.Collection)
	if _, err := coll.Indexes().DropOne(t.Context(), "expires_at"); err != nil {
		t.Fatal(err)
	}
	index := bson.D{{Key: "createIndexes", Value: ratelimit.Collection}, {Key: "indexes", Value: bson.A{
		bson.D{{Key: "key", Value: bson.D{{Key: "expires_at", Value: 1}}}, {Key: "name", Value: "expires_at"}},
	}}}
	if err := db.RunCommand(t.Context(), index).Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.EnsureIndexes(t.Context()); err == nil || !strings.Contains(err.Error(), "index conflict") {
		t.Errorf("an index that does not expire: %v", err)
	}
}
