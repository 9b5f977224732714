package engine_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/tokens"
)

// breached finds every password in a breach.
type breached struct{}

func (breached) Breached(context.Context, string) (bool, error) { return true, nil }

// keyTests changes every key of the manifest and sees the behaviour change.
var keyTests = map[string]func(t *testing.T){
	"/schema_version": func(t *testing.T) { refused(t, ``, `"schema_version":"9.9"`) },
	"/slug": func(t *testing.T) {
		w := newWorld(t, storetest.Database(t), manifestOf(t, "tenant", ``))
		expect(t, w.me(w.register().text("access_token")).at("principal", "app"), "tenant")
	},
	"/base_path": func(t *testing.T) {
		w := setup(t, ``, `"base_path":"/api/v1/auth"`)
		expect(t, w.do("GET", "/api/v1/auth/health", nil).status, 200)
		expect(t, w.do("GET", "/auth/health", nil).status, 404)
	},
	"/name": func(t *testing.T) {
		weak := with(account, "password", "Zebrafish qx7kwz")
		expect(t, setup(t, ``, `"name":"Other"`).do("POST", "/auth/register", weak).status, 201)
		expect(t, setup(t, ``, `"name":"Zebrafish"`).do("POST", "/auth/register", weak).code(), "password_common")
	},
	"/public_url": func(t *testing.T) {
		w := setup(t, ``, `"public_url":"https://shop.example"`)
		expect(t, issuer(t, w.register().text("access_token")), "https://shop.example")
	},
	"/environment": func(t *testing.T) {
		plain := func(r *http.Request) { r.Host = "dev.example" }
		in := func(rest ...string) string {
			w := setup(t, ``, rest...)
			w.register()
			return w.do("POST", "/auth/login", with(account, "transport", "cookie"), plain).header["Set-Cookie"][0]
		}
		expect(t, strings.Contains(in(), "Secure"), true)
		expect(t, strings.Contains(in(`"environment":"development"`), "Secure"), false)
	},
	"/auth_required": func(t *testing.T) {
		expect(t, do(t, setup(t, ``).app.Protect(ok), "GET", "/", nil).status, 401)
		expect(t, do(t, setup(t, ``, `"auth_required":false`).app.Protect(ok), "GET", "/", nil).status, 200)
	},
	"/auth/policy/allow_anonymous": func(t *testing.T) {
		for auth, want := range map[string]int{guests: 403, guests + `,"policy":{"allow_anonymous":true}`: 200} {
			w := setup(t, auth)
			expect(t, do(t, w.app.RequireUser().Handler(ok), "GET", "/", nil, bearer(w.do("POST", "/auth/anonymous", nil).text("access_token"))).status, want)
		}
	},
	"/auth/users/enabled": func(t *testing.T) {
		expect(t, setup(t, `"users":{"enabled":false}`).do("POST", "/auth/login", account).status, 404)
	},
	"/auth/users/strategy": func(t *testing.T) {
		expect(t, setup(t, `"users":{"strategy":"anonymous_session","allow_anonymous_users":true}`).do("POST", "/auth/login", account).status, 404)
	},
	"/auth/users/collection_name": func(t *testing.T) {
		w := setup(t, `"users":{"collection_name":"people"}`)
		w.register()
		expect(t, count(w, "people"), int64(1))
	},
	"/auth/users/allow_registration": func(t *testing.T) {
		inviteOnly(t)
		expect(t, setup(t, `"users":{"allow_registration":false}`).do("POST", "/auth/register", account).code(), "registration_disabled")
	},
	"/auth/users/allow_anonymous_users": func(t *testing.T) { expect(t, setup(t, guests).do("POST", "/auth/anonymous", nil).status, 200) },
	"/auth/users/demo_users": func(t *testing.T) {
		w := setup(t, `"users":{"demo_users":[{"email":"d@example.com","password":"x"}]}`, `"environment":"development"`)
		expect(t, w.do("POST", "/auth/login", obj("email", "d@example.com", "password", "x")).status, 200)
		expect(t, w.do("POST", "/auth/demo", nil).status, 200)
	},
	"/auth/users/password/min_length":       passwordKey(`"min_length":20`, "zebra lamp violin", "password_too_short"),
	"/auth/users/password/max_length":       passwordKey(`"max_length":64`, strings.Repeat("zebra lamp ", 8), "password_too_long"),
	"/auth/users/password/block_common":     passwordKey(`"block_common":false`, "passwordpassword", ""),
	"/auth/users/password/block_context":    passwordKey(`"block_context":false,"block_common":false`, "adaexample@shop", ""),
	"/auth/users/password/min_entropy_bits": passwordKey(`"min_entropy_bits":200`, "zebra lamp violin", "password_common"),
	"/auth/users/password/breach_check": func(t *testing.T) {
		m := manifestOf(t, "shop", `"users":{"password":{"breach_check":"refuse"}}`)
		w := newWorld(t, storetest.Database(t), m, func(o *engine.Options) { o.BreachChecker = breached{} })
		expect(t, w.do("POST", "/auth/register", account).code(), "password_breached")
		if _, err := setup(t, ``).eng.Load(t.Context(), manifestOf(t, "x", `"users":{"password":{"breach_check":"warn"}}`)); err == nil {
			t.Error("an app that wants a breach check started without a checker")
		}
	},
	"/auth/users/password/bcrypt_cost": func(t *testing.T) {
		m := manifestOf(t, "shop", `"users":{"password":{"bcrypt_cost":10}}`)
		w := newWorld(t, storetest.Database(t), m, func(o *engine.Options) { o.InsecureHashCost = 0 })
		w.register()
		var doc bson.M
		if err := w.db.Collection("users").FindOne(t.Context(), bson.M{}).Decode(&doc); err != nil {
			t.Fatal(err)
		}
		expect(t, strings.HasPrefix(fmt.Sprint(doc["password_hash"]), "$mandate$p=0$2a$10$"), true)
	},
	"/auth/users/lockout/max_failures": func(t *testing.T) {
		w := setup(t, `"users":{"lockout":{"max_failures":1}}`)
		w.do("POST", "/auth/login", account)
		expect(t, w.do("POST", "/auth/login", account).status, 429)
	},
	"/auth/users/lockout/window":   lockoutKey(`"window":"1h","max_failures":2`, 1, 59*time.Minute, 401, 429),
	"/auth/users/lockout/duration": lockoutKey(`"duration":"2h","max_failures":2`, 2, 119*time.Minute, 429, 429),
	"/auth/tokens/access_ttl": func(t *testing.T) {
		expect(t, setup(t, `"tokens":{"access_ttl":"5m"}`).register().body["expires_in"], 300.0)
	},
	"/auth/tokens/refresh_ttl": func(t *testing.T) {
		expect(t, setup(t, `"tokens":{"refresh_ttl":"1h"}`).register().body["refresh_expires_in"], 3600.0)
	},
	"/auth/tokens/issuer": func(t *testing.T) {
		expect(t, issuer(t, setup(t, `"tokens":{"issuer":"me"}`).register().text("access_token")), "me")
	},
	"/auth/tokens/audience": func(t *testing.T) {
		db := storetest.Database(t)
		token := newWorld(t, db, manifestOf(t, "shop", ``)).register().text("access_token")
		expect(t, newWorld(t, db, manifestOf(t, "shop", `"tokens":{"audience":"other"}`)).me(token).code(), "token_invalid")
	},
	"/auth/tokens/leeway": func(t *testing.T) {
		for auth, want := range map[string]int{``: 401, `"tokens":{"leeway":"2m"}`: 200} {
			w := setup(t, auth)
			token := w.register().text("access_token")
			w.move(16 * time.Minute)
			expect(t, w.me(token).status, want)
		}
	},
	"/auth/tokens/transport": func(t *testing.T) {
		w := setup(t, `"tokens":{"transport":"cookie"}`)
		in := w.register()
		expect(t, in.text("access_token"), "")
		expect(t, w.do("GET", "/auth/me", nil, bearer("a.b.c")).code(), "invalid_request")
		expect(t, w.do("GET", "/auth/me", nil, cookieHeader(in)).status, 200)
		only := setup(t, `"tokens":{"transport":"bearer"}`)
		only.register()
		expect(t, only.do("POST", "/auth/login", with(account, "transport", "cookie")).code(), "invalid_field")
		expect(t, only.do("GET", "/auth/me", nil, cookieHeader(in)).code(), "unauthenticated")
	},
	"/auth/tokens/rotation_grace": func(t *testing.T) {
		w := setup(t, `"tokens":{"rotation_grace":0}`)
		token := obj("refresh_token", w.register().text("refresh_token"))
		w.do("POST", "/auth/refresh", token)
		w.move(time.Second)
		expect(t, w.do("POST", "/auth/refresh", token).code(), "refresh_reused")
	},
	"/auth/tokens/revocation/mode": func(t *testing.T) {
		w := setup(t, `"tokens":{"revocation":{"mode":"strict"}}`)
		token := w.register().text("access_token")
		if err := w.db.Collection("user_sessions").Drop(t.Context()); err != nil {
			t.Fatal(err)
		}
		expect(t, w.me(token).code(), "session_expired")
	},
	"/auth/tokens/revocation/max_staleness": func(t *testing.T) {
		db, link := storetest.Linked(t)
		w := newWorld(t, db, manifestOf(t, "shop", `"tokens":{"revocation":{"max_staleness":"1m"}}`))
		token := w.register().text("access_token")
		link.Cut()
		// What the audit trail still holds could not be written at the end.
		defer link.Restore()
		until(t, "the feed to be behind the default bound", func() bool { return w.do("GET", "/auth/health", nil).body["feed_age_ms"].(float64) > 2100 })
		expect(t, w.me(token).status, 200)
	},
	"/auth/tokens/revocation/poll_interval": func(t *testing.T) {
		w := newWorld(t, storetest.Database(t), manifestOf(t, "shop", `"tokens":{"revocation":{"poll_interval":"100ms"}}`), func(o *engine.Options) { o.DisableChangeStreams = true })
		for range 20 { // with the default of a second some of these would be older
			until(t, "a young view", func() bool { return w.do("GET", "/auth/health", nil).body["feed_age_ms"].(float64) < 400 })
		}
	},
	"/auth/tokens/blacklist_collection": func(t *testing.T) {
		w := setup(t, `"tokens":{"blacklist_collection":"revoked"}`)
		w.do("POST", "/auth/logout", nil, bearer(w.register().text("access_token")))
		expect(t, count(w, "revoked"), int64(1))
	},
	"/auth/sessions/collection": func(t *testing.T) {
		w := setup(t, `"sessions":{"collection":"logins"}`)
		w.register()
		expect(t, count(w, "logins"), int64(1))
	},
	"/auth/sessions/max_per_user": func(t *testing.T) {
		w := setup(t, `"sessions":{"max_per_user":1}`)
		first := w.register()
		w.login()
		expect(t, w.me(first.text("access_token")).code(), "token_revoked")
	},
	"/auth/sessions/on_limit": func(t *testing.T) {
		w := setup(t, `"sessions":{"max_per_user":1,"on_limit":"refuse"}`)
		w.register()
		expect(t, w.do("POST", "/auth/login", account).code(), "session_limit")
	},
	"/auth/sessions/idle_timeout": func(t *testing.T) {
		expect(t, setup(t, `"sessions":{"idle_timeout":"2h"}`).register().body["refresh_expires_in"], 7200.0)
	},
	"/auth/sessions/remember_me_factor": func(t *testing.T) {
		w := setup(t, `"sessions":{"remember_me_factor":3,"idle_timeout":"3h"},"tokens":{"refresh_ttl":"1h"}`)
		w.register()
		expect(t, w.do("POST", "/auth/login", with(account, "remember_me", true)).body["refresh_expires_in"], 10800.0)
	},
	"/auth/sessions/bind_device": bindKey(`"bind_device":"refuse"`, header("User-Agent", "Other")),
	"/auth/sessions/bind_ip":     bindKey(`"bind_ip":"refuse"`, from("198.51.100.9:1")),
	"/auth/sessions/end_others_on_credential_change": func(t *testing.T) {
		w := setup(t, `"sessions":{"end_others_on_credential_change":false}`)
		other, mine := w.register(), w.login()
		w.do("POST", "/auth/password", obj("current_password", password, "new_password", "another long passphrase"), bearer(mine.text("access_token")))
		expect(t, w.me(other.text("access_token")).status, 200)
	},
	"/auth/cookies/same_site": cookieKey(`"same_site":"strict"`, "SameSite=Strict"),
	"/auth/cookies/domain":    cookieKey(`"domain":"example.com"`, "Domain=example.com"),
	"/auth/cookies/secure": func(t *testing.T) {
		local := func(r *http.Request) { r.Host = "127.0.0.1:8080" }
		for auth, want := range map[string]bool{``: false, `"cookies":{"secure":"always"}`: true} {
			w := setup(t, auth)
			w.register()
			line := w.do("POST", "/auth/login", with(account, "transport", "cookie"), local).header["Set-Cookie"][0]
			expect(t, strings.Contains(line, "Secure"), want)
		}
	},
	"/auth/csrf/enabled":         crossOriginKey(`"csrf":{"enabled":false}`),
	"/auth/csrf/trusted_origins": crossOriginKey(`"csrf":{"trusted_origins":["https://evil.example"]}`),
	"/auth/cors/allow_origins":   corsKey(`"allow_origins":["https://evil.example"]`, "Access-Control-Allow-Origin", "https://evil.example"),
	"/auth/cors/allow_credentials": corsKey(`"allow_origins":["https://evil.example"],"allow_credentials":true`,
		"Access-Control-Allow-Credentials", "true"),
	"/auth/cors/allow_headers": corsKey(`"allow_origins":["https://evil.example"],"allow_headers":["X-Own"]`, "Access-Control-Allow-Headers", "X-Own"),
	"/auth/cors/max_age":       corsKey(`"allow_origins":["https://evil.example"],"max_age":"1m"`, "Access-Control-Max-Age", "60"),
	"/auth/security_headers/enabled": func(t *testing.T) {
		expect(t, setup(t, `"security_headers":{"enabled":false}`).do("GET", "/auth/health", nil).header.Get("X-Content-Type-Options"), "")
	},
	"/auth/security_headers/hsts/max_age":            headerKey(`"hsts":{"max_age":"1h"}`, "Strict-Transport-Security", "max-age=3600"),
	"/auth/security_headers/hsts/include_subdomains": headerKey(`"hsts":{"include_subdomains":true}`, "Strict-Transport-Security", "max-age=31536000; includeSubDomains"),
	"/auth/security_headers/hsts/preload": headerKey(`"hsts":{"include_subdomains":true,"preload":true}`, "Strict-Transport-Security",
		"max-age=31536000; includeSubDomains; preload"),
	"/auth/security_headers/frame_ancestors": headerKey(`"frame_ancestors":"'self'"`, "Content-Security-Policy", "frame-ancestors 'self'"),
	"/auth/security_headers/referrer_policy": headerKey(`"referrer_policy":"same-origin"`, "Referrer-Policy", "same-origin"),
	"/auth/trusted_proxies": func(t *testing.T) {
		via := []request{from("10.0.0.1:1"), header("X-Forwarded-For", "203.0.113.5, 10.0.0.2"), header("X-Forwarded-Proto", "https")}
		for auth, want := range map[string]string{``: "10.0.0.1", `"trusted_proxies":["10.0.0.0/8"]`: "203.0.113.5"} {
			w := setup(t, auth)
			w.register()
			token := bearer(w.login(via...).text("access_token"))
			list, _ := w.do("GET", "/auth/sessions", nil, token).body["sessions"].([]any)
			newest, _ := list[0].(map[string]any)
			expect(t, newest["ip"], any(want))
			expect(t, do(t, w.app.RequireTLS().Handler(ok), "GET", "/", nil, via...).status == 200, want == "203.0.113.5")
		}
	},
}

