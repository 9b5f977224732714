package policyfile_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	stock "github.com/casbin/casbin/v2"
	"github.com/casbin/casbin/v2/model"
	fileadapter "github.com/casbin/casbin/v2/persist/file-adapter"
	"go.uber.org/goleak"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/authz/casbin"
	"github.com/mandate-auth/mandate/authz/policyfile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const ada = "usr_00000000000000000000000ada"

func rule(subject, object, action string, effect authz.Effect) authz.Rule {
	return authz.Rule{Subject: subject, Permission: authz.Permission{Object: object, Action: action}, Effect: effect}
}

func example() *policyfile.Policy {
	return &policyfile.Policy{
		Rules: []authz.Rule{
			rule("editor", "documents", "write", authz.Allow), rule(ada, "Ä:ö <b> # ü", "r.sub.Nuke()", authz.Deny), rule("anonymous", "/users/{id}", "read", authz.Allow),
			rule("#odd", "'quoted'", `back\slash`, authz.Allow),
		},
		Assignments: []authz.Assignment{{Subject: ada, Role: "editor"}, {Subject: "editor", Role: "#odd"}},
	}
}

// What is written is read as it was, in both formats, and by stock Casbin.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	var text, object bytes.Buffer
	if err := policyfile.WriteCSV(&text, "shop", example()); err != nil {
		t.Fatal(err)
	}
	if err := policyfile.WriteJSON(&object, example()); err != nil {
		t.Fatal(err)
	}
	if got, err := policyfile.ReadCSV(bytes.NewReader(text.Bytes()), "shop"); err != nil || !reflect.DeepEqual(got, example()) {
		t.Errorf("CSV: %+v, %v", got, err)
	}
	if got, err := policyfile.ReadJSON(&object); err != nil || !reflect.DeepEqual(got, example()) {
		t.Errorf("JSON: %+v, %v", got, err)
	}
	file := filepath.Join(t.TempDir(), "policy.csv")
	if err := os.WriteFile(file, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := model.NewModelFromString(casbin.ModelRBACWithDeny.Text(casbin.MatchExact))
	if err != nil {
		t.Fatal(err)
	}
	e, err := stock.NewEnforcer(m, fileadapter.NewAdapter(file))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range example().Rules {
		if has, err := e.HasPolicy(r.Subject, "shop", r.Object, r.Action, string(r.Effect)); err != nil || !has {
			t.Errorf("stock Casbin does not find %+v (%v)", r, err)
		}
	}
	for _, a := range example().Assignments {
		if has, err := e.HasGroupingPolicy(a.Subject, a.Role, "shop"); err != nil || !has {
			t.Errorf("stock Casbin does not find %+v (%v)", a, err)
		}
	}
	var empty bytes.Buffer
	if err := policyfile.WriteJSON(&empty, &policyfile.Policy{}); err != nil || strings.Contains(empty.String(), "null") {
		t.Errorf("an empty policy is %s, %v", &empty, err)
	}
	bad := &policyfile.Policy{Rules: []authz.Rule{rule("a,b", "c", "d", authz.Allow)}}
	if err := policyfile.WriteCSV(&empty, "shop", bad); err == nil {
		t.Error("a rule was written that would be read as another one")
	}
}

