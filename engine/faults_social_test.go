package engine_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/mandate-auth/mandate/mail"
	"github.com/mandate-auth/mandate/users"
	"github.com/mandate-auth/mandate/users/identity"
)

// socialOperations are the sign-in by other providers.
func socialOperations() []operation {
	return slices.Concat(callbackRoutes(), identityRoutes(), identityCalls())
}

// visit is a sign-in of somebody at the provider: who comes, and the browser that begun
// it.
type visit struct {
	who stranger
	// jar is what the browser has besides the flow.
	jar request
	// linking says that the identity is linked to the account of the first session.
	linking bool
	squat   *squat
	before  string // the account of a guest
}

func (p *point) visit() *visit { return p.note.(*visit) }

// arrives begins at the healthy instance and comes back to the one that meets the fault:
// what was begun is used up by a try, so each is a new one.
func arrives(p *point) outcome {
	p.t.Helper()
	v := p.visit()
	q, cookie := p.begun()
	edit := []request{cookie}
	if v.jar != nil {
		edit = append(edit, v.jar)
	}
	o := comesBack(p.send("GET", callback("acme", q), nil, edit...))
	if p.ctx.Err() != nil && o.is("provider_unavailable") {
		// Whoever has left is not told who did not wait for whom.
		o.response.body["code"] = "unavailable"
		delete(o.response.header, "Set-Cookie") // of the flow, which has been used up
	}
	return o
}

// begun begins a flow, at the healthy instance, and returns what the browser comes back
// with.
func (p *point) begun() (url.Values, request) {
	p.t.Helper()
	v := p.visit()
	var begun *response
	var to string
	ctx := p.ctx
	p.ctx = p.t.Context() // not what meets the fault
	if v.linking {
		begun = p.answer(p.healthy, "POST", "/auth/identities/acme", obj(), p.asFirst()).response
		to = begun.text("url")
	} else {
		var edit []request
		if v.jar != nil {
			edit = append(edit, v.jar)
		}
		begun = p.answer(p.healthy, "GET", "/auth/oauth/acme/login?next=/cart", nil, edit...).response
		to = begun.header.Get("Location")
	}
	p.ctx = ctx
	u, err := url.Parse(to)
	if err != nil || u.Host != "id.example" {
		p.errorf("begin: %d %s", begun.status, begun.raw)
		return nil, func(*http.Request) {}
	}
	return url.Values{"state": u.Query()["state"], "code": {v.who.code()}}, cookieHeader(begun)
}

// comesBack is the outcome of a callback, whose answer is where the browser is sent.
func comesBack(o outcome) outcome {
	r := o.response
	u, err := url.Parse(r.header.Get("Location"))
	if r.status != http.StatusSeeOther || err != nil {
		return o
	}
	if code := u.Query().Get("error"); code != "" {
		r.body["code"] = code
		return o
	}
	r.status = http.StatusOK
	o.session = inJar(r)
	return o
}

// inJar is the session that a browser was handed, nil for none.
func inJar(r *response) *session {
	s := &session{}
	for _, line := range r.header["Set-Cookie"] {
		c, err := http.ParseSetCookie(line)
		switch {
		case err != nil:
		case strings.HasSuffix(c.Name, "_access"):
			s.access = c.Value
		case strings.HasSuffix(c.Name, "_refresh"):
			s.refresh = c.Value
		}
	}
	if s.access == "" {
		return nil
	}
	return s
}

// visits is prepare for a visit of somebody with the account's address.
func visits(verified bool, before ...func(p *point)) func(p *point) {
	return func(p *point) {
		p.note = nil
		for _, f := range before {
			f(p)
		}
		s, _ := p.note.(*squat)
		p.note = &visit{who: stranger{ID: "owner of " + p.email, Email: p.email, Verified: verified}, squat: s}
	}
}

// belongs checks that whoever comes is let in to the account, and who else is.
func (p *point) belongs(o outcome, id string) {
	p.t.Helper()
	p.alive(o.session)
	if o.session == nil {
		return // reported
	}
	if who, err := p.healthy.app.Verify(p.ctx, o.session.access); err != nil || (id != "" && who.ID != id) {
		p.errorf("whoever came is %+v, %v, want %s", who, err, id)
		return
	}
	again := arrives(p)
	if again.session == nil {
		p.errorf("whoever came is not let in again: %v", again)
		return
	}
	who, err := p.healthy.app.Verify(p.ctx, o.session.access)
	next, errNext := p.healthy.app.Verify(p.ctx, again.session.access)
	if err != nil || errNext != nil || who.ID != next.ID {
		p.errorf("whoever came is %+v, and then %+v: %v, %v", who, next, err, errNext)
		return
	}
	list, err := p.healthy.app.Identities().List(p.ctx, who.ID)
	if err != nil || len(list) != 1 {
		p.errorf("the identities are %+v, %v", list, err)
	}
	kept, err := p.healthy.app.Identities().Tokens(p.ctx, who.ID, "acme", p.visit().who.ID)
	if err != nil || !strings.Contains(string(kept), p.visit().who.code()) {
		p.errorf("the provider's tokens are %s, %v", kept, err)
	}
}

