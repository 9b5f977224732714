package engine_test

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/engine/enginetest"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/users"
	"github.com/mandate-auth/mandate/users/social/socialtest"
)

// Somebody who comes for the first time gets an account, and comes back to it.
func TestOAuthSignIn(t *testing.T) {
	t.Parallel()
	d := doors(t, ``)
	d.acme.RegisterUser(person("1", email, true))
	b := d.browser()
	begun := b.do("GET", "/auth/oauth/acme/login?next=/cart%3Fx%3D1", nil)
	to, err := url.Parse(begun.header.Get("Location"))
	if err != nil || begun.status != 303 || begun.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %v", begun.status, begun.header)
	}
	q := to.Query()
	if q.Get("code_challenge_method") != "S256" || q.Get("nonce") == "" || len(q.Get("state")) < 43 || q.Get("redirect_uri") != "https://shop.example/auth/oauth/acme/callback" {
		t.Errorf("%s", to)
	}
	cookie := begun.header.Get("Set-Cookie")
	if !strings.HasPrefix(cookie, "__Host-shop_flow.") || !strings.Contains(cookie, "HttpOnly") || !strings.Contains(cookie, "Secure") || !strings.Contains(cookie, "SameSite=Lax") || !strings.Contains(cookie, "Path=/;") {
		t.Errorf("%s", cookie)
	}
	back := b.do("GET", callback("acme", d.acme.Follow(t, to.String())), nil)
	if back.status != 303 || back.header.Get("Location") != "/cart?x=1" || back.header.Get("Referrer-Policy") != "no-referrer" {
		t.Fatalf("%d %v %s", back.status, back.header, back.raw)
	}
	for name := range b.cookies {
		if strings.Contains(name, "_flow.") {
			t.Error("the cookie of the flow is left")
		}
	}
	me := b.signed()
	u, err := d.app.Users().Get(t.Context(), me)
	if err != nil || u.Email != email || !u.EmailVerified || u.Profile["name"] != "Ada 1" {
		t.Errorf("%+v, %v", u, err)
	}
	if again := d.comes(d.browser(), "acme", d.acme); again != me {
		t.Errorf("came back as %s, not %s", again, me)
	}
	// The address may change: it identifies nobody.
	d.acme.RegisterUser(person("1", "other@example.com", true))
	if again := d.comes(d.browser(), "acme", d.acme); again != me {
		t.Errorf("came back as %s after the address had changed", again)
	}
	d.acme.RegisterUser(person("2", email, true))
	d.bolt.RegisterUser(person("1", "third@example.com", true))
	if other := d.comes(d.browser(), "bolt", d.bolt); other == me {
		t.Error("the same subject of another provider is the same person")
	}
	list := b.do("GET", "/auth/identities", nil)
	if list.status != 200 || !strings.Contains(list.raw, `"provider":"acme","subject":"1"`) {
		t.Errorf("%s", list.raw)
	}
	d.events.WaitFor(t, "a sign-in by a provider", func(e event.Event) bool { return e.Type == event.LoginSucceeded && e.Reason == "oauth" })
}

// Everybody may know who people can come by.
func TestOAuthProviders(t *testing.T) {
	t.Parallel()
	d := doors(t, ``)
	r := d.want(d.do("GET", "/auth/oauth/providers", nil), 200, "")
	if want := `{"providers":[{"name":"acme","display_name":"acme","kind":"oidc","login_url":"/auth/oauth/acme/login"},{"name":"bolt","display_name":"bolt","kind":"oidc","login_url":"/auth/oauth/bolt/login"}]}`; strings.TrimSpace(r.raw) != want {
		t.Errorf("%s", r.raw)
	}
	d.want(d.do("GET", "/auth/oauth/providers?x=1", nil), 400, "invalid_request")
	d.want(setup(t, ``).do("GET", "/auth/oauth/providers", nil), 404, "not_found")
}

