package engine_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// counted is what an operation whose requests are limited is sent, where that is not
// the account.
func counted(refreshToken string) map[string]any {
	const form = "grant_type=client_credentials&token=x"
	token, address := obj("token", "x"), obj("email", "nobody@example.com")
	return map[string]any{
		"POST /auth/anonymous": nil, "POST /auth/demo": nil, "POST /auth/refresh": obj("refresh_token", refreshToken),
		"POST /auth/password": obj("current_password", "wrong", "new_password", "another long passphrase"),
		"POST /auth/api-keys": obj("name", "key"), "POST /auth/invitations": address,
		"POST /auth/oauth2/token": form, "POST /auth/oauth2/introspect": form, "POST /auth/oauth2/revoke": form,
		"POST /auth/email/verify": token, "POST /auth/email/verify/send": address,
		"POST /auth/email/change": obj("new_email", "nobody@example.com"), "POST /auth/email/change/confirm": token,
		"POST /auth/password/forgot": address, "POST /auth/password/reset": with(token, "new_password", "another long passphrase"),
		"POST /auth/magic-link": address, "POST /auth/magic-link/consume": token,
		"POST /auth/code": address, "POST /auth/code/consume": obj("flow_id", "x", "code", "y"),
		beginRoute: nil, finishRoute: nil, linkRoute: nil, unlinkRoute: nil,
	}
}

// What is limited says so as the document has it.
func TestLimitsAreDescribed(t *testing.T) {
	t.Parallel()
	var one []string
	for _, rule := range []string{
		"login", "register", "anonymous", "refresh", "password", "token", "token_address", "api_keys",
		"mail", "mail_address", "consume", "oauth", "identities", "invitations",
	} {
		one = append(one, fmt.Sprintf(`%q:{"max":1}`, rule))
	}
	c := wholeWorld(t, `"rate_limits":{`+strings.Join(one, ",")+`},`+wholeAuth)
	c.newUser(email)
	in := c.want(c.do("POST", "/auth/login", account), 200, "")
	bodies := counted(in.text("refresh_token"))
	c.operations(func(route string, _ []string, op map[string]any) {
		if objectAt(op, "responses")["429"] == nil {
			return
		}
		body, other := bodies[route]
		if !other {
			body = account
		}
		_, path, _ := strings.Cut(route, " ")
		if path = strings.ReplaceAll(path, "{provider}", "acme"); route == unlinkRoute {
			path += "?provider=acme&subject=1"
		}
		// Each from an address of its own, and as somebody of its own.
		edit, code := []request{from(fmt.Sprintf("198.51.100.%d:1", len(c.seen)+1))}, "rate_limited"
		switch {
		case strings.Contains(path, "/oauth2/"):
			edit, code = append(edit, sentAsForm, clientBasic("cli_x", "y")), "temporarily_unavailable"
		case requires(op):
			id, user := c.newUser(op["operationId"].(string) + "@example.com")
			if err := c.app.Authz().SetRoles(t.Context(), id, "root"); err != nil {
				t.Fatal(err)
			}
			edit = append(edit, user)
		}
		c.lenient(route, path, body, edit...)
		r := c.call(route, path, body, 429, code, edit...)
		for _, name := range []string{"X-Ratelimit-Limit", "X-Ratelimit-Remaining", "Ratelimit", "Ratelimit-Policy"} {
			if r.header.Get(name) == "" {
				t.Errorf("%s: the refusal has no %s", route, name)
			}
		}
	})
	if len(c.seen) != 25 {
		t.Errorf("%d operations are limited, want 25: %v", len(c.seen), slices.Sorted(maps.Keys(c.seen)))
	}
}
