package manifest_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mandate-auth/mandate/manifest"
)

// Every refusal about sign-in by others and by mail names its place and says what to do.
func TestSignInFaults(t *testing.T) {
	t.Parallel()
	with := func(auth string) string {
		return `{"slug":"shop","public_url":"https://shop.example","auth":{` + auth + `}}`
	}
	provider := func(rest string) string {
		return with(`"oauth":{"providers":{"acme":{"client_id":"a","client_secret":"b"` + rest + `}}}`)
	}
	const (
		acme = `"oauth":{"providers":{"acme":{"issuer":"https://acme.example","client_id":"a","client_secret":"b"}}}`
		from = `"mail":{"from":"a@shop.example"`
	)
	for _, tt := range []struct{ name, text, pointer, says string }{
		{"registration by whom", with(`"users":{"allow_registration":"everybody"}`), "/auth/users/allow_registration", "must be one of"},
		{"invitations without mail", with(`"users":{"allow_registration":"invite_only"}`), "/auth/users/allow_registration", "mail.from"},
		{"verification without mail", with(`"users":{"require_verified_email":true}`), "/auth/users/require_verified_email", "mail.from"},
		{"links without mail", with(`"mail":{"magic_link":true}`), "/auth/mail/magic_link", "mail.from"},
		{"codes without mail", with(`"mail":{"email_code":true}`), "/auth/mail/email_code", "mail.from"},
		{"mail without an address of the service", `{"slug":"shop","auth":{` + from + `}}}`, "/auth/mail/from", "public_url"},
		{"mail without people", with(`"users":{"strategy":"anonymous_session","allow_anonymous_users":true},` + from + `}`), "/auth/mail/from", "people"},
		{"two senders", with(`"mail":{"from":"a@shop.example, b@shop.example"}`), "/auth/mail/from", "an address"},
		{"no address", with(`"mail":{"from":"a@shop.example","reply_to":"nobody"}`), "/auth/mail/reply_to", "an address"},
		{"language", with(from + `,"language":"klingon!"}`), "/auth/mail/language", "language tag"},
		{"server without a host", with(from + `,"smtp":{"port":25}}`), "/auth/mail/smtp/host", "required"},
		{"user without a password", with(from + `,"smtp":{"host":"mail.shop.example","username":"u"}}`), "/auth/mail/smtp/username", "together"},
		{"a port in the host", with(from + `,"smtp":{"host":"mail.shop.example:587"}}`), "/auth/mail/smtp/host", "smtp.port"},
		{"TLS at once", with(from + `,"smtp":{"host":"mail.shop.example","port":465}}`), "/auth/mail/smtp/tls", `"tls"`},
		{"a server and no sender", with(`"mail":{"smtp":{"host":"mail.shop.example"}}`), "/auth/mail/from", "nothing is mailed"},
		{"plain mail", with(from + `,"smtp":{"host":"mail.shop.example","tls":"none"}}`), "/auth/mail/smtp/tls", "loopback"},
		{"link elsewhere", with(from + `,"links":{"reset_password":"https://evil.example/"}}`), "/auth/mail/links/reset_password", "path of the service"},
		{"link of another host", with(from + `,"links":{"magic_link":"//evil.example"}}`), "/auth/mail/links/magic_link", "path of the service"},
		{"link with a fragment", with(from + `,"links":{"verify_email":"/v#x"}}`), "/auth/mail/links/verify_email", "fragment"},
		{"code for an hour", with(from + `,"ttl":{"email_code":"1h"}}`), "/auth/mail/ttl/email_code", "10m"},
		{"reset for a week", with(from + `,"ttl":{"reset_password":"7d"}}`), "/auth/mail/ttl/reset_password", "1d"},
		{"link for a day", with(from + `,"ttl":{"magic_link":"1d"}}`), "/auth/mail/ttl/magic_link", "1h"},
		{"invitation for a year", with(from + `,"ttl":{"invitation":"365d"}}`), "/auth/mail/ttl/invitation", "90d"},
		{"a second", with(from + `,"ttl":{"verify_email":"1s"}}`), "/auth/mail/ttl/verify_email", "1m"},

		{"provider nowhere", provider(``), "/auth/oauth/providers/acme", "a preset, an issuer, or the three endpoints"},
		{"provider without a secret", with(`"oauth":{"providers":{"acme":{"issuer":"https://acme.example","client_id":"a"}}}`), "/auth/oauth/providers/acme/client_secret", "required"},
		{"provider with two endpoints", provider(`,"authorization_endpoint":"https://a.example/a","token_endpoint":"https://a.example/t","claims":{"subject":"id"}`), "/auth/oauth/providers/acme", "all of"},
		{"provider who names nobody", provider(`,"authorization_endpoint":"https://a.example/a","token_endpoint":"https://a.example/t","userinfo_endpoint":"https://a.example/u"`), "/auth/oauth/providers/acme/claims/subject", "required"},
		{"issuer of a document", provider(`,"issuer":"https://acme.example/.well-known/openid-configuration"`), "/auth/oauth/providers/acme/issuer", "before"},
		{"microsoft of nobody", provider(`,"preset":"microsoft"`), "/auth/oauth/providers/acme/tenant", "required"},
		{"tenant of others", provider(`,"preset":"google","tenant":"x"`), "/auth/oauth/providers/acme/tenant", "no meaning"},
		{"unknown preset", provider(`,"preset":"acme"`), "/auth/oauth/providers/acme/preset", "must be one of"},
		{"provider with a bad name", with(`"oauth":{"providers":{"Acme":{"issuer":"https://acme.example","client_id":"a","client_secret":"b"}}}`), "/auth/oauth/providers/Acme", "not a name"},
		{"providers without an address of the service", `{"slug":"shop","auth":{` + acme + `}}`, "/auth/oauth/providers", "public_url"},
		{"providers without people", with(`"users":{"strategy":"anonymous_session","allow_anonymous_users":true},` + acme), "/auth/oauth/providers", "people"},
		{"providers without cookies", with(`"tokens":{"transport":"bearer"},` + acme), "/auth/oauth/providers", "cookies"},
		{"policy of links", with(`"oauth":{"link":"always"}`), "/auth/oauth/link", "must be one of"},
		{"redirect elsewhere", with(`"oauth":{"redirect_after_login":"//evil.example"}`), "/auth/oauth/redirect_after_login", "path of the service"},
		{"redirect with a query", with(`"oauth":{"redirect_after_login":"/?a=b"}`), "/auth/oauth/redirect_after_login", "query"},
		{"our collection", with(`"users":{"collection_name":"identities"}`), "/auth/users/collection_name", "choose another"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			list := faults(t, tt.text)
			for _, f := range list {
				if f.Pointer == tt.pointer && strings.Contains(f.Problem, tt.says) {
					return
				}
			}
			t.Errorf("got %v, want one at %s that says %q", list, tt.pointer, tt.says)
		})
	}
}

