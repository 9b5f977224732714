package users

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"
)

// NormalizeEmail returns the form of an address by which it is compared: the
// local part in lower case, the domain as IDNA A-labels (RFC 5891). Applied twice it
// changes nothing, and no two addresses that differ in more than case have one form.
//
// The error is a [FieldError] for anything that is not exactly one address: lists,
// display names, quoted local parts, address literals, spaces and control characters,
// and for a local part with characters that Unicode takes for others.
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
	// A letter that is another one for NFKC, the Kelvin sign or a wide letter, can be
	// another mailbox, whose owner would have the account of this one.
	if norm.NFD.IsNormalString(local) {
		local = norm.NFC.String(local) // the same letters, as some systems write them
	}
	folded := strings.Map(lower, local)
	if norm.NFKC.String(local) != local || norm.NFKC.String(folded) != folded {
		return "", invalid("email", "the part before @ holds a character that is not allowed")
	}
	local = folded
	if local == "" || len(local) > 64 || strings.HasPrefix(local, ".") || strings.HasSuffix(local, ".") || strings.Contains(local, "..") {
		return "", invalid("email", "the part before @ must have 1 to 64 bytes and no leading, trailing or double dot")
	}
	ascii, err := idna.Lookup.ToASCII(domain)
	if err != nil || ascii == "" || len(ascii) > 253 || strings.HasSuffix(ascii, ".") || strings.HasPrefix(ascii, ".") || strings.Contains(ascii, "..") {
		return "", invalid("email", "the part after @ is not a domain name")
	}
	return local + "@" + strings.ToLower(ascii), nil
}

// lower is r in lower case, where that is r and nothing else in lower case: a dotless or
// dotted i of Turkish and a sharp s are letters of their own, and so mailboxes.
func lower(r rune) rune {
	if l := unicode.ToLower(r); unicode.ToUpper(l) == r {
		return l
	}
	return r
}
