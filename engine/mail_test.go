package engine_test

import (
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/users"
)

const bob = "bob@example.com"

// Where addresses have to be verified nobody has an account before, so nobody learns by
// registering and signing in whose address is taken.
func TestRegisterVerified(t *testing.T) {
	t.Parallel()
	m := mailing(t, verified)
	first := m.do("POST", "/auth/register", account)
	m.want(first, 202, "")
	token := m.token(email)
	m.want(m.do("POST", "/auth/login", account), 401, "invalid_credentials")
	m.want(m.do("POST", "/auth/email/verify", obj("token", token)), 204, "")
	m.want(m.do("POST", "/auth/email/verify", obj("token", token)), 400, "link_invalid")
	in := m.login()
	if v, _ := in.at("user", "email_verified").(bool); !v {
		t.Errorf("the user is shown as not verified: %s", in.raw)
	}
	m.events.Wait(t, event.UserRegistered)

	mine := with(account, "password", "what somebody else wants")
	again := m.do("POST", "/auth/register", mine)
	if again.status != first.status || again.raw != first.raw || len(again.header) != len(first.header) {
		t.Errorf("a taken address is told from a free one: %d %s", again.status, again.raw)
	}
	if exists := m.mail(email); tokenIn.MatchString(exists.Text) || !strings.Contains(exists.Text, "account") {
		t.Errorf("the owner of a taken address was told: %s", exists.Text)
	}
	m.want(m.do("POST", "/auth/login", mine), 401, "invalid_credentials")
}

// Two registrations for one address wait beside each other: the one whose link is used
// first has it, with the password that was given there.
func TestRegisterVerifiedTwice(t *testing.T) {
	t.Parallel()
	m := mailing(t, verified)
	other := with(account, "password", "what the attacker wants")
	m.do("POST", "/auth/register", other)
	theirs := m.token(email)
	m.do("POST", "/auth/register", account)
	mine := m.token(email)
	m.want(m.do("POST", "/auth/email/verify", obj("token", mine)), 204, "")
	m.want(m.do("POST", "/auth/email/verify", obj("token", theirs)), 400, "link_invalid")
	m.want(m.do("POST", "/auth/login", other), 401, "invalid_credentials")
	m.login()
}

// An account that the service has made without a proof is let in once there is one.
func TestUnverified(t *testing.T) {
	t.Parallel()
	m := mailing(t, verified)
	if _, err := m.app.Users().Create(t.Context(), users.NewUser{Email: email, Password: password}); err != nil {
		t.Fatal(err)
	}
	m.want(m.do("POST", "/auth/login", account), 403, "email_unverified")
	m.want(m.do("POST", "/auth/login", with(account, "password", "another fine passphrase")), 401, "invalid_credentials")
	m.want(m.do("POST", "/auth/email/verify/send", obj("email", email)), 202, "")
	m.want(m.do("POST", "/auth/email/verify", obj("token", m.token(email))), 204, "")
	m.login()
	m.events.Wait(t, event.EmailVerified)
}

// A link to verify can be asked for again, by anybody and alike.
func TestSendVerification(t *testing.T) {
	t.Parallel()
	m := mailing(t, ``)
	m.register()
	m.token(email)
	known := m.do("POST", "/auth/email/verify/send", obj("email", "ADA@example.com"))
	unknown := m.do("POST", "/auth/email/verify/send", obj("email", bob))
	if known.status != 202 || known.raw != unknown.raw || unknown.status != 202 {
		t.Errorf("%d %s, %d %s", known.status, known.raw, unknown.status, unknown.raw)
	}
	m.silence(bob)
	second := m.token(email) // as the account writes it
	m.want(m.do("POST", "/auth/email/verify", obj("token", second)), 204, "")
	m.do("POST", "/auth/email/verify/send", obj("email", email))
	m.silence(email)
	m.want(m.do("POST", "/auth/email/verify/send", obj("email", "nobody")), 422, "invalid_field")
}

