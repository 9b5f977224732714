package tokens

import (
	"bytes"
	"encoding/json"
	"errors"
	"iter"
)

// members yields the members of the JSON object in raw in their order, names
// decoded and values as they stand, and reports whether raw is one object and
// nothing else.
//
// It walks text that json.Valid has accepted, so it only has to find where
// things end. A decoder into structs would match names without regard to case
// and keep the last of two; one that hands out tokens costs more than checking
// the signature.
func members(raw []byte) (iter.Seq2[string, []byte], error) {
	if !json.Valid(raw) {
		return nil, errors.New("not JSON")
	}
	rest := skipSpace(raw)
	if rest[0] != '{' {
		return nil, errors.New("not an object")
	}
	return func(yield func(string, []byte) bool) {
		for rest := skipSpace(rest[1:]); rest[0] != '}'; {
			var name, value []byte
			name, rest = cutValue(rest)
			rest = skipSpace(skipSpace(rest)[1:]) // the colon
			value, rest = cutValue(rest)
			if rest = skipSpace(rest); rest[0] == ',' {
				rest = skipSpace(rest[1:])
			}
			if !yield(unquote(name), value) {
				return
			}
		}
	}, nil
}

func skipSpace(b []byte) []byte { return bytes.TrimLeft(b, " \t\r\n") }

// cutValue cuts the value at the start of b from what follows it.
func cutValue(b []byte) (value, rest []byte) {
	depth, inString := 0, false
	for i, c := range b {
		switch {
		case inString:
			if c == '"' && !escaped(b, i) {
				inString = false
				if depth == 0 {
					return b[:i+1], b[i+1:]
				}
			}
		case c == '"':
			inString = true
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			if depth == 0 {
				return b[:i], b[i:] // the end of what a number stands in
			}
			if depth--; depth == 0 {
				return b[:i+1], b[i+1:]
			}
		case depth == 0 && bytes.IndexByte([]byte(", \t\r\n:"), c) >= 0:
			return b[:i], b[i:]
		}
	}
	return b, nil
}

// escaped reports whether the byte at i has an odd number of backslashes before
// it.
func escaped(b []byte, i int) bool {
	n := 0
	for j := i - 1; j >= 0 && b[j] == '\\'; j-- {
		n++
	}
	return n%2 == 1
}

// unquote decodes a JSON string.
func unquote(quoted []byte) string {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1 : len(quoted)-1])
	}
	var s string
	_ = json.Unmarshal(quoted, &s) // valid: it is a part of valid JSON
	return s
}
