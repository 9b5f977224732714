package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/engine/ratelimit"
)

var login = ratelimit.Rule{Name: "login", Max: 3, Window: time.Minute}

func withMax(n int) ratelimit.Rule {
	rule := login
	rule.Max = n
	return rule
}

// A limit lets through what it says and not one more, and says what is left.
func TestLimit(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, 10, ratelimit.MaxAttempts} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			suite(t, func(t *testing.T, b *bench) {
				rule := withMax(n)
				for i := range n {
					want := ratelimit.Decision{Allowed: true, Limit: n, Remaining: n - i - 1, ResetAfter: time.Minute}
					if got := b.take(t, rule, "k"); got != want {
						t.Fatalf("attempt %d: %+v, want %+v", i+1, got, want)
					}
				}
				b.move(15 * time.Second)
				want := ratelimit.Decision{Limit: n, ResetAfter: 45 * time.Second, RetryAfter: 45 * time.Second}
				for range 3 {
					if got := b.take(t, rule, "k"); got != want {
						t.Fatalf("over the limit: %+v, want %+v", got, want)
					}
				}
				if !b.take(t, rule, "other").Allowed {
					t.Error("another key is refused")
				}
				other := rule
				other.Name = "register"
				if !b.take(t, other, "k").Allowed {
					t.Error("another rule is refused")
				}
			})
		})
	}
}

// A fixed window would let three through at its edge; this one lets through as many as
// have left it.
func TestWindowSlides(t *testing.T) {
	t.Parallel()
	suite(t, func(t *testing.T, b *bench) {
		at := time.Duration(0)
		for _, step := range []struct {
			at   time.Duration
			want int // of five attempts
		}{
			{0, 3},
			{59_999 * time.Millisecond, 0},
			{60 * time.Second, 3}, // to the millisecond
			{119_999 * time.Millisecond, 0},
			{300 * time.Second, 3},
		} {
			b.move(step.at - at)
			at = step.at
			if got := b.takes(t, login, "all at once", 5); got != step.want {
				t.Errorf("after %v %d are let through, want %d", at, got, step.want)
			}
		}

		for _, wait := range []time.Duration{0, 40 * time.Second, 10 * time.Second} {
			b.move(wait)
			if !b.take(t, login, "spread").Allowed {
				t.Fatalf("refused %v after the last", wait)
			}
		}
		for _, step := range []struct {
			wait time.Duration
			want int
		}{
			{9_999 * time.Millisecond, 0},
			{time.Millisecond, 1}, // the one of 0 s has left
			{39_999 * time.Millisecond, 0},
			{time.Millisecond, 1}, // the one of 40 s
			{10 * time.Second, 1}, // the one of 50 s
			{9_999 * time.Millisecond, 0},
			{time.Millisecond, 1},
		} {
			b.move(step.wait)
			if got := b.takes(t, login, "spread", 5); got != step.want {
				t.Errorf("%v later %d are let through, want %d", step.wait, got, step.want)
			}
		}
	})
}

// If refused attempts counted, a client that keeps trying would never get in.
func TestRefusedAttemptsDoNotCount(t *testing.T) {
	t.Parallel()
	suite(t, func(t *testing.T, b *bench) {
		b.takes(t, login, "k", 3)
		for range 59 {
			b.move(time.Second)
			if d := b.take(t, login, "k"); d.Allowed {
				t.Fatalf("let through %v early", d.RetryAfter)
			}
		}
		b.move(time.Second)
		if got := b.takes(t, login, "k", 5); got != 3 {
			t.Errorf("%d are let through in the next window, want 3", got)
		}
	})
}

