package enginetest_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/engine/enginetest"
)

func Example() {
	// In your own test t is given.
	test := func(t *testing.T) {
		env := enginetest.New(t, nil)
		documents := env.App.RequireRole("admin").Func(func(w http.ResponseWriter, r *http.Request) {
			_, _ = fmt.Fprint(w, "hello, ", engine.PrincipalFrom(r.Context()).Kind)
		})
		ada := env.Start(t, enginetest.User{Email: "ada@example.com", Roles: []string{"admin"}})

		w := httptest.NewRecorder()
		documents.ServeHTTP(w, env.Request(t, "GET", "/documents", nil, ada))
		fmt.Println(w.Code, w.Body)

		w = httptest.NewRecorder()
		documents.ServeHTTP(w, env.Request(t, "GET", "/documents", nil, nil))
		fmt.Println(w.Code)
	}
	testing.RunTests(func(_, _ string) (bool, error) { return true, nil }, []testing.InternalTest{{Name: "documents", F: test}})
	// Output:
	// 200 hello, human
	// 401
}
