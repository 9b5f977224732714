package social_test

import (
	"errors"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/users/social"
	"github.com/mandate-auth/mandate/users/social/socialtest"
)

// Callbacks that do not belong to a sign-in of this browser, or that say what no
// provider says. Where the browser's own state came, it must be used up: the right
// callback does not work any more.
func TestHostileCallbacks(t *testing.T) {
	t.Parallel()
	set := func(name, value string) func(url.Values, *string) {
		return func(q url.Values, _ *string) { q.Set(name, value) }
	}
	add := func(name, value string) func(url.Values, *string) {
		return func(q url.Values, _ *string) { q.Add(name, value) }
	}
	cookie := func(f func(string) string) func(url.Values, *string) {
		return func(_ url.Values, c *string) { *c = f(*c) }
	}
	tests := []struct {
		name   string
		change func(q url.Values, cookie *string)
		kind   error
		reason string
		used   bool
	}{
		{"no state", func(q url.Values, _ *string) { q.Del("state") }, social.ErrFlow, "state_missing", false},
		{"an empty state", set("state", ""), social.ErrFlow, "state_missing", false},
		{"two states", add("state", "x"), social.ErrFlow, "state_missing", false},
		{"the state twice", func(q url.Values, _ *string) { q.Add("state", q.Get("state")) }, social.ErrFlow, "state_missing", false},
		{"a short state", func(q url.Values, _ *string) { q.Set("state", q.Get("state")[:42]) }, social.ErrFlow, "state_missing", false},
		{"a long state", func(q url.Values, _ *string) { q.Set("state", q.Get("state")+"A") }, social.ErrFlow, "state_missing", false},
		{"another state", set("state", strings.Repeat("A", 43)), social.ErrFlow, "flow_foreign", false},
		{"no cookie", cookie(func(string) string { return "" }), social.ErrFlow, "flow_missing", false},
		{"a cookie that is none", cookie(func(string) string { return "x" }), social.ErrFlow, "flow_foreign", false},
		{"a long cookie", cookie(func(c string) string { return c + strings.Repeat("A", social.MaxCookie) }), social.ErrFlow, "flow_foreign", false},
		{"a cookie with more", cookie(func(c string) string { return c + "A" }), social.ErrFlow, "flow_foreign", false},
		{"a cookie with a line break", cookie(func(c string) string { return c[:20] + "\n" + c[20:] }), social.ErrFlow, "flow_foreign", false},

		{"no code", func(q url.Values, _ *string) { q.Del("code") }, social.ErrProvider, "code_missing", true},
		{"an empty code", set("code", ""), social.ErrProvider, "code_missing", true},
		{"two codes", add("code", "x"), social.ErrProvider, "callback_malformed", true},
		{"a code with a line", set("code", "a\nb"), social.ErrProvider, "callback_malformed", true},
		{"a long code", set("code", strings.Repeat("c", 5000)), social.ErrProvider, "callback_malformed", true},
		{"a code of nobody", set("code", "x"), social.ErrProvider, "code_refused", true},
		{"an error and a code", set("error", "access_denied"), social.ErrProvider, "callback_malformed", true},
		{"a token", set("access_token", "x"), social.ErrProvider, "callback_malformed", true},
		{"an ID token", set("id_token", "x"), social.ErrProvider, "callback_malformed", true},
		{"a response object", set("response", "x"), social.ErrProvider, "callback_malformed", true},
		{"an unknown parameter twice", func(q url.Values, _ *string) { q["x"] = []string{"1", "2"} }, social.ErrProvider, "callback_malformed", true},
		{"iss of another", set("iss", "https://evil.example"), social.ErrProvider, "issuer", true},
		{"iss empty", set("iss", ""), social.ErrProvider, "issuer", true},
		{"iss missing", func(q url.Values, _ *string) { q.Del("iss") }, social.ErrProvider, "issuer", true},
		{"iss twice", func(q url.Values, _ *string) { q.Add("iss", q.Get("iss")) }, social.ErrProvider, "callback_malformed", true},
		{"an error with iss of another", func(q url.Values, _ *string) {
			q.Del("code")
			q.Set("error", "access_denied")
			q.Set("iss", "https://evil.example")
		}, social.ErrProvider, "issuer", true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e := setup(t)
			f, query := e.begin(t, social.BeginOptions{})
			good := url.Values{}
			for name, values := range query {
				good[name] = append([]string(nil), values...)
			}
			c := f.Cookie
			test.change(query, &c)
			r, err := e.finish(t, query, c)
			refused(t, r, err, test.kind, test.reason)
			if events := e.events.all(); len(events) != 1 || events[0].Type != event.IdentityRefused || events[0].Reason != test.reason ||
				events[0].Metadata["provider"] != "corp" || events[0].App != "shop" || events[0].Result != event.Failure || !events[0].Time.Equal(epoch) {
				t.Errorf("events %+v", events)
			}
			r, err = e.finish(t, good, f.Cookie)
			if test.used && (r != nil || !errors.Is(err, social.ErrReplayed)) {
				t.Errorf("the state is not used up: %v, %v", r, err)
			}
			if !test.used && err != nil {
				t.Errorf("a stranger's callback used the state up: %v", err)
			}
		})
	}
	t.Logf("%d rows", len(tests))
}

