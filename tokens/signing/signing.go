// Package signing keeps the keys that an app signs its tokens with, where the
// algorithm is asymmetric: it makes them, seals their private parts into MongoDB,
// replaces them by schedule and by command, and publishes their public parts as a
// JSON Web Key Set (RFC 7517).
//
// # The life of a key
//
// A key is published and accepted from the moment it is stored, signs from its
// active_from until that of its successor, and is retired from then on: published
// and accepted until the last token that it signed is dead. Which key signs
// follows from the documents and the clock alone: the one with the highest number
// whose active_from has passed. So instances agree without talking to each other.
//
//	stored ──(Lead)── active_from ──(Rotation)── active_from of the next ──(TokenTTL)── gone
//	  published            signing                         retired
//
// The times hold while clocks differ by less than a minute and every instance
// calls [Store.Load] about once a minute: a verifier that keeps the key set for
// [MaxAge], fetched from an instance that has not loaded yet, knows a key before
// the first token that it signed ([MinLead]), and a key outlives its tokens by five
// minutes. The first key of an app is active at once: there is nobody who could
// know another.
//
// The number of a key and its kid are decided by one insert: the kid follows from
// the app's salt, algorithm, keys_epoch and the number, so instances that make the
// same key at once meet at its _id, and the losers take the winner's.
//
// # What can be trusted
//
// The database is not. A key is accepted only when its private part opens under
// the app's sealing key for exactly this document, and belongs to the public one.
// Whoever can write to the collection and has no secret key can end keys, and
// cannot add one or read one.
package signing

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/keys"
)

// Collection holds the keys of all apps, one document each.
const Collection = "signing_keys"

const (
	// MaxAge is how long a verifier may keep the key set: the max-age of its
	// Cache-Control.
	MaxAge = 5 * time.Minute
	// MinLead is the least Config.Lead: MaxAge, a minute in which an instance may
	// not have loaded, and a minute by which clocks may differ.
	MinLead = MaxAge + 2*time.Minute
	// margin is how long a key outlives the last token that it can have signed: it
	// covers clocks that differ and instances that learn of its successor late.
	margin = 5 * time.Minute
	// unknownInterval is how often a kid that nobody knows may make an instance
	// read the collection.
	unknownInterval = 2 * time.Second
)

// Errors of this package, besides those of the store.
var (
	// ErrUnusable says that a stored key cannot be used: it was sealed under a
	// secret key that is gone, or was altered. Either bring the older secret key
	// back behind the newest, or end the key, and with it its tokens, by
	// [Store.Revoke], which needs nothing of what is sealed.
	ErrUnusable = errors.New("signing key cannot be used")
	// ErrTooSoon says that keys were looked for just now, so that whether there is one
	// more is not known.
	ErrTooSoon = fmt.Errorf("the signing keys were read just now: %w", store.ErrUnavailable)
	// ErrUnknown says that the app has no key of that kid. It wraps
	// [store.ErrNotFound].
	ErrUnknown = fmt.Errorf("no such signing key: %w", store.ErrNotFound)
)

// Config configures a [Store].
type Config struct {
	// App is the slug, required.
	App string
	// Algorithm is [tokens.EdDSA], [tokens.ES256] or [tokens.RS256], required. Keys
	// of another one stay stored and are neither used nor accepted, so changing it
	// ends the tokens of the app.
	Algorithm string
	// Keys are the app's derived keys, required: private parts are sealed by them.
	Keys *keys.App
	// Salt is the app's random value of 16 bytes or more, required.
	Salt []byte
	// KeysEpoch is the app's epoch. Keys of a lower one are neither accepted nor
	// published. Where keys of a higher one are stored already, they count.
	KeysEpoch int64
	// Rotation is how long a key signs. 0 means until the command. Otherwise at
	// least twice Lead.
	Rotation time.Duration
	// TokenTTL is the longest life of a token, the leeway of its verification
	// included; required. A key remembers the longest that any instance had, so
	// that lowering it does not end tokens that live longer.
	TokenTTL time.Duration
	// Lead is how long a key is published before it signs. Default 10 min, at least
	// [MinLead].
	Lead time.Duration
	// Announce tells the other instances to load now. It is called once a command
	// has stored its change; where it fails, so does the command, which may be
	// repeated. Without it they follow with their next Load, so that a revoked key
	// is accepted for up to a minute more by them.
	Announce func(ctx context.Context) error
	// OnChange is given the new set whenever it differs from the last one. Calls
	// come one after the other. It must not call Load or a command.
	OnChange func(Set)
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Logger receives what an operator should know. Default slog.Default.
	Logger *slog.Logger
	// Events receives what happens to keys. Default none.
	Events event.Sink
}

