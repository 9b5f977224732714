package engine_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/engine/audit"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/sessions"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/apikey"
	"github.com/mandate-auth/mandate/tokens/oauth2"
	"github.com/mandate-auth/mandate/users"
)

// tenant is one app of the matrix and somebody who is signed in to it.
type tenant struct {
	app      *engine.App
	slug     string
	password string
	user     string
	session  string
	access   string
	refresh  string
	device   string
	key      *apikey.Created
	client   *oauth2.Created
	machine  string // an access token of the client
	// letters are what was mailed to people of the app, and what they are linked to.
	letters *letters
}

// tenants loads three apps into one engine, with one address in each.
func tenants(t *testing.T, w *world) []*tenant {
	t.Helper()
	w.quiet(w.app)
	out := make([]*tenant, 0, 3)
	for _, slug := range []string{"shop", "blog", "wiki"} {
		tn := &tenant{slug: slug, app: w.app, password: "the long passphrase of " + slug}
		if slug != "shop" {
			var err error
			if tn.app, err = w.eng.Load(t.Context(), matrixManifest(t, slug)); err != nil {
				t.Fatal(err)
			}
			w.quiet(tn.app)
		}
		r := do(t, tn.app.Handler(), "POST", "/"+slug+"/register", obj("email", email, "password", tn.password))
		if r.status != 201 {
			t.Fatalf("register at %s: %s", slug, r.raw)
		}
		tn.user, _ = r.at("user", "id").(string)
		tn.access, tn.refresh, tn.device = r.text("access_token"), r.text("refresh_token"), r.text("device_token")
		list, err := tn.app.Sessions().List(t.Context(), tn.user)
		if err != nil || len(list) != 1 {
			t.Fatalf("sessions at %s: %v, %v", slug, list, err)
		}
		tn.session = list[0].ID
		if err := tn.app.Authz().AddRules(t.Context(), rule(tn.user, "secret of "+slug, "read"), rule("user", "documents", "read"),
			rule(tn.user, "mandate", "policies"), rule(tn.user, "mandate", "users"), rule(tn.user, "mandate", "escalate"),
			rule(tn.user, "mandate", "clients"), rule(tn.user, "mandate", "audit"), rule(tn.user, "mandate", "metrics")); err != nil {
			t.Fatal(err)
		}
		tn.machines(t)
		tn.letters = tn.write(t, w)
		out = append(out, tn)
	}
	return out
}

// machines makes what machines authenticate with.
func (tn *tenant) machines(t *testing.T) {
	t.Helper()
	var err error
	if tn.key, err = tn.app.APIKeys().Create(t.Context(), apikey.NewKey{UserID: tn.user, Name: "ci"}); err != nil {
		t.Fatal(err)
	}
	if tn.client, err = tn.app.Clients().Create(t.Context(), oauth2.NewClient{Name: "worker", Scopes: []string{"read"}}); err != nil {
		t.Fatal(err)
	}
	if tn.machine, _, err = tn.app.IssueClientToken(t.Context(), tn.client.ID); err != nil {
		t.Fatal(err)
	}
}

// state is what is stored of an app, apart from what attempts leave behind.
func (tn *tenant) state(t *testing.T, w *world) string {
	t.Helper()
	var b strings.Builder
	for collection, filter := range map[string]bson.M{
		"users":           {"app": tn.slug, "_id": tn.user},
		"session_heads":   {"app": tn.slug, "_id": tn.user},
		"user_sessions":   {"app": tn.slug, "_id": tn.session},
		"token_blacklist": {"app": tn.slug},
		"api_keys":        {"app": tn.slug},
		"oauth_clients":   {"app": tn.slug},
		"onetime_tokens":  {"app": tn.slug},
		"identities":      {"app": tn.slug},
		"invitations":     {"app": tn.slug},
		"mail_outbox":     {"app": tn.slug, "_id": bson.M{"$in": tn.letters.jobs}}, // of what was tried, others wait by now
		"casbin_policies": {"$or": bson.A{bson.M{"ptype": "p", "v1": tn.slug}, bson.M{"ptype": "g", "v2": tn.slug, "v0": tn.user}}},
	} {
		cursor, err := w.db.Collection(collection).Find(t.Context(), filter)
		if err != nil {
			t.Fatal(err)
		}
		var docs []bson.M
		if err := cursor.All(t.Context(), &docs); err != nil {
			t.Fatal(err)
		}
		for _, d := range docs {
			delete(d, "last_seen_at")
			delete(d, "last_used_at")
		}
		fmt.Fprintf(&b, "%s %v\n", collection, docs)
	}
	// A map has no order, the state has one.
	lines := strings.Split(b.String(), "\n")
	for i := range lines {
		for j := i + 1; j < len(lines); j++ {
			if lines[j] < lines[i] {
				lines[i], lines[j] = lines[j], lines[i]
			}
		}
	}
	return strings.Join(lines, "\n")
}

