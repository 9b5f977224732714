package users

import (
	"context"
	"errors"
	"slices"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/tokens/keys"
)

// Credentials are what somebody signs in with.
type Credentials struct {
	Email, Password string
	// DeviceToken is what an earlier sign-in on this device handed out. It lets
	// the owner in while others are locked out for guessing.
	DeviceToken string
}

// Proof says how somebody has shown to be a user: by the password, by an identity of
// another provider, or by what was mailed. It is no permission yet: see
// [Store.Confirm].
type Proof struct {
	userID string
	// hash is the password's, which has matched.
	hash, password string
	// link is the identity, and stamp what the account was like when the mail was sent.
	link, stamp string
	// device opens the account of a guest or a demo user, of this kind.
	device string
	kind   authz.Kind
	// service says that the service vouches for the person.
	service bool
}

// holds reports whether what was shown is still a way in.
func (s *Store) holds(p *Proof, r *record) bool {
	switch {
	case p.service:
		return true
	case p.link != "":
		return slices.Contains(r.Links, p.link)
	case p.stamp != "":
		return s.stamped(r, p.stamp)
	case p.device != "":
		return r.Kind == p.kind && r.DeviceHash != "" && slices.Contains(s.config.Keys.Identifiers(keys.Device, p.device), r.DeviceHash)
	default:
		return p.hash != "" && r.PasswordHash == p.hash
	}
}

// UserID returns the user that the proof is about.
func (p *Proof) UserID() string { return p.userID }

// Authenticate checks an address and a password. Every attempt costs one hash
// and the same calls to the database, whether the address is known, the
// password right, the account disabled; an attempt that is refused because the
// identifier is locked costs none, and is refused alike for the right password.
//
// The error is [ErrInvalidCredentials], a [LockedError], [ErrBusy], or
// [ErrDisabled] or [ErrUnverified] after the right password.
//
// A sign-in is complete only after [Store.Confirm]: between the two the caller
// reads the state of the user's sessions.
func (s *Store) Authenticate(ctx context.Context, c Credentials) (*Proof, error) {
	norm, err := NormalizeEmail(c.Email)
	if err != nil {
		// Not an address, so nobody's: counted and answered like any other.
		norm = "invalid/" + firstRunes(c.Email, 254)
	}
	r, err := s.readByNorm(ctx, norm)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	if r == nil {
		r = &record{}
	}
	id := s.identifierID(norm)
	if r.ID != "" && c.DeviceToken != "" {
		if device := s.config.Devices.Verify(r.DeviceSubject(), c.DeviceToken); device != "" {
			id = s.deviceID(r.ID, device)
		}
	}
	hash, err := s.check(ctx, id, r, c.Password)
	if err != nil {
		return nil, err
	}
	if err := s.admissible(r); err != nil {
		reason := "disabled"
		if errors.Is(err, ErrUnverified) {
			reason = "unverified"
		}
		s.report(ctx, event.LoginFailed, event.Failure, r.ID, reason)
		return nil, err
	}
	if err := s.succeeded(ctx, id); err != nil {
		return nil, err
	}
	if known := s.identifierID(norm); known != id {
		// The owner has come in by a known device: whoever guesses elsewhere
		// stays locked out for the window, and the streak is broken.
		if err := s.breakStreak(ctx, known); err != nil {
			return nil, err
		}
	}
	return &Proof{userID: r.ID, hash: hash, password: c.Password}, nil
}

// check reserves an attempt and hashes the password once. It returns the hash
// that matched.
func (s *Store) check(ctx context.Context, id string, r *record, password string) (string, error) {
	a, err := s.reserve(ctx, id, r.ID != "")
	if err != nil {
		var locked *LockedError
		if errors.As(err, &locked) {
			s.report(ctx, event.LoginFailed, event.Failure, r.ID, "locked")
		}
		return "", err
	}
	hash := r.PasswordHash
	if hash == "" {
		hash = s.dummy
	}
	match, err := s.config.Hasher.Verify(ctx, hash, password)
	if err != nil {
		s.giveBack(ctx, a)
		return "", err
	}
	if !match || r.PasswordHash == "" {
		return "", s.giveUp(ctx, a, r.ID)
	}
	return hash, nil
}

func (s *Store) breakStreak(ctx context.Context, id string) error {
	ctx, cancel := store.Context(context.WithoutCancel(ctx))
	defer cancel()
	_, err := s.attempts.UpdateOne(ctx, bson.M{"_id": id, "app": s.config.App}, bson.M{"$set": bson.M{"streak": 0}})
	return store.Error("reset the streak", err)
}

// Confirm reads the user once more and returns it when the proof still holds.
// The caller has read the epoch of the user's sessions before: whoever disables
// the user or changes the password after this read raises that epoch, and the
// sign-in fails there.
//
// The error is [ErrDisabled] or [ErrUnverified], or [ErrChanged] when what was shown
// has changed since: the sign-in starts again.
func (s *Store) Confirm(ctx context.Context, p *Proof) (*User, error) {
	r, err := s.read(ctx, bson.M{"_id": p.userID, "app": s.config.App})
	switch {
	case errors.Is(err, ErrNotFound) && p.service:
		return nil, err
	case errors.Is(err, ErrNotFound):
		return nil, ErrChanged
	case err != nil:
		return nil, err
	case !s.holds(p, r):
		return nil, ErrChanged
	}
	if err := s.admissible(r); err != nil {
		return nil, err
	}
	if p.hash != "" && s.config.Hasher.NeedsRehash(p.hash, s.config.BcryptCost) {
		s.rehash(ctx, p)
	}
	return &r.User, nil
}

// rehash renews a hash of an older method, cost or pepper. It is compared and
// set, so that it never undoes a change of password; when it fails, the next
// sign-in tries again.
func (s *Store) rehash(ctx context.Context, p *Proof) {
	hash, err := s.config.Hasher.Hash(ctx, s.config.BcryptCost, p.password)
	if err != nil {
		return
	}
	ctx, cancel := store.Context(ctx)
	defer cancel()
	res, err := s.users.UpdateOne(ctx, bson.M{"_id": p.userID, "app": s.config.App, "password_hash": p.hash},
		bson.M{"$set": bson.M{"password_hash": hash}})
	if err == nil && res.ModifiedCount == 1 {
		p.hash = hash
		s.report(ctx, event.PasswordRehashed, event.Success, p.userID, "")
	}
}