// Set is what an instance signs and verifies with: an immutable snapshot.
type Set struct {
	// Signing is the key that signs. Its Private is nil where there is none: before
	// the first Load, and when the key was revoked and no other could be read.
	Signing tokens.SigningKey
	// Accepted are the keys whose tokens are accepted, the signing one first. No
	// other has a private part.
	Accepted []tokens.SigningKey
	// LoadedAt is when the read of the documents began.
	LoadedAt time.Time

	known map[string]bool // every kid that is stored, whether accepted or not
	// epoch and last are the keys_epoch of the keys, 0 before the first Load, and the
	// highest number among them.
	epoch, last int64
	jwks        keySet
}

// Store keeps the keys of one app. It is safe for concurrent use.
type Store struct {
	config Config
	coll   *mongo.Collection
	set    atomic.Pointer[Set]
	given  atomic.Pointer[Set] // the last set that OnChange has seen

	turn    chan struct{}     // held by who loads or changes; the next two are under it
	opened  map[string]opened // the keys of the last set, by kid
	foreign int               // how many documents were found that are none of the app's

	mu        sync.Mutex
	attempt   *attempt  // the last load for an unknown kid
	attempted time.Time // when it began
	failed    error     // why the one before came to nothing
}

// New returns the store of the app that config describes. It does no I/O: call
// EnsureIndexes once and Load before use.
func New(db *mongo.Database, config Config) (*Store, error) {
	config.Lead = cmp.Or(config.Lead, 10*time.Minute)
	if err := config.check(); err != nil {
		return nil, err
	}
	if config.Now == nil {
		config.Now = time.Now //nolint:forbidigo // the default of the injected clock
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	if config.Events == nil {
		config.Events = event.Discard{}
	}
	config.Salt = slices.Clone(config.Salt)
	s := &Store{config: config, coll: db.Collection(Collection), turn: make(chan struct{}, 1)}
	s.set.Store(&Set{jwks: emptyKeySet})
	s.given.Store(s.set.Load())
	return s, nil
}

func (c *Config) check() error {
	switch {
	case c.App == "" || c.Keys == nil || len(c.Salt) < 16:
		return errors.New("signing: an app, its keys and a salt of 16 bytes or more are required")
	case c.Algorithm != tokens.EdDSA && c.Algorithm != tokens.ES256 && c.Algorithm != tokens.RS256:
		return fmt.Errorf("signing: algorithm %q is none of %s, %s, %s", c.Algorithm, tokens.EdDSA, tokens.ES256, tokens.RS256)
	case c.TokenTTL <= 0:
		return errors.New("signing: the longest life of a token is required")
	case c.Lead < MinLead:
		return fmt.Errorf("signing: lead %s is below %s: verifiers would meet keys that they cannot know", c.Lead, MinLead)
	case c.Rotation != 0 && c.Rotation < 2*c.Lead:
		return fmt.Errorf("signing: rotation %s is below %s, twice the lead", c.Rotation, 2*c.Lead)
	default:
		return nil
	}
}

// EnsureIndexes makes sure of the collection's indexes. There is no TTL index
// among them, so ttl is always true: Load removes what is dead.
func (s *Store) EnsureIndexes(ctx context.Context) (ttl bool, err error) {
	return store.Indexes(ctx, s.coll, []store.Index{
		{Name: "app_retire", Keys: bson.D{{Key: "app", Value: 1}, {Key: "retire_at", Value: 1}}},
	})
}

// Current returns the set of the last Load, and an empty one before it. It neither
// waits nor allocates.
func (s *Store) Current() Set { return *s.set.Load() }

// lock waits for the turn to load or change. The returned function gives it back.
func (s *Store) lock(ctx context.Context) (unlock func(), err error) {
	select {
	case s.turn <- struct{}{}:
		return func() { <-s.turn }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the signing keys: %w", ctx.Err())
	}
}
