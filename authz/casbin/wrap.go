package casbin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/casbin/casbin/v2"
	"github.com/casbin/casbin/v2/model"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/internal/store"
)

// Wrapped is a provider that asks an enforcer of the service. It implements
// [authz.Editor] and is safe for concurrent use.
//
// It decides as the enforcer does: with its cost, its depth of roles, and its
// idea of what other instances have changed. Where the enforcer is a plain
// [casbin.Enforcer], Wrapped locks its own calls; the service's calls to it are
// the service's to lock, or it hands over a [casbin.SyncedEnforcer].
type Wrapped struct {
	enforcer casbin.IEnforcer
	app      string
	domain   string
	shape    shape
	mu       *sync.RWMutex // nil where the enforcer locks by itself
}

var _ authz.Editor = (*Wrapped)(nil)

// shape is what the enforcer's model looks like.
type shape struct {
	requestDomain, groupingDomain, roles, deny bool

	policy []string // the names of a policy's values
}

// Wrap makes a provider of the app out of an enforcer that the service has. The
// model's requests are "sub, obj, act" or "sub, dom, obj, act"; the domain is the
// given one, or the app's slug when it is empty. An enforcer whose requests have no
// domain can serve one app only: it would know the roles of all as those of each.
//
// An enforcer that caches decisions is refused, because what was revoked stays
// allowed in its cache, and so is one that allows anybody anything, such as one
// that was switched off by EnableEnforce.
func Wrap(enforcer casbin.IEnforcer, app, domain string) (*Wrapped, error) {
	if enforcer == nil || enforcer.GetModel() == nil {
		return nil, errors.New("casbin: an enforcer with a model is required")
	}
	if err := authz.CheckValue("app", app); err != nil {
		return nil, fmt.Errorf("casbin: %w", err)
	}
	w := &Wrapped{enforcer: enforcer, app: app, domain: cmp.Or(domain, app)}
	switch enforcer.(type) {
	case *casbin.CachedEnforcer, *casbin.SyncedCachedEnforcer:
		return nil, errors.New("casbin: a cached enforcer keeps on allowing what was revoked; hand over a SyncedEnforcer")
	case *casbin.Enforcer:
		w.mu = &sync.RWMutex{}
	}
	var err error
	if w.shape, err = shapeOf(enforcer.GetModel()); err != nil {
		return nil, err
	}
	nobody := authz.Request{App: app, Subject: store.NewID("prb_"), Permission: authz.Permission{Object: store.NewID("prb_"), Action: store.NewID("prb_")}}
	probe, err := w.Authorize(context.Background(), nobody)
	if err != nil {
		return nil, fmt.Errorf("casbin: the enforcer does not answer: %w", err)
	}
	if probe.Allowed {
		return nil, errors.New("casbin: the enforcer allows anybody anything; is it switched off by EnableEnforce(false)?")
	}
	return w, nil
}

func shapeOf(m model.Model) (shape, error) {
	var s shape
	request := m["r"]["r"]
	if request == nil || m["p"]["p"] == nil {
		return s, errors.New("casbin: the model has no request or no policy definition")
	}
	switch strings.Join(request.Tokens, " ") {
	case "r_sub r_obj r_act":
	case "r_sub r_dom r_obj r_act":
		s.requestDomain = true
	default:
		return s, fmt.Errorf("casbin: requests of the model are %q; they have to be \"sub, obj, act\" or \"sub, dom, obj, act\"", request.Value)
	}
	for _, token := range m["p"]["p"].Tokens {
		s.policy = append(s.policy, strings.TrimPrefix(token, "p_"))
	}
	// An effect that does not speak of denials ignores them.
	effect := m["e"]["e"]
	s.deny = effect != nil && strings.Contains(effect.Value, "deny") && slices.Contains(s.policy, "eft")
	if grouping := m["g"]["g"]; grouping != nil {
		s.roles, s.groupingDomain = true, strings.Count(grouping.Value, "_") == 3
	}
	return s, nil
}

func (w *Wrapped) read() func() {
	if w.mu == nil {
		return func() {}
	}
	w.mu.RLock()
	return w.mu.RUnlock
}

func (w *Wrapped) write() func() {
	if w.mu == nil {
		return func() {}
	}
	w.mu.Lock()
	return w.mu.Unlock
}

// failed hides what the enforcer says behind an error that clients can be shown:
// its own holds values and stack traces.
func failed(err error) error {
	return fmt.Errorf("%w: the enforcer failed: %w", authz.ErrUnavailable, err)
}

// Authorize implements [authz.Provider].
func (w *Wrapped) Authorize(ctx context.Context, r authz.Request) (authz.Decision, error) {
	if err := ctx.Err(); err != nil {
		return authz.Decision{}, err
	}
	if r.App != w.app {
		return authz.Decision{}, fmt.Errorf("casbin: a request of app %q at the provider of app %q", r.App, w.app)
	}
	if r.Subject == "" {
		return authz.Decision{Reason: authz.ReasonNoRule}, nil
	}
	defer w.read()()
	return w.decide(r.Subject, r.Permission)
}

