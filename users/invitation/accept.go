package invitation

import (
	"context"
	"errors"
	"maps"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/tokens/onetime"
	"github.com/mandate-auth/mandate/users"
)

// attempts is how often the account of an address is looked at again when it changes
// while an invitation is accepted.
const attempts = 3

// errMoved says that somebody else has changed the account of the address meanwhile.
var errMoved = errors.New("the account of the address has changed")

// Accept makes the account of an invitation. The address is the invitation's: n.Email may
// be left out, and has to be that address otherwise. The account is verified, since the
// link was mailed to it. One that has the address and that nobody has verified is taken
// from whoever has made it, as by [users.Store.ResetPassword]; a guest who accepts is left
// behind then.
//
// One conditional write decides who accepts, before the account is stored, and one says
// that it was: no other is made, whatever becomes of it. A guest gets the role when the
// account is the person's, anybody new before the account is there. A call that was not
// answered is made again with the same token and password. The proof is what a session
// begins with.
//
// The error is [ErrInvalid], also when who has invited may not do so any more,
// [users.ErrEmailTaken], [users.ErrNotGuest], or a [users.FieldError], which leaves the
// invitation as it is. Where the account was made before it can be one of
// [users.Store.Authenticate] as well.
func (s *Store) Accept(ctx context.Context, token string, n users.NewUser) (*users.User, *users.Proof, error) {
	r, err := s.presented(ctx, token)
	if err != nil {
		return nil, nil, over(err)
	}
	if n.Email == "" {
		n.Email = r.Email
	} else if norm, err := users.NormalizeEmail(n.Email); err != nil || norm != r.EmailNorm {
		return nil, nil, &users.FieldError{Field: "email", Code: users.CodeInvalidField, Message: "is not the address that was invited"}
	}
	n.Verified = true
	user, proof, err := s.admit(ctx, r, n)
	for i := 1; i < attempts && errors.Is(err, errMoved); i++ {
		if r, err = s.read(ctx, r.ID); err == nil {
			user, proof, err = s.admit(ctx, r, n)
		}
	}
	if err != nil {
		return nil, nil, over(err)
	}
	// Of several who have come this far with the token and the password one is answered.
	if _, err := s.config.Tokens.Consume(ctx, Purpose, token); err != nil {
		return nil, nil, over(err)
	}
	s.report(ctx, event.InvitationUsed, user.ID, "")
	return user, proof, nil
}

// presented returns the invitation of a token, if whoever has invited still may.
func (s *Store) presented(ctx context.Context, token string) (*record, error) {
	t, err := s.config.Tokens.Peek(ctx, Purpose, token)
	if err != nil {
		return nil, err
	}
	r, err := s.read(ctx, t.Subject)
	if err != nil || s.config.MayInvite == nil {
		return r, err
	}
	ok, err := s.config.MayInvite(ctx, r.InvitedBy, r.Role)
	if err == nil && !ok {
		err = ErrInvalid
	}
	return r, err
}

// admit finds out what there is to do about the address. The error is [errMoved] when
// that is no longer so.
func (s *Store) admit(ctx context.Context, r *record, n users.NewUser) (*users.User, *users.Proof, error) {
	st, err := s.config.Users.StateByEmail(ctx, r.Email)
	switch {
	case errors.Is(err, users.ErrNotFound):
		return s.register(ctx, r, n)
	case err != nil:
		return nil, nil, err
	case r.State == Accepted && r.UserID == st.User.ID && st.User.EmailVerified:
		return s.resume(ctx, r, n)
	case st.User.EmailVerified || st.User.Status != users.Active:
		return nil, nil, users.ErrEmailTaken
	default:
		return s.reclaim(ctx, r, st, n)
	}
}

