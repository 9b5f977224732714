package apikey_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/apikey"
	"github.com/mandate-auth/mandate/tokens/internal/tokenstest"
)

// Pages follow one another without a gap, and a cursor is good for its list only.
func TestListInPages(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var want []string
	for range 5 {
		want = append(want, b.create(t).ID)
	}
	b.create(t, func(n *apikey.NewKey) { n.UserID = store.NewID("usr_") })
	var got []string
	var next string
	for pages := 1; ; pages++ {
		page, err := b.List(t.Context(), b.user, apikey.ListOptions{Limit: 2, Cursor: next})
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range page.Keys {
			got = append(got, k.ID)
			if k.Owner != b.user || k.Name != "nightly" || k.Hint == "" || len(k.Scopes) != 1 {
				t.Errorf("key %+v", k)
			}
		}
		if page.Next == "" {
			if pages != 3 {
				t.Errorf("%d pages, want 3", pages)
			}
			break
		}
		next = page.Next
		other, err := b.List(t.Context(), store.NewID("usr_"), apikey.ListOptions{Cursor: next})
		if !errors.Is(err, apikey.ErrInvalidCursor) {
			t.Errorf("the cursor of another user: got %v, %v, want ErrInvalidCursor", other, err)
		}
		for i := range next {
			broken := []byte(next)
			broken[i] ^= 1
			if _, err := b.List(t.Context(), b.user, apikey.ListOptions{Cursor: string(broken)}); !errors.Is(err, apikey.ErrInvalidCursor) {
				t.Fatalf("a cursor with byte %d changed: got %v, want ErrInvalidCursor", i, err)
			}
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("listed %v, want %v", got, want)
	}
}

// Only the owner revokes a key; it may be repeated, and is reported once.
func TestRevoke(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.create(t)
	b.verify(t, c.Key, nil)
	for _, test := range []struct{ user, key string }{
		{store.NewID("usr_"), c.ID}, {"", c.ID}, {b.user, store.NewID("key_")}, {b.user, ""}, {b.user, c.Key},
	} {
		if err := b.Revoke(t.Context(), test.user, test.key, "theft"); !errors.Is(err, apikey.ErrNotFound) {
			t.Errorf("Revoke(%q, %q): got %v, want ErrNotFound", test.user, test.key, err)
		}
		if _, err := b.Get(t.Context(), test.user, test.key); !errors.Is(err, apikey.ErrNotFound) {
			t.Errorf("Get(%q, %q): got %v, want ErrNotFound", test.user, test.key, err)
		}
	}
	b.verify(t, c.Key, nil)
	for range 2 {
		if err := b.Revoke(t.Context(), b.user, c.ID, "leaked"); err != nil {
			t.Fatal(err)
		}
		b.verify(t, c.Key, tokens.ErrRevoked)
	}
	k, err := b.Get(t.Context(), b.user, c.ID)
	if err != nil || k.RevokedAt.IsZero() || k.RevokedReason != "leaked" {
		t.Errorf("the revoked key is %+v, %v", k, err)
	}
	// Each use of the revoked key is reported too.
	want := []event.Type{event.APIKeyCreated, event.APIKeyRevoked, event.APIKeyRefused, event.APIKeyRefused}
	if got := b.types(); !slices.Equal(got, want) {
		t.Fatalf("events %v, want %v", got, want)
	}
	for _, e := range b.recorder.events {
		refused := e.Type == event.APIKeyRefused
		if e.UserID != b.user || e.Metadata["key_id"] != c.ID || e.App != "shop" || (e.Result == event.Failure) != refused || e.IsM2M != refused {
			t.Errorf("event %+v does not name the key", e)
		}
	}
}

// Another instance that remembers a key refuses it within the bound, with a change
// stream and without.
func TestRevocationReachesOthers(t *testing.T) {
	t.Parallel()
	for name, opt := range map[string]option{"feed": {}, "polling": {Config: tokenstest.Config{Feed: tokenstest.Polling}}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, opt)
			other := b.on(t, storetest.Second(t, b.db, nil), opt)
			c, kept := b.create(t), b.create(t)
			for _, key := range []string{c.Key, kept.Key} {
				b.verify(t, key, nil)
				other.verify(t, key, nil)
			}
			if err := b.Revoke(t.Context(), b.user, c.ID, "test"); err != nil {
				t.Fatal(err)
			}
			b.verify(t, c.Key, tokens.ErrRevoked)
			answered := time.Now()
			until(t, "the revocation to arrive", func() bool {
				_, err := other.Verify(t.Context(), c.Key)
				return errors.Is(err, tokens.ErrRevoked)
			})
			if took := time.Since(answered); took > 2*time.Second {
				t.Errorf("the other instance refused after %s, its bound is 2 s", took)
			}
			other.verify(t, kept.Key, nil)
		})
	}
}

