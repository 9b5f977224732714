package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/internal/httpapi"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/manifest"
	"github.com/mandate-auth/mandate/tokens/apikey"
	"github.com/mandate-auth/mandate/tokens/issuers"
	"github.com/mandate-auth/mandate/tokens/keys"
	"github.com/mandate-auth/mandate/tokens/m2m"
	"github.com/mandate-auth/mandate/tokens/oauth2"
	"github.com/mandate-auth/mandate/users"
)

// Authenticator recognises credentials that Mandate does not know: a client
// certificate, a signed request.
type Authenticator interface {
	// Authenticate returns who is calling, or nil without an error when the request
	// brings no credential of its kind. An error refuses the request: 401
	// invalid_credentials, or what a [*Problem] or a database that is away says.
	//
	// The principal needs an ID and a Kind; its App may be left out, its Credential is
	// set to the authenticator's name. The ID is that of a user or a client of the app,
	// or the authenticator's name, "|" and a subject: nobody may be called like a role.
	// It is called for each request and from many goroutines.
	Authenticate(r *http.Request) (*Principal, error)
}

// NewAuthenticator returns the authenticator of an app.
type NewAuthenticator func(app string) (Authenticator, error)

// ClientToken is a client's access token that is about to be issued.
type ClientToken = httpapi.ClientToken

// ErrDisabledPart says that the manifest does not enable what a call needs.
var ErrDisabledPart = errors.New("not enabled in the manifest")

// APIKeys returns the API keys of the app's users, nil unless the manifest has
// auth.api_keys.enabled.
func (app *App) APIKeys() *apikey.Store { return app.apiKeys }

// Clients returns the app's OAuth 2.0 clients, nil unless the manifest has
// auth.clients.enabled.
func (app *App) Clients() *oauth2.Store { return app.clients }

// IssueClientToken issues an access token to a client as POST /oauth2/token does,
// for a service that has authenticated it by itself. No scopes means all that the
// client has.
func (app *App) IssueClientToken(ctx context.Context, clientID string, scopes ...string) (token string, life time.Duration, err error) {
	if app.clients == nil {
		return "", 0, fmt.Errorf("clients: %w", ErrDisabledPart)
	}
	c, err := app.clients.Get(ctx, clientID)
	if err != nil {
		return "", 0, err
	}
	if c.Status != oauth2.Active {
		return "", 0, oauth2.ErrInvalidClient
	}
	granted, err := oauth2.GrantScopes(c, strings.Join(scopes, " "))
	if err != nil {
		return "", 0, err
	}
	issued, err := app.api.IssueToClient(ctx, c, granted)
	if err != nil {
		return "", 0, err
	}
	return issued.Token, issued.TTL, nil
}

// DeleteClient ends a client: its tokens and secrets at once, and its roles and
// rules.
func (app *App) DeleteClient(ctx context.Context, clientID string) error {
	if app.clients == nil {
		return fmt.Errorf("clients: %w", ErrDisabledPart)
	}
	// Whoever may end clients may not end the roles of others.
	if !store.ValidID(clientID, "cli_") {
		return oauth2.ErrNotFound
	}
	// The roles first: a client that is gone already can be deleted again, roles of
	// nobody could not be found.
	if err := (roleKeeper{app.authz}).Forget(ctx, clientID); err != nil {
		return err
	}
	return app.clients.Delete(ctx, clientID)
}

// buildMachines makes what machines authenticate with.
func (e *Engine) buildMachines(ctx context.Context, app *App, k *keys.App) error {
	a := &app.manifest.Auth
	if a.APIKeys.Enabled {
		if err := e.buildAPIKeys(ctx, app, k); err != nil {
			return err
		}
	}
	if a.Clients.Enabled {
		if err := e.buildClients(ctx, app, k); err != nil {
			return err
		}
	}
	if len(a.Issuers) > 0 {
		if err := e.buildIssuers(app); err != nil {
			return err
		}
	}
	return e.buildAuthenticators(app)
}

func (e *Engine) buildAPIKeys(ctx context.Context, app *App, k *keys.App) (err error) {
	c := &app.manifest.Auth.APIKeys
	app.apiKeys, err = apikey.New(e.db, apikey.Config{ //nolint:contextcheck // its goroutine outlives the call
		App: app.slug, Prefix: c.Prefix, MaxPerUser: c.MaxPerUser, DefaultTTL: time.Duration(c.DefaultTTL), AllowedScopes: c.Scopes,
		Rights: app.mayGive, Blacklist: app.blacklist, Accounts: keyOwners{app}, Keys: k, Events: app.events,
		Observe: app.observe("api_keys"), Now: e.opts.Now, Logger: e.opts.Logger,
	})
	if err != nil {
		return err
	}
	return e.index(ctx, "api_keys", app.apiKeys.EnsureIndexes)
}

// mayGive reports whether a user may give an API key the scope. Scopes that stand
// for permissions and roles have to be the user's own; those that stand for many,
// and words of the service, have to be listed in the manifest. What a key may do is
// asked again whenever it is used.
func (app *App) mayGive(ctx context.Context, userID, scope string) (bool, error) {
	owner := &Principal{ID: userID, Kind: authz.KindHuman, App: app.slug}
	if role, ok := authz.RoleOfScope(scope); ok {
		return app.authz.HasRole(ctx, owner, role)
	}
	listed := slices.Contains(app.manifest.Auth.APIKeys.Scopes, scope)
	if scope == authz.ScopeAll || strings.HasSuffix(scope, ":*") {
		return listed, nil
	}
	if p, err := authz.ParsePermission(scope); err == nil {
		return app.authz.Can(ctx, owner, p.Object, p.Action)
	}
	if !listed || app.engine.opts.Scopes == nil {
		return listed, nil
	}
	own, err := app.engine.opts.Scopes(ctx, app.slug, userID)
	return slices.Contains(own, scope) && err == nil, err
}

