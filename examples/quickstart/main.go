// Command quickstart is a small service with sign-in and permissions: a few
// routes of its own, and those of Mandate under /auth.
//
// It keeps its data in memory, unless MONGODB_URI names a server or
// QUICKSTART_DATA a file. It listens on ADDR, 127.0.0.1:8080 by default.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/localmongo"
	"github.com/mandate-auth/mandate/manifest"
)

//go:embed manifest.json
var manifestJSON []byte

//go:embed page.html
var page []byte

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

	password, err := adminPassword()
	if err != nil {
		return err
	}
	m, err := manifest.Parse(manifestJSON, nil)
	if err != nil {
		return err
	}
	eng, err := engine.New(ctx, db, &engine.Options{SecretKeys: secretKeys()})
	if err != nil {
		return err
	}
	defer eng.Close(context.WithoutCancel(ctx))
	app, err := eng.Load(ctx, m)
	if err != nil {
		return err
	}

	mux := http.NewServeMux()
	mux.Handle("/auth/", app.Handler())
	mux.HandleFunc("GET /{$}", home)
	mux.HandleFunc("GET /public", public)
	mux.Handle("GET /profile", app.RequireUser().Func(profile))
	mux.Handle("GET /admin", app.RequireAdmin().Func(admin))

	docs := documents{db.Collection("documents")}
	mux.Handle("GET /documents", app.RequirePermission("documents", "read").Func(docs.list))
	mux.Handle("POST /documents", app.RequirePermission("documents", "create").Func(docs.create))
	mux.Handle("DELETE /documents/{id}", app.RequireOwnerOr(docs.owner, app.RequirePermission("documents", "delete")).Func(docs.remove))
	return serve(ctx, app.SecurityHeaders(mux), password)
}

// home is the page with the sign-in form.
func home(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(page)
}

// public is open to everybody.
func public(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, map[string]string{"message": "Everybody may read this."})
}

// profile needs a user: behind the guard there is always a principal.
func profile(w http.ResponseWriter, r *http.Request) {
	p := engine.PrincipalFrom(r.Context())
	reply(w, http.StatusOK, map[string]string{"message": "Only you may read this.", "user_id": p.ID, "kind": string(p.Kind)})
}

// admin needs the role admin.
func admin(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, map[string]string{"message": "Only admins may read this."})
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// connect returns a database: on the server of MONGODB_URI, or on localmongo.
func connect(ctx context.Context) (*mongo.Database, func(), error) {
	if uri := os.Getenv("MONGODB_URI"); uri != "" {
		client, err := mongo.Connect(ctx, options.Client().ApplyURI(uri))
		if err != nil {
			return nil, nil, err
		}
		return client.Database("mandate_quickstart"), func() { _ = client.Disconnect(context.WithoutCancel(ctx)) }, nil
	}
	server, err := localmongo.Start(ctx, &localmongo.Options{Path: os.Getenv("QUICKSTART_DATA")})
	if err != nil {
		return nil, nil, err
	}
	return server.Client().Database("mandate_quickstart"), func() { _ = server.Close(context.WithoutCancel(ctx)) }, nil
}

// secretKeys makes a key for this run when the environment has none. A service
// of your own leaves Options.SecretKeys empty and sets MANDATE_SECRET_KEY.
func secretKeys() []engine.Secret {
	for _, name := range []string{"MANDATE_SECRET_KEY", "FLASK_SECRET_KEY", "SECRET_KEY", "APP_SECRET_KEY"} {
		if os.Getenv(name) != "" {
			return nil
		}
	}
	log.Print("no MANDATE_SECRET_KEY is set: using a random key, all sessions end with this process")
	return []engine.Secret{engine.NewSecret(rand.Text() + rand.Text())}
}

// adminPassword returns the password of admin@example.com, a random one when
// the environment has none.
func adminPassword() (string, error) {
	password := cmp.Or(os.Getenv("QUICKSTART_ADMIN_PASSWORD"), rand.Text())
	return password, os.Setenv("QUICKSTART_ADMIN_PASSWORD", password)
}

func serve(ctx context.Context, handler http.Handler, password string) error {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", cmp.Or(os.Getenv("ADDR"), "127.0.0.1:8080"))
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()

	fmt.Printf(`
Quickstart is serving on http://%[1]s

  open    http://%[1]s/            a page with a sign-in form
  user    admin@example.com
  password %[2]s

  curl http://%[1]s/public
  curl http://%[1]s/profile        401: sign in first
  curl -d '{"email":"admin@example.com","password":"%[2]s"}' \
       -H 'Content-Type: application/json' http://%[1]s/auth/login
  curl -H 'Authorization: Bearer <access_token>' http://%[1]s/profile
  curl -H 'Authorization: Bearer <access_token>' http://%[1]s/documents

`, listener.Addr(), password)

	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := server.Shutdown(closing); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}
