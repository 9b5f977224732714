// Package keys derives every working key of Mandate from the service's secret
// keys: by HKDF (RFC 5869) with SHA-256 over secret, app, the app's random
// salt and purpose. What is signed for one app or one purpose never verifies
// for another.
package keys

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/mandate-auth/mandate/tokens/secret"
)

// MinSecretLength is the least number of bytes of a secret key (RFC 7518
// section 3.2: a key at least as long as the hash).
const MinSecretLength = 32

// Errors of this package.
var (
	// ErrNoSecret says that no secret key was given.
	ErrNoSecret = errors.New("no secret key")
	// ErrWeakSecret says that a secret key is too short.
	ErrWeakSecret = errors.New("secret key too short")
	// ErrSecretConflict says that the environment names two different keys, or
	// that one key was given twice.
	ErrSecretConflict = errors.New("conflicting secret keys")
)

// howTo is what a message about a missing key ends with.
const howTo = "make one with: openssl rand -base64 32"

// Purpose says what a key is for. It is part of the derivation.
type Purpose string

// The purposes.
const (
	// Access signs access tokens.
	Access Purpose = "access"
	// Refresh authenticates refresh tokens.
	Refresh Purpose = "refresh"
	// Device authenticates device tokens and hides device identifiers.
	Device Purpose = "device"
	// Attempt hides the identifiers that login attempts are counted by.
	Attempt Purpose = "attempt"
	// Cursor authenticates page cursors.
	Cursor Purpose = "cursor"
	// Seal encrypts what must not be readable in the database: see [App.Seal].
	Seal Purpose = "seal"
	// Audit authenticates the chains of audit records.
	Audit Purpose = "audit"
	// OneTime authenticates one-time codes, and hides what one-time tokens are about.
	OneTime Purpose = "onetime"
)

// endsWithEpoch reports whether raising the app's keys_epoch changes the keys of
// a purpose: it ends tokens, and must not orphan what is stored.
func (p Purpose) endsWithEpoch() bool { return p == Access || p == Refresh }

// purposes are all of them: their keys are derived when an app is loaded.
var purposes = []Purpose{Access, Refresh, Device, Attempt, Cursor, Seal, Audit, OneTime}

// Ring holds the service's secret keys, newest first: the first signs, all
// verify, so that a secret can be changed while tokens live.
type Ring struct {
	secrets []secret.Value
}

// NewRing checks the secret keys. Each needs 32 bytes or more
// ([ErrWeakSecret]); none may come twice ([ErrSecretConflict]).
func NewRing(secrets []secret.Value) (*Ring, error) {
	if len(secrets) == 0 {
		return nil, fmt.Errorf("%w: set MANDATE_SECRET_KEY or Options.SecretKeys; %s", ErrNoSecret, howTo)
	}
	for i, s := range secrets {
		if s.Len() < MinSecretLength {
			return nil, fmt.Errorf("%w: key %d has %d bytes, %d are needed; %s", ErrWeakSecret, i+1, s.Len(), MinSecretLength, howTo)
		}
		for j := range i {
			if s.Equal(secrets[j]) {
				return nil, fmt.Errorf("%w: keys %d and %d are the same", ErrSecretConflict, j+1, i+1)
			}
		}
	}
	return &Ring{secrets: append([]secret.Value(nil), secrets...)}, nil
}

// variables are the environment variables that may hold the secret key. The
// later ones are for services that move over from elsewhere.
var variables = []string{"MANDATE_SECRET_KEY", "FLASK_SECRET_KEY", "SECRET_KEY", "APP_SECRET_KEY"}

// FromEnvironment returns the secret key of the environment and the name of
// the variable that holds it. Two variables that differ are
// [ErrSecretConflict]: to guess would end every session of one of the two.
// None set is [ErrNoSecret].
func FromEnvironment(lookup func(string) (string, bool)) (secret.Value, string, error) {
	var found secret.Value
	var name string
	for _, variable := range variables {
		text, ok := lookup(variable)
		if !ok || text == "" {
			continue
		}
		value := secret.FromString(text)
		if name == "" {
			found, name = value, variable
		} else if !value.Equal(found) {
			return secret.Value{}, "", fmt.Errorf("%w: %s and %s are both set and differ; unset one of them", ErrSecretConflict, name, variable)
		}
	}
	if name == "" {
		return secret.Value{}, "", fmt.Errorf("%w: set MANDATE_SECRET_KEY; %s", ErrNoSecret, howTo)
	}
	return found, name, nil
}

// App holds the working keys of one app. Nothing of it changes but the epoch of its
// tokens; it is safe for concurrent use.
type App struct {
	ring    *Ring
	slug    string
	salt    []byte
	sealers []sealer // newest first
	// derived is replaced whole when the epoch is raised, under raising.
	derived atomic.Pointer[derived]
	raising sync.Mutex
}

