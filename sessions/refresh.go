package sessions

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
)

// Refresh exchanges a refresh token for its successor. It costs one sequential
// round trip: the conditional update of the session, with the head and the user
// read beside it; all three have to agree.
//
// Of several refreshes of one token exactly one rotates; the others are
// answered with the same successor within the grace. After it the token counts
// as stolen: the session ends and the error is [ErrReused]. The error is
// [ErrTokenInvalid], without any call to the database, for a token that was not
// issued here, and [ErrExpired] for a session that is over.
func (m *Manager) Refresh(ctx context.Context, token string, from Device) (*Issued, error) {
	t, err := m.parse(token)
	if err != nil {
		return nil, err
	}
	ctx = context.WithoutCancel(ctx)
	now := store.Time(m.config.Now())

	var h *head
	var kind authz.Kind
	var headErr, userErr error
	var reads sync.WaitGroup
	reads.Go(func() { h, headErr = m.readHead(ctx, t.userID) })
	reads.Go(func() { kind, userErr = m.config.Accounts.Active(ctx, t.userID) })
	before, err := m.rotate(ctx, t, from, now)
	reads.Wait()
	if err != nil {
		return nil, err
	}
	if headErr != nil {
		return nil, headErr
	}
	if userErr != nil && !errors.Is(userErr, ErrGone) {
		return nil, userErr
	}
	if h == nil || !h.has(t.sessionID) || userErr != nil {
		return nil, m.refuseDead(ctx, t, before, now)
	}
	if before == nil {
		return m.notRotated(ctx, t, h, kind, from, now)
	}
	m.noticeMove(ctx, before, from)
	after := m.rotated(before, now)
	m.report(ctx, event.SessionRefreshed, event.Success, after.UserID, after.ID, "")
	return m.issued(after, kind, h.Epoch), nil
}

// rotated is the session as rotate left it.
func (m *Manager) rotated(before *record, now time.Time) *record {
	after := *before
	after.Generation++
	after.RotatedAt, after.LastSeenAt = now, now
	after.IdleExpiresAt = now.Add(m.config.IdleTimeout)
	after.AccessExpiresAt = later(before.AccessExpiresAt, now.Add(m.config.AccessTTL))
	return &after
}

// rotate is the one conditional update that decides a refresh. It returns the
// session as it was before, nil when the condition did not hold.
func (m *Manager) rotate(ctx context.Context, t *refreshToken, from Device, now time.Time) (*record, error) {
	filter := append(m.byID(t.sessionID, bson.E{Key: "generation", Value: t.generation}), living(now)...)
	if m.config.BindDevice == BindRefuse {
		filter = append(filter, bson.E{Key: "device.family", Value: present(family(from.UserAgent))})
	}
	if m.config.BindIP == BindRefuse {
		filter = append(filter, bson.E{Key: "device.network", Value: present(from.Network)})
	}
	set := bson.D{
		{Key: "generation", Value: t.generation + 1},
		{Key: "rotated_at", Value: now},
		{Key: "last_seen_at", Value: now},
		{Key: "idle_expires_at", Value: now.Add(m.config.IdleTimeout)},
	}
	if from.IP != "" {
		set = append(set, bson.E{Key: "device.ip", Value: from.IP})
	}
	update := bson.D{
		{Key: "$set", Value: set},
		// An access token of before the TTL was lowered lives on. The revocation
		// of the session has to outlast it as well.
		{Key: "$max", Value: bson.D{{Key: "access_expires_at", Value: now.Add(m.config.AccessTTL)}}},
	}
	ctx, cancel := store.Context(ctx)
	defer cancel()
	var before record
	err := m.sessions.FindOneAndUpdate(ctx, filter, update, options.FindOneAndUpdate().SetReturnDocument(options.Before)).Decode(&before)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil, nil //nolint:nilnil // not rotated is an answer, not an error
	}
	if err != nil {
		return nil, store.Error("rotate the session", err)
	}
	return &before, nil
}

