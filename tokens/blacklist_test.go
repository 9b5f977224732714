package tokens_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"

	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/tokens"
)

func TestMain(m *testing.M) { storetest.Main(m) }

func feed(t *testing.T, db *mongo.Database, edit ...func(*tokens.FeedConfig)) *tokens.Feed {
	t.Helper()
	config := tokens.FeedConfig{PollInterval: 50 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)}
	for _, f := range edit {
		f(&config)
	}
	f, err := tokens.NewFeed(t.Context(), db.Collection("token_blacklist"), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := f.Close(ctx); err != nil {
			t.Errorf("close the feed: %v", err)
		}
	})
	return f
}

func polling(c *tokens.FeedConfig) { c.DisableChangeStream = true }

func part(t *testing.T, f *tokens.Feed, app string) *tokens.Blacklist {
	t.Helper()
	b, err := f.App(tokens.BlacklistConfig{App: app, MaxStaleness: 2 * time.Second, Leeway: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func verified(t *testing.T, s *tokens.Service, g tokens.Grant) *tokens.Verified {
	t.Helper()
	v, err := s.Verify(issue(t, s, g))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// until waits for the condition; there is no signal from another instance's view.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(5 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("waited 5 s for: %s", what)
		case <-tick.C:
		}
	}
}

func TestRevocationIsImmediateHere(t *testing.T) {
	t.Parallel()
	b := part(t, feed(t, storetest.Database(t)), "shop")
	s, _ := setup(t)
	ctx := t.Context()
	later := time.Now().Add(time.Hour)
	g2 := grant
	g2.SessionID, g2.Epoch = "ses_2", 4
	one, sameSession, other := verified(t, s, grant), verified(t, s, grant), verified(t, s, g2)
	check := func(step string, v *tokens.Verified, want error) {
		t.Helper()
		for range 2 { // the second answer may come from the remembered version
			if err := b.Check(ctx, v); !errors.Is(err, want) {
				t.Errorf("%s: got %v, want %v", step, err, want)
			}
		}
	}
	check("before", one, nil)
	if err := b.AddToken(ctx, one.ID(), later, "test"); err != nil {
		t.Fatal(err)
	}
	check("its token revoked", one, tokens.ErrRevoked)
	check("another token of the session", sameSession, nil)
	if err := b.AddSession(ctx, "ses_1", later, "test"); err != nil {
		t.Fatal(err)
	}
	check("its session revoked", sameSession, tokens.ErrRevoked)
	check("a token of another session", other, nil)
	if err := b.AddUser(ctx, "usr_1", 4, "test"); err != nil {
		t.Fatal(err)
	}
	check("a token of the epoch that begins", other, nil)
	if err := b.AddUser(ctx, "usr_1", 5, "test"); err != nil {
		t.Fatal(err)
	}
	check("a token of the epoch before", other, tokens.ErrRevoked)
	if err := b.AddUser(ctx, "usr_1", 2, "test"); err != nil {
		t.Fatal(err)
	}
	check("an older revocation that arrives late", other, tokens.ErrRevoked)
	if err := b.Check(ctx, &tokens.Verified{}); err == nil {
		t.Error("the zero value of Verified passes")
	}
	if found, epoch, err := b.Contains(ctx, tokens.RevokedUser, "usr_1"); !found || epoch != 5 || err != nil {
		t.Errorf("Contains: %t, %d, %v", found, epoch, err)
	}
	if found, _, err := b.Contains(ctx, tokens.RevokedUser, "usr_2"); found || err != nil {
		t.Errorf("Contains of another: %t, %v", found, err)
	}
	if err := b.AddSession(ctx, "", later, "test"); err == nil {
		t.Error("a revocation of nothing was accepted")
	}
}

func TestRevocationReachesOtherInstances(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"change_stream", "poll"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			db := storetest.Database(t)
			var edit []func(*tokens.FeedConfig)
			if mode == "poll" {
				edit = append(edit, polling)
			}
			here, there := feed(t, db, edit...), feed(t, db, edit...)
			until(t, "the mode", func() bool { return there.Mode() == mode || there.Mode() == "poll" })
			s, _ := setup(t)
			v := verified(t, s, grant)
			remote := part(t, there, "shop")
			if err := remote.Check(t.Context(), v); err != nil {
				t.Fatal(err)
			}
			if err := part(t, here, "shop").AddSession(t.Context(), "ses_1", time.Now().Add(time.Hour), "test"); err != nil {
				t.Fatal(err)
			}
			until(t, "the other instance to refuse", func() bool { return errors.Is(remote.Check(t.Context(), v), tokens.ErrRevoked) })
			if err := part(t, there, "other").Check(t.Context(), v); err != nil {
				t.Errorf("a revocation of one app reached another: %v", err)
			}
			late := feed(t, db, edit...)
			if err := part(t, late, "shop").Check(t.Context(), v); !errors.Is(err, tokens.ErrRevoked) {
				t.Errorf("an instance that starts later: got %v, want ErrRevoked", err)
			}
		})
	}
}

