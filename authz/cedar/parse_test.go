package cedar_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/authz/cedar"
)

// Whatever could be read as less than was written is a fault, with its line.
func TestFaults(t *testing.T) {
	t.Parallel()
	const uid = `"uid": {"type": "User", "id": "a"}`
	for name, tt := range map[string]struct{ policies, entities, says string }{
		"no end":                 {policies: "permit (principal, action, resource)\n", says: "policies:2:1"},
		"another word":           {policies: "\n\npermit (prin, action, resource);", says: "policies:3:13"},
		"an open text":           {policies: "\n\"abc", says: "policies:2:1"},
		"an open comment":        {policies: "\npermit (principal, /*", says: "policies:2"},
		"an unknown function":    {policies: "permit (principal, action, resource)\nwhen { foo(1) };", says: "policies:2:"},
		"a number":               {policies: "permit (principal, action, resource)\nwhen { 1 == 99999999999999999999 };", says: "policies:2: the number"},
		"a zero byte":            {policies: "// x\n\x00", says: "policies:2: a byte 0x0"},
		"bytes that are no text": {policies: "// \n\n\xff", says: "policies:3: a byte 0xff"},
		"a role that is meant":   {policies: "\n\nforbid (principal == Role::\"barred\", action, resource);", says: "policies:3: this policy can never apply"},
		"a type of principal":    {policies: "forbid (principal is Users, action, resource);", says: "policies:1: this policy can never apply"},
		"a type in a role":       {policies: "forbid (principal is Role in Role::\"x\", action, resource);", says: "policies:1: this policy can never apply"},
		"a type of action":       {policies: "forbid (principal, action == Act::\"read\", resource);", says: "policies:1: this policy can never apply"},
		"a type of resource":     {policies: "forbid (principal, action, resource == Doc::\"x\");", says: "policies:1: this policy can never apply"},
		"no array":               {entities: `{` + uid + `}`, says: "entities:1"},
		"no JSON":                {entities: "[\n{" + uid + "}\n,]", says: "entities:3"},
		"more than an array":     {entities: "[]\n[]", says: "entities:2"},
		"no entity":              {entities: "[\n null]", says: "entities:2: an entity has to be an object"},
		"no uid":                 {entities: "[{" + uid + "},\n{}]", says: "entities:2: the entity has no uid"},
		"half a uid":             {entities: "[\n{\"uid\": {\"type\": \"User\"}}]", says: "entities:2: uid"},
		"an unknown member":      {entities: "[\n{" + uid + ", \"parent\": []}]", says: `entities:2: the member "parent" is unknown`},
		"a member in capitals":   {entities: "[{" + uid + ", \"Parents\": []}]", says: `entities:1: the member "Parents" is unknown`},
		"a member twice":         {entities: "[{" + uid + ", \"parents\": [],\"parents\": []}]", says: `entities:1: the member "parents" is there twice`},
		"an entity twice":        {entities: "[{" + uid + "},\n{" + uid + "}]", says: `entities:2: the entity User::"a" is there twice`},
		"a parent":               {entities: "[\n\n{" + uid + ", \"parents\": [\"user\"]}]", says: "entities:3: parents"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := cedar.New(cedar.Config{App: "shop", Policies: []byte(tt.policies), Entities: []byte(tt.entities)})
			if p != nil || err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v, %v; want %q", p, err, tt.says)
			}
		})
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]cedar.Config{
		"no app":        {},
		"a bad app":     {App: "a,b"},
		"a bad catalog": {App: "shop", Catalog: []authz.Permission{{Object: "documents", Action: "a:b"}}},
	} {
		var value *authz.ValueError
		if p, err := cedar.New(c); p != nil || !errors.As(err, &value) {
			t.Errorf("%s: %v, %v; want an *authz.ValueError", name, p, err)
		}
	}
	if p := shop(t, "", ""); !errors.Is(p.Reload(), authz.ErrUnsupported) {
		t.Error("a provider without files was loaded again")
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	p, err := cedar.Load("shop", catalog, "testdata/library.cedar", "testdata/library.json")
	if err != nil {
		t.Fatal(err)
	}
	want(t, p, ada, "documents", "write", authz.ReasonAllowed)
	want(t, p, ada, "documents", "read", authz.ReasonAllowed)
	want(t, p, ben, "documents", "read", authz.ReasonNoRule)
	want(t, p, authz.SubjectAnonymous, "news", "read", authz.ReasonAllowed)

	dir := t.TempDir()
	other, broken := filepath.Join(dir, "policies.txt"), filepath.Join(dir, "broken.cedar")
	write(t, other, "")
	write(t, broken, "permit (principal, action, resource);\n\npermit (")
	for name, tt := range map[string]struct {
		files []string
		says  string
	}{
		"none":              {nil, "a file of policies is required"},
		"entities only":     {[]string{"testdata/library.json"}, "a file of policies is required"},
		"another ending":    {[]string{"testdata/library.cedar", other}, "has to end in .cedar or .json"},
		"one that is not":   {[]string{filepath.Join(dir, "none.cedar")}, "no such file"},
		"one with a fault":  {[]string{"testdata/library.cedar", broken}, broken + ":3:"},
		"one twice":         {[]string{"testdata/library.cedar", "testdata/library.cedar"}, "the file is named twice"},
		"the same entities": {[]string{"testdata/library.cedar", "testdata/library.json", "testdata/library.json"}, "is there twice"},
	} {
		if p, err := cedar.Load("shop", nil, tt.files...); p != nil || err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, %v; want %q", name, p, err, tt.says)
		}
	}
}

