// Package pattern matches paths and names against the patterns of policies and
// of path rules. It imports nothing of ours, so that the provider of
// authorization, the manifest and the guards all have the same idea of what a
// pattern means.
//
// A path pattern is written like one of [net/http.ServeMux], without method and
// host:
//
//	/users            that path, with or without a slash at its end
//	/users/{id}       one segment, whatever it is
//	/files/*          the path, and everything below it
//	/files/{rest...}  the same
//
// Paths are compared segment by segment, and letters as they are. What is
// compared has been decoded once, by the HTTP server, and is not decoded again.
package pattern

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxSegments is how many segments a pattern may have.
const MaxSegments = 32

// Path is a path pattern. It is immutable.
type Path struct {
	text     string
	segments []string // a literal, or "" for a variable
	rest     bool
}

// ParsePath reads a pattern.
func ParsePath(text string) (*Path, error) {
	if !strings.HasPrefix(text, "/") {
		return nil, errors.New("a path pattern begins with a slash")
	}
	if !Clean(text) {
		return nil, errors.New("a path pattern has no empty segments, no dot segments, no backslash and no control characters")
	}
	p := &Path{text: text}
	names := map[string]bool{}
	for rest, segment := strings.TrimSuffix(text, "/"), ""; rest != ""; {
		segment, rest = cut(rest)
		variable, all, err := parseSegment(segment, names)
		switch {
		case err != nil:
			return nil, err
		case all && rest != "":
			return nil, fmt.Errorf("%q matches the rest of a path, so nothing can stand behind it", segment)
		case all:
			p.rest = true
		case variable:
			p.segments = append(p.segments, "")
		default:
			p.segments = append(p.segments, segment)
		}
	}
	if len(p.segments) > MaxSegments {
		return nil, fmt.Errorf("a path pattern has at most %d segments", MaxSegments)
	}
	return p, nil
}

// cut takes the first segment off "/a/b".
func cut(path string) (segment, rest string) {
	path = path[1:]
	if i := strings.IndexByte(path, '/'); i >= 0 {
		return path[:i], path[i:]
	}
	return path, ""
}

func parseSegment(segment string, names map[string]bool) (variable, rest bool, err error) {
	if segment == "*" {
		return false, true, nil
	}
	inner, open := strings.CutPrefix(segment, "{")
	inner, closed := strings.CutSuffix(inner, "}")
	if !open || !closed {
		if strings.ContainsAny(segment, "{}*") {
			return false, false, fmt.Errorf("%q is neither a name, nor {variable}, nor * at the end", segment)
		}
		return false, false, nil
	}
	name, rest := strings.CutSuffix(inner, "...")
	if !isName(name) || names[name] {
		return false, false, fmt.Errorf("%q has to be a variable with a name of its own, of letters, digits and underscores", segment)
	}
	names[name] = true
	return !rest, rest, nil
}

