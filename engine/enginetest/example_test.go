package enginetest_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/engine/enginetest"
	"github.com/mandate-auth/mandate/engine/event"
)

// A handler is called without a server.
func Example() {
	inTest(func(t testing.TB) { // in a test of yours t is given
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
	})
	// Output:
	// 200 hello, human
	// 401
}

// A client of a running server carries the session, until its token is over.
func ExampleEnv_SignIn() {
	inTest(func(t testing.TB) {
		env := enginetest.New(t, nil)
		server := httptest.NewServer(env.App.RequireUser().Func(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "hello")
		}))
		defer server.Close()
		client := server.Client()
		get := func() {
			res, err := client.Get(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			fmt.Println(res.StatusCode)
		}

		env.SignIn(t, client, enginetest.User{Email: "ada@example.com"})
		get()
		env.Clock.Advance(16 * time.Minute)
		get()
	})
	// Output:
	// 200
	// 401
}

// Events come in the background: a test waits for them.
func ExampleEvents_Wait() {
	inTest(func(t testing.TB) {
		env := enginetest.New(t, nil)
		ada := env.Start(t, enginetest.User{Email: "ada@example.com"})
		if err := env.App.Users().Disable(t.Context(), ada.UserID, "left"); err != nil {
			t.Fatal(err)
		}
		e := env.Events.Wait(t, event.UserDisabled)
		fmt.Println(e.App, e.Result, e.UserID == ada.UserID)
	})
	// Output: test success true
}

// A guarded request reaches the memory of the engine, not the database.
func ExampleCommands() {
	inTest(func(t testing.TB) {
		env := enginetest.New(t, nil)
		ada := env.Start(t, enginetest.User{Email: "ada@example.com"})
		handler := env.App.RequireUser().Func(func(http.ResponseWriter, *http.Request) {})

		env.Commands.Reset()
		handler.ServeHTTP(httptest.NewRecorder(), env.Request(t, "GET", "/", nil, ada))
		fmt.Println(len(env.Commands.Foreground()))
	})
	// Output: 0
}
