// Package localpath tells the paths of the service itself from everything else that
// a browser could be sent to.
//
// What is written into "Location" is read by the URL parser of browsers
// (https://url.spec.whatwg.org), which is more generous than RFC 3986 and than
// net/url: it takes "\" for "/", drops tabs and line ends wherever they stand, and
// knows "%2e" as a dot segment. [Valid] answers for that parser.
package localpath

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxLength is the length of the longest valid path, in bytes, with its query and
// its fragment.
const MaxLength = 2048

// Valid reports whether s is a path, with or without a query and a fragment, that
// every browser resolves to the origin that it came from. So it begins with one "/",
// and holds no backslash, no control characters and no invalid UTF-8. Escapes are
// not decoded, no browser does that.
//
// A path that is "//…" once its dot segments are resolved, such as "/..//host",
// stays on the origin but is refused: it is another host for whoever makes a
// redirect of the path that was asked for.
func Valid(s string) bool {
	if !strings.HasPrefix(s, "/") || strings.HasPrefix(s, "//") || len(s) > MaxLength || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r == '\\' || unicode.IsControl(r) {
			return false
		}
	}
	path := s
	if end := strings.IndexAny(s, "?#"); end >= 0 {
		path = s[:end]
	}
	return !doubled(path)
}

// doubled reports whether the path begins with two slashes once its dot segments
// are resolved, as the "path state" of the standard does it. All that has to be
// known of what is resolved so far is how many segments it has, and whether the
// first of them is empty.
func doubled(path string) bool {
	depth, empty := 0, false
	push := func(segment string) {
		if depth == 0 {
			empty = segment == ""
		}
		depth++
	}
	for rest, more := path[1:], true; more; {
		var segment string
		segment, rest, more = strings.Cut(rest, "/")
		switch dots(segment) {
		case 1:
		case 2:
			depth = max(depth-1, 0)
		default:
			push(segment)
			continue
		}
		if !more {
			push("")
		}
	}
	return empty && depth > 1
}

// dots returns how many dots a segment consists of, 0 if it is not of dots alone.
func dots(segment string) int {
	n := 0
	for ; segment != ""; n++ {
		switch {
		case segment[0] == '.':
			segment = segment[1:]
		case len(segment) >= 3 && strings.EqualFold(segment[:3], "%2e"):
			segment = segment[3:]
		default:
			return 0
		}
	}
	return n
}