// A forgotten password is replaced by whoever reads the mail, who is signed in nowhere
// afterwards.
func TestResetPassword(t *testing.T) {
	t.Parallel()
	m := mailing(t, ``)
	session := m.register().text("access_token")
	m.do("POST", "/auth/email/verify", obj("token", m.token(email)))
	known := m.do("POST", "/auth/password/forgot", obj("email", email))
	unknown := m.do("POST", "/auth/password/forgot", obj("email", bob))
	if known.status != 202 || known.raw != unknown.raw || unknown.status != 202 {
		t.Errorf("%d %s, %d %s", known.status, known.raw, unknown.status, unknown.raw)
	}
	token := m.token(email)
	m.silence(bob)
	reset := obj("token", token, "new_password", "a new and better passphrase")
	m.want(m.do("POST", "/auth/password/reset", with(reset, "new_password", "short")), 422, "password_too_short")
	done := m.want(m.do("POST", "/auth/password/reset", reset), 204, "")
	if len(done.header["Set-Cookie"]) != 0 || done.raw != "" {
		t.Error("a reset signs in")
	}
	m.want(m.do("POST", "/auth/password/reset", reset), 400, "link_invalid")
	m.want(m.me(session), 401, "token_revoked")
	m.want(m.do("POST", "/auth/login", account), 401, "invalid_credentials")
	m.want(m.do("POST", "/auth/login", with(account, "password", "a new and better passphrase")), 200, "")
	if told := m.mail(email); tokenIn.MatchString(told.Text) || !strings.Contains(strings.ToLower(told.Subject), "password") {
		t.Errorf("the notice: %s\n%s", told.Subject, told.Text)
	}
}

// What was mailed dies with what it was mailed for.
func TestLinksDie(t *testing.T) {
	t.Parallel()
	const fresh = "a new and better passphrase"
	reset := func(m *mailRoom) string {
		m.do("POST", "/auth/password/forgot", obj("email", email))
		return m.token(email)
	}
	for name, change := range map[string]func(m *mailRoom, token, access string){
		"another purpose": func(m *mailRoom, token, _ string) {
			m.want(m.do("POST", "/auth/magic-link/consume", obj("token", token)), 400, "link_invalid")
			m.want(m.do("POST", "/auth/email/verify", obj("token", token)), 400, "link_invalid")
			m.want(m.do("POST", "/auth/email/change/confirm", obj("token", token)), 400, "link_invalid")
			m.want(m.do("POST", "/auth/password/reset", obj("token", token, "new_password", fresh)), 204, "")
		},
		"time": func(m *mailRoom, _, _ string) { m.move(30 * time.Minute) },
		"the password": func(m *mailRoom, _, access string) {
			m.want(m.do("POST", "/auth/password", obj("current_password", password, "new_password", "one more fine passphrase"), bearer(access)), 204, "")
		},
		"the account": func(m *mailRoom, _, _ string) {
			u, err := m.app.Users().GetByEmail(m.t.Context(), email)
			if err == nil {
				err = m.app.Users().Delete(m.t.Context(), u.ID)
			}
			if err != nil {
				m.t.Fatal(err)
			}
		},
		"its being enabled": func(m *mailRoom, _, _ string) {
			u, err := m.app.Users().GetByEmail(m.t.Context(), email)
			if err == nil {
				err = m.app.Users().Disable(m.t.Context(), u.ID, "")
			}
			if err != nil {
				m.t.Fatal(err)
			}
		},
		"the address": func(m *mailRoom, _, access string) {
			m.want(m.do("POST", "/auth/email/change", obj("new_email", bob), bearer(access)), 202, "")
			m.want(m.do("POST", "/auth/email/change/confirm", obj("token", m.token(bob))), 204, "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := mailing(t, ``)
			access := m.register().text("access_token")
			m.do("POST", "/auth/email/verify", obj("token", m.token(email)))
			token := reset(m)
			change(m, token, access)
			m.want(m.do("POST", "/auth/password/reset", obj("token", token, "new_password", fresh)), 400, "link_invalid")
		})
	}
}

