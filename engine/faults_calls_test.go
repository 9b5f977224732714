package engine_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"time"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/users"
)

// callOperations are the direct API.
func callOperations() []operation {
	return append(append(appCalls(), userCalls()...), append(sessionCalls(), blacklistCalls()...)...)
}

// call makes an operation of a call that returns an error alone.
func call(f func(p *point) error) func(p *point) outcome {
	return func(p *point) outcome { return outcome{err: f(p)} }
}

func appCalls() []operation {
	return []operation{
		{
			name: "App.Login", steps: 7,
			call: func(p *point) outcome {
				return signedIn(p.app.Login(p.ctx, engine.Credentials{Email: p.email, Password: password}, engine.Device{}, true))
			},
			settled: func(p *point, o outcome) { p.alive(o.session); p.alive(p.first) },
		},
		{
			name: "App.StartSession", steps: 4,
			call: func(p *point) outcome {
				return signedIn(p.app.StartSession(p.ctx, p.id, engine.Device{}, false))
			},
			settled: sessionIsGood,
		},
		{
			name: "App.Refresh", steps: 3,
			call:    func(p *point) outcome { return signedIn(p.app.Refresh(p.ctx, p.first.refresh, engine.Device{})) },
			settled: sessionIsGood,
		},
		{
			name: "App.Logout", steps: 3,
			call:    call(func(p *point) error { return p.app.Logout(p.ctx, p.first.refresh) }),
			settled: firstIsDead,
		},
		{
			name: "App.SignIn", steps: 4,
			call: func(p *point) outcome {
				rec := httptest.NewRecorder()
				o := outcome{err: p.app.SignIn(rec, p.request("POST", "/sign-in"), p.id)}
				if len(rec.Header()["Set-Cookie"]) != 0 {
					o.session = &session{}
				}
				return o
			},
			settled: func(p *point, o outcome) {
				if o.session == nil {
					p.errorf("a browser that signed in was given no cookies")
				}
			},
		},
		{
			name: "App.SignOut", steps: 3, prepare: inCookies,
			call: func(p *point) outcome {
				rec := httptest.NewRecorder()
				err := p.app.SignOut(rec, p.request("POST", "/sign-out", p.jar))
				if err != nil && len(rec.Header()["Set-Cookie"]) != 0 {
					p.errorf("a sign-out that failed took the cookies away")
				}
				return outcome{err: err}
			},
			settled: func(p *point, _ outcome) { p.dead(p.third) },
		},
		{
			name: "App.Strict", steps: 3,
			call: func(p *point) outcome {
				return p.serve(p.app.Strict().Handler(ok), "GET", "/", nil, p.asFirst())
			},
		},
		{
			name: "App.Strict: disabled half way", steps: 3, want: "session_expired",
			prepare: func(p *point) { p.set("users", p.id, bson.M{"status": "disabled"}) },
			call: func(p *point) outcome {
				return p.serve(p.app.Strict().Handler(ok), "GET", "/", nil, p.asFirst())
			},
		},
	}
}

