package engine_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/mongo"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/users"
)

const evil = "attacker@example.com"

// faulty is a database with a network that does harm.
func faulty(t *testing.T) (*mongo.Database, *storetest.Faults) {
	t.Helper()
	f := &storetest.Faults{Counts: foregroundCommand}
	return storetest.Faulty(t, storetest.Database(t), f), f
}

// slow is a body that the client sends when it likes.
func slow(body any) (io.Reader, func()) {
	r, w := io.Pipe()
	return r, func() {
		raw, _ := json.Marshal(body)
		_, _ = w.Write(raw)
		_ = w.Close()
	}
}

// begun sends the head of a request with a credential; the body follows when finish is
// called.
func (w *world) begun(method, path string, body any, access string) (finish func() *httptest.ResponseRecorder) {
	w.t.Helper()
	reader, send := slow(body)
	first := &firstRead{Reader: reader, read: make(chan struct{})}
	r := httptest.NewRequestWithContext(w.t.Context(), method, path, first)
	r.Host = "shop.example"
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+access)
	rec := httptest.NewRecorder()
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.app.Handler().ServeHTTP(rec, r)
	}()
	select {
	case <-first.read: // the credential was looked at before
	case <-time.After(5 * time.Second):
		w.t.Fatal("the body is not read")
	}
	return func() *httptest.ResponseRecorder {
		send()
		<-done
		return rec
	}
}

type firstRead struct {
	io.Reader
	once sync.Once
	read chan struct{}
}

func (f *firstRead) Read(b []byte) (int, error) {
	f.once.Do(func() { close(f.read) })
	return f.Reader.Read(b)
}

// A squatter whose request was begun before the owner arrived and whose body comes
// afterwards changes nothing.
func TestSlowBodyOfAChange(t *testing.T) {
	t.Parallel()
	m := mailing(t, ``)
	squatter := m.register().text("access_token")
	m.token(email)
	finish := m.begun("POST", "/auth/email/change", obj("new_email", evil), squatter)
	// The owner arrives.
	m.do("POST", "/auth/magic-link", obj("email", email))
	in := m.want(m.do("POST", "/auth/magic-link/consume", obj("token", m.token(email))), 200, "")
	m.want(m.me(squatter), 401, "token_revoked")
	if r := finish(); r.Code == 202 {
		m.t.Errorf("a request of a session that has ended is answered %d", r.Code)
		m.takenOver(m.token(evil))
	}
	_ = in
}

// A thief whose request was begun before the owner ended every session and whose body
// comes afterwards gets no API key.
func TestSlowBodyOfAnAPIKey(t *testing.T) {
	t.Parallel()
	m := owned(t, apiKeys)
	stolen := m.login().text("access_token")
	finish := m.begun("POST", "/auth/api-keys", obj("name", "mine"), stolen)
	m.do("POST", "/auth/password/forgot", obj("email", email))
	m.want(m.do("POST", "/auth/password/reset", obj("token", m.token(email), "new_password", "one more fine passphrase")), 204, "")
	m.want(m.me(stolen), 401, "token_revoked")
	r := finish()
	if r.Code != 201 {
		return
	}
	var made struct{ Key string }
	_ = json.Unmarshal(r.Body.Bytes(), &made)
	who := do(t, m.app.RequireUser().Handler(ok), "GET", "/x", nil, header("X-API-Key", made.Key))
	t.Errorf("a session that has ended has made an API key, which gives %d %s", who.status, who.raw)
}

// A reset that died half way is finished by the next one: nothing of the squatter's is left.
func TestResetThatDiesHalfWay(t *testing.T) {
	t.Parallel()
	{
		t.Run("api_keys", func(t *testing.T) {
			db, f := faulty(t)
			m := mailingOn(t, db, apiKeys)
			squatter := m.register().text("access_token")
			m.token(email)
			key := m.want(m.do("POST", "/auth/api-keys", obj("name", "mine"), bearer(squatter)), 201, "").text("key")
			m.do("POST", "/auth/password/forgot", obj("email", email))
			token := m.token(email)
			m.settled()
			// Which calls a reset makes, up to the one that revokes keys.
			f.Arm(storetest.BeforeTwice, storetest.Step{Command: "update api_keys", Nth: 1}, nil)
			r := m.do("POST", "/auth/password/reset", obj("token", token, "new_password", "what only the owner knows"))
			trace, hits := f.Disarm()
			if hits == 0 {
				t.Fatalf("no such step: %v", trace)
			}
			m.want(r, 503, "unavailable")
			// The owner asks again, and chooses another password.
			m.do("POST", "/auth/password/forgot", obj("email", email))
			m.want(m.do("POST", "/auth/password/reset", obj("token", m.token(email), "new_password", "what only the owner knows, too")), 204, "")
			if who := do(t, m.app.RequireUser().Handler(ok), "GET", "/x", nil, header("X-API-Key", key)); who.status == 200 {
				t.Errorf("the squatter's API key acts for the owner's account: %s", who.raw)
			}
		})
	}
}

