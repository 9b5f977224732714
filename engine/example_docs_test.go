package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/localmongo"
	"github.com/mandate-auth/mandate/manifest"
	"github.com/mandate-auth/mandate/users"
)

// What stands in docs/embedding.md and docs/sessions.md, word for word: a test of
// internal/docscheck compares them.

// docsApp returns an app of a manifest on a database in memory, and what closes
// everything.
func docsApp(text string, edit ...func(*engine.Options)) (app *engine.App, closeAll func()) {
	ctx := context.Background()
	server, err := localmongo.Start(ctx, &localmongo.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	opts := &engine.Options{
		SecretKeys: []engine.Secret{engine.NewSecret(secretKey)}, InsecureHashCost: 4,
		Logger: slog.New(slog.DiscardHandler),
	}
	for _, f := range edit {
		f(opts)
	}
	eng, err := engine.New(ctx, server.Client().Database("docs"), opts)
	if err != nil {
		log.Fatal(err)
	}
	m, err := manifest.Parse([]byte(text), nil)
	if err != nil {
		log.Fatal(err)
	}
	if app, err = eng.Load(ctx, m); err != nil {
		log.Fatal(err)
	}
	return app, func() {
		if err := errors.Join(eng.Close(ctx), server.Close(ctx)); err != nil {
			log.Fatal(err)
		}
	}
}

// docsUser makes an account and returns its id and an access token.
func docsUser(app *engine.App) (id, token string) {
	ctx := context.Background()
	user, err := app.Users().Create(ctx, users.NewUser{Email: email, Password: password})
	if err != nil {
		log.Fatal(err)
	}
	grant, err := app.StartSession(ctx, user.ID, engine.Device{}, false)
	if err != nil {
		log.Fatal(err)
	}
	return user.ID, grant.Access.Token
}

// docsGet asks a handler with an access token, or without one.
func docsGet(h http.Handler, path, token string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func docsReply(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) }
}

func run(ctx context.Context, client *mongo.Client, listener net.Listener, opts *engine.Options) error {
	eng, err := engine.New(ctx, client.Database("shop"), opts)
	if err != nil {
		return err
	}
	app, err := eng.LoadFile(ctx, "manifest.json")
	if err != nil {
		return errors.Join(err, eng.Close(ctx))
	}

	mux := http.NewServeMux()
	mux.Handle("/auth/", app.Handler())
	mux.Handle("GET /profile", app.RequireUser().Func(profile))

	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Print(err)
		}
	}()

	<-ctx.Done()
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	return errors.Join(
		server.Shutdown(closing),   // requests under way finish
		eng.Close(closing),         // activity is written, events are delivered
		client.Disconnect(closing)) // nothing needs MongoDB any more
}

func profile(w http.ResponseWriter, r *http.Request) {
	p := engine.PrincipalFrom(r.Context()) // always present behind a guard
	fmt.Fprintln(w, "Hello,", p.ID)
}