func TestPeekCountsNothing(t *testing.T) {
	t.Parallel()
	suite(t, func(t *testing.T, b *bench) {
		want := ratelimit.Decision{Allowed: true, Limit: 3, Remaining: 3, ResetAfter: time.Minute}
		for range 5 {
			if got := b.peek(t, login, "k"); got != want {
				t.Fatalf("an untouched key: %+v, want %+v", got, want)
			}
		}
		b.take(t, login, "k")
		b.move(10 * time.Second)
		want = ratelimit.Decision{Allowed: true, Limit: 3, Remaining: 2, ResetAfter: 50 * time.Second}
		if got := b.peek(t, login, "k"); got != want {
			t.Errorf("after one attempt: %+v, want %+v", got, want)
		}
		b.takes(t, login, "k", 2)
		want = ratelimit.Decision{Limit: 3, ResetAfter: 50 * time.Second, RetryAfter: 50 * time.Second}
		if got := b.peek(t, login, "k"); got != want {
			t.Errorf("with none left: %+v, want %+v", got, want)
		}
	})
}

func TestReset(t *testing.T) {
	t.Parallel()
	suite(t, func(t *testing.T, b *bench) {
		for _, key := range []string{"a", "b"} {
			b.takes(t, login, key, 3)
		}
		for range 2 { // of a key that has no attempts too
			if err := b.next().Reset(t.Context(), login, "a"); err != nil {
				t.Fatal(err)
			}
		}
		if got := b.takes(t, login, "a", 5); got != 3 {
			t.Errorf("%d are let through after the reset, want 3", got)
		}
		if b.take(t, login, "b").Allowed {
			t.Error("the reset of one key has reset another")
		}
	})
}

func TestClear(t *testing.T) {
	t.Parallel()
	suite(t, func(t *testing.T, b *bench) {
		// Names that begin alike: a rule must not clear what only looks like its own.
		rules := []ratelimit.Rule{login, withName("login_ip"), withName("logi"), withName("login2")}
		for _, rule := range rules {
			for i := range 20 {
				b.takes(t, rule, fmt.Sprint(i), 3)
			}
		}
		if err := b.next().Clear(t.Context(), login); err != nil {
			t.Fatal(err)
		}
		for _, rule := range rules {
			for i := range 20 {
				if got, want := b.take(t, rule, fmt.Sprint(i)).Allowed, rule == login; got != want {
					t.Errorf("rule %s, key %d: let through: %t, want %t", rule.Name, i, got, want)
				}
			}
		}
	})
}

func withName(name string) ratelimit.Rule {
	rule := login
	rule.Name = name
	return rule
}

// A new version is deployed with another Max, first beside the old one and then alone.
// Each decides by its own and counts all.
func TestMaxChanges(t *testing.T) {
	t.Parallel()
	suite(t, func(t *testing.T, b *bench) {
		ten, four := withMax(10), withMax(4)

		if got := b.takes(t, ten, "lowered", 8); got != 8 {
			t.Fatalf("%d of 8 are let through", got)
		}
		b.move(10 * time.Second)
		b.takes(t, ten, "lowered", 2)
		// Ten count now: room under four is there when seven have left, all with the
		// first eight.
		want := ratelimit.Decision{Limit: 4, ResetAfter: 50 * time.Second, RetryAfter: 50 * time.Second}
		if got := b.take(t, four, "lowered"); got != want {
			t.Errorf("ten count and four may: %+v, want %+v", got, want)
		}
		b.move(50 * time.Second)
		if got := b.takes(t, four, "lowered", 5); got != 2 {
			t.Errorf("two count: %d more are let through, want 2", got)
		}
		b.move(10 * time.Second)
		if got := b.takes(t, four, "lowered", 5); got != 2 {
			t.Errorf("two have left: %d more are let through, want 2", got)
		}

		if got := b.takes(t, four, "raised", 5); got != 4 {
			t.Fatalf("%d are let through, want 4", got)
		}
		if got := b.takes(t, ten, "raised", 10); got != 6 {
			t.Errorf("four count and ten may: %d more are let through, want 6", got)
		}

		// Versions side by side: the lower one must not make the higher one forget.
		allowed := map[ratelimit.Rule]int{}
		for range 20 {
			for _, rule := range []ratelimit.Rule{four, ten} {
				if b.take(t, rule, "mixed").Allowed {
					allowed[rule]++
				}
			}
		}
		if allowed[four] != 2 || allowed[ten] != 8 {
			t.Errorf("side by side four let through %d and ten %d, want 2 and 8", allowed[four], allowed[ten])
		}
		b.move(2 * time.Minute)
		if got := b.takes(t, four, "mixed", 10); got != 4 {
			t.Errorf("all have left: %d are let through, want 4", got)
		}
	})
}