func userCalls() []operation {
	return append(userReads(), []operation{
		{
			name: "Users.Create", prepare: func(p *point) { p.email = "new" + p.unique() + "@example.com" },
			call: call(func(p *point) error {
				_, err := p.app.Users().Create(p.ctx, users.NewUser{Email: p.email, Password: password})
				return err
			}),
			excused: emailTaken,
			settled: func(p *point, _ outcome) { p.registered() },
		},
		{
			name: "Users.Register", prepare: func(p *point) { p.email = "new" + p.unique() + "@example.com" },
			call: call(func(p *point) error {
				_, err := p.app.Users().Register(p.ctx, users.NewUser{Email: p.email, Password: password})
				return err
			}),
			excused: emailTaken,
			settled: func(p *point, _ outcome) { p.registered() },
		},
		{
			name: "Users.SetPassword", steps: 6,
			call: call(func(p *point) error { return p.app.Users().SetPassword(p.ctx, p.id, newPassword) }),
			settled: func(p *point, o outcome) {
				bothAreDead(p, o)
				p.enters(password, "invalid_credentials")
				p.enters(newPassword, "")
			},
		},
		{
			name: "Users.ChangePassword", steps: 7,
			call: func(p *point) outcome { return p.changeByCall(password) },
			again: func(p *point) outcome {
				// The answer may have been lost after the password had changed.
				if o := p.changeByCall(password); !o.is("invalid_credentials") {
					return o
				}
				return p.changeByCall(newPassword)
			},
			settled: passwordChanged,
		},
		{
			name: "Users.Disable", steps: 4,
			call:    call(func(p *point) error { return p.app.Users().Disable(p.ctx, p.id, "test") }),
			settled: func(p *point, o outcome) { bothAreDead(p, o); p.enters(password, "account_disabled") },
		},
		{
			name: "Users.Enable", prepare: func(p *point) { p.must(p.healthy.app.Users().Disable(p.ctx, p.id, "test")) },
			call:    call(func(p *point) error { return p.app.Users().Enable(p.ctx, p.id) }),
			settled: func(p *point, _ outcome) { p.gone(p.first); p.enters(password, "") },
		},
		{
			name: "Users.Delete", steps: 9, prepare: asAdmin,
			call: call(func(p *point) error { return p.app.Users().Delete(p.ctx, p.id) }),
			// It had got to its end before the answer was lost.
			excused: func(_ *point, o outcome) bool { return o.is("not_found") },
			settled: func(p *point, o outcome) {
				bothAreDead(p, o)
				p.enters(password, "invalid_credentials")
				p.may("documents", false)
				p.has()
				if _, err := p.healthy.app.Users().GetByEmail(p.ctx, p.email); !errors.Is(err, users.ErrNotFound) {
					p.errorf("the address of a deleted user: %v, want ErrNotFound", err)
				}
			},
		},
		{
			name: "Users.UpdateProfile", steps: 2,
			call: call(func(p *point) error {
				_, err := p.app.Users().UpdateProfile(p.ctx, p.id, map[string]any{"nickname": "Ada"})
				return err
			}),
			settled: func(p *point, _ outcome) { p.profile("nickname", "Ada") },
		},
		{
			name: "Users.Unlock", call: call(func(p *point) error { return p.app.Users().Unlock(p.ctx, p.email) }),
			settled: func(p *point, _ outcome) { p.enters(password, "") },
		},
		{
			name: "Users.Anonymous", steps: 2, prepare: newDevice,
			call: call(func(p *point) error { _, err := p.app.Users().Anonymous(p.ctx, p.note.(string)); return err }),
		},
		{
			name: "Users.Demo", steps: 2, prepare: newDevice,
			call: call(func(p *point) error { _, err := p.app.Users().Demo(p.ctx, p.note.(string)); return err }),
		},
		{name: "Users.Sweep", call: call(func(p *point) error { _, err := p.app.Users().Sweep(p.ctx); return err })},
	}...)
}

func userReads() []operation {
	return []operation{
		{name: "Users.Get", call: call(func(p *point) error { _, err := p.app.Users().Get(p.ctx, p.id); return err })},
		{name: "Users.GetByEmail", call: call(func(p *point) error { _, err := p.app.Users().GetByEmail(p.ctx, p.email); return err })},
		{name: "Users.Active", call: call(func(p *point) error { _, err := p.app.Users().Active(p.ctx, p.id); return err })},
		{
			name: "Users.List",
			call: call(func(p *point) error {
				page, err := p.app.Users().List(p.ctx, users.ListOptions{Limit: 2})
				if err == nil && len(page.Users) != 2 {
					p.errorf("a page of %d users, want 2", len(page.Users))
				}
				return err
			}),
		},
	}
}

