package identity

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/users"
)

// attempts is how often an arrival is looked at again when others change the same
// accounts.
const attempts = 4

// Arrived says whom an arrival signs in.
type Arrived struct {
	// Proof is what a session begins with.
	Proof *users.Proof
	// UserID is the account, and New whether it was made by this arrival. A guest who
	// became a person is new.
	UserID string
	New    bool
	// Reclaimed says that the account has changed its owner.
	Reclaimed bool
}

// Arrive returns whom the identity signs in, and makes or links the account when it
// arrives for the first time. A returning identity costs one read.
//
// The error is [ErrNoAccount], [ErrAccountExists], [ErrIssuer], or one of users.
// [users.ErrChanged] says that the accounts kept changing under it: it may be tried
// again.
func (s *Store) Arrive(ctx context.Context, a Arrival) (*Arrived, error) {
	for range attempts {
		r, err := s.read(ctx, &a)
		if err != nil {
			return nil, err
		}
		if r != nil {
			// Whether it still signs in is for the account to say, which [users.Store.Confirm]
			// asks. Where it does not, Stale comes next.
			return &Arrived{Proof: users.ProveByLink(r.UserID, a.link()), UserID: r.UserID}, nil
		}
		out, err := s.first(ctx, &a)
		// Somebody was faster: what is there now is read again.
		if errors.Is(err, users.ErrChanged) || errors.Is(err, ErrTaken) || (errors.Is(err, users.ErrEmailTaken) && a.EmailVerified) {
			continue
		}
		return out, err
	}
	return nil, users.ErrChanged
}

// Stale forgets an identity whose account does not know it: it was unlinked, or the
// account is gone, and the call that did it died before the end. It reports whether
// there was one. The next arrival is a first one.
func (s *Store) Stale(ctx context.Context, a Arrival, userID string) (bool, error) {
	id := s.id(a.Provider, a.Subject)
	version, err := s.version(ctx, id, userID)
	if errors.Is(err, users.ErrNotFound) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	st, err := s.config.Users.State(ctx, userID)
	switch {
	case errors.Is(err, users.ErrNotFound):
	case err != nil:
		return false, err
	default:
		if slices.Contains(st.Links, a.link()) {
			return false, nil
		}
	}
	return true, s.drop(ctx, id, userID, version)
}

// first is the arrival of an identity that nobody has.
func (s *Store) first(ctx context.Context, a *Arrival) (*Arrived, error) {
	if !a.EmailVerified || a.Email == "" {
		return s.create(ctx, a, "")
	}
	st, err := s.config.Users.StateByEmail(ctx, a.Email)
	var field *users.FieldError
	switch {
	case errors.As(err, &field):
		return s.create(ctx, a, "") // no address that an account could have
	case errors.Is(err, users.ErrNotFound):
		return s.create(ctx, a, a.Email)
	case err != nil:
		return nil, err
	}
	known := slices.Contains(st.Links, a.link()) // the call that linked it died before the end
	switch {
	case !known && s.config.Link != LinkVerified:
		return nil, ErrAccountExists
	case st.User.Status != users.Active:
		return nil, users.ErrDisabled
	case known || st.User.EmailVerified:
		return s.join(ctx, st, a)
	}
	if st, err = s.config.Users.Reclaim(ctx, st); err != nil {
		return nil, err
	}
	out, err := s.join(ctx, st, a)
	if err != nil {
		return nil, err
	}
	out.Reclaimed = true
	return out, nil
}

// join links the identity to the account. The account is first: what signs in is
// decided there, and an identity that it does not know is worth nothing. The identity is
// last: until then the next call tells the owner.
func (s *Store) join(ctx context.Context, st *users.State, a *Arrival) (*Arrived, error) {
	if err := s.config.Users.AddLink(ctx, st, a.link()); err != nil {
		return nil, err
	}
	if s.config.Linked != nil {
		if err := s.config.Linked(ctx, st.User.ID, a.Provider); err != nil {
			return nil, err
		}
	}
	if err := s.insert(ctx, st.User.ID, a); err != nil {
		return nil, err
	}
	s.report(ctx, event.IdentityLinked, st.User.ID, a.Provider)
	return &Arrived{Proof: users.ProveByLink(st.User.ID, a.link()), UserID: st.User.ID}, nil
}

