package sessions_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/authz"
	mevent "github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/sessions"
)

func TestLimit(t *testing.T) {
	t.Parallel()
	for _, mode := range []sessions.OnLimit{sessions.EndOldest, sessions.Refuse} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			b := setup(t, func(c *sessions.Config) { c.MaxPerUser, c.OnLimit = 5, mode })
			var admitted, refused atomic.Int64
			var wg sync.WaitGroup
			for range 50 {
				wg.Go(func() {
					_, err := b.trySignIn(sessions.CreateOptions{Kind: authz.KindHuman})
					switch {
					case err == nil:
						admitted.Add(1)
					case errors.Is(err, sessions.ErrLimit):
						refused.Add(1)
					default:
						t.Errorf("sign-in: %v", err)
					}
				})
			}
			wg.Wait()
			if len(b.head(t)) != 5 || len(b.live(t)) != 5 {
				t.Errorf("%d sessions in the head, %d listed, want 5", len(b.head(t)), len(b.live(t)))
			}
			if n, err := b.coll().CountDocuments(b.ctx(), bson.M{"state": "active"}); err != nil || n != 5 {
				t.Errorf("%d sessions are stored as active, %v; want 5: a refused one leaves nothing", n, err)
			}
			wantAdmitted := int64(50)
			if mode == sessions.Refuse {
				wantAdmitted = 5
			}
			if admitted.Load() != wantAdmitted || refused.Load() != 50-wantAdmitted {
				t.Errorf("%d admitted, %d refused", admitted.Load(), refused.Load())
			}
			if mode == sessions.EndOldest && len(b.fakes.sessions) != 45 {
				t.Errorf("%d evicted sessions are on the blacklist, want 45", len(b.fakes.sessions))
			}
		})
	}
}

// Sessions that are over by themselves must neither hold a place nor push a
// living one out.
func TestExpiredSessionsHoldNoPlace(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *sessions.Config) { c.MaxPerUser, c.OnLimit, c.IdleTimeout = 2, sessions.Refuse, time.Hour })
	kept := b.signIn(t)
	b.signIn(t)
	b.move(40 * time.Minute)
	kept = b.refresh(t, kept.RefreshToken, nil)
	if _, err := b.trySignIn(sessions.CreateOptions{}); !errors.Is(err, sessions.ErrLimit) {
		t.Fatalf("two live sessions: got %v, want ErrLimit", err)
	}
	b.move(40 * time.Minute)
	b.signIn(t)
	b.refresh(t, kept.RefreshToken, nil)
}

// The same when the head fills up between the beginning of a sign-in and its
// end: there is room for whoever lives.
func TestExpiredSessionsHoldNoPlaceInARace(t *testing.T) {
	t.Parallel()
	for _, mode := range []sessions.OnLimit{sessions.EndOldest, sessions.Refuse} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			b := setup(t, func(c *sessions.Config) { c.MaxPerUser, c.OnLimit, c.IdleTimeout = 3, mode, time.Hour })
			kept, _ := b.signIn(t), b.signIn(t)
			b.move(40 * time.Minute)
			kept = b.refresh(t, kept.RefreshToken, nil)
			b.move(40 * time.Minute) // one lives, one is over; the head has room for one
			var starts []*sessions.Start
			for range 2 {
				start, err := b.Begin(b.ctx(), b.user)
				if err != nil {
					t.Fatal(err)
				}
				starts = append(starts, start)
			}
			for _, start := range starts {
				if _, err := b.Create(b.ctx(), start, sessions.CreateOptions{}); err != nil {
					t.Errorf("refused although an expired session holds the place: %v", err)
				}
			}
			b.refresh(t, kept.RefreshToken, nil)
			if b.count(mevent.SessionEvicted) != 0 {
				t.Error("a living session was pushed out for an expired one")
			}
		})
	}
}

// The limit has been lowered: the next sign-in ends all that are too many.
func TestLoweredLimit(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var before []*sessions.Issued
	for range 6 {
		before = append(before, b.signIn(t))
		b.move(time.Second)
	}
	lowered := b.on(t, b.db, func(c *sessions.Config) { c.MaxPerUser = 3 })
	lowered.signIn(t)
	for i, s := range before {
		if i < 4 && !b.kills(s) {
			t.Errorf("session %d of 6 is over the limit and not revoked", i+1)
		}
		if i >= 4 {
			lowered.refresh(t, s.RefreshToken, nil)
		}
	}
	refusing := b.on(t, b.db, func(c *sessions.Config) { c.MaxPerUser, c.OnLimit = 2, sessions.Refuse })
	if _, err := refusing.trySignIn(sessions.CreateOptions{}); !errors.Is(err, sessions.ErrLimit) {
		t.Errorf("three sessions, two allowed: got %v, want ErrLimit", err)
	}
	if len(b.live(t)) != 3 {
		t.Errorf("%d sessions live after a refused sign-in, want the three", len(b.live(t)))
	}
}
