package oauth2_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/event"

	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/tokens/oauth2"
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
	case "findAndModify":
		out = []bson.Raw{command.Lookup("query").Document()}
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
		if coll, _ := e.Command.Lookup(e.CommandName).StringValueOK(); coll != "oauth_clients" || slices.Contains([]string{"createIndexes", "listIndexes"}, e.CommandName) {
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
	b := setupOn(t, db)
	for name, op := range operations {
		must(t, op.call(b, b.world(t, name)))
	}
	c, err := b.Ensure(t.Context(), initial(strings.Repeat("1", 32), "read"))
	must(t, err)
	_, err = b.Ensure(t.Context(), initial(strings.Repeat("2", 32)))
	must(t, err)
	must(t, b.Enable(t.Context(), c.ID))
	must(t, b.SetScopes(t.Context(), c.ID, []string{"write"}))
	page, err := b.List(t.Context(), oauth2.ListOptions{Limit: 1})
	must(t, err)
	_, err = b.List(t.Context(), oauth2.ListOptions{Cursor: page.Next})
	must(t, err)
	b.list.fail.Store(true)
	if _, err := b.Rotate(t.Context(), c.ID); err == nil { // takes the secret away again
		t.Error("a rotation that could not be told was answered")
	}
	mu.Lock()
	defer mu.Unlock()
	for _, name := range []string{"find", "findAndModify", "update", "delete", "insert"} {
		if seen[name] == 0 {
			t.Errorf("no %s was seen: the test watches nothing", name)
		}
	}
}
