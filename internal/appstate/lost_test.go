package appstate_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/internal/appstate"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
)

// A lease whose end got lost is not waited for by the instance that had it.
func TestOnceAfterALostLease(t *testing.T) {
	t.Parallel()
	for command, fault := range map[string]storetest.Fault{
		"findAndModify app_state": storetest.AfterCommit, // taken, and nobody knows
		"update app_state":        storetest.Before,      // not given back
	} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			faults := &storetest.Faults{Counts: func(c bson.Raw) bool { return c.Lookup("findAndModify").Type != 0 || c.Lookup("update").Type != 0 }}
			db := storetest.Faulty(t, storetest.Database(t), faults)
			s, err := appstate.Open(t.Context(), store.Handle(db), time.Now)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Claim(t.Context(), "shop", "d"); err != nil {
				t.Fatal(err)
			}
			nothing := func(context.Context, []string) error { return nil }
			faults.Arm(fault, storetest.Step{Command: command, Nth: 1}, nil)
			err = s.Once(t.Context(), "shop", []string{"a"}, nothing)
			// A replica set is asked again by the driver, which is fine too.
			if _, hits := faults.Disarm(); hits == 0 || (err != nil && !errors.Is(err, store.ErrUnavailable)) {
				t.Errorf("%d faults, %v", hits, err)
			}
			soon, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if err := s.Once(soon, "shop", []string{"a"}, nothing); err != nil {
				t.Errorf("again: %v", err)
			}
		})
	}
}
