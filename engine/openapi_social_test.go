package engine_test

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/users"
	"github.com/mandate-auth/mandate/users/social/socialtest"
)

const (
	beginRoute  = "GET /auth/oauth/{provider}/login"
	finishRoute = "GET /auth/oauth/{provider}/callback"
	linkRoute   = "POST /auth/identities/{provider}"
	unlinkRoute = "DELETE /auth/identities"
)

// returns begins a sign-in by acme and comes back from there.
func (c *contract) returns(change func(url.Values), edit ...request) *response {
	c.t.Helper()
	begun := c.call(beginRoute, "/auth/oauth/acme/login", nil, 303, "", edit...)
	return c.back(begun.header.Get("Location"), cookieHeader(begun), change)
}

// back goes to acme and comes back from there.
func (c *contract) back(to string, cookie request, change func(url.Values)) *response {
	c.t.Helper()
	query := c.acme.Follow(c.t, to)
	if change != nil {
		change(query)
	}
	return c.call(finishRoute, callback("acme", query), nil, 303, "", cookie)
}

// sentBack checks that a redirect says why, in one of the words that the operation's
// description has.
func (c *contract) sentBack(route string, r *response, code string) {
	c.t.Helper()
	c.refusedWith(r, code)
	_, path, _ := strings.Cut(route, " ")
	if text, _ := objectAt(c.document, "paths", path, "get")["description"].(string); !strings.Contains(text, "`"+code+"`") {
		c.t.Errorf("%s does not describe %s", route, code)
	}
	if r.header.Get("Cache-Control") != "no-store" || r.header.Get("Referrer-Policy") != "no-referrer" {
		c.t.Errorf("%s may be kept, or tells where it came from: %v", route, r.header)
	}
}

// away changes the discovery document of bolt, which nobody has asked for or which is
// asked for again.
func (c *contract) away(change func(*http.Request, *socialtest.Answer)) {
	c.move(6 * time.Second)
	c.bolt.Change(socialtest.Discovery, change)
}

func (c *contract) driveProviders() {
	c.call("GET /auth/oauth/providers", "", nil, 200, "")
	c.call("GET /auth/oauth/providers", "/auth/oauth/providers?x=1", nil, 400, "invalid_request")
	c.call(beginRoute, "/auth/oauth/acme/login?next=//evil.example", nil, 400, "invalid_request")
	c.call(beginRoute, "/auth/oauth/acme/login?login_hint=%00", nil, 400, "invalid_request")
	_, user := c.newUser("linking@example.com")
	c.away(func(_ *http.Request, a *socialtest.Answer) { a.Status = 500 })
	c.sentBack(beginRoute, c.call(beginRoute, "/auth/oauth/bolt/login", nil, 303, ""), "provider_unavailable")
	c.call(linkRoute, "/auth/identities/bolt", nil, 503, "provider_unavailable", user)
	c.away(func(_ *http.Request, a *socialtest.Answer) { a.Edit("issuer", "https://other.example") })
	c.sentBack(beginRoute, c.call(beginRoute, "/auth/oauth/bolt/login", nil, 303, ""), "provider_refused")
	c.call(linkRoute, "/auth/identities/bolt", nil, 502, "provider_refused", user)
	c.away(nil)

	c.acme.RegisterUser(person("1", "provider@example.com", true))
	begun := c.call(beginRoute, "/auth/oauth/acme/login?next=/cart%3Fx%3D1&login_hint=ada@example.com&remember_me=true", nil, 303, "")
	cookie := cookieHeader(begun)
	query := c.acme.Follow(c.t, begun.header.Get("Location"))
	if r := c.call(finishRoute, callback("acme", query), nil, 303, "", cookie); r.header.Get("Location") != "/cart?x=1" {
		c.t.Errorf("after the sign-in: %v", r.header)
	}
	c.sentBack(finishRoute, c.call(finishRoute, callback("acme", query), nil, 303, "", cookie), "flow_invalid")
	c.sentBack(finishRoute, c.call(finishRoute, "/auth/oauth/acme/callback", nil, 303, ""), "flow_invalid")
	c.call(finishRoute, "/auth/oauth/acme/callback?%zz", nil, 400, "invalid_request")
	c.call(finishRoute, callback("nobody", query), nil, 404, "not_found", cookie)

	for code, failure := range map[string]string{"access_denied": "access_denied", "provider_unavailable": "temporarily_unavailable"} {
		c.sentBack(finishRoute, c.returns(func(query url.Values) {
			query.Del("code")
			query.Set("error", failure)
		}), code)
	}
	c.acme.Change(socialtest.Token, func(_ *http.Request, a *socialtest.Answer) { a.Status = 500 })
	c.sentBack(finishRoute, c.returns(nil), "provider_unavailable")
	c.acme.Change(socialtest.Token, func(_ *http.Request, a *socialtest.Answer) { a.Edit("id_token", "a.b.c") })
	c.sentBack(finishRoute, c.returns(nil), "provider_refused")
	c.acme.Change(socialtest.Token, nil)
}

