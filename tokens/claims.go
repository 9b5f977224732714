package tokens

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mandate-auth/mandate/authz"
)

// reserved are the names of claims that Mandate writes or that RFC 7519 and
// RFC 9068 give a meaning.
var reserved = map[string]bool{
	"iss": true, "sub": true, "aud": true, "exp": true, "nbf": true, "iat": true, "jti": true,
	"client_id": true, "auth_time": true, "sid": true, "sub_type": true, "epoch": true,
	"scope": true, "acr": true, "amr": true, "cnf": true, "act": true, "roles": true, "groups": true, "entitlements": true,
}

// claims are the claims of a token.
type claims struct {
	Lifetime
	issuer, audience, client string
	subject, id, session     string
	kind                     authz.Kind
	epoch                    int64
	authTime, notBefore      time.Time
	scopes                   []string
	custom                   map[string]any
}

// decode reads the claims. Unlike a struct decoder it knows exactly one
// spelling of each name and refuses a name that comes twice.
func (c *claims) decode(raw []byte) error {
	list, err := members(raw)
	if err != nil {
		return err
	}
	seen := make([]string, 0, 16)
	for name, value := range list {
		if slices.Contains(seen, name) {
			return fmt.Errorf("claim %q is given twice", name)
		}
		if len(seen) == maxClaims {
			return fmt.Errorf("more than %d claims", maxClaims)
		}
		seen = append(seen, name)
		if err := c.set(name, value); err != nil {
			return fmt.Errorf("claim %q: %w", name, err)
		}
	}
	return nil
}

// maxClaims bounds the claims of a token.
const maxClaims = 128

func (c *claims) set(name string, value []byte) error {
	switch name {
	case "iss":
		return text(value, &c.issuer)
	case "aud":
		return text(value, &c.audience)
	case "client_id":
		return text(value, &c.client)
	case "sub":
		return text(value, &c.subject)
	case "jti":
		return text(value, &c.id)
	case "sid":
		return text(value, &c.session)
	case "sub_type":
		return text(value, (*string)(&c.kind))
	case "scope":
		var list string
		if err := text(value, &list); err != nil {
			return err
		}
		c.scopes = strings.Split(list, " ")
		return CheckScopes(c.scopes)
	case "epoch":
		return integer(value, &c.epoch)
	case "exp":
		return numericDate(value, &c.ExpiresAt)
	case "iat":
		return numericDate(value, &c.IssuedAt)
	case "nbf":
		return numericDate(value, &c.notBefore)
	case "auth_time":
		return numericDate(value, &c.authTime)
	default:
		var v any
		if err := json.Unmarshal(value, &v); err != nil {
			return err
		}
		if c.custom == nil {
			c.custom = map[string]any{}
		}
		c.custom[name] = v
		return nil
	}
}

// CheckScopes refuses a list that no token carries: a scope that [authz.CheckScope]
// refuses, one that comes twice, or more than [authz.MaxScopes].
func CheckScopes(scopes []string) error {
	if len(scopes) > authz.MaxScopes {
		return fmt.Errorf("more than %d scopes", authz.MaxScopes)
	}
	for i, scope := range scopes {
		if err := authz.CheckScope(scope); err != nil {
			return err
		}
		if slices.Contains(scopes[:i], scope) {
			return fmt.Errorf("the scope %q is given twice", scope)
		}
	}
	return nil
}

// text reads a string that is neither empty nor anything else.
func text(value []byte, into *string) error {
	if value[0] != '"' || len(value) == 2 {
		return errors.New("not a string, or an empty one")
	}
	*into = unquote(value)
	return nil
}

// integer reads a whole number that is written as one.
func integer(value []byte, into *int64) error {
	n, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil || n < 0 || n > 1<<53 {
		return errors.New("not a whole number")
	}
	*into = n
	return nil
}

// numericDate reads a NumericDate (RFC 7519 section 2) of whole seconds.
func numericDate(value []byte, into *time.Time) error {
	var seconds int64
	if err := integer(value, &seconds); err != nil {
		return err
	}
	// Beyond year 9999 there is no date that anything else could write.
	if seconds == 0 || seconds > 253402300799 {
		return errors.New("not a date")
	}
	*into = time.Unix(seconds, 0).UTC()
	return nil
}
