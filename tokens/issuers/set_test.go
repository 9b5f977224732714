package issuers_test

import (
	"errors"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/issuers"
)

func newSet(tb testing.TB, list ...*issuers.Issuer) *issuers.Set {
	tb.Helper()
	s, err := issuers.NewSet(list...)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func named(name, url string) func(*issuers.Config) {
	return func(c *issuers.Config) { c.Name, c.Issuer = name, url }
}

// A token is verified with the keys of the issuer that it names, and with no other's
// (RFC 8725 section 3.8).
func TestSet(t *testing.T) {
	t.Parallel()
	m, one, two := material(), newEvil(t), newEvil(t)
	one.serve("/jwks", jwks(t, jwk(t, "k", m.p256, nil)))
	two.serve("/jwks", jwks(t, jwk(t, "k", m.otherP256, nil)))
	a, _ := open(t, one, named("a", "https://a.example"))
	b, _ := open(t, two, named("b", "https://b.example"))
	set := newSet(t, a, b)
	for _, key := range []string{"a", "b"} {
		for _, iss := range []string{"https://a.example", "https://b.example", "https://c.example", "https://a.example/"} {
			private := map[string]any{"a": m.p256, "b": m.otherP256}[key]
			token := sign(t, jwt.SigningMethodES256, private, map[string]any{"alg": "ES256", "kid": "k"}, with("iss", iss))
			for range 2 {
				v, err := set.Verify(t.Context(), token)
				if want := iss == "https://"+key+".example"; (err == nil) != want || (v != nil) != want || (want && (v.IssuerName() != key || v.Issuer() != iss)) {
					t.Errorf("key of %s, iss %s: %v", key, iss, err)
				}
				if err != nil && !errors.Is(err, tokens.ErrInvalid) {
					t.Errorf("key of %s, iss %s: %v", key, iss, err)
				}
			}
		}
	}
}

func TestOwns(t *testing.T) {
	t.Parallel()
	e := newEvil(t)
	a, _ := open(t, e, named("a", "https://a.example"))
	b, _ := open(t, e, named("b", "https://b.example"))
	set := newSet(t, a, b)
	head := encode(t, map[string]any{"alg": "none"})
	tests := []struct {
		name, token string
		want        *issuers.Issuer
	}{
		{"the first", head + "." + encode(t, with("iss", "https://a.example")) + ".x", a},
		{"the second", head + "." + encode(t, with("iss", "https://b.example")) + ".x", b},
		{"nobody's", head + "." + encode(t, with("iss", "https://c.example")) + ".x", nil},
		{"longer", head + "." + encode(t, with("iss", "https://a.example.evil")) + ".x", nil},
		{"no issuer", head + "." + encode(t, with("iss", nil)) + ".x", nil},
		{"an empty one", head + "." + encode(t, with("iss", "")) + ".x", nil},
		{"a list", head + "." + encode(t, with("iss", []any{"https://a.example"})) + ".x", nil},
		{"no JSON", head + "." + encode(t, "{") + ".x", nil},
		{"no base64", head + ".!.x", nil},
		{"a line break", head + "." + encode(t, with("iss", "https://a.example")) + "\n.x", nil},
		{"two segments", head + "." + encode(t, with("iss", "https://a.example")), nil},
		{"four segments", head + "." + encode(t, with("iss", "https://a.example")) + ".x.y", nil},
		{"an opaque token", "sk_live_abc", nil},
		{"nothing", "", nil},
	}
	for _, test := range tests {
		if got, found := set.Owns(test.token); got != test.want || found != (test.want != nil) {
			t.Errorf("%s: got %v", test.name, got)
		}
	}
	if e.count("/jwks") != 0 {
		t.Error("choosing an issuer called it")
	}
	var none *issuers.Set
	if _, found := none.Owns(tests[0].token); found {
		t.Error("the nil set owns something")
	}
	if v, err := none.Verify(t.Context(), tests[0].token); v != nil || !errors.Is(err, tokens.ErrInvalid) {
		t.Errorf("the nil set: %v, %v", v, err)
	}
	if err := none.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestNewSetRefuses(t *testing.T) {
	t.Parallel()
	e := newEvil(t)
	a, _ := open(t, e, named("a", "https://a.example"))
	for _, other := range []func(*issuers.Config){named("a", "https://b.example"), named("b", "https://a.example")} {
		i, _ := open(t, e, other)
		if s, err := issuers.NewSet(a, i); s != nil || err == nil {
			t.Error("two issuers that cannot be told apart are accepted")
		}
	}
	if err := newSet(t, a).Close(t.Context()); err != nil {
		t.Error(err)
	}
	unavailable(t, a, "closed by its set", es(t, with("iss", "https://a.example")))
}
