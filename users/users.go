// Package users keeps the accounts of an app: people, guests and demo users,
// their passwords and their profiles. Every operation belongs to one app and
// reaches no other's accounts.
package users

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/tokens/keys"
)

// Errors of this package. An error of the database wraps
// [store.ErrUnavailable].
var (
	// ErrNotFound says that the app has no such user.
	ErrNotFound = errors.New("no such user")
	// ErrEmailTaken says that the address belongs to another user of the app.
	ErrEmailTaken = errors.New("e-mail address taken")
	// ErrInvalidCredentials says that no user has this address and password. It
	// does not say which of the two is wrong.
	ErrInvalidCredentials = errors.New("invalid credentials")
	// ErrDisabled says that the account is disabled. It comes only after the
	// right password.
	ErrDisabled = errors.New("account disabled")
	// ErrUnverified says that the app lets people in only once their address is
	// verified. It comes only after the right password.
	ErrUnverified = errors.New("e-mail address not verified")
	// ErrLastCredential says that the account could not be signed in to any more.
	ErrLastCredential = errors.New("last way to sign in")
	// ErrLinkLimit says that the account has as many identities as it may have.
	ErrLinkLimit = fmt.Errorf("an account has at most %d identities", MaxLinks)
	// ErrChanged says that the account changed during a sign-in, which has to
	// start again.
	ErrChanged = errors.New("account changed meanwhile")
	// ErrBusy says that more passwords are being checked than the machine can
	// hash. It wraps [store.ErrUnavailable]: the caller may try again.
	ErrBusy = fmt.Errorf("too many passwords at once: %w", store.ErrUnavailable)
	// ErrInvalidCursor says that a page cursor was not issued for this list.
	ErrInvalidCursor = errors.New("invalid cursor")
)

// LockedError says that an identifier has been guessed at too often. It is the
// same whether the password was right.
type LockedError struct {
	// RetryAfter is when the next attempt will be taken, from now.
	RetryAfter time.Duration
}

func (e *LockedError) Error() string { return "account locked for " + e.RetryAfter.String() }

// FieldError says what is wrong with a value that was given.
type FieldError struct {
	// Field is the name of the member, "email" or "profile.nickname".
	Field string
	// Code is "invalid_field" or one of the codes of passwords.
	Code string
	// Message says what to do, for people.
	Message string
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Message }

// CodeInvalidField is the code of a [FieldError] that has no other.
const CodeInvalidField = "invalid_field"

func invalid(field, format string, args ...any) error {
	return &FieldError{Field: field, Code: CodeInvalidField, Message: fmt.Sprintf(format, args...)}
}

// Status says whether an account may be used.
type Status string

// The statuses.
const (
	Active   Status = "active"
	Disabled Status = "disabled"
)

// User is an account as it is shown. It never holds the password's hash.
type User struct {
	ID string `bson:"_id" json:"id"`
	// Email is the address as it was typed; comparisons use its normal form.
	Email         string         `bson:"email,omitempty" json:"email,omitempty"`
	EmailVerified bool           `bson:"email_verified" json:"email_verified"`
	Kind          authz.Kind     `bson:"kind" json:"kind"`
	Status        Status         `bson:"status" json:"status"`
	Profile       map[string]any `bson:"profile,omitempty" json:"profile,omitempty"`
	CreatedAt     time.Time      `bson:"created_at" json:"created_at"`
	UpdatedAt     time.Time      `bson:"updated_at" json:"updated_at"`

	owner int64 // of the record
}

// DeviceSubject is what device tokens of the account are issued for: its id, and for a
// later owner something else. Who has made it with somebody else's address keeps no device
// of the owner's.
func (u *User) DeviceSubject() string {
	if u.owner == 0 {
		return u.ID
	}
	return u.ID + "/" + strconv.FormatInt(u.owner, 10)
}

// record is a user as it is stored.
type record struct {
	User         `bson:",inline"`
	App          string `bson:"app"`
	EmailNorm    string `bson:"email_norm,omitempty"`
	PasswordHash string `bson:"password_hash,omitempty"`
	DeviceHash   string `bson:"device_hash,omitempty"`
	// Links are the identities of other providers that sign in here: see [LinkOf].
	Links []string `bson:"links,omitempty"`
	// PasswordChanges counts them: a hash that is renewed is the same password.
	PasswordChanges int64 `bson:"password_changes,omitempty"`
	// ResetStamp is the stamp that the last reset of the password was proved by.
	ResetStamp string `bson:"reset_stamp,omitempty"`
	// Owner counts how often the account has got another owner: see [Store.Reclaim].
	Owner int64 `bson:"owner,omitempty"`
	// Handover says that the account is getting another owner. Until that has ended, which
	// whoever proves the address does, nobody is let in.
	Handover bool `bson:"handover,omitempty"`
}

