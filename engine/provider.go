package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/authz/casbin"
	"github.com/mandate-auth/mandate/internal/appstate"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/manifest"
	"github.com/mandate-auth/mandate/tokens/keys"
)

// providerRetry is how long a provider that could not be opened is left alone.
const providerRetry = time.Second

// opening is a provider that is opened once: at the start of the app, or later
// where the manifest does not require it.
type opening struct {
	open   func(context.Context) (authz.Provider, error)
	opened atomic.Pointer[authz.Provider]
	flight singleflight.Group

	mu     sync.Mutex
	failed time.Time // by the process's clock
	err    error
	closed bool
}

// get returns the provider, and opens it if nobody has. Everybody who waits for
// that shares it, and waits no longer than a call may take.
func (o *opening) get(ctx context.Context) (authz.Provider, error) {
	if p := o.opened.Load(); p != nil {
		return *p, nil
	}
	ctx, cancel := store.Context(ctx)
	defer cancel()
	done := o.flight.DoChan("open", func() (any, error) { return nil, o.try(context.WithoutCancel(ctx)) })
	select {
	case r := <-done:
		if r.Err != nil {
			return nil, r.Err
		}
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", authz.ErrUnavailable, ctx.Err())
	}
	if p := o.opened.Load(); p != nil {
		return *p, nil
	}
	return nil, fmt.Errorf("%w: %w", authz.ErrUnavailable, ErrClosed)
}

// try opens the provider, unless that has just failed.
func (o *opening) try(ctx context.Context) error {
	now := time.Now() //nolint:forbidigo // how long to leave the provider alone, not a time of the app
	o.mu.Lock()
	closed, recent := o.closed, o.err
	if now.Sub(o.failed) >= providerRetry {
		recent = nil
	}
	o.mu.Unlock()
	switch {
	case closed:
		return fmt.Errorf("%w: %w", authz.ErrUnavailable, ErrClosed)
	case recent != nil:
		return fmt.Errorf("%w: %w", authz.ErrUnavailable, recent)
	case o.opened.Load() != nil:
		return nil
	}
	p, err := o.open(ctx)
	o.mu.Lock()
	defer o.mu.Unlock()
	if err == nil && o.closed {
		err = errors.Join(ErrClosed, closeProvider(ctx, p))
	}
	if err != nil {
		o.failed, o.err = now, err
		return fmt.Errorf("%w: %w", authz.ErrUnavailable, err)
	}
	o.opened.Store(&p)
	o.err = nil
	return nil
}

func (o *opening) close(ctx context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	if p := o.opened.Load(); p != nil {
		return closeProvider(ctx, *p)
	}
	return nil
}

// closeProvider closes a provider that can be closed.
func closeProvider(ctx context.Context, p authz.Provider) error {
	if c, ok := p.(interface{ Close(context.Context) error }); ok {
		return c.Close(ctx)
	}
	return nil
}

// buildAuthz makes what decides, and opens the provider unless the manifest can
// do without.
func (e *Engine) buildAuthz(ctx context.Context, app *App, state *appstate.State, k *keys.App) error {
	p := &app.manifest.Auth.Policy
	create := e.opts.Providers[p.Provider]
	switch p.Provider {
	case "casbin":
		create = func(ctx context.Context, _ string) (authz.Provider, error) { return e.openCasbin(ctx, app) }
	case "oso":
		create = func(context.Context, string) (authz.Provider, error) { return openOso(app.manifest) }
	}
	if create == nil {
		return fmt.Errorf("auth.policy.provider is %q and nobody has registered it; add Providers: map[string]engine.NewProvider{%q: …} to engine.Options",
			p.Provider, p.Provider)
	}
	var err error
	if app.authz, err = newAuthz(app, k); err != nil {
		return err
	}
	app.authz.provider.open = func(ctx context.Context) (authz.Provider, error) {
		provider, err := create(ctx, app.slug)
		if err != nil {
			return nil, err // what came with it may be a nil of some type, and is nobody's to close
		}
		if err := e.seedPolicy(ctx, app, provider, state); err != nil {
			return nil, errors.Join(err, closeProvider(ctx, provider))
		}
		return provider, nil
	}
	if err := app.authz.provider.try(ctx); err != nil {
		if p.Required {
			return fmt.Errorf("the provider %s of authorization: %w", p.Provider, err)
		}
		e.opts.Logger.Error("the app starts without its provider of authorization; what needs a decision is refused until it works",
			slog.String("app", app.slug), slog.String("provider", p.Provider), slog.Any("error", err))
	}
	return nil
}