// The fault is at the name in whatever order the keys are looked at.
func TestBadNamesAreFoundInAnyOrder(t *testing.T) {
	t.Parallel()
	for range 200 {
		list := faults(t, `{"slug":"shop","public_url":"https://shop.example","auth":{"oauth":{"providers":{"Acme":{"issuer":"https://acme.example","client_id":"a","client_secret":"b"}}}}}`)
		if len(list) == 0 || list[0].Pointer != "/auth/oauth/providers/Acme" {
			t.Fatalf("got %v", list)
		}
	}
}

// allow_registration is written as it is read, and decides about create_users unless
// that is said.
func TestRegistration(t *testing.T) {
	t.Parallel()
	const mail = `"public_url":"https://shop.example",`
	for text, want := range map[string]struct {
		who    manifest.Registration
		create bool
	}{
		`"allow_registration":true`:                   {manifest.RegistrationOpen, true},
		`"allow_registration":false`:                  {manifest.RegistrationClosed, false},
		`"allow_registration":"invite_only"`:          {manifest.RegistrationInvite, false},
		`"allow_registration":"${OPEN:-true}"`:        {manifest.RegistrationOpen, true},
		`"allow_registration":"${OPEN:-invite_only}"`: {manifest.RegistrationInvite, false},
	} {
		m := parse(t, `{"slug":"shop",`+mail+`"auth":{"users":{`+text+`},"mail":{"from":"a@shop.example"}}}`)
		if m.Auth.Users.AllowRegistration != want.who || m.Auth.OAuth.CreateUsers != want.create {
			t.Errorf("%s: %q, %v", text, m.Auth.Users.AllowRegistration, m.Auth.OAuth.CreateUsers)
		}
		raw, err := json.Marshal(m.Auth.Users.AllowRegistration)
		if err != nil {
			t.Fatal(err)
		}
		var again manifest.Registration
		if err := json.Unmarshal(raw, &again); err != nil || again != want.who {
			t.Errorf("%s was written as %s", text, raw)
		}
	}
	if !parse(t, `{"slug":"shop","auth":{"users":{"allow_registration":false},"oauth":{"create_users":true}}}`).Auth.OAuth.CreateUsers {
		t.Error("create_users does not count beside allow_registration")
	}
	var r manifest.Registration
	if err := json.Unmarshal([]byte(`"sometimes"`), &r); err == nil {
		t.Error("another word was accepted")
	}
}

