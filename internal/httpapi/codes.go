package httpapi

import "github.com/mandate-auth/mandate/users"

// The codes of this version. They are stable.
const (
	CodeInvalidRequest     = "invalid_request"
	CodeInvalidJSON        = "invalid_json"
	CodeInvalidCredentials = "invalid_credentials"
	CodeUnauthenticated    = "unauthenticated"
	CodeTokenExpired       = "token_expired"
	CodeTokenInvalid       = "token_invalid"
	CodeTokenRevoked       = "token_revoked"
	CodeSessionExpired     = "session_expired"
	CodeRefreshReused      = "refresh_reused"
	CodeFreshRequired      = "fresh_required"
	CodeForbidden          = "forbidden"
	CodeHumanRequired      = "human_required"
	CodeMachineRequired    = "machine_required"
	CodeInsufficientScope  = "insufficient_scope"
	CodeCSRFFailed         = "csrf_failed"
	CodeTLSRequired        = "tls_required"
	CodeRegistrationClosed = "registration_disabled"
	CodeAccountDisabled    = "account_disabled"
	CodeEmailUnverified    = "email_unverified"
	CodeLinkInvalid        = "link_invalid"
	CodeLastCredential     = "last_credential"
	CodeIdentityTaken      = "identity_taken"
	CodeIdentityLimit      = "identity_limit"
	CodeLinkForbidden      = "link_forbidden"
	CodeAccountExists      = "account_exists"
	CodeFlowInvalid        = "flow_invalid"
	CodeAccessDenied       = "access_denied"
	CodeProviderRefused    = "provider_refused"
	CodeProviderAway       = "provider_unavailable"
	CodeNotFound           = "not_found"
	CodeMethodNotAllowed   = "method_not_allowed"
	CodeEmailTaken         = "email_taken"
	CodeConflict           = "conflict"
	CodeSessionLimit       = "session_limit"
	CodeAPIKeyLimit        = "api_key_limit"
	CodeTooLarge           = "too_large"
	CodeUnsupportedMedia   = "unsupported_media_type"
	CodeInvalidField       = "invalid_field"
	CodeAccountLocked      = "account_locked"
	CodeRateLimited        = "rate_limited"
	CodeInternal           = "internal"
	CodeUnavailable        = "unavailable"
)

// template is what all problems of one code have in common.
type template struct {
	status        int
	title, detail string
}

var templates = map[string]template{
	CodeInvalidRequest:     {400, "Invalid request", "The request is not one that this route understands."},
	CodeInvalidJSON:        {400, "Invalid JSON", "The body is not valid JSON."},
	CodeInvalidCredentials: {401, "Invalid credentials", "The e-mail address or the password is wrong."},
	CodeUnauthenticated:    {401, "Sign-in required", "This needs an access token or a session cookie."},
	CodeTokenExpired:       {401, "Token expired", "The access token has expired; refresh it."},
	CodeTokenInvalid:       {401, "Invalid token", "The token is not one that was issued here."},
	CodeTokenRevoked:       {401, "Token revoked", "The token has been revoked; sign in again."},
	CodeSessionExpired:     {401, "Session expired", "The session is over; sign in again."},
	CodeRefreshReused:      {401, "Refresh token reused", "The refresh token had been used before, so the session was ended; sign in again."},
	CodeFreshRequired:      {401, "Recent sign-in required", "This needs a recent sign-in; sign in again."},
	CodeForbidden:          {403, "Forbidden", "This is not allowed."},
	CodeHumanRequired:      {403, "Person required", "This is for people, not for machines."},
	CodeMachineRequired:    {403, "Machine required", "This is for machines, not for people."},
	CodeInsufficientScope:  {403, "Insufficient scope", "The access token lacks a scope that this needs."},
	CodeCSRFFailed:         {403, "Cross-origin request refused", "The request comes from another origin, or lacks a JSON content type or X-Requested-With."},
	CodeTLSRequired:        {403, "HTTPS required", "This needs HTTPS."},
	CodeRegistrationClosed: {403, "Registration disabled", "This app takes no registrations."},
	CodeAccountDisabled:    {403, "Account disabled", "The account is disabled."},
	CodeEmailUnverified:    {403, "E-mail address not verified", "Follow the link that was mailed, or ask for another one."},
	CodeLinkForbidden:      {403, "Link refused", "This app does not link that identity to that account."},
	CodeAccessDenied:       {403, "Sign-in refused", "The provider did not let the sign-in happen."},
	CodeLinkInvalid:        {400, "Link or code not valid", "The link or the code is not valid any more; ask for another one."},
	CodeFlowInvalid:        {400, "Sign-in not valid", "The sign-in was not begun in this browser, was used, or took too long; begin again."},
	CodeLastCredential:     {409, "Last way to sign in", "Nobody could sign in to the account any more; set a password or link another identity first."},
	CodeIdentityTaken:      {409, "Identity taken", "The identity signs in to another account."},
	CodeIdentityLimit:      {409, "Too many identities", "The account has as many identities as it may have; remove one first."},
	CodeAccountExists:      {409, "Account exists", "An account has this address; sign in there and link the identity."},
	CodeProviderRefused:    {502, "Provider not accepted", "The answer of the provider was not accepted."},
	CodeProviderAway:       {503, "Provider unavailable", "The provider did not answer; try again."},
	CodeNotFound:           {404, "Not found", "There is nothing here."},
	CodeMethodNotAllowed:   {405, "Method not allowed", "This route does not know the method."},
	CodeEmailTaken:         {409, "E-mail address taken", "The e-mail address belongs to another account."},
	CodeConflict:           {409, "Conflict", "It was changed at the same time; try again."},
	CodeSessionLimit:       {409, "Too many sessions", "The account has as many sessions as the app allows; end one first."},
	CodeAPIKeyLimit:        {409, "Too many API keys", "The account has as many API keys as the app allows; revoke one first."},
	CodeTooLarge:           {413, "Too large", "The body is larger than 64 KiB."},
	CodeUnsupportedMedia:   {415, "Unsupported media type", "The body must be JSON, sent as application/json."},
	CodeInvalidField:       {422, "Invalid field", "A value is not acceptable."},
	users.CodeTooShort:     {422, "Password too short", "The password is too short."},
	users.CodeTooLong:      {422, "Password too long", "The password is too long."},
	users.CodeCommon:       {422, "Password too common", "The password is too easy to guess."},
	users.CodeBreached:     {422, "Password breached", "The password has appeared in a data breach."},
	CodeAccountLocked:      {429, "Account locked", "There were too many failed attempts; try again later."},
	CodeRateLimited:        {429, "Rate limit exceeded", "There were too many requests; try again later."},
	CodeInternal:           {500, "Internal error", "Something went wrong; the request id helps to find out what."},
	CodeUnavailable:        {503, "Unavailable", "This is not available at the moment; try again."},
}
