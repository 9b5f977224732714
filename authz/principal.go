package authz

import (
	"slices"
	"time"
)

// Kind says what a principal is.
type Kind string

// The kinds of principal. The zero value is none of them and passes no guard.
const (
	// KindHuman is a person with an account.
	KindHuman Kind = "human"
	// KindAnonymous is a guest: an account without a name, tied to a device.
	KindAnonymous Kind = "anonymous"
	// KindDemo is a throw-away account of a development environment.
	KindDemo Kind = "demo"
)

// Credential says what a principal presented.
type Credential string

// The credentials of this version.
const (
	// CredentialBearer is an access token in the Authorization header (RFC 6750 section 2.1).
	CredentialBearer Credential = "bearer"
	// CredentialCookie is an access token in the app's cookie.
	CredentialCookie Credential = "cookie"
)

// Principal is who is calling: the answer of a guard to "who is this". It is
// shared by all requests that present the same credential and must not be
// changed.
type Principal struct {
	// ID is the account's identifier, the "sub" of its tokens.
	ID string
	// Kind says what the principal is.
	Kind Kind
	// App is the slug of the app that the principal belongs to.
	App string
	// SessionID is the session that the credential belongs to.
	SessionID string
	// TokenID is the access token's "jti".
	TokenID string
	// Credential is what was presented.
	Credential Credential
	// AuthTime is when the password or another factor was last checked, the
	// "auth_time" of OpenID Connect Core section 2. A refresh does not move it.
	AuthTime time.Time
	// ExpiresAt is when the credential ends by itself.
	ExpiresAt time.Time
	// Scopes are what the credential is limited to (RFC 6749 section 3.3). A user has
	// none unless the service issues them.
	Scopes []string
	// Claims are the custom claims that the service put into the token.
	Claims map[string]any
}

// IsHuman reports whether a person stands behind the principal: one with an
// account, a guest or a demo user, not a machine.
func (p *Principal) IsHuman() bool {
	return p != nil && (p.Kind == KindHuman || p.Kind == KindAnonymous || p.Kind == KindDemo)
}

// HasScope reports whether the principal's credential has the scope.
func (p *Principal) HasScope(scope string) bool {
	return p != nil && slices.Contains(p.Scopes, scope)
}

// Subject returns the subject that rules know the principal by: its id, or
// [SubjectAnonymous] for a guest. Nobody is "", which no rule can name.
func (p *Principal) Subject() string {
	switch {
	case p == nil:
		return ""
	case p.Kind == KindAnonymous:
		return SubjectAnonymous
	default:
		return p.ID
	}
}
