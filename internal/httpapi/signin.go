package httpapi

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"time"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/cookies"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/sessions"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/users"
)

// deviceLife is how long a browser keeps the device token.
const deviceLife = 180 * 24 * time.Hour

// signInAttempts is how often a sign-in is started again when the account or its
// sessions change under it.
const signInAttempts = 3

// Grant is a sign-in that has succeeded.
type Grant struct {
	User    *users.User
	Session *sessions.Issued
	Access  *tokens.Issued
}

// answer is the body of a sign-in and of a refresh.
type answer struct {
	User             *users.User `json:"user,omitempty"`
	DeviceID         string      `json:"device_id,omitempty"`
	AccessToken      string      `json:"access_token,omitempty"`
	RefreshToken     string      `json:"refresh_token,omitempty"`
	TokenType        string      `json:"token_type,omitempty"`
	ExpiresIn        int64       `json:"expires_in"`
	RefreshExpiresAt time.Time   `json:"refresh_expires_at"`
	RefreshExpiresIn int64       `json:"refresh_expires_in"`
	DeviceToken      string      `json:"device_token,omitempty"`
}

// options are what every sign-in can ask for.
type options struct {
	transport            string
	deviceID, deviceName string
	remember             bool
}

func (o *options) fields() fields {
	return fields{
		"transport": &o.transport, "remember_me": &o.remember,
		"device": fields{"id": &o.deviceID, "name": &o.deviceName},
	}
}

// chosen returns the transport of the answer.
func (a *API) chosen(o *options) (Transport, error) {
	switch t := Transport(o.transport); {
	case t == "" && a.config.Transport == TransportCookie:
		return TransportCookie, nil
	case t == "":
		return TransportBearer, nil
	case t != TransportBearer && t != TransportCookie:
		return "", &users.FieldError{Field: "transport", Code: CodeInvalidField, Message: `must be "bearer" or "cookie"`}
	case a.config.Transport != TransportBoth && t != a.config.Transport:
		return "", &users.FieldError{Field: "transport", Code: CodeInvalidField, Message: "this app allows only " + string(a.config.Transport)}
	default:
		return t, nil
	}
}

// prepare checks what has to be right before anything is done: the transport,
// and that no other site plants a session into the browser.
func (a *API) prepare(r *http.Request, o *options) (Transport, error) {
	t, err := a.chosen(o)
	if err != nil {
		return "", err
	}
	if t == TransportCookie && a.crossOrigin(r) {
		return "", errCSRF
	}
	return t, nil
}

func (a *API) register(w http.ResponseWriter, r *http.Request) error {
	if !a.config.Registration {
		return refuse(CodeRegistrationClosed)
	}
	var email, password string
	var profile map[string]any
	var o options
	in := o.fields()
	in["email"], in["password"], in["profile"] = &email, &password, &profile
	if err := decode(w, r, in); err != nil {
		return err
	}
	if err := required("email", email); err != nil {
		return err
	}
	if err := required("password", password); err != nil {
		return err
	}
	t, err := a.prepare(r, &o)
	if err != nil {
		return err
	}
	if err := a.limit(w, r, LimitRegister, "", identifierOf(email)); err != nil {
		return err
	}
	user, err := a.config.Users.Register(r.Context(), users.NewUser{Email: email, Password: password, Profile: profile})
	if err != nil {
		return err
	}
	if err := a.replace(r, t); err != nil {
		return err
	}
	g, err := a.Start(r.Context(), user.ID, nil, a.device(r, o.deviceID, o.deviceName), o.remember)
	if err != nil {
		return err
	}
	return a.answer(w, r, http.StatusCreated, t, g, "")
}

func (a *API) login(w http.ResponseWriter, r *http.Request) error {
	var c users.Credentials
	var o options
	in := o.fields()
	in["email"], in["password"], in["device_token"] = &c.Email, &c.Password, &c.DeviceToken
	if err := decode(w, r, in); err != nil {
		return err
	}
	if err := required("email", c.Email); err != nil {
		return err
	}
	if err := required("password", c.Password); err != nil {
		return err
	}
	t, err := a.prepare(r, &o)
	if err != nil {
		return err
	}
	if c.DeviceToken == "" && a.cookieTransport() {
		if c.DeviceToken, err = a.config.Jar.Read(r, cookies.Device, a.secure(r)); err != nil {
			return err
		}
	}
	for _, rule := range []string{LimitLoginAddress, LimitLogin} {
		if err := a.limit(w, r, rule, "", identifierOf(c.Email)); err != nil {
			return err
		}
	}
	g, err := a.signIn(r.Context(), c, a.device(r, o.deviceID, o.deviceName), o.remember, func() error { return a.replace(r, t) })
	if err != nil {
		return err
	}
	return a.answer(w, r, http.StatusOK, t, g, "")
}

