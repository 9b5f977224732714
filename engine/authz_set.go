package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/internal/httpapi"
)

// SetRules makes the rules those of a subject, a role, a user or "anonymous", and no
// others, as one change. The subject of each rule is the given one, or left out.
func (z *Authz) SetRules(ctx context.Context, subject string, rules ...authz.Rule) error {
	c, news, err := z.settingRules(ctx, subject, rules)
	if err != nil {
		return err
	}
	return z.apply(ctx, &c, &news)
}

// settingRules returns the change that makes the rules those of the subject, and the
// part of it that is news. Rules that are there are added again, and everything
// about the subject is touched: a call that is repeated because the first one failed
// half way has to reach every instance.
func (z *Authz) settingRules(ctx context.Context, subject string, rules []authz.Rule) (c, news authz.Change, err error) {
	if err := authz.CheckValue("subject", subject); err != nil {
		return c, news, err
	}
	there := map[authz.Rule]bool{}
	for _, r := range rules {
		if r.Subject != "" && r.Subject != subject {
			return c, news, &authz.ValueError{Field: "subject", Message: "has to be the one whose rules are set, or to be left out"}
		}
		r.Subject = subject
		if r.Effect == "" {
			r.Effect = authz.Allow
		}
		if !there[r] {
			there[r] = true
			c.Add = append(c.Add, r)
		}
	}
	has, err := z.rulesOf(ctx, authz.RuleFilter{Subject: subject})
	if err != nil {
		return c, news, err
	}
	c.Remove = missing(has, c.Add)
	news.Add, news.Remove = missing(c.Add, has), c.Remove
	if len(z.roles) > 0 {
		c.Unassign = []authz.Assignment{{Subject: subject, Role: nobody}}
	}
	return c, news, nil
}

// nobody is a role that no app has: taking it from a subject touches everything about
// the subject and changes nothing.
const nobody = "nobody of this name"

// rulesOf reads every rule that matches the filter.
func (z *Authz) rulesOf(ctx context.Context, f authz.RuleFilter) ([]authz.Rule, error) {
	editor, err := z.editor(ctx)
	if err != nil {
		return nil, err
	}
	var all []authz.Rule
	for page := (authz.Page{Limit: authz.MaxPage}); ; {
		rules, next, err := editor.Rules(ctx, f, page)
		if err != nil {
			return nil, err
		}
		all = append(all, rules...)
		if next == "" {
			return all, nil
		}
		page.After = next
	}
}

// assignments reads every assignment of the manifest's roles.
func (z *Authz) assignments(ctx context.Context) ([]authz.Assignment, error) {
	editor, err := z.editor(ctx)
	if err != nil {
		return nil, err
	}
	var all []authz.Assignment
	for _, role := range z.roles {
		for page := (authz.Page{Limit: authz.MaxPage}); ; {
			subjects, next, err := editor.Members(ctx, role, page)
			if err != nil {
				return nil, err
			}
			for _, subject := range subjects {
				all = append(all, authz.Assignment{Subject: subject, Role: role})
			}
			if next == "" {
				break
			}
			page.After = next
		}
	}
	return all, nil
}

// The permissions that the app's own administration asks for. Their object is
// [ObjectMandate].
const (
	ObjectMandate = httpapi.ObjectMandate
	// ActionPolicies is needed for the rules and permissions of roles.
	ActionPolicies = httpapi.ActionPolicies
	// ActionUsers is needed for the roles of users.
	ActionUsers = httpapi.ActionUsers
	// ActionEscalate lets its holder give and take what it has not itself.
	ActionEscalate = "escalate"
)

// ErrEscalation says that somebody would have given or taken what it has not itself.
var ErrEscalation = fmt.Errorf("%w: giving or taking what one has not needs the permission %s:%s", authz.ErrForbidden, ObjectMandate, ActionEscalate)

// Delegated changes what others may do in the name of a principal, which gives and
// takes only what it has itself: a permission that it has, a role that it has,
// directly or through another role. So nobody can give itself, or somebody who
// gives it back, what it may not give, nor lift a denial that it is under. Who has
// the permission mandate:escalate is exempt.
//
// Whether the principal may change anything at all is not asked here: the routes
// under /admin ask for mandate:policies and mandate:users.
type Delegated struct {
	authz *Authz
	by    *Principal
}

// As returns what changes permissions in the name of the principal.
func (z *Authz) As(p *Principal) *Delegated { return &Delegated{authz: z, by: p} }

// Apply is [Authz.Apply]. The error wraps [ErrEscalation] when the principal may not
// make the change.
func (d *Delegated) Apply(ctx context.Context, c authz.Change) error {
	return d.apply(ctx, &c, &c)
}

