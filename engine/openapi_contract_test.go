package engine_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.mongodb.org/mongo-driver/mongo"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/engine/metrics/prom"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/users/social/socialtest"
)

const documentURL = "https://mandate.test/openapi.json"

// contract holds requests and answers against an app's own OpenAPI document.
type contract struct {
	*door
	document map[string]any
	compiler *jsonschema.Compiler
	compiled map[string]*jsonschema.Schema
	// seen are the statuses of each operation that have been held against it, and
	// bodies what was accepted.
	seen   map[string]map[int]bool
	bodies map[string]any
	paths  map[string]string
}

// wholeAuth enables every route.
const wholeAuth = `"users":{"allow_anonymous_users":true,"demo_users":[{"email":"demo@example.com","password":"a demo passphrase"}],"lockout":{"max_failures":5}},
	"sessions":{"max_per_user":20,"on_limit":"refuse"},"tokens":{"algorithm":"EdDSA","transport":"both"},
	"api_keys":{"enabled":true,"max_per_user":5},"clients":{"enabled":true,"scopes":["read","mandate:introspect"]},
	"mail":{"from":"Shop <no-reply@shop.example>","magic_link":true,"email_code":true},
	"policy":{"allow_anonymous":true,"authorization":{"model":"rbac_with_deny","default_roles":["user","editor","root"],"role_hierarchy":{"root":["editor"]},
		"initial_policies":[["editor","docs","read"],["root","mandate","policies"],["root","mandate","users"],["root","mandate","clients"],
			["root","mandate","audit"],["root","mandate","metrics"],["root","mandate","introspect"],["root","mandate","escalate"]]}}`

func wholeWorld(t *testing.T, auth string, edit ...func(*engine.Options)) *contract {
	t.Helper()
	return wholeWorldOn(t, storetest.Database(t), auth, edit...)
}

func wholeWorldOn(t *testing.T, db *mongo.Database, auth string, edit ...func(*engine.Options)) *contract {
	t.Helper()
	c := &contract{
		door:     &door{mailRoom: &mailRoom{post: newPostbox(), taken: map[string]int{}}},
		compiled: map[string]*jsonschema.Schema{}, seen: map[string]map[int]bool{}, bodies: map[string]any{}, paths: map[string]string{},
	}
	c.acme, c.bolt = socialtest.NewProvider(t, socialtest.Options{Now: c.now}), socialtest.NewProvider(t, socialtest.Options{Now: c.now})
	providers := fmt.Sprintf(`"providers":{%s,%s}`, providerJSON("acme", c.acme, ``), providerJSON("bolt", c.bolt, ``))
	if strings.Contains(auth, `"oauth":{"link"`) {
		auth = strings.Replace(auth, `"oauth":{"link"`, `"oauth":{`+providers+`,"link"`, 1)
	} else {
		auth += `,"oauth":{` + providers + `}`
	}
	m := manifestOf(t, "shop", auth, `"name":"The shop"`, `"public_url":"https://shop.example"`, `"environment":"development"`)
	c.world = newWorld(t, db, m, append(edit, func(o *engine.Options) { o.Prometheus, o.Mailer = prom.Handler, c.post })...)
	raw := c.app.OpenAPI()
	c.document, c.compiler = asMap(t, raw), jsonschema.NewCompiler()
	c.compiler.AssertFormat()
	if err := c.compiler.AddResource(documentURL, decoded(t, raw)); err != nil {
		t.Fatal(err)
	}
	return c
}

// now is the world's time, for providers that are there before it.
func (c *contract) now() time.Time { return c.clock.Now() }

func decoded(t *testing.T, raw []byte) any {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Fatalf("%v: %.200s", err, raw)
	}
	return v
}

func asMap(t *testing.T, raw []byte) map[string]any {
	t.Helper()
	v, ok := decoded(t, raw).(map[string]any)
	if !ok {
		t.Fatalf("no object: %.200s", raw)
	}
	return v
}

// objectAt returns the object at the path of names, nil without one.
func objectAt(v any, names ...string) map[string]any {
	for _, name := range names {
		m, _ := v.(map[string]any)
		v = m[name]
	}
	m, _ := v.(map[string]any)
	return m
}

