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
	// SessionID is the session, the "sid" of its access tokens; UserID is whose
	// it is.
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
	// at the latest: the revocation of the session is remembered until then, and
	// no access token outlives its session. It bounds the token's own lifetime
	// and does not replace it.
	AccessExpiresAt time.Time
	// AuthTime is when the user last proved who they are.
	AuthTime time.Time
	// Remember says whether the sign-in asked to be remembered: otherwise
	// cookies end with the browser.
	Remember bool
}

// Start is the state of a user's sessions when a sign-in began. It has to be
// taken before the user is read for the last time: a user that is disabled
// after that has another epoch. It serves one Create.
type Start struct {
	userID string
	head   *head
}

// epoch is the epoch that the sign-in began with.
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
	// Kind is the user's kind. It is handed through to the answer.
	Kind authz.Kind
	// Device is where the sign-in comes from.
	Device Device
	// Remember multiplies the absolute life of the session by
	// Config.RememberMeFactor.
	Remember bool
	// AuthTime is when the user proved who they are. Zero means now; a later
	// time counts as now. A guest proves nothing: no session of one is a recent sign-in,
	// also when the guest has become a person.
	AuthTime time.Time
}

// Refuses reports whether a sign-in beyond the limit of sessions is refused.
func (m *Manager) Refuses() bool { return m.config.OnLimit == Refuse }

// Create makes the session of a sign-in that has succeeded. The error is
// [ErrEpochChanged] when all sessions were ended since Begin: the sign-in has
// to start again. It is [ErrLimit] when the app refuses further sessions.
//
// What falls out of the limit is ended before Create answers. A call that dies
// on the way leaves at most sessions that are in no head: they cannot be
// refreshed, and nobody was told about them.
func (m *Manager) Create(ctx context.Context, start *Start, opts CreateOptions) (*Issued, error) {
	// From here on the outcome is written: a client that goes away must not
	// leave half of it.
	ctx = context.WithoutCancel(ctx)
	r := m.newRecord(start, opts)
	if err := m.insert(ctx, r); err != nil {
		return nil, err
	}
	before, err := m.admit(ctx, start, r)
	if errors.Is(err, ErrEpochChanged) || errors.Is(err, ErrLimit) {
		m.discard(ctx, r)
	}
	if err != nil {
		return nil, err
	}
	if before != nil {
		if err := m.evict(ctx, before, r); err != nil {
			return nil, err
		}
	}
	m.report(ctx, event.SessionStarted, event.Success, r.UserID, r.ID, "")
	return m.issued(r, opts.Kind, start.epoch()), nil
}

func (m *Manager) newRecord(start *Start, opts CreateOptions) *record {
	now := store.Time(m.config.Now())
	factor := time.Duration(1)
	if opts.Remember {
		factor = time.Duration(m.config.RememberMeFactor)
	}
	authTime := now
	switch {
	case opts.Kind == authz.KindAnonymous:
		authTime = unproved
	case !opts.AuthTime.IsZero():
		authTime = earlier(store.Time(opts.AuthTime), now)
	}
	return &record{
		ID: newSessionID(start.userID), App: m.config.App, UserID: start.userID, Epoch: start.epoch(),
		Generation: 1, State: stateActive, Remember: opts.Remember,
		AuthTime: authTime, CreatedAt: now, RotatedAt: now, LastSeenAt: now,
		AccessExpiresAt: now.Add(m.config.AccessTTL), IdleExpiresAt: now.Add(m.config.IdleTimeout),
		ExpiresAt: now.Add(m.config.RefreshTTL * factor),
		Device: device{
			ID: clip(opts.Device.ID, 128), Name: clip(opts.Device.Name, 128),
			UserAgent: clip(opts.Device.UserAgent, 256), Family: family(opts.Device.UserAgent),
			IP: opts.Device.IP, FirstIP: opts.Device.IP, Network: opts.Device.Network,
		},
	}
}

// unproved is the time of a proof that nobody has given: long before any that counts, and
// not zero, which no access token may say.
var unproved = time.Unix(1, 0)

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
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

// discard takes a session away that was not admitted. It is in no head, so it
// is dead whether or not this succeeds.
func (m *Manager) discard(ctx context.Context, r *record) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	_, _ = m.sessions.DeleteOne(ctx, m.byID(r.ID))
}

// admit makes the session live and returns the head as it was before, nil for
// the first session of a user.
//
// The first attempt pushes nobody out. Only when the head is full are the
// sessions that are over by themselves pruned, and the push is made again by
// the rule of the app: an expired session neither counts against the limit nor
// costs a living one its place.
func (m *Manager) admit(ctx context.Context, start *Start, r *record) (*head, error) {
	h := start.head
	if h == nil || len(h.Live) < m.config.MaxPerUser {
		before, err := m.push(ctx, start, r, false)
		if !errors.Is(err, store.ErrNotFound) {
			return before, err
		}
		if h, err = m.sameEpoch(ctx, start); err != nil {
			return nil, err
		}
	}
	if err := m.prune(ctx, start, h); err != nil {
		return nil, err
	}
	before, err := m.push(ctx, start, r, m.config.OnLimit == EndOldest)
	if !errors.Is(err, store.ErrNotFound) {
		return before, err
	}
	if _, err := m.sameEpoch(ctx, start); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("%w: %d sessions", ErrLimit, m.config.MaxPerUser)
}

