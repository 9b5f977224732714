package manifest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/manifest"
	"github.com/mandate-auth/mandate/manifest/internal/reference"
)

var env = map[string]string{"SECRET": "canary-password", "COST": "11", "YES": "true", "NAME": "Shop", "TTL": "5m"}

var opts = &manifest.Options{LookupEnv: func(k string) (string, bool) { v, ok := env[k]; return v, ok }}

func parse(t *testing.T, text string) *manifest.Manifest {
	t.Helper()
	m, err := manifest.Parse([]byte(text), opts)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	m := parse(t, `{"slug":"shop"}`)
	checks := map[string]bool{
		"base_path": m.BasePath == "/auth", "name": m.Name == "shop", "environment": m.Environment == "production" && !m.Development(),
		"auth_required": m.AuthRequired, "users": m.Auth.Users.Enabled && m.Auth.Users.AllowRegistration == manifest.RegistrationOpen && !m.Auth.Users.AllowAnonymousUsers,
		"min_length": m.Auth.Users.Password.MinLength == 15, "cost": m.Auth.Users.Password.BcryptCost == 12,
		"access_ttl": m.Auth.Tokens.AccessTTL == manifest.Duration(15*time.Minute), "issuer": m.Auth.Tokens.Issuer == "shop",
		"audience": m.Auth.Tokens.Audience == "shop", "idle_timeout": m.Auth.Sessions.IdleTimeout == manifest.Duration(7*24*time.Hour),
		"same_site": m.Auth.Cookies.SameSite == "lax", "csrf": m.Auth.CSRF.Enabled, "bind_device": m.Auth.Sessions.BindDevice == "log",
		"headers": m.Auth.SecurityHeaders.Enabled && m.Auth.SecurityHeaders.FrameAncestors == "'none'", "staleness": m.Auth.Tokens.Revocation.MaxStaleness == manifest.Duration(2*time.Second),
	}
	for name, ok := range checks {
		if !ok {
			t.Errorf("the default of %s is not the documented one", name)
		}
	}
	m = parse(t, `{"slug":"shop","public_url":"https://shop.example","auth":{"tokens":{"refresh_ttl":"2d"}}}`)
	if m.Auth.Tokens.Issuer != "https://shop.example" || m.Auth.Sessions.IdleTimeout != manifest.Duration(48*time.Hour) {
		t.Errorf("derived defaults: issuer %q, idle %v", m.Auth.Tokens.Issuer, m.Auth.Sessions.IdleTimeout)
	}
}

func TestEnvironment(t *testing.T) {
	t.Parallel()
	m := parse(t, `{"slug":"shop","name":"The ${NAME} of ${NOBODY:-us} $${NAME}","environment":"development","auth":{"users":{
		"allow_anonymous_users":"${YES}","password":{"bcrypt_cost":"${COST}"},"demo_users":[{"email":"a@example.com","password":"${SECRET}"}]},
		"tokens":{"access_ttl":"${TTL}"}}}`)
	if m.Name != "The Shop of us ${NAME}" || !m.Auth.Users.AllowAnonymousUsers || m.Auth.Users.Password.BcryptCost != 11 || m.Auth.Tokens.AccessTTL.String() != "5m" {
		t.Errorf("substituted: %+v", m)
	}
	if string(m.Auth.Users.DemoUsers[0].Password.Reveal()) != "canary-password" {
		t.Error("the password is not the variable's")
	}
	raw, err := json.Marshal(m.Effective())
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{string(raw), fmt.Sprintf("%v %+v %#v", m, m, m.Auth.Users), m.Digest()} {
		if strings.Contains(text, "canary") {
			t.Errorf("the secret is shown: %.200s", text)
		}
	}
	sources := map[string]string{}
	for _, s := range m.Effective() {
		sources[s.Pointer] = s.Source
	}
	for pointer, want := range map[string]string{
		"/slug": "file", "/base_path": "default", "/auth/users/password/bcrypt_cost": "environment COST",
		"/auth/users/demo_users/0/password": "environment SECRET", "/auth/sessions/idle_timeout": "default",
	} {
		if sources[pointer] != want {
			t.Errorf("the source of %s is %q, want %q", pointer, sources[pointer], want)
		}
	}
}

