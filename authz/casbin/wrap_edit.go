package casbin

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/mandate-auth/mandate/authz"
)

// Apply implements [authz.Editor] through the enforcer, which stores the change
// if it saves automatically.
func (w *Wrapped) Apply(ctx context.Context, c authz.Change) error {
	if err := c.Check(); err != nil {
		return err
	}
	if !w.shape.roles && len(c.Assign)+len(c.Unassign) > 0 {
		return &unsupported{"the enforcer's model has no roles"}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	isDeny := func(r authz.Rule) bool { return r.Effect == authz.Deny }
	isAllow := func(r authz.Rule) bool { return !isDeny(r) }
	defer w.write()()
	for _, step := range []struct {
		rules []authz.Rule
		when  func(authz.Rule) bool
		do    func(...any) (bool, error)
	}{
		{c.Add, isDeny, w.enforcer.AddPolicy},
		{c.Add, isAllow, w.enforcer.AddPolicy},
		{c.Remove, isAllow, w.enforcer.RemovePolicy},
		{c.Remove, isDeny, w.enforcer.RemovePolicy},
	} {
		for _, r := range step.rules {
			if !step.when(r) {
				continue
			}
			values, err := w.values(r)
			if err != nil {
				return err
			}
			if _, err := step.do(values); err != nil {
				return failed(err)
			}
		}
	}
	return w.assign(c.Assign, c.Unassign)
}

func (w *Wrapped) assign(add, remove []authz.Assignment) error {
	for _, a := range add {
		if _, err := w.enforcer.AddRoleForUser(a.Subject, a.Role, w.groupDomain()...); err != nil {
			return failed(err)
		}
	}
	for _, a := range remove {
		if _, err := w.enforcer.DeleteRoleForUser(a.Subject, a.Role, w.groupDomain()...); err != nil {
			return failed(err)
		}
	}
	return nil
}

// Rules implements [authz.Editor].
func (w *Wrapped) Rules(ctx context.Context, f authz.RuleFilter, page authz.Page) (rules []authz.Rule, next string, err error) {
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	var after authz.Rule
	if page.After != "" && json.Unmarshal([]byte(page.After), &after) != nil {
		return nil, "", &authz.ValueError{Field: "after", Message: "is not the end of a page"}
	}
	defer w.read()()
	all, err := w.rules(f)
	if err != nil {
		return nil, "", err
	}
	if page.After != "" {
		all = slices.DeleteFunc(all, func(r authz.Rule) bool { return compareRules(r, after) <= 0 })
	}
	if len(all) <= page.Size() {
		return all, "", nil
	}
	all = all[:page.Size()]
	raw, err := json.Marshal(all[len(all)-1])
	return all, string(raw), err
}

// Members implements [authz.Editor].
func (w *Wrapped) Members(ctx context.Context, role string, page authz.Page) (subjects []string, next string, err error) {
	if err := authz.CheckRole(role); err != nil {
		return nil, "", err
	}
	if err := ctx.Err(); err != nil || !w.shape.roles {
		return nil, "", err
	}
	defer w.read()()
	found, err := w.enforcer.GetUsersForRole(role, w.groupDomain()...)
	if err != nil {
		return nil, "", failed(err)
	}
	found = slices.DeleteFunc(slices.Clone(found), func(s string) bool { return page.After != "" && s <= page.After })
	slices.Sort(found)
	if found = slices.Compact(found); len(found) > page.Size() {
		found = found[:page.Size()]
		next = found[len(found)-1]
	}
	return found, next, nil
}

// Assigned implements [authz.Editor].
func (w *Wrapped) Assigned(ctx context.Context, subject string) ([]string, error) {
	if err := authz.CheckValue("subject", subject); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil || !w.shape.roles {
		return nil, err
	}
	defer w.read()()
	roles, err := w.enforcer.GetRolesForUser(subject, w.groupDomain()...)
	if err != nil {
		return nil, failed(err)
	}
	roles = slices.Clone(roles)
	slices.Sort(roles)
	return roles, nil
}

// Forget implements [authz.Editor].
func (w *Wrapped) Forget(ctx context.Context, subject string) error {
	roles, err := w.Assigned(ctx, subject)
	if err != nil {
		return err
	}
	var c authz.Change
	for _, role := range roles {
		c.Unassign = append(c.Unassign, authz.Assignment{Subject: subject, Role: role})
	}
	unlock := w.read()
	c.Remove, err = w.rules(authz.RuleFilter{Subject: subject})
	unlock()
	if err != nil {
		return err
	}
	return w.Apply(ctx, c)
}
