package engine_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/mail"
	"github.com/mandate-auth/mandate/users"
	"github.com/mandate-auth/mandate/users/invitation"
)

// flaky is a Mailer that refuses each message once.
type flaky struct {
	*postbox
	seen map[string]bool
}

// Send implements [mail.Mailer].
func (f *flaky) Send(ctx context.Context, m *mail.Message) error {
	f.mu.Lock()
	first := !f.seen[m.ID]
	f.seen[m.ID] = true
	f.mu.Unlock()
	if first {
		return errors.New("try again")
	}
	return f.postbox.Send(ctx, m)
}

// Nothing that is mailed, typed in on the way or issued by a provider may appear in a log,
// an event, a refusal or, as it is, in the database: neither while it waits nor afterwards.
func TestMailedSecretsAreNowhere(t *testing.T) {
	t.Parallel()
	db := storetest.Database(t)
	m := manifestOf(t, "shop", `"mail":{"from":"Shop <no-reply@shop.example>","magic_link":true,"email_code":true,
		"smtp":{"host":"smtp.shop.example","username":"shop","password":"canary-smtp-password"}},`+verified+`,`+outside, publicShop)
	w := newWorld(t, db, m, strangers, func(o *engine.Options) { o.Mailer = newPostbox() })
	w.quiet(w.app)
	secrets := map[string]string{
		"password": password, "password that is typed again": "canary another passphrase", "password of a reset": "canary new passphrase",
		"password of an invitation": "canary invited passphrase", "provider's client secret": "canary-provider-secret",
		"provider's refresh token": "canary-provider-refresh", "SMTP password": "canary-smtp-password",
	}
	answers := w.plant(secrets)
	w.nowhere(secrets, answers)

	// And while it is sent, by another instance, which has to try again.
	second := newWorld(t, db, m, strangers, func(o *engine.Options) { o.Mailer = &flaky{postbox: newPostbox(), seen: map[string]bool{}} })
	until(t, "every mail to be tried", func() bool {
		p, err := second.app.Outbox().Pending(t.Context())
		return err == nil && p.Retried == p.Jobs
	})
	w.close()
	second.close()
	second.nowhere(secrets, answers)
	w.nowhere(secrets, answers)
}

// plant uses each secret once, rightly or wrongly, and returns what was refused.
func (w *world) plant(secrets map[string]string) (refusals string) {
	w.t.Helper()
	ctx := w.t.Context()
	refuse := func(path string, body map[string]any) {
		w.t.Helper()
		r := w.do("POST", "/auth"+path, body)
		if r.status < 400 {
			w.t.Errorf("%s: %d %s", path, r.status, r.raw)
		}
		refusals += r.raw + fmt.Sprint(r.header)
	}
	mailed := func(kind, to string) *mail.Message {
		w.t.Helper()
		msg, err := w.composed(ctx, w.app, kind, to)
		if err != nil || msg == nil {
			w.t.Fatalf("the mail %s to %s: %v, %v", kind, to, msg, err)
		}
		return msg
	}
	w.want(w.do("POST", "/auth/register", account), 202, "")
	secrets["link to register"] = mailedToken(mailed("register", email))
	w.want(w.do("POST", "/auth/register", with(account, "password", secrets["password that is typed again"])), 202, "")
	w.want(w.do("POST", "/auth/email/verify", obj("token", secrets["link to register"])), 204, "")
	refuse("/email/verify", obj("token", secrets["link to register"]))
	for _, path := range []string{"/password/forgot", "/magic-link", "/email/verify/send"} {
		w.want(w.do("POST", "/auth"+path, obj("email", email)), 202, "")
	}
	secrets["link to reset"] = mailedToken(mailed(string(mail.ResetPassword), email))
	secrets["link to sign in"] = mailedToken(mailed(string(mail.MagicLink), email))
	refuse("/password/reset", obj("token", secrets["link to sign in"], "new_password", secrets["password of a reset"]))
	refuse("/magic-link/consume", obj("token", secrets["link to reset"]))
	secrets["flow of a code"] = w.do("POST", "/auth/code", obj("email", email)).text("flow_id")
	code := codeOf(mailed(string(mail.EmailCode), email))
	secrets["code"] = `"` + code + `"`
	refuse("/code/consume", obj("flow_id", secrets["flow of a code"], "code", "x"+code))
	in := w.want(w.do("POST", "/auth/code/consume", obj("flow_id", secrets["flow of a code"], "code", code)), 200, "")
	refuse("/code/consume", obj("flow_id", secrets["flow of a code"], "code", code))
	w.want(w.do("POST", "/auth/email/change", obj("new_email", bob, "current_password", password), bearer(in.text("access_token"))), 202, "")
	secrets["link to change the address"] = mailedToken(mailed(string(mail.ChangeEmail), bob))
	refuse("/email/change/confirm", obj("token", secrets["link to reset"]))
	w.want(w.do("POST", "/auth/password/reset", obj("token", secrets["link to reset"], "new_password", secrets["password of a reset"])), 204, "")
	refuse("/email/change/confirm", obj("token", secrets["link to change the address"]))
	w.plantInvitation(secrets, w.accountOf(email))
	w.plantProvider(secrets)
	return refusals
}