// create makes an account for the identity, with the address that was verified or none.
func (s *Store) create(ctx context.Context, a *Arrival, email string) (*Arrived, error) {
	if !s.config.CreateUsers {
		return nil, ErrNoAccount
	}
	if a.Guest != "" {
		// First, so that the guest finds back to the account when the call dies after the
		// guest has become a person. Until then the account does not know it.
		if err := s.insert(ctx, a.Guest, a); err != nil {
			return nil, err
		}
	}
	st, err := s.config.Users.CreateLinked(ctx, users.LinkedUser{Email: email, Link: a.link(), Profile: a.Profile, Guest: a.Guest})
	if err != nil {
		return s.notCreated(ctx, a, err)
	}
	err = s.insert(ctx, st.User.ID, a)
	if errors.Is(err, ErrTaken) {
		return nil, errors.Join(err, s.undo(ctx, st, a))
	}
	if err != nil {
		return nil, err
	}
	return &Arrived{Proof: users.ProveByLink(st.User.ID, a.link()), UserID: st.User.ID, New: true}, nil
}

// notCreated is for an arrival that made no account. A guest who is none any more may be
// a person by this very identity, where the call that made it died before the end;
// otherwise whoever arrives is somebody new. What create has stored for the guest goes.
func (s *Store) notCreated(ctx context.Context, a *Arrival, cause error) (*Arrived, error) {
	if a.Guest == "" || errors.Is(cause, store.ErrUnavailable) {
		return nil, cause
	}
	if errors.Is(cause, users.ErrNotGuest) {
		st, err := s.config.Users.State(ctx, a.Guest)
		switch {
		case err == nil && slices.Contains(st.Links, a.link()):
			return s.join(ctx, st, a)
		case err != nil && !errors.Is(err, users.ErrNotFound):
			return nil, err
		}
	}
	if _, err := s.Stale(ctx, *a, a.Guest); err != nil {
		return nil, err
	}
	if errors.Is(cause, users.ErrNotGuest) {
		a.Guest = ""
		return nil, users.ErrChanged
	}
	return nil, cause
}

// undo takes away an account that lost against another arrival of the same identity. A
// guest is left a person without that identity, and an account with an address loses the
// identity alone: by the address somebody may have joined it.
func (s *Store) undo(ctx context.Context, st *users.State, a *Arrival) error {
	ctx = context.WithoutCancel(ctx)
	switch {
	case st.User.ID == a.Guest:
		a.Guest = ""
		return nil
	case st.User.EmailVerified:
		return s.config.Users.RemoveLink(ctx, st.User.ID, a.link(), true)
	default:
		return s.config.Users.Delete(ctx, st.User.ID)
	}
}

// Link lets the identity sign in to the account of somebody who is signed in there. The
// state is that of the account when it was asked for. Linking it again changes nothing.
//
// The error is [ErrLinkForbidden], [ErrTaken], [ErrIssuer], [users.ErrLinkLimit], or
// [users.ErrChanged] when the account has changed its owner since.
func (s *Store) Link(ctx context.Context, st *users.State, a Arrival) error {
	norm, err := users.NormalizeEmail(a.Email)
	switch {
	case s.config.Link == LinkNever:
		return ErrLinkForbidden
	case s.config.Link == LinkVerified && (err != nil || !a.EmailVerified || !st.User.EmailVerified || norm != st.EmailNorm):
		return fmt.Errorf("%w: the addresses are not the same or not verified", ErrLinkForbidden)
	}
	r, err := s.read(ctx, &a)
	if err != nil {
		return err
	}
	if r != nil && r.UserID != st.User.ID {
		stale, err := s.Stale(ctx, a, r.UserID)
		if err != nil {
			return err
		}
		if !stale {
			return ErrTaken
		}
	}
	if r != nil && r.UserID == st.User.ID && slices.Contains(st.Links, a.link()) {
		return nil
	}
	_, err = s.join(ctx, st, &a)
	if errors.Is(err, ErrTaken) {
		// The account must not name what is another's.
		return errors.Join(err, s.config.Users.RemoveLink(ctx, st.User.ID, a.link(), true))
	}
	return err
}

// Unlink ends that the identity signs in to the account. The error is
// [users.ErrNotFound] or [users.ErrLastCredential].
func (s *Store) Unlink(ctx context.Context, userID, provider, subject string) error {
	id := s.id(provider, subject)
	version, missing := s.version(ctx, id, userID)
	if missing != nil && !errors.Is(missing, users.ErrNotFound) {
		return missing
	}
	err := s.config.Users.RemoveLink(ctx, userID, users.LinkOf(provider, subject), s.config.SignsInByMail)
	switch {
	case errors.Is(err, users.ErrNotFound) && missing == nil: // the call before died half way
	case err != nil:
		return err
	}
	if s.config.Removed != nil {
		if err := s.config.Removed(ctx, userID, provider); err != nil {
			return err
		}
	}
	// Last: until then the next call tells the owner.
	if err := s.drop(ctx, id, userID, version); err != nil {
		return err
	}
	s.report(ctx, event.IdentityRemoved, userID, provider)
	return nil
}
