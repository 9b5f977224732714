package engine_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/engine/event"
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

// A copy of a guest's session that is refreshed while the guest becomes a person is no
// recent sign-in.
func TestGuestRefreshSpansAdoption(t *testing.T) {
	t.Parallel()
	db, f := faulty(t)
	m := mailingOn(t, db, guests)
	device := strings.Repeat("k", 32)
	copied := m.do("POST", "/auth/anonymous", obj("device_id", device))
	victim := m.do("POST", "/auth/anonymous", obj("device_id", device))
	f.Arm(storetest.Cancel, storetest.Step{Command: "find users", Nth: 1}, func() {
		until(t, "the rotation beside it", func() bool {
			n, err := m.db.Collection("user_sessions").CountDocuments(t.Context(), bson.M{"generation": 2})
			return err == nil && n == 1
		})
		m.want(m.do("POST", "/auth/register", account, bearer(victim.text("access_token"))), 201, "")
	})
	r := m.do("POST", "/auth/refresh", obj("refresh_token", copied.text("refresh_token")))
	f.Disarm()
	m.token(email)
	if r.status != 200 {
		t.Fatalf("%d %s", r.status, r.raw)
	}
	m.want(m.do("POST", "/auth/email/change", obj("new_email", evil), bearer(r.text("access_token"))), 401, "fresh_required")
}

// A sign-in that is refused for the number of sessions changes nothing for the guest.
func TestSessionLimitGuest(t *testing.T) {
	t.Parallel()
	moved := 0
	m := mailing(t, guests+`,"sessions":{"max_per_user":1,"on_limit":"refuse"}`, func(o *engine.Options) {
		o.GuestSignedIn = func(context.Context, string, string, string) error { moved++; return nil }
	})
	id := m.register().at("user", "id").(string)
	b, guest, _ := m.world.guest()
	m.want(b.do("POST", "/auth/login", with(account, "transport", "cookie")), 409, "session_limit")
	if b.signed() != guest {
		t.Errorf("a sign-in that was refused has signed the guest out: %q", b.signed())
	}
	if moved != 0 {
		t.Errorf("what the guest has was moved %d times", moved)
	}
	if n := m.happened(of(event.GuestSignedIn)); n != 0 {
		t.Errorf("recorded %d times", n)
	}
	// With room for it the guest is left, once.
	m.want(m.do("POST", "/auth/login", account), 409, "session_limit")
	if err := m.app.Sessions().EndAll(t.Context(), id, "room"); err != nil {
		t.Fatal(err)
	}
	r := m.want(b.do("POST", "/auth/login", with(account, "transport", "cookie")), 200, "")
	if r.text("previous_guest") != guest || moved != 1 || m.happened(of(event.GuestSignedIn)) != 1 {
		t.Errorf("%s was left, moved %d times", r.text("previous_guest"), moved)
	}
}

// A sign-in that the service refuses for the guest costs nobody a session.
func TestRefusedGuestEvictsNobody(t *testing.T) {
	t.Parallel()
	m := mailing(t, guests+`,"sessions":{"max_per_user":1}`, func(o *engine.Options) {
		o.GuestSignedIn = func(context.Context, string, string, string) error { return errors.New("the cart is locked") }
	})
	other := m.register()
	b, guest, _ := m.world.guest()
	m.want(b.do("POST", "/auth/login", with(account, "transport", "cookie")), 409, "conflict")
	m.want(m.do("POST", "/auth/refresh", obj("refresh_token", other.text("refresh_token"))), 200, "")
	if b.signed() != guest {
		t.Error("whoever was refused is a guest no more")
	}
	if n := m.happened(of(event.GuestSignedIn)); n != 0 {
		t.Errorf("recorded %d times", n)
	}
}

// A sign-in that starts again is one.
func TestGuestSignedInTwice(t *testing.T) {
	t.Parallel()
	db, f := faulty(t)
	m := mailingOn(t, db, guests)
	id := m.register().at("user", "id").(string)
	b, _, _ := m.world.guest()
	f.Arm(storetest.Cancel, storetest.Step{Command: "insert user_sessions", Nth: 1}, func() {
		if err := m.app.Sessions().EndAll(t.Context(), id, "x"); err != nil {
			t.Error(err)
		}
	})
	m.want(b.do("POST", "/auth/login", with(account, "transport", "cookie")), 200, "")
	f.Disarm()
	if n := m.happened(of(event.GuestSignedIn)); n != 1 {
		t.Errorf("recorded %d times", n)
	}
}

// An access token that has outlived that its guest became a person.
func TestOutlivedGuestToken(t *testing.T) {
	t.Parallel()
	m := mailing(t, guests+`,"policy":{"authorization":{"default_roles":["user","admin"]}}`)
	old := m.do("POST", "/auth/anonymous", nil)
	in := m.want(m.do("POST", "/auth/register", account, bearer(old.text("access_token"))), 201, "")
	id := in.at("user", "id").(string)
	m.token(email)
	if err := m.app.Authz().SetRoles(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	mine := m.login()
	m.want(m.do("POST", "/auth/register", obj("email", "x@example.com", "password", password), bearer(old.text("access_token"))), 409, "conflict")
	if has := m.assigned(id); has != "" {
		t.Errorf("the person has got the roles %q", has)
	}
	fresh := m.want(m.do("POST", "/auth/refresh", obj("refresh_token", mine.text("refresh_token"))), 200, "")
	expect(t, do(t, m.app.RequireFresh(0).Handler(ok), "GET", "/", nil, bearer(fresh.text("access_token"))).status, 200)
}

// A session that the device begins while the guest becomes a person is no recent sign-in.
func TestGuestSessionDuringAdoption(t *testing.T) {
	t.Parallel()
	db, f := faulty(t)
	m := mailingOn(t, db, guests)
	device := strings.Repeat("k", 32)
	victim := m.do("POST", "/auth/anonymous", obj("device_id", device))
	var copied *response
	f.Arm(storetest.Cancel, storetest.Step{Command: "findAndModify users", Nth: 1}, func() {
		copied = m.do("POST", "/auth/anonymous", obj("device_id", device))
	})
	m.want(m.do("POST", "/auth/register", account, bearer(victim.text("access_token"))), 201, "")
	f.Disarm()
	r := m.want(m.do("POST", "/auth/refresh", obj("refresh_token", copied.text("refresh_token"))), 200, "")
	m.want(m.do("POST", "/auth/email/change", obj("new_email", evil), bearer(r.text("access_token"))), 401, "fresh_required")
}
