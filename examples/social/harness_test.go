package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/engine/enginetest"
	"github.com/mandate-auth/mandate/examples/social/provider"
	"github.com/mandate-auth/mandate/mail"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// site is the example on a database of its own, with its provider.
type site struct {
	*enginetest.Env
	*settings
	box *mailbox
	// arrived has every mail, once it is in the box.
	arrived chan mail.Message
}

// Send is the mailbox's, and says so.
func (s *site) Send(ctx context.Context, m *mail.Message) error {
	err := s.box.Send(ctx, m)
	s.arrived <- *m
	return err
}

// Both servers are up before there is anything to serve: each has to know where the
// other one is.
//
// The old and the new strings are replaced in the manifest.
func start(t *testing.T, oldnew ...string) *site {
	t.Helper()
	s := &site{box: &mailbox{}, arrived: make(chan mail.Message, kept)}
	var own, others http.Handler
	serve := func(h *http.Handler) string {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*h).ServeHTTP(w, r) }))
		t.Cleanup(server.Close)
		_, port, err := net.SplitHostPort(server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return "http://localhost:" + port
	}
	s.settings = newSettings(serve(&own), serve(&others))
	p, err := provider.New(s.provider())
	if err != nil {
		t.Fatal(err)
	}
	others = p
	s.Env = enginetest.New(t, &enginetest.Options{
		Manifest: strings.NewReplacer(oldnew...).Replace(string(manifestJSON)), LookupEnv: s.lookup,
		Configure: func(o *engine.Options) { o.Mailer = s },
	})
	own = routes(s.App, s.box)
	return s
}

// await waits for a mail in which find finds something, and returns that. Mails that
// tell of what has happened pass by.
func (s *site) await(t *testing.T, to, what string, find func(m *mail.Message) string) string {
	t.Helper()
	over := time.After(10 * time.Second)
	var seen []string
	for {
		select {
		case m := <-s.arrived:
			if found := find(&m); found != "" && m.To == to {
				return found
			}
			seen = append(seen, m.To+": "+m.Subject)
		case <-over:
			t.Fatalf("no mail to %s has %s; there were %q", to, what, seen)
		}
	}
}

// token returns the token of the next link to the path.
func (s *site) token(t *testing.T, to, path string) string {
	t.Helper()
	return s.await(t, to, "a link to "+path, func(m *mail.Message) string {
		for _, p := range parts(m.Text) {
			if before, token, found := strings.Cut(p.Text, "#token="); p.Link && found && before == s.url+path {
				return token
			}
		}
		return ""
	})
}

var digits = regexp.MustCompile(`(?m)^\s*([0-9]{6,8})\s*$`)

// code returns the next code.
func (s *site) code(t *testing.T, to string) string {
	t.Helper()
	return s.await(t, to, "a code", func(m *mail.Message) string { return strings.TrimSpace(digits.FindString(m.Text)) })
}

// visitor is a person with a browser of their own.
type visitor struct {
	t      *testing.T
	s      *site
	client *http.Client
}

func (s *site) visitor(t *testing.T) *visitor {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &visitor{t: t, s: s, client: &http.Client{Jar: jar, Transport: transport, Timeout: 10 * time.Second}}
}

func (v *visitor) do(method, target, kind, body string) (*http.Response, []byte) {
	v.t.Helper()
	r, err := http.NewRequestWithContext(v.t.Context(), method, target, strings.NewReader(body))
	if err != nil {
		v.t.Fatal(err)
	}
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	res, err := v.client.Do(r)
	if err != nil {
		v.t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	return res, raw
}

// call asks the service, as the page's script does.
func (v *visitor) call(method, path string, body map[string]any) (status int, data map[string]any) {
	v.t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		v.t.Fatal(err)
	}
	if body == nil {
		raw = nil
	}
	res, raw := v.do(method, v.s.url+path, "application/json", string(raw))
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &data); err != nil {
			v.t.Fatalf("%s %s: %d %s", method, path, res.StatusCode, raw)
		}
	}
	return res.StatusCode, data
}

// must is call for what has to succeed.
func (v *visitor) must(want int, method, path string, body map[string]any) map[string]any {
	v.t.Helper()
	status, data := v.call(method, path, body)
	if status != want {
		v.t.Fatalf("%s %s: %d %v; want %d", method, path, status, data, want)
	}
	return data
}

// who returns the address of whoever is signed in, "" for nobody, and the account.
func (v *visitor) who() (string, map[string]any) {
	v.t.Helper()
	status, data := v.call("GET", "/whoami", nil)
	if status == http.StatusUnauthorized {
		return "", nil
	}
	email, _ := data["email"].(string)
	return email, data
}

func (v *visitor) register(email string) {
	v.t.Helper()
	v.must(http.StatusCreated, "POST", "/auth/register", map[string]any{"email": email, "password": password, "transport": "cookie"})
}

func (v *visitor) login(email, password string) int {
	v.t.Helper()
	status, _ := v.call("POST", "/auth/login", map[string]any{"email": email, "password": password, "transport": "cookie"})
	return status
}

func (v *visitor) logout() { v.t.Helper(); v.must(http.StatusNoContent, "POST", "/auth/logout", nil) }

const password = "correct horse battery staple 7"

var waiting = regexp.MustCompile(`name="id" value="([^"]+)"`)

// begin follows an URL to the provider's page, and returns the id of what waits there.
func (v *visitor) begin(target string) string {
	v.t.Helper()
	res, page := v.do("GET", target, "", "")
	id := waiting.FindSubmatch(page)
	if !strings.HasPrefix(res.Request.URL.String(), v.s.issuer+"/login") || id == nil {
		v.t.Fatalf("not the provider's page but %d %s:\n%s", res.StatusCode, res.Request.URL, page)
	}
	return string(id[1])
}

// pick picks an account on the provider's page, and returns where that leads.
func (v *visitor) pick(id, account string) *url.URL {
	v.t.Helper()
	form := url.Values{"id": {id}, "account": {account}}
	res, _ := v.do("POST", v.s.issuer+"/login", "application/x-www-form-urlencoded", form.Encode())
	return res.Request.URL
}

// local signs in with the provider, and returns where that leads.
func (v *visitor) local(account string) *url.URL {
	v.t.Helper()
	return v.pick(v.begin(v.s.url+"/auth/oauth/local/login?next=/"), account)
}

// identities are the subjects that are linked.
func (v *visitor) identities() []string {
	v.t.Helper()
	list, _ := v.must(http.StatusOK, "GET", "/auth/identities", nil)["identities"].([]any)
	var subjects []string
	for _, one := range list {
		subject, _ := one.(map[string]any)["subject"].(string)
		subjects = append(subjects, subject)
	}
	return subjects
}
