package engine_test

import (
	"errors"
	"net/http"
	"slices"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/mail"
	"github.com/mandate-auth/mandate/tokens/apikey"
	"github.com/mandate-auth/mandate/users"
	"github.com/mandate-auth/mandate/users/identity"
	"github.com/mandate-auth/mandate/users/recovery"
)

// mailOperations are what is asked for and done by mail. No instance sends any: what
// waits is composed here.
func mailOperations() []operation {
	return slices.Concat(askRoutes(), verifyRoutes(), resetRoutes(), changeRoutes(), linkRoutes(), composeCalls(), noticeCalls(), outboxCalls())
}

// mailed composes the newest mail of the kind that waits for somebody, as the healthy
// instance would.
func (p *point) mailed(app *engine.App, kind, to string) *mail.Message {
	p.t.Helper()
	m, err := p.healthy.composed(p.ctx, app, kind, to)
	p.must(err)
	return m
}

// link asks for a mail of the kind, on the healthy instance, and returns its token.
func (p *point) link(kind mail.Template) string {
	p.t.Helper()
	r, to := p.healthy.app.Recovery(), p.email
	ask := map[mail.Template]func() error{
		mail.VerifyEmail:   func() error { return r.SendVerification(p.ctx, p.email, recovery.From{}) },
		mail.ResetPassword: func() error { return r.ForgotPassword(p.ctx, p.email, recovery.From{}) },
		mail.MagicLink:     func() error { return r.SendMagicLink(p.ctx, p.email, "/cart", recovery.From{}) },
		mail.ChangeEmail: func() error {
			to = "new" + p.email
			return r.ChangeEmail(p.ctx, p.id, p.first.id, to, recovery.From{})
		},
	}
	p.must(ask[kind]())
	return mailedToken(p.mailed(p.healthy.app, string(kind), to))
}

// linked is prepare that makes a link of the kind.
func linked(kind mail.Template, before ...func(p *point)) func(p *point) {
	return func(p *point) {
		for _, f := range before {
			f(p)
		}
		p.note = p.link(kind)
	}
}

// verifiedAccount verifies the address of the account.
func verifiedAccount(p *point) { p.set("users", p.id, bson.M{"email_verified": true}) }

// squat is what whoever made an account has left there besides the password, and the
// token or the code that was mailed to the owner of its address.
type squat struct {
	key               *apikey.Created
	token, flow, code string
}

func (p *point) squat() *squat { return p.note.(*squat) }

// squatted makes of the account, whose address nobody has verified, one that its maker
// comes in to by an API key and an identity as well.
func squatted(p *point) {
	aKey(p)
	p.note = &squat{key: p.key()}
	st, err := p.healthy.app.Users().State(p.ctx, p.id)
	p.must(err)
	p.must(p.healthy.app.Users().AddLink(p.ctx, st, users.LinkOf("acme", p.id)))
	_, err = p.healthy.db.Collection(identity.Collection).InsertOne(p.ctx, bson.M{
		"_id": "shop|acme|" + p.id, "app": "shop", "user_id": p.id, "provider": "acme", "subject": p.id, "issuer": acme, "email_verified": false,
	})
	p.must(err)
}

// squattedAnd is squatted, with a link of the kind mailed to the owner of the address.
func squattedAnd(kind mail.Template) func(p *point) {
	return func(p *point) {
		squatted(p)
		p.squat().token = p.link(kind)
	}
}

// evicted checks that nothing of whoever made the account works, and that the address is
// verified.
func (p *point) evicted() {
	p.t.Helper()
	p.dead(p.first)
	p.dead(p.second)
	p.enters(password, "invalid_credentials")
	p.keyIsDead(p.squat().key)
	st, err := p.healthy.app.Users().State(p.ctx, p.id)
	if err != nil || !st.User.EmailVerified || slices.Contains(st.Links, users.LinkOf("acme", p.id)) {
		p.errorf("the account is %+v, %v", st, err)
	}
	in, err := p.healthy.app.Identities().Arrive(p.ctx, identity.Arrival{Provider: "acme", Issuer: acme, Subject: p.id})
	if err == nil && in.UserID == p.id {
		_, err = p.healthy.app.Users().Confirm(p.ctx, in.Proof) // the account decides
		if errors.Is(err, users.ErrChanged) {
			return
		}
	}
	if err != nil || in.UserID == p.id {
		p.errorf("the identity of whoever made the account arrives as %+v, %v", in, err)
	}
}