// present matches a value that is left out when it is empty.
func present(s string) any {
	if s == "" {
		return bson.D{{Key: "$exists", Value: false}}
	}
	return s
}

// refuseDead answers a refresh whose head or user no longer lets the session
// live. What the update may have brought back is ended again.
func (m *Manager) refuseDead(ctx context.Context, t *refreshToken, rotated *record, now time.Time) error {
	if rotated == nil {
		r, err := m.readSession(ctx, t.sessionID)
		if errors.Is(err, ErrNotFound) {
			return ErrExpired
		}
		if err != nil {
			return err
		}
		if !r.alive(now) {
			return m.over(ctx, r, now)
		}
	}
	if err := m.kill(ctx, t.sessionID, "not_live"); err != nil {
		return err
	}
	return ErrExpired
}

// over answers a refresh of a session that has ended or expired. The end may
// have died before it reached the blacklist, and an eviction or the end after a
// reuse is repeated by nobody else: so nothing is said to be over as long as an
// access token may live on.
func (m *Manager) over(ctx context.Context, r *record, now time.Time) error {
	if r.State == stateEnded && now.Before(r.AccessExpiresAt.Add(maxLeeway)) {
		if err := m.config.Revoker.AddSession(ctx, r.ID, r.AccessExpiresAt, r.EndedReason); err != nil {
			return err
		}
	}
	return ErrExpired
}

// notRotated finds out why the update did not match.
func (m *Manager) notRotated(ctx context.Context, t *refreshToken, h *head, kind authz.Kind, from Device, now time.Time) (*Issued, error) {
	r, err := m.readSession(ctx, t.sessionID)
	if errors.Is(err, ErrNotFound) {
		return nil, ErrExpired
	}
	if err != nil {
		return nil, err
	}
	behind := r.Generation - t.generation
	switch {
	case !r.alive(now):
		return nil, m.over(ctx, r, now)
	case behind < 0:
		// Signed by us and ahead of what is stored: the database has lost data.
		return nil, ErrTokenInvalid
	case behind > 1 || (behind == 1 && now.Sub(r.RotatedAt) > m.config.RotationGrace):
		// Before the binding is looked at: a token that was stolen is reported
		// wherever it turns up.
		return nil, m.reused(ctx, r)
	case m.moved(r, from):
		m.report(ctx, event.SessionRefreshed, event.Failure, r.UserID, r.ID, "bound_elsewhere")
		return nil, ErrExpired
	case behind == 1:
		return m.issued(r, kind, h.Epoch), nil
	default:
		// The condition holds now and did not a moment ago: the rotation that was
		// in the way has been rolled back by a failover. Try again.
		return nil, fmt.Errorf("rotate the session: %w", store.ErrUnavailable)
	}
}

// reused ends a session whose refresh token came back.
func (m *Manager) reused(ctx context.Context, r *record) error {
	// What was seen is reported whether or not the end succeeds.
	m.report(ctx, event.RefreshReused, event.Failure, r.UserID, r.ID, "")
	if err := m.kill(ctx, r.ID, "refresh_reused"); err != nil {
		return err
	}
	return ErrReused
}

// moved reports whether the app binds sessions to something that has changed.
func (m *Manager) moved(r *record, from Device) bool {
	return (m.config.BindDevice == BindRefuse && family(from.UserAgent) != r.Device.Family) ||
		(m.config.BindIP == BindRefuse && from.Network != r.Device.Network)
}

// noticeMove reports a change that the app wants logged.
func (m *Manager) noticeMove(ctx context.Context, before *record, from Device) {
	if m.config.BindDevice == BindLog && family(from.UserAgent) != before.Device.Family {
		m.report(ctx, event.DeviceChanged, event.Success, before.UserID, before.ID, "")
	}
	if m.config.BindIP == BindLog && from.Network != before.Device.Network {
		m.report(ctx, event.AddressChanged, event.Success, before.UserID, before.ID, "")
	}
}
