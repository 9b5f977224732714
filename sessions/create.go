package sessions

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
)

// Device describes where a sign-in or a refresh comes from.
type Device struct {
	// ID and Name are the client's own words, a label and nothing more. At most
	// 128 bytes are kept.
	ID, Name string
	// UserAgent is the header of that name. At most 256 bytes are kept.
	UserAgent string
	// IP is the client's address; Network is the group it belongs to, an IPv4
	// address or an IPv6 /64.
	IP, Network string
}

// Issued is what a client gets of a session.
type Issued struct {
	SessionID, UserID string
	// Kind is the user's kind, as the Accounts say now.
	Kind authz.Kind
	// Epoch is the head's epoch, which the access token has to carry.
	Epoch int64
	// RefreshToken is the session's current refresh token.
	RefreshToken string
	// RefreshExpiresAt is when it ends unless it is used: the idle or the
	// absolute end, whichever comes first.
	RefreshExpiresAt time.Time
	// AccessExpiresAt is when an access token issued for this answer has to end
	// at the latest. Revocations count on it.
	AccessExpiresAt time.Time
	// AuthTime is when the user last proved who they are.
	AuthTime time.Time
	// Remember says whether the sign-in asked to be remembered: otherwise
	// cookies end with the browser.
	Remember bool
}

// Start is the state of a user's sessions when a sign-in began. It has to be
// taken before the user is read for the last time: a user that is disabled
// after that has another epoch.
type Start struct {
	userID string
	head   *head
}

func (s *Start) epoch() int64 {
	if s.head == nil {
		return 0
	}
	return s.head.Epoch
}

// Begin begins a sign-in of userID.
func (m *Manager) Begin(ctx context.Context, userID string) (*Start, error) {
	if !store.ValidID(userID, userPrefix) {
		return nil, fmt.Errorf("sessions: %q is no user id", userID)
	}
	h, err := m.readHead(ctx, userID)
	if err != nil {
		return nil, err
	}
	return &Start{userID: userID, head: h}, nil
}

// CreateOptions are what a sign-in asks for.
type CreateOptions struct {
	Kind     authz.Kind
	Device   Device
	Remember bool
}

// Create makes the session of a sign-in that has succeeded. The error is
// [ErrEpochChanged] when all sessions were ended since Begin: the sign-in has
// to start again. It is [ErrLimit] when the app refuses further sessions.
func (m *Manager) Create(ctx context.Context, start *Start, opts CreateOptions) (*Issued, error) {
	// From here on the outcome is written: a client that goes away must not
	// leave half of it.
	ctx = context.WithoutCancel(ctx)
	if start.head != nil && len(start.head.Live) >= m.config.MaxPerUser {
		if err := m.prune(ctx, start); err != nil {
			return nil, err
		}
	}
	r := m.newRecord(start.userID, opts)
	r.Epoch = start.epoch()
	if err := m.insert(ctx, r); err != nil {
		return nil, err
	}
	before, err := m.push(ctx, start, r)
	if err != nil {
		return nil, err
	}
	var epoch int64
	if before != nil {
		epoch = before.Epoch
		if err := m.evict(ctx, start.userID, before, r); err != nil {
			return nil, err
		}
	}
	m.report(ctx, event.SessionStarted, event.Success, r.UserID, r.ID, "")
	return m.issued(r, opts.Kind, epoch), nil
}

