package engine

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/mandate-auth/mandate/engine/audit"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/engine/metrics"
	"github.com/mandate-auth/mandate/engine/ratelimit"
	"github.com/mandate-auth/mandate/internal/httpapi"
	"github.com/mandate-auth/mandate/mail"
	"github.com/mandate-auth/mandate/manifest"
	"github.com/mandate-auth/mandate/sessions"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/apikey"
	"github.com/mandate-auth/mandate/tokens/issuers"
	"github.com/mandate-auth/mandate/tokens/oauth2"
	"github.com/mandate-auth/mandate/tokens/onetime"
	"github.com/mandate-auth/mandate/users"
	"github.com/mandate-auth/mandate/users/identity"
	"github.com/mandate-auth/mandate/users/invitation"
	"github.com/mandate-auth/mandate/users/recovery"
	"github.com/mandate-auth/mandate/users/social"
)

// App is one app of an engine: a tenant with its own users, sessions, keys and
// cookies. It is safe for concurrent use.
type App struct {
	engine   *Engine
	slug     string
	manifest *manifest.Manifest

	users     *users.Store
	sessions  *sessions.Manager
	tokens    *tokens.Service
	devices   *tokens.Devices
	blacklist *tokens.Blacklist
	authz     *Authz
	keys      *Keys
	headers   httpapi.HeaderConfig
	api       *httpapi.API

	// events is what the app reports to; trail and metrics are nil where they are off.
	events  *appEvents
	trail   *audit.Trail
	metrics *metrics.Collector
	// apiKeys, clients and issuers are nil where the manifest has none.
	apiKeys        *apikey.Store
	clients        *oauth2.Store
	issuers        *issuers.Set
	authenticators []httpapi.NamedAuthenticator
	// onetime, recovery and outbox are nil where the manifest has no mail, identities and
	// social where it has no providers, invitations where nobody is invited.
	onetime     *onetime.Store
	outbox      *mail.Outbox
	recovery    *recovery.Service
	invitations *invitation.Store
	identities  *identity.Store
	social      *social.Set
	limits      map[string]*httpapi.Limit
	limitStore  *ratelimit.Mongo

	mu     sync.Mutex
	closed bool
}

// Slug returns the app's name in data, cookies and tokens.
func (app *App) Slug() string { return app.slug }

// Manifest returns the app's manifest, which must not be changed.
func (app *App) Manifest() *manifest.Manifest { return app.manifest }

// Handler returns the app's routes. It is mounted at the base path with a slash
// at its end, without http.StripPrefix:
//
//	mux.Handle("/auth/", app.Handler())
func (app *App) Handler() http.Handler { return app.api }

// WellKnown returns the app's documents under /.well-known/, where it is mounted:
// jwks.json, the keys that verify its tokens, unless they are signed with HS256
// (RFC 7517), and oauth-authorization-server where the app has clients (RFC 8414).
//
//	mux.Handle("/.well-known/", app.WellKnown())
func (app *App) WellKnown() http.Handler { return http.HandlerFunc(app.api.WellKnown) }

// Routes returns "METHOD path" of every route that the manifest enables.
func (app *App) Routes() []string { return app.api.Paths() }

// RequireUser asks for a principal: 401 without one. Guests pass only where the
// manifest has auth.policy.allow_anonymous.
func (app *App) RequireUser() *Guard { return app.api.RequireUser() }

// RequireHuman is RequireUser for people: 403 human_required for machines.
func (app *App) RequireHuman() *Guard { return app.api.RequireHuman() }

// RequireMachine is RequireUser for machines, clients and API keys: 403
// machine_required for people.
func (app *App) RequireMachine() *Guard { return app.api.RequireMachine() }

// RequireFresh is RequireUser for those who have signed in within maxAge, ten
// minutes when it is 0: 401 fresh_required otherwise. A refresh is no sign-in.
func (app *App) RequireFresh(maxAge time.Duration) *Guard { return app.api.RequireFresh(maxAge) }

// RequireTLS asks for HTTPS: 403 tls_required otherwise. It asks for no
// principal: combine it by [App.All].
func (app *App) RequireTLS() *Guard { return app.api.RequireTLS() }

// Strict is RequireUser with the session, its head and the user read from the
// database on every request.
func (app *App) Strict() *Guard { return app.api.Strict() }

// RequireRole asks for one of the roles, held directly or through another role:
// 401 without a principal, 403 without the role. A role that the manifest does
// not have is never held by anybody.
func (app *App) RequireRole(roles ...string) *Guard {
	app.authz.warnUnknown("RequireRole", roles...)
	return app.api.RequireRole(roles...)
}

// RequireAdmin asks for the role "admin".
func (app *App) RequireAdmin() *Guard { return app.RequireRole(httpapi.RoleAdmin) }

// RequirePermission asks for the permission to do the action on the object: 401
// without a principal, 403 without the permission, 503 when it cannot be decided.
func (app *App) RequirePermission(object, action string) *Guard {
	return app.api.RequirePermission(object, action)
}

// RequireOwnerOr passes the owner of what the request is about, and whoever
// otherwise passes; with nil only the owner. owner returns whose it is, and
// [ErrNotFound] or mongo.ErrNoDocuments when it is not there: everybody who is
// signed in gets 404 then, before anything else is decided.
func (app *App) RequireOwnerOr(owner func(*http.Request) (userID string, err error), otherwise *Guard) *Guard {
	return app.api.RequireOwnerOr(owner, otherwise)
}

