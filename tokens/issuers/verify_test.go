package issuers_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/issuers"
)

func TestVerify(t *testing.T) {
	t.Parallel()
	e := newEvil(t)
	i, _ := open(t, e)
	m := material()
	for name, token := range map[string]string{
		"ES256":   es(t, good()),
		"RS256":   sign(t, jwt.SigningMethodRS256, m.rsa, map[string]any{"alg": "RS256", "kid": "r1", "typ": "JWT", "x5t": "abc"}, good()),
		"EdDSA":   sign(t, jwt.SigningMethodEdDSA, m.ed, map[string]any{"alg": "EdDSA", "kid": "d1", "typ": "application/at+jwt"}, good()),
		"untyped": sign(t, jwt.SigningMethodES256, m.p256, map[string]any{"alg": "ES256", "kid": "e1"}, good()),
	} {
		for range 2 { // the second is answered from memory
			v, err := i.Verify(t.Context(), token)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if v.Issuer() != issuerURL || v.IssuerName() != "corp" || v.Subject() != "worker" || v.ClientID() != "worker" || v.ID() != "t1" ||
				strings.Join(v.Scopes(), " ") != "docs:read docs:write" || !v.IsMachine() || v.Kind() != authz.KindService ||
				!v.ExpiresAt().Equal(epoch.Add(time.Hour)) || !v.IssuedAt().Equal(epoch) || v.Claims()["token_use"] != "access" || !v.AuthTime().IsZero() {
				t.Errorf("%s: the claims are not those of the token: %+v", name, v.Claims())
			}
		}
	}
	if e.count("/jwks") != 1 {
		t.Errorf("the keys were fetched %d times, want once", e.count("/jwks"))
	}
}

// "Not a machine" is not "a person": a token that says neither opens nothing that is
// for either.
func TestKinds(t *testing.T) {
	t.Parallel()
	i, _ := open(t, newEvil(t))
	person := with("username", "anna")
	person["sub"], person["auth_time"] = "u1", epoch.Add(-time.Hour).Unix()
	late := with("username", "anna")
	late["sub"], late["auth_time"] = "u2", epoch.Add(time.Second).Unix()
	neither := with("token_use", nil)
	neither["sub"] = "u3"
	tests := []struct {
		name   string
		claims map[string]any
		kind   authz.Kind
		at     time.Time
	}{
		{"a machine", with("auth_time", epoch.Unix()), authz.KindService, time.Time{}},
		{"a person", person, authz.KindHuman, epoch.Add(-time.Hour)},
		{"a person who signs in after the token was made", late, authz.KindHuman, time.Time{}},
		{"neither", neither, "", time.Time{}},
		{"sub_type is not the issuer's to set", with("sub_type", "human"), authz.KindService, time.Time{}},
	}
	for _, test := range tests {
		v, err := i.Verify(t.Context(), es(t, test.claims))
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		if v.Kind() != test.kind || v.IsMachine() != (test.kind == authz.KindService) || !v.AuthTime().Equal(test.at) {
			t.Errorf("%s: kind %q, signed in at %v", test.name, v.Kind(), v.AuthTime())
		}
	}
}

