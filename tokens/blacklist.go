package tokens

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/follow"
)

// Errors of a [Blacklist].
var (
	// ErrRevoked says that the token, its session or its user's tokens have been
	// revoked.
	ErrRevoked = errors.New("token revoked")
	// ErrStale says that this instance does not know recent revocations and
	// could not learn them. It wraps the cause; the token must not be let
	// through.
	ErrStale = errors.New("revocations unknown")
)

// RevocationKind says what an entry of the blacklist revokes.
type RevocationKind string

// The kinds of revocation.
const (
	// RevokedToken is one access token, by its "jti".
	RevokedToken RevocationKind = "token"
	// RevokedSession is one session, by its id.
	RevokedSession RevocationKind = "session"
	// RevokedUser is every token of a user that was issued below an epoch.
	RevokedUser RevocationKind = "user"
	// RevokedClient is every token of an OAuth 2.0 client that was issued below an
	// epoch.
	RevokedClient RevocationKind = "client"
	// RevokedAPIKey is an API key, by its id.
	RevokedAPIKey RevocationKind = "api_key"
)

// expiryMargin keeps an entry beyond the life of what it revokes: TTL indexes
// go by the server's clock, tokens by ours.
const expiryMargin = 5 * time.Minute

// Blacklist is one app's part of a [Feed]. It is safe for concurrent use.
type Blacklist struct {
	feed         *Feed
	keys         Freshness // nil for none
	app          string
	view         *view
	maxStaleness time.Duration
	leeway       time.Duration
	now          func() time.Time
}

// BlacklistConfig configures the part of one app.
type BlacklistConfig struct {
	// App is the slug, required.
	App string
	// MaxStaleness is how old this instance's knowledge may be before a check
	// waits for it to be renewed. Default 2 s.
	MaxStaleness time.Duration
	// Leeway is that of the app's tokens: an entry outlives them by it.
	Leeway time.Duration
	// Keys is what this instance knows of the keys that tokens are signed with, which
	// may be as old as the revocations: a key that is ended ends tokens, too. Nil for
	// keys that never change.
	Keys Freshness
}

// Freshness is knowledge that becomes old. It must be safe for concurrent use.
type Freshness interface {
	// FreshAt returns when it was last known to be current, as the time since the
	// process began by the process's own clock.
	FreshAt() time.Duration
	// Renew learns what is new, or returns an error when it cannot.
	Renew(ctx context.Context) error
}

// App returns the part of the app that config names.
func (f *Feed) App(config BlacklistConfig) (*Blacklist, error) {
	if config.App == "" {
		return nil, errors.New("blacklist: an app is required")
	}
	if config.MaxStaleness <= 0 {
		config.MaxStaleness = 2 * time.Second
	}
	return &Blacklist{
		feed: f, keys: config.Keys, app: config.App, view: f.viewOf(config.App),
		maxStaleness: config.MaxStaleness, leeway: config.Leeway, now: f.config.Now,
	}, nil
}

// Check returns nil when v has not been revoked, [ErrRevoked] when it has, and
// an error that wraps [ErrStale] and [store.ErrUnavailable] when this instance
// cannot know. It touches the database only when its knowledge is older than
// MaxStaleness, and then one read serves all who wait.
func (b *Blacklist) Check(ctx context.Context, v *Verified) error {
	if v == nil || v.claims.subject == "" {
		return ErrInvalid
	}
	if err := b.fresh(ctx); err != nil {
		return err
	}
	// The version is read before the entries: an entry that arrives in between
	// has a later version, and the next check looks again.
	version := b.view.version.Load() + 1
	if v.clean.Load() == version {
		return nil
	}
	if b.view.revokes(&v.claims) {
		return ErrRevoked
	}
	v.clean.Store(version)
	return nil
}

// fresh makes sure that this instance's knowledge is younger than the bound.
func (b *Blacklist) fresh(ctx context.Context) error {
	now := follow.Now()
	if now-b.feed.follow.FreshAt() > b.maxStaleness {
		if err := b.feed.follow.Renew(ctx); err != nil {
			return stale(err)
		}
	}
	if b.keys != nil && now-b.keys.FreshAt() > b.maxStaleness {
		if err := b.keys.Renew(ctx); err != nil {
			return stale(err)
		}
	}
	return nil
}

