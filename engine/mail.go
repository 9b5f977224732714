package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/mail"
	"github.com/mandate-auth/mandate/manifest"
	"github.com/mandate-auth/mandate/tokens/keys"
	"github.com/mandate-auth/mandate/tokens/oauth2"
	"github.com/mandate-auth/mandate/tokens/onetime"
	"github.com/mandate-auth/mandate/users"
	"github.com/mandate-auth/mandate/users/invitation"
	"github.com/mandate-auth/mandate/users/recovery"
)

// Recovery returns what the app does by mail, nil where its manifest has no
// auth.mail.from.
func (app *App) Recovery() *recovery.Service { return app.recovery }

// Invitations returns the app's invitations, nil where its manifest has no
// auth.mail.from or takes no registrations.
func (app *App) Invitations() *invitation.Store { return app.invitations }

// Outbox returns the mails that wait to be sent, nil where the app has none.
func (app *App) Outbox() *mail.Outbox { return app.outbox }

// buildOneTime makes what works once, where something does.
func (e *Engine) buildOneTime(ctx context.Context, app *App, k *keys.App) (err error) {
	if app.onetime != nil {
		return nil
	}
	if app.onetime, err = onetime.New(e.db, onetime.Config{App: app.slug, Keys: k, Now: e.opts.Now}); err != nil {
		return err
	}
	return e.index(ctx, "onetime_tokens", app.onetime.EnsureIndexes)
}

// buildMail makes what is done by mail.
func (e *Engine) buildMail(ctx context.Context, app *App, k *keys.App) error {
	m := app.manifest
	c := &m.Auth.Mail
	if !c.Enabled() {
		return nil
	}
	mailer, err := e.mailer(m)
	if err != nil {
		return err
	}
	if err := e.buildOneTime(ctx, app, k); err != nil {
		return err
	}
	templates, err := e.templates()
	if err != nil {
		return err
	}
	page := func(path string) string { return strings.TrimSuffix(m.PublicURL, "/") + path }
	app.recovery, err = recovery.New(recovery.Config{
		App: app.slug, Name: m.Name, Users: app.users, Tokens: app.onetime, Sessions: app.sessions, Keys: k, Templates: templates,
		From: c.From, ReplyTo: c.ReplyTo, Language: c.Language,
		Links: recovery.Links{
			VerifyEmail: page(c.Links.VerifyEmail), ResetPassword: page(c.Links.ResetPassword), ChangeEmail: page(c.Links.ChangeEmail),
			MagicLink: page(c.Links.MagicLink), Invitation: page(c.Links.Invitation),
		},
		Lives: recovery.Lives{
			VerifyEmail: time.Duration(c.TTL.VerifyEmail), ResetPassword: time.Duration(c.TTL.ResetPassword), ChangeEmail: time.Duration(c.TTL.ChangeEmail),
			MagicLink: time.Duration(c.TTL.MagicLink), EmailCode: time.Duration(c.TTL.EmailCode),
		},
		MagicLink: c.MagicLink, EmailCode: c.EmailCode, KeepOtherSessions: !m.Auth.Sessions.EndOthersOnCredentialChange,
		Provider: app.providerName, Now: e.opts.Now,
	})
	if err != nil {
		return err
	}
	if app.outbox, err = mail.NewOutbox(e.db, mail.OutboxConfig{
		App: app.slug, Mailer: mailer, Compose: app.recovery.Compose, Events: app.events, Now: e.opts.Now, Logger: e.opts.Logger,
		// As often as there is time for: what a link or a registration waits for is of use
		// until it expires.
		MaxAttempts: 1000,
	}); err != nil {
		return err
	}
	if err := e.index(ctx, "mail_outbox", app.outbox.EnsureIndexes); err != nil {
		return err
	}
	if err := e.buildInvitations(ctx, app, k, page(c.Links.Invitation)); err != nil {
		return err
	}
	app.outbox.Start()
	return nil
}

func (e *Engine) buildInvitations(ctx context.Context, app *App, k *keys.App, page string) (err error) {
	c := &app.manifest.Auth.Mail
	app.recovery.Use(app.outbox, nil)
	if app.manifest.Auth.Users.AllowRegistration == manifest.RegistrationClosed {
		return nil
	}
	if app.invitations, err = invitation.New(e.db, invitation.Config{
		App: app.slug, Users: app.users, Tokens: app.onetime, Keys: k, Outbox: app.outbox, Mails: app.recovery, Page: page,
		Life: time.Duration(c.TTL.Invitation), Language: c.Language, Grant: roleKeeper{app.authz}.grant, MayInvite: app.mayInvite, Events: app.events, Now: e.opts.Now,
	}); err != nil {
		return err
	}
	app.recovery.Use(app.outbox, app.invitations.Compose)
	return e.index(ctx, "invitations", app.invitations.EnsureIndexes)
}

// mayInvite reports whether who has invited somebody may still invite to the role: an
// account or a client that is active and may give it. What another issuer calls somebody
// can be asked about its roles alone. Anything else is the word of the service.
func (app *App) mayInvite(ctx context.Context, by, role string) (bool, error) {
	p := &Principal{ID: by, App: app.slug, Kind: authz.KindHuman}
	var err error
	switch {
	case store.ValidID(by, "usr_"):
		p.Kind, err = app.users.Active(ctx, by)
	case store.ValidID(by, "cli_"):
		p.Kind, p.ClientID = authz.KindService, by
		err = app.activeClient(ctx, by)
	case !app.authz.elsewhere(by):
		return true, nil
	}
	if err == nil && role != "" {
		err = app.authz.As(p).MayAssign(ctx, role)
	}
	for _, over := range []error{users.ErrNotFound, users.ErrDisabled, users.ErrUnverified, oauth2.ErrNotFound, authz.ErrForbidden} {
		if errors.Is(err, over) {
			return false, nil
		}
	}
	return err == nil, err
}

// activeClient returns nil for a client that gets tokens.
func (app *App) activeClient(ctx context.Context, id string) error {
	if app.clients == nil {
		return oauth2.ErrNotFound
	}
	c, err := app.clients.Get(ctx, id)
	if err == nil && c.Status != oauth2.Active {
		err = oauth2.ErrNotFound
	}
	return err
}

// errNoMailer says how mails can be sent.
var errNoMailer = errors.New(`the manifest has auth.mail.from and nothing to send with: give it auth.mail.smtp.host, or add Mailer: to engine.Options`)

// mailer is what sends the mails of an app.
func (e *Engine) mailer(m *manifest.Manifest) (Mailer, error) {
	s := &m.Auth.Mail.SMTP
	switch {
	case e.opts.Mailer != nil:
		return e.opts.Mailer, nil
	case s.Host != "":
		smtp, err := mail.NewSMTP(mail.SMTPConfig{
			Host: s.Host, Port: s.Port, Username: s.Username, Password: s.Password.Value, TLS: mail.TLSMode(s.TLS), TLSConfig: e.opts.MailTLS, Now: e.opts.Now,
		})
		if err != nil {
			return nil, fmt.Errorf("auth.mail.smtp: %w", err)
		}
		return smtp, nil
	case m.Development():
		return mail.NewLog(e.opts.Logger), nil
	default:
		return nil, errNoMailer
	}
}