// Login signs in with a password. Its order keeps what ends sessions ahead of
// what begins one: the password is checked, the epoch of the user's sessions is
// read, then the user again, and the session is made on the condition that the
// epoch is still the same. Whoever disables the user or changes the password in
// between makes it start again.
func (a *API) Login(ctx context.Context, c users.Credentials, d sessions.Device, remember bool) (*Grant, error) {
	return a.signIn(ctx, c, d, remember, func() error { return nil })
}

// signIn is Login with something to be done once the password has been proved
// and before the session begins.
func (a *API) signIn(ctx context.Context, c users.Credentials, d sessions.Device, remember bool, proved func() error) (*Grant, error) {
	var err error
	for range signInAttempts {
		var proof *users.Proof
		if proof, err = a.config.Users.Authenticate(ctx, c); err != nil {
			return nil, err
		}
		if err = proved(); err != nil {
			return nil, err
		}
		var g *Grant
		g, err = a.Start(ctx, proof.UserID(), proof, d, remember)
		if err == nil {
			a.report(ctx, event.LoginSucceeded, event.Success, &authz.Principal{ID: g.User.ID, Kind: g.User.Kind}, "")
		}
		if !is(err, users.ErrChanged, sessions.ErrEpochChanged) {
			return g, err
		}
	}
	return nil, err
}

// Start begins a session of a user. Without a proof the user only has to be
// active.
func (a *API) Start(ctx context.Context, userID string, proof *users.Proof, d sessions.Device, remember bool) (*Grant, error) {
	start, err := a.config.Sessions.Begin(ctx, userID)
	if err != nil {
		return nil, err
	}
	var user *users.User
	if proof != nil {
		user, err = a.config.Users.Confirm(ctx, proof)
	} else if user, err = a.config.Users.Get(ctx, userID); err == nil && user.Status != users.Active {
		err = users.ErrDisabled
	}
	if err != nil {
		return nil, err
	}
	// Before the session: one that nobody can be given a token of would still take
	// a place.
	more, err := a.extras(ctx, userID)
	if err != nil {
		return nil, err
	}
	issued, err := a.config.Sessions.Create(ctx, start, sessions.CreateOptions{Kind: user.Kind, Device: d, Remember: remember})
	if err != nil {
		return nil, err
	}
	access, err := a.issue(issued, more)
	if err != nil {
		return nil, err
	}
	return &Grant{User: user, Session: issued, Access: access}, nil
}

// extras are what the service puts into an access token.
type extras struct {
	claims map[string]any
	scopes []string
}

// extras asks the service what to put into the access tokens of a user.
func (a *API) extras(ctx context.Context, userID string) (e extras, err error) {
	if a.config.Claims != nil {
		if e.claims, err = a.config.Claims(ctx, userID); err != nil {
			return extras{}, err
		}
	}
	if a.config.Scopes != nil {
		if e.scopes, err = a.config.Scopes(ctx, userID); err != nil {
			return extras{}, err
		}
		if err := tokens.CheckScopes(e.scopes); err != nil {
			return extras{}, fmt.Errorf("the scopes that the service issues: %s", err) //nolint:errorlint // not the client's fault
		}
	}
	return e, nil
}

// access issues the access token of a session that goes on.
func (a *API) access(ctx context.Context, s *sessions.Issued) (*tokens.Issued, error) {
	more, err := a.extras(ctx, s.UserID)
	if err != nil {
		return nil, err
	}
	return a.issue(s, more)
}

func (a *API) issue(s *sessions.Issued, more extras) (*tokens.Issued, error) {
	return a.config.Tokens.Issue(tokens.Grant{
		Subject: s.UserID, Kind: s.Kind, SessionID: s.SessionID, Epoch: s.Epoch,
		AuthTime: s.AuthTime, NotAfter: s.AccessExpiresAt, Custom: more.claims, Scopes: more.scopes,
	})
}

