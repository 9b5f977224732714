package social

import (
	"errors"
	"fmt"
	"slices"
)

// Errors of this package. Their texts say nothing of the request or of the provider's
// answer. [Set.Finish] returns ErrFlow, ErrProvider and ErrProviderUnavailable in an
// [*Error].
var (
	// ErrUnknownProvider says that no provider has this name.
	ErrUnknownProvider = errors.New("no such sign-in provider")
	// ErrFlow says that the callback does not belong to a sign-in that this browser
	// began with this provider, or that it came too late.
	ErrFlow = errors.New("the sign-in was not begun here or has expired; begin again")
	// ErrReplayed says that the callback has been used.
	ErrReplayed = errors.New("the sign-in has been used; begin again")
	// ErrProvider says that the provider, or somebody in its place, answered what is
	// not accepted, or that the configuration does not fit the provider.
	ErrProvider = errors.New("the answer of the sign-in provider is not accepted")
	// ErrProviderUnavailable says that the provider did not answer, or not in time, or
	// that it could not serve. The sign-in may be begun again later.
	ErrProviderUnavailable = errors.New("the sign-in provider is not available")
	// ErrNext says that [BeginOptions].Next is not a path of this site.
	ErrNext = errors.New("next is not a path of this site")
	// ErrOptions says that another of the [BeginOptions] is not valid.
	ErrOptions = errors.New("the options of the sign-in are not valid")
)

// Error is a sign-in that was refused. Its text is constant for its kind and reason.
// It unwraps to its kind, one of the errors above, and to the cause, which is for logs
// only: it may quote the provider.
type Error struct {
	// Provider is the provider's name.
	Provider string
	// Reason says in a stable word why.
	Reason string

	kind, cause error
}

// Error implements error. The cause is left out.
func (e *Error) Error() string { return "social: " + e.kind.Error() + " (" + e.Reason + ")" }

// Unwrap returns the kind and the cause.
func (e *Error) Unwrap() []error {
	if e.cause == nil {
		return []error{e.kind}
	}
	return []error{e.kind, e.cause}
}

// DeniedError is an error response of the provider (RFC 6749 section 4.1.2.1): the
// person refused, or the provider did.
type DeniedError struct {
	// Provider is the provider's name.
	Provider string
	// Code is a code of RFC 6749 section 4.1.2.1 or of OpenID Connect Core section
	// 3.1.2.6, and "unknown" for every other one.
	Code string
}

// Error implements error.
func (e *DeniedError) Error() string {
	return "social: the sign-in provider refused (" + e.Code + ")"
}

// Is reports that server_error and temporarily_unavailable are
// [ErrProviderUnavailable].
func (e *DeniedError) Is(target error) bool {
	return target == ErrProviderUnavailable && (e.Code == "server_error" || e.Code == "temporarily_unavailable")
}

// codes are those of error responses that are repeated to callers.
var codes = []string{
	"invalid_request", "unauthorized_client", "access_denied", "unsupported_response_type", "invalid_scope",
	"server_error", "temporarily_unavailable",
	"interaction_required", "login_required", "account_selection_required", "consent_required",
}

func (p *provider) denied(code string) error {
	if !slices.Contains(codes, code) {
		code = "unknown"
	}
	return &DeniedError{Provider: p.Name, Code: code}
}

// The reasons of refusals.
const (
	reasonNoState      = "state_missing"        // none, or several
	reasonNoCookie     = "flow_missing"         // the browser has nothing of this sign-in
	reasonForeign      = "flow_foreign"         // altered, of another app, provider or state, or of an older configuration
	reasonExpired      = "flow_expired"         // too late
	reasonReplayed     = "replayed"             // used before
	reasonOnce         = "once_unavailable"     // nobody knows whether it was used before
	reasonDenied       = "denied"               // an error response
	reasonCallback     = "callback_malformed"   // parameters given twice, or that contradict each other
	reasonNoCode       = "code_missing"         // neither a code nor an error
	reasonIssuer       = "issuer"               // "iss" of RFC 9207 is another's, or missing
	reasonDiscovery    = "discovery"            // the discovery document is not accepted
	reasonKeys         = "keys"                 // the JWK Set is not accepted
	reasonToken        = "token_endpoint"       // the answer of the token endpoint is not accepted
	reasonTokenRefused = "code_refused"         // the token endpoint refuses the code or the client
	reasonIDToken      = "id_token"             // the ID token is not accepted
	reasonUserInfo     = "user_info"            // the user information is not accepted
	reasonSubject      = "user_info_subject"    // the user information is about somebody else
	reasonDomain       = "hosted_domain"        // the account is of another domain than the configured one
	reasonTenant       = "tenant"               // the account is of a tenant that is not accepted
	reasonUnavailable  = "provider_unavailable" // no answer
)

// refuse returns the error of a cause: unavailable if that is what it says, and
// otherwise one of the provider with the reason.
func (p *provider) refuse(reason string, cause error) error {
	var refused *Error
	if errors.As(cause, &refused) {
		return refused
	}
	if errors.Is(cause, errNoAnswer) {
		return &Error{Provider: p.Name, Reason: reasonUnavailable, kind: ErrProviderUnavailable, cause: fmt.Errorf("%s: %w", reason, cause)}
	}
	return &Error{Provider: p.Name, Reason: reason, kind: ErrProvider, cause: cause}
}

func (p *provider) flowError(reason string, cause error) error {
	return &Error{Provider: p.Name, Reason: reason, kind: ErrFlow, cause: cause}
}