// keyOwners lets API keys ask about users.
type keyOwners struct{ app *App }

// Active implements [apikey.Accounts].
func (o keyOwners) Active(ctx context.Context, userID string) (authz.Kind, error) {
	kind, err := o.app.users.Active(ctx, userID)
	if errors.Is(err, users.ErrNotFound) || errors.Is(err, users.ErrDisabled) {
		return "", fmt.Errorf("%w: %w", apikey.ErrGone, err)
	}
	return kind, err
}

func (e *Engine) buildClients(ctx context.Context, app *App, k *keys.App) (err error) {
	c := &app.manifest.Auth.Clients
	app.clients, err = oauth2.New(e.db, oauth2.Config{
		App: app.slug, AllowedScopes: c.Scopes, DefaultTokenTTL: time.Duration(c.TokenTTL), Blacklist: app.blacklist, Keys: k,
		Events: app.events, Now: e.opts.Now,
	})
	if err != nil {
		return err
	}
	if err := e.index(ctx, "oauth_clients", app.clients.EnsureIndexes); err != nil {
		return err
	}
	for _, initial := range c.Initial {
		if err := app.ensureClient(ctx, &initial); err != nil {
			return fmt.Errorf("the client %s of auth.clients.initial: %w", initial.Name, err)
		}
	}
	return nil
}

// ensureClient makes sure of a client that the manifest names, and of its roles.
func (app *App) ensureClient(ctx context.Context, initial *manifest.InitialClient) error {
	c, err := app.clients.Ensure(ctx, oauth2.Initial{ID: initial.ID, Name: initial.Name, Secret: initial.Secret.Value, Scopes: initial.Scopes})
	if err != nil || len(initial.Roles) == 0 {
		return err
	}
	has, err := app.authz.AssignedRoles(ctx, c.ID)
	if err != nil {
		return err
	}
	for _, role := range initial.Roles {
		if slices.Contains(has, role) {
			continue // a change of the policy for nothing would reach every instance
		}
		if err := app.authz.GrantRole(ctx, c.ID, role); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) buildIssuers(app *App) error {
	var list []*issuers.Issuer
	for i := range app.manifest.Auth.Issuers {
		x := &app.manifest.Auth.Issuers[i]
		issuer, err := issuers.New(issuers.Config{
			Name: x.Name, Issuer: x.Issuer, Audience: x.Audience, AudienceClaim: x.AudienceClaim, Algorithms: x.Algorithms, TokenTypes: x.TokenTypes,
			JWKSURL: x.JWKSURI, M2M: mapping(x), Leeway: time.Duration(app.manifest.Auth.Tokens.Leeway), Now: e.opts.Now,
			Client: e.opts.IssuerClient, Logger: e.opts.Logger,
			// The manifest takes http:// for the loopback interface only.
			InsecureLoopback: strings.HasPrefix(x.Issuer, "http://"),
		})
		if err != nil {
			return fmt.Errorf("auth.issuers %s: %w", x.Name, err)
		}
		list = append(list, issuer)
	}
	var err error
	app.issuers, err = issuers.NewSet(list...)
	return err
}

// mapping is what the manifest says about the claims of an issuer. What it leaves
// out has the default.
func mapping(x *manifest.Issuer) m2m.Mapping {
	return m2m.Mapping{
		UsernameClaims: x.M2M.UsernameClaims, UserClaims: x.M2M.UserClaims, TokenUseClaim: x.M2M.TokenUseClaim, TokenUseValues: x.M2M.TokenUseValues,
		ClientIDClaims: x.M2M.ClientIDClaims, ScopeClaims: x.M2M.ScopeClaims, MachineClaim: x.M2M.MachineClaim, MachineValues: x.M2M.MachineValues,
		SubjectIsClient: x.M2M.SubjectIsClient,
	}
}

// buildAuthenticators makes the authenticators of the service, in the order of their
// names, and refuses path rules that name one that is not there.
func (e *Engine) buildAuthenticators(app *App) error {
	for _, name := range slices.Sorted(maps.Keys(e.opts.Authenticators)) {
		a, err := e.opts.Authenticators[name](app.slug)
		if err != nil {
			return fmt.Errorf("the authenticator %s: %w", name, err)
		}
		if a == nil {
			continue // not for this app
		}
		if slices.ContainsFunc(app.manifest.Auth.Issuers, func(i manifest.Issuer) bool { return i.Name == name }) {
			return fmt.Errorf("%w: auth.issuers has the name %q as well as an authenticator, and rules could not tell their subjects apart; rename one", ErrOptions, name)
		}
		app.authenticators = append(app.authenticators, httpapi.NamedAuthenticator{Name: name, Authenticator: a})
	}
	for i := range app.manifest.Auth.Requirements {
		for _, name := range app.manifest.Auth.Requirements[i].MethodsAllowed {
			if _, own := methods[name]; own || slices.ContainsFunc(app.authenticators, func(a httpapi.NamedAuthenticator) bool { return a.Name == name }) {
				continue
			}
			return fmt.Errorf("auth.requirements %d: methods_allowed names %q, which is none of jwt, session, api_key, client and basic and which nobody has registered; "+
				"add Authenticators: map[string]engine.NewAuthenticator{%q: …} to engine.Options", i, name, name)
		}
	}
	return nil
}
