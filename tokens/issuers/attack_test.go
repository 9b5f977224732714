package issuers_test

import (
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/issuers"
)

// refuse fails if the token is accepted, or if anything comes with the error.
func refuse(t *testing.T, i *issuers.Issuer, name, token string) {
	t.Helper()
	v, err := i.Verify(t.Context(), token)
	if v != nil || (!errors.Is(err, tokens.ErrInvalid) && !errors.Is(err, tokens.ErrMalformed)) {
		t.Errorf("%s: got %v, %v, want refusal", name, v, err)
	}
}

// CVE-2015-9235: the token must not choose not to be signed.
func TestNone(t *testing.T) {
	t.Parallel()
	e := newEvil(t)
	i, _ := open(t, e)
	claims, signature := encode(t, good()), segmentsOf(es(t, good()))[2]
	for _, name := range []string{"none", "None", "NONE", "nOnE", "none ", "", "\u0000", "es256", "ES256 "} {
		head := encode(t, map[string]any{"alg": name, "kid": "e1", "typ": "at+jwt"})
		for _, end := range []string{".", "." + signature, "", ".AA"} {
			refuse(t, i, name, head+"."+claims+end)
		}
	}
	for _, head := range []string{
		`{"kid":"e1"}`, `{"alg":null,"kid":"e1"}`, `{"alg":["ES256"],"kid":"e1"}`, `{"alg":1,"kid":"e1"}`, `{"Alg":"ES256","kid":"e1"}`, `[]`, `null`, `""`, `{`, `{}`,
		`{"alg":"ES256","kid":"e1"}{}`, "\xff", `{"alg":"ES256","kid":"e1",}`,
	} {
		refuse(t, i, head, sign(t, jwt.SigningMethodES256, material().p256, head, good()))
	}
	if n := e.count("/jwks"); n != 0 {
		t.Errorf("%d fetches because of algorithms that are not accepted", n)
	}
}

// What everybody knows of the issuer must not do as a secret.
func TestPublicKeyAsSecret(t *testing.T) {
	t.Parallel()
	e := newEvil(t)
	i, _ := open(t, e)
	der, err := x509.MarshalPKIXPublicKey(&material().rsa.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	pkcs1 := x509.MarshalPKCS1PublicKey(&material().rsa.PublicKey)
	key, err := json.Marshal(jwk(t, "r1", material().rsa, nil))
	if err != nil {
		t.Fatal(err)
	}
	secrets := map[string][]byte{
		"DER": der, "PKCS #1": pkcs1, "JWK": key, "JWK Set": jwks(t, jwk(t, "r1", material().rsa, nil)), "modulus": material().rsa.N.Bytes(),
		"PEM":              pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}),
		"PEM of PKCS #1":   pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: pkcs1}),
		"PEM without end":  []byte(strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))),
		"base64 of n":      []byte(b64(material().rsa.N.Bytes())),
		"nothing":          {},
		"one byte of zero": {0},
	}
	for name, secret := range secrets {
		for _, method := range []*jwt.SigningMethodHMAC{jwt.SigningMethodHS256, jwt.SigningMethodHS384, jwt.SigningMethodHS512} {
			for _, alg := range []string{method.Alg(), "RS256"} {
				refuse(t, i, name, sign(t, method, secret, map[string]any{"alg": alg, "kid": "r1", "typ": "at+jwt"}, good()))
			}
		}
	}
}

