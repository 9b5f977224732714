package sessions

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
)

// Every end keeps one order: the owning documents, the blacklist, the answer.
// Each step can be repeated, so a call that was not answered is simply made
// again, also when the first one got half way.

// End ends one session of userID. The error is [ErrNotFound] for a session that
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
	if err := errors.Join(endErr, pullErr); err != nil {
		return err
	}
	if err := m.config.Revoker.AddSession(ctx, sessionID, until, reason); err != nil {
		return err
	}
	m.report(ctx, event.SessionEnded, event.Success, userID, sessionID, reason)
	return nil
}

// EndByToken ends the session that the refresh token belongs to, whatever its
// generation: whoever holds one of the session's tokens may sign it out. The
// error is [ErrTokenInvalid] for any other text.
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

// markEnded ends the session's document and returns when its last access token
// ends. It matches an ended one as well.
func (m *Manager) markEnded(ctx context.Context, sessionID, reason string) (time.Time, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	var r record
	err := m.sessions.FindOneAndUpdate(ctx, bson.M{"_id": sessionID, "app": m.config.App},
		bson.M{"$set": bson.M{"state": stateEnded, "ended_reason": reason}},
		options.FindOneAndUpdate().SetReturnDocument(options.Before)).Decode(&r)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return time.Time{}, ErrNotFound
	}
	if err != nil {
		return time.Time{}, store.Error("end the session", err)
	}
	return r.AccessExpiresAt, nil
}

// pull takes the session out of its user's head.
func (m *Manager) pull(ctx context.Context, userID, sessionID string) error {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	_, err := m.heads.UpdateOne(ctx, bson.M{"_id": userID, "app": m.config.App},
		bson.M{"$pull": bson.M{"live": bson.M{"sid": sessionID}}})
	return store.Error("take the session out of its head", err)
}

// EndOthers ends every session of userID but keep. Sign-ins that are under way
// start again.
func (m *Manager) EndOthers(ctx context.Context, userID, keep, reason string) error {
	ctx = context.WithoutCancel(ctx)
	epoch, err := m.raise(ctx, userID, bson.M{
		"$inc":  bson.M{"epoch": int64(1)},
		"$pull": bson.M{"live": bson.M{"sid": bson.M{"$ne": keep}}},
	})
	if err != nil {
		return err
	}
	// The head has decided. The access tokens of the others die one by one: an
	// entry for the user would kill the kept session's as well.
	for last := ""; ; {
		ids, err := m.revocable(ctx, userID, epoch, last)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if last = id; id == keep {
				continue
			}
			if err := m.kill(ctx, id, reason); err != nil {
				return err
			}
		}
		if len(ids) < endBatch {
			return m.markAllEnded(ctx, userID, keep, epoch, reason)
		}
	}
}

// endBatch is how many sessions are read at once to be ended.
const endBatch = 100

// maxLeeway is the greatest leeway that tokens are checked with.
const maxLeeway = 5 * time.Minute

// revocable returns the sessions of lower epochs, after the id last, that may
// have an access token that is still accepted. Whether they have been ended does
// not matter: a call before this one may have stopped between the end of a
// session and its revocation.
func (m *Manager) revocable(ctx context.Context, userID string, epoch int64, last string) ([]string, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	cursor, err := m.sessions.Find(ctx, bson.M{
		"app": m.config.App, "user_id": userID, "state": bson.M{"$in": bson.A{stateActive, stateEnded}},
		"_id": bson.M{"$gt": last}, "epoch": bson.M{"$lt": epoch},
		"access_expires_at": bson.M{"$gt": m.config.Now().Add(-maxLeeway)},
	}, options.Find().SetProjection(bson.M{"_id": 1}).SetSort(bson.M{"_id": 1}).SetLimit(endBatch))
	if err != nil {
		return nil, store.Error("list sessions", err)
	}
	var found []record
	if err := cursor.All(ctx, &found); err != nil {
		return nil, store.Error("list sessions", err)
	}
	ids := make([]string, len(found))
	for i, r := range found {
		ids[i] = r.ID
	}
	return ids, nil
}

// EndAll ends every session of userID and every access token of it. A sign-in
// right after lives: it carries the new epoch.
func (m *Manager) EndAll(ctx context.Context, userID, reason string) error {
	ctx = context.WithoutCancel(ctx)
	epoch, err := m.raise(ctx, userID, bson.M{
		"$inc": bson.M{"epoch": int64(1)},
		"$set": bson.M{"live": bson.A{}},
	})
	if err != nil {
		return err
	}
	if err := m.config.Revoker.AddUser(ctx, userID, epoch, reason); err != nil {
		return err
	}
	if err := m.markAllEnded(ctx, userID, "", epoch, reason); err != nil {
		return err
	}
	m.report(ctx, event.AllSessionsEnded, event.Success, userID, "", reason)
	return nil
}

// raise changes the head and returns its new epoch. A user without a head gets
// one: a sign-in that is under way must find another epoch.
func (m *Manager) raise(ctx context.Context, userID string, update bson.M) (int64, error) {
	if !store.ValidID(userID, userPrefix) {
		return 0, ErrNotFound
	}
	update["$setOnInsert"] = bson.M{"created_at": store.Time(m.config.Now())}
	var err error
	for range 2 {
		var h head
		if h, err = m.raiseOnce(ctx, userID, update); err == nil {
			return h.Epoch, nil
		}
		if !mongo.IsDuplicateKeyError(err) {
			break
		}
	}
	return 0, store.Error("raise the session epoch", err)
}

func (m *Manager) raiseOnce(ctx context.Context, userID string, update bson.M) (head, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	var h head
	err := m.heads.FindOneAndUpdate(ctx, bson.M{"_id": userID, "app": m.config.App}, update,
		options.FindOneAndUpdate().SetUpsert(true).SetReturnDocument(options.After)).Decode(&h)
	return h, err
}

// markAllEnded ends the documents of the sessions of lower epochs, but keep's. It
// only tidies up: the head and the blacklist have decided.
func (m *Manager) markAllEnded(ctx context.Context, userID, keep string, epoch int64, reason string) error {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	_, err := m.sessions.UpdateMany(ctx, bson.M{
		"app": m.config.App, "user_id": userID, "state": stateActive, "_id": bson.M{"$ne": keep}, "epoch": bson.M{"$lt": epoch},
	}, bson.M{"$set": bson.M{"state": stateEnded, "ended_reason": reason}})
	return store.Error("end sessions", err)
}

// Forget removes what is stored about the sessions of a user that is deleted.
// EndAll has to come first: nothing is revoked here.
func (m *Manager) Forget(ctx context.Context, userID string) error {
	ctx, cancel := store.Context(context.WithoutCancel(ctx))
	defer cancel()
	if _, err := m.sessions.DeleteMany(ctx, bson.M{
		"app": m.config.App, "user_id": userID, "state": bson.M{"$in": bson.A{stateActive, stateEnded}},
	}); err != nil {
		return store.Error("forget sessions", err)
	}
	_, err := m.heads.DeleteOne(ctx, bson.M{"_id": userID, "app": m.config.App})
	return store.Error("forget the session head", err)
}
