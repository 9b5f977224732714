package bench_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/users"
)

// withRules gives the app 10,000 rules of its two roles and of 98 objects each,
// and returns the token of a user who may do one of them.
func withRules(b *testing.B, app *engine.App) string {
	b.Helper()
	var rules []authz.Rule
	for i := range 10_000 {
		rules = append(rules, authz.Rule{
			Subject:    []string{"user", "admin"}[i%2],
			Permission: authz.Permission{Object: fmt.Sprint("object ", i/4), Action: []string{"read", "write"}[i/2%2]},
		})
	}
	if err := app.Authz().AddRules(b.Context(), rules...); err != nil {
		b.Fatal(err)
	}
	user, err := app.Users().Create(b.Context(), users.NewUser{Email: "ada@example.com", Password: "a passphrase for benchmarks"})
	if err != nil {
		b.Fatal(err)
	}
	g, err := app.StartSession(b.Context(), user.ID, engine.Device{}, false)
	if err != nil {
		b.Fatal(err)
	}
	return g.Access.Token
}

// P1 with a permission check behind it: the guard on a repeated token, 10,000
// rules, against golang-jwt on the same token.
func BenchmarkP1Permission(b *testing.B) {
	app := load(b, database(b, nil))
	token := withRules(b, app)
	b.Run("golang-jwt", func(b *testing.B) { benchmarkJWT(b, token) })
	for name, guard := range map[string]*engine.Guard{
		"guard": app.RequireUser(), "permission": app.RequirePermission("object 7", "read"), "role": app.RequireRole("user"),
	} {
		b.Run(name, func(b *testing.B) {
			passed, n := 0, 0
			h := guard.Func(func(http.ResponseWriter, *http.Request) { passed++ })
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.Header.Set("Authorization", "Bearer "+token)
			w := httptest.NewRecorder()
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(w, r)
				n++
			}
			if passed != n {
				b.Fatalf("%d of %d requests passed", passed, n)
			}
		})
	}
}