func (w *Wrapped) decide(subject string, p authz.Permission) (authz.Decision, error) {
	request := []any{subject, p.Object, p.Action}
	if w.shape.requestDomain {
		request = []any{subject, w.domain, p.Object, p.Action}
	}
	allowed, err := w.enforcer.Enforce(request...)
	switch {
	case err != nil:
		return authz.Decision{}, failed(err)
	case allowed:
		return authz.Decision{Allowed: true, Reason: authz.ReasonAllowed}, nil
	default:
		return authz.Decision{Reason: authz.ReasonNoRule}, nil
	}
}

// groupDomain is the domain as Casbin's role functions take it.
func (w *Wrapped) groupDomain() []string {
	if w.shape.groupingDomain {
		return []string{w.domain}
	}
	return nil
}

// HasRole implements [authz.Provider].
func (w *Wrapped) HasRole(ctx context.Context, subject string, roles ...string) (bool, error) {
	if subject == "" || len(roles) == 0 {
		return false, ctx.Err()
	}
	has, err := w.Roles(ctx, subject)
	return slices.ContainsFunc(has, func(r string) bool { return slices.Contains(roles, r) }), err
}

// Roles implements [authz.Provider].
func (w *Wrapped) Roles(ctx context.Context, subject string) ([]string, error) {
	if err := ctx.Err(); err != nil || !w.shape.roles || subject == "" {
		return nil, err
	}
	defer w.read()()
	roles, err := w.enforcer.GetImplicitRolesForUser(subject, w.groupDomain()...)
	if err != nil {
		return nil, failed(err)
	}
	roles = slices.DeleteFunc(slices.Clone(roles), func(r string) bool { return r == subject })
	slices.Sort(roles)
	return slices.Compact(roles), nil
}

// Permissions implements [authz.Provider]: those permissions of the rules for the
// subject and its roles that the enforcer allows.
func (w *Wrapped) Permissions(ctx context.Context, subject string) ([]authz.Permission, error) {
	roles, err := w.Roles(ctx, subject)
	if err != nil || subject == "" {
		return nil, err
	}
	defer w.read()()
	var out []authz.Permission
	for _, name := range append([]string{subject}, roles...) {
		rules, err := w.rules(authz.RuleFilter{Subject: name})
		if err != nil {
			return nil, err
		}
		for _, r := range rules {
			d, err := w.decide(subject, r.Permission)
			if err != nil {
				return nil, err
			}
			if d.Allowed {
				out = append(out, r.Permission)
			}
		}
	}
	slices.SortFunc(out, func(a, b authz.Permission) int {
		return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Action, b.Action))
	})
	return slices.Compact(out), nil
}

// values are the values of a rule in the order of the model's policy definition.
func (w *Wrapped) values(r authz.Rule) ([]string, error) {
	if r.Effect == authz.Deny && !w.shape.deny {
		return nil, &unsupported{"the enforcer's model has no rules that deny"}
	}
	out := make([]string, len(w.shape.policy))
	for i, name := range w.shape.policy {
		switch name {
		case "sub":
			out[i] = r.Subject
		case "dom":
			out[i] = w.domain
		case "obj":
			out[i] = r.Object
		case "act":
			out[i] = r.Action
		case "eft":
			out[i] = string(cmp.Or(r.Effect, authz.Allow))
		default:
			return nil, &unsupported{"the enforcer's policies have a value " + name + " that a rule has not"}
		}
	}
	return out, nil
}

// rules returns the rules that match the filter, in order.
func (w *Wrapped) rules(f authz.RuleFilter) ([]authz.Rule, error) {
	want := map[string]string{"sub": f.Subject, "obj": f.Object, "act": f.Action, "dom": w.domain}
	fields := make([]string, len(w.shape.policy))
	for i, name := range w.shape.policy {
		fields[i] = want[name]
	}
	found, err := w.enforcer.GetFilteredPolicy(0, fields...)
	if err != nil {
		return nil, failed(err)
	}
	out := make([]authz.Rule, 0, len(found))
	for _, values := range found {
		r := authz.Rule{Effect: authz.Allow}
		for i, name := range w.shape.policy[:min(len(values), len(w.shape.policy))] {
			switch name {
			case "sub":
				r.Subject = values[i]
			case "obj":
				r.Object = values[i]
			case "act":
				r.Action = values[i]
			case "eft":
				r.Effect = authz.Effect(cmp.Or(values[i], string(authz.Allow)))
			}
		}
		out = append(out, r)
	}
	slices.SortFunc(out, compareRules)
	return out, nil
}

func compareRules(a, b authz.Rule) int {
	return cmp.Or(cmp.Compare(a.Subject, b.Subject), cmp.Compare(a.Object, b.Object),
		cmp.Compare(a.Action, b.Action), cmp.Compare(a.Effect, b.Effect))
}
