// Package invitation lets people in who were invited: an invitation names an address and
// a role, is mailed as a link, and makes one account.
package invitation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/mail"
	"github.com/mandate-auth/mandate/tokens/keys"
	"github.com/mandate-auth/mandate/tokens/onetime"
	"github.com/mandate-auth/mandate/users"
	"github.com/mandate-auth/mandate/users/recovery"
)

// Collection holds the invitations of every app.
const Collection = "invitations"

// Purpose is that of the tokens in the links.
const Purpose onetime.Purpose = "invitation"

const (
	idPrefix = "inv_"
	// kept is how long an invitation is shown after its end.
	kept = 30 * 24 * time.Hour
	// maxLife is the longest that an invitation can be good for.
	maxLife = 90 * 24 * time.Hour
)

// Errors of this package. An error of the database wraps [store.ErrUnavailable].
var (
	// ErrNotFound says that the app has no such invitation, or that it is over.
	ErrNotFound = errors.New("no such invitation")
	// ErrInvalid says that the token is not that of an invitation that can be accepted.
	ErrInvalid = errors.New("the invitation is not valid any more")
	// ErrInvalidCursor says that a page cursor was not issued for this list.
	ErrInvalidCursor = errors.New("invalid cursor")
)

// State is what has become of an invitation.
type State string

// The states. One that has expired is pending and over.
const (
	Pending  State = "pending"
	Accepted State = "accepted"
	Revoked  State = "revoked"
)

// Invitation is an invitation as it is shown.
type Invitation struct {
	ID    string `bson:"_id" json:"id"`
	Email string `bson:"email" json:"email"`
	// Role is what the account gets besides what everybody has, "" for nothing.
	Role string `bson:"role,omitempty" json:"role,omitempty"`
	// InvitedBy is as in [NewInvitation].
	InvitedBy string    `bson:"invited_by" json:"invited_by"`
	State     State     `bson:"state" json:"state"`
	CreatedAt time.Time `bson:"created_at" json:"created_at"`
	ExpiresAt time.Time `bson:"ends_at" json:"expires_at"`
	// UserID is the account that it has made, or was to make when a call failed half way.
	UserID string `bson:"user_id,omitempty" json:"user_id,omitempty"`
}

type record struct {
	Invitation `bson:",inline"`
	App        string `bson:"app"`
	EmailNorm  string `bson:"email_norm"`
	// Made says that the account was stored: no other is made, also when it goes.
	Made bool `bson:"made,omitempty"`
	// Reclaims says that UserID was somebody else's before, whose profile has to go.
	Reclaims bool `bson:"reclaims,omitempty"`
	// Owed says that UserID was there before it was invited, and still has to get the role.
	Owed bool `bson:"owed,omitempty"`
	// PurgeAt is when the database may forget it.
	PurgeAt time.Time `bson:"expires_at"`
}

// Config configures a [Store]. What has no default is required.
type Config struct {
	// App is the slug.
	App    string
	Users  *users.Store
	Tokens *onetime.Store
	Keys   *keys.App
	// Outbox sends the mails, which Mails puts into words.
	Outbox recovery.Outbox
	Mails  *recovery.Service
	// Page is the page of the service that the link opens.
	Page string
	// Life is how long an invitation is good for. Default 7 days, at most 90.
	Life time.Duration
	// Grant gives an account a role. It may be repeated.
	Grant func(ctx context.Context, userID, role string) error
	// MayInvite reports whether invitedBy may still invite to the role, "" for none. It is
	// asked when an invitation is accepted. Default: every invitation stands.
	MayInvite func(ctx context.Context, invitedBy, role string) (bool, error)
	// Language is that of mails to people who were invited without one. Default "en".
	Language string
	// Events receives what happens. Default none.
	Events event.Sink
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Store is the invitations of one app. It is safe for concurrent use.
type Store struct {
	config Config
	coll   *mongo.Collection
}

// New returns the invitations of the app that config describes.
func New(db *mongo.Database, config Config) (*Store, error) {
	if config.App == "" || config.Users == nil || config.Tokens == nil || config.Keys == nil || config.Outbox == nil || config.Mails == nil || config.Grant == nil {
		return nil, errors.New("invitation: app, users, tokens, keys, outbox, mails and grant are required")
	}
	if config.Life == 0 {
		config.Life = 7 * 24 * time.Hour
	}
	if config.Life < 0 || config.Life > maxLife {
		return nil, fmt.Errorf("invitation: a life of %s is not between 0 and %s", config.Life, maxLife)
	}
	if config.Language == "" {
		config.Language = "en"
	}
	if config.Events == nil {
		config.Events = event.Discard{}
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
		{Name: "app_created", Keys: bson.D{{Key: "app", Value: 1}, {Key: "created_at", Value: 1}, {Key: "_id", Value: 1}}},
		{Name: "app_user", Keys: bson.D{{Key: "app", Value: 1}, {Key: "user_id", Value: 1}}},
		{Name: "app_email", Keys: bson.D{{Key: "app", Value: 1}, {Key: "email_norm", Value: 1}}},
		{Name: "expires_at", Keys: bson.D{{Key: "expires_at", Value: 1}}, TTL: true},
	})
}

// Sweep removes what was over long ago and returns how many.
func (s *Store) Sweep(ctx context.Context) (int64, error) {
	return store.Sweep(ctx, "sweep invitations", s.coll, s.config.App, "expires_at", s.config.Now())
}

