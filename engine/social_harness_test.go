package engine_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/mongo"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/users/social/socialtest"
)

// door is a world whose people can come by other providers.
type door struct {
	*mailRoom
	acme, bolt *socialtest.Provider
}

// doors is a world with two providers, acme and bolt.
func doors(t *testing.T, auth string, edit ...func(*engine.Options)) *door {
	t.Helper()
	return doorsWith(t, auth, ``, edit...)
}

// doorsWith is doors with more of the manifest's auth.oauth.
func doorsWith(t *testing.T, auth, oauth string, edit ...func(*engine.Options)) *door {
	t.Helper()
	return doorsOn(t, storetest.Database(t), auth, oauth, edit...)
}

// doorsOn is doorsWith on a database of the test's own.
func doorsOn(t *testing.T, db *mongo.Database, auth, oauth string, edit ...func(*engine.Options)) *door {
	t.Helper()
	d := &door{}
	// The providers' clock is the wall's, as that of the world is at first.
	d.acme, d.bolt = socialtest.NewProvider(t, socialtest.Options{}), socialtest.NewProvider(t, socialtest.Options{})
	if oauth != "" {
		oauth = "," + oauth
	}
	if auth != "" {
		auth = "," + auth
	}
	d.mailRoom = mailingOn(t, db, fmt.Sprintf(`%s,"oauth":{"providers":{%s,%s}%s}%s`, mails, providerJSON("acme", d.acme, ``), providerJSON("bolt", d.bolt, ``), oauth, auth), edit...)
	return d
}

func providerJSON(name string, p *socialtest.Provider, more string) string {
	return fmt.Sprintf(`%q:{"issuer":%q,"client_id":%q,"client_secret":%q%s}`, name, p.URL, p.ClientID, p.ClientSecret, more)
}

// person is somebody at a provider.
func person(subject, address string, verified bool) socialtest.User {
	return socialtest.User{Claims: map[string]any{"sub": subject, "email": address, "email_verified": verified, "name": "Ada " + subject}}
}

// browser keeps cookies.
type browser struct {
	w       *world
	cookies map[string]string
	edit    []request
}

func (w *world) browser(edit ...request) *browser {
	return &browser{w: w, cookies: map[string]string{}, edit: edit}
}

func (b *browser) do(method, path string, body any, edit ...request) *response {
	b.w.t.Helper()
	edit = append(append([]request{b.send}, b.edit...), edit...)
	r := b.w.do(method, path, body, edit...)
	for _, c := range (&http.Response{Header: r.header}).Cookies() {
		if c.MaxAge < 0 {
			delete(b.cookies, c.Name)
		} else {
			b.cookies[c.Name] = c.Value
		}
	}
	return r
}

func (b *browser) send(r *http.Request) {
	for name, value := range b.cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
}

// signed reports whose the browser's session is, "" for nobody.
func (b *browser) signed() string {
	b.w.t.Helper()
	r := b.do("GET", "/auth/me", nil)
	id, _ := r.at("principal", "id").(string)
	return id
}

// callback is where a provider sends the browser back to.
func callback(provider string, query url.Values) string {
	return "/auth/oauth/" + provider + "/callback?" + query.Encode()
}

// come begins a sign-in and follows it to the callback, whose answer it returns.
func (d *door) come(b *browser, name string, p *socialtest.Provider, rest string) *response {
	d.t.Helper()
	begun := b.do("GET", "/auth/oauth/"+name+"/login"+rest, nil)
	if begun.status != 303 {
		d.t.Fatalf("begin: %d %s", begun.status, begun.raw)
	}
	return b.do("GET", callback(name, p.Follow(d.t, begun.header.Get("Location"))), nil)
}

// comes is come of somebody who has to be let in; it returns whom the browser is then.
func (d *door) comes(b *browser, name string, p *socialtest.Provider) string {
	d.t.Helper()
	r := d.come(b, name, p, "")
	if r.status != 303 || r.header.Get("Location") != "/" {
		d.t.Errorf("not let in: %d %s %s", r.status, r.header.Get("Location"), r.raw)
	}
	return b.signed()
}

// refusedWith checks that a callback sends the browser back with a code.
func (d *door) refusedWith(r *response, code string) {
	d.t.Helper()
	u, err := url.Parse(r.header.Get("Location"))
	if err != nil || r.status != 303 || u.Host != "" || u.Path != "/" || u.Query().Get("error") != code {
		d.t.Errorf("got %d %q %s, want error %s", r.status, r.header.Get("Location"), r.raw, code)
	}
	for _, line := range r.header["Set-Cookie"] {
		if name, _, _ := strings.Cut(line, "="); strings.Contains(name, "access") || strings.Contains(name, "refresh") {
			d.t.Errorf("a refusal hands out %s", name)
		}
	}
}

// link links an identity to the account of the browser's session.
func (d *door) link(b *browser, name string, p *socialtest.Provider) *response {
	d.t.Helper()
	begun := b.do("POST", "/auth/identities/"+name, obj("next", "/linked"))
	if begun.status != 200 {
		return begun
	}
	return b.do("GET", callback(name, p.Follow(d.t, begun.text("url"))), nil)
}
