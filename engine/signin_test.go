package engine_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store/storetest"
)

// A service's own sign-in leaves nothing of the session that the browser had
// before (ASVS 7.2.4), also outside the base path, where the refresh cookie does
// not come.
func TestSignInOfTheServiceReplacesTheSession(t *testing.T) {
	t.Parallel()
	w := setup(t, ``)
	planted := w.register()
	id, _ := w.newUser("ben@example.com")
	signIn := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if err := w.app.SignIn(rw, r, id); err != nil {
			http.Error(rw, err.Error(), engine.AsProblem(err).Status)
		}
	})
	r := do(t, signIn, "POST", "/own/login", nil, header("Cookie", "__Host-shop_access="+planted.text("access_token")))
	expect(t, r.status, 200)
	w.want(w.me(planted.text("access_token")), 401, "token_revoked")
	w.want(w.do("POST", "/auth/refresh", obj("refresh_token", planted.text("refresh_token"))), 401, "session_expired")
	expect(t, w.do("GET", "/auth/me", nil, cookieHeader(r)).at("principal", "id"), any(id))

	bearerOnly := setup(t, `"tokens":{"transport":"bearer"}`)
	id, _ = bearerOnly.newUser("ben@example.com")
	w = bearerOnly
	expect(t, do(t, signIn, "POST", "/own/login", nil).status, 500)
}

// A sign-in whose claims cannot be had leaves no session behind.
func TestFailingClaimsLeaveNoSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t, storetest.Database(t), manifestOf(t, "shop", ``), func(o *engine.Options) {
		o.Claims = func(context.Context, string, string) (map[string]any, error) { return nil, errors.New("no claims") }
	})
	w.want(w.do("POST", "/auth/register", account), 500, "internal")
	user, err := w.app.Users().GetByEmail(t.Context(), email)
	if err != nil {
		t.Fatal(err)
	}
	list, err := w.app.Sessions().List(t.Context(), user.ID)
	expect(t, fmt.Sprint(len(list), err), "0 <nil>")
}

// A clock that is wrong at the start is reported.
func TestSkewAtTheStartIsReported(t *testing.T) {
	t.Parallel()
	w := newWorld(t, storetest.Database(t), manifestOf(t, "shop", ``), func(o *engine.Options) {
		o.Now = func() time.Time { return time.Now().Add(time.Minute) }
	})
	w.events.Wait(t, event.ClockSkewed)
}
