package recovery

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mandate-auth/mandate/mail"
	"github.com/mandate-auth/mandate/tokens/onetime"
	"github.com/mandate-auth/mandate/users"
)

// Compose makes the mail of a job, nil for none. It is what the outbox calls, and the
// only place where it is looked at whether an address is somebody's. The tokens follow
// from the job, so a job that is composed again mails the same.
func (s *Service) Compose(ctx context.Context, job mail.Job) (*mail.Message, error) {
	switch mail.Template(job.Kind) {
	case jobRegister:
		return s.composeRegistration(ctx, &job)
	case mail.VerifyEmail:
		return s.composeVerification(ctx, &job)
	case mail.ResetPassword:
		return s.composeLink(ctx, &job, mail.ResetPassword, resetPassword, s.config.Links.ResetPassword, s.config.Lives.ResetPassword)
	case mail.MagicLink:
		return s.composeLink(ctx, &job, mail.MagicLink, magicLink, s.config.Links.MagicLink, s.config.Lives.MagicLink)
	case mail.EmailCode:
		return s.composeCode(ctx, &job)
	case mail.ChangeEmail:
		return s.composeChange(ctx, &job)
	case mail.Invitation:
		if s.invitations == nil {
			return nil, nil //nolint:nilnil // invitations were switched off meanwhile
		}
		return s.invitations(ctx, job)
	case mail.EmailChanged, mail.PasswordChanged, mail.IdentityLinked, mail.IdentityRemoved, mail.AccountRecovered:
		return s.composeNotice(&job)
	default:
		// Of a version that knows more: it is tried again until an instance of that takes it.
		return nil, fmt.Errorf("recovery: no mail of the kind %q is known", job.Kind)
	}
}

// Render is a message in the words of a template, for whoever composes mails of their
// own kinds too.
func (s *Service) Render(job *mail.Job, what mail.Template, d mail.Data) (*mail.Message, error) {
	d.App, d.IP = s.config.Name, job.Data["ip"]
	if d.Email == "" {
		d.Email = job.To
	}
	if d.Time.IsZero() {
		d.Time = job.CreatedAt
	}
	subject, text, html, err := s.config.Templates.Render(what, job.Lang, d)
	if err != nil {
		return nil, err
	}
	return &mail.Message{
		ID: job.ID, From: s.config.From, ReplyTo: s.config.ReplyTo, To: job.To, Subject: subject, Text: text, HTML: html,
	}, nil
}

func (s *Service) composeNotice(job *mail.Job) (*mail.Message, error) {
	at, _ := time.Parse(time.RFC3339, job.Data["at"])
	return s.Render(job, mail.Template(job.Kind), mail.Data{
		Time: at, NewEmail: job.Data["new_email"], Provider: s.config.Provider(job.Data["provider"]),
	})
}

// composeRegistration mails a link that makes the account, or whoever has the address
// already a notice.
func (s *Service) composeRegistration(ctx context.Context, job *mail.Job) (*mail.Message, error) {
	p, err := s.prepared(job.ID, job.Data["prepared"])
	if err != nil {
		return nil, err
	}
	norm, err := users.NormalizeEmail(p.Email)
	if err != nil {
		return nil, err
	}
	switch _, err := s.config.Users.StateByEmail(ctx, norm); {
	case err == nil:
		return s.composeTaken(ctx, job)
	case !errors.Is(err, users.ErrNotFound):
		return nil, err
	}
	subject := s.config.Tokens.Subject(norm)
	if ok, err := s.admit(ctx, job, subject, register); !ok || err != nil {
		return nil, err
	}
	life := s.Left(job, s.config.Lives.VerifyEmail)
	link, err := s.issue(ctx, job, s.config.Links.VerifyEmail, onetime.NewToken{
		Purpose: register, Subject: subject, TTL: life,
		Data: map[string]string{"job": job.ID, "prepared": job.Data["prepared"]},
	})
	if link == "" || err != nil {
		return nil, err
	}
	return s.Render(job, mail.VerifyEmail, mail.Data{Link: link, Lifetime: life})
}

// composeTaken tells the owner of an address that somebody wants it for an account.
func (s *Service) composeTaken(ctx context.Context, job *mail.Job) (*mail.Message, error) {
	st, err := s.find(ctx, job)
	if st == nil || err != nil {
		return nil, err
	}
	if ok, err := s.admit(ctx, job, st.User.ID, "account_exists"); !ok || err != nil {
		return nil, err
	}
	return s.Render(job, mail.AccountExists, mail.Data{})
}

// find returns the account with the job's address, nil where there is none that may be
// used. The mail goes to the address as the account has it: two spellings of one account
// may be two mailboxes.
func (s *Service) find(ctx context.Context, job *mail.Job) (*users.State, error) {
	st, err := s.config.Users.StateByEmail(ctx, job.To)
	if errors.Is(err, users.ErrNotFound) || (err == nil && st.User.Status != users.Active) {
		return nil, nil //nolint:nilnil // nobody is an answer, not an error
	}
	if err == nil {
		job.To = st.User.Email
	}
	return st, err
}

// everywhere is how many times as much all networks together may ask for.
const everywhere = 4