// Nothing that one app has handed out does anything at another: every route and
// every direct call, with every kind of credential and identifier, between every
// two of three apps. Afterwards everything is as it was.
func TestIsolationMatrix(t *testing.T) {
	t.Parallel()
	w := newWorld(t, storetest.Database(t), matrixManifest(t, "shop"), strangers)
	all := tenants(t, w)
	before := map[string]string{}
	for _, tn := range all {
		before[tn.slug] = tn.state(t, w)
	}
	pairs := 0
	for _, of := range all {
		for _, at := range all {
			if of != at {
				pairs += overHTTP(t, of, at) + directly(t, of, at) + byLetter(t, of, at)
			}
		}
	}
	for _, tn := range all {
		if after := tn.state(t, w); after != before[tn.slug] {
			t.Errorf("something of %s has changed:\n%s\nbefore:\n%s", tn.slug, after, before[tn.slug])
		}
		if r := do(t, tn.app.Handler(), "GET", "/"+tn.slug+"/me", nil, bearer(tn.access)); r.status != 200 {
			t.Errorf("the user of %s was signed out: %s", tn.slug, r.raw)
		}
		if r := do(t, tn.app.Handler(), "POST", "/"+tn.slug+"/refresh", obj("refresh_token", tn.refresh)); r.status != 200 {
			t.Errorf("the user of %s cannot refresh: %s", tn.slug, r.raw)
		}
	}
	if pairs < 500 {
		t.Errorf("%d pairs, want 500", pairs)
	}
	t.Logf("%d pairs", pairs)
}

// presented are the ways in which something of one app comes to another.
func presented(of, at *tenant) map[string]func(*http.Request) {
	cookie := func(pairs ...string) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Set("Cookie", strings.Join(pairs, "; "))
			r.Header.Set("X-Requested-With", "test")
		}
	}
	return map[string]func(*http.Request){
		"bearer":            bearer(of.access),
		"refresh as bearer": bearer(of.refresh),
		"device as bearer":  bearer(of.device),
		"its cookies": cookie("__Host-"+of.slug+"_access="+of.access, "__Secure-"+of.slug+"_refresh="+of.refresh,
			"__Host-"+of.slug+"_device="+of.device),
		"API key":                   bearer(of.key.Key),
		"API key in its header":     header("X-API-Key", of.key.Key),
		"client's token":            bearer(of.machine),
		"client's secret":           basicAuth(of.client.ID, of.client.Secret),
		"its access in our cookie":  cookie("__Host-" + at.slug + "_access=" + of.access),
		"its refresh in our cookie": cookie("__Secure-" + at.slug + "_refresh=" + of.refresh),
		"all in our cookies": cookie("__Host-"+at.slug+"_access="+of.access, "__Secure-"+at.slug+"_refresh="+of.refresh,
			"__Host-"+at.slug+"_device="+of.device),
	}
}

