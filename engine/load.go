package engine

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/mandate-auth/mandate/cookies"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/engine/metrics"
	"github.com/mandate-auth/mandate/internal/httpapi"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/manifest"
	"github.com/mandate-auth/mandate/sessions"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/keys"
	"github.com/mandate-auth/mandate/users"
)

// LoadFile reads the manifest in the file and loads its app.
func (e *Engine) LoadFile(ctx context.Context, path string) (*App, error) {
	m, err := manifest.Load(path, &manifest.Options{LookupEnv: e.opts.LookupEnv})
	if err != nil {
		return nil, err
	}
	return e.Load(ctx, m)
}

// Load makes the app of a manifest work: its state and indexes in the database,
// its keys, its routes. Other apps serve meanwhile. Several instances may load
// one app at once.
//
// The error is [ErrLoaded] for a slug that is loaded, [ErrClosed] on a closed
// engine; an index of another definition is an error that names both.
func (e *Engine) Load(ctx context.Context, m *manifest.Manifest) (*App, error) {
	if m == nil || m.Slug == "" {
		return nil, fmt.Errorf("%w: Load needs a manifest of manifest.Load or manifest.Parse", ErrOptions)
	}
	if err := e.reserve(m.Slug); err != nil {
		return nil, err
	}
	app, err := e.build(ctx, m)
	if err = e.admit(m.Slug, app, err); err != nil {
		if app != nil {
			err = errors.Join(err, app.closeParts(context.WithoutCancel(ctx)))
		}
		return nil, fmt.Errorf("load app %s: %w", m.Slug, err)
	}
	app.events.Record(ctx, event.Event{Type: event.AppLoaded, Result: event.Success, App: m.Slug, Time: e.opts.Now()})
	return app, nil
}

// admit makes an app that has been built known, or frees its slug. The engine may
// have been closed meanwhile, without the app, which nobody would close then.
func (e *Engine) admit(slug string, app *App, err error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err == nil && e.closed {
		err = ErrClosed
	}
	if err != nil {
		delete(e.apps, slug)
		return err
	}
	e.apps[slug] = app
	return nil
}

// reserve takes the slug, so that two loads of it do not meet half way.
func (e *Engine) reserve(slug string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return ErrClosed
	}
	if _, taken := e.apps[slug]; taken {
		return fmt.Errorf("%w: %s", ErrLoaded, slug)
	}
	e.apps[slug] = &App{slug: slug, closed: true}
	return nil
}

func (e *Engine) build(ctx context.Context, m *manifest.Manifest) (*App, error) {
	state, err := e.states.Claim(ctx, m.Slug, m.Digest())
	if err != nil {
		return nil, err
	}
	appKeys, err := e.ring.App(m.Slug, state.Salt, state.Keys.Epoch)
	if err != nil {
		return nil, err
	}
	app := &App{engine: e, slug: m.Slug, manifest: m, devices: tokens.NewDevices(appKeys)}
	for _, part := range []func() error{
		func() error { return e.buildRecords(ctx, app, appKeys) },
		func() error { return e.buildTokens(ctx, app, appKeys) },
		func() error { return app.keys.start(ctx, state) },
		func() error { return e.buildSessions(ctx, app, appKeys) },
		func() error { return e.buildAuthz(ctx, app, state, appKeys) },
		func() error { return e.buildUsers(ctx, app, appKeys) },
		func() error { return e.buildMachines(ctx, app, appKeys) },
		func() error { return e.buildMail(ctx, app, appKeys) },
		func() error { return e.buildOAuth(ctx, app, appKeys) },
		func() error { return e.buildLimits(ctx, app) },
		func() error { return e.buildHTTP(app) },
	} {
		if err := part(); err != nil {
			return nil, errors.Join(err, app.closeParts(context.WithoutCancel(ctx)))
		}
	}
	return app, nil
}

