package engine_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/engine/enginetest"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store/storetest"
)

func TestLoadFile(t *testing.T) {
	t.Parallel()
	w := setup(t, ``)
	path := filepath.Join(t.TempDir(), "manifest.json")
	if _, err := w.eng.LoadFile(t.Context(), path); err == nil {
		t.Error("a file that is not there was loaded")
	}
	if err := os.WriteFile(path, []byte(`{"slug":"fromfile","base_path":"/x"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	app, err := w.eng.LoadFile(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if r := do(t, app.Handler(), "GET", "/x/health", nil); r.status != 200 {
		t.Errorf("health: %d %s", r.status, r.raw)
	}
	r := do(t, app.WellKnown(), "GET", "/.well-known/jwks.json", nil)
	if r.status != 404 || r.code() != "not_found" || r.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("a document that this version does not have: %d %s", r.status, r.raw)
	}
	called := false
	h := app.Optional(nil).Func(func(http.ResponseWriter, *http.Request) { called = true })
	if do(t, h, "GET", "/", nil); !called {
		t.Error("Func does not call the function")
	}
}

// A clock that is wrong makes tokens of other instances seem to come from the
// future: somebody has to notice.
func TestClockSkewIsNoticed(t *testing.T) {
	t.Parallel()
	right := setup(t, ``)
	if r := right.do("GET", "/auth/health", nil); r.text("status") != "ok" {
		t.Errorf("health with the right clock: %s", r.raw)
	}
	w := newWorld(t, storetest.Database(t), manifestOf(t, "shop", ``), func(o *engine.Options) {
		o.Now = func() time.Time { return time.Now().Add(time.Minute) }
	})
	if r := w.do("GET", "/auth/health", nil); r.text("status") != "clock_skewed" || r.status != 200 {
		t.Errorf("health with a wrong clock: %d %s", r.status, r.raw)
	}
}

func TestLogoutWithAnExpiredToken(t *testing.T) {
	t.Parallel()
	w := setup(t, ``)
	first, second := w.register(), w.login()
	w.move(time.Hour)
	expired := bearer(first.text("access_token"))
	w.want(w.me(first.text("access_token")), 401, "token_expired")
	for range 2 {
		w.want(w.do("POST", "/auth/logout", nil, expired), 204, "")
	}
	w.want(w.do("POST", "/auth/refresh", obj("refresh_token", first.text("refresh_token"))), 401, "session_expired")
	w.want(w.do("POST", "/auth/refresh", obj("refresh_token", second.text("refresh_token"))), 200, "")
	w.want(w.do("POST", "/auth/logout", nil, bearer("a.b.c")), 401, "token_invalid")
	// One good credential and one that means nothing: what is good is done.
	w.want(w.do("POST", "/auth/logout", obj("refresh_token", second.text("refresh_token")), bearer("a.b.c")), 204, "")
	w.want(w.do("POST", "/auth/refresh", obj("refresh_token", second.text("refresh_token"))), 401, "session_expired")
}

func TestDisabledGuest(t *testing.T) {
	t.Parallel()
	w := setup(t, guests)
	guest := w.want(w.do("POST", "/auth/anonymous", nil), 200, "")
	id, _ := guest.at("user", "id").(string)
	if err := w.app.Users().Disable(t.Context(), id, "test"); err != nil {
		t.Fatal(err)
	}
	w.want(w.me(guest.text("access_token")), 401, "token_revoked")
	w.want(w.do("POST", "/auth/anonymous", obj("device_id", guest.text("device_id"))), 403, "account_disabled")
	w.want(w.do("POST", "/auth/refresh", obj("refresh_token", guest.text("refresh_token"))), 401, "session_expired")
	w.events.Wait(t, event.UserDisabled)
}

// A database that takes its time over one app keeps no other app waiting, and not
// the end of the engine either. What has been loaded when the engine is closed is
// not let loose.
func TestALoadThatHangsHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	for _, collection := range []string{"other_blacklist", "other_sessions", "other_policies"} {
		t.Run(collection, func(t *testing.T) {
			t.Parallel()
			commands := &enginetest.Commands{}
			w := newWorld(t, storetest.Monitored(t, commands.Monitor()), manifestOf(t, "shop", ``))
			other := manifestOf(t, "other", `"tokens":{"blacklist_collection":"other_blacklist"},"sessions":{"collection":"other_sessions"},`+
				policy(`"policies_collection":"other_policies"`))
			reached, release := make(chan struct{}), make(chan struct{})
			var once sync.Once
			commands.Hook(func(c enginetest.Command) {
				if c.Name == "createIndexes" && c.Collection == collection {
					once.Do(func() { close(reached) })
					<-release
				}
			})
			loaded := make(chan error, 1)
			go func() {
				_, err := w.eng.Load(context.WithoutCancel(t.Context()), other)
				loaded <- err
			}()
			<-reached
			done := make(chan struct{})
			go func() {
				defer close(done)
				if w.eng.App("shop") == nil {
					t.Error("the app that serves is not there")
				}
				w.close()
			}()
			select {
			case <-done:
			case <-time.After(8 * time.Second):
				t.Error("the engine waits for the app that is being loaded")
			}
			close(release)
			if err := <-loaded; !errors.Is(err, engine.ErrClosed) {
				t.Errorf("loaded into a closed engine: %v, want ErrClosed", err)
			}
			<-done
			if w.eng.App("other") != nil {
				t.Error("a closed engine has an app that was loaded after its end")
			}
		})
	}
}
