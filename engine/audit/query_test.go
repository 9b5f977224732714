package audit_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/engine/audit"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/tokens/keys"
)

// fill writes 40 events: 30 of two users and addresses, one a minute, and 10 of a
// machine.
func fill(b *bench) *audit.Trail {
	b.t.Helper()
	trail := b.trail()
	for i := range 40 {
		b.clock.move(time.Minute)
		e := event.Event{
			Type: event.LoginSucceeded, Result: event.Success, App: "shop", UserID: fmt.Sprintf("usr_%d", i%2),
			Request: event.Request{IP: fmt.Sprintf("192.0.2.%d", i%3)},
		}
		switch {
		case i >= 30:
			e.Type, e.UserID, e.ClientID, e.IsM2M = event.ClientTokenIssued, "", "cli_1", true
		case i%5 == 0:
			e.Type, e.Result = event.LoginFailed, event.Failure
		}
		b.must(trail.Write(b.t.Context(), e))
		b.must(trail.Flush(b.t.Context())) // each has its own minute
	}
	return trail
}

// Every filter finds exactly what it says, page after page, newest first.
func TestQuery(t *testing.T) {
	t.Parallel()
	b := setup(t)
	began := b.clock.Now()
	trail := fill(b)
	everything := b.all(trail, audit.Filter{})
	if len(everything) != 41 {
		t.Fatalf("%d records, want 40 and the opening", len(everything))
	}
	for name, tt := range map[string]struct {
		filter audit.Filter
		match  func(audit.Record) bool
		want   int
	}{
		"all":          {audit.Filter{}, func(audit.Record) bool { return true }, 41},
		"user":         {audit.Filter{UserID: "usr_1"}, func(r audit.Record) bool { return r.UserID == "usr_1" }, 15},
		"client":       {audit.Filter{ClientID: "cli_1"}, func(r audit.Record) bool { return r.ClientID == "cli_1" }, 10},
		"address":      {audit.Filter{IP: "192.0.2.2"}, func(r audit.Record) bool { return r.IP == "192.0.2.2" }, 13},
		"type":         {audit.Filter{Type: event.LoginFailed}, func(r audit.Record) bool { return r.Type == event.LoginFailed }, 6},
		"failures":     {audit.Filter{Result: event.Failure}, func(r audit.Record) bool { return r.Result == event.Failure }, 6},
		"successes":    {audit.Filter{Result: event.Success}, func(r audit.Record) bool { return r.Result == event.Success }, 35},
		"two together": {audit.Filter{UserID: "usr_0", IP: "192.0.2.0"}, func(r audit.Record) bool { return r.UserID == "usr_0" && r.IP == "192.0.2.0" }, 5},
		"a period": {audit.Filter{From: began.Add(5 * time.Minute), Until: began.Add(15 * time.Minute)}, func(r audit.Record) bool {
			return !r.Time.Before(began.Add(5*time.Minute)) && r.Time.Before(began.Add(15*time.Minute))
		}, 10},
		"from":             {audit.Filter{From: began.Add(36 * time.Minute)}, func(r audit.Record) bool { return !r.Time.Before(began.Add(36 * time.Minute)) }, 5},
		"user in a period": {audit.Filter{UserID: "usr_1", Until: began.Add(10 * time.Minute)}, func(r audit.Record) bool { return r.UserID == "usr_1" && r.Time.Before(began.Add(10*time.Minute)) }, 4},
		"nobody":           {audit.Filter{UserID: "usr_9"}, func(audit.Record) bool { return false }, 0},
		"before all":       {audit.Filter{Until: time.Date(1950, 1, 1, 0, 0, 0, 0, time.UTC)}, func(audit.Record) bool { return false }, 0},
		"after all":        {audit.Filter{From: time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC)}, func(audit.Record) bool { return false }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var want, got []string
			for _, r := range slices.Backward(everything) {
				if tt.match(r) {
					want = append(want, r.ID)
				}
			}
			for cursor, pages := "", 0; ; pages++ {
				page, next, err := trail.Query(t.Context(), tt.filter, 4, cursor)
				if err != nil || len(page) > 4 || pages > 20 {
					t.Fatalf("page %d with %d records, %v", pages, len(page), err)
				}
				for _, r := range page {
					got = append(got, r.ID)
				}
				if next == "" {
					break
				}
				cursor = next
			}
			if !slices.Equal(got, want) || len(got) != tt.want {
				t.Errorf("got %d records, want %d of %d:\n%v\n%v", len(got), tt.want, len(want), got, want)
			}
		})
	}
}