func (e *Engine) buildTokens(ctx context.Context, app *App, k *keys.App) (err error) {
	t := &app.manifest.Auth.Tokens
	if app.tokens, err = tokens.New(tokens.Config{
		App: app.slug, Issuer: t.Issuer, Audience: t.Audience, AccessTTL: time.Duration(t.AccessTTL),
		Leeway: time.Duration(t.Leeway), Keys: k, Algorithm: t.Algorithm, Observe: app.observe("tokens"), Now: e.opts.Now,
	}); err != nil {
		return err
	}
	feed, err := e.feed(ctx, t.BlacklistCollection, time.Duration(t.Revocation.PollInterval))
	if err != nil {
		return err
	}
	app.keys = newKeys(app, k)
	app.blacklist, err = feed.App(tokens.BlacklistConfig{
		App: app.slug, MaxStaleness: time.Duration(t.Revocation.MaxStaleness), Leeway: time.Duration(t.Leeway), Keys: keysFreshness{app.keys},
	})
	return err
}

// feed returns the feed of a blacklist collection: one for all apps that share
// it, as fast as the most impatient of them asks.
//
// Feeds are begun one at a time, and not under mu: making the indexes may take a
// minute, in which other apps are found and the engine can be closed.
func (e *Engine) feed(ctx context.Context, collection string, poll time.Duration) (*tokens.Feed, error) {
	select {
	case e.starting <- struct{}{}:
		defer func() { <-e.starting }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if f, err := e.knownFeed(collection); f != nil || err != nil {
		if f != nil {
			f.PollAtLeastEvery(poll)
		}
		return f, err
	}
	f, err := tokens.NewFeed(ctx, e.db.Collection(collection), tokens.FeedConfig{
		PollInterval: poll, DisableChangeStream: e.opts.DisableChangeStreams, Now: e.opts.Now, Logger: e.opts.Logger,
	})
	if err != nil {
		return nil, err
	}
	if !e.keepFeed(collection, f) {
		return nil, errors.Join(ErrClosed, f.Close(context.WithoutCancel(ctx)))
	}
	return f, nil
}

// knownFeed returns the feed of the collection, nil when there is none yet.
func (e *Engine) knownFeed(collection string) (*tokens.Feed, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, ErrClosed
	}
	return e.feeds[collection], nil
}

// keepFeed leaves the feed to Close, unless that has been.
func (e *Engine) keepFeed(collection string, f *tokens.Feed) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false
	}
	e.feeds[collection] = f
	return true
}

func (e *Engine) buildSessions(ctx context.Context, app *App, k *keys.App) (err error) {
	t, s := &app.manifest.Auth.Tokens, &app.manifest.Auth.Sessions
	if app.sessions, err = sessions.New(e.db, sessions.Config{ //nolint:contextcheck // its goroutine outlives the call
		App: app.slug, Collection: s.Collection, MaxPerUser: s.MaxPerUser, OnLimit: sessions.OnLimit(s.OnLimit),
		IdleTimeout: time.Duration(s.IdleTimeout), RefreshTTL: time.Duration(t.RefreshTTL), RememberMeFactor: s.RememberMeFactor,
		AccessTTL: time.Duration(t.AccessTTL), RotationGrace: time.Duration(t.RotationGrace),
		BindDevice: sessions.Binding(s.BindDevice), BindIP: sessions.Binding(s.BindIP),
		Keys: k, Revoker: app.blacklist, Accounts: accounts{app}, Events: app.events, Now: e.opts.Now,
	}); err != nil {
		return err
	}
	return e.index(ctx, "sessions/"+s.Collection, app.sessions.EnsureIndexes)
}

// index makes sure of a collection's indexes once in the life of the engine.
func (e *Engine) index(ctx context.Context, name string, ensure func(context.Context) (bool, error)) error {
	e.mu.Lock()
	_, done := e.indexed[name]
	e.mu.Unlock()
	if done {
		return nil
	}
	ttl, err := ensure(ctx)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.indexed[name] = ttl
	return nil
}

