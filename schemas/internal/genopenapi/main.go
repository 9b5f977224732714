// Command genopenapi writes openapi.json, whose path is its second argument, from
// openapi.yaml, whose path is its first.
//
// The document is written in YAML because people edit it, and embedded as JSON so
// that services link no YAML library.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"

	"go.yaml.in/yaml/v3"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: genopenapi openapi.yaml openapi.json")
	}
	if err := generate(os.Args[1], os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

func generate(from, to string) error {
	text, err := os.ReadFile(from) //nolint:gosec // whoever generates says from what
	if err != nil {
		return err
	}
	raw, err := convert(text)
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	return os.WriteFile(to, raw, 0o644) //nolint:gosec // a document for everybody
}

// convert returns one YAML document as indented JSON, whose members keep their
// order. Aliases are written out. What JSON cannot say, a key that is no text or
// comes twice, a second document, is an error that names the line.
func convert(text []byte) ([]byte, error) {
	var document yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(text))
	if err := dec.Decode(&document); err != nil {
		return nil, err
	}
	if err := dec.Decode(new(yaml.Node)); err == nil {
		return nil, errors.New("holds a second document")
	}
	if len(document.Content) != 1 {
		return nil, errors.New("holds no document")
	}
	var compact, out bytes.Buffer
	if err := write(&compact, document.Content[0], 0); err != nil {
		return nil, err
	}
	if err := json.Indent(&out, compact.Bytes(), "", "  "); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// maxDepth bounds the nesting: an anchor may hold an alias of itself.
const maxDepth = 64

func write(out *bytes.Buffer, n *yaml.Node, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("line %d: is nested deeper than %d", n.Line, maxDepth)
	}
	switch n.Kind {
	case yaml.MappingNode:
		return writeObject(out, n, depth)
	case yaml.SequenceNode:
		out.WriteByte('[')
		for i, item := range n.Content {
			if i > 0 {
				out.WriteByte(',')
			}
			if err := write(out, item, depth+1); err != nil {
				return err
			}
		}
		out.WriteByte(']')
		return nil
	case yaml.AliasNode:
		return write(out, n.Alias, depth+1)
	default:
		return writeScalar(out, n)
	}
}

func writeObject(out *bytes.Buffer, n *yaml.Node, depth int) error {
	seen := map[string]bool{}
	out.WriteByte('{')
	for i := 0; i < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case key.Kind != yaml.ScalarNode || key.Tag != "!!str":
			return fmt.Errorf("line %d: a key must be text; put %q in quotes", key.Line, key.Value)
		case seen[key.Value]:
			return fmt.Errorf("line %d: the key %q comes twice", key.Line, key.Value)
		case value.Tag == "!!null" && value.Value == "":
			// A comma in a text that stands in { } without quotes ends the text.
			return fmt.Errorf("line %d: the key %q has no value; put a text with a comma in quotes", key.Line, key.Value)
		}
		seen[key.Value] = true
		if i > 0 {
			out.WriteByte(',')
		}
		if err := writeValue(out, key.Value); err != nil {
			return err
		}
		out.WriteByte(':')
		if err := write(out, value, depth+1); err != nil {
			return err
		}
	}
	out.WriteByte('}')
	return nil
}

func writeScalar(out *bytes.Buffer, n *yaml.Node) error {
	var v any
	switch n.Tag {
	case "!!str":
		v = n.Value
	case "!!int", "!!float", "!!bool", "!!null":
		if err := n.Decode(&v); err != nil {
			return fmt.Errorf("line %d: %w", n.Line, err)
		}
	default:
		return fmt.Errorf("line %d: %s has no form in JSON; put it in quotes", n.Line, n.Tag)
	}
	if err := writeValue(out, v); err != nil {
		return fmt.Errorf("line %d: %w", n.Line, err)
	}
	return nil
}

func writeValue(out *bytes.Buffer, v any) error {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
