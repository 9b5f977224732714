package engine_test

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/mongo"

	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/tokens/oauth2"
	"github.com/mandate-auth/mandate/users"
	"github.com/mandate-auth/mandate/users/invitation"
)

const byInvitation = `"users":{"allow_registration":"invite_only"},"policy":{"authorization":{"default_roles":["user","editor","admin"],"initial_policies":[["editor","mandate","users"],["admin","mandate","users"],["admin","mandate","escalate"]]}}`

// inviting is a world that lets in who was invited, and an administrator of it.
func inviting(t *testing.T) (*mailRoom, request) {
	t.Helper()
	return invitingOn(t, storetest.Database(t), byInvitation)
}

func invitingOn(t *testing.T, db *mongo.Database, auth string) (*mailRoom, request) {
	t.Helper()
	m := mailingOn(t, db, auth)
	return m, m.member("boss@example.com", "admin")
}

// open is byInvitation for an app that lets in guests, and who registers, as well.
func open() string {
	return strings.Replace(byInvitation, `"allow_registration":"invite_only"`, `"allow_registration":true,"allow_anonymous_users":true`, 1)
}

// invites invites the person to a role, and returns the invitation's id and its token.
func (m *mailRoom) invites(by request, role string) (id, token string) {
	m.t.Helper()
	made := m.want(m.do("POST", "/auth/invitations", obj("email", email, "role", role), by), 201, "")
	token = m.token(email)
	m.settled()
	return made.at("invitation", "id").(string), token
}

// assigned are the roles that an account was granted, in order.
func (m *mailRoom) assigned(id any) string {
	m.t.Helper()
	roles, err := m.app.Authz().AssignedRoles(m.t.Context(), id.(string))
	if err != nil {
		m.t.Fatal(err)
	}
	return strings.Join(roles, " ")
}

// member is a person whom the service has made, and who is signed in.
func (m *mailRoom) member(address string, roles ...string) request {
	m.t.Helper()
	u, err := m.app.Users().Create(m.t.Context(), users.NewUser{Email: address, Password: password})
	if err != nil {
		m.t.Fatal(err)
	}
	if err := m.app.Authz().SetRoles(m.t.Context(), u.ID, roles...); err != nil {
		m.t.Fatal(err)
	}
	return bearer(m.want(m.do("POST", "/auth/login", obj("email", address, "password", password)), 200, "").text("access_token"))
}

// Only who was invited registers, with the address and the role of the invitation.
func TestInvitation(t *testing.T) {
	t.Parallel()
	m, boss := inviting(t)
	m.want(m.do("POST", "/auth/register", account), 403, "registration_disabled")
	made := m.want(m.do("POST", "/auth/invitations", obj("email", email, "role", "editor"), boss), 201, "")
	if made.at("invitation", "state") != "pending" || made.at("invitation", "email") != email || strings.Contains(made.raw, "mot_") {
		t.Errorf("%s", made.raw)
	}
	token := m.token(email)
	register := obj("invitation", token, "password", password)
	m.want(m.do("POST", "/auth/register", with(register, "email", bob)), 422, "invalid_field")
	m.want(m.do("POST", "/auth/register", with(register, "password", "short")), 422, "password_too_short")
	m.want(m.do("POST", "/auth/register", with(register, "invitation", "mot_"+strings.Repeat("0", 43))), 400, "link_invalid")
	in := m.want(m.do("POST", "/auth/register", register), 201, "")
	if in.at("user", "email") != email || in.at("user", "email_verified") != true {
		t.Errorf("%s", in.raw)
	}
	roles, err := m.app.Authz().AssignedRoles(t.Context(), in.at("user", "id").(string))
	if err != nil || strings.Join(roles, " ") != "editor user" {
		t.Errorf("%v, %v", roles, err)
	}
	m.want(m.do("POST", "/auth/register", register), 400, "link_invalid")
	list := m.want(m.do("GET", "/auth/invitations", nil, boss), 200, "")
	if !strings.Contains(list.raw, `"state":"accepted"`) || !strings.Contains(list.raw, in.at("user", "id").(string)) {
		t.Errorf("%s", list.raw)
	}
}

