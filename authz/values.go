package authz

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxValue is the greatest length of a subject, role, object or action in bytes.
const MaxValue = 256

// CheckValue refuses a value that could be taken for another one on its way
// through Casbin's formats: it has 1 to [MaxValue] bytes of UTF-8, no control
// characters, no comma and no double quote, and no space at its ends.
func CheckValue(field, value string) error {
	fault := func(format string, args ...any) error {
		return &ValueError{Field: field, Message: fmt.Sprintf(format, args...)}
	}
	switch {
	case value == "":
		return fault("must not be empty")
	case len(value) > MaxValue:
		return fault("has %d bytes, at most %d are kept", len(value), MaxValue)
	case !utf8.ValidString(value):
		return fault("is not valid UTF-8")
	case strings.ContainsAny(value, ",\""):
		return fault("must not hold a comma or a double quote")
	case strings.IndexFunc(value, unicode.IsControl) >= 0:
		return fault("must not hold control characters")
	case strings.TrimSpace(value) != value:
		return fault("must not begin or end with a space")
	}
	return nil
}

// CheckRole refuses what cannot be the name of a role: besides the rules of
// [CheckValue] it must not look like an identifier, or somebody could be given
// the permissions of a person by being given a role, and is not
// [SubjectAnonymous].
func CheckRole(role string) error {
	if err := CheckValue("role", role); err != nil {
		return err
	}
	if role == SubjectAnonymous || IsID(role) {
		return &ValueError{Field: "role", Message: "must not look like an identifier, and not be \"" + SubjectAnonymous + "\""}
	}
	return nil
}

// IsID reports whether the text has the form of an identifier: three lower case
// letters, an underscore and 26 characters of base32, as in "usr_…".
func IsID(text string) bool {
	if len(text) < 30 || text[3] != '_' {
		return false
	}
	for i := range 3 {
		if text[i] < 'a' || text[i] > 'z' {
			return false
		}
	}
	return strings.Trim(text[4:], "0123456789abcdefghijklmnopqrstuvwxyz") == ""
}

// MaxScopes is how many scopes a credential may have.
const MaxScopes = 64

// MaxScope is the greatest length of a scope in bytes.
const MaxScope = 128

// CheckScope refuses what is no scope-token of RFC 6749 section 3.3: printable
// ASCII without space, double quote and backslash.
func CheckScope(scope string) error {
	if scope == "" || len(scope) > MaxScope {
		return &ValueError{Field: "scope", Message: fmt.Sprintf("must have 1 to %d characters", MaxScope)}
	}
	for i := range len(scope) {
		if c := scope[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return &ValueError{Field: "scope", Message: "must be printable ASCII without spaces, double quotes and backslashes"}
		}
	}
	return nil
}

// Check refuses a permission with a value that [CheckValue] refuses, or an
// action with a colon: "object:action" has to be readable from its end.
func (p Permission) Check() error {
	if err := CheckValue("object", p.Object); err != nil {
		return err
	}
	if err := CheckValue("action", p.Action); err != nil {
		return err
	}
	if strings.Contains(p.Action, ":") {
		return &ValueError{Field: "action", Message: "must not hold a colon"}
	}
	return nil
}

// ParsePermission reads "object:action".
func ParsePermission(text string) (Permission, error) {
	i := strings.LastIndexByte(text, ':')
	if i < 0 {
		return Permission{}, &ValueError{Field: "permission", Message: "must have the form object:action"}
	}
	p := Permission{Object: text[:i], Action: text[i+1:]}
	return p, p.Check()
}

// Check refuses a rule with a value that cannot be stored.
func (r Rule) Check() error {
	if err := CheckValue("subject", r.Subject); err != nil {
		return err
	}
	if r.Effect != "" && r.Effect != Allow && r.Effect != Deny {
		return &ValueError{Field: "effect", Message: "must be \"allow\" or \"deny\""}
	}
	return r.Permission.Check()
}

// Check refuses an assignment with a value that cannot be stored, or of a role
// to itself.
func (a Assignment) Check() error {
	if err := CheckValue("subject", a.Subject); err != nil {
		return err
	}
	if a.Subject == a.Role {
		return &ValueError{Field: "role", Message: "must not be the subject itself"}
	}
	return CheckRole(a.Role)
}

// Check refuses a change with a value that cannot be stored, and one that adds and
// removes the same. It names the first fault.
func (c *Change) Check() error {
	for _, rules := range [][]Rule{c.Add, c.Remove} {
		for _, r := range rules {
			if err := r.Check(); err != nil {
				return err
			}
		}
	}
	for _, assignments := range [][]Assignment{c.Assign, c.Unassign} {
		for _, a := range assignments {
			if err := a.Check(); err != nil {
				return err
			}
		}
	}
	if overlap(c.Add, c.Remove, Rule.normal) || overlap(c.Assign, c.Unassign, func(a Assignment) Assignment { return a }) {
		return &ValueError{Field: "change", Message: "must not add and remove the same"}
	}
	return nil
}

// normal returns the rule with its effect spelt out.
func (r Rule) normal() Rule {
	if r.Effect == "" {
		r.Effect = Allow
	}
	return r
}

// overlap reports whether something stands in both lists.
func overlap[T comparable](add, remove []T, normal func(T) T) bool {
	if len(add) == 0 || len(remove) == 0 {
		return false
	}
	added := make(map[T]struct{}, len(add))
	for _, x := range add {
		added[normal(x)] = struct{}{}
	}
	for _, x := range remove {
		if _, both := added[normal(x)]; both {
			return true
		}
	}
	return false
}