// What all manifests have in common is kept once, and shown with each.
func TestEffectiveIsWhole(t *testing.T) {
	t.Parallel()
	none := func(string) (string, bool) { return "", false }
	for _, text := range []string{
		`{"slug":"shop"}`, `{"slug":"plain"}`, `{"slug":"a","name":"A","base_path":"/x","environment":"development"}`,
		`{"slug":"shop","public_url":"https://shop.example","auth":{"users":{"allow_registration":"invite_only"},"mail":{"from":"a@shop.example","ttl":{"magic_link":"5m"}},
			"oauth":{"providers":{"acme":{"preset":"google","client_id":"a","client_secret":"b","scopes":["openid"]},"b":{"issuer":"https://b.example","client_id":"a","client_secret":"b"}}}}}`,
		`{"slug":"shop","auth":{"rate_limits":{"uploads":{"max":1,"window":"1s"},"login":{"enabled":false}},"trusted_proxies":["10.0.0.0/8"],"cors":{"allow_origins":["*"]},
			"requirements":[{"path":"/a"},{"path":"/b","roles":["user"]}],"policy":{"authorization":{"initial_roles":[{"user":"a@b.c","role":"admin"}],"role_hierarchy":{"admin":["user"]}}}}}`,
		`{"slug":"shop","auth":{"tokens":{"issuer":"https://a.example"},"clients":{"enabled":true,"initial":[{"name":"w","secret":"0123456789abcdef0123456789abcdef"}]},"issuers":[{"name":"x","issuer":"https://x.example","audience":["a"]}]}}`,
	} {
		whole, err := manifest.Whole([]byte(text), none)
		if err != nil {
			t.Fatal(err)
		}
		m, err := manifest.Parse([]byte(text), &manifest.Options{LookupEnv: none})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(whole, m.Effective()); diff != "" {
			t.Errorf("%s: %s", text, diff)
		}
	}
}

// Neither the secret of a provider nor the password of the mail server is shown.
func TestSignInSecrets(t *testing.T) {
	t.Parallel()
	m := parse(t, `{"slug":"shop","public_url":"https://shop.example","auth":{
		"oauth":{"providers":{"acme":{"preset":"google","client_id":"a","client_secret":"canary-1"}}},
		"mail":{"from":"a@shop.example","smtp":{"host":"mail.shop.example","username":"u","password":"canary-2"}}}}`)
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range m.Effective() {
		raw = append(raw, s.String()...)
	}
	if strings.Contains(string(raw), "canary") {
		t.Errorf("a secret is shown: %s", raw)
	}
	if p := m.Auth.OAuth.Providers["acme"]; p.ClientSecret.Len() != 8 || p.TokenEndpointAuthMethod != "client_secret_basic" {
		t.Errorf("%+v", p)
	}
}
