package users

import (
	"context"
	"errors"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/internal/store"
)

// ErrNotGuest says that the account that was to become a person's is no guest of the
// app, or no longer one.
var ErrNotGuest = errors.New("no guest")

// adopt makes the account of a guest that of the person r, whose id becomes the
// guest's. Its sessions and its roles stay as they are, its device no longer opens it.
// Whoever else has a session of the guest has shown no credential of the person: no
// session that began as a guest's is a recent sign-in.
func (s *Store) adopt(ctx context.Context, r *record, guest string, trusted bool) error {
	if !store.ValidID(guest, "usr_") {
		return ErrNotGuest
	}
	// Not to give roles to whom a token of before still names a guest.
	if is, err := s.read(ctx, bson.M{"_id": guest, "app": s.config.App}); errors.Is(err, ErrNotFound) || (err == nil && (is.Kind != authz.KindAnonymous || is.Status != Active)) {
		return ErrNotGuest
	} else if err != nil {
		return err
	}
	if r.EmailNorm != "" {
		// Not to give roles for an address that is another's. The index decides.
		other, err := s.readByNorm(ctx, r.EmailNorm)
		switch {
		case err == nil && other.ID != guest:
			return store.ErrDuplicate
		case err != nil && !errors.Is(err, ErrNotFound):
			return err
		}
	}
	if s.config.Roles != nil {
		if err := s.config.Roles.Welcome(ctx, guest, r.EmailNorm, false); err != nil {
			return err
		}
	}
	set := bson.M{"updated_at": s.nextUpdate(r.UpdatedAt), "kind": r.Kind, "email_verified": r.EmailVerified}
	for key, value := range map[string]string{"email": r.Email, "email_norm": r.EmailNorm, "password_hash": r.PasswordHash} {
		if value != "" {
			set[key] = value
		}
	}
	if len(r.Links) > 0 {
		set["links"] = r.Links
	}
	if len(r.Profile) > 0 {
		set["profile"] = r.Profile
	}
	if err := s.becomes(ctx, r, guest, bson.M{"$set": set, "$unset": bson.M{"device_hash": ""}}); err != nil {
		return err
	}
	if !trusted {
		return nil
	}
	// After the write: an account that became another person's has no right to them.
	return s.verified(context.WithoutCancel(ctx), guest, r.EmailNorm)
}

// becomes writes the update on the condition that the guest is one still.
func (s *Store) becomes(ctx context.Context, r *record, guest string, update bson.M) error {
	ctx, cancel := store.Context(context.WithoutCancel(ctx))
	defer cancel()
	var after record
	err := s.users.FindOneAndUpdate(ctx,
		bson.M{"_id": guest, "app": s.config.App, "kind": authz.KindAnonymous, "status": Active}, update,
		options.FindOneAndUpdate().SetReturnDocument(options.After)).Decode(&after)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return ErrNotGuest
	}
	if err != nil {
		return store.Error("change the guest into a person", err)
	}
	*r = after
	return nil
}
