package main

import (
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/mandate-auth/mandate/manifest"
)

func TestSomebodyNewAndBackAgain(t *testing.T) {
	t.Parallel()
	s := start(t)
	v := s.visitor(t)
	if at := v.local("ada"); at.String() != s.url+"/" {
		t.Fatalf("the sign-in leads to %s", at)
	}
	email, first := v.who()
	if email != "ada@example.com" || first["email_verified"] != true {
		t.Fatalf("signed in as %v, want ada@example.com, verified as the provider says", first)
	}
	if got := v.identities(); !slices.Equal(got, []string{"ada"}) {
		t.Errorf("the identities are %v", got)
	}
	v.logout()
	if email, _ := v.who(); email != "" {
		t.Fatalf("%s is signed in still", email)
	}
	another := s.visitor(t)
	another.local("ada")
	if _, again := another.who(); again["id"] != first["id"] {
		t.Errorf("another account, %v, for whoever has signed in before as %v", again, first)
	}
}

func TestTheNextPageIsLocal(t *testing.T) {
	t.Parallel()
	s := start(t)
	v := s.visitor(t)
	at := v.pick(v.begin(s.url+"/auth/oauth/local/login?next="+url.QueryEscape("/mails?a=b")), "ada")
	if at.String() != s.url+"/mails?a=b" {
		t.Errorf("the sign-in leads to %s", at)
	}
	for _, next := range []string{"https://evil.example", "//evil.example", "/\\evil.example", "/\t/evil.example", "/..//evil.example"} {
		status, data := v.call("GET", "/auth/oauth/local/login?next="+url.QueryEscape(next), nil)
		if status < 400 || status > 499 {
			t.Errorf("next=%q is taken: %d %v", next, status, data)
		}
	}
}

// signedIn is the policy that whoever is signed in links what they like.
var signedIn = []string{`"link": "verified_email"`, `"link": "signed_in"`}

// link links an account of the provider, and returns where that leads.
func (v *visitor) link(account string) *url.URL {
	v.t.Helper()
	to, _ := v.must(http.StatusOK, "POST", "/auth/identities/local", map[string]any{"next": "/"})["url"].(string)
	return v.pick(v.begin(to), account)
}

func TestLinkingWhileSignedIn(t *testing.T) {
	t.Parallel()
	s := start(t, signedIn...)
	v := s.visitor(t)
	v.register("carol@example.com")
	_, carol := v.who()
	if at := v.link("bob"); at.String() != s.url+"/" {
		t.Fatalf("linking leads to %s", at)
	}
	if got := v.identities(); !slices.Equal(got, []string{"bob"}) {
		t.Fatalf("the identities are %v", got)
	}
	v.logout()
	v.local("bob")
	if email, account := v.who(); email != "carol@example.com" || account["id"] != carol["id"] {
		t.Errorf("the linked identity signs in %v, want %v", account, carol)
	}
	v.must(http.StatusNoContent, "DELETE", "/auth/identities?provider=local&subject=bob", nil)
	if got := v.identities(); len(got) != 0 {
		t.Errorf("the identities are %v after the last was removed", got)
	}
	v.logout()
	if status := v.login("carol@example.com", password); status != http.StatusOK {
		t.Errorf("the password is gone with the identity: %d", status)
	}
}

// With "verified_email" both have to be the same address, and verified.
func TestLinkingNeedsTheSameAddress(t *testing.T) {
	t.Parallel()
	s := start(t)
	v := s.visitor(t)
	v.register("ada@example.com")
	if at := v.link("ada"); at.Query().Get("error") != "link_forbidden" {
		t.Errorf("linking before the address is verified leads to %s", at)
	}
	v.must(http.StatusNoContent, "POST", "/auth/email/verify", map[string]any{"token": s.token(t, "ada@example.com", "/verify")})
	if at := v.link("bob"); at.Query().Get("error") != "link_forbidden" {
		t.Errorf("linking another address leads to %s", at)
	}
	if at := v.link("ada"); at.String() != s.url+"/" {
		t.Errorf("linking leads to %s", at)
	}
	if got := v.identities(); !slices.Equal(got, []string{"ada"}) {
		t.Errorf("the identities are %v", got)
	}
}