// An address is changed by who owns the account and the new address; the old one is told.
func TestChangeEmail(t *testing.T) {
	t.Parallel()
	m := mailing(t, ``)
	access := m.register().text("access_token")
	m.do("POST", "/auth/email/verify", obj("token", m.token(email)))
	other := m.login().text("access_token")

	m.want(m.do("POST", "/auth/email/change", obj("new_email", bob)), 401, "unauthenticated")
	m.want(m.do("POST", "/auth/email/change", obj("new_email", email), bearer(access)), 422, "invalid_field")
	m.move(11 * time.Minute)
	m.want(m.do("POST", "/auth/email/change", obj("new_email", bob), bearer(access)), 401, "fresh_required")
	m.want(m.do("POST", "/auth/email/change", obj("new_email", bob, "current_password", "not this one at all"), bearer(access)), 401, "invalid_credentials")
	m.want(m.do("POST", "/auth/email/change", obj("new_email", bob, "current_password", password), bearer(access)), 202, "")
	m.silence(email)
	token := m.token(bob)
	m.want(m.do("POST", "/auth/login", with(account, "email", bob)), 401, "invalid_credentials")
	m.want(m.do("POST", "/auth/email/change/confirm", obj("token", token)), 204, "")
	m.want(m.do("POST", "/auth/email/change/confirm", obj("token", token)), 400, "link_invalid")
	if told := m.mail(email); !strings.Contains(told.Text, bob) || tokenIn.MatchString(told.Text) {
		t.Errorf("the old address was told: %s", told.Text)
	}
	m.want(m.me(other), 401, "token_revoked")
	m.want(m.me(access), 200, "")
	m.want(m.do("POST", "/auth/login", account), 401, "invalid_credentials")
	m.want(m.do("POST", "/auth/login", with(account, "email", bob)), 200, "")
}

// An address that another account has, or gets meanwhile, cannot be taken; the answer
// does not say which.
func TestChangeEmailTaken(t *testing.T) {
	t.Parallel()
	m := mailing(t, ``)
	access := m.register().text("access_token")
	m.do("POST", "/auth/email/verify", obj("token", m.token(email)))
	m.do("POST", "/auth/register", with(account, "email", bob))
	m.token(bob)
	taken := m.do("POST", "/auth/email/change", obj("new_email", bob), bearer(access))
	free := m.do("POST", "/auth/email/change", obj("new_email", "eve@example.com"), bearer(access))
	if taken.status != 202 || taken.raw != free.raw || free.status != 202 {
		t.Errorf("%d %s, %d %s", taken.status, taken.raw, free.status, free.raw)
	}
	if told := m.mail(bob); tokenIn.MatchString(told.Text) {
		t.Errorf("the owner of a taken address got a link: %s", told.Text)
	}
	token := m.token("eve@example.com")
	m.do("POST", "/auth/register", with(account, "email", "eve@example.com"))
	m.want(m.do("POST", "/auth/email/change/confirm", obj("token", token)), 409, "email_taken")
}

// Two changes under way confirm each what it was asked for: no interleaving gives
// somebody an address that was not confirmed (Devise CVE-2026-32700).
func TestChangeEmailTwice(t *testing.T) {
	t.Parallel()
	m := mailing(t, ``)
	access := m.register().text("access_token")
	m.do("POST", "/auth/email/verify", obj("token", m.token(email)))
	for _, to := range []string{"mine@example.com", "victim@example.com"} {
		m.want(m.do("POST", "/auth/email/change", obj("new_email", to), bearer(access)), 202, "")
	}
	// Both are taken before one is used: a mail that is not yet sent by then is not sent.
	mine, victim := m.token("mine@example.com"), m.token("victim@example.com")
	m.want(m.do("POST", "/auth/email/change/confirm", obj("token", mine)), 204, "")
	if u, err := m.app.Users().GetByEmail(t.Context(), "mine@example.com"); err != nil || !u.EmailVerified {
		t.Errorf("%+v, %v", u, err)
	}
	// The other was asked for when the account had another address.
	m.want(m.do("POST", "/auth/email/change/confirm", obj("token", victim)), 400, "link_invalid")
}

