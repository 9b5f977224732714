package issuers_test

import (
	"fmt"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/mandate-auth/mandate/tokens/issuers"
)

// BenchmarkJWTParse is what the others are compared with: golang-jwt alone on an
// HS256 token of the same claims.
func BenchmarkJWTParse(b *testing.B) {
	c := &clock{}
	key := make([]byte, 32)
	token := sign(b, jwt.SigningMethodHS256, key, map[string]any{"alg": "HS256", "kid": "e1", "typ": "at+jwt"}, good())
	parser := jwt.NewParser(jwt.WithTimeFunc(c.Now), jwt.WithValidMethods([]string{"HS256"}))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parser.Parse(token, func(*jwt.Token) (any, error) { return key, nil }); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkVerifyCached is a token that was verified before, chosen among three
// issuers.
func BenchmarkVerifyCached(b *testing.B) {
	e := newEvil(b)
	x, _ := open(b, e, named("x", "https://x.example"))
	y, _ := open(b, e, named("y", "https://y.example"))
	i, _ := open(b, e)
	set, token, ctx := newSet(b, x, y, i), es(b, good()), b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := set.Verify(ctx, token); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkVerifyNew is a token that was not seen before.
func BenchmarkVerifyNew(b *testing.B) {
	m := material()
	keys := map[string]struct {
		method jwt.SigningMethod
		key    any
		kid    string
	}{
		"RS256": {jwt.SigningMethodRS256, m.rsa, "r1"}, "ES256": {jwt.SigningMethodES256, m.p256, "e1"}, "EdDSA": {jwt.SigningMethodEdDSA, m.ed, "d1"},
	}
	for name, k := range keys {
		b.Run(name, func(b *testing.B) {
			i, _ := open(b, newEvil(b), func(c *issuers.Config) { c.CacheSize = 1 })
			// Tokens that cannot all be remembered: each is new again.
			list := make([]string, 128)
			for n := range list {
				list[n] = sign(b, k.method, k.key, map[string]any{"alg": name, "kid": k.kid}, with("jti", fmt.Sprint("t", n)))
			}
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				n++
				if _, err := i.Verify(b.Context(), list[n%len(list)]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRefused is a token of an unknown key: what an attacker can send.
func BenchmarkRefused(b *testing.B) {
	i, _ := open(b, newEvil(b))
	token := esBy(b, material().p256, "unknown")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := i.Verify(b.Context(), token); err == nil {
			b.Fatal("accepted")
		}
	}
}