func TestTheLastWayInStays(t *testing.T) {
	t.Parallel()
	s := start(t)
	v := s.visitor(t)
	v.local("bob") // without an address nothing can be mailed
	status, data := v.call("DELETE", "/auth/identities?provider=local&subject=bob", nil)
	if status != http.StatusConflict || data["code"] != "last_credential" {
		t.Errorf("%d %v, want 409 last_credential: nobody could get in any more", status, data)
	}
}

// An identity belongs to one account.
func TestAnIdentityOfSomebodyElse(t *testing.T) {
	t.Parallel()
	s := start(t, signedIn...)
	ada := s.visitor(t)
	ada.local("ada")
	eve := s.visitor(t)
	eve.register("eve@example.com")
	if at := eve.link("ada"); at.Query().Get("error") != "identity_taken" {
		t.Errorf("linking what is somebody else's leads to %s", at)
	}
	if got := eve.identities(); len(got) != 0 {
		t.Errorf("eve has the identities %v", got)
	}
	if got := ada.identities(); !slices.Equal(got, []string{"ada"}) {
		t.Errorf("ada has the identities %v", got)
	}
}

// Whoever has an address at the provider that the provider has not verified gets an
// account, but neither that of the address nor the address.
func TestAnUnverifiedAddressIsNotTaken(t *testing.T) {
	t.Parallel()
	for name, registered := range map[string]bool{"somebody's": true, "nobody's": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			owner := s.visitor(t)
			if registered {
				owner.register("bob@example.com")
			}
			v := s.visitor(t)
			if at := v.local("bob"); at.String() != s.url+"/" {
				t.Errorf("the sign-in leads to %s", at)
			}
			_, account := v.who()
			if account == nil || account["email"] != nil || account["email_verified"] != false {
				t.Errorf("signed in as %v, want an account without an address", account)
			}
			if _, of := owner.who(); registered && (of == nil || of["id"] == account["id"]) {
				t.Errorf("the owner of the address, %v, has lost the account", of)
			}
		})
	}
}

// Whoever registers with an address that is not theirs, and waits, loses the account
// to the one whose address it is.
func TestTheOwnerOfAnAddressGetsTheAccount(t *testing.T) {
	t.Parallel()
	s := start(t)
	squatter := s.visitor(t)
	squatter.register("ada@example.com")
	v := s.visitor(t)
	v.local("ada")
	if email, account := v.who(); email != "ada@example.com" || account["email_verified"] != true {
		t.Errorf("signed in as %v", account)
	}
	if email, _ := squatter.who(); email != "" {
		t.Error("the session from before lives on")
	}
	if status := squatter.login("ada@example.com", password); status != http.StatusUnauthorized {
		t.Errorf("the password from before works: %d", status)
	}
}

func TestAVerifiedAddressLinks(t *testing.T) {
	t.Parallel()
	s := start(t)
	owner := s.visitor(t)
	owner.register("ada@example.com")
	owner.must(http.StatusNoContent, "POST", "/auth/email/verify", map[string]any{"token": s.token(t, "ada@example.com", "/verify")})
	_, account := owner.who()
	v := s.visitor(t)
	v.local("ada")
	if _, got := v.who(); got["id"] != account["id"] {
		t.Errorf("signed in as %v, want the account with the address, %v", got, account)
	}
}

func TestCancelAtTheProvider(t *testing.T) {
	t.Parallel()
	s := start(t)
	v := s.visitor(t)
	if at := v.local("cancel"); at.Path != "/" || at.Query().Get("error") != "access_denied" {
		t.Errorf("cancelling leads to %s", at)
	}
	if email, _ := v.who(); email != "" {
		t.Errorf("%s is signed in", email)
	}
}

// callback returns the callback that the provider would send the browser to.
func (v *visitor) callback(account string) *url.URL {
	v.t.Helper()
	id := v.begin(v.s.url + "/auth/oauth/local/login?next=/")
	follow := v.client.CheckRedirect
	v.client.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
		if strings.HasSuffix(r.URL.Path, "/callback") && strings.HasPrefix(r.URL.String(), v.s.url) {
			return http.ErrUseLastResponse
		}
		return nil
	}
	defer func() { v.client.CheckRedirect = follow }()
	res, _ := v.do("POST", v.s.issuer+"/login", "application/x-www-form-urlencoded", url.Values{"id": {id}, "account": {account}}.Encode())
	at, err := res.Location()
	if err != nil || !strings.HasPrefix(at.String(), v.s.url) {
		v.t.Fatalf("%v, %v", at, err)
	}
	return at
}

