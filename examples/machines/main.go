// Command machines is a service that machines call. It takes readings of sensors:
//
//	POST /readings     machines only: a client's token, an API key or a client
//	                   certificate, any of them
//	GET  /readings     whoever may read them, so many times a minute
//	PUT  /calibration  a client's token and its certificate, both at once
//	GET  /report       people only
//	GET  /setup        for those on this machine: where the demo finds its files
//	     /auth/…       Mandate's own routes
//
// What each path asks for stands in manifest.json, under auth.requirements. A worker
// (worker.go) sends a reading every few seconds with a token that it gets by client
// credentials, certificate.go adds the certificate as a credential of the service's
// own, and trail.go prints the audit trail when you end the program with Ctrl-C.
//
//	go run ./examples/machines
//
// prints what to set to try, in another terminal:
//
//	# people register and make keys for their scripts; a key is shown once
//	curl $URL/auth/register -H 'Content-Type: application/json' -d '{"email":"ada@example.com","password":"a passphrase for readings"}'
//	curl $URL/auth/api-keys -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' -d '{"name":"cron","scopes":["readings:write","readings:read"]}'
//	API_KEY=mch_… sh examples/machines/script.sh $URL
//
//	# machines exchange their secret for a token
//	curl $URL/.well-known/oauth-authorization-server
//	curl $URL/auth/oauth2/token -u "$WORKER_CLIENT_ID:$WORKER_CLIENT_SECRET" -d grant_type=client_credentials
//
//	# or come with a certificate
//	curl $TLS/readings --cacert $DIR/ca.pem --cert $DIR/worker.pem -H 'Content-Type: application/json' -d '{"value":21.5}'
//
//	# those who look after it
//	curl $URL/auth/metrics/prometheus
//	curl $URL/auth/admin/audit -H "Authorization: Bearer $ADMIN_TOKEN"
//
// demo.sh does all of this and checks each answer: sh examples/machines/demo.sh $URL.
//
// It keeps its data in memory, unless MONGODB_URI names a server; then
// MANDATE_SECRET_KEY is needed, because what is sealed under a key that is forgotten
// stays sealed. It listens on ADDR, 127.0.0.1:8083 by default, and for certificates
// on TLS_ADDR, any free port by default. PUBLIC_URL, WORKER_CLIENT_SECRET and
// MACHINES_ADMIN_PASSWORD are made for the run where the environment has none. In
// production they come from there, and the manifest has neither demo users nor
// "environment": "development".
package main

import (
	"cmp"
	"context"
	"crypto/tls"
	_ "embed"
	"errors"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/engine/metrics/prom"
	"github.com/mandate-auth/mandate/localmongo"
	"github.com/mandate-auth/mandate/manifest"
)

//go:embed manifest.json
var manifestJSON []byte

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	db, disconnect, err := connect(ctx)
	if err != nil {
		return err
	}
	defer disconnect()
	var config net.ListenConfig
	plain, err := config.Listen(ctx, "tcp", cmp.Or(os.Getenv("ADDR"), "127.0.0.1:8083"))
	if err != nil {
		return err
	}
	defer plain.Close()
	secure, err := config.Listen(ctx, "tcp", cmp.Or(os.Getenv("TLS_ADDR"), "127.0.0.1:0"))
	if err != nil {
		return err
	}
	defer secure.Close()
	s := newSettings("http://"+plain.Addr().String(), "https://"+secure.Addr().String())
	eng, app, err := load(ctx, db, s.lookup)
	if err != nil {
		return err
	}
	defer eng.Close(context.WithoutCancel(ctx))
	worker, err := app.Clients().GetByName(ctx, "worker")
	if err != nil {
		return err
	}
	security, err := s.write(worker.ID)
	if err != nil {
		return err
	}
	defer os.RemoveAll(s.Directory)
	s.print(os.Stdout)
	err = serve(ctx, routes(app, s), plain, tls.NewListener(secure, security), func(ctx context.Context) {
		secret, _ := s.lookup("WORKER_CLIENT_SECRET")
		if err := work(ctx, app.Manifest().PublicURL, worker.ID, secret, 5*time.Second); err != nil {
			slog.Error("the worker ended", slog.Any("error", err))
		}
	})
	return errors.Join(err, printTrail(context.WithoutCancel(ctx), os.Stdout, app.Audit()))
}

// load makes the engine and its app.
func load(ctx context.Context, db *mongo.Database, lookup func(string) (string, bool)) (*engine.Engine, *engine.App, error) {
	var eng *engine.Engine
	eng, err := engine.New(ctx, db, &engine.Options{
		SecretKeys: secretKeys(),
		Prometheus: prom.Handler,
		// The audit trail has the events; the log would say them once more.
		Sinks:          []event.Sink{},
		Authenticators: authenticators(func() *engine.Engine { return eng }),
	})
	if err != nil {
		return nil, nil, err
	}
	m, err := manifest.Parse(manifestJSON, &manifest.Options{LookupEnv: lookup})
	if err != nil {
		return nil, nil, errors.Join(err, eng.Close(context.WithoutCancel(ctx)))
	}
	app, err := eng.Load(ctx, m)
	if err != nil {
		return nil, nil, errors.Join(err, eng.Close(context.WithoutCancel(ctx)))
	}
	return eng, app, nil
}

// routes are the service: behind the manifest's path rules, every request in the
// audit trail. Mandate's own routes guard and record themselves.
func routes(app *engine.App, s *settings) http.Handler {
	var r readings
	service := http.NewServeMux()
	service.HandleFunc("POST /readings", r.add)
	service.HandleFunc("GET /readings", r.list)
	service.HandleFunc("PUT /calibration", r.calibrate)
	service.HandleFunc("GET /report", r.report)
	service.HandleFunc("GET /setup", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, s) })
	mux := http.NewServeMux()
	mux.Handle("/auth/", app.Handler())
	mux.Handle("/.well-known/", app.WellKnown())
	mux.Handle("/", app.AuditRequests(app.Protect(service)))
	return mux
}

func connect(ctx context.Context) (*mongo.Database, func(), error) {
	if uri := os.Getenv("MONGODB_URI"); uri != "" {
		client, err := mongo.Connect(ctx, options.Client().ApplyURI(uri))
		if err != nil {
			return nil, nil, err
		}
		return client.Database("mandate_machines"), func() { _ = client.Disconnect(context.WithoutCancel(ctx)) }, nil
	}
	server, err := localmongo.Start(ctx, nil)
	if err != nil {
		return nil, nil, err
	}
	return server.Client().Database("mandate_machines"), func() { _ = server.Close(context.WithoutCancel(ctx)) }, nil
}

// serve answers on both listeners, with the worker beside it, until ctx ends.
func serve(ctx context.Context, handler http.Handler, plain, secure net.Listener, worker func(context.Context)) error {
	listeners := []net.Listener{plain, secure}
	servers := make([]*http.Server, len(listeners))
	ended := make(chan error, len(listeners))
	for i, listener := range listeners {
		servers[i] = &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
		go func() { ended <- servers[i].Serve(listener) }()
	}
	working, stop := context.WithCancel(ctx)
	var workers sync.WaitGroup
	workers.Go(func() { worker(working) })
	var err error
	select {
	case err = <-ended:
	case <-ctx.Done():
	}
	stop()
	workers.Wait()
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	for _, server := range servers {
		err = errors.Join(err, server.Shutdown(closing))
	}
	return err
}
