package engine_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/mail"
	"github.com/mandate-auth/mandate/users"
)

// owned is a world with a person who has verified the address.
func owned(t *testing.T, auth string, edit ...func(*engine.Options)) *mailRoom {
	t.Helper()
	m := mailing(t, auth, edit...)
	m.owned()
	return m
}

func (m *mailRoom) owned() {
	m.t.Helper()
	m.register()
	m.want(m.do("POST", "/auth/email/verify", obj("token", m.token(email))), 204, "")
}

// A mail about an account goes to the account's address, not to another mailbox whose
// name folds to the same (CVE-2019-19844).
func TestMailGoesToTheAccountsAddress(t *testing.T) {
	t.Parallel()
	const kelvin = "\u212Aate@example.com" // KELVIN SIGN: another mailbox than kate@
	for _, path := range []string{"/auth/password/forgot", "/auth/magic-link", "/auth/code"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			m := mailing(t, ``)
			m.want(m.do("POST", "/auth/register", with(account, "email", "kate@example.com")), 201, "")
			m.want(m.do("POST", "/auth/email/verify", obj("token", m.token("kate@example.com"))), 204, "")
			m.want(m.do("POST", path, obj("email", kelvin)), 422, "invalid_field")
			// Case alone does not tell mailboxes apart for us, and may for somebody's server.
			status := m.do("POST", path, obj("email", "KATE@example.com")).status
			expect(t, status, 202)
			m.mail("kate@example.com")
			for _, other := range []string{kelvin, "KATE@example.com"} {
				for _, msg := range m.post.to(other) {
					t.Errorf("to %q, which is not the account's address: %s", msg.To, msg.Subject)
				}
			}
		})
	}
}

// What a thief of a session has asked for dies when the owner changes the password
// ("unexpired e-mail change" of Sudhodanan and Paverd).
func TestEmailChangeEndsWithItsSession(t *testing.T) {
	t.Parallel()
	for name, defend := range map[string]func(m *mailRoom, access string){
		"change of password": func(m *mailRoom, access string) {
			m.want(m.do("POST", "/auth/password", obj("current_password", password, "new_password", "one more fine passphrase"), bearer(access)), 204, "")
		},
		"end of all other sessions": func(m *mailRoom, access string) {
			m.want(m.do("DELETE", "/auth/sessions", nil, bearer(access)), 204, "")
		},
		"password set by the service": func(m *mailRoom, _ string) {
			u, _ := m.app.Users().GetByEmail(m.t.Context(), email)
			if err := m.app.Users().SetPassword(m.t.Context(), u.ID, "one more fine passphrase"); err != nil {
				m.t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := owned(t, ``)
			stolen := m.login().text("access_token")
			m.want(m.do("POST", "/auth/email/change", obj("new_email", evil), bearer(stolen)), 202, "")
			token := m.token(evil)
			defend(m, m.login().text("access_token"))
			m.takenOver(token)
		})
	}
}

// takenOver confirms a change of address and reports whether the account is the attacker's.
func (m *mailRoom) takenOver(token string) {
	m.t.Helper()
	r := m.do("POST", "/auth/email/change/confirm", obj("token", token))
	if r.status == 204 {
		m.t.Errorf("the account has the attacker's address")
		m.do("POST", "/auth/password/forgot", obj("email", evil))
		m.t.Errorf("and the reset is mailed there: %d", m.do("POST", "/auth/password/reset", obj("token", m.token(evil), "new_password", "the password of mallory")).status)
	}
}

// awayMailer is a mailer whose server can be away.
type awayMailer struct {
	*postbox
	away  atomic.Bool
	tried chan struct{}
}

func (a *awayMailer) Send(ctx context.Context, m *mail.Message) error {
	if a.away.Load() {
		a.tried <- struct{}{}
		return errors.New("the server is away")
	}
	return a.postbox.Send(ctx, m)
}

