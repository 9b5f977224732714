package authz_test

import (
	"errors"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/mandate-auth/mandate/authz"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const id = "usr_00000000000000000000000ada"

// The zero values of everything allow nothing and are nobody.
func TestZeroValuesRefuse(t *testing.T) {
	t.Parallel()
	var nobody *authz.Principal
	if nobody.Subject() != "" || (&authz.Principal{}).Subject() != "" || nobody.IsHuman() || (&authz.Principal{}).IsHuman() {
		t.Error("nobody is somebody")
	}
	if (authz.Decision{}).Allowed {
		t.Error("the zero decision allows")
	}
	if err := (authz.Rule{}).Check(); err == nil {
		t.Error("the zero rule is one")
	}
	if err := (authz.Assignment{}).Check(); err == nil {
		t.Error("the zero assignment is one")
	}
	if c := (authz.Change{}); !c.Empty() || c.Check() != nil {
		t.Error("the zero change changes something")
	}
}

func TestSubject(t *testing.T) {
	t.Parallel()
	for kind, want := range map[authz.Kind]string{authz.KindHuman: id, authz.KindDemo: id, authz.KindAnonymous: authz.SubjectAnonymous} {
		if got := (&authz.Principal{ID: id, Kind: kind}).Subject(); got != want {
			t.Errorf("%s: %q, want %q", kind, got, want)
		}
	}
}

// A role that looks like an identifier would let whoever grants roles name a
// person.
func TestRolesAreNoIdentifiers(t *testing.T) {
	t.Parallel()
	for role, good := range map[string]bool{
		"admin": true, "Team Lead": true, "usr_x": true, "user_00000000000000000000000000": true, "usr-00000000000000000000000ada": true, "é:x|y": true,
		id: false, "key_0123456789abcdefghjkmnpqrs": false, "ses_" + strings.Repeat("0", 52): false, "usr_" + strings.Repeat("z", 26): false,
		authz.SubjectAnonymous: false, "": false, "a,b": false, " a": false,
	} {
		err := authz.CheckRole(role)
		var value *authz.ValueError
		if good != (err == nil) || (err != nil && (!errors.As(err, &value) || value.Field != "role")) {
			t.Errorf("CheckRole(%q) = %v", role, err)
		}
	}
}

func TestPermissionsHaveOneText(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]authz.Permission{
		"documents:read": {Object: "documents", Action: "read"},
		"a:b:c":          {Object: "a:b", Action: "c"},
		"/x/{id}:GET":    {Object: "/x/{id}", Action: "GET"},
	} {
		got, err := authz.ParsePermission(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("ParsePermission(%q) = %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "documents", ":read", "documents:", "a,b:c", "a:b\n"} {
		if got, err := authz.ParsePermission(text); err == nil {
			t.Errorf("ParsePermission(%q) = %+v", text, got)
		}
	}
}

func TestPages(t *testing.T) {
	t.Parallel()
	for limit, want := range map[int]int{0: 50, -1: 50, 1: 1, 500: 500, 501: 500} {
		if got := (authz.Page{Limit: limit}).Size(); got != want {
			t.Errorf("a page of %d has %d", limit, got)
		}
	}
}
