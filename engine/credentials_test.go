package engine_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/engine/enginetest"
	"github.com/mandate-auth/mandate/internal/store/storetest"
)

// A repeated key or client token costs no round trip.
func TestRepeatedMachinesCostNoRoundTrip(t *testing.T) {
	t.Parallel()
	commands := &enginetest.Commands{}
	w := newWorld(t, storetest.Monitored(t, commands.Monitor()), manifestOf(t, "shop", machines))
	_, token := w.newUser("ada@example.com")
	key, _ := w.makeKey(token, "documents:read")
	id, secret := w.makeClient("worker")
	guard := w.app.RequireUser().Handler(ok)
	access := bearer(w.clientToken(id, secret))
	for name, as := range map[string]request{"key": apiKey(key), "token": access, "secret": basicAuth(id, secret)} {
		if r := do(t, guard, "GET", "/", nil, as); r.status != 200 {
			t.Fatalf("%s: %s", name, r.raw)
		}
		commands.Reset()
		for range 50 {
			if r := do(t, guard, "GET", "/", nil, as); r.status != 200 {
				t.Fatalf("%s: %s", name, r.raw)
			}
		}
		if got := requested(commands); got != "" {
			t.Errorf("%s: repeating it asked the database: %s", name, got)
		}
	}
	// client_credentials writes nothing.
	commands.Reset()
	w.clientToken(id, secret)
	if got := requested(commands); got != "" {
		t.Errorf("client_credentials asked the database: %s", got)
	}
}

