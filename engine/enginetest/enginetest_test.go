package enginetest_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
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

const cookieOnly = `{"slug":"shop","environment":"development","auth":{"tokens":{"transport":"cookie"}}}`

func TestSignIn(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]*enginetest.Options{
		"bearer": nil, "cookie": {Manifest: cookieOnly},
		"cookie for a domain": {Manifest: strings.Replace(cookieOnly, `"tokens"`, `"cookies":{"domain":"shop.example"},"tokens"`, 1)},
	} {
		for scheme, serve := range map[string]func(http.Handler) *httptest.Server{"http": httptest.NewServer, "https": httptest.NewTLSServer} {
			t.Run(name+" over "+scheme, func(t *testing.T) {
				t.Parallel()
				env := enginetest.New(t, opts)
				server := serve(service(env.App))
				defer server.Close()
				client := server.Client()
				defer client.CloseIdleConnections()
				if got := status(t, client, "GET", server.URL+"/who"); got != 401 {
					t.Errorf("nobody gets %d", got)
				}
				env.SignIn(t, client, enginetest.User{Email: "ada@example.com"})
				if got := status(t, client, "GET", server.URL+"/who"); got != 200 {
					t.Errorf("the user gets %d", got)
				}
				if got := status(t, client, "POST", server.URL+"/admin"); got != 403 {
					t.Errorf("the user gets %d from /admin", got)
				}
				env.SignIn(t, client, enginetest.User{Email: "ada@example.com", Roles: []string{"admin"}})
				if got := status(t, client, "POST", server.URL+"/admin"); got != 204 {
					t.Errorf("the admin gets %d from /admin", got)
				}
				env.Clock.Advance(16 * time.Minute)
				if got := status(t, client, "GET", server.URL+"/who"); got != 401 {
					t.Errorf("a token that is over gets %d", got)
				}
				enginetest.SignOut(client)
				if got := status(t, client, "GET", server.URL+"/who"); got != 401 {
					t.Errorf("nobody again gets %d", got)
				}
			})
		}
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
