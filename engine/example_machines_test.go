package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/engine/audit"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/engine/metrics"
	"github.com/mandate-auth/mandate/engine/metrics/database"
	"github.com/mandate-auth/mandate/engine/metrics/otel"
	"github.com/mandate-auth/mandate/engine/metrics/prom"
	"github.com/mandate-auth/mandate/localmongo"
	"github.com/mandate-auth/mandate/manifest"
	"github.com/mandate-auth/mandate/tokens/apikey"
	"github.com/mandate-auth/mandate/tokens/m2m"
	"github.com/mandate-auth/mandate/tokens/oauth2"
)

// What stands in docs/machines.md and docs/operations.md, word for word: a test of
// internal/docscheck compares them.

const shopManifest = `{
  "slug": "shop",
  "public_url": "https://shop.example",
  "auth": {
    "tokens": { "algorithm": "EdDSA" },
    "api_keys": { "enabled": true },
    "clients": { "enabled": true },
    "rate_limits": { "uploads": { "max": 2, "window": "1m", "key": "user" }, "exports": { "max": 1, "window": "1h" } },
    "policy": {
      "authorization": {
        "default_roles": ["user", "billing", "admin"],
        "initial_policies": [["user", "documents", "read"], ["billing", "invoices", "write"]]
      }
    }
  }
}`

// certificates are the client certificates that the TLS listener has verified, with
// tls.Config.ClientAuth set to tls.VerifyClientCertIfGiven.
type certificates struct{}

func (certificates) Authenticate(r *http.Request) (*engine.Principal, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return nil, nil // it brings none: not ours, and no error
	}
	if len(r.TLS.VerifiedChains) == 0 {
		return nil, errors.New("the listener has not verified the certificate")
	}
	name := r.TLS.PeerCertificates[0].Subject.CommonName
	return &engine.Principal{ID: "certificate|" + name, Kind: authz.KindService}, nil
}

func ExampleAuthenticator() {
	opts := &engine.Options{}
	opts.Authenticators = map[string]engine.NewAuthenticator{
		"certificate": func(app string) (engine.Authenticator, error) { return certificates{}, nil },
	}
	app, closeAll := docsApp(shopManifest, func(o *engine.Options) { o.Authenticators = opts.Authenticators })
	defer closeAll()

	fmt.Println(docsGet(app.RequireMachine().Handler(docsReply("in")), "/", "").Code)
	// Output: 401
}

func ExampleApp_APIKeys() {
	app, closeAll := docsApp(shopManifest)
	defer closeAll()
	ctx := context.Background()
	userID, _ := docsUser(app)
	show := func(key string) { fmt.Println(key[:4]) }

	created, err := app.APIKeys().Create(ctx, apikey.NewKey{
		UserID: userID, Name: "nightly export", Scopes: []string{"documents:read"}, TTL: 30 * 24 * time.Hour,
	})
	if err != nil {
		log.Fatal(err) // apikey.ErrScope, ErrLimit, ErrOwner, or an *authz.ValueError
	}
	show(created.Key) // "mdk_…", which is not stored and cannot be shown again
	page, err := app.APIKeys().List(ctx, userID, apikey.ListOptions{})
	if err != nil {
		log.Fatal(err)
	}
	err = errors.Join(
		app.APIKeys().Revoke(ctx, userID, page.Keys[0].ID, "no longer needed"),
		app.APIKeys().RevokeAll(ctx, userID, "laptop stolen"))
	if err != nil {
		log.Fatal(err)
	}
	_, err = app.Verify(ctx, created.Key)
	fmt.Println(engine.AsProblem(err).Code)
	// Output:
	// mdk_
	// token_revoked
}

func ExampleApp_Clients() {
	app, closeAll := docsApp(shopManifest)
	defer closeAll()
	ctx := context.Background()

	created, err := app.Clients().Create(ctx, oauth2.NewClient{Name: "billing", Scopes: []string{"invoices"}})
	if err != nil {
		log.Fatal(err) // oauth2.ErrNameTaken, or an *authz.ValueError
	}
	id, secret := created.ID, created.Secret // "cli_…", and what cannot be shown again
	if err := app.Authz().GrantRole(ctx, id, "billing"); err != nil {
		log.Fatal(err)
	}

	server := httptest.NewServer(app.Handler())
	defer server.Close()
	fmt.Println(fetch(ctx, server.URL, id, secret))

	next, err := app.Clients().Rotate(ctx, id) // both secrets are good now
	if err != nil {
		log.Fatal(err)
	}
	client, err := app.Clients().Get(ctx, id)
	if err != nil {
		log.Fatal(err)
	}
	// Once nobody uses the old one; it ends the tokens that are under way, too.
	err = app.Clients().RemoveSecret(ctx, id, client.Secrets[0].ID)
	if err != nil {
		log.Fatal(err)
	}

	fmt.Println(fetch(ctx, server.URL, id, secret) != nil, fetch(ctx, server.URL, id, next))
	fmt.Println(app.DeleteClient(ctx, id))
	// Output:
	// <nil>
	// true <nil>
	// <nil>
}

