package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/cookies"
	"github.com/mandate-auth/mandate/engine/event"
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
	// previous is the guest that the caller was until now, "" for none.
	previous string
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
	var n users.NewUser
	var invited string
	var o options
	in := o.fields()
	in["email"], in["password"], in["profile"] = &n.Email, &n.Password, &n.Profile
	if a.config.Invitations != nil {
		in["invitation"] = &invited
	}
	if err := decode(w, r, in); err != nil {
		return err
	}
	if err := required("email", n.Email); err != nil && invited == "" {
		return err
	}
	if err := required("password", n.Password); err != nil {
		return err
	}
	t, err := a.prepare(r, &o)
	if err != nil {
		return err
	}
	if err := a.limit(w, r, LimitRegister, "", identifierOf(n.Email)); err != nil {
		return err
	}
	n.Guest = a.guest(r)
	proof, err := a.admitted(r, n, invited)
	if is(err, users.ErrNotGuest) {
		p := refuse(CodeConflict)
		p.Detail = "The account is a person's by now; refresh the session first."
		return p
	}
	if err != nil {
		return err
	}
	if proof == nil {
		write(w, http.StatusAccepted, struct{}{})
		return nil
	}
	// Who was invited may get an account that was there, and not the guest's.
	g, err := a.start(r.Context(), proof, a.device(r, o.deviceID, o.deviceName), o.remember, a.entering(r, t, n.Guest)) //nolint:contextcheck // the request's is the one that start has
	if err != nil {
		return err
	}
	return a.answer(w, r, http.StatusCreated, t, g, "")
}

// admitted registers somebody. The proof is nil when nobody may know yet whether there is
// an account.
func (a *API) admitted(r *http.Request, n users.NewUser, invited string) (*users.Proof, error) {
	switch {
	case invited != "":
		_, proof, err := a.config.Invitations.Accept(r.Context(), invited, n)
		return proof, err
	case a.config.InviteOnly:
		p := refuse(CodeRegistrationClosed)
		p.Detail = "This app takes people who were invited."
		return nil, p
	case a.config.RequireVerified:
		p, err := a.config.Users.Prepare(r.Context(), n)
		if err != nil {
			return nil, err
		}
		return nil, a.config.Recovery.Register(r.Context(), p, a.from(r))
	}
	_, proof, err := a.config.Users.SignUp(r.Context(), n)
	if err == nil && a.config.Recovery != nil {
		a.untold(r.Context(), "verify_email", a.config.Recovery.SendVerification(r.Context(), n.Email, a.from(r)))
	}
	return proof, err
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
	g, err := a.signIn(r.Context(), c, a.device(r, o.deviceID, o.deviceName), o.remember, a.entering(r, t, a.guest(r))) //nolint:contextcheck // the request's is the one that signIn has
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
	return a.signIn(ctx, c, d, remember, entering{})
}

// signIn is Login with what else belongs to it.
func (a *API) signIn(ctx context.Context, c users.Credentials, d sessions.Device, remember bool, e entering) (*Grant, error) {
	var err error
	for range signInAttempts {
		var proof *users.Proof
		if proof, err = a.config.Users.Authenticate(ctx, c); err != nil {
			return nil, err
		}
		var g *Grant
		g, err = a.start(ctx, proof, d, remember, e.first(func(userID string) error { return a.codesAnew(ctx, userID) }))
		if err == nil {
			a.report(ctx, event.LoginSucceeded, event.Success, &authz.Principal{ID: g.User.ID, Kind: g.User.Kind}, "")
		}
		if !is(err, users.ErrChanged, sessions.ErrEpochChanged) {
			return g, err
		}
	}
	return nil, err
}

// codesAnew begins to count wrong codes anew, when the owner has come in by other means.
func (a *API) codesAnew(ctx context.Context, userID string) error {
	if !a.config.EmailCode {
		return nil
	}
	return a.config.Users.ForgetWrongCodes(ctx, userID)
}

// StartUnproved begins a session of a user whom the service has identified by itself, and
// who only has to be admissible.
func (a *API) StartUnproved(ctx context.Context, userID string, d sessions.Device, remember bool) (*Grant, error) {
	return a.Start(ctx, users.ProveByService(userID), d, remember)
}

// Start begins the session of somebody who has proved who they are.
func (a *API) Start(ctx context.Context, proof *users.Proof, d sessions.Device, remember bool) (*Grant, error) {
	return a.start(ctx, proof, d, remember, entering{})
}

// start is Start with what else belongs to it.
func (a *API) start(ctx context.Context, proof *users.Proof, d sessions.Device, remember bool, e entering) (*Grant, error) {
	start, err := a.config.Sessions.Begin(ctx, proof.UserID())
	if err != nil {
		return nil, err
	}
	user, err := a.config.Users.Confirm(ctx, proof)
	if err != nil {
		return nil, err
	}
	// Before the session: one that nobody can be given a token of would still take
	// a place.
	more, err := a.extras(ctx, user.ID)
	if err != nil {
		return nil, err
	}
	if e.before != nil {
		if err := e.before(user.ID); err != nil {
			return nil, err
		}
	}
	issued, err := a.config.Sessions.Create(ctx, start, sessions.CreateOptions{Kind: user.Kind, Device: d, Remember: remember})
	if err != nil {
		return nil, err
	}
	access, err := a.issue(issued, more)
	if err != nil {
		return nil, err
	}
	g := &Grant{User: user, Session: issued, Access: access}
	if e.after == nil {
		return g, nil
	}
	if err := e.after(g); err != nil {
		return nil, errors.Join(err, a.config.Sessions.End(context.WithoutCancel(ctx), user.ID, issued.SessionID, "refused"))
	}
	return g, nil
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
	var g *Grant
	for range signInAttempts {
		var user *users.User
		if user, err = find(r.Context(), id); err != nil {
			return err
		}
		g, err = a.start(r.Context(), users.ProveByDevice(user, id), a.device(r, o.deviceID, o.deviceName), o.remember, a.entering(r, t, "")) //nolint:contextcheck // it is the request's
		// A guest who has become a person meanwhile: the device opens another.
		if !is(err, users.ErrChanged) {
			break
		}
	}
	if err != nil {
		return err
	}
	return a.answer(w, r, http.StatusOK, t, g, id)
}
