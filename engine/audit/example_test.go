package audit_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"

	"github.com/mandate-auth/mandate/engine/audit"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/localmongo"
	"github.com/mandate-auth/mandate/tokens/keys"
	"github.com/mandate-auth/mandate/tokens/secret"
)

// exampleKeys are the keys of the app, as the engine derives them.
func exampleKeys() *keys.App {
	ring, err := keys.NewRing([]secret.Value{secret.FromString("an example's secret key, 32 bytes or more")})
	if err != nil {
		panic(err)
	}
	app, err := ring.App("shop", []byte("the app's random salt, kept"), 1)
	if err != nil {
		panic(err)
	}
	return app
}

// A service records what it does, reads it back, and proves that nobody has touched
// it.
func ExampleTrail() {
	ctx := context.Background()
	server, err := localmongo.Start(ctx, &localmongo.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	defer func() { _ = server.Close(ctx) }()
	k := exampleKeys()
	trail, err := audit.NewTrail(server.Client().Database("shop"), audit.Config{
		App: "shop", TamperEvident: true, Signer: audit.SignWith(k, keys.Audit), Cursors: k,
	})
	if err != nil {
		panic(err)
	}
	defer func() { _ = trail.Close(ctx) }()
	if _, err := trail.EnsureIndexes(ctx); err != nil {
		panic(err)
	}

	_ = trail.Log(ctx, audit.Record{Type: "sensitive_operation", UserID: "usr_1", Metadata: map[string]string{"operation": "export"}})
	_ = trail.LogAccessDenied(ctx, "usr_1", "/admin", "not_an_admin", nil)
	if err := trail.Flush(ctx); err != nil {
		panic(err)
	}

	records, _, err := trail.Query(ctx, audit.Filter{UserID: "usr_1"}, 10, "")
	if err != nil {
		panic(err)
	}
	for _, r := range records {
		fmt.Println(r.Type, r.Result, r.Path+r.Metadata["operation"])
	}
	report, err := trail.Verify(ctx)
	if err != nil {
		panic(err)
	}
	fmt.Println("intact:", report.Intact(), "records:", report.Chains[0].Records)
	// Output:
	// access_denied failure /admin
	// sensitive_operation success export
	// intact: true records: 3
}

// The middleware records every request but those of probes.
func ExampleMiddleware() {
	record := func(_ context.Context, e event.Event) {
		fmt.Println(e.Request.Method, e.Request.Path, e.StatusCode, e.Result)
	}
	handler := audit.Middleware(record, audit.MiddlewareConfig{ExcludePaths: []string{"/health", "/static/*"}})(
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/orders/7" {
				http.Error(w, "not found", http.StatusNotFound)
			}
		}))
	for _, path := range []string{"/orders?page=2", "/health", "/orders/7", "/static/app.js"} {
		handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(context.Background(), http.MethodGet, path, nil))
	}
	// Output:
	// GET /orders 200 success
	// GET /orders/7 404 failure
}

// A callback sends the trail elsewhere.
func ExampleCallback() {
	sink := audit.Callback(func(_ context.Context, r audit.Record) {
		fmt.Println(r.Type, r.UserID, r.IP)
	}, nil)
	sink.Record(context.Background(), event.Event{Type: event.LoginFailed, UserID: "usr_1", Request: event.Request{IP: "192.0.2.1"}})
	// Output: login_failed usr_1 192.0.2.1
}
