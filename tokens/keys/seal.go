package keys

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// Errors of [App.Open]. No plaintext comes with any of them.
var (
	// ErrUnknownSecret says that the value was sealed under a secret key that is
	// not among those given, or for another app.
	ErrUnknownSecret = errors.New("sealed under a secret key that is not among the given ones")
	// ErrSealed says that the value is none that was sealed for this place: it was
	// altered, moved from elsewhere, or is no sealed value at all.
	ErrSealed = errors.New("not a value that was sealed for this place")
)

// sealVersion begins every sealed value. Another format has another.
const sealVersion = "mse1"

// sealer is a key of the purpose Seal, ready for use.
type sealer struct {
	id   string
	aead cipher.AEAD
}

func newSealers(list []Key) ([]sealer, error) {
	out := make([]sealer, len(list))
	for i, k := range list {
		block, err := aes.NewCipher(k.mac)
		if err != nil {
			return nil, fmt.Errorf("derive keys: %w", err)
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			return nil, fmt.Errorf("derive keys: %w", err)
		}
		out[i] = sealer{id: k.ID, aead: aead}
	}
	return out, nil
}

// Seal encrypts plaintext for the place that scope names, under the newest secret
// key: the text "mse1.<kid>.<nonce and ciphertext>" that only [App.Open] of the same
// app with the same scope takes. It is AES-256-GCM (NIST SP 800-38D) with a random
// nonce of 96 bits, so one secret key is good for 2^32 values (section 8.3).
//
// The scope has to tell every place from every other, as collection|id|field does:
// without it, whoever can write to the database could put a value of one document
// into another.
func (a *App) Seal(scope string, plaintext []byte) string {
	s := a.sealers[0]
	prefix := sealVersion + "." + s.id
	nonce := make([]byte, s.aead.NonceSize(), s.aead.NonceSize()+len(plaintext)+s.aead.Overhead())
	_, _ = rand.Read(nonce) // never fails: see crypto/rand.Read
	sealed := s.aead.Seal(nonce, nonce, plaintext, sealedData(prefix, scope))
	return prefix + "." + base64.RawURLEncoding.EncodeToString(sealed)
}

// Open returns what was sealed for the scope under any of the secret keys. It
// fails with [ErrUnknownSecret] or [ErrSealed].
func (a *App) Open(scope, sealed string) ([]byte, error) {
	parts := strings.SplitN(sealed, ".", 4)
	if len(parts) != 3 || parts[0] != sealVersion {
		return nil, ErrSealed
	}
	s, ok := a.sealer(parts[1])
	if !ok {
		return nil, ErrUnknownSecret
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(parts[2])
	// The decoder skips line ends; what it was given has to be the one spelling.
	if err != nil || len(raw) < s.aead.NonceSize() || base64.RawURLEncoding.EncodedLen(len(raw)) != len(parts[2]) {
		return nil, ErrSealed
	}
	nonce, text := raw[:s.aead.NonceSize()], raw[s.aead.NonceSize():]
	plaintext, err := s.aead.Open(nil, nonce, text, sealedData(parts[0]+"."+parts[1], scope))
	if err != nil {
		return nil, ErrSealed
	}
	return plaintext, nil
}

// Outdated reports whether sealed, which [App.Open] takes, was sealed under an
// older secret key than the newest. What it holds has to be sealed again or
// replaced before that secret key can be given up.
func (a *App) Outdated(sealed string) bool {
	return !strings.HasPrefix(sealed, sealVersion+"."+a.sealers[0].id+".")
}

func (a *App) sealer(id string) (sealer, bool) {
	for _, s := range a.sealers {
		if s.id == id {
			return s, true
		}
	}
	return sealer{}, false
}

// sealedData is the additional data of a sealed value. The prefix holds no zero
// byte, so that it is told from the scope behind it.
func sealedData(prefix, scope string) []byte { return []byte(prefix + "\x00" + scope) }
