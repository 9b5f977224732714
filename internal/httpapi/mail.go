package httpapi

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/cookies"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/users"
	"github.com/mandate-auth/mandate/users/recovery"
)

// recentSignIn is how long ago somebody may have signed in who changes what the account
// is entered by (ASVS 7.5.1).
const recentSignIn = 10 * time.Minute

// from is where a mail was asked for.
func (a *API) from(r *http.Request) recovery.From {
	d := a.device(r, "", "")
	f := recovery.From{IP: d.IP, Network: d.Network}
	// The first choice alone: who reads a language has no need of weights here.
	lang, _, _ := strings.Cut(r.Header.Get("Accept-Language"), ",")
	lang, _, _ = strings.Cut(lang, ";")
	if lang = strings.TrimSpace(lang); len(lang) <= 35 && lang != "*" {
		f.Language = lang
	}
	return f
}

// untold logs that a mail could not be queued about something that has happened: it is
// no reason to say that it has not.
func (a *API) untold(ctx context.Context, what string, err error) {
	if err == nil {
		return
	}
	a.config.Logger.LogAttrs(ctx, slog.LevelError, "a mail could not be queued",
		slog.String("app", a.config.App), slog.String("mail", what), slog.Any("error", err))
	a.report(ctx, event.MailFailed, event.Failure, nil, what)
}

// AccountReclaimed tells the owner of an address that the account that was there is theirs
// now.
func (a *API) AccountReclaimed(ctx context.Context, userID string) {
	if a.config.Recovery != nil {
		a.untold(ctx, "account_recovered", a.config.Recovery.Recovered(ctx, userID))
	}
}

// asked reads the address that something is to be mailed to, and counts.
func (a *API) asked(w http.ResponseWriter, r *http.Request, in fields, email *string) error {
	in["email"] = email
	if err := decode(w, r, in); err != nil {
		return err
	}
	if err := required("email", *email); err != nil {
		return err
	}
	return a.limitMail(w, r, *email)
}

// limitMail counts what is to be mailed to an address.
func (a *API) limitMail(w http.ResponseWriter, r *http.Request, email string) error {
	for _, rule := range []string{LimitMailAddress, LimitMail} {
		if err := a.limit(w, r, rule, "", identifierOf(email)); err != nil {
			return err
		}
	}
	return nil
}

// accepted answers 202 with nothing, whoever the address belongs to.
func accepted(w http.ResponseWriter, err error) error {
	if err == nil {
		write(w, http.StatusAccepted, struct{}{})
	}
	return err
}

// consumed reads a mailed token and what comes with it, and counts.
func (a *API) consumed(w http.ResponseWriter, r *http.Request, in fields, token *string) error {
	in["token"] = token
	if err := decode(w, r, in); err != nil {
		return err
	}
	if err := required("token", *token); err != nil {
		return err
	}
	return a.limit(w, r, LimitConsume, "", "")
}

func (a *API) verifyEmail(w http.ResponseWriter, r *http.Request) error {
	var token string
	if err := a.consumed(w, r, fields{}, &token); err != nil {
		return err
	}
	_, err := a.config.Recovery.VerifyEmail(r.Context(), token)
	return done(w, err)
}

func (a *API) sendVerification(w http.ResponseWriter, r *http.Request) error {
	var email string
	if err := a.asked(w, r, fields{}, &email); err != nil {
		return err
	}
	return accepted(w, a.config.Recovery.SendVerification(r.Context(), email, a.from(r)))
}

func (a *API) forgotPassword(w http.ResponseWriter, r *http.Request) error {
	var email string
	if err := a.asked(w, r, fields{}, &email); err != nil {
		return err
	}
	return accepted(w, a.config.Recovery.ForgotPassword(r.Context(), email, a.from(r)))
}

func (a *API) resetPassword(w http.ResponseWriter, r *http.Request) error {
	var token, password string
	if err := a.consumed(w, r, fields{"new_password": &password}, &token); err != nil {
		return err
	}
	if err := required("new_password", password); err != nil {
		return err
	}
	return done(w, a.config.Recovery.ResetPassword(r.Context(), token, password, a.from(r)))
}

// recent makes sure that it is the owner who asks: by a sign-in of late or by the
// password.
func (a *API) recent(w http.ResponseWriter, r *http.Request, p *authz.Principal, password string) error {
	if password == "" {
		if !a.fresh(p, recentSignIn) {
			return refuseTo(p, CodeFreshRequired)
		}
		return nil
	}
	if err := a.limit(w, r, LimitPassword, p.ID, ""); err != nil {
		return err
	}
	device := ""
	if a.cookieTransport() {
		var err error
		if device, err = a.config.Jar.Read(r, cookies.Device, a.secure(r)); err != nil {
			return err
		}
	}
	return a.config.Users.Reauthenticate(r.Context(), p.ID, password, device)
}

