package engine_test

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/internal/store/storetest"
)

// 500 tries at once on two engines let as many through as the rule says.
func TestOneLimitForAllInstances(t *testing.T) {
	t.Parallel()
	auth := `"rate_limits":{"uploads":{"max":10,"window":"1h"}}`
	w := setup(t, auth)
	second := newWorld(t, storetest.Second(t, w.db, nil), manifestOf(t, "shop", auth))
	var passed atomic.Int64
	var wg sync.WaitGroup
	handlers := []http.Handler{w.app.RateLimited("uploads", nil).Handler(ok), second.app.RateLimited("uploads", nil).Handler(ok)}
	for i := range 500 {
		wg.Go(func() {
			r := do(t, handlers[i%2], "GET", "/", nil)
			switch {
			case r.status == 200:
				passed.Add(1)
			case r.code() != "rate_limited" || r.header.Get("Retry-After") == "" || r.header.Get("X-RateLimit-Remaining") != "0":
				t.Errorf("got %d %s %v", r.status, r.raw, r.header)
			}
		})
	}
	wg.Wait()
	if n := passed.Load(); n != 10 {
		t.Errorf("%d passed, want 10", n)
	}
}

// The limits of our own routes, with nothing but the defaults.
func TestDefaultLimits(t *testing.T) {
	t.Parallel()
	w := setup(t, `"rate_limits":{}`)
	w.register()
	codes := func(n int, f func() *response) (out []int) {
		for range n {
			out = append(out, f().status)
		}
		return out
	}
	wrong := with(account, "password", "wrong")
	if got := codes(6, func() *response { return w.do("POST", "/auth/login", wrong) }); !slices.Equal(got, []int{401, 401, 401, 401, 401, 429}) {
		t.Errorf("logins: %v", got)
	}
	// Another address is another matter, another spelling is not.
	w.want(w.do("POST", "/auth/login", with(account, "email", "ADA@example.com", "password", "wrong")), 429, "rate_limited")
	w.want(w.do("POST", "/auth/login", with(account, "email", "bob@example.com", "password", "wrong")), 401, "invalid_credentials")
	w.want(w.do("POST", "/auth/login", account, from("198.51.100.7:1234")), 200, "")
	if got := codes(3, func() *response { return w.do("POST", "/auth/register", with(account, "email", "x@example.com")) }); !slices.Equal(got, []int{201, 409, 429}) {
		t.Errorf("registrations: %v", got)
	}
	w.move(10*time.Minute + time.Second)
	r := w.want(w.do("POST", "/auth/login", account), 200, "")
	if r.header.Get("X-RateLimit-Limit") == "" || r.header.Get("RateLimit-Policy") == "" {
		t.Errorf("headers: %v", r.header)
	}
	refresh := r.text("refresh_token")
	last := 0
	for range 11 {
		r := w.do("POST", "/auth/refresh", obj("refresh_token", refresh))
		if last = r.status; last == 200 {
			refresh = r.text("refresh_token")
		}
	}
	if last != 429 {
		t.Errorf("the eleventh refresh: %d", last)
	}
}

// Passwords by Basic are guessed no faster than at the sign-in, and right ones are not
// held up.
func TestGuessingByBasic(t *testing.T) {
	t.Parallel()
	w := setup(t, `"rate_limits":{"login_address":{"max":5},"register":{"max":100}},"requirements":[{"path":"/basic","methods_allowed":["basic"]}]`)
	w.register()
	h := w.app.Protect(ok)
	for range 10 {
		if r := do(t, h, "GET", "/basic", nil, basicAuth(email, password)); r.status != 200 {
			t.Fatalf("the right password: %d %s", r.status, r.raw)
		}
	}
	for i := range 5 {
		w.want(do(t, h, "GET", "/basic", nil, basicAuth("nobody"+strings.Repeat("x", i)+"@example.com", "wrong")), 401, "invalid_credentials")
	}
	before := w.hashes.Load()
	r := do(t, h, "GET", "/basic", nil, basicAuth("another@example.com", "wrong"))
	if r.status != 429 || r.code() != "rate_limited" || r.header.Get("Retry-After") == "" || w.hashes.Load() != before {
		t.Errorf("the sixth guess from one address: %d %s, %d hashes", r.status, r.raw, w.hashes.Load()-before)
	}
	if r := do(t, h, "GET", "/basic", nil, basicAuth(email, password), from("198.51.100.7:1")); r.status != 200 {
		t.Errorf("from elsewhere: %d %s", r.status, r.raw)
	}
}
