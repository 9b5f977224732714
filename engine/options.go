package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"slices"
	"time"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/engine/metrics"
	"github.com/mandate-auth/mandate/internal/httpapi"
	"github.com/mandate-auth/mandate/mail"
	"github.com/mandate-auth/mandate/sessions"
	"github.com/mandate-auth/mandate/tokens/keys"
	"github.com/mandate-auth/mandate/tokens/secret"
	"github.com/mandate-auth/mandate/users"
)

// Names of other packages that stand in the signatures of this one.
type (
	// Principal is who is calling.
	Principal = authz.Principal
	// Guard is something that a route requires of a request.
	Guard = httpapi.Guard
	// Problem is an error as a client sees it (RFC 9457).
	Problem = httpapi.Problem
	// Grant is a sign-in that has succeeded.
	Grant = httpapi.Grant
	// Credentials are what somebody signs in with.
	Credentials = users.Credentials
	// Device describes where a sign-in comes from.
	Device = sessions.Device
	// Secret is a value that nothing prints.
	Secret = secret.Value
	// Pepper is a secret that goes into every password hash.
	Pepper = users.Pepper
	// Mailer sends the mails of apps.
	Mailer = mail.Mailer
)

// NewProvider returns the provider of authorization of an app.
type NewProvider func(ctx context.Context, app string) (authz.Provider, error)

// NewSecret returns a secret that holds the text.
func NewSecret(text string) Secret { return secret.FromString(text) }

// Options configures an [Engine]. The zero value takes the secret key from the
// environment and is fit for production.
type Options struct {
	// SecretKeys are the secrets that every key is derived from, newest first:
	// the first signs, all verify. Each has 32 bytes or more. When there is none
	// the environment is asked: MANDATE_SECRET_KEY, or for services that move over
	// FLASK_SECRET_KEY, SECRET_KEY or APP_SECRET_KEY; and for the key that it took the
	// place of, MANDATE_SECRET_KEY_PREVIOUS.
	SecretKeys []Secret
	// Peppers go into password hashes, newest first. They are not derived from
	// the secret keys, so that those can be changed. Default none.
	Peppers []Pepper
	// Logger receives what operators need to know. Default slog.Default.
	Logger *slog.Logger
	// Sinks receive every event. Default one that writes to Logger.
	Sinks []event.Sink
	// Providers are the providers of authorization that manifests can name in
	// auth.policy.provider, besides "casbin". A provider that has a method
	// Close(context.Context) error is closed with its app.
	Providers map[string]NewProvider
	// PolicyMemory bounds, in bytes, what the rules of idle apps take in memory: the
	// rules of those that nobody has asked for the longest are read again when they
	// are needed. Default 256 MiB.
	PolicyMemory int64
	// BreachChecker is asked about new passwords of apps whose manifest wants
	// it.
	BreachChecker users.BreachChecker
	// Claims returns custom claims for a user's access tokens; it is called at
	// every sign-in and refresh. Default none.
	Claims func(ctx context.Context, app, userID string) (map[string]any, error)
	// Scopes returns the scopes of a user's access tokens (RFC 6749 section 3.3), at
	// most 64 of 128 characters; it is called at every sign-in and refresh. A scope
	// that is none makes the sign-in fail. Default none.
	Scopes func(ctx context.Context, app, userID string) ([]string, error)
	// Authenticators recognise credentials that Mandate does not know, by names of 1 to
	// 63 lower case letters, digits and "_". Each app has those that are not nil for
	// it. They are asked when a request brings no other credential, or when a path
	// rule names them. Default none.
	Authenticators map[string]NewAuthenticator
	// ClientToken changes the access token of a client before it is issued: it adds
	// claims, or builds the token itself. Default nothing.
	ClientToken func(ctx context.Context, app string, t *ClientToken) error
	// IssuerClient fetches the keys of the manifests' auth.issuers, without following
	// redirects. Default a client of its own with TLS 1.2 or later.
	IssuerClient *http.Client
	// Mailer sends the mails of every app, in the place of the mail servers that
	// manifests name. It is told the app by the sender of a mail. Default none.
	Mailer Mailer
	// MailTemplates replace some or all of the texts of mails, or add languages: see
	// [mail.NewTemplates]. Default none.
	MailTemplates fs.FS
	// MailTLS configures the connections to the mail servers of manifests: a private
	// certification authority. Default none.
	MailTLS *tls.Config
	// OAuthClient talks to the providers of the manifests' auth.oauth. Redirects are not
	// followed, whatever it says. Default a client of its own with TLS 1.2 or later.
	OAuthClient *http.Client
	// GuestSignedIn is called when somebody signs in to an account who was a guest until
	// then, once it is certain that they are let in and before they are answered: the
	// guest's data can be moved to the account. An error is logged and refuses the sign-in
	// with 409 conflict: its session ends, and the guest stays as it is. Nobody is
	// asked about a guest who becomes a new account: that keeps the id. Default nothing.
	GuestSignedIn func(ctx context.Context, app, guestID, userID string) error
	// PasswordVerifiers verify the password hashes of other systems, besides those that
	// Mandate knows: see [users.HashVerifier]. Such a hash is renewed at the first
	// sign-in. Default none.
	PasswordVerifiers []users.HashVerifier
	// AuditSinks are the sinks that manifests can name in auth.audit.sinks, besides
	// "mongodb" and "log".
	AuditSinks map[string]event.Sink
	// Prometheus serves GET /metrics/prometheus: the Handler of package
	// engine/metrics/prom. It is an option, so that only services that want it depend
	// on Prometheus. Default none.
	Prometheus func(source func() []*metrics.Collector) http.Handler
	// OnError replaces how refusals are written. Headers such as
	// WWW-Authenticate and Retry-After are set already.
	OnError func(w http.ResponseWriter, r *http.Request, p *Problem)
	// HashSlots is how many passwords are hashed at once. Default GOMAXPROCS − 1,
	// at least 1.
	HashSlots int
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// LookupEnv finds environment variables. Default os.LookupEnv.
	LookupEnv func(string) (string, bool)
	// DisableChangeStreams makes every instance poll for revocations.
	DisableChangeStreams bool
	// InsecureHashCost replaces the bcrypt cost of every manifest, 4 or more, for
	// tests. OnHash is called for each hash that is computed.
	InsecureHashCost int
	OnHash           func()
}

