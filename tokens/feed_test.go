package tokens_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/internal/store/storetest"
)

// A feed that is given one revocation after the other knows that it is fresh: a
// batch with events proves as much as one without.
func TestFeedIsFreshWhileRevocationsCome(t *testing.T) {
	t.Parallel()
	db := storetest.Database(t)
	writer := part(t, feed(t, db, polling), "shop")
	f := feed(t, db)
	part(t, f, "shop")
	deadline := time.Now().Add(5 * time.Second)
	for f.Mode() != "change_stream" {
		if time.Now().After(deadline) {
			return // a stand-alone server has no change streams: it polls
		}
		time.Sleep(time.Millisecond)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	began := time.Now()
	go func() {
		defer close(done)
		tick := time.NewTicker(5 * time.Millisecond) // no pause in which a batch could stay empty
		defer tick.Stop()
		for i := 0; ctx.Err() == nil; i++ {
			if err := writer.AddToken(ctx, fmt.Sprint("jti", i), time.Now().Add(time.Minute), "test"); err != nil && ctx.Err() == nil {
				t.Errorf("revoke: %v", err)
			}
			<-tick.C
		}
	}()
	fresh := false
	for !fresh && time.Since(began) < 8*time.Second {
		time.Sleep(10 * time.Millisecond)
		fresh = time.Since(began) > 600*time.Millisecond && f.Age() < time.Since(began)/2
	}
	age, since := f.Age(), time.Since(began)
	stop()
	<-done
	if !fresh {
		t.Errorf("after %s of revocations the feed says it is %s old", since, age)
	}
}