// SessionEnder ends the sessions of a user whose account changes.
type SessionEnder interface {
	EndAll(ctx context.Context, userID, reason string) error
	EndOthers(ctx context.Context, userID, keep, reason string) error
	Forget(ctx context.Context, userID string) error
}

// RoleKeeper gives accounts what they may do.
type RoleKeeper interface {
	// Welcome gives a new account its roles. It comes before the account is
	// stored, so that nobody is there without them; the id is in nobody's hands
	// yet. The address is "" for an account without one, and trusted when the
	// service itself has named it.
	Welcome(ctx context.Context, userID, emailNorm string, trusted bool) error
	// Verified gives an account what its address entitles it to. It is repeated when a
	// call was not answered.
	Verified(ctx context.Context, userID, emailNorm string) error
	// Dispossess takes away what lets the owner of before act for the account, its API
	// keys, and tells the owner that there is now. The roles stay. It may be repeated.
	Dispossess(ctx context.Context, userID string) error
	// Forget takes everything from an account that goes.
	Forget(ctx context.Context, userID string) error
}

// DeviceTokens recognises devices that an account was used on.
type DeviceTokens interface {
	// Verify returns the device's id, "" when the token was not issued for the subject:
	// see [User.DeviceSubject].
	Verify(subject, token string) string
}

// BreachChecker asks a collection of passwords that have been stolen elsewhere.
type BreachChecker interface {
	// Breached reports whether the password is in the collection.
	Breached(ctx context.Context, password string) (bool, error)
}

