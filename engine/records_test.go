package engine_test

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/engine/audit"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/engine/metrics"
	"github.com/mandate-auth/mandate/engine/metrics/prom"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/manifest"
)

// trailOf returns the types of the app's records, the oldest first.
func (w *world) trailOf(filter audit.Filter) (types []string) {
	w.t.Helper()
	if err := w.app.Audit().Flush(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	records, _, err := w.app.Audit().Query(w.t.Context(), filter, 500, "")
	if err != nil {
		w.t.Fatal(err)
	}
	for _, r := range records {
		types = append(types, string(r.Type))
	}
	slices.Reverse(types)
	return types
}

// Every security event is one record, whole and in a chain, and no secret is in any
// of them.
func TestAuditTrail(t *testing.T) {
	t.Parallel()
	w := setup(t, machines)
	adminID, admin := w.newUser("root@example.com")
	if err := w.app.Authz().SetRoles(t.Context(), adminID, "admin"); err != nil {
		t.Fatal(err)
	}
	in := w.register()
	id, _ := in.at("user", "id").(string)
	token := bearer(in.text("access_token"))
	w.do("POST", "/auth/login", with(account, "password", "a wrong passphrase"))
	key, keyID := w.makeKey(token, "documents:read")
	w.want(w.do("GET", "/auth/me", nil, apiKey(key)), 200, "")
	w.want(w.do("DELETE", "/auth/api-keys/"+keyID, nil, token), 204, "")
	client, secret := w.makeClient("worker")
	w.clientToken(client, secret)
	do(t, w.app.RequirePermission("documents", "write").Handler(ok), "GET", "/documents", nil, token)
	w.want(w.do("POST", "/auth/logout", nil, token), 204, "")

	own := w.trailOf(audit.Filter{UserID: id})
	for _, want := range []string{
		"user_registered", "session_started", "login_failed", "api_key_created", "api_key_revoked", "access_denied", "session_ended",
	} {
		if n := len(own) - len(slices.DeleteFunc(slices.Clone(own), func(s string) bool { return s == want })); n != 1 {
			t.Errorf("%s was recorded %d times: %v", want, n, own)
		}
	}
	if got := w.trailOf(audit.Filter{ClientID: client}); !slices.Contains(got, "client_created") || !slices.Contains(got, "client_token_issued") {
		t.Errorf("of the client: %v", got)
	}
	r := w.want(w.do("GET", "/auth/admin/audit?type=login_failed&limit=10", nil, admin), 200, "")
	events, _ := r.body["events"].([]any)
	if len(events) != 1 {
		t.Fatalf("by type: %s", r.raw)
	}
	first, _ := events[0].(map[string]any)
	if first["path"] != "/auth/login" || first["method"] != "POST" || first["ip"] != "192.0.2.1" || first["result"] != "failure" || first["request_id"] == "" {
		t.Errorf("the record: %v", first)
	}
	if r := w.want(w.do("GET", "/auth/admin/audit/verify", nil, admin), 200, ""); r.body["intact"] != true {
		t.Errorf("the trail: %s", r.raw)
	}
	if r := w.want(w.do("GET", "/auth/admin/audit/summary", nil, admin), 200, ""); r.at("by_type", "login_failed") != 1.0 {
		t.Errorf("the summary: %s", r.raw)
	}
	w.want(w.do("GET", "/auth/admin/audit?user=x", nil, admin), 400, "invalid_request")
	w.want(w.do("GET", "/auth/admin/audit?from=yesterday", nil, admin), 400, "invalid_request")
	w.want(w.do("GET", "/auth/admin/audit?cursor=x", nil, admin), 400, "invalid_request")
	again := w.login()
	w.want(w.do("GET", "/auth/admin/audit", nil, bearer(again.text("access_token"))), 403, "forbidden")
	if err := w.app.Audit().Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	mine := w.want(w.do("GET", "/auth/me/activity", nil, bearer(again.text("access_token"))), 200, "")
	if !strings.Contains(mine.raw, "login_failed") || strings.Contains(mine.raw, adminID) || strings.Contains(mine.raw, client) {
		t.Errorf("the user's own: %s", mine.raw)
	}
	page := w.want(w.do("GET", "/auth/me/activity?limit=2", nil, bearer(again.text("access_token"))), 200, "")
	if list, _ := page.body["events"].([]any); len(list) != 2 || page.text("next") == "" {
		t.Errorf("a page of two: %s", page.raw)
	}
	other := w.want(w.do("GET", "/auth/me/activity?cursor="+page.text("next"), nil, admin), 400, "invalid_request")
	_ = other

	cursor, err := w.db.Collection("audit_events").Find(t.Context(), bson.M{"app": "shop"})
	if err != nil {
		t.Fatal(err)
	}
	var docs []bson.M
	if err := cursor.All(t.Context(), &docs); err != nil {
		t.Fatal(err)
	}
	for _, doc := range docs {
		raw, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, canary := range []string{password, key, secret, in.text("access_token"), in.text("refresh_token"), secretKey} {
			if strings.Contains(string(raw), canary) {
				t.Errorf("a record holds a secret: %s", raw)
			}
		}
	}
}

// The service's own requests are recorded with who called, and a change of what is
// stored is found.
func TestAuditRequests(t *testing.T) {
	t.Parallel()
	w := setup(t, `"audit":{"exclude_paths":["/health","/static/*"]}`)
	id, token := w.newUser("ada@example.com")
	mux := http.NewServeMux()
	mux.Handle("/documents", w.app.RequireUser().Handler(ok))
	mux.Handle("/", ok)
	h := w.app.AuditRequests(mux)
	for _, path := range []string{"/documents?secret=canary", "/health", "/static/app.js", "/page"} {
		do(t, h, "GET", path, nil, token)
	}
	do(t, h, "GET", "/documents", nil)
	if err := w.app.Audit().Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	records, _, err := w.app.Audit().Query(t.Context(), audit.Filter{Type: event.RequestPassed}, 10, "")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range records {
		got = append(got, r.Path+" "+r.UserID+" "+http.StatusText(r.StatusCode))
	}
	slices.Sort(got)
	want := []string{"/documents  Unauthorized", "/documents " + id + " OK", "/page  OK"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := w.app.Audit().Log(t.Context(), audit.Record{Type: "report_exported", UserID: id, Metadata: map[string]string{"rows": "7"}}); err != nil {
		t.Fatal(err)
	}
	if got := w.trailOf(audit.Filter{Type: "report_exported"}); len(got) != 1 {
		t.Errorf("an event of the service: %v", got)
	}
	res, err := w.db.Collection("audit_events").UpdateOne(t.Context(), bson.M{"app": "shop", "type": "report_exported"}, bson.M{"$set": bson.M{"user_id": "usr_x"}})
	if err != nil || res.ModifiedCount != 1 {
		t.Fatal(res, err)
	}
	report, err := w.app.Audit().Verify(t.Context())
	if err != nil || report.Intact() {
		t.Errorf("a changed record was not found: %+v, %v", report, err)
	}
}

// A trail that is synchronous has the record before the request is answered, also
// when the process dies right after.
func TestSynchronousAudit(t *testing.T) {
	t.Parallel()
	w := setup(t, `"audit":{"synchronous":true}`)
	w.register()
	n, err := w.db.Collection("audit_events").CountDocuments(t.Context(), bson.M{"app": "shop", "type": "user_registered"})
	if err != nil || n != 1 {
		t.Errorf("%d records, %v", n, err)
	}
}

// Two apps have nothing of each other in their trails.
func TestAuditOfTwoApps(t *testing.T) {
	t.Parallel()
	w := setup(t, ``)
	blog, err := w.eng.Load(t.Context(), manifestOf(t, "blog", ``))
	if err != nil {
		t.Fatal(err)
	}
	w.register()
	if err := blog.Audit().Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	records, _, err := blog.Audit().Query(t.Context(), audit.Filter{}, 100, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		if r.Type == event.UserRegistered {
			t.Error("one app's trail shows another app's user")
		}
	}
}

// The sinks that a manifest names get the app's events, and only those.
func TestAuditSinks(t *testing.T) {
	t.Parallel()
	got := make(chan event.Event, 100)
	sink := audit.Callback(func(_ context.Context, r audit.Record) {
		select {
		case got <- event.Event{Type: r.Type, UserID: r.UserID}:
		default:
		}
	}, nil)
	w := newWorld(t, storetest.Database(t), manifestOf(t, "shop", `"audit":{"sinks":["siem"]}`), func(o *engine.Options) {
		o.AuditSinks = map[string]event.Sink{"siem": sink}
	})
	if w.app.Audit() != nil {
		t.Error("there is a trail that nobody asked for")
	}
	w.register()
	deadline := time.After(5 * time.Second)
	for {
		select {
		case e := <-got:
			if e.Type == event.UserRegistered {
				return
			}
		case <-deadline:
			t.Fatal("the sink did not get the event")
		}
	}
}

// The figures of features A, by their names, and the routes that show them.
func TestMetrics(t *testing.T) {
	t.Parallel()
	w := newWorld(t, storetest.Database(t), manifestOf(t, "shop", machines), func(o *engine.Options) { o.Prometheus = prom.Handler })
	in := w.register()
	token := in.text("access_token")
	for range 3 {
		w.want(w.me(token), 200, "")
	}
	w.want(w.me(token[:len(token)-4]+"AAAA"), 401, "token_invalid")
	w.do("POST", "/auth/login", with(account, "password", "a wrong passphrase"))
	w.login()
	do(t, w.app.RequireRole("admin").Handler(ok), "GET", "/", nil, bearer(token))
	inside := from("127.0.0.1:1234")
	w.want(w.do("GET", "/auth/metrics", nil), 401, "unauthenticated")
	w.want(w.do("GET", "/auth/metrics", nil, bearer(token)), 403, "forbidden")
	w.want(w.do("GET", "/auth/metrics", nil, inside, header("X-Forwarded-For", "198.51.100.9")), 401, "unauthenticated")
	r := w.want(w.do("GET", "/auth/metrics", nil, inside), 200, "")
	for name, want := range map[string]any{"tokens_validated": 5.0, "tokens_failed": 1.0, "total_tokens": 6.0} {
		if r.body[name] != want {
			t.Errorf("%s is %v, want %v: %s", name, r.body[name], want, r.raw)
		}
	}
	if r.at("errors_by_type", "token_invalid") != 1.0 {
		t.Errorf("errors: %s", r.raw)
	}
	page := w.do("GET", "/auth/metrics/prometheus", nil, inside)
	for _, line := range []string{
		`auth_tokens_validated_total{app="shop"}`, `auth_success_rate{app="shop"}`, `auth_validation_duration_avg_ms{app="shop"}`,
		`auth_logins_total{app="shop",result="success"} 1`, `auth_denials_total{app="shop",code="forbidden"}`,
		`auth_revocation_feed_age_seconds{app="shop"}`, `auth_policy_age_seconds{app="shop"}`, `auth_audit_events_dropped_total{app="shop"} 0`,
	} {
		if !strings.Contains(page.raw, line) {
			t.Errorf("%s is missing: %d %s", line, page.status, page.raw)
		}
	}
	for _, canary := range []string{token, password, email, in.text("refresh_token"), secretKey} {
		if strings.Contains(page.raw+r.raw, canary) {
			t.Errorf("the metrics hold %q", canary)
		}
	}
	if !strings.Contains(page.raw, `auth_cache_lookups_total{app="shop",cache="tokens",result="hit"}`) {
		t.Error("what was remembered is not counted")
	}
	if len(w.eng.Metrics()) != 1 || w.eng.Metrics()[0] != w.app.Metrics() {
		t.Error("the engine's collectors are not the apps'")
	}
	off := setup(t, `"metrics":{"enabled":false}`)
	off.want(off.do("GET", "/auth/metrics", nil, inside), 404, "not_found")
	if off.app.Metrics() != (*metrics.Collector)(nil) {
		t.Error("an app without metrics has a collector")
	}
}

// The manifest that says nothing has a trail, metrics and limits.
func TestRecordsAreOnByDefault(t *testing.T) {
	t.Parallel()
	m, err := manifest.Parse([]byte(`{"slug":"shop"}`), nil)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, storetest.Database(t), m)
	if w.app.Audit() == nil || w.app.Metrics() == nil {
		t.Error("something is off")
	}
	if l, err := w.app.RateLimit("login"); err != nil || l.Rule().Max != 5 {
		t.Errorf("the limit of logins: %v, %v", l, err)
	}
	if _, err := w.app.RateLimit("uploads"); err == nil {
		t.Error("a rule that is not there")
	}
}
