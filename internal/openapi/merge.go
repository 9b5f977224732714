package openapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Errors of [Merge]. Their texts name the place.
var (
	// ErrDocument says that a document cannot be read, or is of another version.
	ErrDocument = errors.New("OpenAPI document")
	// ErrConflict says that both have something of one name that is not the same.
	ErrConflict = errors.New("OpenAPI conflict")
)

// Schemes returns a document that holds nothing but the security schemes of another
// one that [Document] has made.
func Schemes(document []byte) []byte {
	o, err := parseObject(document)
	if err == nil {
		var components object
		if components, err = o.part("components"); err == nil {
			return fragment("securitySchemes", components.get("securitySchemes"))
		}
	}
	panic(fmt.Sprintf("a document of our own: %v", err))
}

// Scheme returns a document that holds one security scheme of ours and nothing else.
// tokenURL and scopes are those of [SchemeClient].
func Scheme(name, tokenURL string, scopes map[string]string) []byte {
	value := shared().schemes.get(name)
	if name == SchemeClient {
		o, err := parseObject(value)
		if err != nil {
			panic(fmt.Sprintf("a document of our own: %v", err))
		}
		value = o.with("flows", flows(tokenURL, scopes)).text("")
	}
	return fragment("securitySchemes", object{{name, value}}.text(""))
}

func fragment(section string, value json.RawMessage) []byte {
	return object{{"components", object{{section, value}}.text("")}}.text("")
}

// merging is a document that others are merged into.
type merging struct {
	own        object
	components object
	paths      object
	tags       []json.RawMessage
	servers    json.RawMessage
	// operations are where the ids of operations are.
	operations map[string]string
}

// Merge returns own with the components, paths and tags of the parts: see
// engine.MergeOpenAPI.
func Merge(own []byte, parts ...[]byte) ([]byte, error) {
	m, err := open(own)
	if err != nil {
		return nil, fmt.Errorf("%w: the service's own: %w", ErrDocument, err)
	}
	for i, raw := range parts {
		part, err := open(raw)
		if err != nil {
			return nil, fmt.Errorf("%w: part %d: %w", ErrDocument, i+1, err)
		}
		if err := m.add(part); err != nil {
			return nil, err
		}
	}
	return m.close(), nil
}

func open(raw []byte) (*merging, error) {
	m := &merging{operations: map[string]string{}}
	var err error
	if m.own, err = parseObject(raw); err != nil {
		return nil, err
	}
	if m.components, err = m.own.part("components"); err != nil {
		return nil, err
	}
	if m.paths, err = m.own.part("paths"); err != nil {
		return nil, err
	}
	if raw := m.own.get("tags"); raw != nil {
		if err := json.Unmarshal(raw, &m.tags); err != nil {
			return nil, errors.New("tags: is not a list")
		}
	}
	if m.servers = m.own.get("servers"); m.servers == nil {
		m.servers = json.RawMessage(`[{"url":"/"}]`) // what the specification says
	}
	for _, p := range m.paths {
		ids, err := operationIDs(p)
		if err != nil {
			return nil, err
		}
		for id, at := range ids {
			m.operations[id] = at
		}
	}
	return m, nil
}

// operationIDs returns where the operations of a path are, by their ids.
func operationIDs(p member) (map[string]string, error) {
	item, err := parseObject(p.value)
	if err != nil {
		return nil, fmt.Errorf("paths: %s: %w", p.name, err)
	}
	ids := map[string]string{}
	for _, m := range item {
		var op struct {
			ID string `json:"operationId"`
		}
		if json.Unmarshal(m.value, &op) == nil && op.ID != "" {
			ids[op.ID] = strings.ToUpper(m.name) + " " + p.name
		}
	}
	return ids, nil
}

// add merges a part.
func (m *merging) add(part *merging) error {
	if err := m.version(len(part.paths) > 0); err != nil {
		return err
	}
	for _, section := range part.components {
		if err := m.addComponents(section); err != nil {
			return err
		}
	}
	for _, p := range part.paths {
		if err := m.addPath(p, part.servers); err != nil {
			return err
		}
	}
	if len(part.paths) > 0 {
		m.addTags(part.tags)
	}
	return nil
}

