package engine

import (
	"maps"
	"slices"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/authz/oso"
	"github.com/mandate-auth/mandate/manifest"
)

// openOso makes the client of Oso Cloud. It asks nothing: whether it answers shows
// at the first decision.
func openOso(m *manifest.Manifest) (authz.Provider, error) {
	p := &m.Auth.Policy
	a := &p.Authorization
	actions := map[string]struct{}{}
	for _, entry := range a.InitialPolicies {
		actions[manifest.Rule(entry).Action] = struct{}{}
	}
	for _, text := range p.RequiredPermissions {
		if permission, err := authz.ParsePermission(text); err == nil {
			actions[permission.Action] = struct{}{}
		}
	}
	return oso.New(oso.Config{
		App: m.Slug, URL: a.URL, APIKey: a.APIKey.Value, Roles: a.DefaultRoles, Actions: slices.Sorted(maps.Keys(actions)),
	})
}
