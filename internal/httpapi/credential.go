package httpapi

import (
	"net/http"
	"strings"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/cookies"
)

// errTwoCredentials is the refusal of a request with two credentials: which of
// them counts must not depend on who reads it.
var errTwoCredentials = invalidRequest("Authorization", "two credentials were sent; send one")

var errTwoSubjects = invalidRequest("Authorization", "the credentials are of different subjects; send those of one")

// method says how a request brings a credential, which is known before anything
// of the credential is believed.
type method uint8

const (
	// methodBearer is a token in the Authorization header: of a user, a client or
	// another issuer.
	methodBearer method = 1 << iota
	methodCookie
	// methodAPIKey is a key in X-API-Key, or in the Authorization header by its
	// prefix.
	methodAPIKey
	methodBasic
	methodCustom
)

// presented is one credential of a request.
type presented struct {
	method method
	text   string // the token, key or cookie, or the whole header of Basic
}

// authorization returns the scheme's text of the Authorization header, for the two
// schemes that are ours: a bearer token (RFC 6750 section 2.1), and Basic (RFC
// 7617) where the app takes it. Others are not ours. It allocates nothing.
func (a *API) authorization(r *http.Request) (p presented, err error) {
	lines := r.Header["Authorization"]
	if len(lines) == 0 {
		return p, nil
	}
	if len(lines) > 1 {
		return p, errTwoCredentials
	}
	scheme, text, _ := strings.Cut(lines[0], " ")
	text = strings.Trim(text, " ")
	switch {
	case strings.EqualFold(scheme, "Bearer"):
		if !isB64token(text) {
			return p, errBadBearer
		}
		if a.config.APIKeys != nil && a.config.APIKeys.Owns(text) {
			return presented{methodAPIKey, text}, nil
		}
		return presented{methodBearer, text}, nil
	case strings.EqualFold(scheme, "Basic") && a.basic:
		return presented{methodBasic, lines[0]}, nil
	default:
		return p, nil
	}
}

// isB64token reports whether the text is a b64token of RFC 6750: "=" is padding
// and stands at the end only.
func isB64token(text string) bool {
	body := strings.TrimRight(text, "=")
	for i := range len(body) {
		if !b64token[body[i]] {
			return false
		}
	}
	return body != ""
}

// b64token is what a bearer token may hold before its padding: a table, because
// every guarded request looks up some five hundred bytes.
var b64token = func() (table [256]bool) {
	for c := range table {
		table[c] = alphanumeric(byte(c)) || strings.IndexByte("-._~+/", byte(c)) >= 0
	}
	return table
}()

var (
	errBadBearer    = invalidRequest("Authorization", "must be \"Bearer\" and one token")
	errBadKey       = invalidRequest(apiKeyHeader, "must be one API key")
	errNoBearer     = invalidRequest("Authorization", "this app takes tokens in cookies only")
	errNoBodyTokens = invalidRequest("refresh_token", "this app takes tokens in cookies only")
)

// apiKeyHeader is the header of API keys, in the form of http.Header.
const apiKeyHeader = "X-Api-Key"

// given appends every credential that the request brings, custom ones aside. Two of
// one method are a refusal.
func (a *API) given(r *http.Request, list []presented) ([]presented, error) {
	p, err := a.authorization(r)
	if err != nil {
		return nil, err
	}
	if p.method != 0 {
		list = append(list, p)
	}
	if p.method == methodBearer && a.config.Transport == TransportCookie && !a.machines {
		return nil, errNoBearer
	}
	if a.config.APIKeys != nil {
		if lines := r.Header[apiKeyHeader]; len(lines) > 0 {
			if len(lines) > 1 || p.method == methodAPIKey {
				return nil, errTwoCredentials
			}
			if !isB64token(lines[0]) {
				return nil, errBadKey
			}
			list = append(list, presented{methodAPIKey, lines[0]})
		}
	}
	if !a.cookieTransport() || len(r.Header["Cookie"]) == 0 {
		return list, nil
	}
	cookie, err := a.config.Jar.Read(r, cookies.Access, a.secure(r))
	if err != nil {
		return nil, err
	}
	if cookie != "" {
		list = append(list, presented{methodCookie, cookie})
	}
	return list, nil
}

// sole returns the one credential of the request, without a method when there is
// none.
func (a *API) sole(r *http.Request) (presented, error) {
	var buffer [3]presented
	list, err := a.given(r, buffer[:0])
	switch {
	case err != nil:
		return presented{}, err
	case len(list) > 1:
		return presented{}, errTwoCredentials
	case len(list) == 0:
		return presented{}, nil
	default:
		return list[0], nil
	}
}

func (a *API) cookieTransport() bool { return a.config.Transport != TransportBearer }

// secure reports whether the cookies of the request are the secure ones.
func (a *API) secure(r *http.Request) bool {
	return a.config.Jar.Secure(r, encrypted(r, a.config.TrustedProxies))
}

