package sessions

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"
	"golang.org/x/sync/errgroup"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
)

// Every end keeps one order: the owning documents, the blacklist, the answer.
// Each step can be repeated, so a call that was not answered is simply made
// again, also when the first one got half way.

// End ends one session of userID: its document and its place in the head at
// once, then its access tokens. The error is [ErrNotFound] for a session that
// the user does not have; a session that is over already is ended once more.
func (m *Manager) End(ctx context.Context, userID, sessionID, reason string) error {
	if userOf(sessionID) != userID || userID == "" {
		return ErrNotFound
	}
	ctx = context.WithoutCancel(ctx)
	var until time.Time
	var endErr, pullErr error
	var writes sync.WaitGroup
	writes.Go(func() { until, endErr = m.markEnded(ctx, sessionID, reason) })
	writes.Go(func() { pullErr = m.pull(ctx, userID, sessionID) })
	writes.Wait()
	// A head that still names the session comes first: whoever reads "not found"
	// does not try again.
	if pullErr != nil {
		return pullErr
	}
	if endErr != nil {
		return endErr
	}
	return m.revoke(ctx, sessionID, until, reason)
}

// revoke puts an ended session on the blacklist.
func (m *Manager) revoke(ctx context.Context, sessionID string, until time.Time, reason string) error {
	if err := m.config.Revoker.AddSession(ctx, sessionID, until, reason); err != nil {
		return err
	}
	m.report(ctx, event.SessionEnded, event.Success, userOf(sessionID), sessionID, reason)
	return nil
}

// EndByToken ends the session that the refresh token belongs to, whatever its
// generation: whoever holds one of the session's tokens may sign it out, also
// when the access token has expired. The error is [ErrTokenInvalid], without any
// call to the database, for a text that was not issued here.
func (m *Manager) EndByToken(ctx context.Context, token, reason string) error {
	t, err := m.parse(token)
	if err != nil {
		return err
	}
	return m.End(ctx, t.userID, t.sessionID, reason)
}

// kill ends a session for the manager's own reasons.
func (m *Manager) kill(ctx context.Context, sessionID, reason string) error {
	err := m.End(ctx, userOf(sessionID), sessionID, reason)
	if errors.Is(err, ErrNotFound) {
		return nil // its document is gone: it is as dead as can be
	}
	return err
}

// parallelEnds is how many sessions of a user are ended at once.
const parallelEnds = 8

// each calls do for every item, some at once, and returns the first error.
func each[T any](items []T, do func(T) error) error {
	var calls errgroup.Group
	calls.SetLimit(parallelEnds)
	for _, item := range items {
		calls.Go(func() error { return do(item) })
	}
	return calls.Wait()
}

// retire ends a session that the head does not name any more.
func (m *Manager) retire(ctx context.Context, sessionID, reason string) error {
	until, err := m.markEnded(ctx, sessionID, reason)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return m.revoke(ctx, sessionID, until, reason)
}

// markEnded ends the session's document and returns when its last access token
// ends. It matches an ended one as well. No refresh can prolong anything after
// it: what it returns is final.
func (m *Manager) markEnded(ctx context.Context, sessionID, reason string) (time.Time, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	var r record
	err := m.sessions.FindOneAndUpdate(ctx, m.byID(sessionID), ended(reason),
		options.FindOneAndUpdate().SetReturnDocument(options.Before).
			SetProjection(bson.D{{Key: "access_expires_at", Value: 1}})).Decode(&r)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return time.Time{}, ErrNotFound
	}
	if err != nil {
		return time.Time{}, store.Error("end the session", err)
	}
	return r.AccessExpiresAt, nil
}

// ended is the update that ends a session's document.
func ended(reason string) bson.D {
	return bson.D{{Key: "$set", Value: bson.D{{Key: "state", Value: stateEnded}, {Key: "ended_reason", Value: reason}}}}
}

