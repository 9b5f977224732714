package signing_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/keys"
	"github.com/mandate-auth/mandate/tokens/signing"
)

// Whoever reads the database must not find a private key, in no spelling.
func TestPrivateKeysAreNotReadable(t *testing.T) {
	t.Parallel()
	for _, algorithm := range []string{tokens.EdDSA, tokens.ES256, tokens.RS256} {
		t.Run(algorithm, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			s := b.loaded(t, func(c *signing.Config) { c.Algorithm = algorithm })
			raw, err := b.db.Collection(signing.Collection).FindOne(t.Context(), bson.M{}).Raw()
			if err != nil {
				t.Fatal(err)
			}
			for name, part := range privateParts(t, s.Current().Signing.Private) {
				for _, text := range []string{
					string(part), hex.EncodeToString(part), base64.StdEncoding.EncodeToString(part)[:20], base64.RawURLEncoding.EncodeToString(part)[:20],
				} {
					if bytes.Contains(raw, []byte(text)) {
						t.Errorf("%s is stored readably", name)
					}
				}
			}
		})
	}
}

func privateParts(t *testing.T, key crypto.Signer) map[string][]byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	parts := map[string][]byte{"PKCS #8": der}
	switch k := key.(type) {
	case ed25519.PrivateKey:
		parts["the seed"] = k.Seed()
	case *ecdsa.PrivateKey:
		if parts["d"], err = k.Bytes(); err != nil {
			t.Fatal(err)
		}
	case *rsa.PrivateKey:
		parts["d"], parts["p"], parts["q"] = k.D.Bytes(), k.Primes[0].Bytes(), k.Primes[1].Bytes()
	}
	return parts
}

// Whoever writes to the database must not add, exchange or revive a key.
func TestAlteredDocumentsAreRefused(t *testing.T) {
	t.Parallel()
	pkcs8 := func(key crypto.Signer, err error) (private, public []byte) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		private, err1 := x509.MarshalPKCS8PrivateKey(key)
		public, err2 := x509.MarshalPKIXPublicKey(key.Public())
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		return private, public
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	edPrivate, edPublic := pkcs8(ed, err)
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	weakPrivate, weakPublic := pkcs8(weak, err)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	p384Private, p384Public := pkcs8(p384, err)
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p256Private, p256Public := pkcs8(p256, err)
	offCurve := bytes.Clone(p256Public)
	offCurve[len(offCurve)-1] ^= 1

	// What is sealed here is sealed rightly: the checks behind it have to refuse.
	sealed := func(private, public []byte) func(*keys.App, string) bson.M {
		return func(app *keys.App, kid string) bson.M {
			return bson.M{"private": app.Seal("signing_keys|"+kid+"|private", private), "public": public}
		}
	}
	set := func(m bson.M) func(*keys.App, string) bson.M { return func(*keys.App, string) bson.M { return m } }
	tests := []struct {
		name, algorithm string
		change          func(app *keys.App, kid string) bson.M
	}{
		{"another public key", tokens.EdDSA, set(bson.M{"public": edPublic})},
		{"no public key", tokens.EdDSA, set(bson.M{"public": []byte{}})},
		{"no private key", tokens.EdDSA, set(bson.M{"private": ""})},
		{"a private key in the open", tokens.EdDSA, set(bson.M{"private": string(edPrivate), "public": edPublic})},
		{"sealed for another key", tokens.EdDSA, func(app *keys.App, _ string) bson.M {
			return bson.M{"private": app.Seal("signing_keys|AAAAAAAAAAA|private", edPrivate), "public": edPublic}
		}},
		{"sealed for another field", tokens.EdDSA, func(app *keys.App, kid string) bson.M {
			return bson.M{"private": app.Seal("signing_keys|"+kid+"|public", edPrivate), "public": edPublic}
		}},
		{"no key at all", tokens.EdDSA, sealed([]byte("x"), edPublic)},
		{"an EC key for EdDSA", tokens.EdDSA, sealed(p256Private, p256Public)},
		{"an Ed25519 key for ES256", tokens.ES256, sealed(edPrivate, edPublic)},
		{"an Ed25519 key for RS256", tokens.RS256, sealed(edPrivate, edPublic)},
		{"an EC key for RS256", tokens.RS256, sealed(p256Private, p256Public)},
		{"another curve", tokens.ES256, sealed(p384Private, p384Public)},
		{"a point that is not on the curve", tokens.ES256, sealed(p256Private, offCurve)},
		{"an RSA key for ES256", tokens.ES256, sealed(weakPrivate, weakPublic)},
		{"an RSA key of 1,024 bits", tokens.RS256, sealed(weakPrivate, weakPublic)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			edit := func(c *signing.Config) { c.Algorithm = tt.algorithm }
			running := b.loaded(t, edit)
			kid := running.Current().Signing.ID
			b.edit(t, kid, bson.M{"$set": tt.change(derived(t, "shop", "s"), kid)})
			if err := b.instance(t, edit).Load(t.Context()); !errors.Is(err, signing.ErrUnusable) || !strings.Contains(err.Error(), kid) {
				t.Errorf("a new instance: %v", err)
			}
			token := sign(t, running.Current().Signing)
			if err := running.Load(t.Context()); !errors.Is(err, signing.ErrUnusable) {
				t.Errorf("a running instance: %v", err)
			}
			if !verifies(running, token) || !verifies(running, sign(t, running.Current().Signing)) {
				t.Error("the set of the running instance changed")
			}
			if n := len(b.documents(t)); n != 1 {
				t.Errorf("a key was made in place of one that cannot be used: %d documents", n)
			}
		})
	}
}