func (e *Engine) buildUsers(ctx context.Context, app *App, k *keys.App) (err error) {
	u := &app.manifest.Auth.Users
	cost := u.Password.BcryptCost
	if e.opts.InsecureHashCost > 0 {
		cost = e.opts.InsecureHashCost
	}
	if app.users, err = users.New(e.db, users.Config{
		App: app.slug, Collection: u.CollectionName, BcryptCost: cost,
		Password: users.Policy{
			MinLength: u.Password.MinLength, MaxLength: u.Password.MaxLength, AllowCommon: !u.Password.BlockCommon,
			AllowContext: !u.Password.BlockContext, MinEntropyBits: u.Password.MinEntropyBits, Breach: users.BreachMode(u.Password.BreachCheck),
		},
		Lockout: users.Lockout{
			MaxFailures: u.Lockout.MaxFailures, Window: time.Duration(u.Lockout.Window), Duration: time.Duration(u.Lockout.Duration),
		},
		Hasher: e.hasher, Keys: k, Devices: app.devices, Sessions: app.sessions, Roles: app.authz.keeper(), Context: []string{app.manifest.Name},
		RequireVerified:   u.RequireVerifiedEmail,
		KeepOtherSessions: !app.manifest.Auth.Sessions.EndOthersOnCredentialChange,
		Breach:            e.opts.BreachChecker, Events: app.events, Now: e.opts.Now,
	}); err != nil {
		return err
	}
	if err := e.index(ctx, "users/"+u.CollectionName, app.users.EnsureIndexes); err != nil {
		return err
	}
	demo := make([]users.DemoUser, len(u.DemoUsers))
	for i, d := range u.DemoUsers {
		demo[i] = users.DemoUser{Email: d.Email, Password: string(d.Password.Reveal())}
	}
	if err := app.users.SeedDemo(ctx, demo); err != nil {
		return fmt.Errorf("seed demo users: %w", err)
	}
	for _, d := range u.DemoUsers {
		if err := app.authz.assignDemo(ctx, d.Email, d.Role); err != nil {
			return fmt.Errorf("the role of demo user %s: %w", d.Email, err)
		}
	}
	return nil
}

var sameSite = map[string]http.SameSite{
	"lax": http.SameSiteLaxMode, "strict": http.SameSiteStrictMode, "none": http.SameSiteNoneMode,
}

