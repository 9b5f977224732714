package polar

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// classes are the names that a value of a request can match.
var classes = []string{"User", "Object", "Actor", "Resource", "Boolean", "Integer", "Float", "String", "List", "Dictionary"}

// checkPolicy refuses what go-oso does harm with: "?=" runs a query while the policy
// is loaded, and if it fails reads memory that was freed; "debug" waits for the
// standard input in every query; "print" writes to the standard output. A class that
// nobody knows is a warning to it, but a rule for one never applies: one that was to
// refuse does not.
func checkPolicy(name string, policy []byte) error {
	if !utf8.Valid(policy) {
		return fmt.Errorf("polar: %s is no UTF-8", name)
	}
	var open []string // brackets
	list := tokens(string(policy))
	for i, t := range list {
		fault := func(format string, args ...any) error {
			return fmt.Errorf("polar: %s:%d: %w", name, t.line, fmt.Errorf(format, args...))
		}
		class := t.text == "matches"
		switch t.text {
		case "?=":
			return fault(`inline queries ("?=") are not run here; make them tests of the service`)
		case "debug", "print":
			return fault("%s is for the console, not for a service", t.text)
		case "(", "[", "{":
			open = append(open, t.text)
		case ")", "]", "}":
			open = open[:max(0, len(open)-1)]
		case ":":
			// In braces it stands between a key and its value.
			class = len(open) > 0 && open[len(open)-1] == "("
		}
		if next := i + 1; class && next < len(list) && list[next].word() && !slices.Contains(classes, list[next].text) {
			return fault("the class %s is unknown; there are %s", list[next].text, strings.Join(classes, ", "))
		}
	}
	return nil
}

// token is a word or a number, a string with its quotes, or a sign.
type token struct {
	text string
	line int
}

func (t token) word() bool { return strings.IndexFunc(t.text, wordPart) == 0 }

func wordPart(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) }

// tokens splits a policy, without its comments.
func tokens(text string) []token {
	var out []token
	line := 1
	for text != "" {
		r, size := utf8.DecodeRuneInString(text)
		skip := false
		switch {
		case unicode.IsSpace(r):
			skip = true
		case r == '#':
			skip = true
			if size = strings.IndexByte(text, '\n'); size < 0 {
				size = len(text)
			}
		case r == '"':
			size = quoted(text)
		case strings.HasPrefix(text, "?="):
			size = 2
		case wordPart(r):
			size = len(text) - len(strings.TrimLeftFunc(text, wordPart))
		}
		if !skip {
			out = append(out, token{text[:size], line})
		}
		line += strings.Count(text[:size], "\n")
		text = text[size:]
	}
	return out
}

// quoted returns the length of the string that the text begins with. A backslash
// takes the next character with it.
func quoted(text string) int {
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(text)
}