// A reload takes everything or nothing.
func TestReload(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	policies, entities := filepath.Join(dir, "p.cedar"), filepath.Join(dir, "e.json")
	const (
		permit = `permit (principal in Role::"a", action, resource);`
		member = `[{"uid": {"type": "User", "id": "` + ada + `"}, "parents": [{"type": "Role", "id": "a"}]}]`
	)
	write(t, policies, permit)
	write(t, entities, member)
	p, err := cedar.Load("shop", nil, policies, entities)
	if err != nil {
		t.Fatal(err)
	}
	want(t, p, ada, "documents", "read", authz.ReasonAllowed)

	// The policies are good and would allow ben; the entities are not.
	write(t, policies, permit+`permit (principal, action, resource);`)
	write(t, entities, member[:len(member)-1])
	if err := p.Reload(); err == nil || !strings.Contains(err.Error(), entities+":1") {
		t.Errorf("entities with a fault: %v", err)
	}
	want(t, p, ada, "documents", "read", authz.ReasonAllowed)
	want(t, p, ben, "documents", "read", authz.ReasonNoRule)

	if err := os.Remove(entities); err != nil {
		t.Fatal(err)
	}
	if err := p.Reload(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is gone: %v", err)
	}
	want(t, p, ada, "documents", "read", authz.ReasonAllowed)

	write(t, entities, "[]")
	if err := p.Reload(); err != nil {
		t.Fatal(err)
	}
	want(t, p, ben, "documents", "read", authz.ReasonAllowed)
	if has, err := p.HasRole(t.Context(), ada, "a"); has || err != nil {
		t.Errorf("a role that was taken away is there: %v", err)
	}
}

// Decisions are made while policies are replaced: each by the old or the new ones.
func TestReplaceWhileDeciding(t *testing.T) {
	t.Parallel()
	const (
		read  = `permit (principal, action == Action::"read", resource); forbid (principal, action == Action::"write", resource);`
		write = `permit (principal, action == Action::"write", resource); forbid (principal, action == Action::"read", resource);`
	)
	p := shop(t, read, "")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				list, err := p.Permissions(t.Context(), ada)
				if err != nil || len(list) == 0 || list[0].Object != "documents" || len(list) != 1 {
					t.Errorf("half of two policies: %v, %v", list, err)
				}
			}
		})
	}
	wg.Go(func() {
		for i := range 100 {
			if err := p.Replace([]byte([]string{write, read}[i%2]), nil); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
}