// httpClient returns an HTTP client that fetches a token, and the next one before it
// ends.
func httpClient(ctx context.Context, service, id, secret string) *http.Client {
	config := clientcredentials.Config{
		ClientID: id, ClientSecret: secret, TokenURL: service + "/auth/oauth2/token", Scopes: []string{"invoices"},
	}
	return config.Client(ctx)
}

// fetch calls the service as a client.
func fetch(ctx context.Context, service, id, secret string) error {
	res, err := httpClient(ctx, service, id, secret).Get(service + "/auth/me")
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return errors.New(res.Status)
	}
	return nil
}

func tenantOf(context.Context, string) (string, error) { return "north", nil }

func ExampleOptions_clientToken() {
	opts := &engine.Options{}
	opts.ClientToken = func(ctx context.Context, app string, t *engine.ClientToken) error {
		tenant, err := tenantOf(ctx, t.Client.ID)
		if err != nil {
			return err // no token; an *oauth2.Error is answered as it is
		}
		t.Claims = map[string]any{"tenant": tenant}
		return nil
	}
	app, closeAll := docsApp(shopManifest, func(o *engine.Options) { o.ClientToken = opts.ClientToken })
	defer closeAll()
	ctx := context.Background()
	created, err := app.Clients().Create(ctx, oauth2.NewClient{Name: "billing"})
	if err != nil {
		log.Fatal(err)
	}
	id := created.ID

	token, life, err := app.IssueClientToken(ctx, id) // for a client that the service has authenticated by itself
	if err != nil {
		log.Fatal(err)
	}

	p, err := app.Verify(ctx, token)
	fmt.Println(p.Claims["tenant"], p.Kind, p.IsM2M(), life, err)
	// Output: north service true 15m0s <nil>
}

// The claims of four providers, told apart by the mappings of docs/machines.md.
func Example_m2m() {
	claims := map[string]any{"azp": "worker", "gty": "client-credentials", "sub": "worker@clients"}

	detector, err := m2m.New(m2m.Mapping{
		TokenUseValues: []string{}, // the provider has no such claim
		ClientIDClaims: []string{"azp"},
		MachineClaim:   "gty",
		MachineValues:  []string{"client-credentials"},
	})
	if err != nil {
		log.Fatal(err)
	}
	id, _ := detector.ClientID(claims)
	fmt.Println(detector.IsMachine(claims), detector.RequiresUserContext(claims), id) // true false worker

	for _, provider := range []struct{ name, mapping, machine, person string }{
		{
			"Cognito", `{}`,
			`{"token_use":"access","client_id":"worker","sub":"worker","scope":"api/read"}`,
			`{"token_use":"access","client_id":"web","sub":"7","username":"ada"}`,
		},
		{
			"Auth0", `{"token_use_values":[],"client_id_claims":["azp"],"machine_claim":"gty","machine_values":["client-credentials"],"username_claims":["https://shop.example/email"]}`,
			`{"gty":"client-credentials","azp":"worker","sub":"worker@clients"}`,
			`{"azp":"web","sub":"auth0|7","https://shop.example/email":"ada@example.com"}`,
		},
		{
			"Entra ID", `{"token_use_values":[],"client_id_claims":["azp","appid"],"machine_claim":"idtyp","machine_values":["app"],"username_claims":["preferred_username","upn","unique_name"]}`,
			`{"idtyp":"app","azp":"worker","sub":"o","oid":"o"}`,
			`{"azp":"web","sub":"s","preferred_username":"ada@example.com"}`,
		},
		{
			"Keycloak", `{"token_use_values":[],"client_id_claims":["azp"],"machine_claim":"idtyp","machine_values":["app"],"username_claims":["email"],"user_claims":["name","given_name","family_name"]}`,
			`{"idtyp":"app","azp":"worker","sub":"u","preferred_username":"service-account-worker"}`,
			`{"azp":"web","sub":"v","preferred_username":"ada","email":"ada@example.com"}`,
		},
	} {
		var mapping m2m.Mapping
		var machine, person map[string]any
		for text, into := range map[string]any{provider.mapping: &mapping, provider.machine: &machine, provider.person: &person} {
			if err := json.Unmarshal([]byte(text), into); err != nil {
				log.Fatal(err)
			}
		}
		d, err := m2m.New(mapping)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(provider.name, d.Kind(machine), d.Kind(person))
	}
	// Output:
	// true false worker
	// Cognito service human
	// Auth0 service human
	// Entra ID service human
	// Keycloak service human
}

