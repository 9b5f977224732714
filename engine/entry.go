package engine

import (
	"context"
	"fmt"
	"slices"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/manifest"
)

// entry says who may enter the app at all.
type entry struct {
	roles           []string
	allowed, denied []string
	permissions     []authz.Permission
}

// newEntry returns what the manifest says, nil where it says nothing.
func newEntry(p *manifest.Policy) (*entry, error) {
	if len(p.AllowedRoles)+len(p.AllowedUsers)+len(p.DeniedUsers)+len(p.RequiredPermissions) == 0 {
		return nil, nil //nolint:nilnil // described above
	}
	e := &entry{roles: slices.Clone(p.AllowedRoles), allowed: slices.Clone(p.AllowedUsers), denied: slices.Clone(p.DeniedUsers)}
	slices.Sort(e.allowed)
	slices.Sort(e.denied)
	for _, text := range p.RequiredPermissions {
		permission, err := authz.ParsePermission(text)
		if err != nil {
			return nil, fmt.Errorf("auth.policy.required_permissions: %w", err)
		}
		e.permissions = append(e.permissions, permission)
	}
	return e, nil
}

// Enter reports whether the principal may enter the app at all, as every guard
// asks. Who may not may sign in, see who it is, and look after its sessions.
func (z *Authz) Enter(ctx context.Context, p *Principal) (bool, error) {
	if z.entry == nil {
		return z.subject(p) != "", nil
	}
	_, subject, err := z.admit(ctx, p)
	return subject != "" && err == nil, err
}

// admit returns what decides, and the subject that rules know the principal by: ""
// for one that may not enter the app.
func (z *Authz) admit(ctx context.Context, p *Principal) (authz.Provider, string, error) {
	subject := z.subject(p)
	if subject == "" {
		return nil, "", nil
	}
	provider, err := z.provider.get(ctx)
	if err != nil {
		return nil, "", err
	}
	if z.entry == nil {
		return provider, subject, nil
	}
	if ok, err := z.entry.admits(ctx, z, provider, subject); err != nil || !ok {
		return nil, "", err
	}
	return provider, subject, nil
}

// subject is what rules know the principal by, "" for a guest where guests may do
// nothing, and for somebody else's principal.
func (z *Authz) subject(p *Principal) string {
	if p == nil || p.App != z.app.slug {
		return ""
	}
	s := p.Subject()
	if s == authz.SubjectAnonymous && !z.app.manifest.Auth.Policy.AllowAnonymous {
		return ""
	}
	return s
}

func (e *entry) admits(ctx context.Context, z *Authz, provider authz.Provider, subject string) (bool, error) {
	in := func(list []string) bool { _, ok := slices.BinarySearch(list, subject); return ok }
	if in(e.denied) {
		return false, nil
	}
	if len(e.roles)+len(e.allowed) > 0 && !in(e.allowed) {
		if ok, err := hasRole(ctx, provider, subject, e.roles); err != nil || !ok {
			return false, err
		}
	}
	for _, permission := range e.permissions {
		if d, err := decide(ctx, provider, z.request(subject, permission)); err != nil || !d.Allowed {
			return false, err
		}
	}
	return true, nil
}
