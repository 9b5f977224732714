// Command multitenant serves three tenants from one engine and one database. Each
// has its own manifest: users, keys, cookies, sessions, roles and rules.
//
//	/acme/…      three roles in a hierarchy
//	/globex/…    roles with rules that deny, two sessions for each user
//	/initech/…   no roles, guests may read
//
// It keeps its data in memory, unless MONGODB_URI names a server, and listens on
// ADDR, 127.0.0.1:8081 by default. demo.sh shows with curl that nothing of one
// tenant works at another.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path"
	"sync"
	"syscall"
	"time"

	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/localmongo"
	"github.com/mandate-auth/mandate/manifest"
)

//go:embed manifests/*.json
var manifests embed.FS

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
	eng, err := engine.New(ctx, db, &engine.Options{SecretKeys: secretKeys()})
	if err != nil {
		return err
	}
	defer eng.Close(context.WithoutCancel(ctx))
	handler, err := tenants(ctx, eng)
	if err != nil {
		return err
	}
	return serve(ctx, handler)
}

// tenants loads every manifest and mounts its app.
func tenants(ctx context.Context, eng *engine.Engine) (http.Handler, error) {
	files, err := fs.Glob(manifests, "manifests/*.json")
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	for _, file := range files {
		raw, err := manifests.ReadFile(file)
		if err != nil {
			return nil, err
		}
		m, err := manifest.Parse(raw, nil)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		app, err := eng.Load(ctx, m)
		if err != nil {
			return nil, err
		}
		mount(mux, app)
	}
	return mux, nil
}

// mount gives a tenant its routes: the same ones for each, guarded by its own
// rules.
func mount(mux *http.ServeMux, app *engine.App) {
	root := path.Dir(app.Manifest().BasePath)
	n := &notes{tenant: app.Slug()}
	mux.Handle(app.Manifest().BasePath+"/", app.Handler())
	mux.Handle("GET "+root+"/notes", app.RequirePermission("notes", "read").Func(n.list))
	mux.Handle("POST "+root+"/notes", app.RequirePermission("notes", "write").Func(n.add))
}

// notes are a tenant's data. A real service keeps them in its database, with the
// tenant in every filter.
type notes struct {
	tenant string
	mu     sync.Mutex
	all    []note
}

type note struct {
	Author string `json:"author"`
	Text   string `json:"text"`
}

func (n *notes) list(w http.ResponseWriter, _ *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	reply(w, http.StatusOK, map[string]any{"tenant": n.tenant, "notes": append([]note{}, n.all...)})
}

func (n *notes) add(w http.ResponseWriter, r *http.Request) {
	var in struct{ Text string }
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<10)).Decode(&in); err != nil || in.Text == "" {
		http.Error(w, `send {"text": …}`, http.StatusUnprocessableEntity)
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	added := note{Author: engine.PrincipalFrom(r.Context()).ID, Text: in.Text}
	n.all = append(n.all, added)
	if len(n.all) > 100 {
		n.all = n.all[1:]
	}
	reply(w, http.StatusCreated, added)
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func connect(ctx context.Context) (*mongo.Database, func(), error) {
	if uri := os.Getenv("MONGODB_URI"); uri != "" {
		client, err := mongo.Connect(ctx, options.Client().ApplyURI(uri))
		if err != nil {
			return nil, nil, err
		}
		return client.Database("mandate_multitenant"), func() { _ = client.Disconnect(context.WithoutCancel(ctx)) }, nil
	}
	server, err := localmongo.Start(ctx, nil)
	if err != nil {
		return nil, nil, err
	}
	return server.Client().Database("mandate_multitenant"), func() { _ = server.Close(context.WithoutCancel(ctx)) }, nil
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
	listener, err := config.Listen(ctx, "tcp", cmp.Or(os.Getenv("ADDR"), "127.0.0.1:8081"))
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	fmt.Printf("\nThree tenants on http://%[1]s: /acme, /globex, /initech\nSee them apart: sh examples/multitenant/demo.sh http://%[1]s\n\n", listener.Addr())
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return server.Shutdown(closing)
}
