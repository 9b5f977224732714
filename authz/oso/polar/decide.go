package polar

import (
	"context"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/osohq/go-oso"

	"github.com/mandate-auth/mandate/authz"
)

// Authorize implements [authz.Provider]. Where the policy cannot be evaluated the
// error is [ErrEvaluation].
func (p *Provider) Authorize(ctx context.Context, r authz.Request) (authz.Decision, error) {
	if err := ctx.Err(); err != nil {
		return authz.Decision{}, err
	}
	if r.App != p.config.App {
		return authz.Decision{}, fmt.Errorf("polar: a request of app %q at the provider of app %q", r.App, p.config.App)
	}
	if !decidable(r.Subject, r.Permission) {
		return authz.Decision{Reason: authz.ReasonNoRule}, nil
	}
	allowed, err := p.ask(ctx, r.Subject, []authz.Permission{r.Permission})
	switch {
	case err != nil:
		return authz.Decision{}, err
	case len(allowed) == 1:
		return authz.Decision{Allowed: true, Reason: authz.ReasonAllowed}, nil
	default:
		return authz.Decision{Reason: authz.ReasonNoRule}, nil
	}
}

// decidable reports whether the policy can be asked: about somebody, with values
// that reach it as they are. On the way they are JSON, in which bytes that are no
// UTF-8 all become the same character.
func decidable(subject string, p authz.Permission) bool {
	return subject != "" && utf8.ValidString(subject) && utf8.ValidString(p.Object) && utf8.ValidString(p.Action)
}

// ask returns those of the permissions that the policy allows to the subject.
func (p *Provider) ask(ctx context.Context, subject string, permissions []authz.Permission) ([]authz.Permission, error) {
	ctx, cancel := context.WithTimeout(ctx, p.config.Timeout)
	defer cancel()
	roles, err := p.roles(ctx, subject)
	if err != nil {
		return nil, err
	}
	actor := User{ID: subject, Roles: roles}
	return p.run(ctx, func(e oso.Oso) ([]authz.Permission, error) {
		var out []authz.Permission
		for _, permission := range permissions {
			if err := ctx.Err(); err != nil {
				return nil, fmt.Errorf("%w: %w", authz.ErrUnavailable, err)
			}
			allowed, err := p.allows(e, actor, permission)
			if err != nil {
				return nil, err
			}
			if allowed {
				out = append(out, permission)
			}
		}
		return out, nil
	})
}

// HasRole implements [authz.Provider].
func (p *Provider) HasRole(ctx context.Context, subject string, roles ...string) (bool, error) {
	if len(roles) == 0 {
		return false, ctx.Err()
	}
	has, err := p.Roles(ctx, subject)
	return slices.ContainsFunc(has, func(r string) bool { return slices.Contains(roles, r) }), err
}

// Roles implements [authz.Provider]: the roles by Config.Roles and those that they
// inherit by Config.Hierarchy.
func (p *Provider) Roles(ctx context.Context, subject string) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, p.config.Timeout)
	defer cancel()
	return p.roles(ctx, subject)
}

func (p *Provider) roles(ctx context.Context, subject string) ([]string, error) {
	if subject == "" || subject == authz.SubjectAnonymous || p.config.Roles == nil {
		return nil, nil
	}
	assigned, err := p.assigned(ctx, subject)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	var out []string
	for queue := slices.Clone(assigned); len(queue) > 0; queue = queue[1:] {
		role := queue[0]
		if seen[role] {
			continue
		}
		if !utf8.ValidString(role) {
			return nil, fmt.Errorf("%w: the role %q of %s is no UTF-8", ErrEvaluation, role, subject)
		}
		seen[role] = true
		out = append(out, role)
		queue = append(queue, p.config.Hierarchy[role]...)
	}
	slices.Sort(out)
	return out, nil
}

// assigned asks the service.
func (p *Provider) assigned(ctx context.Context, subject string) (roles []string, err error) {
	defer func() {
		if v := recover(); v != nil {
			roles, err = nil, fmt.Errorf("%w: the roles of %s: panic: %v", authz.ErrUnavailable, subject, v)
		}
	}()
	if roles, err = p.config.Roles(ctx, subject); err != nil {
		return nil, fmt.Errorf("%w: the roles of %s: %w", authz.ErrUnavailable, subject, err)
	}
	return roles, nil
}

// Permissions implements [authz.Provider]: those of the catalog that are allowed.
func (p *Provider) Permissions(ctx context.Context, subject string) ([]authz.Permission, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !decidable(subject, authz.Permission{}) {
		return nil, nil
	}
	return p.ask(ctx, subject, p.config.Catalog)
}
