package signing_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	driver "go.mongodb.org/mongo-driver/event"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/tokens/signing"
)

func TestRotate(t *testing.T) {
	t.Parallel()
	b := setup(t)
	one, two := b.loaded(t), b.loaded(t)
	old := one.Current().Signing.ID
	next, err := one.Rotate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if next.State != signing.Published || !next.ActiveFrom.Equal(b.now().Add(lead)) || !next.RetireAt.IsZero() {
		t.Errorf("the next key: %+v", next)
	}
	want(t, "here", accepted(t, one), []string{old, next.ID})
	again, err := two.Rotate(t.Context())
	if err != nil || again.ID != next.ID {
		t.Errorf("a second command made another key: %+v, %v", again, err)
	}
	b.move(lead)
	load(t, one, two)
	want(t, "after the lead", accepted(t, two), []string{next.ID, old})
}

// Every administrator who gives the command gets the same key.
func TestRotateAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	stores := make([]*signing.Store, 10)
	for i := range stores {
		stores[i] = b.loaded(t)
	}
	var mu sync.Mutex
	kids := map[string]bool{}
	together(t, stores, func(s *signing.Store) error {
		info, err := s.Rotate(t.Context())
		if err == nil {
			mu.Lock()
			defer mu.Unlock()
			kids[info.ID] = true
		}
		return err
	})
	if n := len(b.documents(t)); n != 2 || len(kids) != 1 {
		t.Errorf("%d documents, %d different answers", n, len(kids))
	}
}

func TestRotateMakesTheFirstKeyActive(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.instance(t)
	info, err := s.Rotate(t.Context())
	if err != nil || info.State != signing.Signing || s.Current().Signing.ID != info.ID {
		t.Errorf("got %+v, %v", info, err)
	}
}

func TestRotateNow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	announced := 0
	one := b.loaded(t, func(c *signing.Config) { c.Announce = func(context.Context) error { announced++; return nil } })
	two := b.loaded(t)
	old := one.Current().Signing
	info, err := one.RotateNow(t.Context())
	if err != nil || info.State != signing.Signing || announced != 1 {
		t.Fatalf("got %+v, %v, announced %d times", info, err, announced)
	}
	want(t, "here", accepted(t, one), []string{info.ID, old.ID})
	token := sign(t, one.Current().Signing)
	if verifies(two, token) {
		t.Fatal("the other instance knows the key before it could")
	}
	if known, err := two.RefreshUnknown(t.Context(), info.ID); !known || err != nil || !verifies(two, token) {
		t.Errorf("the other instance does not learn the key by its tokens: %t, %v", known, err)
	}
	if n := b.count(event.SigningKeyActivated, info.ID); n != 1 {
		t.Errorf("%d events of activation", n)
	}
}

// The published key is known to verifiers already: it is the better one.
func TestRotateNowTakesThePublishedKey(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.loaded(t)
	next, err := s.Rotate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.move(time.Minute)
	info, err := s.RotateNow(t.Context())
	if err != nil || info.ID != next.ID || info.State != signing.Signing || s.Current().Signing.ID != next.ID {
		t.Errorf("got %+v, %v, want %s", info, err, next.ID)
	}
	if n := b.count(event.SigningKeyActivated, next.ID); n != 1 {
		t.Errorf("%d events of activation", n)
	}
}