// Config configures a [Store].
type Config struct {
	// App is the slug, required.
	App string
	// Collection holds the users. Default "users".
	Collection string
	// Password is what a new password has to satisfy.
	Password Policy
	// BcryptCost is the cost of new hashes. Default 12.
	BcryptCost int
	// Lockout bounds guessing.
	Lockout Lockout
	// Hasher hashes for all apps of the process, required.
	Hasher *Hasher
	// Keys are the app's derived keys, required.
	Keys *keys.App
	// Devices and Sessions are required.
	Devices  DeviceTokens
	Sessions SessionEnder
	// Roles gives new people and demo users their roles. Default none.
	Roles RoleKeeper
	// RequireVerified lets people in only once their address is verified.
	RequireVerified bool
	// KeepOtherSessions leaves the other sessions alive when the user changes
	// the password.
	KeepOtherSessions bool
	// Context are words that a password may not consist of, besides the slug and
	// the user's address: the app's name.
	Context []string
	// Breach is asked about new passwords when Password.Breach is not off.
	Breach BreachChecker
	// Events receives what happens. Default none.
	Events event.Sink
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Lockout bounds the guesses at one identifier.
type Lockout struct {
	// MaxFailures is how many wrong passwords are hashed in a Window.
	// Default 10.
	MaxFailures int
	// Window is how long failures count. Default 15 minutes.
	Window time.Duration
	// Duration is how long an identifier is locked after MaxFailures.
	// Default 15 minutes.
	Duration time.Duration
	// Wait is how long an attempt waits while all that is left of MaxFailures is
	// under way, before it is [ErrBusy]. Default 2 s.
	Wait time.Duration
}

// AttemptsCollection counts the attempts to sign in.
const AttemptsCollection = "login_attempts"

// Store is the accounts of one app. It is safe for concurrent use.
type Store struct {
	config   Config
	users    *mongo.Collection
	attempts *mongo.Collection
	// dummy is compared with where there is no hash, so that every attempt
	// costs the same.
	dummy string
}

// New returns the accounts of the app that config describes.
func New(db *mongo.Database, config Config) (*Store, error) {
	switch {
	case config.App == "":
		return nil, errors.New("users: an app is required")
	case config.Hasher == nil || config.Keys == nil || config.Devices == nil || config.Sessions == nil:
		return nil, errors.New("users: hasher, keys, devices and sessions are required")
	}
	config.Password.setDefaults()
	if config.Password.Breach != BreachOff && config.Breach == nil {
		return nil, errors.New("users: the policy asks for a breach check and there is no checker")
	}
	config.Collection = cmp.Or(config.Collection, "users")
	config.BcryptCost = cmp.Or(config.BcryptCost, 12)
	config.Lockout.MaxFailures = cmp.Or(config.Lockout.MaxFailures, 10)
	config.Lockout.Window = cmp.Or(config.Lockout.Window, 15*time.Minute)
	config.Lockout.Duration = cmp.Or(config.Lockout.Duration, 15*time.Minute)
	config.Lockout.Wait = cmp.Or(config.Lockout.Wait, 2*time.Second)
	if config.Events == nil {
		config.Events = event.Discard{}
	}
	if config.Now == nil {
		config.Now = time.Now //nolint:forbidigo // the default of the injected clock
	}
	dummy, err := config.Hasher.dummy(config.BcryptCost)
	if err != nil {
		return nil, fmt.Errorf("users: %w", err)
	}
	return &Store{
		config: config, users: db.Collection(config.Collection), attempts: db.Collection(AttemptsCollection), dummy: dummy,
	}, nil
}

// EnsureIndexes makes sure of the indexes. ttl is false when the server has no
// TTL indexes: then Sweep has to be called now and then.
func (s *Store) EnsureIndexes(ctx context.Context) (ttl bool, err error) {
	if _, err := store.Indexes(ctx, s.users, []store.Index{
		{
			Name: "app_email", Keys: bson.D{{Key: "app", Value: 1}, {Key: "email_norm", Value: 1}}, Unique: true,
			Partial: bson.D{{Key: "email_norm", Value: bson.D{{Key: "$gt", Value: ""}}}},
		},
		{
			Name: "app_kind_device", Keys: bson.D{{Key: "app", Value: 1}, {Key: "kind", Value: 1}, {Key: "device_hash", Value: 1}}, Unique: true,
			Partial: bson.D{{Key: "device_hash", Value: bson.D{{Key: "$gt", Value: ""}}}},
		},
		{Name: "app_created", Keys: bson.D{{Key: "app", Value: 1}, {Key: "created_at", Value: 1}, {Key: "_id", Value: 1}}},
	}); err != nil {
		return false, err
	}
	return store.Indexes(ctx, s.attempts, []store.Index{
		{Name: "expires_at", Keys: bson.D{{Key: "expires_at", Value: 1}}, TTL: true},
	})
}

// Sweep removes counters of attempts whose time is over and returns how many.
func (s *Store) Sweep(ctx context.Context) (int64, error) {
	return store.Sweep(ctx, "sweep login attempts", s.attempts, s.config.App, "expires_at", s.config.Now())
}

// Get returns the user with the id. The error is [ErrNotFound].
func (s *Store) Get(ctx context.Context, id string) (*User, error) {
	r, err := s.read(ctx, bson.M{"_id": id, "app": s.config.App})
	if err != nil {
		return nil, err
	}
	return &r.User, nil
}

// GetByEmail returns the user with the address, however it is spelt. The error
// is [ErrNotFound], or a [FieldError] for a text that is no address.
func (s *Store) GetByEmail(ctx context.Context, email string) (*User, error) {
	r, err := s.readByEmail(ctx, email)
	if err != nil {
		return nil, err
	}
	return &r.User, nil
}

func (s *Store) readByEmail(ctx context.Context, email string) (*record, error) {
	norm, err := NormalizeEmail(email)
	if err != nil {
		return nil, err
	}
	return s.readByNorm(ctx, norm)
}

// readByNorm returns the account whose address is norm as NormalizeEmail has it.
func (s *Store) readByNorm(ctx context.Context, norm string) (*record, error) {
	return s.read(ctx, bson.M{"app": s.config.App, "email_norm": norm})
}

// Active returns the kind of the user with the id. The error is [ErrNotFound],
// [ErrDisabled] or [ErrUnverified].
func (s *Store) Active(ctx context.Context, id string) (authz.Kind, error) {
	r, err := s.read(ctx, bson.M{"_id": id, "app": s.config.App})
	if err != nil {
		return "", err
	}
	if err := s.admissible(r); err != nil {
		return "", err
	}
	return r.Kind, nil
}

// admissible says whether the account may be used: the same on every way in.
func (s *Store) admissible(r *record) error {
	switch {
	case r.Status != Active:
		return ErrDisabled
	case r.Handover && !r.EmailVerified:
		return ErrUnverified // sessions and keys of the owner before may live still
	case s.config.RequireVerified && r.Kind == authz.KindHuman && !r.EmailVerified:
		return ErrUnverified
	default:
		return nil
	}
}

func (s *Store) read(ctx context.Context, filter bson.M) (*record, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	var r record
	err := s.users.FindOne(ctx, filter).Decode(&r)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, store.Error("read the user", err)
	}
	r.User.owner = r.Owner
	return &r, nil
}

// report sends an event.
func (s *Store) report(ctx context.Context, kind event.Type, result event.Result, userID, reason string) {
	s.config.Events.Record(ctx, event.Event{
		Type: kind, Result: result, App: s.config.App, Time: s.config.Now(),
		UserID: userID, Reason: reason, Request: event.RequestFrom(ctx),
	})
}
