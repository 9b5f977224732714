package engine_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/engine/event"
)

// guest is a browser with a guest's session, and the guest's id and device.
func (w *world) guest() (b *browser, id, device string) {
	w.t.Helper()
	b = w.browser()
	r := w.want(b.do("POST", "/auth/anonymous", obj("transport", "cookie")), 200, "")
	id, _ = r.at("user", "id").(string)
	return b, id, r.text("device_id")
}

// A guest who registers keeps the id, the sessions and the roles.
func TestGuestRegisters(t *testing.T) {
	t.Parallel()
	w := setup(t, guests)
	first := w.do("POST", "/auth/anonymous", nil)
	guest, device := first.at("user", "id").(string), first.text("device_id")
	other := w.do("POST", "/auth/anonymous", obj("device_id", device))
	if err := w.app.Authz().GrantRole(t.Context(), guest, "admin"); err != nil {
		t.Fatal(err)
	}
	in := w.want(w.do("POST", "/auth/register", with(account, "profile", obj("name", "Ada")), bearer(first.text("access_token"))), 201, "")
	if in.at("user", "id") != guest || in.at("user", "kind") != "human" || in.at("user", "profile", "name") != "Ada" || in.text("previous_guest") != "" {
		t.Errorf("%s", in.raw)
	}
	// Sessions live on, and are the person's after a refresh.
	refreshed := w.want(w.do("POST", "/auth/refresh", obj("refresh_token", other.text("refresh_token"))), 200, "")
	me := w.me(refreshed.text("access_token"))
	if me.at("principal", "id") != guest || me.at("principal", "kind") != "human" {
		t.Errorf("%s", me.raw)
	}
	roles, err := w.app.Authz().AssignedRoles(t.Context(), guest)
	if err != nil || len(roles) != 2 {
		t.Errorf("roles: %v, %v", roles, err)
	}
	if w.login().at("user", "id") != guest {
		t.Error("the password signs in somebody else")
	}
	// The device opens a new guest and not the person.
	again := w.want(w.do("POST", "/auth/anonymous", obj("device_id", device)), 200, "")
	if again.at("user", "id") == guest {
		t.Error("the device still opens the account")
	}
}

// What a guest cannot become: somebody whose address is taken, and nobody twice.
func TestGuestConflicts(t *testing.T) {
	t.Parallel()
	w := setup(t, guests)
	w.register()
	b, id, _ := w.guest()
	w.want(b.do("POST", "/auth/register", account), 409, "email_taken")
	if b.signed() != id {
		t.Error("a registration that was refused has changed who is signed in")
	}
	token := w.do("POST", "/auth/anonymous", nil).text("access_token")
	var mu sync.Mutex
	made := map[int]int{}
	var wg sync.WaitGroup
	for _, address := range []string{"one@example.com", "two@example.com", "three@example.com"} {
		wg.Go(func() {
			r := w.do("POST", "/auth/register", with(account, "email", address), bearer(token))
			mu.Lock()
			defer mu.Unlock()
			made[r.status]++
			if r.status != 201 && r.code() != "conflict" {
				t.Errorf("%d %s", r.status, r.raw)
			}
		})
	}
	wg.Wait()
	if made[201] != 1 {
		t.Errorf("one guest became %v", made)
	}
}

// Where addresses have to be verified, a guest stays one until then.
func TestGuestRegistersVerified(t *testing.T) {
	t.Parallel()
	m := mailing(t, verified)
	first := m.do("POST", "/auth/anonymous", nil)
	guest := first.at("user", "id")
	m.want(m.do("POST", "/auth/register", account, bearer(first.text("access_token"))), 202, "")
	token := m.token(email)
	m.want(m.do("POST", "/auth/login", account), 401, "invalid_credentials")
	refresh := m.want(m.do("POST", "/auth/refresh", obj("refresh_token", first.text("refresh_token"))), 200, "")
	if kind := m.me(refresh.text("access_token")).at("principal", "kind"); kind != "anonymous" {
		t.Errorf("the guest is %v before the address is verified", kind)
	}
	m.want(m.do("POST", "/auth/email/verify", obj("token", token)), 204, "")
	if in := m.login(); in.at("user", "id") != guest || in.at("user", "kind") != "human" {
		t.Errorf("%s", in.raw)
	}
}

// A guest who signs in to another account leaves the guest's behind: the service is
// told, and may refuse.
func TestGuestSignsIn(t *testing.T) {
	t.Parallel()
	var moved [][2]string
	var mu sync.Mutex
	var refuse error
	m := mailing(t, guests, func(o *engine.Options) {
		o.GuestSignedIn = func(_ context.Context, app, guest, user string) error {
			mu.Lock()
			defer mu.Unlock()
			moved = append(moved, [2]string{guest, user})
			if app != "shop" {
				t.Errorf("app %q", app)
			}
			return refuse
		}
	})
	w := m.world
	user := m.register().at("user", "id")
	m.do("POST", "/auth/email/verify", obj("token", m.token(email)))

	b, guest, _ := w.guest()
	in := w.want(b.do("POST", "/auth/login", with(account, "transport", "cookie")), 200, "")
	if in.at("user", "id") != user || in.text("previous_guest") != guest {
		t.Errorf("%s", in.raw)
	}
	w.events.WaitFor(t, "the guest has left", func(e event.Event) bool {
		return e.Type == event.GuestSignedIn && e.UserID == user && e.Metadata["guest"] == guest
	})
	b, guest, _ = w.guest()
	m.do("POST", "/auth/magic-link", obj("email", email))
	in = w.want(b.do("POST", "/auth/magic-link/consume", obj("token", m.token(email))), 200, "")
	if in.text("previous_guest") != guest || len(moved) != 2 || moved[1] != [2]string{guest, user.(string)} {
		t.Errorf("%s %v", in.raw, moved)
	}
	mu.Lock()
	refuse = errors.New("the cart is full")
	mu.Unlock()
	b, guest, _ = w.guest()
	w.want(b.do("POST", "/auth/login", with(account, "transport", "cookie")), 409, "conflict")
	if b.signed() != guest {
		t.Error("a sign-in that was refused has changed who is signed in")
	}
	// A wrong password tells the service nothing.
	before := len(moved)
	w.want(b.do("POST", "/auth/login", with(account, "password", "not this one at all")), 401, "invalid_credentials")
	if len(moved) != before {
		t.Error("the service was told of a sign-in that failed")
	}
}

// A guest who comes by a provider becomes that person.
func TestGuestComesByProvider(t *testing.T) {
	t.Parallel()
	d := doors(t, guests)
	d.acme.RegisterUser(person("1", email, true))
	b, guest, _ := d.world.guest()
	if who := d.comes(b, "acme", d.acme); who != guest {
		t.Errorf("the guest became %s", who)
	}
	if u, err := d.app.Users().Get(t.Context(), guest); err != nil || u.Kind != "human" || u.Email != email || !u.EmailVerified {
		t.Errorf("%+v, %v", u, err)
	}
	// Another guest who comes as the same person goes over to that account.
	other, left, _ := d.world.guest()
	if who := d.comes(other, "acme", d.acme); who != guest {
		t.Errorf("signed in as %s", who)
	}
	d.events.WaitFor(t, "the other guest has left", func(e event.Event) bool { return e.Type == event.GuestSignedIn && e.Metadata["guest"] == left })
}
