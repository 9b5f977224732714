package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/manifest"
	"github.com/mandate-auth/mandate/users"
)

// editor returns the provider for changes.
func (z *Authz) editor(ctx context.Context) (authz.Editor, error) {
	provider, err := z.provider.get(ctx)
	if err != nil {
		return nil, err
	}
	editor, ok := provider.(authz.Editor)
	if !ok {
		return nil, fmt.Errorf("%w: the provider %s changes nothing; change it where it keeps its rules",
			authz.ErrUnsupported, z.app.manifest.Auth.Policy.Provider)
	}
	return editor, nil
}

// AssignedRoles returns the roles that a user was granted, in order, without
// those that come with them.
func (z *Authz) AssignedRoles(ctx context.Context, userID string) ([]string, error) {
	editor, err := z.editor(ctx)
	if err != nil {
		return nil, err
	}
	return editor.Assigned(ctx, userID)
}

// GrantRole gives a user of the app a role, which decides as soon as the call
// returns nil, and on other instances within auth.tokens.revocation.max_staleness.
// Repeating it is harmless. The error wraps [users.ErrNotFound] for a user that
// the app has not, and is an [*authz.ValueError] for a role that is not one of the
// manifest's default_roles.
func (z *Authz) GrantRole(ctx context.Context, userID, role string) error {
	return z.Apply(ctx, authz.Change{Assign: []authz.Assignment{{Subject: userID, Role: role}}})
}

// RevokeRole takes a role from a user. A role that the user has not is no error.
func (z *Authz) RevokeRole(ctx context.Context, userID, role string) error {
	return z.Apply(ctx, authz.Change{Unassign: []authz.Assignment{{Subject: userID, Role: role}}})
}

// SetRoles makes the roles those that a user was granted, and no others.
func (z *Authz) SetRoles(ctx context.Context, userID string, roles ...string) error {
	c, news, err := z.settingRoles(ctx, userID, roles)
	if err != nil {
		return err
	}
	return z.apply(ctx, &c, &news)
}

// settingRoles returns the change that makes the roles those of the user, and the
// part of it that is news. Roles that are there are assigned again, and one that is
// not is taken, where nothing else is to be done: a call that is repeated because
// the first one failed half way has to reach every instance.
func (z *Authz) settingRoles(ctx context.Context, userID string, roles []string) (c, news authz.Change, err error) {
	has, err := z.AssignedRoles(ctx, userID)
	if err != nil {
		return c, news, err
	}
	for _, role := range roles {
		a := authz.Assignment{Subject: userID, Role: role}
		if slices.Contains(c.Assign, a) {
			continue
		}
		c.Assign = append(c.Assign, a)
		if !slices.Contains(has, role) {
			news.Assign = append(news.Assign, a)
		}
	}
	for _, role := range has {
		if !slices.Contains(roles, role) {
			news.Unassign = append(news.Unassign, authz.Assignment{Subject: userID, Role: role})
		}
	}
	c.Unassign = news.Unassign
	if c.Empty() && len(z.roles) > 0 {
		c.Unassign = []authz.Assignment{{Subject: userID, Role: nobody}}
	}
	return c, news, nil
}

// AddRules allows, or denies, what the rules say. A rule that is there already is
// no error. The subject of each is a role of the manifest, the id of a user or
// client of the app, or "anonymous".
func (z *Authz) AddRules(ctx context.Context, rules ...authz.Rule) error {
	return z.Apply(ctx, authz.Change{Add: rules})
}

// RemoveRules removes rules. One that is gone already is no error.
func (z *Authz) RemoveRules(ctx context.Context, rules ...authz.Rule) error {
	return z.Apply(ctx, authz.Change{Remove: rules})
}

// HasRule reports whether the rule is stored.
func (z *Authz) HasRule(ctx context.Context, r authz.Rule) (bool, error) {
	if r.Effect == "" {
		r.Effect = authz.Allow
	}
	if err := r.Check(); err != nil {
		return false, err
	}
	editor, err := z.editor(ctx)
	if err != nil {
		return false, err
	}
	rules, _, err := editor.Rules(ctx, authz.RuleFilter{Subject: r.Subject, Permission: r.Permission}, authz.Page{})
	return slices.Contains(rules, r), err
}

// Apply makes several changes as one: each part is checked before anything is
// written.
func (z *Authz) Apply(ctx context.Context, c authz.Change) error { return z.apply(ctx, &c, &c) }

// apply makes a change, and reports the part of it that is news.
func (z *Authz) apply(ctx context.Context, c, news *authz.Change) error {
	if err := z.check(ctx, c); err != nil {
		return err
	}
	editor, err := z.editor(ctx)
	if err != nil {
		return err
	}
	if c.Empty() {
		return nil
	}
	if err := editor.Apply(ctx, *c); err != nil {
		return err
	}
	z.report(ctx, news)
	return nil
}

