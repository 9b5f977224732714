package sessions_test

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/internal/store"
)

// distinct are the steps of a trace, each once.
func distinct(trace []string) []string {
	slices.Sort(trace)
	return slices.Compact(trace)
}

// stepsOf is which steps op takes when nothing is in its way.
func stepsOf(t *testing.T, b, watched *bench, p *probe, op string) []string {
	t.Helper()
	b.user = store.NewID("usr_")
	w := b.world(t)
	p.arm("", nil)
	if err := operations[op](watched, w); err != nil {
		t.Fatalf("%s alone: %v", op, err)
	}
	steps := distinct(p.disarm())
	if len(steps) == 0 {
		t.Fatalf("%s took no step: the probe sees nothing", op)
	}
	return steps
}

// Every operation is held before each of its steps while another one runs from
// its beginning to its end. Whatever the order, nothing lives that was said to
// be over and nothing is half dead.
func TestEveryInterleavingOfTwo(t *testing.T) {
	t.Parallel()
	for _, first := range slices.Sorted(maps.Keys(operations)) {
		t.Run(first, func(t *testing.T) {
			t.Parallel()
			b := setup(t, twoSessions)
			watched, p, _ := b.watched(t, twoSessions)
			for _, step := range stepsOf(t, b, watched, p, first) {
				for _, second := range slices.Sorted(maps.Keys(operations)) {
					interleave(t, b, watched, p, first, step, second)
				}
			}
		})
	}
}

func interleave(t *testing.T, b, watched *bench, p *probe, first, step, second string) {
	t.Helper()
	label := second + " within " + first + ", before " + step
	b.user = store.NewID("usr_")
	w := b.world(t)
	reached, resume, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	p.arm(step, func() {
		close(reached)
		<-resume
	})
	go func() { done <- operations[first](watched, w) }()
	if !arrived(t, reached, done, label) {
		return
	}
	if err := operations[second](b, w); err != nil {
		t.Errorf("%s: %s: %v", label, second, err)
	}
	close(resume)
	if err := <-done; err != nil {
		t.Errorf("%s: %s: %v", label, first, err)
	}
	p.disarm()
	living := b.judge(t, w, label)
	if first == "refresh" && second == "refresh" {
		a, c := w.issued[2], w.issued[len(w.issued)-1]
		if len(w.issued) != 4 || a.RefreshToken != c.RefreshToken || living != 2 {
			t.Errorf("%s: two refreshes of one token gave %d answers and left %d sessions", label, len(w.issued)-2, living)
		}
	}
	// A sign-in from its beginning to its end within an end of many began after
	// the head had changed, or it was ended with the rest and is dead: judge has
	// seen to that. What it must never be is lost to the cleanup.
	if second == "signIn" && (first == "endAll" || first == "endOthers") && step != "findAndModify session_heads" && living == 0 {
		t.Errorf("%s: the sign-in right after did not survive the cleanup", label)
	}
}

// A refresh that has read the head rotates in the middle of an end: its new
// access token has to die with the session.
func TestRefreshRotatesWithinAnEnd(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"end", "logout", "endOthers", "endAll", "reuse", "signIn"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			b := setup(t, twoSessions)
			refresher, rp, _ := b.watched(t, twoSessions)
			ender, ep, _ := b.watched(t, twoSessions)
			for _, step := range stepsOf(t, b, ender, ep, end) {
				rotateWithin(t, b, refresher, ender, rp, ep, end, step)
			}
		})
	}
}

func rotateWithin(t *testing.T, b, refresher, ender *bench, rp, ep *probe, end, step string) {
	t.Helper()
	b.user = store.NewID("usr_")
	w := b.world(t)
	// The access tokens so far are over: only what is issued now has to die.
	b.move(time.Hour)
	read, rotate, refreshed := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	rp.arm("findAndModify user_sessions", func() {
		close(read)
		<-rotate
	})
	go func() { refreshed <- operations["refresh"](refresher, w) }()
	if !arrived(t, read, refreshed, "refresh") {
		return
	}
	reached, resume, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	ep.arm(step, func() {
		close(reached)
		<-resume
	})
	go func() { ended <- operations[end](ender, w) }()
	there := arrived(t, reached, ended, end+", before "+step)
	close(rotate)
	if err := <-refreshed; err != nil {
		t.Errorf("refresh within %s, before %s: %v", end, step, err)
	}
	if !there {
		return
	}
	close(resume)
	if err := <-ended; err != nil {
		t.Errorf("%s around a refresh, before %s: %v", end, step, err)
	}
	rp.disarm()
	ep.disarm()
	b.judge(t, w, "refresh within "+end+", before "+step)
}

// arrived waits until an operation is held at its step. One that ends without
// it has lost a step that it takes when it is alone.
func arrived(t *testing.T, reached <-chan struct{}, done <-chan error, label string) bool {
	t.Helper()
	select {
	case <-reached:
		return true
	case err := <-done:
		t.Errorf("%s: ended without taking the step: %v", label, err)
		return false
	}
}