// Which credentials may be combined, and that one that is wrong never falls through
// to another.
func TestCombinedCredentials(t *testing.T) {
	t.Parallel()
	cert := authenticator(func(r *http.Request) (*engine.Principal, error) {
		switch r.Header.Get("X-Cert") {
		case "":
			return nil, nil
		case "bad":
			return nil, errors.New("the certificate is not ours")
		default:
			return &engine.Principal{ID: r.Header.Get("X-Cert"), Kind: authz.KindService}, nil
		}
	})
	rule := func(path, methods, strategy string) string {
		return `{"path":"` + path + `","methods_allowed":[` + methods + `],"strategy":"` + strategy + `"}`
	}
	requirements := `,"requirements":[` + strings.Join([]string{
		rule("/jwt", `"jwt"`, "any"), rule("/key", `"api_key"`, "any"), rule("/client", `"client"`, "any"), rule("/basic", `"basic"`, "any"),
		rule("/either", `"jwt","api_key"`, "any"), rule("/both", `"jwt","api_key"`, "all"), rule("/cert", `"cert"`, "any"),
		rule("/cert-and-client", `"cert","client"`, "all"), rule("/cert-or-jwt", `"cert","jwt"`, "any"), `{"path":"/optional","optional":true}`,
	}, ",") + `]`
	w := newWorld(t, storetest.Database(t), manifestOf(t, "shop", machines+requirements), func(o *engine.Options) {
		o.Authenticators = map[string]engine.NewAuthenticator{"cert": func(string) (engine.Authenticator, error) { return cert, nil }}
	})
	_, jwt := w.newUser("ada@example.com")
	_, bob := w.newUser("bob@example.com")
	key, _ := w.makeKey(jwt, "*")
	id, secret := w.makeClient("worker")
	client := bearer(w.clientToken(id, secret))
	with := func(name string) request { return header("X-Cert", name) }
	wrongKey := apiKey(key[:len(key)-1] + "_")
	h := w.app.Protect(ok)
	for _, tt := range []struct {
		path   string
		name   string
		edit   []request
		status int
		code   string
	}{
		{"/other", "a token", []request{jwt}, 200, ""},
		{"/other", "a key", []request{apiKey(key)}, 200, ""},
		{"/other", "a client's token", []request{client}, 200, ""},
		{"/other", "a client's secret", []request{basicAuth(id, secret)}, 200, ""},
		{"/other", "a password", []request{basicAuth("ada@example.com", password)}, 401, "invalid_credentials"},
		{"/other", "a certificate", []request{with("cert|x")}, 200, ""},
		{"/other", "a token and a key", []request{jwt, apiKey(key)}, 400, "invalid_request"},
		{"/other", "a wrong key beside a certificate", []request{wrongKey, with("cert|x")}, 401, "token_invalid"},
		{"/other", "a wrong token beside a certificate", []request{bearer("a.b.c"), with("cert|x")}, 401, "token_invalid"},
		{"/other", "a bad certificate", []request{with("bad")}, 401, "invalid_credentials"},
		{"/other", "nothing", nil, 401, "unauthenticated"},
		{"/jwt", "a token", []request{jwt}, 200, ""},
		{"/jwt", "a client's token", []request{client}, 401, "unauthenticated"},
		{"/jwt", "a key", []request{apiKey(key)}, 401, "unauthenticated"},
		{"/jwt", "a token and a key", []request{jwt, apiKey(key)}, 400, "invalid_request"},
		{"/key", "a key", []request{apiKey(key)}, 200, ""},
		{"/key", "a token", []request{jwt}, 401, "unauthenticated"},
		{"/key", "a certificate", []request{with("cert|x")}, 401, "unauthenticated"},
		{"/client", "a client's token", []request{client}, 200, ""},
		{"/client", "a client's secret", []request{basicAuth(id, secret)}, 200, ""},
		{"/client", "a user's token", []request{jwt}, 401, "unauthenticated"},
		{"/client", "a user's password", []request{basicAuth("ada@example.com", password)}, 401, "invalid_credentials"},
		{"/basic", "a password", []request{basicAuth("ada@example.com", password)}, 200, ""},
		{"/basic", "a wrong password", []request{basicAuth("ada@example.com", "wrong")}, 401, "invalid_credentials"},
		{"/basic", "a client's secret", []request{basicAuth(id, secret)}, 200, ""},
		{"/basic", "a token", []request{jwt}, 401, "unauthenticated"},
		{"/either", "a token", []request{jwt}, 200, ""},
		{"/either", "a key", []request{apiKey(key)}, 200, ""},
		{"/either", "both, of one", []request{jwt, apiKey(key)}, 200, ""},
		{"/either", "both, of two", []request{bob, apiKey(key)}, 400, "invalid_request"},
		{"/either", "one good, one wrong", []request{jwt, wrongKey}, 401, "token_invalid"},
		{"/either", "a client's token beside a key", []request{client, apiKey(key)}, 400, "invalid_request"},
		{"/both", "a token", []request{jwt}, 401, "unauthenticated"},
		{"/both", "both, of one", []request{jwt, apiKey(key)}, 200, ""},
		{"/both", "both, of two", []request{bob, apiKey(key)}, 400, "invalid_request"},
		{"/cert", "a certificate", []request{with("cert|x")}, 200, ""},
		{"/cert", "a certificate beside a token", []request{with("cert|x"), jwt}, 400, "invalid_request"},
		{"/cert", "nothing", nil, 401, "unauthenticated"},
		{"/cert-and-client", "both, of one", []request{with(id), client}, 200, ""},
		{"/cert-and-client", "both, of two", []request{with("cert|x"), client}, 400, "invalid_request"},
		{"/cert-and-client", "a token", []request{client}, 401, "unauthenticated"},
		{"/cert-and-client", "a bad certificate", []request{with("bad"), client}, 401, "invalid_credentials"},
		{"/cert-or-jwt", "a token", []request{jwt}, 200, ""},
		{"/cert-or-jwt", "a bad certificate beside a token", []request{with("bad"), jwt}, 401, "invalid_credentials"},
		{"/optional", "nothing", nil, 200, ""},
		{"/optional", "a wrong key", []request{wrongKey}, 200, ""},
		{"/optional", "a wrong secret", []request{basicAuth(id, "wrong")}, 200, ""},
		{"/optional", "a token and a key", []request{jwt, apiKey(key)}, 400, "invalid_request"},
	} {
		if r := do(t, h, "GET", tt.path, nil, tt.edit...); r.status != tt.status || r.code() != tt.code {
			t.Errorf("%s with %s: %d %s", tt.path, tt.name, r.status, r.raw)
		}
	}
	// Browsers send passwords by themselves: not for another site's page.
	cross := []request{basicAuth("ada@example.com", password), header("Sec-Fetch-Site", "cross-site"), header("Origin", "https://evil.example")}
	if r := do(t, h, "POST", "/basic", nil, cross...); r.code() != "csrf_failed" {
		t.Errorf("a password of another site's page: %d %s", r.status, r.raw)
	}
}

