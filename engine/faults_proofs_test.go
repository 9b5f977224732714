package engine_test

import (
	"net/http"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/users"
	"github.com/mandate-auth/mandate/users/recovery"
)

// proofOperations begin with what somebody has proved: registrations whose link is used,
// sessions that begin with a proof, and the codes that were wrong.
func proofOperations() []operation {
	return append(append(confirmRoutes(), proofCalls()...), codeCalls()...)
}

// confirmed is a registration whose link was mailed, and the guest who has registered.
type confirmed struct {
	token, guest string
	session      *session
}

func (p *point) confirmed() *confirmed { return p.note.(*confirmed) }

// aRegistration is somebody, a guest or nobody yet, who has registered and got the mail.
func aRegistration(of func(p *point) *confirmed) func(p *point) {
	return func(p *point) {
		p.t.Helper()
		p.email = "new" + p.email
		c := of(p)
		p.note = c
		n, err := p.healthy.app.Users().Prepare(p.ctx, users.NewUser{Email: p.email, Password: password, Guest: c.guest})
		p.must(err)
		p.must(p.healthy.app.Recovery().Register(p.ctx, n, recovery.From{}))
		c.token = mailedToken(p.mailed(p.healthy.app, "register", p.email))
	}
}

// aGuest is a guest who is signed in.
func aGuest(p *point) *confirmed {
	newDevice(p)
	o := p.answer(p.healthy, "POST", "/auth/anonymous", obj("device_id", p.note))
	id, _ := o.response.at("user", "id").(string)
	return &confirmed{guest: id, session: o.session}
}

// unproved checks that the session lives on and is no recent sign-in.
func (p *point) unproved(s *session) {
	p.t.Helper()
	p.alive(s)
	for _, w := range p.instances() {
		o := p.answer(w, "POST", "/auth/email/change", obj("new_email", "else"+p.email), bearer(s.access))
		if !o.is("fresh_required") {
			p.errorf("a session in which nobody has proved anything changes the address: %v", o)
		}
	}
}

func confirmRoutes() []operation {
	confirm := post("/auth/email/verify", func(p *point) any { return obj("token", p.confirmed().token) })
	done := func(p *point, _ outcome) {
		p.registered()
		u, err := p.healthy.app.Users().Get(p.ctx, p.id)
		if err != nil || !u.EmailVerified || (p.confirmed().guest != "" && u.ID != p.confirmed().guest) {
			p.errorf("whoever has registered is %+v, %v", u, err)
		}
		p.worthless("/auth/email/verify", obj("token", p.confirmed().token))
	}
	return []operation{
		{
			name: "POST /auth/email/verify: of a registration", steps: 6, prepare: aRegistration(func(*point) *confirmed { return &confirmed{} }),
			call: confirm, excused: used, settled: done,
		},
		{
			name: "POST /auth/email/verify: of a guest who has registered", steps: 8, prepare: aRegistration(aGuest),
			call: confirm, excused: used,
			settled: func(p *point, o outcome) {
				done(p, o)
				p.unproved(p.confirmed().session)
			},
		},
		{
			name: "POST /auth/email/change/confirm: of a session that has ended", steps: 3, want: "link_invalid",
			prepare: func(p *point) {
				linked("change_email", verifiedAccount)(p)
				p.must(p.healthy.app.Sessions().End(p.ctx, p.id, p.first.id, "test"))
			},
			call:    post("/auth/email/change/confirm", func(p *point) any { return obj("token", p.note) }),
			settled: func(p *point, _ outcome) { p.enters(password, "") },
		},
	}
}

