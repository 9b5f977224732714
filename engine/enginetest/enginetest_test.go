package enginetest_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.uber.org/goleak"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/engine/enginetest"
	"github.com/mandate-auth/mandate/engine/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service is a handler as a service would have it.
func service(app *engine.App) http.Handler {
	mux := http.NewServeMux()
	mux.Handle(app.Manifest().BasePath+"/", app.Handler())
	mux.Handle("GET /who", app.RequireUser().Func(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, engine.PrincipalFrom(r.Context()).ID)
		if theme, err := r.Cookie("theme"); err == nil {
			_, _ = io.WriteString(w, " "+theme.Value)
		}
	}))
	mux.Handle("POST /admin", app.RequireAdmin().Func(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	return mux
}

func status(t *testing.T, client *http.Client, method, url string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	return res.StatusCode
}

// Not parallel: the environment belongs to all tests.
func TestRequireDB(t *testing.T) {
	t.Setenv("MANDATE_REQUIRE_DB", "1")
	t.Setenv("MONGODB_URI", "")
	if got := outcome(func(t testing.TB) { enginetest.New(t, nil) }); !strings.Contains(got, "no MONGODB_URI") {
		t.Errorf("a run meant for a real server went on in memory: %q", got)
	}
}

func TestNewEndsTheTest(t *testing.T) {
	t.Parallel()
	for says, opts := range map[string]*enginetest.Options{
		"no-such.json": {ManifestFile: "no-such.json"},
		"slug":         {Manifest: `{}`},
		"32":           {Configure: func(o *engine.Options) { o.SecretKeys = []engine.Secret{engine.NewSecret("short")} }},
	} {
		if got := outcome(func(t testing.TB) { enginetest.New(t, opts) }); !strings.Contains(got, says) {
			t.Errorf("%s: got %q", says, got)
		}
	}
}

func TestClock(t *testing.T) {
	t.Parallel()
	var clock enginetest.Clock
	before := time.Now()
	if now := clock.Now(); now.Before(before) || now.After(time.Now()) {
		t.Errorf("a clock that nobody moved shows %v at %v", now, before)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { clock.Advance(time.Hour) })
		wg.Go(func() { clock.Now() })
	}
	wg.Wait()
	if ahead := clock.Now().Sub(before); ahead < 8*time.Hour || ahead > 8*time.Hour+time.Minute {
		t.Errorf("the clock is ahead by %v", ahead)
	}
}

func TestRequest(t *testing.T) {
	t.Parallel()
	env := enginetest.New(t, nil)
	ada := env.Start(t, enginetest.User{Email: "ada@example.com", Profile: map[string]any{"name": "Ada"}})
	for _, tt := range []struct {
		as   *enginetest.Session
		want string
	}{{ada, ada.UserID}, {nil, "unauthenticated"}} {
		w := httptest.NewRecorder()
		service(env.App).ServeHTTP(w, env.Request(t, "GET", "/who", nil, tt.as))
		if !strings.Contains(w.Body.String(), tt.want) {
			t.Errorf("got %s, want %s", w.Body, tt.want)
		}
	}
	w := httptest.NewRecorder()
	service(env.App).ServeHTTP(w, env.Request(t, "PATCH", "/auth/me", map[string]any{"profile": map[string]any{"a": "b"}}, ada))
	if w.Code != 200 || !strings.Contains(w.Body.String(), `"name":"Ada"`) {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	env := enginetest.New(t, nil)
	session := env.Start(t, enginetest.User{Email: "ada@example.com"})
	if ev := env.Events.Wait(t, event.SessionStarted); ev.UserID != session.UserID || ev.App != "test" {
		t.Errorf("got %+v", ev)
	}
	if _, found := env.Events.Find(func(ev event.Event) bool { return ev.Type == event.UserRegistered }); !found {
		t.Errorf("no registration in %v", env.Events.All())
	}
	env.Events.Reset()
	if n := len(env.Events.All()); n != 0 {
		t.Errorf("%d events after Reset", n)
	}
	var own enginetest.Events
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() { own.Record(context.Background(), event.Event{Type: event.Type(fmt.Sprint(i))}) })
		wg.Go(func() { own.Wait(t, event.Type(fmt.Sprint(i))) })
	}
	wg.Wait()
}

