package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"github.com/mandate-auth/mandate/schemas"
)

// schema is a node of the JSON Schema, as far as defaults and conversions need
// it. A nil schema knows nothing.
type schema struct {
	Types      any                `json:"type"`
	Properties map[string]*schema `json:"properties"`
	Items      *schema            `json:"items"`
	// More is the schema of members that Properties does not name.
	More        more   `json:"additionalProperties"`
	Default     any    `json:"default"`
	Description string `json:"description"`
	Secret      bool   `json:"x-secret"`
	XType       string `json:"x-type"`
	// Names are what members may be called that Properties does not name.
	Names struct {
		Pattern string `json:"pattern"`
	} `json:"propertyNames"`
}

// more is "additionalProperties": false, or the schema of the others.
type more struct{ *schema }

// UnmarshalJSON reads either form.
func (m *more) UnmarshalJSON(raw []byte) error {
	if raw[0] != '{' {
		return nil
	}
	return json.Unmarshal(raw, &m.schema)
}

var rootSchema = sync.OnceValue(func() *schema {
	var s schema
	dec := json.NewDecoder(bytes.NewReader(schemas.Manifest))
	dec.UseNumber()
	if err := dec.Decode(&s); err != nil {
		panic("the embedded schema is broken: " + err.Error())
	}
	return &s
})

var compiled = sync.OnceValue(func() *jsonschema.Schema {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(schemas.Manifest))
	if err != nil {
		panic("the embedded schema is broken: " + err.Error())
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("manifest.schema.json", doc); err != nil {
		panic("the embedded schema is broken: " + err.Error())
	}
	return c.MustCompile("manifest.schema.json")
})

func (s *schema) property(name string) *schema {
	if s == nil {
		return nil
	}
	if known := s.Properties[name]; known != nil {
		return known
	}
	return s.More.schema
}

func (s *schema) items() *schema {
	if s == nil {
		return nil
	}
	return s.Items
}

// at returns the node for a pointer.
func (s *schema) at(pointer string) *schema {
	for _, part := range strings.Split(pointer, "/")[1:] {
		if s == nil {
			return nil
		}
		if _, err := strconv.Atoi(part); err == nil && s.Items != nil {
			s = s.Items
		} else {
			s = s.property(part)
		}
	}
	return s
}

// convert turns the text of a variable into the type of the key.
func (s *schema) convert(text string) any {
	if s == nil {
		return text
	}
	types, _ := s.Types.([]any)
	switch {
	case s.Types == "boolean" || slices.Contains(types, any("boolean")):
		if b, err := strconv.ParseBool(text); err == nil {
			return b
		}
	case s.Types == "integer" || s.Types == "number":
		if _, err := strconv.ParseFloat(text, 64); err == nil && json.Valid([]byte(text)) {
			return json.Number(text)
		}
	}
	return text
}

func (p *parser) isSecret(pointer string) bool {
	s := rootSchema().at(pointer)
	return s != nil && s.Secret || p.sources[pointer] != ""
}

// validate checks the tree against the schema.
func (p *parser) validate(root any) {
	err := compiled().Validate(root)
	if err == nil {
		return
	}
	validation, ok := err.(*jsonschema.ValidationError) //nolint:errorlint // Validate documents this type
	if !ok {
		p.fault("", "", "cannot be checked: %v", err)
		return
	}
	p.collect(validation, root)
}

func pointerOf(location []string) string {
	pointer := ""
	for _, part := range location {
		pointer += "/" + escape(part)
	}
	return pointer
}

