package users

import (
	"context"
	"errors"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
)

// VerifyEmail notes that the user owns the address norm, in its normal form: whoever
// calls has seen the proof. The manifest's roles for the address are granted. It may be
// repeated. The error is [ErrChanged] when the account has another address by now, and
// [ErrDisabled].
func (s *Store) VerifyEmail(ctx context.Context, id, norm string) (*User, error) {
	r, err := s.active(ctx, id)
	if err != nil {
		return nil, err
	}
	if r.EmailNorm != norm || norm == "" {
		return nil, ErrChanged
	}
	switch {
	case r.EmailVerified && !r.Handover:
	case r.Handover:
		if err := s.resume(ctx, r); err != nil {
			return nil, err
		}
	default:
		filter := s.settled(id, r.Owner)
		filter["email_norm"] = norm
		if err := s.update(ctx, filter, bson.M{"email_verified": true}); err != nil {
			return nil, err
		}
		s.report(ctx, event.EmailVerified, event.Success, id, "")
	}
	if err := s.verified(ctx, id, norm); err != nil {
		return nil, err
	}
	r.EmailVerified = true
	return &r.User, nil
}

// active reads an account that something was mailed about. The error is [ErrChanged] for
// one that is gone, and [ErrDisabled].
func (s *Store) active(ctx context.Context, id string) (*record, error) {
	r, err := s.read(ctx, bson.M{"_id": id, "app": s.config.App})
	switch {
	case errors.Is(err, ErrNotFound):
		return nil, ErrChanged
	case err != nil:
		return nil, err
	case r.Status != Active:
		return nil, ErrDisabled
	}
	return r, nil
}

// verified gives the account what its address entitles it to.
func (s *Store) verified(ctx context.Context, id, norm string) error {
	if s.config.Roles == nil {
		return nil
	}
	return s.config.Roles.Verified(ctx, id, norm)
}

// Reclaim gives an account whose address was never verified to the owner of that
// address, who has just proved to be that: the password, every session, every identity
// and every API key of whoever has made it are worth nothing any more (the
// pre-hijacking of Sudhodanan and Paverd, USENIX Security 2022). The address is
// verified when it returns nil; a call that fails half way is repeated whole. The
// error is [ErrChanged] when the account has another address, or is verified by now.
func (s *Store) Reclaim(ctx context.Context, st *State) (*State, error) {
	ctx = context.WithoutCancel(ctx)
	filter := s.same(st.User.ID, st.Owner)
	filter["email_norm"], filter["email_verified"] = st.EmailNorm, false
	// One write ends every way in, and keeps sessions that live still from making one.
	if err := s.change(ctx, filter, bson.M{
		"$unset": bson.M{"password_hash": "", "links": ""}, "$inc": bson.M{"owner": int64(1)}, "$set": bson.M{"handover": true},
	}); err != nil {
		return nil, err
	}
	if err := s.config.Sessions.EndAll(ctx, st.User.ID, "reclaimed"); err != nil {
		return nil, err
	}
	filter["owner"] = st.Owner + 1
	if err := s.handOver(ctx, st.User.ID, st.EmailNorm, "", filter); err != nil {
		return nil, err
	}
	return s.State(ctx, st.User.ID)
}

// resume ends a change of owner that died half way, for an owner who has proved once more
// to have the address.
func (s *Store) resume(ctx context.Context, r *record) error {
	ctx = context.WithoutCancel(ctx)
	if err := s.config.Sessions.EndAll(ctx, r.ID, "reclaimed"); err != nil {
		return err
	}
	filter := s.same(r.ID, r.Owner)
	filter["email_norm"], filter["handover"] = r.EmailNorm, true
	return s.handOver(ctx, r.ID, r.EmailNorm, "", filter)
}

// handOver is the end of a change of owner, once nobody is signed in any more. The
// verification is the last write: until then the next call begins again, and tells again.
// It counts once more, so that what sessions of before have begun meanwhile, by what they
// could read of the account, is another owner's.
func (s *Store) handOver(ctx context.Context, id, norm, reason string, filter bson.M) error {
	// Not to take from the owner what they have by now, where another call was faster.
	if err := s.change(ctx, filter, bson.M{"$set": bson.M{"handover": true}}); err != nil {
		return err
	}
	if s.config.Roles != nil {
		if err := s.config.Roles.Dispossess(ctx, id); err != nil {
			return err
		}
	}
	if err := s.verified(ctx, id, norm); err != nil {
		return err
	}
	s.report(ctx, event.AccountReclaimed, event.Success, id, reason)
	return s.change(ctx, filter, bson.M{
		"$set": bson.M{"email_verified": true}, "$unset": bson.M{"handover": ""}, "$inc": bson.M{"owner": int64(1)},
	})
}

// Mailed is what an account was like when something was mailed to its address: the Stamp
// of its [State].
type Mailed struct{ Stamp string }