func (e *Engine) buildHTTP(app *App) error {
	m := app.manifest
	a := &m.Auth
	jar, err := cookies.New(cookies.Config{
		Slug: app.slug, BasePath: m.BasePath, SameSite: sameSite[a.Cookies.SameSite], AlwaysSecure: a.Cookies.Secure == "always",
		InsecureDevelopment: m.Development(), Domain: a.Cookies.Domain, Now: e.opts.Now,
	})
	if err != nil {
		return err
	}
	app.headers = httpapi.HeaderConfig{
		Enabled: a.SecurityHeaders.Enabled, HSTSMaxAge: time.Duration(a.SecurityHeaders.HSTS.MaxAge),
		HSTSIncludeSubdomains: a.SecurityHeaders.HSTS.IncludeSubdomains, HSTSPreload: a.SecurityHeaders.HSTS.Preload,
		FrameAncestors: a.SecurityHeaders.FrameAncestors, ReferrerPolicy: a.SecurityHeaders.ReferrerPolicy, TrustedProxies: a.TrustedProxies,
	}
	config := httpapi.Config{
		App: app.slug, BasePath: m.BasePath, Users: app.users, Sessions: app.sessions, Tokens: app.tokens,
		Blacklist: app.blacklist, Devices: app.devices, Jar: jar, Authz: app.authz, Admin: administrator{app.authz}, Health: app.health,
		Roles: app.authz.roles, Hierarchy: a.Policy.Authorization.RoleHierarchy,
		UsersEnabled: a.Users.Enabled, People: a.Users.Strategy == "app_users", Registration: a.Users.AllowRegistration != manifest.RegistrationClosed,
		InviteOnly: a.Users.AllowRegistration == manifest.RegistrationInvite, RequireVerified: a.Users.RequireVerifiedEmail,
		MagicLink: a.Mail.MagicLink, EmailCode: a.Mail.EmailCode, Recovery: app.recovery, Invitations: app.invitations,
		Social: app.social, Identities: app.identities, RedirectAfterLogin: a.OAuth.RedirectAfterLogin,
		Guests: a.Users.AllowAnonymousUsers, Demo: m.Development() && len(a.Users.DemoUsers) > 0,
		AllowGuests: a.Policy.AllowAnonymous, Entry: app.authz.entry != nil, OwnerPasses: a.Policy.OwnerCanAccess, Strict: a.Tokens.Revocation.Mode == "strict",
		Transport: httpapi.Transport(a.Tokens.Transport), TrustedProxies: a.TrustedProxies,
		CSRF: a.CSRF.Enabled, TrustedOrigins: a.CSRF.TrustedOrigins, Headers: app.headers,
		CORS: httpapi.CORSConfig{
			Origins: a.CORS.AllowOrigins, Credentials: a.CORS.AllowCredentials, Headers: a.CORS.AllowHeaders, MaxAge: time.Duration(a.CORS.MaxAge),
		},
		InternalNetworks: a.InternalNetworks, RequireAuth: m.AuthRequired,
		APIKeys: app.apiKeys, Clients: app.clients, Issuers: app.issuers, Authenticators: app.authenticators,
		NewKey: app.keys.newKey, JWKS: app.keys.published(), Limits: app.limits, Audit: app.trail, Metrics: app.metrics, Unmeasured: a.Metrics.ExcludePaths,
		Issuer: a.Tokens.Issuer, Audience: a.Tokens.Audience, PublicURL: m.PublicURL, ClientScopes: a.Clients.Scopes, DeleteClient: app.DeleteClient,
		Events: app.events, Logger: e.opts.Logger, Now: e.opts.Now, OnError: e.opts.OnError, OpenAPI: app.OpenAPI,
	}
	if config.Requirements, err = requirements(a.Requirements, app.limits); err != nil {
		return err
	}
	if e.opts.Prometheus != nil && app.metrics != nil {
		config.Prometheus = e.opts.Prometheus(metrics.Of(app.metrics))
	}
	if e.opts.ClientToken != nil {
		config.ClientToken = func(ctx context.Context, t *ClientToken) error { return e.opts.ClientToken(ctx, app.slug, t) }
	}
	if e.opts.GuestSignedIn != nil {
		config.GuestSignedIn = func(ctx context.Context, guestID, userID string) error {
			return e.opts.GuestSignedIn(ctx, app.slug, guestID, userID)
		}
	}
	if e.opts.Claims != nil {
		config.Claims = func(ctx context.Context, userID string) (map[string]any, error) {
			return e.opts.Claims(ctx, app.slug, userID)
		}
	}
	if e.opts.Scopes != nil {
		config.Scopes = func(ctx context.Context, userID string) ([]string, error) {
			return e.opts.Scopes(ctx, app.slug, userID)
		}
	}
	if app.api, err = httpapi.New(config); err != nil {
		return err
	}
	app.gauges()
	return nil
}

// health answers GET /health.
func (app *App) health(ctx context.Context) httpapi.Health {
	h := httpapi.Health{Status: "ok", MongoDB: "ok", Healthy: true, FeedAgeMS: app.blacklist.Age().Milliseconds()}
	if app.engine.skewed.Load() {
		h.Status = "clock_skewed"
	}
	if app.blacklist.Age() > time.Duration(app.manifest.Auth.Tokens.Revocation.MaxStaleness) {
		h.Status, h.Healthy = "stale", false
	}
	ctx, cancel := store.Context(ctx)
	defer cancel()
	if err := app.engine.db.Client().Ping(ctx, nil); err != nil {
		h.Status, h.MongoDB, h.Healthy = "unavailable", "unavailable", false
	}
	return h
}