// operations calls f with every operation, as "METHOD path", in order.
func (c *contract) operations(f func(route string, pointer []string, op map[string]any)) {
	paths := objectAt(c.document, "paths")
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		item := objectAt(paths, path)
		for _, method := range slices.Sorted(maps.Keys(item)) {
			f(strings.ToUpper(method)+" "+path, []string{"paths", path, method}, objectAt(item, method))
		}
	}
}

// resolved follows a reference to a component.
func (c *contract) resolved(pointer []string) ([]string, map[string]any) {
	value := objectAt(c.document, pointer...)
	if ref, ok := value["$ref"].(string); ok {
		return c.resolved(strings.Split(strings.TrimPrefix(ref, "#/"), "/"))
	}
	return pointer, value
}

func under(pointer []string, names ...string) []string { return slices.Concat(pointer, names) }

// valid holds a value against the schema at the pointer.
func (c *contract) valid(pointer []string, v any) error {
	escape := strings.NewReplacer("~", "~0", "/", "~1")
	var fragment strings.Builder
	for _, name := range pointer {
		fragment.WriteString("/" + url.PathEscape(escape.Replace(name)))
	}
	schema := c.compiled[fragment.String()]
	if schema == nil {
		var err error
		if schema, err = c.compiler.Compile(documentURL + "#" + fragment.String()); err != nil {
			return fmt.Errorf("the schema at %s: %w", fragment.String(), err)
		}
		c.compiled[fragment.String()] = schema
	}
	return schema.Validate(v)
}

// asSent is a body as the server gets it: JSON, or a form as an object of texts.
func asSent(t *testing.T, media string, body any) any {
	t.Helper()
	text, isText := body.(string)
	if media == "application/x-www-form-urlencoded" {
		values, err := url.ParseQuery(text)
		if err != nil {
			t.Fatal(err)
		}
		form := map[string]any{}
		for name := range values {
			form[name] = values.Get(name)
		}
		return form
	}
	raw := []byte(text)
	if !isText {
		raw, _ = json.Marshal(body)
	}
	return decoded(t, raw)
}

// call sends a request to an operation, whose path is given as the document has it
// and as it is sent, and holds both ways against the document.
func (c *contract) call(route, path string, body any, status int, code string, edit ...request) *response {
	c.t.Helper()
	method, template, _ := strings.Cut(route, " ")
	if path == "" {
		path = template
	}
	h := c.app.Handler()
	if strings.HasPrefix(path, "/.well-known/") {
		h = c.app.WellKnown()
	}
	r := do(c.t, h, method, path, body, edit...)
	got := r.code()
	if oauth, ok := r.body["error"].(string); ok {
		got = oauth
	}
	if r.status != status || got != code {
		c.t.Errorf("%s: got %d %q, want %d %q: %s", route, r.status, got, status, code, r.raw)
		return r
	}
	c.answered(route, r)
	if status < 400 {
		c.accepted(route, path, body)
	}
	return r
}

// accepted holds a request that was served against the document.
func (c *contract) accepted(route, path string, body any) {
	c.t.Helper()
	method, template, _ := strings.Cut(route, " ")
	pointer := []string{"paths", template, strings.ToLower(method)}
	op := objectAt(c.document, pointer...)
	target, err := url.Parse(path)
	if err != nil {
		c.t.Fatal(err)
	}
	known := map[string][]string{}
	parameters, _ := op["parameters"].([]any)
	for i := range parameters {
		place, p := c.parameter(pointer, i)
		if p["in"] == "query" {
			known[p["name"].(string)] = place
		}
	}
	for name, values := range target.Query() {
		if known[name] == nil {
			c.t.Errorf("%s takes the parameter %s, which is not described", route, name)
		} else if err := c.validText(under(known[name], "schema"), values[0]); err != nil {
			c.t.Errorf("%s takes %s=%s: %v", route, name, values[0], err)
		}
	}
	c.paths[route] = path
	described := objectAt(op, "requestBody")
	if body == nil || body == "" {
		if described["required"] == true {
			c.t.Errorf("%s takes no body, which is described as required", route)
		}
		return
	}
	for media := range objectAt(described, "content") {
		if err := c.valid(under(pointer, "requestBody", "content", media, "schema"), asSent(c.t, media, body)); err != nil {
			c.t.Errorf("%s takes the body %v: %v", route, body, err)
		}
		c.bodies[route] = body
		return
	}
	c.t.Errorf("%s takes a body, which is not described", route)
}

