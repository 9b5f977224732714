package oso_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/authz/authztest"
	"github.com/mandate-auth/mandate/authz/oso"
	"github.com/mandate-auth/mandate/tokens/secret"
)

const ada = "usr_00000000000000000000000ada"

func provider(t *testing.T, url, app string, edit ...func(*oso.Config)) *oso.Provider {
	t.Helper()
	config := oso.Config{
		App: app, URL: url, APIKey: secret.FromString(testKey), Roles: []string{"user", "editor", "admin", "reader", "writer"},
		Actions: []string{"read", "write"}, Timeout: 5 * time.Second,
	}
	for _, f := range edit {
		f(&config)
	}
	p, err := oso.New(config)
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

func within(d time.Duration) func(*oso.Config) { return func(c *oso.Config) { c.Timeout = d } }

func request(object, action string) authz.Request {
	return authz.Request{App: "shop", Subject: ada, Permission: authz.Permission{Object: object, Action: action}}
}

func rule(subject, object, action string) authz.Rule {
	return authz.Rule{Subject: subject, Permission: authz.Permission{Object: object, Action: action}}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	clouds := map[*testing.T]*cloud{}
	of := func(t *testing.T) *cloud {
		if clouds[t] == nil {
			clouds[t] = newCloud(t)
		}
		return clouds[t]
	}
	authztest.Run(t, authztest.Provider{
		New: func(t *testing.T, app string) authz.Provider { return provider(t, of(t).URL, app) },
		Hierarchy: func(t *testing.T, app string) authz.Provider {
			of(t).hierarchy = map[string][]string{"admin": {"editor"}, "editor": {"user"}, "user": {"admin"}}
			return provider(t, of(t).URL, app)
		},
		Break: func(t *testing.T) authz.Provider {
			c := newCloud(t)
			p := provider(t, c.URL, "shop", within(200*time.Millisecond))
			c.Close()
			return p
		},
		NoDeny: true, NoLists: true, MaxDepth: 1,
	})
}

// What the API is told and asked is what the package's documentation says.
func TestFacts(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	p := provider(t, c.URL, "shop")
	if err := p.Apply(t.Context(), authz.Change{
		Add: []authz.Rule{
			rule(ada, "documents", "read"), rule("editor", "documents", "write"), rule("anonymous", "documents", "read"), rule(ada, "Invoice:2026/7", "pay"),
			rule(ada, "User:x", "impersonate"),
		},
		Assign: []authz.Assignment{{Subject: ada, Role: "editor"}},
	}); err != nil {
		t.Fatal(err)
	}
	var facts []string
	for f := range c.facts {
		facts = append(facts, f)
	}
	slices.Sort(facts)
	want := []string{
		"has_permission|User:shop/anonymous|String:read|Object:shop/documents",
		"has_permission|User:" + ada + "|String:impersonate|Object:shop/User:x", // no actor of the environment's
		"has_permission|User:" + ada + "|String:pay|Invoice:2026/7",
		"has_permission|User:" + ada + "|String:read|Object:shop/documents",
		"has_role|User:" + ada + "|String:editor|App:shop",
		"role_can|App:shop|String:editor|String:write|Object:shop/documents",
	}
	if !slices.Equal(facts, want) {
		t.Errorf("the facts are\n%s\nwant\n%s", strings.Join(facts, "\n"), strings.Join(want, "\n"))
	}
	if d, err := p.Authorize(t.Context(), request("Invoice:2026/7", "pay")); err != nil || !d.Allowed {
		t.Errorf("the service's own resource: %+v, %v", d, err)
	}
	if err := p.Forget(t.Context(), ada); err != nil {
		t.Fatal(err)
	}
	for f := range c.facts {
		if strings.HasPrefix(f, "has_role|User:"+ada) || strings.HasSuffix(f, "Object:shop/documents") && strings.Contains(f, ada) {
			t.Errorf("%s is still there", f)
		}
	}
}

// Reads that come after a write carry what it was answered with.
func TestReadsSeeWrites(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	p := provider(t, c.URL, "shop")
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			if err := p.Apply(t.Context(), authz.Change{Add: []authz.Rule{rule(ada, fmt.Sprint("d", i), "read")}}); err != nil {
				t.Error(err)
			}
			if d, err := p.Authorize(t.Context(), request(fmt.Sprint("d", i), "read")); err != nil || !d.Allowed {
				t.Errorf("d%d: %+v, %v", i, d, err)
			}
		})
	}
	group.Wait()
	for i, path := range c.calls {
		if path == "/api/authorize" && !strings.HasPrefix(c.offsets[i], "o") {
			t.Errorf("call %d, a question after a write, had the offset %q", i, c.offsets[i])
		}
	}
}

