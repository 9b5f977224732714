package users

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// NormalizeEmail returns the form of an address by which it is compared: the
// local part in Unicode NFKC without case, the domain as IDNA A-labels
// (RFC 5891). Applied twice it changes nothing.
//
// The error is a [FieldError] for anything that is not exactly one address:
// lists, display names, quoted local parts, address literals, spaces and
// control characters.
func NormalizeEmail(email string) (string, error) {
	if len(email) > 254 || !utf8.ValidString(email) {
		return "", invalid("email", "must be one e-mail address of at most 254 bytes")
	}
	for _, r := range email {
		if unicode.IsSpace(r) || unicode.IsControl(r) || !unicode.IsPrint(r) || strings.ContainsRune(`"(),:;<>[\]`, r) {
			return "", invalid("email", "must be one e-mail address without spaces, quotes or lists")
		}
	}
	local, domain, ok := strings.Cut(email, "@")
	if !ok || strings.Contains(domain, "@") {
		return "", invalid("email", "must have the form name@domain")
	}
	local = foldLocal(local)
	if local == "" || len(local) > 64 || strings.HasPrefix(local, ".") || strings.HasSuffix(local, ".") || strings.Contains(local, "..") {
		return "", invalid("email", "the part before @ must have 1 to 64 bytes and no leading, trailing or double dot")
	}
	// NFKC can turn one character into several, among them those refused above.
	if strings.ContainsAny(local, "\"(),:;<>[\\]@ ") {
		return "", invalid("email", "the part before @ holds a character that is not allowed")
	}
	ascii, err := idna.Lookup.ToASCII(domain)
	if err != nil || ascii == "" || len(ascii) > 253 || strings.HasSuffix(ascii, ".") || strings.HasPrefix(ascii, ".") || strings.Contains(ascii, "..") {
		return "", invalid("email", "the part after @ is not a domain name")
	}
	return local + "@" + strings.ToLower(ascii), nil
}

// foldLocal repeats until nothing changes: folding can leave what NFKC composes
// and the other way round.
func foldLocal(s string) string {
	for range 4 {
		next := norm.NFKC.String(cases.Fold().String(norm.NFKC.String(s)))
		if next == s {
			return s
		}
		s = next
	}
	return ""
}