func (m *Manager) newRecord(userID string, opts CreateOptions) *record {
	now := store.Time(m.config.Now())
	factor := time.Duration(1)
	if opts.Remember {
		factor = time.Duration(m.config.RememberMeFactor)
	}
	r := &record{
		ID: newSessionID(userID), App: m.config.App, UserID: userID, Generation: 1, State: stateActive,
		Remember: opts.Remember, AuthTime: now, CreatedAt: now, RotatedAt: now, LastSeenAt: now,
		AccessExpiresAt: now.Add(m.config.AccessTTL), IdleExpiresAt: now.Add(m.config.IdleTimeout),
		ExpiresAt: now.Add(m.config.RefreshTTL * factor),
		Device: device{
			ID: clip(opts.Device.ID, 128), Name: clip(opts.Device.Name, 128),
			UserAgent: clip(opts.Device.UserAgent, 256), Family: family(opts.Device.UserAgent),
			IP: opts.Device.IP, FirstIP: opts.Device.IP, Network: opts.Device.Network,
		},
	}
	return r
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// clip cuts s to n bytes without cutting a character.
func clip(s string, n int) string {
	if len(s) <= n {
		return strings.ToValidUTF8(s, "")
	}
	return strings.ToValidUTF8(s[:n], "")
}

// family is the user agent without digits and dots.
func family(userAgent string) string {
	return strings.Map(func(r rune) rune {
		if (r >= '0' && r <= '9') || r == '.' {
			return -1
		}
		return r
	}, clip(userAgent, 256))
}

func (m *Manager) insert(ctx context.Context, r *record) error {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	_, err := m.sessions.InsertOne(ctx, r)
	return store.Error("store the session", err)
}

// push makes the session live: on the condition that the epoch is still the one
// that the sign-in began with. It returns the head before, nil for the first
// session of a user.
func (m *Manager) push(ctx context.Context, start *Start, r *record) (*head, error) {
	filter := bson.M{"_id": start.userID, "app": m.config.App, "epoch": start.epoch()}
	if m.config.OnLimit == Refuse {
		filter[fmt.Sprintf("live.%d", m.config.MaxPerUser-1)] = bson.M{"$exists": false}
	}
	update := bson.M{
		"$push": bson.M{"live": bson.M{
			"$each": bson.A{bson.M{"sid": r.ID, "at": r.CreatedAt}},
			// The id decides between sessions of one millisecond, so that evict
			// knows whom the server dropped.
			"$sort":  bson.D{{Key: "at", Value: 1}, {Key: "sid", Value: 1}},
			"$slice": -m.config.MaxPerUser,
		}},
		"$setOnInsert": bson.M{"created_at": r.CreatedAt},
	}
	before, err := m.pushOnce(ctx, filter, update, start.head == nil)
	if mongo.IsDuplicateKeyError(err) {
		// The head has appeared since Begin: with the first session of another
		// sign-in, which is fine, or with another epoch, which is not.
		before, err = m.pushOnce(ctx, filter, update, false)
	}
	if err == nil {
		return before, nil
	}
	if !errors.Is(err, mongo.ErrNoDocuments) {
		return nil, store.Error("make the session live", err)
	}
	return nil, m.refusedPush(ctx, start, r)
}

func (m *Manager) pushOnce(ctx context.Context, filter, update bson.M, upsert bool) (*head, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	var before head
	err := m.heads.FindOneAndUpdate(ctx, filter, update,
		options.FindOneAndUpdate().SetUpsert(upsert).SetReturnDocument(options.Before)).Decode(&before)
	if upsert && errors.Is(err, mongo.ErrNoDocuments) {
		return nil, nil //nolint:nilnil // the upsert made the head: there is none before
	}
	if err != nil {
		return nil, err
	}
	return &before, nil
}

// refusedPush finds out why no head matched, and takes the stored session away.
func (m *Manager) refusedPush(ctx context.Context, start *Start, r *record) error {
	h, err := m.readHead(ctx, start.userID)
	if err != nil {
		return err
	}
	ctx, cancel := store.Context(ctx)
	defer cancel()
	// It is in no head, so it is dead whether or not this succeeds.
	_, _ = m.sessions.DeleteOne(ctx, bson.M{"_id": r.ID, "app": m.config.App})
	if h == nil || h.Epoch != start.epoch() {
		return ErrEpochChanged
	}
	return fmt.Errorf("%w: %d sessions", ErrLimit, m.config.MaxPerUser)
}

// evict ends the sessions that fell out of the head when r was pushed.
func (m *Manager) evict(ctx context.Context, userID string, before *head, r *record) error {
	all := append(slices.Clone(before.Live), live{SID: r.ID, At: r.CreatedAt})
	slices.SortFunc(all, func(a, b live) int {
		if order := a.At.Compare(b.At); order != 0 {
			return order
		}
		return strings.Compare(a.SID, b.SID)
	})
	for _, out := range all[:max(0, len(all)-m.config.MaxPerUser)] {
		if err := m.kill(ctx, out.SID, "evicted"); err != nil {
			return err
		}
		m.report(ctx, event.SessionEvicted, event.Success, userID, out.SID, "session_limit")
	}
	return nil
}

// prune takes sessions that are over by themselves out of the head, so that
// they neither count against the limit nor push living ones out.
func (m *Manager) prune(ctx context.Context, start *Start) error {
	ids := make(bson.A, len(start.head.Live))
	for i, l := range start.head.Live {
		ids[i] = l.SID
	}
	now := m.config.Now()
	find, cancel := store.Context(ctx)
	defer cancel()
	cursor, err := m.sessions.Find(find, bson.M{
		"_id": bson.M{"$in": ids}, "app": m.config.App, "state": stateActive,
		"idle_expires_at": bson.M{"$gt": now}, "expires_at": bson.M{"$gt": now},
	}, options.Find().SetProjection(bson.M{"_id": 1}))
	if err != nil {
		return store.Error("read the live sessions", err)
	}
	var found []record
	if err := cursor.All(find, &found); err != nil {
		return store.Error("read the live sessions", err)
	}
	living := make(map[string]bool, len(found))
	for _, r := range found {
		living[r.ID] = true
	}
	var dead bson.A
	for _, l := range start.head.Live {
		if !living[l.SID] {
			dead = append(dead, l.SID)
		}
	}
	if len(dead) == 0 {
		return nil
	}
	update, cancel := store.Context(ctx)
	defer cancel()
	_, err = m.heads.UpdateOne(update, bson.M{"_id": start.userID, "app": m.config.App, "epoch": start.head.Epoch},
		bson.M{"$pull": bson.M{"live": bson.M{"sid": bson.M{"$in": dead}}}})
	return store.Error("prune the session head", err)
}

// issued is the answer for r as it is now.
func (m *Manager) issued(r *record, kind authz.Kind, epoch int64) *Issued {
	return &Issued{
		SessionID: r.ID, UserID: r.UserID, Kind: kind, Epoch: epoch,
		RefreshToken: m.sign(r.ID, r.Generation), RefreshExpiresAt: earlier(r.IdleExpiresAt, r.ExpiresAt),
		AccessExpiresAt: earlier(r.AccessExpiresAt, r.ExpiresAt), AuthTime: r.AuthTime, Remember: r.Remember,
	}
}