// check refuses what names somebody or something that the app has not. What is
// removed may name anything.
func (z *Authz) check(ctx context.Context, c *authz.Change) error {
	if err := c.Check(); err != nil {
		return err
	}
	known := map[string]bool{authz.SubjectAnonymous: true}
	for _, r := range c.Add {
		if err := z.checkSubject(ctx, r.Subject, known); err != nil {
			return err
		}
	}
	for _, a := range c.Assign {
		if err := z.checkRole(a.Role); err != nil {
			return err
		}
		if a.Subject == authz.SubjectAnonymous || slices.Contains(z.roles, a.Subject) {
			return &authz.ValueError{Field: "subject", Message: "must be the id of a user; roles have roles by the manifest's role_hierarchy, guests have none"}
		}
		if err := z.checkSubject(ctx, a.Subject, known); err != nil {
			return err
		}
	}
	return nil
}

func (z *Authz) checkRole(role string) error {
	if len(z.roles) == 0 {
		return fmt.Errorf("%w: the model has no roles", authz.ErrUnsupported)
	}
	if !slices.Contains(z.roles, role) {
		return &authz.ValueError{Field: "role", Message: "is not one of the app's roles: " + strings.Join(z.roles, ", ")}
	}
	return nil
}

func (z *Authz) checkSubject(ctx context.Context, subject string, known map[string]bool) error {
	switch {
	case known[subject] || slices.Contains(z.roles, subject):
		return nil
	case store.ValidID(subject, "cli_") && z.app.clients != nil:
		if _, err := z.app.clients.Get(ctx, subject); err != nil {
			return err
		}
		known[subject] = true
		return nil
	case z.elsewhere(subject):
		return nil
	case !store.ValidID(subject, "usr_"):
		return &authz.ValueError{Field: "subject", Message: "is neither the id of a user or a client nor a role of the app nor \"" + authz.SubjectAnonymous + "\""}
	}
	if _, err := z.app.users.Get(ctx, subject); err != nil {
		return err
	}
	known[subject] = true
	return nil
}

// elsewhere reports whether the subject is one of another issuer, or of a custom
// authenticator: "name|subject", which nobody here can look up.
func (z *Authz) elsewhere(subject string) bool {
	name, rest, ok := strings.Cut(subject, "|")
	if !ok || rest == "" {
		return false
	}
	return z.app.engine.opts.Authenticators[name] != nil ||
		slices.ContainsFunc(z.app.manifest.Auth.Issuers, func(i manifest.Issuer) bool { return i.Name == name })
}

func (z *Authz) report(ctx context.Context, c *authz.Change) {
	send := func(kind event.Type, userID, reason string) {
		ev := event.Event{
			Type: kind, Result: event.Success, App: z.app.slug, Time: z.app.engine.opts.Now(), UserID: userID, Reason: reason, Request: event.RequestFrom(ctx),
		}
		z.app.events.Record(ctx, ev)
	}
	for _, a := range c.Assign {
		send(event.RoleGranted, a.Subject, a.Role)
	}
	for _, a := range c.Unassign {
		send(event.RoleRevoked, a.Subject, a.Role)
	}
	for reason, rules := range map[string][]authz.Rule{"added": c.Add, "removed": c.Remove} {
		for _, r := range rules {
			subject := r.Subject
			if !authz.IsID(subject) {
				subject = ""
			}
			send(event.PolicyChanged, subject, reason)
		}
	}
}

// Rules returns a page of the rules that match the filter, in order. A page ends
// with the cursor of the next one, "" on the last. The error wraps
// [users.ErrInvalidCursor] for a cursor of another list.
func (z *Authz) Rules(ctx context.Context, f authz.RuleFilter, page authz.Page) (rules []authz.Rule, next string, err error) {
	editor, err := z.editor(ctx)
	if err != nil {
		return nil, "", err
	}
	scope := strings.Join([]string{"rules", f.Subject, f.Object, f.Action}, "\x00")
	if page.After, err = z.openCursor(scope, page.After); err != nil {
		return nil, "", err
	}
	rules, next, err = editor.Rules(ctx, f, page)
	return rules, z.sealCursor(scope, next), err
}

// UsersOfRole returns a page of the ids of the users that were granted the role,
// in order, without those that have it through another role. Pages are as in
// Rules.
func (z *Authz) UsersOfRole(ctx context.Context, role string, page authz.Page) (userIDs []string, next string, err error) {
	editor, err := z.editor(ctx)
	if err != nil {
		return nil, "", err
	}
	scope := "members\x00" + role
	if page.After, err = z.openCursor(scope, page.After); err != nil {
		return nil, "", err
	}
	userIDs, next, err = editor.Members(ctx, role, page)
	return userIDs, z.sealCursor(scope, next), err
}

func (z *Authz) sealCursor(scope, position string) string {
	if position == "" {
		return ""
	}
	return z.keys.SealCursor(scope, position)
}

func (z *Authz) openCursor(scope, cursor string) (string, error) {
	if cursor == "" {
		return "", nil
	}
	position, ok := z.keys.OpenCursor(scope, cursor)
	if !ok {
		return "", fmt.Errorf("%w: ask for the first page again", users.ErrInvalidCursor)
	}
	return position, nil
}
