package oauth2

import (
	"encoding/base64"
	"net/url"
	"strings"
)

// GrantClientCredentials is the one grant that is served (RFC 6749 section 4.4).
const GrantClientCredentials = "client_credentials"

const (
	// maxForm is the longest body that is read, in bytes.
	maxForm = 16 << 10
	// maxAuthorization is the longest Authorization header that is read, in bytes: an
	// id and a secret with every byte escaped, in base64.
	maxAuthorization = 4 << 10
)

// Form is what a client may say in the body of a request about itself.
type Form struct {
	// ClientID and ClientSecret authenticate it, where it does not use HTTP Basic.
	ClientID, ClientSecret string
}

// TokenRequest is the body of a request to the token endpoint.
type TokenRequest struct {
	Form
	// GrantType is [GrantClientCredentials].
	GrantType string
	// Scope is a list of scopes as [GrantScopes] reads it, or "".
	Scope string
}

// TokenQuery is the body of a request to the introspection endpoint (RFC 7662
// section 2.1) or the revocation endpoint (RFC 7009 section 2.1).
type TokenQuery struct {
	Form
	// Token is never empty.
	Token string
	// TokenTypeHint may be wrong and is a hint only.
	TokenTypeHint string
}

// ParseTokenRequest reads a body of application/x-www-form-urlencoded (RFC 6749
// section 4.4.2). A parameter that is known and comes twice, or has no form, is
// [ErrInvalidRequest]; one without a value counts as left out, and one that is not
// known is ignored (section 3.2). A grant other than client_credentials is
// [ErrUnsupportedGrantType].
func ParseTokenRequest(body string) (*TokenRequest, error) {
	r := &TokenRequest{}
	if err := parse(body, map[string]*string{
		"grant_type": &r.GrantType, "scope": &r.Scope,
		"client_id": &r.ClientID, "client_secret": &r.ClientSecret,
	}); err != nil {
		return nil, err
	}
	switch r.GrantType {
	case GrantClientCredentials:
		return r, nil
	case "":
		return nil, invalidRequest("grant_type is required")
	default:
		return nil, ErrUnsupportedGrantType
	}
}

// ParseTokenQuery reads the body of an introspection or a revocation, by the rules of
// [ParseTokenRequest].
func ParseTokenQuery(body string) (*TokenQuery, error) {
	q := &TokenQuery{}
	if err := parse(body, map[string]*string{
		"token": &q.Token, "token_type_hint": &q.TokenTypeHint,
		"client_id": &q.ClientID, "client_secret": &q.ClientSecret,
	}); err != nil {
		return nil, err
	}
	if q.Token == "" {
		return nil, invalidRequest("token is required")
	}
	return q, nil
}

// parse reads the parameters that known names into what it points to.
func parse(body string, known map[string]*string) error {
	if len(body) > maxForm {
		return invalidRequest("the body is too long")
	}
	values, err := url.ParseQuery(body)
	if err != nil {
		return invalidRequest("the body is not a form")
	}
	for name, into := range known {
		switch given := values[name]; {
		case len(given) > 1:
			return invalidRequest("a parameter is given twice")
		case len(given) == 1:
			*into = given[0]
		}
	}
	return nil
}

// Credentials returns how a client authenticates: by HTTP Basic when there is an
// Authorization header, otherwise by the form. One that does both is
// [ErrInvalidRequest] (RFC 6749 section 2.3), one that does neither, or by another
// scheme than Basic, is [ErrInvalidClient]. The client_id alone may be given beside
// Basic when it is the same.
func (f *Form) Credentials(authorization string) (id, secret string, err error) {
	if authorization == "" {
		if f.ClientID == "" || f.ClientSecret == "" {
			return "", "", ErrInvalidClient
		}
		return f.ClientID, f.ClientSecret, nil
	}
	id, secret, err = ParseBasic(authorization)
	switch {
	case err != nil:
		return "", "", err
	case f.ClientSecret != "":
		return "", "", invalidRequest("the client authenticates in two ways")
	case f.ClientID != "" && f.ClientID != id:
		return "", "", invalidRequest("the request names two clients")
	}
	return id, secret, nil
}

// ParseBasic reads the id and the secret of a client out of an Authorization header
// (RFC 6749 section 2.3.1): each is form-encoded, which a secret that is made here
// survives unchanged and one from the environment with "%" or "+" in it does not. A
// header that is malformed is [ErrInvalidRequest], another scheme than Basic
// [ErrInvalidClient].
func ParseBasic(header string) (id, secret string, err error) {
	if len(header) > maxAuthorization {
		return "", "", invalidRequest("the Authorization header is too long")
	}
	scheme, encoded, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Basic") {
		return "", "", ErrInvalidClient
	}
	malformed := invalidRequest("the Authorization header is malformed")
	raw, err := base64.StdEncoding.Strict().DecodeString(strings.TrimLeft(encoded, " "))
	if err != nil || strings.ContainsAny(encoded, "\r\n") { // which the decoder skips
		return "", "", malformed
	}
	rawID, rawSecret, ok := strings.Cut(string(raw), ":")
	if !ok {
		return "", "", malformed
	}
	if id, err = url.QueryUnescape(rawID); err != nil {
		return "", "", malformed
	}
	if secret, err = url.QueryUnescape(rawSecret); err != nil {
		return "", "", malformed
	}
	if id == "" || secret == "" {
		return "", "", ErrInvalidClient
	}
	return id, secret, nil
}
