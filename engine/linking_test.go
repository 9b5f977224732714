package engine_test

import (
	"fmt"
	"testing"

	"github.com/mandate-auth/mandate/users/social/socialtest"
)

// owner registers with a password and proves the address.
func (d *door) owner(address string) *browser {
	d.t.Helper()
	b := d.browser()
	d.want(b.do("POST", "/auth/register", obj("email", address, "password", password, "transport", "cookie")), 201, "")
	d.want(b.do("POST", "/auth/email/verify", obj("token", d.token(address))), 204, "")
	return b
}

// squatter registers with an address that is not theirs.
func (d *door) squatter(address string) *browser {
	d.t.Helper()
	b := d.browser()
	d.want(b.do("POST", "/auth/register", obj("email", address, "password", password, "transport", "cookie")), 201, "")
	d.token(address) // which they cannot read
	return b
}

func (d *door) passwordWorks(address string) bool {
	d.t.Helper()
	return d.do("POST", "/auth/login", obj("email", address, "password", password)).status == 200
}

// Whom an identity signs in, by what was there before and by the policy. Nobody gets
// into an account that is not theirs.
func TestLinking(t *testing.T) {
	t.Parallel()
	const (
		signedIn = `"link":"signed_in"`
		never    = `"link":"never"`
		closed   = `"create_users":false`
	)
	for _, c := range []struct {
		name, oauth string
		arrive      socialtest.User
		// before makes what is there, and returns the account that arriving may lead to.
		before func(d *door) string
		// code is the refusal, "" where somebody is let in: to before's account, or to a
		// new one.
		code string
		same bool
		then func(d *door, b *browser, before string)
	}{
		{name: "nobody there", arrive: person("1", email, true)},
		{name: "nobody there, address not verified", arrive: person("1", email, false), then: func(d *door, b *browser, _ string) {
			if u, err := d.app.Users().Get(d.t.Context(), b.signed()); err != nil || u.Email != "" || u.EmailVerified {
				d.t.Errorf("an address that nobody has verified was taken: %+v, %v", u, err)
			}
		}},
		{name: "nobody there, no address", arrive: socialtest.User{Claims: map[string]any{"sub": "1"}}},
		{name: "nobody there and nobody let in", oauth: closed, arrive: person("1", email, true), code: "registration_disabled"},
		{name: "verified on both sides", arrive: person("1", "ADA@Example.com", true), same: true, before: func(d *door) string { return d.owner(email).signed() }, then: func(d *door, _ *browser, _ string) {
			if !d.passwordWorks(email) {
				d.t.Error("the owner has lost the password")
			}
			d.mail(email) // the notice
		}},
		{name: "verified on both sides, nobody let in", oauth: closed, arrive: person("1", email, true), same: true, before: func(d *door) string { return d.owner(email).signed() }},
		{name: "verified here alone", arrive: person("1", email, false), before: func(d *door) string { return d.owner(email).signed() }},
		{name: "verified there alone: the owner arrives", arrive: person("1", email, true), same: true, before: func(d *door) string { return d.squatter(email).signed() }, then: func(d *door, _ *browser, _ string) {
			if d.passwordWorks(email) {
				d.t.Error("the password of whoever made the account works")
			}
		}},
		{name: "verified by neither", arrive: person("1", email, false), before: func(d *door) string { return d.squatter(email).signed() }, then: func(d *door, _ *browser, _ string) {
			if !d.passwordWorks(email) {
				d.t.Error("an address that nobody has verified took an account away")
			}
		}},
		{name: "only while signed in", oauth: signedIn, arrive: person("1", email, true), before: func(d *door) string { return d.owner(email).signed() }, code: "account_exists"},
		{name: "only while signed in, a squatter", oauth: signedIn, arrive: person("1", email, true), before: func(d *door) string { return d.squatter(email).signed() }, code: "account_exists", then: func(d *door, _ *browser, _ string) {
			if !d.passwordWorks(email) {
				d.t.Error("an arrival that was refused has changed the account")
			}
		}},
		{name: "never", oauth: never, arrive: person("1", email, true), before: func(d *door) string { return d.owner(email).signed() }, code: "account_exists"},
		{name: "never, nobody there", oauth: never, arrive: person("1", email, true)},
		{name: "a disabled account", arrive: person("1", email, true), before: func(d *door) string {
			id := d.owner(email).signed()
			if err := d.app.Users().Disable(d.t.Context(), id, ""); err != nil {
				d.t.Fatal(err)
			}
			return id
		}, code: "account_disabled"},
		{name: "a disabled account of a squatter", arrive: person("1", email, true), before: func(d *door) string {
			id := d.squatter(email).signed()
			if err := d.app.Users().Disable(d.t.Context(), id, ""); err != nil {
				d.t.Fatal(err)
			}
			return id
		}, code: "account_disabled"},
		{name: "an account that is disabled later", arrive: person("1", email, true), before: func(d *door) string {
			id := d.comes(d.browser(), "acme", d.acme)
			if err := d.app.Users().Disable(d.t.Context(), id, ""); err != nil {
				d.t.Fatal(err)
			}
			return id
		}, code: "account_disabled"},
		{name: "an account that was deleted", arrive: person("1", email, true), before: func(d *door) string {
			id := d.comes(d.browser(), "acme", d.acme)
			if err := d.app.Users().Delete(d.t.Context(), id); err != nil {
				d.t.Fatal(err)
			}
			return id
		}},
		{name: "the other provider's person of that address", arrive: person("1", email, true), same: true, before: func(d *door) string {
			d.bolt.RegisterUser(person("7", email, true))
			return d.comes(d.browser(), "bolt", d.bolt)
		}},
		{name: "the other provider's person who only says so", arrive: person("1", email, true), before: func(d *door) string {
			d.bolt.RegisterUser(person("7", email, false))
			return d.comes(d.browser(), "bolt", d.bolt)
		}},
		{name: "somebody who has that address no longer", arrive: person("1", email, true), before: func(d *door) string {
			b := d.owner(email)
			d.want(b.do("POST", "/auth/email/change", obj("new_email", bob)), 202, "")
			d.want(b.do("POST", "/auth/email/change/confirm", obj("token", d.token(bob))), 204, "")
			return b.signed()
		}},
		{name: "an address that is none here", arrive: person("1", "a b@example.com", true)},
		{name: "an identity that was removed", arrive: person("1", email, true), same: true, before: func(d *door) string {
			b := d.owner(email)
			id := d.comes(b, "acme", d.acme)
			d.want(b.do("DELETE", "/auth/identities?provider=acme&subject=1", nil, header("X-Requested-With", "x")), 204, "")
			return id
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := doorsWith(t, ``, c.oauth)
			d.acme.RegisterUser(c.arrive)
			before := ""
			if c.before != nil {
				before = c.before(d)
			}
			b := d.browser()
			r := d.come(b, "acme", d.acme, "")
			who := b.signed()
			switch {
			case c.code != "":
				d.refusedWith(r, c.code)
				if who != "" {
					t.Errorf("signed in as %s", who)
				}
			case who == "":
				t.Errorf("not let in: %s", r.header.Get("Location"))
			case c.same != (who == before):
				t.Errorf("signed in as %s, and before there was %s", who, before)
			}
			if c.then != nil {
				c.then(d, b, before)
			}
		})
	}
}