func faults(t *testing.T, text string) []manifest.Fault {
	t.Helper()
	_, err := manifest.Parse([]byte(text), opts)
	var e *manifest.Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want an *Error, for %s", err, text)
	}
	return e.Faults
}

// Every refusal names its place and says what to do.
func TestFaults(t *testing.T) {
	t.Parallel()
	const (
		client = `{"name":"worker","secret":"0123456789abcdef0123456789abcdef","scopes":["read"]}`
		other  = `{"name":"idp","issuer":"https://a.example","audience":["shop"]}`
	)
	with := func(auth string) string { return `{"slug":"shop","auth":{` + auth + `}}` }
	tests := []struct{ name, text, pointer, says string }{
		{"no slug", `{}`, "/slug", "required"},
		{"bad slug", `{"slug":"Shop"}`, "/slug", "must match"},
		{"array", `[]`, "", "must be an object"},
		{"syntax", `{"slug":}`, "", "valid JSON"},
		{"trailing data", `{"slug":"a"} x`, "", "valid JSON"},
		{"two documents", `{"slug":"a"}{}`, "", "after the end"},
		{"invalid UTF-8", "{\"slug\":\"\xff\"}", "", "UTF-8"},
		{"duplicate key", `{"slug":"a","slug":"b"}`, "/slug", "given twice"},
		{"deep duplicate", with(`"users":{"enabled":true,"enabled":false}`), "/auth/users/enabled", "given twice"},
		{"too deep", `{"slug":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`, "", "nested deeper"},
		{"other case", `{"Slug":"a","slug":"b"}`, "/Slug", "not a known key"},
		{"limit without a number", with(`"rate_limits":{"uploads":{"window":"1m"}}`), "/auth/rate_limits/uploads/max", "required"},
		{"limit without a window", with(`"rate_limits":{"uploads":{"max":5}}`), "/auth/rate_limits/uploads", "needs a window"},
		{"limit with a window over a month", with(`"rate_limits":{"uploads":{"max":5,"window":"31d"}}`), "/auth/rate_limits/uploads/window", "between 1s"},
		{"limit of nothing", with(`"rate_limits":{"login":{"max":0}}`), "/auth/rate_limits/login/max", "at least 1"},
		{"limit beyond what is kept", with(`"rate_limits":{"login":{"max":1001}}`), "/auth/rate_limits/login/max", "at most 1000"},
		{"limit with a bad window", with(`"rate_limits":{"login":{"window":"soon"}}`), "/auth/rate_limits/login/window", "duration"},
		{"limit by what", with(`"rate_limits":{"login":{"key":"cookie"}}`), "/auth/rate_limits/login/key", "must be one of"},
		{"misspelt key of a limit", with(`"rate_limits":{"login":{"maximum":5}}`), "/auth/rate_limits/login/maximum", "not a known key"},
		{"rule of a rule that is not there", with(`"requirements":[{"path":"/x","rate_limit":"uploads"}]`), "/auth/requirements/0/rate_limit", "no rule of rate_limits"},
		{"nobody", with(`"requirements":[{"path":"/x","human_only":true,"machine_only":true}]`), "/auth/requirements/0/machine_only", "nobody"},
		{"keys that are not there", with(`"requirements":[{"path":"/x","methods_allowed":["api_key"]}]`), "/auth/requirements/0/methods_allowed/0", "api_keys.enabled"},
		{"clients that are not there", with(`"requirements":[{"path":"/x","methods_allowed":["client"]}]`), "/auth/requirements/0/methods_allowed/0", "clients.enabled"},
		{"passwords that are not there", with(`"users":{"strategy":"anonymous_session","allow_anonymous_users":true},"requirements":[{"path":"/x","methods_allowed":["basic"]}]`), "/auth/requirements/0/methods_allowed/0", "passwords"},
		{"rotation by the hour", with(`"tokens":{"key_rotation":"1h"}`), "/auth/tokens/key_rotation", "1d"},
		{"clients without an issuer", with(`"clients":{"enabled":true}`), "/auth/clients/enabled", "URL as tokens.issuer"},
		{"clients of a plain issuer", with(`"tokens":{"issuer":"http://shop.example"},"clients":{"enabled":true}`), "/auth/clients/enabled", "URL as tokens.issuer"},
		{"client twice", with(`"tokens":{"issuer":"https://a.example"},"clients":{"enabled":true,"initial":[` + client + `,` + client + `]}`), "/auth/clients/initial/1/name", "another client"},
		{"client for nothing", with(`"clients":{"initial":[` + client + `]}`), "/auth/clients/initial", "clients.enabled"},
		{"client with a short secret", with(`"clients":{"initial":[{"name":"a","secret":"short"}]}`), "/auth/clients/initial/0/secret", "at least 32 characters"},
		{"client with a scope of nobody", with(`"tokens":{"issuer":"https://a.example"},"clients":{"enabled":true,"scopes":["x"],"initial":[` + client + `]}`), "/auth/clients/initial/0/scopes/0", "clients.scopes"},
		{"scope that is none", with(`"api_keys":{"scopes":["a b"]}`), "/auth/api_keys/scopes/0", "printable"},
		{"scope twice", with(`"clients":{"scopes":["a","a"]}`), "/auth/clients/scopes/1", "already"},
		{"keys without owners", with(`"users":{"strategy":"anonymous_session","allow_anonymous_users":true},"api_keys":{"enabled":true}`), "/auth/api_keys/enabled", "own"},
		{"prefix", with(`"api_keys":{"prefix":"A-b"}`), "/auth/api_keys/prefix", "must match"},
		{"client token over a day", with(`"clients":{"token_ttl":"25h"}`), "/auth/clients/token_ttl", "between 1s and 1d"},
		{"issuer that is the app", with(`"tokens":{"issuer":"https://a.example"},"issuers":[` + other + `]`), "/auth/issuers/0/issuer", "the app itself"},
		{"issuer twice", with(`"issuers":[` + other + `,` + other + `]`), "/auth/issuers/1/name", "taken"},
		{"issuer called like a method", with(`"issuers":[{"name":"jwt","issuer":"https://a.example","audience":["x"]}]`), "/auth/issuers/0/name", "taken"},
		{"plain issuer", with(`"issuers":[{"name":"a","issuer":"http://a.example","audience":["x"]}]`), "/auth/issuers/0/issuer", "https://"},
		{"plain keys", with(`"issuers":[{"name":"a","issuer":"https://a.example","audience":["x"],"jwks_uri":"http://a.example/keys"}]`), "/auth/issuers/0/jwks_uri", "https://"},
		{"issuer without audience", with(`"issuers":[{"name":"a","issuer":"https://a.example"}]`), "/auth/issuers/0/audience", "required"},
		{"issuer with a symmetric key", with(`"issuers":[{"name":"a","issuer":"https://a.example","audience":["x"],"algorithms":["HS256"]}]`), "/auth/issuers/0/algorithms/0", "must be one of"},
		{"retention", with(`"audit":{"retention":"1m"}`), "/auth/audit/retention", "between 1h"},
		{"sink twice", with(`"audit":{"sinks":["mongodb","mongodb"]}`), "/auth/audit/sinks/1", "already"},
		{"synchronous nowhere", with(`"audit":{"sinks":["log"],"synchronous":true}`), "/auth/audit/synchronous", "mongodb"},
		{"excluded path", with(`"metrics":{"exclude_paths":["health"]}`), "/auth/metrics/exclude_paths/0", "must match"},
		{"unknown allowed role", with(`"policy":{"allowed_roles":["usr"]}`), "/auth/policy/allowed_roles/0", "default_roles"},
		{"allowed address", with(`"policy":{"allowed_users":["a@example.com"]}`), "/auth/policy/allowed_users/0", "id of a user"},
		{"denied role", with(`"policy":{"denied_users":["user"]}`), "/auth/policy/denied_users/0", "id of a user"},
		{"allowed and denied", with(`"policy":{"allow_anonymous":true,"allowed_users":["anonymous"],"denied_users":["anonymous"]}`), "/auth/policy/allowed_users/0", "denied_users"},
		{"allowed guests", with(`"policy":{"allowed_users":["anonymous"]}`), "/auth/policy/allowed_users/0", "allow_anonymous"},
		{"required permission", with(`"policy":{"required_permissions":["documents"]}`), "/auth/policy/required_permissions/0", "object:action"},
		{"unknown matching", with(`"policy":{"authorization":{"matching":"regex"}}`), "/auth/policy/authorization/matching", "must be one of"},
		{"bad pattern", with(`"policy":{"authorization":{"matching":"path","initial_policies":[["user","/a/*/b","read"]]}}`), "/auth/policy/authorization/initial_policies/0/1", "pattern"},
		{"matching of another provider", with(`"policy":{"provider":"own","authorization":{"matching":"path"}}`), "/auth/policy/authorization/matching", "provider casbin"},
		{"hierarchy of another provider", with(`"policy":{"provider":"oso","authorization":{"api_key":"x","role_hierarchy":{"admin":["user"]}}}`), "/auth/policy/authorization/role_hierarchy", "provider casbin"},
		{"model of another provider", with(`"policy":{"provider":"own","authorization":{"model":"m.conf"}}`), "/auth/policy/authorization/model", "provider casbin"},
		{"matching of a custom model", with(`"policy":{"authorization":{"model":"m.conf","matching":"prefix"}}`), "/auth/policy/authorization/matching", "matcher"},
		{"oso without a key", with(`"policy":{"provider":"oso"}`), "/auth/policy/authorization/api_key", "OSO_AUTH"},
		{"oso that denies", with(`"policy":{"provider":"oso","authorization":{"api_key":"x","model":"rbac_with_deny"}}`), "/auth/policy/authorization/model", "deny"},
		{"key for casbin", with(`"policy":{"authorization":{"api_key":"x"}}`), "/auth/policy/authorization/api_key", "provider oso"},
		{"url for casbin", with(`"policy":{"authorization":{"url":"https://x"}}`), "/auth/policy/authorization/url", "provider oso"},
		{"unknown role", with(policy(`"role_hierarchy":{"admin":["usr"]}`)), "/auth/policy/authorization/role_hierarchy/admin/0", "default_roles"},
		{"unknown senior", with(policy(`"role_hierarchy":{"boss":["user"]}`)), "/auth/policy/authorization/role_hierarchy/boss", "default_roles"},
		{"role like an id", with(policy(`"default_roles":["user","usr_00000000000000000000000ada"]`)), "/auth/policy/authorization/default_roles/1", "look like an identifier"},
		{"role anonymous", with(policy(`"default_roles":["user","anonymous"]`)), "/auth/policy/authorization/default_roles/1", "anonymous"},
		{"rule of an unknown role", with(policy(`"initial_policies":[["admn","docs","read"]]`)), "/auth/policy/authorization/initial_policies/0/0", "default_roles"},
		{"rule with a comma", with(policy(`"initial_policies":[["user","a,b","read"]]`)), "/auth/policy/authorization/initial_policies/0", "comma"},
		{"rule with a colon", with(policy(`"initial_policies":[["user","a","b:c"]]`)), "/auth/policy/authorization/initial_policies/0", "colon"},
		{"rule that is short", with(policy(`"initial_policies":[["user","docs"]]`)), "/auth/policy/authorization/initial_policies/0", "minItems"},
		{"denial in rbac", with(policy(`"initial_policies":[["user","docs","read","deny"]]`)), "/auth/policy/authorization/initial_policies/0/3", "rbac_with_deny"},
		{"unknown effect", with(policy(`"initial_policies":[["user","docs","read","maybe"]]`)), "/auth/policy/authorization/initial_policies/0", "allow"},
		{"initial role of nobody", with(policy(`"initial_roles":[{"user":"ada","role":"admin"}]`)), "/auth/policy/authorization/initial_roles/0/user", "e-mail"},
		{"unknown initial role", with(policy(`"initial_roles":[{"user":"a@b.c","role":"x"}]`)), "/auth/policy/authorization/initial_roles/0/role", "default_roles"},
		{"unknown registration role", with(`"users":{"registration_role":"member"}`), "/auth/users/registration_role", "default_roles"},
		{"unknown demo role", `{"slug":"a","environment":"development","auth":{"users":{"demo_users":[{"email":"a@b.c","password":"x","role":"boss"}]}}}`, "/auth/users/demo_users/0/role", "default_roles"},
		{"roles in acl", with(policy(`"model":"acl","role_hierarchy":{"admin":["user"]}`)), "/auth/policy/authorization/role_hierarchy/admin", "acl"},
		{"rule of a role in acl", with(policy(`"model":"acl","initial_policies":[["user","docs","read"]]`)), "/auth/policy/authorization/initial_policies/0/0", "acl"},
		{"policies in another collection", with(policy(`"policies_collection":"users"`)), "/auth/policy/authorization/policies_collection", "choose another"},
		{"wrong type", with(`"users":{"enabled":"yes"}`), "/auth/users/enabled", "must be a boolean"},
		{"not in enum", with(`"cookies":{"same_site":"Lax"}`), "/auth/cookies/same_site", `"lax", "strict", "none"`},
		{"below minimum", with(`"users":{"password":{"min_length":7}}`), "/auth/users/password/min_length", "at least 8"},
		{"fraction", with(`"sessions":{"max_per_user":1.5}`), "/auth/sessions/max_per_user", "must be an integer"},
		{"exponent", with(`"sessions":{"max_per_user":1e1}`), "/auth/sessions/max_per_user", "whole number"},
		{"bad duration", with(`"tokens":{"access_ttl":"15 minutes"}`), "/auth/tokens/access_ttl", "duration"},
		{"endless duration", with(`"tokens":{"refresh_ttl":"99999999999d"}`), "/auth/tokens/refresh_ttl", "duration"},
		{"missing variable", `{"slug":"a","name":"${NOPE}"}`, "/name", "NOPE, which is not set"},
		{"bad variable", `{"slug":"a","name":"${a-b}"}`, "/name", "wrong form"},
		{"access over a day", with(`"tokens":{"access_ttl":"25h"}`), "/auth/tokens/access_ttl", "between 1s and 1d"},
		{"refresh below access", with(`"tokens":{"access_ttl":"10h","refresh_ttl":"5h"},"sessions":{"idle_timeout":"10h"}`), "/auth/tokens/refresh_ttl", "shorter than access_ttl"},
		{"idle beyond refresh", with(`"sessions":{"idle_timeout":"61d"}`), "/auth/sessions/idle_timeout", "refresh_ttl"},
		{"staleness below poll", with(`"tokens":{"revocation":{"poll_interval":"5s"}}`), "/auth/tokens/revocation/max_staleness", "poll_interval"},
		{"leeway", with(`"tokens":{"leeway":"6m"}`), "/auth/tokens/leeway", "5m"},
		{"grace", with(`"tokens":{"rotation_grace":"2m"}`), "/auth/tokens/rotation_grace", "1m"},
		{"algorithm", with(`"tokens":{"algorithm":"none"}`), "/auth/tokens/algorithm", "HS256"},
		{"empty issuer", with(`"tokens":{"issuer":""}`), "/auth/tokens/issuer", "must not be empty"},
		{"lengths crossed", with(`"users":{"password":{"min_length":100,"max_length":64}}`), "/auth/users/password/min_length", "max_length"},
		{"demo in production", with(`"users":{"demo_users":[{"email":"a@b.c","password":"x"}]}`), "/auth/users/demo_users", "development"},
		{"demo without password", with(`"users":{"demo_users":[{"email":"a@b.c"}]}`), "/auth/users/demo_users/0/password", "required"},
		{"guests only, no guests", with(`"users":{"strategy":"anonymous_session"}`), "/auth/users/strategy", "allow_anonymous_users"},
		{"same_site none", with(`"cookies":{"same_site":"none"}`), "/auth/cookies/same_site", "always"},
		{"cookie domain", with(`"cookies":{"domain":"localhost"}`), "/auth/cookies/domain", "domain name"},
		{"origin with path", with(`"csrf":{"trusted_origins":["https://a.example/"]}`), "/auth/csrf/trusted_origins/0", "origin"},
		{"origin null", with(`"cors":{"allow_origins":["null"]}`), "/auth/cors/allow_origins/0", "origin"},
		{"wildcard with credentials", with(`"cors":{"allow_origins":["*"],"allow_credentials":true}`), "/auth/cors/allow_origins/0", "allow_credentials"},
		{"wildcard and more", with(`"cors":{"allow_origins":["*","https://a.example"]}`), "/auth/cors/allow_origins/0", "stand alone"},
		{"preload", with(`"security_headers":{"hsts":{"preload":true}}`), "/auth/security_headers/hsts/preload", "include_subdomains"},
		{"header injection", with(`"security_headers":{"frame_ancestors":"a\r\nb"}`), "/auth/security_headers/frame_ancestors", "must match"},
		{"not a network", with(`"trusted_proxies":["10.0.0.1"]`), "/auth/trusted_proxies/0", "network"},
		{"base path of dots", `{"slug":"a","base_path":"/a/.."}`, "/base_path", "must"},
		{"base path with slash", `{"slug":"a","base_path":"/auth/"}`, "/base_path", "must match"},
		{"public URL plain", `{"slug":"a","public_url":"http://shop.example"}`, "/public_url", "https://"},
		{"public URL with query", `{"slug":"a","public_url":"https://shop.example/?x=1"}`, "/public_url", "query"},
		{"one collection twice", with(`"users":{"collection_name":"x"},"sessions":{"collection":"x"}`), "/auth/sessions/collection", "choose another"},
		{"our collection", with(`"users":{"collection_name":"app_state"}`), "/auth/users/collection_name", "choose another"},
		{"system collection", with(`"users":{"collection_name":"system.users"}`), "/auth/users/collection_name", "MongoDB"},
		{"operator as a name", with(`"users":{"collection_name":"a$b"}`), "/auth/users/collection_name", "must match"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			list := faults(t, tt.text)
			for _, f := range list {
				if f.Pointer == tt.pointer && strings.Contains(f.Problem, tt.says) {
					return
				}
			}
			t.Errorf("no fault at %q says %q: %v", tt.pointer, tt.says, list)
		})
	}
}

