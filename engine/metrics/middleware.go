package metrics

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// Unauthorized is the type of error that the middleware counts for an answer of 401.
const Unauthorized = "unauthorized"

// MiddlewareConfig configures [Collector.Middleware].
type MiddlewareConfig struct {
	// Principal says whether a request has somebody who is known, asked when the
	// handler is done. It sees the request as it reached the middleware: what stands
	// further inside and puts the principal into a copy calls [Authenticated]
	// instead. Default: nobody.
	Principal func(*http.Request) bool
	// ExcludePaths are not counted, nor is what lies below them: "/health" excludes
	// "/health/live" and not "/healthy". Default none.
	ExcludePaths []string
}

// Middleware returns a middleware that counts requests as validations, for services
// whose credentials something other than the engine checks:
//
//   - a success when there is a principal, whatever the answer;
//   - else a failure [Unauthorized] when the answer is 401;
//   - a failure named like the panic's type ("*errors.errorString") when the handler
//     panics, which goes on as it was; [http.ErrAbortHandler] is no such failure.
//
// Other requests are anonymous and not counted. The duration is that of the whole
// handler.
func (c *Collector) Middleware(config MiddlewareConfig) func(http.Handler) http.Handler {
	excluded := make([]string, 0, len(config.ExcludePaths))
	for _, path := range config.ExcludePaths {
		if path != "" { // or it would be everything
			excluded = append(excluded, strings.TrimSuffix(path, "/"))
		}
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for _, path := range excluded {
				if rest, ok := strings.CutPrefix(r.URL.Path, path); ok && (rest == "" || rest[0] == '/') {
					next.ServeHTTP(w, r)
					return
				}
			}
			c.observe(w, r, next, config.Principal)
		})
	}
}

func (c *Collector) observe(w http.ResponseWriter, r *http.Request, next http.Handler, principal func(*http.Request) bool) {
	found := new(bool)
	r = r.WithContext(context.WithValue(r.Context(), authenticatedKey{}, found))
	answer := &recorder{ResponseWriter: w}
	timer := c.Start()
	returned := false
	defer func() {
		p := recover()
		err, _ := p.(error)
		switch aborted := errors.Is(err, http.ErrAbortHandler); {
		case p != nil && !aborted:
			timer.Failed(fmt.Sprintf("%T", p))
		case !returned && !aborted: // the goroutine ends: no outcome
		case *found || principal != nil && principal(r):
			timer.Succeeded()
		case answer.status == http.StatusUnauthorized:
			timer.Failed(Unauthorized)
		}
		if p != nil {
			panic(p)
		}
	}()
	next.ServeHTTP(answer, r)
	returned = true
}

type authenticatedKey struct{}

// Authenticated tells the [Collector.Middleware] around the request of ctx that the
// request has a principal. It does nothing where there is no such middleware. It must
// be called from the goroutine that serves the request.
func Authenticated(ctx context.Context) {
	if found, ok := ctx.Value(authenticatedKey{}).(*bool); ok {
		*found = true
	}
}

// recorder remembers the status of an answer. It passes on what handlers ask
// writers for: [http.ResponseController] through Unwrap, older code directly.
type recorder struct {
	http.ResponseWriter
	status int // 0 until the header is written
}

// WriteHeader remembers the first status that is final: 103 may come before it.
func (w *recorder) WriteHeader(status int) {
	if w.status == 0 && (status >= http.StatusOK || status == http.StatusSwitchingProtocols) {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) begin() {
	if w.status == 0 {
		w.status = http.StatusOK
	}
}

func (w *recorder) Write(p []byte) (int, error) {
	w.begin()
	return w.ResponseWriter.Write(p)
}

// ReadFrom keeps sendfile for files.
func (w *recorder) ReadFrom(r io.Reader) (int64, error) {
	w.begin()
	return io.Copy(w.ResponseWriter, r)
}

// Flush cannot say that the writer is not able to.
func (w *recorder) Flush() {
	w.begin()
	_ = http.NewResponseController(w.ResponseWriter).Flush()
}

func (w *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }
