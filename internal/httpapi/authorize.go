package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"go.mongodb.org/mongo-driver/mongo"

	"github.com/mandate-auth/mandate/authz"
)

// Authorizer decides what principals may do. With an error nothing is allowed.
type Authorizer interface {
	// Can reports whether the principal may enter the app and do the action on the
	// object.
	Can(ctx context.Context, p *authz.Principal, object, action string) (bool, error)
	// Enter reports whether the principal may enter the app at all.
	Enter(ctx context.Context, p *authz.Principal) (bool, error)
	// HasRole reports whether the principal may enter the app and has one of the
	// roles.
	HasRole(ctx context.Context, p *authz.Principal, roles ...string) (bool, error)
	// RolesOf returns the principal's roles.
	RolesOf(ctx context.Context, p *authz.Principal) ([]string, error)
	// Overview returns the principal's roles and permissions.
	Overview(ctx context.Context, p *authz.Principal) (roles []string, permissions []authz.Permission, err error)
}

// RoleAdmin is the role that [API.RequireAdmin] asks for.
const RoleAdmin = "admin"

// denied is the refusal of a principal that is known.
func denied(p *authz.Principal) error { return refuseTo(p, CodeForbidden) }

// allowing is a guard for the principals that decide admits.
func (a *API) allowing(decide func(context.Context, *authz.Principal) (bool, error)) *Guard {
	return a.guard(func(r *http.Request) (*authz.Principal, error) {
		// Whether the principal may enter the app is a part of what decide asks.
		p, err := a.known(r, false)
		if err != nil {
			return nil, err
		}
		switch ok, err := decide(r.Context(), p); {
		case err != nil:
			return nil, err
		case !ok:
			return nil, denied(p)
		default:
			return p, nil
		}
	})
}

// RequireRole asks for one of the roles, held directly or through another role.
func (a *API) RequireRole(roles ...string) *Guard {
	roles = slices.Clone(roles)
	return a.allowing(func(ctx context.Context, p *authz.Principal) (bool, error) {
		return a.config.Authz.HasRole(ctx, p, roles...)
	})
}

// RequireAdmin asks for the role "admin".
func (a *API) RequireAdmin() *Guard { return a.RequireRole(RoleAdmin) }

// RequirePermission asks for the permission to do the action on the object.
func (a *API) RequirePermission(object, action string) *Guard {
	return a.allowing(func(ctx context.Context, p *authz.Principal) (bool, error) {
		return a.config.Authz.Can(ctx, p, object, action)
	})
}

// RequireOwnerOr passes the owner of what the request is about, and whoever
// otherwise passes. owner says whose it is, and ErrNotFound (or
// mongo.ErrNoDocuments) when it is not there: then the answer is 404 to everybody
// who is signed in, before anything else is decided. Without a guard only the
// owner passes.
//
// Whoever has an API key of the owner is the owner only with the scope "*": no
// other scope says what the key may do there.
func (a *API) RequireOwnerOr(owner func(*http.Request) (userID string, err error), otherwise *Guard) *Guard {
	g := a.guard(func(r *http.Request) (*authz.Principal, error) {
		p, err := a.user(r, false)
		if err != nil {
			return nil, err
		}
		id, err := owner(r)
		switch {
		case errors.Is(err, mongo.ErrNoDocuments):
			return nil, refuse(CodeNotFound)
		case err != nil:
			return nil, err
		case id != "" && id == p.ID && a.config.OwnerPasses && (p.Kind != authz.KindAPIKey || p.HasScope(authz.ScopeAll)):
			return p, nil
		case otherwise == nil:
			return nil, denied(p)
		default:
			return otherwise.run(r)
		}
	})
	g.limits = otherwise != nil && otherwise.limits
	return g
}

// Any passes what one of the guards passes; the principal is that guard's. When
// all refuse, the answer is the most telling refusal: that something is not
// available, that the request is malformed, that the principal may not, and only
// then that there is none.
func (a *API) Any(guards ...*Guard) *Guard {
	guards = slices.Clone(guards)
	one := a.guard(func(r *http.Request) (*authz.Principal, error) {
		worst := errZeroGuard
		rank := -1
		for _, g := range guards {
			p, err := g.run(r)
			if err == nil {
				return p, nil
			}
			if n := telling(AsProblem(err)); n > rank {
				worst, rank = err, n
			}
		}
		return nil, worst
	})
	one.silent, one.limits = allSilent(guards), anyLimits(guards)
	return one
}

// telling ranks refusals.
func telling(p *Problem) int {
	switch {
	case p.Status >= http.StatusInternalServerError:
		return 4
	case p.Status == http.StatusBadRequest:
		return 3
	case p.Status == http.StatusUnauthorized && p.Code != CodeFreshRequired:
		return 0
	case p.Code == CodeForbidden:
		return 1
	default:
		return 2 // it says what would help: a sign-in that is fresh, HTTPS, …
	}
}

// maxChecks is how many checks one request may ask for.
const maxChecks = 100

// authorize answers what the caller may do, many questions at once.
func (a *API) authorize(w http.ResponseWriter, r *http.Request) error {
	p, err := a.caller(r)
	if err != nil {
		return err
	}
	var list []json.RawMessage
	if err := decode(w, r, fields{"checks": &list}); err != nil {
		return err
	}
	if len(list) == 0 || len(list) > maxChecks {
		return invalidRequest("checks", "must hold 1 to %d checks", maxChecks)
	}
	asked := make([]authz.Permission, len(list))
	var wrong []FieldProblem
	for i, raw := range list {
		into := fields{"object": &asked[i].Object, "action": &asked[i].Action}
		wrong = append(wrong, collectChecked(fmt.Sprintf("checks.%d.", i), raw, into, func() error { return asked[i].Check() })...)
	}
	if len(wrong) > 0 {
		return invalidFields(wrong)
	}
	out := struct {
		Results []bool `json:"results"`
	}{make([]bool, len(asked))}
	for i, q := range asked {
		if out.Results[i], err = a.config.Authz.Can(r.Context(), p, q.Object, q.Action); err != nil {
			return err
		}
	}
	write(w, http.StatusOK, out)
	return nil
}

// myPermissions answers what the caller may do at all, for user interfaces.
func (a *API) myPermissions(w http.ResponseWriter, r *http.Request) error {
	p, err := a.caller(r)
	if err != nil {
		return err
	}
	roles, permissions, err := a.config.Authz.Overview(r.Context(), p)
	if err != nil {
		return err
	}
	out := struct {
		Roles       []string `json:"roles"`
		Permissions []string `json:"permissions"`
	}{Roles: append([]string{}, roles...), Permissions: make([]string, len(permissions))}
	for i, q := range permissions {
		out.Permissions[i] = q.String()
	}
	write(w, http.StatusOK, out)
	return nil
}
