package engine_test

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/event"
)

// commandLog records the commands that reach MongoDB.
type commandLog struct {
	mu   sync.Mutex
	seen []bson.Raw
	hook func(name string)
}

func (l *commandLog) monitor() *event.CommandMonitor {
	return &event.CommandMonitor{Started: func(_ context.Context, e *event.CommandStartedEvent) {
		l.mu.Lock()
		hook := l.hook
		l.seen = append(l.seen, append(bson.Raw(nil), e.Command...))
		l.mu.Unlock()
		if hook != nil && !background(e.Command) {
			hook(e.CommandName)
		}
	}}
}

// setHook makes hook be called before each command in the foreground.
func (l *commandLog) setHook(hook func(name string)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hook = hook
}

func (l *commandLog) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = nil
}

func (l *commandLog) commands() []bson.Raw {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]bson.Raw(nil), l.seen...)
}

// foreground lists the commands that a request caused, without those of the
// feed.
func (l *commandLog) foreground() string {
	var out []string
	for _, c := range l.commands() {
		if !background(c) {
			out = append(out, commandName(c)+" "+collectionOf(c))
		}
	}
	return strings.Join(out, ", ")
}

func commandName(c bson.Raw) string {
	elements, err := c.Elements()
	if err != nil || len(elements) == 0 {
		return ""
	}
	return elements[0].Key()
}

func collectionOf(c bson.Raw) string {
	name, _ := c.Lookup(commandName(c)).StringValueOK()
	if name == "" {
		name, _ = c.Lookup("collection").StringValueOK()
	}
	return name
}

// background reports whether the command belongs to the feed or the driver.
func background(c bson.Raw) bool {
	switch name := commandName(c); name {
	case "getMore", "killCursors", "hello", "ping", "endSessions", "aggregate":
		return true
	case "find":
		watched := collectionOf(c) == "token_blacklist" || collectionOf(c) == "app_state"
		return watched && c.Lookup("filter", "_id").Type == 0
	default:
		return false
	}
}

// filters returns the filters of a command.
func filters(c bson.Raw) []bson.Raw {
	var out []bson.Raw
	for _, path := range [][]string{{"filter"}, {"query"}} {
		if d, ok := c.Lookup(path...).DocumentOK(); ok {
			out = append(out, d)
		}
	}
	for _, list := range []string{"updates", "deletes"} {
		values, ok := c.Lookup(list).ArrayOK()
		if !ok {
			continue
		}
		items, err := values.Values()
		if err != nil {
			continue
		}
		for _, item := range items {
			if d, ok := item.Document().Lookup("q").DocumentOK(); ok {
				out = append(out, d)
			}
		}
	}
	return out
}

func describe(c bson.Raw) string { return fmt.Sprintf("%s %s: %v", commandName(c), collectionOf(c), c) }