func isName(name string) bool {
	return name != "" && strings.Trim(name, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_") == "" && (name[0] < '0' || name[0] > '9')
}

// String returns the pattern as it was written.
func (p *Path) String() string { return p.text }

// Clean reports whether a path reads in one way only: it begins with a slash, is
// valid UTF-8, and has no empty segments but one at its end, no dot segments, no
// backslash and no control characters.
func Clean(path string) bool {
	if path == "" || path[0] != '/' || !utf8.ValidString(path) {
		return false
	}
	start := 1
	for i, c := range path {
		if c == '\\' || unicode.IsControl(c) {
			return false
		}
		if c == '/' && i > 0 {
			if bad(path[start:i]) {
				return false
			}
			start = i + 1
		}
	}
	return start == len(path) || !bad(path[start:])
}

func bad(segment string) bool { return segment == "" || segment == "." || segment == ".." }

// Match reports whether the pattern matches a path. One that is not [Clean] is
// matched by nothing.
func (p *Path) Match(path string) bool {
	return Clean(path) && p.matches(strings.TrimSuffix(path, "/"))
}

func (p *Path) matches(rest string) bool {
	var segment string
	for _, want := range p.segments {
		if rest == "" {
			return false
		}
		segment, rest = cut(rest)
		if want != "" && want != segment {
			return false
		}
	}
	return rest == "" || p.rest
}

// MatchSegments is Match for a path that has been taken apart, whose segments may
// hold anything. fold compares letters without their case.
func (p *Path) MatchSegments(segments []string, fold bool) bool {
	if len(segments) < len(p.segments) || (len(segments) > len(p.segments) && !p.rest) {
		return false
	}
	for i, want := range p.segments {
		if want != "" && want != segments[i] && (!fold || !strings.EqualFold(want, segments[i])) {
			return false
		}
	}
	return true
}

// Covers reports whether every path that q matches is matched by p.
func (p *Path) Covers(q *Path) bool {
	if (q.rest && !p.rest) || len(q.segments) < len(p.segments) || (len(q.segments) > len(p.segments) && !p.rest) {
		return false
	}
	for i, want := range p.segments {
		if want != "" && want != q.segments[i] {
			return false
		}
	}
	return true
}

// Overlaps reports whether some path is matched by both.
func (p *Path) Overlaps(q *Path) bool {
	if len(p.segments) > len(q.segments) {
		p, q = q, p
	}
	if len(q.segments) > len(p.segments) && !p.rest {
		return false
	}
	for i, want := range p.segments {
		if other := q.segments[i]; want != "" && other != "" && want != other {
			return false
		}
	}
	return true
}

// Shape says where a pattern has variables. Patterns of one shape are told apart
// by their [Path.Key].
type Shape struct {
	// Segments is how many segments come before the rest.
	Segments uint8
	// Rest is true when the pattern matches everything below.
	Rest bool
	// Variables has a bit for each segment that is a variable.
	Variables uint32
}

// Shape returns the pattern's shape.
func (p *Path) Shape() Shape {
	s := Shape{Segments: uint8(len(p.segments)), Rest: p.rest} //nolint:gosec // at most MaxSegments
	for i, segment := range p.segments {
		if segment == "" {
			s.Variables |= 1 << i
		}
	}
	return s
}

// Key returns the text that all patterns which match the same paths share.
func (p *Path) Key() string {
	var b strings.Builder
	for _, segment := range p.segments {
		b.WriteByte('/')
		if segment == "" {
			segment = "{}"
		}
		b.WriteString(segment)
	}
	b.WriteByte('/')
	if p.rest {
		b.WriteByte('*')
	}
	return b.String()
}

// AppendKey appends the key that a pattern of the shape has if it matches the
// path, which is [Clean]. ok is false when none of the shape does.
func (s Shape) AppendKey(key []byte, path string) (_ []byte, ok bool) {
	var segment string
	rest := strings.TrimSuffix(path, "/")
	for i := range s.Segments {
		if rest == "" {
			return key, false
		}
		segment, rest = cut(rest)
		if s.Variables&(1<<i) != 0 {
			segment = "{}"
		}
		key = append(key, '/')
		key = append(key, segment...)
	}
	if rest != "" && !s.Rest {
		return key, false
	}
	key = append(key, '/')
	if s.Rest {
		key = append(key, '*')
	}
	return key, true
}

// Prefix returns what an object has to begin with to be matched by a prefix
// pattern: "docs/" for "docs/*". ok is false for a text that is no pattern, which
// is compared whole.
func Prefix(text string) (prefix string, ok bool) { return strings.CutSuffix(text, "*") }

// IsPath reports whether an object is a path pattern where objects match by path.
func IsPath(object string) bool { return strings.HasPrefix(object, "/") }

// Check refuses the object of a rule that would match something else than it says,
// where objects match in the way that is named: "exact", "prefix" or "path".
func Check(matching, object string) error {
	switch {
	case matching == "prefix":
		if prefix, _ := Prefix(object); strings.Contains(prefix, "*") {
			return errors.New("may have one *, at its end")
		}
	case matching == "path" && IsPath(object):
		_, err := ParsePath(object)
		return err
	}
	return nil
}