// What is refused before anybody is sent anywhere.
func TestOAuthBeginRefuses(t *testing.T) {
	t.Parallel()
	d := doors(t, ``)
	d.want(d.do("GET", "/auth/oauth/nobody/login", nil), 404, "not_found")
	for _, next := range []string{"//evil.example", "https://evil.example", `/\evil.example`, "evil", "/\tevil", "javascript:alert(1)", "/%0d%0a%00\x00"} {
		d.want(d.do("GET", "/auth/oauth/acme/login?next="+url.QueryEscape(next), nil), 400, "invalid_request")
	}
	d.want(d.do("GET", "/auth/oauth/acme/login?next=/a&next=/b", nil), 400, "invalid_request")
	d.want(d.do("GET", "/auth/oauth/acme/login?redirect_uri=https://evil.example", nil), 400, "invalid_request")
	d.want(d.do("GET", "/auth/oauth/acme/login?remember_me=perhaps", nil), 400, "invalid_request")
	d.want(d.do("POST", "/auth/oauth/acme/login", nil), 405, "method_not_allowed")
	d.acme.Change(socialtest.Discovery, func(_ *http.Request, a *socialtest.Answer) { a.Status = 500 })
	d.refusedWith(d.do("GET", "/auth/oauth/acme/login", nil), "provider_unavailable")
}

// A callback counts once, in the browser that began it, with its own provider.
func TestOAuthCallbackBound(t *testing.T) {
	t.Parallel()
	d := doors(t, ``)
	d.acme.RegisterUser(person("1", email, true))
	begin := func(b *browser) url.Values {
		return d.acme.Follow(t, b.do("GET", "/auth/oauth/acme/login", nil).header.Get("Location"))
	}
	victim, attacker := d.browser(), d.browser()
	stolen := begin(attacker)
	d.refusedWith(victim.do("GET", callback("acme", stolen), nil), "flow_invalid")

	mine := begin(victim)
	d.refusedWith(victim.do("GET", callback("bolt", mine), nil), "flow_invalid")

	b := d.browser()
	q := begin(b)
	kept := b.cookies
	b.cookies = map[string]string{}
	for name, value := range kept {
		b.cookies[name] = value
	}
	if r := b.do("GET", callback("acme", q), nil); r.header.Get("Location") != "/" {
		t.Errorf("the first: %s", r.header.Get("Location"))
	}
	replay := d.browser()
	replay.cookies = kept
	d.refusedWith(replay.do("GET", callback("acme", q), nil), "flow_invalid")

	// Whoever only asks what the page is like uses nothing up.
	asked := d.browser()
	q = begin(asked)
	if r := asked.do("HEAD", callback("acme", q), nil); r.status != 405 || asked.signed() != "" {
		t.Errorf("HEAD: %d", r.status)
	}
	if r := asked.do("GET", callback("acme", q), nil); r.header.Get("Location") != "/" {
		t.Errorf("after HEAD: %s", r.header.Get("Location"))
	}
	late := d.browser()
	q = begin(late)
	d.move(11 * time.Minute)
	d.refusedWith(late.do("GET", callback("acme", q), nil), "flow_invalid")
	d.refusedWith(d.do("GET", "/auth/oauth/acme/callback", nil), "flow_invalid")
	d.refusedWith(d.do("GET", "/auth/oauth/acme/callback?state=x&code=y", nil), "flow_invalid")
	d.events.Wait(t, event.IdentityRefused)
}

// Two tabs sign in beside each other.
func TestOAuthTwoTabs(t *testing.T) {
	t.Parallel()
	d := doors(t, ``)
	d.acme.RegisterUser(person("1", email, true))
	d.bolt.RegisterUser(person("9", bob, true))
	b := d.browser()
	first := d.acme.Follow(t, b.do("GET", "/auth/oauth/acme/login?next=/one", nil).header.Get("Location"))
	second := d.bolt.Follow(t, b.do("GET", "/auth/oauth/bolt/login?next=/two", nil).header.Get("Location"))
	for _, c := range []struct {
		provider string
		query    url.Values
		next     string
	}{{"acme", first, "/one"}, {"bolt", second, "/two"}} {
		if r := b.do("GET", callback(c.provider, c.query), nil); r.header.Get("Location") != c.next {
			t.Errorf("%s: %s", c.provider, r.header.Get("Location"))
		}
	}
	for range 8 {
		b.do("GET", "/auth/oauth/acme/login", nil)
	}
	flows := 0
	for name := range b.cookies {
		if strings.Contains(name, "_flow.") {
			flows++
		}
	}
	if flows > 6 {
		t.Errorf("%d cookies of flows are kept", flows)
	}
}

