package engine_test

import (
	"testing"

	"github.com/mandate-auth/mandate/users"
)

// Whoever was invited with a role has it.
func TestInvitedWithARole(t *testing.T) {
	t.Parallel()
	m := mailing(t, guests+`,"policy":{"authorization":{"default_roles":["user","admin"],"initial_policies":[["admin","mandate","users"],["admin","mandate","escalate"]]}}`)
	host, err := m.app.Users().Create(t.Context(), users.NewUser{Email: bob, Password: password})
	if err == nil {
		err = m.app.Authz().SetRoles(t.Context(), host.ID, "admin")
	}
	if err != nil {
		t.Fatal(err)
	}
	token := bearer(m.want(m.do("POST", "/auth/login", obj("email", bob, "password", password)), 200, "").text("access_token"))
	m.want(m.do("POST", "/auth/invitations", obj("email", email, "role", "admin"), token), 201, "")
	in := m.want(m.do("POST", "/auth/register", obj("invitation", m.token(email), "password", password)), 201, "")
	id, _ := in.at("user", "id").(string)
	if roles, err := m.app.Authz().AssignedRoles(t.Context(), id); err != nil || len(roles) != 2 || roles[0] != "admin" {
		t.Errorf("the roles are %q, %v", roles, err)
	}
}
