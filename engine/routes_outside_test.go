package engine_test

import (
	"strings"
	"testing"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/internal/store/storetest"
)

// outsideRoutes are the routes of mail, invitations and providers, with bodies that they
// take.
func outsideRoutes() map[string]map[string]any {
	token := "mot_" + strings.Repeat("a", 43)
	return map[string]map[string]any{
		"POST /email/verify":         obj("token", token),
		"POST /email/verify/send":    obj("email", bob),
		"POST /password/forgot":      obj("email", bob),
		"POST /password/reset":       obj("token", token, "new_password", "another long passphrase"),
		"POST /email/change":         obj("new_email", bob, "current_password", password),
		"POST /email/change/confirm": obj("token", token),
		"POST /magic-link":           obj("email", bob, "next", "/cart"),
		"POST /magic-link/consume":   obj("token", token, "transport", "bearer", "device", obj("id", "x", "name", "y"), "remember_me", false),
		"POST /code":                 obj("email", bob),
		"POST /code/consume":         obj("flow_id", "mof_"+strings.Repeat("a", 43), "code", "123456", "transport", "bearer"),
		"POST /invitations":          obj("email", bob, "role", "user"),
		"POST /identities/acme":      obj("next", "/cart", "current_password", password),
		"POST /register":             obj("invitation", token, "password", "another long passphrase", "email", bob),
	}
}

// What MongoDB takes for an operator is a refusal in every member of the routes of mail,
// invitations and providers, never a 500 and never a match.
func TestOperatorsInEveryFieldOutside(t *testing.T) {
	t.Parallel()
	m := mailing(t, mails+","+outside+`,"users":{"lockout":{"max_failures":100}},"policy":{"authorization":{"default_roles":["user","admin"],"initial_policies":[["admin","mandate","users"]]}}`, strangers)
	in := m.register()
	if err := m.app.Authz().SetRoles(t.Context(), m.idOf(in), "user", "admin"); err != nil {
		t.Fatal(err)
	}
	token := bearer(in.text("access_token"))
	n := 0
	for route, body := range outsideRoutes() {
		method, path, _ := strings.Cut(route, " ")
		for member := range body {
			for _, payload := range operators() {
				n++
				r := m.do(method, "/auth"+path, with(body, member, payload), token)
				if r.status < 400 || r.status >= 500 {
					t.Errorf("%s with %s = %v: %d %s", route, member, payload, r.status, r.raw)
				}
			}
		}
	}
	t.Logf("%d bodies", n)
}

// What the manifest does not enable is not there.
func TestDisabledRoutesOutside(t *testing.T) {
	t.Parallel()
	oauth := []string{"GET /oauth/providers", "GET /oauth/acme/login", "GET /oauth/acme/callback", "GET /identities", "DELETE /identities", "POST /identities/acme"}
	mailed := []string{
		"POST /email/verify", "POST /email/verify/send", "POST /password/forgot", "POST /password/reset", "POST /email/change", "POST /email/change/confirm",
	}
	link, code := []string{"POST /magic-link", "POST /magic-link/consume"}, []string{"POST /code", "POST /code/consume"}
	invite := []string{"GET /invitations", "POST /invitations", "DELETE /invitations/x"}
	for _, tt := range []struct {
		auth string
		on   [][]string
	}{
		{``, nil},
		{outside, [][]string{oauth}},
		{`"mail":{"from":"a@shop.example"}`, [][]string{mailed, invite}},
		{`"mail":{"from":"a@shop.example"},"users":{"allow_registration":false}`, [][]string{mailed}},
		{`"mail":{"from":"a@shop.example","magic_link":true}`, [][]string{mailed, invite, link}},
		{`"mail":{"from":"a@shop.example","email_code":true}`, [][]string{mailed, invite, code}},
	} {
		w := newWorld(t, storetest.Database(t), manifestOf(t, "shop", tt.auth, publicShop), strangers, func(o *engine.Options) { o.Mailer = newPostbox() })
		on := map[string]bool{}
		for _, list := range tt.on {
			for _, route := range list {
				on[route] = true
			}
		}
		for _, list := range [][]string{oauth, mailed, link, code, invite} {
			for _, route := range list {
				method, path, _ := strings.Cut(route, " ")
				if r := w.do(method, "/auth"+path, nil); on[route] == (r.code() == "not_found") {
					t.Errorf("%s: %s answers %d %s", tt.auth, route, r.status, r.code())
				}
			}
		}
	}
}
