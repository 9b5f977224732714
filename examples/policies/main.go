// Command policies serves one set of routes twice, under two manifests: /casbin is
// decided by rules in the database, /custom by a provider of the service's own.
// Both give the same answers.
//
// The manifests guard the routes by their paths (auth.requirements); what depends
// on the document itself is asked in the handler. GET …/explain says why somebody
// may or may not, and GET …/explain-path what a path asks for.
//
// It keeps its data in memory, unless MONGODB_URI names a server, and listens on
// ADDR, 127.0.0.1:8082 by default. demo.sh compares the answers with curl.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/localmongo"
	"github.com/mandate-auth/mandate/manifest"
	"github.com/mandate-auth/mandate/users"
)

//go:embed manifests/*.json
var manifests embed.FS

// password is that of all three accounts of the example.
const password = "three people in one office"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	db, disconnect, err := connect(ctx)
	if err != nil {
		return err
	}
	defer disconnect()
	own := &office{ranks: map[string]string{}}
	eng, err := engine.New(ctx, db, &engine.Options{
		SecretKeys: secretKeys(),
		Providers:  map[string]engine.NewProvider{"office": func(context.Context, string) (authz.Provider, error) { return own, nil }},
	})
	if err != nil {
		return err
	}
	defer eng.Close(context.WithoutCancel(ctx))
	mux := http.NewServeMux()
	for slug, promote := range map[string]func(*engine.App, string, string) error{
		"casbin": func(app *engine.App, userID, role string) error { return app.Authz().SetRoles(ctx, userID, role) },
		"custom": func(_ *engine.App, userID, role string) error { own.promote(userID, role); return nil },
	} {
		app, err := load(ctx, eng, slug)
		if err != nil {
			return err
		}
		for _, role := range []string{"user", "editor", "admin"} {
			id, err := person(ctx, app, role+"@example.com")
			if err == nil {
				err = promote(app, id, role)
			}
			if err != nil {
				return err
			}
		}
		mount(mux, app)
	}
	return serve(ctx, mux)
}

func load(ctx context.Context, eng *engine.Engine, slug string) (*engine.App, error) {
	raw, err := manifests.ReadFile("manifests/" + slug + ".json")
	if err != nil {
		return nil, err
	}
	m, err := manifest.Parse(raw, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", slug, err)
	}
	return eng.Load(ctx, m)
}

// person returns the id of an account, which is made unless it is there.
func person(ctx context.Context, app *engine.App, email string) (string, error) {
	user, err := app.Users().Create(ctx, users.NewUser{Email: email, Password: password})
	if errors.Is(err, users.ErrEmailTaken) {
		user, err = app.Users().GetByEmail(ctx, email)
	}
	if err != nil {
		return "", err
	}
	return user.ID, nil
}

// actions are what methods do to a document.
var actions = map[string]string{"GET": "read", "PUT": "write", "DELETE": "delete"}

// mount gives an app its routes: behind its path rules, the same for both.
func mount(mux *http.ServeMux, app *engine.App) {
	root := "/" + app.Slug()
	mux.Handle(root+"/auth/", app.Handler())
	service := http.NewServeMux()
	service.HandleFunc(root+"/documents/", func(w http.ResponseWriter, r *http.Request) {
		object := strings.TrimPrefix(r.URL.Path, root)
		can, err := app.Authz().Can(r.Context(), engine.PrincipalFrom(r.Context()), object, actions[r.Method])
		switch {
		case err != nil:
			http.Error(w, "try again", http.StatusServiceUnavailable)
		case !can:
			http.Error(w, "not allowed", http.StatusForbidden)
		default:
			reply(w, map[string]string{"document": object, "done": actions[r.Method]})
		}
	})
	// Why is for those who look after the policy; here everybody is told about itself.
	service.Handle("GET "+root+"/explain", app.RequireUser().Func(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		e, err := app.Authz().Explain(r.Context(), engine.PrincipalFrom(r.Context()), q.Get("object"), q.Get("action"))
		if err != nil {
			http.Error(w, "try again", http.StatusServiceUnavailable)
			return
		}
		reply(w, map[string]any{"explanation": e, "text": e.String()})
	}))
	service.HandleFunc("GET "+root+"/explain-path", func(w http.ResponseWriter, r *http.Request) {
		e, err := app.ExplainPath(r.URL.Query().Get("method"), r.URL.Query().Get("path"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		reply(w, map[string]any{"explanation": e, "text": e.String()})
	})
	mux.Handle(root+"/", app.Protect(service))
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(v)
}

func connect(ctx context.Context) (*mongo.Database, func(), error) {
	if uri := os.Getenv("MONGODB_URI"); uri != "" {
		client, err := mongo.Connect(ctx, options.Client().ApplyURI(uri))
		if err != nil {
			return nil, nil, err
		}
		return client.Database("mandate_policies"), func() { _ = client.Disconnect(context.WithoutCancel(ctx)) }, nil
	}
	server, err := localmongo.Start(ctx, nil)
	if err != nil {
		return nil, nil, err
	}
	return server.Client().Database("mandate_policies"), func() { _ = server.Close(context.WithoutCancel(ctx)) }, nil
}

// secretKeys makes a key for this run when the environment has none.
func secretKeys() []engine.Secret {
	if os.Getenv("MANDATE_SECRET_KEY") != "" {
		return nil
	}
	return []engine.Secret{engine.NewSecret(rand.Text() + rand.Text())}
}

func serve(ctx context.Context, handler http.Handler) error {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", cmp.Or(os.Getenv("ADDR"), "127.0.0.1:8082"))
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	fmt.Printf("\nOne service under two manifests on http://%[1]s: /casbin, /custom\nCompare them: sh examples/policies/demo.sh http://%[1]s\n\n", listener.Addr())
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return server.Shutdown(closing)
}
