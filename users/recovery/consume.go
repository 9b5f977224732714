package recovery

import (
	"context"
	"errors"

	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/mail"
	"github.com/mandate-auth/mandate/tokens/onetime"
	"github.com/mandate-auth/mandate/users"
)

// stale is the error of a token, or of an account that is not what it was when the token
// was issued. It is one for all: what is not valid tells nothing.
func stale(err error) error {
	if errors.Is(err, onetime.ErrInvalid) || errors.Is(err, users.ErrChanged) || errors.Is(err, users.ErrNotFound) || errors.Is(err, users.ErrDisabled) {
		return errors.Join(ErrInvalid, err)
	}
	return err
}

// once does what a token stands for and uses it up. do may be repeated, so that a call
// that was not answered is made again with the same token; of several that do it at once
// one is answered.
func (s *Service) once(ctx context.Context, purpose onetime.Purpose, token string, do func(*onetime.Token) error) error {
	t, err := s.config.Tokens.Peek(ctx, purpose, token)
	if err != nil {
		return stale(err)
	}
	if err := do(t); err != nil {
		return stale(err)
	}
	_, err = s.config.Tokens.Consume(ctx, purpose, token)
	return stale(err)
}

// VerifyEmail verifies the address that the token was mailed to, and makes the account
// where the token is that of a registration. The error is [ErrInvalid].
func (s *Service) VerifyEmail(ctx context.Context, token string) (*users.User, error) {
	var user *users.User
	err := s.once(ctx, verifyEmail, token, func(t *onetime.Token) (err error) {
		user, err = s.config.Users.VerifyEmail(ctx, t.Subject, t.Data["email"])
		return err
	})
	if errors.Is(err, onetime.ErrInvalid) && user == nil {
		err = s.once(ctx, register, token, func(t *onetime.Token) (err error) {
			user, err = s.complete(ctx, t)
			return err
		})
	}
	if err != nil {
		return nil, err
	}
	return user, nil
}

// complete makes the account of a registration. An address that somebody else has got
// meanwhile makes the link worth nothing.
func (s *Service) complete(ctx context.Context, t *onetime.Token) (*users.User, error) {
	p, err := s.prepared(t.Data["job"], t.Data["prepared"])
	if err != nil {
		return nil, err
	}
	user, err := s.config.Users.Complete(ctx, p)
	if errors.Is(err, users.ErrNotGuest) {
		p.Guest = "" // the guest is somebody by now, and this is somebody else
		user, err = s.config.Users.Complete(ctx, p)
	}
	if errors.Is(err, users.ErrEmailTaken) {
		return nil, errors.Join(onetime.ErrInvalid, err)
	}
	return user, err
}

// ResetPassword sets a new password by the token that was mailed, ends every session and
// every other link of the account, and tells its owner. It signs nobody in. The error is
// [ErrInvalid], or a [users.FieldError] for a password that is not admitted, which leaves
// the token as it is.
func (s *Service) ResetPassword(ctx context.Context, token, password string, from From) error {
	return s.once(ctx, resetPassword, token, func(t *onetime.Token) error {
		user, err := s.config.Users.ResetPassword(ctx, t.Subject, users.Mailed{Stamp: t.Data["stamp"]}, password)
		if err != nil {
			return err
		}
		if err := s.config.Tokens.Revoke(ctx, t.Subject, magicLink, emailCode, changeEmail, verifyEmail); err != nil {
			return err
		}
		return s.notice(ctx, mail.PasswordChanged, user.Email, user.ID, from, nil)
	})
}

