package ratelimit

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"time"
)

// MiddlewareOptions change what [Middleware] does. The zero value is a usable one.
type MiddlewareOptions struct {
	// Key says what a request is counted by. Requests with the same key share the
	// limit, those with the empty one too. Default [ByAddress].
	Key func(*http.Request) string
	// Refuse answers a request that is not let through. err is nil when the limit has
	// been reached, and says why nothing is known otherwise; it is not for clients.
	// The headers of [Decision.WriteHeaders] and Retry-After are set already. Default
	// [Refuse].
	Refuse func(w http.ResponseWriter, r *http.Request, d Decision, err error)
	// Logger is told when the store fails. Default [slog.Default].
	Logger *slog.Logger
}

// Middleware returns a wrapper for handlers that counts each request and lets it
// through while the limit lasts. opts may be nil.
//
// Every response has the headers of [Decision.WriteHeaders]; over the limit it is 429
// with Retry-After (RFC 6585 section 4). When the store cannot tell, it is 503: an
// outage of the store must not take the limit away.
func Middleware(l *Limiter, opts *MiddlewareOptions) func(http.Handler) http.Handler {
	var o MiddlewareOptions
	if opts != nil {
		o = *opts
	}
	if o.Key == nil {
		o.Key = ByAddress
	}
	if o.Refuse == nil {
		o.Refuse = Refuse
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			d, err := l.Allow(r.Context(), o.Key(r))
			d.WriteHeaders(w.Header(), l.Rule())
			if err == nil && d.Allowed {
				next.ServeHTTP(w, r)
				return
			}
			wait := max(time.Second, d.RetryAfter)
			if err != nil {
				logFailure(r.Context(), o.Logger, l.Rule(), err)
			}
			w.Header().Set("Retry-After", strconv.Itoa(seconds(wait)))
			o.Refuse(w, r, d, err)
		})
	}
}

// logFailure tells operators what clients are not told.
func logFailure(ctx context.Context, logger *slog.Logger, rule Rule, err error) {
	level := slog.LevelError
	if errors.Is(err, context.Canceled) {
		level = slog.LevelDebug // anybody can hang up, as often as they like
	}
	logger.LogAttrs(ctx, level, "rate limit could not be decided", slog.String("rule", rule.Name), slog.Any("error", err))
}

// problem is an error as a client sees it (RFC 9457).
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Code   string `json:"code"`
}

// Refuse answers a request that is not let through as application/problem+json (RFC
// 9457): 429 with the code "rate_limited" when err is nil, otherwise 503 with
// "unavailable" and nothing of err.
func Refuse(w http.ResponseWriter, _ *http.Request, _ Decision, err error) {
	p := problem{
		Type: "about:blank", Title: "Too many requests", Status: http.StatusTooManyRequests,
		Detail: "Rate limit exceeded; try again later.", Code: "rate_limited",
	}
	if err != nil {
		p = problem{
			Type: "about:blank", Title: "Unavailable", Status: http.StatusServiceUnavailable,
			Detail: "This is not available at the moment; try again.", Code: "unavailable",
		}
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client may be gone
}

// ByAddress is the address that the connection comes from, for IPv6 its /64: one
// customer has all of that. Behind a proxy it is the proxy's; give a function then
// that reads what your proxy, and no client, has written. What is no address counts
// as one key.
func ByAddress(r *http.Request) string {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	addr := peer.Addr().Unmap().WithZone("")
	if addr.Is4() {
		return addr.String()
	}
	network, _ := addr.Prefix(64) // fails for no IPv6 address
	return network.String()
}