func TestQueryLimits(t *testing.T) {
	t.Parallel()
	b := setup(t)
	trail := b.trail()
	b.record(trail, 600)
	for limit, want := range map[int]int{-1: audit.DefaultLimit, 0: audit.DefaultLimit, 1: 1, 500: 500, 501: audit.MaxLimit, 1 << 40: audit.MaxLimit} {
		page, next, err := trail.Query(t.Context(), audit.Filter{}, limit, "")
		if err != nil || len(page) != want || next == "" {
			t.Errorf("limit %d: %d records, %v", limit, len(page), err)
		}
	}
	b.must(trail.Log(t.Context(), audit.Record{Type: "x"}))
	page, next, err := trail.Query(t.Context(), audit.Filter{}, 500, "")
	b.must(err)
	b.record(trail, 3) // comes meanwhile
	rest, last, err := trail.Query(t.Context(), audit.Filter{}, 500, next)
	b.must(err)
	if last != "" || len(page)+len(rest) < 601 || rest[0].ID >= page[499].ID {
		t.Errorf("%d and %d records, next %q", len(page), len(rest), last)
	}
}

// Expired records are on no page, whether the database has removed them or not.
func TestQueryLeavesExpiredOut(t *testing.T) {
	t.Parallel()
	b := setup(t)
	trail := b.trail(func(c *audit.Config) { c.Retention = time.Hour })
	b.record(trail, 3)
	b.clock.move(59 * time.Minute)
	b.record(trail, 1)
	if n := len(b.all(trail, audit.Filter{})); n != 5 {
		t.Fatalf("%d records", n)
	}
	b.clock.move(2 * time.Minute)
	if n := len(b.all(trail, audit.Filter{})); n != 1 {
		t.Errorf("%d records, want the one that lives", n)
	}
	s, err := trail.Summary(t.Context(), time.Time{}, time.Time{})
	if err != nil || s.Records != 1 {
		t.Errorf("the summary counts %d, %v", s.Records, err)
	}
}

// A cursor is of one app and one filter. Any other text is refused without a query.
func TestForgedCursors(t *testing.T) {
	t.Parallel()
	b := setup(t)
	trail := fill(b)
	_, cursor, err := trail.Query(t.Context(), audit.Filter{UserID: "usr_1"}, 2, "")
	b.must(err)
	k := appKeys(t, "bank", "s")
	bank := b.trail(func(c *audit.Config) { c.App, c.Signer, c.Cursors = "bank", audit.SignWith(k, keys.Audit), k })
	own := appKeys(t, "shop", "s")
	filter := audit.Filter{UserID: "usr_1"}
	for name, tt := range map[string]struct {
		trail  *audit.Trail
		filter audit.Filter
		cursor string
	}{
		"another user":    {trail, audit.Filter{UserID: "usr_0"}, cursor},
		"no filter":       {trail, audit.Filter{}, cursor},
		"one more filter": {trail, audit.Filter{UserID: "usr_1", Type: event.LoginFailed}, cursor},
		"another field":   {trail, audit.Filter{ClientID: "usr_1"}, cursor},
		"another period":  {trail, audit.Filter{UserID: "usr_1", From: b.clock.Now()}, cursor},
		"another app":     {bank, filter, cursor},
		"one bit":         {trail, filter, cursor[:len(cursor)-2] + "AA"},
		"cut":             {trail, filter, cursor[:len(cursor)-1]},
		"longer":          {trail, filter, cursor + "A"},
		"an id":           {trail, filter, "01JTZZZZZZZZZZZZZZZZZZZZZZ"},
		"a filter":        {trail, filter, `{"$gt":""}`},
		"huge":            {trail, filter, strings.Repeat("a", 1<<20)},
		"another list":    {trail, filter, own.SealCursor("rules", "01JTZZZZZZZZZZZZZZZZZZZZZZ")},
		"no position":     {trail, filter, own.SealCursor(`audit "usr_1" "" "" "" "" - -`, "not an id")},
	} {
		if page, next, err := tt.trail.Query(t.Context(), tt.filter, 2, tt.cursor); !errors.Is(err, audit.ErrInvalidCursor) || page != nil || next != "" {
			t.Errorf("%s: %d records, %v", name, len(page), err)
		}
	}
	if _, _, err := trail.Query(t.Context(), filter, 2, cursor); err != nil {
		t.Errorf("the right one: %v", err)
	}
}

