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
	"github.com/mandate-auth/mandate/users/identity"
	"github.com/mandate-auth/mandate/users/invitation"
	"github.com/mandate-auth/mandate/users/recovery"
	"github.com/mandate-auth/mandate/users/social"
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
	{recovery.ErrInvalid, CodeLinkInvalid},
	{recovery.ErrDisabled, CodeNotFound},
	{invitation.ErrInvalid, CodeLinkInvalid},
	{invitation.ErrNotFound, CodeNotFound},
	{invitation.ErrInvalidCursor, CodeInvalidRequest},
	{identity.ErrNoAccount, CodeRegistrationClosed},
	{identity.ErrAccountExists, CodeAccountExists},
	{identity.ErrTaken, CodeIdentityTaken},
	{identity.ErrIssuer, CodeIdentityTaken},
	{identity.ErrLinkForbidden, CodeLinkForbidden},
	{social.ErrUnknownProvider, CodeNotFound},
	{social.ErrProviderUnavailable, CodeProviderAway},
	{social.ErrProvider, CodeProviderRefused},
	{social.ErrFlow, CodeFlowInvalid},
	{social.ErrReplayed, CodeFlowInvalid},
	{social.ErrNext, CodeInvalidRequest},
	{social.ErrOptions, CodeInvalidRequest},
	{users.ErrDisabled, CodeAccountDisabled},
	{users.ErrUnverified, CodeEmailUnverified},
	{users.ErrLastCredential, CodeLastCredential},
	{users.ErrLinkLimit, CodeIdentityLimit},
	{users.ErrNotGuest, CodeConflict},
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
	var refused *social.DeniedError
	if errors.As(err, &refused) {
		return refuse(CodeAccessDenied)
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