// While somebody is signed in an identity can be linked, by the policy.
func TestLinkSignedIn(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		policy, address string
		verified        bool
		code            string
	}{
		{"signed_in", email, true, ""},
		{"signed_in", "else@example.com", true, ""},
		{"signed_in", "else@example.com", false, ""},
		{"verified_email", email, true, ""},
		{"verified_email", email, false, "link_forbidden"},
		{"verified_email", "else@example.com", true, "link_forbidden"},
		{"never", email, true, "link_forbidden"},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			t.Parallel()
			d := doorsWith(t, ``, `"link":"`+c.policy+`"`)
			d.acme.RegisterUser(person("1", c.address, c.verified))
			b := d.owner(email)
			me := b.signed()
			r := d.link(b, "acme", d.acme)
			if c.code != "" {
				d.refusedWith(r, c.code)
				return
			}
			if r.status != 303 || r.header.Get("Location") != "/linked" {
				t.Fatalf("%d %s", r.status, r.header.Get("Location"))
			}
			if b.signed() != me {
				t.Error("linking has changed who is signed in")
			}
			if who := d.comes(d.browser(), "acme", d.acme); who != me {
				t.Errorf("the identity signs in %s, not %s", who, me)
			}
			if again := d.link(b, "acme", d.acme); again.header.Get("Location") != "/linked" {
				t.Errorf("linked again: %s", again.header.Get("Location"))
			}
		})
	}
}