// Whoever refuses at the provider comes back with that.
func TestOAuthDenied(t *testing.T) {
	t.Parallel()
	d := doors(t, ``)
	d.acme.SignIn("")
	r := d.come(d.browser(), "acme", d.acme, "?next=/cart")
	d.refusedWith(r, "access_denied")
	if !strings.Contains(r.header.Get("Location"), "provider=acme") {
		t.Errorf("%s", r.header.Get("Location"))
	}
}

// A session by a provider can be remembered, and replaces the one that the browser had.
func TestOAuthSession(t *testing.T) {
	t.Parallel()
	d := doors(t, ``)
	d.acme.RegisterUser(person("1", email, true))
	b := d.browser()
	r := d.come(b, "acme", d.acme, "?remember_me=true")
	if !strings.Contains(strings.Join(r.header["Set-Cookie"], "\n"), "Max-Age") {
		t.Error("a session that is remembered ends with the browser")
	}
	before := b.cookies["__Host-shop_access"]
	d.comes(b, "acme", d.acme)
	old := d.browser()
	old.cookies["__Host-shop_access"] = before
	if old.signed() != "" {
		t.Error("the session before is alive")
	}
}

// Somebody who comes back costs three commands more than the session that begins: the
// state is claimed, the identity is read, and nothing else is asked.
func TestOAuthRoundTrips(t *testing.T) {
	t.Parallel()
	var commands enginetest.Commands
	d := doorsOn(t, storetest.Monitored(t, commands.Monitor()), `"audit":{"enabled":false}`, ``)
	d.acme.RegisterUser(person("1", email, true))
	me := d.comes(d.browser(), "acme", d.acme)
	d.settled()

	b := d.browser()
	q := d.acme.Follow(t, b.do("GET", "/auth/oauth/acme/login", nil).header.Get("Location"))
	count := func(what func()) int {
		commands.Reset()
		what()
		list := commands.Foreground()
		t.Log(enginetest.Names(list))
		return len(list)
	}
	session := count(func() {
		if _, err := d.app.StartSession(t.Context(), me, engine.Device{}, false); err != nil {
			t.Fatal(err)
		}
	})
	arrival := count(func() { b.do("GET", callback("acme", q), nil) })
	if b.signed() != me {
		t.Fatal("not let in")
	}
	t.Logf("a session begins with %d commands, a returning sign-in by a provider has %d", session, arrival)
	if arrival-session > 3 {
		t.Errorf("%d commands more than the session's %d", arrival-session, session)
	}
}

// Of many arrivals of one new person at once one makes the account.
func TestOAuthArriveAtOnce(t *testing.T) {
	t.Parallel()
	for name, user := range map[string]socialtest.User{"verified": person("1", email, true), "no address": person("1", email, false)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := doors(t, ``)
			d.acme.RegisterUser(user)
			var mu sync.Mutex
			ids := map[string]int{}
			var wg sync.WaitGroup
			for range 16 {
				b := d.browser()
				q := d.acme.Follow(t, b.do("GET", "/auth/oauth/acme/login", nil).header.Get("Location"))
				wg.Go(func() {
					b.do("GET", callback("acme", q), nil)
					id := b.signed()
					mu.Lock()
					defer mu.Unlock()
					ids[id]++
				})
			}
			wg.Wait()
			if len(ids) != 1 || ids[""] != 0 {
				t.Errorf("they are %v", ids)
			}
			page, err := d.app.Users().List(t.Context(), users.ListOptions{})
			if err != nil || len(page.Users) != 1 {
				t.Errorf("%d accounts, %v", len(page.Users), err)
			}
		})
	}
}
