package appstate_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/internal/appstate"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

func open(t *testing.T) *appstate.Store {
	t.Helper()
	s, err := appstate.Open(t.Context(), store.Handle(storetest.Database(t)), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What is done once is done by one of many that start at once, and the others
// wait until it is done.
func TestOnce(t *testing.T) {
	t.Parallel()
	s := open(t)
	if _, err := s.Claim(t.Context(), "shop", "d"); err != nil {
		t.Fatal(err)
	}
	var done atomic.Int64
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			err := s.Once(t.Context(), "shop", []string{"a", "b"}, func(_ context.Context, missing []string) error {
				done.Add(int64(len(missing)))
				return nil
			})
			if err != nil {
				t.Errorf("Once: %v", err)
			}
			if done.Load() != 2 {
				t.Errorf("returned when %d of 2 were done", done.Load())
			}
		})
	}
	wg.Wait()
	err := s.Once(t.Context(), "shop", []string{"b", "c"}, func(_ context.Context, missing []string) error {
		if len(missing) != 1 || missing[0] != "c" {
			t.Errorf("missing: %q, want c", missing)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// What failed is not recorded, and nobody waits for it.
func TestOnceThatFails(t *testing.T) {
	t.Parallel()
	s := open(t)
	if _, err := s.Claim(t.Context(), "shop", "d"); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	if err := s.Once(t.Context(), "shop", []string{"a"}, func(context.Context, []string) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	calls := 0
	if err := s.Once(t.Context(), "shop", []string{"a"}, func(context.Context, []string) error { calls++; return nil }); err != nil || calls != 1 {
		t.Errorf("the second try: %d calls, %v", calls, err)
	}
}

// An instance that died in the middle holds the others up for its lease, not for
// ever.
func TestOnceAfterADeath(t *testing.T) {
	t.Parallel()
	db := storetest.Database(t)
	var offset atomic.Int64
	s, err := appstate.Open(t.Context(), store.Handle(db), func() time.Time { return time.Now().Add(time.Duration(offset.Load())) })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Claim(t.Context(), "shop", "d"); err != nil {
		t.Fatal(err)
	}
	_, err = db.Collection(appstate.Collection).UpdateOne(t.Context(), bson.M{"_id": "shop"},
		bson.M{"$set": bson.M{"seeding": bson.M{"by": "the dead", "until": time.Now().Add(10 * time.Second)}}})
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	if err := s.Once(short, "shop", []string{"a"}, func(context.Context, []string) error { return nil }); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("within the lease of another instance: %v", err)
	}
	offset.Store(int64(11 * time.Second))
	calls := 0
	if err := s.Once(t.Context(), "shop", []string{"a"}, func(context.Context, []string) error { calls++; return nil }); err != nil || calls != 1 {
		t.Errorf("after the lease: %d calls, %v", calls, err)
	}
}

func TestPolicyOfAnAppThatNobodyLoaded(t *testing.T) {
	t.Parallel()
	s := open(t)
	if _, err := s.Policy(t.Context(), "shop"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Policy: %v", err)
	}
	if _, err := s.Touched(t.Context(), "shop", [][]string{{"p", "a", "b", "c"}}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Touched: %v", err)
	}
}

func TestSince(t *testing.T) {
	t.Parallel()
	s := open(t)
	if _, err := s.Claim(t.Context(), "shop", "d"); err != nil {
		t.Fatal(err)
	}
	var p *appstate.Policy
	var err error
	for i := range 70 {
		if p, err = s.Touched(t.Context(), "shop", [][]string{{"p", string(rune('a' + i%26)), "o", "x"}}); err != nil {
			t.Fatal(err)
		}
	}
	if p.Epoch != 70 {
		t.Errorf("epoch %d after 70 changes", p.Epoch)
	}
	if keys, ok := p.Since(70); !ok || len(keys) != 0 {
		t.Errorf("since the last: %v, %t", keys, ok)
	}
	if keys, ok := p.Since(68); !ok || len(keys) != 2 || keys[1][1] != "r" {
		t.Errorf("since the last but two: %v, %t", keys, ok)
	}
	for _, epoch := range []int64{0, 5, 71} {
		if _, ok := p.Since(epoch); ok {
			t.Errorf("since %d: the log cannot say", epoch)
		}
	}
	big := make([][]string, 100)
	for i := range big {
		big[i] = []string{"p", "a subject with a long name", "an object with a long name", "read"}
	}
	if p, err = s.Touched(t.Context(), "shop", big); err != nil {
		t.Fatal(err)
	}
	if _, ok := p.Since(70); ok {
		t.Error("a change too large for the log has keys")
	}
}
