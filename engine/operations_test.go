package engine_test

import (
	"errors"
	"fmt"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/sessions"
	"github.com/mandate-auth/mandate/users"
)

const changed = "another long passphrase"

// only returns the error of a call with a result.
func only[T any](_ T, err error) error { return err }

// operations are the public operations that reach the database.
func operations() []operation {
	return append(append(overRoutes(), ofAccounts()...), ofPolicies()...)
}

func overRoutes() []operation {
	return []operation{
		{
			name: "POST /register",
			run: func(s *subject) error {
				return s.http("POST", "/register", obj("email", "new-"+s.email, "password", password), 201)
			},
			again: errConflict,
			holds: func(s *subject) error {
				return signsIn(&subject{world: s.world, email: "new-" + s.email}, password, 200)
			},
		},
		{
			name: "POST /login",
			run: func(s *subject) error {
				return s.http("POST", "/login", obj("email", s.email, "password", password), 200)
			},
		},
		{
			name: "POST /login, wrong",
			run: func(s *subject) error {
				return s.http("POST", "/login", obj("email", s.email, "password", "wrong"), 401)
			},
			holds: func(s *subject) error { return signsIn(s, password, 200) },
		},
		{
			name: "POST /anonymous",
			run: func(s *subject) error {
				return s.http("POST", "/anonymous", obj("device_id", s.id+"0123456789abcdef"), 200)
			},
		},
		{
			name: "POST /refresh",
			run:  func(s *subject) error { return s.http("POST", "/refresh", obj("refresh_token", s.refresh), 200) },
		},
		{
			name:  "POST /logout",
			run:   func(s *subject) error { return s.http("POST", "/logout", obj("refresh_token", s.refresh), 204) },
			holds: dead,
		},
		{
			name: "PATCH /me",
			run:  func(s *subject) error { return s.http("PATCH", "/me", obj("profile", obj("a", "b")), 200, s.token()) },
		},
		{
			// Carried out and not answered, the new password is the current one.
			name: "POST /password",
			run: func(s *subject) error {
				return s.http("POST", "/password", obj("current_password", password, "new_password", changed), 204, s.token())
			},
			again: errRefused,
			holds: func(s *subject) error { return errors.Join(signsIn(s, changed, 200), signsIn(s, password, 401)) },
		},
		{name: "GET /sessions", run: func(s *subject) error { return s.http("GET", "/sessions", nil, 200, s.token()) }},
		{
			name: "DELETE /sessions/{id}",
			run:  func(s *subject) error { return s.http("DELETE", "/sessions/"+s.second, nil, 204, s.token()) },
			holds: func(s *subject) error {
				if _, err := s.app.Sessions().Check(s.t.Context(), s.id, s.second); !errors.Is(err, sessions.ErrExpired) {
					return fmt.Errorf("the session lives: %w", err)
				}
				return nil
			},
		},
		{name: "DELETE /sessions", run: func(s *subject) error { return s.http("DELETE", "/sessions", nil, 204, s.token()) }},
		{
			name:  "DELETE /sessions?all=true",
			run:   func(s *subject) error { return s.http("DELETE", "/sessions?all=true", nil, 204, s.token()) },
			again: errRefused,
			holds: dead,
		},
		{name: "GET /me/permissions", run: func(s *subject) error { return s.http("GET", "/me/permissions", nil, 200, s.token()) }},
	}
}

