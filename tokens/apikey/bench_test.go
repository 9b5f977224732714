package apikey_test

import (
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/mandate-auth/mandate/tokens/apikey"
)

// BenchmarkVerifyRemembered is a key that comes again, beside what it is compared
// with: golang-jwt's Parse of an access token of the usual size.
func BenchmarkVerifyRemembered(b *testing.B) {
	b.Run("key", func(b *testing.B) {
		s := setup(b, with(func(c *apikey.Config) { c.Now = nil }))
		key := s.create(b).Key
		ctx := b.Context()
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Verify(ctx, key); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("jwt", func(b *testing.B) {
		secret := []byte("0123456789abcdef0123456789abcdef")
		now := time.Now()
		text, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
			"iss": "https://shop.example/auth", "aud": "shop", "client_id": "shop", "sub": "usr_0123456789abcdefghjkmnpqrs",
			"sub_type": "human", "sid": "ses_0123456789abcdefghjkmnpqrs", "epoch": 1, "jti": "tok_0123456789abcdefghjkmnpqrs",
			"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "auth_time": now.Unix(),
		}).SignedString(secret)
		if err != nil {
			b.Fatal(err)
		}
		parser := jwt.NewParser(jwt.WithValidMethods([]string{"HS256"}))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := parser.Parse(text, func(*jwt.Token) (any, error) { return secret, nil }); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkGarbage is what a text costs that is no key.
func BenchmarkGarbage(b *testing.B) {
	s := setup(b)
	text := forge("mdk", "x")
	text = text[:len(text)-1] + "!"
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Verify(b.Context(), text); err == nil {
			b.Fatal("accepted")
		}
	}
}
