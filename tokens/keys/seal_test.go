package keys_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/mandate-auth/mandate/tokens/keys"
)

// place is a scope as the packages that seal make them.
const place = "signing_keys|k1|private"

func TestSeal(t *testing.T) {
	t.Parallel()
	a := app(t, "shop", 1, "s")
	for _, plain := range [][]byte{nil, {}, []byte("x"), bytes.Repeat([]byte{0xff}, 4096)} {
		sealed := a.Seal(place, plain)
		got, err := a.Open(place, sealed)
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes came back as %d bytes, %v", len(plain), len(got), err)
		}
		if len(plain) > 3 && strings.Contains(sealed, base64.RawURLEncoding.EncodeToString(plain[:30])) {
			t.Error("the sealed value shows what it holds")
		}
		if again := a.Seal(place, plain); again == sealed {
			t.Error("a nonce was used twice")
		}
	}
}

// golden was sealed for the app "shop" under 32 times "s". A change of the format
// or the derivation would lose what every service has stored.
const golden = "mse1.yKGaZT2sOR0.Tyl1H98v0cpuGidt5OOZMIM4M-rjcT6BWST5MYkeP9hVlUf2GstqZDM"

func TestSealedFormatIsStable(t *testing.T) {
	t.Parallel()
	for _, epoch := range []int64{1, 7} {
		got, err := app(t, "shop", epoch, "s").Open(place, golden)
		if err != nil || string(got) != "a private key" {
			t.Errorf("keys_epoch %d: got %q, %v", epoch, got, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	a := app(t, "shop", 1, "s")
	parts := strings.Split(golden, ".")
	mac := app(t, "shop", 1, "s").Newest(keys.Audit).ID
	tests := []struct {
		name   string
		app    *keys.App
		scope  string
		sealed string
		want   error
	}{
		{"another document", a, "signing_keys|k2|private", golden, keys.ErrSealed},
		{"another field", a, "signing_keys|k1|public", golden, keys.ErrSealed},
		{"another split of the scope", a, "\x00" + place, golden, keys.ErrSealed},
		{"no scope", a, "", golden, keys.ErrSealed},
		{"another app", app(t, "blog", 1, "s"), place, golden, keys.ErrUnknownSecret},
		{"another secret", app(t, "shop", 1, "r"), place, golden, keys.ErrUnknownSecret},
		{"a key of another purpose", a, place, parts[0] + "." + mac + "." + parts[2], keys.ErrUnknownSecret},
		{"empty", a, place, "", keys.ErrSealed},
		{"plain text", a, place, "a private key", keys.ErrSealed},
		{"another version", a, place, "mse2." + parts[1] + "." + parts[2], keys.ErrSealed},
		{"no ciphertext", a, place, parts[0] + "." + parts[1] + ".", keys.ErrSealed},
		{"a nonce alone", a, place, parts[0] + "." + parts[1] + "." + parts[2][:16], keys.ErrSealed},
		{"four parts", a, place, golden + ".x", keys.ErrSealed},
		{"padded", a, place, golden + "=", keys.ErrSealed},
		{"a line end inside", a, place, golden[:40] + "\n" + golden[40:], keys.ErrSealed},
		{"cut", a, place, golden[:len(golden)-2], keys.ErrSealed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := tt.app.Open(tt.scope, tt.sealed)
			if !errors.Is(err, tt.want) || got != nil {
				t.Errorf("got %q, %v, want %v", got, err, tt.want)
			}
		})
	}
}

// Every bit counts: nonce, ciphertext and tag.
func TestOpenRefusesEveryFlippedBit(t *testing.T) {
	t.Parallel()
	a := app(t, "shop", 1, "s")
	prefix, text := golden[:strings.LastIndex(golden, ".")+1], golden[strings.LastIndex(golden, ".")+1:]
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(raw) * 8 {
		flipped := bytes.Clone(raw)
		flipped[i/8] ^= 1 << (i % 8)
		if _, err := a.Open(place, prefix+base64.RawURLEncoding.EncodeToString(flipped)); !errors.Is(err, keys.ErrSealed) {
			t.Fatalf("bit %d: %v", i, err)
		}
	}
}

func TestSealUnderTwoSecrets(t *testing.T) {
	t.Parallel()
	old, both, later := app(t, "shop", 1, "o"), app(t, "shop", 1, "n", "o"), app(t, "shop", 1, "n")
	sealed := old.Seal(place, []byte("x"))
	if got, err := both.Open(place, sealed); err != nil || string(got) != "x" {
		t.Errorf("what the older secret sealed does not open beside a newer one: %q, %v", got, err)
	}
	if old.Outdated(sealed) || !both.Outdated(sealed) || both.Outdated(both.Seal(place, nil)) {
		t.Error("Outdated does not tell the newest secret from the older")
	}
	if _, err := later.Open(place, sealed); !errors.Is(err, keys.ErrUnknownSecret) {
		t.Errorf("a value of a secret that was given up: %v", err)
	}
	if _, err := later.Open(place, both.Seal(place, nil)); err != nil {
		t.Errorf("the newest secret does not seal: %v", err)
	}
}

// FuzzOpen opens texts of any kind. None but the one that was sealed opens, and
// that for its own place only.
func FuzzOpen(f *testing.F) {
	a := app(f, "shop", 1, "s")
	f.Add(place, golden)
	f.Add("", golden)
	f.Add(place, golden+"A")
	f.Add(place, "mse1..")
	f.Add("\x00", "mse1."+a.Newest(keys.Seal).ID+".AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Fuzz(func(t *testing.T, scope, sealed string) {
		got, err := a.Open(scope, sealed)
		if (err == nil) != (scope == place && sealed == golden) {
			t.Fatalf("Open(%q, %q) = %q, %v", scope, sealed, got, err)
		}
		if got, err := a.Open(scope, a.Seal(scope, []byte(sealed))); err != nil || string(got) != sealed {
			t.Fatalf("a sealed value does not open: %q, %v", got, err)
		}
	})
}