// What inviting refuses.
func TestInvitationRefuses(t *testing.T) {
	t.Parallel()
	m, boss := inviting(t)
	editor := m.member("editor@example.com", "editor")
	user := m.member("user@example.com", "user")
	m.want(m.do("POST", "/auth/invitations", obj("email", email)), 401, "unauthenticated")
	m.want(m.do("POST", "/auth/invitations", obj("email", email), user), 403, "forbidden")
	m.want(m.do("GET", "/auth/invitations", nil, user), 403, "forbidden")
	m.want(m.do("POST", "/auth/invitations", obj("email", email, "role", "admin"), editor), 403, "forbidden")
	m.want(m.do("POST", "/auth/invitations", obj("email", email, "role", "captain"), boss), 422, "invalid_field")
	m.want(m.do("POST", "/auth/invitations", obj("email", "a@b, c@d"), boss), 422, "invalid_field")
	m.want(m.do("POST", "/auth/invitations", obj("email", email, "invited_by", "usr_x"), boss), 400, "invalid_request")
	m.want(m.do("DELETE", "/auth/invitations/inv_nothing", nil, boss), 404, "not_found")

	id := m.want(m.do("POST", "/auth/invitations", obj("email", email, "role", "editor"), editor), 201, "").at("invitation", "id").(string)
	token := m.token(email)
	m.want(m.do("DELETE", "/auth/invitations/"+id, nil, boss), 204, "")
	m.want(m.do("POST", "/auth/register", obj("invitation", token, "password", password)), 400, "link_invalid")
	m.want(m.do("DELETE", "/auth/invitations/"+id, nil, boss), 204, "")

	m.want(m.do("POST", "/auth/invitations", obj("email", email), boss), 201, "")
	token = m.token(email)
	m.move(7 * 24 * time.Hour)
	m.want(m.do("POST", "/auth/register", obj("invitation", token, "password", password)), 400, "link_invalid")
}

// Of many who accept at once one gets the account.
func TestInvitationOnce(t *testing.T) {
	t.Parallel()
	m, boss := inviting(t)
	m.want(m.do("POST", "/auth/invitations", obj("email", email), boss), 201, "")
	token := m.token(email)
	var in, refused atomic.Int32
	var who atomic.Value
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			switch r := m.do("POST", "/auth/register", obj("invitation", token, "password", password)); r.status {
			case 201:
				in.Add(1)
				who.Store(r.at("user", "id").(string))
			case 400, 409:
				refused.Add(1)
			default:
				t.Errorf("%d %s", r.status, r.raw)
			}
		})
	}
	wg.Wait()
	if in.Load() != 1 || refused.Load() != 19 {
		t.Errorf("%d let in, %d refused", in.Load(), refused.Load())
	}
	list := m.want(m.do("GET", "/auth/invitations", nil, boss), 200, "")
	if id, _ := who.Load().(string); id == "" || !strings.Contains(list.raw, `"user_id":"`+id+`"`) {
		t.Errorf("%v was let in, and listed is %s", who.Load(), list.raw)
	}
}

// An invitation whose acceptance failed can be taken back: otherwise its link lets
// somebody in whom nobody wants any more.
func TestInvitationRevokedAfterFailure(t *testing.T) {
	t.Parallel()
	db, f := faulty(t)
	m, boss := invitingOn(t, db, byInvitation)
	id, token := m.invites(boss, "editor")
	f.Arm(storetest.BeforeTwice, storetest.Step{Command: "insert users", Nth: 1}, nil)
	r := m.do("POST", "/auth/register", obj("invitation", token, "password", password))
	if trace, hits := f.Disarm(); hits == 0 {
		t.Fatalf("%v", trace)
	}
	m.want(r, 503, "unavailable")
	m.want(m.do("DELETE", "/auth/invitations/"+id, nil, boss), 204, "")
	m.want(m.do("POST", "/auth/register", obj("invitation", token, "password", password)), 400, "link_invalid")
}

