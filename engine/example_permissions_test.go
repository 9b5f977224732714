package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"

	"go.mongodb.org/mongo-driver/mongo"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine"
)

// What stands in docs/permissions.md, word for word: a test of internal/docscheck
// compares them.

const libraryManifest = `{
  "slug": "library",
  "auth": {
    "policy": {
      "authorization": {
        "default_roles": ["user", "editor", "admin"],
        "role_hierarchy": { "admin": ["editor"], "editor": ["user"] },
        "initial_policies": [
          ["user", "documents", "read"],
          ["editor", "documents", "create"],
          ["admin", "documents", "delete"]
        ]
      }
    }
  }
}`

func ExampleApp_RequirePermission() {
	app, closeAll := docsApp(libraryManifest)
	defer closeAll()
	mux := http.NewServeMux()
	list, admin, reports, remove, publish, inbox := docsReply("list"), docsReply("admin"), docsReply("reports"), docsReply("removed"), docsReply("published"), docsReply("inbox")
	id, token := docsUser(app)
	documentOwner := func(r *http.Request) (userID string, err error) {
		if r.PathValue("id") != "mine" {
			return "", engine.ErrNotFound
		}
		return id, nil
	}

	mux.Handle("GET /documents", app.RequirePermission("documents", "read").Func(list))
	mux.Handle("GET /admin", app.RequireAdmin().Func(admin))                       // the role "admin"
	mux.Handle("GET /reports", app.RequireRole("editor", "auditor").Func(reports)) // one of them
	mux.Handle("DELETE /documents/{id}",
		app.RequireOwnerOr(documentOwner, app.RequirePermission("documents", "delete")).Func(remove))
	mux.Handle("POST /publish", app.All(app.RequireFresh(0), app.RequireRole("editor")).Func(publish))
	mux.Handle("GET /inbox", app.Any(app.RequireAdmin(), app.RequirePermission("inbox", "read")).Func(inbox))

	for _, path := range []string{"/documents", "/admin", "/reports", "/inbox"} {
		fmt.Println(path, docsGet(mux, path, token).Code)
	}
	// Output:
	// /documents 200
	// /admin 403
	// /reports 403
	// /inbox 403
}

func ExampleAuthz_Can() {
	app, closeAll := docsApp(libraryManifest)
	defer closeAll()
	_, token := docsUser(app)
	ctx := context.Background()
	p, err := app.Verify(ctx, token)
	if err != nil {
		log.Fatal(err)
	}
	ask := func(p *engine.Principal) {
		can, err := app.Authz().Can(ctx, p, "documents", "delete")
		has, err := app.Authz().HasRole(ctx, p, "admin")
		roles, permissions, err := app.Authz().Overview(ctx, p)
		fmt.Println(can, has, roles, permissions, err)
	}
	ask(p)
	// Output: false false [user] [documents:read] <nil>
}

func ExampleAuthz_GrantRole() {
	app, closeAll := docsApp(libraryManifest)
	defer closeAll()
	ctx, cursor := context.Background(), ""
	userID, _ := docsUser(app)
	var backup io.ReadWriter = &bytes.Buffer{}

	err := app.Authz().GrantRole(ctx, userID, "editor")
	err = app.Authz().RevokeRole(ctx, userID, "editor")
	err = app.Authz().SetRoles(ctx, userID, "user", "editor") // these and no others

	archive := authz.Rule{Subject: "editor", Permission: authz.Permission{Object: "documents", Action: "archive"}}
	err = app.Authz().AddRules(ctx, archive)
	err = app.Authz().RemoveRules(ctx, archive)
	err = app.Authz().Apply(ctx, authz.Change{ // as one change
		Add:      []authz.Rule{archive},
		Unassign: []authz.Assignment{{Subject: userID, Role: "user"}},
	})

	roles, err := app.Authz().Roles(ctx, userID) // with inherited ones; AssignedRoles without
	ids, next, err := app.Authz().UsersOfRole(ctx, "editor", authz.Page{Limit: 100, After: cursor})
	rules, next, err := app.Authz().Rules(ctx, authz.RuleFilter{Subject: "editor"}, authz.Page{})
	permissions, err := app.Authz().Permissions(ctx, userID)

	err = app.Authz().SetRules(ctx, "editor", archive)      // these and no others
	err = app.Authz().Export(ctx, backup, engine.PolicyCSV) // Casbin's format; or engine.PolicyJSON
	change, err := app.Authz().Import(ctx, backup, engine.Import{Format: engine.PolicyCSV, Replace: true, DryRun: true})

	fmt.Println(change.Empty(), err)
	fmt.Println(roles, len(ids), len(rules), next == "", permissions, err)
	// Output:
	// true <nil>
	// [editor user] 1 2 true [documents:archive documents:create documents:read] <nil>
}

