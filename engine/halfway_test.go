package engine_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/mail"
	"github.com/mandate-auth/mandate/users"
	"github.com/mandate-auth/mandate/users/identity"
	"github.com/mandate-auth/mandate/users/recovery"
)

// happened counts the events so far that match.
func (m *mailRoom) happened(match func(event.Event) bool) (n int) {
	m.t.Helper()
	m.settled()
	// Events are delivered in their order.
	marker, err := m.app.Users().Create(m.t.Context(), users.NewUser{Email: store.NewID("x") + "@example.com", Password: password})
	if err != nil {
		m.t.Fatal(err)
	}
	m.events.WaitFor(m.t, "the marker", func(e event.Event) bool { return e.UserID == marker.ID })
	for _, e := range m.events.All() {
		if match(e) {
			n++
		}
	}
	return n
}

// told reports whether the address was mailed that the account is its owner's now.
func (m *mailRoom) told(to string) bool {
	m.t.Helper()
	m.settled()
	return slices.ContainsFunc(m.post.to(to), func(msg mail.Message) bool { return strings.Contains(msg.Subject, "is yours alone now") })
}

// of matches the events of a kind.
func of(kind event.Type) func(event.Event) bool {
	return func(e event.Event) bool { return e.Type == kind }
}

// The address is verified while a reset of the password is on its way: nothing of a change
// of owner is left in the account.
func TestHandoverForEver(t *testing.T) {
	t.Parallel()
	const mine = "what only the owner knows"
	db, f := faulty(t)
	d := doorsOn(t, db, guests, ``)
	d.want(d.do("POST", "/auth/register", account), 201, "")
	verify := d.token(email)
	d.do("POST", "/auth/password/forgot", obj("email", email))
	body := obj("token", d.token(email), "new_password", mine)
	d.settled()
	f.Arm(storetest.Cancel, storetest.Step{Command: "update users", Nth: 1}, func() {
		d.want(d.do("POST", "/auth/email/verify", obj("token", verify)), 204, "")
		f.Arm(storetest.BeforeTwice, storetest.Step{Command: "findAndModify session_heads", Nth: 1}, nil)
	})
	d.do("POST", "/auth/password/reset", body)
	f.Disarm()
	d.want(d.do("POST", "/auth/password/reset", body), 204, "")
	// From now on it is an account like any other.
	owner := d.browser()
	d.want(owner.do("POST", "/auth/login", obj("email", email, "password", mine, "transport", "cookie")), 200, "")
	d.acme.RegisterUser(person("1", email, true))
	if to := d.link(owner, "acme", d.acme).header.Get("Location"); to != "/linked" {
		t.Errorf("the owner cannot link: %s", to)
	}
	b := d.browser()
	if to := d.come(b, "acme", d.acme, "").header.Get("Location"); b.signed() == "" {
		t.Errorf("the owner cannot come by the provider: %s", to)
	}
	d.want(owner.do("POST", "/auth/email/change", obj("new_email", "new@example.com")), 202, "")
	d.want(d.do("POST", "/auth/email/change/confirm", obj("token", d.token("new@example.com"))), 204, "")
}

// A change of owner that was slow takes from the owner what was linked after another one
// that has ended.
func TestLateDispossess(t *testing.T) {
	t.Parallel()
	const mine = "what only the owner knows"
	db, f := faulty(t)
	d := doorsOn(t, db, guests+`,"api_keys":{"enabled":true}`, `"link":"signed_in"`)
	d.bolt.RegisterUser(person("owner", "else@example.com", false))
	d.squatter(email)
	d.do("POST", "/auth/magic-link", obj("email", email))
	link := d.token(email)
	d.settled()
	var once sync.Once
	owner := d.browser()
	who, key := "", ""
	// The magic link's change of owner stands between the end of the sessions and the rest.
	f.Arm(storetest.AfterCommitCancel, storetest.Step{Command: "findAndModify session_heads", Nth: 1}, func() {
		once.Do(func() {
			d.do("POST", "/auth/password/forgot", obj("email", email))
			d.want(d.do("POST", "/auth/password/reset", obj("token", d.token(email), "new_password", mine)), 204, "")
			d.want(owner.do("POST", "/auth/login", obj("email", email, "password", mine, "transport", "cookie")), 200, "")
			who = owner.signed()
			if to := d.link(owner, "bolt", d.bolt).header.Get("Location"); to != "/linked" {
				t.Errorf("link: %s", to)
			}
			r := owner.do("POST", "/auth/api-keys", obj("name", "mine"))
			d.want(r, 201, "")
			key = r.text("key")
		})
	})
	d.do("POST", "/auth/magic-link/consume", obj("token", link))
	f.Disarm()
	if who == "" {
		t.Fatal("nobody was there")
	}
	if list, err := d.app.Identities().List(t.Context(), who); err != nil || len(list) != 1 {
		t.Errorf("the owner has the identities %v, %v", list, err)
	}
	b := d.browser()
	d.come(b, "bolt", d.bolt, "")
	if b.signed() != who {
		t.Errorf("the owner comes by bolt and is %s, not %s", b.signed(), who)
	}
	if r := d.do("GET", "/auth/me", nil, bearer(key)); r.status != 200 {
		t.Errorf("the owner's key: %d %s", r.status, r.raw)
	}
}

