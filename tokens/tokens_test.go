package tokens_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/keys"
	"github.com/mandate-auth/mandate/tokens/secret"
)

// clock is a clock that the test moves.
type clock struct{ offset atomic.Int64 }

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func (c *clock) Now() time.Time       { return epoch.Add(time.Duration(c.offset.Load())) }
func (c *clock) Move(d time.Duration) { c.offset.Add(int64(d)) }
func appKeys(tb testing.TB, slug string, secrets ...string) *keys.App {
	tb.Helper()
	var values []secret.Value
	for _, s := range secrets {
		values = append(values, secret.FromString(strings.Repeat(s, 40)))
	}
	ring, err := keys.NewRing(values)
	if err != nil {
		tb.Fatal(err)
	}
	app, err := ring.App(slug, bytes.Repeat([]byte{1}, 32), 1)
	if err != nil {
		tb.Fatal(err)
	}
	return app
}

func setup(tb testing.TB, edit ...func(*tokens.Config)) (*tokens.Service, *clock) {
	tb.Helper()
	c := &clock{}
	config := tokens.Config{
		App: "shop", Issuer: "https://shop.example", Audience: "shop", AccessTTL: 15 * time.Minute,
		Leeway: 30 * time.Second, Keys: appKeys(tb, "shop", "s"), Now: c.Now,
	}
	for _, f := range edit {
		f(&config)
	}
	s, err := tokens.New(config)
	if err != nil {
		tb.Fatal(err)
	}
	return s, c
}

var grant = tokens.Grant{Subject: "usr_1", Kind: authz.KindHuman, SessionID: "ses_1", Epoch: 3, AuthTime: epoch.Add(-time.Hour)}

func issue(tb testing.TB, s *tokens.Service, g tokens.Grant) string {
	tb.Helper()
	issued, err := s.Issue(g)
	if err != nil {
		tb.Fatal(err)
	}
	return issued.Token
}

func TestIssueAndVerify(t *testing.T) {
	t.Parallel()
	s, c := setup(t)
	g := grant
	g.Custom = map[string]any{"plan": "gold", "limits": map[string]any{"n": 5.0}}
	text := issue(t, s, g)
	for range 2 { // the second is answered from memory
		v, err := s.Verify(text)
		if err != nil {
			t.Fatal(err)
		}
		if v.Subject() != "usr_1" || v.SessionID() != "ses_1" || v.Epoch() != 3 || v.Kind() != authz.KindHuman || !v.AuthTime().Equal(g.AuthTime) {
			t.Errorf("the claims are not those that were granted: %+v", v.Principal(authz.CredentialBearer))
		}
		p := v.Principal(authz.CredentialCookie)
		if p.ID != "usr_1" || p.App != "shop" || p.Credential != authz.CredentialCookie || p.Claims["plan"] != "gold" {
			t.Errorf("principal: %+v", p)
		}
		if !v.Lifetime().ExpiresAt.Equal(c.Now().Add(15 * time.Minute)) {
			t.Errorf("expires at %v", v.Lifetime().ExpiresAt)
		}
	}
}

// A token that anybody else's JWT library reads must say what RFC 9068 wants.
func TestTokenProfile(t *testing.T) {
	t.Parallel()
	s, c := setup(t)
	claims := jwt.MapClaims{}
	token, err := jwt.NewParser(jwt.WithTimeFunc(c.Now)).ParseWithClaims(issue(t, s, grant), claims,
		func(*jwt.Token) (any, error) { return appKeys(t, "shop", "s").Newest(keys.Access).Bytes(), nil })
	if err != nil {
		t.Fatal(err)
	}
	if token.Header["typ"] != "at+jwt" || token.Header["alg"] != "HS256" || len(token.Header) != 3 {
		t.Errorf("header: %v", token.Header)
	}
	for _, name := range []string{"iss", "exp", "aud", "sub", "client_id", "iat", "jti"} {
		if claims[name] == nil {
			t.Errorf("RFC 9068 section 2.2: claim %q is missing", name)
		}
	}
}