// previousKey is the variable of the secret key that was in use before: what it has
// signed and sealed stays good until it is taken away.
const previousKey = "MANDATE_SECRET_KEY_PREVIOUS"

// nameOf is the form of names that manifests refer to.
var nameOf = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)

// ErrOptions says that the options cannot be used.
var ErrOptions = errors.New("engine options")

// withDefaults returns a copy with every default filled in.
func (o *Options) withDefaults() (*Options, error) {
	var out Options
	if o != nil {
		out = *o
	}
	if out.Logger == nil {
		out.Logger = slog.Default()
	}
	if out.Sinks == nil {
		out.Sinks = []event.Sink{event.SlogSink(out.Logger)}
	}
	if out.Now == nil {
		out.Now = time.Now //nolint:forbidigo // the default of the injected clock
	}
	if out.LookupEnv == nil {
		out.LookupEnv = os.LookupEnv
	}
	for _, name := range []string{"casbin", "oso"} {
		if out.Providers[name] != nil {
			return nil, fmt.Errorf("%w: the provider %s is Mandate's own; give yours another name", ErrOptions, name)
		}
	}
	for name := range out.Authenticators {
		if methods[name] != nil || slices.Contains(ownCredentials, authz.Credential(name)) || !nameOf.MatchString(name) {
			return nil, fmt.Errorf("%w: an authenticator cannot be called %q: give it 1 to 63 lower case letters, digits and \"_\", and none of the names of Mandate's own methods and credentials",
				ErrOptions, name)
		}
	}
	for _, name := range []string{"mongodb", "log"} {
		if out.AuditSinks[name] != nil {
			return nil, fmt.Errorf("%w: the audit sink %s is Mandate's own; give yours another name", ErrOptions, name)
		}
	}
	if out.PolicyMemory == 0 {
		out.PolicyMemory = 256 << 20
	}
	if out.PolicyMemory < 1<<20 {
		return nil, fmt.Errorf("%w: PolicyMemory is %d bytes; give it 1 MiB or more", ErrOptions, out.PolicyMemory)
	}
	if out.InsecureHashCost != 0 {
		if out.InsecureHashCost < 4 || out.InsecureHashCost > 15 {
			return nil, fmt.Errorf("%w: InsecureHashCost %d is not between 4 and 15", ErrOptions, out.InsecureHashCost)
		}
		out.Logger.Warn("passwords are hashed at a cost for tests", slog.Int("cost", out.InsecureHashCost))
	}
	if len(out.SecretKeys) > 0 {
		return &out, nil
	}
	value, name, err := keys.FromEnvironment(out.LookupEnv)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOptions, err)
	}
	out.Logger.Info("the secret key comes from the environment", slog.String("variable", name))
	out.SecretKeys = []Secret{value}
	if text, ok := out.LookupEnv(previousKey); ok && text != "" {
		out.Logger.Info("the secret key before it comes from the environment", slog.String("variable", previousKey))
		out.SecretKeys = append(out.SecretKeys, NewSecret(text))
	}
	return &out, nil
}
