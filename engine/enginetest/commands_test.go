package enginetest_test

import (
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/engine/audit"
	"github.com/mandate-auth/mandate/engine/enginetest"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/tokens/apikey"
)

// When a key was used is noted by a goroutine, too.
func TestNotesAreBackground(t *testing.T) {
	t.Parallel()
	env := enginetest.New(t, &enginetest.Options{Manifest: `{"slug":"test","auth":{"api_keys":{"enabled":true}}}`})
	ada := env.Start(t, enginetest.User{Email: "ada@example.com"})
	key, err := env.App.APIKeys().Create(t.Context(), apikey.NewKey{UserID: ada.UserID, Name: "ci"})
	if err != nil {
		t.Fatal(err)
	}
	env.Commands.Reset()
	if _, err := env.App.Verify(t.Context(), key.Key); err != nil {
		t.Fatal(err)
	}
	if err := env.App.APIKeys().Close(t.Context()); err != nil { // which writes what is still to be written
		t.Fatal(err)
	}
	if all := enginetest.Names(env.Commands.All()); !strings.Contains(all, "update api_keys") {
		t.Errorf("commands: %s", all)
	}
	if got := enginetest.Names(env.Commands.Foreground()); got != "find api_keys, find users" {
		t.Errorf("commands in the foreground: %s", got)
	}
}

// What the audit trail writes comes whenever it likes, and would be counted as the
// request's by whoever counts. What reads the trail is asked for.
func TestRecordingIsBackground(t *testing.T) {
	t.Parallel()
	env := enginetest.New(t, nil)
	env.Start(t, enginetest.User{Email: "ada@example.com"})
	trail := env.App.Audit()
	env.Commands.Reset()
	if err := trail.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	if all := env.Commands.All(); len(all) == 0 {
		t.Error("nothing was written")
	}
	if got := enginetest.Names(env.Commands.Foreground()); got != "" {
		t.Errorf("commands: %s", got)
	}
	records, _, err := trail.Query(t.Context(), audit.Filter{Type: event.SessionStarted}, 0, "")
	if err != nil || len(records) != 1 {
		t.Errorf("records: %v, %v", records, err)
	}
	if got := enginetest.Names(env.Commands.Foreground()); got != "find audit_events" {
		t.Errorf("commands: %s", got)
	}
}

// What looks for mail comes whenever it likes, what asks for some does not. Filters are
// those of a count as well.
func TestLookingForMailIsBackground(t *testing.T) {
	t.Parallel()
	command := func(d bson.D) enginetest.Command {
		raw, err := bson.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		return enginetest.NewCommand(raw)
	}
	id, app := bson.E{Key: "_id", Value: "mail_1"}, bson.E{Key: "app", Value: "test"}
	for _, tt := range []struct {
		command    bson.D
		background bool
	}{
		{bson.D{{Key: "findAndModify", Value: "mail_outbox"}, {Key: "query", Value: bson.D{app}}}, true},
		{bson.D{{Key: "update", Value: "mail_outbox"}, {Key: "updates", Value: bson.A{bson.D{{Key: "q", Value: bson.D{id, app}}}}}}, true},
		{bson.D{{Key: "delete", Value: "mail_outbox"}, {Key: "deletes", Value: bson.A{bson.D{{Key: "q", Value: bson.D{id, app}}}}}}, true},
		{bson.D{{Key: "delete", Value: "mail_outbox"}, {Key: "deletes", Value: bson.A{bson.D{{Key: "q", Value: bson.D{app}}}}}}, false},
		{bson.D{{Key: "insert", Value: "mail_outbox"}}, false},
		{bson.D{{Key: "find", Value: "mail_outbox"}, {Key: "filter", Value: bson.D{app}}}, false},
		{bson.D{{Key: "findAndModify", Value: "onetime_tokens"}, {Key: "query", Value: bson.D{id}}}, false},
	} {
		if c := command(tt.command); c.Background() != tt.background {
			t.Errorf("%s is background: %t", c, c.Background())
		}
	}
	count := command(bson.D{{Key: "aggregate", Value: "x"}, {Key: "pipeline", Value: bson.A{bson.D{{Key: "$match", Value: bson.D{app}}}}}})
	if f := count.Filters(); len(f) != 1 || f[0].Lookup("app").StringValue() != "test" {
		t.Errorf("the filters are %s", f)
	}
}
