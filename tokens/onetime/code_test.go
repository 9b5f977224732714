package onetime_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/tokens/onetime"
)

func (f *fixture) open(tb testing.TB, flow onetime.Flow) string {
	tb.Helper()
	code, err := f.Open(tb.Context(), flow.Handle, onetime.NewToken{Purpose: verify, Subject: "usr_1", Data: map[string]string{"k": "v"}, TTL: 10 * time.Minute})
	if err != nil || len(code) != 6 {
		tb.Fatalf("%q, %v", code, err)
	}
	return code
}

// wrong is another code than the right one.
func wrong(code string) string {
	last := (code[5]-'0'+1)%10 + '0'
	return code[:5] + string(last)
}

// A code works in its flow only, once.
func TestCode(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx := t.Context()
	a, b := onetime.NewFlow(), onetime.NewFlow()
	codeA, codeB := f.open(t, a), f.open(t, b)
	for codeA == codeB {
		codeB = f.open(t, b)
	}
	_, err := f.Try(ctx, verify, b.ID, codeA)
	wantInvalid(t, "the code of another flow", err)
	_, err = f.Try(ctx, reset, a.ID, codeA)
	wantInvalid(t, "another purpose", err)
	_, err = f.store(t, "blog").Try(ctx, verify, a.ID, codeA)
	wantInvalid(t, "another app", err)
	_, err = f.Try(ctx, verify, onetime.NewFlow().ID, codeA)
	wantInvalid(t, "a flow that nobody opened", err)
	for _, bad := range []string{"", codeA[:5], codeA + "0", " " + codeA[1:], "1e5", "12345６"} {
		if bad == codeA {
			continue
		}
		flow := onetime.NewFlow()
		f.open(t, flow)
		_, err = f.Try(ctx, verify, flow.ID, bad)
		wantInvalid(t, fmt.Sprintf("%q", bad), err)
	}
	// A code that was looked at and is wrong says whose it was not.
	if about, err := f.Try(ctx, verify, b.ID, wrong(codeB)); about == nil || about.Subject != "usr_1" {
		t.Errorf("%+v, %v", about, err)
	}
	if about, _ := f.Try(ctx, verify, onetime.NewFlow().ID, codeA); about != nil {
		t.Errorf("a flow that nobody opened is about %+v", about)
	}
	used, err := f.Try(ctx, verify, a.ID, codeA)
	if err != nil || used.Subject != "usr_1" || used.Data["k"] != "v" {
		t.Fatalf("%+v, %v", used, err)
	}
	_, err = f.Try(ctx, verify, a.ID, codeA)
	wantInvalid(t, "used", err)
	if _, err = f.Open(ctx, a.Handle, onetime.NewToken{Purpose: verify, Subject: "usr_1", TTL: time.Minute}); err == nil {
		t.Error("a flow that was used was opened again")
	}
	f.clock.move(10 * time.Minute)
	_, err = f.Try(ctx, verify, b.ID, codeB)
	wantInvalid(t, "expired", err)
	// The token of a flow is no token without a code.
	_, err = f.Consume(ctx, verify, "mot_"+b.ID[4:])
	wantInvalid(t, "a flow as a token", err)
}

// A code that is made again takes the place of the first, and the tries count on.
func TestCodeAgain(t *testing.T) {
	t.Parallel()
	f := setup(t)
	flow := onetime.NewFlow()
	first := f.open(t, flow)
	second := f.open(t, flow)
	for first == second {
		second = f.open(t, flow)
	}
	for range onetime.MaxTries - 1 {
		_, err := f.Try(t.Context(), verify, flow.ID, first)
		wantInvalid(t, "the code before", err)
	}
	if _, err := f.Try(t.Context(), verify, flow.ID, second); err != nil {
		t.Errorf("the last try: %v", err)
	}
}

// After five tries the right code is wrong, and 500 at once are five: a code has one
// chance in 200,000.
func TestTries(t *testing.T) {
	t.Parallel()
	f := setup(t)
	flow := onetime.NewFlow()
	code := f.open(t, flow)
	for range onetime.MaxTries {
		_, err := f.Try(t.Context(), verify, flow.ID, wrong(code))
		wantInvalid(t, "wrong", err)
	}
	_, err := f.Try(t.Context(), verify, flow.ID, code)
	wantInvalid(t, "right after five tries", err)
	f.open(t, flow)
	_, err = f.Try(t.Context(), verify, flow.ID, code)
	wantInvalid(t, "a new code gives no new tries", err)

	parallel := onetime.NewFlow()
	right := f.open(t, parallel)
	var won atomic.Int32
	var wg sync.WaitGroup
	gate := make(chan struct{})
	for i := range 500 {
		guess := fmt.Sprintf("%06d", i)
		if guess == right {
			continue
		}
		wg.Go(func() {
			<-gate
			if _, err := f.Try(t.Context(), verify, parallel.ID, guess); err == nil {
				won.Add(1)
			}
		})
	}
	close(gate)
	wg.Wait()
	_, err = f.Try(t.Context(), verify, parallel.ID, right)
	wantInvalid(t, "right after 499 guesses at once", err)
	if won.Load() != 0 {
		t.Errorf("%d guesses were right", won.Load())
	}
}

// FuzzTokens looks for a text that is taken for a token or a flow.
func FuzzTokens(f *testing.F) {
	x := setup(f)
	flow := onetime.NewFlow()
	for _, seed := range []string{"mot_" + flow.ID[4:], flow.ID, "", "mot_", "mof_\x00"} {
		f.Add(seed, "000000")
	}
	f.Fuzz(func(t *testing.T, text, code string) {
		if _, err := x.Consume(t.Context(), reset, text); err == nil {
			t.Errorf("%q was used", text)
		}
		if _, err := x.Try(t.Context(), reset, text, code); err == nil {
			t.Errorf("%q, %q was used", text, code)
		}
	})
}
