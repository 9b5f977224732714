package casbin_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/authz/casbin"
	"github.com/mandate-auth/mandate/internal/store/storetest"
)

// Rules of idle apps leave the memory when it is full, those of apps in use stay,
// and whoever comes back is decided about as before.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	in := start(t, storetest.Database(t))
	logger := slog.New(slog.NewTextHandler(&in.logs, nil))
	memory := casbin.NewMemory(100_000, logger)
	var apps []*casbin.Provider
	for i := range 8 {
		p := in.provider(fmt.Sprint("app", i), func(c *casbin.Config) { c.Memory = memory })
		var c authz.Change
		for j := range 100 {
			c.Add = append(c.Add, rule("editor", fmt.Sprint("documents", j), "read"))
		}
		c.Assign = []authz.Assignment{{Subject: ada, Role: "editor"}}
		apply(t, p, c)
		if err := p.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		apps = append(apps, p)
	}
	ask := func(i int) bool {
		d, err := apps[i].Authorize(t.Context(), authz.Request{App: fmt.Sprint("app", i), Subject: ada, Permission: authz.Permission{Object: "documents7", Action: "read"}})
		if err != nil {
			t.Error(err)
		}
		return d.Allowed
	}
	if got := memory.Taken(); got == 0 || got > 100_000 {
		t.Errorf("%d bytes are taken; the budget is 100,000", got)
	}
	loaded := 0
	for _, p := range apps {
		if casbin.Loaded(p) {
			loaded++
		}
	}
	if loaded == 0 || loaded == len(apps) {
		t.Errorf("%d of %d apps are in memory", loaded, len(apps))
	}
	// Apps that are asked stay, also beyond the budget.
	for i := range apps {
		if !ask(i) {
			t.Errorf("app %d refuses after its rules had left the memory", i)
		}
	}
	for i, p := range apps {
		if !casbin.Loaded(p) {
			t.Errorf("the rules of app %d left the memory while it is in use", i)
		}
	}
	if !strings.Contains(in.logs.String(), "budget") {
		t.Error("nobody was told that the budget is too small")
	}
	// A minute later two of them are in use.
	for _, p := range apps {
		if err := p.Upkeep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ask(0)
	ask(1)
	apply(t, apps[0], authz.Change{Add: []authz.Rule{rule(ben, docs, "read")}})
	if got := memory.Taken(); got > 100_000 {
		t.Errorf("%d bytes are taken after the apps became idle", got)
	}
	if !casbin.Loaded(apps[0]) || !casbin.Loaded(apps[1]) {
		t.Error("the rules of an app in use left the memory")
	}
	for _, p := range apps {
		closeWith(t, p.Close)
	}
	if got := memory.Taken(); got != 0 {
		t.Errorf("%d bytes are taken after all apps were closed", got)
	}
}
