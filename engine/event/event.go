// Package event defines what Mandate reports about itself: one [Event] for
// each thing that matters to security, handed to a [Sink]. It imports nothing
// of Mandate, so that every package can report.
package event

import (
	"context"
	"log/slog"
	"time"
)

// Type names what happened. The values are stable and end up in audit trails.
type Type string

// The types of this version.
const (
	UserRegistered     Type = "user_registered"
	UserUpdated        Type = "user_updated"
	UserDisabled       Type = "user_disabled"
	UserEnabled        Type = "user_enabled"
	UserDeleted        Type = "user_deleted"
	PasswordChanged    Type = "password_changed"
	PasswordRehashed   Type = "password_rehashed"
	PasswordBreached   Type = "password_breached"
	BreachCheckFailed  Type = "breach_check_failed"
	LoginSucceeded     Type = "login_succeeded"
	LoginFailed        Type = "login_failed"
	AccountLocked      Type = "account_locked"
	AnonymousStarted   Type = "anonymous_started"
	DemoStarted        Type = "demo_started"
	SessionStarted     Type = "session_started"
	SessionRefreshed   Type = "session_refreshed"
	SessionEnded       Type = "session_ended"
	SessionEvicted     Type = "session_evicted"
	AllSessionsEnded   Type = "all_sessions_ended"
	RefreshReused      Type = "refresh_reused"
	DeviceChanged      Type = "device_changed"
	AddressChanged     Type = "address_changed"
	AccessDenied       Type = "access_denied"
	CrossOriginRefused Type = "cross_origin_refused"
	ClockSkewed        Type = "clock_skewed"
	RoleGranted        Type = "role_granted"
	RoleRevoked        Type = "role_revoked"
	PolicyChanged      Type = "policy_changed"
	AppLoaded          Type = "app_loaded"
	AppClosed          Type = "app_closed"
)

// Result says how it ended.
type Result string

// The results.
const (
	Success Result = "success"
	Failure Result = "failure"
)

// Event is one thing that happened. It never carries a secret: no password, no
// token, no key. Fields without a value are zero.
type Event struct {
	Type   Type
	Result Result
	// App is the slug of the app it happened in.
	App string
	// Time is when it happened, by the engine's clock.
	Time time.Time
	// UserID is the account concerned; Actor is who did it, where that is
	// somebody else.
	UserID, Actor string
	// SessionID is the session concerned.
	SessionID string
	// Reason says in a stable word why, for a failure or an end.
	Reason string
	// Request says which request it happened in, where there was one.
	Request Request
}

// Request describes the request that an event belongs to.
type Request struct {
	// ID is the request's identifier, as in error answers.
	ID string
	// IP is the client's address, by the rule of the app's trusted proxies.
	IP string
	// UserAgent is the client's own word, cut to 256 bytes.
	UserAgent string
	// Method and Path are those of the HTTP request.
	Method, Path string
}

// LogValue groups the fields that have a value.
func (e Event) LogValue() slog.Value {
	attrs := make([]slog.Attr, 0, 10)
	add := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, value))
		}
	}
	add("type", string(e.Type))
	add("result", string(e.Result))
	add("app", e.App)
	add("user_id", e.UserID)
	add("actor", e.Actor)
	add("session_id", e.SessionID)
	add("reason", e.Reason)
	add("request_id", e.Request.ID)
	add("ip", e.Request.IP)
	add("method", e.Request.Method)
	add("path", e.Request.Path)
	return slog.GroupValue(attrs...)
}

// Sink receives events. The engine calls Record from one goroutine, off the path
// of requests: one that is slow delays other events, and loses some when more than
// a thousand wait. Packages that are used without the engine call it themselves,
// from many goroutines at once.
type Sink interface {
	Record(ctx context.Context, e Event)
}

// Discard is the sink that keeps nothing.
type Discard struct{}

// Record does nothing.
func (Discard) Record(context.Context, Event) {}

type requestKey struct{}

// WithRequest returns a context that carries r, so that events reported below
// it say which request they belong to.
func WithRequest(ctx context.Context, r Request) context.Context {
	return context.WithValue(ctx, requestKey{}, r)
}

// RequestFrom returns the request that [WithRequest] put into ctx, or the zero
// value.
func RequestFrom(ctx context.Context) Request {
	r, _ := ctx.Value(requestKey{}).(Request)
	return r
}
