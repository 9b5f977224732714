// Package apikey lets users give machines keys that act in their name.
//
// A key is "<prefix>_<secret><checksum>": 43 characters of base62 that hold 256
// random bits, and 6 that hold the CRC-32 (IEEE) of everything before them. Whoever
// looks for leaked secrets finds the keys of the default prefix with
//
//	\bmdk_[0-9A-Za-z]{49}\b
//
// and is sure when the checksum is right. The key is shown once: what is stored is
// its SHA-256, which is enough for 256 random bits, and the first four characters
// of the secret so that people can tell their keys apart.
//
// A key may do what its scopes and its owner may both. It dies with its expiry, its
// revocation, and for as long as its owner is disabled. [Store.Verify] remembers a
// key for at most [Remembered] and asks the blacklist on every use, so that a key
// that comes again costs no round trip and a revocation counts at once.
package apikey

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/table"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/keys"
)

// Errors of this package, besides those of [Store.Verify]. A database that does not
// answer within two seconds is store.ErrUnavailable: the outcome is open and the
// call may be repeated.
var (
	// ErrLimit says that the user has as many keys as the app allows. An expired or
	// revoked key does not count.
	ErrLimit = errors.New("API key limit reached")
	// ErrScope says that a key would have a scope that the app does not give to keys,
	// or that its owner may not give.
	ErrScope = errors.New("scope not allowed")
	// ErrOwner says that the account may have no keys: it is gone, disabled or a
	// guest's. What guests may do belongs to all of them and not to an account.
	ErrOwner = errors.New("account may not have API keys")
	// ErrNotFound says that the user has no such key.
	ErrNotFound = errors.New("no such API key")
	// ErrInvalidCursor says that a cursor is not of this list.
	ErrInvalidCursor = errors.New("invalid cursor")
	// ErrGone is what an [Accounts] answers for a user that may not sign in.
	ErrGone = errors.New("account gone or disabled")
)

const (
	// Remembered is how long a key that was looked up is not looked up again, unless
	// something about it or its owner is revoked.
	Remembered = time.Minute
	// Kept is how long a key is listed after its end.
	Kept = 30 * 24 * time.Hour
	// maxPerUser bounds Config.MaxPerUser.
	maxPerUser = 1000
	idPrefix   = "key_"
)

// Blacklist is the part of [tokens.Blacklist] that keys need.
type Blacklist interface {
	// AddAPIKey makes every instance look the key up again. It returns only after
	// that is stored and can be repeated.
	AddAPIKey(ctx context.Context, keyID, reason string) error
	// UserEpoch is the epoch below which the user's tokens are known to be revoked.
	UserEpoch(userID string) int64
	// CheckRemembered returns nil, [tokens.ErrOutdated] or an error that wraps
	// [tokens.ErrStale].
	CheckRemembered(ctx context.Context, m *tokens.Remembered) error
}

// Accounts answers whether a user may still sign in, by its id.
type Accounts interface {
	// Active returns the user's kind, or an error that wraps [ErrGone].
	Active(ctx context.Context, userID string) (authz.Kind, error)
}