// An invitation that takes an account over, and dies after the password was stored.
func TestInvitationDies(t *testing.T) {
	t.Parallel()
	db, f := faulty(t)
	m, boss := invitingOn(t, db, open())
	m.want(m.do("POST", "/auth/register", with(account, "profile", obj("avatar", "https://evil.example/x"))), 201, "")
	m.token(email)
	_, token := m.invites(boss, "editor")
	body := obj("invitation", token, "password", "what only the owner knows", "profile", obj("name", "Ada"))
	// The third update is that of the profile.
	f.Arm(storetest.BeforeTwice, storetest.Step{Command: "update users", Nth: 3}, nil)
	r := m.do("POST", "/auth/register", body)
	f.Disarm()
	m.want(r, 503, "unavailable")
	in := m.want(m.do("POST", "/auth/register", body), 201, "")
	if in.at("user", "profile", "avatar") != nil || in.at("user", "profile", "name") != "Ada" {
		t.Errorf("the profile is %v", in.at("user", "profile"))
	}
	if !m.told(email) {
		t.Error("nobody is told that the account is another's")
	}
}

// Who has got the account by a change that had died is told.
func TestResumedIsTold(t *testing.T) {
	t.Parallel()
	db, f := faulty(t)
	d := doorsOn(t, db, guests, ``)
	d.acme.RegisterUser(person("1", email, true))
	b := d.browser()
	d.want(b.do("POST", "/auth/register", with(account, "transport", "cookie")), 201, "")
	verify := d.token(email)
	d.settled()
	f.Arm(storetest.BeforeTwice, storetest.Step{Command: "findAndModify session_heads", Nth: 1}, nil)
	d.refusedWith(d.come(d.browser(), "acme", d.acme, ""), "unavailable")
	f.Disarm()
	d.want(d.do("POST", "/auth/email/verify", obj("token", verify)), 204, "")
	d.events.WaitFor(t, "reclaimed", func(e event.Event) bool { return e.Type == event.AccountReclaimed })
	if !d.told(email) {
		t.Error("nobody is told")
	}
}

// An answer that is lost at the last write of a change of owner.
func TestReclaimAnswerLost(t *testing.T) {
	t.Parallel()
	db, f := faulty(t)
	d := doorsOn(t, db, guests, ``)
	d.acme.RegisterUser(person("1", email, true))
	d.squatter(email)
	d.settled()
	f.Arm(storetest.AfterCommit, storetest.Step{Command: "update users", Nth: 3}, nil)
	r := d.come(d.browser(), "acme", d.acme, "")
	f.Disarm()
	d.refusedWith(r, "unavailable")
	d.comes(d.browser(), "acme", d.acme)
	if n := d.happened(of(event.AccountReclaimed)); n == 0 || !d.told(email) {
		t.Errorf("recorded %d times, and told: %t", n, d.told(email))
	}
}

// An identity that was stored before identities had versions.
func TestIdentityWithoutVersion(t *testing.T) {
	t.Parallel()
	d := doorsWith(t, guests, `"link":"signed_in"`)
	d.acme.RegisterUser(person("1", "", false))
	b := d.owner(email)
	if to := d.link(b, "acme", d.acme).header.Get("Location"); to != "/linked" {
		t.Fatal(to)
	}
	if _, err := d.db.Collection(identity.Collection).UpdateMany(t.Context(), bson.M{"app": "shop"}, bson.M{"$unset": bson.M{"version": ""}}); err != nil {
		t.Fatal(err)
	}
	d.want(b.do("DELETE", "/auth/identities?provider=acme&subject=1", nil, header("X-Requested-With", "x")), 204, "")
	if n, err := d.db.Collection(identity.Collection).CountDocuments(t.Context(), bson.M{"app": "shop"}); n != 0 || err != nil {
		t.Errorf("%d identities, %v", n, err)
	}
	c := d.browser()
	if to := d.come(c, "acme", d.acme, "").header.Get("Location"); c.signed() == "" {
		t.Errorf("nobody comes by it any more: %s", to)
	}
}

