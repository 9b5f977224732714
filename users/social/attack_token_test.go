package social_test

import (
	"crypto/x509"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/mandate-auth/mandate/users/social"
	"github.com/mandate-auth/mandate/users/social/socialtest"
)

// claim changes one claim; nil takes it away.
func claim(name string, value any) func(*testing.T, *env) {
	return func(_ *testing.T, e *env) {
		e.provider.ChangeClaims(func(claims map[string]any) {
			if claims[name] = value; value == nil {
				delete(claims, name)
			}
		})
	}
}

// member adds a member to the header.
func member(name string, value any) func(*testing.T, *env) {
	return func(_ *testing.T, e *env) {
		e.provider.ChangeHeader(func(h map[string]any) {
			if h[name] = value; value == nil {
				delete(h, name)
			}
		})
	}
}

// resigned signs the claims anew with RSA's key in the set, by another method.
func resigned(method jwt.SigningMethod, algorithm string, key func(*env) any) func(*testing.T, *env) {
	return func(_ *testing.T, e *env) {
		k := rsaKey()
		k.More = map[string]any{"alg": algorithm}
		e.provider.SetKeys(k)
		e.provider.ChangeIDToken(func(token string) string {
			return socialtest.SignWith(method, key(e), map[string]any{"alg": algorithm, "kid": "r1", "typ": "JWT"}, payload(token))
		})
		e.provider.Change(socialtest.Discovery, edit("id_token_signing_alg_values_supported", []string{"RS256", "HS256", "PS256", "none", algorithm}))
	}
}

