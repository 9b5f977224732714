package secret_test

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/tokens/secret"
)

const canary = "canary-8f2c1d-secret-bytes"

// No way of printing may show the bytes, nor their hexadecimal or decimal form.
func TestValueIsNeverPrinted(t *testing.T) {
	t.Parallel()
	v := secret.FromString(canary)
	holder := struct {
		Key secret.Value
		ptr *secret.Value
	}{Key: v, ptr: &v}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%b", "%T"} {
		fmt.Fprintf(&out, verb+"\n", v)
		fmt.Fprintf(&out, verb+"\n", holder)
		fmt.Fprintf(&out, verb+"\n", []secret.Value{v})
		fmt.Fprintf(&out, verb+"\n", map[string]secret.Value{"k": v})
	}
	for _, encode := range []func(any) ([]byte, error){json.Marshal, bson.Marshal} {
		raw, err := encode(holder)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(raw)
	}
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", slog.Any("v", v), slog.Any("holder", holder))
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", slog.Any("v", v), slog.Any("holder", holder))
	if err := gob.NewEncoder(&bytes.Buffer{}).Encode(v); err == nil {
		t.Error("gob encoded a secret")
	}
	for _, form := range []string{canary, fmt.Sprintf("%x", canary), fmt.Sprintf("%X", canary), fmt.Sprint([]byte(canary))} { //nolint:staticcheck // the decimal form is meant
		if strings.Contains(out.String(), form) {
			t.Errorf("the secret was printed as %q", form)
		}
	}
}

func TestValue(t *testing.T) {
	t.Parallel()
	source := []byte("abc")
	v := secret.New(source)
	source[0] = 'x'
	v.Reveal()[1] = 'x'
	if got := string(v.Reveal()); got != "abc" {
		t.Errorf("the value changed from outside: %q", got)
	}
	if !v.Equal(secret.FromString("abc")) || v.Equal(secret.FromString("abd")) || v.Equal(secret.Value{}) {
		t.Error("Equal does not compare the bytes")
	}
	if !(secret.Value{}).IsZero() || v.IsZero() || v.Len() != 3 {
		t.Error("length is wrong")
	}
	if secret.Random(32).Equal(secret.Random(32)) {
		t.Error("two random secrets are the same")
	}
}
