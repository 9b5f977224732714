package engine_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/tokens"
)

func overTLS(r *http.Request) { r.TLS = &tls.ConnectionState{} }

func TestGuards(t *testing.T) {
	t.Parallel()
	w := setup(t, guests)
	first := w.register()
	id, _ := first.at("user", "id").(string)
	user := bearer(first.text("access_token"))
	guest := bearer(w.do("POST", "/auth/anonymous", nil).text("access_token"))
	a := w.app
	tests := []struct {
		name  string
		guard *engine.Guard
		edit  []request
		code  string
		who   string
	}{
		{"user", a.RequireUser(), []request{user}, "", id},
		{"nobody", a.RequireUser(), nil, "unauthenticated", ""},
		{"guest", a.RequireUser(), []request{guest}, "forbidden", ""},
		{"doubled", a.RequireUser(), []request{user, user}, "invalid_request", ""},
		{"strict", a.Strict(), []request{user}, "", id},
		{"strict nobody", a.Strict(), nil, "unauthenticated", ""},
		{"human", a.RequireHuman(), []request{user}, "", id},
		{"human nobody", a.RequireHuman(), nil, "unauthenticated", ""},
		{"fresh", a.RequireFresh(0), []request{user}, "", id},
		{"optional nobody", a.Optional(nil), nil, "", "nobody"},
		{"optional user", a.Optional(nil), []request{user}, "", id},
		{"optional garbage", a.Optional(nil), []request{bearer("a.b.c")}, "", "nobody"},
		{"optional malformed", a.Optional(nil), []request{bearer("a b")}, "invalid_request", ""},
		{"optional doubled", a.Optional(nil), []request{user, user}, "invalid_request", ""},
		{"optional guest", a.Optional(nil), []request{guest}, "forbidden", ""},
		{"TLS missing", a.RequireTLS(), []request{user}, "tls_required", ""},
		{"TLS claimed by a stranger", a.RequireTLS(), []request{header("X-Forwarded-Proto", "https")}, "tls_required", ""},
		{"TLS alone", a.RequireTLS(), []request{overTLS}, "", "nobody"},
		{"all", a.All(a.RequireTLS(), a.RequireUser()), []request{user, overTLS}, "", id},
		{"all but TLS", a.All(a.RequireTLS(), a.RequireUser()), []request{user}, "tls_required", ""},
		{"all but user", a.All(a.RequireTLS(), a.RequireUser()), []request{overTLS}, "unauthenticated", ""},
		{"all of nothing", a.All(), []request{user}, "internal", ""},
		{"zero", &engine.Guard{}, []request{user}, "internal", ""},
		{"nil", nil, []request{user}, "internal", ""},
	}
	for _, tt := range tests {
		r := do(t, tt.guard.Handler(ok), "GET", "/", nil, tt.edit...)
		if r.code() != tt.code || r.text("who") != tt.who {
			t.Errorf("%s: got %d %s, want %q for %q", tt.name, r.status, r.raw, tt.code, tt.who)
		}
		if tt.code != "" && tt.code != "internal" && (r.text("request_id") == "" || r.header.Get("Cache-Control") != "no-store") {
			t.Errorf("%s: refusal %v %s", tt.name, r.header, r.raw)
		}
	}
	nested := a.RequireUser().Handler(a.RequireTLS().Handler(ok))
	if r := do(t, nested, "GET", "/", nil, user, overTLS); r.text("who") != id {
		t.Errorf("a guard inside another one forgot the principal: %s", r.raw)
	}
	w.move(10*time.Minute + time.Second)
	if r := do(t, a.RequireFresh(0).Handler(ok), "GET", "/", nil, user); r.code() != "fresh_required" || r.header.Get("WWW-Authenticate") == "" {
		t.Errorf("an old sign-in: %s", r.raw)
	}
	refreshed := w.want(w.do("POST", "/auth/refresh", obj("refresh_token", first.text("refresh_token"))), 200, "")
	if r := do(t, a.RequireFresh(0).Handler(ok), "GET", "/", nil, bearer(refreshed.text("access_token"))); r.code() != "fresh_required" {
		t.Errorf("a refresh counts as a sign-in: %s", r.raw)
	}
	if r := do(t, a.RequireFresh(time.Hour).Handler(ok), "GET", "/", nil, user); r.status != 200 {
		t.Errorf("an hour is allowed: %s", r.raw)
	}
	w.events.Wait(t, event.AccessDenied)
}

