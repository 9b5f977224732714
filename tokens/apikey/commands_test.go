package apikey_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/event"

	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/tokens/apikey"
)

// filters returns what a command selects documents by, or what it inserts.
func filters(command bson.Raw, name string) (out []bson.Raw) {
	each := func(list, field string) {
		values, _ := command.Lookup(list).Array().Values()
		for _, v := range values {
			if field == "" {
				out = append(out, v.Document())
			} else {
				out = append(out, v.Document().Lookup(field).Document())
			}
		}
	}
	switch name {
	case "find":
		out = []bson.Raw{command.Lookup("filter").Document()}
	case "update":
		each("updates", "q")
	case "delete":
		each("deletes", "q")
	case "insert":
		each("documents", "")
	}
	return out
}

// No command leaves the app out, or uses what not every server has.
func TestEveryCommandNamesTheApp(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	seen := map[string]int{}
	db := storetest.Monitored(t, &event.CommandMonitor{Started: func(_ context.Context, e *event.CommandStartedEvent) {
		if coll, _ := e.Command.Lookup(e.CommandName).StringValueOK(); coll != "api_keys" || slices.Contains([]string{"createIndexes", "listIndexes"}, e.CommandName) {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		seen[e.CommandName]++
		found := filters(e.Command, e.CommandName)
		if len(found) == 0 {
			t.Errorf("the command %s has no filter that this test knows: %s", e.CommandName, e.Command)
		}
		for _, f := range found {
			if app, ok := f.Lookup("app").StringValueOK(); !ok || app != "shop" {
				t.Errorf("%s: the filter does not name the app: %s", e.CommandName, f)
			}
		}
		text := e.Command.String()
		for _, banned := range []string{`"$expr"`, `"$regex"`, `"$where"`, `.$"`, `.$[`, `null`, `"pipeline"`} {
			if strings.Contains(text, banned) {
				t.Errorf("%s uses %s: %s", e.CommandName, banned, text)
			}
		}
	}})
	b := setupOn(t, db, with(func(c *apikey.Config) { c.MaxPerUser = 1 }))
	b.create(t, func(n *apikey.NewKey) { n.TTL = time.Minute })
	b.move(time.Hour)
	c := b.create(t) // takes the slot of the one that expired
	b.verify(t, c.Key, nil)
	if err := b.Close(t.Context()); err != nil { // notes the use
		t.Fatal(err)
	}
	page, err := b.List(t.Context(), b.user, apikey.ListOptions{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.List(t.Context(), b.user, apikey.ListOptions{Cursor: page.Next}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Get(t.Context(), b.user, c.ID); err != nil {
		t.Fatal(err)
	}
	if err := b.Revoke(t.Context(), b.user, c.ID, "test"); err != nil {
		t.Fatal(err)
	}
	if err := b.RevokeAll(t.Context(), b.user, "test"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, name := range []string{"find", "update", "delete", "insert"} {
		if seen[name] == 0 {
			t.Errorf("no %s was seen: the test watches nothing", name)
		}
	}
}
