package keys_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/mandate-auth/mandate/tokens/keys"
	"github.com/mandate-auth/mandate/tokens/secret"
)

var salt = bytes.Repeat([]byte{7}, 32)

func app(t testing.TB, slug string, epoch int64, secrets ...string) *keys.App {
	t.Helper()
	var values []secret.Value
	for _, s := range secrets {
		values = append(values, secret.FromString(strings.Repeat(s, 32)))
	}
	ring, err := keys.NewRing(values)
	if err != nil {
		t.Fatal(err)
	}
	a, err := ring.App(slug, salt, epoch)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// The derivation is HKDF (RFC 5869) with the documented info, computed here by
// hand: a change of it would end every session of every service.
func TestDerivationIsStable(t *testing.T) {
	t.Parallel()
	sum := func(key, data []byte) []byte {
		h := hmac.New(sha256.New, key)
		h.Write(data)
		return h.Sum(nil)
	}
	info := []byte("mandate/v1\x00\x00\x00\x04shop\x00\x00\x00\x06access")
	info = binary.BigEndian.AppendUint64(info, 3)
	prk := sum(salt, []byte(strings.Repeat("s", 32)))
	want := sum(prk, append(info, 1))
	if got := app(t, "shop", 3, "s").Newest(keys.Access).Bytes(); !bytes.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
}

func TestKeysDiffer(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	add := func(name string, k keys.Key) {
		for _, text := range []string{string(k.Bytes()), k.ID} {
			if other, ok := seen[text]; ok {
				t.Errorf("%s and %s share a key", name, other)
			}
			seen[text] = name
		}
	}
	base := app(t, "a", 1, "s")
	for _, p := range []keys.Purpose{keys.Access, keys.Refresh, keys.Device, keys.Attempt, keys.Cursor, keys.Seal, keys.Audit} {
		add("base "+string(p), base.Newest(p))
	}
	add("another app", app(t, "ab", 1, "s").Newest(keys.Access))
	add("another epoch", app(t, "a", 2, "s").Newest(keys.Access))
	add("another secret", app(t, "a", 1, "r").Newest(keys.Access))
	for _, p := range []keys.Purpose{keys.Device, keys.Attempt, keys.Cursor, keys.Seal, keys.Audit} {
		if got := app(t, "a", 2, "s").Newest(p).ID; got != base.Newest(p).ID {
			t.Errorf("raising the epoch orphaned what is stored under %q", p)
		}
	}
	for _, p := range []keys.Purpose{keys.Access, keys.Refresh} {
		if got := app(t, "a", 2, "s").Newest(p).ID; got == base.Newest(p).ID {
			t.Errorf("raising the epoch left the tokens of %q alive", p)
		}
	}
}

func TestRotation(t *testing.T) {
	t.Parallel()
	old, both := app(t, "a", 1, "o"), app(t, "a", 1, "n", "o")
	signed := old.Newest(keys.Refresh)
	mac := signed.MAC([]byte("data"))
	k, ok := both.ByID(keys.Refresh, signed.ID)
	if !ok || !k.Verify([]byte("data"), mac) {
		t.Error("what the older secret signed is not accepted beside a newer one")
	}
	if k.Verify([]byte("other"), mac) || k.Verify([]byte("data"), mac[:31]) || (keys.Key{}).Verify(nil, nil) {
		t.Error("a wrong MAC was accepted")
	}
	if both.Newest(keys.Refresh).ID == signed.ID {
		t.Error("the older secret still signs")
	}
	if _, ok := both.ByID(keys.Access, signed.ID); ok {
		t.Error("a refresh key was found among the access keys")
	}
	if ids := both.Identifiers(keys.Device, "d"); len(ids) != 2 || ids[1] != old.Identifiers(keys.Device, "d")[0] {
		t.Error("what was stored under the older secret cannot be found")
	}
}

func TestNewRingRefuses(t *testing.T) {
	t.Parallel()
	long := secret.FromString(strings.Repeat("k", 32))
	tests := []struct {
		name    string
		secrets []secret.Value
		want    error
	}{
		{"none", nil, keys.ErrNoSecret},
		{"31 bytes", []secret.Value{secret.FromString(strings.Repeat("k", 31))}, keys.ErrWeakSecret},
		{"second too short", []secret.Value{long, secret.FromString("x")}, keys.ErrWeakSecret},
		{"twice the same", []secret.Value{long, long}, keys.ErrSecretConflict},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := keys.NewRing(tt.secrets)
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if !errors.Is(tt.want, keys.ErrSecretConflict) && !strings.Contains(err.Error(), "openssl rand") {
				t.Errorf("the message does not show how to make a key: %v", err)
			}
		})
	}
}

func TestFromEnvironment(t *testing.T) {
	t.Parallel()
	a, b := strings.Repeat("a", 32), strings.Repeat("b", 32)
	tests := []struct {
		name string
		env  map[string]string
		want string
		err  error
	}{
		{"ours", map[string]string{"MANDATE_SECRET_KEY": a}, "MANDATE_SECRET_KEY", nil},
		{"moved over", map[string]string{"FLASK_SECRET_KEY": a}, "FLASK_SECRET_KEY", nil},
		{"two that agree", map[string]string{"MANDATE_SECRET_KEY": a, "SECRET_KEY": a}, "MANDATE_SECRET_KEY", nil},
		{"two that differ", map[string]string{"MANDATE_SECRET_KEY": a, "APP_SECRET_KEY": b}, "", keys.ErrSecretConflict},
		{"empty", map[string]string{"MANDATE_SECRET_KEY": ""}, "", keys.ErrNoSecret},
		{"none", nil, "", keys.ErrNoSecret},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, name, err := keys.FromEnvironment(func(k string) (string, bool) { v, ok := tt.env[k]; return v, ok })
			if name != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("got %q, %v, want %q, %v", name, err, tt.want, tt.err)
			}
			if err != nil && (strings.Contains(err.Error(), a) || strings.Contains(err.Error(), b)) {
				t.Error("the message shows a key")
			}
		})
	}
}

// FuzzCursor opens texts of any kind. None but those that were sealed opens, and
// those for their own list only.
func FuzzCursor(f *testing.F) {
	ring, err := keys.NewRing([]secret.Value{secret.FromString(strings.Repeat("k", 32))})
	if err != nil {
		f.Fatal(err)
	}
	app, err := ring.App("shop", bytes.Repeat([]byte("s"), 32), 1)
	if err != nil {
		f.Fatal(err)
	}
	sealed := app.SealCursor("rules", `["a","b"]`)
	f.Add("rules", sealed)
	f.Add("members", sealed)
	f.Add("rules", sealed+"A")
	f.Add("", "a.b.c")
	f.Add("rules\x00", ".."+sealed)
	f.Fuzz(func(t *testing.T, scope, cursor string) {
		position, ok := app.OpenCursor(scope, cursor)
		if ok != (scope == "rules" && cursor == sealed) {
			t.Fatalf("OpenCursor(%q, %q) = %q, %t", scope, cursor, position, ok)
		}
		own := app.SealCursor(scope, cursor)
		if got, ok := app.OpenCursor(scope, own); len(own) <= 16<<10 && (!ok || got != cursor) {
			t.Fatalf("a cursor does not open: %q, %t", got, ok)
		}
	})
}
