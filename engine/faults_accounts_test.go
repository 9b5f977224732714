package engine_test

import (
	"errors"
	"strings"
	"time"

	"github.com/mandate-auth/mandate/tokens/onetime"
	"github.com/mandate-auth/mandate/users"
)

// accountOperations are the calls that mail and providers are made of.
func accountOperations() []operation {
	return append(append(stateCalls(), linkCalls()...), oneTimeCalls()...)
}

func stateCalls() []operation {
	return []operation{
		{name: "Users.State", call: call(func(p *point) error { _, err := p.app.Users().State(p.ctx, p.id); return err })},
		{name: "Users.StateByEmail", call: call(func(p *point) error { _, err := p.app.Users().StateByEmail(p.ctx, p.email); return err })},
		{
			name: "Users.Reauthenticate", steps: 3,
			call:    call(func(p *point) error { return p.app.Users().Reauthenticate(p.ctx, p.id, password, "") }),
			settled: func(p *point, _ outcome) { p.enters(password, "") },
		},
		{
			name: "Users.Complete", steps: 3, prepare: func(p *point) {
				p.email = "new" + p.email
				n, err := p.healthy.app.Users().Prepare(p.ctx, users.NewUser{Email: p.email, Password: password})
				p.must(err)
				p.note = n
			},
			call:    call(func(p *point) error { _, err := p.app.Users().Complete(p.ctx, p.note.(*users.Prepared)); return err }),
			settled: func(p *point, _ outcome) { p.registered() },
		},
	}
}

func linkCalls() []operation {
	link := func(p *point) string { return users.LinkOf("acme", p.email) }
	links := func(want int) func(p *point, o outcome) {
		return func(p *point, _ outcome) {
			if st, err := p.healthy.app.Users().State(p.ctx, p.id); err != nil || len(st.Links) != want {
				p.errorf("the account is %+v, %v, want %d links", st, err, want)
			}
		}
	}
	add := func(p *point) {
		st, err := p.healthy.app.Users().State(p.ctx, p.id)
		p.must(err)
		p.must(p.healthy.app.Users().AddLink(p.ctx, st, link(p)))
	}
	return []operation{
		{
			name: "Users.CreateLinked", steps: 3, prepare: func(p *point) { p.email = "new" + p.email },
			call: call(func(p *point) error {
				_, err := p.app.Users().CreateLinked(p.ctx, users.LinkedUser{Email: p.email, Link: link(p)})
				return err
			}),
			excused: emailTaken,
			settled: func(p *point, _ outcome) {
				u, err := p.healthy.app.Users().GetByEmail(p.ctx, p.email)
				p.must(err)
				if err == nil {
					p.id = u.ID
					p.has("user")
					links(1)(p, outcome{})
				}
			},
		},
		{
			name: "Users.AddLink", steps: 1, prepare: func(p *point) {
				st, err := p.healthy.app.Users().State(p.ctx, p.id)
				p.must(err)
				p.note = st
			},
			call: call(func(p *point) error { return p.app.Users().AddLink(p.ctx, p.note.(*users.State), link(p)) }), settled: links(1),
		},
		{
			name: "Users.RemoveLink", steps: 1, prepare: add,
			call:    call(func(p *point) error { return p.app.Users().RemoveLink(p.ctx, p.id, link(p), false) }),
			excused: func(_ *point, o outcome) bool { return errors.Is(o.err, users.ErrNotFound) },
			settled: links(0),
		},
	}
}

const toTest onetime.Purpose = "test"

// oneTime is a token of the app, and a code in its flow.
type oneTime struct {
	token string
	flow  onetime.Flow
	code  string
}

func (p *point) oneTime() *oneTime { return p.note.(*oneTime) }

func newOneTime(p *point) onetime.NewToken {
	return onetime.NewToken{Purpose: toTest, Subject: p.id, TTL: time.Hour}
}

// aToken makes a token and a code.
func aToken(p *point) {
	o := &oneTime{flow: onetime.NewFlow()}
	p.note = o
	var err error
	o.token, err = p.healthy.app.OneTime().Issue(p.ctx, newOneTime(p))
	p.must(err)
	o.code, err = p.healthy.app.OneTime().Open(p.ctx, o.flow.Handle, newOneTime(p))
	p.must(err)
}

// usedUp checks that neither the token nor the code is good, at any instance.
func (p *point) usedUp(use func(s *onetime.Store) error) {
	p.t.Helper()
	for _, w := range p.instances() {
		if err := use(w.app.OneTime()); !errors.Is(err, onetime.ErrInvalid) {
			p.errorf("what was used: %v", err)
		}
	}
}

