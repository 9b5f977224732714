package engine_test

import (
	"testing"
)

// The five classes of pre-hijacking (Sudhodanan and Paverd, USENIX Security 2022), with
// two providers and whichever comes first: whoever made an account with the address of
// somebody else has no way into what the owner uses later.
func TestPreHijacking(t *testing.T) {
	t.Parallel()
	// arrivals are how the owner of the address gets in, by what nobody else has.
	arrivals := map[string]func(d *door) string{
		"by acme": func(d *door) string {
			d.acme.RegisterUser(person("owner", email, true))
			return d.comes(d.browser(), "acme", d.acme)
		},
		"by bolt": func(d *door) string {
			d.bolt.RegisterUser(person("owner", email, true))
			return d.comes(d.browser(), "bolt", d.bolt)
		},
		"by mail": func(d *door) string {
			d.do("POST", "/auth/magic-link", obj("email", email))
			b := d.browser()
			d.want(b.do("POST", "/auth/magic-link/consume", obj("token", d.token(email), "transport", "cookie")), 200, "")
			return b.signed()
		},
		"by reset": func(d *door) string {
			const mine = "what only the owner knows"
			d.do("POST", "/auth/password/forgot", obj("email", email))
			d.want(d.do("POST", "/auth/password/reset", obj("token", d.token(email), "new_password", mine)), 204, "")
			b := d.browser()
			d.want(b.do("POST", "/auth/login", obj("email", email, "password", mine, "transport", "cookie")), 200, "")
			return b.signed()
		},
	}
	// attacks prepare an account, and return how the attacker tries to get in later and
	// whether that was to the account of who.
	attacks := map[string]func(d *door) func(who string) bool{
		"classic-federated merge": func(d *door) func(string) bool {
			d.squatter(email)
			return func(string) bool { return d.passwordWorks(email) }
		},
		"unexpired session": func(d *door) func(string) bool {
			b := d.squatter(email)
			return func(who string) bool {
				if r := b.do("POST", "/auth/refresh", obj()); r.status == 200 {
					return true
				}
				return b.signed() == who
			}
		},
		"trojan identifier": func(d *door) func(string) bool {
			b := d.squatter(email)
			d.bolt.RegisterUser(person("attacker", "attacker@example.com", true))
			if r := d.link(b, "bolt", d.bolt); r.header.Get("Location") != "/linked" {
				d.t.Fatalf("the trojan: %s", r.header.Get("Location"))
			}
			return func(who string) bool {
				d.bolt.SignIn("attacker")
				a := d.browser()
				d.come(a, "bolt", d.bolt, "")
				return a.signed() == who
			}
		},
		"trojan link under way": func(d *door) func(string) bool {
			b := d.squatter(email)
			d.bolt.RegisterUser(person("attacker", "attacker@example.com", true))
			begun := b.do("POST", "/auth/identities/bolt", obj())
			query := d.bolt.Follow(d.t, begun.text("url"))
			return func(who string) bool {
				b.do("GET", callback("bolt", query), nil)
				d.bolt.SignIn("attacker")
				a := d.browser()
				d.come(a, "bolt", d.bolt, "")
				return a.signed() == who
			}
		},
		"unexpired e-mail change": func(d *door) func(string) bool {
			b := d.squatter(email)
			d.want(b.do("POST", "/auth/email/change", obj("new_email", "attacker@example.com")), 202, "")
			token := d.token("attacker@example.com")
			return func(string) bool {
				if d.do("POST", "/auth/email/change/confirm", obj("token", token)).status == 204 {
					return true
				}
				d.do("POST", "/auth/magic-link", obj("email", "attacker@example.com"))
				d.settled()
				return len(d.post.to("attacker@example.com")) > 1
			}
		},
		"provider that does not verify": func(d *door) func(string) bool {
			d.bolt.RegisterUser(person("attacker", email, false))
			a := d.browser()
			if d.comes(a, "bolt", d.bolt) == "" {
				d.t.Fatal("the attacker was to be let in, to an account of their own")
			}
			return func(who string) bool {
				d.bolt.SignIn("attacker")
				again := d.browser()
				d.come(again, "bolt", d.bolt, "")
				return again.signed() == who || a.signed() == who
			}
		},
	}
	for attack, prepare := range attacks {
		for arrival, arrive := range arrivals {
			t.Run(attack+"/"+arrival, func(t *testing.T) {
				t.Parallel()
				if attack == "provider that does not verify" && (arrival == "by mail" || arrival == "by reset") {
					// Nobody has the address then; its owner registers.
					arrive = func(d *door) string { return d.owner(email).signed() }
				}
				d := doorsWith(t, ``, `"link":"signed_in"`)
				if arrival == "by acme" || arrival == "by bolt" {
					d = doorsWith(t, ``, `"link":"verified_email"`)
					if attack == "trojan identifier" || attack == "trojan link under way" {
						// This policy has no trojans: the address has to be the same and verified.
						return
					}
				}
				getsIn := prepare(d)
				who := arrive(d)
				if who == "" {
					t.Fatal("the owner was not let in")
				}
				if getsIn(who) {
					t.Error("the attacker has a way into the owner's account")
				}
			})
			t.Run("afterwards/"+attack+"/"+arrival, func(t *testing.T) {
				t.Parallel()
				d := doorsWith(t, ``, `"link":"verified_email"`)
				var who string
				if arrival == "by acme" || arrival == "by bolt" {
					who = arrive(d)
				} else {
					who = d.owner(email).signed()
				}
				a := d.browser()
				// The owner is there first: the address is nobody else's any more.
				d.want(a.do("POST", "/auth/register", obj("email", email, "password", "what the attacker wants", "transport", "cookie")), 409, "email_taken")
				d.bolt.RegisterUser(person("attacker", email, false))
				d.come(a, "bolt", d.bolt, "")
				if a.signed() == who {
					t.Error("a provider that does not verify let the attacker in")
				}
				d.acme.RegisterUser(person("attacker", email, false))
				d.come(a, "acme", d.acme, "")
				if a.signed() == who {
					t.Error("a provider that does not verify let the attacker in")
				}
				if d.do("POST", "/auth/login", obj("email", email, "password", "what the attacker wants")).status == 200 {
					t.Error("the attacker's password works")
				}
			})
		}
	}
}