// Every bit of the cookie counts, and every prefix is refused.
func TestAlteredCookies(t *testing.T) {
	t.Parallel()
	e := setup(t)
	f, query := e.begin(t, social.BeginOptions{Next: "/a", Data: []byte("user_1")})
	tried := 0
	for i := range len(f.Cookie) {
		for _, c := range []string{f.Cookie[:i], f.Cookie[:i] + string(f.Cookie[i]^1) + f.Cookie[i+1:], f.Cookie[:i] + string(f.Cookie[i]^64) + f.Cookie[i+1:]} {
			if r, err := e.finish(t, query, c); r != nil || !errors.Is(err, social.ErrFlow) {
				t.Fatalf("%q: %v, %v", c, r, err)
			}
			tried++
		}
	}
	if e.once.Claimed() != 0 {
		t.Error("an altered cookie uses a state up")
	}
	if r, err := e.finish(t, query, f.Cookie); err != nil || r.Next != "/a" {
		t.Errorf("%v, %v", r, err)
	}
	t.Logf("%d cookies", tried)
}

// A sign-in belongs to one provider, app, browser and configuration.
func TestForeignFlows(t *testing.T) {
	t.Parallel()
	e := setup(t, func(e *env, _ *social.ProviderConfig) {
		// Two names for one server, so that nothing but the binding tells them apart.
		e.config.Providers = []social.ProviderConfig{oidc(e.provider, "other")}
	})
	f, query := e.begin(t, social.BeginOptions{})
	other, otherQuery := e.begin(t, social.BeginOptions{})
	if f.ID == other.ID {
		t.Error("two tabs have one cookie")
	}

	r, err := e.set.Finish(t.Context(), "other", query, f.Cookie)
	refused(t, r, err, social.ErrFlow, "flow_foreign")

	config := e.config
	config.App, config.Keys = "blog", appKeys(t, "blog")
	r, err = open(t, config).Finish(t.Context(), "corp", query, f.Cookie)
	refused(t, r, err, social.ErrFlow, "flow_foreign")

	config = e.config
	config.RedirectBase = "https://new.example/auth/oauth/"
	r, err = open(t, config).Finish(t.Context(), "corp", query, f.Cookie)
	refused(t, r, err, social.ErrFlow, "flow_foreign")

	config = e.config
	moved := socialtest.NewProvider(t, socialtest.Options{Now: e.Now})
	config.Providers = []social.ProviderConfig{oidc(moved, "corp")}
	r, err = open(t, config).Finish(t.Context(), "corp", query, f.Cookie)
	refused(t, r, err, social.ErrFlow, "flow_foreign")
	if moved.Calls(socialtest.Token) != 0 {
		t.Error("a code went to a server that did not issue it")
	}

	r, err = e.finish(t, query, other.Cookie)
	refused(t, r, err, social.ErrFlow, "flow_foreign")
	for _, tab := range []struct {
		query  url.Values
		cookie string
	}{{otherQuery, other.Cookie}, {query, f.Cookie}} {
		if _, err := e.finish(t, tab.query, tab.cookie); err != nil {
			t.Errorf("two tabs: %v", err)
		}
	}
}

func TestFlowsExpire(t *testing.T) {
	t.Parallel()
	e := setup(t)
	f, query := e.begin(t, social.BeginOptions{})
	e.Move(social.Lifetime)
	r, err := e.finish(t, query, f.Cookie)
	refused(t, r, err, social.ErrFlow, "flow_expired")
	e.Move(-1)
	if _, err := e.finish(t, query, f.Cookie); err != nil {
		t.Errorf("too early: %v", err)
	}
}

