package event_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"strconv"
	"testing"

	"github.com/mandate-auth/mandate/engine/event"
)

// Whoever reads trails filters by these words. One that Types leaves out would be
// missing in documents and choices; two alike could not be told apart.
func TestTypes(t *testing.T) {
	t.Parallel()
	listed := map[event.Type]bool{}
	form := regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)
	for _, kind := range event.Types() {
		if listed[kind] {
			t.Errorf("%q is there twice", kind)
		}
		listed[kind] = true
		if !form.MatchString(string(kind)) {
			t.Errorf("%q is not in snake case", kind)
		}
	}
	if len(listed) < 40 {
		t.Errorf("%d types, want at least 40", len(listed))
	}
	declared := declaredTypes(t)
	for name, kind := range declared {
		if !listed[kind] {
			t.Errorf("%s (%q) is declared and not listed", name, kind)
		}
	}
	if len(declared) != len(listed) {
		t.Errorf("%d types are declared and %d listed", len(declared), len(listed))
	}
	event.Types()[0] = "changed"
	if event.Types()[0] == "changed" {
		t.Error("a caller can change the list")
	}
}

// declaredTypes reads the constants of the package's source.
func declaredTypes(t *testing.T) map[string]event.Type {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "types.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	declared := map[string]event.Type{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		if named, ok := spec.Type.(*ast.Ident); ok && named.Name == "Type" {
			value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			declared[spec.Names[0].Name] = event.Type(value)
		}
		return true
	})
	return declared
}

// Values that are in trails already must keep their meaning.
func TestTypesAreStable(t *testing.T) {
	t.Parallel()
	for kind, want := range map[event.Type]string{
		event.UserRegistered:       "user_registered",
		event.UserImported:         "user_imported",
		event.UserUpdated:          "user_updated",
		event.UserDisabled:         "user_disabled",
		event.UserEnabled:          "user_enabled",
		event.UserDeleted:          "user_deleted",
		event.PasswordChanged:      "password_changed",
		event.PasswordRehashed:     "password_rehashed",
		event.PasswordBreached:     "password_breached",
		event.BreachCheckFailed:    "breach_check_failed",
		event.LoginSucceeded:       "login_succeeded",
		event.LoginFailed:          "login_failed",
		event.AccountLocked:        "account_locked",
		event.AnonymousStarted:     "anonymous_started",
		event.DemoStarted:          "demo_started",
		event.SessionStarted:       "session_started",
		event.SessionRefreshed:     "session_refreshed",
		event.SessionEnded:         "session_ended",
		event.SessionEvicted:       "session_evicted",
		event.AllSessionsEnded:     "all_sessions_ended",
		event.RefreshReused:        "refresh_reused",
		event.DeviceChanged:        "device_changed",
		event.AddressChanged:       "address_changed",
		event.RequestPassed:        "request",
		event.AccessDenied:         "access_denied",
		event.CrossOriginRefused:   "cross_origin_refused",
		event.AuthenticatorRefused: "authenticator_refused",
		event.RateLimited:          "rate_limited",
		event.APIKeyCreated:        "api_key_created",
		event.APIKeyRevoked:        "api_key_revoked",
		event.APIKeyRefused:        "api_key_refused",
		event.ClientCreated:        "client_created",
		event.ClientUpdated:        "client_updated",
		event.ClientSecretRotated:  "client_secret_rotated",
		event.ClientDisabled:       "client_disabled",
		event.ClientEnabled:        "client_enabled",
		event.ClientDeleted:        "client_deleted",
		event.ClientRefused:        "client_refused",
		event.ClientTokenIssued:    "client_token_issued",
		event.TokenRevoked:         "token_revoked",
		event.SigningKeyCreated:    "signing_key_created",
		event.SigningKeyActivated:  "signing_key_activated",
		event.SigningKeyRetired:    "signing_key_retired",
		event.SigningKeyRevoked:    "signing_key_revoked",
		event.KeysEpochRaised:      "keys_epoch_raised",
		event.IssuerRefused:        "issuer_refused",
		event.IdentityRefused:      "identity_refused",
		event.RoleGranted:          "role_granted",
		event.RoleRevoked:          "role_revoked",
		event.PolicyChanged:        "policy_changed",
		event.ClockSkewed:          "clock_skewed",
		event.AppLoaded:            "app_loaded",
		event.AppClosed:            "app_closed",
		event.MailSent:             "mail_sent",
		event.MailFailed:           "mail_failed",
		event.AuditStarted:         "audit_started",
		event.AuditCheckpoint:      "audit_checkpoint",
		event.AuditLost:            "audit_lost",
		event.AuditRead:            "audit_read",
		event.AuditBroken:          "audit_broken",
		event.AuthSuccess:          "auth_success",
		event.AuthFailure:          "auth_failure",
	} {
		if string(kind) != want {
			t.Errorf("%q was %q", kind, want)
		}
	}
}
