// Package casbin is the default provider of authorization: rules in Casbin's
// domain model and storage format, kept in MongoDB by Casbin's own adapter, and
// decisions from an immutable snapshot of them in memory.
//
// The app's slug is the domain of every rule:
//
//	p, editor, shop, documents, write, allow
//	g, usr_…, editor, shop
//
// A check costs a few map lookups, no lock and no round trip: it does not depend
// on the number of rules, only on the roles of the subject. A change is stored,
// then decides on this instance, and then is answered; other instances follow
// within MaxStaleness, and refuse to decide when they cannot know.
//
// What was found wrong with the stock parts for this purpose, and is kept out
// here, is in docs/security.md.
package casbin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/internal/appstate"
	"github.com/mandate-auth/mandate/internal/store"
)

// State keeps the version of an app's policy.
type State interface {
	// Policy reads the version and the latest changes.
	Policy(ctx context.Context, app string) (*appstate.Policy, error)
	// Touched records that the rules of the keys have been written.
	Touched(ctx context.Context, app string, keys [][]string) (*appstate.Policy, error)
}

// Config configures a [Provider].
type Config struct {
	// App is the slug, the domain of every rule. Required.
	App string
	// Model is one of the built-in models. Default [ModelRBAC].
	Model Model
	// Matching says how objects match. Default [MatchExact].
	Matching Matching
	// CustomModel is the text of a model in Casbin's language that is enforced
	// instead of a built-in one, by Casbin itself: see docs/permissions.md for what
	// it may hold. A check then costs as much as there are rules.
	CustomModel string
	// Hierarchy gives roles further roles: {"admin": {"editor"}}. Circles are
	// allowed, and there is no limit of depth.
	Hierarchy map[string][]string
	// State and Watcher keep instances in step. Required.
	State   State
	Watcher *appstate.Watcher
	// Memory bounds what the rules of several apps take. Nil bounds nothing.
	Memory *Memory
	// MaxStaleness is how old the knowledge may be that decides. Default 2 s.
	MaxStaleness time.Duration
	// Logger receives what operators need to know. Default slog.Default.
	Logger *slog.Logger
}

// Provider decides for one app. It implements [authz.Editor] and is safe for
// concurrent use.
type Provider struct {
	store   *Store
	config  Config
	grammar *grammar
	watch   *appstate.PolicyWatch

	snapshot atomic.Pointer[snapshot] // nil until the first use
	idle     atomic.Int32             // for how many minutes nobody has asked; 0 is this one
	turn     chan struct{}            // held by whoever makes a new snapshot
	flight   singleflight.Group

	mu     sync.Mutex
	closed bool
	kicked bool
	run    context.Context //nolint:containedctx // the life of the refreshes in the background
	stop   context.CancelFunc
	ended  sync.WaitGroup
}

var (
	_ authz.Editor    = (*Provider)(nil)
	_ authz.Explainer = (*Provider)(nil)
	_ authz.Coverer   = (*Provider)(nil)
)