// Every claim of a token with a good signature is still the issuer's word to
// somebody else until it is checked.
func TestClaims(t *testing.T) {
	t.Parallel()
	i, _ := open(t, newEvil(t))
	at := func(d time.Duration) int64 { return epoch.Add(d).Unix() }
	var ok error
	tests := []struct {
		name   string
		claims any
		want   error
	}{
		{"aud: one of ours in a list", with("aud", []any{"x", audience}), ok},
		{"aud: our other one", with("aud", "other"), ok},
		{"jti may be missing", with("jti", nil), ok},
		{"iat may be missing", with("iat", nil), ok},
		{"exp with a fraction", with("exp", float64(at(time.Minute))+0.5), ok},

		{"iss: missing", with("iss", nil), tokens.ErrInvalid},
		{"iss: another", with("iss", "https://evil.example"), tokens.ErrInvalid},
		{"iss: with a slash", with("iss", issuerURL+"/"), tokens.ErrInvalid},
		{"iss: other case", with("iss", strings.ToUpper(issuerURL)), tokens.ErrInvalid},
		{"iss: a list", with("iss", []any{issuerURL}), tokens.ErrInvalid},
		{"iss: other member", strings.Replace(`{"ISS":"`+issuerURL+`","sub":"a","aud":"other","exp":E}`, "E", "4000000000", 1), tokens.ErrInvalid},
		{"aud: missing", with("aud", nil), tokens.ErrInvalid},
		{"aud: another", with("aud", "https://api.example.evil"), tokens.ErrInvalid},
		{"aud: empty", with("aud", ""), tokens.ErrInvalid},
		{"aud: empty list", with("aud", []any{}), tokens.ErrInvalid},
		{"aud: a list of others", with("aud", []any{"x", "y"}), tokens.ErrInvalid},
		{"aud: a list in a list", with("aud", []any{[]any{audience}}), tokens.ErrInvalid},
		{"aud: ours beside a number", with("aud", []any{audience, 1}), tokens.ErrInvalid},
		{"aud: a number", with("aud", 1), tokens.ErrInvalid},
		{"aud: an object", with("aud", map[string]any{audience: true}), tokens.ErrInvalid},
		{"aud: null", `{"iss":"` + issuerURL + `","sub":"a","aud":null,"exp":4000000000}`, tokens.ErrInvalid},
		{"exp: missing", with("exp", nil), tokens.ErrInvalid},
		{"exp: a string", with("exp", "4000000000"), tokens.ErrInvalid},
		{"exp: null", `{"iss":"` + issuerURL + `","sub":"a","aud":"other","exp":null}`, tokens.ErrInvalid},
		{"exp: zero", with("exp", 0), tokens.ErrInvalid},
		{"exp: negative", with("exp", -1), tokens.ErrInvalid},
		{"exp: after all time", with("exp", math.MaxInt64), tokens.ErrInvalid},
		{"exp: no number that there is", `{"iss":"` + issuerURL + `","sub":"a","aud":"other","exp":1e999}`, tokens.ErrInvalid},
		{"exp: over", with("exp", at(-time.Minute)), tokens.ErrExpired},
		{"exp: over, within the leeway", with("exp", at(-29*time.Second)), ok},
		{"exp: at the end of the leeway", with("exp", at(-30*time.Second)), tokens.ErrExpired},
		{"nbf: within the leeway", with("nbf", at(30*time.Second)), ok},
		{"nbf: later", with("nbf", at(31*time.Second)), tokens.ErrInvalid},
		{"nbf: a string", with("nbf", "1"), tokens.ErrInvalid},
		{"iat: within the leeway", with("iat", at(30*time.Second)), ok},
		{"iat: later", with("iat", at(31*time.Second)), tokens.ErrInvalid},
		{"iat: a list", with("iat", []any{1}), tokens.ErrInvalid},
		{"sub: missing", with("sub", nil), tokens.ErrInvalid},
		{"sub: empty", with("sub", ""), tokens.ErrInvalid},
		{"sub: longest", with("sub", strings.Repeat("a", 255)), ok},
		{"sub: too long", with("sub", strings.Repeat("a", 256)), tokens.ErrInvalid},
		{"sub: a number", with("sub", 1), tokens.ErrInvalid},
		{"sub: an object", with("sub", map[string]any{"$ne": ""}), tokens.ErrInvalid},
		{"sub: a line break", with("sub", "a\nb"), tokens.ErrInvalid},
		{"sub: NUL", with("sub", "a\x00"), tokens.ErrInvalid},
		{"sub: C1 control", with("sub", "a\u0085"), tokens.ErrInvalid},
		{"sub: half a surrogate pair", `{"iss":"` + issuerURL + `","sub":"a\ud800","aud":"other","exp":4000000000}`, tokens.ErrInvalid},
		{"jti: a number", with("jti", 1), tokens.ErrInvalid},
		{"jti: too long", with("jti", strings.Repeat("a", 256)), tokens.ErrInvalid},
		{"not UTF-8", "{\"iss\":\"" + issuerURL + "\",\"sub\":\"a\xff\",\"aud\":\"other\",\"exp\":4000000000}", tokens.ErrInvalid},
		{"sub twice", `{"iss":"` + issuerURL + `","sub":"a","aud":"other","exp":4000000000,"sub":"b"}`, tokens.ErrInvalid},
		{"sub twice, once escaped", `{"iss":"` + issuerURL + `","sub":"a","aud":"other","exp":4000000000,"\u0073ub":"b"}`, tokens.ErrInvalid},
		{"twice further down", `{"iss":"` + issuerURL + `","sub":"a","aud":"other","exp":4000000000,"x":[{"y":1,"y":2}]}`, tokens.ErrInvalid},
		{"nested too deep", `{"iss":"` + issuerURL + `","sub":"a","aud":"other","exp":4000000000,"x":` + strings.Repeat("[", 99) + strings.Repeat("]", 99) + `}`, tokens.ErrInvalid},
		{"more than one value", `{"iss":"` + issuerURL + `","sub":"a","aud":"other","exp":4000000000} {}`, tokens.ErrInvalid},
		{"a list", `[]`, tokens.ErrInvalid},
		{"null", `null`, tokens.ErrInvalid},
		{"no JSON", `{`, tokens.ErrInvalid},
	}
	for _, test := range tests {
		v, err := i.Verify(t.Context(), es(t, test.claims))
		if !errors.Is(err, test.want) || (err == nil) != (test.want == nil) || (v != nil) != (err == nil) {
			t.Errorf("%s: got %v, %v, want %v and no claims with an error", test.name, v, err, test.want)
		}
	}
}

