// Package strictjson refuses JSON that two readers could understand differently:
// names that come twice, halves of surrogate pairs, bytes that are no UTF-8,
// something after the end (RFC 8259 sections 4 and 8, RFC 7493). It imports nothing
// of Mandate.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxEcho bounds, in bytes, what an error repeats of a name.
const maxEcho = 100

// Check reports what is wrong with raw as exactly one JSON value, nested at most
// depth deep; nil means nothing. A value that is neither object nor list has depth 0.
func Check(raw []byte, depth int) error {
	if _, err := Value(raw, depth, true); err != nil {
		return err
	}
	if !paired(raw) {
		return errors.New("holds half of a surrogate pair")
	}
	return nil
}

// Value reads raw as [Check] does, but for halves of surrogate pairs: they are in names
// that other programs have cut off, and become U+FFFD. Numbers are float64, or where
// they are to be exact json.Number: as float64 two long ones may be the same.
func Value(raw []byte, depth int, exact bool) (any, error) {
	if !utf8.Valid(raw) {
		return nil, errors.New("is not valid UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if exact {
		dec.UseNumber()
	}
	value, err := read(dec, depth)
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("has something after its end")
	}
	return value, nil
}

// Object returns the members of raw, which must be an object that passes [Check].
func Object(raw []byte, depth int) (map[string]json.RawMessage, error) {
	if err := Check(raw, depth); err != nil {
		return nil, err
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil || members == nil {
		return nil, errors.New("is not an object")
	}
	return members, nil
}

// read reads one value and refuses a name that comes twice in an object.
func read(dec *json.Decoder, depth int) (any, error) {
	token, err := dec.Token()
	if err != nil {
		return nil, syntax(err)
	}
	delim, ok := token.(json.Delim)
	switch {
	case !ok:
		return token, nil
	case depth == 0:
		return nil, errors.New("is nested too deep")
	case delim == '{':
		return readObject(dec, depth-1)
	default:
		return readList(dec, depth-1)
	}
}

func readObject(dec *json.Decoder, depth int) (map[string]any, error) {
	members := map[string]any{}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, syntax(err)
		}
		name, _ := token.(string) // the decoder takes nothing else here
		if _, twice := members[name]; twice {
			return nil, fmt.Errorf("has the name %q twice", strings.ToValidUTF8(name[:min(len(name), maxEcho)], ""))
		}
		if members[name], err = read(dec, depth); err != nil {
			return nil, err
		}
	}
	_, err := dec.Token()
	return members, syntax(err)
}

func readList(dec *json.Decoder, depth int) ([]any, error) {
	list := []any{}
	for dec.More() {
		item, err := read(dec, depth)
		if err != nil {
			return nil, err
		}
		list = append(list, item)
	}
	_, err := dec.Token()
	return list, syntax(err)
}

// syntax hides the decoder's own words, which can repeat what it read.
func syntax(err error) error {
	if err == nil {
		return nil
	}
	var at *json.SyntaxError
	if errors.As(err, &at) {
		return fmt.Errorf("is not valid JSON at byte %d", at.Offset)
	}
	return errors.New("is not valid JSON")
}

// paired reports whether every surrogate that raw, which must be valid JSON, escapes
// has its other half (RFC 8259 section 8.2). The decoder would turn each half into
// U+FFFD, so that texts that differ, such as passwords, would become the same.
func paired(raw []byte) bool {
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		i++ // a backslash of valid JSON stands in a string, before something
		if raw[i] != 'u' {
			continue
		}
		first := escaped(raw[i-1:])
		i += 4
		if !utf16.IsSurrogate(first) {
			continue
		}
		if utf16.DecodeRune(first, escaped(raw[i+1:])) == utf8.RuneError {
			return false
		}
		i += 6
	}
	return true
}

// escaped returns the value of the \uXXXX that raw begins with, -1 without one.
func escaped(raw []byte) rune {
	if len(raw) < 6 || raw[0] != '\\' || raw[1] != 'u' {
		return -1
	}
	v, err := strconv.ParseInt(string(raw[2:6]), 16, 32)
	if err != nil {
		return -1
	}
	return rune(v)
}

// Exact reports whether float64 holds every whole number in raw, which must be valid JSON,
// as it is: beyond 2^53 it does not hold all (RFC 8259 section 6).
func Exact(raw []byte) bool {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	for {
		token, err := dec.Token()
		if err != nil {
			return true
		}
		if number, ok := token.(json.Number); ok && !strings.ContainsAny(number.String(), ".eE") && !exact(number) {
			return false
		}
	}
}

// maxDigits is more than the greatest float64 has.
const maxDigits = 320

func exact(number json.Number) bool {
	if len(number) > maxDigits {
		return false
	}
	value, err := number.Float64()
	if err != nil {
		return false
	}
	held, _ := big.NewFloat(value).Int(nil)
	written, ok := new(big.Int).SetString(number.String(), 10)
	return ok && held.Cmp(written) == 0
}
