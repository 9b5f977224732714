package signing_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	driver "go.mongodb.org/mongo-driver/event"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/signing"
)

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	b := setup(t)
	tests := map[string]func(*signing.Config){
		"no app":           func(c *signing.Config) { c.App = "" },
		"no keys":          func(c *signing.Config) { c.Keys = nil },
		"a short salt":     func(c *signing.Config) { c.Salt = salt[:15] },
		"no algorithm":     func(c *signing.Config) { c.Algorithm = "" },
		"HS256":            func(c *signing.Config) { c.Algorithm = tokens.HS256 },
		"none":             func(c *signing.Config) { c.Algorithm = "none" },
		"no token life":    func(c *signing.Config) { c.TokenTTL = 0 },
		"a short lead":     func(c *signing.Config) { c.Lead = signing.MinLead - 1 },
		"a negative lead":  func(c *signing.Config) { c.Lead = -time.Hour },
		"a short rotation": func(c *signing.Config) { c.Rotation = 2*lead - 1 },
		"a negative one":   func(c *signing.Config) { c.Rotation = -time.Hour },
	}
	for name, edit := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := signing.Config{App: "shop", Algorithm: tokens.EdDSA, Keys: derived(t, "shop", "s"), Salt: salt, TokenTTL: ttl, Rotation: rotation}
			edit(&config)
			if _, err := signing.New(b.db, config); err == nil {
				t.Error("was taken")
			}
		})
	}
}

// Two first keys would make every second token invalid.
func TestInstancesAgreeOnTheFirstKey(t *testing.T) {
	t.Parallel()
	for algorithm, instances := range map[string]int{tokens.EdDSA: 20, tokens.ES256: 20, tokens.RS256: 4} {
		t.Run(algorithm, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			stores := make([]*signing.Store, instances)
			for i := range stores {
				stores[i] = b.instance(t, func(c *signing.Config) { c.Algorithm = algorithm })
				if set := stores[i].Current(); set.Signing.Private != nil || len(set.Accepted) != 0 {
					t.Fatal("there are keys before the first load")
				}
			}
			together(t, stores, func(s *signing.Store) error { return s.Load(t.Context()) })
			first := stores[0].Current().Signing
			token := sign(t, first)
			for _, s := range stores {
				if got := s.Current().Signing; got.ID != first.ID || got.Algorithm != algorithm {
					t.Errorf("one signs with %s, another with %s", got.ID, first.ID)
				}
				want(t, "accepted", accepted(t, s), []string{first.ID})
				if !verifies(s, token) {
					t.Error("one does not verify what another has signed")
				}
			}
			if n := len(b.documents(t)); n != 1 {
				t.Errorf("%d documents", n)
			}
			if c, a := b.count(event.SigningKeyCreated, ""), b.count(event.SigningKeyActivated, first.ID); c != 1 || a != 1 {
				t.Errorf("%d events of creation, %d of activation", c, a)
			}
		})
	}
}

// together runs f for all stores at once.
func together(t *testing.T, stores []*signing.Store, f func(*signing.Store) error) {
	t.Helper()
	var wg sync.WaitGroup
	gate := make(chan struct{})
	for _, s := range stores {
		wg.Go(func() {
			<-gate
			if err := f(s); err != nil {
				t.Error(err)
			}
		})
	}
	close(gate)
	wg.Wait()
}