func (a *API) anonymous(w http.ResponseWriter, r *http.Request) error {
	return a.ofDevice(w, r, a.config.Users.Anonymous)
}

func (a *API) demo(w http.ResponseWriter, r *http.Request) error {
	return a.ofDevice(w, r, a.config.Users.Demo)
}

// ofDevice signs in the guest or the demo user of a device.
func (a *API) ofDevice(w http.ResponseWriter, r *http.Request, find func(context.Context, string) (*users.User, error)) error {
	var id string
	var o options
	in := o.fields()
	in["device_id"] = &id
	if err := decode(w, r, in); err != nil {
		return err
	}
	t, err := a.prepare(r, &o)
	if err != nil {
		return err
	}
	if id == "" {
		id = users.NewDeviceID()
	}
	if err := a.limit(w, r, LimitAnonymous, "", id); err != nil {
		return err
	}
	user, err := find(r.Context(), id)
	if err != nil {
		return err
	}
	if err := a.replace(r, t); err != nil {
		return err
	}
	g, err := a.Start(r.Context(), user.ID, nil, a.device(r, o.deviceID, o.deviceName), o.remember)
	if err != nil {
		return err
	}
	return a.answer(w, r, http.StatusOK, t, g, id)
}

// answer hands a sign-in to the client.
func (a *API) answer(w http.ResponseWriter, r *http.Request, status int, t Transport, g *Grant, deviceID string) error {
	out := a.tokens(g.Session, g.Access)
	out.User, out.DeviceID = g.User, deviceID
	device := ""
	if g.User.Email != "" {
		device = a.config.Devices.Issue(g.User.ID)
	}
	if t == TransportCookie {
		if err := a.SetCookies(w, r, g.Session, g.Access, device); err != nil {
			return err
		}
		out.AccessToken, out.RefreshToken, out.TokenType = "", "", ""
	} else {
		out.DeviceToken = device
	}
	write(w, status, out)
	return nil
}

// replace ends the session that the browser had before a sign-in by cookie (ASVS
// 7.2.4): its cookies are about to be overwritten, so nobody could sign it out
// any more. Whoever had planted it is left with nothing. It comes before the new
// session, which would push another device out of the limit otherwise.
func (a *API) replace(r *http.Request, t Transport) error {
	if t != TransportCookie {
		return nil
	}
	return a.endCookies(r, "replaced")
}

func (a *API) tokens(s *sessions.Issued, access *tokens.Issued) *answer {
	now := store.Time(a.config.Now())
	return &answer{
		AccessToken: access.Token, RefreshToken: s.RefreshToken, TokenType: "Bearer",
		ExpiresIn:        int64(math.Ceil(access.TimeLeft(now).Seconds())),
		RefreshExpiresAt: s.RefreshExpiresAt, RefreshExpiresIn: int64(math.Ceil(s.RefreshExpiresAt.Sub(now).Seconds())),
	}
}

// SetCookies hands a session to a browser. Unless the sign-in asked to be
// remembered the session's cookies end with the browser.
func (a *API) SetCookies(w http.ResponseWriter, r *http.Request, s *sessions.Issued, access *tokens.Issued, device string) error {
	secure := a.secure(r)
	var accessEnds, refreshEnds time.Time
	if s.Remember {
		accessEnds, refreshEnds = access.ExpiresAt, s.RefreshExpiresAt
	}
	if err := a.config.Jar.Set(w, cookies.Access, secure, access.Token, accessEnds); err != nil {
		return err
	}
	if err := a.config.Jar.Set(w, cookies.Refresh, secure, s.RefreshToken, refreshEnds); err != nil {
		return err
	}
	if device == "" {
		return nil
	}
	return a.config.Jar.Set(w, cookies.Device, secure, device, a.config.Now().Add(deviceLife))
}

// ClearCookies takes the session's cookies away. The device token stays: it is
// what lets the owner in while others are locked out.
func (a *API) ClearCookies(w http.ResponseWriter, r *http.Request) {
	secure := a.secure(r)
	a.config.Jar.Clear(w, cookies.Access, secure)
	a.config.Jar.Clear(w, cookies.Refresh, secure)
}