// sameEpoch reads the head again, [ErrEpochChanged] when it is not the one that
// the sign-in began with.
func (m *Manager) sameEpoch(ctx context.Context, start *Start) (*head, error) {
	h, err := m.readHead(ctx, start.userID)
	if err != nil {
		return nil, err
	}
	if h == nil || h.Epoch != start.epoch() {
		return nil, ErrEpochChanged
	}
	return h, nil
}

// push adds the session to the head on the condition that the epoch is still
// the one that the sign-in began with and, unless it may push others out, that
// there is room. No match is [store.ErrNotFound].
func (m *Manager) push(ctx context.Context, start *Start, r *record, pushOut bool) (*head, error) {
	filter := m.byID(start.userID, bson.E{Key: "epoch", Value: start.epoch()})
	if !pushOut {
		last := fmt.Sprintf("live.%d", m.config.MaxPerUser-1)
		filter = append(filter, bson.E{Key: last, Value: bson.D{{Key: "$exists", Value: false}}})
	}
	update := bson.D{
		{Key: "$push", Value: bson.D{{Key: "live", Value: bson.D{
			{Key: "$each", Value: bson.A{live{SID: r.ID, At: r.CreatedAt}}},
			// The id decides between sessions of one millisecond, so that evict
			// knows whom the server dropped.
			{Key: "$sort", Value: bson.D{{Key: "at", Value: 1}, {Key: "sid", Value: 1}}},
			{Key: "$slice", Value: -m.config.MaxPerUser},
		}}}},
		{Key: "$setOnInsert", Value: bson.D{{Key: "created_at", Value: r.CreatedAt}}},
	}
	before, err := m.pushOnce(ctx, filter, update, start.head == nil)
	if mongo.IsDuplicateKeyError(err) {
		// The head has appeared since Begin: with the first session of another
		// sign-in, which is fine, or with another epoch, which is not.
		before, err = m.pushOnce(ctx, filter, update, false)
	}
	if err != nil {
		return nil, store.Error("make the session live", err)
	}
	return before, nil
}

func (m *Manager) pushOnce(ctx context.Context, filter, update bson.D, upsert bool) (*head, error) {
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

// evict ends the sessions that fell out of the head when r was pushed: one, or
// more where the limit has been lowered.
func (m *Manager) evict(ctx context.Context, before *head, r *record) error {
	all := append(slices.Clone(before.Live), live{SID: r.ID, At: r.CreatedAt})
	slices.SortFunc(all, func(a, b live) int {
		if order := a.At.Compare(b.At); order != 0 {
			return order
		}
		return strings.Compare(a.SID, b.SID)
	})
	var out []string
	for _, l := range all[:max(0, len(all)-m.config.MaxPerUser)] {
		out = append(out, l.SID)
	}
	if err := each(out, func(id string) error { return m.retire(ctx, id, "evicted") }); err != nil {
		return err
	}
	for _, id := range out {
		m.report(ctx, event.SessionEvicted, event.Success, r.UserID, id, "session_limit")
	}
	return nil
}

// prune takes the sessions that are over by themselves out of the head h.
func (m *Manager) prune(ctx context.Context, start *Start, h *head) error {
	alive, err := m.aliveOf(ctx, h)
	if err != nil {
		return err
	}
	var dead bson.A
	for _, l := range h.Live {
		if !alive[l.SID] {
			dead = append(dead, l.SID)
		}
	}
	if len(dead) == 0 {
		return nil
	}
	ctx, cancel := store.Context(ctx)
	defer cancel()
	// What was over stays over, so it is right to take these out of whatever the
	// head has become meanwhile.
	_, err = m.heads.UpdateOne(ctx, m.byID(start.userID), bson.D{{Key: "$pull", Value: bson.D{
		{Key: "live", Value: bson.D{{Key: "sid", Value: bson.D{{Key: "$in", Value: dead}}}}},
	}}})
	return store.Error("prune the session head", err)
}

// aliveOf tells which sessions of the head their own documents let live.
func (m *Manager) aliveOf(ctx context.Context, h *head) (map[string]bool, error) {
	ids := make(bson.A, len(h.Live))
	for i, l := range h.Live {
		ids[i] = l.SID
	}
	filter := append(bson.D{
		{Key: "_id", Value: bson.D{{Key: "$in", Value: ids}}}, {Key: "app", Value: m.config.App},
	}, living(m.config.Now())...)
	found, err := m.find(ctx, filter, options.Find().SetProjection(bson.D{{Key: "_id", Value: 1}}))
	if err != nil {
		return nil, err
	}
	alive := make(map[string]bool, len(found))
	for i := range found {
		alive[found[i].ID] = true
	}
	return alive, nil
}

// issued is the answer for r as it is now.
func (m *Manager) issued(r *record, kind authz.Kind, epoch int64) *Issued {
	over := earlier(r.IdleExpiresAt, r.ExpiresAt)
	return &Issued{
		SessionID: r.ID, UserID: r.UserID, Kind: kind, Epoch: epoch,
		RefreshToken: m.sign(r.ID, r.Generation), RefreshExpiresAt: over,
		AccessExpiresAt: earlier(r.AccessExpiresAt, over), AuthTime: r.AuthTime, Remember: r.Remember,
	}
}