// One callback signs in once, however often it comes and on however many instances.
func TestReplays(t *testing.T) {
	t.Parallel()
	e := setup(t)
	instances := []*social.Set{e.set, open(t, e.config), open(t, e.config)}
	f, query := e.begin(t, social.BeginOptions{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	won, replayed := 0, 0
	for i := range 50 {
		wg.Go(func() {
			r, err := instances[i%len(instances)].Finish(t.Context(), "corp", query, f.Cookie)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil && r.Info.Subject == "alice-1":
				won++
			case r == nil && errors.Is(err, social.ErrReplayed):
				replayed++
			default:
				t.Errorf("%v, %v", r, err)
			}
		})
	}
	wg.Wait()
	if won != 1 || replayed != 49 || e.provider.Calls(socialtest.Token) != 1 {
		t.Errorf("%d won, %d were replays, %d calls", won, replayed, e.provider.Calls(socialtest.Token))
	}
	if len(e.events.all()) != 49 || e.events.all()[0].Reason != "replayed" {
		t.Errorf("%d events", len(e.events.all()))
	}
}

// When nobody knows whether a state was used, it counts as used.
func TestOnceThatFails(t *testing.T) {
	t.Parallel()
	e := setup(t)
	away := errors.New("database away")
	e.once.Fail = away
	r, err := e.signIn(t)
	if r != nil || !errors.Is(err, away) {
		t.Fatalf("%v, %v", r, err)
	}
	if e.provider.Calls(socialtest.Token) != 0 {
		t.Error("the code was used")
	}
	if events := e.events.all(); len(events) != 1 || events[0].Reason != "once_unavailable" {
		t.Errorf("events %+v", events)
	}
}

// An error response of the provider is told apart by its code, and nothing else of it
// comes through.
func TestErrorResponses(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]string{
		"access_denied": "access_denied", "login_required": "login_required", "invalid_scope": "invalid_scope", "server_error": "server_error",
		"temporarily_unavailable": "temporarily_unavailable", "<script>": "unknown", "": "unknown", "ACCESS_DENIED": "unknown",
	} {
		t.Run(want+" for "+code, func(t *testing.T) {
			t.Parallel()
			e := setup(t)
			f, query := e.begin(t, social.BeginOptions{})
			query.Del("code")
			query.Set("error", code)
			query.Set("error_description", "canary")
			r, err := e.finish(t, query, f.Cookie)
			var denied *social.DeniedError
			if r != nil || !errors.As(err, &denied) || denied.Code != want || denied.Provider != "corp" {
				t.Fatalf("%v, %v", r, err)
			}
			if unavailable := want == "server_error" || want == "temporarily_unavailable"; errors.Is(err, social.ErrProviderUnavailable) != unavailable {
				t.Errorf("unavailable: %v", !unavailable)
			}
			if strings.Contains(err.Error()+e.log.String(), "canary") || strings.Contains(e.log.String(), "<script>") {
				t.Errorf("what the provider says comes through: %v %s", err, e.log)
			}
			if _, err := e.finish(t, query, f.Cookie); !errors.Is(err, social.ErrReplayed) {
				t.Errorf("the state is not used up: %v", err)
			}
			if event := e.events.all()[0]; event.Reason != "denied" || event.Metadata["code"] != want {
				t.Errorf("event %+v", event)
			}
		})
	}
	e := setup(t)
	e.provider.SignIn("")
	var denied *social.DeniedError
	if r, err := e.signIn(t); r != nil || !errors.As(err, &denied) || denied.Code != "access_denied" {
		t.Errorf("who cancels: %v, %v", r, err)
	}
}

// The provider has to get the verifier that fits: a code that somebody else has got is
// of no use without it. A challenge of one sign-in does not fit another.
func TestPKCE(t *testing.T) {
	t.Parallel()
	e := setup(t)
	f, query := e.begin(t, social.BeginOptions{})
	_, other := e.begin(t, social.BeginOptions{})
	query.Set("code", other.Get("code"))
	r, err := e.finish(t, query, f.Cookie)
	refused(t, r, err, social.ErrProvider, "code_refused")
}

// A canary of each secret must be in no error, event or log, whatever goes wrong.
func TestSecretsStayInside(t *testing.T) {
	t.Parallel()
	for endpoint := range reasons {
		e := setup(t, func(_ *env, c *social.ProviderConfig) { c.KeepTokens = true })
		r := e.mustSignIn(t)
		canaries := []string{string(r.Tokens.AccessToken.Reveal()), string(r.Tokens.IDToken.Reveal()), e.provider.ClientSecret, url.QueryEscape(e.provider.ClientSecret)}
		e.Move(3 * 60 * 60 * 1e9)
		e.provider.Change(endpoint, body(`{"error":"`+strings.Repeat("canary ", 100)+`","error_description":"canary description","access_token":"a canary"}`))
		f, err := e.set.Begin(t.Context(), "corp", social.BeginOptions{})
		if err == nil {
			query := e.provider.Follow(t, f.URL)
			canaries = append(canaries, query.Get("code"), query.Get("state"), f.Cookie)
			_, err = e.finish(t, query, f.Cookie)
		}
		if err == nil {
			t.Fatal("accepted")
		}
		said := err.Error() + e.log.String()
		for _, event := range e.events.all() {
			said += event.LogValue().String()
		}
		for _, canary := range append(canaries, "canary description") {
			if strings.Contains(said, canary) {
				t.Errorf("%s: %q is said: %s", endpoint, canary, said)
			}
		}
		if strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: the text of the error is not constant: %v", endpoint, err)
		}
	}
}
