package engine_test

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/mandate-auth/mandate/mail"
	"github.com/mandate-auth/mandate/tokens/onetime"
	"github.com/mandate-auth/mandate/users"
	"github.com/mandate-auth/mandate/users/identity"
	"github.com/mandate-auth/mandate/users/invitation"
	"github.com/mandate-auth/mandate/users/recovery"
	"github.com/mandate-auth/mandate/users/social"
)

// letters are what was mailed to people of an app, the identity that signs in there, and
// a sign-in by the provider that has begun.
type letters struct {
	tokens             map[mail.Template]string
	flow, code         string
	invitation         *invitation.Invitation
	arrival            identity.Arrival
	state              url.Values
	cookie, cookieName string
	begun              *social.Flow
	// jobs are the ids of what waits to be sent, and register one of them.
	jobs     []string
	register mail.Job
	account  *users.State
}

// write mails one of each kind.
func (tn *tenant) write(t *testing.T, w *world) *letters {
	t.Helper()
	ctx, r := t.Context(), tn.app.Recovery()
	l := &letters{
		tokens:  map[mail.Template]string{},
		arrival: identity.Arrival{Provider: "acme", Issuer: acme, Subject: "of " + tn.slug, Email: tn.slug + "@example.com", EmailVerified: true, Tokens: []byte("x")},
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(r.ForgotPassword(ctx, email, recovery.From{}))
	must(r.SendMagicLink(ctx, email, "", recovery.From{}))
	must(r.ChangeEmail(ctx, tn.user, tn.session, "new@example.com", recovery.From{}))
	var err error
	l.flow, _, err = r.SendCode(ctx, email, recovery.From{})
	must(err)
	l.invitation, err = tn.app.Invitations().Create(ctx, invitation.NewInvitation{Email: "guest@example.com", Role: "admin", InvitedBy: tn.user})
	must(err)
	n, err := tn.app.Users().Prepare(ctx, users.NewUser{Email: "late@example.com", Password: tn.password})
	must(err)
	must(r.Register(ctx, n, recovery.From{}))
	for kind, to := range map[mail.Template]string{
		mail.VerifyEmail: email, mail.ResetPassword: email, mail.MagicLink: email, mail.ChangeEmail: "new@example.com", mail.Invitation: "guest@example.com",
	} {
		m, err := w.composed(ctx, tn.app, string(kind), to)
		must(err)
		if l.tokens[kind] = mailedToken(m); l.tokens[kind] == "" {
			t.Fatalf("no token in the mail %s of %s", kind, tn.slug)
		}
	}
	m, err := w.composed(ctx, tn.app, string(mail.EmailCode), email)
	must(err)
	l.code = codeOf(m)
	for _, to := range []string{email, "new@example.com", "guest@example.com", "late@example.com"} {
		list, err := w.waiting(ctx, tn.app, to)
		must(err)
		for i := range list {
			l.jobs = append(l.jobs, list[i].ID)
			if list[i].Kind == "register" {
				l.register = list[i].mail()
			}
		}
	}
	_, err = tn.app.Identities().Arrive(ctx, l.arrival)
	must(err)
	l.account, err = tn.app.Users().State(ctx, tn.user)
	must(err)
	l.begin(t, tn)
	return l
}

// begin begins a sign-in by the provider in a browser, and one by the direct API.
func (l *letters) begin(t *testing.T, tn *tenant) {
	t.Helper()
	begun := do(t, tn.app.Handler(), "GET", "/"+tn.slug+"/oauth/acme/login", nil, header("X-Forwarded-Proto", "https"))
	to, err := url.Parse(begun.header.Get("Location"))
	if err != nil || begun.status != http.StatusSeeOther {
		t.Fatalf("begin at %s: %d %s", tn.slug, begun.status, begun.raw)
	}
	l.state = url.Values{"state": to.Query()["state"], "code": {stranger{ID: "of " + tn.slug}.code()}}
	c, err := http.ParseSetCookie(begun.header.Get("Set-Cookie"))
	if err != nil {
		t.Fatal(err)
	}
	l.cookieName, l.cookie = c.Name, c.Value
	if l.begun, err = tn.app.Social().Begin(t.Context(), "acme", social.BeginOptions{}); err != nil {
		t.Fatal(err)
	}
}

// bodies are what the routes are given that take something mailed.
func (l *letters) bodies() map[string]any {
	out := map[string]any{
		"POST /email/verify":          obj("token", l.tokens[mail.VerifyEmail]),
		"POST /password/reset":        obj("token", l.tokens[mail.ResetPassword], "new_password", "another long passphrase"),
		"POST /email/change":          obj("new_email", "x@example.com"),
		"POST /email/change/confirm":  obj("token", l.tokens[mail.ChangeEmail]),
		"POST /magic-link/consume":    obj("token", l.tokens[mail.MagicLink]),
		"POST /code/consume":          obj("flow_id", l.flow, "code", l.code),
		"POST /invitations":           obj("email", "x@example.com"),
		"POST /identities/{provider}": obj(),
	}
	for route := range l.asking() {
		out[route] = obj("email", "nobody@example.com")
	}
	return out
}

// asking are the routes that answer everybody alike.
func (l *letters) asking() map[string]bool {
	return map[string]bool{"POST /email/verify/send": true, "POST /password/forgot": true, "POST /magic-link": true, "POST /code": true}
}

// turnedAway checks that a callback sends the browser back with a refusal and without a
// session.
func (tn *tenant) turnedAway(t *testing.T, what string, r *response) {
	t.Helper()
	to, err := url.Parse(r.header.Get("Location"))
	if err != nil || r.status != http.StatusSeeOther || to.Query().Get("error") != "flow_invalid" {
		t.Errorf("%s: %d %s %s", what, r.status, r.header.Get("Location"), r.raw)
	}
	if inJar(r) != nil {
		t.Errorf("%s: a session is handed out", what)
	}
}

// byLetter brings to one app what was mailed to people of another, and a sign-in that was
// begun there.
func byLetter(t *testing.T, of, at *tenant) (pairs int) {
	t.Helper()
	base, l := "/"+at.slug, of.letters
	own := bearer(at.access)
	for _, tt := range []struct {
		method, path string
		body         any
		status       int
		code         string
	}{
		{"POST", "/register", obj("invitation", l.tokens[mail.Invitation], "password", of.password), 400, "link_invalid"},
		{"POST", "/register", obj("invitation", l.tokens[mail.Invitation], "email", "guest@example.com", "password", of.password), 400, "link_invalid"},
		{"DELETE", "/invitations/" + l.invitation.ID, nil, 404, "not_found"},
		{"DELETE", "/identities?provider=acme&subject=" + url.QueryEscape(l.arrival.Subject), nil, 404, "not_found"},
		{"GET", "/identities", nil, 200, ""},
		{"GET", "/invitations", nil, 200, ""},
	} {
		pairs++
		r := do(t, at.app.Handler(), tt.method, base+tt.path, tt.body, own)
		if r.status != tt.status || r.code() != tt.code || strings.Contains(r.raw, l.invitation.ID) || strings.Contains(r.raw, l.arrival.Subject) {
			t.Errorf("%s %s at %s with what belongs to %s: %d %s", tt.method, tt.path, at.slug, of.slug, r.status, r.raw)
		}
	}
	for route, body := range l.bodies() {
		if _, path, _ := strings.Cut(route, " "); body.(map[string]any)["token"] != nil || path == "/code/consume" {
			pairs++
			if r := do(t, at.app.Handler(), "POST", base+path, body, own); r.status != 400 || r.code() != "link_invalid" {
				t.Errorf("%s at %s with what was mailed by %s: %d %s", route, at.slug, of.slug, r.status, r.raw)
			}
		}
	}
	renamed := strings.Replace(l.cookieName, of.slug, at.slug, 1)
	for _, name := range []string{l.cookieName, renamed} {
		pairs++
		r := do(t, at.app.Handler(), "GET", base+"/oauth/acme/callback?"+l.state.Encode(), nil, header("Cookie", name+"="+l.cookie))
		at.turnedAway(t, "a sign-in that was begun at "+of.slug+" in the cookie "+name, r)
	}
	return pairs + lettersDirectly(t, of, at)
}

// lettersDirectly is byLetter for the direct API.
func lettersDirectly(t *testing.T, of, at *tenant) (pairs int) {
	t.Helper()
	ctx, app, l := t.Context(), at.app, of.letters
	second := func(_ any, err error) error { return err }
	third := func(_, _ any, err error) error { return err }
	r, u, once, id := app.Recovery(), app.Users(), app.OneTime(), app.Identities()
	link := users.LinkOf("acme", l.arrival.Subject)
	_, finished := app.Social().Finish(ctx, "acme", l.state, l.begun.Cookie)
	for name, tt := range map[string]struct{ err, want error }{
		"Recovery.VerifyEmail":      {second(r.VerifyEmail(ctx, l.tokens[mail.VerifyEmail])), recovery.ErrInvalid},
		"Recovery.ResetPassword":    {r.ResetPassword(ctx, l.tokens[mail.ResetPassword], "another long passphrase", recovery.From{}), recovery.ErrInvalid},
		"Recovery.ConfirmEmail":     {r.ConfirmEmail(ctx, l.tokens[mail.ChangeEmail], recovery.From{}), recovery.ErrInvalid},
		"Recovery.ConsumeMagicLink": {second(r.ConsumeMagicLink(ctx, l.tokens[mail.MagicLink])), recovery.ErrInvalid},
		"Recovery.ConsumeCode":      {second(r.ConsumeCode(ctx, l.flow, l.code)), recovery.ErrInvalid},
		"Recovery.ChangeEmail":      {r.ChangeEmail(ctx, of.user, "", "x@example.com", recovery.From{}), users.ErrNotFound},
		"Recovery.PasswordChanged":  {r.PasswordChanged(ctx, of.user, recovery.From{}), users.ErrNotFound},
		"Users.State":               {second(u.State(ctx, of.user)), users.ErrNotFound},
		"Users.Reauthenticate":      {u.Reauthenticate(ctx, of.user, of.password, ""), users.ErrNotFound},
		"Users.VerifyEmail":         {second(u.VerifyEmail(ctx, of.user, email)), users.ErrChanged},
		"Users.Reclaim":             {second(u.Reclaim(ctx, l.account)), users.ErrChanged},
		"Users.ResetPassword":       {second(u.ResetPassword(ctx, of.user, users.Mailed{Stamp: l.account.Stamp}, "another long passphrase")), users.ErrChanged},
		"Users.ChangeEmail":         {second(u.ChangeEmail(ctx, of.user, users.EmailChange{From: email, To: "x@example.com", Stamp: l.account.Stamp})), users.ErrChanged},
		"Users.AddLink":             {u.AddLink(ctx, l.account, link), users.ErrChanged},
		"Users.RemoveLink":          {u.RemoveLink(ctx, of.user, link, true), users.ErrNotFound},
		"OneTime.Peek":              {second(once.Peek(ctx, "reset_password", l.tokens[mail.ResetPassword])), onetime.ErrInvalid},
		"OneTime.Consume":           {second(once.Consume(ctx, "reset_password", l.tokens[mail.ResetPassword])), onetime.ErrInvalid},
		"OneTime.Try":               {second(once.Try(ctx, "email_code", l.flow, l.code)), onetime.ErrInvalid},
		"OneTime.Revoke":            {repeatable(once.Revoke(ctx, of.user)), errNothing},
		"Identities.List":           {second(id.List(ctx, of.user)), users.ErrNotFound},
		"Identities.Unlink":         {id.Unlink(ctx, of.user, "acme", l.arrival.Subject), users.ErrNotFound},
		"Identities.Tokens":         {second(id.Tokens(ctx, of.user, "acme", l.arrival.Subject)), users.ErrNotFound},
		"Identities.KeepTokens":     {repeatable(id.KeepTokens(ctx, of.user, l.arrival)), errNothing},
		"Identities.Forget":         {repeatable(id.Forget(ctx, of.user)), errNothing},
		"Identities.Stale":          {repeatable(second(id.Stale(ctx, l.arrival, of.user))), errNothing},
		"Invitations.Revoke":        {app.Invitations().Revoke(ctx, l.invitation.ID), invitation.ErrNotFound},
		"Invitations.Accept":        {third(app.Invitations().Accept(ctx, l.tokens[mail.Invitation], users.NewUser{Password: of.password})), invitation.ErrInvalid},
		"Social.Finish":             {finished, social.ErrFlow},
	} {
		pairs++
		if !errors.Is(tt.err, tt.want) {
			t.Errorf("%s at %s with what belongs to %s: %v; want %v", name, at.slug, of.slug, tt.err, tt.want)
		}
	}
	// A registration of another app is sealed for it.
	if m, err := r.Compose(ctx, l.register); m != nil || err == nil {
		t.Errorf("%s composes a registration of %s: %v, %v", at.slug, of.slug, m, err)
	}
	return pairs + 1
}