// post posts to a route of the instance that meets the fault.
func post(path string, body func(p *point) any) func(p *point) outcome {
	return func(p *point) outcome { return p.send("POST", path, body(p)) }
}

// used: the token was used up before the answer was lost.
func used(_ *point, o outcome) bool { return o.is("link_invalid") }

// worthless checks that a token does nothing any more, at no instance.
func (p *point) worthless(path string, body any) {
	p.t.Helper()
	for _, w := range p.instances() {
		if o := p.answer(w, "POST", path, body); !o.is("link_invalid") {
			p.errorf("a token that was used: %v", o)
		}
	}
}

// askRoutes write down what is asked for, whoever asks.
func askRoutes() []operation {
	ask := func(path string, kind mail.Template, prepare func(p *point)) operation {
		return operation{
			name: "POST " + path, prepare: prepare,
			call: post(path, func(p *point) any { return obj("email", p.email) }),
			settled: func(p *point, o outcome) {
				if m := p.mailed(p.healthy.app, string(kind), p.email); mailedToken(m)+codeOf(m) == "" || o.response.status != http.StatusAccepted {
					p.errorf("%v, and the mail %+v", o, m)
				}
			},
		}
	}
	return []operation{
		ask("/auth/email/verify/send", mail.VerifyEmail, nil), ask("/auth/password/forgot", mail.ResetPassword, nil),
		ask("/auth/magic-link", mail.MagicLink, verifiedAccount), ask("/auth/code", mail.EmailCode, verifiedAccount),
		{
			name: "POST /auth/register: where addresses are verified", steps: 1, prepare: aVerifyingApp,
			call: func(p *point) outcome {
				return p.serve(p.own().here.Handler(), "POST", "/auth/register", obj("email", "new@example.com", "password", password))
			},
			settled: ends(func(p *point, o outcome) {
				token := mailedToken(p.mailed(p.own().here, "register", "new@example.com"))
				if o.response.status != http.StatusAccepted || token == "" {
					p.errorf("%v, and the token %q", o, token)
				}
				_, err := p.own().there.Recovery().VerifyEmail(p.ctx, token)
				p.must(err)
				_, err = p.own().here.Login(p.ctx, engine.Credentials{Email: "new@example.com", Password: password}, engine.Device{}, false)
				p.must(err)
			}),
		},
	}
}

// aVerifyingApp is anApp that lets people in only once their address is verified.
func aVerifyingApp(p *point) {
	o, slug := &own{}, "own"+p.unique()
	p.note = o
	m := func(staleness, poll string) string {
		return `"users":{"password":{"block_common":false},"require_verified_email":true,"allow_anonymous_users":true},` + mails + `,
			"tokens":{"revocation":{"max_staleness":"` + staleness + `","poll_interval":"` + poll + `"}}`
	}
	var err error
	o.there, err = p.healthy.eng.Load(p.ctx, manifestOf(p.t, slug, m("1s", "200ms"), `"environment":"development"`, publicShop))
	p.must(err)
	o.here, err = p.eng.Load(p.ctx, manifestOf(p.t, slug, m("10s", "5s"), `"environment":"development"`, publicShop))
	p.must(err)
	p.healthy.quiet(o.there)
	p.quiet(o.here)
}

func verifyRoutes() []operation {
	isVerified := func(p *point) {
		p.t.Helper()
		if u, err := p.healthy.app.Users().Get(p.ctx, p.id); err != nil || !u.EmailVerified {
			p.errorf("the user is %+v, %v", u, err)
		}
		p.alive(p.first)
	}
	return []operation{
		{
			name: "POST /auth/email/verify", steps: 3, prepare: linked(mail.VerifyEmail),
			call:    post("/auth/email/verify", func(p *point) any { return obj("token", p.note) }),
			excused: used,
			settled: func(p *point, _ outcome) {
				isVerified(p)
				p.worthless("/auth/email/verify", obj("token", p.note))
			},
		},
		{
			name: "Users.VerifyEmail", steps: 2,
			call:    call(func(p *point) error { _, err := p.app.Users().VerifyEmail(p.ctx, p.id, p.email); return err }),
			settled: func(p *point, _ outcome) { isVerified(p) },
		},
	}
}