// status answers with a status and a body, n times or for ever.
func status(code int, text string, times int32, headers ...string) func(http.ResponseWriter, *http.Request) bool {
	var left atomic.Int32
	left.Store(times)
	return func(w http.ResponseWriter, _ *http.Request) bool {
		if left.Add(-1) < 0 {
			return false
		}
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(code)
		fmt.Fprint(w, text)
		return true
	}
}

const forever = 1 << 30

// Whatever is wrong with an answer, nothing is allowed, nothing is repeated that
// repeating does not cure, and the key is in no error.
func TestAnswersThatAreNone(t *testing.T) {
	t.Parallel()
	big := `{"allowed":true,"x":"` + strings.Repeat("x", 5<<20) + `"}`
	for name, test := range map[string]struct {
		answer func(http.ResponseWriter, *http.Request) bool
		calls  int // 1 exactly, or 2 and more
	}{
		"refused key":            {status(401, `{"message":"bad key `+testKey+`x"}`, forever), 1},
		"forbidden":              {status(403, `{"message":"no"}`, forever), 1},
		"bad request":            {status(400, `{"message":"no"}`, forever), 1},
		"not found":              {status(404, `<html>`, forever), 1},
		"too many":               {status(429, `{"message":"slow down"}`, forever), 2},
		"broken":                 {status(500, `{"allowed":true}`, forever), 2},
		"unavailable":            {status(503, ``, forever), 2},
		"a redirect":             {status(307, `{"allowed":true}`, forever, "Location", "/api/authorize"), 1},
		"created":                {status(201, `{"allowed":true}`, forever), 1},
		"no content":             {status(204, ``, forever), 1},
		"nothing":                {status(200, ``, forever), 1},
		"no object":              {status(200, `true`, forever), 1},
		"no member":              {status(200, `{}`, forever), 1},
		"null":                   {status(200, `{"allowed":null}`, forever), 1},
		"a text":                 {status(200, `{"allowed":"true"}`, forever), 1},
		"a number":               {status(200, `{"allowed":1}`, forever), 1},
		"another case":           {status(200, `{"Allowed":true}`, forever), 1},
		"given twice":            {status(200, `{"allowed":false,"allowed":true}`, forever), 1},
		"something behind":       {status(200, `{"allowed":true}{"allowed":false}`, forever), 1},
		"no end":                 {status(200, `{"allowed":true`, forever), 1},
		"too large":              {status(200, big, forever), 1},
		"half a body":            {status(200, `{"allowed":true}`, forever, "Content-Length", "1000"), 2},
		"a page":                 {status(200, `<html>allowed</html>`, forever), 1},
		"hangs up":               {func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }, 2},
		"says when to come back": {status(503, ``, forever, "Retry-After", "3600"), 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCloud(t)
			c.facts["has_permission|User:"+ada+"|String:read|Object:shop/documents"] = true
			c.instead(test.answer)
			p := provider(t, c.URL, "shop", within(400*time.Millisecond))
			d, err := p.Authorize(t.Context(), request("documents", "read"))
			if d.Allowed || !errors.Is(err, authz.ErrUnavailable) {
				t.Errorf("%+v, %v; want authz.ErrUnavailable", d, err)
			}
			if err != nil && strings.Contains(err.Error(), testKey) {
				t.Errorf("the error holds the key: %v", err)
			}
			c.mu.Lock()
			calls := len(c.calls)
			c.mu.Unlock()
			if (test.calls == 1) != (calls == 1) {
				t.Errorf("%d calls were made", calls)
			}
			if roles, err := p.Roles(t.Context(), ada); len(roles) != 0 || err == nil {
				t.Errorf("roles: %q, %v", roles, err)
			}
			if has, err := p.HasRole(t.Context(), ada, "admin"); has || err == nil {
				t.Errorf("HasRole: %t, %v", has, err)
			}
		})
	}
}

