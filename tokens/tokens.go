// Package tokens issues and verifies access tokens, and knows which of them
// have been revoked.
//
// An access token is a JWT (RFC 7519) in the profile of RFC 9068: type
// "at+jwt", signed with HS256 by a key that is derived for one app and one
// purpose, or with EdDSA, ES256 or RS256 by the keys that [Service.UseKeys] is
// given. [Service.Verify] is the only thing that builds a [Verified], and
// only a Verified carries claims that may be believed.
//
// A [Feed] keeps the revocations of a blacklist collection in memory, a
// [Blacklist] is one app's part of it.
package tokens

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/table"
	"github.com/mandate-auth/mandate/tokens/keys"
)

const (
	// MaxAccessTTL is the longest life of an access token.
	MaxAccessTTL = 24 * time.Hour
	// MaxLength is the longest token that is looked at, in bytes.
	MaxLength = 8 << 10
	// maxIssued is the longest token that is issued: with its name it has to fit
	// the 4,096 bytes of a cookie (RFC 6265 section 6.1).
	maxIssued = 3800
	// tokenType is the "typ" of an access token (RFC 9068 section 2.1).
	tokenType = "at+jwt"
)

// Errors of verification. No claims come with any of them.
var (
	// ErrMalformed says that the text is no token at all.
	ErrMalformed = errors.New("malformed token")
	// ErrInvalid says that it is a token, and not one of this app and purpose:
	// the signature, key, type, issuer, audience or a claim is wrong.
	ErrInvalid = errors.New("invalid token")
	// ErrUnknownKey is an [ErrInvalid]: the token names a key that is not known here.
	// Another instance may have made it just now.
	ErrUnknownKey = fmt.Errorf("%w: its key is not known", ErrInvalid)
	// ErrNoKey says that nothing can be signed: no key has been given yet.
	ErrNoKey = errors.New("no signing key")
	// ErrExpired says that the token was good and its time is over.
	ErrExpired = errors.New("token expired")
	// ErrReservedClaim says that a custom claim has a name that Mandate uses.
	ErrReservedClaim = errors.New("reserved claim")
	// ErrTooLarge says that custom claims make the token too long for a cookie.
	ErrTooLarge = errors.New("token too large")
)

// Config configures a [Service].
type Config struct {
	// App is the slug, the "client_id" of the tokens.
	App string
	// Issuer and Audience are the "iss" and "aud", both required: an empty one
	// would switch the check off.
	Issuer, Audience string
	// AccessTTL is the life of a token: more than 0, at most 24 h.
	AccessTTL time.Duration
	// Leeway is how far clocks may differ when times are compared. Default 0.
	Leeway time.Duration
	// Keys are the app's derived keys, required.
	Keys *keys.App
	// Algorithm is [HS256] (the default), [EdDSA], [ES256] or [RS256]. With the last
	// three nothing is issued or accepted before [Service.UseKeys].
	Algorithm string
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Observe is told of each token whether it was remembered, for metrics. Default
	// nobody.
	Observe func(hit bool)
	// CacheSize is how many verified tokens are remembered. Default 16,384; at
	// some 700 bytes each that is about 11 MiB when it is full.
	CacheSize int
}

// Service issues and verifies the access tokens of one app. It is safe for
// concurrent use.
type Service struct {
	config Config
	ring   atomic.Pointer[keyring]
	cache  *table.Table[string, *Verified] // by their exact bytes
}

// New returns the service for the app that config describes.
func New(config Config) (*Service, error) {
	switch {
	case config.App == "" || config.Issuer == "" || config.Audience == "":
		return nil, errors.New("tokens: app, issuer and audience are required")
	case config.Keys == nil:
		return nil, errors.New("tokens: keys are required")
	case config.AccessTTL <= 0 || config.AccessTTL > MaxAccessTTL:
		return nil, fmt.Errorf("tokens: access TTL %s is not between 0 and %s", config.AccessTTL, MaxAccessTTL)
	case config.Leeway < 0:
		return nil, errors.New("tokens: leeway is negative")
	}
	if config.Now == nil {
		config.Now = time.Now //nolint:forbidigo // the default of the injected clock
	}
	if config.CacheSize <= 0 {
		config.CacheSize = 16 << 10
	}
	config.Algorithm = cmp.Or(config.Algorithm, HS256)
	s := &Service{config: config, cache: table.New[string, *Verified](config.CacheSize, table.ByEnd())}
	if config.Algorithm != HS256 {
		if methods[config.Algorithm] == nil {
			return nil, fmt.Errorf("tokens: the algorithm %q is not one of HS256, EdDSA, ES256 and RS256", config.Algorithm)
		}
		s.ring.Store(&keyring{})
		return s, nil
	}
	return s, s.UseDerivedKeys()
}