// What linking refuses.
func TestLinkRefuses(t *testing.T) {
	t.Parallel()
	d := doorsWith(t, guests, `"link":"signed_in"`)
	d.acme.RegisterUser(person("1", email, true))
	d.want(d.do("POST", "/auth/identities/acme", obj()), 401, "unauthenticated")
	me := d.owner(email)
	d.want(me.do("POST", "/auth/identities/nobody", obj()), 404, "not_found")
	d.want(me.do("POST", "/auth/identities/acme", obj("next", "//evil.example")), 400, "invalid_request")
	d.want(me.do("POST", "/auth/identities/acme", obj(), header("Sec-Fetch-Site", "cross-site")), 403, "csrf_failed")
	d.want(me.do("POST", "/auth/identities/acme", nil), 403, "csrf_failed")

	// Another account has it.
	other := d.owner(bob)
	if r := d.link(other, "acme", d.acme); r.header.Get("Location") != "/linked" {
		t.Fatalf("%s", r.header.Get("Location"))
	}
	d.refusedWith(d.link(me, "acme", d.acme), "identity_taken")

	// A session that has ended meanwhile links nothing.
	d.bolt.RegisterUser(person("2", email, true))
	begun := me.do("POST", "/auth/identities/bolt", obj())
	d.want(me.do("POST", "/auth/logout", obj()), 204, "")
	d.refusedWith(me.do("GET", callback("bolt", d.bolt.Follow(t, begun.text("url"))), nil), "session_expired")

	// A guest has nothing that others could be linked to.
	guest := d.browser()
	guest.do("POST", "/auth/anonymous", obj("transport", "cookie"))
	begun = guest.do("POST", "/auth/identities/bolt", obj())
	if begun.status == 200 {
		d.refusedWith(guest.do("GET", callback("bolt", d.bolt.Follow(t, begun.text("url"))), nil), "forbidden")
	}
}

// The last way in is never removed, also not by two who remove the last two at once.
func TestUnlink(t *testing.T) {
	t.Parallel()
	d := &door{}
	d.acme, d.bolt = socialtest.NewProvider(t, socialtest.Options{}), socialtest.NewProvider(t, socialtest.Options{})
	d.mailRoom = mailing(t, `"mail":{"from":"a@shop.example"},"oauth":{"link":"signed_in","providers":{`+providerJSON("acme", d.acme, ``)+`,`+providerJSON("bolt", d.bolt, ``)+`}}`)
	d.acme.RegisterUser(person("1", email, true))
	d.bolt.RegisterUser(person("2", "else@example.com", false))
	b := d.browser()
	d.comes(b, "acme", d.acme)
	remove := func(provider, subject string) *response {
		return b.do("DELETE", "/auth/identities?provider="+provider+"&subject="+subject, nil, header("X-Requested-With", "x"))
	}
	d.want(remove("acme", "1"), 409, "last_credential")
	d.want(remove("acme", "2"), 404, "not_found")
	d.want(remove("nobody", "1"), 404, "not_found")
	d.want(remove("", "1"), 400, "invalid_request")
	if r := d.link(b, "bolt", d.bolt); r.header.Get("Location") != "/linked" {
		t.Fatal(r.header.Get("Location"))
	}
	done := make(chan int, 2)
	for _, x := range [][2]string{{"acme", "1"}, {"bolt", "2"}} {
		go func() {
			r := do(t, d.app.Handler(), "DELETE", "/auth/identities?provider="+x[0]+"&subject="+x[1], nil, b.send, header("X-Requested-With", "x"))
			done <- r.status
		}()
	}
	if a, z := <-done, <-done; a+z != 204+409 {
		t.Errorf("two removals at once: %d, %d", a, z)
	}
	if list := b.do("GET", "/auth/identities", nil); len(list.at("identities").([]any)) != 1 {
		t.Errorf("%s", list.raw)
	}
}