func TestRotationBySchedule(t *testing.T) {
	t.Parallel()
	b := setup(t)
	one, two := b.loaded(t), b.loaded(t)
	old := one.Current().Signing

	b.move(rotation - lead - time.Second)
	load(t, one, two)
	want(t, "before it is due", accepted(t, one), []string{old.ID})

	b.move(time.Second)
	stores := []*signing.Store{one, two}
	together(t, stores, func(s *signing.Store) error { return s.Load(t.Context()) })
	next := accepted(t, one)[1]
	for _, s := range stores {
		want(t, "published before use", accepted(t, s), []string{old.ID, next})
		want(t, "states", states(t, s), []signing.State{signing.Published, signing.Signing})
	}
	b.move(lead - time.Millisecond)
	load(t, one, two)
	want(t, "just before its time", accepted(t, two), []string{old.ID, next})
	last := sign(t, two.Current().Signing)

	b.move(time.Millisecond)
	load(t, one, two)
	for _, s := range stores {
		want(t, "in use by all", accepted(t, s), []string{next, old.ID})
		want(t, "states", states(t, s), []signing.State{signing.Signing, signing.Retired})
	}
	b.move(ttl)
	load(t, one, two)
	if !verifies(one, last) || !verifies(two, last) {
		t.Error("the last token of the old key is refused before it is dead")
	}
	b.move(margin)
	load(t, one, two)
	for _, s := range stores {
		want(t, "after its last token", accepted(t, s), []string{next})
		want(t, "states", states(t, s), []signing.State{signing.Signing})
	}
	b.move(margin + time.Second)
	load(t, one)
	if docs := b.documents(t); len(docs) != 1 || docs[next] == nil {
		t.Errorf("a private key that nobody needs is kept: %d documents", len(docs))
	}
	for kind, kid := range map[event.Type]string{event.SigningKeyCreated: next, event.SigningKeyActivated: next, event.SigningKeyRetired: old.ID} {
		if n := b.count(kind, kid); n != 1 {
			t.Errorf("%s came %d times", kind, n)
		}
	}
}

// An audit trail that tells one change several times is of little use.
func TestTakeoverIsReportedOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	stores := make([]*signing.Store, 10)
	for i := range stores {
		stores[i] = b.loaded(t)
	}
	for range 5 {
		old := stores[0].Current().Signing.ID
		next, err := stores[0].Rotate(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		b.move(lead)
		together(t, stores, func(s *signing.Store) error { return s.Load(t.Context()) })
		if a, r := b.count(event.SigningKeyActivated, next.ID), b.count(event.SigningKeyRetired, old); a != 1 || r != 1 {
			t.Errorf("%d events of activation, %d of retirement", a, r)
		}
	}
}

func TestNoScheduleNoRotation(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.loaded(t, func(c *signing.Config) { c.Rotation = 0 })
	first := s.Current().Signing.ID
	b.move(10 * 365 * 24 * time.Hour)
	load(t, s)
	want(t, "after ten years", accepted(t, s), []string{first})
}

// member is an instance of the simulation: its clock is off, and it loads once a
// minute at a time of its own.
type member struct {
	*signing.Store
	clock
}

// What an instance signs every other has to accept for as long as it lives, and a
// verifier with a cached key set has to know, although clocks differ and each
// learns of a change up to a minute late.
func TestEveryTokenIsAccepted(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const step = 5 * time.Second
	skews := []time.Duration{-25 * time.Second, 0, 25 * time.Second}
	var members []*member
	for _, skew := range skews {
		m := &member{}
		m.move(skew)
		m.Store = b.loaded(t, func(c *signing.Config) { c.Now, c.Rotation = m.now, 30*time.Minute })
		members = append(members, m)
	}
	type token struct {
		kid  string
		dies time.Time // by a true clock
	}
	alive := map[string]token{}
	caches := make([][]string, len(members)) // of verifiers that ask one instance each
	kids := map[string]bool{}
	for at := time.Duration(0); at < 4*time.Hour; at += step {
		for i, m := range members {
			if phase := time.Duration(i) * 20 * time.Second; (at+phase)%time.Minute == 0 {
				load(t, m.Store)
			}
			if (at+time.Duration(i)*time.Minute)%signing.MaxAge == 0 {
				caches[i] = published(t, m.Store)
			}
			kid := m.Current().Signing.ID
			kids[kid] = true
			alive[kid] = token{kid: kid, dies: start.Add(at + ttl)}
			for j, cached := range caches {
				if cached != nil && !slices.Contains(cached, kid) {
					t.Fatalf("after %s instance %d signs with %s, which verifier %d cannot know", at, i, kid, j)
				}
			}
		}
		for _, k := range alive {
			for i, m := range members {
				if start.Add(at).Before(k.dies) && !slices.Contains(accepted(t, m.Store), k.kid) {
					t.Fatalf("after %s instance %d refuses a living token of %s", at, i, k.kid)
				}
			}
		}
		for _, m := range members {
			m.move(step)
		}
	}
	if len(kids) < 7 {
		t.Errorf("only %d keys were in use", len(kids))
	}
}

