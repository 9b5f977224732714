// Package oauth2 keeps the machines that may get tokens by the client credentials
// grant of OAuth 2.0 (RFC 6749 section 4.4), and reads and writes what they and the
// token, introspection and revocation endpoints say to each other. It serves no
// HTTP and issues no tokens.
//
// A client has up to two secrets, so that one can be replaced without an outage:
// after [Store.Rotate] the new and the previous one are accepted. Stored is only
// the SHA-256 of the client's id and the secret: a secret that is made here has 256
// random bits, one that comes from the environment needs 32 bytes.
//
// [Store.Authenticate] remembers a right secret for at most [Remembered] and asks
// the blacklist on every use, so that a token costs no round trip for its client and
// every change counts at once.
package oauth2

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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

// Errors of the clients' administration. Those that an endpoint answers are of type
// [Error]. A database that does not answer within two seconds is
// store.ErrUnavailable: the outcome is open and the call may be repeated.
var (
	// ErrNotFound says that there is no such client.
	ErrNotFound = errors.New("no such client")
	// ErrNameTaken says that another client of the app has the name.
	ErrNameTaken = errors.New("client name taken")
	// ErrLastSecret says that a client would be left without a secret: rotate first,
	// or disable it.
	ErrLastSecret = errors.New("a client needs a secret")
	// ErrConflict says that a client of the manifest is there with another id.
	ErrConflict = errors.New("client exists with another id")
	// ErrInvalidCursor says that a cursor is not of this list.
	ErrInvalidCursor = errors.New("invalid cursor")
)

const (
	// Remembered is how long a secret that was right is not looked up again, unless
	// something about its client has changed.
	Remembered = time.Minute
	// maxSecrets is how many secrets of a client are accepted at once.
	maxSecrets   = 2
	clientPrefix = "cli_"
	secretPrefix = "sec_"
)

// Blacklist is the part of [tokens.Blacklist] that clients need.
type Blacklist interface {
	// AddClient revokes the client's tokens of lower epochs and makes every instance
	// look its secrets up again. It returns only after that is stored and can be
	// repeated.
	AddClient(ctx context.Context, clientID string, epoch int64, reason string) error
	// CheckRemembered returns nil, [tokens.ErrOutdated] or an error that wraps
	// [tokens.ErrStale].
	CheckRemembered(ctx context.Context, m *tokens.Remembered) error
}

// Config configures a [Store].
type Config struct {
	// App is the slug, required.
	App string
	// Collection holds the clients. Default "oauth_clients".
	Collection string
	// AllowedScopes are the scopes that clients may have. Nil means any; an empty
	// list means none.
	AllowedScopes []string
	// DefaultTokenTTL is the life of the tokens of a client that has no other, at
	// most 24 hours: that is how long the revocation of a client is remembered.
	// Default 15 minutes.
	DefaultTokenTTL time.Duration
	// Blacklist is required.
	Blacklist Blacklist
	// Keys are the app's derived keys, required. They authenticate page cursors.
	Keys *keys.App
	// Events receives what happens. Default none.
	Events event.Sink
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// CacheSize is how many right secrets are remembered. Default 4,096.
	CacheSize int
}

func (c *Config) setDefaults() {
	c.Collection = cmp.Or(c.Collection, "oauth_clients")
	c.DefaultTokenTTL = cmp.Or(c.DefaultTokenTTL, 15*time.Minute)
	c.CacheSize = cmp.Or(c.CacheSize, 4<<10)
	if c.Events == nil {
		c.Events = event.Discard{}
	}
	if c.Now == nil {
		c.Now = time.Now //nolint:forbidigo // the default of the injected clock
	}
}

func (c *Config) check() error {
	switch {
	case c.App == "":
		return errors.New("oauth2: an app is required")
	case c.Blacklist == nil || c.Keys == nil:
		return errors.New("oauth2: blacklist and keys are required")
	case c.CacheSize < 0:
		return errors.New("oauth2: the cache size is negative")
	case c.DefaultTokenTTL < time.Second || c.DefaultTokenTTL > tokens.MaxAccessTTL:
		return fmt.Errorf("oauth2: token TTL %s is not between 1s and %s", c.DefaultTokenTTL, tokens.MaxAccessTTL)
	}
	for _, scope := range c.AllowedScopes {
		if err := authz.CheckScope(scope); err != nil {
			return fmt.Errorf("oauth2: allowed scope %q: %w", scope, err)
		}
	}
	return nil
}

