package engine

import (
	"context"
	"errors"
	"log/slog"
)

// upkeep is done once a minute.
func (app *App) upkeep(ctx context.Context) {
	app.sweep(ctx)
	app.authz.upkeep(ctx)
	app.keys.upkeep(ctx)
}

// sweep removes what has expired, where the server has no TTL indexes.
func (app *App) sweep(ctx context.Context) {
	e := app.engine
	if e == nil {
		return // still being loaded
	}
	parts := map[string]func(context.Context) (int64, error){
		"sessions/" + app.manifest.Auth.Sessions.Collection: app.sessions.Sweep,
		"users/" + app.manifest.Auth.Users.CollectionName:   app.users.Sweep,
		"rate_limits": app.limitStore.Sweep,
	}
	if app.trail != nil {
		parts["audit_events"] = app.trail.Sweep
	}
	if app.apiKeys != nil {
		parts["api_keys"] = app.apiKeys.Sweep
	}
	if app.onetime != nil {
		parts["onetime_tokens"] = app.onetime.Sweep
	}
	if app.outbox != nil {
		parts["mail_outbox"] = app.outbox.Sweep
	}
	if app.invitations != nil {
		parts["invitations"] = app.invitations.Sweep
	}
	var errs []error
	for name, sweep := range parts {
		e.mu.Lock()
		ttl := e.indexed[name]
		e.mu.Unlock()
		if !ttl {
			_, err := sweep(ctx)
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil && !errors.Is(err, context.Canceled) {
		e.opts.Logger.Error("sweep", slog.String("app", app.slug), slog.Any("error", err))
	}
}