// Who got an ID token at a sign-in has no business with an API.
func TestIDTokensAreRefused(t *testing.T) {
	t.Parallel()
	i, _ := open(t, newEvil(t))
	plain := map[string]any{"alg": "ES256", "kid": "e1", "typ": "JWT"}
	for _, claims := range []map[string]any{with("token_use", "id"), with("at_hash", "x"), with("c_hash", "x"), with("s_hash", "x")} {
		if v, err := i.Verify(t.Context(), sign(t, jwt.SigningMethodES256, material().p256, plain, claims)); v != nil || !errors.Is(err, tokens.ErrInvalid) {
			t.Errorf("%v: got %v, want refusal", claims, err)
		}
		if _, err := i.Verify(t.Context(), es(t, claims)); err != nil {
			t.Errorf("%v: %v, although its type says that it is an access token", claims, err)
		}
	}
}

// Cognito's access tokens have no audience; their client stands for it, and an
// audience that is there all the same still counts.
func TestAudienceClaim(t *testing.T) {
	t.Parallel()
	i, _ := open(t, newEvil(t), func(c *issuers.Config) { c.AudienceClaim, c.Audience = "client_id", []string{"worker"} })
	none, foreign := with("aud", nil), good()
	client := with("aud", nil)
	client["client_id"] = "somebody"
	missing := with("aud", "worker")
	delete(missing, "client_id")
	for _, test := range []struct {
		name   string
		claims map[string]any
		good   bool
	}{
		{"no audience", none, true},
		{"ours", with("aud", "worker"), true},
		{"another audience", foreign, false},
		{"another client", client, false},
		{"an audience and no client", missing, false},
	} {
		if v, err := i.Verify(t.Context(), es(t, test.claims)); (err == nil) != test.good || (v != nil) != test.good {
			t.Errorf("%s: got %v", test.name, err)
		}
	}
}

func TestTokenTypes(t *testing.T) {
	t.Parallel()
	i, _ := open(t, newEvil(t), func(c *issuers.Config) { c.TokenTypes = []string{"at+jwt", "application/at+jwt"} })
	for typ, want := range map[string]bool{
		`,"typ":"at+jwt"`: true, `,"typ":"application/at+jwt"`: true, `,"typ":"JWT"`: false, ``: false, `,"typ":"AT+JWT"`: false,
		`,"typ":"dpop+jwt"`: false, `,"typ":""`: false, `,"typ":["at+jwt"]`: false, `,"typ":null`: false,
	} {
		_, err := i.Verify(t.Context(), sign(t, jwt.SigningMethodES256, material().p256, `{"alg":"ES256","kid":"e1"`+typ+`}`, good()))
		if (err == nil) != want {
			t.Errorf("%s: %v", typ, err)
		}
	}
}

// Times are checked on every use: a remembered token ends like any other.
func TestRememberedTokenExpires(t *testing.T) {
	t.Parallel()
	i, c := open(t, newEvil(t))
	token := es(t, with("exp", epoch.Add(time.Minute).Unix()))
	if _, err := i.Verify(t.Context(), token); err != nil || i.Remembered() != 1 {
		t.Fatalf("%v; %d are remembered", err, i.Remembered())
	}
	c.Move(89 * time.Second)
	if _, err := i.Verify(t.Context(), token); err != nil {
		t.Errorf("within the leeway: %v", err)
	}
	c.Move(time.Second)
	for range 2 {
		if v, err := i.Verify(t.Context(), token); v != nil || !errors.Is(err, tokens.ErrExpired) {
			t.Errorf("after its end: got %v, %v", v, err)
		}
	}
	if i.Remembered() != 0 {
		t.Error("an expired token is still remembered")
	}
	c.Move(-5 * time.Minute) // a clock that was set back does not let it be used early
	if v, err := i.Verify(t.Context(), token); v != nil || !errors.Is(err, tokens.ErrInvalid) {
		t.Errorf("before its issue: got %v, %v", v, err)
	}
}

