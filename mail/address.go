package mail

import (
	"errors"
	"fmt"
	netmail "net/mail"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"
)

// ParseAddress returns the address that s is, its domain as IDNA A-labels (RFC 5891) and
// its local part as it was. The error wraps [ErrInvalidMessage] for anything that is not
// exactly one address: lists, names, comments, quoted local parts, address literals,
// routes, a second "@", spaces and control characters.
func ParseAddress(s string) (string, error) {
	address, err := parseAddress(s)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrInvalidMessage, err)
	}
	return address, nil
}

// specials have a meaning in lists, names, comments and routes (RFC 5322, section 3.2.3).
const specials = `"(),:;<>@[\] `

var (
	errForm   = errors.New("give one address of the form name@domain, without a name beside it")
	errLocal  = errors.New("the part before @ needs 1 to 64 bytes, no quotes, and no leading, trailing or double dot")
	errDomain = errors.New("the part after @ is not a domain name")
	errName   = errors.New("the name needs at most 128 bytes without control characters and without any of \" < > @ , ; : \\ ( ) [ ] =?")
)

func parseAddress(s string) (string, error) {
	local, domain, found := strings.Cut(s, "@")
	if !found || len(s) > 254 || !utf8.ValidString(s) || strings.Contains(domain, "@") {
		return "", errForm
	}
	// What a server that folds compatible characters would take for a special is one, too.
	if local == "" || len(local) > 64 || strings.ContainsFunc(local, unfit) || strings.ContainsAny(norm.NFKC.String(local), specials) ||
		strings.HasPrefix(local, ".") || strings.HasSuffix(local, ".") || strings.Contains(local, "..") {
		return "", errLocal
	}
	ascii, err := idna.Lookup.ToASCII(domain)
	if err != nil || !hostName(ascii) {
		return "", errDomain
	}
	address := local + "@" + strings.ToLower(ascii)
	if len(address) > 254 {
		return "", errForm
	}
	return address, nil
}

func unfit(r rune) bool {
	return unicode.IsSpace(r) || !unicode.IsPrint(r) || strings.ContainsRune(specials, r)
}

// hostName reports whether s is a domain name of letters, digits and hyphens.
func hostName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") != "" ||
			label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	return true
}

// parseSender reads an address, or a name and an address in angle brackets.
func parseSender(s string) (netmail.Address, error) {
	name, rest, found := strings.Cut(s, "<")
	if !found {
		address, err := parseAddress(s)
		return netmail.Address{Address: address}, err
	}
	inner, closed := strings.CutSuffix(rest, ">")
	name = strings.TrimSpace(name)
	if !closed || name == "" {
		return netmail.Address{}, errForm
	}
	if len(name) > 128 || !utf8.ValidString(name) || strings.ContainsFunc(name, disruptive) ||
		strings.ContainsAny(name, strings.TrimSpace(specials)) || strings.Contains(name, "=?") {
		return netmail.Address{}, errName
	}
	address, err := parseAddress(inner)
	return netmail.Address{Name: name, Address: address}, err
}

// isASCII reports whether every server can take the address.
func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf })
}
