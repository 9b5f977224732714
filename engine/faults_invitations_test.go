package engine_test

import (
	"errors"
	"net/http"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/mail"
	"github.com/mandate-auth/mandate/users"
	"github.com/mandate-auth/mandate/users/invitation"
)

// invited is an invitation with the token that was mailed, and the guest who accepts it.
type invited struct {
	*invitation.Invitation
	token, guest string
	jar          request
	// squat is what somebody has left who has made an account with the address.
	squat *squat
}

func (p *point) invited() *invited { return p.note.(*invited) }

// anInvitation is one of an admin, for somebody who gets that role too. The instance that
// meets the fault knows of the admin at once, and the other soon.
func anInvitation(p *point) {
	asAdmin(p)
	p.email = "guest" + p.email
	p.invite(p.id)
}

func (p *point) invite(by string) {
	p.t.Helper()
	i, err := p.healthy.app.Invitations().Create(p.ctx, invitation.NewInvitation{Email: p.email, Role: "admin", InvitedBy: by})
	p.must(err)
	p.note = &invited{Invitation: i, token: mailedToken(p.mailed(p.healthy.app, string(mail.Invitation), p.email))}
}

// aSquatIsInvited invites the owner of the address that somebody else has made the account
// with.
func aSquatIsInvited(p *point) {
	squatted(p)
	s := p.squat()
	p.invite("the service")
	p.invited().squat = s
}

// aGuestIsInvited is anInvitation of somebody who is a guest of the app.
func aGuestIsInvited(p *point) {
	anInvitation(p)
	r := p.answer(p.healthy, "POST", "/auth/anonymous", nil).response
	p.invited().guest, _ = r.at("user", "id").(string)
	p.invited().jar = bearer(r.text("access_token"))
}

// joined checks that the person who was invited has come, with the role, and that the link
// is worth nothing any more.
func (p *point) joined() {
	p.t.Helper()
	u, err := p.healthy.app.Users().GetByEmail(p.ctx, p.email)
	if err != nil || !u.EmailVerified || (p.invited().guest != "" && u.ID != p.invited().guest) {
		p.errorf("the new user: %+v, %v", u, err)
		return
	}
	p.id = u.ID
	p.has("admin", "user")
	p.enters(password, "")
	for _, w := range p.instances() {
		o := p.answer(w, "POST", "/auth/register", obj("email", p.email, "invitation", p.invited().token, "password", newPassword))
		if !o.is("link_invalid") && !o.is("email_taken") {
			p.errorf("an invitation that was accepted: %v", o)
		}
	}
	p.enters(newPassword, "invalid_credentials")
}

// joinedBefore: the account had been made before the answer was lost.
func joinedBefore(_ *point, o outcome) bool { return o.is("link_invalid") || o.is("email_taken") }

func invitationOperations() []operation {
	accept := func(p *point) outcome {
		var edit []request
		if p.invited().jar != nil {
			edit = append(edit, p.invited().jar)
		}
		return p.send("POST", "/auth/register", obj("invitation", p.invited().token, "password", password), edit...)
	}
	joined := func(p *point, _ outcome) { p.joined() }
	return append(invitationCalls(), []operation{
		{name: "POST /auth/register: invited", steps: 8, prepare: anInvitation, call: accept, excused: joinedBefore, settled: joined},
		{name: "POST /auth/register: a guest who is invited", steps: 8, prepare: aGuestIsInvited, call: accept, excused: joinedBefore, settled: joined},
		{
			name: "POST /auth/register: invited to an account that somebody else made", steps: 16, prepare: aSquatIsInvited,
			call: func(p *point) outcome {
				return p.send("POST", "/auth/register", obj("invitation", p.invited().token, "password", newPassword))
			},
			excused: joinedBefore,
			settled: func(p *point, _ outcome) {
				p.note = p.invited().squat
				p.evicted()
				p.enters(newPassword, "")
				p.has("admin")
			},
		},
		{
			name: "GET /auth/invitations", prepare: asAdmin,
			call: func(p *point) outcome { return p.send("GET", "/auth/invitations", nil, p.asFirst()) },
		},
		{
			name: "POST /auth/invitations", steps: 2, prepare: func(p *point) { asAdmin(p); p.email = "guest" + p.email },
			call: func(p *point) outcome { return p.send("POST", "/auth/invitations", obj("email", p.email), p.asFirst()) },
			settled: func(p *point, o outcome) {
				if o.response.status != http.StatusCreated || mailedToken(p.mailed(p.healthy.app, string(mail.Invitation), p.email)) == "" {
					p.errorf("invited: %v", o)
				}
			},
		},
		{
			name: "DELETE /auth/invitations/{id}", steps: 2, prepare: func(p *point) { asAdmin(p); anInvitation(p) },
			call:    func(p *point) outcome { return p.send("DELETE", "/auth/invitations/"+p.invited().ID, nil, p.asFirst()) },
			settled: takenBack,
		},
	}...)
}

