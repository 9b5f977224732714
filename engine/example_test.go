package engine_test

import (
	"context"
	"fmt"
	"net/http"

	"github.com/mandate-auth/mandate/engine"
)

func claimsOf(_ context.Context, app, _ string) (map[string]any, error) {
	return map[string]any{"plan": "gold of " + app}, nil
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
