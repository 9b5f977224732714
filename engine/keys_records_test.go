package engine_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	mongoevent "go.mongodb.org/mongo-driver/event"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/engine/audit"
	"github.com/mandate-auth/mandate/engine/enginetest"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store/storetest"
)

// loginLimit is the auth part of an app whose limit of sign-ins has these keys.
func loginLimit(rest string) string { return `"rate_limits":{"login":{` + rest + `}}` }

// attempt tries to sign in with an address that nobody has, and returns the code of
// the refusal.
func (w *world) attempt(address string) string {
	w.t.Helper()
	return w.do("POST", "/auth/login", obj("email", address, "password", "wrong")).code()
}

// withAudit is the auth part of an app whose trail has these keys.
func withAudit(rest string) string { return `"audit":{` + rest + `}` }

// recorded writes what waits and returns the records of the type.
func (w *world) recorded(kind event.Type) []audit.Record {
	w.t.Helper()
	if err := w.app.Audit().Flush(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	return w.onRecord(kind)
}

// onRecord returns the records of the type that are stored.
func (w *world) onRecord(kind event.Type) []audit.Record {
	w.t.Helper()
	records, _, err := w.app.Audit().Query(w.t.Context(), audit.Filter{Type: kind}, 0, "")
	if err != nil {
		w.t.Fatal(err)
	}
	return records
}

// sink counts what it is given.
type sink struct {
	mu sync.Mutex
	n  int
}

// Record implements [event.Sink].
func (s *sink) Record(context.Context, event.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n++
}

func (s *sink) seen() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n > 0
}