// Strict asks the database: a session whose revocation was lost is refused.
func TestStrictSurvivesALostRevocation(t *testing.T) {
	t.Parallel()
	for _, auth := range []string{``, `"tokens":{"revocation":{"mode":"strict"}}`} {
		w := setup(t, auth)
		first := w.register()
		id, _ := first.at("user", "id").(string)
		for _, collection := range []string{"session_heads"} {
			if err := w.db.Collection(collection).Drop(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		guard, want := w.app.Strict(), 401
		if r := do(t, guard.Handler(ok), "GET", "/", nil, bearer(first.text("access_token"))); r.status != want || r.code() != "session_expired" {
			t.Errorf("%q, Strict without a head of %s: %d %s", auth, id, r.status, r.raw)
		}
		wantUser := 200
		if auth != "" {
			wantUser = 401
		}
		if r := do(t, w.app.RequireUser().Handler(ok), "GET", "/", nil, bearer(first.text("access_token"))); r.status != wantUser {
			t.Errorf("%q, RequireUser: %d, want %d", auth, r.status, wantUser)
		}
	}
}

// defect is an authenticator that is broken.
type defect struct{}

func (defect) Authenticate(*http.Request) (*engine.Principal, error) { panic("a defect") }

func TestPanicInAGuardRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, storetest.Database(t), manifestOf(t, "shop", ``), func(o *engine.Options) {
		o.Authenticators = map[string]engine.NewAuthenticator{"own": func(string) (engine.Authenticator, error) { return defect{}, nil }}
	})
	r := newRequest(t, "")
	r.Header.Del("Authorization")
	p, err := w.app.RequireUser().Check(r)
	if p != nil || engine.AsProblem(err).Code != "internal" {
		t.Errorf("got %v, %v", p, err)
	}
}

func newRequest(t *testing.T, token string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	return r
}

func TestOnError(t *testing.T) {
	t.Parallel()
	base := setup(t, ``)
	w := newWorld(t, base.db, manifestOf(t, "own", ``), func(o *engine.Options) {
		o.OnError = func(w http.ResponseWriter, _ *http.Request, p *engine.Problem) {
			w.WriteHeader(p.Status)
			_, _ = w.Write([]byte("own:" + p.Code))
		}
	})
	for _, h := range []http.Handler{w.app.Handler(), w.app.RequireUser().Handler(ok)} {
		r := do(t, h, "GET", "/auth/me", nil)
		if r.raw != "own:unauthenticated" || r.status != 401 || r.header.Get("WWW-Authenticate") == "" {
			t.Errorf("got %d %s %v", r.status, r.raw, r.header)
		}
	}
}

func TestDirectAPI(t *testing.T) {
	t.Parallel()
	w := setup(t, ``)
	first := w.register()
	ctx := t.Context()
	id, _ := first.at("user", "id").(string)
	g, err := w.app.Login(ctx, engine.Credentials{Email: email, Password: password}, engine.Device{Name: "cli"}, false)
	if err != nil {
		t.Fatal(err)
	}
	p, err := w.app.Verify(ctx, g.Access.Token)
	if err != nil || p.ID != id || p.App != "shop" {
		t.Errorf("Verify: %+v, %v", p, err)
	}
	next, err := w.app.Refresh(ctx, g.Session.RefreshToken, engine.Device{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.app.Logout(ctx, next.Session.RefreshToken); err != nil {
		t.Fatal(err)
	}
	if _, err := w.app.Verify(ctx, next.Access.Token); engine.AsProblem(err).Code != "token_revoked" {
		t.Errorf("Verify after Logout: %v", err)
	}
	if err := w.app.Users().Disable(ctx, id, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.app.StartSession(ctx, id, engine.Device{}, false); engine.AsProblem(err).Code != "account_disabled" {
		t.Errorf("a session for a disabled user: %v", err)
	}
	if w.app.Slug() != "shop" || w.eng.App("shop") != w.app || w.eng.App("none") != nil || len(w.app.Routes()) < 10 {
		t.Error("the app does not describe itself")
	}
}

func TestSignInAndOutByTheService(t *testing.T) {
	t.Parallel()
	w := setup(t, ``)
	id, _ := w.register().at("user", "id").(string)
	signIn := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if err := w.app.SignIn(rw, r, id); err != nil {
			t.Error(err)
		}
	})
	signOut := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if err := w.app.SignOut(rw, r); err != nil {
			t.Error(err)
		}
	})
	jar := cookieHeader(do(t, signIn, "POST", "/", nil))
	if r := do(t, w.app.RequireUser().Handler(ok), "GET", "/", nil, jar); r.text("who") != id {
		t.Errorf("signed in: %s", r.raw)
	}
	out := do(t, signOut, "POST", "/", nil, jar)
	if len(out.header["Set-Cookie"]) != 2 {
		t.Errorf("signed out: %v", out.header)
	}
	if r := do(t, w.app.RequireUser().Handler(ok), "GET", "/", nil, jar); r.code() != "token_revoked" {
		t.Errorf("after the sign-out: %s", r.raw)
	}
	if r := do(t, signOut, "POST", "/", nil); r.status != 200 {
		t.Errorf("nobody signs out: %d", r.status)
	}
}

