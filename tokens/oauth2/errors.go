package oauth2

import "net/http"

// Error is an error that an endpoint answers (RFC 6749 section 5.2). As JSON it is
// the body of the answer. Errors of one code are the same to [errors.Is].
type Error struct {
	// Code is the "error".
	Code string `json:"error"`
	// Description is for people, in constant words: nothing of the request is in it.
	Description string `json:"error_description,omitempty"`
	// Status is the HTTP status. With 401 the answer needs WWW-Authenticate, with 503
	// Retry-After.
	Status int `json:"-"`
}

func (e *Error) Error() string { return e.Code + ": " + e.Description }

// Is reports whether target is an Error of the same code.
func (e *Error) Is(target error) bool {
	other, ok := target.(*Error)
	return ok && other.Code == e.Code
}

// The errors of the endpoints.
var (
	// ErrInvalidRequest says that the request is malformed.
	ErrInvalidRequest = &Error{"invalid_request", "the request is malformed", http.StatusBadRequest}
	// ErrInvalidClient says that the client is not who it says, or did not say.
	ErrInvalidClient = &Error{"invalid_client", "client authentication failed", http.StatusUnauthorized}
	// ErrInvalidGrant says that the grant is not good or not this client's.
	ErrInvalidGrant = &Error{"invalid_grant", "the grant is invalid", http.StatusBadRequest}
	// ErrUnauthorizedClient says that the client may not use the grant.
	ErrUnauthorizedClient = &Error{"unauthorized_client", "the client may not use this grant", http.StatusBadRequest}
	// ErrUnsupportedGrantType says that the grant is not served.
	ErrUnsupportedGrantType = &Error{"unsupported_grant_type", "the grant type is not supported", http.StatusBadRequest}
	// ErrInvalidScope says that the scope is malformed or more than the client has.
	ErrInvalidScope = &Error{"invalid_scope", "the scope is malformed or exceeds what the client may have", http.StatusBadRequest}
	// ErrUnsupportedTokenType says that tokens of the type cannot be revoked (RFC 7009
	// section 2.2.1).
	ErrUnsupportedTokenType = &Error{"unsupported_token_type", "tokens of this type cannot be revoked", http.StatusBadRequest}
	// ErrTemporarilyUnavailable says that the request may be repeated (RFC 6749 section
	// 4.1.2.1, RFC 7009 section 2.2.1).
	ErrTemporarilyUnavailable = &Error{"temporarily_unavailable", "try again later", http.StatusServiceUnavailable}
	// ErrServer says that something is wrong here.
	ErrServer = &Error{"server_error", "internal error", http.StatusInternalServerError}
)

// invalidRequest is [ErrInvalidRequest] with the description, a constant.
func invalidRequest(description string) error {
	return &Error{ErrInvalidRequest.Code, description, ErrInvalidRequest.Status}
}