func TestCommands(t *testing.T) {
	t.Parallel()
	env := enginetest.New(t, nil)
	session := env.Start(t, enginetest.User{Email: "ada@example.com"})
	env.Commands.Reset()
	var hooked []string
	env.Commands.Hook(func(c enginetest.Command) { hooked = append(hooked, c.Name) })
	if _, err := env.App.Users().Get(t.Context(), session.UserID); err != nil {
		t.Fatal(err)
	}
	env.Commands.Hook(nil)
	if _, err := env.App.Users().Get(t.Context(), session.UserID); err != nil {
		t.Fatal(err)
	}
	if got := enginetest.Names(env.Commands.Foreground()); got != "find users, find users" {
		t.Errorf("commands: %s", got)
	}
	if fmt.Sprint(hooked) != "[find]" {
		t.Errorf("hooked: %q", hooked)
	}
	filters := env.Commands.Foreground()[0].Filters()
	if len(filters) != 1 || filters[0].Lookup("_id").StringValue() != session.UserID {
		t.Errorf("filters: %v", filters)
	}
	raw, err := bson.Marshal(bson.D{{Key: "update", Value: "users"}, {Key: "updates", Value: bson.A{bson.M{"q": bson.M{"_id": "x"}}, bson.M{"q": bson.M{"_id": "y"}}}}})
	if err != nil {
		t.Fatal(err)
	}
	if c := enginetest.NewCommand(raw); len(c.Filters()) != 2 || c.Collection != "users" || c.Background() || c.String() == "" {
		t.Errorf("an update: %+v", c)
	}
}

// What a handler aggregates and counts is its own; a change stream is the engine's.
func TestAggregationsAreForeground(t *testing.T) {
	t.Parallel()
	env := enginetest.New(t, nil)
	env.Commands.Reset()
	documents := env.DB.Collection("documents")
	if _, err := documents.CountDocuments(t.Context(), bson.D{}); err != nil {
		t.Fatal(err)
	}
	stream, err := documents.Watch(t.Context(), bson.A{})
	if err == nil { // a stand-alone server has none, but was asked
		defer stream.Close(context.Background())
	}
	if got := enginetest.Names(env.Commands.Foreground()); got != "aggregate documents" {
		t.Errorf("commands: %s", got)
	}
}

// The hook runs in the goroutines of those who call, and may be changed under them.
func TestCommandsConcurrently(t *testing.T) {
	t.Parallel()
	env := enginetest.New(t, nil)
	session := env.Start(t, enginetest.User{Email: "ada@example.com"})
	env.Commands.Reset()
	var hooked atomic.Int64
	env.Commands.Hook(func(enginetest.Command) { hooked.Add(1) })
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := env.App.Users().Get(t.Context(), session.UserID); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() { env.Commands.All() })
	}
	wg.Wait()
	env.Commands.Hook(nil)
	if n := len(env.Commands.Foreground()); n != 8 || hooked.Load() != 8 {
		t.Errorf("%d commands, %d calls of the hook, want 8 of each", n, hooked.Load())
	}
}

func TestMoreApps(t *testing.T) {
	t.Parallel()
	env := enginetest.New(t, &enginetest.Options{
		ManifestFile: "../../examples/quickstart/manifest.json",
		LookupEnv:    func(string) (string, bool) { return "a passphrase", true },
		Configure: func(o *engine.Options) {
			o.Claims = func(context.Context, string, string) (map[string]any, error) {
				return map[string]any{"plan": "pro"}, nil
			}
		},
	})
	other := env.Load(t, `{"slug":"other"}`)
	if env.Engine.App("other") != other || env.App.Slug() != "quickstart" {
		t.Error("the apps are mixed up")
	}
	s := env.Start(t, enginetest.User{Email: "ada@example.com", Roles: []string{"editor"}})
	p, err := env.App.Verify(t.Context(), s.AccessToken)
	if err != nil || p.Claims["plan"] != "pro" {
		t.Errorf("claims: %+v, %v", p, err)
	}
}
