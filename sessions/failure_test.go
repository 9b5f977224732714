package sessions_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/sessions"
)

// The instance dies right before or right after each step of each operation.
// The operation is not answered; made again on another instance it succeeds and
// leaves nothing half dead.
func TestDeathAtEveryStep(t *testing.T) {
	t.Parallel()
	for _, op := range slices.Sorted(maps.Keys(operations)) {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			b := setup(t, twoSessions)
			sample, p, _ := b.watched(t, twoSessions)
			for _, step := range stepsOf(t, b, sample, p, op) {
				for _, after := range []bool{false, true} {
					die(t, b, op, step, after)
				}
			}
		})
	}
}

func die(t *testing.T, b *bench, op, step string, after bool) {
	t.Helper()
	label := op + " died before " + step
	if after {
		label = op + " died after " + step
	}
	b.user = store.NewID("usr_")
	w := b.world(t)
	dying, p, wire := b.watched(t, twoSessions)
	p.arm(step, func() {
		if after {
			wire.answers.Store(true)
		} else {
			wire.questions.Store(true)
		}
	})
	err := operations[op](dying, w)
	p.disarm()
	if !errors.Is(err, store.ErrUnavailable) && !errors.Is(err, errFake) {
		t.Errorf("%s: got %v, want an error that says that nothing answered", label, err)
	}
	settle(t, b, w, op, label)
}

// settle repeats an operation that was not answered and judges the outcome.
func settle(t *testing.T, b *bench, w *world, op, label string) {
	t.Helper()
	if err := operations[op](b, w); err != nil {
		t.Errorf("%s: repeated: %v", label, err)
	}
	if op == "signIn" {
		// What fell out is told so when it comes back, and is dead by then.
		if err := operations["refresh"](b, w); err != nil {
			t.Errorf("%s: the evicted session: %v", label, err)
		}
	}
	living := b.judge(t, w, label)
	if op == "refresh" && (w.ended || living != 2) {
		t.Errorf("%s: a refresh whose answer was lost ended the session", label)
	}
	if list, err := b.List(b.ctx(), w.user); err != nil || len(list) > 2 {
		t.Errorf("%s: %d sessions live, %v", label, len(list), err)
	}
}

// One command gets lost and everything around it works: the operation says that
// it is unavailable, and neither takes what is missing for an answer nor ends
// anything because of it.
func TestOneCommandIsLost(t *testing.T) {
	t.Parallel()
	for _, op := range slices.Sorted(maps.Keys(operations)) {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			b := setup(t, twoSessions)
			watched, p, wire := b.watched(t, twoSessions)
			for _, step := range stepsOf(t, b, watched, p, op) {
				if !strings.Contains(step, " ") {
					continue // a call of the fakes
				}
				b.user = store.NewID("usr_")
				w := b.world(t)
				label := op + " without " + step
				wire.lose(step)
				if err := operations[op](watched, w); !errors.Is(err, store.ErrUnavailable) {
					t.Errorf("%s: got %v, want ErrUnavailable", label, err)
				}
				if w.ended {
					t.Errorf("%s: the session was said to be over", label)
				}
				settle(t, b, w, op, label)
			}
		})
	}
}

func TestReadsSayThatTheyAreUnavailable(t *testing.T) {
	t.Parallel()
	b := setup(t)
	issued := b.signIn(t)
	watched, _, wire := b.watched(t)
	reads := map[string]func() error{
		"Check": func() error { _, err := watched.Check(b.ctx(), b.user, issued.SessionID); return err },
		"Get":   func() error { _, err := watched.Get(b.ctx(), b.user, issued.SessionID); return err },
		"List":  func() error { _, err := watched.List(b.ctx(), b.user); return err },
	}
	for name, read := range reads {
		for _, step := range []string{"find session_heads", "find user_sessions"} {
			wire.lose(step)
			if err := read(); !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("%s without %s: got %v, want ErrUnavailable", name, step, err)
			}
			if err := read(); err != nil {
				t.Errorf("%s again: %v", name, err)
			}
		}
	}
}

// A session that its head does not name is dead, whatever its own document says.
func TestTheHeadDecides(t *testing.T) {
	t.Parallel()
	b := setup(t)
	issued := b.signIn(t)
	if _, err := b.db.Collection("session_heads").UpdateOne(b.ctx(), bson.M{"_id": b.user}, bson.M{"$set": bson.M{"live": bson.A{}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Check(b.ctx(), b.user, issued.SessionID); !errors.Is(err, sessions.ErrExpired) {
		t.Errorf("Check: got %v, want ErrExpired", err)
	}
	if _, err := b.Get(b.ctx(), b.user, issued.SessionID); !errors.Is(err, sessions.ErrNotFound) {
		t.Errorf("Get: got %v, want ErrNotFound", err)
	}
	if list := b.live(t); len(list) != 0 {
		t.Errorf("List: %v, want nothing", list)
	}
	b.refresh(t, issued.RefreshToken, sessions.ErrExpired)
}

// The client goes away in the middle of each step: what was begun is finished.
func TestClientGoesAwayAtEveryStep(t *testing.T) {
	t.Parallel()
	for _, op := range slices.Sorted(maps.Keys(operations)) {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			b := setup(t, twoSessions)
			watched, p, _ := b.watched(t, twoSessions)
			for _, step := range stepsOf(t, b, watched, p, op) {
				if op == "signIn" && step == "find session_heads" {
					continue // Begin only reads
				}
				b.user = store.NewID("usr_")
				w := b.world(t)
				var leave context.CancelFunc
				watched.base, leave = context.WithCancel(context.Background())
				p.arm(step, leave)
				if err := operations[op](watched, w); err != nil {
					t.Errorf("%s, the client left before %s: %v", op, step, err)
				}
				p.disarm()
				leave()
				b.judge(t, w, op+", the client left before "+step)
			}
		})
	}
}

// The database goes away: every operation says so, and none takes it for an
// answer about the session.
func TestDatabaseGone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	issued := b.signIn(t)
	start, err := b.Begin(b.ctx(), b.user)
	if err != nil {
		t.Fatal(err)
	}
	cut, _, wire := b.watched(t, func(c *sessions.Config) { c.Accounts = b.fakes })
	wire.questions.Store(true)
	calls := map[string]func() error{
		"Begin": func() error { _, err := cut.Begin(b.ctx(), b.user); return err },
		"Create": func() error {
			_, err := cut.Create(b.ctx(), start, sessions.CreateOptions{})
			return err
		},
		"Refresh":   func() error { _, err := cut.Refresh(b.ctx(), issued.RefreshToken, laptop); return err },
		"End":       func() error { return cut.End(b.ctx(), b.user, issued.SessionID, "x") },
		"EndAll":    func() error { return cut.EndAll(b.ctx(), b.user, "x") },
		"EndOthers": func() error { return cut.EndOthers(b.ctx(), b.user, "", "x") },
		"List":      func() error { _, err := cut.List(b.ctx(), b.user); return err },
		"Get":       func() error { _, err := cut.Get(b.ctx(), b.user, issued.SessionID); return err },
		"Sweep":     func() error { _, err := cut.Sweep(b.ctx()); return err },
		"Forget":    func() error { return cut.Forget(b.ctx(), b.user) },
	}
	done := make(chan struct{})
	for name, call := range calls {
		go func() {
			defer func() { done <- struct{}{} }()
			if err := call(); !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("%s without a database: got %v, want ErrUnavailable", name, err)
			}
		}()
	}
	for range calls {
		<-done
	}
	b.refresh(t, issued.RefreshToken, nil)
}