// derived are the keys of one epoch.
type derived struct {
	epoch int64
	keys  map[Purpose][]Key // newest first
}

// Key is one working key.
type Key struct {
	// ID names the key in what it signs ("kid"): 64 bits of SHA-256 over the
	// generation of the secret, the app and the purpose, in base64url.
	ID  string
	mac []byte
}

// App derives the keys of the app named slug. salt is the app's random value;
// keysEpoch ends all tokens of the app when it is raised.
func (r *Ring) App(slug string, salt []byte, keysEpoch int64) (*App, error) {
	if slug == "" || len(salt) < 16 {
		return nil, fmt.Errorf("derive keys: a slug and a salt of 16 bytes or more are needed")
	}
	a := &App{ring: r, slug: slug, salt: slices.Clone(salt)}
	d, err := a.derive(keysEpoch)
	if err != nil {
		return nil, err
	}
	a.derived.Store(d)
	if a.sealers, err = newSealers(d.keys[Seal]); err != nil {
		return nil, err
	}
	return a, nil
}

func (a *App) derive(epoch int64) (*derived, error) {
	d := &derived{epoch: epoch, keys: make(map[Purpose][]Key, len(purposes))}
	for _, p := range purposes {
		for _, s := range a.ring.secrets {
			info := derivationInfo(a.slug, p, epoch)
			raw, err := hkdf.Key(sha256.New, s.Reveal(), a.salt, info, 32)
			if err != nil {
				return nil, fmt.Errorf("derive keys: %w", err)
			}
			id, err := hkdf.Key(sha256.New, s.Reveal(), a.salt, "kid/"+info, 8)
			if err != nil {
				return nil, fmt.Errorf("derive keys: %w", err)
			}
			d.keys[p] = append(d.keys[p], Key{ID: base64.RawURLEncoding.EncodeToString(id), mac: raw})
		}
	}
	return d, nil
}

// Epoch returns the epoch that the keys of tokens are derived with.
func (a *App) Epoch() int64 { return a.derived.Load().epoch }

// SetEpoch ends every token that was signed or authenticated with keys of a lower
// epoch. An epoch that is not higher changes nothing: what has ended stays so.
func (a *App) SetEpoch(epoch int64) error {
	a.raising.Lock()
	defer a.raising.Unlock()
	if epoch <= a.Epoch() {
		return nil
	}
	d, err := a.derive(epoch)
	if err != nil {
		return err
	}
	a.derived.Store(d)
	return nil
}

// derivationInfo is the "info" of HKDF. Every part has its length in front, so
// that no two lists of parts give one text.
func derivationInfo(slug string, p Purpose, epoch int64) string {
	info := []byte("mandate/v1")
	for _, part := range []string{slug, string(p)} {
		info = binary.BigEndian.AppendUint32(info, uint32(len(part))) //nolint:gosec // a slug and a constant
		info = append(info, part...)
	}
	if p.endsWithEpoch() {
		info = binary.BigEndian.AppendUint64(info, uint64(epoch)) //nolint:gosec // the bits are what counts
	}
	return string(info)
}

// Newest returns the key that signs for p.
func (a *App) Newest(p Purpose) Key { return a.All(p)[0] }

// All returns the keys of p, newest first. The slice must not be changed.
func (a *App) All(p Purpose) []Key { return a.derived.Load().keys[p] }

// ByID returns the key of p that is named id, and whether there is one.
func (a *App) ByID(p Purpose, id string) (Key, bool) {
	for _, k := range a.All(p) {
		if k.ID == id {
			return k, true
		}
	}
	return Key{}, false
}

// Bytes returns the key's 32 bytes. They must not be changed.
func (k Key) Bytes() []byte { return k.mac }

// MAC returns HMAC-SHA-256 of data.
func (k Key) MAC(data []byte) []byte {
	h := hmac.New(sha256.New, k.mac)
	_, _ = h.Write(data)
	return h.Sum(nil)
}

// Verify reports, in constant time, whether mac is the key's MAC of data.
func (k Key) Verify(data, mac []byte) bool {
	return len(k.mac) > 0 && hmac.Equal(k.MAC(data), mac)
}

// Identifiers returns data as it is stored where it must not be readable: its
// MAC in base64url, under every key of p, newest first. What is stored under
// an older secret is found under the others; new documents use the first.
func (a *App) Identifiers(p Purpose, data string) []string {
	list := a.All(p)
	out := make([]string, len(list))
	for i, k := range list {
		out[i] = base64.RawURLEncoding.EncodeToString(k.MAC([]byte(data)))
	}
	return out
}
