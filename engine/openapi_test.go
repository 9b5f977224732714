package engine_test

import (
	"bytes"
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/schemas"
)

// openAPISchema is the schema of OpenAPI 3.1, with schemas inside held against JSON
// Schema 2020-12, its dialect.
func openAPISchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	raw, err := os.ReadFile("testdata/openapi/schema.json")
	if err != nil {
		t.Fatal(err)
	}
	const base = "https://mandate.test/openapi-with-schemas"
	c := jsonschema.NewCompiler()
	for id, doc := range map[string]any{
		"https://spec.openapis.org/oas/3.1/schema/2025-11-23": decoded(t, raw),
		base: decoded(t, []byte(`{"$id":"`+base+`","$schema":"https://json-schema.org/draft/2020-12/schema",
			"$ref":"https://spec.openapis.org/oas/3.1/schema/2025-11-23",
			"$defs":{"schema":{"$dynamicAnchor":"meta","$ref":"https://json-schema.org/draft/2020-12/schema"}}}`)),
	} {
		if err := c.AddResource(id, doc); err != nil {
			t.Fatal(err)
		}
	}
	s, err := c.Compile(base)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A document that is not OpenAPI 3.1 is of no use to any tool.
func TestDocumentIsValid(t *testing.T) {
	t.Parallel()
	schema := openAPISchema(t)
	whole, least := wholeWorld(t, wholeAuth), setup(t, `"users":{"enabled":false},"audit":{"enabled":false},"metrics":{"enabled":false}`)
	merged, err := engine.MergeOpenAPI([]byte(`{"openapi":"3.1.0","info":{"title":"orders","version":"1"},"servers":[{"url":"/api"}]}`), whole.app.OpenAPI())
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string][]byte{
		"schemas/openapi.json": schemas.OpenAPI, "an app with every route": whole.app.OpenAPI(), "an app with one": least.app.OpenAPI(), "merged": merged,
	} {
		if err := schema.Validate(decoded(t, raw)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, raw := range map[string]string{
		"no info":               `{"openapi":"3.1.0","paths":{}}`,
		"no description":        `{"openapi":"3.1.0","info":{"title":"a","version":"1"},"paths":{"/a":{"get":{"responses":{"200":{}}}}}}`,
		"a schema that is none": `{"openapi":"3.1.0","info":{"title":"a","version":"1"},"components":{"schemas":{"A":{"type":"text"}}}}`,
	} {
		if schema.Validate(decoded(t, []byte(raw))) == nil {
			t.Errorf("%s: passes, so the schema checks nothing", name)
		}
	}
}

// Every route is described and everything that is described is a route.
func TestDocumentHasEveryRoute(t *testing.T) {
	t.Parallel()
	c := wholeWorld(t, wholeAuth)
	want := append(c.app.Routes(), "GET /.well-known/jwks.json", "GET /.well-known/oauth-authorization-server")
	var have []string
	c.operations(func(route string, _ []string, _ map[string]any) { have = append(have, route) })
	slices.Sort(want)
	slices.Sort(have)
	if !slices.Equal(want, have) {
		t.Errorf("served: %v\ndescribed: %v", want, have)
	}
	if template := objectAt(decoded(t, schemas.OpenAPI), "paths"); len(template) != len(objectAt(c.document, "paths")) {
		t.Errorf("openapi.yaml has %d paths, and an app with everything %d", len(template), len(objectAt(c.document, "paths")))
	}
	served := c.do("GET", "/auth/openapi.json", nil)
	if served.raw != string(c.app.OpenAPI()) || served.header.Get("Cache-Control") != "public, max-age=300" {
		t.Errorf("GET /openapi.json: %v %.100s", served.header, served.raw)
	}
}

// The document says what an app's own manifest says.
func TestDocumentFollowsTheManifest(t *testing.T) {
	t.Parallel()
	mailed := []string{publicShop, `"environment":"development"`}
	type want struct{ title, server, cookie, tokenURL, schemes, without string }
	for name, tt := range map[string]struct {
		auth string
		rest []string
		want want
	}{
		"plain": {"", nil, want{
			title: "shop", server: "/", cookie: "__Host-shop_access", schemes: "bearerAuth cookieAuth refreshCookie",
			without: "/.well-known/jwks.json /.well-known/oauth-authorization-server /auth/oauth2/token /auth/api-keys /auth/anonymous " +
				"/auth/email/verify /auth/password/forgot /auth/magic-link /auth/code/consume /auth/invitations /auth/oauth/providers /auth/identities",
		}},
		"mail, and nobody registers": {`"mail":{"from":"shop@shop.example"},"users":{"allow_registration":false}`, mailed, want{
			title: "shop", server: "https://shop.example", cookie: "__Host-shop_access", schemes: "bearerAuth cookieAuth refreshCookie",
			without: "/auth/magic-link /auth/magic-link/consume /auth/code /auth/code/consume /auth/invitations /auth/invitations/{id} /auth/oauth/providers",
		}},
		"mailed links": {`"mail":{"from":"shop@shop.example","magic_link":true}`, mailed, want{
			title: "shop", server: "https://shop.example", cookie: "__Host-shop_access", schemes: "bearerAuth cookieAuth refreshCookie", without: "/auth/code /auth/code/consume",
		}},
		"mailed codes": {`"mail":{"from":"shop@shop.example","email_code":true}`, mailed, want{
			title: "shop", server: "https://shop.example", cookie: "__Host-shop_access", schemes: "bearerAuth cookieAuth refreshCookie", without: "/auth/magic-link /auth/magic-link/consume",
		}},
		"another provider": {`"oauth":{"providers":{"github":{"preset":"github","client_id":"a","client_secret":"b"}}}`, mailed[:1], want{
			title: "shop", server: "https://shop.example", cookie: "__Host-shop_access", schemes: "bearerAuth cookieAuth refreshCookie", without: "/auth/email/verify /auth/magic-link",
		}},
		"bearer":       {`"tokens":{"transport":"bearer"}`, nil, want{title: "shop", server: "/", schemes: "bearerAuth"}},
		"cookies only": {`"tokens":{"transport":"cookie"}`, nil, want{title: "shop", server: "/", cookie: "__Host-shop_access", schemes: "cookieAuth refreshCookie"}},
		"cookies, and another issuer's tokens": {`"tokens":{"transport":"cookie"},"issuers":[{"name":"corp","issuer":"https://id.example","audience":["shop"]}]`, nil, want{
			title: "shop", server: "/", cookie: "__Host-shop_access", schemes: "bearerAuth cookieAuth refreshCookie",
		}},
		"a domain of cookies": {`"cookies":{"domain":"shop.example"}`, nil, want{
			title: "shop", server: "/", cookie: "__Secure-shop_access", schemes: "bearerAuth cookieAuth refreshCookie",
		}},
		"Basic for users": {`"requirements":[{"path":"/files/*","methods_allowed":["basic"]}]`, nil, want{
			title: "shop", server: "/", cookie: "__Host-shop_access", schemes: "basicAuth bearerAuth cookieAuth refreshCookie",
		}},
		"everything": {wholeAuth, []string{`"name":"The shop"`, `"public_url":"https://shop.example"`, `"base_path":"/id"`, `"environment":"development"`}, want{
			title: "The shop", server: "https://shop.example", cookie: "__Host-shop_access", tokenURL: "https://shop.example/id/oauth2/token",
			schemes: "apiKeyAuth basicAuth bearerAuth clientCredentials cookieAuth refreshCookie", without: "/auth/me",
		}},
		"an issuer with a path": {`"tokens":{"issuer":"https://shop.example/tenant"},"clients":{"enabled":true}`, nil, want{
			title: "shop", server: "/", cookie: "__Host-shop_access", tokenURL: "https://shop.example/tenant/auth/oauth2/token",
			schemes: "basicAuth bearerAuth clientCredentials cookieAuth refreshCookie", without: "/.well-known/oauth-authorization-server",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			document := asMap(t, setup(t, tt.auth, tt.rest...).app.OpenAPI())
			got := want{title: objectAt(document, "info")["title"].(string), without: tt.want.without}
			got.server, _ = objectAt(document["servers"].([]any)[0])["url"].(string)
			schemes := objectAt(document, "components", "securitySchemes")
			got.cookie, _ = objectAt(schemes, "cookieAuth")["name"].(string)
			got.tokenURL, _ = objectAt(schemes, "clientCredentials", "flows", "clientCredentials")["tokenUrl"].(string)
			var names []string
			for name := range schemes {
				names = append(names, name)
			}
			slices.Sort(names)
			if got.schemes = strings.Join(names, " "); got != tt.want {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
			for path := range strings.FieldsSeq(tt.want.without) {
				if objectAt(document, "paths", path) != nil {
					t.Errorf("%s is described and not served", path)
				}
			}
			if tt.want.tokenURL == "https://shop.example/tenant/auth/oauth2/token" &&
				objectAt(document, "paths", "/.well-known/oauth-authorization-server/tenant") == nil {
				t.Error("the metadata is not where clients look for it (RFC 8414 section 3.1)")
			}
		})
	}
}

var reference = regexp.MustCompile(`"\$ref":"#/([^"]+)"`)

// What linters of OpenAPI ask for.
func TestDocumentIsTidy(t *testing.T) {
	t.Parallel()
	c := wholeWorld(t, wholeAuth)
	ids, tags := map[any]string{}, map[any]bool{}
	for _, tag := range c.document["tags"].([]any) {
		tags[objectAt(tag)["name"]] = true
	}
	c.operations(func(route string, pointer []string, op map[string]any) {
		id, summary := op["operationId"].(string), op["summary"].(string)
		if ids[id] != "" || !regexp.MustCompile(`^[a-z][a-zA-Z]+$`).MatchString(id) {
			t.Errorf("%s: the operationId %q is none, or that of %s", route, id, ids[id])
		}
		ids[id] = route
		if summary == "" || strings.HasSuffix(summary, ".") {
			t.Errorf("%s: the summary is %q", route, summary)
		}
		list, _ := op["tags"].([]any)
		if len(list) == 0 || slices.ContainsFunc(list, func(tag any) bool { return !tags[tag] }) {
			t.Errorf("%s has the tags %v, of which each has to be described", route, list)
		}
		for _, a := range op["security"].([]any) { // which fails where there is none
			for scheme := range objectAt(a) {
				if objectAt(c.document, "components", "securitySchemes", scheme) == nil {
					t.Errorf("%s needs %s, which is not described", route, scheme)
				}
			}
		}
		refused, internal := false, objectAt(op, "responses")["500"] != nil
		for status := range objectAt(op, "responses") {
			refused = refused || status[0] == '4'
		}
		if !refused || !internal {
			t.Errorf("%s describes no refusal, or no 500", route)
		}
		c.inPath(route, pointer, op)
	})
	for _, found := range reference.FindAllStringSubmatch(string(c.app.OpenAPI()), -1) {
		if _, value := c.resolved(strings.Split(found[1], "/")); value == nil {
			t.Errorf("%s is referred to and not there", found[1])
		}
	}
	closed(t, "", c.document)
}

// inPath checks that the variables of a path and its parameters are the same.
func (c *contract) inPath(route string, pointer []string, op map[string]any) {
	c.t.Helper()
	var variables, described []string
	for _, found := range regexp.MustCompile(`\{([^}]+)\}`).FindAllStringSubmatch(route, -1) {
		variables = append(variables, found[1])
	}
	parameters, _ := op["parameters"].([]any)
	for i := range parameters {
		_, p := c.parameter(pointer, i)
		if p["description"] == nil || p["schema"] == nil {
			c.t.Errorf("%s: the parameter %v has no description or no schema", route, p["name"])
		}
		if p["in"] == "path" && p["required"] == true {
			described = append(described, p["name"].(string))
		}
	}
	if !slices.Equal(variables, described) {
		c.t.Errorf("%s has the variables %v and describes %v", route, variables, described)
	}
}

// closed checks that every object of a schema says whether it may have more members
// than it describes: otherwise a test against the document would miss them.
func closed(t *testing.T, where string, v any) {
	t.Helper()
	switch v := v.(type) {
	case map[string]any:
		_, said := v["additionalProperties"]
		if v["type"] == "object" && !said {
			t.Errorf("%s does not say whether it has other members", where)
		}
		for name, inner := range v {
			closed(t, where+"/"+name, inner)
		}
	case []any:
		for _, inner := range v {
			closed(t, where+"/…", inner)
		}
	}
}

// The markers list what an app takes in the service's own document.
func TestMergeOpenAPI(t *testing.T) {
	t.Parallel()
	c := wholeWorld(t, wholeAuth)
	own := []byte(`{"openapi":"3.0.3","info":{"title":"orders","version":"1"},"paths":{},"x-own":{"a":  1}}`)
	out, err := engine.MergeOpenAPI(own, engine.OpenAPIAPIKey(), engine.OpenAPIHTTPBasic(),
		engine.OpenAPIOAuth2ClientCredentials("https://shop.example/auth/oauth2/token", map[string]string{"read": "read orders"}))
	if err != nil {
		t.Fatal(err)
	}
	schemes := objectAt(decoded(t, out), "components", "securitySchemes")
	flow := objectAt(schemes, "clientCredentials", "flows", "clientCredentials")
	if len(schemes) != 3 || objectAt(schemes, "apiKeyAuth")["name"] != "X-API-Key" || objectAt(schemes, "basicAuth")["scheme"] != "basic" ||
		flow["tokenUrl"] != "https://shop.example/auth/oauth2/token" || objectAt(flow, "scopes")["read"] != "read orders" {
		t.Errorf("schemes: %s", out)
	}
	if !bytes.Contains(out, []byte(`{"a":  1}`)) {
		t.Errorf("a member of the service's own has changed: %s", out)
	}
	if out, err = engine.MergeOpenAPI(own, c.app.OpenAPISchemes()); err != nil || len(objectAt(decoded(t, out), "components", "securitySchemes")) != 6 {
		t.Errorf("the app's schemes: %v %s", err, out)
	}
	if _, err = engine.MergeOpenAPI(own, c.app.OpenAPI()); !errors.Is(err, engine.ErrOpenAPI) {
		t.Errorf("routes into a document of 3.0: %v", err)
	}
	taken := []byte(`{"openapi":"3.1.0","components":{"securitySchemes":{"apiKeyAuth":{"type":"http","scheme":"digest"}}}}`)
	if _, err = engine.MergeOpenAPI(taken, engine.OpenAPIAPIKey()); !errors.Is(err, engine.ErrOpenAPIConflict) || !strings.Contains(err.Error(), "components.securitySchemes.apiKeyAuth") {
		t.Errorf("two schemes of one name: %v", err)
	}
}