// New returns the provider of the app that config describes, as the engine does for
// each of its apps; a service that has an enforcer of its own uses [Wrap]. It reads
// the rules on first use; see [Provider.Ready].
func New(s *Store, config Config) (*Provider, error) {
	if config.Model == "" {
		config.Model = ModelRBAC
	}
	if config.Matching == "" {
		config.Matching = MatchExact
	}
	if s == nil || config.State == nil || config.Watcher == nil {
		return nil, errors.New("casbin: a store, a state and a watcher are required")
	}
	if err := authz.CheckValue("app", config.App); err != nil {
		return nil, fmt.Errorf("casbin: %w", err)
	}
	g, err := newGrammar(&config)
	if err != nil {
		return nil, err
	}
	if !g.roles && len(config.Hierarchy) > 0 {
		return nil, fmt.Errorf("casbin: the model %s has no roles, so there is no role hierarchy", g)
	}
	if config.MaxStaleness <= 0 {
		config.MaxStaleness = 2 * time.Second
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	hierarchy := make(map[string][]string, len(config.Hierarchy))
	for role, inherited := range config.Hierarchy {
		for _, r := range append([]string{role}, inherited...) {
			if err := authz.CheckRole(r); err != nil {
				return nil, fmt.Errorf("casbin: the role hierarchy: %w", err)
			}
		}
		hierarchy[role] = slices.Clone(inherited)
	}
	config.Hierarchy = hierarchy
	p := &Provider{store: s, config: config, grammar: g, turn: make(chan struct{}, 1)}
	p.idle.Store(1)
	p.run, p.stop = context.WithCancel(context.Background())
	p.watch = config.Watcher.Policy(config.App, p.kick)
	return p, nil
}

// Close ends what goes on in the background, or gives up with ctx.
func (p *Provider) Close(ctx context.Context) error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.config.Watcher.Forget(p.config.App)
	p.stop()
	err := store.Wait(ctx, &p.ended)
	p.install(nil)
	return err
}

// Ready reports whether the provider can decide: it reads the rules unless they
// are in memory. The error is a [*DamagedError] for a document that is no rule,
// and wraps [authz.ErrUnavailable] when the database does not answer.
func (p *Provider) Ready(ctx context.Context) error {
	if p.fresh() != nil {
		return nil
	}
	_, err := p.wait(ctx) // which is no use: an app that was just loaded is idle
	return err
}

// HasRoles reports whether the model has roles.
func (p *Provider) HasRoles() bool { return p.grammar.roles }

// asked returns the snapshot that may decide a request of the app.
func (p *Provider) asked(ctx context.Context, app string) (*snapshot, error) {
	if app != p.config.App {
		return nil, fmt.Errorf("casbin: a request of app %q at the provider of app %q", app, p.config.App)
	}
	return p.current(ctx)
}

// Authorize implements [authz.Provider].
func (p *Provider) Authorize(ctx context.Context, r authz.Request) (authz.Decision, error) {
	s, err := p.asked(ctx, r.App)
	if err != nil {
		return authz.Decision{}, err
	}
	if r.Subject == "" {
		return authz.Decision{Reason: authz.ReasonNoRule}, nil
	}
	return s.authorize(r.Subject, r.Permission)
}

// Explain implements [authz.Explainer].
func (p *Provider) Explain(ctx context.Context, r authz.Request) (authz.Explanation, error) {
	s, err := p.asked(ctx, r.App)
	if err != nil {
		return authz.Explanation{}, err
	}
	if r.Subject == "" {
		return authz.Explanation{Decision: authz.Decision{Reason: authz.ReasonNoRule}}, nil
	}
	return s.explain(r.Subject, r.Permission)
}

// Covers implements [authz.Coverer].
func (p *Provider) Covers(ctx context.Context, subject string, permission authz.Permission) (bool, error) {
	s, err := p.current(ctx)
	if err != nil || subject == "" {
		return false, err
	}
	return s.covers(subject, permission)
}

// HasRole implements [authz.Provider].
func (p *Provider) HasRole(ctx context.Context, subject string, roles ...string) (bool, error) {
	s, err := p.current(ctx)
	if err != nil || subject == "" {
		return false, err
	}
	return p.grammar.roles && s.hasRole(subject, roles), nil
}

// Roles implements [authz.Provider].
func (p *Provider) Roles(ctx context.Context, subject string) ([]string, error) {
	s, err := p.current(ctx)
	if err != nil {
		return nil, err
	}
	return s.rolesOf(subject), nil
}

// Permissions implements [authz.Provider].
func (p *Provider) Permissions(ctx context.Context, subject string) ([]authz.Permission, error) {
	s, err := p.current(ctx)
	if err != nil {
		return nil, err
	}
	return s.permissionsOf(subject)
}
