package casbin_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/event"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/authz/casbin"
	"github.com/mandate-auth/mandate/internal/appstate"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
)

// What one instance changes another decides by within the bound, by the change
// stream and by polling.
func TestChangesReachOtherInstances(t *testing.T) {
	t.Parallel()
	for name, disable := range map[string]bool{"change stream": false, "polling": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := storetest.Database(t)
			edit := func(c *appstate.WatchConfig) { c.DisableChangeStream = disable }
			p := start(t, db, edit).provider("shop")
			q := start(t, storetest.Second(t, db, nil), edit).provider("shop")
			if err := q.Ready(t.Context()); err != nil {
				t.Fatal(err)
			}
			for i := range 5 {
				object := fmt.Sprint("o", i)
				apply(t, p, authz.Change{Add: []authz.Rule{rule("editor", object, "read")}, Assign: []authz.Assignment{{Subject: ada, Role: "editor"}}})
				until(t, "the permission to arrive", func() bool { return allowed(t, q, ada, object, "read") })
				apply(t, p, authz.Change{Unassign: []authz.Assignment{{Subject: ada, Role: "editor"}}})
				until(t, "the removal to arrive", func() bool { return !allowed(t, q, ada, object, "read") })
			}
		})
	}
}

// An instance that cannot learn of changes refuses once its knowledge is older
// than the bound, and serves again by itself.
func TestAnInstanceThatIsCutOffRefuses(t *testing.T) {
	t.Parallel()
	db := storetest.Database(t)
	p := start(t, db).provider("shop")
	link := &storetest.Link{}
	q := start(t, storetest.Second(t, db, link)).provider("shop", func(c *casbin.Config) { c.MaxStaleness = 300 * time.Millisecond })
	apply(t, p, authz.Change{Add: []authz.Rule{rule(ada, docs, "read")}})
	until(t, "the permission to arrive", func() bool { return allowed(t, q, ada, docs, "read") })
	link.Cut()
	apply(t, p, authz.Change{Remove: []authz.Rule{rule(ada, docs, "read")}})
	removed := time.Now()
	ask := authz.Request{App: "shop", Subject: ada, Permission: authz.Permission{Object: docs, Action: "read"}}
	for {
		d, err := q.Authorize(t.Context(), ask)
		if err != nil {
			if d.Allowed || !errors.Is(err, authz.ErrUnavailable) {
				t.Errorf("cut off: %+v, %v", d, err)
			}
			break
		}
		if d.Allowed && time.Since(removed) > 2*time.Second {
			t.Fatal("cut off for two seconds and still allowed")
		}
	}
	link.Restore()
	until(t, "a decision", func() bool { _, err := q.Authorize(t.Context(), ask); return err == nil })
	if allowed(t, q, ada, docs, "read") {
		t.Error("allowed after it was removed")
	}
}

// More changes than the log keeps, and changes without keys, are read whole.
func TestFarBehindReadsEverything(t *testing.T) {
	t.Parallel()
	db := storetest.Database(t)
	in := start(t, db)
	p := in.provider("shop")
	other := start(t, storetest.Second(t, db, nil), func(c *appstate.WatchConfig) {
		c.DisableChangeStream, c.PollInterval = true, time.Hour
	})
	q := other.provider("shop", func(c *casbin.Config) { c.MaxStaleness = 50 * time.Millisecond })
	if err := q.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range 70 {
		apply(t, p, authz.Change{Add: []authz.Rule{rule(ada, fmt.Sprint("o", i), "read")}})
	}
	until(t, "all changes", func() bool { return allowed(t, q, ada, "o0", "read") && allowed(t, q, ada, "o69", "read") })
	var c authz.Change
	for i := range 300 {
		c.Add = append(c.Add, rule(ben, fmt.Sprint("object ", i), "read"))
	}
	apply(t, p, c)
	until(t, "the large change", func() bool { return allowed(t, q, ben, "object 0", "read") && allowed(t, q, ben, "object 299", "read") })
	if !allowed(t, p, ben, "object 299", "read") {
		t.Error("not decided by where it was made")
	}
}

// Many instances change the same rules at once. In the end all decide alike, and
// by what is stored.
func TestWritersOnManyInstances(t *testing.T) {
	t.Parallel()
	db := storetest.Database(t)
	var providers []*casbin.Provider
	for range 3 {
		providers = append(providers, start(t, storetest.Second(t, db, nil)).provider("shop"))
	}
	var wg sync.WaitGroup
	for n, p := range providers {
		wg.Go(func() {
			for i := range 20 {
				r := []authz.Rule{rule(ada, fmt.Sprint("o", i%4), "read")}
				c := authz.Change{Add: r}
				if (i+n)%2 == 0 {
					c = authz.Change{Remove: r}
				}
				// A busy machine may not answer in time; then it is repeated.
				until(t, "the change to be answered", func() bool {
					err := p.Apply(t.Context(), c)
					if err != nil && !errors.Is(err, authz.ErrUnavailable) {
						t.Errorf("Apply: %v", err)
					}
					return err == nil
				})
			}
		})
	}
	wg.Wait()
	for o := range 4 {
		object := fmt.Sprint("o", o)
		n, err := db.Collection(casbin.DefaultCollection).CountDocuments(t.Context(), bson.M{"v0": ada, "v2": object})
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range providers {
			until(t, fmt.Sprintf("instance %d to decide by what is stored", i), func() bool { return allowed(t, p, ada, object, "read") == (n == 1) })
		}
	}
}

