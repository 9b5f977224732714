// Package pathrule finds the rules of a table that a request comes under, however
// its path is spelt.
//
// What stands behind the rules may read a path in another way than Mandate:
// decode an encoded slash, take "//" for "/", resolve dot segments, drop what
// follows a semicolon, a "#" or an encoded "?", ignore letter case or a dot at the
// end, and believe a header that names another method. So a request is read in all of these ways, and has to
// satisfy the rule of each.
package pathrule

import (
	"errors"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/mandate-auth/mandate/internal/pattern"
)

// Rule says which requests it is for.
type Rule struct {
	Path *pattern.Path
	// Methods are in capitals; GET stands for HEAD, too. None means all.
	Methods []string
}

// covers reports whether every request of the other rule is one of this.
func (r *Rule) covers(other *Rule) bool {
	if !r.Path.Covers(other.Path) {
		return false
	}
	if len(r.Methods) == 0 {
		return true
	}
	return len(other.Methods) > 0 && !slices.ContainsFunc(other.Methods, func(m string) bool { return !slices.Contains(r.Methods, m) })
}

// Table holds rules in their order; the first that matches counts. It is immutable
// and safe for concurrent use.
type Table struct {
	rules []Rule
	// folded is true where a pattern has a capital letter, so that also a path
	// without one has another reading.
	folded bool
}

// None is what [Table.Lookup] returns for a reading that no rule is for.
const None = -1

// New returns the table of the rules.
func New(rules []Rule) *Table {
	t := &Table{rules: slices.Clone(rules)}
	for _, r := range rules {
		t.folded = t.folded || strings.ToLower(r.Path.String()) != r.Path.String()
	}
	return t
}

// Shadowed returns the rule that keeps rule i from ever being the first, [None] if
// there is none.
func (t *Table) Shadowed(i int) int {
	for j := range i {
		if t.rules[j].covers(&t.rules[i]) {
			return j
		}
	}
	return None
}

// ErrPath says that a path cannot be read in any safe way: it holds control
// characters, a backslash, bytes that are no UTF-8, or an escape within an escape.
var ErrPath = errors.New("the path holds control characters, a backslash, invalid UTF-8 or a doubly encoded character")

// Lookup returns the rules that the readings of the request come under, each once,
// appended to found; [None] stands for a reading without a rule. A plain path and
// method has one reading.
func (t *Table) Lookup(r *http.Request, found []int) ([]int, error) {
	if plain(r) && !t.folded {
		var buffer [16]string
		return append(found, t.first(normal(r.Method), split(buffer[:0], r.URL.Path), false)), nil
	}
	if !readable(r.URL) {
		return nil, ErrPath
	}
	for _, method := range methods(r) {
		for _, reading := range readings(r.URL) {
			i := t.first(method, reading.segments, reading.fold)
			if !slices.Contains(found, i) {
				found = append(found, i)
			}
		}
	}
	return found, nil
}

// first returns the first rule for the method and the segments.
func (t *Table) first(method string, segments []string, fold bool) int {
	for i := range t.rules {
		r := &t.rules[i]
		if (len(r.Methods) == 0 || slices.Contains(r.Methods, method)) && r.Path.MatchSegments(segments, fold) {
			return i
		}
	}
	return None
}

// overrides are the headers that some frameworks take another method from.
var overrides = [...]string{"X-Http-Method-Override", "X-Http-Method", "X-Method-Override"}

// plain reports whether the request has one reading only: a lower-case path of
// letters, digits and a few marks, and nobody names another method.
func plain(r *http.Request) bool {
	if r.URL.RawPath != "" || strings.Contains(r.URL.RawQuery, "_method") || r.Method != strings.ToUpper(r.Method) {
		return false
	}
	for _, name := range overrides {
		if r.Header[name] != nil {
			return false
		}
	}
	p := r.URL.Path
	if p == "" || p[0] != '/' {
		return false
	}
	for i := 1; i < len(p); i++ {
		c := p[i]
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_', c == '~':
		case c == '/':
			if p[i-1] == '/' {
				return false
			}
		case c == '.':
			// One between two other characters of a segment.
			if p[i-1] == '/' || p[i-1] == '.' || i+1 == len(p) || p[i+1] == '/' {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// readable refuses what nothing behind the rules should be given.
func readable(u *url.URL) bool {
	p := u.Path
	if !utf8.ValidString(p) || strings.ContainsRune(p, '\\') || strings.IndexFunc(p, unicode.IsControl) >= 0 {
		return false
	}
	for i := 0; i+2 < len(p); i++ {
		if p[i] == '%' && hex(p[i+1]) && hex(p[i+2]) {
			return false
		}
	}
	return true
}

func hex(c byte) bool {
	return (c >= '0' && c <= '9') || (c|0x20 >= 'a' && c|0x20 <= 'f')
}

// normal returns the method as rules name it.
func normal(method string) string {
	switch method {
	case http.MethodHead, "":
		return http.MethodGet
	default:
		return method
	}
}

// methods returns every method that the request could be taken for.
func methods(r *http.Request) []string {
	out := []string{normal(r.Method)}
	add := func(text string) {
		m := normal(strings.ToUpper(strings.TrimSpace(text)))
		if text != "" && !slices.Contains(out, m) {
			out = append(out, m)
		}
	}
	add(r.Method)
	for _, name := range overrides {
		for _, line := range r.Header[name] {
			add(line)
		}
	}
	if strings.Contains(r.URL.RawQuery, "_method") {
		query, _ := url.ParseQuery(r.URL.RawQuery) // what can be read of it counts
		for _, text := range query["_method"] {
			add(text)
		}
	}
	return out
}

type reading struct {
	segments []string
	fold     bool
}

// readings returns the ways to read a path.
func readings(u *url.URL) []reading {
	decoded := u.Path
	if !strings.HasPrefix(decoded, "/") {
		decoded = "/" + decoded // "", and the "*" of OPTIONS
	}
	sent := split(nil, "/"+strings.TrimPrefix(u.EscapedPath(), "/"))
	for i, segment := range sent {
		if plain, err := url.PathUnescape(segment); err == nil {
			sent[i] = plain
		}
	}
	loose := split(nil, decoded)
	for i, segment := range loose {
		if end := strings.IndexAny(segment, ";#?"); end >= 0 {
			segment = segment[:end]
		}
		if segment != "." && segment != ".." {
			segment = strings.TrimRight(segment, ". ")
		}
		loose[i] = segment
	}
	return []reading{
		{segments: sent},
		{segments: split(nil, decoded)},
		{segments: split(nil, path.Clean(decoded))},
		{segments: split(nil, path.Clean("/"+strings.Join(loose, "/"))), fold: true},
	}
}

// split appends the segments of a path; a slash at its end adds none.
func split(segments []string, p string) []string {
	p = strings.TrimSuffix(p[1:], "/")
	for p != "" {
		segment, rest, more := strings.Cut(p, "/")
		segments = append(segments, segment)
		if p = rest; more && rest == "" {
			segments = append(segments, "")
		}
	}
	return segments
}
