// Package httpapi turns the packages below it into HTTP: credentials into
// principals, requests into calls, errors into answers. Each concern and each
// flow has a file of its own; errors become HTTP in this file alone.
package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/cookies"
	"github.com/mandate-auth/mandate/engine/audit"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/sessions"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/apikey"
	"github.com/mandate-auth/mandate/tokens/issuers"
	"github.com/mandate-auth/mandate/tokens/oauth2"
	"github.com/mandate-auth/mandate/users"
)

// Problem is an error as a client sees it (RFC 9457).
type Problem struct {
	Type      string         `json:"type"`
	Title     string         `json:"title"`
	Status    int            `json:"status"`
	Detail    string         `json:"detail,omitempty"`
	Code      string         `json:"code"`
	RequestID string         `json:"request_id,omitempty"`
	Errors    []FieldProblem `json:"errors,omitempty"`
	// RetryAfter is sent as the header of that name, in whole seconds.
	RetryAfter time.Duration `json:"-"`

	cause error
	// scope is what was missing (RFC 6750 section 3).
	scope string
	// who was refused, nil where that is not known.
	who *authz.Principal
}

// FieldProblem says what is wrong with one member of the request.
type FieldProblem struct {
	// Path is the member, "profile.nickname".
	Path string `json:"path"`
	// Message says what to do.
	Message string `json:"message"`
}

func (p *Problem) Error() string {
	if p.cause != nil {
		return p.Code + ": " + p.cause.Error()
	}
	return p.Code + ": " + p.Detail
}

func (p *Problem) Unwrap() error { return p.cause }

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

// refuse returns the problem with the code.
func refuse(code string) *Problem {
	t := templates[code]
	return &Problem{Type: "about:blank", Title: t.title, Status: t.status, Detail: t.detail, Code: code}
}

// refuseTo returns the problem with the code for a principal that is known.
func refuseTo(p *authz.Principal, code string) *Problem {
	problem := refuse(code)
	problem.who = p
	return problem
}

// invalidRequest returns a problem about one member of the request.
func invalidRequest(path, format string, args ...any) *Problem {
	p := refuse(CodeInvalidRequest)
	p.Errors = []FieldProblem{{Path: path, Message: fmt.Sprintf(format, args...)}}
	return p
}

// conditions maps what the packages below report to codes. The first that
// matches counts.
var conditions = []struct {
	err  error
	code string
}{
	{tokens.ErrStale, CodeUnavailable},
	{store.ErrUnavailable, CodeUnavailable},
	{users.ErrInvalidCredentials, CodeInvalidCredentials},
	{users.ErrDisabled, CodeAccountDisabled},
	{users.ErrEmailTaken, CodeEmailTaken},
	{users.ErrChanged, CodeConflict},
	{users.ErrNotFound, CodeNotFound},
	{users.ErrInvalidCursor, CodeInvalidRequest},
	{sessions.ErrTokenInvalid, CodeTokenInvalid},
	{sessions.ErrExpired, CodeSessionExpired},
	{sessions.ErrGone, CodeSessionExpired},
	{sessions.ErrReused, CodeRefreshReused},
	{sessions.ErrEpochChanged, CodeConflict},
	{sessions.ErrLimit, CodeSessionLimit},
	{sessions.ErrNotFound, CodeNotFound},
	{tokens.ErrMalformed, CodeTokenInvalid},
	{tokens.ErrInvalid, CodeTokenInvalid},
	{tokens.ErrExpired, CodeTokenExpired},
	{tokens.ErrRevoked, CodeTokenRevoked},
	{issuers.ErrUnavailable, CodeUnavailable},
	{apikey.ErrLimit, CodeAPIKeyLimit},
	{apikey.ErrOwner, CodeForbidden},
	{apikey.ErrNotFound, CodeNotFound},
	{apikey.ErrInvalidCursor, CodeInvalidRequest},
	{oauth2.ErrNotFound, CodeNotFound},
	{oauth2.ErrNameTaken, CodeConflict},
	{oauth2.ErrInvalidClient, CodeInvalidCredentials},
	{oauth2.ErrInvalidScope, CodeInvalidField},
	{oauth2.ErrLastSecret, CodeConflict},
	{oauth2.ErrInvalidCursor, CodeInvalidRequest},
	{audit.ErrInvalidCursor, CodeInvalidRequest},
	{audit.ErrNotTamperEvident, CodeNotFound},
	{cookies.ErrDuplicate, CodeInvalidRequest},
	{authz.ErrUnavailable, CodeUnavailable},
	{authz.ErrUnsupported, CodeInvalidRequest},
	{authz.ErrForbidden, CodeForbidden},
	{ErrNotFound, CodeNotFound},
	// Whoever waited has gone, or has no time left. Last: what else an error
	// says counts more.
	{context.Canceled, CodeUnavailable},
	{context.DeadlineExceeded, CodeUnavailable},
}

