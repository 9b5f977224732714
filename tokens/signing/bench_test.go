package signing_test

import (
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/signing"
)

var algorithms = []string{tokens.EdDSA, tokens.ES256, tokens.RS256}

func BenchmarkSign(b *testing.B) {
	for _, algorithm := range algorithms {
		b.Run(algorithm, func(b *testing.B) {
			s := setup(b).loaded(b, func(c *signing.Config) { c.Algorithm = algorithm })
			b.ReportAllocs()
			for b.Loop() {
				sign(b, s.Current().Signing)
			}
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	for _, algorithm := range algorithms {
		b.Run(algorithm, func(b *testing.B) {
			s := setup(b).loaded(b, func(c *signing.Config) { c.Algorithm = algorithm })
			key := s.Current().Signing
			token := sign(b, key)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := jwt.Parse(token, func(*jwt.Token) (any, error) { return key.Public, nil }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkIdleLoad is what an instance does once a minute and app.
func BenchmarkIdleLoad(b *testing.B) {
	s := setup(b).loaded(b)
	b.ReportAllocs()
	for b.Loop() {
		load(b, s)
	}
}

func BenchmarkCurrent(b *testing.B) {
	s := setup(b).loaded(b)
	b.ReportAllocs()
	for b.Loop() {
		if s.Current().Signing.Private == nil {
			b.Fatal("no key")
		}
	}
}