// An invitation makes one account, also where that is deleted and its link was not used
// up: who was let go does not come back by it.
func TestInvitationOfDeletedAccount(t *testing.T) {
	t.Parallel()
	for step, at := range map[string]storetest.Step{
		"the link":       {Command: "findAndModify onetime_tokens", Nth: 1},
		"the invitation": {Command: "update invitations", Nth: 2},
	} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			db, f := faulty(t)
			m, boss := invitingOn(t, db, byInvitation)
			_, token := m.invites(boss, "editor")
			f.Arm(storetest.BeforeTwice, at, nil)
			r := m.do("POST", "/auth/register", obj("invitation", token, "password", password))
			if trace, hits := f.Disarm(); hits == 0 {
				t.Fatalf("%v", trace)
			}
			m.want(r, 503, "unavailable")
			in := m.login() // it is there, and used
			if err := m.app.Users().Delete(t.Context(), in.at("user", "id").(string)); err != nil {
				t.Fatal(err)
			}
			m.want(m.do("POST", "/auth/register", obj("invitation", token, "password", password)), 400, "link_invalid")
		})
	}
}

// A guest who accepts and loses the address to somebody else keeps no role: it would be
// that of the next person whom the guest becomes.
func TestInvitedGuestWhoLoses(t *testing.T) {
	t.Parallel()
	for _, verified := range []bool{true, false} {
		db, f := faulty(t)
		m, boss := invitingOn(t, db, open())
		_, token := m.invites(boss, "editor")
		g := m.do("POST", "/auth/anonymous", nil)
		var once sync.Once
		f.Arm(storetest.Cancel, storetest.Step{Command: "findAndModify users", Nth: 1}, func() {
			once.Do(func() {
				if _, err := m.app.Users().Register(t.Context(), users.NewUser{Email: email, Password: "another fine passphrase", Verified: verified}); err != nil {
					t.Error(err)
				}
			})
		})
		r := m.do("POST", "/auth/register", obj("invitation", token, "password", password), bearer(g.text("access_token")))
		f.Disarm()
		if want := map[bool]int{true: 409, false: 201}[verified]; r.status != want || r.at("user", "id") == g.at("user", "id") {
			t.Errorf("verified %t: %d %s", verified, r.status, r.raw)
		}
		if roles := m.assigned(g.at("user", "id")); strings.Contains(roles, "editor") {
			t.Errorf("verified %t: the guest has %q", verified, roles)
		}
	}
}

// A guest who accepts has the role as the person.
func TestInvitedGuest(t *testing.T) {
	t.Parallel()
	m, boss := invitingOn(t, storetest.Database(t), open())
	_, token := m.invites(boss, "editor")
	g := m.do("POST", "/auth/anonymous", nil)
	in := m.want(m.do("POST", "/auth/register", obj("invitation", token, "password", password), bearer(g.text("access_token"))), 201, "")
	if id := in.at("user", "id"); id != g.at("user", "id") || m.assigned(id) != "editor user" {
		t.Errorf("%s has %s", in.raw, m.assigned(id))
	}
}

// An invitation ends with the right of who has invited: who was let go gives no role, and
// lets nobody in.
func TestInvitationEndsWithTheInviter(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		role string
		end  func(m *mailRoom, id string) error
		want int
	}{
		"disabled":                {"admin", func(m *mailRoom, id string) error { return m.app.Users().Disable(m.t.Context(), id, "let go") }, 400},
		"deleted":                 {"admin", func(m *mailRoom, id string) error { return m.app.Users().Delete(m.t.Context(), id) }, 400},
		"disabled, no role":       {"", func(m *mailRoom, id string) error { return m.app.Users().Disable(m.t.Context(), id, "let go") }, 400},
		"without that role":       {"admin", func(m *mailRoom, id string) error { return m.app.Authz().SetRoles(m.t.Context(), id, "user") }, 400},
		"with the role still":     {"editor", func(m *mailRoom, id string) error { return m.app.Authz().SetRoles(m.t.Context(), id, "editor") }, 201},
		"without roles, for none": {"", func(m *mailRoom, id string) error { return m.app.Authz().SetRoles(m.t.Context(), id) }, 201},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, boss := inviting(t)
			_, token := m.invites(boss, c.role)
			u, err := m.app.Users().GetByEmail(t.Context(), "boss@example.com")
			if err == nil {
				err = c.end(m, u.ID)
			}
			if err != nil {
				t.Fatal(err)
			}
			m.want(m.do("POST", "/auth/register", obj("invitation", token, "password", password)), c.want, map[int]string{400: "link_invalid"}[c.want])
			if _, err := m.app.Users().GetByEmail(t.Context(), email); (err == nil) != (c.want == 201) {
				t.Errorf("the account: %v", err)
			}
		})
	}
}

