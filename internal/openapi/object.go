package openapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// member is one member of an object, with the text of its value as it was.
type member struct {
	name  string
	value json.RawMessage
}

// object is a JSON object that keeps the order of its members and the text of their
// values.
type object []member

// parseObject reads one object. A name that comes twice is an error: which of two
// counts must not depend on who reads them.
func parseObject(raw []byte) (object, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	switch token, err := dec.Token(); {
	case err != nil:
		return nil, err
	case token != json.Delim('{'):
		return nil, errors.New("is not an object")
	}
	var o object
	seen := map[string]bool{}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, err
		}
		name, _ := token.(string) // the decoder takes nothing else here
		if seen[name] {
			return nil, fmt.Errorf("has the name %q twice", name)
		}
		seen[name] = true
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, err
		}
		o = append(o, member{name, value})
	}
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("has something after its end")
	}
	return o, nil
}

// get returns the value of a member, nil without one.
func (o object) get(name string) json.RawMessage {
	for i := range o {
		if o[i].name == name {
			return o[i].value
		}
	}
	return nil
}

// part returns the object that is the value of a member, empty without one.
func (o object) part(name string) (object, error) {
	raw := o.get(name)
	if raw == nil {
		return nil, nil
	}
	inner, err := parseObject(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return inner, nil
}

// with returns the object with the value of a member replaced, or added at the end.
func (o object) with(name string, value json.RawMessage) object {
	out := append(make(object, 0, len(o)+1), o...)
	for i := range out {
		if out[i].name == name {
			out[i].value = value
			return out
		}
	}
	return append(out, member{name, value})
}

// appendTo writes the object. Between its members stand line breaks and indent, and
// nothing where indent is "".
func (o object) appendTo(out *bytes.Buffer, indent string) {
	out.WriteByte('{')
	for i := range o {
		if i > 0 {
			out.WriteByte(',')
		}
		out.WriteString(indent)
		writeQuoted(out, o[i].name)
		out.WriteByte(':')
		if indent != "" {
			out.WriteByte(' ')
		}
		out.Write(o[i].value)
	}
	if len(o) > 0 && indent != "" {
		out.WriteString(indent[:len(indent)-2])
	}
	out.WriteByte('}')
}

// text returns the object as JSON.
func (o object) text(indent string) json.RawMessage {
	var out bytes.Buffer
	o.appendTo(&out, indent)
	return out.Bytes()
}

// quote returns the JSON of a text, without the escapes that HTML would need.
func quote(text string) json.RawMessage {
	var out bytes.Buffer
	writeQuoted(&out, text)
	return out.Bytes()
}

func writeQuoted(out *bytes.Buffer, text string) {
	if plain(text) {
		out.WriteByte('"')
		out.WriteString(text)
		out.WriteByte('"')
		return
	}
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(text)        // a text always has a form
	out.Truncate(out.Len() - 1) // the line break that Encode adds
}

// plain reports whether the text stands in JSON as it is.
func plain(text string) bool {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// list returns the JSON of a list of values.
func list(values []json.RawMessage) json.RawMessage {
	var out bytes.Buffer
	out.WriteByte('[')
	for i, value := range values {
		if i > 0 {
			out.WriteByte(',')
		}
		out.Write(value)
	}
	out.WriteByte(']')
	return out.Bytes()
}