// overHTTP presents what belongs to one app at every route of another.
func overHTTP(t *testing.T, of, at *tenant) (pairs int) {
	t.Helper()
	base := "/" + at.slug
	bodies := map[string]any{
		"POST /register":  obj("email", email, "password", of.password),
		"POST /login":     obj("email", email, "password", of.password, "device_token", of.device),
		"POST /refresh":   obj("refresh_token", of.refresh),
		"POST /logout":    obj("refresh_token", of.refresh),
		"POST /authorize": obj("checks", []any{obj("object", "secret of "+of.slug, "action", "read")}),
		"PATCH /me":       obj("profile", obj("a", "b")),
		"POST /password":  obj("current_password", of.password, "new_password", "another long passphrase"),

		"POST /admin/policies":                obj("add", []any{obj("subject", of.user, "object", "a", "action", "b")}),
		"PUT /admin/roles/{role}/permissions": obj("permissions", []any{"secret of " + of.slug + ":read"}),
		"PUT /admin/users/{id}/roles":         obj("roles", []any{"admin"}),
		"POST /admin/users/{id}/roles":        obj("role", "admin"),
		"POST /api-keys":                      obj("name", "x"),
		"POST /admin/clients":                 obj("name", "x"),
		"PATCH /admin/clients/{id}":           obj("status", "disabled"),
		"POST /oauth2/token":                  "grant_type=client_credentials",
		"POST /oauth2/introspect":             "token=" + of.machine,
		"POST /oauth2/revoke":                 "token=" + of.machine,
	}
	maps.Copy(bodies, of.letters.bodies())
	open := map[string]bool{"GET /health": true, "GET /openapi.json": true, "POST /anonymous": true, "POST /demo": true, "GET /oauth/providers": true, "GET /oauth/{provider}/login": true}
	for route := range of.letters.asking() {
		open[route] = true
	}
	for _, served := range at.app.Routes() {
		method, path, _ := strings.Cut(served, " ")
		route := method + " " + strings.TrimPrefix(path, base)
		for name, edit := range presented(of, at) {
			pairs++
			body := bodies[route]
			if body == nil && method == "POST" {
				body = obj()
			}
			id := of.session
			switch {
			case strings.Contains(path, "/users/{id}"):
				id = of.user
			case strings.Contains(path, "/clients/{id}"):
				id = of.client.ID
			case strings.Contains(path, "/api-keys/{id}"):
				id = of.key.ID
			case strings.Contains(path, "/invitations/{id}"):
				id = of.letters.invitation.ID
			}
			edits := []request{edit}
			if strings.Contains(path, "/oauth2/") {
				edits = append(edits, asForm)
			}
			r := do(t, at.app.Handler(), method, strings.NewReplacer("{id}", id, "{role}", "user", "{provider}", "acme", "{secret}", of.client.Secrets[0].ID).Replace(path), body, edits...)
			what := fmt.Sprintf("%s of %s at %s %s", name, of.slug, at.slug, route)
			switch {
			case open[route]:
				if id, _ := r.at("user", "id").(string); id == of.user || r.status >= 500 {
					t.Errorf("%s: %d %s", what, r.status, r.raw)
				}
			case route == "POST /register" && r.code() == "email_taken":
			case strings.HasSuffix(route, "/callback"):
				at.turnedAway(t, what, r)
			case r.status != 401 && r.status != 400:
				t.Errorf("%s: %d %s", what, r.status, r.raw)
			}
			for _, secret := range []string{of.user, of.session, "secret of " + of.slug, of.letters.invitation.ID} {
				if strings.Contains(r.raw, secret) {
					t.Errorf("%s: the answer holds something of the other app: %s", what, r.raw)
				}
			}
		}
	}
	// Somebody who is signed in names what belongs to another app.
	own := bearer(at.access)
	for _, tt := range []struct {
		method, path string
		body         any
		status       int
	}{
		{"DELETE", base + "/sessions/" + of.session, nil, 404},
		{"POST", base + "/refresh", obj("refresh_token", of.refresh), 401},
		{"POST", base + "/logout", obj("refresh_token", of.refresh), 401},
		{"GET", "/" + of.slug + "/me", nil, 404},
		{"GET", base + "/admin/users/" + of.user + "/roles", nil, 404},
		{"PUT", base + "/admin/users/" + of.user + "/roles", obj("roles", []any{"admin"}), 404},
		{"POST", base + "/admin/users/" + of.user + "/roles", obj("role", "admin"), 404},
		{"DELETE", base + "/admin/users/" + of.user + "/roles/user", nil, 404},
		{"POST", base + "/admin/policies", obj("add", []any{obj("subject", of.user, "object", "a", "action", "b")}), 404},
		{"GET", base + "/admin/policies?subject=" + of.user, nil, 200}, // and none is listed
		{"DELETE", base + "/api-keys/" + of.key.ID, nil, 404},
		{"GET", base + "/admin/clients/" + of.client.ID, nil, 404},
		{"PATCH", base + "/admin/clients/" + of.client.ID, obj("status", "disabled"), 404},
		{"POST", base + "/admin/clients/" + of.client.ID + "/secrets", nil, 404},
		{"DELETE", base + "/admin/clients/" + of.client.ID + "/secrets/" + of.client.Secrets[0].ID, nil, 404},
		{"DELETE", base + "/admin/clients/" + of.client.ID, nil, 404},
		{"GET", base + "/admin/audit?user_id=" + of.user, nil, 200},
	} {
		pairs++
		edits := []request{own}
		if strings.HasSuffix(tt.path, "/logout") {
			edits = nil
		}
		if r := do(t, at.app.Handler(), tt.method, tt.path, tt.body, edits...); r.status != tt.status {
			t.Errorf("%s %s at %s: %d %s, want %d", tt.method, tt.path, at.slug, r.status, r.raw, tt.status)
		} else if strings.Contains(r.raw, "secret of "+of.slug) || strings.Contains(r.raw, `"subject"`) {
			t.Errorf("%s %s at %s lists rules of %s: %s", tt.method, tt.path, at.slug, of.slug, r.raw)
		}
	}
	for name, guard := range map[string]*engine.Guard{
		"user": at.app.RequireUser(), "role": at.app.RequireRole("user"), "permission": at.app.RequirePermission("documents", "read"),
		"strict": at.app.Strict(), "owner": at.app.RequireOwnerOr(owns(of.user, nil), nil), "any": at.app.Any(at.app.RequireAdmin(), at.app.RequireUser()),
	} {
		pairs++
		for what, credential := range map[string]request{
			"a token": bearer(of.access), "an API key": bearer(of.key.Key), "a client's token": bearer(of.machine), "a client": basicAuth(of.client.ID, of.client.Secret),
		} {
			if r := do(t, guard.Handler(ok), "GET", "/", nil, credential); r.status != 401 {
				t.Errorf("the guard %s of %s with %s of %s: %d %s", name, at.slug, what, of.slug, r.status, r.raw)
			}
		}
	}
	return pairs
}

