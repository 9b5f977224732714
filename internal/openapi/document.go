// Package openapi makes the OpenAPI 3.1 document of an app out of that of all routes,
// and merges documents.
package openapi

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

// The names of the security schemes.
const (
	SchemeBearer  = "bearerAuth"
	SchemeCookie  = "cookieAuth"
	SchemeRefresh = "refreshCookie"
	SchemeAPIKey  = "apiKeyAuth"
	SchemeBasic   = "basicAuth"
	SchemeClient  = "clientCredentials"
)

const (
	// templateBase is the base path in the document of all routes.
	templateBase = "/auth"
	// templateMetadata is where the metadata of an authorization server without a path
	// of its own is (RFC 8414 section 3.1).
	templateMetadata = "/.well-known/oauth-authorization-server"
)

// Config says what an app is.
type Config struct {
	// Title is the app's name, and Server the URL that its paths are relative to.
	Title, Server string
	// BasePath stands before the routes.
	BasePath string
	// Routes are "METHOD path" of every route that is served. One that is not described
	// is not in the document.
	Routes []string
	// MetadataPath is the path of the metadata of the authorization server, "" where
	// there is none.
	MetadataPath string

	// Bearer, APIKey, ClientBasic and UserBasic say which credentials the app takes:
	// users by Basic only where a rule of the service's own says so.
	Bearer, APIKey, ClientBasic, UserBasic bool
	// AccessCookie and RefreshCookie are the names of the cookies, "" where the app
	// takes none.
	AccessCookie, RefreshCookie string
	// TokenURL is where clients get tokens, "" where there are none, and Scopes what
	// they may ask for.
	TokenURL string
	Scopes   []string
}

// Document returns the document as JSON. It is made anew at each call, and the
// caller's own.
func Document(c Config) []byte {
	t := shared()
	var out bytes.Buffer
	out.Grow(t.size)
	t.write(&out, &c)
	return out.Bytes()
}

// write writes the document. What is large goes straight from the template into out:
// the route that serves it asks for no credential, so it has to be cheap.
func (t *template) write(out *bytes.Buffer, c *Config) {
	paths, used, tags := t.served(c)
	head := append(object{}, t.head...)
	head = append(head,
		member{"info", t.info.with("title", quote(c.Title)).text("")},
		member{"servers", list([]json.RawMessage{object{{"url", quote(c.Server)}}.text("")})},
		member{"tags", list(tags)},
	)
	out.Write(bytes.TrimSuffix(head.text(""), []byte("}")))
	out.WriteString(`,"paths":{`)
	for i, p := range paths {
		separate(out, i)
		c.writePath(out, p)
	}
	out.WriteString(`},"components":{"securitySchemes":`)
	t.available(c).appendTo(out, "")
	t.writeComponents(out, used)
	out.WriteString("}}")
}

func (c *Config) writePath(out *bytes.Buffer, p servedPath) {
	writeQuoted(out, p.name)
	out.WriteString(":{")
	for i, op := range p.operations {
		separate(out, i)
		writeQuoted(out, strings.ToLower(op.method))
		out.WriteByte(':')
		out.Write(op.text)
		out.Write(c.security(op))
		out.WriteByte('}')
	}
	out.WriteByte('}')
}

// writeComponents writes the sections after the first.
func (t *template) writeComponents(out *bytes.Buffer, used []bool) {
	section := ""
	for i := range t.components {
		component := &t.components[i]
		if !used[i] {
			continue
		}
		if component.section != section {
			if section != "" {
				out.WriteByte('}')
			}
			section = component.section
			out.WriteByte(',')
			writeQuoted(out, section)
			out.WriteString(":{")
		} else {
			out.WriteByte(',')
		}
		writeQuoted(out, component.name)
		out.WriteByte(':')
		out.Write(component.value)
	}
	if section != "" {
		out.WriteByte('}')
	}
}

func separate(out *bytes.Buffer, i int) {
	if i > 0 {
		out.WriteByte(',')
	}
}

// servedPath is a path that the app has, and those of its operations that it serves.
type servedPath struct {
	name       string
	operations []*operation
}

