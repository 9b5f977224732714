package invitation

import (
	"context"
	"errors"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/users"
)

// An invitation is pending, or accepted for an account that is about to be stored, or
// accepted and made. Between the last two nobody knows, when a call has died, whether the
// account came to be: the accounts say so, and one that goes is noted by [Store.Forget].
// What was not made can be taken again, and revoked.

// Revoke takes an invitation back: its link is worth nothing any more. That is so as well
// for one that was taken for an account that never came to be. The error is [ErrNotFound]
// for one that is not there or has made an account.
func (s *Store) Revoke(ctx context.Context, id string) error {
	ctx = context.WithoutCancel(ctx)
	filter := bson.M{"_id": id, "app": s.config.App, "state": bson.M{"$in": bson.A{Pending, Revoked}}}
	changed, err := s.set(ctx, filter, bson.M{"state": Revoked})
	if err == nil && !changed {
		changed, err = s.revokeUnmade(ctx, id)
	}
	if err != nil {
		return err
	}
	if !changed {
		return ErrNotFound
	}
	if err := s.config.Tokens.Revoke(ctx, id, Purpose); err != nil {
		return err
	}
	s.report(ctx, event.InvitationRevoked, "", "")
	return nil
}

// revokeUnmade revokes an invitation that was accepted and has made no account. Whoever is
// about to store one finds that out in [Store.settle].
func (s *Store) revokeUnmade(ctx context.Context, id string) (bool, error) {
	r, err := s.read(ctx, id)
	if err != nil || r.State != Accepted {
		return false, err
	}
	if came, err := s.came(ctx, r); err != nil || came {
		return false, err
	}
	return s.set(ctx, s.unmade(id, Accepted), bson.M{"state": Revoked})
}

// unmade is the condition for an invitation of the state that has made no account.
func (s *Store) unmade(id string, state State) bson.M {
	return bson.M{"_id": id, "app": s.config.App, "state": state, "made": bson.M{"$exists": false}}
}

// claim takes the invitation for an account that is about to be made, or, where it
// reclaims, to be given to who was invited. owed says that it gets the role after that.
func (s *Store) claim(ctx context.Context, r *record, userID string, owed, reclaims bool) error {
	ctx = context.WithoutCancel(ctx)
	filter := s.unmade(r.ID, Pending)
	if r.State == Accepted {
		switch came, err := s.came(ctx, r); {
		case err != nil:
			return err
		case came:
			return ErrInvalid
		}
		filter["state"], filter["user_id"] = Accepted, r.UserID
	}
	filter["ends_at"] = bson.M{"$gt": s.config.Now()}
	taken, err := s.set(ctx, filter, bson.M{"state": Accepted, "user_id": userID, "owed": owed, "reclaims": reclaims})
	if err == nil && !taken {
		err = ErrInvalid
	}
	return err
}

// came reports whether an invitation that was accepted has made its account. A guest who
// is one still is none, nor is an account whose address nobody has verified.
func (s *Store) came(ctx context.Context, r *record) (bool, error) {
	if r.Made {
		return true, nil
	}
	u, err := s.config.Users.Get(ctx, r.UserID)
	if errors.Is(err, users.ErrNotFound) || (err == nil && !counts(u)) {
		// Somebody may have taken it over from the call that has made the account.
		u, err = s.config.Users.GetByEmail(ctx, r.Email)
	}
	if errors.Is(err, users.ErrNotFound) {
		return false, nil
	}
	return err == nil && counts(u), err
}

// counts reports whether an invitation can have made the account.
func counts(u *users.User) bool { return u.Kind != authz.KindAnonymous && u.EmailVerified }

// settle notes that the account was stored, and gives it the role that is owed. The error
// is [ErrInvalid] when the invitation is for nobody any more.
func (s *Store) settle(ctx context.Context, r *record, userID string, owed bool) error {
	ctx = context.WithoutCancel(ctx)
	filter := bson.M{"_id": r.ID, "app": s.config.App, "state": Accepted, "$or": bson.A{
		bson.M{"made": bson.M{"$exists": false}}, bson.M{"user_id": userID},
	}}
	made, err := s.set(ctx, filter, bson.M{"made": true, "user_id": userID, "owed": owed})
	switch {
	case err != nil:
		return err
	case !made:
		return ErrInvalid
	case !owed:
		return nil
	}
	if err := s.config.Grant(ctx, userID, r.Role); err != nil {
		return err
	}
	_, err = s.set(ctx, bson.M{"_id": r.ID, "app": s.config.App, "user_id": userID}, bson.M{"owed": false})
	return err
}

// Forget notes that an account goes, which has to be there still: an invitation that has
// made it makes no other, also where the call that was to note that has died.
func (s *Store) Forget(ctx context.Context, userID string) error {
	st, err := s.config.Users.State(ctx, userID)
	if errors.Is(err, users.ErrNotFound) || (err == nil && !counts(&st.User)) {
		return nil
	}
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	for key, value := range map[string]string{"user_id": userID, "email_norm": st.EmailNorm} {
		if err := s.spend(ctx, bson.M{"app": s.config.App, key: value, "state": Accepted}); err != nil {
			return err
		}
	}
	return nil
}

// spend marks what matches the filter as having made its account.
func (s *Store) spend(ctx context.Context, filter bson.M) error {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	_, err := s.coll.UpdateMany(ctx, filter, bson.M{"$set": bson.M{"made": true}})
	return store.Error("change invitations", err)
}

// set changes an invitation and reports whether the filter matched one.
func (s *Store) set(ctx context.Context, filter, set bson.M) (bool, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	res, err := s.coll.UpdateOne(ctx, filter, bson.M{"$set": set})
	if err != nil {
		return false, store.Error("change the invitation", err)
	}
	return res.MatchedCount == 1, nil
}
