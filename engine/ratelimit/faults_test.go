package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/engine/ratelimit"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
)

// Every fault at every command of a decision: what is let through was counted, and
// what failed was not let through.
func TestFaults(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]int{"new key": 0, "known key": 1, "full key": 3} {
		for _, step := range []storetest.Step{
			{Command: "findAndModify " + ratelimit.Collection, Nth: 1}, {Command: "find " + ratelimit.Collection, Nth: 1},
		} {
			if before < 3 && step.Command == "find "+ratelimit.Collection {
				continue // an attempt that has room does not read
			}
			for _, fault := range storetest.AllFaults {
				t.Run(fmt.Sprint(name, " ", step.Command, " ", fault), func(t *testing.T) {
					t.Parallel()
					fail(t, before, fault, step)
				})
			}
		}
	}
}

func fail(t *testing.T, before int, fault storetest.Fault, step storetest.Step) {
	t.Helper()
	c, db := newClock(), storetest.Database(t)
	right := openMongo(t, db, c.now)
	faults := &storetest.Faults{Counts: func(command bson.Raw) bool {
		name, _ := command.Index(0).Value().StringValueOK()
		return name == ratelimit.Collection
	}}
	faulty := openMongo(t, storetest.Faulty(t, db, faults), c.now)
	for range before {
		if _, err := right.Take(t.Context(), login, "k"); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	faults.Arm(fault, step, cancel)
	d, err := faulty.Take(ctx, login, "k")
	if _, hits := faults.Disarm(); hits == 0 {
		t.Fatal("the fault has hit nothing")
	}
	switch {
	case err == nil:
		// The driver has tried again, or the answer was there before the client left.
	case d != (ratelimit.Decision{}):
		t.Errorf("decided %+v with %v", d, err)
	case !errors.Is(err, store.ErrUnavailable) && !errors.Is(err, context.Canceled):
		t.Errorf("error %v says neither that the database is away nor that the client is", err)
	}
	if d.Allowed && before == 3 {
		t.Error("a key at its limit was let through")
	}
	after, err := right.Peek(t.Context(), login, "k")
	if err != nil {
		t.Fatal(err)
	}
	counted := 3 - before - after.Remaining
	if counted < 0 || counted > 1 || (d.Allowed && counted == 0) {
		t.Errorf("let through: %t, counted: %d", d.Allowed, counted)
	}
}

// The database goes away and comes back: no method takes that for an answer.
func TestDatabaseGone(t *testing.T) {
	t.Parallel()
	c, db := newClock(), storetest.Database(t)
	link := &storetest.Link{}
	m := openMongo(t, storetest.Second(t, db, link), c.now)
	if d, err := m.Take(t.Context(), login, "k"); err != nil || !d.Allowed {
		t.Fatalf("%+v, %v", d, err)
	}
	link.Cut()
	each(t, t.Context(), m, login, func(err error) bool { return errors.Is(err, store.ErrUnavailable) })
	if _, err := m.Sweep(t.Context()); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("Sweep: %v", err)
	}
	link.Restore()
	for { // until the driver has noticed
		d, err := m.Take(t.Context(), login, "k")
		if errors.Is(err, store.ErrUnavailable) && t.Context().Err() == nil {
			continue
		}
		if err != nil || d.Remaining != 1 {
			t.Errorf("after it has come back: %+v, %v, want 1 left", d, err)
		}
		return
	}
}
