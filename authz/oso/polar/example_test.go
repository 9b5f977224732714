package polar_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/authz/oso/polar"
	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/localmongo"
	"github.com/mandate-auth/mandate/manifest"
	"github.com/mandate-auth/mandate/users"
)

// The policy comes from a file, and who has which role from the service.
func Example() {
	ctx := context.Background()
	server, err := localmongo.Start(ctx, &localmongo.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	var editor atomic.Value // a table of the service
	editor.Store("")
	rolesOf := func(_ context.Context, subject string) ([]string, error) {
		if subject == editor.Load() {
			return []string{"editor"}, nil
		}
		return nil, nil
	}

	eng, err := engine.New(ctx, server.Client().Database("library"), &engine.Options{
		SecretKeys: []engine.Secret{engine.NewSecret("a key of 32 bytes for the example")}, InsecureHashCost: 4,
		Logger: slog.New(slog.DiscardHandler),
		Providers: map[string]engine.NewProvider{
			"polar": func(_ context.Context, app string) (authz.Provider, error) {
				return polar.Load("testdata/library.polar", polar.Config{
					App: app, Roles: rolesOf, Hierarchy: map[string][]string{"editor": {"user"}},
					Catalog: []authz.Permission{{Object: "documents", Action: "read"}, {Object: "documents", Action: "write"}},
				})
			},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	m, err := manifest.Parse([]byte(`{"slug": "library", "auth": {"policy": {"provider": "polar"}}}`), nil)
	if err != nil {
		log.Fatal(err)
	}
	app, err := eng.Load(ctx, m)
	if err != nil {
		log.Fatal(err)
	}
	user, err := app.Users().Create(ctx, users.NewUser{Email: "ada@example.com", Password: "correct horse battery staple"})
	if err != nil {
		log.Fatal(err)
	}
	grant, err := app.StartSession(ctx, user.ID, engine.Device{}, false)
	if err != nil {
		log.Fatal(err)
	}
	documents := app.RequirePermission("documents", "write").Func(func(http.ResponseWriter, *http.Request) {})
	ask := func() int {
		r, w := httptest.NewRequestWithContext(ctx, http.MethodPost, "/documents", nil), httptest.NewRecorder()
		r.Header.Set("Authorization", "Bearer "+grant.Access.Token)
		documents.ServeHTTP(w, r)
		return w.Code
	}

	fmt.Println(ask())
	editor.Store(user.ID)
	fmt.Println(ask())
	permissions, err := app.Authz().Permissions(ctx, user.ID)
	fmt.Println(permissions, err)

	if err := errors.Join(eng.Close(ctx), server.Close(ctx)); err != nil {
		log.Fatal(err)
	}
	// Output:
	// 403
	// 200
	// [documents:read documents:write] <nil>
}
