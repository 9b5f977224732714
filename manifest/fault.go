package manifest

import (
	"fmt"
	"slices"
	"strings"
)

// Fault is one thing that is wrong with a manifest.
type Fault struct {
	// Pointer is where, as a JSON Pointer (RFC 6901); "" is the whole document.
	Pointer string
	// Line and Column are where in the file, from 1; 0 when unknown.
	Line, Column int
	// Value is what stands there, "[redacted]" for a secret and "" where there is
	// no one value.
	Value string
	// Problem says what is wrong and what is allowed.
	Problem string
	// Nearest is the known key that a misspelt one is closest to.
	Nearest string
}

func (f Fault) String() string {
	var b strings.Builder
	if f.Line > 0 {
		fmt.Fprintf(&b, "%d:%d: ", f.Line, f.Column)
	}
	pointer := f.Pointer
	if pointer == "" {
		pointer = "/"
	}
	b.WriteString(pointer)
	if f.Value != "" {
		b.WriteString(" = " + f.Value)
	}
	b.WriteString(": " + f.Problem)
	if f.Nearest != "" {
		fmt.Fprintf(&b, "; did you mean %q?", f.Nearest)
	}
	return b.String()
}

// Error is every fault of a manifest.
type Error struct {
	// Name is the file's name, "" when it was no file.
	Name string
	// Faults are in the order of their places.
	Faults []Fault
}

func (e *Error) Error() string {
	var b strings.Builder
	name := e.Name
	if name == "" {
		name = "manifest"
	}
	fmt.Fprintf(&b, "%s has %d fault(s):", name, len(e.Faults))
	for _, f := range e.Faults {
		b.WriteString("\n  " + f.String())
	}
	return b.String()
}

// maxFaults bounds a report. Whoever has more has another problem.
const maxFaults = 100

// fault adds a fault at pointer.
func (p *parser) fault(pointer, value, format string, args ...any) {
	if len(p.faults) >= maxFaults {
		return
	}
	if p.isSecret(pointer) && value != "" {
		value = redacted
	}
	at := p.positions[pointer]
	p.faults = append(p.faults, Fault{
		Pointer: pointer, Line: at.line, Column: at.column, Value: value, Problem: fmt.Sprintf(format, args...),
	})
}

// err returns the faults, nil when there are none.
func (p *parser) err() error {
	if len(p.faults) == 0 {
		return nil
	}
	slices.SortStableFunc(p.faults, func(a, b Fault) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		if a.Column != b.Column {
			return a.Column - b.Column
		}
		return strings.Compare(a.Pointer, b.Pointer)
	})
	return &Error{Faults: p.faults}
}

// nearest returns the name that is closest to key, "" when none is close.
func nearest(key string, names []string) string {
	best, limit := "", max(2, len(key)/3)+1
	for _, name := range names {
		if d := distance(strings.ToLower(key), name); d < limit {
			best, limit = name, d
		}
	}
	return best
}

// distance is the Levenshtein distance of two short texts.
func distance(a, b string) int {
	if len(a) > 64 {
		a = a[:64]
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