// ownProviders stands for a package of the service.
type ownProviders struct{}

func (ownProviders) New(string) (authz.Provider, error) { return fixed{}, nil }

func ExampleNewProvider() {
	var mine ownProviders
	start := func(ctx context.Context, db *mongo.Database) error {
		eng, err := engine.New(ctx, db, &engine.Options{Providers: map[string]engine.NewProvider{
			"own": func(ctx context.Context, app string) (authz.Provider, error) { return mine.New(app) },
		}})
		if err != nil {
			return err
		}
		return eng.Close(ctx)
	}
	fmt.Println(errors.Is(start(context.Background(), nil), engine.ErrOptions)) // without a database
	// Output: true
}

func ExampleAuthz_As() {
	app, closeAll := docsApp(libraryManifest)
	defer closeAll()
	ctx := context.Background()
	userID, token := docsUser(app)
	p, err := app.Verify(ctx, token)
	if err != nil {
		log.Fatal(err)
	}
	give := func() error {
		err := app.Authz().As(p).SetRoles(ctx, userID, "editor") // wraps engine.ErrEscalation, answered 403
		return err
	}
	fmt.Println(errors.Is(give(), engine.ErrEscalation))
	// Output: true
}

func ExampleAuthz_Explain() {
	app, closeAll := docsApp(libraryManifest)
	defer closeAll()
	ctx := context.Background()
	id, token := docsUser(app)
	if err := app.Authz().SetRoles(ctx, id, "admin"); err != nil {
		log.Fatal(err)
	}
	p, err := app.Verify(ctx, token)
	if err != nil {
		log.Fatal(err)
	}
	e, err := app.Authz().Explain(ctx, p, "documents", "delete")
	fmt.Println(e) // allowed: usr_… → admin may delete documents
	fmt.Println(err)
}

func ExampleAuthz_Explain_path() {
	app, closeAll := docsApp(libraryManifest)
	defer closeAll()
	ctx := context.Background()
	id, token := docsUser(app)
	if err := app.Authz().SetRoles(ctx, id, "admin"); err != nil {
		log.Fatal(err)
	}
	p, err := app.Verify(ctx, token)
	if err != nil {
		log.Fatal(err)
	}
	e, err := app.Authz().Explain(ctx, p, "documents", "create")
	fmt.Println(e.Reason, e.Path[1:], e.Rule.Action, err)
	// Output: allowed [admin editor] create <nil>
}

func ExampleApp_Protect() {
	app, closeAll := docsApp(`{
  "slug": "library",
  "auth_required": true,
  "auth": {
    "requirements": [
      { "path": "/health", "internal": true, "optional": true },
      { "path": "/books/*", "methods": ["GET"], "optional": true },
      { "path": "/books/{id}", "methods": ["DELETE"], "roles": ["admin"], "fresh_within": "10m" },
      { "path": "/books/*", "permissions": ["books:write"] },
      { "path": "/account/*", "methods_allowed": ["session"], "human_only": true },
      { "path": "/api/*", "methods_allowed": ["jwt"], "scopes": ["api"] }
    ]
  }
}`)
	defer closeAll()
	mux, service := http.NewServeMux(), docsReply("served")
	_, token := docsUser(app)

	mux.Handle("/auth/", app.Handler())   // guards itself
	mux.Handle("/", app.Protect(service)) // or app.RequireByPath(), a guard like the others
	e, err := app.ExplainPath("DELETE", "/books/7")
	fmt.Println(e) // rule 2, /books/{id}: a principal, a sign-in within 10m, the role admin

	for _, path := range []string{"/health", "/books/7", "/account/name", "/api/things", "/elsewhere"} {
		fmt.Println(path, docsGet(mux, path, "").Code, docsGet(mux, path, token).Code)
	}
	fmt.Println(err)
	// Output:
	// rule 2, /books/{id}: a principal, a sign-in within 10m, the role admin
	// /health 403 403
	// /books/7 200 200
	// /account/name 401 401
	// /api/things 401 403
	// /elsewhere 401 200
	// <nil>
}