func TestSummary(t *testing.T) {
	t.Parallel()
	b := setup(t)
	began := b.clock.Now()
	trail := fill(b)
	s, err := trail.Summary(t.Context(), time.Time{}, time.Time{})
	b.must(err)
	if s.Records != 41 || s.Partial || s.Machines != 10 || s.Users != 2 || s.Clients != 1 || s.Addresses != 3 {
		t.Errorf("got %+v", s)
	}
	if want := map[event.Type]int{event.AuditStarted: 1, event.LoginSucceeded: 24, event.LoginFailed: 6, event.ClientTokenIssued: 10}; !maps.Equal(s.ByType, want) {
		t.Errorf("by type: %v", s.ByType)
	}
	if want := map[event.Result]int{event.Success: 35, event.Failure: 6}; !maps.Equal(s.ByResult, want) || s.Failures[event.LoginFailed] != 6 {
		t.Errorf("by result: %v, %v", s.ByResult, s.Failures)
	}
	if want := []audit.Count{{"usr_0", 15}, {"usr_1", 15}}; !slices.Equal(s.TopUsers, want) {
		t.Errorf("users: %v", s.TopUsers)
	}
	if want := []audit.Count{{"192.0.2.0", 14}, {"192.0.2.1", 13}, {"192.0.2.2", 13}}; !slices.Equal(s.TopAddresses, want) {
		t.Errorf("addresses: %v", s.TopAddresses)
	}
	if len(s.TopFailing) != 3 || s.TopFailing[0].Count != 2 || len(s.TopClients) != 1 || !s.Oldest.Equal(began.Add(time.Minute)) {
		t.Errorf("failing: %v, clients: %v, oldest %s", s.TopFailing, s.TopClients, s.Oldest)
	}
	s, err = trail.Summary(t.Context(), began.Add(2*time.Minute), began.Add(4*time.Minute))
	if err != nil || s.Records != 2 {
		t.Errorf("a period: %d, %v", s.Records, err)
	}
}

// A summary reads so much and no more, and says so.
func TestSummaryIsBounded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	trail := b.trail()
	b.record(trail, 30) // and the opening
	for _, tt := range []struct {
		most, records, users int
		partial              bool
	}{{10, 10, 10, true}, {30, 30, 30, true}, {40, 31, 30, false}} {
		s, err := trail.SummaryOf(t.Context(), 5, tt.most)
		if err != nil || s.Records != tt.records || s.Partial != tt.partial || len(s.TopUsers) != 10 || s.Users != tt.users {
			t.Errorf("at most %d: %d records, partial %t, %d users of %d, %v", tt.most, s.Records, s.Partial, len(s.TopUsers), s.Users, err)
		}
	}
}