// recordKeyTests are those of keyTests about limits, the audit trail and metrics.
var recordKeyTests = map[string]func(t *testing.T){
	"/auth/rate_limits/{name}/enabled": func(t *testing.T) {
		for enabled, want := range map[string]string{"true": "rate_limited", "false": "invalid_credentials"} {
			w := setup(t, loginLimit(`"max":1,"enabled":`+enabled))
			expect(t, w.attempt(email), "invalid_credentials")
			expect(t, w.attempt(email), want)
		}
	},
	"/auth/rate_limits/{name}/max": func(t *testing.T) {
		for most, want := range map[string]string{"2": "rate_limited", "3": "invalid_credentials"} {
			w := setup(t, loginLimit(`"max":`+most))
			for range 2 {
				expect(t, w.attempt(email), "invalid_credentials")
			}
			expect(t, w.attempt(email), want)
		}
	},
	"/auth/rate_limits/{name}/window": func(t *testing.T) {
		for window, want := range map[string]string{"5m": "invalid_credentials", "1h": "rate_limited"} {
			w := setup(t, loginLimit(`"max":1,"window":"`+window+`"`))
			w.attempt(email)
			w.move(11 * time.Minute)
			expect(t, w.attempt(email), want)
		}
	},
	"/auth/rate_limits/{name}/key": func(t *testing.T) {
		for key, want := range map[string]string{"ip+identifier": "invalid_credentials", "ip": "rate_limited"} {
			w := setup(t, loginLimit(`"max":1,"key":"`+key+`"`))
			w.attempt(email)
			expect(t, w.attempt("ben@example.com"), want)
		}
		// The password of one account is tried from everywhere.
		for key, want := range map[string]int{"user": 429, "ip": 401} {
			w := setup(t, `"rate_limits":{"password":{"max":1,"key":"`+key+`"}}`)
			_, token := w.newUser(email)
			change := obj("current_password", "wrong", "new_password", "another long passphrase")
			w.do("POST", "/auth/password", change, token)
			expect(t, w.do("POST", "/auth/password", change, token, from("198.51.100.9:1")).status, want)
		}
	},
	"/auth/rate_limits/{name}/store": func(t *testing.T) {
		for where, want := range map[string]string{"mongodb": "rate_limited", "memory": "invalid_credentials"} {
			m := manifestOf(t, "shop", loginLimit(`"max":1,"store":"`+where+`"`))
			first := newWorld(t, storetest.Database(t), m)
			second := newWorld(t, first.db, m)
			first.attempt(email)
			expect(t, second.attempt(email), want)
			expect(t, first.attempt(email), "rate_limited")
		}
	},
	"/auth/audit/enabled": func(t *testing.T) {
		for enabled, want := range map[string]bool{"true": true, "false": false} {
			w := setup(t, withAudit(`"enabled":`+enabled))
			token := w.register().text("access_token")
			expect(t, w.app.Audit() != nil, want)
			expect(t, w.do("GET", "/auth/me/activity", nil, bearer(token)).status == 200, want)
			if want {
				expect(t, len(w.recorded(event.UserRegistered)), 1)
			} else {
				w.close()
				expect(t, count(w, audit.Collection), int64(0))
			}
		}
	},
	"/auth/audit/retention": func(t *testing.T) {
		for retention, want := range map[string]int{"1h": 0, "2h": 1} {
			w := setup(t, withAudit(`"retention":"`+retention+`"`))
			w.register()
			expect(t, len(w.recorded(event.UserRegistered)), 1)
			w.move(61 * time.Minute)
			expect(t, len(w.recorded(event.UserRegistered)), want)
		}
	},
	"/auth/audit/exclude_paths": func(t *testing.T) {
		for paths, want := range map[string]int{``: 2, `"/x"`: 1, `"/x","/below/*"`: 0, `"/below","/x/*"`: 2} {
			w := setup(t, withAudit(`"exclude_paths":[`+paths+`]`))
			h := w.app.AuditRequests(ok)
			do(t, h, "GET", "/x", nil)
			do(t, h, "GET", "/below/y", nil)
			expect(t, len(w.recorded(event.RequestPassed)), want)
		}
	},
	"/auth/audit/sinks": func(t *testing.T) {
		var own sink
		registered := func(o *engine.Options) { o.AuditSinks = map[string]event.Sink{"siem": &own} }
		w := newWorld(t, storetest.Database(t), manifestOf(t, "shop", withAudit(`"sinks":["log","siem"]`)), registered)
		w.register()
		expect(t, w.app.Audit() == nil, true)
		w.close()
		expect(t, own.seen() && strings.Contains(w.logs.String(), "trail=shop"), true)
		usual := setup(t, ``)
		expect(t, usual.app.Audit() != nil, true)
		if _, err := usual.eng.Load(t.Context(), manifestOf(t, "other", withAudit(`"sinks":["siem"]`))); err == nil || !strings.Contains(err.Error(), `"siem"`) {
			t.Errorf("a sink that nobody has registered: %v", err)
		}
	},
	"/auth/audit/tamper_evident": func(t *testing.T) {
		for tamperEvident, want := range map[string]bool{"true": true, "false": false} {
			w := setup(t, withAudit(`"tamper_evident":`+tamperEvident))
			w.register()
			w.recorded(event.UserRegistered)
			report, err := w.app.Audit().Verify(t.Context())
			expect(t, err == nil && report.Intact(), want)
			res, err := w.db.Collection(audit.Collection).UpdateOne(t.Context(), bson.M{"app": "shop", "type": event.UserRegistered}, bson.M{"$set": bson.M{"ip": "192.0.2.7"}})
			if err != nil || res.ModifiedCount != 1 {
				t.Fatal(res, err)
			}
			report, err = w.app.Audit().Verify(t.Context())
			expect(t, err == nil && !report.Intact(), want)
		}
	},
	"/auth/audit/synchronous": func(t *testing.T) {
		for synchronous, want := range map[string]bool{"true": true, "false": false} {
			answersLast(t, `"synchronous":`+synchronous, want)
		}
	},
	"/auth/metrics/enabled": func(t *testing.T) {
		for enabled, want := range map[string]int{"true": 200, "false": 404} {
			w := setup(t, `"metrics":{"enabled":`+enabled+`}`)
			expect(t, w.do("GET", "/auth/metrics", nil, from("10.0.0.1:1")).status, want)
			expect(t, w.app.Metrics() != nil, want == 200)
		}
	},
	"/auth/metrics/exclude_paths": func(t *testing.T) {
		for paths, want := range map[string]uint64{``: 4, `"/x"`: 3, `"/x","/below/*"`: 2, `"/below","/x/*"`: 4} {
			w := setup(t, `"metrics":{"exclude_paths":[`+paths+`]}`)
			_, token := w.newUser(email)
			protected := w.app.Protect(ok)
			// The last is answered as it is by some who serve it: it cannot be hidden.
			for _, path := range []string{"/x", "/below/y", "/z", "/below/../z"} {
				do(t, protected, "GET", path, nil, token)
				do(t, protected, "GET", path, nil)
			}
			r := w.app.Metrics().Report()
			expect(t, r.TotalTokens, want)
			expect(t, r.Denials["unauthenticated"], want)
		}
		limited := setup(t, loginLimit(`"max":1`)+`,"metrics":{"exclude_paths":["/auth/*"]}`)
		limited.attempt(email)
		expect(t, limited.attempt(email), "rate_limited")
		expect(t, limited.app.Metrics().Report().Limited["login"], 0)
	},
}

// answersLast holds back what a registration writes into the trail, and sees whether
// its answer waits for that.
func answersLast(t *testing.T, rest string, want bool) {
	t.Helper()
	reached, release := make(chan struct{}), make(chan struct{})
	var armed atomic.Bool
	monitor := &mongoevent.CommandMonitor{Started: func(_ context.Context, e *mongoevent.CommandStartedEvent) {
		c := enginetest.NewCommand(e.Command)
		if c.Name == "insert" && c.Collection == audit.Collection && armed.CompareAndSwap(true, false) {
			close(reached)
			<-release
		}
	}}
	w := newWorld(t, storetest.Monitored(t, monitor), manifestOf(t, "shop", withAudit(rest)))
	w.recorded(event.AppLoaded)
	armed.Store(true)
	answered := make(chan *response, 1)
	go func() { answered <- do(t, w.app.Handler(), "POST", "/auth/register", account) }()
	if want {
		<-reached
		select {
		case r := <-answered:
			t.Errorf("answered before it was recorded: %s", r.raw)
		default:
		}
		close(release)
		expect(t, (<-answered).status, 201)
		expect(t, len(w.onRecord(event.UserRegistered)), 1)
		return
	}
	expect(t, (<-answered).status, 201)
	<-reached
	expect(t, len(w.onRecord(event.UserRegistered)), 0)
	close(release)
	expect(t, len(w.recorded(event.UserRegistered)), 1)
}
