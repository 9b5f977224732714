package cedar_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/authz/cedar"
	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/localmongo"
	"github.com/mandate-auth/mandate/manifest"
	"github.com/mandate-auth/mandate/users"
)

// The policies come from a file, and who has which role from the service, which
// calls Replace whenever that changes.
func Example() {
	ctx := context.Background()
	server, err := localmongo.Start(ctx, &localmongo.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	policies := []byte(`permit (principal in Role::"editor", action == Action::"write", resource == Object::"documents");`)
	catalog := []authz.Permission{{Object: "documents", Action: "write"}}
	var provider *cedar.Provider

	eng, err := engine.New(ctx, server.Client().Database("library"), &engine.Options{
		SecretKeys: []engine.Secret{engine.NewSecret("a key of 32 bytes for the example")}, InsecureHashCost: 4,
		Logger: slog.New(slog.DiscardHandler),
		Providers: map[string]engine.NewProvider{
			"cedar": func(_ context.Context, app string) (authz.Provider, error) {
				var err error
				provider, err = cedar.New(cedar.Config{App: app, Policies: policies, Catalog: catalog})
				return provider, err
			},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	m, err := manifest.Parse([]byte(`{"slug": "library", "auth": {"policy": {"provider": "cedar"}}}`), nil)
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
	entities := `[{"uid": {"type": "User", "id": "` + user.ID + `"}, "parents": [{"type": "Role", "id": "editor"}]}]`
	if err := provider.Replace(policies, []byte(entities)); err != nil {
		log.Fatal(err)
	}
	fmt.Println(ask())
	permissions, err := app.Authz().Permissions(ctx, user.ID)
	fmt.Println(permissions, err)

	if err := errors.Join(eng.Close(ctx), server.Close(ctx)); err != nil {
		log.Fatal(err)
	}
	// Output:
	// 403
	// 200
	// [documents:write] <nil>
}