// elementOf finds the number in a key of a list's element.
var elementOf = regexp.MustCompile(`^(/auth/(?:requirements|clients/initial|issuers))/[0-9]+/`)

func TestEveryKeyIsEnforced(t *testing.T) {
	t.Parallel()
	m := manifestOf(t, "shop", `"cookies":{"domain":"shop.example"},"users":{"demo_users":[{"email":"d@example.com","password":"x"}]},`+
		rules(`{"path":"/x","methods":["GET"],"strategy":"all","methods_allowed":["jwt","session"],"optional":false,"roles":["user"],"permissions":["a:b"],"scopes":["s"],"human_only":true,"internal":true,"fresh_within":"5m"},`+
			`{"path":"/m","machine_only":true,"rate_limit":"heavy"}`)+`,"rate_limits":{"heavy":{"max":1,"window":"1h"}},`+
		withKeys(`"scopes":["s"]`)+`,`+withClients(`"scopes":["s"],"initial":[{"id":"`+store.NewID("cli_")+`","roles":["user"],"name":"billing","secret":"`+initialSecret+`","scopes":["s"]}]`)+`,`+
		`"issuers":[{"name":"corp","issuer":"https://corp.example","audience":["shop"],"audience_claim":"aud","algorithms":["ES256"],"token_types":["at+jwt"],`+
		`"jwks_uri":"https://corp.example/keys","m2m":{"username_claims":["u"],"token_use_claim":"use","token_use_values":["access"],"client_id_claims":["azp"],`+
		`"user_claims":["email"],"scope_claims":["scp"],"machine_claim":"gty","machine_values":["app"],"subject_is_client":true}}],`+
		everyMailKey+`,"oauth":{"providers":{`+everyProviderKey+`}},`+
		`"policy":{"allowed_roles":["user"],"allowed_users":["usr_00000000000000000000000ada"],"denied_users":["anonymous"],"required_permissions":["a:b"],`+
		`"authorization":{"role_hierarchy":{"admin":["user"]},"initial_policies":[["user","a","b"]],"initial_roles":[{"user":"a@example.com","role":"user"}]}}`,
		`"public_url":"https://shop.example"`, `"environment":"development"`)
	known := map[string]bool{}
	keyTests := maps.Clone(keyTests)
	maps.Copy(keyTests, policyKeyTests)
	maps.Copy(keyTests, requirementKeyTests)
	maps.Copy(keyTests, machineKeyTests)
	maps.Copy(keyTests, recordKeyTests)
	maps.Copy(keyTests, issuerKeyTests)
	maps.Copy(keyTests, signInKeyTests)
	maps.Copy(keyTests, mailKeyTests)
	remote := manifestOf(t, "shop", `"policy":{"provider":"oso","authorization":{"api_key":"x"}}`)
	for _, s := range append(m.Effective(), remote.Effective()...) {
		pointer := s.Pointer
		for _, several := range []string{
			"/auth/users/demo_users", "/auth/policy/authorization/role_hierarchy", "/auth/policy/authorization/initial_roles",
			"/auth/oauth/providers/acme/authorization_params",
		} {
			if strings.HasPrefix(pointer, several+"/") {
				pointer = several
			}
		}
		pointer = elementOf.ReplaceAllString(pointer, "$1/")
		pointer = strings.Replace(pointer, "/providers/acme/", "/providers/{name}/", 1)
		if rule, ok := strings.CutPrefix(pointer, "/auth/rate_limits/"); ok {
			_, key, _ := strings.Cut(rule, "/")
			pointer = "/auth/rate_limits/{name}/" + key
		}
		known[pointer] = true
		if keyTests[pointer] == nil {
			t.Errorf("no test changes %s and sees the behaviour change", pointer)
		}
	}
	for pointer, test := range keyTests {
		if !known[pointer] {
			t.Errorf("%s is tested and is no key", pointer)
		}
		t.Run(strings.TrimPrefix(pointer, "/"), func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
}

func expect[T comparable](t *testing.T, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

func refused(t *testing.T, auth string, rest ...string) {
	t.Helper()
	if _, err := tryManifest("shop", auth, rest...); err == nil {
		t.Error("the manifest was accepted")
	}
}

func issuer(t *testing.T, token string) string {
	t.Helper()
	u, err := tokens.Inspect(token)
	if err != nil {
		t.Fatal(err)
	}
	return u.Issuer
}

func count(w *world, collection string) int64 {
	w.t.Helper()
	n, err := w.db.Collection(collection).CountDocuments(w.t.Context(), bson.M{"app": "shop"})
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// passwordKey registers with a password under the policy and under the default,
// and expects different answers.
func passwordKey(policy, pw, code string) func(*testing.T) {
	return func(t *testing.T) {
		body := with(account, "password", pw)
		changed := setup(t, `"users":{"password":{`+policy+`}}`).do("POST", "/auth/register", body).code()
		expect(t, changed, code)
		if usual := setup(t, ``).do("POST", "/auth/register", body).code(); usual == code {
			t.Errorf("the default answers %q as well", usual)
		}
	}
}

func lockoutKey(lockout string, failures int, wait time.Duration, then, finally int) func(*testing.T) {
	return func(t *testing.T) {
		w := setup(t, `"users":{"lockout":{`+lockout+`}}`)
		for range failures {
			w.do("POST", "/auth/login", account)
		}
		w.move(wait)
		expect(t, w.do("POST", "/auth/login", account).status, then)
		expect(t, w.do("POST", "/auth/login", account).status, finally)
	}
}

func bindKey(key string, edit request) func(*testing.T) {
	return func(t *testing.T) {
		for sessions, want := range map[string]int{key: 401, strings.Replace(key, "refuse", "log", 1): 200} {
			w := setup(t, `"sessions":{`+sessions+`}`)
			r := w.do("POST", "/auth/refresh", obj("refresh_token", w.register().text("refresh_token")), edit)
			expect(t, r.status, want)
			if want == 200 {
				w.events.WaitFor(t, "a change", func(e event.Event) bool { return e.Type == event.DeviceChanged || e.Type == event.AddressChanged })
			}
		}
	}
}

func cookieKey(key, want string) func(*testing.T) {
	return func(t *testing.T) {
		w := setup(t, `"cookies":{`+key+`}`)
		w.register()
		line := w.do("POST", "/auth/login", with(account, "transport", "cookie")).header["Set-Cookie"][0]
		expect(t, strings.Contains(line, want), true)
	}
}

func crossOriginKey(key string) func(*testing.T) {
	return func(t *testing.T) {
		for auth, want := range map[string]string{``: "csrf_failed", key: ""} {
			w := setup(t, auth)
			w.register()
			r := w.do("POST", "/auth/login", with(account, "transport", "cookie"), header("Origin", "https://evil.example"))
			expect(t, r.code(), want)
		}
	}
}

func corsKey(key, name, want string) func(*testing.T) {
	return func(t *testing.T) {
		edit := []request{header("Origin", "https://evil.example"), header("Access-Control-Request-Method", "POST")}
		expect(t, setup(t, `"cors":{`+key+`}`).do("OPTIONS", "/auth/login", nil, edit...).header.Get(name), want)
		expect(t, setup(t, ``).do("OPTIONS", "/auth/login", nil, edit...).header.Get(name), "")
	}
}

func headerKey(key, name, want string) func(*testing.T) {
	return func(t *testing.T) {
		w := setup(t, `"security_headers":{`+key+`}`)
		expect(t, w.do("GET", "/auth/health", nil, overTLS).header.Get(name), want)
		expect(t, do(t, w.app.SecurityHeaders(ok), "GET", "/", nil, overTLS).header.Get(name), want)
		if usual := setup(t, ``).do("GET", "/auth/health", nil, overTLS).header.Get(name); usual == want {
			t.Errorf("the default sends %q as well", usual)
		}
	}
}

// An index that somebody made with another definition stops the start: without
// the unique one two people could share an address.
func TestIndexConflictStopsTheStart(t *testing.T) {
	t.Parallel()
	db := storetest.Database(t)
	err := db.RunCommand(t.Context(), bson.D{{Key: "createIndexes", Value: "users"}, {Key: "indexes", Value: bson.A{
		bson.D{{Key: "key", Value: bson.D{{Key: "app", Value: 1}, {Key: "email_norm", Value: 1}}}, {Key: "name", Value: "app_email"}},
	}}}).Err()
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, db, manifestOf(t, "first", `"users":{"collection_name":"others"}`))
	_, err = w.eng.Load(t.Context(), manifestOf(t, "shop", ``))
	if !errors.Is(err, store.ErrIndexConflict) || !strings.Contains(err.Error(), "app_email") {
		t.Errorf("got %v, want an index conflict that names it", err)
	}
	if w.eng.App("shop") != nil {
		t.Error("an app that did not load is there")
	}
}