// Who writes past Mandate is noticed by the comparison that runs once a minute.
func TestUpkeepNoticesForeignWrites(t *testing.T) {
	t.Parallel()
	p, in := setup(t)
	apply(t, p, authz.Change{Add: []authz.Rule{rule(ada, docs, "read")}})
	if !allowed(t, p, ada, docs, "read") {
		t.Fatal("not allowed")
	}
	if _, err := in.db.Collection(casbin.DefaultCollection).DeleteMany(t.Context(), bson.M{"v0": ada}); err != nil {
		t.Fatal(err)
	}
	if err := p.Upkeep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if allowed(t, p, ada, docs, "read") {
		t.Error("a rule that is gone still allows")
	}
	if !strings.Contains(in.logs.String(), "changed by somebody else") {
		t.Errorf("nobody was told: %s", in.logs.String())
	}
	if err := p.Upkeep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(in.logs.String(), "changed by somebody else"); n != 1 {
		t.Errorf("told %d times, want once", n)
	}
}

// Rules that nobody asks for leave the memory and come back when asked for.
func TestIdleRulesAreDropped(t *testing.T) {
	t.Parallel()
	p, in := setup(t)
	apply(t, p, authz.Change{Add: []authz.Rule{rule(ada, docs, "read")}})
	if !allowed(t, p, ada, docs, "read") {
		t.Fatal("not allowed")
	}
	for range 12 {
		if err := p.Upkeep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	// Past the provider: only who reads again sees it.
	if _, err := in.db.Collection(casbin.DefaultCollection).DeleteMany(t.Context(), bson.M{"v0": ada}); err != nil {
		t.Fatal(err)
	}
	if allowed(t, p, ada, docs, "read") {
		t.Error("rules that nobody asked for stayed in memory")
	}
}

// A database that was set back has a lower epoch; its next change is noticed all
// the same.
func TestARestoredDatabase(t *testing.T) {
	t.Parallel()
	db := storetest.Database(t)
	p := start(t, db).provider("shop")
	for i := range 5 {
		apply(t, p, authz.Change{Add: []authz.Rule{rule(ada, fmt.Sprint("o", i), "read")}})
	}
	if !allowed(t, p, ada, "o4", "read") {
		t.Fatal("not allowed")
	}
	ctx := t.Context()
	_, err := db.Collection("app_state").UpdateOne(ctx, bson.M{"_id": "shop"}, bson.M{"$set": bson.M{"policy_epoch": int64(2)}, "$unset": bson.M{"policy_log": ""}})
	if err != nil {
		t.Fatal(err)
	}
	q := start(t, storetest.Second(t, db, nil)).provider("shop")
	apply(t, q, authz.Change{Remove: []authz.Rule{rule(ada, "o4", "read")}})
	until(t, "the removal to arrive", func() bool { return !allowed(t, p, ada, "o4", "read") })
}

// A new primary's clock may be behind the old one's. Its changes count all the
// same.
func TestAClockThatIsSetBack(t *testing.T) {
	t.Parallel()
	db := storetest.Database(t)
	p := start(t, db).provider("shop")
	q := start(t, storetest.Second(t, db, nil), func(c *appstate.WatchConfig) { c.DisableChangeStream = true }).provider("shop")
	apply(t, p, authz.Change{Add: []authz.Rule{rule(ada, docs, "read")}})
	until(t, "the permission to arrive", func() bool { return allowed(t, q, ada, docs, "read") })
	rows := db.Collection(casbin.DefaultCollection)
	if _, err := rows.DeleteMany(t.Context(), bson.M{"v0": ada}); err != nil {
		t.Fatal(err)
	}
	_, err := db.Collection("app_state").UpdateOne(t.Context(), bson.M{"_id": "shop"}, bson.M{
		"$inc":  bson.M{"policy_epoch": int64(1)},
		"$push": bson.M{"policy_log": bson.M{"$each": bson.A{bson.M{"keys": bson.A{bson.A{"s", ada}}}}, "$slice": -64}},
		"$set":  bson.M{"changed_at": time.Now().Add(-5 * time.Second)},
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, x := range []authz.Provider{p, q} {
		until(t, fmt.Sprintf("instance %d to learn of the removal", i), func() bool { return !allowed(t, x, ada, docs, "read") })
	}
}

func TestAClosedProviderRefuses(t *testing.T) {
	t.Parallel()
	p, _ := setup(t)
	if err := p.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := p.Apply(t.Context(), authz.Change{Add: []authz.Rule{rule(ada, docs, "read")}}); !errors.Is(err, authz.ErrUnavailable) {
		t.Errorf("a change at a closed provider: %v", err)
	}
	if err := p.Ready(t.Context()); !errors.Is(err, authz.ErrUnavailable) {
		t.Errorf("a closed provider is ready: %v", err)
	}
}

func TestConfigurationIsChecked(t *testing.T) {
	t.Parallel()
	in := start(t, storetest.Database(t))
	for name, config := range map[string]casbin.Config{
		"no app":          {State: in.state, Watcher: in.watcher},
		"no state":        {App: "shop", Watcher: in.watcher},
		"unknown model":   {App: "shop", State: in.state, Watcher: in.watcher, Model: "abac"},
		"roles in acl":    {App: "shop", State: in.state, Watcher: in.watcher, Model: casbin.ModelACL, Hierarchy: map[string][]string{"a": {"b"}}},
		"a role like ids": {App: "shop", State: in.state, Watcher: in.watcher, Hierarchy: map[string][]string{"admin": {ada}}},
	} {
		if _, err := casbin.New(in.store, config); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := casbin.New(nil, casbin.Config{App: "shop", State: in.state, Watcher: in.watcher}); err == nil {
		t.Error("without a store: no error")
	}
}

// A permission that is removed on one of three instances is refused on all of them
// within the bound, whoever was loading meanwhile, and nobody allows it again.
func TestThreeInstances(t *testing.T) {
	t.Parallel()
	const bound = 3 * time.Second
	db := storetest.Database(t)
	var all []*casbin.Provider
	for i := range 3 {
		in := start(t, db, func(c *appstate.WatchConfig) { c.DisableChangeStream = i == 2 })
		all = append(all, in.provider("shop", withMatching(casbin.MatchPath), func(c *casbin.Config) { c.MaxStaleness = bound }))
	}
	may := rule("editor", "/documents/{id}", "write")
	apply(t, all[0], authz.Change{Assign: []authz.Assignment{{Subject: ada, Role: "editor"}}})
	for round := range 6 {
		apply(t, all[round%3], authz.Change{Add: []authz.Rule{may}})
		for i, p := range all {
			until(t, fmt.Sprint("instance ", i, " to allow"), func() bool { return allowed(t, p, ada, "/documents/7", "write") })
		}
		// Loads of everything run into the change.
		var loads sync.WaitGroup
		for _, p := range all {
			loads.Go(func() {
				if err := p.Upkeep(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		apply(t, all[(round+1)%3], authz.Change{Remove: []authz.Rule{may}})
		if allowed(t, all[(round+1)%3], ada, "/documents/7", "write") {
			t.Error("the instance that answered the removal allows it")
		}
		removed := time.Now()
		loads.Wait()
		for i, p := range all {
			until(t, fmt.Sprint("instance ", i, " to refuse"), func() bool { return !allowed(t, p, ada, "/documents/7", "write") })
			if took := time.Since(removed); took > bound+time.Second {
				t.Fatalf("instance %d allowed for %s", i, took)
			}
		}
		for range 20 {
			for i, p := range all {
				if allowed(t, p, ada, "/documents/7", "write") {
					t.Fatalf("instance %d allows again what it had refused", i)
				}
			}
		}
	}
}

// A change whose rules cannot be read back within one call would otherwise be tried
// again and again, and nothing be decided until the comparison once a minute.
func TestRulesThatAreReadTooSlowlyAreAllRead(t *testing.T) {
	t.Parallel()
	var applying atomic.Bool
	answered := make(chan struct{})
	monitor := &event.CommandMonitor{Started: func(ctx context.Context, e *event.CommandStartedEvent) {
		if e.CommandName != "find" || e.Command.Lookup("find").StringValue() != casbin.DefaultCollection {
			return
		}
		if _, err := e.Command.LookupErr("filter", "$or"); err == nil {
			<-ctx.Done() // as a server that looks through every document for each of the rules
		} else if applying.Load() {
			<-answered // reading all of them takes until the change was answered
		}
	}}
	p := start(t, storetest.Monitored(t, monitor)).provider("shop")
	if err := p.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	applying.Store(true)
	err := p.Apply(t.Context(), authz.Change{Add: []authz.Rule{rule(ada, docs, "read")}})
	close(answered)
	if !errors.Is(err, authz.ErrUnavailable) || !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("a change that is not read back within a call: %v", err)
	}
	until(t, "the rule to decide", func() bool {
		d, err := p.Authorize(t.Context(), authz.Request{App: "shop", Subject: ada, Permission: authz.Permission{Object: docs, Action: "read"}})
		return err == nil && d.Allowed
	})
}
