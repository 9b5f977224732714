package engine_test

import (
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/mongo"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/tokens/onetime"
	"github.com/mandate-auth/mandate/users"
	"github.com/mandate-auth/mandate/users/identity"
	"github.com/mandate-auth/mandate/users/invitation"
	"github.com/mandate-auth/mandate/users/recovery"
)

// everythingOutside drives once what is done by mail, by invitation and by providers. The
// world's mails come to the room.
func (m *mailRoom) everythingOutside() {
	m.t.Helper()
	ctx := m.t.Context()
	const cleo, dan, eve = "cleo@example.com", "dan@example.com", "eve@example.com"
	in := m.want(m.do("POST", "/auth/register", obj("email", cleo, "password", password)), 201, "")
	id := m.idOf(in)
	m.want(m.do("POST", "/auth/email/verify", obj("token", m.token(cleo))), 204, "")
	for _, path := range []string{"/email/verify/send", "/password/forgot", "/magic-link"} {
		m.want(m.do("POST", "/auth"+path, obj("email", cleo)), 202, "")
	}
	tokens := map[string]string{}
	for range 2 { // an address that is verified is not mailed a link to verify
		msg := m.mail(cleo)
		tokens[msg.Subject] = mailedToken(&msg)
	}
	for _, token := range tokens {
		m.do("POST", "/auth/magic-link/consume", obj("token", token))
		m.do("POST", "/auth/password/reset", obj("token", token, "new_password", "a new and better passphrase"))
	}
	m.mail(cleo) // the notice
	flow := m.do("POST", "/auth/code", obj("email", cleo)).text("flow_id")
	m.want(m.do("POST", "/auth/code/consume", obj("flow_id", flow, "code", "wrong")), 400, "link_invalid")
	token := bearer(m.want(m.do("POST", "/auth/code/consume", obj("flow_id", flow, "code", m.code(cleo))), 200, "").text("access_token"))
	m.want(m.do("POST", "/auth/email/change", obj("new_email", dan), token), 202, "")
	m.want(m.do("POST", "/auth/email/change/confirm", obj("token", m.token(dan))), 204, "")
	m.linked(token, id)
	m.invitedAndMore(id, eve)
	for _, f := range []func() error{
		func() error { return m.app.Users().Delete(ctx, id) },
		func() error { _, err := m.app.Outbox().Pending(ctx); return err },
		func() error { _, err := m.app.Outbox().Sweep(ctx); return err },
		func() error { _, err := m.app.OneTime().Sweep(ctx); return err },
		func() error { return m.app.OneTime().Claim(ctx, onetime.Purpose("x"), id, time.Now().Add(time.Hour)) },
		func() error { _, err := m.app.Invitations().Sweep(ctx); return err },
	} {
		if err := f(); err != nil {
			m.t.Error(err)
		}
	}
	m.settled()
}

func (m *mailRoom) idOf(r *response) string {
	id, _ := r.at("user", "id").(string)
	return id
}

// linked drives what is done by providers. Nobody's address is known there.
func (m *mailRoom) linked(token request, userID string) {
	m.t.Helper()
	ctx := m.t.Context()
	b := m.browser()
	who := stranger{ID: "1"}
	for range 2 {
		p := &point{rig: &rig{world: m.world, healthy: m.world}, t: m.t, ctx: ctx, note: &visit{who: who}}
		if o := arrives(p); !o.is("") {
			m.t.Errorf("arrived: %v", o)
		}
	}
	m.do("GET", "/auth/identities", nil, token)
	m.do("DELETE", "/auth/identities?provider=acme&subject=1", nil, token)
	b.do("POST", "/auth/identities/acme", obj(), token)
	st, err := m.app.Users().State(ctx, userID)
	if err != nil {
		m.t.Fatal(err)
	}
	arrival := identity.Arrival{Provider: "acme", Issuer: acme, Subject: "2", Email: st.EmailNorm, EmailVerified: true, Tokens: []byte("x")}
	for _, f := range []func() error{
		func() error { return m.app.Identities().Link(ctx, st, arrival) },
		func() error { return m.app.Identities().KeepTokens(ctx, userID, arrival) },
		func() error { _, err := m.app.Identities().Tokens(ctx, userID, "acme", "2"); return err },
		func() error { return m.app.Identities().Unlink(ctx, userID, "acme", "2") },
		func() error { _, err := m.app.Identities().Stale(ctx, arrival, userID); return err },
	} {
		if err := f(); err != nil {
			m.t.Error(err)
		}
	}
}

// invitedAndMore drives invitations, and what follows when an account changes hands.
func (m *mailRoom) invitedAndMore(hostID, guest string) {
	m.t.Helper()
	ctx, store := m.t.Context(), m.app.Invitations()
	if err := m.app.Authz().GrantRole(ctx, hostID, "admin"); err != nil {
		m.t.Fatal(err)
	}
	first, err := store.Create(ctx, invitation.NewInvitation{Email: guest, Role: "admin", InvitedBy: hostID})
	if err != nil {
		m.t.Fatal(err)
	}
	m.want(m.do("POST", "/auth/register", obj("invitation", m.token(guest), "password", password)), 201, "")
	second, err := store.Create(ctx, invitation.NewInvitation{Email: "late@example.com", InvitedBy: hostID})
	if err != nil {
		m.t.Fatal(err)
	}
	page, err := store.List(ctx, invitation.ListOptions{Limit: 1})
	if err == nil {
		_, err = store.List(ctx, invitation.ListOptions{Limit: 1, Cursor: page.Next})
	}
	if err != nil || page.Invitations[0].ID != first.ID {
		m.t.Errorf("the page is %+v, %v", page, err)
	}
	if err := store.Revoke(ctx, second.ID); err != nil {
		m.t.Error(err)
	}
	squatted, err := m.app.Users().Create(ctx, users.NewUser{Email: "squat@example.com", Password: password})
	if err != nil {
		m.t.Fatal(err)
	}
	st, err := m.app.Users().State(ctx, squatted.ID)
	if err == nil {
		_, err = m.app.Users().Reclaim(ctx, st)
	}
	if err != nil {
		m.t.Error(err)
	}
	m.do("POST", "/auth/register", obj("email", guest, "password", password)) // taken
	if err := m.app.Recovery().PasswordChanged(ctx, squatted.ID, recovery.From{}); err != nil {
		m.t.Error(err)
	}
	if msg := m.mail("squat@example.com"); msg.Subject == "" || mailedToken(&msg) != "" {
		m.t.Errorf("the notice: %+v", msg)
	}
}

// driven loads an app into the database and drives everything of it once.
func driven(t *testing.T, db *mongo.Database) *world {
	t.Helper()
	post := newPostbox()
	w := newWorld(t, db, manifestOf(t, "shop",
		`"users":{"allow_anonymous_users":true,"demo_users":[{"email":"d@example.com","password":"x"}]},"sessions":{"max_per_user":2},`+mails+`,`+outside,
		`"environment":"development"`, publicShop), strangers, func(o *engine.Options) { o.Mailer = post })
	w.everything()
	(&mailRoom{world: w, post: post, taken: map[string]int{}}).everythingOutside()
	return w
}