// anUnnotedAccount accepts an invitation by a call that has died when it was to note that.
func anUnnotedAccount(p *point) {
	anInvitation(p)
	u, _, err := p.app.Invitations().Accept(p.ctx, p.invited().token, users.NewUser{Password: password})
	p.must(err)
	_, err = p.healthy.db.Collection(invitation.Collection).UpdateByID(p.ctx, p.invited().ID, bson.M{"$unset": bson.M{"made": ""}})
	p.must(err)
	if u != nil {
		p.id = u.ID
	}
}

// takenBack checks that an invitation is over.
func takenBack(p *point, _ outcome) {
	for _, w := range p.instances() {
		o := p.answer(w, "POST", "/auth/register", obj("invitation", p.invited().token, "password", password))
		if !o.is("link_invalid") {
			p.errorf("an invitation that was taken back: %v", o)
		}
	}
}

func invitationCalls() []operation {
	return []operation{
		{
			name: "Invitations.Create", steps: 2, prepare: func(p *point) { asAdmin(p); p.email = "guest" + p.email },
			call: call(func(p *point) error {
				i, err := p.app.Invitations().Create(p.ctx, invitation.NewInvitation{Email: p.email, Role: "admin", InvitedBy: p.id})
				if err == nil {
					p.note = &invited{Invitation: i}
				}
				return err
			}),
			settled: func(p *point, _ outcome) {
				p.invited().token = mailedToken(p.mailed(p.healthy.app, string(mail.Invitation), p.email))
				_, _, err := p.app.Invitations().Accept(p.ctx, p.invited().token, users.NewUser{Password: password})
				p.must(err)
				p.joined()
			},
		},
		{
			name: "Invitations.Accept", steps: 7, prepare: anInvitation,
			call: call(func(p *point) error {
				_, _, err := p.app.Invitations().Accept(p.ctx, p.invited().token, users.NewUser{Password: password})
				return err
			}),
			excused: joinedBefore,
			settled: func(p *point, _ outcome) { p.joined() },
		},
		{
			name: "Invitations.Compose", steps: 3, prepare: anInvitation,
			call: call(func(p *point) error {
				list, err := p.healthy.waiting(p.t.Context(), p.healthy.app, p.email)
				p.must(err)
				m, err := p.app.Invitations().Compose(p.ctx, list[0].mail())
				if err == nil && mailedToken(m) != p.invited().token {
					p.errorf("composed again it is %q, before %q", mailedToken(m), p.invited().token)
				}
				return err
			}),
		},
		{
			name: "Invitations.List",
			call: call(func(p *point) error { _, err := p.app.Invitations().List(p.ctx, invitation.ListOptions{}); return err }),
		},
		{
			name: "Invitations.Revoke", steps: 2, prepare: anInvitation,
			call:    call(func(p *point) error { return p.app.Invitations().Revoke(p.ctx, p.invited().ID) }),
			settled: takenBack,
		},
		{
			name: "Invitations.Forget", steps: 3, prepare: anUnnotedAccount,
			call: call(func(p *point) error { return p.app.Invitations().Forget(p.ctx, p.id) }),
			settled: func(p *point, _ outcome) {
				// It is remembered without the account.
				_, err := p.healthy.db.Collection("users").DeleteOne(p.ctx, bson.M{"_id": p.id})
				p.must(err)
				if err := p.healthy.app.Invitations().Revoke(p.ctx, p.invited().ID); !errors.Is(err, invitation.ErrNotFound) {
					p.errorf("an invitation that has made an account is revoked: %v", err)
				}
			},
		},
		{name: "Invitations.Sweep", call: call(func(p *point) error { _, err := p.app.Invitations().Sweep(p.ctx); return err })},
	}
}
