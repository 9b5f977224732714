package enginetest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/event"

	"github.com/mandate-auth/mandate/engine/audit"
	"github.com/mandate-auth/mandate/mail"
)

// Commands records the commands that reach MongoDB, so that a test can count them
// and look at their filters. It is safe for concurrent use. The zero value is
// ready.
type Commands struct {
	mu   sync.Mutex
	seen []Command
	hook func(Command)
}

// Command is a command as it was sent.
type Command struct {
	// Name is "find", "update", "findAndModify", …
	Name string
	// Collection is the collection it is about, "" for none.
	Collection string
	// Raw is the command whole.
	Raw bson.Raw
}

// Monitor returns what records, for the options of a client.
func (c *Commands) Monitor() *event.CommandMonitor {
	return &event.CommandMonitor{Started: func(_ context.Context, e *event.CommandStartedEvent) {
		command := NewCommand(slices.Clone(e.Command))
		c.mu.Lock()
		hook := c.hook
		c.seen = append(c.seen, command)
		c.mu.Unlock()
		if hook != nil && !command.Background() {
			hook(command)
		}
	}}
}

// Hook makes hook be called before each command that a request or a call causes,
// in its goroutine; nil ends it. A test can cut a connection there, or wait.
func (c *Commands) Hook(hook func(Command)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hook = hook
}

// All returns the commands so far.
func (c *Commands) All() []Command {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.seen)
}

// Foreground returns the commands so far that requests and calls have caused.
func (c *Commands) Foreground() []Command {
	return slices.DeleteFunc(c.All(), Command.Background)
}

// Reset forgets the commands so far.
func (c *Commands) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = nil
}

// NewCommand returns the command that the document is.
func NewCommand(raw bson.Raw) Command {
	c := Command{Raw: raw}
	elements, err := raw.Elements()
	if err != nil || len(elements) == 0 {
		return c
	}
	c.Name = elements[0].Key()
	if name, ok := elements[0].Value().StringValueOK(); ok {
		c.Collection = name
	} else if name, ok := raw.Lookup("collection").StringValueOK(); ok {
		c.Collection = name
	}
	return c
}

// Background reports whether the driver sent the command by itself, or the engine
// to follow what other instances write, to record what has happened, to note when a
// session or an API key was used and to look for mail: goroutines of theirs do that
// when it suits them. The later batches of any query count as such: they do not say
// whose they are. What is asked to compose a mail does not: close the App.Outbox where
// that is in the way.
func (c Command) Background() bool {
	switch c.Name {
	case "getMore", "killCursors", "hello", "isMaster", "ping", "endSessions":
		return true
	case "aggregate":
		_, err := c.Raw.LookupErr("pipeline", "0", "$changeStream")
		return err == nil
	case "insert":
		return c.Collection == audit.Collection
	case "update":
		return c.Collection == audit.Collection || c.Raw.Lookup("updates", "0", "q", "last_seen_at").Type != 0 ||
			c.Raw.Lookup("updates", "0", "u", "$set", "last_used_at").Type != 0 || c.Collection == mail.Collection
	case "findAndModify":
		return c.Collection == mail.Collection
	case "delete":
		return c.Collection == mail.Collection && c.Raw.Lookup("deletes", "0", "q", "_id").Type != 0
	case "find":
		if c.Collection == audit.Collection { // other instances' chains, and whether a record has been stored
			return c.Raw.Lookup("filter", "_id", "$ne").Type != 0 || c.Raw.Lookup("filter", "_id", "$in").Type != 0
		}
		followed := c.Collection == "token_blacklist" || c.Collection == "app_state"
		return followed && c.Raw.Lookup("filter", "_id").Type == 0
	default:
		return false
	}
}

// Filters returns the filters of the command: one, or one for each statement.
func (c Command) Filters() []bson.Raw {
	var out []bson.Raw
	for _, name := range []string{"filter", "query"} {
		if d, ok := c.Raw.Lookup(name).DocumentOK(); ok {
			out = append(out, d)
		}
	}
	if d, ok := c.Raw.Lookup("pipeline", "0", "$match").DocumentOK(); ok {
		out = append(out, d)
	}
	for _, list := range []string{"updates", "deletes"} {
		values, ok := c.Raw.Lookup(list).ArrayOK()
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

// String returns the command for people.
func (c Command) String() string { return fmt.Sprintf("%s %s: %s", c.Name, c.Collection, c.Raw) }

// Names returns "name collection" of each command, separated by commas.
func Names(commands []Command) string {
	out := make([]string, len(commands))
	for i, c := range commands {
		out[i] = c.Name + " " + c.Collection
	}
	return strings.Join(out, ", ")
}