// What Casbin's files have besides: comments, empty lines, rules without an effect,
// what comes twice.
func TestReadCSV(t *testing.T) {
	t.Parallel()
	const file = "\ufeff# a comment\r\n\r\np, editor, shop, documents, write\r\n  p,editor,shop,documents,write,allow  \n\t# another\ng, " + ada + ", editor, shop"
	got, err := policyfile.ReadCSV(strings.NewReader(file), "shop")
	want := &policyfile.Policy{Rules: []authz.Rule{rule("editor", "documents", "write", authz.Allow)}, Assignments: []authz.Assignment{{Subject: ada, Role: "editor"}}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	check := func(text string, got *policyfile.Policy, err error, want ...string) {
		t.Helper()
		var faults *policyfile.Error
		if got != nil || !errors.As(err, &faults) {
			t.Errorf("%.80q: %+v, %v", text, got, err)
			return
		}
		for i, w := range want {
			if i >= len(faults.Faults) || !strings.Contains(faults.Faults[i].String(), w) {
				t.Errorf("%.80q: %v; want a fault about %q", text, err, w)
			}
		}
	}
	for text, want := range map[string][]string{
		"p, a, shop, b, c\np, a, shop":                    {"line 2: has to be"},
		"p2, a, shop, b, c":                               {"line 1: has to be"},
		"g, a, b":                                         {"line 1: has to be"},
		"p, a, blog, b, c\ng, a, b, blog":                 {`line 1: is of the domain "blog"`, `line 2: is of the domain "blog"`},
		"p, a, shop, b, c, perhaps":                       {"line 1: effect"},
		"p, \"a, b\", shop, b, c":                         {"line 1: subject"},
		"p, a, shop, \"b\nc\", d":                         {"line 1", "line 2"},
		"p, , shop, b, c":                                 {"line 1: subject must not be empty"},
		"p, a , shop, b, c":                               {"line 1: subject must not begin or end"},
		"g, a, " + ada + ", shop":                         {"line 1: role"},
		"p, a, shop, b, c\xff":                            {"UTF-8"},
		strings.Repeat("x\n", 100):                        {"line 1", "line 2"},
		"p, a, shop, b, c, allow, more":                   {"line 1: has to be"},
		"p, a, shop, " + strings.Repeat("x", 257) + ", c": {"line 1: object has 257 bytes"},
	} {
		got, err := policyfile.ReadCSV(strings.NewReader(text), "shop")
		check(text, got, err, want...)
		var faults *policyfile.Error
		if errors.As(err, &faults) && len(faults.Faults) > policyfile.MaxFaults {
			t.Errorf("%d faults are reported", len(faults.Faults))
		}
	}
	for text, want := range map[string][]string{
		``:                        {"EOF"},
		`[]`:                      {"an object"},
		`{"rules":{}}`:            {"a list"},
		`{"rules":[1]}`:           {"an object"},
		`{"x":1}`:                 {`"x" is not known`},
		`{"Rules":[]}`:            {`"Rules" is not known`},
		`{"rules":[],"rules":[]}`: {"twice"},
		`{"rules":[]}{}`:          {"after the end"},
		`{"rules":[{"subject":"a","object":"b","action":1}]}`:                                         {"a text"},
		"{\"rules\":[\n{\"subject\":\"a\",\"object\":\"b\"},\n{\"subject\":\"\"}]}":                   {"line 2: action", "line 3: subject"},
		`{"rules":[{"subject":"a","object":"b","action":"c","effect":"x"}]}`:                          {"effect"},
		`{"assignments":[{"subject":"a","role":"a"}]}`:                                                {"itself"},
		`{"rules":[{"subject":"a","subject":"b","object":"b","action":"c"}]}`:                         {"twice"},
		"{\"rules\":[\n\n{\"subject\":\"a\",\"object\":\"b\",\"action\":\"c\",\"domain\":\"shop\"}]}": {`line 3: the member "domain"`},
		`{"rules":[`: {"EOF"},
	} {
		got, err := policyfile.ReadJSON(strings.NewReader(text))
		check(text, got, err, want...)
	}
	if _, err := policyfile.ReadJSON(errReader{}); err == nil || errors.As(err, new(*policyfile.Error)) {
		t.Errorf("a reader that fails: %v", err)
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("broken") }

// FuzzCSV: what is read can be written and is read alike.
func FuzzCSV(f *testing.F) {
	f.Add("p, editor, shop, documents, write, allow\ng, a, b, shop\n# x")
	f.Add("p,\"a\",shop,'b',c\n\"")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := policyfile.ReadCSV(strings.NewReader(text), "shop")
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := policyfile.WriteCSV(&b, "shop", p); err != nil {
			t.Fatalf("%q is read as %+v, which cannot be written: %v", text, p, err)
		}
		if again, err := policyfile.ReadCSV(&b, "shop"); err != nil || len(again.Rules) != len(p.Rules) || len(again.Assignments) != len(p.Assignments) {
			t.Fatalf("%+v is %+v when it is read again, %v", p, again, err)
		}
	})
}

// FuzzJSON is FuzzCSV for JSON.
func FuzzJSON(f *testing.F) {
	f.Add(`{"rules":[{"subject":"a","object":"b","action":"c"}],"assignments":[{"subject":"a","role":"b"}]}`)
	f.Add(`{"rules":[{"subject":"\ud800","object":"b","action":"c"}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		p, err := policyfile.ReadJSON(strings.NewReader(text))
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := policyfile.WriteJSON(&b, p); err != nil {
			t.Fatal(err)
		}
		if again, err := policyfile.ReadJSON(&b); err != nil || len(again.Rules) != len(p.Rules) || len(again.Assignments) != len(p.Assignments) {
			t.Fatalf("%+v is %+v when it is read again, %v", p, again, err)
		}
	})
}