func ofAccounts() []operation {
	return []operation{
		{
			name: "Users.Create",
			run: func(s *subject) error {
				return only(s.app.Users().Create(s.ctx, users.NewUser{Email: "new-" + s.email, Password: password}))
			},
			again: users.ErrEmailTaken,
			holds: func(s *subject) error {
				user, err := s.app.Users().GetByEmail(s.t.Context(), "new-"+s.email)
				if err != nil {
					return err
				}
				if roles := s.roles(user.ID); len(roles) != 1 {
					return fmt.Errorf("the user has the roles %q", roles)
				}
				return nil
			},
		},
		{name: "Users.Get", run: func(s *subject) error { return only(s.app.Users().Get(s.ctx, s.id)) }},
		{name: "Users.List", run: func(s *subject) error { return only(s.app.Users().List(s.ctx, users.ListOptions{})) }},
		{
			name: "Users.SetPassword",
			run:  func(s *subject) error { return s.app.Users().SetPassword(s.ctx, s.id, changed) },
			holds: func(s *subject) error {
				return errors.Join(dead(s), signsIn(s, changed, 200), signsIn(s, password, 401))
			},
		},
		{
			name:  "Users.Disable",
			run:   func(s *subject) error { return s.app.Users().Disable(s.ctx, s.id, "test") },
			holds: func(s *subject) error { return errors.Join(dead(s), signsIn(s, password, 403)) },
		},
		{
			name:  "Users.Enable",
			run:   func(s *subject) error { return s.app.Users().Enable(s.ctx, s.id) },
			holds: func(s *subject) error { return signsIn(s, password, 200) },
		},
		{
			name:  "Users.Delete",
			run:   func(s *subject) error { return s.app.Users().Delete(s.ctx, s.id) },
			again: users.ErrNotFound,
			holds: func(s *subject) error {
				if roles := s.roles(s.id); len(roles) != 0 {
					return fmt.Errorf("the deleted has the roles %q", roles)
				}
				return errors.Join(dead(s), signsIn(s, password, 401))
			},
		},
		{name: "Sessions.List", run: func(s *subject) error { return only(s.app.Sessions().List(s.ctx, s.id)) }},
		{
			name:  "Sessions.EndAll",
			run:   func(s *subject) error { return s.app.Sessions().EndAll(s.ctx, s.id, "test") },
			holds: func(s *subject) error { return errors.Join(dead(s), signsIn(s, password, 200)) },
		},
		{
			name: "StartSession",
			run:  func(s *subject) error { return only(s.app.StartSession(s.ctx, s.id, engine.Device{}, false)) },
		},
	}
}

func ofPolicies() []operation {
	own := func(s *subject) authz.Rule { return rule(s.id, "mine", "read") }
	return []operation{
		{
			name:  "Authz.GrantRole",
			run:   func(s *subject) error { return s.app.Authz().GrantRole(s.ctx, s.id, "admin") },
			holds: func(s *subject) error { return may(s, "documents", true) },
		},
		{
			name: "Authz.RevokeRole",
			run: func(s *subject) error {
				return s.app.Authz().RevokeRole(s.ctx, s.id, "user")
			},
			holds: func(s *subject) error {
				if roles := s.roles(s.id); len(roles) != 0 {
					return fmt.Errorf("the user has the roles %q", roles)
				}
				return nil
			},
		},
		{
			name: "Authz.SetRoles",
			run:  func(s *subject) error { return s.app.Authz().SetRoles(s.ctx, s.id, "admin") },
			holds: func(s *subject) error {
				if roles := s.roles(s.id); fmt.Sprint(roles) != "[admin]" {
					return fmt.Errorf("the user has the roles %q", roles)
				}
				return may(s, "documents", true)
			},
		},
		{
			name:  "Authz.AddRules",
			run:   func(s *subject) error { return s.app.Authz().AddRules(s.ctx, own(s)) },
			holds: func(s *subject) error { return may(s, "mine", true) },
		},
		{
			// Added and removed: nobody may be allowed by what was left behind.
			name: "Authz.RemoveRules",
			run: func(s *subject) error {
				if err := s.app.Authz().AddRules(s.ctx, own(s)); err != nil {
					return err
				}
				return s.app.Authz().RemoveRules(s.ctx, own(s))
			},
			holds: func(s *subject) error { return may(s, "mine", false) },
		},
		{name: "Authz.Rules", run: func(s *subject) error { return third(s.app.Authz().Rules(s.ctx, authz.RuleFilter{}, authz.Page{})) }},
		{name: "Authz.UsersOfRole", run: func(s *subject) error { return third(s.app.Authz().UsersOfRole(s.ctx, "user", authz.Page{})) }},
		{name: "Authz.AssignedRoles", run: func(s *subject) error { return only(s.app.Authz().AssignedRoles(s.ctx, s.id)) }},
		{
			name: "Load and Close",
			run: func(s *subject) error {
				m, err := tryManifest("other", policy(`"initial_policies":[["user","a","b"]]`), `"base_path":"/other"`)
				if err != nil {
					return err
				}
				app, err := s.eng.Load(s.ctx, m)
				if err != nil {
					return err
				}
				return app.Close(s.t.Context())
			},
			holds: func(s *subject) error {
				if s.eng.App("other") != nil {
					return errors.New("a half-loaded app is there")
				}
				return nil
			},
		},
	}
}