// ID tokens that must not sign anybody in. Each is signed by the provider but for what
// the row says.
func TestHostileIDTokens(t *testing.T) {
	t.Parallel()
	at := func(d time.Duration) int64 { return epoch.Add(d).Unix() }
	publicDER := func(*env) any {
		der, err := x509.MarshalPKIXPublicKey(rsaKey().Private.Public())
		if err != nil {
			panic(err)
		}
		return der
	}
	tests := []struct {
		name    string
		arrange func(*testing.T, *env)
	}{
		{"issuer of another", claim("iss", "https://evil.example")},
		{"issuer with a slash", func(t *testing.T, e *env) { claim("iss", e.provider.URL+"/")(t, e) }},
		{"issuer missing", claim("iss", nil)},
		{"issuer as a list", func(t *testing.T, e *env) { claim("iss", []string{e.provider.URL})(t, e) }},
		{"audience of another client", claim("aud", "other")},
		{"audience missing", claim("aud", nil)},
		{"audience empty", claim("aud", "")},
		{"audience an empty list", claim("aud", []string{})},
		{"audience a number", claim("aud", 7)},
		{"audience an object", claim("aud", map[string]any{"client": true})},
		{"audience a list of lists", claim("aud", []any{[]string{"client"}})},
		{"audience with a number", claim("aud", []any{"client", 7})},
		{"audience in capitals", claim("aud", "CLIENT")},
		{"several audiences without azp", claim("aud", []string{"client", "other"})},
		{"azp of another", claim("azp", "other")},
		{"azp empty", claim("azp", "")},
		{"azp null", claim("azp", json.RawMessage("null"))},
		{"azp a list", claim("azp", []string{"client"})},
		{"nonce missing", claim("nonce", nil)},
		{"nonce wrong", claim("nonce", strings.Repeat("A", 43))},
		{"nonce empty", claim("nonce", "")},
		{"nonce a number", claim("nonce", 7)},
		{"expired", claim("exp", at(-time.Second))},
		{"expires now", claim("exp", at(0))},
		{"exp missing", claim("exp", nil)},
		{"exp null", claim("exp", json.RawMessage("null"))},
		{"exp a text", claim("exp", "99999999999")},
		{"exp zero", claim("exp", 0)},
		{"exp negative", claim("exp", -1)},
		{"exp beyond dates", claim("exp", json.RawMessage("1e30"))},
		{"iat in the future", claim("iat", at(2*time.Minute))},
		{"iat before the sign-in", claim("iat", at(-2*time.Minute))},
		{"iat ancient", claim("iat", 1)},
		{"iat missing", claim("iat", nil)},
		{"iat a text", claim("iat", "1772366400")},
		{"nbf in the future", claim("nbf", at(2*time.Minute))},
		{"nbf within what the library allows", claim("nbf", at(3*time.Minute))},
		{"nbf a text", claim("nbf", "1")},
		{"nbf null", claim("nbf", json.RawMessage("null"))},
		{"sub missing", claim("sub", nil)},
		{"sub empty", claim("sub", "")},
		{"sub a number", claim("sub", 7)},
		{"sub of 256 bytes", claim("sub", strings.Repeat("s", 256))},
		{"sub with a line", claim("sub", "alice\n1")},
		{"sub half a pair", claim("sub", json.RawMessage(`"\ud800"`))},
		{"SUB for sub", func(_ *testing.T, e *env) {
			e.provider.ChangeClaims(func(c map[string]any) { c["SUB"] = c["sub"]; delete(c, "sub") })
		}},
		{"ISS for iss", func(_ *testing.T, e *env) {
			e.provider.ChangeClaims(func(c map[string]any) { c["ISS"] = c["iss"]; delete(c, "iss") })
		}},
		{"NONCE for nonce", func(_ *testing.T, e *env) {
			e.provider.ChangeClaims(func(c map[string]any) { c["NONCE"] = c["nonce"]; delete(c, "nonce") })
		}},
		{"at_hash wrong", claim("at_hash", socialtest.AccessTokenHash("EdDSA", "another token"))},
		{"at_hash empty", claim("at_hash", "")},
		{"at_hash null", claim("at_hash", json.RawMessage("null"))},
		{"at_hash by another hash", func(_ *testing.T, e *env) {
			e.provider.ChangeClaims(func(c map[string]any) { c["at_hash"] = c["at_hash"].(string)[:22] })
		}},
		{"sub twice", twice(`"sub":"alice-1"`)},
		{"sub twice, first of another", twice(`"sub":"root"`)},
		{"nonce twice", twice(`"nonce":"x"`)},
		{"a name twice, deeper", twice(`"x":{"a":1,"a":2}`)},
		{"claims that end early", rewritten(func(good string) string { return good[:len(good)-1] })},
		{"claims and more", rewritten(func(good string) string { return good + "{}" })},
		{"claims a list", rewritten(func(good string) string { return "[" + good + "]" })},
		{"claims no UTF-8", rewritten(func(good string) string { return strings.Replace(good, "alice-1", "alice-\xff", 1) })},

		{"alg none", unsigned("none")},
		{"alg nOnE", unsigned("nOnE")},
		{"alg none with a signature", resigned(jwt.SigningMethodRS256, "none", func(*env) any { return rsaKey().Private })},
		{"HS256 with the public key", resigned(jwt.SigningMethodHS256, "HS256", publicDER)},
		{"HS256 with the client's secret", resigned(jwt.SigningMethodHS256, "HS256", func(e *env) any { return []byte(e.provider.ClientSecret) })},
		{"PS256", resigned(jwt.SigningMethodPS256, "PS256", func(*env) any { return rsaKey().Private })},
		{"PS256 that says RS256", resigned(jwt.SigningMethodPS256, "RS256", func(*env) any { return rsaKey().Private })},
		{"RS384 with a key of RS256", func(t *testing.T, e *env) {
			resigned(jwt.SigningMethodRS384, "RS384", func(*env) any { return rsaKey().Private })(t, e)
			e.provider.SetKeys(rsaKey())
		}},
		{"alg missing", member("alg", nil)},
		{"alg in small letters", member("alg", "eddsa")},
		{"signature of another key", func(t *testing.T, e *env) {
			other := socialtest.NewKey(t, "EdDSA", "k1")
			e.provider.ChangeIDToken(func(token string) string {
				return other.Sign(map[string]any{"alg": "EdDSA", "kid": "k1"}, payload(token))
			})
		}},
		{"signature cut", changed(func(token string) string { return token[:len(token)-4] })},
		{"signature empty", changed(func(token string) string { return token[:strings.LastIndex(token, ".")+1] })},
		{"stray bits in the signature", changed(func(token string) string { return token[:len(token)-1] + string(token[len(token)-1]^1) })},
		{"claims of another token", changed(func(token string) string {
			parts := strings.Split(token, ".")
			return parts[0] + "." + parts[0] + "." + parts[2]
		})},
		{"four segments", changed(func(token string) string { return token + ".AA" })},
		{"five segments", changed(func(token string) string { return token + ".AA.AA" })},
		{"line break", changed(func(token string) string { return token[:10] + "\n" + token[10:] })},
		{"padding", changed(func(token string) string { return token + "==" })},
		{"JSON serialization", changed(func(token string) string {
			parts := strings.Split(token, ".")
			return `{"protected":"` + parts[0] + `","payload":"` + parts[1] + `","signature":"` + parts[2] + `"}`
		})},
		{"long", changed(func(token string) string { return strings.Repeat(".", 16<<10+1) + token })},

		{"kid unknown", member("kid", "k9")},
		{"kid of another key", func(t *testing.T, e *env) {
			e.provider.SetKeys(e.provider.Key(), socialtest.NewKey(t, "EdDSA", "k2"))
			member("kid", "k2")(t, e)
		}},
		{"kid of two keys", func(t *testing.T, e *env) {
			e.provider.SetKeys(e.provider.Key(), socialtest.NewKey(t, "EdDSA", "k1"))
		}},
		{"no kid and two keys", func(t *testing.T, e *env) {
			e.provider.SetKeys(e.provider.Key(), socialtest.NewKey(t, "EdDSA", "k2"))
			member("kid", nil)(t, e)
		}},
		{"kid a number", member("kid", 1)},
		{"key for encryption", func(_ *testing.T, e *env) {
			k := e.provider.Key()
			k.More = map[string]any{"use": "enc"}
			e.provider.SetKeys(k)
		}},
		{"key that is public and private", func(_ *testing.T, e *env) {
			k := e.provider.Key()
			k.More = map[string]any{"d": "AAAA"}
			e.provider.SetKeys(k)
		}},
		{"jwk", func(t *testing.T, e *env) {
			own := socialtest.NewKey(t, "EdDSA", "own")
			e.provider.ChangeIDToken(func(token string) string {
				return own.Sign(map[string]any{"alg": "EdDSA", "kid": "own", "jwk": own.Public()}, payload(token))
			})
		}},
		{"jku", func(t *testing.T, e *env) { member("jku", e.provider.URL+"/evil")(t, e) }},
		{"x5u", func(t *testing.T, e *env) { member("x5u", e.provider.URL+"/evil")(t, e) }},
		{"x5c", member("x5c", []string{"AAAA"})},
		{"crit", member("crit", []string{"exp"})},
		{"b64", member("b64", false)},
		{"zip", member("zip", "DEF")},
		{"typ of an access token", member("typ", "at+jwt")},
		{"typ of a logout token", member("typ", "logout+jwt")},
		{"typ a number", member("typ", 1)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e := setup(t)
			test.arrange(t, e)
			r, err := e.signIn(t)
			refusedIDToken(t, r, err)
			if e.provider.Calls("/evil") != 0 {
				t.Error("the token decides who is called")
			}
			if e.provider.Calls(socialtest.UserInfo) != 0 {
				t.Error("the access token of a refused sign-in is used")
			}
		})
	}
	t.Logf("%d rows", len(tests))
}

