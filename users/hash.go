package users

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"strings"
	"time"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/text/unicode/norm"

	"github.com/mandate-auth/mandate/tokens/secret"
)

// Pepper is a secret that goes into every password hash and is kept out of the
// database: without it a stolen collection cannot be guessed at.
type Pepper struct {
	// ID names the pepper in the hashes, 1 to 16 letters and digits. "0" is
	// taken.
	ID string
	// Key has 32 bytes or more.
	Key secret.Value
}

// HasherConfig configures a [Hasher].
type HasherConfig struct {
	// Slots is how many hashes are computed at once. Default GOMAXPROCS − 1, at
	// least 1: a processor is left for everything else.
	Slots int
	// QueuePerSlot is how many may wait for each slot. Default 32.
	QueuePerSlot int
	// QueueDeadline is how long one may wait. Default 2 s.
	QueueDeadline time.Duration
	// Peppers are the peppers, newest first: the first goes into new hashes, all
	// verify. Without one, hashes are keyed with a constant.
	Peppers []Pepper
	// Foreign verify hashes of other systems besides those that [Store.Import]
	// lists. They are asked first, in this order. Default none.
	Foreign []HashVerifier
	// OnHash is called for each hash that is computed. Default none.
	OnHash func()
}

// Hasher hashes passwords for all apps of a process, a bounded number at once.
// It is safe for concurrent use.
//
// A hash is bcrypt over base64(HMAC-SHA-384(pepper, NFC(password))), 64 bytes
// without NUL: bcrypt alone stops at 72 bytes and repeats at NUL. It is stored
// as "$mandate$p=<pepper>$<bcrypt>". Hashes of other systems are verified, never
// made: plain bcrypt, argon2, scrypt, PBKDF2, and what [HasherConfig] adds. Each takes
// 256 MiB of memory at most, so that all together take Slots times that.
type Hasher struct {
	config  HasherConfig
	slots   chan struct{}
	waiting chan struct{}
	peppers map[string]secret.Value
}

// maxCost is the greatest cost that is computed: about a minute of a processor.
const maxCost = 20

// noPepper is the id and the key where no pepper is configured.
const noPepper = "0"

// ownPrefix begins every hash that is made here.
const ownPrefix = "$mandate$p="

var pepperID = regexp.MustCompile(`^[A-Za-z0-9]{1,16}$`)

// NewHasher returns a hasher.
func NewHasher(config HasherConfig) (*Hasher, error) {
	config.Slots = cmp.Or(config.Slots, max(1, runtime.GOMAXPROCS(0)-1))
	config.QueuePerSlot = cmp.Or(config.QueuePerSlot, 32)
	config.QueueDeadline = cmp.Or(config.QueueDeadline, 2*time.Second)
	if config.OnHash == nil {
		config.OnHash = func() {}
	}
	h := &Hasher{
		config:  config,
		slots:   make(chan struct{}, config.Slots),
		waiting: make(chan struct{}, config.Slots*(1+config.QueuePerSlot)),
		peppers: map[string]secret.Value{noPepper: secret.FromString("mandate/password/v1")},
	}
	for _, p := range config.Peppers {
		if !pepperID.MatchString(p.ID) || h.peppers[p.ID].Len() > 0 {
			return nil, fmt.Errorf("pepper %q: the id must be 1 to 16 letters and digits, not 0, and not given twice", p.ID)
		}
		if p.Key.Len() < 32 {
			return nil, fmt.Errorf("pepper %q: the key has %d bytes, 32 are needed; make one with: openssl rand -base64 32", p.ID, p.Key.Len())
		}
		h.peppers[p.ID] = p.Key
	}
	return h, nil
}

func (h *Hasher) newest() string {
	if len(h.config.Peppers) == 0 {
		return noPepper
	}
	return h.config.Peppers[0].ID
}

