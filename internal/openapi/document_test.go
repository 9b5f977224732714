package openapi_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/mandate-auth/mandate/internal/openapi"
	"github.com/mandate-auth/mandate/schemas"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// everything is an app with every credential and these routes.
func everything(routes ...string) openapi.Config {
	return openapi.Config{
		Title: "The shop", Server: "https://shop.example", BasePath: "/auth", Routes: routes, MetadataPath: "/.well-known/oauth-authorization-server",
		Bearer: true, APIKey: true, ClientBasic: true, UserBasic: true,
		AccessCookie: "__Host-shop_access", RefreshCookie: "__Secure-shop_refresh", TokenURL: "https://shop.example/auth/oauth2/token",
		Scopes: []string{"write", "read"},
	}
}

// parsed is a document of [openapi.Document].
type parsed struct {
	OpenAPI string
	Info    struct{ Title, Description string }
	Servers []struct{ URL string }
	Tags    []struct{ Name string }
	Paths   map[string]map[string]struct {
		OperationID string
		Security    []map[string][]string
	}
	Components struct {
		SecuritySchemes map[string]map[string]any
		Schemas         map[string]any
		Responses       map[string]any
	}
}

func parse(t *testing.T, raw []byte) *parsed {
	t.Helper()
	var p parsed
	if err := json.Unmarshal(raw, &p); err != nil {
		t.Fatalf("%v: %s", err, raw)
	}
	return &p
}

func names[V any](m map[string]V) string { return strings.Join(slices.Sorted(maps.Keys(m)), " ") }

// A document has what the app serves, under the app's own names, and nothing else.
func TestDocument(t *testing.T) {
	t.Parallel()
	c := everything("GET /id/me", "POST /id/oauth2/token", "GET /.well-known/oauth-authorization-server/tenant")
	c.BasePath, c.MetadataPath = "/id", "/.well-known/oauth-authorization-server/tenant"
	p := parse(t, openapi.Document(c))
	if p.OpenAPI != "3.1.0" || p.Info.Title != "The shop" || p.Info.Description == "" || len(p.Servers) != 1 || p.Servers[0].URL != "https://shop.example" {
		t.Errorf("head: %+v", p)
	}
	if got := names(p.Paths); got != "/.well-known/oauth-authorization-server/tenant /id/me /id/oauth2/token" {
		t.Errorf("paths: %s", got)
	}
	if got := names(p.Paths["/id/me"]); got != "get" {
		t.Errorf("the methods of /id/me are %q: PATCH is not served", got)
	}
	var tags []string
	for _, tag := range p.Tags {
		tags = append(tags, tag.Name)
	}
	if got := strings.Join(tags, ", "); got != "Account, OAuth 2.0, Discovery" {
		t.Errorf("tags: %s", got)
	}
	if p.Components.Schemas["MandatePrincipal"] == nil || p.Components.Schemas["MandateSession"] != nil || p.Components.Responses["MandateConflict"] != nil {
		t.Errorf("the components are not those that the routes lead to: %s, %s", names(p.Components.Schemas), names(p.Components.Responses))
	}
	flow, _ := json.Marshal(p.Components.SecuritySchemes[openapi.SchemeClient]["flows"])
	if want := `{"clientCredentials":{"scopes":{"read":"read","write":"write"},"tokenUrl":"https://shop.example/auth/oauth2/token"}}`; string(flow) != want {
		t.Errorf("flows: %s, want %s", flow, want)
	}
	if p.Components.SecuritySchemes[openapi.SchemeCookie]["name"] != "__Host-shop_access" ||
		p.Components.SecuritySchemes[openapi.SchemeRefresh]["name"] != "__Secure-shop_refresh" {
		t.Errorf("cookies: %v", p.Components.SecuritySchemes)
	}
}