// ResetPassword gives the user a new password on the proof of what was mailed, and ends
// every session. An account whose address was not verified before changes its owner, as
// in [Store.Reclaim]; it is verified when nothing of the owner before is left, so that
// whatever follows a call that was not answered begins with that again.
//
// The error is [ErrChanged] when the account has changed since, unless it was this very
// proof that has given it this very password: then a call before was not answered, and
// all that follows is done again. It is a [FieldError] for a password that is not
// admitted, and [ErrDisabled].
func (s *Store) ResetPassword(ctx context.Context, id string, was Mailed, password string) (*User, error) {
	var r *record
	var err error
	for range 2 { // once more where the address was verified meanwhile: whose it is depends on that
		if r, err = s.active(ctx, id); err != nil {
			return nil, err
		}
		if !s.stamped(r, was.Stamp) {
			err = s.replaced(ctx, r, was, password)
			break
		}
		if err = s.replacePassword(ctx, r, was, password); !errors.Is(err, ErrChanged) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	ctx = context.WithoutCancel(ctx)
	if err := s.config.Sessions.EndAll(ctx, id, "password_reset"); err != nil {
		return nil, err
	}
	if err := s.unlock(ctx, r.EmailNorm); err != nil {
		return nil, err
	}
	if !r.EmailVerified || r.Handover {
		filter := s.same(r.ID, r.Owner)
		filter["email_norm"], filter["password_hash"] = r.EmailNorm, r.PasswordHash
		if err := s.handOver(ctx, r.ID, r.EmailNorm, "reset", filter); err != nil {
			return nil, err
		}
		r.EmailVerified = true
	}
	s.report(ctx, event.PasswordChanged, event.Success, id, "reset")
	return &r.User, nil
}

// replaced makes sure that a call before has stored the password by the same proof:
// whoever has another one is told nothing about the password.
func (s *Store) replaced(ctx context.Context, r *record, was Mailed, password string) error {
	if r.PasswordHash == "" || r.ResetStamp == "" || r.ResetStamp != was.Stamp {
		return ErrChanged
	}
	same, err := s.config.Hasher.Verify(ctx, r.PasswordHash, password)
	if err != nil || same {
		return err
	}
	return ErrChanged
}

// replacePassword stores the new password, with which every way in of an owner before
// ends, and changes r alike.
func (s *Store) replacePassword(ctx context.Context, r *record, was Mailed, password string) error {
	if err := s.checkNew(ctx, "new_password", password, r.EmailNorm); err != nil {
		return err
	}
	hash, err := s.config.Hasher.Hash(ctx, s.config.BcryptCost, password)
	if err != nil {
		return err
	}
	more := bson.M{"password_changes": int64(1)}
	set := bson.M{"password_hash": hash, "reset_stamp": was.Stamp}
	update := bson.M{"$set": set, "$inc": more}
	owner := r.Owner
	if !r.EmailVerified {
		update["$unset"], more["owner"], set["handover"] = bson.M{"links": ""}, int64(1), true
		owner++
	}
	filter := s.unchanged(r)
	filter["email_verified"] = r.EmailVerified
	// Before it as well: once the password is stored its owner signs in, also where this
	// call dies, and whoever was in before must not be any more.
	if err := s.config.Sessions.EndAll(ctx, r.ID, "password_reset"); err != nil {
		return err
	}
	if err := s.change(ctx, filter, update); err != nil {
		return err
	}
	r.PasswordHash, r.Owner = hash, owner
	return nil
}

// unchanged is the condition for an account whose address, password and owner are those
// of the record.
func (s *Store) unchanged(r *record) bson.M {
	filter := s.same(r.ID, r.Owner)
	for key, value := range map[string]string{"email_norm": r.EmailNorm, "password_hash": r.PasswordHash} {
		if filter[key] = value; value == "" {
			filter[key] = bson.M{"$exists": false}
		}
	}
	return filter
}

// EmailChange is a change of address that its new owner has confirmed.
type EmailChange struct {
	// From is the normal form of the address before, "" for none, and To the new one.
	From, To string
	// Stamp is that of the [State] when it was asked for.
	Stamp string
}

// ChangeEmail gives the account another address, which is verified by that. Whoever
// calls has seen the proof. It may be repeated. The error is [ErrEmailTaken], a
// [FieldError], [ErrDisabled], or [ErrChanged] when the account has changed since, its
// password included: whoever asked may be why.
func (s *Store) ChangeEmail(ctx context.Context, id string, c EmailChange) (*User, error) {
	norm, err := NormalizeEmail(c.To)
	if err != nil {
		return nil, err
	}
	r, err := s.active(ctx, id)
	if err != nil {
		return nil, err
	}
	if !s.stamped(r, c.Stamp) || r.EmailNorm != c.From {
		return s.changedEmail(ctx, r, norm)
	}
	if r.Kind == authz.KindAnonymous {
		return nil, ErrChanged
	}
	filter := s.unchanged(r)
	filter["handover"] = bson.M{"$exists": false}
	err = s.update(ctx, filter, bson.M{"email": c.To, "email_norm": norm, "email_verified": true})
	switch {
	case errors.Is(err, store.ErrDuplicate):
		return nil, ErrEmailTaken
	case err != nil:
		return nil, err
	}
	s.report(ctx, event.EmailChanged, event.Success, id, "")
	if err := s.verified(ctx, id, norm); err != nil {
		return nil, err
	}
	return s.Get(ctx, id)
}

// changedEmail is the answer where the address is the new one already: a call before was
// not answered.
func (s *Store) changedEmail(ctx context.Context, r *record, norm string) (*User, error) {
	if r.EmailNorm != norm || !r.EmailVerified {
		return nil, ErrChanged
	}
	return &r.User, s.verified(ctx, r.ID, norm)
}