// served returns the paths of the app, which components they lead to, and the tags
// that they have.
func (t *template) served(c *Config) (paths []servedPath, used []bool, tags []json.RawMessage) {
	routes := make(map[string]bool, len(c.Routes))
	for _, route := range c.Routes {
		routes[route] = true
	}
	used = make([]bool, len(t.components))
	tagged := map[string]bool{}
	for i := range t.paths {
		p := servedPath{name: c.path(t.paths[i].name)}
		for k := range t.paths[i].operations {
			op := &t.paths[i].operations[k]
			if !routes[op.method+" "+p.name] {
				continue
			}
			p.operations = append(p.operations, op)
			for _, need := range op.needs {
				used[need] = true
			}
			for _, name := range op.tags {
				tagged[name] = true
			}
		}
		if len(p.operations) > 0 {
			paths = append(paths, p)
		}
	}
	for _, tag := range t.tags {
		if tagged[tag.name] {
			tags = append(tags, tag.value)
		}
	}
	return paths, used, tags
}

// path returns a path of the document of all routes as the app has it.
func (c *Config) path(name string) string {
	if name == templateMetadata && c.MetadataPath != "" {
		return c.MetadataPath
	}
	if rest, ok := strings.CutPrefix(name, templateBase+"/"); ok {
		return c.BasePath + "/" + rest
	}
	return name
}

// takes reports whether the app's own routes take credentials of the scheme.
func (c *Config) takes(scheme string) bool {
	switch scheme {
	case SchemeBearer:
		return c.Bearer
	case SchemeCookie:
		return c.AccessCookie != ""
	case SchemeRefresh:
		return c.RefreshCookie != ""
	case SchemeAPIKey:
		return c.APIKey
	case SchemeBasic:
		return c.ClientBasic
	case SchemeClient:
		return c.TokenURL != ""
	default:
		return false
	}
}

// security returns which of the alternatives of an operation the app takes. What
// needs a credential never turns into what needs none: an empty list would say that.
func (c *Config) security(op *operation) json.RawMessage {
	var out []json.RawMessage
	for _, alternative := range op.security {
		if !slices.ContainsFunc(alternative.schemes, func(scheme string) bool { return !c.takes(scheme) }) {
			out = append(out, alternative.text)
		}
	}
	if len(out) == 0 && len(op.security) > 0 {
		out = append(out, object{{SchemeBearer, json.RawMessage("[]")}}.text(""))
	}
	return list(out)
}

// available returns the security schemes that the app takes, on its own routes or
// behind the guards of the service.
func (t *template) available(c *Config) object {
	var out object
	for _, scheme := range t.schemes {
		if !c.takes(scheme.name) && (scheme.name != SchemeBasic || !c.UserBasic) {
			continue
		}
		out = append(out, member{scheme.name, c.scheme(scheme)})
	}
	return out
}

// Descriptions of basicAuth, by who may come by it.
const (
	basicUsers = "The e-mail address and the password of a user, on the paths that name it."
	basicBoth  = "The id and the secret of a client, each form-encoded (RFC 6749 section 2.3.1), and on the paths that name it the e-mail address and the password of a user."
)

// scheme returns a security scheme with what is the app's own in it.
func (c *Config) scheme(scheme member) json.RawMessage {
	o, err := parseObject(scheme.value)
	if err != nil {
		return scheme.value
	}
	switch scheme.name {
	case SchemeCookie:
		o = o.with("name", quote(c.AccessCookie))
	case SchemeRefresh:
		o = o.with("name", quote(c.RefreshCookie))
	case SchemeBasic:
		if c.UserBasic && c.ClientBasic {
			o = o.with("description", quote(basicBoth))
		} else if c.UserBasic {
			o = o.with("description", quote(basicUsers))
		}
	case SchemeClient:
		scopes := map[string]string{}
		for _, scope := range c.Scopes {
			scopes[scope] = scope
		}
		o = o.with("flows", flows(c.TokenURL, scopes))
	}
	return o.text("")
}

// flows is the one flow of clients.
func flows(tokenURL string, scopes map[string]string) json.RawMessage {
	var described object
	for name, text := range scopes {
		described = append(described, member{name, quote(text)})
	}
	slices.SortFunc(described, func(a, b member) int { return strings.Compare(a.name, b.name) })
	return object{{"clientCredentials", object{{"tokenUrl", quote(tokenURL)}, {"scopes", described.text("")}}.text("")}}.text("")
}