// The squatter's device is no device of the owner's.
func TestDeviceTokenOfSquatter(t *testing.T) {
	t.Parallel()
	d := doors(t, `"users":{"lockout":{"max_failures":3}}`)
	var devices []string
	devices = append(devices, d.want(d.do("POST", "/auth/register", account), 201, "").text("device_token"))
	d.token(email)
	for range 4 {
		devices = append(devices, d.login().text("device_token"))
	}
	d.do("POST", "/auth/password/forgot", obj("email", email))
	d.want(d.do("POST", "/auth/password/reset", obj("token", d.token(email), "new_password", "what only the owner knows")), 204, "")
	before := d.hashes.Load()
	for range 3 {
		d.want(d.do("POST", "/auth/login", account), 401, "invalid_credentials")
	}
	d.want(d.do("POST", "/auth/login", account), 429, "account_locked")
	for _, token := range devices {
		for range 5 {
			if r := d.do("POST", "/auth/login", with(account, "device_token", token)); r.status != 429 {
				t.Logf("guess: %d %s", r.status, r.code())
			}
		}
	}
	if n := d.hashes.Load() - before; n > 3 {
		t.Errorf("%d guesses were hashed, the limit is 3", n)
	}
}

// A mailed link that is not good any more is a sign-in that has failed, whatever made it so.
func TestFailedLinkIsRecorded(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"unknown", "password changed", "disabled"} {
		m := mailing(t, ``)
		id := m.register().at("user", "id").(string)
		m.want(m.do("POST", "/auth/email/verify", obj("token", m.token(email))), 204, "")
		m.do("POST", "/auth/magic-link", obj("email", email))
		token := m.token(email)
		switch how {
		case "unknown":
			token = token[:len(token)-4] + "0000"
		case "password changed":
			if err := m.app.Users().SetPassword(t.Context(), id, "another fine passphrase"); err != nil {
				t.Fatal(err)
			}
		case "disabled":
			if err := m.app.Users().Disable(t.Context(), id, ""); err != nil {
				t.Fatal(err)
			}
		}
		r := m.do("POST", "/auth/magic-link/consume", obj("token", token))
		if n := m.happened(of(event.LoginFailed)); n != 1 {
			t.Errorf("%s (%d %s): recorded %d times", how, r.status, r.code(), n)
		}
	}
}

// A reset of a squatted account that died lets nobody in by halves: either all is as it was,
// or whoever was in before is out, and the owner when the change is ended.
func TestResetThatDiedHalfWay(t *testing.T) {
	t.Parallel()
	const mine = "what only the owner knows"
	for _, at := range []storetest.Step{
		{Command: "findAndModify session_heads", Nth: 1},
		{Command: "findAndModify session_heads", Nth: 2},
		{Command: "update users", Nth: 1},
		{Command: "update users", Nth: 2},
		{Command: "find api_keys", Nth: 1},
		{Command: "update api_keys", Nth: 1},
		{Command: "update users", Nth: 3},
	} {
		db, f := faulty(t)
		d := doorsOn(t, db, `"api_keys":{"enabled":true}`, ``)
		b := d.squatter(email)
		id := b.signed()
		key := d.want(b.do("POST", "/auth/api-keys", obj("name", "mine")), 201, "").text("key")
		d.do("POST", "/auth/password/forgot", obj("email", email))
		body := obj("token", d.token(email), "new_password", mine)
		d.settled()
		f.Arm(storetest.BeforeTwice, at, nil)
		first := d.do("POST", "/auth/password/reset", body)
		if _, hits := f.Disarm(); hits == 0 || first.status != 503 {
			t.Errorf("%v: %d hits, %d", at, hits, first.status)
			continue
		}
		in := d.do("POST", "/auth/login", obj("email", email, "password", mine)).status == 200
		b.do("POST", "/auth/refresh", obj())
		d.move(2 * time.Minute) // what is remembered of a key
		keyed := d.do("GET", "/auth/me", nil, bearer(key)).status == 200
		if stored := !d.passwordWorks(email); in || (stored && (b.signed() == id || keyed)) {
			t.Errorf("%v: the owner is in: %t, the squatter: %t, by the key: %t", at, in, b.signed() == id, keyed)
		}
		d.want(d.do("POST", "/auth/password/reset", body), 204, "")
		d.want(d.do("POST", "/auth/login", obj("email", email, "password", mine)), 200, "")
		if b.do("POST", "/auth/refresh", obj()); b.signed() == id || d.do("GET", "/auth/me", nil, bearer(key)).status == 200 {
			t.Errorf("%v: the squatter is in still", at)
		}
	}
}