// acquire waits for a slot.
func (h *Hasher) acquire(ctx context.Context) error {
	select {
	case h.waiting <- struct{}{}:
	default:
		return ErrBusy
	}
	timer := time.NewTimer(h.config.QueueDeadline)
	defer timer.Stop()
	select {
	case h.slots <- struct{}{}:
		return nil
	case <-timer.C:
		<-h.waiting
		return ErrBusy
	case <-ctx.Done():
		<-h.waiting
		return ctx.Err()
	}
}

func (h *Hasher) release() {
	<-h.slots
	<-h.waiting
}

// run runs f in a slot.
func (h *Hasher) run(ctx context.Context, f func()) error {
	if err := h.acquire(ctx); err != nil {
		return err
	}
	defer h.release()
	f()
	return nil
}

// Hash returns the stored form of password. The error is [ErrBusy] when there
// is no room within the deadline, or the context's.
func (h *Hasher) Hash(ctx context.Context, cost int, password string) (string, error) {
	if err := h.acquire(ctx); err != nil {
		return "", err
	}
	defer h.release()
	h.config.OnHash()
	return h.hash(cost, password)
}

func (h *Hasher) hash(cost int, password string) (string, error) {
	id := h.newest()
	raw, err := bcrypt.GenerateFromPassword(h.prehash(id, password), cost)
	if err != nil {
		return "", fmt.Errorf("hash the password: %w", err)
	}
	return ownPrefix + id + string(raw), nil
}

// dummy returns a hash that no password matches.
func (h *Hasher) dummy(cost int) (string, error) {
	if cost < bcrypt.MinCost || cost > maxCost {
		return "", fmt.Errorf("bcrypt cost %d is out of range", cost)
	}
	return h.hash(cost, string(secret.Random(32).Reveal()))
}

// prehash is what bcrypt sees: 64 characters, whatever the password is.
func (h *Hasher) prehash(id, password string) []byte {
	mac := hmac.New(sha512.New384, h.peppers[id].Reveal())
	_, _ = mac.Write([]byte(norm.NFC.String(password)))
	out := make([]byte, base64.StdEncoding.EncodedLen(mac.Size()))
	base64.StdEncoding.Encode(out, mac.Sum(nil))
	return out
}

// Verify reports whether password is the one that stored was made of. It costs
// exactly one hash, whatever is wrong with the password.
//
// That of another system costs what it costs there, not what the others do: until
// its first sign-in, whoever measures can tell such an account from others. To add
// a second hash would hide nothing (it would only be slower still), and to delay
// everybody by the costliest would double the price of every attack. See
// [Store.Import].
func (h *Hasher) Verify(ctx context.Context, stored, password string) (bool, error) {
	if err := h.acquire(ctx); err != nil {
		return false, err
	}
	defer h.release()
	h.config.OnHash()
	if !strings.HasPrefix(stored, ownPrefix) {
		return h.verifyForeign(ctx, stored, password)
	}
	id, raw, ok := h.split(stored)
	if !ok {
		return false, errors.New("a stored password hash has an unknown form or pepper")
	}
	return bcrypt.CompareHashAndPassword([]byte(raw), h.prehash(id, password)) == nil, nil
}

// split returns the pepper's id and the bcrypt hash of a hash that was made here.
func (h *Hasher) split(stored string) (id, raw string, ok bool) {
	rest, ours := strings.CutPrefix(stored, ownPrefix)
	id, raw, found := strings.Cut(rest, "$")
	raw = "$" + raw
	cost, err := bcrypt.Cost([]byte(raw))
	return id, raw, ours && found && h.peppers[id].Len() > 0 && err == nil && cost <= maxCost
}

// NeedsRehash reports whether stored was made with another cost, pepper or
// method than a new hash would be.
func (h *Hasher) NeedsRehash(stored string, cost int) bool {
	id, raw, ok := h.split(stored)
	if !ok || id != h.newest() {
		return true
	}
	was, err := bcrypt.Cost([]byte(raw))
	return err != nil || was != cost
}
