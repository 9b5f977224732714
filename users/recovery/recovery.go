// Package recovery does what is done by mail: it verifies addresses, gives forgotten
// passwords back, changes addresses, signs in by link and by code, and tells owners
// what has changed.
//
// What is asked for is written down and answered before anybody looks at it: whether an
// address has an account is found out when the mail is composed, so the answer, its time
// and the calls to the database are the same for every address (OWASP Forgot Password
// Cheat Sheet). Links lead to pages of the service, which post the token: nothing that
// follows links uses it up. Each token works once, for one thing, for a short time, and
// dies with what it was issued for: the address, the password, the owner.
package recovery

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"time"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/mail"
	"github.com/mandate-auth/mandate/tokens/keys"
	"github.com/mandate-auth/mandate/tokens/onetime"
	"github.com/mandate-auth/mandate/users"
)

// Errors of this package. Those of users come through as they are.
var (
	// ErrInvalid says that a token or a code is none that can be used: unknown, used,
	// expired, or what it was issued for has changed since.
	ErrInvalid = errors.New("the link or the code is not valid any more")
	// ErrDisabled says that the app does not do this.
	ErrDisabled = errors.New("not enabled")
)

// The purposes of tokens.
const (
	register      onetime.Purpose = "register"
	verifyEmail   onetime.Purpose = "verify_email"
	resetPassword onetime.Purpose = "reset_password"
	changeEmail   onetime.Purpose = "change_email"
	magicLink     onetime.Purpose = "magic_link"
	emailCode     onetime.Purpose = "email_code"
)

// Links are the pages of the service that mailed links open, as absolute URLs. The token
// follows as "#token=…": a fragment is sent to no server and stands in no log.
type Links struct {
	VerifyEmail, ResetPassword, ChangeEmail, MagicLink, Invitation string
}

// Lives are how long links and codes are good for. Zero means the default.
type Lives struct {
	// VerifyEmail is 24 hours by default, ResetPassword 30 minutes, ChangeEmail one hour,
	// MagicLink 15 minutes and EmailCode 10 minutes (ASVS 6.5.5).
	VerifyEmail, ResetPassword, ChangeEmail, MagicLink, EmailCode time.Duration
}

func (l *Lives) setDefaults() {
	for _, d := range []struct {
		life *time.Duration
		is   time.Duration
	}{
		{&l.VerifyEmail, 24 * time.Hour},
		{&l.ResetPassword, 30 * time.Minute},
		{&l.ChangeEmail, time.Hour},
		{&l.MagicLink, 15 * time.Minute},
		{&l.EmailCode, 10 * time.Minute},
	} {
		if *d.life == 0 {
			*d.life = d.is
		}
	}
}

// Outbox sends what is enqueued, now or later.
type Outbox interface {
	Enqueue(ctx context.Context, job mail.Job) error
}

// Sessions ends the sessions of a user whose address changes.
type Sessions interface {
	EndOthers(ctx context.Context, userID, keep, reason string) error
	// Check fails for a session that is over.
	Check(ctx context.Context, userID, sessionID string) (authz.Kind, error)
}

