package ratelimit_test

import (
	"fmt"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/engine/ratelimit"
)

func oneMemory(keys int) (*bench, *ratelimit.Memory) {
	c := newClock()
	m := ratelimit.NewMemory(ratelimit.MemoryConfig{MaxKeys: keys, Now: c.now})
	return &bench{clock: c, stores: [2]ratelimit.Store{m, m}}, m
}

// A million distinct keys: memory is bounded, flat, and what was at its limit stays
// there. The test has the process for itself, because it measures its memory.
func TestMemoryUnderAttack(t *testing.T) {
	b, m := oneMemory(10_000)
	b.takes(t, login, "victim", 3)
	heap := func() uint64 {
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	flood := func(from, to int) {
		for i := from; i < to; i++ {
			if d := b.take(t, login, "attacker "+strconv.Itoa(i)); !d.Allowed {
				t.Fatalf("new key %d is refused", i)
			}
		}
	}
	flood(0, 100_000)
	before := heap()
	flood(100_000, 1_000_000)
	after := heap()
	if n := m.Len(); n > 10_000 {
		t.Errorf("%d keys are remembered, want 10,000 at most", n)
	}
	if after > before+1<<20 {
		t.Errorf("900,000 more keys took %d bytes", after-before)
	}
	if per := after / 10_000; per > 1000 {
		t.Errorf("a key takes %d bytes", per)
	}
	if d := b.take(t, login, "victim"); d.Allowed {
		t.Error("the flood has made a key forget that it was at its limit")
	}
	runtime.KeepAlive(m)
}

// A few keys at their limits must not shield each other: those at the end of the list
// would be all there is to choose from, and be forgotten one by one.
func TestMemoryFloodAfterManyReachedTheirLimit(t *testing.T) {
	t.Parallel()
	b, _ := oneMemory(1000)
	const full = 700
	for i := range full {
		b.takes(t, login, fmt.Sprint("full ", i), 3)
	}
	for i := range 50_000 {
		b.take(t, login, fmt.Sprint("new ", i))
	}
	kept := 0
	for i := range full {
		if d := b.peek(t, login, fmt.Sprint("full ", i)); !d.Allowed {
			kept++
		}
	}
	if kept < full*9/10 {
		t.Errorf("%d of %d keys at their limit are remembered", kept, full)
	}
}

func TestMemoryNeverExceedsItsBound(t *testing.T) {
	t.Parallel()
	for _, keys := range []int{1, 2, 63, 64, 1000, 4096} {
		b, m := oneMemory(keys)
		for i := range 3 * keys {
			b.takes(t, login, fmt.Sprint(i), 1+i%4)
			if m.Len() > keys {
				t.Fatalf("%d keys are remembered, want %d at most", m.Len(), keys)
			}
		}
		if m.Len() < keys*3/4 {
			t.Errorf("%d of %d keys are remembered: what is there is not used", m.Len(), keys)
		}
	}
}

// What no longer counts goes before what does, even if it was used later.
func TestMemoryForgetsExpiredFirst(t *testing.T) {
	t.Parallel()
	b, m := oneMemory(4)
	day := ratelimit.Rule{Name: "daily", Max: 3, Window: 24 * time.Hour}
	b.take(t, day, "a")
	b.take(t, day, "b")
	b.take(t, login, "c")
	b.take(t, login, "d")
	b.move(time.Minute)
	b.take(t, day, "e")
	b.take(t, day, "f")
	if m.Len() != 4 {
		t.Errorf("%d keys are remembered, want 4", m.Len())
	}
	for _, key := range []string{"a", "b", "e", "f"} {
		if d := b.peek(t, day, key); d.Remaining != 2 {
			t.Errorf("%s has been forgotten", key)
		}
	}
}

// Among keys that are equally far from their limits the one goes that was used least
// recently.
func TestMemoryForgetsLeastRecentlyUsed(t *testing.T) {
	t.Parallel()
	b, _ := oneMemory(3)
	rule := withMax(10)
	for _, key := range []string{"a", "b", "c"} {
		b.take(t, rule, key)
	}
	for _, key := range []string{"b", "c", "a"} { // two each; b is the one that waits longest
		b.move(time.Second)
		b.take(t, rule, key)
	}
	b.take(t, rule, "d")
	for key, want := range map[string]int{"a": 8, "b": 10, "c": 8, "d": 9} {
		if d := b.peek(t, rule, key); d.Remaining != want {
			t.Errorf("%s: %d remain, want %d", key, d.Remaining, want)
		}
	}
}

// A store in use by few keys at a time does not fill up with all there ever were.
func TestMemoryFollowsWhatCounts(t *testing.T) {
	t.Parallel()
	b, m := oneMemory(1_000_000)
	for i := range 20_000 {
		b.take(t, login, fmt.Sprint(i))
		b.move(time.Second) // sixty of them count
	}
	if m.Len() > 1000 {
		t.Errorf("%d keys are remembered and 60 count", m.Len())
	}
}

// Calls read the clock in one order and get the lock in another: what counts for
// longest must not hide what has left.
func TestMemoryKeepsAttemptsInOrder(t *testing.T) {
	t.Parallel()
	b, _ := oneMemory(10)
	b.move(10 * time.Second)
	b.take(t, login, "k")
	b.move(-10 * time.Second)
	b.take(t, login, "k")
	b.move(time.Minute)
	if d := b.peek(t, login, "k"); d.Remaining != 2 || d.ResetAfter != 10*time.Second {
		t.Errorf("one of two has left: %+v", d)
	}
}

// A key that has been forgotten begins anew with nothing of the one before it.
func TestMemoryReusesWithoutTrace(t *testing.T) {
	t.Parallel()
	b, _ := oneMemory(1)
	for i := range 200 {
		rule := withMax(1 + i%12)
		if got := b.takes(t, rule, fmt.Sprint(i), 20); got != rule.Max {
			t.Fatalf("key %d: %d are let through, want %d", i, got, rule.Max)
		}
		b.move(time.Duration(i%3) * time.Second)
	}
}

func TestMemoryDefaults(t *testing.T) {
	t.Parallel()
	m := ratelimit.NewMemory(ratelimit.MemoryConfig{})
	for i := range 4 {
		if d, err := m.Take(t.Context(), login, "k"); err != nil || d.Allowed != (i < 3) {
			t.Errorf("attempt %d: %+v, %v", i+1, d, err)
		}
	}
	d, err := m.Peek(t.Context(), login, "k")
	if err != nil || d.RetryAfter <= 0 || d.RetryAfter > time.Minute {
		t.Errorf("by the wall's clock: %+v, %v", d, err)
	}
}

func TestMemoryTakeDoesNotAllocate(t *testing.T) {
	b, m := oneMemory(1000)
	b.takes(t, withMax(1000), "k", 1000)
	ctx := t.Context()
	if n := testing.AllocsPerRun(1000, func() {
		b.move(time.Second)
		if _, err := m.Take(ctx, withMax(1000), "k"); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("an attempt at a known key takes %v allocations", n)
	}
}

// FuzzMemory looks for a program of attempts, resets and waits that the store and the
// model answer differently.
func FuzzMemory(f *testing.F) {
	f.Add([]byte{3, 11, 0, 3, 2, 1, 255, 24, 16, 8})
	f.Add([]byte{0xe3, 0xe3, 0xe3, 0x23, 0x10, 0x43, 0x20, 0xe3})
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) > 4096 {
			return
		}
		follow(t, memoryBench(t), model{}, program)
	})
}
