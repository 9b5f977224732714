// Package sessions keeps sign-ins alive and ends them: one session for each
// sign-in on a device, a rotating refresh token for each session, and one head
// per user that decides which sessions live.
//
// A refresh token is "mrt1.<kid>.<session>.<generation>.<mac>". It is not
// stored: its MAC proves that it was issued, its generation says whether it is
// the newest of its session. Refreshing is one conditional update; a lost race
// is answered with the same successor, a token that comes back later ends the
// session (RFC 9700 section 4.14.2).
package sessions

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/tokens/keys"
)

// Errors of this package. A database that does not answer within two seconds
// is store.ErrUnavailable: the outcome is open and the call may be repeated.
var (
	// ErrTokenInvalid says that the text is no refresh token of this app.
	ErrTokenInvalid = errors.New("invalid refresh token")
	// ErrExpired says that the session is over: ended, evicted, idle for too
	// long, or past its absolute end.
	ErrExpired = errors.New("session expired")
	// ErrReused says that a refresh token came back after its successor had been
	// used. The session has been ended.
	ErrReused = errors.New("refresh token reused")
	// ErrEpochChanged says that all sessions of the user were ended while one
	// was being created. The sign-in has to start again.
	ErrEpochChanged = errors.New("sessions were ended meanwhile")
	// ErrLimit says that the user has as many sessions as the app allows.
	ErrLimit = errors.New("session limit reached")
	// ErrNotFound says that the user has no such session.
	ErrNotFound = errors.New("no such session")
	// ErrGone is what an [Accounts] answers for a user that may not sign in.
	ErrGone = errors.New("account gone or disabled")
)

// Binding says what happens when a refresh comes from elsewhere than the
// sign-in.
type Binding string

// The bindings.
const (
	// BindOff compares nothing.
	BindOff Binding = "off"
	// BindLog reports the change as an event and lets the refresh pass.
	BindLog Binding = "log"
	// BindRefuse refuses the refresh with [ErrExpired] and rotates nothing, so
	// the owner of the session keeps it.
	BindRefuse Binding = "refuse"
)

func (b Binding) valid() bool { return b == BindOff || b == BindLog || b == BindRefuse }

// OnLimit says what happens to a sign-in beyond the limit of sessions.
type OnLimit string

// What can happen at the limit.
const (
	// EndOldest ends the session that began first.
	EndOldest OnLimit = "end_oldest"
	// Refuse refuses the sign-in with [ErrLimit].
	Refuse OnLimit = "refuse"
)

// Revoker is the part of the blacklist that sessions need. Both calls return
// only after the revocation is stored and can be repeated.
type Revoker interface {
	// AddSession revokes the access tokens of a session. The last of them ends
	// at accessExpiresAt.
	AddSession(ctx context.Context, sessionID string, accessExpiresAt time.Time, reason string) error
	// AddUser revokes the user's access tokens whose epoch is lower.
	AddUser(ctx context.Context, userID string, epoch int64, reason string) error
}

// Accounts answers whether a user may still sign in, by its id.
type Accounts interface {
	// Active returns the user's kind, or an error that wraps [ErrGone].
	Active(ctx context.Context, userID string) (authz.Kind, error)
	// Exists reports whether the app has the user, active or not.
	Exists(ctx context.Context, userID string) (bool, error)
}

