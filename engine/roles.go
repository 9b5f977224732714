package engine

import (
	"cmp"
	"context"
	"errors"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/users"
)

// keeper is what is done for accounts that come, go and change hands: roles, API keys,
// identities, and what was mailed.
type keeper struct {
	app *App
	// roles is nil where accounts get none.
	roles *roleKeeper
}

// keeper returns what is done for accounts.
func (z *Authz) keeper() users.RoleKeeper {
	k := keeper{app: z.app}
	if z.app.manifest.Auth.Policy.Authorization.LinkUsersRoles {
		k.roles = &roleKeeper{z}
	}
	return k
}

// Welcome implements [users.RoleKeeper].
func (k keeper) Welcome(ctx context.Context, userID, emailNorm string, trusted bool) error {
	if k.roles == nil {
		return nil
	}
	return k.roles.Welcome(ctx, userID, emailNorm, trusted)
}

// Verified implements [users.RoleKeeper].
func (k keeper) Verified(ctx context.Context, userID, emailNorm string) error {
	if k.roles == nil {
		return nil
	}
	return k.roles.verified(ctx, userID, emailNorm)
}

// Dispossess implements [users.RoleKeeper]. What was mailed needs no end here: it was
// issued for another owner, or for another password. Identities need none: the account does
// not name them any more.
func (k keeper) Dispossess(ctx context.Context, userID string) error {
	if err := k.revokeKeys(ctx, userID, "account_reclaimed"); err != nil {
		return err
	}
	k.app.api.AccountReclaimed(ctx, userID)
	return nil
}

// Forget implements [users.RoleKeeper].
func (k keeper) Forget(ctx context.Context, userID string) error {
	if err := k.revokeKeys(ctx, userID, "user_deleted"); err != nil {
		return err
	}
	if k.app.identities != nil {
		if err := k.app.identities.Forget(ctx, userID); err != nil {
			return err
		}
	}
	if k.app.onetime != nil {
		if err := k.app.onetime.Revoke(ctx, userID); err != nil {
			return err
		}
	}
	if k.app.invitations != nil {
		if err := k.app.invitations.Forget(ctx, userID); err != nil {
			return err
		}
	}
	if k.roles == nil {
		return nil
	}
	return k.roles.Forget(ctx, userID)
}

func (k keeper) revokeKeys(ctx context.Context, userID, reason string) error {
	if k.app.apiKeys == nil {
		return nil
	}
	return k.app.apiKeys.RevokeAll(ctx, userID, reason)
}

// roleKeeper gives accounts the roles of the manifest.
type roleKeeper struct{ authz *Authz }

// Welcome implements [users.RoleKeeper].
func (k roleKeeper) Welcome(ctx context.Context, userID, emailNorm string, trusted bool) error {
	m := k.authz.app.manifest
	if len(k.authz.roles) == 0 {
		return nil
	}
	c := authz.Change{Assign: []authz.Assignment{{Subject: userID, Role: m.Auth.Users.RegistrationRole}}}
	if trusted {
		c.Assign = append(c.Assign, k.initial(userID, emailNorm)...)
	}
	return k.assign(ctx, c)
}

// initial are the roles that the manifest has for the owner of the address.
func (k roleKeeper) initial(userID, emailNorm string) (out []authz.Assignment) {
	for _, initial := range k.authz.app.manifest.Auth.Policy.Authorization.InitialRoles {
		if norm, err := users.NormalizeEmail(initial.User); err == nil && norm == emailNorm {
			out = append(out, authz.Assignment{Subject: userID, Role: initial.Role})
		}
	}
	return out
}

// verified gives an account the roles of the address that it has proved to own.
func (k roleKeeper) verified(ctx context.Context, userID, emailNorm string) error {
	assign := k.initial(userID, emailNorm)
	if len(k.authz.roles) == 0 || len(assign) == 0 {
		return nil
	}
	return k.assign(ctx, authz.Change{Assign: assign})
}

// grant gives a role to an account that may be about to be made, and there for nobody to
// look up. It may be repeated.
func (k roleKeeper) grant(ctx context.Context, userID, role string) error {
	if err := k.authz.checkRole(role); err != nil {
		return err
	}
	editor, err := k.authz.editor(ctx)
	if err != nil {
		return err
	}
	c := authz.Change{Assign: []authz.Assignment{{Subject: userID, Role: role}}}
	if err := editor.Apply(ctx, c); err != nil {
		return err
	}
	k.authz.report(ctx, &c)
	return nil
}

func (k roleKeeper) assign(ctx context.Context, c authz.Change) error {
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
