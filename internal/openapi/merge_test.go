package openapi_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/mandate-auth/mandate/internal/openapi"
)

const own = `{
  "openapi": "3.1.0",
  "x-unknown": { "b": 1.50,   "a": "<&>" },
  "info": {"title": "orders",  "version": "1"},
  "tags": [{"name": "Orders"}, {"name": "Account", "description": "ours"}],
  "paths": {
    "/orders": {"get": {"operationId": "listOrders", "security": [{"bearerAuth": []}], "responses": {"200": {"description": "…"}}}}
  },
  "components": {"schemas": {"Order":   {"type": "object"}}},
  "x-last": [1,2,   3]
}`

func part(routes ...string) []byte {
	c := everything(routes...)
	c.Server = "/"
	return openapi.Document(c)
}

// What a service's document has stays as it is, and what is merged is there.
func TestMerge(t *testing.T) {
	t.Parallel()
	out, err := openapi.Merge([]byte(own), part("GET /auth/me", "POST /auth/register"))
	if err != nil {
		t.Fatal(err)
	}
	for _, kept := range []string{
		`{ "b": 1.50,   "a": "<&>" }`, `{"title": "orders",  "version": "1"}`, `[1,2,   3]`, `{"type": "object"}`,
		`{"get": {"operationId": "listOrders", "security": [{"bearerAuth": []}], "responses": {"200": {"description": "…"}}}}`,
	} {
		if !strings.Contains(string(out), kept) {
			t.Errorf("%s is not kept as it was:\n%s", kept, out)
		}
	}
	if last := strings.Index(string(out), `"x-last"`); last < strings.Index(string(out), `"components"`) {
		t.Error("the order of the members has changed")
	}
	p := parse(t, out)
	if p.Info.Title != "orders" || names(p.Paths) != "/auth/me /auth/register /orders" || len(p.Servers) != 0 {
		t.Errorf("merged: %+v", p)
	}
	if p.Components.Schemas["Order"] == nil || p.Components.Schemas["MandateUser"] == nil || len(p.Components.SecuritySchemes) != 6 {
		t.Errorf("components: %s", out)
	}
	if len(p.Tags) != 3 || p.Tags[2].Name != "Sign-in" {
		t.Errorf("tags: %v", p.Tags)
	}
	again, err := openapi.Merge(out, part("GET /auth/me", "POST /auth/register"))
	if err != nil || len(parse(t, again).Paths) != 3 {
		t.Errorf("merging again: %v", err)
	}
}

// A document that nothing is added to keeps every value, and one without components
// and paths gets them.
func TestMergeSchemes(t *testing.T) {
	t.Parallel()
	schemes := openapi.Schemes(part("GET /auth/me"))
	for name, text := range map[string]string{
		"3.1": own, "3.0": strings.Replace(own, "3.1.0", "3.0.3", 1), "3.2": strings.Replace(own, "3.1.0", "3.2.0", 1),
		"bare": `{"openapi":"3.1.1"}`, "with empty components": `{"openapi":"3.1.1","components":{}}`,
	} {
		out, err := openapi.Merge([]byte(text), schemes)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if p := parse(t, out); names(p.Components.SecuritySchemes) != "apiKeyAuth basicAuth bearerAuth clientCredentials cookieAuth refreshCookie" {
			t.Errorf("%s: %s", name, out)
		}
	}
	out, err := openapi.Merge([]byte(own))
	if err != nil || !strings.Contains(string(out), `{"schemas": {"Order":   {"type": "object"}}}`) {
		t.Errorf("merging nothing: %v\n%s", err, out)
	}
	for name, want := range map[string]string{
		openapi.SchemeAPIKey: `"name":"X-API-Key"`, openapi.SchemeBasic: `"scheme":"basic"`,
		openapi.SchemeClient: `{"clientCredentials":{"tokenUrl":"https://id.example/token","scopes":{"a":"first","b":"second"}}}`,
	} {
		one := openapi.Scheme(name, "https://id.example/token", map[string]string{"b": "second", "a": "first"})
		if !strings.Contains(string(one), want) || names(parse(t, one).Components.SecuritySchemes) != name {
			t.Errorf("%s: %s", name, one)
		}
	}
}

// Paths of another server say so, or clients would look for them in the wrong place.
func TestMergeServers(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ servers, want string }{
		"none":          {``, ""},
		"the same":      {`"servers":[ { "url": "/" } ],`, ""},
		"another":       {`"servers":[{"url":"https://api.example/v1"}],`, "/"},
		"a longer list": {`"servers":[{"url":"/"},{"url":"/v2"}],`, "/"},
	} {
		out, err := openapi.Merge([]byte(`{`+tt.servers+`"openapi":"3.1.0"}`), part("GET /auth/me"))
		if err != nil {
			t.Fatal(err)
		}
		var p struct {
			Paths map[string]struct{ Servers []struct{ URL string } }
		}
		if err := json.Unmarshal(out, &p); err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, s := range p.Paths["/auth/me"].Servers {
			got += s.URL
		}
		if got != tt.want {
			t.Errorf("%s: the path has the servers %q, want %q", name, got, tt.want)
		}
	}
}

