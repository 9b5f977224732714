package authz

import (
	"slices"
	"strings"
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
	// KindService is a machine that calls in its own name: an OAuth 2.0 client, or a
	// service account of another issuer.
	KindService Kind = "service"
	// KindAPIKey is a machine that calls in the name of the user whose key it has: it
	// may do what its scopes and its owner may both.
	KindAPIKey Kind = "api_key"
)

// Credential says what a principal presented.
type Credential string

// The credentials of this version. A custom one is called as the service has
// registered it.
const (
	// CredentialBearer is a user's access token in the Authorization header (RFC 6750
	// section 2.1).
	CredentialBearer Credential = "bearer"
	// CredentialCookie is an access token in the app's cookie.
	CredentialCookie Credential = "cookie"
	// CredentialAPIKey is an API key, in X-API-Key or as a bearer token.
	CredentialAPIKey Credential = "api_key"
	// CredentialClientToken is the access token of a machine, in the Authorization
	// header.
	CredentialClientToken Credential = "client_token"
	// CredentialClientSecret is a client's id and secret by HTTP Basic (RFC 6749
	// section 2.3.1).
	CredentialClientSecret Credential = "client_secret"
	// CredentialBasic is a user's e-mail address and password by HTTP Basic (RFC
	// 7617).
	CredentialBasic Credential = "basic"
)

// Principal is who is calling: the answer of a guard to "who is this". It is
// shared by all requests that present the same credential and must not be
// changed.
type Principal struct {
	// ID is the account's identifier, the "sub" of its tokens: of a client its client
	// id, of an API key its owner's id, and of a token of another issuer the issuer's
	// name, "|" and the issuer's subject.
	ID string
	// ClientID is the OAuth 2.0 client that a machine's token was issued to, "" for
	// others.
	ClientID string
	// Kind says what the principal is.
	Kind Kind
	// App is the slug of the app that the principal belongs to.
	App string
	// Issuer is the name of the issuer in the manifest's auth.issuers, "" for what
	// the app itself issued.
	Issuer string
	// SessionID is the session that the credential belongs to, "" for a machine.
	SessionID string
	// TokenID is the access token's "jti", or the API key's id.
	TokenID string
	// Credential is what was presented.
	Credential Credential
	// AuthTime is when the password or another factor was last checked, the
	// "auth_time" of OpenID Connect Core section 2. A refresh does not move it. It is
	// zero for a machine.
	AuthTime time.Time
	// ExpiresAt is when the credential ends by itself, zero for never.
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

// IsM2M reports whether a machine presents the credential: a service, or whoever
// has somebody's API key.
func (p *Principal) IsM2M() bool {
	return p != nil && (p.Kind == KindService || p.Kind == KindAPIKey)
}

// HasScope reports whether the principal's credential has the scope.
func (p *Principal) HasScope(scope string) bool {
	return p != nil && slices.Contains(p.Scopes, scope)
}

// Scopes of API keys that are more than a word between the service and its
// clients: "object:action" admits that permission, "object:*" every action on the
// object, "role:name" guards that ask for the role, and "*" all that the owner may.
const (
	// ScopeAll is the scope of an API key that may do whatever its owner may.
	ScopeAll = "*"
	// scopeRole begins the scopes that admit a role.
	scopeRole = "role:"
)

// Admits reports whether the credential leaves the principal the action on the
// object. Only an API key takes something away: it may do what its owner may, and
// no more than its scopes say. It allocates nothing.
func (p *Principal) Admits(object, action string) bool {
	if p == nil || p.Kind != KindAPIKey {
		return p != nil
	}
	return slices.ContainsFunc(p.Scopes, func(scope string) bool {
		if scope == ScopeAll {
			return true
		}
		rest, ok := strings.CutPrefix(scope, object)
		if !ok {
			return false
		}
		given, ok := strings.CutPrefix(rest, ":")
		return ok && (given == action || given == "*")
	})
}

// AdmitsRole reports whether the credential leaves the principal the role, as
// [Principal.Admits] does for permissions.
func (p *Principal) AdmitsRole(role string) bool {
	if p == nil || p.Kind != KindAPIKey {
		return p != nil
	}
	return slices.ContainsFunc(p.Scopes, func(scope string) bool {
		given, ok := strings.CutPrefix(scope, scopeRole)
		return scope == ScopeAll || ok && given == role
	})
}

// RoleOfScope returns the role that a scope of an API key admits, and whether it
// is such a scope.
func RoleOfScope(scope string) (role string, ok bool) { return strings.CutPrefix(scope, scopeRole) }

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
