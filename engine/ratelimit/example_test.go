package ratelimit_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/mandate-auth/mandate/engine/ratelimit"
	"github.com/mandate-auth/mandate/localmongo"
)

func Example() {
	ctx := context.Background()
	limiter, err := ratelimit.New(
		ratelimit.Rule{Name: "export", Max: 2, Window: time.Hour},
		ratelimit.NewMemory(ratelimit.MemoryConfig{}),
	)
	if err != nil {
		log.Fatal(err)
	}
	for range 3 {
		decision, err := limiter.Allow(ctx, "alice")
		if err != nil {
			log.Fatal(err) // nothing is known: refuse
		}
		fmt.Println(decision.Allowed, decision.Remaining)
	}
	if err := limiter.Reset(ctx, "alice"); err != nil {
		log.Fatal(err)
	}
	left, err := limiter.Remaining(ctx, "alice")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("after the reset:", left)
	// Output:
	// true 1
	// true 0
	// false 0
	// after the reset: 2
}

// All instances that count in one database share the limit.
func ExampleNewMongo() {
	ctx := context.Background()
	server, err := localmongo.Start(ctx, &localmongo.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = server.Close(ctx) }()

	store, err := ratelimit.NewMongo(server.Client().Database("example"), ratelimit.MongoConfig{App: "shop"})
	if err != nil {
		log.Fatal(err)
	}
	ttl, err := store.EnsureIndexes(ctx)
	if err != nil {
		log.Fatal(err)
	}
	if !ttl {
		log.Print("call store.Sweep now and then")
	}
	limiter, err := ratelimit.New(ratelimit.Rule{Name: "export", Max: 1, Window: time.Hour}, store)
	if err != nil {
		log.Fatal(err)
	}
	for range 2 {
		decision, err := limiter.Allow(ctx, "alice")
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(decision.Allowed)
	}
	// Output:
	// true
	// false
}

func ExampleMiddleware() {
	limiter, err := ratelimit.New(
		ratelimit.Rule{Name: "search", Max: 1, Window: time.Minute},
		ratelimit.NewMemory(ratelimit.MemoryConfig{}),
	)
	if err != nil {
		log.Fatal(err)
	}
	limited := ratelimit.Middleware(limiter, &ratelimit.MiddlewareOptions{
		Key: func(r *http.Request) string { return r.URL.Query().Get("tenant") },
	})
	handler := limited(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "found") }))

	for range 2 {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/?tenant=a", nil))
		fmt.Println(w.Code, w.Header().Get("RateLimit"))
	}
	// Output:
	// 200 "search";r=0;t=60
	// 429 "search";r=0;t=60
}