// The same where the mail waits in the outbox while the owner resets the password: the
// job is composed anew at each attempt, and makes a token that nothing has ended.
func TestEmailChangeInTheOutbox(t *testing.T) {
	t.Parallel()
	away := &awayMailer{tried: make(chan struct{}, 100)}
	m := mailing(t, ``, func(o *engine.Options) {
		away.postbox = o.Mailer.(*postbox)
		o.Mailer = away
	})
	m.owned()
	stolen := m.login().text("access_token")
	m.do("POST", "/auth/password/forgot", obj("email", email))
	reset := m.token(email)
	m.settled()
	away.away.Store(true)
	m.want(m.do("POST", "/auth/email/change", obj("new_email", evil), bearer(stolen)), 202, "")
	<-away.tried
	m.want(m.do("POST", "/auth/password/reset", obj("token", reset, "new_password", "one more fine passphrase")), 204, "")
	m.want(m.me(stolen), 401, "token_revoked")
	away.away.Store(false)
	until(t, "the mail was put off", func() bool {
		p, err := m.app.Outbox().Pending(t.Context())
		return err == nil && p.Jobs > 0
	})
	m.move(time.Minute)
	m.do("POST", "/auth/password/forgot", obj("email", "nobody@example.com")) // wakes the worker
	m.silence(evil)
}

// Nobody learns from signing in after a registration whether the address was free.
func TestLoginTellsNothingOfRegistrations(t *testing.T) {
	t.Parallel()
	m := mailing(t, verified)
	m.newcomer(email) // taken
	answers := map[string]string{}
	for _, address := range []string{email, "free@example.com"} {
		mine := obj("email", address, "password", "the password of mallory")
		m.want(m.do("POST", "/auth/register", mine), 202, "")
		m.settled()
		r := m.do("POST", "/auth/login", mine)
		answers[address] = fmt.Sprint(r.status, " ", r.code())
	}
	if answers[email] != answers["free@example.com"] {
		t.Errorf("taken and free differ: %v", answers)
	}
}

// A guest who registers does not learn from their own account whether the address was free.
func TestGuestsLearnNothingOfRegistrations(t *testing.T) {
	t.Parallel()
	for name, show := range map[string]func(m *mailRoom, access, device string) *response{
		"POST /anonymous": func(m *mailRoom, _, device string) *response {
			return m.do("POST", "/auth/anonymous", obj("device_id", device))
		},
		"PATCH /me": func(m *mailRoom, access, _ string) *response {
			return m.do("PATCH", "/auth/me", obj("profile", obj("a", "b")), bearer(access))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := mailing(t, verified)
			m.newcomer(email)
			answers := map[string]any{}
			for _, address := range []string{email, "free@example.com"} {
				g := m.do("POST", "/auth/anonymous", nil)
				access := g.text("access_token")
				m.want(m.do("POST", "/auth/register", obj("email", address, "password", "the password of mallory"), bearer(access)), 202, "")
				m.settled()
				answers[address] = show(m, access, g.text("device_id")).at("user", "email")
			}
			if answers[email] != nil || answers["free@example.com"] != nil {
				t.Errorf("the account shows which was free: %v", answers)
			}
		})
	}
}

// At most 100 wrong guesses in a row are looked at, whichever way in (rule 4).
func TestCodesInARow(t *testing.T) {
	t.Parallel()
	m := owned(t, ``)
	guesses := 0
	for range 21 {
		for range 5 {
			flow := m.want(m.do("POST", "/auth/code", obj("email", email)), 202, "").text("flow_id")
			code := m.code(email)
			for range 5 {
				wrong := "000000"
				if code == wrong {
					wrong = "000001"
				}
				m.want(m.do("POST", "/auth/code/consume", obj("flow_id", flow, "code", wrong)), 400, "link_invalid")
				guesses++
			}
		}
		m.move(61 * time.Minute)
	}
	flow := m.do("POST", "/auth/code", obj("email", email)).text("flow_id")
	if r := m.do("POST", "/auth/code/consume", obj("flow_id", flow, "code", m.code(email))); r.status == 200 {
		t.Errorf("after %d wrong guesses in a row, %d in each hour, the next one is still looked at", guesses, guesses/21)
	}
}

