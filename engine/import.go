package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/users"
)

// ImportUsers creates accounts from JSON lines: see [users.Store.Import]. Accounts
// get the roles that their line names, which have to be the manifest's, besides those
// that the manifest has for new accounts. It waits for the audit trail and the sinks,
// so that no record of an import is lost for its speed.
func (app *App) ImportUsers(ctx context.Context, r io.Reader, o users.ImportOptions) (*users.ImportReport, error) {
	if o.Roles == nil {
		o.Roles = importRoles{roleKeeper{app.authz}}
	}
	o.Roles = settling{o.Roles, app}
	return app.users.Import(ctx, r, o)
}

// settling waits between the steps of an import.
type settling struct {
	users.RoleGranter
	app *App
}

// GrantRoles implements [users.RoleGranter].
func (s settling) GrantRoles(ctx context.Context, grants []users.Grant) error {
	if err := s.app.settle(ctx); err != nil {
		return err
	}
	return s.RoleGranter.GrantRoles(ctx, grants)
}

// importRoles gives the accounts of an import the roles of the manifest and of their
// lines.
type importRoles struct{ roleKeeper }

// CheckRoles implements [users.RoleGranter].
func (i importRoles) CheckRoles(roles []string) error {
	for _, role := range roles {
		if err := i.authz.checkRole(role); err != nil {
			return err
		}
	}
	return nil
}

// GrantRoles implements [users.RoleGranter].
func (i importRoles) GrantRoles(ctx context.Context, grants []users.Grant) error {
	var c authz.Change
	named := false
	for _, g := range grants {
		named = named || len(g.Roles) > 0
		roles := append(slices.Clone(g.Roles), i.ofManifest(&g)...)
		slices.Sort(roles)
		for _, role := range slices.Compact(roles) {
			c.Assign = append(c.Assign, authz.Assignment{Subject: g.UserID, Role: role})
		}
	}
	if c.Empty() {
		return nil
	}
	editor, err := i.authz.editor(ctx)
	if errors.Is(err, authz.ErrUnsupported) && !named {
		return nil // roles are kept elsewhere
	}
	if err != nil {
		return err
	}
	if err := editor.Apply(ctx, c); err != nil {
		return err
	}
	i.authz.report(ctx, &c)
	return nil
}

// ofManifest returns the roles that the manifest has for a new account.
func (i importRoles) ofManifest(g *users.Grant) []string {
	m := i.authz.app.manifest
	if !m.Auth.Policy.Authorization.LinkUsersRoles || len(i.authz.roles) == 0 {
		return nil
	}
	roles := []string{m.Auth.Users.RegistrationRole}
	if g.Trusted {
		for _, a := range i.initial(g.UserID, g.EmailNorm) {
			roles = append(roles, a.Role)
		}
	}
	return roles
}

const (
	// settlePause is how often settle looks whether the sinks have caught up.
	settlePause = 5 * time.Millisecond
	// settleTrail bounds how long the trail is waited for: it repeats without end what the
	// database does not take.
	settleTrail = 10 * time.Second
)

// settle waits until the trail has stored what happened, and the queue of the sinks
// has room for what one step of a long job reports. A sink that hangs is not waited
// for longer than a call to the database.
func (app *App) settle(ctx context.Context) error {
	if app.trail != nil {
		bounded, cancel := context.WithTimeout(ctx, settleTrail)
		defer cancel()
		if err := app.trail.Flush(bounded); err != nil {
			return fmt.Errorf("wait for the audit trail: %w", err)
		}
	}
	ctx, cancel := store.Context(ctx)
	defer cancel()
	for len(app.engine.events.queue) > dispatchQueue/4 {
		select {
		case <-time.After(settlePause):
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}