func callbackRoutes() []operation {
	const route = "GET /auth/oauth/{provider}/callback"
	his := func(p *point, o outcome) { p.belongs(o, p.id) }
	return []operation{
		{
			name: route, steps: 5, prepare: visits(true, func(p *point) { p.email = "new" + p.email }), call: arrives,
			settled: func(p *point, o outcome) {
				p.belongs(o, "")
				who, err := p.healthy.app.Users().GetByEmail(p.ctx, p.email)
				p.must(err)
				p.id = who.ID
				p.has("user")
			},
		},
		{
			name: route + ": without an address", steps: 5, prepare: visits(false, func(p *point) { p.email = "new" + p.email }), call: arrives,
			settled: func(p *point, o outcome) { p.belongs(o, "") },
		},
		{
			name: route + ": to an account that is there", steps: 6, prepare: visits(true, verifiedAccount), call: arrives,
			settled: func(p *point, o outcome) {
				p.alive(p.first)
				his(p, o)
				p.enters(password, "")
				p.mailed(p.healthy.app, string(mail.IdentityLinked), p.email)
			},
		},
		{
			name: route + ": again", steps: 5, prepare: func(p *point) {
				visits(true, verifiedAccount)(p)
				p.must(p.arrive())
			},
			call: arrives, settled: his,
		},
		{
			name: route + ": to an account that somebody else made", steps: 12, prepare: visits(true, squatted), call: arrives,
			settled: func(p *point, o outcome) {
				his(p, o)
				v := p.visit()
				p.note = v.squat
				p.evicted()
			},
		},
		{
			name: route + ": a guest who becomes a person", steps: 5, prepare: aGuestVisits, call: arrives,
			settled: func(p *point, o outcome) { p.belongs(o, p.visit().before) },
		},
		{
			name: route + ": linking", steps: 5, prepare: func(p *point) {
				visits(true, verifiedAccount)(p)
				p.visit().linking = true
			},
			call: arrives,
			settled: func(p *point, _ outcome) {
				p.visit().linking = false
				his(p, arrives(p))
				p.mailed(p.healthy.app, string(mail.IdentityLinked), p.email)
			},
		},
	}
}

// arrive lets whoever visits in, on the healthy instance.
func (p *point) arrive() error {
	v := p.visit()
	_, err := p.healthy.app.Identities().Arrive(p.ctx, v.arrival())
	return err
}

func (v *visit) arrival() identity.Arrival {
	return identity.Arrival{Provider: "acme", Issuer: acme, Subject: v.who.ID, Email: v.who.Email, EmailVerified: v.who.Verified, Tokens: []byte("{}")}
}

// aGuestVisits is a guest who comes by the provider, without an address.
func aGuestVisits(p *point) {
	newDevice(p)
	r := p.answer(p.healthy, "POST", "/auth/anonymous", obj("device_id", p.note, "transport", "cookie")).response
	id, _ := r.at("user", "id").(string)
	visits(false, func(p *point) { p.email = "guest" + p.email })(p)
	p.visit().jar, p.visit().before = cookieHeader(r), id
}

func identityRoutes() []operation {
	begin := func(p *point) { visits(true, verifiedAccount)(p) }
	return []operation{
		{
			name: "GET /auth/identities", steps: 2, prepare: linkedIdentity,
			call: func(p *point) outcome { return p.send("GET", "/auth/identities", nil, p.asFirst()) },
			settled: func(p *point, o outcome) {
				if list, _ := o.response.body["identities"].([]any); len(list) != 1 || strings.Contains(o.response.raw, "token") {
					p.errorf("the identities are %s", o.response.raw)
				}
			},
		},
		{
			name: "POST /auth/identities/{provider}", steps: 1, prepare: begin,
			call: func(p *point) outcome {
				o := p.send("POST", "/auth/identities/acme", obj(), p.asFirst())
				delete(o.response.header, "Set-Cookie") // the flow, which is no credential
				return o
			},
		},
		{
			name: "DELETE /auth/identities", steps: 4, prepare: linkedIdentity,
			call: func(p *point) outcome {
				q := url.Values{"provider": {"acme"}, "subject": {p.visit().who.ID}}
				return p.send("DELETE", "/auth/identities?"+q.Encode(), nil, p.asFirst())
			},
			excused: func(_ *point, o outcome) bool { return o.is("not_found") },
			settled: func(p *point, _ outcome) {
				p.unlinked()
				p.mailed(p.healthy.app, string(mail.IdentityRemoved), p.email)
			},
		},
	}
}