func TestAllFaultsAtOnce(t *testing.T) {
	t.Parallel()
	list := faults(t, "{\n  \"slug\": \"shop\",\n  \"auth\": {\"tokens\": {\"acces_ttl\": \"1m\", \"leeway\": \"x\"},\n    \"cokies\": {}}\n}")
	if len(list) != 3 {
		t.Fatalf("%d faults, want 3: %v", len(list), list)
	}
	if list[0].Nearest != "access_ttl" || list[0].Line != 3 || list[2].Nearest != "cookies" || list[2].Line != 4 {
		t.Errorf("places and suggestions: %v", list)
	}
}

// A wrong secret must not be shown by the message about it.
func TestFaultsHideSecrets(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`{"slug":"a","environment":"development","auth":{"users":{"demo_users":[{"email":"${SECRET}","password":["canary-password"]}]}}}`,
		`{"slug":"a","auth":{"tokens":{"algorithm":"${SECRET}"}}}`,
		`{"slug":"a","auth":{"tokens":{"access_ttl":"${SECRET}"}}}`,
		`{"slug":"${SECRET} "}`,
		`{"slug":"a","environment":"development","auth":{"users":{"demo_users":[{"email":"a@b.c","password":"canary-password` + strings.Repeat("x", 300) + `"}]}}}`,
	} {
		_, err := manifest.Parse([]byte(text), opts)
		if err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("got %v", err)
		}
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "manifest.json")
	if _, err := manifest.Load(path, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("\xef\xbb\xbf" + `{"slug":"shop"}`)
	if m, err := manifest.Load(path, nil); err != nil || m.Slug != "shop" {
		t.Errorf("a file with a byte order mark: %v", err)
	}
	write(`{"slug":1}`)
	if _, err := manifest.Load(path, nil); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "1:2") {
		t.Errorf("the message does not name file and place: %v", err)
	}
	write(strings.Repeat(" ", manifest.MaxSize) + `{"slug":"shop"}`)
	if _, err := manifest.Load(path, nil); err == nil {
		t.Error("a file over the limit was read")
	}
}