// register makes the account, a new one or the guest's.
func (s *Store) register(ctx context.Context, r *record, n users.NewUser) (*users.User, *users.Proof, error) {
	if err := s.guest(ctx, n.Guest); err != nil {
		return nil, nil, err
	}
	owed := n.Guest != "" && r.Role != ""
	n.Claim = func(ctx context.Context, userID string) error {
		if err := s.claim(ctx, r, userID, owed, false); err != nil || owed || r.Role == "" {
			return err
		}
		return s.config.Grant(ctx, userID, r.Role)
	}
	user, proof, err := s.config.Users.SignUp(ctx, n)
	if errors.Is(err, users.ErrEmailTaken) {
		return nil, nil, errors.Join(errMoved, err)
	}
	if err != nil {
		return nil, nil, err
	}
	ctx = context.WithoutCancel(ctx)
	err = s.settle(ctx, r, user.ID, owed)
	if errors.Is(err, ErrInvalid) {
		// It was revoked while the account was being made, which nobody knows of yet.
		return nil, nil, errors.Join(err, s.config.Users.Delete(ctx, user.ID))
	}
	return user, proof, err
}

// guest makes sure that the guest is one, before the invitation is taken for it.
func (s *Store) guest(ctx context.Context, id string) error {
	if id == "" {
		return nil
	}
	u, err := s.config.Users.Get(ctx, id)
	if errors.Is(err, users.ErrNotFound) || (err == nil && u.Kind != authz.KindAnonymous) {
		return users.ErrNotGuest
	}
	return err
}

// reclaim gives the account of the state, whose address nobody has verified, to who was
// invited: with the password whatever else signed in ends, sessions, identities and keys.
func (s *Store) reclaim(ctx context.Context, r *record, st *users.State, n users.NewUser) (*users.User, *users.Proof, error) {
	// What is wrong with the values leaves everything as it is.
	if _, err := s.config.Users.Prepare(ctx, n); err != nil {
		return nil, nil, err
	}
	ctx = context.WithoutCancel(ctx)
	id, owed := st.User.ID, r.Role != ""
	if err := s.claim(ctx, r, id, owed, true); err != nil {
		return nil, nil, err
	}
	_, err := s.config.Users.ResetPassword(ctx, id, users.Mailed{Stamp: st.Stamp}, n.Password)
	if errors.Is(err, users.ErrChanged) {
		return nil, nil, errors.Join(errMoved, err)
	}
	if err != nil {
		return nil, nil, err
	}
	taken := *r
	taken.State, taken.UserID, taken.Owed, taken.Reclaims = Accepted, id, owed, true
	return s.resume(ctx, &taken, n)
}

// renewProfile puts the profile of who was invited in the place of what somebody else has
// written.
func (s *Store) renewProfile(ctx context.Context, id string, by map[string]any) error {
	u, err := s.config.Users.Get(ctx, id)
	if err != nil {
		return err
	}
	profile := map[string]any{}
	for key := range u.Profile {
		profile[key] = nil
	}
	maps.Copy(profile, by)
	_, err = s.config.Users.UpdateProfile(ctx, id, profile)
	return err
}

// resume ends an acceptance whose account is there, for who knows its password: a call
// before was not answered. Anybody else who has the link finds the address taken.
func (s *Store) resume(ctx context.Context, r *record, n users.NewUser) (*users.User, *users.Proof, error) {
	proof, err := s.config.Users.Authenticate(ctx, users.Credentials{Email: r.Email, Password: n.Password})
	if errors.Is(err, users.ErrInvalidCredentials) || (err == nil && proof.UserID() != r.UserID) {
		return nil, nil, users.ErrEmailTaken
	}
	if err != nil {
		return nil, nil, err
	}
	if r.Reclaims {
		if err := s.renewProfile(ctx, r.UserID, n.Profile); err != nil {
			return nil, nil, err
		}
	}
	if err := s.settle(ctx, r, r.UserID, r.Owed); err != nil {
		return nil, nil, err
	}
	user, err := s.config.Users.Get(ctx, r.UserID)
	return user, proof, err
}

// over is the error of a token or of an invitation that is over, one for all.
func over(err error) error {
	if errors.Is(err, onetime.ErrInvalid) || errors.Is(err, ErrNotFound) {
		return errors.Join(ErrInvalid, err)
	}
	return err
}