func ExampleApp_Keys() {
	app, closeAll := docsApp(shopManifest)
	defer closeAll()
	ctx := context.Background()
	_, token := docsUser(app)

	next, err := app.Keys().Rotate(ctx) // published at once, signs in ten minutes
	if err != nil {
		log.Fatal(err) // engine.ErrSymmetric with HS256
	}
	list, err := app.Keys().List(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, key := range list {
		fmt.Println(key.ID == next.ID, key.State)
	}
	if err := app.Keys().Revoke(ctx, next.ID); err != nil { // somebody else may have it
		log.Fatal(err)
	}

	if err := app.Keys().EndAllTokens(ctx); err != nil { // everybody signs in again
		log.Fatal(err)
	}

	_, err = app.Verify(ctx, token)
	fmt.Println(engine.AsProblem(err).Code)
	// Output:
	// true published
	// false signing
	// token_invalid
}

func ExampleApp_RequireMachine() {
	app, closeAll := docsApp(shopManifest)
	defer closeAll()
	mux := http.NewServeMux()
	book, invite, ready, reports := docsReply("booked"), docsReply("invited"), docsReply("ready"), docsReply("reports")
	_, token := docsUser(app)

	mux.Handle("POST /bookings", app.RequireMachine().Func(book))
	mux.Handle("POST /invitations", app.RequireHuman().Func(invite))
	mux.Handle("GET /ready", app.RequireInternal().Func(ready)) // asks for no principal
	mux.Handle("GET /reports", app.All(app.RequireMachine(), app.RequireScope("reports")).Func(reports))

	fmt.Println(docsGet(mux, "/ready", token).Code, docsGet(mux, "/reports", token).Code)
	// Output: 403 403
}

func ExampleApp_RateLimited() {
	app, closeAll := docsApp(shopManifest)
	defer closeAll()
	mux := http.NewServeMux()
	upload, export := docsReply("uploaded"), docsReply("exported")
	_, token := docsUser(app)

	tenant := func(r *http.Request) string { return r.Header.Get("X-Tenant") } // which a guard has checked
	mux.Handle("GET /uploads", app.RequireUser().Handler(app.RateLimited("uploads", nil).Func(upload)))
	mux.Handle("GET /exports", app.All(app.RequireUser(), app.RateLimited("exports", tenant)).Func(export))

	for range 3 {
		w := docsGet(mux, "/uploads", token)
		fmt.Println(w.Code, w.Header().Get("X-RateLimit-Remaining"))
	}
	fmt.Println(docsGet(mux, "/exports", token).Code, docsGet(mux, "/exports", token).Code)
	// Output:
	// 200 1
	// 200 0
	// 429 0
	// 200 429
}

// export counts by itself, outside of any request.
func export(ctx context.Context, app *engine.App, tenantID string) error {
	limiter, err := app.RateLimit("exports")
	if err != nil {
		return err // the manifest has no such rule, or it is off
	}
	decision, err := limiter.Allow(ctx, tenantID)
	if err != nil {
		return err // not counted, so not allowed
	}
	if !decision.Allowed {
		return fmt.Errorf("try again in %s", decision.RetryAfter.Round(time.Minute))
	}
	return nil
}

func ExampleApp_RateLimit() {
	app, closeAll := docsApp(shopManifest)
	defer closeAll()
	ctx := context.Background()
	fmt.Println(export(ctx, app, "north"), export(ctx, app, "north"), export(ctx, app, "south"))
	// Output: <nil> try again in 1h0m0s <nil>
}

func ExampleApp_Audit() {
	app, closeAll := docsApp(shopManifest)
	defer closeAll()
	ctx := context.Background()
	userID, token := docsUser(app)
	mux := http.NewServeMux()
	service := http.NewServeMux()
	service.HandleFunc("/documents", docsReply("documents"))

	mux.Handle("/", app.AuditRequests(app.Protect(service)))
	docsGet(mux, "/documents", token)

	err := app.Audit().Log(ctx, audit.Record{
		Type: "report_exported", UserID: userID, Metadata: map[string]string{"rows": "7"},
	})
	if err != nil {
		log.Fatal(err)
	}

	if err := app.Audit().Flush(ctx); err != nil { // what waits in this instance's queue
		log.Fatal(err)
	}
	records, next, err := app.Audit().Query(ctx, audit.Filter{UserID: userID, Type: event.RequestPassed}, 100, "")
	if err != nil {
		log.Fatal(err)
	}
	for _, r := range records {
		fmt.Println(r.Type, r.Method, r.Path, r.StatusCode)
	}

	fmt.Println(next == "")
	heads, err := check(ctx, app, nil)
	fmt.Println(len(heads), err)
	// Output:
	// request GET /documents 200
	// true
	// 1 <nil>
}

// check verifies the trail against the heads of the last time, and returns those for
// the next.
func check(ctx context.Context, app *engine.App, kept []audit.Head) ([]audit.Head, error) {
	report, err := app.Audit().Verify(ctx, kept...)
	if err != nil {
		return kept, err // nothing is known
	}
	for _, chain := range report.Chains {
		if chain.Break != nil {
			slog.Error("the audit trail was changed", slog.String("chain", chain.Chain), slog.Any("break", *chain.Break))
		}
	}
	if !report.Intact() {
		return kept, errors.New("the audit trail is not whole")
	}
	return report.Heads(), nil // keep them where whoever writes the database cannot
}

func ExampleOptions_auditSinks() {
	opts := &engine.Options{}
	toCollector := make(chan string, 100)
	send := func(_ context.Context, r audit.Record) { toCollector <- string(r.Type) }

	opts.AuditSinks = map[string]event.Sink{"siem": audit.Callback(send, nil)}

	app, closeAll := docsApp(`{"slug":"shop","auth":{"audit":{"sinks":["mongodb","siem"]}}}`, func(o *engine.Options) { o.AuditSinks = opts.AuditSinks })
	docsUser(app)
	closeAll()
	for kind := range toCollector {
		if kind == "user_registered" {
			fmt.Println(kind)
			break
		}
	}
	// Output: user_registered
}

func ExampleOptions_prometheus() {
	opts := &engine.Options{}
	opts.Prometheus = prom.Handler // serves GET /metrics/prometheus of every app
	app, closeAll := docsApp(shopManifest, func(o *engine.Options) { o.Prometheus = opts.Prometheus })
	defer closeAll()

	r := httptest.NewRequest(http.MethodGet, "/auth/metrics/prometheus", http.NoBody)
	r.RemoteAddr = "127.0.0.1:1234"
	w := httptest.NewRecorder()
	app.Handler().ServeHTTP(w, r)
	fmt.Println(w.Code, strings.Contains(w.Body.String(), `auth_tokens_validated_total{app="shop"} 0`))
	// Output: 200 true
}

// connectMeasured returns a client whose commands are counted.
func connectMeasured(ctx context.Context, uri string) (*mongo.Client, *metrics.Collector, error) {
	commands := metrics.New(metrics.Config{}) // of no app: all of them share the client
	client, err := mongo.Connect(ctx, options.Client().ApplyURI(uri).SetMonitor(database.Monitor(commands, nil)))
	return client, commands, err
}

// metricsOf serves what is counted of every app and of the client, on one page.
func metricsOf(eng *engine.Engine, commands *metrics.Collector, guard *engine.Guard) http.Handler {
	return guard.Handler(prom.Handler(func() []*metrics.Collector { return append(eng.Metrics(), commands) }))
}

// observe feeds OpenTelemetry; stop ends it.
func observe(meter metric.Meter, eng *engine.Engine) (stop func() error, err error) {
	return otel.Register(meter, eng.Metrics)
}

func ExampleEngine_Metrics() {
	ctx := context.Background()
	server, err := localmongo.Start(ctx, &localmongo.Options{Listen: true, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close(ctx)
	client, commands, err := connectMeasured(ctx, server.URI())
	if err != nil {
		log.Fatal(err)
	}
	defer client.Disconnect(ctx)
	eng, err := engine.New(ctx, client.Database("shop"), &engine.Options{
		SecretKeys: []engine.Secret{engine.NewSecret(secretKey)}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer eng.Close(ctx)
	m, err := manifest.Parse([]byte(shopManifest), nil)
	if err != nil {
		log.Fatal(err)
	}
	app, err := eng.Load(ctx, m)
	if err != nil {
		log.Fatal(err)
	}
	stop, err := observe(noop.NewMeterProvider().Meter("mandate"), eng)
	if err != nil {
		log.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody)
	r.RemoteAddr = "127.0.0.1:1234"
	w := httptest.NewRecorder()
	metricsOf(eng, commands, app.RequireInternal()).ServeHTTP(w, r)
	for _, series := range []string{`auth_tokens_validated_total{app="shop"}`, `auth_database_command_duration_seconds_count{app="",command="find"}`} {
		fmt.Println(strings.Contains(w.Body.String(), series))
	}
	fmt.Println(stop())
	// Output:
	// true
	// true
	// <nil>
}