func TestDuration(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{`"15m"`: "15m", `"90s"`: "1m30s", `"1h30m"`: "1h30m", `"30d"`: "30d", `"250ms"`: "250ms", `90`: "1m30s", `0.5`: "500ms", `0`: "0s"} {
		var d manifest.Duration
		if err := json.Unmarshal([]byte(in), &d); err != nil || d.String() != want {
			t.Errorf("%s = %v, %v, want %s", in, d, err, want)
		}
	}
	for _, in := range []string{`""`, `"1"`, `"m"`, `"1y"`, `"-1m"`, `-1`, `true`, `"1m "`, `1e300`} {
		var d manifest.Duration
		if err := json.Unmarshal([]byte(in), &d); err == nil {
			t.Errorf("%s was accepted as %v", in, d)
		}
	}
}

// The page in docs has to be what the schema says.
func TestReferenceIsCurrent(t *testing.T) {
	t.Parallel()
	want, err := reference.Markdown()
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../docs/manifest.md")
	if err != nil || string(got) != want {
		t.Errorf("docs/manifest.md is not current (%v); run go generate ./manifest", err)
	}
}

// Every key of the schema has a field, and every field a key.
func TestSchemaAndTypeAgree(t *testing.T) {
	t.Parallel()
	m := parse(t, `{"slug":"shop","public_url":"https://shop.example","auth":{"cookies":{"domain":"shop.example"},`+
		`"policy":{"allowed_roles":["user"],"allowed_users":["usr_00000000000000000000000ada"],"denied_users":["anonymous"],"required_permissions":["a:b"],`+
		`"authorization":{"role_hierarchy":{"admin":["user"]},"initial_policies":[["user","a","b"]]}},"api_keys":{"scopes":["a"]},"clients":{"scopes":["a"]},`+
		`"mail":{"from":"a@shop.example","reply_to":"b@shop.example","smtp":{"host":"mail.shop.example","port":25,"username":"u","password":"p"}}}}`)
	remote := parse(t, `{"slug":"shop","auth":{"policy":{"provider":"oso","authorization":{"api_key":"k"}}}}`)
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]bool{}
	var tree any
	if err := json.Unmarshal(raw, &tree); err != nil {
		t.Fatal(err)
	}
	var walk func(string, any)
	walk = func(pointer string, v any) {
		if object, ok := v.(map[string]any); ok {
			for name, member := range object {
				walk(pointer+"/"+name, member)
			}
			return
		}
		fields[pointer] = true
	}
	walk("", tree)
	deleted := map[string]bool{}
	delete(fields, "/auth/users/demo_users")
	delete(fields, "/auth/requirements")
	delete(fields, "/auth/clients/initial")
	delete(fields, "/auth/issuers")
	delete(fields, "/auth/oauth/providers")
	delete(fields, "/auth/policy/authorization/initial_roles")
	for _, s := range append(m.Effective(), remote.Effective()...) {
		if s.Pointer == "/schema_version" || deleted[s.Pointer] {
			continue
		}
		deleted[s.Pointer] = true
		if !fields[s.Pointer] {
			t.Errorf("%s is in the schema and in no field", s.Pointer)
		}
		delete(fields, s.Pointer)
	}
	for pointer := range fields {
		t.Errorf("%s is a field and not in the schema", pointer)
	}
}