// A squatter whose registration is under way while the owner arrives gets no session.
func TestRegistrationUnderWay(t *testing.T) {
	t.Parallel()
	db, f := faulty(t)
	d := doorsOn(t, db, ``, ``)
	d.acme.RegisterUser(person("owner", email, true))
	owner := ""
	once := false
	f.Arm(storetest.Cancel, storetest.Step{Command: "insert mail_outbox", Nth: 1}, func() {
		if !once {
			once = true
			owner = d.comes(d.browser(), "acme", d.acme)
		}
	})
	r := d.do("POST", "/auth/register", account)
	f.Disarm()
	if owner == "" {
		t.Fatal("the owner has not arrived")
	}
	if id := d.me(r.text("access_token")).at("principal", "id"); id == owner {
		t.Errorf("the squatter has a session of the account that the owner got before it began: %d", r.status)
	}
}

// A session of the same guest on another device is the person's, and does nothing that only
// the person may: nobody has shown a credential in it.
func TestOtherSessionsOfAGuest(t *testing.T) {
	t.Parallel()
	m := mailing(t, guests)
	device := strings.Repeat("k", 32) // of the kiosk
	other := m.do("POST", "/auth/anonymous", obj("device_id", device))
	victim := m.do("POST", "/auth/anonymous", obj("device_id", device))
	m.want(m.do("POST", "/auth/register", account, bearer(victim.text("access_token"))), 201, "")
	m.want(m.do("POST", "/auth/email/verify", obj("token", m.token(email))), 204, "")
	r := m.want(m.do("POST", "/auth/refresh", obj("refresh_token", other.text("refresh_token"))), 200, "")
	m.want(m.do("POST", "/auth/email/change", obj("new_email", evil), bearer(r.text("access_token"))), 401, "fresh_required")
	expect(t, do(t, m.app.RequireFresh(0).Handler(ok), "GET", "/", nil, bearer(r.text("access_token"))).status, 401)
}

// A service is told that a guest has signed in only when that is so.
func TestGuestSignedInOnlyWhenSignedIn(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(d *door, id string){
		"disabled": func(d *door, id string) {
			if err := d.app.Users().Disable(d.t.Context(), id, ""); err != nil {
				d.t.Fatal(err)
			}
		},
		"identity that the account does not know": func(d *door, id string) {
			// The call that unlinked it died before the identity was forgotten.
			if err := d.app.Users().RemoveLink(d.t.Context(), id, users.LinkOf("acme", "1"), true); err != nil {
				d.t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var moved []string
			d := doors(t, guests, func(o *engine.Options) {
				o.GuestSignedIn = func(_ context.Context, _, _, user string) error {
					mu.Lock()
					defer mu.Unlock()
					moved = append(moved, user)
					return nil
				}
			})
			d.acme.RegisterUser(person("1", email, true))
			id := d.comes(d.browser(), "acme", d.acme)
			d.owner2(id)
			prepare(d, id)
			// The identity's address is another by now.
			d.acme.RegisterUser(person("1", "other@example.com", true))
			b, _, _ := d.world.guest()
			d.come(b, "acme", d.acme, "")
			if who := b.signed(); len(moved) > 0 && who != id {
				t.Errorf("what the guest had was moved to %v, %d times, and nobody signed in there (%q did)", moved, len(moved), who)
			}
		})
	}
}

func (d *door) owner2(id string) {
	d.t.Helper()
	if err := d.app.Users().SetPassword(d.t.Context(), id, password); err != nil {
		d.t.Fatal(err)
	}
}

// Pages of others cannot fill a browser's cookies so that servers in front refuse it.
func TestFlowCookiesLeaveRoom(t *testing.T) {
	t.Parallel()
	d := doors(t, ``)
	b := d.browser()
	most := 0
	for range 12 {
		r := b.do("GET", "/auth/oauth/acme/login?next=/"+strings.Repeat("a", 1000), nil)
		if r.status != 303 {
			t.Fatalf("%d %s", r.status, r.raw)
		}
		size := 0
		for name, value := range b.cookies {
			size += len(name) + len(value) + 3
		}
		most = max(most, size)
	}
	if most > 8<<10-1024 {
		t.Errorf("the Cookie header has %d bytes; servers in front take 8 KiB for all", most)
	}
}

