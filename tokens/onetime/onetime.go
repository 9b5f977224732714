// Package onetime keeps what works once: tokens that are mailed, codes that are
// typed in, marks that say that something was used, and quotas of how often such
// things may be asked for. One conditional write decides who uses it, whatever else
// happens at the same time.
//
// A token has 256 random bits and is stored as its SHA-256 alone (OWASP Forgot
// Password Cheat Sheet). Each belongs to one app and one purpose, ends by itself,
// and can be ended together with all others about the same subject.
package onetime

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"

	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/tokens/keys"
)

// Collection holds the tokens of every app.
const Collection = "onetime_tokens"

// Errors of this package. An error of the database wraps [store.ErrUnavailable].
var (
	// ErrInvalid says that the token or the code is none that can be used: it was not
	// issued for this app and this purpose, it has expired, or it was used or ended. It
	// does not say which.
	ErrInvalid = errors.New("one-time token is not valid")
	// ErrUsed says that what was claimed had been claimed before.
	ErrUsed = errors.New("used before")
)

// Purpose says what a token is for. One of another purpose is [ErrInvalid].
type Purpose string

// Token is what is known about a token that was presented.
type Token struct {
	Purpose Purpose `bson:"purpose"`
	// Subject is whom or what the token is about.
	Subject string `bson:"subject"`
	// Data is what was given when it was issued.
	Data map[string]string `bson:"data,omitempty"`
	// CreatedAt and ExpiresAt bound its life.
	CreatedAt time.Time `bson:"created_at"`
	ExpiresAt time.Time `bson:"expires_at"`
}

// record is a token as it is stored.
type record struct {
	ID    string `bson:"_id"`
	App   string `bson:"app"`
	Token `bson:",inline"`
	// Code is the MAC of the code that has to come with the token, and Tries how often
	// one was given.
	Code  string `bson:"code,omitempty"`
	Tries int    `bson:"tries"`
}

// Config configures a [Store].
type Config struct {
	// App is the slug, required.
	App string
	// Keys are the app's derived keys, required.
	Keys *keys.App
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Store is the one-time tokens of one app. It is safe for concurrent use.
type Store struct {
	config Config
	coll   *mongo.Collection
}

// New returns the one-time tokens of the app that config describes.
func New(db *mongo.Database, config Config) (*Store, error) {
	if config.App == "" || config.Keys == nil {
		return nil, errors.New("onetime: an app and its keys are required")
	}
	if config.Now == nil {
		config.Now = time.Now //nolint:forbidigo // the default of the injected clock
	}
	return &Store{config: config, coll: db.Collection(Collection)}, nil
}

// EnsureIndexes makes sure of the indexes. ttl is false when the server has no TTL
// indexes: then Sweep has to be called now and then.
func (s *Store) EnsureIndexes(ctx context.Context) (ttl bool, err error) {
	return store.Indexes(ctx, s.coll, []store.Index{
		{Name: "app_subject", Keys: bson.D{{Key: "app", Value: 1}, {Key: "subject", Value: 1}, {Key: "purpose", Value: 1}}},
		{Name: "expires_at", Keys: bson.D{{Key: "expires_at", Value: 1}}, TTL: true},
	})
}

// Sweep removes what has expired and returns how many.
func (s *Store) Sweep(ctx context.Context) (int64, error) {
	return store.Sweep(ctx, "sweep one-time tokens", s.coll, s.config.App, "expires_at", s.config.Now())
}

// Subject is a subject that must not be readable in the database, an address for
// example: its MAC.
func (s *Store) Subject(text string) string {
	return s.config.Keys.Identifiers(keys.OneTime, "subject/"+text)[0]
}

// digest is what a token is stored under.
func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// usable are the conditions for a token that can be used.
func (s *Store) usable(purpose Purpose, id string, more ...bson.E) bson.D {
	return append(bson.D{
		{Key: "_id", Value: id},
		{Key: "app", Value: s.config.App},
		{Key: "purpose", Value: purpose},
		{Key: "used_at", Value: bson.D{{Key: "$exists", Value: false}}},
		{Key: "expires_at", Value: bson.D{{Key: "$gt", Value: s.config.Now()}}},
	}, more...)
}