func (c *contract) driveIdentities() {
	const list = "GET /auth/identities"
	c.acme.RegisterUser(person("2", "second@example.com", true))
	me := cookieHeader(c.returns(nil))
	shown := c.call(list, "", nil, 200, "", me)
	if list, _ := shown.body["identities"].([]any); len(list) != 1 {
		c.t.Errorf("identities: %s", shown.raw)
	}
	c.call(list, "/auth/identities?x=1", nil, 400, "invalid_request", me)

	c.acme.RegisterUser(person("3", "unproved@example.com", false))
	nameless := cookieHeader(c.returns(nil))
	c.call(unlinkRoute, "/auth/identities?provider=acme&subject=3", nil, 409, "last_credential", nameless, xhr)
	c.call(unlinkRoute, "/auth/identities?provider=acme&subject=2", nil, 404, "not_found", nameless, xhr)
	c.call(unlinkRoute, "/auth/identities?provider=acme", nil, 400, "invalid_request", nameless, xhr)

	begin := func(as ...request) *response {
		return c.call(linkRoute, "/auth/identities/acme", obj("next", "/linked"), 200, "", as...)
	}
	c.call(linkRoute, "/auth/identities/acme", obj("next", "//evil.example"), 400, "invalid_request", me)
	begun := begin(me)
	c.sentBack(finishRoute, c.back(begun.text("url"), cookieHeader(begun), nil), "link_forbidden")
	c.acme.RegisterUser(person("4", "second@example.com", true))
	begun = begin(me)
	if r := c.back(begun.text("url"), cookieHeader(begun), nil); r.header.Get("Location") != "/linked" {
		c.t.Errorf("after the link: %v", r.header)
	}
	c.call(unlinkRoute, "/auth/identities?provider=acme&subject=4", nil, 204, "", me, xhr)
	_, other := c.newUser("machine@example.com")
	c.call(list, "", nil, 200, "", other)
	begun = begin(me)
	c.want(c.do("POST", "/auth/logout", nil, me, xhr), 204, "")
	c.sentBack(finishRoute, c.back(begun.text("url"), cookieHeader(begun), nil), "session_expired")
}

// Whom the manifest or the account does not let in comes back with why.
func TestRefusedArrivalsAreDescribed(t *testing.T) {
	t.Parallel()
	c := wholeWorld(t, wholeAuth+`,"oauth":{"link":"signed_in","create_users":false}`)
	c.acme.RegisterUser(person("1", "new@example.com", true))
	c.sentBack(finishRoute, c.returns(nil), "registration_disabled")
	id := c.verifiedUser(email).at("user", "id").(string)
	c.acme.RegisterUser(person("1", email, true))
	c.sentBack(finishRoute, c.returns(nil), "account_exists")

	link := func(as request) *response {
		begun := c.call(linkRoute, "/auth/identities/acme", nil, 200, "", as)
		return c.back(begun.text("url"), cookieHeader(begun), nil)
	}
	me := c.mailedToken(id)
	if r := link(me); r.header.Get("Location") != "/" {
		t.Errorf("after the link: %v", r.header)
	}
	_, other := c.newUser(bob)
	c.sentBack(finishRoute, link(other), "identity_taken")
	for i := range users.MaxLinks - 1 {
		st, err := c.app.Users().State(t.Context(), id)
		if err == nil {
			err = c.app.Users().AddLink(t.Context(), st, users.LinkOf("bolt", strconv.Itoa(i)))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	c.acme.RegisterUser(person("2", "more@example.com", true))
	c.sentBack(finishRoute, link(me), "identity_limit")

	c.acme.SignIn("1")
	for range 18 {
		_ = c.mailedToken(id)
	}
	c.sentBack(finishRoute, c.returns(nil), "session_limit")
	if err := c.app.Users().Disable(t.Context(), id, "test"); err != nil {
		t.Fatal(err)
	}
	c.sentBack(finishRoute, c.returns(nil), "account_disabled")
}
