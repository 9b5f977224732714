package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/cookies"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/sessions"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/users"
)

// refreshToken returns the refresh token of the request: of the body, or of the
// cookie, never of both.
func (a *API) refreshToken(w http.ResponseWriter, r *http.Request) (token string, t Transport, err error) {
	if err := decode(w, r, fields{"refresh_token": &token}); err != nil {
		return "", "", err
	}
	if !a.cookieTransport() {
		return token, TransportBearer, nil
	}
	cookie, err := a.config.Jar.Read(r, cookies.Refresh, a.secure(r))
	switch {
	case err != nil:
		return "", "", err
	case token != "" && cookie != "":
		return "", "", invalidRequest("refresh_token", "comes in the body and in a cookie; send one")
	case cookie != "":
		return cookie, TransportCookie, nil
	default:
		return token, TransportBearer, nil
	}
}

func (a *API) refresh(w http.ResponseWriter, r *http.Request) error {
	token, t, err := a.refreshToken(w, r)
	if err != nil {
		return err
	}
	if token == "" {
		return errUnauthenticated
	}
	if t == TransportBearer && a.config.Transport == TransportCookie {
		return errNoBodyTokens
	}
	// By the session: with the token of one that has ended nobody holds up its owner.
	userID, sessionID := a.config.Sessions.Owner(token)
	if err := a.limitAs(w, r, LimitRefresh, called(userID), sessionID, ""); err != nil {
		return err
	}
	g, err := a.Refresh(r.Context(), token, a.device(r, "", ""))
	if err != nil {
		// The cookies of a session that is over go; those of a lost race or of an
		// outage stay.
		if t == TransportCookie && is(err, sessions.ErrExpired, sessions.ErrReused, sessions.ErrTokenInvalid) {
			a.ClearCookies(w, r)
		}
		return err
	}
	out := a.tokens(g.Session, g.Access)
	if t == TransportCookie {
		if err := a.SetCookies(w, r, g.Session, g.Access, ""); err != nil {
			return err
		}
		out.AccessToken, out.RefreshToken, out.TokenType = "", "", ""
	}
	write(w, http.StatusOK, out)
	return nil
}

// logout ends the sessions whose tokens the request carries, also with an access
// token that has expired. Signing out again succeeds: there is nothing left to
// end. When the end could not be stored the cookies stay, so that it can be
// tried again.
func (a *API) logout(w http.ResponseWriter, r *http.Request) error {
	token, t, err := a.refreshToken(w, r)
	if err != nil {
		return err
	}
	access, err := a.sole(r)
	if err != nil {
		return err
	}
	ended := ""
	if token != "" {
		err := a.config.Sessions.EndByToken(r.Context(), token, "logout")
		if err == nil { // the token is genuine
			_, ended = a.config.Sessions.Owner(token)
		}
		// A cookie that means nothing any more is simply cleared.
		if err != nil && !is(err, sessions.ErrNotFound) && (t != TransportCookie || !is(err, sessions.ErrTokenInvalid)) {
			return err
		}
	}
	if access.method == methodBearer || access.method == methodCookie {
		if err := a.endByAccess(r, access.text, "logout", access.method == methodCookie || token != "", ended); err != nil {
			return err
		}
	}
	if a.cookieTransport() {
		a.ClearCookies(w, r)
	}
	nothing(w)
	return nil
}

// endByAccess ends the session of an access token. lenient ignores a token that
// means nothing: a cookie that is simply cleared, or one beside a token that did. A session
// that has just been ended by its refresh token is not ended twice.
func (a *API) endByAccess(r *http.Request, access, reason string, lenient bool, ended string) error {
	v, err := a.ended(r.Context(), access)
	if err != nil {
		if lenient && is(err, tokens.ErrInvalid, tokens.ErrMalformed) {
			return nil
		}
		return err
	}
	if v.SessionID() == ended {
		return nil
	}
	err = a.config.Sessions.End(r.Context(), v.Subject(), v.SessionID(), reason)
	if is(err, sessions.ErrNotFound) {
		return nil
	}
	return err
}

