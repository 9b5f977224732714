package social

import (
	"errors"
	"fmt"
	"strings"
)

// ClaimMap says what is where in the user information of a provider without OpenID
// Connect. Each is the name of a member, or names joined by "." on the way into nested
// objects, at most eight of 1 to 64 bytes. "" is for what the provider does not say.
type ClaimMap struct {
	// Subject is a string or an integer that names the person for good. Required. An
	// e-mail address or a user name is none.
	Subject string
	// Email is an address, and EmailVerified whether it is the person's: only a JSON
	// true says so.
	Email, EmailVerified                 string
	Name, GivenName, FamilyName, Picture string
	Locale                               string
}

// standard are the claims of OpenID Connect Core section 5.1.
var standard = ClaimMap{Name: "name", GivenName: "given_name", FamilyName: "family_name", Picture: "picture", Locale: "locale"}

func (c *ClaimMap) isZero() bool { return *c == ClaimMap{} }

func (c *ClaimMap) check() error {
	if c.Subject == "" {
		return errors.New("subject is required")
	}
	if c.EmailVerified != "" && c.Email == "" {
		return errors.New("email_verified is there and email is not")
	}
	for _, path := range []string{c.Subject, c.Email, c.EmailVerified, c.Name, c.GivenName, c.FamilyName, c.Picture, c.Locale} {
		if path == "" {
			continue
		}
		names := strings.Split(path, ".")
		for _, name := range names {
			if name == "" || len(name) > 64 || len(names) > 8 {
				return fmt.Errorf("%.80q is not one to eight names of 1 to 64 bytes, joined by dots", path)
			}
		}
	}
	return nil
}

// lookup returns the value at the path, nil if there is none.
func lookup(members map[string]any, path string) any {
	for {
		name, rest, more := strings.Cut(path, ".")
		value := members[name]
		if !more {
			return value
		}
		// A list or a text on the way has no members.
		members, _ = value.(map[string]any)
		path = rest
	}
}
