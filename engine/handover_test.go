package engine_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/mandate-auth/mandate/internal/store/storetest"
)

// An account that changes its owner goes over whole, also where the call dies half way and
// the squatter, whose session lives still, goes on meanwhile. Whoever proves the address
// ends the change.
func TestHandoverThatDied(t *testing.T) {
	t.Parallel()
	const mine = "what only the owner knows"
	for _, end := range []string{"link", "verification", "reset", "provider"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			db, f := faulty(t)
			policy := `"link":"signed_in"`
			if end == "provider" {
				policy = ``
			}
			d := doorsOn(t, db, guests, policy)
			d.bolt.RegisterUser(person("attacker", "attacker@example.com", false))
			d.acme.RegisterUser(person("1", email, true))
			b, _, _ := d.world.guest()
			kept := b.do("GET", "/auth/oauth/bolt/login", nil) // begun as a guest
			d.want(b.do("POST", "/auth/register", obj("email", email, "password", password, "transport", "cookie")), 201, "")
			d.want(b.do("POST", "/auth/login", obj("email", email, "password", password, "transport", "cookie")), 200, "")
			id, verify := b.signed(), d.token(email)
			ask := func(path string) string { d.do("POST", path, obj("email", email)); return d.token(email) }
			first := ask("/auth/magic-link")
			d.settled()
			f.Arm(storetest.BeforeTwice, storetest.Step{Command: "findAndModify session_heads", Nth: 1}, nil)
			d.want(d.do("POST", "/auth/magic-link/consume", obj("token", first)), 503, "unavailable")
			f.Disarm()
			for what, r := range map[string]*response{
				"link":    b.do("POST", "/auth/identities/bolt", obj("next", "/linked")),
				"change":  b.do("POST", "/auth/email/change", obj("new_email", evil)),
				"refresh": b.do("POST", "/auth/refresh", obj()),
				"login":   d.do("POST", "/auth/login", account),
			} {
				if r.status < 400 || r.status == 503 {
					t.Errorf("the squatter: %s: %d %s", what, r.status, r.raw)
				}
			}
			switch end {
			case "link":
				d.want(d.do("POST", "/auth/magic-link/consume", obj("token", ask("/auth/magic-link"))), 200, "")
			case "verification":
				d.want(d.do("POST", "/auth/email/verify", obj("token", verify)), 204, "")
			case "provider":
				if who := d.comes(d.browser(), "acme", d.acme); who != id {
					t.Errorf("the owner is %s", who)
				}
				d.mail(email) // that acme signs in
			}
			if end != "reset" {
				d.mail(email) // that the account is theirs
			}
			// The owner has no password, and gets one like anybody.
			d.want(d.do("POST", "/auth/password/reset", obj("token", ask("/auth/password/forgot"), "new_password", mine)), 204, "")
			b.do("GET", callback("bolt", d.bolt.Follow(t, kept.header.Get("Location"))), nil)
			if b.signed() == id {
				t.Error("the squatter is signed in to the owner's account")
			}
			st, err := d.app.Users().State(t.Context(), id)
			if err != nil || !st.User.EmailVerified || st.User.Email != email || (len(st.Links) > 0) != (end == "provider") {
				t.Errorf("got %+v, %v", st, err)
			}
			// From now on it is an account like any other.
			owner := d.browser()
			d.want(owner.do("POST", "/auth/login", obj("email", email, "password", mine, "transport", "cookie")), 200, "")
			if to := d.link(owner, "acme", d.acme).header.Get("Location"); to != "/linked" {
				t.Errorf("the owner cannot link: %s", to)
			}
			d.want(owner.do("POST", "/auth/email/change", obj("new_email", "new@example.com")), 202, "")
			d.want(d.do("POST", "/auth/email/change/confirm", obj("token", d.token("new@example.com"))), 204, "")
		})
	}
}

// Nothing fails: the squatter goes on between two writes of the change of owner.
func TestSquatterDuringHandover(t *testing.T) {
	t.Parallel()
	const boss = "boss@example.com"
	const roles = `,"policy":{"authorization":{"initial_roles":[{"user":"boss@example.com","role":"admin"}]}}`
	for _, by := range []string{"magic link", "reset", "provider"} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			db, f := faulty(t)
			policy := `"link":"signed_in"`
			if by == "provider" {
				policy = `` // there an address links nothing otherwise
			}
			d := doorsOn(t, db, guests+roles, policy)
			d.bolt.RegisterUser(person("attacker", boss, false))
			d.acme.RegisterUser(person("1", boss, true))
			b := d.squatter(boss)
			id := b.signed()
			arrive := func() int { return d.come(d.browser(), "acme", d.acme, "").status }
			switch by {
			case "reset":
				d.do("POST", "/auth/password/forgot", obj("email", boss))
				token := d.token(boss)
				arrive = func() int {
					return d.do("POST", "/auth/password/reset", obj("token", token, "new_password", "what only the owner knows")).status
				}
			case "magic link":
				d.do("POST", "/auth/magic-link", obj("email", boss))
				token := d.token(boss)
				arrive = func() int { return d.do("POST", "/auth/magic-link/consume", obj("token", token)).status }
			}
			d.settled()
			var once sync.Once
			linked, changed := "", 0
			f.Arm(storetest.AfterCommitCancel, storetest.Step{Command: "update users", Nth: 1}, func() {
				once.Do(func() {
					linked = d.link(b, "bolt", d.bolt).header.Get("Location")
					changed = b.do("POST", "/auth/email/change", obj("new_email", evil)).status
				})
			})
			status := arrive()
			f.Disarm()
			if status >= 400 || linked == "/linked" || (changed != 401 && changed != 403) {
				t.Errorf("arrived: %d, linked: %q, changed: %d", status, linked, changed)
			}
			st, err := d.app.Users().State(t.Context(), id)
			if err != nil || !st.User.EmailVerified || st.User.Email != boss || (len(st.Links) > 0) != (by == "provider") {
				t.Errorf("got %+v, %v", st, err)
			}
			if b.signed() != "" {
				t.Error("the squatter is still signed in")
			}
			if has, err := d.app.Authz().AssignedRoles(t.Context(), id); err != nil || !strings.Contains(strings.Join(has, " "), "admin") {
				t.Errorf("the owner has the roles %v, %v", has, err)
			}
		})
	}
}