// A shorter window counts less of what is stored, a longer one what is still there.
func TestWindowChanges(t *testing.T) {
	t.Parallel()
	suite(t, func(t *testing.T, b *bench) {
		short := login
		short.Window = 10 * time.Second
		b.takes(t, login, "k", 3)
		b.move(10 * time.Second)
		if !b.peek(t, short, "k").Allowed {
			t.Error("attempts of ten seconds ago count in a window of ten seconds")
		}
		b.takes(t, short, "l", 3)
		b.move(5 * time.Second)
		if b.take(t, login, "l").Allowed {
			t.Error("attempts of five seconds ago do not count in a window of a minute")
		}
	})
}

// 500 attempts at once by two instances: exactly ten enter, and again ten in the next
// window, when the key is there already.
func TestParallelAttempts(t *testing.T) {
	t.Parallel()
	suite(t, func(t *testing.T, b *bench) {
		rule := withMax(10)
		for round := range 3 {
			var allowed, remaining atomic.Int64
			var wg sync.WaitGroup
			start := make(chan struct{})
			for range 500 {
				wg.Go(func() {
					<-start
					d, err := b.next().Take(t.Context(), rule, "k")
					if err != nil {
						t.Errorf("Take: %v", err)
					}
					if d.Allowed {
						allowed.Add(1)
						remaining.Add(int64(d.Remaining))
					}
				})
			}
			close(start)
			wg.Wait()
			if allowed.Load() != 10 || remaining.Load() != 45 {
				t.Errorf("round %d: %d were let through, want 10; what each was told to be left adds up to %d, want 9+8+…+0 = 45",
					round, allowed.Load(), remaining.Load())
			}
			b.move(time.Minute)
		}
	})
}

