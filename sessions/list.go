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
	ID     string
	UserID string
	// DeviceID and DeviceName are the client's own words.
	DeviceID, DeviceName string
	UserAgent            string
	// IP is where the session was last refreshed from, FirstIP where it began.
	IP, FirstIP           string
	CreatedAt, LastSeenAt time.Time
	// ExpiresAt is when the session ends unless it is refreshed.
	ExpiresAt time.Time
}

// listMax bounds a list: a user has at most MaxPerUser live sessions, but the
// limit may have been lowered.
const listMax = 1000

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
			out = append(out, Session{
				ID: r.ID, UserID: r.UserID, DeviceID: r.Device.ID, DeviceName: r.Device.Name, UserAgent: r.Device.UserAgent,
				IP: r.Device.IP, FirstIP: r.Device.FirstIP, CreatedAt: r.CreatedAt, LastSeenAt: r.LastSeenAt,
				ExpiresAt: earlier(r.IdleExpiresAt, r.ExpiresAt),
			})
		}
	}
	slices.SortStableFunc(out, func(a, b Session) int { return b.LastSeenAt.Compare(a.LastSeenAt) })
	return out, nil
}

func (m *Manager) findActive(ctx context.Context, userID string) ([]record, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	now := m.config.Now()
	cursor, err := m.sessions.Find(ctx, bson.M{
		"app": m.config.App, "user_id": userID, "state": stateActive,
		"idle_expires_at": bson.M{"$gt": now}, "expires_at": bson.M{"$gt": now},
	}, options.Find().SetLimit(listMax))
	if err != nil {
		return nil, store.Error("list sessions", err)
	}
	var found []record
	if err := cursor.All(ctx, &found); err != nil {
		return nil, store.Error("list sessions", err)
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
	var sessionErr, headErr, userErr error
	var reads sync.WaitGroup
	reads.Go(func() { r, sessionErr = m.readSession(ctx, sessionID) })
	reads.Go(func() { h, headErr = m.readHead(ctx, userID) })
	reads.Go(func() { kind, userErr = m.config.Accounts.Active(ctx, userID) })
	reads.Wait()
	for _, err := range []error{sessionErr, headErr, userErr} {
		if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrGone) {
			return "", err
		}
	}
	if sessionErr != nil || userErr != nil || h == nil || !h.has(sessionID) || !r.alive(m.config.Now()) {
		return "", ErrExpired
	}
	return kind, nil
}
