// Package identity decides whom an identity of another provider signs in.
//
// An identity is a provider and the subject that it calls a person by, never an e-mail
// address (ASVS 5.0, 6.8.1; OpenID Connect Core section 5.7). Addresses are looked at
// once, when somebody arrives for the first time, and only when both sides have
// verified them. An account whose address nobody has verified was not made by its owner
// as far as anybody knows: the owner who arrives gets it without the password, the
// sessions and the identities of whoever made it.
package identity

import (
	"context"
	"errors"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/tokens/keys"
	"github.com/mandate-auth/mandate/users"
)

// Collection holds the identities of every app.
const Collection = "identities"

// Errors of this package. An error of the database wraps [store.ErrUnavailable].
var (
	// ErrNoAccount says that nobody has an account for the identity and that none is
	// made by signing in.
	ErrNoAccount = errors.New("no account for the identity")
	// ErrAccountExists says that an account has the address of the identity and that the
	// policy does not link the two: its owner signs in and links the identity there.
	ErrAccountExists = errors.New("an account has this address")
	// ErrTaken says that the identity signs in to another account.
	ErrTaken = errors.New("identity belongs to another account")
	// ErrLinkForbidden says that the policy does not admit the link.
	ErrLinkForbidden = errors.New("identities may not be linked this way")
	// ErrIssuer says that the identity was made by another issuer under the provider's
	// name.
	ErrIssuer = errors.New("identity of another issuer")
)

// Policy says when an identity and an account that is there become one.
type Policy string

// The policies.
const (
	// LinkVerified links when both the provider and the app have verified the same
	// address.
	LinkVerified Policy = "verified_email"
	// LinkSignedIn links while the owner of the account is signed in, and only then.
	LinkSignedIn Policy = "signed_in"
	// LinkNever links nothing: an identity has an account of its own or none.
	LinkNever Policy = "never"
)

// Arrival is somebody whom a provider has identified.
type Arrival struct {
	// Provider is the name in the manifest; Issuer and Subject are the provider's.
	Provider, Issuer, Subject string
	// Email is the address as the provider knows it, and EmailVerified its word that it
	// is the person's.
	Email         string
	EmailVerified bool
	// Profile becomes that of a new account, and is kept with the identity.
	Profile map[string]any
	// Tokens are what the provider issued, as text to be sealed. Empty keeps none.
	Tokens []byte
	// Guest is the id of the guest who arrives, who becomes the person. Empty for nobody.
	Guest string
}

func (a *Arrival) link() string { return users.LinkOf(a.Provider, a.Subject) }

// Identity is an identity as it is shown.
type Identity struct {
	Provider      string         `bson:"provider" json:"provider"`
	Subject       string         `bson:"subject" json:"subject"`
	Issuer        string         `bson:"issuer,omitempty" json:"issuer,omitempty"`
	Email         string         `bson:"email,omitempty" json:"email,omitempty"`
	EmailVerified bool           `bson:"email_verified" json:"email_verified"`
	Profile       map[string]any `bson:"profile,omitempty" json:"profile,omitempty"`
	LinkedAt      time.Time      `bson:"linked_at" json:"linked_at"`
}

type record struct {
	ID     string `bson:"_id"`
	App    string `bson:"app"`
	UserID string `bson:"user_id"`
	// Version changes whenever the identity is linked, also where it was there already: so
	// an unlinking that is late does not remove what was linked after it.
	Version  string `bson:"version"`
	Identity `bson:",inline"`
	// Tokens are sealed.
	Tokens string `bson:"tokens,omitempty"`
}