// A stranger with five requests an hour does not keep an owner out.
func TestStrangersAskForMails(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/auth/code", "/auth/magic-link", "/auth/password/forgot"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			m := owned(t, ``)
			for range 5 {
				m.want(m.do("POST", path, obj("email", email), from("203.0.113.9:1")), 202, "")
				m.mail(email)
			}
			m.move(31 * time.Minute) // what was mailed is over by then
			m.want(m.do("POST", path, obj("email", email), from("198.51.100.7:1")), 202, "")
			m.settled()
			if len(m.post.to(email)) == m.taken[email] {
				t.Error("the owner is told that a mail is on its way, and gets none for half an hour more")
			}
		})
	}
}

// A demo user stays one, whatever is mailed to it: otherwise the app does not start again.
func TestDemoUserWhoResets(t *testing.T) {
	t.Parallel()
	const demo = `"users":{"demo_users":[{"email":"demo@example.com","password":"x"}]}`
	post := newPostbox()
	db := storetest.Database(t)
	text := manifestOf(t, "shop", mails+`,`+demo, publicShop, `"environment":"development"`)
	m := &mailRoom{post: post, taken: map[string]int{}}
	m.world = newWorld(t, db, text, func(o *engine.Options) { o.Mailer = post })
	m.do("POST", "/auth/password/forgot", obj("email", "demo@example.com"))
	m.want(m.do("POST", "/auth/password/reset", obj("token", m.token("demo@example.com"), "new_password", password)), 204, "")
	m.settled()
	if err := m.app.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := m.eng.Load(t.Context(), text); err != nil {
		t.Errorf("the app does not start any more: %v", err)
	}
}

// Two mailboxes are two people: who has the one does not get the account of the other.
func TestTwoMailboxesTwoAccounts(t *testing.T) {
	t.Parallel()
	w := setup(t, ``)
	w.want(w.do("POST", "/auth/register", with(account, "email", "\u212Aate@example.com")), 422, "invalid_field")
	for mine, theirs := range map[string]string{"stra\u00dfe@example.com": "strasse@example.com", "\u0130da@example.com": "ida@example.com"} {
		t.Run(theirs, func(t *testing.T) {
			t.Parallel()
			d := doors(t, ``)
			attacker := d.owner(mine) // who has this mailbox
			d.acme.RegisterUser(person("1", theirs, true))
			who := d.comes(d.browser(), "acme", d.acme)
			if attacker.signed() == who {
				t.Errorf("%s, whom the provider has verified, is in the account of %s, whose password and session work", theirs, mine)
			}
		})
	}
}

// Whoever changes a password cannot keep its owner from being told.
func TestNoticesAreNotKeptBack(t *testing.T) {
	t.Parallel()
	const lang = "en_US"
	for name, change := range map[string]func(m *mailRoom, access string){
		"password": func(m *mailRoom, access string) {
			m.want(m.do("POST", "/auth/password", obj("current_password", password, "new_password", "the password of mallory"), bearer(access), header("Accept-Language", lang)), 204, "")
		},
		"address": func(m *mailRoom, access string) {
			m.want(m.do("POST", "/auth/email/change", obj("new_email", evil), bearer(access)), 202, "")
			m.want(m.do("POST", "/auth/email/change/confirm", obj("token", m.token(evil)), header("Accept-Language", lang)), 204, "")
		},
		"reset": func(m *mailRoom, _ string) {
			m.do("POST", "/auth/password/forgot", obj("email", email))
			m.want(m.do("POST", "/auth/password/reset", obj("token", m.token(email), "new_password", "the password of mallory"), header("Accept-Language", lang)), 204, "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := owned(t, ``)
			change(m, m.login().text("access_token"))
			m.settled()
			if len(m.post.to(email)) == m.taken[email] {
				t.Error("the owner is told nothing")
			}
		})
	}
	t.Run("honest client", func(t *testing.T) {
		t.Parallel()
		m := owned(t, ``)
		if r := m.do("POST", "/auth/password/forgot", obj("email", email), header("Accept-Language", lang)); r.status != 202 {
			t.Errorf("Accept-Language: en_US is answered %d %s", r.status, r.raw)
		}
	})
}