// Config configures a [Service]. What has no default is required.
type Config struct {
	// App is the slug, and Name what people call it.
	App, Name string
	Users     *users.Store
	Tokens    *onetime.Store
	Sessions  Sessions
	Keys      *keys.App
	Templates *mail.Templates
	// From and ReplyTo are those of every mail. ReplyTo may be empty.
	From, ReplyTo string
	// Language is that of mails to people who have said nothing about theirs, a BCP 47
	// tag. Default "en".
	Language string
	Links    Links
	Lives    Lives
	// MagicLink and EmailCode switch these ways to sign in.
	MagicLink, EmailCode bool
	// KeepOtherSessions leaves the other sessions alive when the address changes.
	KeepOtherSessions bool
	// Provider returns what people call a provider. Default its name.
	Provider func(name string) string
	// PerHour bounds, for each account, kind of mail and network that asks, how many links
	// and codes are mailed in an hour; all networks together get four times as many. So
	// nobody's mailbox is filled by others, and nobody keeps the owner from asking.
	// Default 5, at most 25.
	PerHour int
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Service does what is done by mail for one app. It is safe for concurrent use.
type Service struct {
	config Config
	outbox Outbox
	// invitations compose what invites, nil where nobody is.
	invitations Composer
}

// Composer composes what another package has enqueued.
type Composer func(ctx context.Context, job mail.Job) (*mail.Message, error)

const maxPerHour = 25

// New returns what config describes. Before anything is asked of it, Use has to be given
// the outbox, which in turn needs Compose.
func New(config Config) (*Service, error) {
	if config.App == "" || config.Users == nil || config.Tokens == nil || config.Sessions == nil || config.Keys == nil || config.Templates == nil || config.From == "" {
		return nil, errors.New("recovery: app, users, tokens, sessions, keys, templates and a sender are required")
	}
	for _, link := range []string{config.Links.VerifyEmail, config.Links.ResetPassword, config.Links.ChangeEmail, config.Links.MagicLink, config.Links.Invitation} {
		if u, err := url.Parse(link); link != "" && (err != nil || u.Host == "" || u.Fragment != "") {
			return nil, fmt.Errorf("recovery: %q is no absolute URL without a fragment", link)
		}
	}
	config.Lives.setDefaults()
	if config.Name == "" {
		config.Name = config.App
	}
	if config.Language == "" {
		config.Language = "en"
	}
	if config.PerHour == 0 {
		config.PerHour = 5
	}
	if config.PerHour < 0 || config.PerHour > maxPerHour {
		return nil, fmt.Errorf("recovery: %d mails an hour are not 1 to %d", config.PerHour, maxPerHour)
	}
	if config.Provider == nil {
		config.Provider = func(name string) string { return name }
	}
	if config.Now == nil {
		config.Now = time.Now //nolint:forbidigo // the default of the injected clock
	}
	return &Service{config: config}, nil
}

// Use gives the service its outbox, and what composes invitations, which may be nil.
func (s *Service) Use(outbox Outbox, invitations Composer) {
	s.outbox, s.invitations = outbox, invitations
}

// From is where a wish comes from.
type From struct {
	// Language is the one that the person reads, a BCP 47 tag. Empty, or what is none,
	// means Config.Language.
	Language string
	// IP is the address of the request, for the mail, and Network the group it belongs to:
	// what strangers ask for takes nothing from what the owner may. Both may be empty.
	IP, Network string
}

// validLanguage is a BCP 47 tag by its form, short enough for a job.
var validLanguage = regexp.MustCompile(`^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,6}$`)

// LanguageOr returns the language, or another where it is empty or no language tag: what
// a request says about it must not keep a mail from being sent.
func (f From) LanguageOr(other string) string {
	if !validLanguage.MatchString(f.Language) {
		return other
	}
	return f.Language
}

// job is a job with what every one has.
func (s *Service) job(kind, to, userID string, from From, life time.Duration, data map[string]string) mail.Job {
	if data == nil {
		data = map[string]string{}
	}
	for name, value := range map[string]string{"ip": from.IP, "network": from.Network} {
		if value != "" {
			data[name] = value
		}
	}
	lang := from.LanguageOr(s.config.Language)
	return mail.Job{ID: mail.NewJobID(), Kind: kind, To: to, UserID: userID, Lang: lang, Data: data, NotAfter: s.config.Now().Add(life)}
}

// ask enqueues what somebody asks for an address. What can be no address is a
// [users.FieldError]; whether it is somebody's is not looked at.
func (s *Service) ask(ctx context.Context, kind, field, email string, from From, life time.Duration, data map[string]string) error {
	if _, err := users.NormalizeEmail(email); err != nil {
		return named(err, field)
	}
	return named(s.outbox.Enqueue(ctx, s.job(kind, email, "", from, life, data)), field)
}

// named is the error of an address under the name that the caller knows it by.
func named(err error, field string) error {
	var f *users.FieldError
	switch {
	case errors.Is(err, mail.ErrInvalidJob):
		return &users.FieldError{Field: field, Code: users.CodeInvalidField, Message: "must be an address that mail can be sent to"}
	case errors.As(err, &f):
		own := *f
		own.Field = field
		return &own
	default:
		return err
	}
}