// Once a revocation was answered no request of this instance passes any more, also
// those whose look-up was under way.
func TestVerifyDuringRevoke(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for range 10 {
		c := b.create(t)
		var revoked atomic.Bool
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 200 {
					before := revoked.Load()
					_, err := b.Verify(context.Background(), c.Key)
					if before && !errors.Is(err, tokens.ErrRevoked) {
						t.Errorf("after the revocation: got %v, want ErrRevoked", err)
						return
					}
				}
			})
		}
		if err := b.Revoke(t.Context(), b.user, c.ID, "test"); err != nil {
			t.Fatal(err)
		}
		revoked.Store(true)
		wg.Wait()
	}
}

func TestRevokeAll(t *testing.T) {
	t.Parallel()
	b := setup(t)
	mine := []*apikey.Created{b.create(t), b.create(t), b.create(t)}
	theirs := b.create(t, func(n *apikey.NewKey) { n.UserID = store.NewID("usr_") })
	for _, c := range append(mine, theirs) {
		b.verify(t, c.Key, nil)
	}
	for range 2 {
		if err := b.RevokeAll(t.Context(), b.user, "deleted"); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range mine {
		b.verify(t, c.Key, tokens.ErrRevoked)
	}
	b.verify(t, theirs.Key, nil)
	b.move(time.Hour)
	if err := b.RevokeAll(t.Context(), b.user, "deleted"); err != nil {
		t.Fatal(err)
	}
	if n := b.list.count(mine[0].ID); n != 2 {
		t.Errorf("the key was put on the blacklist %d times, want 2: once it is forgotten everywhere there is nothing to tell", n)
	}
	if err := b.RevokeAll(t.Context(), store.NewID("usr_"), "deleted"); err != nil {
		t.Errorf("of a user without keys: %v", err)
	}
}

// A revocation that could not be told to the others is not answered; made again it
// is, and reaches them.
func TestRevocationHalfWay(t *testing.T) {
	t.Parallel()
	for name, call := range map[string]func(*bench, string) error{
		"Revoke":    func(b *bench, id string) error { return b.Revoke(context.Background(), b.user, id, "test") },
		"RevokeAll": func(b *bench, _ string) error { return b.RevokeAll(context.Background(), b.user, "test") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			c := b.create(t)
			b.verify(t, c.Key, nil)
			b.list.fail.Store(true)
			if err := call(b, c.ID); !errors.Is(err, errLists) {
				t.Fatalf("got %v, want the failure of the blacklist", err)
			}
			b.list.fail.Store(false)
			if err := call(b, c.ID); err != nil {
				t.Fatal(err)
			}
			if n := b.list.count(c.ID); n != 1 {
				t.Errorf("the others were told %d times, want once", n)
			}
			b.verify(t, c.Key, tokens.ErrRevoked)
		})
	}
}

// What ended is kept for a while and then removed; what lives is not.
func TestSweep(t *testing.T) {
	t.Parallel()
	b := setup(t)
	living := b.create(t)
	expiring := b.create(t, func(n *apikey.NewKey) { n.TTL = time.Hour })
	revoked := b.create(t)
	if err := b.Revoke(t.Context(), b.user, revoked.ID, "test"); err != nil {
		t.Fatal(err)
	}
	sweep := func(want int64, left ...string) {
		t.Helper()
		if n, err := b.Sweep(t.Context()); n != want || err != nil {
			t.Errorf("Sweep: %d, %v, want %d", n, err, want)
		}
		page, err := b.List(t.Context(), b.user, apikey.ListOptions{})
		slices.Sort(left)
		if err != nil || !slices.Equal(ids(page), left) {
			t.Errorf("left are %v, %v, want %v", ids(page), err, left)
		}
	}
	sweep(0, living.ID, expiring.ID, revoked.ID)
	b.move(apikey.Kept + time.Minute)
	sweep(1, living.ID, expiring.ID)
	b.move(time.Hour)
	sweep(1, living.ID)
	b.verify(t, living.Key, nil)
	b.verify(t, revoked.Key, tokens.ErrInvalid)
}
