package ratelimit_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mandate-auth/mandate/engine/ratelimit"
)

func TestHeaders(t *testing.T) {
	t.Parallel()
	five := ratelimit.Rule{Name: "login", Max: 5, Window: 5 * time.Minute}
	for _, c := range []struct {
		name     string
		decision ratelimit.Decision
		rule     ratelimit.Rule
		want     http.Header
	}{
		{
			"allowed",
			ratelimit.Decision{Allowed: true, Limit: 5, Remaining: 4, ResetAfter: 2 * time.Minute},
			five,
			http.Header{
				"X-Ratelimit-Limit": {"5"}, "X-Ratelimit-Remaining": {"4"},
				"Ratelimit-Policy": {`"login";q=5;w=300`}, "Ratelimit": {`"login";r=4;t=120`},
			},
		},
		{
			"refused, times rounded up",
			ratelimit.Decision{Limit: 5, ResetAfter: time.Millisecond, RetryAfter: time.Millisecond},
			ratelimit.Rule{Name: "a_1", Max: 5, Window: 1500 * time.Millisecond},
			http.Header{
				"X-Ratelimit-Limit": {"5"}, "X-Ratelimit-Remaining": {"0"},
				"Ratelimit-Policy": {`"a_1";q=5;w=2`}, "Ratelimit": {`"a_1";r=0;t=1`},
			},
		},
		{
			"the longest",
			ratelimit.Decision{Allowed: true, Limit: 1000, Remaining: 999, ResetAfter: 31 * 24 * time.Hour},
			ratelimit.Rule{Name: strings.Repeat("z", 63), Max: 1000, Window: 31 * 24 * time.Hour},
			http.Header{
				"X-Ratelimit-Limit": {"1000"}, "X-Ratelimit-Remaining": {"999"},
				"Ratelimit-Policy": {`"` + strings.Repeat("z", 63) + `";q=1000;w=2678400`},
				"Ratelimit":        {`"` + strings.Repeat("z", 63) + `";r=999;t=2678400`},
			},
		},
		{"nothing is known", ratelimit.Decision{}, five, http.Header{}},
	} {
		h := http.Header{}
		c.decision.WriteHeaders(h, c.rule)
		if diff := cmp.Diff(c.want, h); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", c.name, diff)
		}
	}
}

// Two rules count on one response: the lists name both, and what can hold one shows
// the one that will stop the client first, whichever was written last.
func TestHeadersOfSeveralRules(t *testing.T) {
	t.Parallel()
	byAddress := ratelimit.Rule{Name: "ip", Max: 100, Window: time.Minute}
	byUser := ratelimit.Rule{Name: "user", Max: 5, Window: time.Hour}
	much := ratelimit.Decision{Allowed: true, Limit: 100, Remaining: 40, ResetAfter: 30 * time.Second}
	little := ratelimit.Decision{Allowed: true, Limit: 5, Remaining: 2, ResetAfter: time.Hour}
	for _, littleLast := range []bool{false, true} {
		h := http.Header{}
		if littleLast {
			much.WriteHeaders(h, byAddress)
		}
		little.WriteHeaders(h, byUser)
		if !littleLast {
			much.WriteHeaders(h, byAddress)
		}
		if h.Get("X-RateLimit-Limit") != "5" || h.Get("X-RateLimit-Remaining") != "2" {
			t.Errorf("shown are %v", h)
		}
		if len(h["Ratelimit"]) != 2 || len(h["Ratelimit-Policy"]) != 2 {
			t.Errorf("the lists are %v", h)
		}
	}
}
