package engine_test

import (
	"sync/atomic"
	"testing"

	"github.com/mandate-auth/mandate/engine/enginetest"
	"github.com/mandate-auth/mandate/internal/store/storetest"
)

// The connection breaks before each command of a change of password in turn.
// When it was answered, the other session and the old password are dead; when it
// was not, one of the two passwords works, and changing it again ends the rest.
func TestCrashDuringChangeOfPassword(t *testing.T) {
	t.Parallel()
	for step := 1; ; step++ {
		commands := &enginetest.Commands{}
		db, link := storetest.LinkedAndMonitored(t, commands.Monitor())
		w := newWorld(t, db, manifestOf(t, "shop", ``))
		observer := newWorld(t, storetest.Second(t, db, nil), manifestOf(t, "shop", ``))
		other, mine := w.register(), w.login()
		var count atomic.Int64
		commands.Hook(func(enginetest.Command) {
			if count.Add(1) == int64(step) {
				link.Cut()
			}
		})
		const next, last = "another long passphrase", "a third long passphrase"
		change := func(from, to string) *response {
			return w.do("POST", "/auth/password", obj("current_password", from, "new_password", to), bearer(mine.text("access_token")))
		}
		answered := change(password, next).status == 204
		reached := count.Load() >= int64(step)
		commands.Hook(nil)
		link.Restore()
		dead := func() bool {
			return observer.me(other.text("access_token")).status == 401 &&
				observer.do("POST", "/auth/refresh", obj("refresh_token", other.text("refresh_token"))).status == 401
		}
		if answered {
			until(t, "the other session to be dead", dead)
			observer.want(observer.do("POST", "/auth/login", account), 401, "invalid_credentials")
		}
		if !reached {
			if step < 5 {
				t.Errorf("only %d steps were found", step-1)
			}
			return
		}
		works := password
		if observer.do("POST", "/auth/login", with(account, "password", next)).status == 200 {
			works = next
		}
		until(t, "the change to succeed", func() bool { return change(works, last).status == 204 })
		until(t, "the other session to be dead after the repetition", dead)
		observer.want(observer.do("POST", "/auth/login", with(account, "password", last)), 200, "")
		observer.want(observer.me(mine.text("access_token")), 200, "")
	}
}