// directly calls every method of one app with what belongs to another.
func directly(t *testing.T, of, at *tenant) (pairs int) {
	t.Helper()
	ctx, app, z := t.Context(), at.app, at.app.Authz()
	foreign := &engine.Principal{ID: of.user, Kind: authz.KindHuman, App: of.slug, SessionID: of.session}
	posing := &engine.Principal{ID: of.user, Kind: authz.KindHuman, App: at.slug}
	_, ofPage, err := of.app.Authz().Rules(ctx, authz.RuleFilter{}, authz.Page{Limit: 1})
	if err != nil || ofPage == "" {
		t.Fatalf("no cursor: %v", err)
	}
	nothing := func(list any, err error) error {
		if err != nil || fmt.Sprint(list) != "[]" {
			return fmt.Errorf("got %v, %w", list, err)
		}
		return errNothing
	}
	yes := func(can bool, err error) error {
		if can || err != nil {
			return fmt.Errorf("got %t, %w", can, err)
		}
		return errNothing
	}
	second := func(_ any, err error) error { return err }
	for name, tt := range map[string]struct {
		err  error
		want error
	}{
		"Users.Get":            {second(app.Users().Get(ctx, of.user)), users.ErrNotFound},
		"Users.Active":         {second(app.Users().Active(ctx, of.user)), users.ErrNotFound},
		"Users.Disable":        {app.Users().Disable(ctx, of.user, "x"), users.ErrNotFound},
		"Users.Enable":         {app.Users().Enable(ctx, of.user), users.ErrNotFound},
		"Users.Delete":         {app.Users().Delete(ctx, of.user), users.ErrNotFound},
		"Users.SetPassword":    {app.Users().SetPassword(ctx, of.user, "another long passphrase"), users.ErrNotFound},
		"Users.ChangePassword": {app.Users().ChangePassword(ctx, of.user, users.PasswordChange{Current: of.password, New: "another long passphrase"}), users.ErrNotFound},
		"Users.UpdateProfile":  {second(app.Users().UpdateProfile(ctx, of.user, map[string]any{"a": "b"})), users.ErrNotFound},
		"Sessions.List":        {nothing(app.Sessions().List(ctx, of.user)), errNothing},
		"Sessions.End":         {app.Sessions().End(ctx, of.user, of.session, "x"), sessions.ErrNotFound},
		"Sessions.EndAll":      {app.Sessions().EndAll(ctx, of.user, "x"), sessions.ErrNotFound},
		"Sessions.EndOthers":   {app.Sessions().EndOthers(ctx, of.user, of.session, "x"), sessions.ErrNotFound},
		"Sessions.Forget":      {repeatable(app.Sessions().Forget(ctx, of.user)), errNothing},
		"Sessions.EndByToken":  {app.Sessions().EndByToken(ctx, of.refresh, "x"), sessions.ErrTokenInvalid},
		"Sessions.Check":       {second(app.Sessions().Check(ctx, of.user, of.session)), sessions.ErrExpired},
		"Login":                {second(app.Login(ctx, engine.Credentials{Email: email, Password: of.password, DeviceToken: of.device}, engine.Device{}, false)), users.ErrInvalidCredentials},
		"StartSession":         {second(app.StartSession(ctx, of.user, engine.Device{}, false)), users.ErrNotFound},
		"Refresh":              {second(app.Refresh(ctx, of.refresh, engine.Device{})), sessions.ErrTokenInvalid},
		"Logout":               {app.Logout(ctx, of.refresh), sessions.ErrTokenInvalid},
		"APIKeys.Get":          {second(app.APIKeys().Get(ctx, of.user, of.key.ID)), apikey.ErrNotFound},
		"APIKeys.Verify":       {second(app.APIKeys().Verify(ctx, of.key.Key)), tokens.ErrInvalid},
		"APIKeys.Revoke":       {app.APIKeys().Revoke(ctx, of.user, of.key.ID, "x"), apikey.ErrNotFound},
		"APIKeys.RevokeAll":    {repeatable(app.APIKeys().RevokeAll(ctx, of.user, "x")), errNothing},
		"APIKeys.Create":       {second(app.APIKeys().Create(ctx, apikey.NewKey{UserID: of.user, Name: "x"})), apikey.ErrOwner},
		"Clients.Get":          {second(app.Clients().Get(ctx, of.client.ID)), oauth2.ErrNotFound},
		"Clients.Authenticate": {second(app.Clients().Authenticate(ctx, of.client.ID, of.client.Secret)), oauth2.ErrInvalidClient},
		"Clients.Rotate":       {second(app.Clients().Rotate(ctx, of.client.ID)), oauth2.ErrNotFound},
		"Clients.RemoveSecret": {app.Clients().RemoveSecret(ctx, of.client.ID, of.client.Secrets[0].ID), oauth2.ErrNotFound},
		"Clients.SetScopes":    {app.Clients().SetScopes(ctx, of.client.ID, nil), oauth2.ErrNotFound},
		"Clients.Disable":      {app.Clients().Disable(ctx, of.client.ID, "x"), oauth2.ErrNotFound},
		"Clients.Enable":       {app.Clients().Enable(ctx, of.client.ID), oauth2.ErrNotFound},
		"Clients.Delete":       {app.Clients().Delete(ctx, of.client.ID), oauth2.ErrNotFound},
		"IssueClientToken":     {third(app.IssueClientToken(ctx, of.client.ID)), oauth2.ErrNotFound},
		"DeleteClient":         {app.DeleteClient(ctx, of.client.ID), oauth2.ErrNotFound},
		"Audit.Query":          {nothing(recordsOf(ctx, app, of.user)), errNothing},
		"Authz.Can":            {yes(z.Can(ctx, foreign, "documents", "read")), errNothing},
		"Authz.Can, posing":    {yes(z.Can(ctx, posing, "secret of "+of.slug, "read")), errNothing},
		"Authz.HasRole":        {yes(z.HasRole(ctx, foreign, "user")), errNothing},
		"Authz.HasRole, pose":  {yes(z.HasRole(ctx, posing, "user")), errNothing},
		"Authz.Roles":          {nothing(z.Roles(ctx, of.user)), errNothing},
		"Authz.AssignedRoles":  {nothing(z.AssignedRoles(ctx, of.user)), errNothing},
		"Authz.Permissions":    {nothing(z.Permissions(ctx, of.user)), errNothing},
		"Authz.GrantRole":      {z.GrantRole(ctx, of.user, "admin"), users.ErrNotFound},
		"Authz.SetRoles":       {z.SetRoles(ctx, of.user, "admin"), users.ErrNotFound},
		"Authz.RevokeRole":     {repeatable(z.RevokeRole(ctx, of.user, "user")), errNothing},
		"Authz.AddRules":       {z.AddRules(ctx, rule(of.user, "a", "b")), users.ErrNotFound},
		"Authz.RemoveRules":    {repeatable(z.RemoveRules(ctx, rule(of.user, "secret of "+of.slug, "read"))), errNothing},
		"Authz.HasRule":        {yes(z.HasRule(ctx, rule(of.user, "secret of "+of.slug, "read"))), errNothing},
		"Authz.Rules, cursor":  {third(z.Rules(ctx, authz.RuleFilter{}, authz.Page{After: ofPage})), users.ErrInvalidCursor},
	} {
		pairs++
		if !errors.Is(tt.err, tt.want) {
			t.Errorf("%s at %s with what belongs to %s: %v; want %v", name, at.slug, of.slug, tt.err, tt.want)
		}
	}
	for _, credential := range []string{of.access, of.machine, of.key.Key} {
		if _, err := app.Verify(ctx, credential); err == nil {
			t.Errorf("Verify at %s takes a credential of %s", at.slug, of.slug)
		}
	}
	return pairs + 1
}

