package main

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/mandate-auth/mandate/authz"
)

// office decides in Go what the other manifest says in rules: a provider of
// authorization of fifty lines. Who has which rank would come from the service's
// own data.
type office struct {
	mu    sync.RWMutex
	ranks map[string]string // by user id
}

// ranks are the roles, each with those below it.
var ranks = map[string][]string{"user": {"user"}, "editor": {"editor", "user"}, "admin": {"admin", "editor", "user"}}

func (o *office) promote(userID, rank string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ranks[userID] = rank
}

// Authorize implements [authz.Provider].
func (o *office) Authorize(ctx context.Context, r authz.Request) (authz.Decision, error) {
	roles, err := o.Roles(ctx, r.Subject)
	below, document := strings.CutPrefix(r.Object, "/documents/")
	has := func(role string) bool { return slices.Contains(roles, role) }
	switch {
	case err != nil || !document:
		return authz.Decision{Reason: authz.ReasonNoRule}, err
	case r.Action == "read" && has("user") && strings.HasPrefix(below+"/", "payroll/"):
		return authz.Decision{Reason: authz.ReasonDenied}, nil
	case r.Action == "read" && has("user"), r.Action == "write" && has("editor") && !strings.Contains(below, "/"), r.Action == "delete" && has("admin"):
		return authz.Decision{Allowed: true, Reason: authz.ReasonAllowed}, nil
	default:
		return authz.Decision{Reason: authz.ReasonNoRule}, nil
	}
}

// HasRole implements [authz.Provider].
func (o *office) HasRole(ctx context.Context, subject string, roles ...string) (bool, error) {
	has, err := o.Roles(ctx, subject)
	return slices.ContainsFunc(has, func(role string) bool { return slices.Contains(roles, role) }), err
}

// Roles implements [authz.Provider]. Nobody is a user without being one.
func (o *office) Roles(ctx context.Context, subject string) ([]string, error) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return slices.Sorted(slices.Values(ranks[o.ranks[subject]])), ctx.Err()
}

// Permissions implements [authz.Provider]: for user interfaces.
func (o *office) Permissions(ctx context.Context, subject string) ([]authz.Permission, error) {
	var out []authz.Permission
	for _, p := range []authz.Permission{{Object: "/documents/handbook", Action: "delete"}, {Object: "/documents/handbook", Action: "read"}, {Object: "/documents/handbook", Action: "write"}} {
		if d, err := o.Authorize(ctx, authz.Request{Subject: subject, Permission: p}); err != nil {
			return nil, err
		} else if d.Allowed {
			out = append(out, p)
		}
	}
	return out, nil
}