// NewInvitation is a wish to invite somebody.
type NewInvitation struct {
	Email string
	// Role is as in [Invitation]. Whoever calls has made sure that it may be given.
	Role string
	// InvitedBy is who invites, the id of a user or a client: the invitation ends when that
	// is disabled or gone, or may not give the role any more. It comes from who asks and
	// never from what is asked. "" and any other text are the word of the service, which
	// stands until it is revoked.
	InvitedBy string
	From      recovery.From
}

// Create invites somebody and mails the link. Whether the address has an account is not
// looked at: whoever has one is told when the link is used. The error is a
// [users.FieldError] for what is no address.
func (s *Store) Create(ctx context.Context, n NewInvitation) (*Invitation, error) {
	norm, err := users.NormalizeEmail(n.Email)
	if err != nil {
		return nil, err
	}
	now := store.Time(s.config.Now())
	r := &record{App: s.config.App, EmailNorm: norm, Invitation: Invitation{
		ID: store.NewID(idPrefix), Email: n.Email, Role: n.Role, InvitedBy: n.InvitedBy, State: Pending,
		CreatedAt: now, ExpiresAt: now.Add(s.config.Life),
	}}
	r.PurgeAt = r.ExpiresAt.Add(kept)
	ctx = context.WithoutCancel(ctx)
	if err := s.insert(ctx, r); err != nil {
		return nil, err
	}
	end := r.ExpiresAt // of the mail: one that could not be sent for a week is not sent later
	if last := now.Add(mail.MaxLife); end.After(last) {
		end = last
	}
	err = s.config.Outbox.Enqueue(ctx, mail.Job{
		ID: mail.NewJobID(), Kind: string(mail.Invitation), To: n.Email, Lang: n.From.LanguageOr(s.config.Language),
		Data: map[string]string{"invitation": r.ID}, NotAfter: end,
	})
	if err != nil {
		// Nobody gets it: it is taken back as far as that can be done.
		_ = s.Revoke(ctx, r.ID)
		if errors.Is(err, mail.ErrInvalidJob) {
			return nil, &users.FieldError{Field: "email", Code: users.CodeInvalidField, Message: "must be an address that mail can be sent to"}
		}
		return nil, err
	}
	s.report(ctx, event.InvitationCreated, n.InvitedBy, "")
	return &r.Invitation, nil
}

func (s *Store) insert(ctx context.Context, r *record) error {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	_, err := s.coll.InsertOne(ctx, r)
	return store.Error("store the invitation", err)
}

// Compose makes the mail of an invitation, nil when it is over.
func (s *Store) Compose(ctx context.Context, job mail.Job) (*mail.Message, error) {
	r, err := s.read(ctx, job.Data["invitation"])
	if errors.Is(err, ErrNotFound) {
		return nil, nil //nolint:nilnil // it was taken back
	}
	if err != nil {
		return nil, err
	}
	left := r.ExpiresAt.Sub(s.config.Now())
	if r.State != Pending || left <= 0 {
		return nil, nil //nolint:nilnil // it is over
	}
	token, err := s.config.Tokens.Issue(ctx, onetime.NewToken{Purpose: Purpose, Subject: r.ID, TTL: left, Seed: job.ID})
	if err != nil {
		return nil, err
	}
	by := ""
	if u, err := s.config.Users.Get(ctx, r.InvitedBy); err == nil {
		by = u.Email
	} else if !errors.Is(err, users.ErrNotFound) {
		return nil, err
	}
	return s.config.Mails.Render(&job, mail.Invitation, mail.Data{Link: s.config.Page + "#token=" + token, Lifetime: s.config.Mails.Left(&job, s.config.Life), InvitedBy: by})
}

// read returns an invitation.
func (s *Store) read(ctx context.Context, id string) (*record, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	var r record
	err := s.coll.FindOne(ctx, bson.M{"_id": id, "app": s.config.App}).Decode(&r)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, store.Error("read the invitation", err)
	}
	return &r, nil
}

// ListOptions choose a page of invitations.
type ListOptions struct {
	// Limit is the size of the page, 1 to 500. Default 50.
	Limit int
	// Cursor is the Next of the page before. Empty means the first page.
	Cursor string
}

// Page is a page of invitations in the order in which they were made.
type Page struct {
	Invitations []Invitation `json:"invitations"`
	// Next is the cursor of the next page, empty on the last.
	Next string `json:"next,omitempty"`
}

// List returns a page of the app's invitations: those that wait, and those that were over
// within the last 30 days. The error is [ErrInvalidCursor].
func (s *Store) List(ctx context.Context, opts ListOptions) (*Page, error) {
	list := store.List[Invitation]{
		Op: "list invitations", Collection: s.coll, Filter: bson.D{{Key: "app", Value: s.config.App}},
		Cursors: s.config.Keys, Scope: Collection, Invalid: ErrInvalidCursor,
		Position: func(i *Invitation) (time.Time, string) { return i.CreatedAt, i.ID },
	}
	invitations, next, err := list.Page(ctx, opts.Limit, opts.Cursor)
	if err != nil {
		return nil, err
	}
	return &Page{Invitations: invitations, Next: next}, nil
}

func (s *Store) report(ctx context.Context, kind event.Type, userID, reason string) {
	s.config.Events.Record(ctx, event.Event{
		Type: kind, Result: event.Success, App: s.config.App, Time: s.config.Now(), UserID: userID, Reason: reason, Request: event.RequestFrom(ctx),
	})
}
