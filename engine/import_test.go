package engine_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/engine/audit"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/users"
)

// "lètmein" by Werkzeug 3.1.8.
const werkzeugHash = "pbkdf2:sha256:1000$WRRGhJgeOhHXsM5H$ce46a4c5491c4164bc232841b3455cf9fff358b8964508e4ab2af57efcd249d5"

func TestImportUsers(t *testing.T) {
	t.Parallel()
	w := setup(t, `"policy":{"authorization":{"default_roles":["user","editor","admin"],
		"initial_roles":[{"user":"boss@example.com","role":"admin"},{"user":"claims@example.com","role":"admin"}]}}`)
	file := `{"email":"ada@example.com","password_hash":"` + werkzeugHash + `","roles":["editor","user"]}
{"email":"Boss@example.com","email_verified":true}
{"email":"claims@example.com"}
{"email":"root@example.com","roles":["root"]}
`
	ids := map[string]string{}
	report, err := w.app.ImportUsers(t.Context(), strings.NewReader(file), users.ImportOptions{
		OnLine: func(r users.LineResult) { ids[r.Email] = r.UserID },
	})
	if err != nil || report.Imported != 3 || report.Refused != 1 || report.Errors[0].Field != "roles" {
		t.Fatalf("%+v, %v", report, err)
	}
	for email, want := range map[string]string{
		"ada@example.com": "[editor user]", "Boss@example.com": "[admin user]",
		"claims@example.com": "[user]", // nobody has made sure of the address
	} {
		roles, err := w.app.Authz().AssignedRoles(t.Context(), ids[email])
		if err != nil || fmt.Sprint(roles) != want {
			t.Errorf("%s has the roles %v, %v; want %s", email, roles, err, want)
		}
	}
	login := func() *response {
		return w.do("POST", "/auth/login", obj("email", "ada@example.com", "password", "lètmein"))
	}
	w.want(login(), 200, "")
	var doc struct {
		Hash string `bson:"password_hash"`
	}
	if err := w.db.Collection("users").FindOne(t.Context(), bson.M{"_id": ids["ada@example.com"]}).Decode(&doc); err != nil || !strings.HasPrefix(doc.Hash, "$mandate$") {
		t.Errorf("the hash after the first sign-in: %s, %v", doc.Hash, err)
	}
	w.want(login(), 200, "")
	again, err := w.app.ImportUsers(t.Context(), strings.NewReader(file), users.ImportOptions{})
	if err != nil || again.Existing != 3 || again.Imported != 0 {
		t.Errorf("again: %+v, %v", again, err)
	}
	if types := w.trailOf(audit.Filter{Type: event.UserImported}); len(types) != 3 {
		t.Errorf("%d records of imported users, want 3", len(types))
	}
}

// An import is faster than sinks and trails. What it did has to be on record all
// the same.
func TestImportLosesNoRecords(t *testing.T) {
	t.Parallel()
	w := setup(t, `"policy":{"authorization":{"default_roles":["user"]}}`)
	const lines = 3_000
	var file strings.Builder
	for i := range lines {
		fmt.Fprintf(&file, "{\"email\":\"u%d@example.com\"}\n", i)
	}
	report, err := w.app.ImportUsers(t.Context(), strings.NewReader(file.String()), users.ImportOptions{})
	if err != nil || report.Imported != lines {
		t.Fatalf("%+v, %v", report, err)
	}
	if err := w.app.Audit().Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []event.Type{event.UserImported, event.RoleGranted} {
		n, err := w.db.Collection("audit_events").CountDocuments(t.Context(), bson.M{"app": "shop", "type": kind})
		if err != nil || n != lines {
			t.Errorf("%d of %d records of %s are in the trail: %v", n, lines, kind, err)
		}
	}
	until(t, "every event has reached the sinks", func() bool {
		return len(slices.DeleteFunc(w.events.All(), func(e event.Event) bool { return e.Type != event.UserImported })) == lines
	})
}

// hanging is a sink that does nothing until it is closed.
type hanging chan struct{}

func (h hanging) Record(context.Context, event.Event) { <-h }

// A sink that hangs must not hold an import for ever.
func TestImportPassesASinkThatHangs(t *testing.T) {
	t.Parallel()
	stop := make(chan struct{})
	m := manifestOf(t, "shop", `"policy":{"authorization":{"default_roles":["user"]}}`)
	w := newWorld(t, storetest.Database(t), m, func(o *engine.Options) { o.Sinks = append(o.Sinks, hanging(stop)) })
	t.Cleanup(func() { close(stop) })
	var file strings.Builder
	for i := range 300 {
		fmt.Fprintf(&file, "{\"email\":\"u%d@example.com\"}\n", i)
	}
	began := time.Now()
	report, err := w.app.ImportUsers(t.Context(), strings.NewReader(file.String()), users.ImportOptions{})
	if err != nil || report.Imported != 300 || time.Since(began) > 30*time.Second {
		t.Errorf("%+v, %v after %s", report, err, time.Since(began))
	}
}