// authenticate answers who is calling: the whole way of a guarded request. The
// problem is unauthenticated when nobody says who. A custom authenticator is asked
// when the request brings no other credential: one that is wrong does not fall
// through to it.
func (a *API) authenticate(r *http.Request, strict bool) (*authz.Principal, error) {
	c, err := a.sole(r)
	if err != nil {
		return nil, err
	}
	if c.method == 0 {
		return a.custom(r, nil)
	}
	return a.identify(r, c, strict, false)
}

// Method is a name of methods_allowed in a path rule.
type Method struct {
	// Name is the name of a custom authenticator, or what the manifest calls it.
	Name string
	// Credentials are what counts as the method. A custom authenticator has none.
	Credentials []authz.Credential
}

// counts reports whether a principal came by the method.
func (m *Method) counts(c authz.Credential) bool {
	for _, own := range m.Credentials {
		if own == c {
			return true
		}
	}
	return len(m.Credentials) == 0 && string(c) == m.Name
}

// carriers are how credentials reach a request.
var carriers = map[authz.Credential]method{
	authz.CredentialBearer: methodBearer, authz.CredentialClientToken: methodBearer, authz.CredentialCookie: methodCookie,
	authz.CredentialAPIKey: methodAPIKey, authz.CredentialBasic: methodBasic, authz.CredentialClientSecret: methodBasic,
}

// named is what a path rule names, prepared.
type named struct {
	methods  []Method
	carriers method
	all      bool
	// passwords says that users may come by Basic.
	passwords bool
	custom    []string
}

func newNamed(methods []Method, all bool) *named {
	n := &named{methods: methods, all: all}
	for _, m := range methods {
		if len(m.Credentials) == 0 {
			n.custom = append(n.custom, m.Name)
			n.carriers |= methodCustom
		}
		for _, c := range m.Credentials {
			n.carriers |= carriers[c]
			n.passwords = n.passwords || c == authz.CredentialBasic
		}
	}
	return n
}

// find returns the index of the method that a credential counts as, -1 for none.
func (n *named) find(c authz.Credential) int {
	for i := range n.methods {
		if n.methods[i].counts(c) {
			return i
		}
	}
	return -1
}

// userBy is user for a rule that names the credentials that count. One that it
// does not name is as good as none, and beside one that it names a refusal: which
// of them counts must not depend on who reads it. Where several that it names are
// there, each has to be right and all of one subject.
func (a *API) userBy(r *http.Request, n *named) (*authz.Principal, error) {
	found, err := a.combine(r, n)
	if err != nil {
		return nil, err
	}
	if err := a.guests(found); err != nil {
		return nil, err
	}
	return found, a.enters(r.Context(), found)
}

// combine verifies every credential that the rule names. The principal is that of
// the method that the rule names first.
func (a *API) combine(r *http.Request, n *named) (*authz.Principal, error) {
	list, err := a.given(r, nil)
	if err != nil {
		return nil, err
	}
	by, several := make([]*authz.Principal, len(n.methods)), len(list) > 1
	if n.carriers&methodCustom != 0 {
		p, err := a.custom(r, n.custom)
		switch {
		case err == nil:
			several = several || len(list) > 0
			if err := n.take(by, p, several); err != nil {
				return nil, err
			}
		case AsProblem(err).Code != CodeUnauthenticated:
			return nil, err
		}
	}
	for _, c := range list {
		if c.method&n.carriers == 0 {
			if several {
				return nil, errTwoCredentials
			}
			return nil, errUnauthenticated
		}
		p, err := a.identify(r, c, false, n.passwords)
		if err != nil {
			return nil, err
		}
		// Whether a bearer token is a user's or a client's is known only now.
		if err := n.take(by, p, several); err != nil {
			return nil, err
		}
	}
	return n.result(by)
}

// take files a principal under the method that it came by.
func (n *named) take(by []*authz.Principal, p *authz.Principal, others bool) error {
	i := n.find(p.Credential)
	switch {
	case i < 0 && others:
		return errTwoCredentials
	case i < 0:
		return errUnauthenticated
	case by[i] != nil:
		return errTwoCredentials
	}
	by[i] = p
	return nil
}

// result returns the principal that all have in common.
func (n *named) result(by []*authz.Principal) (found *authz.Principal, err error) {
	for _, p := range by {
		switch {
		case p == nil && n.all:
			return nil, errUnauthenticated
		case p == nil:
		case found == nil:
			found = p
		case found.ID != p.ID:
			return nil, errTwoSubjects
		}
	}
	if found == nil {
		return nil, errUnauthenticated
	}
	return found, nil
}

var (
	errUnauthenticated = refuse(CodeUnauthenticated)
	errCSRF            = refuse(CodeCSRFFailed)
)