// Config configures a [Store].
type Config struct {
	// App is the slug, required.
	App string
	// Collection holds the keys. Default "api_keys".
	Collection string
	// Prefix begins every key of the app: 2 to 16 lower case letters and digits, a
	// letter first. Default "mdk". Keys of another prefix are no longer accepted when
	// it is changed.
	Prefix string
	// MaxPerUser is how many keys of a user live at once, at most 1,000. Default 20.
	MaxPerUser int
	// DefaultTTL is the life of a key that is made without one. Zero means MaxTTL.
	DefaultTTL time.Duration
	// MaxTTL bounds the life of every new key. Zero means that a key may live until
	// it is revoked.
	MaxTTL time.Duration
	// AllowedScopes are the scopes that keys may have. Nil means any that the owner
	// may give; an empty list means none.
	AllowedScopes []string
	// Rights reports whether the owner may do what the scope stands for, and so give
	// it to a key. It is asked when a key is made and whenever one is looked up: a
	// scope that the owner lost is lost within [Remembered]. Required. What the owner
	// may at the moment is the guard's to ask.
	Rights func(ctx context.Context, userID, scope string) (bool, error)
	// Blacklist and Accounts are required.
	Blacklist Blacklist
	Accounts  Accounts
	// Keys are the app's derived keys, required. They authenticate page cursors.
	Keys *keys.App
	// Events receives what happens. Default none.
	Events event.Sink
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Logger is told when the use of keys cannot be noted. Default slog.Default.
	Logger *slog.Logger
	// Observe is told of each key whether it was remembered, for metrics. Default
	// nobody.
	Observe func(hit bool)
	// CacheSize is how many keys are remembered. Default 16,384; at some 600 bytes
	// each that is about 10 MiB when it is full.
	CacheSize int
}

