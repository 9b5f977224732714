package users_test

import (
	"fmt"
	"testing"

	"github.com/mandate-auth/mandate/users"
)

// A whole number that would be rounded is refused, and no other.
func TestImportNumbers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	i := 0
	for text, taken := range map[string]bool{
		"9007199254740992": true, "100000000000000000": true, "100000000000000001": false, "-9007199254740992": true, "9007199254740993": false, "12345678901234567890": false, "1e300": true, "0.1": true,
		`{"a":[9007199254740993]}`: false,
	} {
		i++
		r := b.imports(t, fmt.Sprintf(`{"email":"u%d@example.com","profile":{"n":%s}}`, i, text), users.ImportOptions{})
		if (r.Imported == 1) != taken || r.Imported+r.Refused != 1 {
			t.Errorf("%s: %+v", text, r)
		}
	}
}

// What has proved a reset says nothing about a password that was set later.
func TestResetProvesNoLaterPassword(t *testing.T) {
	t.Parallel()
	b := setup(t)
	u := b.known(t, ada)
	was := b.mailed(t, u.ID)
	const later = "set by its owner later"
	if _, err := b.ResetPassword(t.Context(), u.ID, was, fresh); err != nil {
		t.Fatal(err)
	}
	if _, err := b.ResetPassword(t.Context(), u.ID, was, fresh); err != nil {
		t.Fatalf("a call that was not answered cannot be repeated: %v", err)
	}
	if err := b.SetPassword(t.Context(), u.ID, later); err != nil {
		t.Fatal(err)
	}
	for _, guess := range []string{later, fresh} {
		_, err := b.ResetPassword(t.Context(), u.ID, was, guess)
		wantErr(t, guess, err, users.ErrChanged)
	}
}
