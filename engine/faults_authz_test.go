package engine_test

import (
	"io"
	"slices"
	"strings"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine"
)

// authzOperations are the direct API of authorization, and its routes that ask
// the database.
func authzOperations() []operation {
	mine := func(p *point) authz.Rule { return rule(p.id, "mine", "read") }
	return slices.Concat(authzReads(), adminOperations(), []operation{
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
		{
			name: "Authz.SetRules", steps: 3,
			prepare: func(p *point) { p.must(p.app.Authz().AddRules(p.ctx, rule(p.id, "before", "read"))) },
			call:    call(func(p *point) error { return p.app.Authz().SetRules(p.ctx, p.id, mine(p)) }),
			settled: func(p *point, _ outcome) { p.may("mine", true); p.may("before", false) },
		},
		{
			name: "Authz.Import", steps: 4,
			call: call(func(p *point) error {
				_, err := p.app.Authz().Import(p.ctx, strings.NewReader("p, "+p.id+", shop, mine, read\ng, "+p.id+", admin, shop"), engine.Import{Format: engine.PolicyCSV})
				return err
			}),
			settled: func(p *point, _ outcome) { p.may("mine", true); p.may("documents", true) },
		},
		{
			name: "Authz.Export", steps: 2,
			call: call(func(p *point) error { return p.app.Authz().Export(p.ctx, io.Discard, engine.PolicyJSON) }),
		},
	})
}

// adminOperations are the routes of administration, asked by an admin.
func adminOperations() []operation {
	ask := func(method, path string, body func(p *point) any) func(p *point) outcome {
		return func(p *point) outcome {
			var b any
			if body != nil {
				b = body(p)
			}
			return p.send(method, strings.ReplaceAll(path, "{id}", p.id), b, p.asFirst())
		}
	}
	users := "/auth/admin/users/{id}/roles"
	return []operation{
		{name: "GET /auth/admin/policies", prepare: asAdmin, call: ask("GET", "/auth/admin/policies", nil)},
		{name: "GET /auth/admin/roles/{role}/permissions", prepare: asAdmin, call: ask("GET", "/auth/admin/roles/admin/permissions", nil)},
		{name: "GET /auth/admin/roles/{role}/users", prepare: asAdmin, call: ask("GET", "/auth/admin/roles/admin/users", nil)},
		{name: "GET " + users, steps: 2, prepare: asAdmin, call: ask("GET", users, nil)},
		{
			name: "POST /auth/admin/policies", steps: 2, prepare: asAdmin,
			call: ask("POST", "/auth/admin/policies", func(p *point) any {
				return obj("add", []any{obj("subject", p.id, "object", "mine", "action", "read")})
			}),
			settled: func(p *point, _ outcome) { p.may("mine", true) },
		},
		{
			name: "PUT /auth/admin/roles/{role}/permissions", steps: 3, prepare: asAdmin,
			call: ask("PUT", "/auth/admin/roles/user/permissions", func(*point) any { return obj("permissions", []any{"pages:read"}) }),
			settled: func(p *point, _ outcome) {
				if has, err := p.healthy.app.Authz().HasRule(p.ctx, rule("user", "pages", "read")); err != nil || !has {
					p.errorf("the rule of the role: %t, %v", has, err)
				}
			},
		},
		{
			name: "PUT " + users, steps: 3, prepare: asAdmin,
			call:    ask("PUT", users, func(*point) any { return obj("roles", []any{"admin", "user"}) }),
			settled: func(p *point, _ outcome) { p.has("admin", "user") },
		},
		{
			name: "POST " + users, steps: 3, prepare: asAdmin,
			call:    ask("POST", users, func(*point) any { return obj("role", "user") }),
			settled: func(p *point, _ outcome) { p.has("admin", "user") },
		},
		{
			name: "DELETE " + users + "/{role}", steps: 3,
			prepare: func(p *point) { p.must(p.app.Authz().SetRoles(p.ctx, p.id, "admin", "user")) },
			call:    ask("DELETE", users+"/user", nil),
			settled: func(p *point, _ outcome) { p.has("admin") },
		},
	}
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
