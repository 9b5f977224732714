package engine_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/users"
)

// Somebody who registers, and whose address is verified.
func (c *contract) verifiedUser(address string) *response {
	c.t.Helper()
	in := c.want(c.do("POST", "/auth/register", with(account, "email", address)), 201, "")
	c.want(c.do("POST", "/auth/email/verify", obj("token", c.token(address))), 204, "")
	return in
}

func (c *contract) driveMail() {
	const verify, send, forgot, reset = "POST /auth/email/verify", "POST /auth/email/verify/send", "POST /auth/password/forgot", "POST /auth/password/reset"
	const change, confirm = "POST /auth/email/change", "POST /auth/email/change/confirm"
	const who, fresh = "mail@example.com", "a new and better passphrase"
	c.do("POST", "/auth/register", with(account, "email", who))
	token := c.token(who)
	c.call(verify, "", obj("token", token), 204, "")
	c.call(verify, "", obj("token", token), 400, "link_invalid")
	c.call(verify, "", nil, 400, "invalid_request")
	for _, route := range []string{send, forgot} {
		c.call(route, "", obj("email", "Nobody@example.com"), 202, "")
		c.call(route, "", obj("email", "nobody"), 422, "invalid_field")
		c.call(route, "", nil, 400, "invalid_request")
	}

	c.call(forgot, "", obj("email", who), 202, "")
	token = c.token(who)
	c.call(reset, "", obj("token", token, "new_password", "short"), 422, "password_too_short")
	c.call(reset, "", obj("token", token), 400, "invalid_request")
	c.call(reset, "", obj("token", token, "new_password", fresh), 204, "")
	c.call(reset, "", obj("token", token, "new_password", fresh), 400, "link_invalid")
	c.mail(who) // that the password is another one

	user := bearer(c.do("POST", "/auth/login", obj("email", who, "password", fresh)).text("access_token"))
	c.call(change, "", obj("new_email", "changed@example.com", "current_password", "wrong"), 401, "invalid_credentials", user)
	c.call(change, "", obj("new_email", who), 422, "invalid_field", user)
	c.call(change, "", obj("new_email", "nobody"), 422, "invalid_field", user)
	c.call(change, "", obj("current_password", fresh), 400, "invalid_request", user)
	for _, to := range []string{"taken@example.com", "changed@example.com"} {
		c.call(change, "", obj("new_email", to, "current_password", fresh), 202, "", user)
	}
	token = c.token("taken@example.com")
	c.newUser("taken@example.com")
	c.call(confirm, "", obj("token", token), 409, "email_taken")
	token = c.token("changed@example.com")
	c.call(confirm, "", obj("token", token), 204, "")
	c.call(confirm, "", obj("token", token), 400, "link_invalid")
}

func (c *contract) driveSignInByMail() {
	const ask, consume, askCode, consumeCode = "POST /auth/magic-link", "POST /auth/magic-link/consume", "POST /auth/code", "POST /auth/code/consume"
	const who, crowd, shut = "link@example.com", "crowd@example.com", "shut@example.com"
	c.verifiedUser(who)
	for _, route := range []string{ask, askCode} {
		c.call(route, "", obj("email", "nobody@example.com"), 202, "")
		c.call(route, "", obj("email", "nobody"), 422, "invalid_field")
		c.call(route, "", nil, 400, "invalid_request")
	}
	c.call(ask, "", obj("email", who, "next", "//evil.example"), 422, "invalid_field")
	c.call(ask, "", obj("email", who, "next", "/cart?x=1"), 202, "")
	token, guest := c.token(who), c.do("POST", "/auth/anonymous", nil)
	c.call(consume, "", obj("token", token, "transport", "pigeon"), 422, "invalid_field")
	in := c.call(consume, "", obj("token", token, "remember_me", true, "device", obj("id", "d1", "name", "phone")), 200, "", bearer(guest.text("access_token")))
	if in.text("next") != "/cart?x=1" || in.at("previous_guest") != guest.at("user", "id") {
		c.t.Errorf("the sign-in of a guest by a link with a path: %s", in.raw)
	}
	c.call(consume, "", obj("token", token), 400, "link_invalid")
	c.call(consume, "", obj("token", "x"), 400, "link_invalid")
	c.call(consume, "", nil, 400, "invalid_request")

	code := obj("flow_id", c.call(askCode, "", obj("email", who), 202, "").text("flow_id"), "code", c.code(who))
	c.call(consumeCode, "", with(code, "transport", "pigeon"), 422, "invalid_field")
	c.call(consumeCode, "", with(code, "transport", "cookie"), 200, "")
	c.call(consumeCode, "", code, 400, "link_invalid")
	c.call(consumeCode, "", obj("flow_id", "x"), 400, "invalid_request")

	id := c.verifiedUser(crowd).at("user", "id").(string)
	for range 19 {
		_ = c.mailedToken(id)
	}
	c.do("POST", "/auth/magic-link", obj("email", crowd))
	c.call(consume, "", obj("token", c.token(crowd)), 409, "session_limit")
	flow := c.do("POST", "/auth/code", obj("email", crowd)).text("flow_id")
	c.call(consumeCode, "", obj("flow_id", flow, "code", c.code(crowd)), 409, "session_limit")

	id = c.verifiedUser(shut).at("user", "id").(string)
	c.do("POST", "/auth/magic-link", obj("email", shut))
	token = c.token(shut)
	if err := c.app.Users().Disable(c.t.Context(), id, "test"); err != nil {
		c.t.Fatal(err)
	}
	c.call(consume, "", obj("token", token), 403, "account_disabled")
}

