package tokens_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/keys"
)

// BenchmarkJWTParse is what P1 and P2 are compared with: golang-jwt alone on
// the same token.
func BenchmarkJWTParse(b *testing.B) {
	s, c := setup(b)
	text := issue(b, s, grant)
	key := appKeys(b, "shop", "s").Newest(keys.Access).Bytes()
	parser := jwt.NewParser(jwt.WithTimeFunc(c.Now), jwt.WithValidMethods([]string{"HS256"}))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parser.Parse(text, func(*jwt.Token) (any, error) { return key, nil }); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkVerifyCached is the token's part of P1.
func BenchmarkVerifyCached(b *testing.B) {
	s, _ := setup(b, func(c *tokens.Config) { c.Now = nil })
	g := grant
	g.AuthTime = time.Now()
	text := issue(b, s, g)
	f, err := tokens.NewFeed(b.Context(), storetest.Database(b).Collection("token_blacklist"), tokens.FeedConfig{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close(b.Context())
	list, err := f.App(tokens.BlacklistConfig{App: "shop"})
	if err != nil {
		b.Fatal(err)
	}
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		v, err := s.Verify(text)
		if err != nil {
			b.Fatal(err)
		}
		if err := list.Check(ctx, v); err != nil {
			b.Fatal(err)
		}
		if v.Principal(authz.CredentialBearer).ID == "" {
			b.Fatal("no principal")
		}
	}
}

// BenchmarkVerifyNew is P2: a token that was not seen before.
func BenchmarkVerifyNew(b *testing.B) {
	s, c := setup(b, func(config *tokens.Config) { config.CacheSize = 1 })
	// Tokens that cannot all be remembered: each is new again.
	texts := make([]string, 512)
	for i := range texts {
		texts[i] = issue(b, s, grant)
	}
	_ = c
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		if _, err := s.Verify(texts[i%len(texts)]); err != nil {
			b.Fatal(err)
		}
	}
}