// A mailed link signs in once.
func TestMagicLink(t *testing.T) {
	t.Parallel()
	m := mailing(t, ``)
	m.register()
	m.do("POST", "/auth/email/verify", obj("token", m.token(email)))
	known := m.do("POST", "/auth/magic-link", obj("email", email, "next", "/cart?x=1"))
	unknown := m.do("POST", "/auth/magic-link", obj("email", bob))
	if known.status != 202 || known.raw != unknown.raw || unknown.status != 202 {
		t.Errorf("%d %s, %d %s", known.status, known.raw, unknown.status, unknown.raw)
	}
	m.want(m.do("POST", "/auth/magic-link", obj("email", email, "next", "//evil.example")), 422, "invalid_field")
	token := m.token(email)
	m.silence(bob)
	in := m.want(m.do("POST", "/auth/magic-link/consume", obj("token", token)), 200, "")
	if in.text("next") != "/cart?x=1" || in.at("user", "email") != email {
		t.Errorf("%s", in.raw)
	}
	m.want(m.me(in.text("access_token")), 200, "")
	m.want(m.do("POST", "/auth/magic-link/consume", obj("token", token)), 400, "link_invalid")

	m.do("POST", "/auth/magic-link", obj("email", email))
	cookie := m.want(m.do("POST", "/auth/magic-link/consume", obj("token", m.token(email), "transport", "cookie")), 200, "")
	if cookie.text("access_token") != "" || len(cookie.header["Set-Cookie"]) != 3 {
		t.Errorf("%s %v", cookie.raw, cookie.header["Set-Cookie"])
	}
}

// Of fifty uses of a link at once one signs in.
func TestMagicLinkOnce(t *testing.T) {
	t.Parallel()
	m := mailing(t, ``)
	m.register()
	m.do("POST", "/auth/email/verify", obj("token", m.token(email)))
	m.do("POST", "/auth/magic-link", obj("email", email))
	token := m.token(email)
	var in, refused atomic.Int32
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			switch r := m.do("POST", "/auth/magic-link/consume", obj("token", token)); {
			case r.status == 200:
				in.Add(1)
			case r.code() == "link_invalid":
				refused.Add(1)
			default:
				t.Errorf("%d %s", r.status, r.raw)
			}
		})
	}
	wg.Wait()
	if in.Load() != 1 || refused.Load() != 49 {
		t.Errorf("%d signed in, %d were refused", in.Load(), refused.Load())
	}
}

// A mailed code signs in whoever asked for it, in five tries.
func TestEmailCode(t *testing.T) {
	t.Parallel()
	m := mailing(t, ``)
	m.register()
	m.do("POST", "/auth/email/verify", obj("token", m.token(email)))
	ask := func(address string) *response {
		r := m.want(m.do("POST", "/auth/code", obj("email", address)), 202, "")
		if len(r.text("flow_id")) != 47 || r.at("expires_in") != 600.0 || len(r.body) != 2 {
			t.Errorf("%s", r.raw)
		}
		return r
	}
	flow, nobody := ask(email), ask(bob)
	code := m.code(email)
	m.silence(bob)
	m.want(m.do("POST", "/auth/code/consume", obj("flow_id", nobody.text("flow_id"), "code", code)), 400, "link_invalid")
	m.want(m.do("POST", "/auth/code/consume", obj("flow_id", flow.text("flow_id"), "code", "1"+code)), 400, "link_invalid")
	in := m.want(m.do("POST", "/auth/code/consume", obj("flow_id", flow.text("flow_id"), "code", code)), 200, "")
	m.want(m.me(in.text("access_token")), 200, "")
	m.want(m.do("POST", "/auth/code/consume", obj("flow_id", flow.text("flow_id"), "code", code)), 400, "link_invalid")

	flow = ask(email)
	code = m.code(email)
	for range 5 {
		m.want(m.do("POST", "/auth/code/consume", obj("flow_id", flow.text("flow_id"), "code", "x")), 400, "link_invalid")
	}
	m.want(m.do("POST", "/auth/code/consume", obj("flow_id", flow.text("flow_id"), "code", code)), 400, "link_invalid")
}

