package engine_test

import (
	"github.com/mandate-auth/mandate/mail"
	"github.com/mandate-auth/mandate/users"
	"github.com/mandate-auth/mandate/users/recovery"
)

// aCode asks for a code, on the healthy instance, and composes the mail with it.
func aCode(p *point) {
	p.t.Helper()
	s, ok := p.note.(*squat)
	if !ok {
		s = &squat{}
		p.note = s
	}
	flow, _, err := p.healthy.app.Recovery().SendCode(p.ctx, p.email, recovery.From{})
	p.must(err)
	s.flow, s.code = flow, codeOf(p.mailed(p.healthy.app, string(mail.EmailCode), p.email))
}

func (s *squat) body() any { return obj("flow_id", s.flow, "code", s.code) }

// linkRoutes sign in by what was mailed. What is used up before the answer is lost is
// asked for again.
func linkRoutes() []operation {
	byLink := post("/auth/magic-link/consume", func(p *point) any { return obj("token", p.squat().token) })
	byCode := post("/auth/code/consume", func(p *point) any { return p.squat().body() })
	linkAgain := func(p *point) outcome {
		if o := byLink(p); !o.is("link_invalid") {
			return o
		}
		p.squat().token = p.link(mail.MagicLink)
		return byLink(p)
	}
	codeAgain := func(p *point) outcome {
		if o := byCode(p); !o.is("link_invalid") {
			return o
		}
		aCode(p)
		return byCode(p)
	}
	aLink := func(p *point) {
		verifiedAccount(p)
		p.note = &squat{token: p.link(mail.MagicLink)}
	}
	// The sessions of before live on: it is one sign-in more.
	in := func(path string, body func(p *point) any) func(p *point, o outcome) {
		return func(p *point, o outcome) {
			p.alive(o.session)
			p.alive(p.first)
			p.worthless(path, body(p))
		}
	}
	theirs := func(p *point, o outcome) {
		p.alive(o.session)
		p.evicted()
	}
	return []operation{
		{
			name: "POST /auth/magic-link/consume", steps: 6, prepare: aLink, call: byLink, again: linkAgain,
			settled: in("/auth/magic-link/consume", func(p *point) any { return obj("token", p.squat().token) }),
		},
		{
			name: "POST /auth/magic-link/consume: of an account that somebody else made", steps: 12,
			prepare: squattedAnd(mail.MagicLink), call: byLink, again: linkAgain, settled: theirs,
		},
		{
			name: "POST /auth/code/consume", steps: 7, prepare: func(p *point) { verifiedAccount(p); aCode(p) }, call: byCode, again: codeAgain,
			settled: in("/auth/code/consume", func(p *point) any { return p.squat().body() }),
		},
		{
			name: "POST /auth/code/consume: of an account that somebody else made", steps: 13,
			prepare: func(p *point) { squatted(p); aCode(p) }, call: byCode, again: codeAgain, settled: theirs,
		},
		{
			name: "POST /auth/code/consume: wrong", steps: 2, want: "link_invalid", prepare: func(p *point) { verifiedAccount(p); aCode(p) },
			call: post("/auth/code/consume", func(p *point) any { return obj("flow_id", p.squat().flow, "code", "none") }),
			settled: func(p *point, _ outcome) {
				if o := p.answer(p.healthy, "POST", "/auth/code/consume", p.squat().body()); !o.is("") {
					p.errorf("the right code after a wrong one: %v", o)
				}
			},
		},
		{
			name: "Users.Reclaim", steps: 6, prepare: squatted,
			call: call(func(p *point) error {
				st, err := p.app.Users().State(p.ctx, p.id)
				if err != nil || st.User.EmailVerified {
					return err
				}
				_, err = p.app.Users().Reclaim(p.ctx, st)
				return err
			}),
			settled: func(p *point, _ outcome) { p.evicted() },
		},
	}
}