func (c *Config) setDefaults() {
	c.Collection = cmp.Or(c.Collection, "api_keys")
	c.Prefix = cmp.Or(c.Prefix, "mdk")
	c.MaxPerUser = cmp.Or(c.MaxPerUser, 20)
	c.DefaultTTL = cmp.Or(c.DefaultTTL, c.MaxTTL)
	c.CacheSize = cmp.Or(c.CacheSize, 16<<10)
	if c.Events == nil {
		c.Events = event.Discard{}
	}
	if c.Now == nil {
		c.Now = time.Now //nolint:forbidigo // the default of the injected clock
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
}

func (c *Config) check() error {
	switch {
	case c.App == "":
		return errors.New("apikey: an app is required")
	case c.Blacklist == nil || c.Accounts == nil || c.Rights == nil || c.Keys == nil:
		return errors.New("apikey: blacklist, accounts, rights and keys are required")
	case !validPrefix(c.Prefix):
		return fmt.Errorf("apikey: prefix %q needs 2 to 16 lower case letters and digits, a letter first", c.Prefix)
	case c.MaxPerUser < 0 || c.MaxPerUser > maxPerUser:
		return fmt.Errorf("apikey: %d keys per user are not between 1 and %d", c.MaxPerUser, maxPerUser)
	case c.DefaultTTL < 0 || c.MaxTTL < 0 || c.CacheSize < 0:
		return errors.New("apikey: a limit is negative")
	case c.MaxTTL > 0 && c.DefaultTTL > c.MaxTTL:
		return fmt.Errorf("apikey: default TTL %s is over the maximum of %s", c.DefaultTTL, c.MaxTTL)
	}
	for _, scope := range c.AllowedScopes {
		if err := authz.CheckScope(scope); err != nil {
			return fmt.Errorf("apikey: allowed scope %q: %w", scope, err)
		}
	}
	return nil
}

// Store is the API keys of one app. It is safe for concurrent use.
type Store struct {
	config Config
	lead   string // what every key begins with
	coll   *mongo.Collection
	// table remembers the keys that were found good, by their digest.
	table *table.Table[digest, *entry]

	uses    chan use
	closing chan struct{}
	closed  sync.Once
	stop    context.CancelFunc
	ended   sync.WaitGroup
}

// New returns the keys of the app that config describes. Close ends the goroutine
// that notes their use.
func New(db *mongo.Database, config Config) (*Store, error) {
	if db == nil {
		return nil, errors.New("apikey: a database is required")
	}
	config.setDefaults()
	if err := config.check(); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Store{
		config: config, lead: config.Prefix + "_", coll: store.Handle(db).Collection(config.Collection),
		table: table.New[digest, *entry](config.CacheSize, table.ByDigest[digest]),
		uses:  make(chan use, useQueue), closing: make(chan struct{}), stop: stop,
	}
	s.ended.Go(func() { s.recordUses(ctx) })
	return s, nil
}

// EnsureIndexes makes sure of the collection's indexes. ttl is false when the server
// has no TTL indexes: then Sweep has to be called now and then.
func (s *Store) EnsureIndexes(ctx context.Context) (ttl bool, err error) {
	asc := func(fields ...string) (d bson.D) {
		for _, f := range fields {
			d = append(d, bson.E{Key: f, Value: 1})
		}
		return d
	}
	return store.Indexes(ctx, s.coll, []store.Index{
		{Name: "hash", Keys: asc("hash"), Unique: true},
		{Name: "app_owner_created", Keys: asc("app", "owner", "created_at", "_id")},
		// A key that lives holds one of its owner's slots. That no two hold the same
		// is what makes the limit hold, however many instances make keys at once.
		{Name: "app_owner_slot", Keys: asc("app", "owner", "slot"), Unique: true, Partial: bson.D{
			{Key: "slot", Value: bson.D{{Key: "$gte", Value: 0}}},
		}},
		{Name: "purge_at", Keys: asc("purge_at"), TTL: true},
	})
}

// Sweep removes the keys that ended longer than [Kept] ago and returns how many.
// Where the server has TTL indexes there is nothing left for it.
func (s *Store) Sweep(ctx context.Context) (int64, error) {
	return store.Sweep(ctx, "sweep API keys", s.coll, s.config.App, "purge_at", s.config.Now())
}

// APIKey is a key as its owner sees it. The secret is not in it.
type APIKey struct {
	ID    string `bson:"_id" json:"id"`
	Owner string `bson:"owner" json:"owner"`
	Name  string `bson:"name" json:"name"`
	// Prefix and Hint are what the key begins with: the hint is the first four
	// characters of the secret. They are no help in guessing: 232 of the 256 bits stay
	// unknown.
	Prefix string   `bson:"prefix" json:"prefix"`
	Hint   string   `bson:"hint" json:"hint"`
	Scopes []string `bson:"scopes,omitempty" json:"scopes,omitempty"`
	// CreatedAt is when the key was made.
	CreatedAt time.Time `bson:"created_at" json:"created_at"`
	// ExpiresAt is when the key ends by itself, zero for never.
	ExpiresAt time.Time `bson:"expires_at,omitempty" json:"expires_at,omitzero"`
	// LastUsedAt is when the key was last used, up to [UseInterval] ago; zero for
	// never.
	LastUsedAt time.Time `bson:"last_used_at,omitempty" json:"last_used_at,omitzero"`
	// RevokedAt is when the key was revoked and RevokedReason why; zero for a key
	// that was not.
	RevokedAt     time.Time `bson:"revoked_at,omitempty" json:"revoked_at,omitzero"`
	RevokedReason string    `bson:"revoked_reason,omitempty" json:"revoked_reason,omitempty"`
}

// record is a key as it is stored.
type record struct {
	APIKey `bson:",inline"`
	App    string `bson:"app"`
	Hash   string `bson:"hash"`
	// Slot is one of the places that the owner's living keys share.
	Slot *int `bson:"slot,omitempty"`
	// PurgeAt is when the document may be removed, zero for never.
	PurgeAt time.Time `bson:"purge_at,omitempty"`
}

// own is the filter for documents of one owner, with more conditions.
func (s *Store) own(owner string, more ...bson.E) bson.D {
	return append(bson.D{{Key: "app", Value: s.config.App}, {Key: "owner", Value: owner}}, more...)
}

// report sends an event. Its metadata names the key, where it is known.
func (s *Store) report(ctx context.Context, kind event.Type, owner, keyID, reason string) {
	e := event.Event{
		Type: kind, Result: event.Success, App: s.config.App, Time: s.config.Now(),
		UserID: owner, Reason: reason, Request: event.RequestFrom(ctx),
	}
	if keyID != "" {
		e.Metadata = map[string]string{"key_id": keyID}
	}
	if kind == event.APIKeyRefused {
		e.Result, e.IsM2M = event.Failure, true
	}
	s.config.Events.Record(ctx, e)
}