// A mailed link is no way to guess a password without being counted.
func TestResetGuessesNoPasswords(t *testing.T) {
	t.Parallel()
	m := owned(t, ``)
	access := m.login().text("access_token")
	m.do("POST", "/auth/password/forgot", obj("email", email))
	token := m.token(email)
	m.want(m.do("POST", "/auth/password", obj("current_password", password, "new_password", "one more fine passphrase"), bearer(access)), 204, "")
	before := m.hashes.Load()
	for i := range 40 {
		m.want(m.do("POST", "/auth/password/reset", obj("token", token, "new_password", fmt.Sprint("a guess of mallory ", i))), 400, "link_invalid")
	}
	if n := m.hashes.Load() - before; n > 10 {
		t.Errorf("%d guesses were hashed; the lockout admits 10", n)
	}
	if r := m.do("POST", "/auth/password/reset", obj("token", token, "new_password", "one more fine passphrase")); r.status != 400 {
		t.Errorf("and the right one is answered %d", r.status)
	}
}

// Many requests at once are not mailed more than five times.
func TestMailPerHourAtOnce(t *testing.T) {
	t.Parallel()
	m := owned(t, ``)
	var wg sync.WaitGroup
	for range 40 {
		wg.Go(func() { m.do("POST", "/auth/code", obj("email", email)) })
	}
	wg.Wait()
	m.settled()
	if n := len(m.post.to(email)) - m.taken[email]; n > 5 {
		t.Errorf("%d mails in one hour", n)
	}
}

// A sign-in that renews the hash of an older method does not end a reset.
func TestRehashLeavesTheReset(t *testing.T) {
	t.Parallel()
	m := mailing(t, ``)
	line := `{"email":"ada@example.com","email_verified":true,"password_hash":"` + strings.Replace(oldHash(t), "$2b$", "$2a$", 1) + `"}`
	if _, err := m.app.ImportUsers(t.Context(), strings.NewReader(line), users.ImportOptions{}); err != nil {
		t.Fatal(err)
	}
	m.do("POST", "/auth/password/forgot", obj("email", email))
	token := m.token(email)
	m.login() // somebody who knows the old password
	if r := m.do("POST", "/auth/password/reset", obj("token", token, "new_password", "one more fine passphrase")); r.status != 204 {
		t.Errorf("the owner's link: %d %s", r.status, r.code())
	}
}

func oldHash(t *testing.T) string {
	t.Helper()
	h, err := bcrypt.GenerateFromPassword([]byte(password), 4)
	if err != nil {
		t.Fatal(err)
	}
	return string(h)
}

// Whom a provider vouches for later gets in later.
func TestProviderVouchesLater(t *testing.T) {
	t.Parallel()
	d := doors(t, verified)
	d.acme.RegisterUser(person("1", email, false))
	b := d.browser()
	d.refusedWith(d.come(b, "acme", d.acme, ""), "email_unverified")
	d.acme.RegisterUser(person("1", email, true))
	if r := d.come(b, "acme", d.acme, ""); r.header.Get("Location") != "/" {
		t.Errorf("never: %s", r.header.Get("Location"))
	}
}

// Who registers an address five times does not decide whose password it gets: the owner's
// own registration is mailed as well.
func TestRegistrationsOfOthers(t *testing.T) {
	t.Parallel()
	m := mailing(t, verified)
	for range 5 {
		m.want(m.do("POST", "/auth/register", obj("email", email, "password", "the password of mallory"), from("203.0.113.9:1")), 202, "")
	}
	m.settled()
	m.want(m.do("POST", "/auth/register", account, from("198.51.100.7:1")), 202, "")
	m.settled()
	list := m.post.to(email)
	last := tokenIn.FindStringSubmatch(list[len(list)-1].Text)
	if last == nil {
		t.Fatal(list[len(list)-1].Text)
	}
	m.want(m.do("POST", "/auth/email/verify", obj("token", last[1])), 204, "")
	if r := m.do("POST", "/auth/login", obj("email", email, "password", "the password of mallory")); r.status == 200 {
		t.Errorf("%d mails; the owner registered last, followed the newest link, and the account has the attacker's password", len(list))
	}
}

// newcomer registers and verifies.
func (m *mailRoom) newcomer(address string) {
	m.t.Helper()
	m.want(m.do("POST", "/auth/register", obj("email", address, "password", password)), 202, "")
	m.want(m.do("POST", "/auth/email/verify", obj("token", m.token(address))), 204, "")
}