func (w *world) accountOf(address string) string {
	w.t.Helper()
	u, err := w.app.Users().GetByEmail(w.t.Context(), address)
	if err != nil {
		w.t.Fatal(err)
	}
	return u.ID
}

func (w *world) plantInvitation(secrets map[string]string, host string) {
	w.t.Helper()
	_, err := w.app.Invitations().Create(w.t.Context(), invitation.NewInvitation{Email: "guest@example.com", InvitedBy: host})
	if err != nil {
		w.t.Fatal(err)
	}
	msg, err := w.composed(w.t.Context(), w.app, string(mail.Invitation), "guest@example.com")
	if err != nil {
		w.t.Fatal(err)
	}
	secrets["invitation"] = mailedToken(msg)
	w.want(w.do("POST", "/auth/register", obj("invitation", secrets["invitation"], "password", secrets["password of an invitation"])), 201, "")
}

// plantProvider signs somebody in by the provider, and somebody else does it again.
func (w *world) plantProvider(secrets map[string]string) {
	w.t.Helper()
	b := w.browser(header("X-Forwarded-Proto", "https"))
	begun := b.do("GET", "/auth/oauth/acme/login", nil)
	to, err := url.Parse(begun.header.Get("Location"))
	if err != nil {
		w.t.Fatal(err)
	}
	code := stranger{ID: "1", Email: "come@example.com", Verified: true}.code()
	secrets["provider's access token"], secrets["state"] = code, to.Query().Get("state")
	for name, value := range b.cookies {
		secrets["cookie "+name] = value
	}
	q := url.Values{"state": {secrets["state"]}, "code": {code}}
	for range 2 { // the second time it has been used
		b.do("GET", callback("acme", q), nil)
	}
	id := w.accountOf("come@example.com")
	kept, err := w.app.Identities().Tokens(w.t.Context(), id, "acme", "1")
	if err != nil || !strings.Contains(string(kept), secrets["provider's refresh token"]) {
		w.t.Errorf("the tokens that are kept: %s, %v", kept, err)
	}
	if st, err := w.app.Users().State(w.t.Context(), id); err != nil || len(st.Links) != 1 || st.Links[0] != users.LinkOf("acme", "1") {
		w.t.Errorf("the account is %+v, %v", st, err)
	}
}

// nowhere checks that none of the secrets is where others read.
func (w *world) nowhere(secrets map[string]string, answers string) {
	w.t.Helper()
	for place, text := range map[string]string{
		"logs": w.logs.String(), "refusals": answers, "events": fmt.Sprintf("%+v", w.events.All()), "database": dump(w.t, w),
		"values": fmt.Sprintf("%v %+v %#v", w.app.Manifest(), w.app.Manifest().Auth, w.app.Manifest().Effective()),
	} {
		if text == "" {
			w.t.Errorf("nothing was found in %s", place)
		}
		for name, value := range secrets {
			if value == "" || value == `""` || strings.Contains(text, value) {
				w.t.Errorf("%s is in %s", name, place)
			}
		}
	}
}