// pull takes the session out of its user's head.
func (m *Manager) pull(ctx context.Context, userID, sessionID string) error {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	_, err := m.heads.UpdateOne(ctx, m.byID(userID), bson.D{{Key: "$pull", Value: bson.D{
		{Key: "live", Value: bson.D{{Key: "sid", Value: sessionID}}},
	}}})
	return store.Error("take the session out of its head", err)
}

// EndOthers ends every session of userID but keep. Sign-ins that are under way
// start again; one that begins once the head has changed is left alone.
func (m *Manager) EndOthers(ctx context.Context, userID, keep, reason string) error {
	ctx = context.WithoutCancel(ctx)
	epoch, err := m.raise(ctx, userID, bson.E{Key: "$pull", Value: bson.D{
		{Key: "live", Value: bson.D{{Key: "sid", Value: bson.D{{Key: "$ne", Value: keep}}}}},
	}})
	if err != nil {
		return err
	}
	// The head has decided. The access tokens of the others die one by one: an
	// entry for the user would kill the kept session's as well. Every session of
	// before is ended, also where no access token is left: a refresh that read the
	// head before it changed may still rotate until the document says no.
	done := map[string]bool{}
	for more := true; more; {
		ids, err := m.outdated(ctx, userID, keep, epoch)
		if err != nil {
			return err
		}
		if err := each(ids, func(id string) error { return m.retire(ctx, id, reason) }); err != nil {
			return err
		}
		for _, id := range ids {
			done[id] = true
		}
		more = len(ids) == endBatch
	}
	return m.revokeEnded(ctx, userID, epoch, done)
}

// endBatch is how many sessions are ended between two reads.
const endBatch = 100

// maxLeeway is the greatest leeway that access tokens are checked with.
const maxLeeway = 5 * time.Minute

// revokeEnded puts the sessions on the blacklist that had ended before, except
// those that are done: whoever ended them may have died in between, and what
// this call answers is about them too.
func (m *Manager) revokeEnded(ctx context.Context, userID string, epoch int64, done map[string]bool) error {
	filter := append(m.ofBefore(userID, stateEnded, epoch), bson.E{
		Key: "access_expires_at", Value: bson.D{{Key: "$gt", Value: m.config.Now().Add(-maxLeeway)}},
	})
	found, err := m.find(ctx, filter, options.Find().
		SetProjection(bson.D{{Key: "access_expires_at", Value: 1}, {Key: "ended_reason", Value: 1}}))
	if err != nil {
		return err
	}
	return each(found, func(r record) error {
		if done[r.ID] {
			return nil
		}
		return m.config.Revoker.AddSession(ctx, r.ID, r.AccessExpiresAt, r.EndedReason)
	})
}

// ofBefore is the filter for the sessions of userID in a state whose sign-in
// began before epoch. It spares the sign-ins since: the documents are marked after
// the head has changed, and somebody may have signed in between.
func (m *Manager) ofBefore(userID, state string, epoch int64) bson.D {
	return bson.D{
		{Key: "app", Value: m.config.App},
		{Key: "user_id", Value: userID},
		{Key: "state", Value: state},
		{Key: "epoch", Value: bson.D{{Key: "$lt", Value: epoch}}},
	}
}

func (m *Manager) outdated(ctx context.Context, userID, keep string, epoch int64) ([]string, error) {
	filter := append(m.ofBefore(userID, stateActive, epoch), bson.E{Key: "_id", Value: bson.D{{Key: "$ne", Value: keep}}})
	found, err := m.find(ctx, filter, options.Find().SetProjection(bson.D{{Key: "_id", Value: 1}}).SetLimit(endBatch))
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(found))
	for i := range found {
		ids[i] = found[i].ID
	}
	return ids, nil
}