func TestTimes(t *testing.T) {
	t.Parallel()
	s, c := setup(t)
	text := issue(t, s, grant)
	steps := []struct {
		name string
		at   time.Duration
		want error
	}{
		{"when issued", 0, nil},
		{"at the end, within the leeway", 15*time.Minute + 29*time.Second, nil},
		{"at the end of the leeway", 15*time.Minute + 30*time.Second, tokens.ErrExpired},
		{"before it was issued, within the leeway", -30 * time.Second, nil},
		{"before it was issued", -31 * time.Second, tokens.ErrInvalid},
	}
	for _, step := range steps {
		c.offset.Store(int64(step.at))
		v, err := s.Verify(text)
		if !errors.Is(err, step.want) || (err != nil && v != nil) {
			t.Errorf("%s: got %v, %v, want %v and no claims with an error", step.name, v, err, step.want)
		}
		fresh, _ := setup(t, func(config *tokens.Config) { config.Now = c.Now })
		if _, err := fresh.Verify(text); !errors.Is(err, step.want) {
			t.Errorf("%s, not from memory: got %v, want %v", step.name, err, step.want)
		}
	}
	g := grant
	g.NotAfter = epoch.Add(time.Minute)
	c.offset.Store(0)
	if v, err := s.Verify(issue(t, s, g)); err != nil || !v.Lifetime().ExpiresAt.Equal(g.NotAfter) {
		t.Errorf("a bound of the session's did not shorten the token: %v", err)
	}
}

