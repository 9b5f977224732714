package engine_test

import (
	"context"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/engine/audit"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/mail"
	"github.com/mandate-auth/mandate/sessions"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/apikey"
	"github.com/mandate-auth/mandate/tokens/oauth2"
	"github.com/mandate-auth/mandate/tokens/onetime"
	"github.com/mandate-auth/mandate/users"
	"github.com/mandate-auth/mandate/users/identity"
	"github.com/mandate-auth/mandate/users/invitation"
	"github.com/mandate-auth/mandate/users/recovery"
	"github.com/mandate-auth/mandate/users/social"
)

// surface is what services are given to call. Whatever takes a context or
// answers a request may ask the database.
var surface = map[string]any{
	"Engine": (*engine.Engine)(nil), "App": (*engine.App)(nil),
	"Users": (*users.Store)(nil), "Sessions": (*sessions.Manager)(nil), "Blacklist": (*tokens.Blacklist)(nil),
	"Authz": (*engine.Authz)(nil), "APIKeys": (*apikey.Store)(nil), "Clients": (*oauth2.Store)(nil),
	"Keys": (*engine.Keys)(nil), "Audit": (*audit.Trail)(nil),
	"OneTime": (*onetime.Store)(nil), "Identities": (*identity.Store)(nil), "Invitations": (*invitation.Store)(nil),
	"Recovery": (*recovery.Service)(nil), "Outbox": (*mail.Outbox)(nil), "Social": (*social.Set)(nil),
}

// unharmed are the routes and methods that need no operation of their own, and
// why.
var unharmed = map[string]string{
	"GET /auth/health":          "tells of an outage itself: TestRevocationAcrossInstances",
	"GET /auth/me":              "asks nothing",
	"GET /auth/me/permissions":  "decides in memory, as Authz.Can",
	"POST /auth/authorize":      "decides in memory, as Authz.Can",
	"GET /auth/admin/roles":     "tells what the manifest says",
	"GET /auth/openapi.json":    "tells what the manifest says",
	"GET /auth/metrics":         "tells what is counted in memory",
	"Authz.RolesOf":             "as Authz.Can",
	"Authz.Can":                 "decides in memory; asks only when that is stale: authz/casbin",
	"Authz.Enter":               "as Authz.Can",
	"Authz.Explain":             "as Authz.Can",
	"Authz.HasRole":             "as Authz.Can",
	"Authz.Overview":            "as Authz.Can",
	"Authz.Permissions":         "as Authz.Can",
	"Authz.Roles":               "as Authz.Can",
	"App.Verify":                "asks only when the feed is stale: TestRevocationAcrossInstances",
	"Blacklist.Check":           "as App.Verify",
	"Blacklist.CheckRemembered": "as App.Verify",
	"App.Close":                 "writes what the trail still holds, again and again: engine/audit",
	"App.Upkeep":                "is there for tests",
	"APIKeys.Close":             "writes when keys were used, which nothing waits for",
	"APIKeys.EnsureIndexes":     "is a part of Engine.Load",
	"Clients.EnsureIndexes":     "is a part of Engine.Load",
	"Audit.EnsureIndexes":       "is a part of Engine.Load",
	"Audit.Query":               "is GET /auth/admin/audit",
	"Audit.Summary":             "is GET /auth/admin/audit/summary",
	"Audit.Verify":              "is GET /auth/admin/audit/verify",
	"Audit.Close":               "as App.Close",
	"Audit.Write":               "waits for the goroutine that writes, again and again: engine/audit",
	"Audit.Record":              "as Audit.Write",
	"Audit.Log":                 "as Audit.Write",
	"Audit.LogAccessDenied":     "as Audit.Write",
	"Audit.LogAuthFailure":      "as Audit.Write",
	"Audit.LogAuthSuccess":      "as Audit.Write",
	"Audit.Flush":               "as Audit.Write",
	"Audit.Checkpoint":          "as Audit.Write",
	"Engine.Close":              "as App.Close",
	"Engine.LoadFile":           "is Engine.Load with a file",
	"Sessions.Close":            "asks nothing that matters",
	"Sessions.Begin":            "is a part of App.StartSession",
	"Sessions.Create":           "is a part of App.StartSession",
	"Sessions.EndByToken":       "is App.Logout",
	"Sessions.EnsureIndexes":    "is a part of Engine.Load",
	"Users.EnsureIndexes":       "is a part of Engine.Load",
	"Users.SeedDemo":            "is a part of Engine.Load",
	"Sessions.Refresh":          "is App.Refresh",
	"Users.Authenticate":        "is a part of App.Login",
	"Users.Confirm":             "is a part of App.Login",
	"App.ImportUsers":           "as Users.Import",
	"Users.Import":              "is continued where it says: TestImportThroughOutages in users",
	"Users.Prepare":             "hashes, and asks nothing",

	"GET /auth/oauth/providers":        "tells what the manifest says",
	"GET /auth/oauth/{provider}/login": "asks nothing: the browser keeps what was begun",

	"Recovery.SendVerification": "is POST /auth/email/verify/send",
	"Recovery.ForgotPassword":   "is POST /auth/password/forgot",
	"Recovery.SendMagicLink":    "is POST /auth/magic-link",
	"Recovery.SendCode":         "is POST /auth/code",
	"Recovery.ChangeEmail":      "is POST /auth/email/change",
	"Recovery.VerifyEmail":      "is POST /auth/email/verify",
	"Recovery.ResetPassword":    "is POST /auth/password/reset",
	"Recovery.ConfirmEmail":     "is POST /auth/email/change/confirm",
	"Recovery.ConsumeMagicLink": "is POST /auth/magic-link/consume",
	"Recovery.ConsumeCode":      "is POST /auth/code/consume",
	"Social.Begin":              "as GET /auth/oauth/{provider}/login",
	"Social.Finish":             "is GET /auth/oauth/{provider}/callback",
	"Social.Close":              "asks nothing",
	"Outbox.Close":              "waits for what is being sent: mail",
	"Outbox.EnsureIndexes":      "is a part of Engine.Load",
	"OneTime.EnsureIndexes":     "is a part of Engine.Load",
	"Identities.EnsureIndexes":  "is a part of Engine.Load",
	"Invitations.EnsureIndexes": "is a part of Engine.Load",
}

// Whatever is public and asks the database stands in a table of operations.
func TestFaultsMeetEverything(t *testing.T) {
	t.Parallel()
	harmed := map[string]bool{}
	for _, op := range allOperations() {
		name, _, _ := strings.Cut(op.name, ": ")
		harmed[name] = true
	}
	public := newWorld(t, storetest.Database(t), sweepManifest(t, "shop", "10s", "5s")).app.Routes()
	for name, value := range surface {
		public = append(public, asking(name, reflect.TypeOf(value))...)
	}
	for _, name := range public {
		if _, excepted := unharmed[name]; excepted == harmed[name] {
			t.Errorf("%s has to be one of: an operation that faults are made for, an exception", name)
		}
	}
	for name := range unharmed {
		if !slices.Contains(public, name) {
			t.Errorf("%s is an exception and is not there", name)
		}
	}
}

// asking lists the methods that take a context or a request.
func asking(name string, of reflect.Type) []string {
	var out []string
	for i := range of.NumMethod() {
		m := of.Method(i)
		for k := range m.Type.NumIn() {
			switch m.Type.In(k) {
			case reflect.TypeFor[context.Context](), reflect.TypeFor[*http.Request]():
				out = append(out, name+"."+m.Name)
			}
		}
	}
	return out
}