// An instance whose clock is late must sign nevertheless.
func TestLateClock(t *testing.T) {
	t.Parallel()
	b := setup(t)
	late := &clock{}
	late.move(-20 * time.Second)
	one := b.loaded(t)
	two := b.loaded(t, func(c *signing.Config) { c.Now = late.now })
	if two.Current().Signing.ID != one.Current().Signing.ID {
		t.Error("an instance with a late clock has another first key")
	}
	next, err := one.RotateNow(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	load(t, two)
	if got := two.Current().Signing; got.ID != next.ID || got.Private == nil {
		t.Error("an instance with a late clock signs with a key that has retired")
	}
}

func TestRevokeTheSigningKey(t *testing.T) {
	t.Parallel()
	b := setup(t)
	one, two := b.loaded(t), b.loaded(t)
	old := one.Current().Signing
	token := sign(t, old)
	if err := one.Revoke(t.Context(), old.ID); err != nil {
		t.Fatal(err)
	}
	next := one.Current().Signing
	want(t, "accepted here", accepted(t, one), []string{next.ID})
	if next.ID == old.ID || next.Private == nil || verifies(one, token) {
		t.Error("the revoked key lives")
	}
	if _, there := b.documents(t)[old.ID]["private"]; there {
		t.Error("the private part is still stored")
	}
	want(t, "states", states(t, one), []signing.State{signing.Signing, signing.Revoked})
	load(t, two)
	want(t, "accepted elsewhere", accepted(t, two), []string{next.ID})

	for range 2 { // again, by whoever did not see the answer
		if err := two.Revoke(t.Context(), old.ID); err != nil {
			t.Errorf("again: %v", err)
		}
	}
	if known, err := two.RefreshUnknown(t.Context(), old.ID); known || err != nil {
		t.Errorf("a revoked key came back: %t, %v", known, err)
	}
	for kind, kid := range map[event.Type]string{
		event.SigningKeyRevoked: old.ID, event.SigningKeyCreated: next.ID, event.SigningKeyActivated: next.ID,
	} {
		if n := b.count(kind, kid); n != 1 {
			t.Errorf("%s came %d times", kind, n)
		}
	}
}

func TestRevokeAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	stores := make([]*signing.Store, 8)
	for i := range stores {
		stores[i] = b.loaded(t)
	}
	old := stores[0].Current().Signing.ID
	together(t, stores, func(s *signing.Store) error { return s.Revoke(t.Context(), old) })
	load(t, stores...)
	for _, s := range stores {
		want(t, "accepted", accepted(t, s), []string{stores[0].Current().Signing.ID})
	}
	if n := len(b.documents(t)); n != 2 || b.count(event.SigningKeyRevoked, old) != 1 {
		t.Errorf("%d documents for one revocation", n)
	}
}

