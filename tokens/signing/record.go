package signing

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/keys"
)

const (
	// rsaBits is the size of new RSA keys, and the least of stored ones (RFC 7518
	// section 3.3).
	rsaBits = 2048
	// maxRSABits bounds the work of one verification. Common verifiers take no more.
	maxRSABits = 4096
)

// record is one key as it is stored.
type record struct {
	ID        string `bson:"_id"`
	App       string `bson:"app"`
	Algorithm string `bson:"algorithm"`
	// N counts the keys of one app, algorithm and epoch from 1.
	N         int64 `bson:"n"`
	KeysEpoch int64 `bson:"keys_epoch"`
	// Public is the public key (PKIX, DER), Private the sealed private key
	// (PKCS #8, DER). Revoking removes the latter.
	Public  []byte `bson:"public"`
	Private string `bson:"private,omitempty"`
	// TokenLife is the longest life, in milliseconds, of the tokens that an
	// instance signs with the key. It only rises.
	TokenLife int64 `bson:"token_life"`
	// ActiveFrom is when the key begins to sign. A command may bring it forward.
	ActiveFrom time.Time `bson:"active_from"`
	// RetireAt is when its last token is dead, so that nobody needs the key any
	// more. It is set when the key has stopped to sign, and only rises.
	RetireAt  time.Time `bson:"retire_at,omitempty"`
	RevokedAt time.Time `bson:"revoked_at,omitempty"`
	CreatedAt time.Time `bson:"created_at"`
}

// kid names key n: 64 bits of SHA-256 over all that it is the key of. It is the
// same on every instance, so one insert decides who makes it; the salt keeps a
// slug that is used again from meeting the keys of its predecessor.
func kid(salt []byte, app, algorithm string, epoch, n int64) string {
	h := sha256.New()
	for _, part := range [][]byte{[]byte("mandate/v1/signing"), salt, []byte(app), []byte(algorithm)} {
		_ = binary.Write(h, binary.BigEndian, uint64(len(part)))
		_, _ = h.Write(part)
	}
	_ = binary.Write(h, binary.BigEndian, epoch)
	_ = binary.Write(h, binary.BigEndian, n)
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:8])
}

// validKid reports whether kid could be one. What a token names is not looked for
// otherwise.
func validKid(kid string) bool {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(kid)
	return err == nil && len(raw) == 8 && len(kid) == 11
}

// nextKeys is how many keys others may have made that are not known yet.
const nextKeys = 8

// mayBeNew reports whether kid could be that of a key which others have made since the
// set was read: one of the next of its epoch, or of the first of the epochs after it.
func (s *Store) mayBeNew(set *Set, name string) bool {
	if !validKid(name) {
		return false
	}
	if set.epoch == 0 {
		return true // nothing is known yet
	}
	c := &s.config
	for n := int64(1); n <= nextKeys; n++ {
		if name == kid(c.Salt, c.App, c.Algorithm, set.epoch, set.last+n) ||
			name == kid(c.Salt, c.App, c.Algorithm, set.epoch+1, n) || name == kid(c.Salt, c.App, c.Algorithm, set.epoch+2, n) {
			return true
		}
	}
	return false
}

// scope is the place that the private part of a key is sealed for.
func scope(kid string) string { return Collection + "|" + kid + "|private" }

// newRecord makes a key. For RSA it takes some 100 ms of processor time.
func newRecord(c *Config, epoch, n int64) (*record, error) {
	private, err := generate(c.Algorithm)
	if err != nil {
		return nil, fmt.Errorf("make a signing key: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		return nil, fmt.Errorf("make a signing key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("make a signing key: %w", err)
	}
	id := kid(c.Salt, c.App, c.Algorithm, epoch, n)
	return &record{
		ID: id, App: c.App, Algorithm: c.Algorithm, N: n, KeysEpoch: epoch,
		Public: public, Private: c.Keys.Seal(scope(id), der), TokenLife: c.TokenTTL.Milliseconds(),
	}, nil
}

func generate(algorithm string) (crypto.Signer, error) {
	switch algorithm {
	case tokens.EdDSA:
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	case tokens.ES256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case tokens.RS256:
		return rsa.GenerateKey(rand.Reader, rsaBits)
	default:
		return nil, fmt.Errorf("unknown algorithm %q", algorithm)
	}
}

// open returns the key of the record, checked in every respect. The error is
// [ErrUnusable].
func (r *record) open(app *keys.App) (tokens.SigningKey, error) {
	private, err := r.private(app)
	if errors.Is(err, keys.ErrUnknownSecret) {
		return tokens.SigningKey{}, fmt.Errorf("%w: %s was %w; add the secret key that was in use on %s back, behind the newest (MANDATE_SECRET_KEY_PREVIOUS), or end the tokens of this key by deleting its document from %s",
			ErrUnusable, r.ID, err, r.CreatedAt.Format(time.DateOnly), Collection)
	}
	if err != nil {
		return tokens.SigningKey{}, fmt.Errorf("%w: %s of collection %s has been altered (%w); restore the document from a backup, or delete it, which ends its tokens",
			ErrUnusable, r.ID, Collection, err)
	}
	return tokens.SigningKey{ID: r.ID, Algorithm: r.Algorithm, Private: private, Public: private.Public()}, nil
}

func (r *record) private(app *keys.App) (crypto.Signer, error) {
	der, err := app.Open(scope(r.ID), r.Private)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errors.New("the private key does not parse") // the cause could show parts of it
	}
	private, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, errors.New("the private key does not sign")
	}
	public, err := x509.ParsePKIXPublicKey(r.Public)
	if err != nil {
		return nil, fmt.Errorf("the public key does not parse: %w", err)
	}
	own, ok := private.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !own.Equal(public) {
		return nil, errors.New("the public key is not that of the private one")
	}
	return private, checkKey(r.Algorithm, private)
}

// checkKey makes sure that the key is one of the algorithm. One key serves one
// algorithm (RFC 8725 section 3.1).
func checkKey(algorithm string, private crypto.Signer) error {
	switch key := private.(type) {
	case ed25519.PrivateKey:
		if algorithm == tokens.EdDSA && len(key) == ed25519.PrivateKeySize {
			return nil
		}
	case *ecdsa.PrivateKey:
		if algorithm != tokens.ES256 || key.Curve != elliptic.P256() {
			break
		}
		if _, err := key.PublicKey.ECDH(); err != nil { // checks that the point is on the curve
			return fmt.Errorf("the public key is no point of the curve: %w", err)
		}
		return nil
	case *rsa.PrivateKey:
		if algorithm != tokens.RS256 {
			break
		}
		if bits := key.N.BitLen(); bits < rsaBits || bits > maxRSABits || key.E < 65537 {
			return fmt.Errorf("an RSA key of %d bits with exponent %d", bits, key.E)
		}
		if err := key.Validate(); err != nil {
			return errors.New("the RSA key is not consistent") // the cause could show parts of it
		}
		return nil
	}
	return fmt.Errorf("the key is none for %s", algorithm)
}
