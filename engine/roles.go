package engine

import (
	"cmp"
	"context"
	"errors"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/users"
)

// roleKeeper gives accounts the roles of the manifest.
type roleKeeper struct{ authz *Authz }

// keeper returns what is done for accounts that come and go, nil where that is
// nothing.
func (z *Authz) keeper() users.RoleKeeper {
	var roles users.RoleKeeper
	if z.app.manifest.Auth.Policy.Authorization.LinkUsersRoles {
		roles = roleKeeper{z}
	}
	if z.app.manifest.Auth.APIKeys.Enabled {
		return keyKeeper{app: z.app, roles: roles}
	}
	return roles
}

// keyKeeper ends the API keys of accounts that go, besides what is done for their
// roles.
type keyKeeper struct {
	app   *App
	roles users.RoleKeeper // nil for none
}

// Welcome implements [users.RoleKeeper].
func (k keyKeeper) Welcome(ctx context.Context, userID, emailNorm string, trusted bool) error {
	if k.roles == nil {
		return nil
	}
	return k.roles.Welcome(ctx, userID, emailNorm, trusted)
}

// Forget implements [users.RoleKeeper].
func (k keyKeeper) Forget(ctx context.Context, userID string) error {
	if err := k.app.apiKeys.RevokeAll(ctx, userID, "user_deleted"); err != nil {
		return err
	}
	if k.roles == nil {
		return nil
	}
	return k.roles.Forget(ctx, userID)
}

// Welcome implements [users.RoleKeeper].
func (k roleKeeper) Welcome(ctx context.Context, userID, emailNorm string, trusted bool) error {
	m := k.authz.app.manifest
	if len(k.authz.roles) == 0 {
		return nil
	}
	c := authz.Change{Assign: []authz.Assignment{{Subject: userID, Role: m.Auth.Users.RegistrationRole}}}
	for _, initial := range m.Auth.Policy.Authorization.InitialRoles {
		if norm, err := users.NormalizeEmail(initial.User); err == nil && trusted && norm == emailNorm {
			c.Assign = append(c.Assign, authz.Assignment{Subject: userID, Role: initial.Role})
		}
	}
	editor, err := k.authz.editor(ctx)
	if errors.Is(err, authz.ErrUnsupported) {
		return nil // roles are kept elsewhere
	}
	if err != nil {
		return err
	}
	if err := editor.Apply(ctx, c); err != nil {
		return err
	}
	k.authz.report(ctx, &c)
	return nil
}

// Forget implements [users.RoleKeeper].
func (k roleKeeper) Forget(ctx context.Context, userID string) error {
	editor, err := k.authz.editor(ctx)
	if errors.Is(err, authz.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return err
	}
	return editor.Forget(ctx, userID)
}

// assignDemo makes the role the only one of the demo user.
func (z *Authz) assignDemo(ctx context.Context, email, role string) error {
	m := z.app.manifest
	if len(z.roles) == 0 || (role == "" && !m.Auth.Policy.Authorization.LinkUsersRoles) {
		return nil
	}
	user, err := z.app.users.GetByEmail(ctx, email)
	if err != nil {
		return err
	}
	err = z.SetRoles(ctx, user.ID, cmp.Or(role, m.Auth.Users.RegistrationRole))
	if role == "" && errors.Is(err, authz.ErrUnsupported) {
		return nil
	}
	return err
}