// admit reports whether the subject, an account or an address, may be mailed one more of
// the purpose in this hour, on the wish of this network, and counts it. A job that is
// composed again, because it could not be sent, was counted the first time.
func (s *Service) admit(ctx context.Context, job *mail.Job, subject string, purpose onetime.Purpose) (bool, error) {
	here := s.config.Tokens.Subject(subject + "|" + job.Data["network"])
	for _, q := range []onetime.Quota{
		{Purpose: "mailed_here/" + purpose, Subject: here, Limit: s.config.PerHour},
		{Purpose: "mailed/" + purpose, Subject: subject, Limit: everywhere * s.config.PerHour},
	} {
		q.Window = time.Hour
		if ok, err := s.config.Tokens.Spend(ctx, q, job.ID); !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

// issue makes the token of a job and returns the link with it, "" where there is nothing
// to mail any more: a token that an attempt before has made is for an account that has
// changed since.
func (s *Service) issue(ctx context.Context, job *mail.Job, page string, n onetime.NewToken) (string, error) {
	n.Seed = job.ID
	token, err := s.config.Tokens.Issue(ctx, n)
	if errors.Is(err, onetime.ErrInvalid) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return page + "#token=" + token, nil
}

// Left is how long what is mailed now is good for: its life, less what the job has waited
// for a mail server. The first minute does not count.
func (s *Service) Left(job *mail.Job, life time.Duration) time.Duration {
	waited := s.config.Now().Sub(job.CreatedAt)
	if waited < time.Minute {
		return life
	}
	return max(life-waited, time.Second) // the outbox drops what has nothing left
}

// composeVerification mails the link to an account that waits for it.
func (s *Service) composeVerification(ctx context.Context, job *mail.Job) (*mail.Message, error) {
	st, err := s.find(ctx, job)
	if err != nil || st == nil || st.User.EmailVerified {
		return nil, err
	}
	if ok, err := s.admit(ctx, job, st.User.ID, verifyEmail); !ok || err != nil {
		return nil, err
	}
	life := s.Left(job, s.config.Lives.VerifyEmail)
	link, err := s.issue(ctx, job, s.config.Links.VerifyEmail, onetime.NewToken{
		Purpose: verifyEmail, Subject: st.User.ID, Data: map[string]string{"email": st.EmailNorm}, TTL: life,
	})
	if link == "" || err != nil {
		return nil, err
	}
	return s.Render(job, mail.VerifyEmail, mail.Data{Link: link, Lifetime: life})
}

// composeLink mails a link that dies with the address, the password and the owner.
func (s *Service) composeLink(ctx context.Context, job *mail.Job, what mail.Template, purpose onetime.Purpose, page string, life time.Duration) (*mail.Message, error) {
	st, err := s.find(ctx, job)
	if st == nil || err != nil {
		return nil, err
	}
	if ok, err := s.admit(ctx, job, st.User.ID, purpose); !ok || err != nil {
		return nil, err
	}
	data := map[string]string{"stamp": st.Stamp}
	if next := job.Data["next"]; next != "" {
		data["next"] = next
	}
	life = s.Left(job, life)
	link, err := s.issue(ctx, job, page, onetime.NewToken{Purpose: purpose, Subject: st.User.ID, Data: data, TTL: life})
	if link == "" || err != nil {
		return nil, err
	}
	return s.Render(job, what, mail.Data{Link: link, Lifetime: life})
}

func (s *Service) composeCode(ctx context.Context, job *mail.Job) (*mail.Message, error) {
	st, err := s.find(ctx, job)
	if st == nil || err != nil {
		return nil, err
	}
	if ok, err := s.admit(ctx, job, st.User.ID, emailCode); !ok || err != nil {
		return nil, err
	}
	life := s.Left(job, s.config.Lives.EmailCode)
	code, err := s.config.Tokens.Open(ctx, job.Data["flow"], onetime.NewToken{
		Purpose: emailCode, Subject: st.User.ID, Data: map[string]string{"stamp": st.Stamp}, TTL: life,
	})
	if errors.Is(err, onetime.ErrInvalid) {
		return nil, nil //nolint:nilnil // its code was mailed before, and used
	}
	if err != nil {
		return nil, err
	}
	return s.Render(job, mail.EmailCode, mail.Data{Code: code, Lifetime: life})
}

// composeChange mails the new address a link, or its owner a notice that somebody wants
// it.
func (s *Service) composeChange(ctx context.Context, job *mail.Job) (*mail.Message, error) {
	other, err := s.find(ctx, job)
	if err != nil {
		return nil, err
	}
	if other != nil {
		if other.User.ID == job.UserID {
			return nil, nil //nolint:nilnil // it is the account's own by now
		}
		return s.composeTaken(ctx, job)
	}
	st, err := s.config.Users.State(ctx, job.UserID)
	if errors.Is(err, users.ErrNotFound) {
		return nil, nil //nolint:nilnil // the account is gone
	}
	if err != nil {
		return nil, err
	}
	if !st.Stamped(job.Data["stamp"]) {
		return nil, nil //nolint:nilnil // it is not what it was when it was asked for
	}
	norm, err := users.NormalizeEmail(job.To)
	if err != nil {
		return nil, err
	}
	// By the account that asks, and by the address: many accounts fill nobody's mailbox.
	for _, subject := range []string{st.User.ID, s.config.Tokens.Subject(norm)} {
		if ok, err := s.admit(ctx, job, subject, changeEmail); !ok || err != nil {
			return nil, err
		}
	}
	life := s.Left(job, s.config.Lives.ChangeEmail)
	link, err := s.issue(ctx, job, s.config.Links.ChangeEmail, onetime.NewToken{
		Purpose: changeEmail, Subject: st.User.ID, TTL: life,
		// The address is in the token, so that no two wishes can be mixed up.
		Data: map[string]string{"to": job.To, "from": job.Data["from"], "stamp": job.Data["stamp"], "session": job.Data["session"]},
	})
	if link == "" || err != nil {
		return nil, err
	}
	return s.Render(job, mail.ChangeEmail, mail.Data{Link: link, Lifetime: life, Email: st.User.Email, NewEmail: job.To})
}