// collect turns the leaves of the library's report into faults.
func (p *parser) collect(e *jsonschema.ValidationError, root any) {
	if k, name := e.ErrorKind.(*kind.PropertyNames); name {
		// The library says it of the name, and gives a location that it overwrites while
		// it goes on. The place of the rule in the schema tells which object it is.
		_, place, _ := strings.Cut(e.SchemaURL, "#")
		pointer := strings.ReplaceAll(strings.TrimSuffix(place, "/propertyNames"), "/properties/", "/")
		says := "is not a name that is allowed here"
		if s := rootSchema().at(pointer); s != nil && s.Names.Pattern != "" {
			says += ": it must match " + s.Names.Pattern
		}
		p.fault(pointer+"/"+escape(k.Property), "", "%s", says)
		return
	}
	if len(e.Causes) > 0 {
		for _, cause := range e.Causes {
			p.collect(cause, root)
		}
		return
	}
	pointer := pointerOf(e.InstanceLocation)
	value := render(valueAt(root, e.InstanceLocation))
	switch k := e.ErrorKind.(type) {
	case *kind.AdditionalProperties:
		for _, name := range k.Properties {
			p.unknownKey(pointer, name)
		}
	case *kind.Required:
		for _, name := range k.Missing {
			p.fault(pointer+"/"+escape(name), "", "is required")
		}
	case *kind.Enum:
		allowed := make([]string, len(k.Want))
		for i, w := range k.Want {
			allowed[i] = render(w)
		}
		p.fault(pointer, value, "must be one of %s", strings.Join(allowed, ", "))
	case *kind.Pattern:
		if s := rootSchema().at(pointer); s != nil && s.XType == "duration" {
			p.fault(pointer, value, `must be a duration such as "15m", "1h30m" or "30d", or a number of seconds`)
			return
		}
		p.fault(pointer, value, "must match %s", k.Want)
	case *kind.Type:
		wanted := make([]string, len(k.Want))
		for i, kind := range k.Want {
			wanted[i] = withArticle(kind)
		}
		p.fault(pointer, value, "must be %s, not %s", strings.Join(wanted, " or "), withArticle(k.Got))
	case *kind.Minimum:
		p.fault(pointer, value, "must be at least %s", k.Want.RatString())
	case *kind.Maximum:
		p.fault(pointer, value, "must be at most %s", k.Want.RatString())
	case *kind.MinLength: // the texts hold lengths only, never the value
		// A variable that is not set has been reported.
		switch {
		case slices.ContainsFunc(p.faults, func(f Fault) bool { return f.Pointer == pointer }):
		case k.Want == 1:
			p.fault(pointer, "", "must not be empty")
		default:
			p.fault(pointer, "", "must have at least %d characters", k.Want)
		}
	case *kind.MaxLength, *kind.MinItems, *kind.MaxItems:
		// These texts hold lengths only, never the value.
		p.fault(pointer, "", "%s", k.LocalizedString(message.NewPrinter(language.English)))
	default:
		p.fault(pointer, value, "is not allowed by the schema at %s", strings.Join(e.ErrorKind.KeywordPath(), "/"))
	}
}

func (p *parser) unknownKey(pointer, name string) {
	full := pointer + "/" + escape(name)
	s := rootSchema().at(pointer)
	p.fault(full, "", "is not a known key")
	if s != nil && len(p.faults) > 0 {
		p.faults[len(p.faults)-1].Nearest = nearest(name, slices.Sorted(maps.Keys(s.Properties)))
	}
}

func valueAt(v any, location []string) any {
	for _, part := range location {
		switch x := v.(type) {
		case map[string]any:
			v = x[part]
		case []any:
			i, err := strconv.Atoi(part)
			if err != nil || i < 0 || i >= len(x) {
				return nil
			}
			v = x[i]
		}
	}
	return v
}

// render shows a value in an error, cut to a readable length. Objects are not
// shown: a secret could be in them.
func render(v any) string {
	switch v.(type) {
	case map[string]any:
		return "{…}"
	case []any:
		return "[…]"
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprintf("(%T)", v)
	}
	if len(raw) > 80 {
		return strings.ToValidUTF8(string(raw[:80]), "") + "…"
	}
	return string(raw)
}

// applyDefaults fills in what the file leaves out.
func (p *parser) applyDefaults(s *schema, pointer string, tree map[string]any) {
	for name, property := range s.Properties {
		at := pointer + "/" + escape(name)
		value, there := tree[name]
		switch {
		case property.Types == "object":
			member, ok := value.(map[string]any)
			if !ok {
				member = map[string]any{}
				tree[name] = member
			}
			p.applyDefaults(property, at, member)
		case !there && property.Default != nil:
			tree[name] = property.Default
			p.sources[at] = sourceDefault
		}
	}
	for name, value := range tree {
		member, ok := value.(map[string]any)
		if extra := s.More.schema; ok && extra != nil && s.Properties[name] == nil {
			p.applyDefaults(extra, pointer+"/"+escape(name), member)
		}
	}
}

func withArticle(kind string) string {
	if strings.ContainsAny(kind[:1], "aio") {
		return "an " + kind
	}
	return "a " + kind
}
