package event

import "slices"

// Type names what happened. The values are stable and end up in audit trails: a
// lower-case letter, then up to 63 lower-case letters, digits and "_".
type Type string

// The types of this version.
const (
	// Accounts and passwords.

	UserRegistered    Type = "user_registered"
	UserImported      Type = "user_imported"
	UserUpdated       Type = "user_updated"
	UserDisabled      Type = "user_disabled"
	UserEnabled       Type = "user_enabled"
	UserDeleted       Type = "user_deleted"
	PasswordChanged   Type = "password_changed"
	PasswordRehashed  Type = "password_rehashed"
	PasswordBreached  Type = "password_breached"
	BreachCheckFailed Type = "breach_check_failed"

	// Addresses, identities of other providers, and what is mailed.

	EmailVerified     Type = "email_verified"
	EmailChanged      Type = "email_changed"
	AccountReclaimed  Type = "account_reclaimed"
	GuestSignedIn     Type = "guest_signed_in"
	IdentityLinked    Type = "identity_linked"
	IdentityRemoved   Type = "identity_removed"
	InvitationCreated Type = "invitation_created"
	InvitationRevoked Type = "invitation_revoked"
	InvitationUsed    Type = "invitation_used"

	// Sign-in and sessions.

	LoginSucceeded   Type = "login_succeeded"
	LoginFailed      Type = "login_failed"
	AccountLocked    Type = "account_locked"
	AnonymousStarted Type = "anonymous_started"
	DemoStarted      Type = "demo_started"
	SessionStarted   Type = "session_started"
	SessionRefreshed Type = "session_refreshed"
	SessionEnded     Type = "session_ended"
	SessionEvicted   Type = "session_evicted"
	AllSessionsEnded Type = "all_sessions_ended"
	RefreshReused    Type = "refresh_reused"
	DeviceChanged    Type = "device_changed"
	AddressChanged   Type = "address_changed"

	// Requests and decisions. RequestPassed is a request that was served, or refused, with
	// its status; the others say why one was refused.

	RequestPassed        Type = "request"
	AccessDenied         Type = "access_denied"
	CrossOriginRefused   Type = "cross_origin_refused"
	AuthenticatorRefused Type = "authenticator_refused"
	RateLimited          Type = "rate_limited"

	// API keys.

	APIKeyCreated Type = "api_key_created"
	APIKeyRevoked Type = "api_key_revoked"
	APIKeyRefused Type = "api_key_refused"

	// OAuth 2.0 clients and their tokens.

	ClientCreated       Type = "client_created"
	ClientUpdated       Type = "client_updated"
	ClientSecretRotated Type = "client_secret_rotated"
	ClientDisabled      Type = "client_disabled"
	ClientEnabled       Type = "client_enabled"
	ClientDeleted       Type = "client_deleted"
	ClientRefused       Type = "client_refused"
	ClientTokenIssued   Type = "client_token_issued"
	TokenRevoked        Type = "token_revoked"

	// Sign-in by other providers: a callback that was refused.

	IdentityRefused Type = "identity_refused"

	// Keys, and the issuers whose tokens are accepted.

	SigningKeyCreated   Type = "signing_key_created"
	SigningKeyActivated Type = "signing_key_activated"
	SigningKeyRetired   Type = "signing_key_retired"
	SigningKeyRevoked   Type = "signing_key_revoked"
	KeysEpochRaised     Type = "keys_epoch_raised"
	IssuerRefused       Type = "issuer_refused"

	// Roles, policies and the life of an app.

	RoleGranted   Type = "role_granted"
	RoleRevoked   Type = "role_revoked"
	PolicyChanged Type = "policy_changed"
	ClockSkewed   Type = "clock_skewed"
	AppLoaded     Type = "app_loaded"
	AppClosed     Type = "app_closed"

	// Mail: a message was handed on, or dropped for good.

	MailSent   Type = "mail_sent"
	MailFailed Type = "mail_failed"

	// The audit trail itself: it begins, it vouches for other chains, it has lost
	// events, it was read or exported, it was found to be tampered with.

	AuditStarted    Type = "audit_started"
	AuditCheckpoint Type = "audit_checkpoint"
	AuditLost       Type = "audit_lost"
	AuditRead       Type = "audit_read"
	AuditBroken     Type = "audit_broken"

	// What a service records by itself about its own ways of signing in.

	AuthSuccess Type = "auth_success"
	AuthFailure Type = "auth_failure"
)

// types are all of them, in the order of their declaration.
var types = []Type{
	UserRegistered, UserImported, UserUpdated, UserDisabled, UserEnabled, UserDeleted, PasswordChanged, PasswordRehashed,
	PasswordBreached, BreachCheckFailed,
	EmailVerified, EmailChanged, AccountReclaimed, GuestSignedIn, IdentityLinked, IdentityRemoved,
	InvitationCreated, InvitationRevoked, InvitationUsed,
	LoginSucceeded, LoginFailed, AccountLocked, AnonymousStarted, DemoStarted, SessionStarted, SessionRefreshed,
	SessionEnded, SessionEvicted, AllSessionsEnded, RefreshReused, DeviceChanged, AddressChanged,
	RequestPassed, AccessDenied, CrossOriginRefused, AuthenticatorRefused,
	RateLimited,
	APIKeyCreated, APIKeyRevoked, APIKeyRefused,
	ClientCreated, ClientUpdated, ClientSecretRotated, ClientDisabled, ClientEnabled, ClientDeleted,
	ClientRefused, ClientTokenIssued, TokenRevoked, SigningKeyCreated, SigningKeyActivated, SigningKeyRetired, SigningKeyRevoked, KeysEpochRaised,
	IssuerRefused, IdentityRefused,
	RoleGranted, RoleRevoked, PolicyChanged, ClockSkewed, AppLoaded, AppClosed,
	MailSent, MailFailed,
	AuditStarted, AuditCheckpoint, AuditLost, AuditRead, AuditBroken,
	AuthSuccess, AuthFailure,
}

// Types returns the types of this version, in a slice of the caller's own. A service
// adds its own in the same form.
func Types() []Type { return slices.Clone(types) }
