package engine_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	driverevent "go.mongodb.org/mongo-driver/event"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/engine/enginetest"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/mail"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/onetime"
	"github.com/mandate-auth/mandate/users"
	"github.com/mandate-auth/mandate/users/identity"
	"github.com/mandate-auth/mandate/users/invitation"
)

// A token of one app is nothing to another: same engine, same keys, same users.
func TestAppsAreApart(t *testing.T) {
	t.Parallel()
	a := setup(t, guests)
	app, err := a.eng.Load(t.Context(), manifestOf(t, "other", guests, `"base_path":"/other"`))
	if err != nil {
		t.Fatal(err)
	}
	first := a.register()
	second := do(t, app.Handler(), "POST", "/other/register", account)
	if second.status != 201 {
		t.Fatalf("the same address in another app: %s", second.raw)
	}
	token := bearer(first.text("access_token"))
	id, _ := a.me(first.text("access_token")).at("principal", "session_id").(string)
	for _, r := range []*response{
		do(t, app.Handler(), "GET", "/other/me", nil, token),
		do(t, app.Handler(), "POST", "/other/refresh", obj("refresh_token", first.text("refresh_token"))),
		do(t, app.Handler(), "POST", "/other/logout", obj("refresh_token", first.text("refresh_token"))),
		do(t, app.RequireUser().Handler(ok), "GET", "/", nil, token),
	} {
		if r.status != 401 || r.code() != "token_invalid" {
			t.Errorf("a token of another app: %d %s", r.status, r.raw)
		}
	}
	r := do(t, app.Handler(), "DELETE", "/other/sessions/"+id, nil, bearer(second.text("access_token")))
	if r.status != 404 {
		t.Errorf("a session of another app: %d %s", r.status, r.raw)
	}
	cookie := do(t, a.app.Handler(), "POST", "/auth/login", with(account, "transport", "cookie"))
	renamed := strings.ReplaceAll(fmt.Sprint(cookie.header["Set-Cookie"]), "shop_", "other_")
	if !strings.Contains(renamed, "__Host-other_access=") {
		t.Fatalf("cookies: %s", renamed)
	}
	value := strings.TrimSuffix(strings.Fields(renamed[strings.Index(renamed, "__Host-other_access="):])[0], ";")
	if r := do(t, app.Handler(), "GET", "/other/me", nil, header("Cookie", value)); r.code() != "token_invalid" {
		t.Errorf("a cookie of another app under the right name: %d %s", r.status, r.raw)
	}
	a.want(a.me(first.text("access_token")), 200, "")
}

func TestCookieJourney(t *testing.T) {
	t.Parallel()
	w := setup(t, ``)
	w.register()
	in := w.want(w.do("POST", "/auth/login", with(account, "transport", "cookie")), 200, "")
	if in.text("access_token")+in.text("refresh_token")+in.text("device_token") != "" || in.body["expires_in"] != 900.0 {
		t.Errorf("the body of a sign-in by cookie shows tokens: %s", in.raw)
	}
	lines := in.header["Set-Cookie"]
	if len(lines) != 3 {
		t.Fatalf("cookies: %v", lines)
	}
	for i, want := range []string{"__Host-shop_access=", "__Secure-shop_refresh=", "__Host-shop_device="} {
		if !strings.HasPrefix(lines[i], want) || !strings.Contains(lines[i], "HttpOnly; Secure; SameSite=Lax") {
			t.Errorf("cookie %q", lines[i])
		}
		if session := i < 2; session == strings.Contains(lines[i], "Max-Age") {
			t.Errorf("without remember_me the session's cookies end with the browser: %q", lines[i])
		}
	}
	jar, xhr := cookieHeader(in), header("X-Requested-With", "test")
	w.want(w.do("GET", "/auth/me", nil, jar), 200, "")
	w.want(w.do("PATCH", "/auth/me", obj("profile", obj("a", "b")), jar), 200, "")
	w.want(w.do("DELETE", "/auth/sessions", nil, jar), 403, "csrf_failed")
	w.want(w.do("DELETE", "/auth/sessions", nil, jar, xhr), 204, "")
	next := w.want(w.do("POST", "/auth/refresh", nil, jar, xhr), 200, "")
	if next.text("access_token") != "" || len(next.header["Set-Cookie"]) != 2 {
		t.Errorf("refreshed by cookie: %s %v", next.raw, next.header["Set-Cookie"])
	}
	w.want(w.do("POST", "/auth/refresh", obj("refresh_token", "x"), jar), 400, "invalid_request")
	out := w.want(w.do("POST", "/auth/logout", nil, cookieHeader(next), xhr), 204, "")
	if got := fmt.Sprint(out.header["Set-Cookie"]); strings.Count(got, "Max-Age=0") != 2 || !strings.Contains(got, "Path=/auth;") {
		t.Errorf("cleared: %s", got)
	}
	w.want(w.do("GET", "/auth/me", nil, cookieHeader(next)), 401, "token_revoked")
	w.want(w.do("POST", "/auth/logout", nil), 204, "")

	remembered := w.want(w.do("POST", "/auth/login", with(account, "transport", "cookie", "remember_me", true)), 200, "")
	if got := remembered.header["Set-Cookie"][1]; !strings.Contains(got, "Max-Age=604800") {
		t.Errorf("remembered: %s", got)
	}
	// A lost race keeps the browser signed in: no cookie is taken away.
	for range 2 {
		r := w.want(w.do("POST", "/auth/refresh", nil, cookieHeader(remembered), xhr), 200, "")
		if strings.Contains(fmt.Sprint(r.header["Set-Cookie"]), "Max-Age=0") {
			t.Errorf("a refresh cleared cookies: %v", r.header["Set-Cookie"])
		}
	}
	// The device cookie lets the owner in while others are locked out.
	for range 12 {
		w.do("POST", "/auth/login", with(account, "password", "wrong"))
	}
	w.want(w.do("POST", "/auth/login", account), 429, "account_locked")
	w.want(w.do("POST", "/auth/login", account, cookieHeader(remembered)), 200, "")
}

