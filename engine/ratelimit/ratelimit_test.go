package ratelimit_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/engine/ratelimit"
)

var invalidRules = []ratelimit.Rule{
	{},
	{Name: "", Max: 1, Window: time.Minute},
	{Name: "Login", Max: 1, Window: time.Minute},
	{Name: "1st", Max: 1, Window: time.Minute},
	{Name: "_a", Max: 1, Window: time.Minute},
	{Name: "a|b", Max: 1, Window: time.Minute},
	{Name: "a b", Max: 1, Window: time.Minute},
	{Name: "a\"", Max: 1, Window: time.Minute},
	{Name: "a\n", Max: 1, Window: time.Minute},
	{Name: "ä", Max: 1, Window: time.Minute},
	{Name: strings.Repeat("a", 64), Max: 1, Window: time.Minute},
	{Name: "a", Max: 0, Window: time.Minute},
	{Name: "a", Max: -1, Window: time.Minute},
	{Name: "a", Max: 1001, Window: time.Minute},
	{Name: "a", Max: 1},
	{Name: "a", Max: 1, Window: -time.Minute},
	{Name: "a", Max: 1, Window: time.Second - time.Millisecond},
	{Name: "a", Max: 1, Window: 31*24*time.Hour + time.Millisecond},
	{Name: "a", Max: 1, Window: time.Second + time.Microsecond},
}

func TestRules(t *testing.T) {
	t.Parallel()
	for _, rule := range invalidRules {
		if rule.Validate() == nil {
			t.Errorf("%+v is valid", rule)
		}
		if _, err := ratelimit.New(rule, ratelimit.NewMemory(ratelimit.MemoryConfig{})); err == nil {
			t.Errorf("New takes %+v", rule)
		}
	}
	for _, rule := range []ratelimit.Rule{
		{Name: "a", Max: 1, Window: time.Second},
		{Name: "ip_2", Max: 1000, Window: 31 * 24 * time.Hour},
		{Name: strings.Repeat("z", 63), Max: 5, Window: 1500 * time.Millisecond},
	} {
		if err := rule.Validate(); err != nil {
			t.Errorf("%+v: %v", rule, err)
		}
	}
	if _, err := ratelimit.New(login, nil); err == nil {
		t.Error("New takes a limiter without a store")
	}
}

func TestLimiter(t *testing.T) {
	t.Parallel()
	suite(t, func(t *testing.T, b *bench) {
		ctx := t.Context()
		var limiters [2]*ratelimit.Limiter
		for i, s := range b.stores {
			l, err := ratelimit.New(login, s)
			if err != nil {
				t.Fatal(err)
			}
			limiters[i] = l
		}
		if limiters[0].Rule() != login {
			t.Errorf("Rule: %+v", limiters[0].Rule())
		}
		left := func(key string, want int) {
			t.Helper()
			for _, l := range limiters {
				if n, err := l.Remaining(ctx, key); err != nil || n != want {
					t.Errorf("key %s: %d remain, %v, want %d", key, n, err, want)
				}
			}
		}
		spend := func() {
			t.Helper()
			for _, key := range []string{"a", "b"} {
				for i := range 4 {
					if d, err := limiters[i%2].Allow(ctx, key); err != nil || d.Allowed != (i < 3) {
						t.Fatalf("attempt %d at %s: %+v, %v", i+1, key, d, err)
					}
				}
				left(key, 0)
			}
		}
		left("a", 3)
		spend()
		if err := limiters[0].Reset(ctx, "a"); err != nil {
			t.Fatal(err)
		}
		left("a", 3)
		left("b", 0)
		if err := limiters[0].ClearAll(ctx); err != nil {
			t.Fatal(err)
		}
		left("b", 3)
		spend()
	})
}

// What nobody has made lets nothing through.
func TestZeroValues(t *testing.T) {
	t.Parallel()
	if (ratelimit.Decision{}).Allowed {
		t.Error("the zero decision allows")
	}
	for name, l := range map[string]*ratelimit.Limiter{"nil": nil, "zero": {}} {
		d, err := l.Allow(t.Context(), "k")
		if err == nil || d != (ratelimit.Decision{}) {
			t.Errorf("%s: Allow: %+v, %v", name, d, err)
		}
		if n, err := l.Remaining(t.Context(), "k"); err == nil || n != 0 {
			t.Errorf("%s: Remaining: %d, %v", name, n, err)
		}
		if l.Reset(t.Context(), "k") == nil || l.ClearAll(t.Context()) == nil {
			t.Errorf("%s: nothing was forgotten and no error says so", name)
		}
		if l.Rule() != (ratelimit.Rule{}) {
			t.Errorf("%s: Rule: %+v", name, l.Rule())
		}
	}
}

// liar is a store that decides although it failed.
type liar struct{ ratelimit.Store }

var errStore = errors.New("the store failed")

func (liar) Take(context.Context, ratelimit.Rule, string) (ratelimit.Decision, error) {
	return ratelimit.Decision{Allowed: true, Limit: 3, Remaining: 3}, errStore
}

func (liar) Peek(context.Context, ratelimit.Rule, string) (ratelimit.Decision, error) {
	return ratelimit.Decision{Allowed: true, Limit: 3, Remaining: 3}, errStore
}

// An error is never success, whatever a store of somebody else's says beside it.
func TestErrorIsNeverAllowed(t *testing.T) {
	t.Parallel()
	l, err := ratelimit.New(login, liar{})
	if err != nil {
		t.Fatal(err)
	}
	if d, err := l.Allow(t.Context(), "k"); d != (ratelimit.Decision{}) || !errors.Is(err, errStore) {
		t.Errorf("Allow: %+v, %v", d, err)
	}
	if n, err := l.Remaining(t.Context(), "k"); n != 0 || !errors.Is(err, errStore) {
		t.Errorf("Remaining: %d, %v", n, err)
	}
}
