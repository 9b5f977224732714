package signing_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/tokens/signing"
)

// operation is something that may be harmed at each of its commands. prepare makes
// what it works on and returns what it is about.
type operation struct {
	prepare func(t *testing.T, b *bench) (kid string)
	run     func(ctx context.Context, s *signing.Store, kid string) error
	// done fails unless the operation has had its effect, once.
	done func(t *testing.T, b *bench, s *signing.Store, kid string)
}

func signingKid(t *testing.T, b *bench) string { return b.loaded(t).Current().Signing.ID }

func runLoad(ctx context.Context, s *signing.Store, _ string) error { return s.Load(ctx) }

var operations = map[string]operation{
	"Load, the first": {
		prepare: func(*testing.T, *bench) string { return "" },
		run:     runLoad,
		done: func(t *testing.T, b *bench, s *signing.Store, _ string) {
			if n := len(b.documents(t)); n != 1 || len(accepted(t, s)) != 1 {
				t.Errorf("%d documents, accepted %v", n, accepted(t, s))
			}
		},
	},
	"Load, due": {
		prepare: func(t *testing.T, b *bench) string {
			kid := signingKid(t, b)
			b.move(rotation)
			return kid
		},
		run: runLoad,
		done: func(t *testing.T, b *bench, s *signing.Store, kid string) {
			if got := accepted(t, s); len(b.documents(t)) != 2 || len(got) != 2 || got[0] != kid {
				t.Errorf("accepted %v, want %s and the next", got, kid)
			}
		},
	},
	"Load, retiring and removing": {
		prepare: func(t *testing.T, b *bench) string {
			s := b.loaded(t)
			for range 2 {
				if _, err := s.RotateNow(t.Context()); err != nil {
					t.Fatal(err)
				}
				b.move(ttl + 2*margin + 1e9)
			}
			next, err := s.Rotate(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			b.move(lead)
			return next.ID
		},
		run: runLoad,
		done: func(t *testing.T, b *bench, s *signing.Store, kid string) {
			want(t, "states", states(t, s), []signing.State{signing.Signing, signing.Retired})
			if docs := b.documents(t); len(docs) != 2 || s.Current().Signing.ID != kid {
				t.Errorf("%d documents", len(docs))
			}
		},
	},
	"Rotate": {
		prepare: signingKid,
		run: func(ctx context.Context, s *signing.Store, _ string) error {
			_, err := s.Rotate(ctx)
			return err
		},
		done: func(t *testing.T, b *bench, s *signing.Store, kid string) {
			if got := accepted(t, s); len(b.documents(t)) != 2 || got[0] != kid {
				t.Errorf("accepted %v of %d documents", got, len(b.documents(t)))
			}
		},
	},
	"Revoke": {
		prepare: signingKid,
		run:     func(ctx context.Context, s *signing.Store, kid string) error { return s.Revoke(ctx, kid) },
		done: func(t *testing.T, b *bench, s *signing.Store, kid string) {
			if got := accepted(t, s); len(got) != 1 || got[0] == kid || b.documents(t)[kid]["private"] != nil {
				t.Errorf("%s is revoked and accepted are %v", kid, got)
			}
		},
	},
}

// Every operation is harmed at each command in every way. It never reports success
// without its effect, never leaves a set that mixes two states, and has its whole
// effect, once, when it is called again.
func TestFaults(t *testing.T) {
	t.Parallel()
	for name, op := range operations {
		for _, fault := range storetest.AllFaults {
			t.Run(fmt.Sprintf("%s/%s", name, fault), func(t *testing.T) {
				t.Parallel()
				points := steps(t, op)
				if len(points) == 0 {
					t.Fatal("no commands were seen")
				}
				harm(t, op, fault, points)
			})
		}
	}
}

func faulty() *storetest.Faults {
	return &storetest.Faults{Counts: func(c bson.Raw) bool {
		for _, name := range []string{"find", "insert", "update", "delete"} {
			if collection, ok := c.Lookup(name).StringValueOK(); ok {
				return collection == signing.Collection
			}
		}
		return false
	}}
}

// steps returns the commands of the operation.
func steps(t *testing.T, op operation) []storetest.Step {
	t.Helper()
	b, faults := setup(t), faulty()
	kid := op.prepare(t, b)
	s := b.instanceOn(t, storetest.Faulty(t, b.db, faults))
	faults.Watch()
	if err := op.run(t.Context(), s, kid); err != nil {
		t.Fatal(err)
	}
	trace, _ := faults.Disarm()
	op.done(t, b, s, kid)
	return trace
}

// harm strikes the points of the operation, in a database each, and side by side:
// the driver waits after each broken connection.
func harm(t *testing.T, op operation, fault storetest.Fault, points []storetest.Step) {
	t.Helper()
	checks := make([]func(), len(points))
	var wg sync.WaitGroup
	for i, at := range points {
		b, faults := setup(t), faulty()
		kid := op.prepare(t, b)
		s := b.instanceOn(t, storetest.Faulty(t, b.db, faults))
		ctx, cancel := context.WithCancel(t.Context())
		if fault == storetest.Timeout {
			ctx, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond) // a call waits for longer
		}
		defer cancel()
		faults.Arm(fault, at, cancel)
		wg.Go(func() {
			err := op.run(ctx, s, kid)
			_, hits := faults.Disarm()
			checks[i] = func() {
				if hits == 0 {
					t.Errorf("%s: the fault did not hit", at)
				}
				check(t, op, b, s, kid, err)
			}
		})
	}
	wg.Wait()
	for _, check := range checks {
		check()
	}
}

