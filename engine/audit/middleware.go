package audit

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/pattern"
)

// MiddlewareConfig configures [Middleware]. The zero value records everything.
type MiddlewareConfig struct {
	// App is the slug in the events.
	App string
	// ExcludePaths are not recorded: "/health" is that path alone, "/static/*"
	// everything below "/static/". Letter case counts. A path with dot segments, doubled
	// or encoded slashes is none of them, since what serves it may take it for
	// another: nobody hides a request by how it is spelt.
	ExcludePaths []string
	// Describe says whose request it was. It is called after the handler, with the
	// request that the middleware was called with; a guard behind it has to leave
	// there whom it found, in a place that the context of that request holds.
	Describe func(r *http.Request) (userID, clientID string, isM2M bool)
	// Request describes the request. Default: the method, the path without the
	// query, the user agent, and the peer's address, which is that of a proxy where
	// there is one; or, where the context has one, that of [event.WithRequest].
	Request func(r *http.Request) event.Request
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Middleware returns what records each request as one [event.RequestPassed], after
// the handler: with the status of the answer, failed from 400 on. A handler that
// panics is recorded with 500 and the reason "panic", and goes on panicking.
//
// Bodies are neither read nor kept. The handler's writer can flush and be hijacked
// where the server's can, directly and by [http.ResponseController]. record is called
// in the request's goroutine: that of a batched [Trail] returns at once.
func Middleware(record func(context.Context, event.Event), config MiddlewareConfig) func(http.Handler) http.Handler {
	if config.Now == nil {
		config.Now = time.Now //nolint:forbidigo // the default of the injected clock
	}
	if config.Request == nil {
		config.Request = describe
	}
	m := &middleware{record: record, config: config, excluded: pattern.Exclude(config.ExcludePaths)}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if m.excluded.Match(r.URL) {
				next.ServeHTTP(w, r)
				return
			}
			m.serve(w, r, next)
		})
	}
}

type middleware struct {
	record   func(context.Context, event.Event)
	config   MiddlewareConfig
	excluded pattern.Excluded
}

func (m *middleware) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	seen := &writer{ResponseWriter: w}
	// Handlers may change the request, so it is described first. A panic is not
	// recovered, so that it keeps its stack.
	defer m.report(r, seen, m.config.Request(r))
	next.ServeHTTP(seen.face(), r)
	seen.returned = true
}

func (m *middleware) report(r *http.Request, seen *writer, described event.Request) {
	e := event.Event{Type: event.RequestPassed, Result: event.Success, App: m.config.App, Request: described, StatusCode: seen.status}
	switch {
	case !seen.returned:
		e.StatusCode, e.Reason = http.StatusInternalServerError, "panic"
	case seen.status == 0:
		e.StatusCode = http.StatusOK
	}
	if e.StatusCode >= http.StatusBadRequest {
		e.Result = event.Failure
	}
	if m.config.Describe != nil {
		e.UserID, e.ClientID, e.IsM2M = m.config.Describe(r)
	}
	e.Time = m.config.Now()
	m.record(r.Context(), e)
}

// describe is the default of MiddlewareConfig.Request.
func describe(r *http.Request) event.Request {
	if q := event.RequestFrom(r.Context()); q != (event.Request{}) {
		return q
	}
	q := event.Request{UserAgent: r.UserAgent(), Method: r.Method, Path: r.URL.Path}
	if peer, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		q.IP = peer.Addr().Unmap().WithZone("").String()
	}
	return q
}

// writer sees the status of an answer.
type writer struct {
	http.ResponseWriter
	status   int
	returned bool // the handler has, and did not panic
}

// WriteHeader implements [http.ResponseWriter]. Informational answers are not the
// last word, except for a change of protocols.
func (w *writer) WriteHeader(status int) {
	if w.status == 0 && (status >= http.StatusOK || status == http.StatusSwitchingProtocols) {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *writer) Write(b []byte) (int, error) {
	w.begun()
	return w.ResponseWriter.Write(b)
}

// ReadFrom lets the server send files without copying them here.
func (w *writer) ReadFrom(r io.Reader) (int64, error) {
	w.begun()
	return io.Copy(w.ResponseWriter, r)
}

// WriteString implements [io.StringWriter].
func (w *writer) WriteString(s string) (int, error) {
	w.begun()
	return io.WriteString(w.ResponseWriter, s)
}

// Unwrap is for [http.ResponseController].
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *writer) begun() {
	if w.status == 0 {
		w.status = http.StatusOK
	}
}

// face returns the writer with the optional methods that the server's has: handlers
// ask for them by their types.
func (w *writer) face() http.ResponseWriter {
	if _, ok := w.ResponseWriter.(http.Flusher); !ok {
		return w
	}
	if _, ok := w.ResponseWriter.(http.Hijacker); !ok {
		return flusher{w}
	}
	return hijacker{flusher{w}}
}

type flusher struct{ *writer }

// Flush implements [http.Flusher].
func (w flusher) Flush() {
	w.begun()
	_ = http.NewResponseController(w.ResponseWriter).Flush()
}

// FlushError is what [http.ResponseController] calls.
func (w flusher) FlushError() error {
	w.begun()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

type hijacker struct{ flusher }

// Hijack implements [http.Hijacker]. What the handler then says is not seen: it is
// recorded as a change of protocols.
func (w hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil && w.status == 0 {
		w.status = http.StatusSwitchingProtocols
	}
	return conn, rw, err
}