// With the database gone, a token is let through only while what this instance
// knows is fresh enough; then it is refused, and let through again afterwards.
func TestStaleViewRefuses(t *testing.T) {
	t.Parallel()
	db, link := storetest.Linked(t)
	f := feed(t, db)
	b, err := f.App(tokens.BlacklistConfig{App: "shop", MaxStaleness: 600 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	s, _ := setup(t)
	v := verified(t, s, grant)
	link.Cut()
	cut := time.Now()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for b.Check(t.Context(), v) == nil {
				if time.Since(cut) > 3*time.Second {
					t.Error("still let through 3 s after the database went away")
					return
				}
			}
		})
	}
	wg.Wait()
	before := time.Now()
	err = b.Check(t.Context(), v)
	if !errors.Is(err, tokens.ErrStale) || !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("got %v, want ErrStale and ErrUnavailable", err)
	}
	if took := time.Since(before); took > 3*time.Second {
		t.Errorf("the refusal took %v", took)
	}
	if err := b.AddSession(t.Context(), "ses_9", time.Now().Add(time.Hour), "test"); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("a revocation that could not be stored: got %v, want ErrUnavailable", err)
	}
	link.Restore()
	until(t, "service to come back", func() bool { return b.Check(t.Context(), v) == nil })
}

func TestEntriesExpire(t *testing.T) {
	t.Parallel()
	db := storetest.Database(t)
	c := &clock{}
	c.offset.Store(int64(time.Since(epoch)))
	f := feed(t, db, func(config *tokens.FeedConfig) { config.Now = c.Now })
	b := part(t, f, "shop")
	if err := b.AddToken(t.Context(), "tok_1", c.Now().Add(time.Minute), "test"); err != nil {
		t.Fatal(err)
	}
	var doc bson.M
	if err := db.Collection("token_blacklist").FindOne(t.Context(), bson.M{"_id": "shop|token|tok_1"}).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	if doc["app"] != "shop" || doc["kind"] != "token" || doc["revoked_at"] == nil {
		t.Errorf("stored as %v", doc)
	}
	if n, err := f.CleanUp(t.Context()); n != 0 || err != nil {
		t.Errorf("CleanUp removed %d entries that still count, %v", n, err)
	}
	c.Move(time.Hour)
	if n, err := f.CleanUp(t.Context()); n != 1 || err != nil {
		t.Errorf("CleanUp removed %d entries, %v, want 1", n, err)
	}
}

func TestConcurrentRevocationsAllCount(t *testing.T) {
	t.Parallel()
	f := feed(t, storetest.Database(t))
	b := part(t, f, "shop")
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			if err := b.AddUser(t.Context(), fmt.Sprintf("usr_%d", i%4), int64(i), "test"); err != nil {
				t.Errorf("revocation %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if f.Live() != 4 {
		t.Errorf("%d entries in memory, want 4", f.Live())
	}
	for i := range 4 {
		if _, epoch, err := b.Contains(t.Context(), tokens.RevokedUser, fmt.Sprintf("usr_%d", i)); err != nil || epoch != int64(36+i) {
			t.Errorf("user %d: epoch %d, %v, want the highest", i, epoch, err)
		}
	}
}
