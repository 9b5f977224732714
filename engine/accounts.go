package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/sessions"
	"github.com/mandate-auth/mandate/users"
)

// accounts lets sessions ask about users.
type accounts struct{ app *App }

// Active implements [sessions.Accounts].
func (a accounts) Active(ctx context.Context, userID string) (authz.Kind, error) {
	kind, err := a.app.users.Active(ctx, userID)
	if errors.Is(err, users.ErrNotFound) || errors.Is(err, users.ErrDisabled) {
		return "", fmt.Errorf("%w: %w", sessions.ErrGone, err)
	}
	return kind, err
}

// Exists implements [sessions.Accounts].
func (a accounts) Exists(ctx context.Context, userID string) (bool, error) {
	_, err := a.app.users.Get(ctx, userID)
	if errors.Is(err, users.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}
