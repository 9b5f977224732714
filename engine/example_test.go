package engine_test

import (
	"context"
	"fmt"
	"net/http"

	"go.mongodb.org/mongo-driver/mongo"

	"github.com/mandate-auth/mandate/engine"
)

func claimsOf(_ context.Context, app, _ string) (map[string]any, error) {
	return map[string]any{"plan": "gold of " + app}, nil
}

// The whole of embedding Mandate: an engine on the service's database, an app
// for each manifest, its routes, and a guard in front of the service's own.
func Example() {
	serve := func(ctx context.Context, db *mongo.Database) (http.Handler, error) {
		eng, err := engine.New(ctx, db, nil) // MANDATE_SECRET_KEY is in the environment
		if err != nil {
			return nil, err
		}
		app, err := eng.LoadFile(ctx, "manifest.json")
		if err != nil {
			return nil, err
		}
		mux := http.NewServeMux()
		mux.Handle("/auth/", app.Handler())
		mux.Handle("GET /profile", app.RequireUser().Func(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintln(w, "Hello,", engine.PrincipalFrom(r.Context()).ID)
		}))
		return mux, nil
	}
	_ = serve
}

// A guard without middleware: Check answers who is calling, or why not.
func ExampleApp_RequireUser() {
	handle := func(app *engine.App) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			p, err := app.RequireUser().Check(r)
			if err != nil {
				problem := engine.AsProblem(err)
				http.Error(w, problem.Detail, problem.Status)
				return
			}
			fmt.Fprintln(w, "Hello,", p.ID)
		}
	}
	_ = handle
}