// A key is used with one algorithm: whichever a token claims, only the one of the key
// that its kid names is good (RFC 8725 section 3.1).
func TestKeyConfusion(t *testing.T) {
	t.Parallel()
	m, e := material(), newEvil(t)
	all := []string{"RS256", "RS384", "RS512", "ES256", "ES384", "EdDSA"}
	keys := map[string]crypto.Signer{"r1": m.rsa, "r2": m.otherRSA, "e1": m.p256, "e2": m.otherP256, "e3": m.p384, "d1": m.ed}
	right := map[string]string{"r1": "RS256", "r2": "RS384", "e1": "ES256", "e2": "ES256", "e3": "ES384", "d1": "EdDSA"}
	e.serve("/jwks", jwks(t, jwk(t, "r1", m.rsa, nil), jwk(t, "r2", m.otherRSA, map[string]any{"alg": "RS384"}), jwk(t, "e1", m.p256, nil),
		jwk(t, "e2", m.otherP256, nil), jwk(t, "e3", m.p384, nil), jwk(t, "d1", m.ed, nil)))
	i, _ := open(t, e, func(c *issuers.Config) { c.Algorithms = all })
	accepted := 0
	for signer, key := range keys {
		for _, method := range all {
			for kid := range keys {
				for _, alg := range all {
					head := map[string]any{"alg": alg, "kid": kid, "typ": "at+jwt"}
					signed := encode(t, head) + "." + encode(t, good())
					signature, err := jwt.GetSigningMethod(method).Sign(signed, key)
					if err != nil {
						continue // the key cannot sign like that
					}
					v, err := i.Verify(t.Context(), signed+"."+b64(signature))
					want := signer == kid && method == right[kid] && alg == right[kid]
					if (v != nil) != want || (err == nil) != want {
						t.Errorf("signed by %s with %s, says %s and %s: %v, want accepted: %t", signer, method, kid, alg, err, want)
					}
					if err == nil {
						accepted++
					}
				}
			}
		}
	}
	if accepted != len(keys) {
		t.Errorf("%d combinations are accepted, want one for each of %d keys", accepted, len(keys))
	}
}

// CVE-2018-0114: a token must not bring its key, nor say where it is; nobody is
// called because of it.
func TestKeysOfTheToken(t *testing.T) {
	t.Parallel()
	e := newEvil(t)
	var calls atomic.Int32
	evilKeys := jwks(t, jwk(t, "e1", material().otherP256, nil))
	e.handle("/evil", func(w http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		_, _ = w.Write(evilKeys)
	})
	i, _ := open(t, e)
	own := jwk(t, "e1", material().otherP256, nil)
	for _, kid := range []string{"e1", "x1", ""} {
		for name, value := range map[string]any{
			"jwk": own, "jku": e.server.URL + "/evil", "x5u": e.server.URL + "/evil", "x5c": []any{"AA=="}, "crit": []any{"exp"}, "b64": false, "zip": "DEF",
			"cty": "JWT", "enc": "A128GCM", "epk": own, "p2c": 1 << 30, "url": e.server.URL + "/evil", "JKU": "x", "x5t": 1, "unknown": "x",
		} {
			head := map[string]any{"alg": "ES256", "typ": "at+jwt", name: value}
			if kid != "" {
				head["kid"] = kid
			}
			refuse(t, i, name, sign(t, jwt.SigningMethodES256, material().otherP256, head, good()))
			// Nor is a good signature an excuse.
			refuse(t, i, name, sign(t, jwt.SigningMethodES256, material().p256, head, good()))
		}
	}
	if calls.Load() != 0 {
		t.Errorf("%d calls to where a token said", calls.Load())
	}
	if e.count("/jwks") != 0 {
		t.Errorf("%d fetches for tokens that are refused by their header", e.count("/jwks"))
	}
}

// The id of a key is what an attacker writes; it is compared and nothing else.
func TestHostileKeyIDs(t *testing.T) {
	t.Parallel()
	e := newEvil(t)
	i, _ := open(t, e)
	for _, kid := range []any{
		"../../dev/null", "/dev/null", "e1' OR '1'='1",
		map[string]any{"$ne": ""},
		[]any{"e1"},
		1, nil, true, "", "E1", "e1\x00", "e1 ", " e1", "é1", "r1", "d1",
		strings.Repeat("e", 256), e.server.URL + "/evil", "*", "e\u0031\u200b",
	} {
		refuse(t, i, "kid", sign(t, jwt.SigningMethodES256, material().p256, map[string]any{"alg": "ES256", "kid": kid, "typ": "at+jwt"}, good()))
	}
	if n := e.count("/jwks"); n != 1 {
		t.Errorf("%d fetches, want the first one only", n)
	}
}

func TestMembersTwice(t *testing.T) {
	t.Parallel()
	i, _ := open(t, newEvil(t))
	for _, head := range []string{
		`{"alg":"ES256","kid":"e1","typ":"at+jwt","alg":"ES256"}`, `{"alg":"none","kid":"e1","typ":"at+jwt","alg":"ES256"}`,
		`{"alg":"ES256","kid":"x","kid":"e1"}`, `{"alg":"ES256","kid":"e1","\u006bid":"e1"}`, `{"alg":"ES256","kid":"e1","typ":"JWT","typ":"JWT"}`,
	} {
		refuse(t, i, head, sign(t, jwt.SigningMethodES256, material().p256, head, good()))
	}
}