// Store is the clients of one app. It is safe for concurrent use and has nothing to
// close.
type Store struct {
	config Config
	coll   *mongo.Collection
	// table remembers the secrets that were right, by their digest.
	table *table.Table[digest, *entry]
}

// New returns the clients of the app that config describes.
func New(db *mongo.Database, config Config) (*Store, error) {
	if db == nil {
		return nil, errors.New("oauth2: a database is required")
	}
	config.setDefaults()
	if err := config.check(); err != nil {
		return nil, err
	}
	return &Store{
		config: config, coll: store.Handle(db).Collection(config.Collection), table: table.New[digest, *entry](config.CacheSize, table.ByDigest[digest]),
	}, nil
}

// EnsureIndexes makes sure of the collection's indexes. ttl is always true: clients
// do not expire.
func (s *Store) EnsureIndexes(ctx context.Context) (ttl bool, err error) {
	return store.Indexes(ctx, s.coll, []store.Index{
		{Name: "app_name", Keys: bson.D{{Key: "app", Value: 1}, {Key: "name", Value: 1}}, Unique: true},
	})
}

// Status says whether a client may get tokens.
type Status string

// The statuses.
const (
	Active   Status = "active"
	Disabled Status = "disabled"
)

// Client is a machine that may get tokens, without its secrets.
type Client struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	// Scopes are what its tokens may have at most, in order.
	Scopes []string `json:"scopes"`
	// TokenTTL is the life of its tokens, in whole seconds.
	TokenTTL time.Duration `json:"-"`
	Status   Status        `json:"status"`
	// Epoch is what its tokens have to carry: those of a lower one are revoked.
	Epoch     int64     `json:"-"`
	CreatedAt time.Time `json:"created_at"`
	// Secrets are those that are accepted, the newest last.
	Secrets []Secret `json:"secrets"`
}

// Secret tells of a secret without showing it.
type Secret struct {
	ID        string    `json:"id"`
	CreatedAt time.Time `json:"created_at"`
}

// record is a client as it is stored.
type record struct {
	ID     string   `bson:"_id"`
	App    string   `bson:"app"`
	Name   string   `bson:"name"`
	Scopes []string `bson:"scopes,omitempty"`
	// TokenTTL is in seconds, absent for Config.DefaultTokenTTL.
	TokenTTL int64  `bson:"token_ttl,omitempty"`
	Status   Status `bson:"status"`
	// Epoch is raised when tokens have to end, SecretsEpoch when a secret does.
	Epoch        int64          `bson:"epoch"`
	SecretsEpoch int64          `bson:"secrets_epoch"`
	Secrets      []storedSecret `bson:"secrets"`
	CreatedAt    time.Time      `bson:"created_at"`
}

type storedSecret struct {
	ID        string    `bson:"id"`
	Hash      string    `bson:"hash"`
	CreatedAt time.Time `bson:"created_at"`
}

// client is what r shows.
func (s *Store) client(r *record) *Client {
	c := &Client{
		ID: r.ID, Name: r.Name, Scopes: append([]string{}, r.Scopes...), Status: r.Status, Epoch: r.Epoch,
		TokenTTL: cmp.Or(time.Duration(r.TokenTTL)*time.Second, s.config.DefaultTokenTTL), CreatedAt: r.CreatedAt,
	}
	for _, x := range r.Secrets {
		c.Secrets = append(c.Secrets, Secret{ID: x.ID, CreatedAt: x.CreatedAt})
	}
	return c
}

// byID is the filter for one client of this app, with more conditions.
func (s *Store) byID(id string, more ...bson.E) bson.D {
	return append(bson.D{{Key: "_id", Value: id}, {Key: "app", Value: s.config.App}}, more...)
}

// report sends an event.
func (s *Store) report(ctx context.Context, kind event.Type, clientID, reason string) {
	result := event.Success
	if kind == event.ClientRefused {
		result = event.Failure
	}
	s.config.Events.Record(ctx, event.Event{
		Type: kind, Result: result, App: s.config.App, Time: s.config.Now(),
		ClientID: clientID, IsM2M: kind == event.ClientRefused, Reason: reason, Request: event.RequestFrom(ctx),
	})
}