// Nobody's mailbox is filled by others.
func TestMailPerHour(t *testing.T) {
	t.Parallel()
	m := mailing(t, ``)
	m.register()
	m.do("POST", "/auth/email/verify", obj("token", m.token(email)))
	for range 8 {
		m.want(m.do("POST", "/auth/magic-link", obj("email", email)), 202, "")
	}
	for range 5 {
		m.token(email)
	}
	m.silence(email)
	m.move(61 * time.Minute)
	m.want(m.do("POST", "/auth/magic-link", obj("email", email)), 202, "")
	m.token(email)
}

// A magic link to an account whose address was never verified makes it the owner's: the
// password and the sessions of whoever made it are gone.
func TestReclaimByMail(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"link", "code", "reset"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			m := mailing(t, ``)
			squatter := m.register()
			m.token(email) // which the squatter cannot read
			var access string
			switch how {
			case "link":
				m.do("POST", "/auth/magic-link", obj("email", email))
				access = m.want(m.do("POST", "/auth/magic-link/consume", obj("token", m.token(email))), 200, "").text("access_token")
			case "code":
				flow := m.do("POST", "/auth/code", obj("email", email)).text("flow_id")
				access = m.want(m.do("POST", "/auth/code/consume", obj("flow_id", flow, "code", m.code(email))), 200, "").text("access_token")
			default:
				m.do("POST", "/auth/password/forgot", obj("email", email))
				m.want(m.do("POST", "/auth/password/reset", obj("token", m.token(email), "new_password", "a new and better passphrase")), 204, "")
				access = m.want(m.do("POST", "/auth/login", with(account, "password", "a new and better passphrase")), 200, "").text("access_token")
			}
			m.want(m.me(squatter.text("access_token")), 401, "token_revoked")
			m.want(m.do("POST", "/auth/refresh", obj("refresh_token", squatter.text("refresh_token"))), 401, "session_expired")
			m.want(m.do("POST", "/auth/login", account), 401, "invalid_credentials")
			m.want(m.me(access), 200, "")
			m.mail(email) // the notice
		})
	}
}

// Links begin with public_url, whatever the request says its host is.
func TestLinksOfTheManifest(t *testing.T) {
	t.Parallel()
	m := mailing(t, ``)
	m.register()
	m.token(email)
	for _, edit := range []request{
		header("X-Forwarded-Host", "evil.example"), header("Forwarded", "host=evil.example"), header("X-Forwarded-Proto", "http"),
		header("Origin", "https://evil.example"), header("X-Forwarded-Prefix", "/evil"), header("X-Original-Url", "https://evil.example/"),
	} {
		m.want(m.do("POST", "/auth/email/verify/send", obj("email", email), edit, func(r *http.Request) { r.Host = "evil.example" }), 202, "")
		msg := m.mail(email)
		if strings.Contains(msg.Text+msg.HTML, "evil") || !strings.Contains(msg.Text, "https://shop.example/verify-email#token=mot_") {
			t.Errorf("%s", msg.Text)
		}
		m.move(time.Hour)
	}
}

// A manifest with mail and nothing to send it with stops the start, and says what to add.
func TestNoMailer(t *testing.T) {
	t.Parallel()
	w := setup(t, ``)
	_, err := w.eng.Load(t.Context(), manifestOf(t, "other", mails, publicShop))
	if err == nil || !strings.Contains(err.Error(), "auth.mail.smtp.host") || !strings.Contains(err.Error(), "Mailer:") {
		t.Errorf("%v", err)
	}
	if _, err := w.eng.Load(t.Context(), manifestOf(t, "other", mails, publicShop, `"environment":"development"`)); err != nil {
		t.Errorf("in development: %v", err)
	}
	var _ engine.Mailer = newPostbox()
}