// SignOut ends the session whose cookies the request carries and clears them,
// for a service with a sign-out of its own.
func (a *API) SignOut(w http.ResponseWriter, r *http.Request) error {
	if err := a.endCookies(r, "sign_out"); err != nil {
		return err
	}
	a.ClearCookies(w, r)
	return nil
}

// endCookies ends the sessions whose cookies the request carries. Outside the
// base path a browser sends the access cookie alone.
func (a *API) endCookies(r *http.Request, reason string) error {
	secure, ended := a.secure(r), ""
	for _, kind := range []cookies.Kind{cookies.Refresh, cookies.Access} {
		value, err := a.config.Jar.Read(r, kind, secure)
		if err != nil {
			return err
		}
		switch {
		case value == "":
		case kind == cookies.Refresh:
			if err = a.config.Sessions.EndByToken(r.Context(), value, reason); err == nil { // the token is genuine
				_, ended = a.config.Sessions.Owner(value)
			}
		default:
			err = a.endByAccess(r, value, reason, true, ended)
		}
		if err != nil && !is(err, sessions.ErrNotFound, sessions.ErrTokenInvalid) {
			return err
		}
	}
	return nil
}

// SignIn begins a session of a user whom the service has identified by itself and
// hands it to the browser in cookies. As with POST /login, the session that the
// browser had before ends.
func (a *API) SignIn(w http.ResponseWriter, r *http.Request, userID string) error {
	if !a.cookieTransport() {
		return errNoCookies
	}
	g, err := a.start(r.Context(), users.ProveByService(userID), a.Device(r), false, entering{before: func(string) error { return a.endCookies(r, "replaced") }})
	if err != nil {
		return err
	}
	return a.SetCookies(w, r, g.Session, g.Access, "")
}

var errNoCookies = errors.New(`the manifest's auth.tokens.transport is "bearer": nobody would read the cookies; set it to "both" or "cookie"`)

// Verify checks an access token as a guard does, however the app's people bring theirs.
func (a *API) Verify(ctx context.Context, token string) (*authz.Principal, error) {
	if a.config.APIKeys != nil && a.config.APIKeys.Owns(token) {
		return a.config.APIKeys.Verify(ctx, token)
	}
	return a.byToken(ctx, presented{methodBearer, token}, false)
}

// Refresh exchanges a refresh token, as POST /refresh does.
func (a *API) Refresh(ctx context.Context, token string, d sessions.Device) (*Grant, error) {
	s, err := a.config.Sessions.Refresh(ctx, token, d)
	if err != nil {
		return nil, err
	}
	access, err := a.access(ctx, s)
	if err != nil {
		return nil, err
	}
	// Had the keys been ended meanwhile, these would be signed with the next ones, and
	// outlive what was to end.
	if _, sessionID := a.config.Sessions.Owner(token); sessionID == "" {
		return nil, fmt.Errorf("%w: its key has ended", sessions.ErrTokenInvalid)
	}
	return &Grant{Session: s, Access: access}, nil
}

// Device describes where a request comes from.
func (a *API) Device(r *http.Request) sessions.Device { return a.device(r, "", "") }

// NotFound answers 404 as the routes do.
func (a *API) NotFound(w http.ResponseWriter, r *http.Request) {
	r = a.beginRequest(w, r)
	a.config.Headers.set(w, r)
	a.fail(w, r, refuse(CodeNotFound))
}

// sessionView is a session in a list.
type sessionView struct {
	ID         string     `json:"id"`
	Device     deviceView `json:"device"`
	IP         string     `json:"ip,omitempty"`
	CreatedAt  time.Time  `json:"created_at"`
	LastSeenAt time.Time  `json:"last_seen_at"`
	ExpiresAt  time.Time  `json:"expires_at"`
	Current    bool       `json:"current"`
}

