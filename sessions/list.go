package sessions

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/internal/store"
)

// Session is a live session as its user sees it. It holds no token.
type Session struct {
	// ID names the session, UserID whose it is.
	ID, UserID string
	// DeviceID and DeviceName are the client's own words.
	DeviceID, DeviceName string
	// UserAgent is that of the sign-in, the client's own word as well.
	UserAgent string
	// IP is where the session was last refreshed from, FirstIP where it began.
	IP, FirstIP string
	// CreatedAt is when the sign-in was, LastSeenAt when the session was last
	// used, up to [ActivityInterval] ago.
	CreatedAt, LastSeenAt time.Time
	// ExpiresAt is when the session ends unless it is refreshed.
	ExpiresAt time.Time
}

// listMax bounds a list: a user has at most MaxPerUser live sessions, but the
// limit may have been lowered.
const listMax = 1000

// session is what the user sees of r.
func (r *record) session() Session {
	return Session{
		ID: r.ID, UserID: r.UserID, DeviceID: r.Device.ID, DeviceName: r.Device.Name, UserAgent: r.Device.UserAgent,
		IP: r.Device.IP, FirstIP: r.Device.FirstIP, CreatedAt: r.CreatedAt, LastSeenAt: r.LastSeenAt,
		ExpiresAt: earlier(r.IdleExpiresAt, r.ExpiresAt),
	}
}

// List returns the live sessions of userID, the most recently used first.
func (m *Manager) List(ctx context.Context, userID string) ([]Session, error) {
	var h *head
	var found []record
	var headErr, findErr error
	var reads sync.WaitGroup
	reads.Go(func() { h, headErr = m.readHead(ctx, userID) })
	reads.Go(func() { found, findErr = m.findActive(ctx, userID) })
	reads.Wait()
	if err := errors.Join(headErr, findErr); err != nil {
		return nil, err
	}
	out := []Session{}
	for i := range found {
		if r := &found[i]; h != nil && h.has(r.ID) {
			out = append(out, r.session())
		}
	}
	slices.SortStableFunc(out, func(a, b Session) int { return b.LastSeenAt.Compare(a.LastSeenAt) })
	return out, nil
}

// Get returns one live session of userID. The error is [ErrNotFound] for any
// other.
func (m *Manager) Get(ctx context.Context, userID, sessionID string) (*Session, error) {
	if userOf(sessionID) != userID || userID == "" {
		return nil, ErrNotFound
	}
	r, h, err := m.readBoth(ctx, userID, sessionID)
	if err != nil {
		return nil, err
	}
	if h == nil || !h.has(sessionID) || !r.alive(m.config.Now()) {
		return nil, ErrNotFound
	}
	s := r.session()
	return &s, nil
}

// readBoth reads a session and its user's head at once.
func (m *Manager) readBoth(ctx context.Context, userID, sessionID string) (*record, *head, error) {
	var r *record
	var h *head
	var sessionErr, headErr error
	var reads sync.WaitGroup
	reads.Go(func() { r, sessionErr = m.readSession(ctx, sessionID) })
	reads.Go(func() { h, headErr = m.readHead(ctx, userID) })
	reads.Wait()
	// A head that could not be read comes first: not found would be an answer.
	if headErr != nil {
		return nil, nil, headErr
	}
	return r, h, sessionErr
}

func (m *Manager) findActive(ctx context.Context, userID string) ([]record, error) {
	filter := append(bson.D{{Key: "app", Value: m.config.App}, {Key: "user_id", Value: userID}}, living(m.config.Now())...)
	return m.find(ctx, filter, options.Find().SetLimit(listMax))
}

func (m *Manager) find(ctx context.Context, filter bson.D, opts *options.FindOptions) ([]record, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	cursor, err := m.sessions.Find(ctx, filter, opts)
	if err != nil {
		return nil, store.Error("read sessions", err)
	}
	var found []record
	if err := cursor.All(ctx, &found); err != nil {
		return nil, store.Error("read sessions", err)
	}
	return found, nil
}

// Check asks the database whether the session lives: its document, its user's
// head and the user, three reads at once. It is what "strict" revocation costs
// on every request. The error is [ErrExpired] when one of them says no.
func (m *Manager) Check(ctx context.Context, userID, sessionID string) (authz.Kind, error) {
	if userOf(sessionID) != userID || userID == "" {
		return "", ErrExpired
	}
	var r *record
	var h *head
	var kind authz.Kind
	var err, userErr error
	var reads sync.WaitGroup
	reads.Go(func() { r, h, err = m.readBoth(ctx, userID, sessionID) })
	reads.Go(func() { kind, userErr = m.config.Accounts.Active(ctx, userID) })
	reads.Wait()
	switch {
	case err != nil && !errors.Is(err, ErrNotFound):
		return "", err
	case userErr != nil && !errors.Is(userErr, ErrGone):
		return "", userErr
	case err != nil || userErr != nil || h == nil || !h.has(sessionID) || !r.alive(m.config.Now()):
		return "", ErrExpired
	}
	return kind, nil
}