// EndAll ends every session of userID and every access token of it. The error is
// [ErrNotFound] for a user that the app has not. Sign-ins
// that are under way start again; one right after lives: it carries the new
// epoch.
func (m *Manager) EndAll(ctx context.Context, userID, reason string) error {
	ctx = context.WithoutCancel(ctx)
	epoch, err := m.raise(ctx, userID, bson.E{Key: "$set", Value: bson.D{{Key: "live", Value: bson.A{}}}})
	if err != nil {
		return err
	}
	if err := m.config.Revoker.AddUser(ctx, userID, epoch, reason); err != nil {
		return err
	}
	if err := m.markAllEnded(ctx, userID, epoch, reason); err != nil {
		return err
	}
	m.report(ctx, event.AllSessionsEnded, event.Success, userID, "", reason)
	return nil
}

// raise raises the head's epoch, together with a change, and returns the new
// one. A user without a head gets one: a sign-in that is under way must find
// another epoch.
func (m *Manager) raise(ctx context.Context, userID string, change bson.E) (int64, error) {
	if !store.ValidID(userID, userPrefix) {
		return 0, ErrNotFound
	}
	update := bson.D{
		{Key: "$inc", Value: bson.D{{Key: "epoch", Value: int64(1)}}},
		change,
		{Key: "$setOnInsert", Value: bson.D{{Key: "created_at", Value: store.Time(m.config.Now())}}},
	}
	h, err := m.raiseOnce(ctx, userID, update, false)
	if errors.Is(err, mongo.ErrNoDocuments) {
		h, err = m.raiseFirst(ctx, userID, update)
	}
	return h.Epoch, store.Error("raise the session epoch", err)
}

// raiseFirst makes the head. It asks first whether the user is one of the app: a
// head of another app's user would keep that user out for ever.
func (m *Manager) raiseFirst(ctx context.Context, userID string, update bson.D) (head, error) {
	exists, err := m.config.Accounts.Exists(ctx, userID)
	if err == nil && !exists {
		err = ErrNotFound
	}
	if err != nil {
		return head{}, err
	}
	h, err := m.raiseOnce(ctx, userID, update, true)
	if mongo.IsDuplicateKeyError(err) { // the loser of two upserts at once finds the winner's head
		h, err = m.raiseOnce(ctx, userID, update, true)
	}
	return h, err
}

func (m *Manager) raiseOnce(ctx context.Context, userID string, update bson.D, upsert bool) (head, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	var h head
	err := m.heads.FindOneAndUpdate(ctx, m.byID(userID), update, options.FindOneAndUpdate().SetUpsert(upsert).
		SetReturnDocument(options.After).SetProjection(bson.D{{Key: "epoch", Value: 1}})).Decode(&h)
	return h, err
}

// markAllEnded ends the documents of the sessions of before. It only tidies up:
// the head and the blacklist have decided.
func (m *Manager) markAllEnded(ctx context.Context, userID string, epoch int64, reason string) error {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	_, err := m.sessions.UpdateMany(ctx, m.ofBefore(userID, stateActive, epoch), ended(reason))
	return store.Error("end sessions", err)
}

// Forget removes what is stored about the sessions of a user that is deleted.
// EndAll has to come first: nothing is revoked here.
func (m *Manager) Forget(ctx context.Context, userID string) error {
	ctx = context.WithoutCancel(ctx)
	if err := m.forgetSessions(ctx, userID); err != nil {
		return err
	}
	ctx, cancel := store.Context(ctx)
	defer cancel()
	_, err := m.heads.DeleteOne(ctx, m.byID(userID))
	return store.Error("forget the session head", err)
}

func (m *Manager) forgetSessions(ctx context.Context, userID string) error {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	// The states are named so that the index serves the query.
	_, err := m.sessions.DeleteMany(ctx, bson.D{
		{Key: "app", Value: m.config.App},
		{Key: "user_id", Value: userID},
		{Key: "state", Value: bson.D{{Key: "$in", Value: bson.A{stateActive, stateEnded}}}},
	})
	return store.Error("forget sessions", err)
}
