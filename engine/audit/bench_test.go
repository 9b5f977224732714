package audit_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/mandate-auth/mandate/engine/audit"
	"github.com/mandate-auth/mandate/engine/event"
)

// What the middleware adds to a request, apart from what becomes of the event.
func BenchmarkMiddleware(b *testing.B) {
	answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	discard := func(context.Context, event.Event) {}
	config := audit.MiddlewareConfig{
		App: "shop", ExcludePaths: []string{"/health", "/static/*"},
		Describe: func(*http.Request) (string, string, bool) { return "usr_1", "", false },
	}
	request := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/orders/7", nil)
	excluded := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/health", nil)
	for name, x := range map[string]struct {
		h http.Handler
		r *http.Request
	}{
		"without":  {answer, request},
		"with":     {audit.Middleware(discard, config)(answer), request},
		"excluded": {audit.Middleware(discard, config)(answer), excluded},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			w := plainWriter{http.Header{}}
			for b.Loop() {
				x.h.ServeHTTP(w, x.r)
			}
		})
	}
}

// A whole request over a connection, which the figures above are held against.
func BenchmarkServer(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") }))
	defer server.Close()
	for b.Loop() {
		request, err := http.NewRequestWithContext(b.Context(), http.MethodGet, server.URL, nil)
		if err != nil {
			b.Fatal(err)
		}
		res, err := server.Client().Do(request)
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
	}
}

// What cleaning a record costs, without queue and database.
func BenchmarkClean(b *testing.B) {
	sink := audit.Callback(func(context.Context, audit.Record) {}, nil)
	e := sample(1)
	e.Metadata = nil
	b.ReportAllocs()
	for b.Loop() {
		sink.Record(b.Context(), e)
	}
}
