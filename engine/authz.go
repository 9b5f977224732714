package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

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
	entry    *entry // nil where everybody may enter
}

func newAuthz(app *App, k *keys.App) (*Authz, error) {
	e, err := newEntry(&app.manifest.Auth.Policy)
	if err != nil {
		return nil, err
	}
	z := &Authz{app: app, keys: k, entry: e}
	if a := &app.manifest.Auth.Policy.Authorization; a.HasRoles() {
		z.roles = slices.Clone(a.DefaultRoles)
	}
	return z, nil
}

// Can reports whether the principal may do the action on the object. Who may not
// enter the app may do nothing: a guest, the subject "anonymous", unless the
// manifest has auth.policy.allow_anonymous; a principal of another app; whom
// allowed_roles, allowed_users, denied_users and required_permissions keep out. An
// API key may do what its owner may and its scopes admit.
func (z *Authz) Can(ctx context.Context, p *Principal, object, action string) (bool, error) {
	if !p.Admits(object, action) {
		return false, nil
	}
	provider, subject, err := z.admit(ctx, p)
	if err != nil || subject == "" {
		return false, err
	}
	d, err := decide(ctx, provider, z.request(subject, authz.Permission{Object: object, Action: action}))
	return d.Allowed && err == nil, err
}

func (z *Authz) request(subject string, p authz.Permission) authz.Request {
	return authz.Request{App: z.app.slug, Subject: subject, Permission: p}
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

func hasRole(ctx context.Context, p authz.Provider, subject string, roles []string) (has bool, err error) {
	defer func() {
		if v := recover(); v != nil {
			has, err = false, fmt.Errorf("the provider of authorization panicked: %v", v)
		}
	}()
	has, err = p.HasRole(ctx, subject, roles...)
	return has && err == nil, err
}

// HasRole reports whether the principal has one of the roles, directly or through
// another role. Who may not enter the app has none. An API key has those of its
// owner that its scopes admit.
func (z *Authz) HasRole(ctx context.Context, p *Principal, roles ...string) (has bool, err error) {
	if p != nil && p.Kind == authz.KindAPIKey {
		roles = slices.DeleteFunc(slices.Clone(roles), func(role string) bool { return !p.AdmitsRole(role) })
	}
	provider, subject, err := z.admit(ctx, p)
	if err != nil || subject == "" {
		return false, err
	}
	return hasRole(ctx, provider, subject, roles)
}

// Explain decides as [Authz.Can] does and says why: which rule decided, and by
// which roles the principal came to it. The answer is for people who look after
// the app, not for the one who asks. Where the provider cannot tell it holds the
// decision alone. For a user's id, ask about &Principal{ID: id, App: slug, Kind:
// authz.KindHuman}.
func (z *Authz) Explain(ctx context.Context, p *Principal, object, action string) (authz.Explanation, error) {
	provider, subject, err := z.admit(ctx, p)
	if err != nil {
		return authz.Explanation{}, err
	}
	if subject == "" {
		return authz.Explanation{Decision: authz.Decision{Reason: authz.ReasonNoEntry}}, nil
	}
	if !p.Admits(object, action) {
		return authz.Explanation{Decision: authz.Decision{Reason: authz.ReasonScope}}, nil
	}
	r := z.request(subject, authz.Permission{Object: object, Action: action})
	if explainer, ok := provider.(authz.Explainer); ok {
		return explainer.Explain(ctx, r)
	}
	d, err := decide(ctx, provider, r)
	if err != nil {
		return authz.Explanation{}, err
	}
	return authz.Explanation{Decision: d}, nil
}

// Overview returns the roles of the principal, inherited ones included, and what
// it may do, both in order: for user interfaces. Of an API key it is what its scopes
// admit.
func (z *Authz) Overview(ctx context.Context, p *Principal) (roles []string, permissions []authz.Permission, err error) {
	_, subject, err := z.admit(ctx, p)
	if err != nil || subject == "" {
		return nil, nil, err
	}
	if roles, err = z.RolesOf(ctx, p); err != nil {
		return nil, nil, err
	}
	permissions, err = z.Permissions(ctx, subject)
	permissions = slices.DeleteFunc(permissions, func(q authz.Permission) bool { return !p.Admits(q.Object, q.Action) })
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

// RolesOf returns the roles of the principal, inherited ones included, in order: of
// an API key those that its scopes admit, of whom may not enter the app none.
func (z *Authz) RolesOf(ctx context.Context, p *Principal) ([]string, error) {
	provider, subject, err := z.admit(ctx, p)
	if err != nil || subject == "" {
		return nil, err
	}
	roles, err := provider.Roles(ctx, subject)
	return slices.DeleteFunc(slices.Clone(roles), func(role string) bool { return !p.AdmitsRole(role) }), err
}

// age is how old what is decided by is at most, negative when nobody can tell.
func (z *Authz) age() time.Duration {
	p := z.provider.opened.Load()
	if p == nil {
		return -1
	}
	if aged, ok := (*p).(interface{ Age() time.Duration }); ok {
		return aged.Age()
	}
	return -1
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