// Attempts, resets and clears at once: the limit holds between them, and nothing is
// torn (run with -race).
func TestParallelUseOfManyKeys(t *testing.T) {
	t.Parallel()
	suite(t, func(t *testing.T, b *bench) {
		var wg sync.WaitGroup
		for worker := range 8 {
			wg.Go(func() {
				random := rand.New(rand.NewPCG(uint64(worker), 1))
				for range 100 {
					key, s := fmt.Sprint(random.IntN(4)), b.next()
					var err error
					switch random.IntN(10) {
					case 0:
						err = s.Reset(t.Context(), login, key)
					case 1:
						err = s.Clear(t.Context(), login)
					case 2:
						_, err = s.Peek(t.Context(), login, key)
					case 3:
						b.move(time.Second)
					default:
						var d ratelimit.Decision
						if d, err = s.Take(t.Context(), login, key); d.Remaining < 0 || d.Remaining > 3 {
							t.Errorf("%d are left of 3", d.Remaining)
						}
					}
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if err := b.next().Clear(t.Context(), login); err != nil {
			t.Fatal(err)
		}
		if got := b.takes(t, login, "0", 5); got != 3 {
			t.Errorf("%d are let through afterwards, want 3", got)
		}
	})
}

// Whatever is done in whatever order, and whatever Max each call has, the stores say
// what the model says.
func TestModel(t *testing.T) {
	t.Parallel()
	suite(t, func(t *testing.T, b *bench) {
		for seed := range uint64(20) {
			random, m := rand.New(rand.NewPCG(seed, 0)), model{}
			var program []byte
			for range 150 {
				program = append(program, byte(random.Uint32()))
			}
			follow(t, b, m, program)
			for _, name := range []string{"login", "search"} {
				if err := b.next().Clear(t.Context(), withName(name)); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// follow does what the program says, one step a byte, and compares with the model
// after each.
func follow(t *testing.T, b *bench, m model, program []byte) {
	t.Helper()
	waits := []time.Duration{time.Millisecond, time.Second, 20 * time.Second, 59 * time.Second, 5 * time.Minute}
	for i, op := range program {
		rule, key := withName([]string{"login", "search"}[op>>3&1]), string(rune('a'+op>>4&1))
		rule.Max = 1 + int(op>>5)
		var err error
		switch op & 7 {
		case 0:
			b.move(waits[int(op>>3)%len(waits)])
		case 1:
			if op>>3&3 == 0 {
				m.clear(rule)
				err = b.next().Clear(t.Context(), rule)
			} else {
				m.reset(rule, key)
				err = b.next().Reset(t.Context(), rule, key)
			}
		case 2:
			if got, want := b.peek(t, rule, key), m.take(b.now(), rule, key, true); got != want {
				t.Fatalf("step %d of %v: Peek %+v, want %+v", i, program, got, want)
			}
		default:
			if got, want := b.take(t, rule, key), m.take(b.now(), rule, key, false); got != want {
				t.Fatalf("step %d of %v: Take %+v, want %+v", i, program, got, want)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Keys are any text: none is cut, folded or taken for another.
func TestKeys(t *testing.T) {
	t.Parallel()
	suite(t, func(t *testing.T, b *bench) {
		long := strings.Repeat("x", 1<<20)
		keys := []string{
			"", " ", "a", "A", "a\x00", "\x00a", "ä", "a\u0308", "\xff\xfe", "login", "a|b", "login|a", "$ne", "a.b", long, long + "x",
		}
		for _, key := range keys {
			if d := b.take(t, withMax(1), key); !d.Allowed {
				t.Errorf("key %.20q is taken for another", key)
			}
		}
		for _, key := range keys {
			if d := b.take(t, withMax(1), key); d.Allowed {
				t.Errorf("key %.20q has no limit", key)
			}
		}
	})
}

// each calls every method of a store, all at once, and reports those that decide
// something or whose error is not the right one.
func each(t *testing.T, ctx context.Context, s ratelimit.Store, rule ratelimit.Rule, right func(error) bool) {
	t.Helper()
	var wg sync.WaitGroup
	defer wg.Wait()
	for name, call := range map[string]func() (ratelimit.Decision, error){
		"Take":  func() (ratelimit.Decision, error) { return s.Take(ctx, rule, "k") },
		"Peek":  func() (ratelimit.Decision, error) { return s.Peek(ctx, rule, "k") },
		"Reset": func() (ratelimit.Decision, error) { return ratelimit.Decision{}, s.Reset(ctx, rule, "k") },
		"Clear": func() (ratelimit.Decision, error) { return ratelimit.Decision{}, s.Clear(ctx, rule) },
	} {
		wg.Go(func() {
			d, err := call()
			if d != (ratelimit.Decision{}) {
				t.Errorf("%s decided %+v", name, d)
			}
			if err == nil || !right(err) {
				t.Errorf("%s: error %v", name, err)
			}
		})
	}
}

// A client that has gone is neither let through nor counted.
func TestEndedContext(t *testing.T) {
	t.Parallel()
	suite(t, func(t *testing.T, b *bench) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		each(t, ctx, b.next(), login, func(err error) bool { return errors.Is(err, context.Canceled) })
		late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
		defer cancel()
		each(t, late, b.next(), login, func(err error) bool { return errors.Is(err, context.DeadlineExceeded) })
		if d := b.peek(t, login, "k"); d.Remaining != 3 {
			t.Errorf("%d are left, want 3", d.Remaining)
		}
	})
}

// A store that is given a rule which nobody has checked must not guess.
func TestInvalidRule(t *testing.T) {
	t.Parallel()
	suite(t, func(t *testing.T, b *bench) {
		for _, rule := range invalidRules {
			each(t, t.Context(), b.next(), rule, func(err error) bool { return err.Error() == rule.Validate().Error() })
		}
	})
}