func proofCalls() []operation {
	return []operation{
		{
			name: "App.StartProved", steps: 4, prepare: noteStamp,
			call: func(p *point) outcome {
				return signedIn(p.app.StartProved(p.ctx, users.ProveByMail(p.id, p.note.(string)), engine.Device{}, false))
			},
			settled: sessionIsGood,
		},
		{
			name: "App.StartProved: what was proved has changed", steps: 2, want: "conflict",
			prepare: func(p *point) {
				noteStamp(p)
				p.must(p.healthy.app.Users().SetPassword(p.ctx, p.id, newPassword))
			},
			call: func(p *point) outcome {
				return signedIn(p.app.StartProved(p.ctx, users.ProveByMail(p.id, p.note.(string)), engine.Device{}, false))
			},
			settled: func(p *point, _ outcome) { p.enters(newPassword, "") },
		},
		{
			name: "App.Arrive", steps: 8, prepare: visits(true, verifiedAccount),
			call: func(p *point) outcome {
				return signedIn(p.app.Arrive(p.ctx, p.visit().arrival(), engine.Device{}, false))
			},
			settled: func(p *point, o outcome) { p.belongs(o, p.id) },
		},
		{
			name: "Users.SignUp", steps: 3, prepare: func(p *point) { p.email = "new" + p.email },
			call: call(func(p *point) error {
				_, proof, err := p.app.Users().SignUp(p.ctx, users.NewUser{Email: p.email, Password: password})
				p.note = proof
				return err
			}),
			excused: emailTaken,
			settled: func(p *point, o outcome) {
				p.registered()
				if !o.is("") {
					return // the account was there before the answer was lost, and a proof is nowhere
				}
				in := signedIn(p.healthy.app.StartProved(p.ctx, p.note.(*users.Proof), engine.Device{}, false))
				p.alive(in.session)
			},
		},
	}
}

// maxWrongCodes is how many codes may be wrong in a row.
const maxWrongCodes = 100

// wrongCodes counts wrong codes of the account, on the healthy instance.
func (p *point) wrongCodes(n int) {
	p.t.Helper()
	for range n {
		p.must(p.healthy.app.Users().CountWrongCode(p.ctx, p.id))
	}
}

// codesAdmitted checks whether codes of the account are looked at, at every instance.
func (p *point) codesAdmitted(want bool) {
	p.t.Helper()
	for _, w := range p.instances() {
		if ok, err := w.app.Users().CodesAdmitted(p.ctx, p.id); ok != want || err != nil {
			p.errorf("codes are admitted: %t, %v, want %t", ok, err, want)
		}
	}
}

func codeCalls() []operation {
	return []operation{
		{
			name: "Users.CountWrongCode", prepare: func(p *point) { p.wrongCodes(maxWrongCodes - 1) },
			call:    call(func(p *point) error { return p.app.Users().CountWrongCode(p.ctx, p.id) }),
			settled: func(p *point, _ outcome) { p.codesAdmitted(false) },
		},
		{
			name: "Users.CodesAdmitted", prepare: func(p *point) { p.wrongCodes(maxWrongCodes) },
			call: call(func(p *point) error {
				ok, err := p.app.Users().CodesAdmitted(p.ctx, p.id)
				if ok {
					p.errorf("codes are admitted after %d wrong ones: %v", maxWrongCodes, err)
				}
				return err
			}),
		},
		{
			name: "Users.ForgetWrongCodes", prepare: func(p *point) { p.wrongCodes(maxWrongCodes) },
			call:    call(func(p *point) error { return p.app.Users().ForgetWrongCodes(p.ctx, p.id) }),
			settled: func(p *point, _ outcome) { p.codesAdmitted(true) },
		},
		{
			// Whatever is not known, the code that is right does not sign in.
			name: "POST /auth/code/consume: after too many wrong ones", steps: 3, want: "link_invalid",
			prepare: func(p *point) {
				verifiedAccount(p)
				p.wrongCodes(maxWrongCodes)
				aCode(p)
			},
			call: post("/auth/code/consume", func(p *point) any { return p.squat().body() }),
			settled: func(p *point, o outcome) {
				if o.response.status != http.StatusBadRequest {
					p.errorf("the right code after %d wrong ones: %v", maxWrongCodes, o)
				}
				p.codesAdmitted(false)
			},
		},
	}
}