// A change of password dies before the other sessions have ended, and is made again.
func TestPasswordChangeAgain(t *testing.T) {
	t.Parallel()
	db, f := faulty(t)
	w := newWorld(t, db, manifestOf(t, "shop", ``))
	w.register()
	thief, owner := w.login(), w.login()
	body := obj("current_password", password, "new_password", "another fine passphrase")
	f.Arm(storetest.BeforeTwice, storetest.Step{Command: "findAndModify session_heads", Nth: 1}, nil)
	w.want(w.do("POST", "/auth/password", body, bearer(owner.text("access_token"))), 503, "unavailable")
	f.Disarm()
	w.want(w.do("POST", "/auth/password", body, bearer(owner.text("access_token"))), 204, "")
	if r := w.do("POST", "/auth/refresh", obj("refresh_token", thief.text("refresh_token"))); r.status == 200 {
		t.Error("the password is another one, and the thief's session goes on")
	}
}

// A reset of a verified account that died has changed nothing, or nobody is in any more.
func TestResetDiesAndTheThiefIsOut(t *testing.T) {
	t.Parallel()
	const mine = "what only the owner knows"
	for nth := 1; nth <= 2; nth++ {
		db, f := faulty(t)
		m := mailingOn(t, db, ``)
		m.register()
		m.want(m.do("POST", "/auth/email/verify", obj("token", m.token(email))), 204, "")
		thief := m.login()
		m.do("POST", "/auth/password/forgot", obj("email", email))
		body := obj("token", m.token(email), "new_password", mine)
		m.settled()
		f.Arm(storetest.BeforeTwice, storetest.Step{Command: "findAndModify session_heads", Nth: nth}, nil)
		m.want(m.do("POST", "/auth/password/reset", body), 503, "unavailable")
		f.Disarm()
		stored := m.do("POST", "/auth/login", obj("email", email, "password", mine)).status == 200
		if in := m.do("POST", "/auth/refresh", obj("refresh_token", thief.text("refresh_token"))).status == 200; in == stored {
			t.Errorf("fault %d: the password is stored: %t, the thief is in: %t", nth, stored, in)
		}
		m.want(m.do("POST", "/auth/password/reset", body), 204, "")
	}
}

// One sign-out ends a session once, by whatever tokens of it come along.
func TestSessionEndsOnce(t *testing.T) {
	t.Parallel()
	m := mailing(t, ``)
	m.register()
	b := m.browser()
	m.want(b.do("POST", "/auth/login", with(account, "transport", "cookie")), 200, "")
	m.want(b.do("POST", "/auth/logout", obj()), 204, "")
	in := m.login()
	m.want(m.do("POST", "/auth/logout", obj("refresh_token", in.text("refresh_token")), bearer(in.text("access_token"))), 204, "")
	if n := m.happened(of(event.SessionEnded)); n != 2 {
		t.Errorf("%d sessions have ended, want 2", n)
	}
}

// A refresh token that is not genuine does not keep the session of the access token alive.
func TestForgedRefreshTokenAtLogout(t *testing.T) {
	t.Parallel()
	m := mailing(t, ``)
	m.register()
	b := m.browser()
	m.want(b.do("POST", "/auth/login", with(account, "transport", "cookie")), 200, "")
	for name, value := range b.cookies {
		if strings.HasSuffix(name, "_refresh") {
			b.cookies[name] = value[:len(value)-4] + "0000"
		}
	}
	m.want(b.do("POST", "/auth/logout", obj()), 204, "")
	if n := m.happened(of(event.SessionEnded)); n != 1 {
		t.Errorf("%d sessions have ended, want 1", n)
	}
}

// Mails wait for their server as long as what they say is good.
func TestMailOutlastsAnOutage(t *testing.T) {
	t.Parallel()
	post := &deadServer{}
	m := mailing(t, `"users":{"allow_registration":true,"require_verified_email":true}`, func(o *engine.Options) { o.Mailer = post })
	m.want(m.do("POST", "/auth/register", account), 202, "")
	for range 40 {
		before := post.tries.Load()
		m.move(20 * time.Minute)
		// What is asked for of nobody wakes the outbox, and goes at once.
		if err := m.app.Recovery().SendVerification(t.Context(), "nobody@example.com", recovery.From{}); err != nil {
			t.Fatal(err)
		}
		until(t, "it was tried again", func() bool { return post.tries.Load() > before })
		until(t, "it was put off", func() bool {
			p, err := m.app.Outbox().Pending(t.Context())
			return err == nil && p.Jobs == 1
		})
	}
	if e, dropped := m.events.Find(of(event.MailFailed)); dropped {
		t.Errorf("dropped: %+v", e)
	}
}

// deadServer is a mailer whose server is away.
type deadServer struct{ tries atomic.Int64 }

func (o *deadServer) Send(context.Context, *mail.Message) error {
	o.tries.Add(1)
	return errors.New("nobody there")
}