// version refuses a document that what is merged would be wrong in: our paths have
// JSON Schema 2020-12, which is 3.1's.
func (m *merging) version(withPaths bool) error {
	var version string
	_ = json.Unmarshal(m.own.get("openapi"), &version) // what is no text is no version
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	switch {
	case major != "3" || minor == "":
		return fmt.Errorf("%w: the service's own has openapi %q; it must be 3.0 or later, and JSON", ErrDocument, version)
	case minor == "0" && withPaths:
		return fmt.Errorf("%w: the service's own has openapi %q; routes need 3.1 or later, security schemes alone do not", ErrDocument, version)
	}
	return nil
}

func (m *merging) addComponents(section member) error {
	parts, err := parseObject(section.value)
	if err != nil {
		return fmt.Errorf("%w: components: %s: %w", ErrDocument, section.name, err)
	}
	have, err := m.components.part(section.name)
	if err != nil {
		return fmt.Errorf("%w: the service's own: components: %w", ErrDocument, err)
	}
	before := len(have)
	for _, c := range parts {
		switch there := have.get(c.name); {
		case there == nil:
			have = append(have, c)
		case !same(there, c.value):
			return fmt.Errorf("%w: components.%s.%s is in both and not the same; give the service's own another name", ErrConflict, section.name, c.name)
		}
	}
	if len(have) > before {
		m.components = m.components.with(section.name, have.text("\n      "))
	}
	return nil
}

// addPath adds a path. Where the document has other servers, the path says which are
// its own.
func (m *merging) addPath(p member, servers json.RawMessage) error {
	ids, err := operationIDs(p)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDocument, err)
	}
	if !same(servers, m.servers) {
		item, err := parseObject(p.value)
		if err != nil {
			return fmt.Errorf("%w: paths: %s: %w", ErrDocument, p.name, err)
		}
		if item.get("servers") == nil {
			p.value = item.with("servers", servers).text("")
		}
	}
	if there := m.paths.get(p.name); there != nil {
		if same(there, p.value) {
			return nil
		}
		return fmt.Errorf("%w: paths.%s is in both and not the same; take it out of the service's own", ErrConflict, p.name)
	}
	for id, at := range ids {
		if other, taken := m.operations[id]; taken {
			return fmt.Errorf("%w: operationId %s is that of %s and of %s; give the service's own another one", ErrConflict, id, other, at)
		}
		m.operations[id] = at
	}
	m.paths = append(m.paths, p)
	return nil
}

// addTags adds the tags whose names the document does not describe: how it describes
// one is the service's choice.
func (m *merging) addTags(tags []json.RawMessage) {
	name := func(raw json.RawMessage) string {
		var t struct{ Name string }
		_ = json.Unmarshal(raw, &t) // what is no tag has no name
		return t.Name
	}
	for _, tag := range tags {
		if !slices.ContainsFunc(m.tags, func(other json.RawMessage) bool { return name(other) == name(tag) }) {
			m.tags = append(m.tags, tag)
		}
	}
}

// close returns the document with what has been added. What nothing was added to
// keeps its text.
func (m *merging) close() []byte {
	out := m.own
	if have, _ := out.part("components"); len(m.components) > 0 && !equal(have, m.components) {
		out = out.with("components", m.components.text("\n    "))
	}
	if have, _ := out.part("paths"); len(m.paths) > len(have) {
		out = out.with("paths", m.paths.text("\n    "))
	}
	var tags []json.RawMessage
	_ = json.Unmarshal(out.get("tags"), &tags) // read before
	if len(m.tags) > len(tags) {
		out = out.with("tags", list(m.tags))
	}
	return out.text("\n  ")
}

// equal reports whether two objects have the same texts.
func equal(a, b object) bool {
	return slices.EqualFunc(a, b, func(x, y member) bool { return x.name == y.name && bytes.Equal(x.value, y.value) })
}

// same reports whether two values are the same, whatever the order of their members
// and the spaces between them.
func same(a, b json.RawMessage) bool {
	x, err := value(a)
	if err != nil {
		return false
	}
	y, err := value(b)
	return err == nil && reflect.DeepEqual(x, y)
}

func value(raw json.RawMessage) (v any, err error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	err = dec.Decode(&v)
	return v, err
}