// What an app does not take stands in no document of it.
func TestDocumentHasTheCredentialsOfTheApp(t *testing.T) {
	t.Parallel()
	const all = "apiKeyAuth basicAuth bearerAuth clientCredentials cookieAuth refreshCookie"
	for name, tt := range map[string]struct {
		edit        func(*openapi.Config)
		schemes, me string
	}{
		"all":             {func(*openapi.Config) {}, all, "bearerAuth cookieAuth apiKeyAuth clientCredentials basicAuth"},
		"bearer":          {func(c *openapi.Config) { *c = openapi.Config{Bearer: true} }, "bearerAuth", "bearerAuth"},
		"cookie":          {func(c *openapi.Config) { *c = openapi.Config{AccessCookie: "a", RefreshCookie: "r"} }, "cookieAuth refreshCookie", "cookieAuth"},
		"Basic for users": {func(c *openapi.Config) { *c = openapi.Config{Bearer: true, UserBasic: true} }, "basicAuth bearerAuth", "bearerAuth"},
		"API keys":        {func(c *openapi.Config) { *c = openapi.Config{Bearer: true, APIKey: true} }, "apiKeyAuth bearerAuth", "bearerAuth apiKeyAuth"},
		// No app is like this. Were one, its routes would not look open.
		"nothing": {func(c *openapi.Config) { *c = openapi.Config{} }, "", "bearerAuth"},
	} {
		c := everything()
		tt.edit(&c)
		c.Routes, c.BasePath = []string{"GET /auth/me", "POST /auth/refresh"}, "/auth"
		p := parse(t, openapi.Document(c))
		if got := names(p.Components.SecuritySchemes); got != tt.schemes {
			t.Errorf("%s: schemes %q, want %q", name, got, tt.schemes)
		}
		var me []string
		for _, alternative := range p.Paths["/auth/me"]["get"].Security {
			me = append(me, names(alternative))
		}
		if got := strings.Join(me, " "); got != tt.me {
			t.Errorf("%s: GET /me takes %q, want %q", name, got, tt.me)
		}
		if refresh := p.Paths["/auth/refresh"]["post"].Security; len(refresh) == 0 || len(refresh[0]) != 0 {
			t.Errorf("%s: POST /refresh takes a token in its body and needs no other: %v", name, refresh)
		}
	}
}

// The whole template comes through unchanged but for what is the app's own.
func TestDocumentKeepsTheTemplate(t *testing.T) {
	t.Parallel()
	template := parse(t, schemas.OpenAPI)
	var routes []string
	for path, methods := range template.Paths {
		for method := range methods {
			routes = append(routes, strings.ToUpper(method)+" "+path)
		}
	}
	p := parse(t, openapi.Document(everything(routes...)))
	if names(p.Paths) != names(template.Paths) || names(p.Components.Schemas) != names(template.Components.Schemas) ||
		names(p.Components.Responses) != names(template.Components.Responses) {
		t.Error("the document of an app with every route lacks paths or components, or the template has some that nothing leads to")
	}
	for _, scheme := range []string{"bearerAuth", "apiKeyAuth"} {
		if p.Components.SecuritySchemes[scheme]["description"] != template.Components.SecuritySchemes[scheme]["description"] {
			t.Errorf("%s has changed", scheme)
		}
	}
}

func TestDocumentIsTheCallersOwn(t *testing.T) {
	t.Parallel()
	c := everything("GET /auth/me")
	first := openapi.Document(c)
	want := string(first)
	clear(first)
	if got := string(openapi.Document(c)); got != want {
		t.Error("a document that a caller has changed changes the next")
	}
}

func BenchmarkDocument(b *testing.B) {
	var template parsed
	if err := json.Unmarshal(schemas.OpenAPI, &template); err != nil {
		b.Fatal(err)
	}
	var routes []string
	for path, methods := range template.Paths {
		for method := range methods {
			routes = append(routes, strings.ToUpper(method)+" "+path)
		}
	}
	c := everything(routes...)
	b.ReportAllocs()
	for b.Loop() {
		b.SetBytes(int64(len(openapi.Document(c))))
	}
}
