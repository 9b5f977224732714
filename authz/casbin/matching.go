package casbin

import (
	"fmt"
	"strings"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/internal/pattern"
)

// Matching says how the objects of rules match those that are asked for. Actions
// are compared whole in any case.
type Matching string

// The ways of matching.
const (
	// MatchExact compares objects whole.
	MatchExact Matching = "exact"
	// MatchPrefix takes an object with * at its end as all that begin with what
	// stands before it: "docs/*". All others are compared whole.
	MatchPrefix Matching = "prefix"
	// MatchPath takes objects that begin with a slash as path patterns, as those of
	// net/http.ServeMux: "/users/{id}", "/files/*". All others are compared whole. A
	// path that can be read in two ways, such as "/a//b" or "/a/../b", is matched by
	// nothing.
	MatchPath Matching = "path"
)

// Known reports whether there is such a way of matching.
func (m Matching) Known() bool { return m == MatchExact || m == MatchPrefix || m == MatchPath }

// check refuses the object of a rule that would never match what it seems to.
func (m Matching) check(object string) error {
	if err := pattern.Check(string(m), object); err != nil {
		return &authz.ValueError{Field: "object", Message: "is no pattern that the app's matching knows: " + err.Error()}
	}
	return nil
}

// covers reports whether every object that the rule's object q matches is matched
// by p, and overlaps whether some object is matched by both.
func (m Matching) covers(p, q string) bool {
	switch pp, qp, paths := m.paths(p, q); {
	case paths:
		return pp.Covers(qp)
	case m != MatchPrefix:
		return p == q
	}
	prefix, wide := pattern.Prefix(p)
	if !wide {
		return p == q
	}
	return strings.HasPrefix(strings.TrimSuffix(q, "*"), prefix)
}

func (m Matching) overlaps(p, q string) bool {
	switch pp, qp, paths := m.paths(p, q); {
	case paths:
		return pp.Overlaps(qp)
	case m == MatchPrefix:
		return m.covers(p, q) || m.covers(q, p)
	default:
		return p == q
	}
}

func (m Matching) paths(p, q string) (pp, qp *pattern.Path, ok bool) {
	pp, pok := m.path(p)
	qp, qok := m.path(q)
	return pp, qp, pok && qok
}

// path returns the path pattern that the object of a rule is.
func (m Matching) path(object string) (*pattern.Path, bool) {
	if m != MatchPath || !pattern.IsPath(object) {
		return nil, false
	}
	p, err := pattern.ParsePath(object)
	return p, err == nil // one that is none was refused when it was read
}

// form is what patterns have in common that can be looked up by one key: their
// shape, or the length of their prefix.
type form struct {
	shape pattern.Shape
	// prefix is true for a prefix, which has a length and no shape.
	prefix bool
	length uint16
}

// formOf returns the form and the key of a rule's object. ok is false for one that
// is no pattern, and matches itself only.
func (m Matching) formOf(object string) (f form, key string, ok bool) {
	switch m {
	case MatchPrefix:
		prefix, wide := pattern.Prefix(object)
		return form{prefix: true, length: uint16(len(prefix))}, prefix, wide //nolint:gosec // at most authz.MaxValue
	case MatchPath:
		p, ok := m.path(object)
		if !ok {
			return form{}, "", false
		}
		return form{shape: p.Shape()}, p.Key(), true
	default:
		return form{}, "", false
	}
}

// wide reports whether a rule's object may match others than itself.
func (m Matching) wide(object string) bool {
	_, _, ok := m.formOf(object)
	return ok
}

// askable reports whether anything may match the object that is asked for.
func (m Matching) askable(object string) bool {
	return m != MatchPath || !pattern.IsPath(object) || pattern.Clean(object)
}

// PathMatch and PrefixMatch are what the built-in models match objects by, as
// functions for a stock Casbin enforcer that reads the same collection:
//
//	enforcer.AddFunction("pathMatch", casbin.PathMatch)
func PathMatch(args ...any) (any, error) { return matchFunction(MatchPath, args) }

// PrefixMatch is described at [PathMatch].
func PrefixMatch(args ...any) (any, error) { return matchFunction(MatchPrefix, args) }

func matchFunction(m Matching, args []any) (any, error) {
	if len(args) != 2 {
		return false, fmt.Errorf("%sMatch takes an object and a pattern", m)
	}
	object, ok := args[0].(string)
	text, ok2 := args[1].(string)
	if !ok || !ok2 {
		return false, fmt.Errorf("%sMatch takes an object and a pattern", m)
	}
	return m.matchOne(object, text), nil
}

// matchOne compares one rule's object, without the index.
func (m Matching) matchOne(object, text string) bool {
	if !m.askable(object) {
		return false
	}
	if prefix, wide := pattern.Prefix(text); wide && m == MatchPrefix {
		return strings.HasPrefix(object, prefix)
	}
	if p, ok := m.path(text); ok {
		return p.Match(object)
	}
	return object == text
}
