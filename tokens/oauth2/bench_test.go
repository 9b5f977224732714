package oauth2_test

import (
	"testing"

	"github.com/mandate-auth/mandate/tokens/oauth2"
)

// BenchmarkAuthenticateRemembered is a client's part of a request to the token
// endpoint: form, Basic, secret and scopes.
func BenchmarkAuthenticateRemembered(b *testing.B) {
	s := setup(b, with(func(c *oauth2.Config) { c.Now = nil }))
	c := s.create(b, "worker", "read", "write")
	header, ctx := basic(c.ID+":"+c.Secret), b.Context()
	b.Run("secret", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Authenticate(ctx, c.ID, c.Secret); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("request", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r, err := oauth2.ParseTokenRequest("grant_type=client_credentials&scope=read")
			if err != nil {
				b.Fatal(err)
			}
			id, secret, err := r.Credentials(header)
			if err != nil {
				b.Fatal(err)
			}
			client, err := s.Authenticate(ctx, id, secret)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := oauth2.GrantScopes(client, r.Scope); err != nil {
				b.Fatal(err)
			}
		}
	})
}
