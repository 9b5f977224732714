package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Whoever changes openapi.yaml runs "go generate ./schemas".
func TestOpenAPIIsCurrent(t *testing.T) {
	t.Parallel()
	fresh := filepath.Join(t.TempDir(), "openapi.json")
	if err := generate("../../openapi.yaml", fresh); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(fresh)
	if err != nil {
		t.Fatal(err)
	}
	have, err := os.ReadFile("../../openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, have) {
		t.Error("schemas/openapi.json does not follow from openapi.yaml; run go generate ./schemas")
	}
}

func TestConvert(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ yaml, want string }{
		"order is kept":          {"b: 1\na: 2", `{"b":1,"a":2}`},
		"what is in quotes":      {`'200': "1"`, `{"200":"1"}`},
		"values":                 {"[1, 1.5, true, null, text, <&>]", `[1,1.5,true,null,"text","<&>"]`},
		"an alias":               {"a: &x [1]\nb: *x", `{"a":[1],"b":[1]}`},
		"several lines":          {"a: |\n  one\n  two\n", `{"a":"one\ntwo\n"}`},
		"nothing in a list":      {"[]", `[]`},
		"null that is spelt":     {"a: null", `{"a":null}`},
		"comma inside of quotes": {"{ a: 'b, c' }", `{"a":"b, c"}`},
	} {
		got, err := convert([]byte(tt.yaml))
		flat := strings.NewReplacer("\n", "", "  ", "", ": ", ":").Replace(string(got))
		if err != nil || flat != tt.want {
			t.Errorf("%s: got %s, %v; want %s", name, flat, err, tt.want)
		}
	}
}

func TestConvertRefuses(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ yaml, want string }{
		"a key twice":                 {"a: 1\na: 2", `"a" comes twice`},
		"a number as a key":           {"200: {}", "must be text"},
		"a list as a key":             {"? [a]\n: 1", "must be text"},
		"a comma outside of quotes":   {"{ description: one, two }", `"two" has no value`},
		"a date":                      {"a: 2026-01-01", "no form in JSON"},
		"infinity":                    {"a: .inf", "line 1"},
		"two documents":               {"a: 1\n---\nb: 2", "second document"},
		"no document":                 {"", "EOF"},
		"no YAML":                     {"a: [", "did not find"},
		"an anchor that holds itself": {"a: &x [*x]", "nested deeper"},
		"a tag of its own":            {"a: !x y", "no form in JSON"},
	} {
		if got, err := convert([]byte(tt.yaml)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %s, %v; want an error with %q", name, got, err, tt.want)
		}
	}
	if err := generate("no such file", "x"); err == nil {
		t.Error("a file that is not there was converted")
	}
}