// composeCalls make mails. What is composed again is the same link, so that whichever
// mail arrives works.
func composeCalls() []operation {
	compose := func(name string, kind mail.Template, ask func(p *point), prepare func(p *point)) operation {
		return operation{
			name: "Recovery.Compose: " + name, steps: 2,
			prepare: func(p *point) {
				if prepare != nil {
					prepare(p)
				}
				ask(p)
				list, err := p.healthy.waiting(p.ctx, p.healthy.app, p.email)
				if p.must(err); len(list) != 1 || list[0].Kind != string(kind) {
					p.errorf("prepare: the jobs are %+v", list)
					list = append(list, job{})
				}
				p.note = list[0].mail()
			},
			call: func(p *point) outcome {
				m, err := p.app.Recovery().Compose(p.ctx, p.note.(mail.Job))
				if err == nil {
					p.note = []any{p.note, mailedToken(m) + codeOf(m)}
				}
				return outcome{err: err}
			},
			settled: func(p *point, _ outcome) {
				made := p.note.([]any)
				m, err := p.healthy.app.Recovery().Compose(p.ctx, made[0].(mail.Job))
				p.must(err)
				if token := made[1].(string); token == "" || (kind != mail.EmailCode && mailedToken(m) != token) {
					p.errorf("composed again it is %q, before %q", mailedToken(m), token)
				}
			},
		}
	}
	ask := func(f func(r *recovery.Service, p *point) error) func(p *point) {
		return func(p *point) { p.must(f(p.healthy.app.Recovery(), p)) }
	}
	return []operation{
		compose("a verification", mail.VerifyEmail, ask(func(r *recovery.Service, p *point) error { return r.SendVerification(p.ctx, p.email, recovery.From{}) }), nil),
		compose("a reset", mail.ResetPassword, ask(func(r *recovery.Service, p *point) error { return r.ForgotPassword(p.ctx, p.email, recovery.From{}) }), nil),
		compose("a link", mail.MagicLink, ask(func(r *recovery.Service, p *point) error { return r.SendMagicLink(p.ctx, p.email, "", recovery.From{}) }), nil),
		compose("a code", mail.EmailCode, ask(func(r *recovery.Service, p *point) error {
			_, _, err := r.SendCode(p.ctx, p.email, recovery.From{})
			return err
		}), nil),
		compose("a change", mail.ChangeEmail, ask(func(r *recovery.Service, p *point) error {
			return r.ChangeEmail(p.ctx, p.id, "", p.email, recovery.From{})
		}),
			func(p *point) { p.email = "new" + p.email }),
		compose("a registration", "register", ask(func(r *recovery.Service, p *point) error {
			n, err := p.healthy.app.Users().Prepare(p.ctx, users.NewUser{Email: p.email, Password: password})
			if err != nil {
				return err
			}
			return r.Register(p.ctx, n, recovery.From{})
		}), func(p *point) { p.email = "new" + p.email }),
		{
			name: "Recovery.Compose: for a taken address", steps: 4,
			prepare: func(p *point) {
				n, err := p.healthy.app.Users().Prepare(p.ctx, users.NewUser{Email: p.email, Password: newPassword})
				p.must(err)
				p.must(p.healthy.app.Recovery().Register(p.ctx, n, recovery.From{}))
			},
			call: call(func(p *point) error {
				list, err := p.healthy.waiting(p.t.Context(), p.healthy.app, p.email)
				p.must(err)
				m, err := p.app.Recovery().Compose(p.ctx, list[0].mail())
				if err == nil && (m == nil || mailedToken(m) != "") {
					p.errorf("whoever has the address is told: %+v", m)
				}
				return err
			}),
			settled: func(p *point, _ outcome) { p.enters(password, ""); p.enters(newPassword, "invalid_credentials") },
		},
	}
}

// noticeCalls tell owners what has changed.
func noticeCalls() []operation {
	told := func(name string, kind mail.Template, f func(p *point, r *recovery.Service) error) operation {
		return operation{
			name: "Recovery." + name, steps: 2, prepare: verifiedAccount,
			call:    call(func(p *point) error { return f(p, p.app.Recovery()) }),
			settled: func(p *point, _ outcome) { p.mailed(p.healthy.app, string(kind), p.email) },
		}
	}
	return []operation{
		told("PasswordChanged", mail.PasswordChanged, func(p *point, r *recovery.Service) error { return r.PasswordChanged(p.ctx, p.id, recovery.From{}) }),
		told("IdentityLinked", mail.IdentityLinked, func(p *point, r *recovery.Service) error { return r.IdentityLinked(p.ctx, p.id, "acme") }),
		told("IdentityRemoved", mail.IdentityRemoved, func(p *point, r *recovery.Service) error { return r.IdentityRemoved(p.ctx, p.id, "acme") }),
		told("Recovered", mail.AccountRecovered, func(p *point, r *recovery.Service) error { return r.Recovered(p.ctx, p.id) }),
		{
			name: "Recovery.Register", steps: 1,
			prepare: func(p *point) { p.email = "new" + p.email },
			call: call(func(p *point) error {
				n, err := p.app.Users().Prepare(p.ctx, users.NewUser{Email: p.email, Password: password})
				if err != nil {
					return err
				}
				return p.app.Recovery().Register(p.ctx, n, recovery.From{})
			}),
			settled: func(p *point, _ outcome) {
				_, err := p.healthy.app.Recovery().VerifyEmail(p.ctx, mailedToken(p.mailed(p.healthy.app, "register", p.email)))
				p.must(err)
				p.registered()
			},
		},
	}
}

func outboxCalls() []operation {
	return []operation{
		{
			name: "Outbox.Enqueue", prepare: func(p *point) { p.note = mail.NewJobID() },
			call: call(func(p *point) error {
				return p.app.Outbox().Enqueue(p.ctx, mail.Job{ID: p.note.(string), Kind: string(mail.VerifyEmail), To: p.email})
			}),
			settled: func(p *point, _ outcome) {
				// However often: it is the same job.
				if list, err := p.healthy.waiting(p.ctx, p.healthy.app, p.email); err != nil || len(list) != 1 {
					p.errorf("%d jobs, %v", len(list), err)
				}
			},
		},
		{name: "Outbox.Pending", call: call(func(p *point) error { _, err := p.app.Outbox().Pending(p.ctx); return err })},
		{name: "Outbox.Sweep", call: call(func(p *point) error { _, err := p.app.Outbox().Sweep(p.ctx); return err })},
	}
}
