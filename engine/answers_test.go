package engine_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/users"
)

// Of two upserts that insert at once a server refuses one: the wrong code is counted all
// the same.
func TestWrongCodesAtOnce(t *testing.T) {
	t.Parallel()
	var refused atomic.Int32
	db := storetest.Answering(t, storetest.Database(t), &storetest.Answers{Answer: func(c bson.Raw) bson.D {
		name, _ := c.Lookup("update").StringValueOK()
		text := c.String()
		if name != "login_attempts" || !strings.Contains(text, `"upsert": true`) || !strings.Contains(text, "streak") || strings.Contains(text, "budget") || refused.Add(1) > 1 {
			return nil
		}
		return bson.D{{Key: "ok", Value: 1}, {Key: "n", Value: 0}, {Key: "nModified", Value: 0}, {Key: "writeErrors", Value: bson.A{bson.D{
			{Key: "index", Value: 0}, {Key: "code", Value: 11000}, {Key: "errmsg", Value: "E11000 duplicate key error"},
		}}}}
	}})
	m := mailingOn(t, db, `"users":{"allow_registration":true}`)
	m.register()
	m.token(email)
	flow := m.want(m.do("POST", "/auth/code", obj("email", email)), 202, "").text("flow_id")
	m.want(m.do("POST", "/auth/code/consume", obj("flow_id", flow, "code", other(codeIn.FindString(m.mail(email).Text)))), 400, "link_invalid")
	if refused.Load() != 2 {
		t.Errorf("%d upserts were seen, want the refused one and another", refused.Load())
	}
}

// other is a code that is not this one.
func other(code string) string {
	if code == "000000" {
		return "000001"
	}
	return "000000"
}

// An import ends where the trail takes no records, although nothing else is wrong.
func TestImportWithoutTrail(t *testing.T) {
	t.Parallel()
	var full atomic.Bool
	db := storetest.Answering(t, storetest.Database(t), &storetest.Answers{Answer: func(c bson.Raw) bson.D {
		if name, _ := c.Lookup("insert").StringValueOK(); name == "audit_events" && full.Load() {
			return bson.D{{Key: "ok", Value: 0}, {Key: "code", Value: 14031}, {Key: "codeName", Value: "OutOfDiskSpace"}, {Key: "errmsg", Value: "no space"}}
		}
		return nil
	}})
	w := newWorld(t, db, manifestOf(t, "shop", ``))
	if err := w.app.Audit().Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	full.Store(true)
	t.Cleanup(func() { full.Store(false) }) // before the engine is closed
	w.do("POST", "/auth/login", obj("email", "x@example.com", "password", "wrong wrong wrong"))
	r, err := w.app.ImportUsers(t.Context(), strings.NewReader(lines(3)), users.ImportOptions{})
	if err == nil {
		t.Errorf("the import waited for nothing: %+v", r)
	}
}

func lines(n int) string {
	var file strings.Builder
	for i := range n {
		fmt.Fprintf(&file, "{\"email\":\"u%d@example.com\"}\n", i)
	}
	return file.String()
}

// ownRoles keeps roles elsewhere.
type ownRoles struct{}

func (ownRoles) CheckRoles([]string) error                       { return nil }
func (ownRoles) GrantRoles(context.Context, []users.Grant) error { return nil }
func (ownRoles) Forget(context.Context, string) error            { return nil }

// slowSink counts imported users, and takes its time.
type slowSink struct{ n atomic.Int64 }

func (s *slowSink) Record(_ context.Context, e event.Event) {
	if e.Type == event.UserImported {
		s.n.Add(1)
		time.Sleep(time.Millisecond)
	}
}

// No event of an import is lost for its speed, whoever keeps the roles.
func TestImportLosesNoEvent(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]users.ImportOptions{"the manifest's": {}, "the caller's": {Roles: ownRoles{}}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const people = 3000
			s := &slowSink{}
			w := newWorld(t, storetest.Database(t), manifestOf(t, "shop", ``), func(o *engine.Options) { o.Sinks = append(o.Sinks, s) })
			if r, err := w.app.ImportUsers(t.Context(), strings.NewReader(lines(people)), o); err != nil || r.Imported != people {
				t.Fatal(r, err)
			}
			until(t, "every event", func() bool { return s.n.Load() == people })
		})
	}
}