type authenticator func(*http.Request) (*engine.Principal, error)

func (f authenticator) Authenticate(r *http.Request) (*engine.Principal, error) { return f(r) }

// A principal that an authenticator makes up wrongly is a defect, not somebody.
func TestAuthenticatorsThatAreWrong(t *testing.T) {
	t.Parallel()
	for name, p := range map[string]*engine.Principal{
		"no id": {Kind: authz.KindService}, "no kind": {ID: "own|x"}, "another app": {ID: "own|x", Kind: authz.KindService, App: "blog"},
		"the name of a role": {ID: "admin", Kind: authz.KindService}, "the id of another one's": {ID: "corp|x", Kind: authz.KindService},
		"an id that no rule could name": {ID: "own|a,b", Kind: authz.KindService}, "nothing behind the name": {ID: "own", Kind: authz.KindService},
	} {
		w := newWorld(t, storetest.Database(t), manifestOf(t, "shop", ``), func(o *engine.Options) {
			o.Authenticators = map[string]engine.NewAuthenticator{"own": func(string) (engine.Authenticator, error) {
				return authenticator(func(*http.Request) (*engine.Principal, error) { return p, nil }), nil
			}}
		})
		if r := do(t, w.app.RequireUser().Handler(ok), "GET", "/", nil); r.status != 500 {
			t.Errorf("%s: %d %s", name, r.status, r.raw)
		}
	}
}

// A name that a rule uses and nobody has registered stops the start, and says what to
// write.
func TestUnknownAuthenticatorStopsTheStart(t *testing.T) {
	t.Parallel()
	w := setup(t, ``)
	_, err := w.eng.Load(t.Context(), manifestOf(t, "blog", `"requirements":[{"path":"/x","methods_allowed":["cert"]}]`))
	if err == nil || !strings.Contains(err.Error(), `engine.NewAuthenticator{"cert"`) {
		t.Errorf("got %v", err)
	}
	_, err = w.eng.Load(t.Context(), manifestOf(t, "wiki", `"audit":{"sinks":["siem"]}`))
	if err == nil || !strings.Contains(err.Error(), `AuditSinks: map[string]event.Sink{"siem"`) {
		t.Errorf("got %v", err)
	}
}

// Where everything is asked, keys and secrets are too.
func TestStrictAsksAboutMachines(t *testing.T) {
	t.Parallel()
	commands := &enginetest.Commands{}
	w := newWorld(t, storetest.Monitored(t, commands.Monitor()), manifestOf(t, "shop", machines))
	_, token := w.newUser("ada@example.com")
	key, _ := w.makeKey(token, "documents:read")
	id, secret := w.makeClient("worker")
	h := w.app.Strict().Handler(ok)
	for name, as := range map[string]request{"key": apiKey(key), "secret": basicAuth(id, secret), "token": bearer(w.clientToken(id, secret))} {
		do(t, h, "GET", "/", nil, as)
		commands.Reset()
		if r := do(t, h, "GET", "/", nil, as); r.status != 200 || requested(commands) == "" {
			t.Errorf("%s: %d %s, asked %q", name, r.status, r.raw, requested(commands))
		}
	}
}

// Somebody of another issuer can be kept out by name.
func TestDeniedSubjectOfAnotherIssuer(t *testing.T) {
	t.Parallel()
	issuer := `,"issuers":[{"name":"idp","issuer":"https://idp.example","audience":["shop"]}]`
	if _, err := tryManifest("shop", `"policy":{"denied_users":["idp|123"]}`+issuer); err != nil {
		t.Errorf("a subject of the issuer: %v", err)
	}
	for _, user := range []string{"other|123", "idp|", "idp"} {
		if _, err := tryManifest("shop", `"policy":{"denied_users":["`+user+`"]}`+issuer); err == nil {
			t.Errorf("%s was taken", user)
		}
	}
}
