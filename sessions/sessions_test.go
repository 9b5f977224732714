package sessions_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/sessions"
)

func TestSignInRefreshAndEnd(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first := b.signIn(t)
	if first.Epoch != 0 || first.Remember || first.AccessExpiresAt.After(b.now().Add(15*time.Minute)) {
		t.Errorf("issued: %+v", first)
	}
	second := b.refresh(t, first.RefreshToken, nil)
	if second.SessionID != first.SessionID || second.RefreshToken == first.RefreshToken || !second.AuthTime.Equal(first.AuthTime) {
		t.Errorf("a refresh has to rotate the token and keep session and auth_time: %+v", second)
	}
	list := b.live(t)
	if len(list) != 1 || list[0].ID != first.SessionID || list[0].DeviceName != "laptop" || list[0].FirstIP != "192.0.2.1" {
		t.Errorf("List: %+v", list)
	}
	if kind, err := b.Check(b.ctx(), b.user, first.SessionID); err != nil || kind != authz.KindHuman {
		t.Errorf("Check: %v, %v", kind, err)
	}
	if err := b.End(b.ctx(), store.NewID("usr_"), first.SessionID, "test"); !errors.Is(err, sessions.ErrNotFound) {
		t.Errorf("another user ended the session: %v", err)
	}
	for range 2 { // ending what has ended succeeds
		if err := b.EndByToken(b.ctx(), first.RefreshToken, "logout"); err != nil {
			t.Fatal(err)
		}
	}
	if !b.revoked(first.SessionID) || len(b.live(t)) != 0 {
		t.Error("the ended session is not on the blacklist, or still listed")
	}
	b.refresh(t, second.RefreshToken, sessions.ErrExpired)
	if _, err := b.Check(b.ctx(), b.user, first.SessionID); !errors.Is(err, sessions.ErrExpired) {
		t.Errorf("Check of an ended session: %v", err)
	}
}

func TestExpiry(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *sessions.Config) { c.IdleTimeout, c.RefreshTTL = 10*time.Hour, 24*time.Hour })
	idle := b.signIn(t)
	b.move(10*time.Hour + time.Second)
	b.refresh(t, idle.RefreshToken, sessions.ErrExpired)

	sliding := b.signIn(t)
	for range 2 {
		b.move(9 * time.Hour)
		sliding = b.refresh(t, sliding.RefreshToken, nil)
	}
	b.move(5*time.Hour + 50*time.Minute)
	last := b.refresh(t, sliding.RefreshToken, nil)
	if left := last.AccessExpiresAt.Sub(b.now()); left > 10*time.Minute {
		t.Errorf("the access token outlives the session by %v", left-10*time.Minute)
	}
	b.move(11 * time.Minute)
	b.refresh(t, last.RefreshToken, sessions.ErrExpired)

	remembered, err := b.trySignIn(sessions.CreateOptions{Remember: true})
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		b.move(9 * time.Hour)
		remembered = b.refresh(t, remembered.RefreshToken, nil)
	}
	if !remembered.Remember {
		t.Error("a refresh forgot that the sign-in is remembered")
	}
	b.move(4 * time.Hour)
	b.refresh(t, remembered.RefreshToken, sessions.ErrExpired)
}

func TestAuthTime(t *testing.T) {
	t.Parallel()
	b := setup(t)
	earlier := b.now().Add(-time.Hour)
	for _, tt := range []struct{ given, latest time.Time }{
		{time.Time{}, b.now().Add(time.Minute)}, {earlier, earlier}, {b.now().Add(time.Hour), b.now().Add(time.Minute)},
	} {
		issued, err := b.trySignIn(sessions.CreateOptions{AuthTime: tt.given})
		if err != nil {
			t.Fatal(err)
		}
		if issued.AuthTime.After(tt.latest) || issued.AuthTime.Before(earlier.Add(-time.Second)) {
			t.Errorf("auth_time %v for %v given at %v: a proof cannot lie ahead", issued.AuthTime, tt.given, b.now())
		}
		if again := b.refresh(t, issued.RefreshToken, nil); !again.AuthTime.Equal(issued.AuthTime) {
			t.Errorf("a refresh moved auth_time from %v to %v", issued.AuthTime, again.AuthTime)
		}
	}
}