// linkedIdentity is an account with an identity.
func linkedIdentity(p *point) {
	visits(true, verifiedAccount)(p)
	p.must(p.arrive())
}

// unlinked checks that the identity is one of the account no more: whoever arrives with it
// finds that the account does not know it.
func (p *point) unlinked() {
	p.t.Helper()
	st, err := p.healthy.app.Users().State(p.ctx, p.id)
	list, errList := p.healthy.app.Identities().List(p.ctx, p.id)
	if err != nil || errList != nil || len(st.Links)+len(list) != 0 {
		p.errorf("the account has %q and %+v: %v, %v", st.Links, list, err, errList)
	}
}

func identityCalls() []operation {
	subject := func(p *point) string { return p.visit().who.ID }
	return []operation{
		{
			name: "Identities.Arrive", steps: 4, prepare: visits(true, verifiedAccount),
			call:    call(func(p *point) error { _, err := p.app.Identities().Arrive(p.ctx, p.visit().arrival()); return err }),
			settled: func(p *point, _ outcome) { o := arrives(p); p.belongs(o, p.id) },
		},
		{
			name: "Identities.Link", steps: 3, prepare: visits(true, verifiedAccount),
			call: call(func(p *point) error {
				st, err := p.app.Users().State(p.ctx, p.id)
				if err != nil {
					return err
				}
				return p.app.Identities().Link(p.ctx, st, p.visit().arrival())
			}),
			settled: func(p *point, _ outcome) { o := arrives(p); p.belongs(o, p.id) },
		},
		{
			name: "Identities.Stale", steps: 2, prepare: func(p *point) {
				linkedIdentity(p)
				p.must(p.healthy.app.Users().RemoveLink(p.ctx, p.id, users.LinkOf("acme", subject(p)), true))
			},
			call:    call(func(p *point) error { _, err := p.app.Identities().Stale(p.ctx, p.visit().arrival(), p.id); return err }),
			settled: func(p *point, _ outcome) { p.unlinked() },
		},
		{
			name: "Identities.Unlink", steps: 3, prepare: linkedIdentity,
			call:    call(func(p *point) error { return p.app.Identities().Unlink(p.ctx, p.id, "acme", subject(p)) }),
			excused: func(_ *point, o outcome) bool { return o.is("not_found") },
			settled: func(p *point, _ outcome) { p.unlinked() },
		},
		{
			name: "Identities.List", steps: 2, prepare: linkedIdentity,
			call: call(func(p *point) error {
				list, err := p.app.Identities().List(p.ctx, p.id)
				if err == nil && len(list) != 1 {
					p.errorf("the identities are %+v", list)
				}
				return err
			}),
		},
		{
			name: "Identities.Tokens", prepare: linkedIdentity,
			call: call(func(p *point) error {
				_, err := p.app.Identities().Tokens(p.ctx, p.id, "acme", subject(p))
				return err
			}),
		},
		{
			name: "Identities.KeepTokens", prepare: linkedIdentity,
			call: call(func(p *point) error {
				a := p.visit().arrival()
				a.Tokens = []byte("newer")
				return p.app.Identities().KeepTokens(p.ctx, p.id, a)
			}),
			settled: func(p *point, _ outcome) {
				if kept, err := p.healthy.app.Identities().Tokens(p.ctx, p.id, "acme", subject(p)); string(kept) != "newer" {
					p.errorf("the tokens are %q, %v", kept, err)
				}
			},
		},
		{
			name: "Identities.Forget", prepare: linkedIdentity,
			call: call(func(p *point) error { return p.app.Identities().Forget(p.ctx, p.id) }),
			settled: func(p *point, _ outcome) {
				if list, err := p.healthy.app.Identities().List(p.ctx, p.id); err != nil || len(list) != 0 {
					p.errorf("the identities are %+v, %v", list, err)
				}
			},
		},
	}
}