// A page of another origin must neither act with a user's cookies nor sign the
// browser in as somebody else.
func TestCrossOriginRequests(t *testing.T) {
	t.Parallel()
	w := setup(t, `"csrf":{"trusted_origins":["https://trusted.example"]},"sessions":{"max_per_user":100}`)
	w.register()
	jar := cookieHeader(w.do("POST", "/auth/login", with(account, "transport", "cookie")))
	service := w.app.RequireUser().Handler(ok)
	tests := []struct {
		name    string
		edit    []request
		refused bool
	}{
		{"no browser", nil, false},
		{"same origin by metadata", []request{header("Sec-Fetch-Site", "same-origin")}, false},
		{"typed address", []request{header("Sec-Fetch-Site", "none")}, false},
		{"cross-site by metadata", []request{header("Sec-Fetch-Site", "cross-site")}, true},
		{"same-site by metadata", []request{header("Sec-Fetch-Site", "same-site")}, true},
		{"own origin", []request{header("Origin", "https://shop.example")}, false},
		{"foreign origin", []request{header("Origin", "https://evil.example")}, true},
		{"null origin", []request{header("Origin", "null")}, true},
		{"other port", []request{header("Origin", "https://shop.example:8443")}, true},
		{"subdomain", []request{header("Origin", "https://x.shop.example")}, true},
		{"trailing dot", []request{header("Origin", "https://shop.example.")}, true},
		{"trusted origin", []request{header("Origin", "https://trusted.example"), header("Sec-Fetch-Site", "cross-site")}, false},
		{"trusted name over http", []request{header("Origin", "http://trusted.example"), header("Sec-Fetch-Site", "cross-site")}, true},
	}
	for _, tt := range tests {
		for _, route := range []struct {
			handler            http.Handler
			method, path       string
			body               any
			withJar, alsoPlain bool
		}{
			{w.app.Handler(), "PATCH", "/auth/me", obj("profile", obj("a", "b")), true, false},
			{w.app.Handler(), "POST", "/auth/login", with(account, "transport", "cookie"), false, false},
			{service, "POST", "/", nil, true, false},
		} {
			edit := slices.Clone(tt.edit)
			if route.withJar {
				edit = append(edit, jar)
			}
			r := do(t, route.handler, route.method, route.path, route.body, edit...)
			if (r.code() == "csrf_failed") != tt.refused || (!tt.refused && r.status != 200) {
				t.Errorf("%s, %s %s: got %d %q", tt.name, route.method, route.path, r.status, r.code())
			}
		}
		token := bearer(w.login().text("access_token"))
		if r := do(t, service, "POST", "/", nil, append(slices.Clone(tt.edit), token)...); r.status != 200 {
			t.Errorf("%s with a bearer token: %d %q: nobody can make a browser send one", tt.name, r.status, r.code())
		}
		if r := do(t, service, "GET", "/", nil, append(slices.Clone(tt.edit), jar)...); r.status != 200 {
			t.Errorf("%s, reading: %d %q", tt.name, r.status, r.code())
		}
	}
	w.events.Wait(t, event.CrossOriginRefused)
}