func TestGetAndList(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first := b.signIn(t)
	b.move(time.Minute)
	second := b.signIn(t)
	b.move(time.Minute)
	b.refresh(t, first.RefreshToken, nil)
	list := b.live(t)
	if len(list) != 2 || list[0].ID != first.SessionID || list[1].ID != second.SessionID {
		t.Errorf("the most recently used session has to come first: %+v", list)
	}
	got, err := b.Get(b.ctx(), b.user, first.SessionID)
	if err != nil || *got != list[0] {
		t.Errorf("Get: %+v, %v; want what is listed", got, err)
	}
	if err := b.End(b.ctx(), b.user, first.SessionID, "x"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ user, id string }{
		{b.user, first.SessionID}, {store.NewID("usr_"), second.SessionID}, {"", second.SessionID}, {b.user, "ses_none"},
	} {
		if _, err := b.Get(b.ctx(), c.user, c.id); !errors.Is(err, sessions.ErrNotFound) {
			t.Errorf("Get(%q, %q): got %v, want ErrNotFound", c.user, c.id, err)
		}
	}
}

func TestSweepRemovesWhatIsOver(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *sessions.Config) { c.RefreshTTL = time.Hour })
	b.signIn(t)
	b.move(2 * time.Hour)
	kept := b.signIn(t)
	if n, err := b.Sweep(b.ctx()); err != nil || n > 1 {
		t.Errorf("Sweep: %d, %v; one session is over", n, err)
	}
	b.refresh(t, kept.RefreshToken, nil)
}

func TestActivityIsWrittenLater(t *testing.T) {
	t.Parallel()
	b := setup(t)
	issued := b.signIn(t)
	// note is what one instance writes about the session within its life.
	note := func(times int) time.Time {
		t.Helper()
		other := b.on(t, b.db)
		for range times {
			other.Seen(issued.SessionID)
		}
		if err := other.Close(b.ctx()); err != nil {
			t.Fatal(err)
		}
		return b.live(t)[0].LastSeenAt
	}
	b.move(time.Hour)
	first := note(5000) // more than the queue holds
	if b.now().Sub(first) > time.Minute {
		t.Errorf("last seen %v ago, and just used", b.now().Sub(first))
	}
	b.move(30 * time.Second)
	if again := note(1); !again.Equal(first) {
		t.Error("another instance wrote the activity again within a minute")
	}
	b.move(31 * time.Second)
	if later := note(1); !later.After(first) {
		t.Error("activity after the minute was not written")
	}
	if err := b.End(b.ctx(), b.user, issued.SessionID, "x"); err != nil {
		t.Fatal(err)
	}
	b.Seen("ses_unknown")
	b.Seen(issued.SessionID)
	for range 2 { // closing again is fine, and what is noted after it is dropped
		if err := b.Close(b.ctx()); err != nil {
			t.Fatal(err)
		}
		b.Seen(issued.SessionID)
	}
}

// One instance writes a session's activity once a minute and all that waits at
// once.
func TestActivityCostsFewCommands(t *testing.T) {
	t.Parallel()
	b := setup(t)
	watched, p, _ := b.watched(t)
	var ids []string
	for range 20 {
		ids = append(ids, b.signIn(t).SessionID)
	}
	b.move(time.Hour)
	hold, held := make(chan struct{}), make(chan struct{})
	p.arm("update user_sessions", func() {
		close(held)
		<-hold
	})
	watched.Seen(ids[0])
	<-held
	for range 3 {
		for _, id := range ids {
			watched.Seen(id)
		}
	}
	close(hold)
	if err := watched.Close(b.ctx()); err != nil {
		t.Fatal(err)
	}
	if trace := p.disarm(); len(trace) != 2 {
		t.Errorf("61 notes of 20 sessions cost %d commands, want 2: %v", len(trace), trace)
	}
	again, p, _ := b.watched(t)
	hold, held = make(chan struct{}), make(chan struct{})
	p.arm("update user_sessions", func() {
		close(held)
		<-hold
	})
	again.Seen(ids[0])
	<-held
	again.Seen(ids[0])
	close(hold)
	if err := again.Close(b.ctx()); err != nil {
		t.Fatal(err)
	}
	if trace := p.disarm(); len(trace) != 1 {
		t.Errorf("two notes of one session within a minute cost %d commands, want 1", len(trace))
	}
}