// recordsOf are the records about somebody of another app, but for those of what was
// tried here.
func recordsOf(ctx context.Context, app *engine.App, userID string) ([]audit.Record, error) {
	records, _, err := app.Audit().Query(ctx, audit.Filter{UserID: userID, Result: event.Success}, 0, "")
	return records, err
}

// errNothing stands for an answer that tells nothing and changes nothing.
var errNothing = errors.New("nothing")

// repeatable is a call that is no error and, as the state shows, does nothing.
func repeatable(err error) error {
	if err == nil {
		return errNothing
	}
	return err
}

func third(_, _ any, err error) error { return err }

// An app is loaded, used, closed and loaded again while others serve.
func TestAppsComeAndGoWhileOthersServe(t *testing.T) {
	t.Parallel()
	w := newWorld(t, storetest.Database(t), matrixManifest(t, "shop"))
	w.app.Handler()
	r := do(t, w.app.Handler(), "POST", "/shop/register", account)
	token := bearer(r.text("access_token"))
	guard := w.app.RequireRole("user").Handler(ok)
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan int, 1)
	go func() {
		n := 0
		for ctx.Err() == nil {
			if r := do(t, guard, "GET", "/", nil, token); r.status != 200 {
				t.Errorf("while others came and went: %d %s", r.status, r.raw)
				break
			}
			n++
		}
		served <- n
	}()
	for i := range 12 {
		slug := fmt.Sprintf("app%d", i%3)
		app, err := w.eng.Load(t.Context(), matrixManifest(t, slug))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.eng.Load(t.Context(), matrixManifest(t, slug)); !errors.Is(err, engine.ErrLoaded) {
			t.Errorf("loaded twice: %v", err)
		}
		if r := do(t, app.Handler(), "POST", "/"+slug+"/register", with(account, "email", fmt.Sprintf("a%d@example.com", i))); r.status != 201 {
			t.Errorf("register at %s: %s", slug, r.raw)
		}
		if err := app.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if w.eng.App(slug) != nil {
			t.Errorf("%s is there after it was closed", slug)
		}
	}
	stop()
	if n := <-served; n == 0 {
		t.Error("nothing was served")
	}
}