// Config configures a [Manager].
type Config struct {
	// App is the slug, required.
	App string
	// Collection holds the sessions. Default "user_sessions".
	Collection string
	// MaxPerUser bounds the live sessions of a user. Default 10.
	MaxPerUser int
	// OnLimit says what a sign-in beyond it does. Default [EndOldest].
	OnLimit OnLimit
	// IdleTimeout ends a session that is not refreshed. It slides with each
	// refresh and never passes RefreshTTL. Default 7 days.
	IdleTimeout time.Duration
	// RefreshTTL is the absolute life of a session. Default 30 days.
	RefreshTTL time.Duration
	// RememberMeFactor multiplies RefreshTTL for a sign-in with "remember me".
	// Default 2.
	RememberMeFactor int
	// AccessTTL is the life of the access tokens, at most 24 hours: that is how
	// long the revocation of a user is remembered. Default 15 minutes.
	AccessTTL time.Duration
	// RotationGrace is how long after a rotation the previous refresh token is
	// still answered with its successor. Zero means not at all: then every lost
	// race and every lost answer ends the session. An answer that stays lost for
	// longer than the grace ends it in any case.
	RotationGrace time.Duration
	// BindDevice compares the user agent of a refresh with that of the sign-in,
	// version numbers left out so that an updated browser is the same device.
	// Device.ID is the client's own word and proves nothing. Default [BindOff].
	BindDevice Binding
	// BindIP compares the Network of a refresh with that of the sign-in. Default
	// [BindOff].
	BindIP Binding
	// Keys are the app's derived keys, required.
	Keys *keys.App
	// Revoker and Accounts are required.
	Revoker  Revoker
	Accounts Accounts
	// Events receives what happens. Default none.
	Events event.Sink
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// maxAccessTTL is how long the blacklist remembers the revocation of a user.
const maxAccessTTL = 24 * time.Hour

func (c *Config) check() error {
	switch {
	case c.App == "":
		return errors.New("sessions: an app is required")
	case c.Keys == nil || c.Revoker == nil || c.Accounts == nil:
		return errors.New("sessions: keys, revoker and accounts are required")
	case c.MaxPerUser < 0 || c.IdleTimeout < 0 || c.RefreshTTL < 0 || c.AccessTTL < 0 || c.RotationGrace < 0 || c.RememberMeFactor < 0:
		return errors.New("sessions: a limit is negative")
	case c.AccessTTL > maxAccessTTL:
		return fmt.Errorf("sessions: access TTL %s is over %s", c.AccessTTL, maxAccessTTL)
	case c.OnLimit != EndOldest && c.OnLimit != Refuse:
		return fmt.Errorf("sessions: on_limit %q is neither %q nor %q", c.OnLimit, EndOldest, Refuse)
	case !c.BindDevice.valid() || !c.BindIP.valid():
		return fmt.Errorf("sessions: a binding of %q and %q is none of %q, %q, %q", c.BindDevice, c.BindIP, BindOff, BindLog, BindRefuse)
	default:
		return nil
	}
}

func (c *Config) setDefaults() {
	c.Collection = cmp.Or(c.Collection, "user_sessions")
	c.MaxPerUser = cmp.Or(c.MaxPerUser, 10)
	c.OnLimit = cmp.Or(c.OnLimit, EndOldest)
	c.IdleTimeout = cmp.Or(c.IdleTimeout, 7*24*time.Hour)
	c.RefreshTTL = cmp.Or(c.RefreshTTL, 30*24*time.Hour)
	c.RememberMeFactor = cmp.Or(c.RememberMeFactor, 2)
	c.AccessTTL = cmp.Or(c.AccessTTL, 15*time.Minute)
	c.BindDevice = cmp.Or(c.BindDevice, BindOff)
	c.BindIP = cmp.Or(c.BindIP, BindOff)
	if c.Events == nil {
		c.Events = event.Discard{}
	}
	if c.Now == nil {
		c.Now = time.Now //nolint:forbidigo // the default of the injected clock
	}
}

// HeadsCollection holds one head per user: which of its sessions live.
const HeadsCollection = "session_heads"

// Manager is the sessions of one app. It is safe for concurrent use.
type Manager struct {
	config   Config
	sessions *mongo.Collection
	heads    *mongo.Collection

	seen    chan activity
	closing chan struct{}
	closed  sync.Once
	stop    context.CancelFunc
	ended   sync.WaitGroup
}

// New returns the sessions of the app that config describes. Close ends the
// goroutine that records activity.
func New(db *mongo.Database, config Config) (*Manager, error) {
	if db == nil {
		return nil, errors.New("sessions: a database is required")
	}
	config.setDefaults()
	if err := config.check(); err != nil {
		return nil, err
	}
	db = store.Handle(db)
	ctx, stop := context.WithCancel(context.Background())
	m := &Manager{
		config:   config,
		sessions: db.Collection(config.Collection),
		heads:    db.Collection(HeadsCollection),
		seen:     make(chan activity, activityQueue),
		closing:  make(chan struct{}),
		stop:     stop,
	}
	m.ended.Go(func() { m.recordActivity(ctx) })
	return m, nil
}

// EnsureIndexes makes sure of the collection's indexes. ttl is false when the
// server has no TTL indexes: then Sweep has to be called now and then.
func (m *Manager) EnsureIndexes(ctx context.Context) (ttl bool, err error) {
	return store.Indexes(ctx, m.sessions, []store.Index{
		{Name: "app_user_state", Keys: bson.D{{Key: "app", Value: 1}, {Key: "user_id", Value: 1}, {Key: "state", Value: 1}}},
		{Name: "expires_at", Keys: bson.D{{Key: "expires_at", Value: 1}}, TTL: true},
	})
}

// Sweep removes the sessions whose time is over and returns how many. Where the
// server has TTL indexes there is nothing left for it.
func (m *Manager) Sweep(ctx context.Context) (int64, error) {
	return store.Sweep(ctx, "sweep sessions", m.sessions, m.config.App, "expires_at", m.config.Now())
}

// Session states as stored.
const (
	stateActive = "active"
	stateEnded  = "ended"
)

// record is a session as it is stored.
type record struct {
	ID     string `bson:"_id"`
	App    string `bson:"app"`
	UserID string `bson:"user_id"`
	Device device `bson:"device"`
	// Epoch is the head's epoch that the sign-in began with. An end of many
	// sessions is about those of an earlier epoch than its own.
	Epoch      int64  `bson:"epoch"`
	Generation int64  `bson:"generation"`
	State      string `bson:"state"`
	// EndedReason says why an ended session ended.
	EndedReason string    `bson:"ended_reason,omitempty"`
	Remember    bool      `bson:"remember,omitempty"`
	AuthTime    time.Time `bson:"auth_time"`
	CreatedAt   time.Time `bson:"created_at"`
	RotatedAt   time.Time `bson:"rotated_at"`
	LastSeenAt  time.Time `bson:"last_seen_at"`
	// The two that slide are stored as they are and bounded by ExpiresAt where
	// they are used: an update cannot compare two fields.
	AccessExpiresAt time.Time `bson:"access_expires_at"`
	IdleExpiresAt   time.Time `bson:"idle_expires_at"`
	ExpiresAt       time.Time `bson:"expires_at"`
}

// alive reports whether the session's own document lets it live at now.
func (r *record) alive(now time.Time) bool {
	return r.State == stateActive && now.Before(r.IdleExpiresAt) && now.Before(r.ExpiresAt)
}

type device struct {
	ID        string `bson:"id,omitempty"`
	Name      string `bson:"name,omitempty"`
	UserAgent string `bson:"user_agent,omitempty"`
	// Family is the user agent without its version numbers: it stays the same
	// when the browser is updated.
	Family  string `bson:"family,omitempty"`
	IP      string `bson:"ip,omitempty"`
	FirstIP string `bson:"first_ip,omitempty"`
	// Network is the group that FirstIP belongs to: an IPv4 address, or a /64.
	Network string `bson:"network,omitempty"`
}

// head is the document that decides which sessions of a user live.
type head struct {
	Epoch int64  `bson:"epoch"`
	Live  []live `bson:"live"`
}

type live struct {
	SID string    `bson:"sid"`
	At  time.Time `bson:"at"`
}

func (h *head) has(sessionID string) bool {
	for _, l := range h.Live {
		if l.SID == sessionID {
			return true
		}
	}
	return false
}

// readHead returns the user's head, and nil when there is none yet.
func (m *Manager) readHead(ctx context.Context, userID string) (*head, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	var h head
	err := m.heads.FindOne(ctx, m.byID(userID)).Decode(&h)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil, nil //nolint:nilnil // no head is an answer, not an error
	}
	if err != nil {
		return nil, store.Error("read the session head", err)
	}
	return &h, nil
}

func (m *Manager) readSession(ctx context.Context, sessionID string) (*record, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	var r record
	err := m.sessions.FindOne(ctx, m.byID(sessionID)).Decode(&r)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, sessionID)
	}
	if err != nil {
		return nil, store.Error("read the session", err)
	}
	return &r, nil
}

// byID is the filter for one document of this app, with more conditions.
func (m *Manager) byID(id string, more ...bson.E) bson.D {
	return append(bson.D{{Key: "_id", Value: id}, {Key: "app", Value: m.config.App}}, more...)
}

// living are the conditions for a session that its own document lets live.
func living(now time.Time) bson.D {
	ahead := bson.D{{Key: "$gt", Value: now}}
	return bson.D{
		{Key: "state", Value: stateActive}, {Key: "idle_expires_at", Value: ahead}, {Key: "expires_at", Value: ahead},
	}
}

// report sends an event.
func (m *Manager) report(ctx context.Context, kind event.Type, result event.Result, userID, sessionID, reason string) {
	m.config.Events.Record(ctx, event.Event{
		Type: kind, Result: result, App: m.config.App, Time: m.config.Now(),
		UserID: userID, SessionID: sessionID, Reason: reason, Request: event.RequestFrom(ctx),
	})
}