// What fails for a moment is repeated, within the deadline.
func TestRepeats(t *testing.T) {
	t.Parallel()
	for _, answer := range []func(http.ResponseWriter, *http.Request) bool{
		status(500, ``, 2), status(429, `{"message":"slow down"}`, 1, "Retry-After", "0"), status(503, ``, 1),
	} {
		c := newCloud(t)
		c.instead(answer)
		p := provider(t, c.URL, "shop")
		if err := p.Apply(t.Context(), authz.Change{Add: []authz.Rule{rule(ada, "documents", "read")}}); err != nil {
			t.Errorf("a change: %v", err)
		}
		if d, err := p.Authorize(t.Context(), request("documents", "read")); err != nil || !d.Allowed {
			t.Errorf("a question: %+v, %v", d, err)
		}
	}
}

// A server that does not answer is waited for until the deadline, or until the
// caller has gone.
func TestASlowServer(t *testing.T) {
	t.Parallel()
	c := newCloud(t)
	c.instead(func(_ http.ResponseWriter, r *http.Request) bool {
		_, _ = io.Copy(io.Discard, r.Body) // a server sees that the client has gone once it has read this
		<-r.Context().Done()
		return true
	})
	p := provider(t, c.URL, "shop", within(100*time.Millisecond))
	if d, err := p.Authorize(t.Context(), request("documents", "read")); d.Allowed || !errors.Is(err, authz.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%+v, %v", d, err)
	}
	patient := provider(t, c.URL, "shop", within(time.Hour))
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if d, err := patient.Authorize(ctx, request("documents", "read")); d.Allowed || !errors.Is(err, context.Canceled) {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestConfigurationIsChecked(t *testing.T) {
	t.Parallel()
	good := oso.Config{App: "shop", APIKey: secret.FromString(testKey)}
	for name, edit := range map[string]func(*oso.Config){
		"no app":         func(c *oso.Config) { c.App = "" },
		"no key":         func(c *oso.Config) { c.APIKey = secret.Value{} },
		"a line break":   func(c *oso.Config) { c.APIKey = secret.FromString("key\n") },
		"plain HTTP":     func(c *oso.Config) { c.URL = "http://oso.example" },
		"a user":         func(c *oso.Config) { c.URL = "https://a:b@oso.example" },
		"a query":        func(c *oso.Config) { c.URL = "https://oso.example?x=y" },
		"no host":        func(c *oso.Config) { c.URL = "https://" },
		"another scheme": func(c *oso.Config) { c.URL = "file:///etc" },
		"a bad role":     func(c *oso.Config) { c.Roles = []string{"a,b"} },
	} {
		config := good
		edit(&config)
		if _, err := oso.New(config); err == nil {
			t.Errorf("%s: taken", name)
		} else if strings.Contains(err.Error(), testKey) {
			t.Errorf("%s: the error holds the key", name)
		}
	}
	p, err := oso.New(good)
	if err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprintf("%v %+v %#v", p, p, p); strings.Contains(text, testKey) {
		t.Error("printing the provider shows the key")
	}
}

// The policy has every role, and what it inherits.
func TestPolicy(t *testing.T) {
	t.Parallel()
	text := oso.Policy([]string{"user", "admin"}, map[string][]string{"admin": {"user"}})
	for _, want := range []string{`roles = ["user", "admin"];`, `permissions = ["role:user", "role:admin"];`, `"role:admin" if "admin";`, `"user" if "admin";`, "role_can(app, role, action, object)"} {
		if !strings.Contains(text, want) {
			t.Errorf("the policy lacks %s:\n%s", want, text)
		}
	}
}

// FuzzAnswer: whatever an answer is, only one that says so allows.
func FuzzAnswer(f *testing.F) {
	for _, text := range []string{`{"allowed":true}`, `{"allowed":false}`, `{"allowed":"true"}`, `{"results":["a"]}`, `{"allowed":true,"allowed":false}`, `[]`, ``} {
		f.Add([]byte(text))
	}
	var current atomic.Pointer[[]byte]
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(*current.Load()) }))
	f.Cleanup(server.Close)
	p, err := oso.New(oso.Config{App: "shop", URL: server.URL, APIKey: secret.FromString(testKey)})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = p.Close(context.Background()) })
	f.Fuzz(func(t *testing.T, raw []byte) {
		current.Store(&raw)
		d, err := p.Authorize(t.Context(), request("documents", "read"))
		if d.Allowed && (err != nil || strings.Count(string(raw), "true") == 0 || !strings.Contains(string(raw), "allowed")) {
			t.Fatalf("%q allows", raw)
		}
		if roles, err := p.Roles(t.Context(), ada); err != nil && roles != nil {
			t.Fatalf("%q: %q, %v", raw, roles, err)
		}
	})
}