// ErrNotFound is what a service's own functions return for something that is not
// there: it is answered 404.
var ErrNotFound = errors.New("not found")

// panicError is a defect that was caught.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// AsProblem returns err as a client sees it, in a value of the caller's own.
// What is not known is an internal error with a constant text.
func AsProblem(err error) *Problem {
	var p *Problem
	if errors.As(err, &p) {
		// The package's own problems are shared by all requests.
		own := *p
		own.Errors = slices.Clone(p.Errors)
		return &own
	}
	var field *users.FieldError
	if errors.As(err, &field) {
		p = refuse(field.Code)
		if p.Status == 0 {
			p = refuse(CodeInvalidField)
		}
		p.Errors = []FieldProblem{{Path: field.Field, Message: field.Message}}
		return p
	}
	var value *authz.ValueError
	if errors.As(err, &value) {
		p = refuse(CodeInvalidField)
		p.Errors = []FieldProblem{{Path: value.Field, Message: value.Message}}
		return p
	}
	var locked *users.LockedError
	if errors.As(err, &locked) {
		p = refuse(CodeAccountLocked)
		p.RetryAfter = locked.RetryAfter
		return p
	}
	for _, c := range conditions {
		if errors.Is(err, c.err) {
			p = refuse(c.code)
			p.cause = err
			return p
		}
	}
	p = refuse(CodeInternal)
	p.cause = err
	return p
}

// fail answers with the problem that err is.
func (a *API) fail(w http.ResponseWriter, r *http.Request, err error) {
	a.failWith(w, r, err, nil)
}

// failWith is fail with another way to write the problem, nil for the app's.
func (a *API) failWith(w http.ResponseWriter, r *http.Request, err error, answer func(http.ResponseWriter, *http.Request, *Problem)) {
	p := AsProblem(err)
	p.RequestID = requestID(w)
	a.logFailure(r, p)
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", a.challenge(p.Code))
	}
	if p.Code == CodeInsufficientScope {
		h.Set("WWW-Authenticate", a.challenge(p.Code)+`, error="insufficient_scope", scope="`+p.scope+`"`)
	}
	retryAfter(h, p)
	switch {
	case answer != nil:
		answer(w, r, p)
	case a.config.OnError != nil:
		a.config.OnError(w, r, p)
	default:
		WriteProblem(w, p)
	}
}

// retryAfter says when trying again may help, where it may.
func retryAfter(h http.Header, p *Problem) {
	if (p.Status == http.StatusServiceUnavailable || p.Status == http.StatusTooManyRequests) && p.RetryAfter <= 0 {
		p.RetryAfter = time.Second
	}
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(p.RetryAfter.Seconds()))))
	}
}

// logFailure logs what a client is not told: why something failed on our side.
func (a *API) logFailure(r *http.Request, p *Problem) {
	if p.Status < http.StatusInternalServerError || p.cause == nil {
		return
	}
	level := slog.LevelError
	if errors.Is(p.cause, context.Canceled) {
		level = slog.LevelDebug // anybody can hang up, as often as they like
	}
	attrs := []slog.Attr{
		slog.String("app", a.config.App), slog.String("request_id", p.RequestID), slog.String("code", p.Code), slog.Any("error", p.cause),
	}
	var broken *panicError
	if errors.As(p.cause, &broken) {
		attrs = append(attrs, slog.String("stack", string(broken.stack)))
	}
	a.config.Logger.LogAttrs(r.Context(), level, "request failed", attrs...)
}

// challenge is the WWW-Authenticate of a refusal (RFC 6750 section 3): without
// an error when no token came.
func (a *API) challenge(code string) string {
	switch code {
	case CodeTokenExpired, CodeTokenInvalid, CodeTokenRevoked, CodeSessionExpired, CodeRefreshReused:
		return `Bearer realm="` + a.config.App + `", error="invalid_token"`
	case CodeFreshRequired:
		return `Bearer realm="` + a.config.App + `", error="insufficient_user_authentication"`
	default:
		return `Bearer realm="` + a.config.App + `"`
	}
}

// WriteProblem writes p as application/problem+json.
func WriteProblem(w http.ResponseWriter, p *Problem) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client may be gone
}

// write answers with v as JSON.
func write(w http.ResponseWriter, status int, v any) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client may be gone
}

// done answers 204, unless it failed.
func done(w http.ResponseWriter, err error) error {
	if err == nil {
		nothing(w)
	}
	return err
}

// nothing answers 204.
func nothing(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
}