func TestTheCallbackOfAnotherSignIn(t *testing.T) {
	t.Parallel()
	s := start(t)
	for name, change := range map[string]func(at *url.URL) *visitor{
		"another browser": func(*url.URL) *visitor { return s.visitor(t) },
		"another state": func(at *url.URL) *visitor {
			q := at.Query()
			q.Set("state", q.Get("state")[1:]+"A")
			at.RawQuery = q.Encode()
			return nil
		},
		"no state": func(at *url.URL) *visitor {
			q := at.Query()
			q.Del("state")
			at.RawQuery = q.Encode()
			return nil
		},
		"another code": func(at *url.URL) *visitor {
			q := at.Query()
			q.Set("code", "made-up")
			at.RawQuery = q.Encode()
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := s.visitor(t)
			at := v.callback("ada")
			if other := change(at); other != nil {
				v = other
			}
			res, body := v.do("GET", at.String(), "", "")
			if end := res.Request.URL; res.StatusCode < 400 && !end.Query().Has("error") {
				t.Errorf("the callback leads to %d %s\n%s", res.StatusCode, end, body)
			}
			if email, _ := v.who(); email != "" {
				t.Errorf("%s is signed in", email)
			}
		})
	}
}

func TestACallbackWorksOnce(t *testing.T) {
	t.Parallel()
	s := start(t)
	v := s.visitor(t)
	at := v.callback("ada")
	v.do("GET", at.String(), "", "")
	if email, _ := v.who(); email != "ada@example.com" {
		t.Fatalf("signed in as %q", email)
	}
	v.logout()
	v.do("GET", at.String(), "", "")
	if email, _ := v.who(); email != "" {
		t.Errorf("the callback signs %s in once more", email)
	}
}

// The manifest of the README is one.
func TestTheManifestOfTheREADME(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(text), "```json\n")
	block, _, found := strings.Cut(block, "```")
	if !found {
		t.Fatal("the README has no manifest")
	}
	m, err := manifest.Parse([]byte(block), &manifest.Options{LookupEnv: func(name string) (string, bool) { return "the value of " + name, true }})
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Auth.OAuth.Providers) != 2 {
		t.Errorf("its providers are %v", m.Auth.OAuth.Providers)
	}
}

func TestWhatIsMailed(t *testing.T) {
	t.Parallel()
	s := start(t)
	const email = "dora@example.com"
	v := s.visitor(t)
	v.register(email)
	v.must(http.StatusNoContent, "POST", "/auth/email/verify", map[string]any{"token": s.token(t, email, "/verify")})
	if _, account := v.who(); account["email_verified"] != true {
		t.Errorf("the address is not verified: %v", account)
	}
	v.logout()

	v.must(http.StatusAccepted, "POST", "/auth/password/forgot", map[string]any{"email": email})
	v.must(http.StatusNoContent, "POST", "/auth/password/reset", map[string]any{"token": s.token(t, email, "/reset"), "new_password": password + "!"})
	if old, now := v.login(email, password), v.login(email, password+"!"); old != http.StatusUnauthorized || now != http.StatusOK {
		t.Errorf("the old password: %d, the new one: %d", old, now)
	}
	v.logout()

	v.must(http.StatusAccepted, "POST", "/auth/magic-link", map[string]any{"email": email})
	v.must(http.StatusOK, "POST", "/auth/magic-link/consume", map[string]any{"token": s.token(t, email, "/magic"), "transport": "cookie"})
	if got, _ := v.who(); got != email {
		t.Errorf("the link signs %q in", got)
	}
	v.logout()

	flow := v.must(http.StatusAccepted, "POST", "/auth/code", map[string]any{"email": email})["flow_id"]
	v.must(http.StatusOK, "POST", "/auth/code/consume", map[string]any{"flow_id": flow, "code": s.code(t, email), "transport": "cookie"})
	if got, _ := v.who(); got != email {
		t.Errorf("the code signs %q in", got)
	}

	v.must(http.StatusAccepted, "POST", "/auth/email/change", map[string]any{"new_email": "new@example.com", "current_password": password + "!"})
	v.must(http.StatusNoContent, "POST", "/auth/email/change/confirm", map[string]any{"token": s.token(t, "new@example.com", "/change-email")})
	if status := v.login("new@example.com", password+"!"); status != http.StatusOK {
		t.Errorf("signing in with the new address: %d", status)
	}
}