func TestRevokePromotesThePublishedKey(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.loaded(t)
	old := s.Current().Signing.ID
	next, err := s.Rotate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Revoke(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	want(t, "accepted", accepted(t, s), []string{next.ID})
	if n := b.count(event.SigningKeyActivated, next.ID); n != 1 {
		t.Errorf("%d events of activation", n)
	}
}

func TestRevokeOthers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.loaded(t)
	first := s.Current().Signing.ID
	second, err := s.RotateNow(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	third, err := s.Rotate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Revoke(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	want(t, "the retired one revoked", accepted(t, s), []string{second.ID, third.ID})
	if err := s.Revoke(t.Context(), third.ID); err != nil {
		t.Fatal(err)
	}
	want(t, "the published one revoked", accepted(t, s), []string{second.ID})
	for _, kid := range []string{"", "AAAAAAAAAAA", "$ne", first + "A", `{"$gt":""}`} {
		if err := s.Revoke(t.Context(), kid); !errors.Is(err, signing.ErrUnknown) || !errors.Is(err, store.ErrNotFound) {
			t.Errorf("kid %q: %v", kid, err)
		}
	}
	// A published key that was revoked has never taken over: the one before signs on.
	b.move(lead + ttl + margin)
	load(t, s)
	want(t, "later", accepted(t, s), []string{second.ID})
	last := sign(t, s.Current().Signing)
	if _, err := s.RotateNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	soon := verifies(s, last)
	b.move(ttl)
	load(t, s)
	if !soon || !verifies(s, last) {
		t.Error("the key retired at the time of one that was revoked before it took over")
	}
}

// A kid that comes twice would make verifiers refuse good tokens by a key that they
// have kept.
func TestNumbersAreNotGivenTwice(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.loaded(t, func(c *signing.Config) { c.Rotation = 0 })
	seen := map[string]bool{s.Current().Signing.ID: true}
	for range 3 {
		for _, rotate := range []func(context.Context) (*signing.KeyInfo, error){s.Rotate, s.RotateNow, s.Rotate} {
			next, err := rotate(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if seen[next.ID] {
				t.Fatalf("kid %s was given twice", next.ID)
			}
			seen[next.ID] = true
			if next.State != signing.Published {
				continue
			}
			if err := s.Revoke(t.Context(), next.ID); err != nil {
				t.Fatal(err)
			}
			b.move(48 * time.Hour)
			load(t, s)
		}
	}
	want(t, "states", states(t, s), []signing.State{signing.Revoked, signing.Signing})
	if n := len(b.documents(t)); n != 2 {
		t.Errorf("%d documents are kept", n)
	}
}

// A revocation that the others have not been told of is not done.
func TestRevokeReportsASilentAnnouncement(t *testing.T) {
	t.Parallel()
	b := setup(t)
	fail := errors.New("no way out")
	s := b.loaded(t, func(c *signing.Config) { c.Announce = func(context.Context) error { return fail } })
	old := s.Current().Signing.ID
	if err := s.Revoke(t.Context(), old); !errors.Is(err, fail) {
		t.Errorf("got %v", err)
	}
	if slices.Contains(accepted(t, s), old) {
		t.Error("the key is still accepted here")
	}
	if _, err := s.RotateNow(t.Context()); !errors.Is(err, fail) {
		t.Errorf("RotateNow: %v", err)
	}
	fail = nil
	if err := s.Revoke(t.Context(), old); err != nil {
		t.Errorf("again: %v", err)
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.loaded(t)
	first := s.Current().Signing.ID
	if _, err := s.RotateNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(t, "states", states(t, s), []signing.State{signing.Published, signing.Signing, signing.Retired})
	list, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if k := list[2]; k.ID != first || k.Algorithm != "EdDSA" || !k.RetireAt.Equal(start.Add(ttl+margin)) || !k.CreatedAt.Equal(start) {
		t.Errorf("the retired key: %+v", k)
	}
	if err := s.Revoke(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	list, err = s.List(t.Context())
	if err != nil || !list[2].RevokedAt.Equal(start) || list[2].State != signing.Revoked {
		t.Errorf("the revoked key: %+v, %v", list[2], err)
	}
}

// nextKids returns the kids of the keys after the first: another database has them.
func nextKids(t *testing.T, n int) (kids []string) {
	t.Helper()
	elsewhere := (&bench{db: storetest.Database(t)}).loaded(t)
	for range n {
		info, err := elsewhere.RotateNow(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		kids = append(kids, info.ID)
	}
	return kids
}

// Kids of keys that are not there cost one read in two seconds, however many come at once.
// A key is known once OnChange has seen it: who verifies by what OnChange was given
// would else find that the token means nothing, and not that it should ask again.
func TestRefreshUnknownWaitsForOnChange(t *testing.T) {
	t.Parallel()
	b := setup(t)
	one := b.loaded(t)
	var fresh string
	var early error
	var known bool
	var two *signing.Store
	two = b.loaded(t, func(c *signing.Config) {
		c.OnChange = func(signing.Set) {
			if fresh != "" {
				known, early = two.RefreshUnknown(t.Context(), fresh)
			}
		}
	})
	// A look just now, so that the next is answered without one.
	if known, err := two.RefreshUnknown(t.Context(), nextKids(t, 1)[0]); known || err != nil {
		t.Fatalf("before there is a key: %t, %v", known, err)
	}
	info, err := one.RotateNow(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	fresh = info.ID
	load(t, two)
	if known || !errors.Is(early, signing.ErrTooSoon) {
		t.Errorf("while OnChange is called: %t, %v", known, early)
	}
	if known, err := two.RefreshUnknown(t.Context(), fresh); !known || err != nil {
		t.Errorf("after it: %t, %v", known, err)
	}
}

func TestRefreshUnknownIsBounded(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	reads := 0
	db := storetest.Monitored(t, &driver.CommandMonitor{Started: func(_ context.Context, e *driver.CommandStartedEvent) {
		mu.Lock()
		defer mu.Unlock()
		if e.CommandName == "find" {
			reads++
		}
	}})
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		n := reads
		reads = 0
		return n
	}
	b := &bench{db: db}
	s := b.loaded(t)
	count()
	stores := make([]*signing.Store, 50)
	for i := range stores {
		stores[i] = s
	}
	ask := func(kid string) {
		t.Helper()
		together(t, stores, func(s *signing.Store) error {
			if known, err := s.RefreshUnknown(t.Context(), kid); known || (err != nil && !errors.Is(err, signing.ErrTooSoon)) {
				t.Errorf("kid %q: %t, %v", kid, known, err)
			}
			return nil
		})
	}
	next := nextKids(t, 2)
	ask(next[0])
	if n := count(); n != 1 {
		t.Errorf("50 unknown kids at once: %d reads", n)
	}
	b.move(time.Second)
	ask(next[1])
	if n := count(); n != 0 {
		t.Errorf("a second later: %d reads", n)
	}
	if known, err := s.RefreshUnknown(t.Context(), next[1]); known || !errors.Is(err, signing.ErrTooSoon) || !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("too soon: %t, %v", known, err)
	}
	b.move(2 * time.Second)
	for _, kid := range []string{"", "x", "AAAAAAAAAAB", "AAAAAAAAAAA=", "AAAAAAAAAAAA", "../../../x", "AAAAAAAAA\nA", "AAAAAAAAAAA", "AAAAAAAAAAE"} {
		ask(kid) // none of them could be one, and the last two are none of the next
	}
	if n := count(); n != 0 {
		t.Errorf("kids that could not be one: %d reads", n)
	}
	ask(next[0])
	if n := count(); n != 1 {
		t.Errorf("after the interval: %d reads", n)
	}
	b.move(-time.Hour) // a clock that was set back must not switch it off
	ask(next[1])
	if n := count(); n != 1 {
		t.Errorf("with a clock set back: %d reads", n)
	}
	if known, err := s.RefreshUnknown(t.Context(), s.Current().Signing.ID); !known || err != nil || count() != 0 {
		t.Errorf("a known kid: %t, %v", known, err)
	}
	if n := len(b.documents(t)); n != 1 {
		t.Errorf("unknown kids made keys: %d", n)
	}
}

// Who raises the epoch ends every token, also on instances that do not know yet.
func TestKeysEpoch(t *testing.T) {
	t.Parallel()
	b := setup(t)
	behind := b.loaded(t)
	if _, err := behind.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	token := sign(t, behind.Current().Signing)
	ahead := b.loaded(t, func(c *signing.Config) { c.KeysEpoch = 2 })
	next := ahead.Current().Signing
	want(t, "accepted in the new epoch", accepted(t, ahead), []string{next.ID})
	if verifies(ahead, token) {
		t.Error("a token of the ended epoch is accepted")
	}
	load(t, behind)
	want(t, "accepted behind", accepted(t, behind), []string{next.ID})
	if docs := b.documents(t); len(docs) != 1 {
		t.Errorf("ended private keys are kept: %d documents", len(docs))
	}
	if err := behind.Revoke(t.Context(), next.ID); err != nil {
		t.Fatal(err)
	}
	if d := b.documents(t)[behind.Current().Signing.ID]; d["keys_epoch"] != int64(2) {
		t.Errorf("a key was made in the ended epoch: %v", d["keys_epoch"])
	}
}

func TestAlgorithmsAreApart(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ed := b.loaded(t)
	es := b.loaded(t, func(c *signing.Config) { c.Algorithm = "ES256" })
	load(t, ed, es)
	if a, b := accepted(t, ed), accepted(t, es); len(a) != 1 || len(b) != 1 || a[0] == b[0] {
		t.Errorf("an app of one algorithm accepts %v and %v", a, b)
	}
}

// An app that is created anew under an old slug inherits nothing.
func TestSlugUsedAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	token := sign(t, b.loaded(t).Current().Signing)
	other := slices.Repeat([]byte{9}, 32)
	var log bytes.Buffer
	s := b.loaded(t, func(c *signing.Config) { c.Salt, c.Logger = other, slog.New(slog.NewTextHandler(&log, nil)) })
	load(t, s)
	if n := strings.Count(log.String(), "are ignored"); n != 1 {
		t.Errorf("the operator is told %d times of the documents that are left over", n)
	}
	if len(accepted(t, s)) != 1 || verifies(s, token) {
		t.Error("the key of the app that had the slug is accepted")
	}
	if got := b.documents(t); len(got) != 2 || got[s.Current().Signing.ID]["n"] != int64(1) {
		t.Errorf("%d documents", len(got))
	}
}