// A shutdown does not wait for a database that is away.
func TestCloseGivesUp(t *testing.T) {
	t.Parallel()
	b := setup(t)
	issued := b.signIn(t)
	watched, p, _ := b.watched(t)
	hold, held := make(chan struct{}), make(chan struct{})
	p.arm("update user_sessions", func() {
		close(held)
		<-hold
	})
	watched.Seen(issued.SessionID)
	<-held
	gone, cancel := context.WithCancel(b.ctx())
	cancel()
	if err := watched.Close(gone); !errors.Is(err, context.Canceled) {
		t.Errorf("Close: got %v, want the end of its context", err)
	}
	close(hold)
	if err := watched.Close(b.ctx()); err != nil {
		t.Errorf("Close once more: %v", err)
	}
}

func TestAppsAreApart(t *testing.T) {
	t.Parallel()
	db := storetest.Database(t)
	a := setupOn(t, db)
	other := setupOn(t, db, func(c *sessions.Config) { c.App = "other" })
	other.user = a.user
	issued := a.signIn(t)
	if err := other.End(other.ctx(), a.user, issued.SessionID, "x"); !errors.Is(err, sessions.ErrNotFound) {
		t.Errorf("another app ended the session: %v", err)
	}
	if list := other.live(t); len(list) != 0 {
		t.Errorf("another app lists %v", list)
	}
	if _, err := other.Refresh(other.ctx(), issued.RefreshToken, laptop); !errors.Is(err, sessions.ErrExpired) {
		t.Errorf("another app with the same keys refreshed the session: %v", err)
	}
	a.refresh(t, issued.RefreshToken, nil)
	// Even a user id that both apps know opens no way from one to the other.
	if err := other.EndAll(other.ctx(), a.user, "x"); err == nil {
		t.Error("another app took over the head of the user")
	}
	if err := other.Forget(other.ctx(), a.user); err != nil {
		t.Fatal(err)
	}
	if len(a.live(t)) != 1 {
		t.Error("another app ended or removed the session")
	}
	apart := a.on(t, db, func(c *sessions.Config) { c.Keys = appKeys(t, "other") })
	if _, err := apart.Refresh(a.ctx(), issued.RefreshToken, laptop); !errors.Is(err, sessions.ErrTokenInvalid) {
		t.Errorf("the token of one app under the keys of another: got %v, want ErrTokenInvalid", err)
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	b := setup(t)
	wrong := map[string]func(*sessions.Config){
		"no app":           func(c *sessions.Config) { c.App = "" },
		"no keys":          func(c *sessions.Config) { c.Keys = nil },
		"no revoker":       func(c *sessions.Config) { c.Revoker = nil },
		"no accounts":      func(c *sessions.Config) { c.Accounts = nil },
		"negative limit":   func(c *sessions.Config) { c.MaxPerUser = -1 },
		"negative idle":    func(c *sessions.Config) { c.IdleTimeout = -1 },
		"negative life":    func(c *sessions.Config) { c.RefreshTTL = -1 },
		"negative access":  func(c *sessions.Config) { c.AccessTTL = -1 },
		"negative grace":   func(c *sessions.Config) { c.RotationGrace = -1 },
		"negative factor":  func(c *sessions.Config) { c.RememberMeFactor = -1 },
		"long access":      func(c *sessions.Config) { c.AccessTTL = 25 * time.Hour },
		"unknown on_limit": func(c *sessions.Config) { c.OnLimit = "ask" },
		"unknown device":   func(c *sessions.Config) { c.BindDevice = "refused" },
		"unknown ip":       func(c *sessions.Config) { c.BindIP = "on" },
	}
	for name, edit := range wrong {
		c := sessions.Config{App: "shop", Keys: appKeys(t, "shop"), Revoker: b.fakes, Accounts: b.fakes}
		edit(&c)
		if _, err := sessions.New(b.db, c); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	c := sessions.Config{App: "shop", Keys: appKeys(t, "shop"), Revoker: b.fakes, Accounts: b.fakes}
	if _, err := sessions.New(nil, c); err == nil {
		t.Error("no database was accepted")
	}
}
