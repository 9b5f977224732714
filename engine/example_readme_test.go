package engine_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"

	"go.mongodb.org/mongo-driver/mongo"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/localmongo"
)

// embed is what the README shows, word for word.
func embed(ctx context.Context, db *mongo.Database, mux *http.ServeMux, list, remove http.HandlerFunc, owner func(*http.Request) (string, error)) error {
	eng, err := engine.New(ctx, db, nil) // db is your *mongo.Database; MANDATE_SECRET_KEY is in the environment
	if err != nil {
		return err
	}
	app, err := eng.LoadFile(ctx, "manifest.json")
	if err != nil {
		return err
	}
	mux.Handle("/auth/", app.Handler())
	mux.Handle("GET /profile", app.RequireUser().Func(profile))
	mux.Handle("GET /documents", app.RequirePermission("documents", "read").Func(list))
	mux.Handle("DELETE /documents/{id}", app.RequireOwnerOr(owner, app.RequirePermission("documents", "delete")).Func(remove))
	context.AfterFunc(ctx, func() { _ = eng.Close(context.Background()) })
	return nil
}

// The whole of embedding Mandate: an engine on the service's database, an app
// for each manifest, its routes, and guards in front of the service's own.
func Example() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	server, err := localmongo.Start(ctx, &localmongo.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	before, err := os.Getwd()
	if err != nil {
		log.Fatal(err)
	}
	slog.SetDefault(slog.New(slog.DiscardHandler))
	err = errors.Join(os.WriteFile(filepath.Join(dir, "manifest.json"), []byte(`{"slug":"shop"}`), 0o600), os.Chdir(dir), os.Setenv("MANDATE_SECRET_KEY", secretKey))
	if err != nil {
		log.Fatal(err)
	}

	mux := http.NewServeMux()
	nobody := func(*http.Request) (string, error) { return "", engine.ErrNotFound }
	if err := embed(ctx, server.Client().Database("shop"), mux, docsReply("documents"), docsReply("removed"), nobody); err != nil {
		log.Fatal(err)
	}
	fmt.Println(docsGet(mux, "/auth/health", "").Code, docsGet(mux, "/profile", "").Code, docsGet(mux, "/documents", "").Code)

	if err := errors.Join(os.Unsetenv("MANDATE_SECRET_KEY"), os.Chdir(before), os.RemoveAll(dir)); err != nil {
		log.Fatal(err)
	}
	// Output: 200 401 401
}
