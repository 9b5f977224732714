package base62_test

import (
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/mandate-auth/mandate/internal/base62"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Secrets have one length and one alphabet, and none comes twice.
func TestNewSecret(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 10000 {
		s := base62.NewSecret()
		if len(s) != base62.SecretLength || strings.Trim(s, base62.Alphabet) != "" || seen[s] {
			t.Fatalf("%q", s)
		}
		seen[s] = true
	}
}