// A flood of good tokens costs no more memory than the bound.
func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	i, _ := open(t, newEvil(t), func(c *issuers.Config) { c.CacheSize = 32 })
	for n := range 200 {
		claims := with("n", n)
		if _, err := i.Verify(t.Context(), sign(t, jwt.SigningMethodEdDSA, material().ed, map[string]any{"alg": "EdDSA", "kid": "d1"}, claims)); err != nil {
			t.Fatal(err)
		}
	}
	if n := i.Remembered(); n > 32 {
		t.Errorf("%d tokens are remembered, want at most 32", n)
	}
	if _, err := i.Verify(t.Context(), es(t, "{}")); err == nil {
		t.Error("accepted a token without claims")
	}
	if _, err := i.Verify(t.Context(), es(t, "{}")); err == nil {
		t.Error("remembered a token that was refused")
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		edit func(*issuers.Config)
		want string
	}{
		{"no name", func(c *issuers.Config) { c.Name = "" }, "required"},
		{"a name that ends early in ids", func(c *issuers.Config) { c.Name = "a|b" }, "name"},
		{"a long name", func(c *issuers.Config) { c.Name = strings.Repeat("a", 65) }, "name"},
		{"no issuer", func(c *issuers.Config) { c.Issuer = "" }, "required"},
		{"http", func(c *issuers.Config) { c.Issuer = "http://id.example" }, "https"},
		{"http to this machine, not allowed", func(c *issuers.Config) { c.Issuer = "http://127.0.0.1" }, "https"},
		{"http elsewhere, although allowed here", func(c *issuers.Config) { c.Issuer, c.InsecureLoopback = "http://id.example", true }, "https"},
		{"http to a name that begins as this machine's", func(c *issuers.Config) { c.Issuer, c.InsecureLoopback = "http://localhost.evil.example", true }, "https"},
		{"query", func(c *issuers.Config) { c.Issuer = "https://id.example?x" }, "query"},
		{"empty query", func(c *issuers.Config) { c.Issuer = "https://id.example?" }, "query"},
		{"fragment", func(c *issuers.Config) { c.Issuer = "https://id.example#" }, "fragment"},
		{"user", func(c *issuers.Config) { c.Issuer = "https://u:p@id.example" }, "user"},
		{"no host", func(c *issuers.Config) { c.Issuer = "https:///x" }, "absolute"},
		{"no URL", func(c *issuers.Config) { c.Issuer = "https://id.example/%zz" }, "invalid"},
		{"opaque", func(c *issuers.Config) { c.Issuer = "https:id.example" }, "absolute"},
		{"http for the keys", func(c *issuers.Config) { c.JWKSURL = "http://id.example/jwks" }, "https"},
		{"a file for the keys", func(c *issuers.Config) { c.JWKSURL = "file:///etc/passwd" }, "absolute"},
		{"no audience", func(c *issuers.Config) { c.Audience = nil }, "audience"},
		{"an empty audience", func(c *issuers.Config) { c.Audience = []string{""} }, "audience"},
		{"HS256", func(c *issuers.Config) { c.Algorithms = []string{"HS256"} }, "HS256"},
		{"none", func(c *issuers.Config) { c.Algorithms = []string{"none"} }, "none"},
		{"PS256", func(c *issuers.Config) { c.Algorithms = []string{"PS256"} }, "PS256"},
		{"an algorithm twice", func(c *issuers.Config) { c.Algorithms = []string{"RS256", "RS256"} }, "twice"},
		{"leeway", func(c *issuers.Config) { c.Leeway = time.Hour }, "leeway"},
		{"negative leeway", func(c *issuers.Config) { c.Leeway = -1 }, "leeway"},
		{"refresh without a pause", func(c *issuers.Config) { c.MinRefresh = 1 }, "min refresh"},
		{"fresh for days", func(c *issuers.Config) { c.MaxAge = 25 * time.Hour }, "max age"},
		{"stale before it is old", func(c *issuers.Config) { c.MaxStale = time.Minute }, "max stale"},
		{"timeout", func(c *issuers.Config) { c.Timeout = time.Minute }, "timeout"},
		{"size", func(c *issuers.Config) { c.MaxSize = 1 << 30 }, "max size"},
		{"mapping", func(c *issuers.Config) { c.M2M.MachineClaim = "gty" }, "machine_claim"},
	}
	for _, test := range tests {
		config := issuers.Config{Name: "corp", Issuer: issuerURL, Audience: []string{audience}}
		if i, err := issuers.New(config); err != nil || i.Name() != "corp" || i.Close(t.Context()) != nil {
			t.Fatal(err)
		}
		test.edit(&config)
		if i, err := issuers.New(config); i != nil || err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "u:p") {
			t.Errorf("%s: got %v, want an error about %q", test.name, err, test.want)
		}
	}
}