func TestCORS(t *testing.T) {
	t.Parallel()
	w := setup(t, `"cors":{"allow_origins":["https://spa.example"],"allow_credentials":true}`)
	preflight := w.do("OPTIONS", "/auth/login", nil, header("Origin", "https://spa.example"), header("Access-Control-Request-Method", "POST"))
	if preflight.status != 204 || preflight.header.Get("Access-Control-Allow-Origin") != "https://spa.example" || preflight.header.Get("Access-Control-Allow-Credentials") != "true" {
		t.Errorf("preflight: %d %v", preflight.status, preflight.header)
	}
	for _, origin := range []string{"https://evil.example", "null", "https://spa.example.evil.example", "http://spa.example", ""} {
		r := w.do("GET", "/auth/health", nil, header("Origin", origin))
		if r.header.Get("Access-Control-Allow-Origin") != "" || r.header.Get("Vary") != "Origin" {
			t.Errorf("origin %q: %v", origin, r.header)
		}
	}
	open := setup(t, `"cors":{"allow_origins":["*"]}`)
	r := open.do("GET", "/auth/health", nil, header("Origin", "https://any.example"))
	if r.header.Get("Access-Control-Allow-Origin") != "*" || r.header.Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("wildcard: %v", r.header)
	}
	if r := setup(t, ``).do("GET", "/auth/health", nil, header("Origin", "https://any.example")); r.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("CORS is on without being asked for: %v", r.header)
	}
}

// Revoked on one instance, refused on the other within the bound, and refused
// everywhere once the database is gone.
func TestRevocationAcrossInstances(t *testing.T) {
	t.Parallel()
	for _, poll := range []bool{false, true} {
		t.Run(fmt.Sprint("poll=", poll), func(t *testing.T) {
			t.Parallel()
			db, link := storetest.Linked(t)
			options := func(o *engine.Options) { o.DisableChangeStreams = poll }
			m := manifestOf(t, "shop", `"tokens":{"revocation":{"max_staleness":"1s","poll_interval":"100ms"}}`)
			here := newWorld(t, storetest.Second(t, db, nil), m, options)
			there := newWorld(t, db, m, options)
			first, second := here.register(), here.login()
			there.want(there.me(first.text("access_token")), 200, "")
			here.want(here.do("POST", "/auth/logout", obj("refresh_token", first.text("refresh_token"))), 204, "")
			here.want(here.me(first.text("access_token")), 401, "token_revoked")
			began := time.Now()
			until(t, "the other instance to refuse", func() bool { return there.me(first.text("access_token")).status == 401 })
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("the other instance accepted a revoked token for %v", took)
			}
			there.want(there.do("POST", "/auth/refresh", obj("refresh_token", first.text("refresh_token"))), 401, "session_expired")

			link.Cut()
			until(t, "a guarded request to be 503", func() bool { return there.me(second.text("access_token")).status == 503 })
			r := there.want(there.me(second.text("access_token")), 503, "unavailable")
			if r.header.Get("Retry-After") == "" {
				t.Error("503 without Retry-After")
			}
			there.want(there.do("POST", "/auth/login", account), 503, "unavailable")
			there.want(there.do("GET", "/auth/health", nil), 503, "")
			if r := do(t, there.app.Optional(nil).Handler(ok), "GET", "/", nil, bearer(second.text("access_token"))); r.status != 503 {
				t.Errorf("Optional lets an unknown state through: %d", r.status)
			}
			cookie := header("Cookie", "__Secure-shop_refresh="+second.text("refresh_token"))
			out := there.want(there.do("POST", "/auth/logout", nil, cookie, header("X-Requested-With", "x")), 503, "unavailable")
			if len(out.header["Set-Cookie"]) != 0 {
				t.Errorf("a sign-out that failed took the cookies away: %v", out.header["Set-Cookie"])
			}
			link.Restore()
			until(t, "service to come back", func() bool { return there.me(second.text("access_token")).status == 200 })
			until(t, "the sign-out to succeed", func() bool {
				return there.do("POST", "/auth/logout", nil, cookie, header("X-Requested-With", "x")).status == 204
			})
			there.want(there.me(second.text("access_token")), 401, "token_revoked")
		})
	}
}