func ExampleEngine_Close() {
	server, err := localmongo.Start(context.Background(), &localmongo.Options{Listen: true, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close(context.Background())
	dir, err := os.MkdirTemp("", "mandate")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	before, _ := os.Getwd()
	defer os.Chdir(before)
	_ = os.Chdir(dir)
	_ = os.WriteFile("manifest.json", []byte(`{"slug":"shop"}`), 0o600)

	ctx, stop := context.WithCancel(context.Background())
	client, err := mongo.Connect(ctx, options.Client().ApplyURI(server.URI()))
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		ended <- run(ctx, client, listener, &engine.Options{
			SecretKeys: []engine.Secret{engine.NewSecret(secretKey)}, Logger: slog.New(slog.DiscardHandler),
		})
	}()
	answer, err := http.Get("http://" + listener.Addr().String() + "/profile")
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
	fmt.Println(answer.Status)
	stop()
	fmt.Println(<-ended)
	// Output:
	// 401 Unauthorized
	// <nil>
}

func ExampleApp_All() {
	app, closeAll := docsApp(`{"slug":"shop"}`)
	defer closeAll()
	mux := http.NewServeMux()
	changeEmail, news, everything := docsReply("changed"), docsReply("news"), docsReply("all")

	mux.Handle("POST /email", app.All(app.RequireTLS(), app.RequireFresh(5*time.Minute)).Func(changeEmail))
	mux.Handle("GET /news", app.Optional(nil).Func(news)) // PrincipalFrom is nil for nobody
	mux.Handle("/account/", app.Protect(everything))      // as "auth_required" says

	fmt.Println(docsGet(mux, "/news", "").Code, docsGet(mux, "/account/x", "").Code)
	r := httptest.NewRequest(http.MethodPost, "/email", nil)
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	fmt.Println(w.Code, strings.Contains(w.Body.String(), "tls_required"))
	// Output:
	// 200 401
	// 403 true
}

// router is a router whose middleware has the usual form.
type router struct {
	middleware []func(http.Handler) http.Handler
}

func (r *router) Use(m ...func(http.Handler) http.Handler) { r.middleware = append(r.middleware, m...) }

func (r *router) serve(h http.Handler) http.Handler {
	for _, m := range r.middleware {
		h = m(h)
	}
	return h
}

func ExampleGuard_Handler() {
	app, closeAll := docsApp(`{"slug":"shop"}`)
	defer closeAll()
	_, token := docsUser(app)
	r := &router{}

	r.Use(app.RequireUser().Handler)

	h := r.serve(docsReply("in"))
	fmt.Println(docsGet(h, "/", "").Code, docsGet(h, "/", token).Body)
	// Output: 401 in
}

func ExampleGuard_Check() {
	app, closeAll := docsApp(`{"slug":"shop"}`)
	defer closeAll()
	_, token := docsUser(app)

	guard := app.RequireUser()
	handle := func(w http.ResponseWriter, r *http.Request) {
		p, err := guard.Check(r)
		if err != nil {
			problem := engine.AsProblem(err)
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(problem.Status)
			_ = json.NewEncoder(w).Encode(problem)
			return
		}
		fmt.Fprintln(w, "Hello,", p.Kind)
	}

	h := http.HandlerFunc(handle)
	fmt.Print(docsGet(h, "/", token).Body.String() + docsGet(h, "/", "").Body.String())
	// Output:
	// Hello, human
	// {"type":"about:blank","title":"Sign-in required","status":401,"detail":"This needs an access token or a session cookie.","code":"unauthenticated"}
}

func ExampleApp_Login() {
	app, closeAll := docsApp(`{"slug":"shop"}`)
	defer closeAll()
	ctx := context.Background()

	user, err := app.Users().Create(ctx, users.NewUser{Email: "ada@example.com", Password: "a fine long passphrase"})
	if err != nil {
		log.Fatal(err) // users.ErrEmailTaken, or a *users.FieldError that says what to change
	}
	device := engine.Device{Name: "command line"}
	grant, err := app.Login(ctx, engine.Credentials{Email: "ada@example.com", Password: "a fine long passphrase"}, device, false)
	if err != nil {
		log.Fatal(err) // engine.AsProblem(err).Code is what POST /login would answer
	}
	p, err := app.Verify(ctx, grant.Access.Token) // as a guard does, revocations included
	if err != nil {
		log.Fatal(err)
	}
	next, err := app.Refresh(ctx, grant.Session.RefreshToken, device)
	if err != nil {
		log.Fatal(err)
	}
	if err := app.Logout(ctx, next.Session.RefreshToken); err != nil {
		log.Fatal(err)
	}
	_, err = app.Verify(ctx, next.Access.Token)

	fmt.Println(p.ID == user.ID, engine.AsProblem(err).Code)
	// Output: true token_revoked
}

func ExampleApp_SignIn() {
	app, closeAll := docsApp(`{"slug":"shop"}`)
	defer closeAll()
	userID, _ := docsUser(app)
	identify := func(*http.Request) (string, bool) { return userID, true }

	signIn := func(w http.ResponseWriter, r *http.Request) {
		userID, ok := identify(r) // your own way: a directory, a single sign-on, a certificate
		if !ok {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		if err := app.SignIn(w, r, userID); err != nil {
			http.Error(w, "try again", engine.AsProblem(err).Status)
		}
	}
	signOut := func(w http.ResponseWriter, r *http.Request) {
		if err := app.SignOut(w, r); err != nil {
			http.Error(w, "try again", engine.AsProblem(err).Status) // the cookies are still there
		}
	}

	w := httptest.NewRecorder()
	signIn(w, httptest.NewRequest(http.MethodPost, "https://shop.example/login", nil))
	browser := map[string]*http.Cookie{}
	for _, c := range w.Result().Cookies() {
		browser[c.Name] = c
	}
	request := func(method string) *http.Request {
		r := httptest.NewRequest(method, "https://shop.example/", nil)
		for _, c := range browser {
			r.AddCookie(c)
		}
		return r
	}
	p, err := app.RequireUser().Check(request(http.MethodGet))
	fmt.Println(p.ID == userID, p.Credential, err)
	signOut(httptest.NewRecorder(), request(http.MethodPost))
	_, err = app.RequireUser().Check(request(http.MethodGet))
	fmt.Println(engine.AsProblem(err).Code)
	// Output:
	// true cookie <nil>
	// token_revoked
}

func ExampleOptions_onError() {
	opts := &engine.Options{}

	opts.OnError = func(w http.ResponseWriter, r *http.Request, p *engine.Problem) {
		if strings.Contains(r.Header.Get("Accept"), "text/html") && p.Status == http.StatusUnauthorized {
			http.Redirect(w, r, "/sign-in", http.StatusSeeOther)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(p.Status)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": p.Code, "message": p.Detail})
	}

	app, closeAll := docsApp(`{"slug":"shop"}`, func(o *engine.Options) { o.OnError = opts.OnError })
	defer closeAll()
	w := docsGet(app.RequireUser().Handler(docsReply("in")), "/", "")
	fmt.Print(w.Code, " ", w.Body)
	// Output: 401 {"error":"unauthenticated","message":"This needs an access token or a session cookie."}
}

// alerts passes on what somebody has to look at. It drops what does not fit.
type alerts chan event.Event

func (a alerts) Record(_ context.Context, e event.Event) {
	switch e.Type {
	case event.RefreshReused, event.AccountLocked, event.ClockSkewed:
	default:
		return
	}
	select {
	case a <- e:
	default:
	}
}

func ExampleOptions_sinks() {
	opts := &engine.Options{Logger: slog.New(slog.DiscardHandler)}
	toPager := make(alerts, 100)

	opts.Sinks = []event.Sink{event.SlogSink(opts.Logger), toPager}

	app, closeAll := docsApp(`{"slug":"shop","auth":{"users":{"lockout":{"max_failures":1}}}}`, func(o *engine.Options) { o.Sinks = opts.Sinks })
	_, err := app.Login(context.Background(), engine.Credentials{Email: "nobody@example.com", Password: "a guess"}, engine.Device{}, false)
	closeAll()
	fmt.Println(engine.AsProblem(err).Code, (<-toPager).Type)
	// Output: invalid_credentials account_locked
}

func endSessions(ctx context.Context, app *engine.App, p *engine.Principal, password string) error {
	list, err := app.Sessions().List(ctx, p.ID) // the most recently used first
	if err != nil {
		return err
	}
	return errors.Join(
		app.Blacklist().AddToken(ctx, p.TokenID, p.ExpiresAt, "leaked"), // one access token; its session lives
		app.Sessions().End(ctx, p.ID, list[0].ID, "lost phone"),
		app.Sessions().EndOthers(ctx, p.ID, p.SessionID, "clean up"),
		app.Sessions().EndAll(ctx, p.ID, "support request"),
		app.Users().SetPassword(ctx, p.ID, password), // ends all, and unlocks the address
		app.Users().Disable(ctx, p.ID, "left the company"),
		app.Users().Delete(ctx, p.ID))
}

func ExampleApp_Sessions() {
	app, closeAll := docsApp(`{"slug":"shop"}`)
	defer closeAll()
	_, token := docsUser(app)
	p, err := app.Verify(context.Background(), token)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(endSessions(context.Background(), app, p, "another long passphrase"))
	_, err = app.Verify(context.Background(), token)
	fmt.Println(engine.AsProblem(err).Code)
	// Output:
	// <nil>
	// token_revoked
}

func connect(ctx context.Context) (*mongo.Client, error) {
	return mongo.Connect(ctx, options.Client().
		ApplyURI(os.Getenv("MONGODB_URI")).
		SetServerSelectionTimeout(2*time.Second). // the driver's default is 30 s
		SetMaxPoolSize(100))                      // for each server; the driver's default
}

func secrets() *engine.Options {
	return &engine.Options{
		SecretKeys: []engine.Secret{ // newest first
			engine.NewSecret(os.Getenv("MANDATE_KEY_2")),
			engine.NewSecret(os.Getenv("MANDATE_KEY_1")),
		},
		Peppers: []engine.Pepper{ // newest first
			{ID: "2", Key: engine.NewSecret(os.Getenv("MANDATE_PEPPER_2"))},
			{ID: "1", Key: engine.NewSecret(os.Getenv("MANDATE_PEPPER_1"))},
		},
	}
}

func ExampleOptions() {
	server, err := localmongo.Start(context.Background(), &localmongo.Options{Listen: true, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close(context.Background())
	for name, value := range map[string]string{
		"MONGODB_URI":   server.URI(),
		"MANDATE_KEY_2": strings.Repeat("b", 32), "MANDATE_KEY_1": strings.Repeat("a", 32),
		"MANDATE_PEPPER_2": strings.Repeat("d", 32), "MANDATE_PEPPER_1": strings.Repeat("c", 32),
	} {
		before, was := os.LookupEnv(name)
		os.Setenv(name, value)
		if was {
			defer os.Setenv(name, before)
		} else {
			defer os.Unsetenv(name)
		}
	}
	client, err := connect(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	defer client.Disconnect(context.Background())
	opts := secrets()
	opts.Logger = slog.New(slog.DiscardHandler)
	eng, err := engine.New(context.Background(), client.Database("shop"), opts)
	fmt.Println(eng != nil, err)
	fmt.Println(eng.Close(context.Background()))
	// Output:
	// true <nil>
	// <nil>
}

func planOf(context.Context, string) (string, error) { return "gold", nil }

func ExampleOptions_claims() {
	opts := &engine.Options{}

	opts.Claims = func(ctx context.Context, app, userID string) (map[string]any, error) {
		plan, err := planOf(ctx, userID)
		if err != nil {
			return nil, err // the sign-in or refresh fails
		}
		return map[string]any{"plan": plan}, nil
	}

	app, closeAll := docsApp(`{"slug":"shop"}`, func(o *engine.Options) { o.Claims = opts.Claims })
	defer closeAll()
	_, token := docsUser(app)
	h := app.RequireUser().Func(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, engine.PrincipalFrom(r.Context()).Claims["plan"])
	})
	fmt.Println(docsGet(h, "/", token).Body)
	// Output: gold
}

func loadAll(ctx context.Context, eng *engine.Engine, mux *http.ServeMux, paths []string) error {
	for _, path := range paths {
		app, err := eng.LoadFile(ctx, path)
		if err != nil {
			return err
		}
		mux.Handle(app.Manifest().BasePath+"/", app.Handler())
	}
	return nil
}

func ExampleEngine_App() {
	server, err := localmongo.Start(context.Background(), &localmongo.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close(context.Background())
	dir, err := os.MkdirTemp("", "mandate")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	var paths []string
	for _, slug := range []string{"shop", "blog"} {
		path := dir + "/" + slug + ".json"
		paths = append(paths, path)
		_ = os.WriteFile(path, fmt.Appendf(nil, `{"slug":%q,"base_path":"/%s/auth"}`, slug, slug), 0o600)
	}
	eng, err := engine.New(context.Background(), server.Client().Database("docs"), &engine.Options{
		SecretKeys: []engine.Secret{engine.NewSecret(secretKey)}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer eng.Close(context.Background())
	mux := http.NewServeMux()
	fmt.Println(loadAll(context.Background(), eng, mux, paths))
	fmt.Println(docsGet(mux, "/shop/auth/health", "").Code, docsGet(mux, "/blog/auth/me", "").Code, eng.App("blog").Slug(), eng.App("other") == nil)
	// Output:
	// <nil>
	// 200 401 blog true
}

// newApp returns an app on a database in memory.
func newApp(t *testing.T) *engine.App {
	t.Helper()
	ctx := context.Background()
	server, err := localmongo.Start(ctx, &localmongo.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close(ctx) })
	eng, err := engine.New(ctx, server.Client().Database("test"), &engine.Options{
		SecretKeys:       []engine.Secret{engine.NewSecret("a key for tests, of 32 bytes or more")},
		InsecureHashCost: 4, // a hash in a millisecond
		Logger:           slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = eng.Close(ctx) })
	m, err := manifest.Parse([]byte(`{"slug":"shop"}`), nil)
	if err != nil {
		t.Fatal(err)
	}
	app, err := eng.Load(ctx, m)
	if err != nil {
		t.Fatal(err)
	}
	return app
}

func TestProfile(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	user, err := app.Users().Create(t.Context(), users.NewUser{Email: "ada@example.com", Password: "a fine long passphrase"})
	if err != nil {
		t.Fatal(err)
	}
	grant, err := app.StartSession(t.Context(), user.ID, engine.Device{}, false)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, "/profile", nil)
	r.Header.Set("Authorization", "Bearer "+grant.Access.Token)
	w := httptest.NewRecorder()
	app.RequireUser().Func(profile).ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}