type deviceView struct {
	ID        string `json:"id,omitempty"`
	Name      string `json:"name,omitempty"`
	UserAgent string `json:"user_agent,omitempty"`
}

func (a *API) listSessions(w http.ResponseWriter, r *http.Request) error {
	p, err := a.account(r)
	if err != nil {
		return err
	}
	list, err := a.config.Sessions.List(r.Context(), p.ID)
	if err != nil {
		return err
	}
	out := struct {
		Sessions []sessionView `json:"sessions"`
	}{Sessions: make([]sessionView, len(list))}
	for i, s := range list {
		out.Sessions[i] = sessionView{
			ID: s.ID, Device: deviceView{ID: s.DeviceID, Name: s.DeviceName, UserAgent: s.UserAgent}, IP: s.IP,
			CreatedAt: s.CreatedAt, LastSeenAt: s.LastSeenAt, ExpiresAt: s.ExpiresAt, Current: s.ID == p.SessionID,
		}
	}
	write(w, http.StatusOK, out)
	return nil
}

func (a *API) endSession(w http.ResponseWriter, r *http.Request) error {
	p, err := a.account(r)
	if err != nil {
		return err
	}
	id := r.PathValue("id")
	if err := a.config.Sessions.End(r.Context(), p.ID, id, "ended_by_user"); err != nil {
		return err
	}
	if id == p.SessionID && a.cookieTransport() {
		a.ClearCookies(w, r)
	}
	nothing(w)
	return nil
}

func (a *API) endSessions(w http.ResponseWriter, r *http.Request) error {
	p, err := a.account(r)
	if err != nil {
		return err
	}
	all := ""
	if err := queryOf(r, map[string]*string{"all": &all}); err != nil {
		return err
	}
	switch all {
	case "", "false":
		err = a.config.Sessions.EndOthers(r.Context(), p.ID, p.SessionID, "ended_by_user")
	case "true":
		err = a.config.Sessions.EndAll(r.Context(), p.ID, "ended_by_user")
		if err == nil && a.cookieTransport() {
			a.ClearCookies(w, r)
		}
	default:
		err = invalidRequest("all", "must be true or false")
	}
	if err != nil {
		return err
	}
	nothing(w)
	return nil
}

// principalView is a principal as GET /me shows it.
type principalView struct {
	ID         string         `json:"id"`
	Kind       string         `json:"kind"`
	App        string         `json:"app"`
	ClientID   string         `json:"client_id,omitempty"`
	IsM2M      bool           `json:"is_m2m"`
	Issuer     string         `json:"issuer,omitempty"`
	SessionID  string         `json:"session_id,omitempty"`
	Credential string         `json:"credential"`
	AuthTime   time.Time      `json:"auth_time,omitzero"`
	ExpiresAt  time.Time      `json:"expires_at,omitzero"`
	Roles      []string       `json:"roles"`
	Scopes     []string       `json:"scopes,omitempty"`
	Claims     map[string]any `json:"claims,omitempty"`
}

func (a *API) me(w http.ResponseWriter, r *http.Request) error {
	p, err := a.caller(r)
	if err != nil {
		return err
	}
	// Roles are the policy's, not the credential's: when they cannot be had, who is
	// calling is still an answer.
	roles, err := a.config.Authz.RolesOf(r.Context(), p)
	if err != nil {
		roles = nil
	}
	write(w, http.StatusOK, struct {
		Principal principalView `json:"principal"`
	}{principalView{
		ID: p.ID, Kind: string(p.Kind), App: p.App, ClientID: p.ClientID, IsM2M: p.IsM2M(), Issuer: p.Issuer,
		SessionID: p.SessionID, Credential: string(p.Credential), AuthTime: store.Time(p.AuthTime), ExpiresAt: p.ExpiresAt,
		Roles: roles, Scopes: p.Scopes, Claims: p.Claims,
	}})
	return nil
}
