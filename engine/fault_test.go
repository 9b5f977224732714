package engine_test

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/mandate-auth/mandate/internal/store/storetest"
)

// The connection breaks before each command of a request in turn. The answer is
// 503 with Retry-After or the whole success, never anything else, and the same
// request succeeds once the database is back.
func TestFaultsOfRequests(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		send  func(w *world, first *response) *response
		good  int
		again []int // what the repetition may answer besides
		steps int
	}{
		{"register", func(w *world, _ *response) *response {
			return w.do("POST", "/auth/register", obj("email", "new@example.com", "password", password))
		}, 201, []int{409}, 4},
		{"login", func(w *world, _ *response) *response { return w.do("POST", "/auth/login", account) }, 200, nil, 7},
		{"wrong password", func(w *world, _ *response) *response {
			return w.do("POST", "/auth/login", with(account, "password", "wrong"))
		}, 401, nil, 4},
		{"refresh", func(w *world, first *response) *response {
			return w.do("POST", "/auth/refresh", obj("refresh_token", first.text("refresh_token")))
		}, 200, nil, 3},
		{"guest", func(w *world, _ *response) *response {
			return w.do("POST", "/auth/anonymous", obj("device_id", "0123456789abcdef0123456789abcdef"))
		}, 200, nil, 5},
		{"profile", func(w *world, first *response) *response {
			return w.do("PATCH", "/auth/me", obj("profile", obj("a", "b")), bearer(first.text("access_token")))
		}, 200, nil, 2},
		{"sessions", func(w *world, first *response) *response {
			return w.do("GET", "/auth/sessions", nil, bearer(first.text("access_token")))
		}, 200, nil, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for step := 1; ; step++ {
				commands := &commandLog{}
				db, link := storetest.LinkedAndMonitored(t, commands.monitor())
				w := newWorld(t, db, manifestOf(t, "shop", guests))
				first := w.register()
				var count atomic.Int64
				commands.setHook(func(string) {
					if count.Add(1) == int64(step) {
						link.Cut()
					}
				})
				r := tt.send(w, first)
				reached := count.Load() >= int64(step)
				commands.setHook(nil)
				if r.status != tt.good && (r.status != 503 || r.code() != "unavailable" || r.header.Get("Retry-After") == "") {
					t.Errorf("step %d: got %d %s", step, r.status, r.raw)
				}
				if r.status == 503 && (r.text("access_token") != "" || len(r.header["Set-Cookie"]) != 0) {
					t.Errorf("step %d: a refusal hands out tokens: %s", step, r.raw)
				}
				link.Restore()
				until(t, fmt.Sprintf("step %d: the repetition to succeed", step), func() bool {
					again := tt.send(w, first).status
					return again == tt.good || slices.Contains(tt.again, again)
				})
				w.want(w.do("POST", "/auth/login", account), 200, "")
				if !reached {
					if step <= tt.steps {
						t.Errorf("only %d steps were found, want %d or more", step-1, tt.steps)
					}
					return
				}
			}
		})
	}
}
