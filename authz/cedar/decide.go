package cedar

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"

	"github.com/mandate-auth/mandate/authz"
)

// Authorize implements [authz.Provider]. Where a policy cannot be evaluated the
// error is [ErrEvaluation].
func (p *Provider) Authorize(ctx context.Context, r authz.Request) (authz.Decision, error) {
	if err := ctx.Err(); err != nil {
		return authz.Decision{}, err
	}
	if r.App != p.app {
		return authz.Decision{}, fmt.Errorf("cedar: a request of app %q at the provider of app %q", r.App, p.app)
	}
	return p.current.Load().decide(r)
}

// decide asks Cedar. An evaluation ends by itself: the language has no loops and
// no recursion.
func (s *policy) decide(r authz.Request) (d authz.Decision, err error) {
	if r.Subject == "" {
		// Nobody is no entity: "permit (principal, …)" is not about nobody.
		return authz.Decision{Reason: authz.ReasonNoRule}, nil
	}
	defer func() {
		if v := recover(); v != nil {
			d, err = authz.Decision{}, fmt.Errorf("%w: panic: %v", ErrEvaluation, v)
		}
	}()
	decision, diagnostic := cedar.Authorize(s.policies, s.entities, cedar.Request{
		Principal: types.NewEntityUID(TypeUser, types.String(r.Subject)),
		Action:    types.NewEntityUID(TypeAction, types.String(r.Action)),
		Resource:  types.NewEntityUID(TypeObject, types.String(r.Object)),
		Context:   types.NewRecord(types.RecordMap{"app": types.String(r.App)}),
	})
	switch {
	case decision == cedar.Deny && len(diagnostic.Reasons) > 0:
		// Something forbids it. No other policy could change that, failed or not.
		return authz.Decision{Reason: authz.ReasonDenied}, nil
	case len(diagnostic.Errors) > 0:
		return authz.Decision{}, failed(diagnostic.Errors)
	case decision == cedar.Allow:
		return authz.Decision{Allowed: true, Reason: authz.ReasonAllowed}, nil
	default:
		return authz.Decision{Reason: authz.ReasonNoRule}, nil
	}
}

// failed names the first policy that failed, in the order of the files.
func failed(errs []cedar.DiagnosticError) error {
	first := slices.MinFunc(errs, func(a, b cedar.DiagnosticError) int {
		return cmp.Or(cmp.Compare(a.Position.Filename, b.Position.Filename), cmp.Compare(a.Position.Offset, b.Position.Offset))
	})
	err := fmt.Errorf("%w: %s: %s", ErrEvaluation, first.PolicyID, first.Message)
	if more := len(errs) - 1; more > 0 {
		err = fmt.Errorf("%w, and %d more", err, more)
	}
	return err
}

// HasRole implements [authz.Provider].
func (p *Provider) HasRole(ctx context.Context, subject string, roles ...string) (bool, error) {
	has, err := p.Roles(ctx, subject)
	return slices.ContainsFunc(has, func(r string) bool { return slices.Contains(roles, r) }), err
}

// Roles implements [authz.Provider].
func (p *Provider) Roles(ctx context.Context, subject string) ([]string, error) {
	if err := ctx.Err(); err != nil || subject == "" {
		return nil, err
	}
	return p.current.Load().roles(subject), nil
}

// roles walks the parents of the subject as Cedar's "in" does: through entities of
// any type, each of them once.
func (s *policy) roles(subject string) []string {
	start := types.NewEntityUID(TypeUser, types.String(subject))
	seen := map[types.EntityUID]bool{start: true}
	var out []string
	for queue := []types.EntityUID{start}; len(queue) > 0; queue = queue[1:] {
		for parent := range s.entities[queue[0]].Parents.All() {
			if seen[parent] {
				continue
			}
			seen[parent] = true
			queue = append(queue, parent)
			if parent.Type == TypeRole {
				out = append(out, string(parent.ID))
			}
		}
	}
	slices.Sort(out)
	return out
}

// Permissions implements [authz.Provider]: those of the catalog that are allowed.
// All are decided by the same policies, even if they are replaced meanwhile.
func (p *Provider) Permissions(ctx context.Context, subject string) ([]authz.Permission, error) {
	s := p.current.Load()
	var out []authz.Permission
	for _, permission := range p.catalog {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		d, err := s.decide(authz.Request{App: p.app, Subject: subject, Permission: permission})
		if err != nil {
			return nil, err
		}
		if d.Allowed {
			out = append(out, permission)
		}
	}
	return out, ctx.Err()
}