// Grant says whom a token is for.
type Grant struct {
	// Subject is the account's id, or the client's, required.
	Subject string
	// Kind is the account's kind, or [authz.KindService] for a client, required.
	Kind authz.Kind
	// SessionID is the session that the token belongs to: required for accounts, and
	// a client has none.
	SessionID string
	// Epoch is the epoch of the user's session head, or of the client: a revocation
	// of either kills tokens of a lower one.
	Epoch int64
	// AuthTime is when the user last proved who they are. A client has none.
	AuthTime time.Time
	// NotAfter bounds the token's life from above, as the end of its session
	// does. Zero means no bound besides AccessTTL.
	NotAfter time.Time
	// TTL is the life of a client's token, at most [MaxAccessTTL]. Zero means the
	// service's AccessTTL, which every account's token has.
	TTL time.Duration
	// Scopes go into "scope" (RFC 9068 section 2.2.3). One that [authz.CheckScope]
	// refuses, or more than [authz.MaxScopes], is an error.
	Scopes []string
	// Custom are further claims. A name that Mandate uses is
	// [ErrReservedClaim].
	Custom map[string]any
}

// check refuses a grant that no token can be made of.
func (g *Grant) check() error {
	switch {
	case g.Subject == "" || g.Kind == "":
		return errors.New("tokens: a grant needs subject and kind")
	case g.Kind == authz.KindService && (g.SessionID != "" || !g.AuthTime.IsZero()):
		return errors.New("tokens: a client has no session")
	case g.Kind != authz.KindService && (g.SessionID == "" || g.TTL != 0):
		return errors.New("tokens: a grant to an account needs a session, and has the service's life")
	case !knownKind(g.Kind):
		return fmt.Errorf("tokens: %q is not a kind that tokens are issued to", g.Kind)
	case g.TTL < 0 || g.TTL > MaxAccessTTL:
		return fmt.Errorf("tokens: the life %s is not between 0 and %s", g.TTL, MaxAccessTTL)
	default:
		return nil
	}
}

// knownKind reports whether tokens are issued to principals of the kind: an API
// key is its own credential.
func knownKind(k authz.Kind) bool {
	switch k {
	case authz.KindHuman, authz.KindAnonymous, authz.KindDemo, authz.KindService:
		return true
	default:
		return false
	}
}

// Issued is a new token.
type Issued struct {
	// Token is the token itself.
	Token string
	// ID is its "jti".
	ID string
	Lifetime
}

// Issue signs a token for g.
func (s *Service) Issue(g Grant) (*Issued, error) {
	if err := g.check(); err != nil {
		return nil, err
	}
	signing := s.ring.Load().signing
	if signing == nil {
		return nil, ErrNoKey
	}
	// NumericDate has whole seconds; rounding down never prolongs a life.
	now := s.config.Now().Truncate(time.Second)
	expires := now.Add(cmp.Or(g.TTL, s.config.AccessTTL))
	if !g.NotAfter.IsZero() && g.NotAfter.Before(expires) {
		expires = g.NotAfter.Truncate(time.Second)
	}
	claims := jwt.MapClaims{}
	for name, value := range g.Custom {
		if reserved[name] {
			return nil, fmt.Errorf("%w: %q", ErrReservedClaim, name)
		}
		claims[name] = value
	}
	if len(g.Scopes) > 0 {
		if err := CheckScopes(g.Scopes); err != nil {
			return nil, fmt.Errorf("tokens: %w", err)
		}
		claims["scope"] = strings.Join(g.Scopes, " ")
	}
	id := store.NewID("tok_")
	claims["iss"], claims["aud"], claims["client_id"] = s.config.Issuer, s.config.Audience, s.config.App
	claims["sub"], claims["sub_type"], claims["epoch"] = g.Subject, string(g.Kind), g.Epoch
	claims["jti"], claims["iat"], claims["exp"] = id, now.Unix(), expires.Unix()
	if g.Kind == authz.KindService {
		// RFC 9068 section 2.2: of the client_credentials grant "sub" is the client.
		claims["client_id"] = g.Subject
	} else {
		claims["sid"], claims["auth_time"] = g.SessionID, g.AuthTime.Unix()
	}
	text, err := signing.sign(claims)
	if err != nil {
		return nil, fmt.Errorf("tokens: sign: %w", err)
	}
	if len(text) > maxIssued {
		return nil, fmt.Errorf("%w: %d bytes, at most %d; put less into custom claims", ErrTooLarge, len(text), maxIssued)
	}
	return &Issued{Token: text, ID: id, Lifetime: Lifetime{IssuedAt: now, ExpiresAt: expires}}, nil
}