func stale(err error) error { return fmt.Errorf("%w: %w: %w", ErrStale, store.ErrUnavailable, err) }

// Age returns how old is what this instance knows of revocations, and of keys.
func (b *Blacklist) Age() time.Duration {
	at := b.feed.follow.FreshAt()
	if b.keys != nil {
		at = min(at, b.keys.FreshAt())
	}
	return follow.Now() - at
}

// AddToken revokes the access token with the id (its "jti") that ends at
// expiresAt. When it returns nil the revocation is stored by a majority, and
// this instance refuses the token.
func (b *Blacklist) AddToken(ctx context.Context, id string, expiresAt time.Time, reason string) error {
	return b.add(ctx, RevokedToken, id, 0, expiresAt, reason)
}

// AddSession revokes the tokens of a session, the last of which ends at
// accessExpiresAt.
func (b *Blacklist) AddSession(ctx context.Context, sessionID string, accessExpiresAt time.Time, reason string) error {
	return b.add(ctx, RevokedSession, sessionID, 0, accessExpiresAt, reason)
}

// AddUser revokes every token of the user that was issued in an epoch below
// epoch. No clocks are compared, so that a sign-in right after lives.
func (b *Blacklist) AddUser(ctx context.Context, userID string, epoch int64, reason string) error {
	return b.add(ctx, RevokedUser, userID, epoch, b.now().Add(MaxAccessTTL), reason)
}

// AddClient revokes every token of the client that was issued in an epoch below
// epoch, and makes every instance look up its secrets again.
func (b *Blacklist) AddClient(ctx context.Context, clientID string, epoch int64, reason string) error {
	return b.add(ctx, RevokedClient, clientID, epoch, b.now().Add(MaxAccessTTL), reason)
}

// AddAPIKey makes every instance look up the API key again, which has been revoked
// where it is stored.
func (b *Blacklist) AddAPIKey(ctx context.Context, keyID, reason string) error {
	return b.add(ctx, RevokedAPIKey, keyID, 0, b.now().Add(MaxAccessTTL), reason)
}

func (b *Blacklist) add(ctx context.Context, kind RevocationKind, id string, epoch int64, until time.Time, reason string) error {
	if id == "" {
		return fmt.Errorf("blacklist: revoke %s: an id is required", kind)
	}
	expires := store.Time(until.Add(b.leeway + expiryMargin))
	key := entryID(b.app, kind, id)
	filter := bson.M{"_id": key, "app": b.app}
	update := bson.M{
		"$max":         bson.M{"epoch": epoch, "expires_at": expires},
		"$currentDate": bson.M{"revoked_at": true},
		"$setOnInsert": bson.M{"kind": string(kind), "reason": reason, "created_at": store.Time(b.now())},
	}
	err := b.upsert(ctx, filter, update)
	if mongo.IsDuplicateKeyError(err) {
		// Two upserts of one entry met; now it is there.
		err = b.upsert(ctx, filter, update)
	}
	if err != nil {
		return store.Error("revoke "+string(kind), err)
	}
	b.view.apply(kind, id, entry{epoch: epoch, expires: expires})
	return nil
}

func (b *Blacklist) upsert(ctx context.Context, filter, update bson.M) error {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	_, err := b.feed.coll.UpdateOne(ctx, filter, update, options.Update().SetUpsert(true))
	return err
}

// Contains asks the database whether an entry for id is there and has not
// expired. For a user the entry's epoch is returned: tokens of lower epochs
// are revoked.
func (b *Blacklist) Contains(ctx context.Context, kind RevocationKind, id string) (found bool, epoch int64, err error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	var doc storedEntry
	err = b.feed.coll.FindOne(ctx, bson.M{
		"_id": entryID(b.app, kind, id), "app": b.app, "expires_at": bson.M{"$gt": b.now()},
	}).Decode(&doc)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return false, 0, nil
	}
	return err == nil, doc.Epoch, store.Error("look up a revocation", err)
}

// entryID is the "_id" of an entry. Slugs and kinds hold no "|", so that the
// first two parts are always told from the third.
func entryID(app string, kind RevocationKind, id string) string {
	return app + "|" + string(kind) + "|" + id
}
