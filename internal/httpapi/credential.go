package httpapi

import (
	"context"
	"net/http"
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