// A document whose kid does not follow from what it says is none of the app's.
func TestMovedDocumentsAreIgnored(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]bson.M{
		"the number":       {"n": int64(7)},
		"a number below 1": {"n": int64(0)},
		"the epoch":        {"keys_epoch": int64(9)},
		"the algorithm":    {"algorithm": tokens.ES256},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			kid := b.loaded(t).Current().Signing.ID
			b.edit(t, kid, bson.M{"$set": change, "$unset": bson.M{"x": ""}})
			s := b.instance(t)
			// The place of the altered document is taken, so that no key can be made.
			if err := s.Load(t.Context()); !errors.Is(err, signing.ErrUnusable) || !strings.Contains(err.Error(), kid) || len(accepted(t, s)) != 0 {
				t.Errorf("accepted %v, %v", accepted(t, s), err)
			}
		})
	}
	t.Run("another app", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		blog := b.loaded(t, func(c *signing.Config) { c.App, c.Keys = "blog", derived(t, "blog", "s") })
		b.edit(t, blog.Current().Signing.ID, bson.M{"$set": bson.M{"app": "shop"}})
		s := b.loaded(t)
		if got := accepted(t, s); len(got) != 1 || got[0] == blog.Current().Signing.ID {
			t.Errorf("the key of another app is accepted: %v", got)
		}
	})
}

// The key of another app in a document of the right name was sealed under another
// key and for another place.
func TestKeyOfAnotherAppIsRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.loaded(t)
	blog := b.loaded(t, func(c *signing.Config) { c.App, c.Keys = "blog", derived(t, "blog", "s") })
	from := b.documents(t)[blog.Current().Signing.ID]
	b.edit(t, s.Current().Signing.ID, bson.M{"$set": bson.M{"public": from["public"], "private": from["private"]}})
	if err := s.Load(t.Context()); !errors.Is(err, signing.ErrUnusable) {
		t.Errorf("got %v", err)
	}
}

// A secret key that is replaced takes its signing keys with it in good order, so
// that it can be given up once their tokens are dead.
func TestNewSecretRotates(t *testing.T) {
	t.Parallel()
	b := setup(t)
	under := func(secrets ...string) func(*signing.Config) {
		return func(c *signing.Config) { c.Keys, c.Rotation = derived(t, "shop", secrets...), 0 }
	}
	old := b.loaded(t, under("o")).Current().Signing
	token := sign(t, old)
	s := b.loaded(t, under("n", "o"))
	if got := accepted(t, s); len(got) != 2 || got[0] != old.ID || !verifies(s, token) {
		t.Fatalf("accepted %v, want the old key and a new one", got)
	}
	next := accepted(t, s)[1]
	b.move(lead)
	load(t, s, s)
	want(t, "after the lead", accepted(t, s), []string{next, old.ID})
	if err := b.instance(t, under("n")).Load(t.Context()); !errors.Is(err, signing.ErrUnusable) {
		t.Errorf("the old secret was given up too early: %v", err)
	}
	b.move(ttl + margin)
	load(t, s)
	want(t, "without the old secret", accepted(t, b.loaded(t, under("n"))), []string{next})
}

func TestLostSecret(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first := b.loaded(t)
	next, err := first.Rotate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	old := first.Current().Signing.ID
	s := b.instance(t, func(c *signing.Config) { c.Keys = derived(t, "shop", "x") })
	err = s.Load(t.Context())
	if !errors.Is(err, signing.ErrUnusable) || !errors.Is(err, keys.ErrUnknownSecret) {
		t.Fatalf("got %v", err)
	}
	for _, part := range []string{old, "2026-03-01", "add the secret key", "deleting"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the message does not say %q: %v", part, err)
		}
	}
	want(t, "states", states(t, s), []signing.State{signing.Published, signing.Signing})
	// The published key is lost as well, which the first call says.
	if err := s.Revoke(t.Context(), old); !errors.Is(err, signing.ErrUnusable) || !strings.Contains(err.Error(), next.ID) {
		t.Errorf("the first of two: %v", err)
	}
	if err := s.Revoke(t.Context(), next.ID); err != nil {
		t.Fatalf("the second of two: %v", err)
	}
	if got := s.Current().Signing; got.Private == nil || got.ID == old || got.ID == next.ID {
		t.Error("there is no new key")
	}
	b.move(time.Second)
	load(t, s)
}
