package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/tokens/keys"
)

// Authz decides what the principals of one app may do, and changes what they may
// do. It is safe for concurrent use.
//
// Whatever cannot be decided is refused: with an error nothing is allowed. Errors
// wrap [authz.ErrUnavailable] when trying again may help, are an
// [*authz.ValueError] for a value that is not admitted, and wrap
// [authz.ErrUnsupported] for what the provider or its model has not.
type Authz struct {
	app      *App
	keys     *keys.App
	provider opening
	roles    []string
}

func newAuthz(app *App, k *keys.App) *Authz {
	z := &Authz{app: app, keys: k}
	if a := &app.manifest.Auth.Policy.Authorization; a.HasRoles() {
		z.roles = slices.Clone(a.DefaultRoles)
	}
	return z
}

// Can reports whether the principal may do the action on the object. A guest is
// the subject "anonymous", and may do nothing unless the manifest has
// auth.policy.allow_anonymous. A principal of another app may do nothing.
func (z *Authz) Can(ctx context.Context, p *Principal, object, action string) (bool, error) {
	subject := z.subject(p)
	if subject == "" {
		return false, nil
	}
	provider, err := z.provider.get(ctx)
	if err != nil {
		return false, err
	}
	d, err := decide(ctx, provider, authz.Request{
		App: z.app.slug, Subject: subject, Permission: authz.Permission{Object: object, Action: action},
	})
	return d.Allowed && err == nil, err
}

// decide asks the provider; a defect in it refuses.
func decide(ctx context.Context, p authz.Provider, r authz.Request) (d authz.Decision, err error) {
	defer func() {
		if v := recover(); v != nil {
			d, err = authz.Decision{}, fmt.Errorf("the provider of authorization panicked: %v", v)
		}
	}()
	return p.Authorize(ctx, r)
}

// subject is what rules know the principal by, "" for who may do nothing.
func (z *Authz) subject(p *Principal) string {
	if p == nil || p.App != z.app.slug {
		return ""
	}
	s := p.Subject()
	if s == authz.SubjectAnonymous && !z.app.manifest.Auth.Policy.AllowAnonymous {
		return ""
	}
	return s
}

// HasRole reports whether the principal has one of the roles, directly or through
// another role.
func (z *Authz) HasRole(ctx context.Context, p *Principal, roles ...string) (has bool, err error) {
	subject := z.subject(p)
	if subject == "" {
		return false, nil
	}
	provider, err := z.provider.get(ctx)
	if err != nil {
		return false, err
	}
	defer func() {
		if v := recover(); v != nil {
			has, err = false, fmt.Errorf("the provider of authorization panicked: %v", v)
		}
	}()
	has, err = provider.HasRole(ctx, subject, roles...)
	return has && err == nil, err
}

// Overview returns the roles of the principal, inherited ones included, and what
// it may do, both in order: for user interfaces.
func (z *Authz) Overview(ctx context.Context, p *Principal) (roles []string, permissions []authz.Permission, err error) {
	subject := z.subject(p)
	if subject == "" {
		return nil, nil, nil
	}
	if roles, err = z.Roles(ctx, subject); err != nil {
		return nil, nil, err
	}
	permissions, err = z.Permissions(ctx, subject)
	return roles, permissions, err
}

// Roles returns the roles of a user, inherited ones included, in order.
func (z *Authz) Roles(ctx context.Context, userID string) ([]string, error) {
	provider, err := z.provider.get(ctx)
	if err != nil {
		return nil, err
	}
	return provider.Roles(ctx, userID)
}

// Permissions returns what a user may do, directly or by a role, in order.
func (z *Authz) Permissions(ctx context.Context, userID string) ([]authz.Permission, error) {
	provider, err := z.provider.get(ctx)
	if err != nil {
		return nil, err
	}
	return provider.Permissions(ctx, userID)
}

// warnUnknown tells operators of a guard that nobody will ever pass.
func (z *Authz) warnUnknown(guard string, roles ...string) {
	for _, role := range roles {
		if len(z.roles) > 0 && !slices.Contains(z.roles, role) {
			z.app.engine.opts.Logger.Warn("a guard asks for a role that the manifest does not have; nobody will pass by it",
				slog.String("app", z.app.slug), slog.String("guard", guard), slog.String("role", role))
		}
	}
}

// upkeep compares what is decided by with what is stored.
func (z *Authz) upkeep(ctx context.Context) {
	p := z.provider.opened.Load()
	if p == nil {
		return
	}
	u, ok := (*p).(interface{ Upkeep(context.Context) error })
	if !ok {
		return
	}
	if err := u.Upkeep(ctx); err != nil && !errors.Is(err, context.Canceled) {
		z.app.engine.opts.Logger.Error("compare the policy", slog.String("app", z.app.slug), slog.Any("error", err))
	}
}

func (z *Authz) close(ctx context.Context) error { return z.provider.close(ctx) }