// SetRules is [Authz.SetRules]. What stays needs no permission.
func (d *Delegated) SetRules(ctx context.Context, subject string, rules ...authz.Rule) error {
	c, news, err := d.authz.settingRules(ctx, subject, rules)
	if err != nil {
		return err
	}
	return d.apply(ctx, &c, &news)
}

// SetRoles is [Authz.SetRoles]. What stays needs no permission.
func (d *Delegated) SetRoles(ctx context.Context, userID string, roles ...string) error {
	c, news, err := d.authz.settingRoles(ctx, userID, roles)
	if err != nil {
		return err
	}
	return d.apply(ctx, &c, &news)
}

func (d *Delegated) apply(ctx context.Context, c, news *authz.Change) error {
	if err := c.Check(); err != nil {
		return err
	}
	if err := d.may(ctx, news); err != nil {
		return err
	}
	return d.authz.apply(httpapi.WithPrincipal(ctx, d.by), c, news)
}

// may refuses a change of what the principal has not.
func (d *Delegated) may(ctx context.Context, c *authz.Change) error {
	z := d.authz
	if exempt, err := z.Can(ctx, d.by, ObjectMandate, ActionEscalate); err != nil || exempt {
		return err
	}
	for _, a := range slices.Concat(c.Assign, c.Unassign) {
		if has, err := z.HasRole(ctx, d.by, a.Role); err != nil {
			return err
		} else if !has {
			return ErrEscalation
		}
	}
	provider, subject, err := z.admit(ctx, d.by)
	if err != nil {
		return err
	}
	coverer, ok := provider.(authz.Coverer)
	for _, r := range slices.Concat(c.Add, c.Remove) {
		if !ok || subject == "" || !d.by.Admits(r.Object, r.Action) {
			return ErrEscalation // what a rule stands for is known to the provider alone
		}
		covered, err := coverer.Covers(ctx, subject, r.Permission)
		switch {
		case errors.Is(err, authz.ErrUnsupported):
			return ErrEscalation
		case err != nil:
			return err
		case !covered:
			return ErrEscalation
		}
	}
	return nil
}

// MayAssign returns nil if the principal may give the role: it has it, or holds
// mandate:escalate. Otherwise the error wraps [ErrEscalation].
func (d *Delegated) MayAssign(ctx context.Context, role string) error {
	return d.may(ctx, &authz.Change{Assign: []authz.Assignment{{Role: role}}})
}

// MayActAs returns nil if the principal has every role of the subject and may do what
// the subject's own rules allow, or holds mandate:escalate: then it exceeds nobody by
// acting as the subject. Otherwise the error wraps [ErrEscalation].
func (d *Delegated) MayActAs(ctx context.Context, subject string) error {
	roles, err := d.authz.AssignedRoles(ctx, subject)
	if errors.Is(err, authz.ErrUnsupported) {
		return nil // what is decided elsewhere is given elsewhere
	}
	if err != nil {
		return err
	}
	var c authz.Change
	for _, role := range roles {
		c.Assign = append(c.Assign, authz.Assignment{Subject: subject, Role: role})
	}
	for page := (authz.Page{Limit: authz.MaxPage}); ; {
		rules, next, err := d.authz.Rules(ctx, authz.RuleFilter{Subject: subject}, page)
		if err != nil {
			return err
		}
		for _, r := range rules {
			if r.Effect != authz.Deny {
				c.Add = append(c.Add, r)
			}
		}
		if page.After = next; next == "" {
			return d.may(ctx, &c)
		}
	}
}

// administrator lets routes make changes in the name of who calls them.
type administrator struct{ *Authz }

// Apply implements [httpapi.Administrator].
func (a administrator) Apply(ctx context.Context, by *Principal, c authz.Change) error {
	return a.As(by).Apply(ctx, c)
}

// SetRules implements [httpapi.Administrator].
func (a administrator) SetRules(ctx context.Context, by *Principal, subject string, rules ...authz.Rule) error {
	return a.As(by).SetRules(ctx, subject, rules...)
}

// SetRoles implements [httpapi.Administrator].
func (a administrator) SetRoles(ctx context.Context, by *Principal, userID string, roles ...string) error {
	return a.As(by).SetRoles(ctx, userID, roles...)
}

// MayAssign implements [httpapi.Administrator].
func (a administrator) MayAssign(ctx context.Context, by *Principal, role string) error {
	return a.As(by).MayAssign(ctx, role)
}

// MayActAs implements [httpapi.Administrator].
func (a administrator) MayActAs(ctx context.Context, by *Principal, subject string) error {
	return a.As(by).MayActAs(ctx, subject)
}
