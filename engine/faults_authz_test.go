package engine_test

import (
	"slices"

	"github.com/mandate-auth/mandate/authz"
)

// authzOperations are the direct API of authorization, and its routes that ask
// the database.
func authzOperations() []operation {
	mine := func(p *point) authz.Rule { return rule(p.id, "mine", "read") }
	return append(authzReads(), []operation{
		{
			name: "Authz.GrantRole", steps: 2,
			call:    call(func(p *point) error { return p.app.Authz().GrantRole(p.ctx, p.id, "admin") }),
			settled: func(p *point, _ outcome) { p.may("documents", true) },
		},
		{
			name: "Authz.RevokeRole", steps: 2, prepare: asAdmin,
			call:    call(func(p *point) error { return p.app.Authz().RevokeRole(p.ctx, p.id, "admin") }),
			settled: func(p *point, _ outcome) { p.may("documents", false) },
		},
		{
			name: "Authz.SetRoles: more", steps: 2,
			call:    call(func(p *point) error { return p.app.Authz().SetRoles(p.ctx, p.id, "user", "admin") }),
			settled: func(p *point, _ outcome) { p.may("documents", true); p.has("admin", "user") },
		},
		{
			name: "Authz.SetRoles: another", steps: 2, prepare: asAdmin,
			call:    call(func(p *point) error { return p.app.Authz().SetRoles(p.ctx, p.id, "user") }),
			settled: func(p *point, _ outcome) { p.may("documents", false); p.has("user") },
		},
		{
			name: "Authz.SetRoles: none", steps: 2, prepare: asAdmin,
			call:    call(func(p *point) error { return p.app.Authz().SetRoles(p.ctx, p.id) }),
			settled: func(p *point, _ outcome) { p.may("documents", false); p.has() },
		},
		{
			name: "Authz.AddRules", steps: 2,
			call:    call(func(p *point) error { return p.app.Authz().AddRules(p.ctx, mine(p)) }),
			settled: func(p *point, _ outcome) { p.may("mine", true) },
		},
		{
			name: "Authz.RemoveRules", steps: 2,
			prepare: func(p *point) { p.must(p.app.Authz().AddRules(p.ctx, mine(p))) },
			call:    call(func(p *point) error { return p.app.Authz().RemoveRules(p.ctx, mine(p)) }),
			settled: func(p *point, _ outcome) { p.may("mine", false) },
		},
		{
			name: "Authz.Apply", steps: 2, prepare: asAdmin,
			call: call(func(p *point) error {
				return p.app.Authz().Apply(p.ctx, authz.Change{
					Add: []authz.Rule{mine(p)}, Unassign: []authz.Assignment{{Subject: p.id, Role: "admin"}},
				})
			}),
			settled: func(p *point, _ outcome) { p.may("mine", true); p.may("documents", false) },
		},
	}...)
}

func authzReads() []operation {
	return []operation{
		{
			name: "Authz.AssignedRoles", prepare: asAdmin,
			call: call(func(p *point) error {
				roles, err := p.app.Authz().AssignedRoles(p.ctx, p.id)
				if err == nil && !slices.Equal(roles, []string{"admin"}) {
					p.errorf("the roles are %q", roles)
				}
				return err
			}),
		},
		{
			name: "Authz.HasRule",
			call: call(func(p *point) error {
				has, err := p.app.Authz().HasRule(p.ctx, rule("admin", "documents", "read"))
				if err == nil && !has {
					p.errorf("the rule of the manifest is not there")
				}
				return err
			}),
		},
		{
			name: "Authz.Rules",
			call: call(func(p *point) error {
				return third(p.app.Authz().Rules(p.ctx, authz.RuleFilter{}, authz.Page{}))
			}),
		},
		{
			name: "Authz.UsersOfRole",
			call: call(func(p *point) error { return third(p.app.Authz().UsersOfRole(p.ctx, "user", authz.Page{})) }),
		},
	}
}

// asAdmin makes the account an admin, on the instance that meets the fault: it has
// to know what is taken away.
func asAdmin(p *point) { p.must(p.app.Authz().SetRoles(p.ctx, p.id, "admin")) }

func (p *point) can(w *world, object string, want bool) bool {
	can, err := w.app.Authz().Can(p.ctx, &authz.Principal{ID: p.id, Kind: authz.KindHuman, App: "shop"}, object, "read")
	return err == nil && can == want
}

// may checks what the account is allowed: on the instance that has been told at
// once, on the other soon.
func (p *point) may(object string, want bool) {
	p.t.Helper()
	if !p.can(p.world, object, want) {
		p.errorf("reading %s: want %t", object, want)
		return
	}
	p.soon("the other instance decides alike", func() bool { return p.can(p.healthy, object, want) })
}

// has checks the roles that are stored.
func (p *point) has(want ...string) {
	p.t.Helper()
	if roles, err := p.healthy.app.Authz().AssignedRoles(p.ctx, p.id); err != nil || !slices.Equal(roles, want) {
		p.errorf("the roles are %q, %v, want %q", roles, err, want)
	}
}

// registered checks that the account can be signed in to and has its role, however
// often it took to make it.
func (p *point) registered() {
	p.t.Helper()
	user, err := p.healthy.app.Users().GetByEmail(p.ctx, p.email)
	if err != nil {
		p.errorf("the new user: %v", err)
		return
	}
	p.id = user.ID
	p.enters(password, "")
	p.has("user")
}
