// Package issuers verifies the access tokens of other issuers: of an identity
// provider, or of the sign-in service of the company.
//
// An [Issuer] accepts the JWTs (RFC 7519) of one issuer by the rules of RFC 8725
// section 3 and, as far as issuers keep to it, of RFC 9068 section 4. A [Set]
// chooses among several. Only [Issuer.Verify] builds a [Verified].
//
// # Keys
//
// Keys come from the JWK Set (RFC 7517) of the configured issuer and from nowhere
// else; whatever a token says about where its key is to be found is refused. The
// set is fetched when it is first needed, over https, without cookies and without
// following redirects, bounded in time and size; whatever "Content-Type" the
// response claims, it has to be a JWK Set. There is no way through a proxy named by
// the environment: a service that needs one gives its own Config.Client.
//
// Without Config.JWKSURL the address is discovered (OpenID Connect Discovery 1.0
// section 4, then RFC 8414 section 3). The document has to name exactly the
// configured issuer, and an address of the issuer's own scheme, host and port, so
// that nothing but the configuration decides whom the service calls. An issuer that
// keeps its keys on another host, as Google does, needs JWKSURL.
//
// Each key is used with one algorithm: the one its "alg" names, or, without that,
// the first of Config.Algorithms that its type fits. Ignored are keys for another
// "use" or without the operation "verify", symmetric and private ones, RSA keys
// below 2,048 or above 4,096 bits, and points that are not on their curve. Two keys
// of one id and algorithm are ambiguous and verify nothing.
//
// # Age of keys
//
// A set is fresh for Config.MaxAge, or for less if "Cache-Control" says so, and is
// renewed in the background when a fifth of that time is left. One that is not fresh
// any more is fetched before anything is verified. While that fails, the old keys
// serve until they are Config.MaxStale old; then everything is refused with
// [ErrUnavailable]. A token that names a key which is not there has the set fetched
// at once, but not within Config.MinRefresh of the last attempt, however many such
// tokens come. A key that a new set does not have any more verifies nothing, not
// even a token that it verified before.
//
// So a key that the issuer withdraws is accepted for at most MaxAge, and for
// MaxStale if nobody can reach the issuer.
package issuers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/mandate-auth/mandate/internal/table"
	"github.com/mandate-auth/mandate/tokens/m2m"
)

// ErrUnavailable says that the issuer's keys cannot be had, so that nobody knows
// whether the token is good. It is refused; the same token may be accepted later.
var ErrUnavailable = errors.New("the issuer's keys are not available")

// The bounds of a [Config].
const (
	// MaxLeeway is the greatest Config.Leeway.
	MaxLeeway = 5 * time.Minute
	// MaxMaxAge is the greatest Config.MaxAge and Config.MaxStale.
	MaxMaxAge = 24 * time.Hour
)

// Config configures an [Issuer].
type Config struct {
	// Name is what the issuer is called in the app: 1 to 64 letters, digits, "-", "_"
	// and ".". It becomes a part of the ids of principals. Required.
	Name string
	// Issuer is the "iss" of the tokens, byte for byte: a URL with https and without
	// query and fragment (RFC 8414 section 2). Required.
	Issuer string
	// Audience are the audiences that this service answers to; a token has to be for
	// one of them. Required.
	Audience []string
	// AudienceClaim is the claim that holds the audience. Default "aud". Access
	// tokens of Amazon Cognito have none: there it is "client_id", and Audience lists
	// the clients whose tokens are for this service. A token that has an "aud" must
	// name one of Audience there also then.
	AudienceClaim string
	// Algorithms are the accepted ones, of RS256, RS384, RS512, ES256, ES384 and
	// EdDSA (RFC 7518 section 3.1, RFC 8037 section 3.1). Default RS256, ES256 and
	// EdDSA.
	Algorithms []string
	// JWKSURL is where the keys are. Default: discovery.
	JWKSURL string
	// TokenTypes are the accepted values of "typ", byte for byte; "" stands for a
	// token without one. Default "at+jwt" and "application/at+jwt" (RFC 9068 section
	// 4), "JWT" and "": most issuers do not mark their access tokens. With a type
	// other than the first two, a token that looks like an ID token is refused, and
	// Audience has to be one that ID tokens do not have. Where the issuer keeps to
	// RFC 9068, list the first two only.
	TokenTypes []string
	// M2M says how machines are told from people. Default [m2m.Default].
	M2M m2m.Mapping
	// Leeway is how far clocks may differ when times are compared, at most 5 min.
	// Default 0.
	Leeway time.Duration
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Client makes the requests. Its transport and its time limit are used; its
	// cookies are not, and redirects are never followed. Default: a client of the
	// issuer's own with TLS 1.2 or later.
	Client *http.Client
	// Logger gets what goes wrong with the keys. Default slog.Default().
	Logger *slog.Logger
	// MinRefresh is the shortest time between two attempts to fetch the keys that
	// tokens of unknown keys cause. At least 1 s, default 30 s. Without any key the
	// next attempt comes after 5 s, if MinRefresh is not shorter still.
	MinRefresh time.Duration
	// MaxAge is how long fetched keys are fresh. MinRefresh to 24 h, default 10 min.
	MaxAge time.Duration
	// MaxStale is the age to which keys are used while they cannot be fetched again.
	// MaxAge to 24 h, default 1 h, or MaxAge if that is longer.
	MaxStale time.Duration
	// Timeout bounds fetching the keys, discovery included. At most 30 s, default 5 s.
	Timeout time.Duration
	// MaxSize bounds each response in bytes, at most 16 MiB, default 512 KiB.
	MaxSize int64
	// CacheSize is how many verified tokens are remembered. Default 4,096; at some
	// 4 KiB for a usual token that is about 16 MiB when it is full.
	CacheSize int
	// InsecureLoopback accepts http for addresses of this machine: 127.0.0.0/8, ::1
	// and localhost. For development.
	InsecureLoopback bool
}

// Issuer verifies the access tokens of one issuer. It is safe for concurrent use.
type Issuer struct {
	config   Config
	detector *m2m.Detector
	keys     *source
	cache    *table.Table[string, *Verified] // by their exact bytes
}

// New returns the issuer that config describes. It fetches nothing. Close it when
// it is not needed any more.
func New(config Config) (*Issuer, error) {
	config = config.complete()
	if err := config.check(); err != nil {
		return nil, fmt.Errorf("issuers: %w", err)
	}
	detector, err := m2m.New(config.M2M)
	if err != nil {
		return nil, fmt.Errorf("issuers: issuer %q: %w", config.Name, err)
	}
	return &Issuer{config: config, detector: detector, keys: newSource(&config), cache: table.New[string, *Verified](config.CacheSize, table.ByEnd())}, nil
}

// Name returns Config.Name.
func (i *Issuer) Name() string { return i.config.Name }

// Close ends what runs in the background, and fetches nothing any more. It returns
// when that has ended, or ctx has.
func (i *Issuer) Close(ctx context.Context) error { return i.keys.close(ctx) }