// Optional passes what guard passes, and requests without a valid credential as
// nobody: PrincipalFrom is nil then. A doubled or malformed credential stays
// 400, a store that cannot be reached 503. A nil guard means RequireUser.
func (app *App) Optional(guard *Guard) *Guard { return app.api.Optional(guard) }

// All passes what every guard passes.
func (app *App) All(guards ...*Guard) *Guard { return app.api.All(guards...) }

// Any passes what one of the guards passes.
func (app *App) Any(guards ...*Guard) *Guard { return app.api.Any(guards...) }

// SecurityHeaders sends the manifest's security headers with every answer of
// next, as the app's own routes do.
func (app *App) SecurityHeaders(next http.Handler) http.Handler {
	return httpapi.SecurityHeaders(app.headers, next)
}

// Users returns the app's accounts, for services that need no HTTP.
func (app *App) Users() *users.Store { return app.users }

// Sessions returns the app's sessions.
func (app *App) Sessions() *sessions.Manager { return app.sessions }

// Tokens returns what issues and verifies the app's access tokens. It does not
// know which have been revoked: see [App.Verify] and [App.Blacklist].
func (app *App) Tokens() *tokens.Service { return app.tokens }

// Blacklist returns the app's revocations.
func (app *App) Blacklist() *tokens.Blacklist { return app.blacklist }

// Authz returns what decides what principals of the app may do.
func (app *App) Authz() *Authz { return app.authz }

// Login signs in with a password, as POST /login does: counted, atomic against
// everything that ends sessions.
func (app *App) Login(ctx context.Context, c Credentials, d Device, remember bool) (*Grant, error) {
	return app.api.Login(ctx, c, d, remember)
}

// StartSession begins a session of a user whom the service has identified by
// itself. The user has to be active.
func (app *App) StartSession(ctx context.Context, userID string, d Device, remember bool) (*Grant, error) {
	return app.api.StartUnproved(ctx, userID, d, remember)
}

// Arrive begins the session of whom a provider has identified, for a service that runs
// that flow by itself ([App.Social]): in the account of the identity, or in a new one. It
// does what the app's own callback does. The error is one of package identity or users.
func (app *App) Arrive(ctx context.Context, a identity.Arrival, d Device, remember bool) (*Grant, error) {
	if app.identities == nil {
		return nil, fmt.Errorf("auth.oauth: %w", ErrDisabledPart)
	}
	return app.api.Arrive(ctx, a, d, remember)
}

// StartProved begins the session of somebody who has proved who they are: by what
// was mailed to them ([recovery.Service.ConsumeMagicLink]), for example. The error
// is [users.ErrChanged] when the account does not take the proof any more.
func (app *App) StartProved(ctx context.Context, proof *users.Proof, d Device, remember bool) (*Grant, error) {
	return app.api.Start(ctx, proof, d, remember)
}

// Refresh exchanges a refresh token, as POST /refresh does.
func (app *App) Refresh(ctx context.Context, refreshToken string, d Device) (*Grant, error) {
	return app.api.Refresh(ctx, refreshToken, d)
}

// Logout ends the session of a refresh token. Repeating it is harmless.
func (app *App) Logout(ctx context.Context, refreshToken string) error {
	return app.sessions.EndByToken(ctx, refreshToken, "logout")
}

// Verify checks an access token of the app or of one of its issuers, or an API key,
// as a guard does, revocations included.
func (app *App) Verify(ctx context.Context, accessToken string) (*Principal, error) {
	return app.api.Verify(ctx, accessToken)
}

// SignIn begins a session of a user whom the service has identified by itself
// and hands it to the browser in cookies. The session that the browser had before
// ends (ASVS 7.2.4). The error says so where the manifest's transport is "bearer".
func (app *App) SignIn(w http.ResponseWriter, r *http.Request, userID string) error {
	return app.api.SignIn(w, r, userID)
}

// SignOut ends the session whose cookies the request carries and clears them.
// When the end could not be stored the cookies stay.
func (app *App) SignOut(w http.ResponseWriter, r *http.Request) error {
	return app.api.SignOut(w, r)
}

// Close ends the app's goroutines, or gives up with ctx. The slug can be loaded
// again afterwards. Requests that are under way finish.
func (app *App) Close(ctx context.Context) error {
	app.mu.Lock()
	already := app.closed
	app.closed = true
	app.mu.Unlock()
	if already {
		return nil
	}
	e := app.engine
	app.events.Record(ctx, event.Event{Type: event.AppClosed, Result: event.Success, App: app.slug, Time: e.opts.Now()})
	err := app.closeParts(ctx)
	e.mu.Lock()
	delete(e.apps, app.slug)
	e.mu.Unlock()
	return err
}

// closeParts ends the goroutines of what has been built so far.
func (app *App) closeParts(ctx context.Context) error {
	var errs []error
	if app.keys != nil {
		errs = append(errs, app.keys.close(ctx))
	}
	if app.apiKeys != nil {
		errs = append(errs, app.apiKeys.Close(ctx))
	}
	if app.issuers != nil {
		errs = append(errs, app.issuers.Close(ctx))
	}
	if app.social != nil {
		errs = append(errs, app.social.Close(ctx))
	}
	if app.outbox != nil {
		errs = append(errs, app.outbox.Close(ctx))
	}
	if app.sessions != nil {
		errs = append(errs, app.sessions.Close(ctx))
	}
	if app.authz != nil {
		errs = append(errs, app.authz.close(ctx))
	}
	errs = append(errs, app.closeTrail(ctx)) // last: the others report
	return errors.Join(errs...)
}
