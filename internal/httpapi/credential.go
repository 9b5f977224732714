package httpapi

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/cookies"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/sessions"
	"github.com/mandate-auth/mandate/tokens"
)

// errTwoCredentials is the refusal of a request with two credentials: which of
// them counts must not depend on who reads it.
var errTwoCredentials = invalidRequest("Authorization", "two credentials were sent; send one")

var errTwoSubjects = invalidRequest("Authorization", "the credentials are of different subjects; send those of one")

// bearer returns the token of the Authorization header (RFC 6750 section 2.1),
// "" when there is none. Other schemes are not ours. It allocates nothing.
func bearer(r *http.Request) (string, error) {
	lines := r.Header["Authorization"]
	if len(lines) == 0 {
		return "", nil
	}
	if len(lines) > 1 {
		return "", errTwoCredentials
	}
	scheme, token, _ := strings.Cut(lines[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", nil
	}
	token = strings.Trim(token, " ")
	if token == "" {
		return "", errBadBearer
	}
	// b64token: "=" is padding and stands at the end only.
	body := strings.TrimRight(token, "=")
	if body == "" {
		return "", errBadBearer
	}
	for i := range len(body) {
		if !b64token[body[i]] {
			return "", errBadBearer
		}
	}
	return token, nil
}

// b64token is what a bearer token may hold before its padding: a table, because
// every guarded request looks up some five hundred bytes.
var b64token = func() (table [256]bool) {
	for c := range table {
		table[c] = alphanumeric(byte(c)) || strings.IndexByte("-._~+/", byte(c)) >= 0
	}
	return table
}()

var errBadBearer = invalidRequest("Authorization", "must be \"Bearer\" and one token")

// credential returns the access token of the request and how it came.
func (a *API) credential(r *http.Request) (string, authz.Credential, error) {
	header, err := bearer(r)
	if err != nil {
		return "", "", err
	}
	if !a.cookieTransport() || (header != "" && len(r.Header["Cookie"]) == 0 && a.config.Transport == TransportBoth) {
		return header, authz.CredentialBearer, nil
	}
	cookie, err := a.config.Jar.Read(r, cookies.Access, a.secure(r))
	if err != nil {
		return "", "", err
	}
	switch {
	case header != "" && cookie != "":
		return "", "", errTwoCredentials
	case cookie != "":
		return cookie, authz.CredentialCookie, nil
	case header != "" && a.config.Transport == TransportCookie:
		return "", "", errNoBearer
	default:
		return header, authz.CredentialBearer, nil
	}
}

var (
	errNoBearer      = invalidRequest("Authorization", "this app takes tokens in cookies only")
	errNoBodyRefresh = invalidRequest("refresh_token", "this app takes tokens in cookies only")
)

func (a *API) cookieTransport() bool { return a.config.Transport != TransportBearer }

// secure reports whether the cookies of the request are the secure ones.
func (a *API) secure(r *http.Request) bool {
	return a.config.Jar.Secure(r, encrypted(r, a.config.TrustedProxies))
}

// authenticate answers who is calling: the whole way of a guarded request. The
// problem is unauthenticated when nobody says who.
func (a *API) authenticate(r *http.Request, strict bool) (*authz.Principal, error) {
	text, how, err := a.credential(r)
	if err != nil {
		return nil, err
	}
	if text == "" {
		return nil, errUnauthenticated
	}
	return a.identify(r, text, how, strict)
}

// identify answers whose the credential is.
func (a *API) identify(r *http.Request, text string, how authz.Credential, strict bool) (*authz.Principal, error) {
	if how == authz.CredentialCookie && a.crossOrigin(r) {
		a.report(r.Context(), event.CrossOriginRefused, event.Failure, "", "guard")
		return nil, errCSRF
	}
	v, err := a.verify(r.Context(), text, strict)
	if err != nil {
		return nil, err
	}
	return v.Principal(how), nil
}

// userBy is user for a rule that names the credentials that count. One that it
// does not name is as good as none, and beside one that it names a refusal: which
// of them counts must not depend on who reads it. Where it names both and both are
// there, they have to be of one subject.
func (a *API) userBy(r *http.Request, credentials []authz.Credential, all bool) (*authz.Principal, error) {
	given, err := a.given(r)
	if err != nil {
		return nil, err
	}
	if given[0].text != "" && given[1].text != "" && len(credentials) < len(given) {
		return nil, errTwoCredentials
	}
	var found *authz.Principal
	for _, c := range given {
		if !slices.Contains(credentials, c.how) {
			continue
		}
		if c.text == "" {
			if all {
				return nil, errUnauthenticated
			}
			continue
		}
		p, err := a.identify(r, c.text, c.how, false)
		if err != nil {
			return nil, err
		}
		if found != nil && found.ID != p.ID {
			return nil, errTwoSubjects
		}
		if found == nil {
			found = p
		}
	}
	if found == nil {
		return nil, errUnauthenticated
	}
	if err := a.guests(found); err != nil {
		return nil, err
	}
	return found, a.enters(r.Context(), found)
}

type givenCredential struct {
	text string
	how  authz.Credential
}

// given returns every credential that the request brings.
func (a *API) given(r *http.Request) (given [2]givenCredential, err error) {
	given[0].how, given[1].how = authz.CredentialBearer, authz.CredentialCookie
	if given[0].text, err = bearer(r); err != nil {
		return given, err
	}
	if given[0].text != "" && a.config.Transport == TransportCookie {
		return given, errNoBearer
	}
	if a.cookieTransport() {
		given[1].text, err = a.config.Jar.Read(r, cookies.Access, a.secure(r))
	}
	return given, err
}

// verify checks a token and the living state.
func (a *API) verify(ctx context.Context, text string, strict bool) (*tokens.Verified, error) {
	v, err := a.config.Tokens.Verify(text)
	if err != nil {
		return nil, err
	}
	if err := a.config.Blacklist.Check(ctx, v); err != nil {
		return nil, err
	}
	if strict || a.config.Strict {
		if _, err := a.config.Sessions.Check(ctx, v.Subject(), v.SessionID()); err != nil {
			return nil, err
		}
	}
	if v.NoteUse(a.config.Now(), sessions.ActivityInterval) {
		a.config.Sessions.Seen(v.SessionID())
	}
	return v, nil
}

var (
	errUnauthenticated = refuse(CodeUnauthenticated)
	errCSRF            = refuse(CodeCSRFFailed)
)
