package engine_test

import (
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/tokens/oauth2"
)

// outage is what an operation is sent while the database is away: as far as it gets
// only with a body and a credential that are right.
func outage(c *contract, root string) map[string]struct {
	body any
	edit []request
} {
	type sent = struct {
		body any
		edit []request
	}
	c.t.Helper()
	made, err := c.app.Clients().Create(c.t.Context(), oauth2.NewClient{Name: "worker"})
	if err != nil {
		c.t.Fatal(err)
	}
	g := c.want(c.do("POST", "/auth/login", account), 200, "")
	client := []request{sentAsForm, clientBasic(made.ID, made.Secret)}
	flow := c.want(c.do("POST", "/auth/code", obj("email", "nobody@example.com")), 202, "").text("flow_id")
	mailed := c.token(email) // whose purpose nobody can look at
	all := map[string]sent{
		"POST /auth/register":                      {body: with(account, "email", "new@example.com")},
		"POST /auth/login":                         {body: account},
		"POST /auth/refresh":                       {body: obj("refresh_token", g.text("refresh_token"))},
		"POST /auth/logout":                        {body: obj("refresh_token", g.text("refresh_token"))},
		"PATCH /auth/me":                           {body: obj("profile", obj("a", "b"))},
		"POST /auth/password":                      {body: obj("current_password", password, "new_password", "another long passphrase")},
		"POST /auth/authorize":                     {body: obj("checks", []any{obj("object", "docs", "action", "read")})},
		"POST /auth/api-keys":                      {body: obj("name", "key")},
		"POST /auth/oauth2/token":                  {body: "grant_type=client_credentials", edit: client},
		"POST /auth/oauth2/introspect":             {body: "token=x", edit: client},
		"POST /auth/oauth2/revoke":                 {body: "token=x", edit: client},
		"POST /auth/admin/policies":                {body: obj("add", []any{rules1("editor", "docs", "print")})},
		"PUT /auth/admin/roles/{role}/permissions": {body: obj("permissions", []any{"docs:read"})},
		"PUT /auth/admin/users/{id}/roles":         {body: obj("roles", []any{"user"})},
		"POST /auth/admin/users/{id}/roles":        {body: obj("role", "editor")},
		"POST /auth/admin/clients":                 {body: obj("name", "client")},
		"PATCH /auth/admin/clients/{id}":           {body: obj("status", "disabled")},
		"POST /auth/email/verify":                  {body: obj("token", mailed)},
		"POST /auth/email/verify/send":             {body: obj("email", email)},
		"POST /auth/email/change":                  {body: obj("new_email", bob)},
		"POST /auth/email/change/confirm":          {body: obj("token", mailed)},
		"POST /auth/password/forgot":               {body: obj("email", email)},
		"POST /auth/password/reset":                {body: obj("token", mailed, "new_password", "another long passphrase")},
		"POST /auth/magic-link":                    {body: obj("email", email)},
		"POST /auth/magic-link/consume":            {body: obj("token", mailed)},
		"POST /auth/code":                          {body: obj("email", email)},
		"POST /auth/code/consume":                  {body: obj("flow_id", flow, "code", "123456")},
		"POST /auth/invitations":                   {body: obj("email", bob)},
	}
	// Each has a session of its own: some end the one that they come with.
	c.operations(func(route string, _ []string, op map[string]any) {
		s := all[route]
		if alternatives, _ := op["security"].([]any); len(alternatives) > 0 && s.edit == nil && !strings.HasPrefix(route, "POST /auth/refresh") {
			s.edit = []request{c.mailedToken(root)}
		}
		all[route] = s
	})
	return all
}

// served are operations that are described as unavailable and that an outage of the
// database does not reach, and why.
var served = map[string]string{
	"GET /.well-known/jwks.json": "the keys are loaded before the app serves",
}

// What cannot be decided or stored while the database is away is answered as
// described: at once by what has to ask it, and by all that takes a credential once
// too little is known of revocations.
func TestUnavailableIsDescribed(t *testing.T) {
	t.Parallel()
	link := &storetest.Link{}
	c := wholeWorldOn(t, storetest.Second(t, storetest.Database(t), link),
		// Sign-ins by providers ask the database first where they are counted there.
		strings.Replace(generous, `"oauth":{"max":1000}`, `"oauth":{"max":1000,"store":"mongodb"}`, 1)+","+strings.Replace(wholeAuth, `"max_per_user":20`, `"max_per_user":100`, 1))
	root := c.want(c.do("POST", "/auth/register", account), 201, "").at("user", "id").(string)
	if err := c.app.Authz().SetRoles(t.Context(), root, "root"); err != nil {
		t.Fatal(err)
	}
	sent := outage(c, root)
	link.Cut()
	for _, passed := range []time.Duration{0, time.Minute} {
		c.move(passed)
		answers := map[string]*response{}
		var mu sync.Mutex
		var calls sync.WaitGroup
		c.operations(func(route string, _ []string, _ map[string]any) {
			method, template, _ := strings.Cut(route, " ")
			path := strings.NewReplacer("{id}", root, "{role}", "editor", "{secret}", "sec_x", "{provider}", "acme").Replace(template)
			if route == unlinkRoute {
				path += "?provider=acme&subject=1"
			}
			if strings.Contains(template, "/clients/") {
				path = strings.NewReplacer("{id}", "cli_"+strings.Repeat("0", 26), "{secret}", "sec_x").Replace(template)
			}
			h := c.app.Handler()
			if strings.HasPrefix(path, "/.well-known/") {
				h = c.app.WellKnown()
			}
			calls.Go(func() {
				r := do(t, h, method, path, sent[route].body, sent[route].edit...)
				mu.Lock()
				defer mu.Unlock()
				answers[route] = r
			})
		})
		calls.Wait()
		for route, r := range answers {
			c.answered(route, r)
		}
	}
	link.Restore()
	c.operations(func(route string, _ []string, op map[string]any) {
		_, described := objectAt(op, "responses")["503"]
		if _, excused := served[route]; described && c.seen[route][503] == excused {
			seen, _ := json.Marshal(c.seen[route])
			t.Errorf("%s: 503 is described, and while the database was away it answered %s", route, seen)
		}
	})
}