func sessionCalls() []operation {
	return []operation{
		{
			name: "Sessions.List", steps: 2,
			call: call(func(p *point) error {
				list, err := p.app.Sessions().List(p.ctx, p.id)
				if err == nil && len(list) != 2 {
					p.errorf("%d sessions, want 2", len(list))
				}
				return err
			}),
		},
		{
			name: "Sessions.Get", steps: 2,
			call: call(func(p *point) error { _, err := p.app.Sessions().Get(p.ctx, p.id, p.first.id); return err }),
		},
		{
			name: "Sessions.Check", steps: 3,
			call: call(func(p *point) error { _, err := p.app.Sessions().Check(p.ctx, p.id, p.first.id); return err }),
		},
		{
			name: "Sessions.End", steps: 3,
			call:    call(func(p *point) error { return p.app.Sessions().End(p.ctx, p.id, p.first.id, "test") }),
			settled: firstIsDead,
		},
		{
			name: "Sessions.EndOthers", steps: 5,
			call:    call(func(p *point) error { return p.app.Sessions().EndOthers(p.ctx, p.id, p.first.id, "test") }),
			settled: secondIsDead,
		},
		{
			name: "Sessions.EndAll", steps: 3,
			call:    call(func(p *point) error { return p.app.Sessions().EndAll(p.ctx, p.id, "test") }),
			settled: func(p *point, o outcome) { bothAreDead(p, o); p.enters(password, "") },
		},
		{
			name: "Sessions.Forget", steps: 2, prepare: func(p *point) { p.must(p.healthy.app.Sessions().EndAll(p.ctx, p.id, "test")) },
			call:    call(func(p *point) error { return p.app.Sessions().Forget(p.ctx, p.id) }),
			settled: func(p *point, _ outcome) { p.gone(p.first); p.gone(p.second) },
		},
		{name: "Sessions.Sweep", call: call(func(p *point) error { _, err := p.app.Sessions().Sweep(p.ctx); return err })},
	}
}

func blacklistCalls() []operation {
	soon := func() time.Time { return time.Now().Add(time.Hour) }
	return []operation{
		{
			name: "Blacklist.AddToken",
			call: call(func(p *point) error { return p.app.Blacklist().AddToken(p.ctx, "tok_"+p.email, soon(), "test") }),
			settled: func(p *point, _ outcome) {
				if found, _, err := p.healthy.app.Blacklist().Contains(p.ctx, tokens.RevokedToken, "tok_"+p.email); !found || err != nil {
					p.errorf("a revocation that was stored: %t, %v", found, err)
				}
			},
		},
		{
			name:    "Blacklist.AddSession",
			call:    call(func(p *point) error { return p.app.Blacklist().AddSession(p.ctx, p.first.id, soon(), "test") }),
			settled: func(p *point, _ outcome) { p.revoked(p.first) },
		},
		{
			name:    "Blacklist.AddUser",
			call:    call(func(p *point) error { return p.app.Blacklist().AddUser(p.ctx, p.id, 1, "test") }),
			settled: func(p *point, _ outcome) { p.revoked(p.first); p.revoked(p.second) },
		},
		{
			name: "Blacklist.Contains",
			call: call(func(p *point) error {
				found, _, err := p.app.Blacklist().Contains(p.ctx, tokens.RevokedSession, p.first.id)
				if found {
					p.errorf("a session that nobody ended is revoked")
				}
				return err
			}),
		},
	}
}

func (p *point) changeByCall(current string) outcome {
	return outcome{err: p.app.Users().ChangePassword(p.ctx, p.id, users.PasswordChange{
		Current: current, New: newPassword, KeepSession: p.first.id,
	})}
}

// request is a request that a handler of the service is given.
func (p *point) request(method, path string, edit ...request) *http.Request {
	r := httptest.NewRequestWithContext(p.ctx, method, path, nil)
	r.Host = "shop.example"
	for _, f := range edit {
		f(r)
	}
	return r
}