// A load is cheap when there is nothing to do: one read, served by the index.
func TestIdleLoadOnlyReads(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var commands []string
	db := storetest.Monitored(t, &driver.CommandMonitor{Started: func(_ context.Context, e *driver.CommandStartedEvent) {
		mu.Lock()
		defer mu.Unlock()
		app, _ := e.Command.Lookup("filter", "app").StringValueOK()
		commands = append(commands, e.CommandName+" "+app)
	}})
	b := &bench{db: db}
	s := b.loaded(t)
	if _, err := s.RotateNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	commands = nil
	mu.Unlock()
	b.move(time.Minute)
	load(t, s)
	mu.Lock()
	defer mu.Unlock()
	want(t, "commands", commands, []string{"find shop"})
}

// Lowering the life of tokens must not end those that were issued before.
func TestLongestTokenLifeCounts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.loaded(t)
	b.loaded(t, func(c *signing.Config) { c.TokenTTL = 24 * time.Hour }) // signs with the same key
	s := b.loaded(t)
	old := s.Current().Signing.ID
	if _, err := s.RotateNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.move(24*time.Hour + margin - time.Second)
	load(t, s)
	if !slices.Contains(accepted(t, s), old) {
		t.Error("a token of a day is refused within the day")
	}
	b.move(time.Second)
	load(t, s)
	if slices.Contains(accepted(t, s), old) {
		t.Error("the key is accepted after its last token")
	}
}

// A longer life that is configured while the key is retired already prolongs it.
func TestLongerLifeProlongsRetirement(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.loaded(t)
	old := s.Current().Signing.ID
	if _, err := s.RotateNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.loaded(t, func(c *signing.Config) { c.TokenTTL = time.Hour })
	b.move(time.Hour)
	load(t, s)
	if !slices.Contains(accepted(t, s), old) {
		t.Error("an instance with shorter tokens ended the key")
	}
}

func TestOnChange(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var got [][]string
	s := b.instance(t, func(c *signing.Config) {
		c.OnChange = func(set signing.Set) {
			var kids []string
			for _, k := range set.Accepted {
				kids = append(kids, k.ID)
			}
			got = append(got, kids)
		}
	})
	load(t, s, s, s)
	first := s.Current().Signing.ID
	if len(got) != 1 {
		t.Fatalf("%d calls for one change: %v", len(got), got)
	}
	next, err := s.Rotate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.move(lead)
	load(t, s, s)
	if len(got) != 3 {
		t.Fatalf("%d calls for three changes: %v", len(got), got)
	}
	want(t, "published", got[1], []string{first, next.ID})
	want(t, "in use", got[2], []string{next.ID, first})
}

func TestTooManyDocuments(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.loaded(t)
	docs := make([]any, 1000)
	for i := range docs {
		docs[i] = bson.M{"_id": store.NewID(""), "app": "shop", "n": int64(1)}
	}
	if _, err := b.db.Collection(signing.Collection).InsertMany(t.Context(), docs); err != nil {
		t.Fatal(err)
	}
	if err := s.Load(t.Context()); err == nil || !strings.Contains(err.Error(), "1000") {
		t.Errorf("a flooded collection: %v", err)
	}
	if s.Current().Signing.Private == nil {
		t.Error("the set was lost")
	}
}

func TestLoadWaitsForItsTurnOnlyAsLongAsItsCaller(t *testing.T) {
	t.Parallel()
	b := setup(t)
	entered, leave := make(chan struct{}), make(chan struct{})
	s := b.instance(t, func(c *signing.Config) {
		c.OnChange = func(signing.Set) { close(entered); <-leave }
	})
	done := make(chan error, 1)
	go func() { done <- s.Load(t.Context()) }()
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, f := range map[string]func() error{
		"Load":   func() error { return s.Load(ctx) },
		"Rotate": func() error { _, err := s.Rotate(ctx); return err },
		"Revoke": func() error { return s.Revoke(ctx, "AAAAAAAAAAA") },
	} {
		if err := f(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
	close(leave)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
