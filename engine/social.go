package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mandate-auth/mandate/manifest"
	"github.com/mandate-auth/mandate/tokens/keys"
	"github.com/mandate-auth/mandate/tokens/onetime"
	"github.com/mandate-auth/mandate/users/identity"
	"github.com/mandate-auth/mandate/users/social"
)

// Identities returns the identities of other providers that sign in to the app's
// accounts, nil where its manifest has no auth.oauth.providers.
func (app *App) Identities() *identity.Store { return app.identities }

// Social returns the providers of the app, for a service that runs sign-ins by itself:
// where to send people, and who has come back. Nil where its manifest has no
// auth.oauth.providers.
func (app *App) Social() *social.Set { return app.social }

// once lets sign-ins by providers claim what works once.
type once struct{ tokens *onetime.Store }

// Claim implements [social.Once].
func (o once) Claim(ctx context.Context, purpose, id string, expires time.Time) error {
	err := o.tokens.Claim(ctx, onetime.Purpose(purpose), id, expires)
	if errors.Is(err, onetime.ErrUsed) {
		return fmt.Errorf("%w: %w", social.ErrReplayed, err)
	}
	return err
}

// buildOAuth makes the sign-in by other providers.
func (e *Engine) buildOAuth(ctx context.Context, app *App, k *keys.App) error {
	m := app.manifest
	c := &m.Auth.OAuth
	if len(c.Providers) == 0 {
		return nil
	}
	if err := e.buildOneTime(ctx, app, k); err != nil {
		return err
	}
	var providers []social.ProviderConfig
	for _, name := range slices.Sorted(maps.Keys(c.Providers)) {
		x := c.Providers[name]
		providers = append(providers, provider(name, &x))
	}
	var err error
	app.social, err = social.New(social.Config{ //nolint:contextcheck // what runs in the background outlives the call
		App: app.slug, Keys: k, RedirectBase: strings.TrimSuffix(m.PublicURL, "/") + m.BasePath + "/oauth/", Providers: providers,
		Once: once{app.onetime}, Client: e.opts.OAuthClient, Events: app.events, Now: e.opts.Now, Logger: e.opts.Logger,
	})
	if err != nil {
		return fmt.Errorf("auth.oauth.providers: %w", err)
	}
	config := identity.Config{
		App: app.slug, Users: app.users, Keys: k, Link: identity.Policy(c.Link), CreateUsers: c.CreateUsers,
		SignsInByMail: m.Auth.Mail.MagicLink || m.Auth.Mail.EmailCode, Events: app.events, Now: e.opts.Now,
	}
	if app.recovery != nil {
		config.Linked, config.Removed = app.recovery.IdentityLinked, app.recovery.IdentityRemoved
	}
	if app.identities, err = identity.New(e.db, config); err != nil {
		return err
	}
	return e.index(ctx, "identities", app.identities.EnsureIndexes)
}

var authStyles = map[string]string{"client_secret_basic": "", "client_secret_post": "post"}

// provider is what the manifest says about a provider.
func provider(name string, x *manifest.OAuthProvider) social.ProviderConfig {
	return social.ProviderConfig{
		Name: name, Preset: x.Preset, Issuer: x.Issuer, Tenant: x.Tenant, AuthURL: x.AuthorizationEndpoint, TokenURL: x.TokenEndpoint,
		UserInfoURL: x.UserinfoEndpoint, Claims: social.ClaimMap(x.Claims), DisplayName: x.DisplayName, ClientID: x.ClientID,
		ClientSecret: x.ClientSecret.Value, Scopes: x.Scopes, AuthStyle: authStyles[x.TokenEndpointAuthMethod], AuthParams: x.AuthorizationParams,
		KeepTokens: x.KeepTokens,
	}
}

// providerName is what people call a provider.
func (app *App) providerName(name string) string {
	if app.social == nil {
		return name
	}
	for _, p := range app.social.Providers() {
		if p.Name == name {
			return p.DisplayName
		}
	}
	return name
}