func (e *Engine) openCasbin(ctx context.Context, app *App) (authz.Provider, error) {
	a, t := &app.manifest.Auth.Policy.Authorization, &app.manifest.Auth.Tokens
	policies, err := e.policyStore(ctx, a.PoliciesCollection)
	if err != nil {
		return nil, err
	}
	config := casbin.Config{
		App: app.slug, Model: casbin.Model(a.Model), Matching: casbin.Matching(a.Matching), Hierarchy: a.RoleHierarchy,
		State: e.states, Watcher: e.watcher, Memory: e.policyMemory, MaxStaleness: time.Duration(t.Revocation.MaxStaleness), Logger: e.opts.Logger,
	}
	if config.CustomModel, err = app.manifest.ReadModel(); err != nil {
		return nil, err
	}
	e.watcher.PollAtLeastEvery(time.Duration(t.Revocation.PollInterval))
	p, err := casbin.New(policies, config)
	if err != nil {
		return nil, err
	}
	if config.CustomModel != "" {
		if a.LinkUsersRoles && !p.HasRoles() {
			return nil, errors.Join(errors.New("the model of the file has no roles, which link_users_roles would give to new users; set it to false, or define g = _, _, _"),
				p.Close(context.WithoutCancel(ctx)))
		}
		e.opts.Logger.Info("the model of the app is a file, which Casbin enforces itself: a check costs as much as there are rules",
			slog.String("app", app.slug), slog.String("model", a.Model))
	}
	if err := p.Ready(ctx); err != nil {
		return nil, errors.Join(err, p.Close(context.WithoutCancel(ctx)))
	}
	return p, nil
}

// policyStore returns the store of a policies collection: one for all apps that
// share it.
func (e *Engine) policyStore(ctx context.Context, collection string) (*casbin.Store, error) {
	e.mu.Lock()
	found := e.policies[collection]
	e.mu.Unlock()
	if found != nil {
		return found, nil
	}
	opened, err := casbin.Open(ctx, e.db, collection)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.policies[collection] == nil {
		e.policies[collection] = opened
	}
	return e.policies[collection], nil
}

// seedPolicy stores the manifest's initial policies that have not been stored
// before.
func (e *Engine) seedPolicy(ctx context.Context, app *App, provider authz.Provider, state *appstate.State) error {
	rules := map[string]authz.Rule{}
	var names []string
	seeded := map[string]bool{}
	for _, name := range state.Seeded {
		seeded[name] = true
	}
	for _, entry := range app.manifest.Auth.Policy.Authorization.InitialPolicies {
		r := manifest.Rule(entry)
		raw, err := json.Marshal([]string{r.Subject, r.Object, r.Action, string(r.Effect)})
		if err != nil {
			return err
		}
		// A digest: the names stand in a document that every change of the policy
		// writes.
		digest := sha256.Sum256(raw)
		name := "policy/" + hex.EncodeToString(digest[:12])
		if _, twice := rules[name]; twice || seeded[name] {
			continue
		}
		rules[name] = r
		names = append(names, name)
	}
	if len(names) == 0 {
		return nil
	}
	editor, ok := provider.(authz.Editor)
	if !ok {
		return fmt.Errorf("%w: the manifest has initial_policies and the provider cannot store any", authz.ErrUnsupported)
	}
	return e.states.Once(ctx, app.slug, names, func(ctx context.Context, missing []string) error {
		var c authz.Change
		for _, name := range missing {
			c.Add = append(c.Add, rules[name])
		}
		return editor.Apply(ctx, c)
	})
}