// ConfirmEmail gives the account the address that the token was mailed to, and tells the
// old one. The error is [ErrInvalid], or [users.ErrEmailTaken] when somebody else has got
// the address meanwhile.
func (s *Service) ConfirmEmail(ctx context.Context, token string, from From) error {
	return s.once(ctx, changeEmail, token, func(t *onetime.Token) error {
		if err := s.alive(ctx, t); err != nil {
			return err
		}
		before, err := s.config.Users.State(ctx, t.Subject)
		if err != nil {
			return err
		}
		user, err := s.config.Users.ChangeEmail(ctx, t.Subject, users.EmailChange{From: t.Data["from"], To: t.Data["to"], Stamp: t.Data["stamp"]})
		if err != nil {
			return err
		}
		if !s.config.KeepOtherSessions {
			if err := s.config.Sessions.EndOthers(ctx, user.ID, t.Data["session"], "email_changed"); err != nil {
				return err
			}
		}
		if err := s.config.Tokens.Revoke(ctx, user.ID, resetPassword, magicLink, emailCode, verifyEmail); err != nil {
			return err
		}
		old := t.Data["from"]
		if old == "" {
			return nil
		}
		if before.EmailNorm == old {
			old = before.User.Email // as its owner writes it
		}
		return s.notice(ctx, mail.EmailChanged, old, user.ID, from, map[string]string{"new_email": user.Email})
	})
}

// alive makes sure that the session lives that asked for the token: whoever has ended it
// does not want what it asked for.
func (s *Service) alive(ctx context.Context, t *onetime.Token) error {
	if t.Data["session"] == "" {
		return nil // the service has asked
	}
	_, err := s.config.Sessions.Check(ctx, t.Subject, t.Data["session"])
	if err == nil || errors.Is(err, store.ErrUnavailable) || ctx.Err() != nil {
		return err
	}
	return errors.Join(onetime.ErrInvalid, err)
}

// SignedIn says whom a link or a code signs in.
type SignedIn struct {
	// Proof is what a session begins with.
	Proof *users.Proof
	// UserID is the account, and Next the path that was given when it was asked for.
	UserID, Next string
	// Reclaimed says that the account has changed its owner.
	Reclaimed bool
}

// ConsumeMagicLink uses the token of a link up. The error is [ErrInvalid].
func (s *Service) ConsumeMagicLink(ctx context.Context, token string) (*SignedIn, error) {
	if !s.config.MagicLink {
		return nil, ErrDisabled
	}
	t, err := s.config.Tokens.Consume(ctx, magicLink, token)
	if err != nil {
		return nil, stale(err)
	}
	return s.arrive(ctx, t)
}

// ConsumeCode uses up a code in the flow that asked for it. The error is [ErrInvalid], also
// for a right code after a hundred wrong ones in a row.
func (s *Service) ConsumeCode(ctx context.Context, flowID, code string) (*SignedIn, error) {
	if !s.config.EmailCode {
		return nil, ErrDisabled
	}
	t, err := s.config.Tokens.Try(ctx, emailCode, flowID, code)
	if errors.Is(err, onetime.ErrInvalid) {
		of := "flow/" + flowID // never the id of an account, whatever somebody sends
		if t != nil {
			of = t.Subject
		}
		if err := s.config.Users.CountWrongCode(ctx, of); err != nil {
			return nil, err
		}
		return nil, errors.Join(ErrInvalid, err)
	}
	if err != nil {
		return nil, err
	}
	if ok, err := s.config.Users.CodesAdmitted(ctx, t.Subject); err != nil {
		return nil, err // nobody knows whether the code is one that counts
	} else if !ok {
		return nil, ErrInvalid
	}
	if err := s.config.Users.ForgetWrongCodes(ctx, t.Subject); err != nil {
		return nil, err
	}
	return s.arrive(ctx, t)
}

// arrive is the arrival of somebody who has received a mail. An account whose address
// was not verified before is given to whom the address belongs.
func (s *Service) arrive(ctx context.Context, t *onetime.Token) (*SignedIn, error) {
	out := &SignedIn{UserID: t.Subject, Next: t.Data["next"], Proof: users.ProveByMail(t.Subject, t.Data["stamp"])}
	st, err := s.config.Users.State(ctx, t.Subject)
	if err != nil {
		return nil, stale(err)
	}
	if st.User.EmailVerified {
		return out, nil
	}
	if !st.Stamped(t.Data["stamp"]) || st.User.Status != users.Active {
		return nil, ErrInvalid
	}
	after, err := s.config.Users.Reclaim(ctx, st)
	if err != nil {
		return nil, stale(err)
	}
	out.Proof, out.Reclaimed = users.ProveByMail(t.Subject, after.Stamp), true
	return out, nil
}
