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

// keeper returns what links users and roles, nil where the manifest does not.
func (z *Authz) keeper() users.RoleKeeper {
	if !z.app.manifest.Auth.Policy.Authorization.LinkUsersRoles {
		return nil
	}
	return roleKeeper{z}
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
