package tokens

import (
	"encoding/json"
	"testing"
)

// FuzzMembers compares with encoding/json: the same names, and values that mean
// the same.
func FuzzMembers(f *testing.F) {
	for _, s := range []string{
		`{}`, ` { "a" : 1 , "b":[1,{"c":"}"}] , "d":"\"\\" } `, `{"\u0061":"x"}`, `[1]`, `{"a":1}{}`, `{"a":{"b":{"c":[]}},"e":-1.5e3}`, `null`, `{"a":tru}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var want map[string]json.RawMessage
		valid := json.Unmarshal(raw, &want) == nil && want != nil
		list, err := members(raw)
		if (err == nil) != valid {
			t.Fatalf("members(%q): %v, encoding/json says %t", raw, err, valid)
		}
		if err != nil {
			return
		}
		got := map[string][]byte{}
		for name, value := range list {
			got[name] = value
		}
		for name, value := range got {
			var a, b any
			if json.Unmarshal(value, &a) != nil {
				t.Errorf("members(%q): %q = %q is not JSON", raw, name, value)
			}
			w, ok := want[name]
			if !ok {
				continue // encoding/json replaces invalid UTF-8 in names
			}
			_ = json.Unmarshal(w, &b)
			x, _ := json.Marshal(a)
			y, _ := json.Marshal(b)
			if string(x) != string(y) {
				t.Errorf("members(%q): %q is %s, want %s", raw, name, x, y)
			}
		}
		if len(got) < len(want) {
			t.Errorf("members(%q): %d names, want %d", raw, len(got), len(want))
		}
	})
}