// parameter returns a parameter of an operation and where it is. A list has no
// names, so only those that stand in components have schemas that can be found.
func (c *contract) parameter(op []string, i int) ([]string, map[string]any) {
	list, _ := objectAt(c.document, op...)["parameters"].([]any)
	p, _ := list[i].(map[string]any)
	if ref, ok := p["$ref"].(string); ok {
		pointer := strings.Split(strings.TrimPrefix(ref, "#/"), "/")
		return pointer, objectAt(c.document, pointer...)
	}
	return under(op, "parameters", strconv.Itoa(i)), p
}

// validText holds a text of a URL or a header against the schema: as it is, or as the
// number or truth value that it spells.
func (c *contract) validText(pointer []string, text string) error {
	err := c.valid(pointer, text)
	var spelt any
	if err != nil && json.Unmarshal([]byte(text), &spelt) == nil {
		return c.valid(pointer, spelt)
	}
	return err
}

// general are headers of every answer, which the document describes in words.
var general = []string{
	"Cache-Control", "Content-Type", "Content-Length", "Content-Security-Policy", "Referrer-Policy", "X-Content-Type-Options", "Vary", "Accept-Ranges",
}

// answered holds an answer against the document.
func (c *contract) answered(route string, r *response) {
	c.t.Helper()
	method, template, _ := strings.Cut(route, " ")
	if objectAt(c.document, "paths", template, strings.ToLower(method)) == nil {
		c.t.Errorf("%s is not described", route)
		return
	}
	if c.seen[route] == nil {
		c.seen[route] = map[int]bool{}
	}
	c.seen[route][r.status] = true
	pointer, described := c.resolved([]string{"paths", template, strings.ToLower(method), "responses", strconv.Itoa(r.status)})
	if described == nil {
		c.t.Errorf("%s answers %d, which is not described: %s", route, r.status, r.raw)
		return
	}
	c.headers(route, pointer, described, r)
	content := objectAt(described, "content")
	media, _, _ := mime.ParseMediaType(r.header.Get("Content-Type"))
	switch {
	case content == nil && r.raw != "":
		c.t.Errorf("%s: the answer %d has a body, which is not described: %s", route, r.status, r.raw)
	case content == nil:
	case content[media] == nil:
		c.t.Errorf("%s: the answer %d comes as %q, which is not described", route, r.status, media)
	case strings.HasSuffix(media, "json"):
		if err := c.valid(under(pointer, "content", media, "schema"), decoded(c.t, []byte(r.raw))); err != nil {
			c.t.Errorf("%s: the answer %d: %v\n%s", route, r.status, err, r.raw)
		}
	}
}

func (c *contract) headers(route string, pointer []string, described map[string]any, r *response) {
	c.t.Helper()
	known := map[string]bool{}
	for name := range objectAt(described, "headers") {
		canonical := http.CanonicalHeaderKey(name)
		known[canonical] = true
		place, header := c.resolved(under(pointer, "headers", name))
		values := r.header[canonical]
		if len(values) == 0 && header["required"] == true {
			c.t.Errorf("%s: the answer %d lacks the header %s", route, r.status, name)
		}
		for _, v := range values {
			if err := c.validText(under(place, "schema"), v); err != nil {
				c.t.Errorf("%s: the answer %d has %s: %s: %v", route, r.status, name, v, err)
			}
		}
	}
	for name := range r.header {
		if !known[name] && !slices.Contains(general, name) {
			c.t.Errorf("%s: the answer %d has the header %s, which is not described", route, r.status, name)
		}
	}
}

// lenient sends a request whose status is open, and holds the answer against the
// document.
func (c *contract) lenient(route, path string, body any, edit ...request) {
	c.t.Helper()
	method, _, _ := strings.Cut(route, " ")
	h := c.app.Handler()
	if strings.HasPrefix(path, "/.well-known/") {
		h = c.app.WellKnown()
	}
	c.answered(route, do(c.t, h, method, path, body, edit...))
}
