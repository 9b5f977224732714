package enginetest_test

import (
	"strings"
	"testing"

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
