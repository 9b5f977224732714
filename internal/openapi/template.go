package openapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/mandate-auth/mandate/schemas"
)

// template is schemas.OpenAPI, read once for all apps.
type template struct {
	head       object // what is there besides what follows
	info       object
	tags       []tag
	paths      []path
	schemes    object
	components []component
	size       int // of all of it
}

type tag struct {
	name  string
	value json.RawMessage
}

type path struct {
	name       string
	operations []operation
}

// operation is one method of a path.
type operation struct {
	method string
	// text is the operation up to the value of its security, which depends on what an
	// app takes.
	text     []byte
	security []alternative
	tags     []string
	needs    []int // every component that it leads to
}

// alternative is one of the ways to be let in.
type alternative struct {
	schemes []string
	text    json.RawMessage
}

// component is one of the reusable parts, security schemes aside, as a member of its
// section.
type component struct {
	section, name string
	value         json.RawMessage
}

// shared is the template. It is read when it is first needed, and never changed: an
// app keeps nothing of a document that perhaps nobody asks for.
var shared = sync.OnceValue(func() *template {
	t, err := read(schemas.OpenAPI)
	if err != nil {
		// It is a part of the program, and the tests read it.
		panic(fmt.Sprintf("schemas/openapi.json: %v", err))
	}
	return t
})

// reference is a reference to a component.
var reference = regexp.MustCompile(`"\$ref":"#/components/([^/"]+)/([^/"]+)"`)

func read(raw []byte) (*template, error) {
	var compact bytes.Buffer
	if err := json.Compact(&compact, raw); err != nil {
		return nil, err
	}
	document, err := parseObject(compact.Bytes())
	if err != nil {
		return nil, err
	}
	t := &template{size: compact.Len()}
	for _, m := range document {
		switch m.name {
		case "info":
			t.info, err = parseObject(m.value)
		case "tags":
			err = t.readTags(m.value)
		case "components":
			err = t.readComponents(m.value)
		case "paths", "servers":
		default:
			t.head = append(t.head, m)
		}
		if err != nil {
			return nil, err
		}
	}
	return t, t.readPaths(document.get("paths"))
}

func (t *template) readTags(raw json.RawMessage) error {
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil {
		return err
	}
	for _, value := range list {
		var named struct{ Name string }
		if err := json.Unmarshal(value, &named); err != nil {
			return err
		}
		t.tags = append(t.tags, tag{named.Name, value})
	}
	return nil
}

func (t *template) readComponents(raw json.RawMessage) error {
	sections, err := parseObject(raw)
	if err != nil {
		return err
	}
	for _, section := range sections {
		parts, err := parseObject(section.value)
		if err != nil {
			return err
		}
		if section.name == "securitySchemes" {
			t.schemes = parts
			continue
		}
		for _, p := range parts {
			t.components = append(t.components, component{section.name, p.name, p.value})
		}
	}
	return nil
}

func (t *template) readPaths(raw json.RawMessage) error {
	paths, err := parseObject(raw)
	if err != nil {
		return err
	}
	for _, p := range paths {
		methods, err := parseObject(p.value)
		if err != nil {
			return err
		}
		out := path{name: p.name}
		for _, m := range methods {
			op, err := t.readOperation(m)
			if err != nil {
				return fmt.Errorf("%s %s: %w", m.name, p.name, err)
			}
			out.operations = append(out.operations, *op)
		}
		t.paths = append(t.paths, out)
	}
	return nil
}

func (t *template) readOperation(m member) (*operation, error) {
	all, err := parseObject(m.value)
	if err != nil {
		return nil, err
	}
	op := &operation{method: strings.ToUpper(m.name)}
	rest := slices.DeleteFunc(slices.Clone(all), func(m member) bool { return m.name == "security" })
	op.text = append(bytes.TrimSuffix(rest.text(""), []byte("}")), `,"security":`...)
	if err := json.Unmarshal(all.get("tags"), &op.tags); err != nil {
		return nil, fmt.Errorf("tags: %w", err)
	}
	var alternatives []json.RawMessage
	if err := json.Unmarshal(all.get("security"), &alternatives); err != nil {
		return nil, fmt.Errorf("security: %w", err)
	}
	for _, raw := range alternatives {
		one, err := parseObject(raw)
		if err != nil {
			return nil, fmt.Errorf("security: %w", err)
		}
		a := alternative{text: raw}
		for _, scheme := range one {
			a.schemes = append(a.schemes, scheme.name)
		}
		op.security = append(op.security, a)
	}
	return op, t.follow(m.value, &op.needs)
}

// follow collects every component that the text leads to.
func (t *template) follow(raw json.RawMessage, needs *[]int) error {
	for _, found := range reference.FindAllSubmatch(raw, -1) {
		section, name := string(found[1]), string(found[2])
		i := slices.IndexFunc(t.components, func(c component) bool { return c.section == section && c.name == name })
		if i < 0 {
			return fmt.Errorf("refers to %s/%s, which is not there", section, name)
		}
		if slices.Contains(*needs, i) {
			continue
		}
		*needs = append(*needs, i)
		if err := t.follow(t.components[i].value, needs); err != nil {
			return err
		}
	}
	return nil
}
