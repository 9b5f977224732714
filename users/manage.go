package users

import (
	"context"
	"errors"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
)

// PasswordChange is a user's wish for another password.
type PasswordChange struct {
	Current, New string
	// KeepSession is the session that the wish came with: it lives on.
	KeepSession string
	// DeviceToken is as in [Credentials].
	DeviceToken string
}

// ChangePassword changes the password of the user who knows the current one,
// and ends the other sessions. A wrong current password is
// [ErrInvalidCredentials] and counts like a failed sign-in; a guest without a
// password gets the same answer.
func (s *Store) ChangePassword(ctx context.Context, id string, c PasswordChange) error {
	r, err := s.read(ctx, bson.M{"_id": id, "app": s.config.App})
	if err != nil {
		return err
	}
	if err := s.checkNew(ctx, "new_password", c.New, r.EmailNorm); err != nil {
		return err
	}
	was, err := s.reauthenticate(ctx, r, c.Current, c.DeviceToken)
	if err != nil {
		return err
	}
	hash, err := s.config.Hasher.Hash(ctx, s.config.BcryptCost, c.New)
	if err != nil {
		return err
	}
	// Once before the password is stored: a call that fails there is made again as it was.
	// And once after it, for those who have signed in by the old one in between.
	if err := s.endOthers(ctx, id, c.KeepSession); err != nil {
		return err
	}
	if err := s.storeHash(ctx, id, was, hash); err != nil {
		return err
	}
	if err := s.endOthers(ctx, id, c.KeepSession); err != nil {
		return err
	}
	s.report(ctx, event.PasswordChanged, event.Success, id, "")
	return nil
}

func (s *Store) endOthers(ctx context.Context, id, keep string) error {
	if s.config.KeepOtherSessions {
		return nil
	}
	return s.config.Sessions.EndOthers(ctx, id, keep, "password_changed")
}

// Reauthenticate checks the current password of somebody who is signed in, before what
// only the owner may do. The errors and the counting are those of ChangePassword.
func (s *Store) Reauthenticate(ctx context.Context, id, current, deviceToken string) error {
	r, err := s.read(ctx, bson.M{"_id": id, "app": s.config.App})
	if err != nil {
		return err
	}
	_, err = s.reauthenticate(ctx, r, current, deviceToken)
	return err
}

// reauthenticate returns the hash that matched the current password.
func (s *Store) reauthenticate(ctx context.Context, r *record, current, deviceToken string) (string, error) {
	counted := s.identifierID(r.EmailNorm)
	if r.EmailNorm == "" {
		counted = s.identifierID("user/" + r.ID)
	}
	if device := s.config.Devices.Verify(r.DeviceSubject(), deviceToken); deviceToken != "" && device != "" {
		counted = s.deviceID(r.ID, device)
	}
	hash, err := s.check(ctx, counted, r, current)
	if err != nil {
		return "", err
	}
	return hash, s.succeeded(ctx, counted)
}

// SetPassword gives the user a new password without the current one, for a
// service that has made sure by other means who asks. It ends every session of
// the user and forgets failed attempts. An account that is changing its owner lets nobody
// in before its address is proved, whatever its password: see [Store.VerifyEmail].
func (s *Store) SetPassword(ctx context.Context, id, password string) error {
	r, err := s.read(ctx, bson.M{"_id": id, "app": s.config.App})
	if err != nil {
		return err
	}
	if err := s.checkNew(ctx, "password", password, r.EmailNorm); err != nil {
		return err
	}
	if err := s.storePassword(ctx, id, r.PasswordHash, password); err != nil {
		return err
	}
	if err := s.config.Sessions.EndAll(ctx, id, "password_set"); err != nil {
		return err
	}
	if r.EmailNorm != "" {
		if err := s.unlock(ctx, r.EmailNorm); err != nil {
			return err
		}
	}
	s.report(ctx, event.PasswordChanged, event.Success, id, "set")
	return nil
}

// Disable closes the account: nobody signs in with it, and every session and
// access token of it is dead when the call returns nil. A call that fails half
// way is repeated whole.
func (s *Store) Disable(ctx context.Context, id, reason string) error {
	if err := s.setStatus(ctx, id, Disabled); err != nil {
		return err
	}
	if err := s.config.Sessions.EndAll(ctx, id, "disabled"); err != nil {
		return err
	}
	s.report(ctx, event.UserDisabled, event.Success, id, reason)
	return nil
}

// Enable opens the account again. Sessions that were ended stay ended.
func (s *Store) Enable(ctx context.Context, id string) error {
	if err := s.setStatus(ctx, id, Active); err != nil {
		return err
	}
	s.report(ctx, event.UserEnabled, event.Success, id, "")
	return nil
}

func (s *Store) setStatus(ctx context.Context, id string, status Status) error {
	err := s.update(ctx, bson.M{"_id": id, "app": s.config.App}, bson.M{"status": status})
	if errors.Is(err, ErrChanged) {
		return ErrNotFound
	}
	return err
}

// Delete removes the account. It is disabled and its sessions are ended first,
// so that a call that fails half way leaves nothing that can be used; it is
// repeated whole. The address is free afterwards. The error is [ErrNotFound]
// for a user that is not there.
func (s *Store) Delete(ctx context.Context, id string) error {
	r, err := s.read(ctx, bson.M{"_id": id, "app": s.config.App})
	if err != nil {
		return err
	}
	if err := s.Disable(ctx, id, "deleted"); err != nil {
		return err
	}
	if err := s.config.Sessions.Forget(ctx, id); err != nil {
		return err
	}
	if s.config.Roles != nil {
		if err := s.config.Roles.Forget(ctx, id); err != nil {
			return err
		}
	}
	if r.EmailNorm != "" {
		if err := s.unlock(ctx, r.EmailNorm); err != nil {
			return err
		}
	}
	ctx, cancel := store.Context(context.WithoutCancel(ctx))
	defer cancel()
	if _, err := s.users.DeleteOne(ctx, bson.M{"_id": id, "app": s.config.App}); err != nil {
		return store.Error("delete the user", err)
	}
	s.report(ctx, event.UserDeleted, event.Success, id, "")
	return nil
}