func policy(authorization string) string {
	return `"policy":{"authorization":{` + authorization + `}}`
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		`{"slug":"shop"}`, `{"slug":"a","name":"${NAME:-x}"}`, `{"slug":"a","auth":{"tokens":{"access_ttl":"1h","leeway":5}}}`, `[[[]]]`, `{"a":{"a":1,"a":2}}`,
		`{"slug":"a","auth":{"users":{"password":{"min_length":1e1}},"trusted_proxies":["::/0"]}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := manifest.Parse(data, opts)
		if (err == nil) != (m != nil) {
			t.Fatalf("Parse(%q) = %v, %v", data, m, err)
		}
		if err != nil {
			return
		}
		again, err := manifest.Parse(data, opts)
		if err != nil || again.Digest() != m.Digest() {
			t.Errorf("Parse(%q) is not the same twice: %v", data, err)
		}
	})
}

// The manifest that the README shows has to be one.
func TestReadmeManifest(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(readme), "```json\n")
	text, _, found := strings.Cut(rest, "```")
	if !found {
		t.Fatal("the README shows no manifest")
	}
	if m := parse(t, text); m.Slug != "shop" {
		t.Errorf("slug %q", m.Slug)
	}
	if quickstart, err := os.ReadFile("../examples/quickstart/manifest.json"); err != nil {
		t.Error(err)
	} else if _, err := manifest.Parse(quickstart, &manifest.Options{LookupEnv: func(string) (string, bool) { return "x", true }}); err != nil {
		t.Error(err)
	}
}
