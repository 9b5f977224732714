package polar_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/authz/authztest"
	"github.com/mandate-auth/mandate/authz/oso/polar"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Oso itself ends a query after this time. A test has one that would take days.
var _ = os.Setenv("POLAR_TIMEOUT_MS", "2000")

const (
	ada = "usr_00000000000000000000000ada"
	ben = "usr_00000000000000000000000ben"
)

var catalog = []authz.Permission{
	{Object: "never", Action: "allowed"},
	{Object: "documents", Action: "write"},
	{Object: "documents", Action: "read"},
	{Object: "documents", Action: "read"},
	{Object: "a", Action: "z"},
}

func isRole(name string) bool { return !authz.IsID(name) && name != authz.SubjectAnonymous }

// translate writes rules as a policy. What the suite uses needs no escapes.
func translate(rules []authz.Rule) []byte {
	text := []byte(`
		allow(user: User, action, object: Object) if permit(user, action, object.Name) and not deny(user, action, object.Name);
		permit(_: User, _, _) if false;
		deny(_: User, _, _) if false;
	`)
	for _, r := range rules {
		rule, condition := "permit", `user.ID = "`+r.Subject+`"`
		if isRole(r.Subject) {
			condition = `"` + r.Subject + `" in user.Roles`
		}
		if r.Effect == authz.Deny {
			rule = "deny"
		}
		text = fmt.Appendf(text, "%s(user: User, \"%s\", \"%s\") if %s;\n", rule, r.Action, r.Object, condition)
	}
	return text
}

// loaded is a provider that is made anew when its rules are loaded.
type loaded struct{ authz.Provider }