func oneTimeCalls() []operation {
	consume := func(p *point) func(s *onetime.Store) error {
		return func(s *onetime.Store) error { _, err := s.Consume(p.ctx, toTest, p.oneTime().token); return err }
	}
	try := func(p *point) func(s *onetime.Store) error {
		return func(s *onetime.Store) error {
			_, err := s.Try(p.ctx, toTest, p.oneTime().flow.ID, p.oneTime().code)
			return err
		}
	}
	// It was used up before the answer was lost, and nobody uses it twice.
	lost := func(_ *point, o outcome) bool { return errors.Is(o.err, onetime.ErrInvalid) }
	works := func(p *point, use func(s *onetime.Store) error) {
		p.t.Helper()
		p.must(use(p.healthy.app.OneTime()))
		p.usedUp(use)
	}
	return append([]operation{
		{
			name: "OneTime.Issue", prepare: aToken,
			call: call(func(p *point) error {
				n := newOneTime(p)
				n.Seed = p.id
				token, err := p.app.OneTime().Issue(p.ctx, n)
				p.oneTime().token = token
				return err
			}),
			settled: func(p *point, _ outcome) { works(p, consume(p)) },
		},
		{
			name: "OneTime.Open", prepare: aToken,
			call: call(func(p *point) (err error) {
				p.oneTime().code, err = p.app.OneTime().Open(p.ctx, p.oneTime().flow.Handle, newOneTime(p))
				return err
			}),
			settled: func(p *point, _ outcome) { works(p, try(p)) },
		},
		{
			name: "OneTime.Peek", prepare: aToken,
			call:    call(func(p *point) error { _, err := p.app.OneTime().Peek(p.ctx, toTest, p.oneTime().token); return err }),
			settled: func(p *point, _ outcome) { works(p, consume(p)) },
		},
		{
			name: "OneTime.Consume", prepare: aToken, call: call(func(p *point) error { return consume(p)(p.app.OneTime()) }), excused: lost,
			settled: func(p *point, _ outcome) { p.usedUp(consume(p)) },
		},
		{
			name: "OneTime.Try", steps: 2, prepare: aToken, call: call(func(p *point) error { return try(p)(p.app.OneTime()) }), excused: lost,
			settled: func(p *point, _ outcome) { p.usedUp(try(p)) },
		},
		{
			name: "OneTime.Revoke", prepare: aToken, call: call(func(p *point) error { return p.app.OneTime().Revoke(p.ctx, p.id, toTest) }),
			settled: func(p *point, _ outcome) { p.usedUp(consume(p)); p.usedUp(try(p)) },
		},
	}, oneTimeCounts()...)
}

func oneTimeCounts() []operation {
	quota := func(p *point) onetime.Quota {
		return onetime.Quota{Purpose: toTest, Subject: p.id, Limit: 2, Window: time.Hour}
	}
	spend := func(p *point) error {
		ok, err := p.app.OneTime().Spend(p.ctx, quota(p), p.id)
		if err == nil && !ok {
			p.errorf("a quota with room has none")
		}
		return err
	}
	spentOnce := func(p *point, _ outcome) {
		for i, want := range []bool{true, true, false} {
			seed := p.id + strings.Repeat("'", i)
			if ok, err := p.healthy.app.OneTime().Spend(p.ctx, quota(p), seed); err != nil || ok != want {
				p.errorf("the spending %d: %t, %v", i, ok, err)
			}
		}
	}
	return []operation{
		{name: "OneTime.Spend", call: call(spend), settled: spentOnce},
		{
			name: "OneTime.Spend: again", steps: 2, prepare: func(p *point) { _, err := p.healthy.app.OneTime().Spend(p.ctx, quota(p), p.id); p.must(err) },
			call: call(spend), settled: spentOnce,
		},
		{
			name: "OneTime.Claim", prepare: aToken,
			call: call(func(p *point) error { return p.app.OneTime().Claim(p.ctx, toTest, p.id, time.Now().Add(time.Hour)) }),
			// It was claimed before the answer was lost: nobody claims it twice.
			excused: func(_ *point, o outcome) bool { return errors.Is(o.err, onetime.ErrUsed) },
			settled: func(p *point, _ outcome) {
				if err := p.healthy.app.OneTime().Claim(p.ctx, toTest, p.id, time.Now().Add(time.Hour)); !errors.Is(err, onetime.ErrUsed) {
					p.errorf("claimed twice: %v", err)
				}
			},
		},
		{name: "OneTime.Sweep", call: call(func(p *point) error { _, err := p.app.OneTime().Sweep(p.ctx); return err })},
	}
}
