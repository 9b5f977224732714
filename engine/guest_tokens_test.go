package engine_test

import (
	"strings"
	"testing"

	"github.com/mandate-auth/mandate/internal/store/storetest"
)

// A copy of a guest's session proves nothing about the person whom the guest has become:
// by an access token from before, too, which still names a guest.
func TestOldTokenOfAGuest(t *testing.T) {
	t.Parallel()
	d := doorsWith(t, guests+`,"policy":{"allow_anonymous":true}`, `"link":"signed_in"`)
	d.acme.RegisterUser(person("victim", "victim@example.com", false))
	device := strings.Repeat("k", 32)
	copied := d.do("POST", "/auth/anonymous", obj("device_id", device)).text("access_token")
	before := func(when string) {
		t.Helper()
		for call, r := range map[string]*response{
			"link":   d.do("POST", "/auth/identities/bolt", obj(), bearer(copied)),
			"change": d.do("POST", "/auth/email/change", obj("new_email", evil), bearer(copied)),
			"unlink": d.do("DELETE", "/auth/identities?provider=acme&subject=victim", nil, bearer(copied)),
			"guard":  do(t, d.app.RequireFresh(0).Handler(ok), "GET", "/", nil, bearer(copied)),
		} {
			if r.status != 401 {
				t.Errorf("%s, %s: %d %s", when, call, r.status, r.raw)
			}
		}
	}
	before("while it is a guest's")
	victim := d.browser()
	victim.do("POST", "/auth/anonymous", obj("device_id", device, "transport", "cookie"))
	guest := victim.signed()
	if who := d.comes(victim, "acme", d.acme); who != guest {
		t.Fatal(who)
	}
	before("when it is a person's")
	if list, err := d.app.Identities().List(t.Context(), guest); err != nil || len(list) != 1 {
		t.Errorf("the person has the identities %v, %v", list, err)
	}
	// Who knows the person's password is the person.
	m := d.mailRoom
	first := m.do("POST", "/auth/anonymous", obj("device_id", strings.Repeat("d", 32))).text("access_token")
	m.want(m.do("POST", "/auth/register", account, bearer(first)), 201, "")
	m.want(m.do("POST", "/auth/email/change", obj("new_email", "new@example.com", "current_password", password), bearer(first)), 202, "")
}

// What the guest has stays within reach when the answer of the database is lost.
func TestGuestComesBack(t *testing.T) {
	t.Parallel()
	for _, lost := range []string{"insert identities", "update users"} {
		for nth := 1; nth <= 2; nth++ {
			db, f := faulty(t)
			d := doorsOn(t, db, guests, ``)
			d.acme.RegisterUser(person("1", email, false))
			b, guest, _ := d.world.guest()
			f.Arm(storetest.BeforeTwice, storetest.Step{Command: lost, Nth: nth}, nil)
			r := d.come(b, "acme", d.acme, "")
			if _, hits := f.Disarm(); hits == 0 {
				continue
			}
			d.refusedWith(r, "unavailable")
			b.do("POST", "/auth/refresh", obj())
			if who := d.comes(b, "acme", d.acme); who != guest {
				t.Errorf("%s %d is lost: signed in as %s, and what the guest has is with %s", lost, nth, who, guest)
			}
			if list, err := d.app.Identities().List(t.Context(), guest); err != nil || len(list) != 1 {
				t.Errorf("%s %d is lost: the identities are %v, %v", lost, nth, list, err)
			}
		}
	}
}

// A guest who has signed out before coming back from the provider is nobody.
func TestGuestSignsOutBeforeArriving(t *testing.T) {
	t.Parallel()
	d := doors(t, guests)
	d.acme.RegisterUser(person("1", email, true))
	b, guest, _ := d.world.guest()
	begun := b.do("GET", "/auth/oauth/acme/login", nil)
	d.want(b.do("POST", "/auth/logout", obj()), 204, "")
	b.do("GET", callback("acme", d.acme.Follow(t, begun.header.Get("Location"))), nil)
	if who := b.signed(); who == guest || who == "" {
		t.Errorf("signed in as %q, the guest was %q", who, guest)
	}
}

// A path is sealed as it is: its length in the cookie does not depend on its characters.
func TestLongNext(t *testing.T) {
	t.Parallel()
	d := doors(t, ``)
	if r := d.do("GET", "/auth/oauth/acme/login?next=/%3F"+strings.Repeat("a%26", 500), nil); r.status != 303 {
		t.Errorf("%d %s", r.status, r.raw)
	}
	if r := d.do("GET", "/auth/oauth/acme/login?next=/%3F"+strings.Repeat("a%26", 600), nil); r.status != 400 || !strings.Contains(r.raw, `"path":"next"`) {
		t.Errorf("%d %s", r.status, r.raw)
	}
}
