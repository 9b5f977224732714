package tokens

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	custom                   map[string]any
}

// decode reads the claims. Unlike a struct decoder it knows exactly one
// spelling of each name and refuses a name that comes twice.
func (c *claims) decode(raw []byte) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return errors.New("claims are not an object")
	}
	seen := make(map[string]bool, 16)
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return err
		}
		name, ok := token.(string)
		if !ok || seen[name] {
			return fmt.Errorf("claim %q is given twice", name)
		}
		seen[name] = true
		if err := c.set(dec, name); err != nil {
			return fmt.Errorf("claim %q: %w", name, err)
		}
	}
	if _, err := dec.Token(); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("data after the claims")
	}
	return nil
}

func (c *claims) set(dec *json.Decoder, name string) error {
	switch name {
	case "iss":
		return text(dec, &c.issuer)
	case "aud":
		return text(dec, &c.audience)
	case "client_id":
		return text(dec, &c.client)
	case "sub":
		return text(dec, &c.subject)
	case "jti":
		return text(dec, &c.id)
	case "sid":
		return text(dec, &c.session)
	case "sub_type":
		return text(dec, (*string)(&c.kind))
	case "epoch":
		return integer(dec, &c.epoch)
	case "exp":
		return numericDate(dec, &c.ExpiresAt)
	case "iat":
		return numericDate(dec, &c.IssuedAt)
	case "nbf":
		return numericDate(dec, &c.notBefore)
	case "auth_time":
		return numericDate(dec, &c.authTime)
	default:
		var v any
		if err := dec.Decode(&v); err != nil {
			return err
		}
		if c.custom == nil {
			c.custom = map[string]any{}
		}
		c.custom[name] = v
		return nil
	}
}

// text reads a string that is neither empty nor anything else.
func text(dec *json.Decoder, into *string) error {
	token, err := dec.Token()
	if err != nil {
		return err
	}
	s, ok := token.(string)
	if !ok || s == "" {
		return errors.New("not a string, or an empty one")
	}
	*into = s
	return nil
}

func integer(dec *json.Decoder, into *int64) error {
	token, err := dec.Token()
	if err != nil {
		return err
	}
	f, ok := token.(float64)
	if !ok || f != float64(int64(f)) || f < 0 || f > 1<<53 {
		return errors.New("not a whole number")
	}
	*into = int64(f)
	return nil
}

// numericDate reads a NumericDate (RFC 7519 section 2) of whole seconds.
func numericDate(dec *json.Decoder, into *time.Time) error {
	var seconds int64
	if err := integer(dec, &seconds); err != nil {
		return err
	}
	// Beyond year 9999 there is no date that anything else could write.
	if seconds == 0 || seconds > 253402300799 {
		return errors.New("not a date")
	}
	*into = time.Unix(seconds, 0).UTC()
	return nil
}