// What cannot be both is refused, and the error says what.
func TestMergeRefuses(t *testing.T) {
	t.Parallel()
	routes := part("GET /auth/me")
	for name, tt := range map[string]struct {
		own  string
		part []byte
		err  error
		want string
	}{
		"another scheme of the name": {`{"openapi":"3.1.0","components":{"securitySchemes":{"bearerAuth":{"type":"http","scheme":"digest"}}}}`, routes, openapi.ErrConflict, "components.securitySchemes.bearerAuth"},
		"another schema of the name": {`{"openapi":"3.1.0","components":{"schemas":{"MandatePrincipal":{}}}}`, routes, openapi.ErrConflict, "components.schemas.MandatePrincipal"},
		"another path of the name":   {`{"openapi":"3.1.0","paths":{"/auth/me":{}}}`, routes, openapi.ErrConflict, "paths./auth/me"},
		"an id of an operation":      {`{"openapi":"3.1.0","paths":{"/x":{"get":{"operationId":"getMe"}}}}`, routes, openapi.ErrConflict, "operationId getMe is that of GET /x and of GET /auth/me"},
		"Swagger":                    {`{"swagger":"2.0"}`, routes, openapi.ErrDocument, `openapi ""`},
		"version 4":                  {`{"openapi":"4.0.0"}`, routes, openapi.ErrDocument, `openapi "4.0.0"`},
		"a version that is a number": {`{"openapi":3.1}`, routes, openapi.ErrDocument, `openapi ""`},
		"routes into 3.0":            {`{"openapi":"3.0.3"}`, routes, openapi.ErrDocument, "3.1 or later"},
		"no JSON":                    {`openapi: 3.1.0`, routes, openapi.ErrDocument, "the service's own"},
		"a list":                     {`[]`, routes, openapi.ErrDocument, "not an object"},
		"half of it":                 {`{"openapi":"3.1.0"`, routes, openapi.ErrDocument, "the service's own"},
		"half a member":              {`{"openapi"`, routes, openapi.ErrDocument, "the service's own"},
		"something after it":         {`{"openapi":"3.1.0"}{}`, routes, openapi.ErrDocument, "after its end"},
		"a name twice":               {`{"openapi":"3.1.0","openapi":"3.1.0"}`, routes, openapi.ErrDocument, `"openapi" twice`},
		"paths that are a list":      {`{"openapi":"3.1.0","paths":[]}`, routes, openapi.ErrDocument, "paths"},
		"a path that is a list":      {`{"openapi":"3.1.0","paths":{"/x":[]}}`, routes, openapi.ErrDocument, "/x"},
		"components that are a list": {`{"openapi":"3.1.0","components":[]}`, routes, openapi.ErrDocument, "components"},
		"a section that is a list":   {`{"openapi":"3.1.0","components":{"schemas":[]}}`, routes, openapi.ErrDocument, "schemas"},
		"tags that are none":         {`{"openapi":"3.1.0","tags":{}}`, routes, openapi.ErrDocument, "tags"},
		"a part that is none":        {own, []byte(`null`), openapi.ErrDocument, "part 1"},
		"a part with a bad section":  {own, []byte(`{"components":{"schemas":1}}`), openapi.ErrDocument, "schemas"},
	} {
		out, err := openapi.Merge([]byte(tt.own), tt.part)
		if !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.want) || out != nil {
			t.Errorf("%s: got %v, want %v with %q", name, err, tt.err, tt.want)
		}
	}
}

// Whatever is merged is JSON again, and what was there is still there.
func FuzzMerge(f *testing.F) {
	f.Add([]byte(own))
	f.Add([]byte(`{"openapi":"3.1.0","paths":{"/x":{"get":{"operationId":"x"}}},"servers":[{"url":"/v1"}],"tags":[{}]}`))
	f.Add([]byte(`{"openapi":"3.0.1","components":{"securitySchemes":{"apiKeyAuth":{}}}}`))
	f.Add([]byte("{\"openapi\":\"3.1.0\",\"x\xff\":1}"))
	routes := part("GET /auth/me", "POST /auth/oauth2/token")
	f.Fuzz(func(t *testing.T, own []byte) {
		out, err := openapi.Merge(own, routes)
		if err != nil {
			if !errors.Is(err, openapi.ErrConflict) && !errors.Is(err, openapi.ErrDocument) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		var before, after map[string]json.RawMessage
		if json.Unmarshal(own, &before) != nil || json.Unmarshal(out, &after) != nil {
			t.Fatalf("%q became %q", own, out)
		}
		for name, value := range before {
			if name == "paths" || name == "components" || name == "tags" {
				continue
			}
			if string(after[name]) != string(value) {
				t.Fatalf("%q: %s became %s", name, value, after[name])
			}
		}
		if _, err := openapi.Merge(out, routes); err != nil {
			t.Fatalf("merging again: %v", err)
		}
	})
}