// An algorithm that is not accepted must not even make the service look for a key.
func TestUnacceptedAlgorithmsCallNobody(t *testing.T) {
	t.Parallel()
	e := setup(t)
	e.provider.ChangeHeader(func(h map[string]any) { h["alg"], h["kid"] = "HS256", "k9" })
	r, err := e.signIn(t)
	refused(t, r, err, social.ErrProvider, "id_token")
	if got := e.provider.Calls(socialtest.JWKS); got != 0 {
		t.Errorf("%d fetches", got)
	}
}

// refusedIDToken accepts that a text which is no token at all is refused with the
// answer that it is in.
func refusedIDToken(t *testing.T, r *social.Result, err error) {
	t.Helper()
	if r == nil && err != nil && strings.HasSuffix(err.Error(), "(token_endpoint)") {
		refused(t, r, err, social.ErrProvider, "token_endpoint")
		return
	}
	refused(t, r, err, social.ErrProvider, "id_token")
}

// changed changes the text of the token.
func changed(f func(string) string) func(*testing.T, *env) {
	return func(_ *testing.T, e *env) { e.provider.ChangeIDToken(f) }
}

// rewritten changes the text of the claims and signs it with the provider's key.
func rewritten(f func(string) string) func(*testing.T, *env) {
	return func(_ *testing.T, e *env) {
		k := e.provider.Key()
		e.provider.ChangeIDToken(func(token string) string {
			return k.Sign(map[string]any{"alg": k.Algorithm, "kid": k.ID}, json.RawMessage(f(string(payload(token)))))
		})
	}
}

// twice puts a member before all others.
func twice(text string) func(*testing.T, *env) {
	return rewritten(func(good string) string { return "{" + text + "," + good[1:] })
}

// unsigned takes the signature away.
func unsigned(algorithm string) func(*testing.T, *env) {
	return changed(func(token string) string {
		token = socialtest.SignWith(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, map[string]any{"alg": algorithm}, payload(token))
		return token + "AA"
	})
}

// What the standard allows must sign in: a refusal of everything would pass the rows
// above.
func TestGoodIDTokens(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		arrange func(*testing.T, *env)
	}{
		{"ES256", func(_ *testing.T, e *env) { e.provider.SetKeys(ecKey()) }},
		{"RS256", func(_ *testing.T, e *env) { e.provider.SetKeys(rsaKey()) }},
		{"no kid and one key", member("kid", nil)},
		{"no typ", member("typ", nil)},
		{"typ in small letters", member("typ", "jwt")},
		{"a thumbprint of a certificate", member("x5t", "AAAA")},
		{"a list of one audience", claim("aud", []string{"client"})},
		{"several audiences with azp", func(_ *testing.T, e *env) {
			e.provider.ChangeClaims(func(c map[string]any) { c["aud"], c["azp"] = []string{"other", "client"}, "client" })
		}},
		{"no at_hash", claim("at_hash", nil)},
		{"a clock that is ahead", claim("iat", epoch.Add(time.Minute).Unix())},
		{"a clock that is behind", claim("iat", epoch.Add(-time.Minute).Unix())},
		{"nbf", claim("nbf", epoch.Unix())},
		{"fractions", claim("iat", json.RawMessage("1772366400.5"))},
		{"SUB beside sub", claim("SUB", "root")},
		{"rewritten as it was", rewritten(func(good string) string { return good })},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e := setup(t)
			test.arrange(t, e)
			if r := e.mustSignIn(t); r.Info.Subject != "alice-1" || r.Issuer != e.provider.URL {
				t.Errorf("got %+v", r)
			}
		})
	}
}