// The same goes for a client that has invited, and what the service says by itself stands.
func TestInvitationOfMachineAndService(t *testing.T) {
	t.Parallel()
	m, _ := invitingOn(t, storetest.Database(t), byInvitation+`,`+clients)
	ctx, z := t.Context(), m.app.Authz()
	c, err := m.app.Clients().Create(ctx, oauth2.NewClient{Name: "hr"})
	if err != nil {
		t.Fatal(err)
	}
	accepts := func(by, address string, want int) {
		t.Helper()
		if _, err := m.app.Invitations().Create(ctx, invitation.NewInvitation{Email: address, Role: "editor", InvitedBy: by}); err != nil {
			t.Fatal(err)
		}
		m.want(m.do("POST", "/auth/register", obj("invitation", m.token(address), "password", password)), want, map[int]string{400: "link_invalid"}[want])
	}
	accepts(c.Client.ID, "1@example.com", 400) // it has not the role
	if err := z.GrantRole(ctx, c.Client.ID, "editor"); err != nil {
		t.Fatal(err)
	}
	accepts(c.Client.ID, "2@example.com", 201)
	if err := m.app.Clients().Disable(ctx, c.Client.ID, "old"); err != nil {
		t.Fatal(err)
	}
	accepts(c.Client.ID, "3@example.com", 400)
	if err := m.app.Clients().Delete(ctx, c.Client.ID); err != nil {
		t.Fatal(err)
	}
	accepts(c.Client.ID, "4@example.com", 400)
	accepts("", "5@example.com", 201)
	accepts("back office", "6@example.com", 201)
}

// Who was invited is not kept out by who has registered the address before, and nothing of
// that is left: neither password nor session nor API key.
func TestInvitedOwnerOfSquattedAddress(t *testing.T) {
	t.Parallel()
	m, boss := invitingOn(t, storetest.Database(t), open()+`,`+apiKeys)
	squatter := m.register()
	m.token(email)
	key := m.want(m.do("POST", "/auth/api-keys", obj("name", "k"), bearer(squatter.text("access_token"))), 201, "").text("key")
	_, token := m.invites(boss, "editor")
	const own = "what only the owner knows"
	in := m.want(m.do("POST", "/auth/register", obj("invitation", token, "password", own)), 201, "")
	if in.at("user", "email_verified") != true || m.assigned(in.at("user", "id")) != "editor user" {
		t.Errorf("%s has %s", in.raw, m.assigned(in.at("user", "id")))
	}
	m.want(m.do("POST", "/auth/login", account), 401, "invalid_credentials")
	m.want(m.do("POST", "/auth/login", obj("email", email, "password", own)), 200, "")
	if r := m.do("POST", "/auth/refresh", obj("refresh_token", squatter.text("refresh_token"))); r.status != 401 {
		t.Errorf("the squatter's session: %d %s", r.status, r.raw)
	}
	for name, credential := range map[string]string{"access token": squatter.text("access_token"), "key": key} {
		if r := m.do("GET", "/auth/me", nil, bearer(credential)); r.status != 401 {
			t.Errorf("the squatter's %s: %d %s", name, r.status, r.raw)
		}
	}
	// Somebody who has proved the address is told so, and loses nothing.
	m.want(m.do("POST", "/auth/invitations", obj("email", email), boss), 201, "")
	m.taken[email]++ // that the account has changed hands
	m.want(m.do("POST", "/auth/register", obj("invitation", m.token(email), "password", password)), 409, "email_taken")
	m.want(m.do("POST", "/auth/login", obj("email", email, "password", own)), 200, "")
}