// One bit, one byte more, one less: the token is another one, and nobody signed it.
func TestEveryChange(t *testing.T) {
	t.Parallel()
	i, _ := open(t, newEvil(t))
	m := material()
	for _, token := range []string{
		es(t, good()), sign(t, jwt.SigningMethodEdDSA, m.ed, map[string]any{"alg": "EdDSA", "kid": "d1"}, good()),
		sign(t, jwt.SigningMethodRS256, m.rsa, map[string]any{"alg": "RS256", "kid": "r1"}, good()),
	} {
		if _, err := i.Verify(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		for n := range len(token) {
			refuse(t, i, "prefix", token[:n])
			for bit := range 8 {
				changed := []byte(token)
				changed[n] ^= 1 << bit
				refuse(t, i, "bit", string(changed))
			}
		}
		for _, more := range []string{"A", "=", "==", ".", "\n", "\r\n", " ", "\x00", ".AA"} {
			refuse(t, i, "suffix", token+more)
			refuse(t, i, "prefix", more+token)
			for _, part := range []int{0, 1, 2} {
				parts := segmentsOf(token)
				parts[part] += more
				refuse(t, i, "inside", strings.Join(parts, "."))
			}
		}
		parts := segmentsOf(token)
		refuse(t, i, "five segments", token+".AA.AA")
		refuse(t, i, "swapped", parts[1]+"."+parts[0]+"."+parts[2])
		refuse(t, i, "padded", parts[0]+"."+padded(t, parts[1])+"."+parts[2])
	}
	refuse(t, i, "two signatures", es(t, good())+segmentsOf(es(t, good()))[2])
}

func padded(t *testing.T, segment string) string {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(segment)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(append(raw, ' ', ' ')[:len(raw)+1])
}

// CVE-2022-21449: zero is on no curve's signature.
func TestDegenerateSignatures(t *testing.T) {
	t.Parallel()
	i, _ := open(t, newEvil(t))
	for _, alg := range []struct{ name, kid string }{{"ES256", "e1"}, {"EdDSA", "d1"}, {"RS256", "r1"}} {
		signed := encode(t, map[string]any{"alg": alg.name, "kid": alg.kid, "typ": "at+jwt"}) + "." + encode(t, good())
		for _, size := range []int{1, 32, 63, 64, 65, 96, 128, 256, 512} {
			for _, fill := range []byte{0, 1, 0xff} {
				refuse(t, i, alg.name, signed+"."+b64([]byte(strings.Repeat(string([]byte{fill}), size))))
			}
		}
		order, half := material().p256.Params().N.Bytes(), make([]byte, 32)
		half[31] = 1
		for _, r := range [][]byte{order, half} {
			for _, s := range [][]byte{order, half, make([]byte, 32)} {
				refuse(t, i, alg.name, signed+"."+b64(append(append([]byte{}, r...), s...)))
			}
		}
	}
}

// CVE-2025-30204: what an attacker sends must not cost a multiple of its length. Not
// parallel: what is allocated is counted.
func TestLongTokensCostNothing(t *testing.T) {
	i, _ := open(t, newEvil(t))
	set, err := issuers.NewSet(i)
	if err != nil {
		t.Fatal(err)
	}
	dots, long := strings.Repeat(".", 1<<20), es(t, with("x", strings.Repeat("a", 8<<10)))
	for _, token := range []string{dots, dots[:8000], long, strings.Repeat("A", 1<<20), "", "."} {
		refuse(t, i, "long", token)
		if _, owned := set.Owns(token); owned {
			t.Error("owned")
		}
	}
	const runs = 100
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		_, _ = i.Verify(t.Context(), dots)
		_, _ = i.Verify(t.Context(), dots[:8000])
		_, _ = set.Owns(dots)
		_, _ = set.Owns(dots[:8000])
	}
	runtime.ReadMemStats(&after)
	if n := (after.TotalAlloc - before.TotalAlloc) / runs; n > 4096 {
		t.Errorf("%d bytes are allocated for a megabyte of dots", n)
	}
}
