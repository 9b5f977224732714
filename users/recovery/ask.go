package recovery

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/mandate-auth/mandate/internal/localpath"
	"github.com/mandate-auth/mandate/mail"
	"github.com/mandate-auth/mandate/tokens/onetime"
	"github.com/mandate-auth/mandate/users"
)

// The kinds of jobs. Those that a template is called like are that mail.
const (
	jobRegister = "register"
	// noticeLife is how long it is tried to tell an owner of a change.
	noticeLife = 3 * 24 * time.Hour
)

// Register takes a registration that was prepared: the account is made when the link that
// is mailed is used, and whoever has the address already is told instead. So nobody
// learns which of the two it was, neither from the answer nor by signing in, and nobody
// has an account with an address that is not theirs.
func (s *Service) Register(ctx context.Context, p *users.Prepared, from From) error {
	raw, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("recovery: %w", err)
	}
	job := s.job(jobRegister, p.Email, "", from, s.config.Lives.VerifyEmail, map[string]string{})
	// The hash of a password and a profile are nobody's business on the way.
	job.Data["prepared"] = s.config.Keys.Seal(sealScope(job.ID), raw)
	return named(s.outbox.Enqueue(ctx, job), "email")
}

// sealScope is the place of a registration: it is the job's, also while its link is out.
func sealScope(jobID string) string { return mail.Collection + "|" + jobID + "|prepared" }

// prepared is what was sealed for the job.
func (s *Service) prepared(jobID, sealed string) (*users.Prepared, error) {
	raw, err := s.config.Keys.Open(sealScope(jobID), sealed)
	if err != nil {
		return nil, fmt.Errorf("recovery: a registration: %w", err)
	}
	var p users.Prepared
	if err := json.Unmarshal(raw, &p); err != nil {
		return nil, fmt.Errorf("recovery: a registration: %w", err)
	}
	return &p, nil
}

// SendVerification mails a link that verifies the address, if an account has it and it
// is not verified yet.
func (s *Service) SendVerification(ctx context.Context, email string, from From) error {
	return s.ask(ctx, string(mail.VerifyEmail), "email", email, from, s.config.Lives.VerifyEmail, nil)
}

// ForgotPassword mails a link that sets a new password, if an account has the address.
func (s *Service) ForgotPassword(ctx context.Context, email string, from From) error {
	return s.ask(ctx, string(mail.ResetPassword), "email", email, from, s.config.Lives.ResetPassword, nil)
}

// SendMagicLink mails a link that signs in, if an account has the address. next is a
// path of the service that follows the sign-in, "" for none. The error is [ErrDisabled]
// where the app has none.
func (s *Service) SendMagicLink(ctx context.Context, email, next string, from From) error {
	if !s.config.MagicLink {
		return ErrDisabled
	}
	data := map[string]string{}
	if next != "" {
		if !localpath.Valid(next) {
			return &users.FieldError{Field: "next", Code: users.CodeInvalidField, Message: `must be a path of this site, beginning with one "/"`}
		}
		data["next"] = next
	}
	return s.ask(ctx, string(mail.MagicLink), "email", email, from, s.config.Lives.MagicLink, data)
}

// SendCode mails a code that signs in, if an account has the address. What it returns
// stays with whoever asked: without it the code is worth nothing. The error is
// [ErrDisabled] where the app has none.
func (s *Service) SendCode(ctx context.Context, email string, from From) (flowID string, life time.Duration, err error) {
	if !s.config.EmailCode {
		return "", 0, ErrDisabled
	}
	flow := onetime.NewFlow()
	err = s.ask(ctx, string(mail.EmailCode), "email", email, from, s.config.Lives.EmailCode, map[string]string{"flow": flow.Handle})
	if err != nil {
		return "", 0, err
	}
	return flow.ID, s.config.Lives.EmailCode, nil
}

// ChangeEmail mails a link to an address that is to become the account's. keep is the
// session that asks: it lives on when the others end. Whoever calls has made sure that it
// is the owner who asks.
func (s *Service) ChangeEmail(ctx context.Context, userID, keep, newEmail string, from From) error {
	norm, err := users.NormalizeEmail(newEmail)
	if err != nil {
		return named(err, "new_email")
	}
	st, err := s.config.Users.State(ctx, userID)
	if err != nil {
		return err
	}
	if keep != "" {
		// After the state was read: it is that of whoever has the account now.
		if _, err := s.config.Sessions.Check(ctx, userID, keep); err != nil {
			return err
		}
	}
	if norm == st.EmailNorm {
		return &users.FieldError{Field: "new_email", Code: users.CodeInvalidField, Message: "is the address that the account has"}
	}
	return named(s.outbox.Enqueue(ctx, s.job(string(mail.ChangeEmail), newEmail, userID, from, s.config.Lives.ChangeEmail, map[string]string{
		"from": st.EmailNorm, "stamp": st.Stamp, "session": keep,
	})), "new_email")
}

// PasswordChanged tells the owner of the account that its password is another one.
func (s *Service) PasswordChanged(ctx context.Context, userID string, from From) error {
	return s.tell(ctx, mail.PasswordChanged, userID, from, nil)
}

// IdentityLinked tells the owner that an identity of the provider signs in now, and
// IdentityRemoved that it no longer does.
func (s *Service) IdentityLinked(ctx context.Context, userID, provider string) error {
	return s.tell(ctx, mail.IdentityLinked, userID, From{}, map[string]string{"provider": provider})
}

// IdentityRemoved is described at IdentityLinked.
func (s *Service) IdentityRemoved(ctx context.Context, userID, provider string) error {
	return s.tell(ctx, mail.IdentityRemoved, userID, From{}, map[string]string{"provider": provider})
}

// Recovered tells the owner of the address, who has just proved to be that, that the
// account that was there is theirs now.
func (s *Service) Recovered(ctx context.Context, userID string) error {
	st, err := s.config.Users.State(ctx, userID)
	if err != nil || st.User.Email == "" {
		return err
	}
	return s.notice(ctx, mail.AccountRecovered, st.User.Email, userID, From{}, nil)
}

// tell enqueues a notice to the account's address. An account without one, or whose
// address nobody has verified, is told nothing.
func (s *Service) tell(ctx context.Context, what mail.Template, userID string, from From, data map[string]string) error {
	st, err := s.config.Users.State(ctx, userID)
	if err != nil {
		return err
	}
	if !st.User.EmailVerified || st.User.Email == "" {
		return nil
	}
	return s.notice(ctx, what, st.User.Email, userID, from, data)
}

func (s *Service) notice(ctx context.Context, what mail.Template, to, userID string, from From, data map[string]string) error {
	if data == nil {
		data = map[string]string{}
	}
	data["at"] = s.config.Now().UTC().Format(time.RFC3339)
	err := s.outbox.Enqueue(context.WithoutCancel(ctx), s.job(string(what), to, userID, from, noticeLife, data))
	if errInvalid := named(err, "email"); errInvalid != err { //nolint:errorlint // the same error means that it was another
		return nil // an address that no mail can be sent to: nobody can be told
	}
	return err
}