func resetRoutes() []operation {
	reset := func(token func(p *point) string) func(p *point) outcome {
		return post("/auth/password/reset", func(p *point) any { return obj("token", token(p), "new_password", newPassword) })
	}
	plain := func(p *point) string { return p.note.(string) }
	mailed := func(p *point) string { return p.squat().token }
	return []operation{
		{
			name: "POST /auth/password/reset", steps: 10, prepare: linked(mail.ResetPassword, verifiedAccount),
			call: reset(plain), excused: used,
			settled: func(p *point, o outcome) {
				bothAreDead(p, o)
				p.enters(password, "invalid_credentials")
				p.enters(newPassword, "")
				p.worthless("/auth/password/reset", obj("token", p.note, "new_password", "one more long passphrase"))
			},
		},
		{
			name: "POST /auth/password/reset: of an account that somebody else made", steps: 12, prepare: squattedAnd(mail.ResetPassword),
			call: reset(mailed), excused: used,
			settled: func(p *point, _ outcome) {
				p.evicted()
				p.enters(newPassword, "")
			},
		},
		{
			// Whoever got no answer may choose another password, and needs another link.
			name: "POST /auth/password/reset: and then otherwise", steps: 12, prepare: squattedAnd(mail.ResetPassword),
			call: reset(mailed),
			again: func(p *point) outcome {
				return p.send("POST", "/auth/password/reset", obj("token", p.link(mail.ResetPassword), "new_password", "one more long passphrase"))
			},
			settled: func(p *point, _ outcome) { p.evicted() },
		},
		{
			name: "Users.ResetPassword", steps: 6, prepare: func(p *point) { verifiedAccount(p); noteStamp(p) },
			call: call(func(p *point) error {
				_, err := p.app.Users().ResetPassword(p.ctx, p.id, users.Mailed{Stamp: p.note.(string)}, newPassword)
				return err
			}),
			settled: func(p *point, o outcome) {
				bothAreDead(p, o)
				p.enters(password, "invalid_credentials")
				p.enters(newPassword, "")
			},
		},
	}
}

func changeRoutes() []operation {
	changed := func(p *point) {
		p.t.Helper()
		p.enters(password, "invalid_credentials")
		old := p.email
		p.email = "new" + p.email
		p.enters(password, "")
		p.email = old
	}
	return []operation{
		{
			name: "POST /auth/email/change", steps: 2,
			call: func(p *point) outcome {
				return p.send("POST", "/auth/email/change", obj("new_email", "new"+p.email), p.asFirst())
			},
			settled: func(p *point, _ outcome) {
				if mailedToken(p.mailed(p.healthy.app, string(mail.ChangeEmail), "new"+p.email)) == "" {
					p.errorf("no link was mailed")
				}
				p.enters(password, "")
			},
		},
		{
			name: "POST /auth/email/change: by the password", steps: 5,
			call: func(p *point) outcome {
				return p.send("POST", "/auth/email/change", obj("new_email", "new"+p.email, "current_password", password), p.asFirst())
			},
			settled: func(p *point, _ outcome) { p.enters(password, "") },
		},
		{
			name: "POST /auth/email/change/confirm", steps: 8, prepare: linked(mail.ChangeEmail, verifiedAccount),
			call:    post("/auth/email/change/confirm", func(p *point) any { return obj("token", p.note) }),
			excused: used,
			settled: func(p *point, o outcome) {
				changed(p)
				secondIsDead(p, o)
				p.worthless("/auth/email/change/confirm", obj("token", p.note))
				// The old address is told.
				p.mailed(p.healthy.app, string(mail.EmailChanged), p.email)
			},
		},
		{
			name: "Users.ChangeEmail", steps: 2, prepare: noteStamp,
			call: call(func(p *point) error {
				_, err := p.app.Users().ChangeEmail(p.ctx, p.id, users.EmailChange{From: p.email, To: "new" + p.email, Stamp: p.note.(string)})
				return err
			}),
			settled: func(p *point, _ outcome) { changed(p) },
		},
		{
			name: "Users.ChangeEmail: taken", want: "email_taken", prepare: noteStamp,
			call: call(func(p *point) error {
				_, err := p.app.Users().ChangeEmail(p.ctx, p.id, users.EmailChange{From: p.email, To: "template@example.com", Stamp: p.note.(string)})
				return err
			}),
			settled: func(p *point, _ outcome) { p.enters(password, "") },
		},
	}
}

// noteStamp notes what the account is like.
func noteStamp(p *point) {
	st, err := p.healthy.app.Users().State(p.ctx, p.id)
	p.must(err)
	p.note = st.Stamp
}