// sign makes a token with the given header and claims, as an attacker or an
// issuer gone wrong would.
func sign(tb testing.TB, method jwt.SigningMethod, key any, header, claims map[string]any) string {
	tb.Helper()
	segment := func(v any) string {
		raw, err := json.Marshal(v)
		if err != nil {
			tb.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	signed := segment(header) + "." + segment(claims)
	sig, err := method.Sign(signed, key)
	if err != nil {
		tb.Fatal(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func good() map[string]any {
	return map[string]any{
		"iss": "https://shop.example", "aud": "shop", "client_id": "shop", "sub": "usr_1", "sub_type": "human", "sid": "ses_1",
		"jti": "tok_1", "epoch": 1, "iat": epoch.Unix(), "exp": epoch.Add(time.Minute).Unix(), "auth_time": epoch.Unix(),
	}
}

func TestClaimsAreRequired(t *testing.T) {
	t.Parallel()
	s, _ := setup(t)
	key := appKeys(t, "shop", "s").Newest(keys.Access)
	header := map[string]any{"alg": "HS256", "kid": key.ID, "typ": "at+jwt"}
	mint := func(claims map[string]any) string {
		return sign(t, jwt.SigningMethodHS256, key.Bytes(), header, claims)
	}
	if _, err := s.Verify(mint(good())); err != nil {
		t.Fatalf("the pattern of the table is not accepted: %v", err)
	}
	type edit map[string]any
	tests := map[string]edit{
		"issuer of another app":  {"iss": "https://other.example"},
		"empty issuer":           {"iss": ""},
		"audience of another":    {"aud": "other"},
		"audience in an array":   {"aud": []string{"shop", "other"}},
		"audience as a number":   {"aud": 1},
		"audience null":          {"aud": nil},
		"client of another":      {"client_id": "other"},
		"empty subject":          {"sub": ""},
		"subject as an object":   {"sub": map[string]any{"$ne": ""}},
		"expiry as text":         {"exp": "99999999999"},
		"expiry null":            {"exp": nil},
		"expiry with a fraction": {"exp": 1.5},
		"expiry negative":        {"exp": -1},
		"expiry beyond dates":    {"exp": 1e18},
		"not before the future":  {"nbf": epoch.Add(time.Hour).Unix()},
		"issued in the future":   {"iat": epoch.Add(time.Hour).Unix()},
		"epoch as text":          {"epoch": "9"},
	}
	for _, name := range []string{"iss", "aud", "client_id", "sub", "sub_type", "sid", "jti", "iat", "exp", "auth_time"} {
		tests["without "+name] = edit{name: "DELETE"}
	}
	for name, e := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			claims := good()
			for k, v := range e {
				if v == "DELETE" {
					delete(claims, k)
				} else {
					claims[k] = v
				}
			}
			if v, err := s.Verify(mint(claims)); !errors.Is(err, tokens.ErrInvalid) || v != nil {
				t.Errorf("got %v, %v, want ErrInvalid", v, err)
			}
		})
	}
}

// What makes a token a client's and what makes it an account's exclude each other.
func TestClaimsOfClients(t *testing.T) {
	t.Parallel()
	s, _ := setup(t)
	key := appKeys(t, "shop", "s").Newest(keys.Access)
	mint := func(change map[string]any) string {
		claims := good()
		for _, name := range []string{"sid", "auth_time"} {
			delete(claims, name)
		}
		maps.Copy(claims, map[string]any{"sub": "cli_1", "client_id": "cli_1", "sub_type": "service"})
		maps.Copy(claims, change)
		return sign(t, jwt.SigningMethodHS256, key.Bytes(), map[string]any{"alg": "HS256", "kid": key.ID, "typ": "at+jwt"}, claims)
	}
	if _, err := s.Verify(mint(nil)); err != nil {
		t.Fatalf("the pattern of the table is not accepted: %v", err)
	}
	for name, change := range map[string]map[string]any{
		"of a session": {"sid": "ses_1"}, "after a sign-in": {"auth_time": epoch.Unix()}, "for another client": {"client_id": "cli_2"},
		"for the app itself": {"client_id": "shop"}, "an account's": {"sub_type": "human"},
	} {
		if v, err := s.Verify(mint(change)); !errors.Is(err, tokens.ErrInvalid) || v != nil {
			t.Errorf("%s: %v, %v", name, v, err)
		}
	}
}

// A service is given keys of its own algorithm only.
func TestKeysOfAnotherAlgorithm(t *testing.T) {
	t.Parallel()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	s, _ := setup(t, func(c *tokens.Config) { c.Algorithm = tokens.EdDSA })
	right := tokens.SigningKey{ID: "k", Algorithm: tokens.EdDSA, Public: public, Private: private}
	if err := s.UseKeys([]tokens.SigningKey{right}); err != nil {
		t.Fatal(err)
	}
	for _, algorithm := range []string{tokens.HS256, tokens.ES256, tokens.RS256, "none", ""} {
		wrong := right
		wrong.Algorithm = algorithm
		if err := s.UseKeys([]tokens.SigningKey{wrong}); err == nil {
			t.Errorf("a key for %q was taken", algorithm)
		}
	}
	if err := s.UseKeys([]tokens.SigningKey{{ID: "k", Algorithm: tokens.EdDSA}}); err == nil {
		t.Error("a key without its public part was taken")
	}
	derived, _ := setup(t)
	if err := derived.UseKeys([]tokens.SigningKey{{ID: "k", Algorithm: tokens.HS256, Public: []byte("x")}}); err == nil {
		t.Error("a service with derived keys was given another")
	}
	if _, err := s.Verify(issue(t, s, grant)); err != nil {
		t.Errorf("the keys from before: %v", err)
	}
}

// raw signs claims that no encoder would write.
func raw(tb testing.TB, claims string) string {
	tb.Helper()
	key := appKeys(tb, "shop", "s").Newest(keys.Access)
	header := fmt.Sprintf(`{"alg":"HS256","kid":%q,"typ":"at+jwt"}`, key.ID)
	signed := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
	sig, err := jwt.SigningMethodHS256.Sign(signed, key.Bytes())
	if err != nil {
		tb.Fatal(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func TestClaimsHaveOneReading(t *testing.T) {
	t.Parallel()
	s, _ := setup(t)
	base, err := json.Marshal(good())
	if err != nil {
		t.Fatal(err)
	}
	inner := strings.TrimSuffix(string(base), "}")
	for name, claims := range map[string]string{
		"subject twice":        inner + `,"sub":"root"}`,
		"custom claim twice":   inner + `,"x":1,"x":2}`,
		"data after the end":   string(base) + `{}`,
		"an array":             "[" + string(base) + "]",
		"cut off":              inner,
		"not UTF-8 nor JSON":   "\xff\xfe",
		"epoch beyond integer": strings.Replace(string(base), `"epoch":1`, `"epoch":1e300`, 1),
	} {
		if v, err := s.Verify(raw(t, claims)); !errors.Is(err, tokens.ErrInvalid) || v != nil {
			t.Errorf("%s: got %v, %v, want ErrInvalid", name, v, err)
		}
	}
	v, err := s.Verify(raw(t, inner+`,"SUB":"root"}`))
	if err != nil || v.Subject() != "usr_1" {
		t.Errorf("a claim in other letters took the place of the subject: %v", err)
	}
}

func TestForeignTokensAreRefused(t *testing.T) {
	t.Parallel()
	s, _ := setup(t)
	app := appKeys(t, "shop", "s")
	key := app.Newest(keys.Access)
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	header := func(extra map[string]any) map[string]any {
		h := map[string]any{"alg": "HS256", "kid": key.ID, "typ": "at+jwt"}
		for k, v := range extra {
			h[k] = v
		}
		return h
	}
	hs := jwt.SigningMethodHS256
	other, _ := setup(t, func(c *tokens.Config) {
		c.App, c.Issuer, c.Audience, c.Keys = "other", "other", "other", appKeys(t, "other", "s")
	})
	twin, _ := setup(t, func(c *tokens.Config) { c.Keys = appKeys(t, "other", "s") })
	tests := map[string]string{
		"alg none":               sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, header(map[string]any{"alg": "none"}), good()),
		"alg None":               sign(t, hs, key.Bytes(), header(map[string]any{"alg": "None"}), good()),
		"header says EdDSA":      sign(t, hs, key.Bytes(), header(map[string]any{"alg": "EdDSA"}), good()),
		"HMAC by a public key":   sign(t, hs, []byte(public), header(nil), good()),
		"EdDSA with our kid":     sign(t, jwt.SigningMethodEdDSA, private, header(map[string]any{"alg": "EdDSA"}), good()),
		"HS384":                  sign(t, jwt.SigningMethodHS384, key.Bytes(), header(map[string]any{"alg": "HS384"}), good()),
		"other type":             sign(t, hs, key.Bytes(), header(map[string]any{"typ": "JWT"}), good()),
		"critical extension":     sign(t, hs, key.Bytes(), header(map[string]any{"crit": []string{"b64"}}), good()),
		"embedded key":           sign(t, hs, key.Bytes(), header(map[string]any{"jwk": map[string]any{"kty": "oct"}}), good()),
		"key by URL":             sign(t, hs, key.Bytes(), header(map[string]any{"jku": "http://127.0.0.1/"}), good()),
		"no kid":                 sign(t, hs, key.Bytes(), map[string]any{"alg": "HS256", "typ": "at+jwt"}, good()),
		"kid as a path":          sign(t, hs, key.Bytes(), header(map[string]any{"kid": "../../dev/null"}), good()),
		"kid as an operator":     sign(t, hs, key.Bytes(), header(map[string]any{"kid": map[string]any{"$ne": ""}}), good()),
		"key of another purpose": sign(t, hs, app.Newest(keys.Refresh).Bytes(), header(nil), good()),
		"empty key":              sign(t, hs, []byte{}, header(nil), good()),
		"of another app":         issue(t, other, grant),
		"same issuer, other key": issue(t, twin, grant),
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v, err := s.Verify(text)
			refused := errors.Is(err, tokens.ErrInvalid) || errors.Is(err, tokens.ErrMalformed)
			if !refused || v != nil {
				t.Errorf("got %v, %v, want a refusal", v, err)
			}
		})
	}
}

// One token has one spelling: a revoked one must not come back in another.
func TestTokensAreNotMalleable(t *testing.T) {
	t.Parallel()
	s, _ := setup(t)
	text := issue(t, s, grant)
	if _, err := s.Verify(text); err != nil {
		t.Fatal(err)
	}
	refused := func(name, twin string) {
		t.Helper()
		if v, err := s.Verify(twin); err == nil || v != nil {
			t.Errorf("%s was accepted: %q", name, twin)
		}
	}
	for i := range len(text) {
		refused(fmt.Sprintf("the prefix of %d bytes", i), text[:i])
		for bit := range 8 {
			b := []byte(text)
			b[i] ^= 1 << bit
			refused(fmt.Sprintf("bit %d of byte %d", bit, i), string(b))
		}
		for _, insert := range []string{"\n", "\r\n", " ", "=", "."} {
			refused(fmt.Sprintf("%q at %d", insert, i), text[:i]+insert+text[i:])
		}
	}
	refused("padding", text+"=")
	refused("five segments", text+".a.b")
	refused("too long", text+strings.Repeat("a", tokens.MaxLength))
	refused("dots", strings.Repeat(".", 1<<20))
	refused("nothing", "")
}

func TestSecretRotation(t *testing.T) {
	t.Parallel()
	old, _ := setup(t, func(c *tokens.Config) { c.Keys = appKeys(t, "shop", "o") })
	both, _ := setup(t, func(c *tokens.Config) { c.Keys = appKeys(t, "shop", "n", "o") })
	after, _ := setup(t, func(c *tokens.Config) { c.Keys = appKeys(t, "shop", "n") })
	text := issue(t, old, grant)
	if _, err := both.Verify(text); err != nil {
		t.Errorf("while both secrets are given: %v", err)
	}
	if _, err := after.Verify(text); !errors.Is(err, tokens.ErrInvalid) {
		t.Errorf("after the old secret is gone: got %v, want ErrInvalid", err)
	}
	if _, err := old.Verify(issue(t, both, grant)); !errors.Is(err, tokens.ErrInvalid) {
		t.Errorf("the newest secret does not sign: %v", err)
	}
}

func TestIssueRefuses(t *testing.T) {
	t.Parallel()
	s, _ := setup(t)
	for _, name := range []string{"sub", "exp", "roles", "sid"} {
		g := grant
		g.Custom = map[string]any{name: "x"}
		if _, err := s.Issue(g); !errors.Is(err, tokens.ErrReservedClaim) {
			t.Errorf("custom claim %q: got %v, want ErrReservedClaim", name, err)
		}
	}
	g := grant
	g.Custom = map[string]any{"x": strings.Repeat("x", 4000)}
	if _, err := s.Issue(g); !errors.Is(err, tokens.ErrTooLarge) {
		t.Errorf("a token that fits no cookie: got %v", err)
	}
	if _, err := s.Issue(tokens.Grant{Subject: "usr_1"}); err == nil {
		t.Error("a grant without session was signed")
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	valid := tokens.Config{App: "a", Issuer: "i", Audience: "a", AccessTTL: time.Minute, Keys: appKeys(t, "a", "s")}
	for name, edit := range map[string]func(*tokens.Config){
		"no app": func(c *tokens.Config) { c.App = "" }, "no issuer": func(c *tokens.Config) { c.Issuer = "" },
		"no audience": func(c *tokens.Config) { c.Audience = "" }, "no keys": func(c *tokens.Config) { c.Keys = nil },
		"no life": func(c *tokens.Config) { c.AccessTTL = 0 }, "too long a life": func(c *tokens.Config) { c.AccessTTL = 25 * time.Hour },
		"negative leeway": func(c *tokens.Config) { c.Leeway = -1 },
	} {
		config := valid
		edit(&config)
		if _, err := tokens.New(config); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestLifetime(t *testing.T) {
	t.Parallel()
	l := tokens.Lifetime{IssuedAt: epoch, ExpiresAt: epoch.Add(10 * time.Minute)}
	at := func(d time.Duration) time.Time { return epoch.Add(d) }
	switch {
	case l.TimeLeft(at(4*time.Minute)) != 6*time.Minute, l.TimeLeft(at(time.Hour)) != 0:
		t.Error("TimeLeft")
	case l.Age(at(4*time.Minute)) != 4*time.Minute, l.Age(at(-time.Hour)) != 0:
		t.Error("Age")
	case l.Expired(at(10*time.Minute - 1)), !l.Expired(at(10 * time.Minute)):
		t.Error("Expired")
	case l.ExpiringSoon(at(5*time.Minute-1), 5*time.Minute), !l.ExpiringSoon(at(5*time.Minute), 5*time.Minute):
		t.Error("ExpiringSoon")
	case l.ShouldRefresh(at(7 * time.Minute)), !l.ShouldRefresh(at(8 * time.Minute)):
		t.Error("ShouldRefresh")
	}
}

func TestInspect(t *testing.T) {
	t.Parallel()
	s, _ := setup(t)
	text := issue(t, s, grant)
	forged := text[:strings.LastIndex(text, ".")+1] + "AAAA"
	u, err := tokens.Inspect(forged)
	if err != nil || u.Subject != "usr_1" || u.Type != "at+jwt" || u.SessionID != "ses_1" || !u.IssuedAt.Equal(epoch) {
		t.Errorf("got %+v, %v", u, err)
	}
	for _, bad := range []string{"", "a.b", "a.b.c.d", "!.!.!", "bnVsbA.bnVsbA.x", strings.Repeat("a", tokens.MaxLength+1)} {
		if _, err := tokens.Inspect(bad); !errors.Is(err, tokens.ErrMalformed) {
			t.Errorf("Inspect(%.10q): got %v, want ErrMalformed", bad, err)
		}
	}
}

func TestDevices(t *testing.T) {
	t.Parallel()
	d := tokens.NewDevices(appKeys(t, "shop", "s"))
	token := d.Issue("usr_1")
	if d.Verify("usr_1", token) == "" {
		t.Error("the token is refused for its own user")
	}
	for name, bad := range map[string]string{
		"cut": token[:len(token)-1], "of another version": "mdt2" + token[4:], "empty": "", "long": strings.Repeat("m", 300),
		"line break": token + "\n", "of another app": tokens.NewDevices(appKeys(t, "other", "s")).Issue("usr_1"),
	} {
		if d.Verify("usr_1", bad) != "" {
			t.Errorf("a token that is %s was accepted", name)
		}
	}
	if d.Verify("usr_2", token) != "" {
		t.Error("a token of one user was accepted for another")
	}
}

func FuzzVerify(f *testing.F) {
	// A key of its own for each process: a token that another one found is
	// foreign here.
	s, _ := setup(f, func(c *tokens.Config) { c.Keys = appKeys(f, "shop", string(secret.Random(2).Reveal())) })
	text := issue(f, s, grant)
	f.Add(text)
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, in string) {
		v, err := s.Verify(in)
		if (err == nil) != (in == text) || (err == nil) != (v != nil) {
			t.Errorf("Verify(%q) = %v, %v", in, v, err)
		}
	})
}

func FuzzInspect(f *testing.F) {
	s, _ := setup(f)
	f.Add(issue(f, s, grant))
	f.Add("bnVsbA.bnVsbA.x")
	f.Fuzz(func(t *testing.T, in string) {
		if u, err := tokens.Inspect(in); (err == nil) != (u != nil) {
			t.Errorf("Inspect(%q) = %v, %v", in, u, err)
		}
	})
}