// The connection breaks before each command of an operation in turn, as if the
// process had died there. What was said to be dead is dead, and repeating the
// whole call makes everything dead.
func TestCrashBetweenSteps(t *testing.T) {
	t.Parallel()
	operations := map[string]func(w *world, first, _ *response) error{
		"disable": func(w *world, first, _ *response) error {
			return w.app.Users().Disable(w.t.Context(), first.at("user", "id").(string), "test")
		},
		"delete": func(w *world, first, _ *response) error {
			err := w.app.Users().Delete(w.t.Context(), first.at("user", "id").(string))
			if engine.AsProblem(err).Code == "not_found" {
				return nil // an earlier call had got to the end
			}
			return err
		},
		"logout": func(w *world, first, _ *response) error {
			return w.app.Logout(w.t.Context(), first.text("refresh_token"))
		},
		"end all": func(w *world, first, _ *response) error {
			return w.app.Sessions().EndAll(w.t.Context(), first.at("user", "id").(string), "test")
		},
		"set password": func(w *world, first, _ *response) error {
			return w.app.Users().SetPassword(w.t.Context(), first.at("user", "id").(string), "another long passphrase")
		},
	}
	for name, operation := range operations {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for step := 1; ; step++ {
				if !crashAt(t, step, operation) {
					if step < 3 {
						t.Errorf("only %d steps were found", step-1)
					}
					return
				}
			}
		})
	}
}

// crashAt runs the operation with the link cut before its step-th command, and
// reports whether it has that many.
func crashAt(t *testing.T, step int, operation func(w *world, first, second *response) error) bool {
	t.Helper()
	commands := &enginetest.Commands{}
	db, link := storetest.LinkedAndMonitored(t, commands.Monitor())
	w := newWorld(t, db, manifestOf(t, "shop", ``))
	observer := newWorld(t, storetest.Second(t, db, nil), manifestOf(t, "shop", ``))
	first := w.register()

	var count atomic.Int64
	commands.Hook(func(enginetest.Command) {
		if count.Add(1) == int64(step) {
			link.Cut()
		}
	})
	err := operation(w, first, nil)
	reached := count.Load() >= int64(step)
	commands.Hook(nil)
	dead := func() bool {
		access := observer.me(first.text("access_token")).status
		refresh := observer.do("POST", "/auth/refresh", obj("refresh_token", first.text("refresh_token"))).status
		return access == 401 && refresh == 401
	}
	if err == nil {
		until(t, "what was said to be dead to be dead", dead)
	} else if !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("step %d: got %v, want ErrUnavailable", step, err)
	}
	link.Restore()
	until(t, fmt.Sprintf("step %d: the repeated call to succeed", step), func() bool { return operation(w, first, nil) == nil })
	until(t, fmt.Sprintf("step %d: everything to be dead after the repetition", step), dead)
	return reached
}

func TestTwoEnginesStartAtOnce(t *testing.T) {
	t.Parallel()
	db := storetest.Database(t)
	m := manifestOf(t, "shop", `"users":{"demo_users":[{"email":"demo@example.com","password":"x"}]}`, `"environment":"development"`)
	worlds := make([]*world, 6)
	var wg sync.WaitGroup
	for i := range worlds {
		wg.Go(func() { worlds[i] = newWorld(t, db, m) })
	}
	wg.Wait()
	in := worlds[0].want(worlds[0].do("POST", "/auth/login", obj("email", "demo@example.com", "password", "x")), 200, "")
	for i, w := range worlds {
		if r := w.me(in.text("access_token")); r.status != 200 {
			t.Errorf("instance %d does not know the keys of instance 0: %s", i, r.raw)
		}
	}
	if n, _ := db.Collection("users").CountDocuments(t.Context(), bson.M{}); n != 1 {
		t.Errorf("%d demo users, want 1", n)
	}
}