// fresh reports whether the principal has signed in within that time.
func (a *API) fresh(p *authz.Principal, within time.Duration) bool {
	return a.config.Now().Sub(p.AuthTime) <= within
}

// changeEmail mails a link to an address that is to become the account's.
func (a *API) changeEmail(w http.ResponseWriter, r *http.Request) error {
	p, err := a.account(r)
	if err != nil {
		return err
	}
	var email, password string
	if err := decode(w, r, fields{"new_email": &email, "current_password": &password}); err != nil {
		return err
	}
	if err := required("new_email", email); err != nil {
		return err
	}
	if err := a.recent(w, r, p, password); err != nil {
		return err
	}
	if err := a.limitMail(w, r, email); err != nil {
		return err
	}
	return accepted(w, a.config.Recovery.ChangeEmail(r.Context(), p.ID, p.SessionID, email, a.from(r)))
}

func (a *API) confirmEmail(w http.ResponseWriter, r *http.Request) error {
	var token string
	if err := a.consumed(w, r, fields{}, &token); err != nil {
		return err
	}
	return done(w, a.config.Recovery.ConfirmEmail(r.Context(), token, a.from(r)))
}

func (a *API) sendMagicLink(w http.ResponseWriter, r *http.Request) error {
	var email, next string
	if err := a.asked(w, r, fields{"next": &next}, &email); err != nil {
		return err
	}
	return accepted(w, a.config.Recovery.SendMagicLink(r.Context(), email, next, a.from(r)))
}

func (a *API) consumeMagicLink(w http.ResponseWriter, r *http.Request) error {
	var token string
	var o options
	in := o.fields()
	if err := a.consumed(w, r, in, &token); err != nil {
		return err
	}
	return a.byMail(w, r, &o, "magic_link", func(ctx context.Context) (*recovery.SignedIn, error) {
		return a.config.Recovery.ConsumeMagicLink(ctx, token)
	})
}

func (a *API) sendCode(w http.ResponseWriter, r *http.Request) error {
	var email string
	if err := a.asked(w, r, fields{}, &email); err != nil {
		return err
	}
	flow, life, err := a.config.Recovery.SendCode(r.Context(), email, a.from(r))
	if err != nil {
		return err
	}
	write(w, http.StatusAccepted, struct {
		FlowID    string `json:"flow_id"`
		ExpiresIn int64  `json:"expires_in"`
	}{flow, int64(life.Seconds())})
	return nil
}

func (a *API) consumeCode(w http.ResponseWriter, r *http.Request) error {
	var flow, code string
	var o options
	in := o.fields()
	in["flow_id"], in["code"] = &flow, &code
	if err := decode(w, r, in); err != nil {
		return err
	}
	if err := required("flow_id", flow); err != nil {
		return err
	}
	if err := required("code", code); err != nil {
		return err
	}
	if err := a.limit(w, r, LimitConsume, "", ""); err != nil {
		return err
	}
	return a.byMail(w, r, &o, "email_code", func(ctx context.Context) (*recovery.SignedIn, error) {
		return a.config.Recovery.ConsumeCode(ctx, flow, code)
	})
}

// byMail signs in whom a link or a code belongs to.
func (a *API) byMail(w http.ResponseWriter, r *http.Request, o *options, how string, consume func(context.Context) (*recovery.SignedIn, error)) error {
	t, err := a.prepare(r, o)
	if err != nil {
		return err
	}
	in, err := consume(r.Context())
	if is(err, recovery.ErrInvalid) {
		a.report(r.Context(), event.LoginFailed, event.Failure, nil, how)
	}
	if err != nil {
		return err
	}
	g, err := a.enter(r, in.Proof, a.guest(r), t, o, how)
	if is(err, users.ErrChanged, users.ErrDisabled, users.ErrUnverified) {
		a.report(r.Context(), event.LoginFailed, event.Failure, &authz.Principal{ID: in.UserID}, how)
	}
	if is(err, users.ErrChanged) {
		err = recovery.ErrInvalid // the account is not what it was when the mail was sent
	}
	if err != nil {
		return err
	}
	return a.answerNext(w, r, t, g, in.Next)
}

// enter begins the session of somebody who has proved by other means than a password who
// they are.
func (a *API) enter(r *http.Request, proof *users.Proof, guest string, t Transport, o *options, how string) (*Grant, error) {
	e := a.entering(r, t, guest).first(func(userID string) error { return a.codesAnew(r.Context(), userID) }) //nolint:contextcheck // it is the request's
	g, err := a.start(r.Context(), proof, a.device(r, o.deviceID, o.deviceName), o.remember, e)
	if err != nil {
		return nil, err
	}
	a.report(r.Context(), event.LoginSucceeded, event.Success, &authz.Principal{ID: g.User.ID, Kind: g.User.Kind}, how)
	return g, nil
}
