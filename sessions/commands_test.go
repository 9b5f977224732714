package sessions_test

import (
	"slices"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/sessions"
)

// No command leaves the app out, or uses what not every server has or what is
// dangerous with values from outside.
func TestEveryCommandNamesTheApp(t *testing.T) {
	t.Parallel()
	watch, monitor := storetest.WatchOneApp(t, "shop", "")
	db := storetest.Monitored(t, monitor)
	b := setupOn(t, db, func(c *sessions.Config) {
		c.MaxPerUser, c.BindDevice, c.BindIP = 2, sessions.BindRefuse, sessions.BindRefuse
	})
	for op, call := range operations {
		b.user = store.NewID("usr_")
		if err := call(b, b.world(t)); err != nil {
			t.Fatalf("%s: %v", op, err)
		}
	}
	issued, err := b.trySignIn(sessions.CreateOptions{}) // a device without any data
	if err != nil {
		t.Fatal(err)
	}
	b.Seen(issued.SessionID)
	if _, err := b.Get(b.ctx(), b.user, issued.SessionID); err != nil {
		t.Fatal(err)
	}
	b.move(8 * 24 * time.Hour)
	b.signIn(t) // prunes
	b.live(t)
	if _, err := b.Sweep(b.ctx()); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(b.ctx()); err != nil {
		t.Fatal(err)
	}
	if err := b.Forget(b.ctx(), b.user); err != nil {
		t.Fatal(err)
	}
	watch.Saw("find", "findAndModify", "update", "delete", "insert")
}

// What each operation costs where nothing is in its way, calls of the blacklist
// and the accounts included.
func TestCommandsOfEachOperation(t *testing.T) {
	t.Parallel()
	want := map[string][]string{
		"refresh": {"Active", "find session_heads", "findAndModify user_sessions"},
		"end":     {"AddSession", "findAndModify user_sessions", "update session_heads"},
		"logout":  {"AddSession", "findAndModify user_sessions", "update session_heads"},
		"endAll":  {"AddUser", "findAndModify session_heads", "update user_sessions"},
		// One entry for the other session; the last find looks for ends that died.
		"endOthers": {"AddSession", "find user_sessions", "find user_sessions", "findAndModify session_heads", "findAndModify user_sessions"},
		// The head is full: it is pruned, and the oldest is ended.
		"signIn": {"AddSession", "find session_heads", "find user_sessions", "findAndModify session_heads", "findAndModify user_sessions", "insert user_sessions"},
	}
	b := setup(t, twoSessions)
	watched, p, _ := b.watched(t, twoSessions)
	for op, steps := range want {
		b.user = store.NewID("usr_")
		w := b.world(t)
		p.arm("", nil)
		if err := operations[op](watched, w); err != nil {
			t.Fatalf("%s: %v", op, err)
		}
		if got := p.disarm(); !slices.Equal(sorted(got), steps) {
			t.Errorf("%s takes %v, want %v", op, got, steps)
		}
	}
	// The usual sign-in, with room for it.
	watched.user = store.NewID("usr_")
	for _, what := range []string{"first", "second"} {
		p.arm("", nil)
		watched.signIn(t)
		if got, want := sorted(p.disarm()), []string{"find session_heads", "findAndModify session_heads", "insert user_sessions"}; !slices.Equal(got, want) {
			t.Errorf("the %s sign-in takes %v, want %v", what, got, want)
		}
	}
}

func sorted(s []string) []string {
	slices.Sort(s)
	return s
}