// change returns the configuration of an app with the rules and roles.
func change(app string, c authz.Change) polar.Config {
	assigned, hierarchy := map[string][]string{}, map[string][]string{}
	for _, a := range c.Assign {
		if isRole(a.Subject) {
			hierarchy[a.Subject] = append(hierarchy[a.Subject], a.Role)
		} else {
			assigned[a.Subject] = append(assigned[a.Subject], a.Role)
		}
	}
	return polar.Config{
		App: app, Policy: translate(c.Add), Hierarchy: hierarchy, Catalog: catalog, Engines: 1,
		Roles: func(_ context.Context, subject string) ([]string, error) { return assigned[subject], nil },
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	apps := map[authz.Provider]string{}
	more := map[authz.Provider][]authz.Assignment{}
	start := func(t *testing.T, app string) authz.Provider {
		p := &loaded{create(t, change(app, authz.Change{}))}
		apps[p] = app
		return p
	}
	authztest.Run(t, authztest.Provider{
		New: start,
		Hierarchy: func(t *testing.T, app string) authz.Provider {
			p := start(t, app)
			more[p] = []authz.Assignment{{Subject: "admin", Role: "editor"}, {Subject: "editor", Role: "user"}, {Subject: "user", Role: "admin"}}
			return p
		},
		Break: func(t *testing.T) authz.Provider {
			return create(t, polar.Config{
				App: "shop", Policy: []byte("allow(_, _, _);"), Catalog: catalog,
				Roles: func(context.Context, string) ([]string, error) {
					return []string{"admin"}, errors.New("the store is away")
				},
			})
		},
		ReadOnly: true,
		Load: func(t *testing.T, p authz.Provider, c authz.Change) {
			c.Assign = append(slices.Clone(c.Assign), more[p]...)
			p.(*loaded).Provider = create(t, change(apps[p], c))
		},
	})
}

func create(t *testing.T, c polar.Config) *polar.Provider {
	t.Helper()
	p, err := polar.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return p
}

// shop returns a provider of the app "shop".
func shop(t *testing.T, policy string) *polar.Provider {
	t.Helper()
	return create(t, polar.Config{App: "shop", Policy: []byte(policy), Catalog: catalog, Engines: 1})
}

func ask(subject, object, action string) authz.Request {
	return authz.Request{App: "shop", Subject: subject, Permission: authz.Permission{Object: object, Action: action}}
}

func want(t *testing.T, p *polar.Provider, subject, object, action string, allowed bool) {
	t.Helper()
	d, err := p.Authorize(t.Context(), ask(subject, object, action))
	reason := map[bool]authz.Reason{true: authz.ReasonAllowed, false: authz.ReasonNoRule}[allowed]
	if err != nil || d != (authz.Decision{Allowed: allowed, Reason: reason}) {
		t.Errorf("%q %s %q: %+v, %v; want allowed %t", subject, action, object, d, err, allowed)
	}
}

// The policy of a file, with a resource block and roles of the service.
func TestLoad(t *testing.T) {
	t.Parallel()
	p, err := polar.Load("testdata/library.polar", polar.Config{
		App: "shop", Catalog: catalog, Hierarchy: map[string][]string{"editor": {"user"}},
		Roles: func(_ context.Context, subject string) ([]string, error) {
			return map[string][]string{ada: {"editor"}, ben: {"user", "barred"}}[subject], nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	want(t, p, ada, "documents", "write", true)
	want(t, p, ada, "documents", "read", true)
	want(t, p, ada, "vault", "read", false)
	want(t, p, ben, "documents", "read", false)
	want(t, p, authz.SubjectAnonymous, "news", "read", true)
	want(t, p, authz.SubjectAnonymous, "documents", "read", false)
	list, err := p.Permissions(t.Context(), ada)
	if err != nil || fmt.Sprint(list) != "[documents:read documents:write]" {
		t.Errorf("Permissions: %v, %v", list, err)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// What a policy sees of a request.
func TestValues(t *testing.T) {
	t.Parallel()
	p := shop(t, `
		allow(user: User, "app", object: Object) if object.App = "shop" and user.Roles = [];
		allow(user: User, "same", object: Object) if user.ID = object.Name;
		allow(_, "any", _);`)
	want(t, p, ada, "documents", "app", true)
	want(t, p, ada, ada, "same", true)
	want(t, p, ada, ben, "same", false)
	want(t, p, authz.SubjectAnonymous, "documents", "any", true)
	// "Anybody" is not nobody.
	want(t, p, "", "documents", "any", false)
	// All of these would be the same text in JSON.
	want(t, p, "\xff", "\xfe", "same", false)
	want(t, p, "\xff", "documents", "any", false)
	want(t, p, ada, "documents\xff", "any", false)
	want(t, p, ada, "\x00\"\\\n", "any", true)
}

// A policy that fails has not answered, whatever its other rules say.
func TestFailures(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ policy, says string }{
		"an attribute that is not there": {`allow(user: User, "read", _) if user.Age > 17;`, "no attribute 'Age' at line 1"},
		"an attribute under a not":       {`allow(user: User, "read", _) if not user.Banned;`, "attribute"},
		"one of the object":              {`allow(_, "read", object: Object) if not (object.Secret = true);`, "attribute"},
		"one of a pattern":               {`allow(user: User, "read", _) if not (user matches {Banned: true});`, "attribute"},
		"one beside another rule":        {`allow(_, "read", _) if not f(1); f(_) if false; allow(user: User, "read", _) if not user.Banned and 1 = 2;`, "attribute"},
		"a method under a not":           {`allow(user: User, "read", _) if not user.IsBanned();`, "attribute"},
		"a comparison under a not":       {`allow(_, "read", object: Object) if not object.Name > 1;`, "Not supported"},
		"a panic under a not":            {`allow(user: User, "read", _) if not user.Roles.Length = 0;`, "panic"},
		"what is not exported":           {`allow(user: User, "read", _) if not user.missed;`, "panic"},
		"a comparison":                   {`allow(_, "read", object: Object) if object.Name > 1;`, "Not supported"},
		"a method":                       {`allow(user: User, "read", _) if user.Grant();`, "no attribute 'Grant'"},
		"a panic":                        {`allow(user: User, "read", _) if user.Roles.Length = 0;`, "panic"},
		"a constructor":                  {`allow(_, "read", _) if new User();`, "constructor"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := shop(t, tt.policy+"\nallow(_, \"write\", _);")
			// More often than there are engines: they have to come back.
			for range 3 {
				d, err := p.Authorize(t.Context(), ask(ada, "documents", "read"))
				if d != (authz.Decision{}) || !errors.Is(err, polar.ErrEvaluation) || errors.Is(err, authz.ErrUnavailable) {
					t.Fatalf("%+v, %v; want polar.ErrEvaluation alone", d, err)
				}
				if !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "\n") {
					t.Errorf("%q; want one line with %q", err, tt.says)
				}
			}
			if list, err := p.Permissions(t.Context(), ada); len(list) != 0 || !errors.Is(err, polar.ErrEvaluation) {
				t.Errorf("Permissions: %v, %v", list, err)
			}
			want(t, p, ada, "documents", "write", true)
		})
	}
}

// A rule that calls itself without end leaves memory behind that nobody can free:
// it may do that three times.
func TestOverflow(t *testing.T) {
	t.Parallel()
	p := shop(t, `
		allow(_, "write", _);
		allow(_, "read", _) if f();
		f() if f()`+strings.Repeat(" and 1 = 1", 40)+";")
	for i := range 3 {
		want(t, p, ada, "documents", "write", true)
		d, err := p.Authorize(t.Context(), ask(ada, "documents", "read"))
		if d != (authz.Decision{}) || !errors.Is(err, polar.ErrEvaluation) || !strings.Contains(err.Error(), "Goal stack overflow") {
			t.Fatalf("overflow %d: %+v, %v", i, d, err)
		}
	}
	if d, err := p.Authorize(t.Context(), ask(ada, "documents", "write")); d.Allowed || !errors.Is(err, polar.ErrEvaluation) {
		t.Errorf("after three overflows: %+v, %v", d, err)
	}
}

// Faults keep a provider from being made.
func TestFaults(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ policy, says string }{
		"no rule":           {"", "Query for undefined rule `allow`"},
		"syntax":            {"allow(_, _, _) if\n\n nope nope;", "line 3"},
		"an unknown rule":   {"allow(_, _, _);\nf() if g();", "line 2"},
		"an unknown class":  {"allow(_, _, _);\nf(_: Document);", "policy:2: the class Document is unknown"},
		"in a pattern":      {"allow(user, _, _) if\n not user matches Member{ID: 1};", "policy:2: the class Member is unknown"},
		"in small letters":  {"allow(user, _, _) if not f({a: user});\nf({a: _}); f(_: user{ID: \"x\"});", "policy:2: the class user is unknown"},
		"fails at once":     {"allow(user: User, _, _) if user.Age = 1;", "no attribute 'Age'"},
		"an inline query":   {"allow(_, _, _);\n?= allow(1, 2, 3);", "policy:2: inline queries"},
		"debug":             {"# debug\nallow(_, \"#\\\"debug\", _) if\n debug();", "policy:3: debug"},
		"print":             {"allow(_, a, _) if\n\nprint (a);", "policy:3: print"},
		"bytes":             {"allow(_, _, _); # \xff", "no UTF-8"},
		"after an open end": {"allow(_, _, \"", "policy"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := polar.New(polar.Config{App: "shop", Policy: []byte(tt.policy)})
			if p != nil || err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v, %v; want %q", p, err, tt.says)
			}
		})
	}
	// Words of the console are no fault where they are a text or a part of a word.
	want(t, shop(t, `allow(_, "debug", _) if debugged("print ?="); debugged(_); # print("?=")`), ada, "x", "debug", true)
}

func TestConfig(t *testing.T) {
	t.Parallel()
	everything := []byte("allow(_, _, _);")
	for name, c := range map[string]polar.Config{
		"no app":        {Policy: everything},
		"a bad app":     {App: "a,b", Policy: everything},
		"a bad catalog": {App: "shop", Policy: everything, Catalog: []authz.Permission{{Object: "documents", Action: "a:b"}}},
	} {
		var value *authz.ValueError
		if p, err := polar.New(c); p != nil || !errors.As(err, &value) {
			t.Errorf("%s: %v, %v; want an *authz.ValueError", name, p, err)
		}
	}
	if p, err := polar.Load("testdata/library.polar", polar.Config{App: "shop", Policy: everything}); p != nil || err == nil {
		t.Error("two policies were taken")
	}
	if p, err := polar.Load("testdata/none.polar", polar.Config{App: "shop"}); p != nil || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	broken := filepath.Join(t.TempDir(), "broken.polar")
	if err := os.WriteFile(broken, []byte("allow(_, _, _);\nallow("), 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err := polar.Load(broken, polar.Config{App: "shop"}); p != nil || err == nil || !strings.Contains(err.Error(), broken) || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("a file with a fault: %v; want its name and line 2", err)
	}
}
