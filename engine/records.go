package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/mandate-auth/mandate/engine/audit"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/engine/metrics"
	"github.com/mandate-auth/mandate/tokens/keys"
)

// Audit returns the app's audit trail in MongoDB, nil where the manifest's
// auth.audit is off or does not name the sink "mongodb".
func (app *App) Audit() *audit.Trail { return app.trail }

// AuditRequests records every request that next answers, with its method, path,
// status, address and, behind a guard of the app, who called: event.RequestPassed.
// Paths of the manifest's auth.audit.exclude_paths are left out. It belongs around
// the service's own handlers; the app's routes record what they do by themselves.
func (app *App) AuditRequests(next http.Handler) http.Handler {
	if !app.manifest.Auth.Audit.Enabled {
		return next
	}
	return app.api.AuditRequests(next, app.manifest.Auth.Audit.ExcludePaths)
}

// Metrics returns what is counted of the app, nil where the manifest's
// auth.metrics.enabled is false. A nil Collector counts nothing.
func (app *App) Metrics() *metrics.Collector { return app.metrics }

// Metrics returns what is counted of every loaded app, in the order of their slugs:
// a source for exporters.
func (e *Engine) Metrics() []*metrics.Collector {
	var out []*metrics.Collector
	for _, app := range e.loaded() {
		if app.metrics != nil {
			out = append(out, app.metrics)
		}
	}
	slices.SortFunc(out, func(a, b *metrics.Collector) int { return strings.Compare(a.App(), b.App()) })
	return out
}

// buildRecords makes what the app reports to. It comes first, so that the other
// parts can report.
func (e *Engine) buildRecords(ctx context.Context, app *App, k *keys.App) error {
	m := app.manifest
	if m.Auth.Metrics.Enabled {
		app.metrics = metrics.New(metrics.Config{App: app.slug, Now: e.opts.Now})
	}
	app.events = &appEvents{engine: e, metrics: app.metrics}
	if !m.Auth.Audit.Enabled {
		return nil
	}
	for _, name := range m.Auth.Audit.Sinks {
		switch sink := e.opts.AuditSinks[name]; {
		case name == "mongodb":
			if err := e.buildTrail(ctx, app, k); err != nil {
				return err
			}
		case name == "log":
			app.events.sinks = append(app.events.sinks, event.SlogSink(e.opts.Logger.With(slog.String("trail", app.slug))))
		case sink == nil:
			return fmt.Errorf("auth.audit.sinks names %q and nobody has registered it; add AuditSinks: map[string]event.Sink{%q: …} to engine.Options", name, name)
		default:
			app.events.sinks = append(app.events.sinks, sink)
		}
	}
	return nil
}

func (e *Engine) buildTrail(ctx context.Context, app *App, k *keys.App) (err error) {
	a := &app.manifest.Auth.Audit
	app.trail, err = audit.NewTrail(e.db, audit.Config{ //nolint:contextcheck // its goroutine outlives the call
		App: app.slug, Retention: time.Duration(a.Retention), TamperEvident: a.TamperEvident, Synchronous: a.Synchronous,
		Signer: audit.SignWith(k, keys.Audit), Cursors: k, Now: e.opts.Now, Logger: e.opts.Logger,
	})
	if err != nil {
		return err
	}
	if err := e.index(ctx, "audit_events", app.trail.EnsureIndexes); err != nil {
		return err
	}
	app.events.trail = app.trail
	return nil
}

// gauges lets the metrics ask for what is known when somebody looks.
func (app *App) gauges() {
	g := metrics.Gauges{FeedAge: app.blacklist.Age, PolicyAge: app.authz.age}
	if app.trail != nil {
		g.AuditDropped = app.trail.Dropped
	}
	if app.metrics != nil {
		app.metrics.SetGauges(g)
	}
}

// observe returns what counts the look-ups of what is remembered, nil without
// metrics.
func (app *App) observe(cache string) func(hit bool) {
	if app.metrics == nil {
		return nil
	}
	return func(hit bool) {
		if hit {
			app.metrics.CacheHit(cache)
		} else {
			app.metrics.CacheMiss(cache)
		}
	}
}

// appEvents receives what happens in one app: for its audit trail, its metrics and
// the engine's sinks.
type appEvents struct {
	engine  *Engine
	trail   *audit.Trail // nil without one
	metrics *metrics.Collector
	sinks   []event.Sink
}

// Record implements [event.Sink].
func (s *appEvents) Record(ctx context.Context, e event.Event) {
	if e.Request == (event.Request{}) {
		e.Request = event.RequestFrom(ctx)
	}
	if p := PrincipalFrom(ctx); e.Actor == "" && p != nil && p.ID != e.UserID && p.ID != e.ClientID {
		e.Actor = p.ID
	}
	s.count(&e)
	if s.trail != nil {
		s.trail.Record(ctx, e)
	}
	s.engine.events.recordTo(e, s.sinks)
}

// count counts what the metrics tell of sign-ins and refreshes.
func (s *appEvents) count(e *event.Event) {
	switch e.Type {
	case event.LoginSucceeded:
		s.metrics.Login(string(event.Success))
	case event.LoginFailed:
		s.metrics.Login(orFailure(e.Reason))
	case event.SessionRefreshed:
		s.metrics.Refresh(string(event.Success))
	case event.RefreshReused:
		s.metrics.Refresh("reused")
	default:
	}
}

func orFailure(reason string) string {
	if reason == "" {
		return string(event.Failure)
	}
	return reason
}

// closeTrail writes what is still to be recorded.
func (app *App) closeTrail(ctx context.Context) error {
	if app.trail == nil {
		return nil
	}
	if err := app.trail.Close(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}
