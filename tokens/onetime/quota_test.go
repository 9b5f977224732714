package onetime_test

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

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/tokens/onetime"
)

var mails = onetime.Quota{Purpose: reset, Subject: "usr_1", Limit: 3, Window: time.Hour}

func spend(t *testing.T, s *onetime.Store, q onetime.Quota, seed string) bool {
	t.Helper()
	ok, err := s.Spend(t.Context(), q, seed)
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

func TestSpend(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for i := range 5 {
		if ok := spend(t, f.Store, mails, fmt.Sprint("mail_", i)); ok != (i < 3) {
			t.Errorf("the mail %d of 3: %t", i+1, ok)
		}
		f.clock.move(time.Minute)
	}
	// What was counted has room again, and takes none.
	for range 3 {
		for i := range 5 {
			if ok := spend(t, f.Store, mails, fmt.Sprint("mail_", i)); ok != (i < 3) {
				t.Errorf("the mail %d of 3 again: %t", i+1, ok)
			}
		}
	}
	other := func(change func(q *onetime.Quota)) onetime.Quota { q := mails; change(&q); return q }
	for name, q := range map[string]onetime.Quota{
		"subject": other(func(q *onetime.Quota) { q.Subject = "usr_2" }),
		"purpose": other(func(q *onetime.Quota) { q.Purpose = verify }),
		"limit":   other(func(q *onetime.Quota) { q.Limit = 4 }),
	} {
		if !spend(t, f.Store, q, "mail_9") {
			t.Errorf("another %s has no room", name)
		}
	}
	if !spend(t, f.store(t, "blog"), mails, "mail_9") {
		t.Error("another app has no room")
	}
	// The window slides: each makes room when an hour has passed.
	f.clock.move(54*time.Minute + 59*time.Second)
	if spend(t, f.Store, mails, "mail_5") {
		t.Error("a fourth within the hour")
	}
	f.clock.move(time.Second)
	if !spend(t, f.Store, mails, "mail_5") || spend(t, f.Store, mails, "mail_6") {
		t.Error("an hour after the first there is not room for exactly one")
	}
}

// Of many instances that spend at once, first of all or later, exactly Limit succeed.
func TestSpendAtOnce(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for round := range 3 {
		var all sync.WaitGroup
		var done atomic.Int64
		for i := range 30 {
			s := f.store(t, "shop")
			all.Go(func() {
				// Half of them are the same twice.
				ok, err := s.Spend(t.Context(), mails, fmt.Sprint("mail_", round, "_", i/2))
				if err != nil {
					t.Error(err)
				}
				if ok {
					done.Add(1)
				}
			})
		}
		all.Wait()
		if n := done.Load(); n != 6 {
			t.Errorf("round %d: %d of 30 had room, want 3 pairs", round, n)
		}
		f.clock.move(time.Hour)
	}
}

// Against a plain count of what was admitted: never more than Limit in any window, and
// never a refusal that has room.
func TestSpendModel(t *testing.T) {
	t.Parallel()
	f := setup(t)
	random := rand.New(rand.NewPCG(1, 2))
	var admitted []time.Time
	for i := range 500 {
		f.clock.move(time.Duration(random.IntN(25)) * time.Minute)
		within := 0
		for _, at := range admitted {
			if f.clock.now().Sub(at) < mails.Window {
				within++
			}
		}
		ok := spend(t, f.Store, mails, fmt.Sprint("mail_", i))
		if ok != (within < mails.Limit) {
			t.Fatalf("spending %d with %d in the hour: %t", i, within, ok)
		}
		if ok {
			admitted = append(admitted, f.clock.now())
		}
	}
	if len(admitted) == 500 || len(admitted) < 50 {
		t.Errorf("%d of 500 were admitted: nothing was tried", len(admitted))
	}
}

// A quota costs one command where it has room, lives a little longer than its window,
// and keeps no seed that could be read.
func TestSpendStored(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.commands.Store(0)
	spend(t, f.Store, mails, "mail_1")
	if n := f.commands.Load(); n != 1 {
		t.Errorf("%d commands", n)
	}
	var d bson.M
	if err := f.db.Collection(onetime.Collection).FindOne(t.Context(), bson.D{}).Decode(&d); err != nil {
		t.Fatal(err)
	}
	if d["app"] != "shop" || d["subject"] != "usr_1" || d["purpose"] != "reset" {
		t.Errorf("stored is %v", d)
	}
	if text := fmt.Sprint(d); strings.Contains(text, "mail_1") {
		t.Errorf("stored is %s", text)
	}
	f.clock.move(time.Hour + 4*time.Minute)
	if n, err := f.Sweep(t.Context()); err != nil || n != 0 {
		t.Errorf("swept early: %d, %v", n, err)
	}
	f.clock.move(2 * time.Minute)
	if n, err := f.Sweep(t.Context()); err != nil || n != 1 {
		t.Errorf("swept: %d, %v", n, err)
	}
}

func TestSpendRefuses(t *testing.T) {
	t.Parallel()
	f := setup(t)
	for name, q := range map[string]onetime.Quota{
		"no limit":       {Purpose: reset, Subject: "usr_1", Window: time.Hour},
		"negative limit": {Purpose: reset, Subject: "usr_1", Limit: -1, Window: time.Hour},
		"huge limit":     {Purpose: reset, Subject: "usr_1", Limit: 101, Window: time.Hour},
		"no window":      {Purpose: reset, Subject: "usr_1", Limit: 1},
	} {
		if ok, err := f.Spend(t.Context(), q, "mail_1"); ok || err == nil {
			t.Errorf("%s: %t, %v", name, ok, err)
		}
	}
	if ok, err := f.Spend(t.Context(), mails, ""); ok || err == nil {
		t.Errorf("no seed: %t, %v", ok, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if ok, err := f.Spend(ctx, mails, "mail_1"); ok || !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %t, %v", ok, err)
	}
}
