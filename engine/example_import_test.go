package engine_test

import (
	"context"
	"fmt"
	"strings"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/users"
)

// Somebody who had an account elsewhere, with a hash by Django, keeps the password.
func ExampleApp_ImportUsers() {
	app, closeAll := docsApp(libraryManifest)
	defer closeAll()
	ctx := context.Background()
	file := strings.NewReader(
		`{"email": "ada@example.com", "roles": ["editor"], "external_id": "42", "password_hash": "pbkdf2_sha256$10000$seasalt$CWWFdHOWwPnki7HvkcqN9iA2T3KLW1cf2uZ5kvArtVY="}
{"email": "nobody", "external_id": "43"}
`)

	report, err := app.ImportUsers(ctx, file, users.ImportOptions{OnLine: func(r users.LineResult) {
		fmt.Println(r.ExternalID, r.Outcome, strings.HasPrefix(r.UserID, "usr_"))
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(report.Imported, "imported,", report.Errors[0])

	grant, err := app.Login(ctx, engine.Credentials{Email: "ada@example.com", Password: "lètmein"}, engine.Device{}, false)
	if err != nil {
		fmt.Println(err)
		return
	}
	roles, err := app.Authz().AssignedRoles(ctx, grant.User.ID)
	fmt.Println(grant.User.Email, roles, err)
	// Output:
	// 42 imported true
	// 43 refused false
	// 1 imported, line 2: email: must have the form name@domain
	// ada@example.com [editor user] <nil>
}
