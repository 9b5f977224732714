package metrics_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/mandate-auth/mandate/engine/metrics"
)

func ExampleCollector() {
	c := metrics.New(metrics.Config{App: "shop"})

	t := c.Start()
	// … check a credential …
	t.Succeeded()
	c.ValidationFailed("expired_token", 2*time.Millisecond) // a duration known from elsewhere

	s := c.Snapshot()
	fmt.Println(s.TokensValidated, s.TokensFailed, s.SuccessRate, s.ErrorsByType)
	// Output: 1 1 50 map[expired_token:1]
}

func ExampleCollector_Middleware() {
	c := metrics.New(metrics.Config{App: "shop"})
	count := c.Middleware(metrics.MiddlewareConfig{ExcludePaths: []string{"/health", "/metrics"}})

	mux := http.NewServeMux()
	mux.Handle("GET /metrics", c)
	mux.HandleFunc("GET /profile", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" { // stands for the service's own check
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		metrics.Authenticated(r.Context())
	})
	for _, path := range []string{"/profile", "/metrics"} {
		count(mux).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, path, nil))
	}
	fmt.Println(c.Snapshot().ErrorsByType)
	// Output: map[unauthorized:1]
}
