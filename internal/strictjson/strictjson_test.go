package strictjson_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/mandate-auth/mandate/internal/strictjson"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestCheck(t *testing.T) {
	t.Parallel()
	for _, good := range []string{
		`{}`, `[]`, `1`, `"x"`, `null`, ` {"a":1, "A":2} `, `{"a":{"a":1}}`, `[{"a":1},{"a":2}]`, `"\ud83e\udd8a"`, `"\\ud83e"`, `"\u0000"`,
	} {
		if err := strictjson.Check([]byte(good), 3); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for bad, want := range map[string]string{
		"":                      "not valid JSON",
		"{":                     "not valid JSON",
		`{"a":1,}`:              "not valid JSON",
		`{'a':1}`:               "not valid JSON at byte 1",
		`[1 2]`:                 "not valid JSON",
		`[1,]`:                  "not valid JSON",
		`{"a" 1}`:               "not valid JSON",
		`{"a",1}`:               "not valid JSON",
		`[}`:                    "not valid JSON",
		`01`:                    "after its end",
		`{"a":1} {}`:            "after its end",
		`{"a":1}x`:              "after its end",
		`{"a":1,"a":2}`:         `"a" twice`,
		`{"a":1,"\u0061":2}`:    `"a" twice`,
		`[{"b":{"a":1,"a":1}}]`: `"a" twice`,
		`[[[[1]]]]`:             "too deep",
		"\"\xff\"":              "UTF-8",
		`"\ud83e"`:              "surrogate",
		`"\udd8a\ud83e"`:        "surrogate",
		`"\ud83e\\udd8a"`:       "surrogate",
		"\ufeff{}":              "not valid JSON",
	} {
		if err := strictjson.Check([]byte(bad), 3); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", bad, err, want)
		}
	}
}

// What is read here may hold secrets: an error must not repeat values.
func TestErrorsRepeatNoValues(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{`{"password":"hunter2",}`, `{"password":hunter2}`, `"hunter2" "hunter2"`, `{"password":"hunter2\ud800"}`} {
		if err := strictjson.Check([]byte(raw), 3); err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "'h'") {
			t.Errorf("%s: %v", raw, err)
		}
	}
}

func TestObject(t *testing.T) {
	t.Parallel()
	got, err := strictjson.Object([]byte(`{"a":{"b":[1]},"c":null}`), 3)
	if err != nil || len(got) != 2 || string(got["a"]) != `{"b":[1]}` || string(got["c"]) != "null" {
		t.Errorf("got %s, %v", got, err)
	}
	for _, bad := range []string{`[]`, `null`, `1`, `{"a":1,"a":1}`} {
		if got, err := strictjson.Object([]byte(bad), 3); err == nil {
			t.Errorf("%s: got %v", bad, got)
		}
	}
}

// Values are what was written, for halves of surrogate pairs as the decoder has them.
func TestValue(t *testing.T) {
	t.Parallel()
	const raw = `{"a":[1,12345678901234567890,"\ud800",null,true,{}],"b":""}`
	long := map[bool]any{true: json.Number("12345678901234567890"), false: 12345678901234567890.0}
	one := map[bool]any{true: json.Number("1"), false: 1.0}
	for _, exact := range []bool{true, false} {
		want := map[string]any{"a": []any{one[exact], long[exact], "\ufffd", nil, true, map[string]any{}}, "b": ""}
		if got, err := strictjson.Value([]byte(raw), 3, exact); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("exact %t: got %#v, %v", exact, got, err)
		}
	}
	if _, err := strictjson.Value([]byte(raw), 2, true); err == nil {
		t.Error("deeper than it may be")
	}
	if got, err := strictjson.Value([]byte(`1e999`), 1, false); err == nil {
		t.Errorf("a number beyond float64 is %v", got)
	}
}

func TestExact(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]bool{
		`{"a":[1,-9007199254740992,0.1,1e300,"9007199254740993",100000000000000000]}`: true,
		`9007199254740993`: false, `[[-9007199254740993]]`: false, `{"a":12345678901234567891}`: false, `-0`: true,
		"1" + strings.Repeat("0", 22): true, "1" + strings.Repeat("0", 23): false, strings.Repeat("9", 400): false, "1" + strings.Repeat("0", 60_000): false,
	} {
		if got := strictjson.Exact([]byte(raw)); got != want {
			t.Errorf("%.40s: %t", raw, got)
		}
	}
}

func FuzzCheck(f *testing.F) {
	for _, s := range []string{`{"a":1,"b":[{"c":"\ud83e\udd8a"}]}`, `{"a":1,"a":2}`, `"\ud83e"`, `[[[[[1]]]]]`, `1 2`, `"\\u`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		err := strictjson.Check([]byte(raw), 4)
		if err == nil && !json.Valid([]byte(raw)) {
			t.Errorf("%q is taken and is not JSON", raw)
		}
		if err != nil {
			return
		}
		// What was taken means the same after it was written again.
		var v any
		if err := json.Unmarshal([]byte(raw), &v); err != nil {
			return // a number beyond float64
		}
		out, err := json.Marshal(v)
		if err != nil || strictjson.Check(out, 4) != nil {
			t.Errorf("%q became %q, %v", raw, out, err)
		}
		if strings.Contains(string(out), "\ufffd") && !strings.Contains(raw, "\ufffd") && !strings.Contains(strings.ToLower(raw), `\ufffd`) {
			t.Errorf("%q: half a surrogate pair went through", raw)
		}
	})
}