// Every command of an app names it in its filter. The exceptions are listed.
func TestEveryFilterNamesTheApp(t *testing.T) {
	t.Parallel()
	commands := &enginetest.Commands{}
	watched := map[string][]string{
		onetime.Collection: {"insert", "find", "findAndModify", "update", "delete"}, identity.Collection: {"insert", "find", "update", "delete"},
		invitation.Collection: {"insert", "find", "update", "delete"}, mail.Collection: {"insert", "find", "findAndModify", "delete"},
	}
	monitors := []*driverevent.CommandMonitor{commands.Monitor()}
	watches := map[string]*storetest.OneApp{}
	for collection := range watched {
		watch, monitor := storetest.WatchOneApp(t, "shop", collection)
		watches[collection], monitors = watch, append(monitors, monitor)
	}
	w := driven(t, storetest.Monitored(t, &driverevent.CommandMonitor{Started: func(ctx context.Context, e *driverevent.CommandStartedEvent) {
		for _, m := range monitors {
			m.Started(ctx, e)
		}
	}}))
	if err := w.app.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	exceptions := map[string]bool{
		"find token_blacklist":    true, // the engine-wide feed
		"findAndModify app_state": true, // its _id is the slug
		"find app_state":          true, // the same, and the engine-wide watch of versions
	}
	checked := map[string]bool{}
	for _, c := range commands.All() {
		key := c.Name + " " + c.Collection
		for _, f := range c.Filters() {
			checked[key] = true
			if c.Collection == "casbin_policies" {
				if !domainIs(f, "shop") {
					t.Errorf("no domain in the filter of %s", c)
				}
				continue
			}
			if app, _ := f.Lookup("app").StringValueOK(); app != "shop" && !exceptions[key] {
				t.Errorf("no app in the filter of %s", c)
			}
		}
	}
	for collection, names := range watched {
		watches[collection].Saw(names...)
	}
	if len(checked) < 24 {
		t.Errorf("only %d kinds of commands were seen: %v", len(checked), checked)
	}
}

// domainIs reports whether a filter of policies names the app as the domain: the
// second value of a policy, the third of a grouping.
func domainIs(f bson.Raw, app string) bool {
	if list, ok := f.Lookup("$or").ArrayOK(); ok && f.Lookup("ptype").Type == 0 {
		values, err := list.Values()
		return err == nil && len(values) > 0 && !slices.ContainsFunc(values, func(v bson.RawValue) bool { return !domainIs(v.Document(), app) })
	}
	domain := map[string]string{"p": "v1", "g": "v2"}
	ptype, _ := f.Lookup("ptype").StringValueOK()
	if field := domain[ptype]; field != "" {
		value, _ := f.Lookup(field).StringValueOK()
		return value == app
	}
	return false
}

