package apikey

import (
	"strings"
	"testing"

	"github.com/mandate-auth/mandate/internal/base62"
)

// FuzzKey holds the form of keys against its description: prefix, 49 characters of
// base62, of which the last 6 are the checksum of the rest.
func FuzzKey(f *testing.F) {
	key := newKey("mdk_")
	for _, seed := range []string{
		key, key[:len(key)-1], key + "0", "mdk_", "", strings.ToUpper(key), strings.Replace(key, "_", "-", 1), "mdk_" + strings.Repeat("é", 24) + "x",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if !wellFormed("mdk_", text) {
			return
		}
		body, ok := strings.CutPrefix(text, "mdk_")
		if !ok || len(body) != 49 || strings.Trim(body, base62.Alphabet) != "" {
			t.Fatalf("%q is taken for a key", text)
		}
		sum := checksum([]byte(text[:len(text)-6]))
		if text[len(text)-6:] != string(sum[:]) {
			t.Fatalf("%q has a wrong checksum", text)
		}
		// A checksum is of one text: no other character at any place passes.
		for i := range text {
			other := byte('a')
			if text[i] == other {
				other = 'b'
			}
			if wellFormed("mdk_", text[:i]+string(other)+text[i+1:]) {
				t.Fatalf("%q passes with %q at %d", text, other, i)
			}
		}
	})
}

// Keys are as long as they are said to be, also when their number is small.
func TestNewKeysAreWellFormed(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 10_000 {
		key := newKey("mdk_")
		if !wellFormed("mdk_", key) || seen[key] {
			t.Fatalf("the key %q is malformed or came before", key)
		}
		seen[key] = true
	}
}
