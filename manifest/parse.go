package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds nesting.
const maxDepth = 32

// position is a place in the file, from 1.
type position struct{ line, column int }

// parser turns a file into a manifest, step by step; each step adds faults.
type parser struct {
	lookup    func(string) (string, bool)
	data      []byte
	dec       *json.Decoder
	faults    []Fault
	positions map[string]position
	sources   map[string]string // by pointer, where it is not the file
}

func (p *parser) parse(data []byte) (*Manifest, error) {
	m, err := p.parseWhole(data)
	if err == nil {
		m.settings = different(m.settings)
	}
	return m, err
}

// parseWhole is parse with every setting in the manifest.
func (p *parser) parseWhole(data []byte) (*Manifest, error) {
	if len(data) > MaxSize {
		p.fault("", "", "is larger than %d bytes", MaxSize)
		return nil, p.err()
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if !utf8.Valid(data) {
		p.fault("", "", "is not valid UTF-8")
		return nil, p.err()
	}
	p.data = data
	root, ok := p.read()
	if !ok {
		return nil, p.err()
	}
	s := rootSchema()
	root = p.substitute(s, "", root)
	p.validate(root)
	if len(p.faults) > 0 {
		return nil, p.err()
	}
	tree, ok := root.(map[string]any)
	if !ok {
		return nil, errors.New("manifest: not an object")
	}
	p.addLimits(tree)
	p.applyDefaults(s, "", tree)
	p.deriveDefaults(tree)
	m, err := p.build(tree)
	if err != nil {
		return nil, err
	}
	p.checkRules(m)
	if len(p.faults) > 0 {
		return nil, p.err()
	}
	m.settings = p.flatten(s, "", tree, nil)
	return m, nil
}

// read parses JSON, strictly: names once, nothing after the end.
func (p *parser) read() (any, bool) {
	p.dec = json.NewDecoder(bytes.NewReader(p.data))
	p.dec.UseNumber()
	root, err := p.value("", 0)
	if err == nil {
		if _, end := p.dec.Token(); !errors.Is(end, io.EOF) {
			err = errors.New("there is something after the end of the object")
		}
	}
	if err != nil {
		at := p.place(p.dec.InputOffset())
		p.positions[""] = at
		if len(p.faults) == 0 {
			p.fault("", "", "is not valid JSON: %s", strings.TrimPrefix(err.Error(), "json: "))
		}
		return nil, false
	}
	return root, len(p.faults) == 0 || root != nil
}

func (p *parser) value(pointer string, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested deeper than %d", maxDepth)
	}
	token, err := p.dec.Token()
	if err != nil {
		return nil, err
	}
	switch token {
	case json.Delim('{'):
		return p.object(pointer, depth)
	case json.Delim('['):
		list := []any{}
		for i := 0; p.dec.More(); i++ {
			at := pointer + "/" + strconv.Itoa(i)
			p.positions[at] = p.place(p.skipSpace(p.dec.InputOffset()))
			item, err := p.value(at, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, item)
		}
		_, err := p.dec.Token()
		return list, err
	default:
		return token, nil
	}
}

func (p *parser) object(pointer string, depth int) (any, error) {
	members := map[string]any{}
	for p.dec.More() {
		start := p.skipSpace(p.dec.InputOffset())
		token, err := p.dec.Token()
		if err != nil {
			return nil, err
		}
		name, ok := token.(string)
		if !ok {
			return nil, errors.New("a member needs a name")
		}
		at := pointer + "/" + escape(name)
		_, twice := members[name]
		p.positions[at] = p.place(start)
		if twice {
			p.fault(at, "", "is given twice; keep one of the two")
		}
		if members[name], err = p.value(at, depth+1); err != nil {
			return nil, err
		}
	}
	_, err := p.dec.Token()
	return members, err
}

// skipSpace returns the offset of what comes after separators.
func (p *parser) skipSpace(offset int64) int64 {
	for offset < int64(len(p.data)) && strings.IndexByte(" \t\r\n,:", p.data[offset]) >= 0 {
		offset++
	}
	return offset
}

func (p *parser) place(offset int64) position {
	before := p.data[:min(int(offset), len(p.data))]
	line := bytes.Count(before, []byte("\n")) + 1
	return position{line: line, column: utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:]) + 1}
}

var escaper = strings.NewReplacer("~", "~0", "/", "~1")

// escape writes a name as a part of a JSON Pointer.
func escape(name string) string { return escaper.Replace(name) }

var variable = regexp.MustCompile(`\$?\$\{[^}]*\}?`)

var variableForm = regexp.MustCompile(`^\$\{([A-Za-z_][A-Za-z0-9_]*)(:-([^}]*))?\}$`)

// substitute fills in environment variables. A string that is one variable as
// a whole takes the type of its key.
func (p *parser) substitute(s *schema, pointer string, v any) any {
	switch x := v.(type) {
	case map[string]any:
		for name, member := range x {
			x[name] = p.substitute(s.property(name), pointer+"/"+escape(name), member)
		}
		return x
	case []any:
		for i, item := range x {
			x[i] = p.substitute(s.items(), pointer+"/"+strconv.Itoa(i), item)
		}
		return x
	case string:
		return p.expand(s, pointer, x)
	default:
		return v
	}
}

func (p *parser) expand(s *schema, pointer, text string) any {
	var names []string
	out := variable.ReplaceAllStringFunc(text, func(found string) string {
		if strings.HasPrefix(found, "$$") {
			return found[1:]
		}
		m := variableForm.FindStringSubmatch(found)
		if m == nil {
			p.fault(pointer, "", "has a variable of the wrong form; write ${NAME} or ${NAME:-default}, and $${ for a plain ${")
			return ""
		}
		names = append(names, m[1])
		value, set := p.lookup(m[1])
		switch {
		case set && utf8.ValidString(value):
			return value
		case m[2] != "":
			return m[3]
		default:
			p.fault(pointer, "", "needs the environment variable %s, which is not set", m[1])
			return ""
		}
	})
	if len(names) == 0 {
		return out
	}
	p.sources[pointer] = "environment " + strings.Join(names, ", ")
	if len(names) == 1 && variableForm.MatchString(text) {
		return s.convert(out)
	}
	return out
}

func newParser(lookup func(string) (string, bool)) *parser {
	return &parser{lookup: lookup, sources: map[string]string{}, positions: map[string]position{}}
}