// check looks at what is left after a fault, and calls the operation again.
func check(t *testing.T, op operation, b *bench, s *signing.Store, kid string, err error) {
	t.Helper()
	if err == nil {
		op.done(t, b, s, kid)
	} else if !errors.Is(err, store.ErrUnavailable) && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if set := s.Current(); set.Signing.Private != nil && !verifies(s, sign(t, set.Signing)) {
		t.Error("what is signed is not accepted")
	}
	if err := op.run(t.Context(), s, kid); err != nil {
		t.Errorf("again: %v", err)
	}
	op.done(t, b, s, kid)
}

// Without its database an instance goes on with what it knows.
func TestOutageKeepsTheSet(t *testing.T) {
	t.Parallel()
	db, link := storetest.Linked(t)
	b := &bench{db: db}
	s := b.loaded(t)
	first, next := s.Current(), nextKids(t, 1)
	link.Cut()
	for name, f := range map[string]func(context.Context) error{
		"Load":   func(ctx context.Context) error { return s.Load(ctx) },
		"Follow": func(ctx context.Context) error { return s.Follow(ctx) },
		"Rotate": func(ctx context.Context) error { _, err := s.Rotate(ctx); return err },
		"Revoke": func(ctx context.Context) error { return s.Revoke(ctx, first.Signing.ID) },
		"List":   func(ctx context.Context) error { _, err := s.List(ctx); return err },
		"RefreshUnknown": func(ctx context.Context) error {
			known, err := s.RefreshUnknown(ctx, next[0])
			if known {
				t.Error("an unknown kid is known")
			}
			return err
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		err := f(ctx)
		cancel()
		if !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	want(t, "accepted", accepted(t, s), []string{first.Signing.ID})
	if !s.Current().LoadedAt.Equal(first.LoadedAt) {
		t.Error("the set is told to be newer than it is")
	}
	link.Restore()
}

// A revoked key must not be used where the set could not be loaded again: rather
// nothing is signed.
func TestRevokeWithoutReload(t *testing.T) {
	t.Parallel()
	faults := faulty()
	b := setup(t)
	s := b.instanceOn(t, storetest.Faulty(t, b.db, faults))
	load(t, s)
	kid := s.Current().Signing.ID
	faults.Arm(storetest.BeforeTwice, storetest.Step{Command: "find " + signing.Collection, Nth: 3}, nil)
	err := s.Revoke(t.Context(), kid)
	if _, hits := faults.Disarm(); hits == 0 || !errors.Is(err, store.ErrUnavailable) {
		t.Fatalf("%d faults, %v", hits, err)
	}
	if set := s.Current(); len(accepted(t, s)) != 0 || set.Signing.Private != nil {
		t.Error("the revoked key is still in use")
	}
	load(t, s)
	if got := accepted(t, s); len(got) != 1 || got[0] == kid {
		t.Errorf("after the next load: %v", got)
	}
}