// The squatter can ask for nothing while a reset is half way.
func TestChangeAskedDuringAReset(t *testing.T) {
	t.Parallel()
	for _, arrive := range []string{"reset", "magic-link"} {
		t.Run(arrive, func(t *testing.T) {
			t.Parallel()
			db, f := faulty(t)
			m := mailingOn(t, db, ``)
			squatter := m.register().text("access_token")
			m.token(email)
			path, body := "/auth/password/reset", obj("new_password", "what only the owner knows")
			if arrive == "reset" {
				m.do("POST", "/auth/password/forgot", obj("email", email))
			} else {
				m.do("POST", "/auth/magic-link", obj("email", email))
				path, body = "/auth/magic-link/consume", obj()
			}
			body["token"] = m.token(email)
			m.settled()
			asked := 0
			var once sync.Once
			// The first write after that of the account ends the sessions.
			f.Arm(storetest.AfterCommitCancel, storetest.Step{Command: "update users", Nth: 1}, func() {
				once.Do(func() {
					asked = m.do("POST", "/auth/email/change", obj("new_email", evil), bearer(squatter)).status
				})
			})
			r := m.do("POST", path, body)
			if trace, hits := f.Disarm(); hits == 0 {
				t.Fatalf("%v", trace)
			}
			if (asked != 401 && asked != 403) || r.status > 204 {
				t.Fatalf("asked: %d, arrived: %d %s", asked, r.status, r.raw)
			}
		})
	}
}

// The device of a guest opens no session of the person whom the guest becomes meanwhile.
func TestDeviceUnderWay(t *testing.T) {
	t.Parallel()
	db, f := faulty(t)
	w := newWorld(t, db, manifestOf(t, "shop", guests))
	device := strings.Repeat("k", 32)
	victim := w.do("POST", "/auth/anonymous", obj("device_id", device)).text("access_token")
	var once sync.Once
	registered := 0
	f.Arm(storetest.Cancel, storetest.Step{Command: "find users", Nth: 2}, func() {
		once.Do(func() { registered = w.do("POST", "/auth/register", account, bearer(victim)).status })
	})
	r := w.do("POST", "/auth/anonymous", obj("device_id", device))
	f.Disarm()
	if registered != 201 {
		t.Fatal(registered)
	}
	if me := w.me(r.text("access_token")); me.at("principal", "kind") == "human" {
		t.Errorf("who knows the device of a guest has a session of the person: %d", r.status)
	}
}

// The roles of an address go to nobody else.
func TestInitialRolesOfAnotherAddress(t *testing.T) {
	t.Parallel()
	db, f := faulty(t)
	d := doorsOn(t, db, guests+`,"policy":{"authorization":{"initial_roles":[{"user":"boss@example.com","role":"admin"}]}}`, ``)
	d.acme.RegisterUser(person("1", "boss@example.com", true))
	b, guest, device := d.world.guest()
	other := d.do("POST", "/auth/anonymous", obj("device_id", device)).text("access_token")
	var once sync.Once
	f.Arm(storetest.Cancel, storetest.Step{Command: "findAndModify users", Nth: 1}, func() {
		once.Do(func() { d.want(d.do("POST", "/auth/register", account, bearer(other)), 201, "") })
	})
	d.come(b, "acme", d.acme, "")
	f.Disarm()
	u, err := d.app.Users().Get(t.Context(), guest)
	roles, _ := d.app.Authz().AssignedRoles(t.Context(), guest)
	if err == nil && u.Email == email && strings.Contains(strings.Join(roles, " "), "admin") {
		t.Errorf("%s has the roles %v, which are those of boss@example.com", u.Email, roles)
	}
}

// A state that was read while an account changes hands belongs to nobody afterwards.
func TestStateReadWhileReclaiming(t *testing.T) {
	t.Parallel()
	db, f := faulty(t)
	m := mailingOn(t, db, ``)
	id := m.register().at("user", "id").(string)
	m.token(email)
	m.do("POST", "/auth/magic-link", obj("email", email))
	token := m.token(email)
	m.settled()
	var st *users.State
	f.Arm(storetest.AfterCommitCancel, storetest.Step{Command: "update users", Nth: 1}, func() {
		if st == nil {
			st, _ = m.app.Users().State(t.Context(), id)
		}
	})
	m.want(m.do("POST", "/auth/magic-link/consume", obj("token", token)), 200, "")
	f.Disarm()
	if err := m.app.Users().AddLink(t.Context(), st, users.LinkOf("bolt", "attacker")); err == nil {
		t.Error("an identity of the squatter is linked to the owner's account: a link that was begun between the first write and the end of the sessions")
	}
}
