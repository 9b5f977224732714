// Package event defines what Mandate reports about itself: one [Event] for
// each thing that matters to security, handed to a [Sink]. It imports nothing
// of Mandate, so that every package can report.
package event

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// Result says how it ended.
type Result string

// The results.
const (
	Success Result = "success"
	Failure Result = "failure"
)

// The bounds of [Event.Metadata].
const (
	// MaxMetadata is the number of members that sinks keep.
	MaxMetadata = 16
	// MaxMetadataName and MaxMetadataValue bound a member's name and value, in
	// bytes. Sinks leave a longer name out and cut a longer value.
	MaxMetadataName  = 64
	MaxMetadataValue = 256
)

// Event is one thing that happened. It never carries a secret: no password, no
// token, no key. Fields without a value are zero. It is handed on by value and must
// not be changed once it is recorded: sinks share its Metadata.
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
	// ClientID is the machine client concerned: that of a client token, or of the
	// tokens of another issuer.
	ClientID string
	// IsM2M says that a machine did it: a client, an API key, or a token of another
	// issuer without a user.
	IsM2M bool
	// Reason says in a stable word why, for a failure or an end.
	Reason string
	// StatusCode is that of the HTTP answer, 0 where there is none yet.
	StatusCode int
	// Metadata says more in stable words, never a secret. Sinks keep at most
	// [MaxMetadata] members, in the order of their names; names match
	// ^[A-Za-z0-9_]{1,64}$ and values have at most [MaxMetadataValue] bytes.
	Metadata map[string]string
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
	attrs := make([]slog.Attr, 0, 16)
	add := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, value))
		}
	}
	add("type", string(e.Type))
	add("result", string(e.Result))
	add("app", e.App)
	add("user_id", e.UserID)
	add("client_id", e.ClientID)
	if e.IsM2M {
		attrs = append(attrs, slog.Bool("is_m2m", true))
	}
	add("actor", e.Actor)
	add("session_id", e.SessionID)
	add("reason", e.Reason)
	add("request_id", e.Request.ID)
	add("ip", e.Request.IP)
	add("method", e.Request.Method)
	add("path", e.Request.Path)
	if e.StatusCode != 0 {
		attrs = append(attrs, slog.Int("status_code", e.StatusCode))
	}
	add("user_agent", e.Request.UserAgent)
	if metadata := e.metadata(); len(metadata) > 0 {
		attrs = append(attrs, slog.Attr{Key: "metadata", Value: slog.GroupValue(metadata...)})
	}
	return slog.GroupValue(attrs...)
}

// metadata returns the members that are kept, in the order of their names.
func (e Event) metadata() []slog.Attr {
	names := make([]string, 0, len(e.Metadata))
	for name := range e.Metadata {
		if ValidMetadataName(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	names = names[:min(len(names), MaxMetadata)]
	attrs := make([]slog.Attr, len(names))
	for i, name := range names {
		value := e.Metadata[name]
		if len(value) > MaxMetadataValue {
			value = strings.ToValidUTF8(value[:MaxMetadataValue], "")
		}
		attrs[i] = slog.String(name, value)
	}
	return attrs
}

// ValidMetadataName reports whether name can name a member of [Event.Metadata].
func ValidMetadataName(name string) bool {
	if name == "" || len(name) > MaxMetadataName {
		return false
	}
	for _, c := range []byte(name) {
		if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') && c != '_' {
			return false
		}
	}
	return true
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