// Config configures a [Store].
type Config struct {
	// App is the slug, required.
	App string
	// Users are the accounts, and Keys the app's derived keys, required.
	Users *users.Store
	Keys  *keys.App
	// Link is the policy. Default LinkVerified.
	Link Policy
	// CreateUsers makes accounts for people who arrive for the first time.
	CreateUsers bool
	// SignsInByMail says that the app signs in by mail, so that an account with a
	// verified address is never without a way in.
	SignsInByMail bool
	// Linked and Removed are told about changes of an account, to tell its owner. Each
	// may be nil.
	Linked, Removed func(ctx context.Context, userID, provider string) error
	// Events receives what happens. Default none.
	Events event.Sink
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Store is the identities of one app. It is safe for concurrent use.
type Store struct {
	config Config
	coll   *mongo.Collection
}

// New returns the identities of the app that config describes.
func New(db *mongo.Database, config Config) (*Store, error) {
	if config.App == "" || config.Users == nil || config.Keys == nil {
		return nil, errors.New("identity: an app, its users and its keys are required")
	}
	switch config.Link {
	case "":
		config.Link = LinkVerified
	case LinkVerified, LinkSignedIn, LinkNever:
	default:
		return nil, errors.New("identity: unknown policy for links")
	}
	if config.Events == nil {
		config.Events = event.Discard{}
	}
	if config.Now == nil {
		config.Now = time.Now //nolint:forbidigo // the default of the injected clock
	}
	return &Store{config: config, coll: db.Collection(Collection)}, nil
}

// EnsureIndexes makes sure of the indexes. There is nothing that expires.
func (s *Store) EnsureIndexes(ctx context.Context) (ttl bool, err error) {
	return store.Indexes(ctx, s.coll, []store.Index{
		{Name: "app_user", Keys: bson.D{{Key: "app", Value: 1}, {Key: "user_id", Value: 1}}},
	})
}

// id is what an identity is stored under. Neither a slug nor a provider's name holds
// the separator, so no two identities have one id.
func (s *Store) id(provider, subject string) string {
	return s.config.App + "|" + users.LinkOf(provider, subject)
}

// read returns the identity, nil where there is none.
func (s *Store) read(ctx context.Context, a *Arrival) (*record, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	var r record
	err := s.coll.FindOne(ctx, bson.M{"_id": s.id(a.Provider, a.Subject), "app": s.config.App},
		options.FindOne().SetProjection(bson.M{"profile": 0, "tokens": 0})).Decode(&r)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil, nil //nolint:nilnil // nobody is an answer, not an error
	}
	if err != nil {
		return nil, store.Error("read the identity", err)
	}
	if r.Issuer != a.Issuer {
		return nil, ErrIssuer
	}
	return &r, nil
}

// insert stores that the identity is one of the user. The error is ErrTaken when it is
// another's.
func (s *Store) insert(ctx context.Context, userID string, a *Arrival) error {
	r := &record{ID: s.id(a.Provider, a.Subject), App: s.config.App, UserID: userID, Version: store.NewID(""), Identity: Identity{
		Provider: a.Provider, Subject: a.Subject, Issuer: a.Issuer, Email: a.Email, EmailVerified: a.EmailVerified,
		Profile: a.Profile, LinkedAt: store.Time(s.config.Now()),
	}}
	if len(a.Tokens) > 0 {
		r.Tokens = s.config.Keys.Seal(Collection+"|"+r.ID+"|tokens", a.Tokens)
	}
	ctx, cancel := store.Context(context.WithoutCancel(ctx))
	defer cancel()
	_, err := s.coll.InsertOne(ctx, r)
	err = store.Error("store the identity", err)
	if !errors.Is(err, store.ErrDuplicate) {
		return err
	}
	res, err := s.coll.UpdateOne(ctx, bson.M{"_id": r.ID, "app": s.config.App, "user_id": userID}, bson.M{"$set": bson.M{"version": r.Version}})
	if err != nil {
		return store.Error("store the identity", err)
	}
	if res.MatchedCount == 0 {
		return ErrTaken
	}
	return nil
}

// version returns which version of the identity the user has. The error is
// [users.ErrNotFound] for none.
func (s *Store) version(ctx context.Context, id, userID string) (string, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	var r record
	err := s.coll.FindOne(ctx, bson.M{"_id": id, "app": s.config.App, "user_id": userID},
		options.FindOne().SetProjection(bson.M{"version": 1})).Decode(&r)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return "", users.ErrNotFound
	}
	return r.Version, store.Error("read the identity", err)
}

// drop removes the version of an identity of the user.
func (s *Store) drop(ctx context.Context, id, userID, version string) error {
	ctx, cancel := store.Context(context.WithoutCancel(ctx))
	defer cancel()
	filter := bson.M{"_id": id, "app": s.config.App, "user_id": userID, "version": version}
	if version == "" {
		filter["version"] = bson.M{"$exists": false}
	}
	_, err := s.coll.DeleteOne(ctx, filter)
	return store.Error("remove the identity", err)
}

// Forget removes the identities of a user who is deleted, or who has lost them all.
func (s *Store) Forget(ctx context.Context, userID string) error {
	ctx, cancel := store.Context(context.WithoutCancel(ctx))
	defer cancel()
	_, err := s.coll.DeleteMany(ctx, bson.M{"app": s.config.App, "user_id": userID})
	return store.Error("forget identities", err)
}

func (s *Store) report(ctx context.Context, kind event.Type, userID, reason string) {
	s.config.Events.Record(ctx, event.Event{
		Type: kind, Result: event.Success, App: s.config.App, Time: s.config.Now(), UserID: userID, Reason: reason, Request: event.RequestFrom(ctx),
	})
}