func (c *contract) driveInvitations(root request) {
	const list, invite, revoke, register = "GET /auth/invitations", "POST /auth/invitations", "DELETE /auth/invitations/{id}", "POST /auth/register"
	const who, other = "invited@example.com", "other@example.com"
	c.call(invite, "", obj("email", who, "role", "editor"), 201, "", root)
	c.call(invite, "", obj("email", "nobody"), 422, "invalid_field", root)
	c.call(invite, "", obj("email", who, "role", "no-such-role"), 422, "invalid_field", root)
	c.call(invite, "", obj("role", "editor"), 400, "invalid_request", root)
	_, nobody := c.newUser("uninviting@example.com")
	c.call(invite, "", obj("email", who), 403, "forbidden", nobody)

	token := c.token(who)
	c.call(register, "", obj("invitation", token, "email", other, "password", password), 422, "invalid_field")
	c.call(register, "", obj("invitation", token, "password", password), 201, "")
	c.call(register, "", obj("invitation", token, "password", password), 400, "link_invalid")
	c.call(register, "", obj("password", password), 400, "invalid_request")

	made := c.call(invite, "", obj("email", other), 201, "", root)
	c.call(list, "", nil, 200, "", root)
	page := c.call(list, "/auth/invitations?limit=1", nil, 200, "", root)
	c.call(list, "/auth/invitations?limit=1&cursor="+page.text("next"), nil, 200, "", root)
	c.call(list, "/auth/invitations?cursor=x", nil, 400, "invalid_request", root)
	c.call(revoke, "/auth/invitations/"+made.at("invitation", "id").(string), nil, 204, "", root)
	used, _ := page.body["invitations"].([]any)
	c.call(revoke, "/auth/invitations/"+objectAt(used[0])["id"].(string), nil, 404, "not_found", root)
	c.call(revoke, "/auth/invitations/"+made.at("invitation", "id").(string), nil, 204, "", root)
	c.call(list, "", nil, 200, "", root)
}

// Where addresses have to be verified first, nobody learns whether one is taken.
func TestVerifiedRegistrationIsDescribed(t *testing.T) {
	t.Parallel()
	c := wholeWorld(t, `"mail":{"from":"Shop <no-reply@shop.example>"},"users":{"require_verified_email":true}`)
	c.call("POST /auth/register", "", account, 202, "")
	c.call("POST /auth/login", "", obj("email", "nobody@example.com", "password", password), 401, "invalid_credentials")
	c.call("POST /auth/email/verify", "", obj("token", c.token(email)), 204, "")
	c.call("POST /auth/login", "", account, 200, "")
	c.call("POST /auth/register", "", account, 202, "")
	made := users.NewUser{Email: bob, Password: password} // by the service, without a proof
	if _, err := c.app.Users().Create(t.Context(), made); err != nil {
		t.Fatal(err)
	}
	c.call("POST /auth/login", "", with(account, "email", bob), 403, "email_unverified")
	c.call("POST /auth/email/verify/send", "", obj("email", bob), 202, "")
	c.call("POST /auth/email/verify", "", obj("token", c.token(bob)), 204, "")
	c.call("POST /auth/login", "", with(account, "email", bob), 200, "")

	c = wholeWorld(t, `"mail":{"from":"Shop <no-reply@shop.example>"},"users":{"allow_registration":"invite_only"}`)
	c.call("POST /auth/register", "", account, 403, "registration_disabled")
}

// A guest who signs in to another account is told which one was left; what the service
// cannot move is a refusal.
func TestGuestsAreDescribed(t *testing.T) {
	t.Parallel()
	broken, moved := true, 0
	c := wholeWorld(t, wholeAuth, func(o *engine.Options) {
		o.GuestSignedIn = func(context.Context, string, string, string) error {
			if broken {
				return errors.New("the cart cannot be moved")
			}
			moved++
			return nil
		}
	})
	c.register()
	guest := c.call("POST /auth/anonymous", "", nil, 200, "")
	as := bearer(guest.text("access_token"))
	c.call("POST /auth/login", "", account, 409, "conflict", as)
	broken = false
	in := c.call("POST /auth/login", "", account, 200, "", as)
	if in.at("previous_guest") != guest.at("user", "id") {
		t.Errorf("the guest is not named: %s", in.raw)
	}
	kept := c.call("POST /auth/register", "", with(account, "email", bob), 201, "", as)
	if kept.at("user", "id") != guest.at("user", "id") || kept.at("previous_guest") != nil {
		t.Errorf("a guest who registers is somebody else: %s", kept.raw)
	}
	c.call("POST /auth/register", "", with(account, "email", "eve@example.com"), 409, "conflict", as)
	if c.call("POST /auth/login", "", account, 200, "", as); moved != 1 {
		t.Errorf("the service was told of %d guests who sign in, and one of them is a person by now", moved)
	}
}

// What an account is entered by is changed only after a sign-in of late.
func TestStaleSignInIsDescribed(t *testing.T) {
	t.Parallel()
	c := wholeWorld(t, wholeAuth)
	user := bearer(c.register().text("access_token"))
	c.move(11 * time.Minute)
	c.call("POST /auth/email/change", "", obj("new_email", bob), 401, "fresh_required", user)
	c.call("POST /auth/identities/{provider}", "/auth/identities/acme", nil, 401, "fresh_required", user)
	c.call("DELETE /auth/identities", "/auth/identities?provider=acme&subject=1", nil, 401, "fresh_required", user)
	c.call("POST /auth/identities/{provider}", "/auth/identities/acme", obj("current_password", "wrong"), 401, "invalid_credentials", user)
	c.call("POST /auth/identities/{provider}", "/auth/identities/acme", obj("current_password", password), 200, "", user)
}
