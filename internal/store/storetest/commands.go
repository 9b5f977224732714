package storetest

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/event"
)

// harmless are the commands that touch no document of an app.
var harmless = []string{"hello", "isMaster", "ping", "endSessions", "createIndexes", "listIndexes", "dropDatabase"}

// banned is what not every server has, or what is dangerous with values from
// outside.
var banned = []string{`"$expr"`, `"$regex"`, `"$where"`, `.$"`, `.$[`, `null`, `"pipeline"`}

// OneApp watches that no command leaves the app out, or uses what not every server
// has. It is safe for concurrent use.
type OneApp struct {
	tb   testing.TB
	app  string
	coll string

	mu   sync.Mutex
	seen map[string]int
}

// WatchOneApp returns the watch over the commands of the collection, of every one where
// it is "", and the monitor that it needs.
func WatchOneApp(tb testing.TB, app, collection string) (*OneApp, *event.CommandMonitor) {
	w := &OneApp{tb: tb, app: app, coll: collection, seen: map[string]int{}}
	return w, &event.CommandMonitor{Started: func(_ context.Context, e *event.CommandStartedEvent) { w.started(e) }}
}

func (w *OneApp) started(e *event.CommandStartedEvent) {
	coll, _ := e.Command.Lookup(e.CommandName).StringValueOK()
	if slices.Contains(harmless, e.CommandName) || (w.coll != "" && coll != w.coll) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen[e.CommandName]++
	found := filters(e.Command, e.CommandName)
	if len(found) == 0 {
		w.tb.Errorf("the command %s has no filter that this test knows: %s", e.CommandName, e.Command)
	}
	for _, f := range found {
		if app, ok := f.Lookup("app").StringValueOK(); !ok || app != w.app {
			w.tb.Errorf("%s: the filter does not name the app: %s", e.CommandName, f)
		}
	}
	text := e.Command.String()
	for _, b := range banned {
		if strings.Contains(text, b) {
			w.tb.Errorf("%s uses %s: %s", e.CommandName, b, text)
		}
	}
}

// Saw fails the test unless each of the commands was seen.
func (w *OneApp) Saw(names ...string) {
	w.tb.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range names {
		if w.seen[name] == 0 {
			w.tb.Errorf("no %s was seen: the test watches nothing", name)
		}
	}
}

// filters returns what a command selects documents by, or what it inserts.
func filters(command bson.Raw, name string) []bson.Raw {
	each := func(list, field string) (out []bson.Raw) {
		values, _ := command.Lookup(list).Array().Values()
		for _, v := range values {
			if field == "" {
				out = append(out, v.Document())
			} else {
				out = append(out, v.Document().Lookup(field).Document())
			}
		}
		return out
	}
	switch name {
	case "find":
		return []bson.Raw{command.Lookup("filter").Document()}
	case "findAndModify":
		return []bson.Raw{command.Lookup("query").Document()}
	case "update":
		return each("updates", "q")
	case "delete":
		return each("deletes", "q")
	case "insert":
		return each("documents", "")
	default:
		return nil
	}
}