func TestCustomClaims(t *testing.T) {
	t.Parallel()
	base := setup(t, ``)
	w := newWorld(t, base.db, manifestOf(t, "claims", ``), func(o *engine.Options) {
		o.Claims = claimsOf
	})
	in := w.register()
	if got := w.me(in.text("access_token")).at("principal", "claims", "plan"); got != "gold of claims" {
		t.Errorf("claims: %v", got)
	}
	next := w.do("POST", "/auth/refresh", obj("refresh_token", in.text("refresh_token")))
	if got := w.me(next.text("access_token")).at("principal", "claims", "plan"); got != "gold of claims" {
		t.Errorf("claims after a refresh: %v", got)
	}
}

func TestLifecycle(t *testing.T) {
	t.Parallel()
	w := setup(t, ``)
	ctx := t.Context()
	if _, err := w.eng.Load(ctx, w.app.Manifest()); !errors.Is(err, engine.ErrLoaded) {
		t.Errorf("the same slug twice: %v", err)
	}
	if err := w.app.Close(ctx); err != nil {
		t.Fatal(err)
	}
	again, err := w.eng.Load(ctx, w.app.Manifest())
	if err != nil {
		t.Fatalf("load after close: %v", err)
	}
	for range 2 {
		if err := again.Close(ctx); err != nil {
			t.Error(err)
		}
		if err := w.eng.Close(ctx); err != nil {
			t.Error(err)
		}
	}
	if _, err := w.eng.Load(ctx, w.app.Manifest()); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("load on a closed engine: %v", err)
	}
	if _, err := w.eng.Load(ctx, nil); !errors.Is(err, engine.ErrOptions) {
		t.Errorf("load of nothing: %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	w := setup(t, ``)
	env := func(pairs ...string) func(string) (string, bool) {
		return func(name string) (string, bool) {
			for i := 0; i < len(pairs); i += 2 {
				if pairs[i] == name {
					return pairs[i+1], true
				}
			}
			return "", false
		}
	}
	long := strings.Repeat("k", 32)
	for name, tt := range map[string]struct {
		opts *engine.Options
		says string
	}{
		"no key":           {&engine.Options{LookupEnv: env()}, "openssl rand"},
		"short key":        {&engine.Options{SecretKeys: []engine.Secret{engine.NewSecret("short")}}, "32 are needed"},
		"short in the env": {&engine.Options{LookupEnv: env("SECRET_KEY", "short")}, "32 are needed"},
		"two that differ":  {&engine.Options{LookupEnv: env("MANDATE_SECRET_KEY", long, "SECRET_KEY", long+"x")}, "differ"},
		"bad pepper":       {&engine.Options{SecretKeys: []engine.Secret{engine.NewSecret(long)}, Peppers: []engine.Pepper{{ID: "!"}}}, "pepper"},
		"bad cost":         {&engine.Options{SecretKeys: []engine.Secret{engine.NewSecret(long)}, InsecureHashCost: 3}, "InsecureHashCost"},
	} {
		if _, err := engine.New(t.Context(), w.db, tt.opts); !errors.Is(err, engine.ErrOptions) || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), long) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := engine.New(t.Context(), nil, nil); !errors.Is(err, engine.ErrOptions) {
		t.Errorf("no database: %v", err)
	}
}

// What is for people is for no machine, and the other way round.
func TestMachinesAreNotHuman(t *testing.T) {
	t.Parallel()
	w := setup(t, clients, publicURL)
	c := w.newClient()
	issued, err := w.app.Tokens().Issue(tokens.Grant{Subject: c.ID, Kind: authz.KindService, Epoch: c.Epoch})
	if err != nil {
		t.Fatal(err)
	}
	token := bearer(issued.Token)
	w.want(w.through(w.app.RequireHuman(), token), 403, "human_required")
	expect(t, w.through(w.app.RequireMachine(), token).status, 200)
	_, person := w.newUser(email)
	w.want(w.through(w.app.RequireMachine(), person), 403, "machine_required")
	// An app that has no clients takes no token of one.
	usual := setup(t, ``, publicURL)
	if issued, err = usual.app.Tokens().Issue(tokens.Grant{Subject: c.ID, Kind: authz.KindService}); err != nil {
		t.Fatal(err)
	}
	usual.want(usual.through(usual.app.RequireUser(), bearer(issued.Token)), 401, "token_invalid")
}

// The message of a start without a database has to help whoever reads it.
func TestNewNamesTheAddress(t *testing.T) {
	t.Parallel()
	client, err := mongo.Connect(t.Context(), options.Client().ApplyURI("mongodb://127.0.0.1:1"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Disconnect(context.Background())
	began := time.Now()
	_, err = engine.New(t.Context(), client.Database("x"), &engine.Options{SecretKeys: []engine.Secret{engine.NewSecret(secretKey)}})
	if !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "127.0.0.1:1") || !strings.Contains(err.Error(), "check that") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v to say so", took)
	}
}
