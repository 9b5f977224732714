package strictjwt_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/internal/strictjwt"
)

// A token has one spelling: whatever else decodes to the same bytes would be a second
// token to caches and lists, and the same one to the verifier.
func TestSplit(t *testing.T) {
	t.Parallel()
	const good = "eyJhIjoxfQ.e30.AA"
	s, err := strictjwt.Split(good, len(good))
	if err != nil || string(s.Header) != `{"a":1}` || string(s.Payload) != "{}" || string(s.Signature) != "\x00" || s.Signed != "eyJhIjoxfQ.e30" {
		t.Fatalf("%+v, %v", s, err)
	}
	for name, token := range map[string]string{
		"too long":          good + "A",
		"two segments":      "eyJhIjoxfQ.e30",
		"four segments":     "e30.e30.AA.AA",
		"no signature":      "eyJhIjoxfQ.e30.",
		"no header":         ".e30.AA",
		"no payload":        "e30..AA",
		"stray bits":        "eyJhIjoxfQ.e30.AB",
		"padding":           "eyJhIjoxfQ.e30.A=",
		"line break":        "e30.e30.A\nA",
		"carriage return":   "e30.e30.A\rA",
		"the other letters": "e30.e30.+/",
		"empty":             "",
	} {
		if s, err := strictjwt.Split(token, len(good)); err == nil || s.Signed != "" && s.Signature != nil {
			t.Errorf("%s: got %+v, %v", name, s, err)
		}
	}
}

// What two parsers could read differently is refused: then none of them is asked.
func TestObject(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"a name twice":         `{"sub":"a","sub":"b"}`,
		"a name twice, deeper": `{"a":[{"b":1,"b":1}]}`,
		"the same name":        `{"sub":"a","s\u0075b":"b"}`,
		"two values":           `{}{}`,
		"a list":               `[]`,
		"null":                 `null`,
		"no UTF-8":             "{\"a\":\"\xff\"}",
		"a comment":            `{}//`,
		"too deep":             strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40),
		"nothing":              "",
	} {
		if members, err := strictjwt.Object([]byte(text)); err == nil || members != nil {
			t.Errorf("%s: got %v", name, members)
		}
		if _, err := strictjwt.Value([]byte(text)); err == nil && name != "a list" && name != "null" {
			t.Errorf("%s: Value takes it", name)
		}
	}
	members, err := strictjwt.Object([]byte(`{"sub":"a","SUB":"b","n":9007199254740993}`))
	if err != nil || members["sub"] != any("a") || members["SUB"] != any("b") {
		t.Errorf("names are not exact: %v, %v", members, err)
	}
	value, err := strictjwt.Value([]byte(`[9007199254740993]`))
	if list, _ := value.([]any); err != nil || len(list) != 1 || list[0] != any(json.Number("9007199254740993")) {
		t.Errorf("a long number became another: %v, %v", value, err)
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	for name, value := range map[string]any{
		"empty": "", "number": 1.0, "null": nil, "list": []any{"a"}, "too long": strings.Repeat("a", strictjwt.MaxText+1),
		"zero": "a\x00", "line": "a\n", "C1": "a\u0085", "half a pair": "\ufffd",
	} {
		if s, err := strictjwt.Text(map[string]any{"sub": value}, "sub"); err == nil || s != "" {
			t.Errorf("%s: got %q", name, s)
		}
	}
	if s, err := strictjwt.Text(map[string]any{"sub": "Zoë|1"}, "sub"); err != nil || s != "Zoë|1" {
		t.Errorf("got %q, %v", s, err)
	}
}

// A member that brings a key, says where to get one or changes what is verified must
// not pass, nor one that nobody knows.
func TestHeaderOf(t *testing.T) {
	t.Parallel()
	h, err := strictjwt.HeaderOf(map[string]any{"alg": "EdDSA", "kid": "k", "typ": "JWT", "x5t": "a", "x5t#S256": "b"})
	if err != nil || h != (strictjwt.Header{Algorithm: "EdDSA", KeyID: "k", Type: "JWT"}) {
		t.Errorf("%+v, %v", h, err)
	}
	for _, name := range []string{"jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "cty", "enc", "epk", "Alg", "nonce"} {
		if h, err := strictjwt.HeaderOf(map[string]any{"alg": "EdDSA", name: "x"}); err == nil || h.Algorithm != "" {
			t.Errorf("%s: got %+v", name, h)
		}
	}
	if h, err := strictjwt.HeaderOf(map[string]any{"alg": "EdDSA", "kid": 1.0}); err == nil {
		t.Errorf("a number as id: got %+v", h)
	}
}

func TestNumericDate(t *testing.T) {
	t.Parallel()
	for _, value := range []any{1.9, json.Number("1"), json.Number("1.5")} {
		if at, err := strictjwt.NumericDate(value); err != nil || !at.Equal(time.Unix(1, 0)) {
			t.Errorf("%v: got %v, %v", value, at, err)
		}
	}
	for _, value := range []any{nil, "1", 0.0, -1.0, 1e12, true, json.Number("1e999"), json.Number("x"), []any{1.0}} {
		if at, err := strictjwt.NumericDate(value); err == nil || !at.IsZero() {
			t.Errorf("%v: got %v", value, at)
		}
	}
}

const point = `"kty":"EC","crv":"P-256","x":"axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY","y":"T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"`

// A key verifies only what it is for, and two that could be meant verify nothing.
func TestParseKeysAndFind(t *testing.T) {
	t.Parallel()
	set := `{"keys":[{` + point + `,"kid":"a","issuer":"https://id.example"},{` + point + `,"kid":"b","alg":"ES256"},{` + point + `,"kid":"b"},
		{` + point + `,"kid":"c","alg":"ES384"},{` + point + `,"kid":"d","use":"enc"},{` + point + `,"kid":"e","d":"AA"},
		{` + point + `,"kid":"f","issuer":7},{"kty":"oct","k":"AAAA"},null]}`
	keys, ignored, err := strictjwt.ParseKeys([]byte(set), []string{"RS256", "ES256"})
	if err != nil || len(keys) != 3 || ignored != 6 {
		t.Fatalf("%d keys, %d ignored, %v", len(keys), ignored, err)
	}
	if k, ok := strictjwt.Find(keys, "a", "ES256"); !ok || k == nil || k.Issuer != "https://id.example" || !strictjwt.Fits(k.Public, "ES256") {
		t.Errorf("a: %v, %v", k, ok)
	}
	if k, ok := strictjwt.Find(keys, "a", "RS256"); !ok || k != nil {
		t.Errorf("a key serves another algorithm: %v", k)
	}
	for _, id := range []string{"b", ""} {
		if k, ok := strictjwt.Find(keys, id, "ES256"); ok || k != nil {
			t.Errorf("%q: one of several: %v", id, k)
		}
	}
	if keys, _, err := strictjwt.ParseKeys([]byte(set), []string{"EdDSA"}); err != nil || len(keys) != 0 {
		t.Errorf("keys without an algorithm: %v, %v", keys, err)
	}
	for _, algorithm := range []string{"none", "HS256", "PS256", "", "es256"} {
		if strictjwt.Known(algorithm) {
			t.Errorf("%q is known", algorithm)
		}
	}
	for _, text := range []string{`{}`, `[]`, `{"keys":{}}`, `{"keys":[],"keys":[]}`, `{"keys":[` + strings.Repeat("null,", 128) + `null]}`} {
		if keys, ignored, err := strictjwt.ParseKeys([]byte(text), []string{"EdDSA"}); err == nil {
			t.Errorf("%.20s: %v, %d", text, keys, ignored)
		}
	}
}