// policies drives the direct API of authorization once.
func (w *world) policies(userID string) {
	w.t.Helper()
	ctx, z := w.t.Context(), w.app.Authz()
	rule := authz.Rule{Subject: "user", Permission: authz.Permission{Object: "documents", Action: "read"}, Effect: authz.Allow}
	_, _, listed := z.Rules(ctx, authz.RuleFilter{}, authz.Page{Limit: 1})
	_, _, filtered := z.Rules(ctx, authz.RuleFilter{Subject: "user", Permission: rule.Permission}, authz.Page{})
	_, _, members := z.UsersOfRole(ctx, "user", authz.Page{Limit: 1})
	_, assigned := z.AssignedRoles(ctx, userID)
	for _, err := range []error{
		z.AddRules(ctx, rule), z.GrantRole(ctx, userID, "admin"), z.SetRoles(ctx, userID, "user"), z.RemoveRules(ctx, rule),
		listed, filtered, members, assigned,
	} {
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

// everything drives every route and the direct API once.
func (w *world) everything() {
	w.t.Helper()
	ctx := w.t.Context()
	first := w.register()
	id, _ := first.at("user", "id").(string)
	w.do("POST", "/auth/login", with(account, "password", "wrong"))
	guest := w.do("POST", "/auth/anonymous", nil)
	w.do("POST", "/auth/anonymous", obj("device_id", guest.text("device_id")))
	w.do("POST", "/auth/demo", nil)
	in := w.login()
	w.login()
	w.login()
	token := bearer(w.login().text("access_token"))
	w.do("POST", "/auth/refresh", obj("refresh_token", in.text("refresh_token")))
	w.do("PATCH", "/auth/me", obj("profile", obj("a", "b")), token)
	w.do("GET", "/auth/sessions", nil, token)
	w.do("DELETE", "/auth/sessions", nil, token)
	w.do("GET", "/auth/me/permissions", nil, token)
	w.do("POST", "/auth/authorize", obj("checks", []any{obj("object", "a", "action", "b")}), token)
	w.policies(id)
	w.do("POST", "/auth/password", obj("current_password", password, "new_password", "another long passphrase"), token)
	do(w.t, w.app.Strict().Handler(ok), "GET", "/", nil, token)
	w.do("POST", "/auth/logout", nil, token)
	u := w.app.Users()
	for _, err := range []error{
		u.SetPassword(ctx, id, password), u.Disable(ctx, id, "x"), u.Enable(ctx, id), u.Unlock(ctx, email),
	} {
		if err != nil {
			w.t.Error(err)
		}
	}
	w.login()
	for _, f := range []func() error{
		func() error { return w.app.Sessions().EndAll(ctx, id, "x") },
		func() error { _, _, err := w.app.Blacklist().Contains(ctx, tokens.RevokedUser, id); return err },
		func() error { return w.app.Blacklist().AddToken(ctx, "tok_x", time.Now().Add(time.Hour), "x") },
		func() error { _, err := u.List(ctx, users.ListOptions{Limit: 1}); return err },
		func() error { _, err := u.Sweep(ctx); return err },
		func() error { _, err := w.app.Sessions().Sweep(ctx); return err },
		func() error { return u.Delete(ctx, id) },
	} {
		if err := f(); err != nil {
			w.t.Error(err)
		}
	}
}

// Nothing secret may appear in a log, an error, a formatted value or, as it is,
// in the database.
func TestSecretsAreNowhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t, storetest.Database(t), manifestOf(t, "shop", `"users":{"allow_anonymous_users":true,"demo_users":[{"email":"d@example.com","password":"canary-demo"}]}`, `"environment":"development"`))
	first := w.register()
	device := w.do("POST", "/auth/anonymous", nil).text("device_id")
	w.do("POST", "/auth/login", with(account, "password", "canary-wrong-password"))
	w.do("POST", "/auth/refresh", obj("refresh_token", first.text("refresh_token")))
	answers := ""
	for _, token := range []string{first.text("access_token") + "x", first.text("refresh_token")} {
		answers += w.me(token).raw
		answers += w.do("POST", "/auth/refresh", obj("refresh_token", token+"x")).raw
	}
	w.close()
	secrets := map[string]string{
		"secret key": "canary-secret-key", "password": password, "demo password": "canary-demo", "wrong password": "canary-wrong-password",
		"access token": first.text("access_token"), "refresh token": first.text("refresh_token"),
		"device token": first.text("device_token"), "device id": device,
	}
	places := map[string]string{
		"logs": w.logs.String(), "answers": answers, "values": fmt.Sprintf("%v %+v %#v", w.app.Manifest(), w.app.Manifest().Auth, w.app.Manifest().Effective()),
		"events": fmt.Sprintf("%+v", w.events.All()), "database": dump(t, w),
	}
	for place, text := range places {
		if text == "" {
			t.Errorf("nothing was found in %s", place)
		}
		for name, value := range secrets {
			if value == "" || strings.Contains(text, value) {
				t.Errorf("%s is in %s", name, place)
			}
		}
	}
}

func dump(t *testing.T, w *world) string {
	t.Helper()
	names, err := w.db.ListCollectionNames(t.Context(), bson.M{})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for _, name := range names {
		cursor, err := w.db.Collection(name).Find(t.Context(), bson.M{})
		if err != nil {
			t.Fatal(err)
		}
		var docs []bson.M
		if err := cursor.All(t.Context(), &docs); err != nil {
			t.Fatal(err)
		}
		raw, err := json.Marshal(docs)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(raw)
		for _, d := range docs {
			if slices.Contains(valuesOf(d), nil) {
				t.Errorf("%s stores a null: %v", name, d)
			}
		}
	}
	return out.String()
}

func valuesOf(d bson.M) []any {
	var out []any
	for _, v := range d {
		if nested, ok := v.(bson.M); ok {
			out = append(out, valuesOf(nested)...)
			continue
		}
		if _, isList := v.(bson.A); !isList {
			out = append(out, v)
		}
	}
	return out
}
