// Command social is a small service where people sign in with a password, with
// another provider, with a link or a code by mail, and mend what they have forgotten.
// It brings a provider of its own, and shows the mails that it would send, so that
// all of it can be clicked through without an account anywhere.
//
// It keeps its data in memory, unless MONGODB_URI names a server. It listens on ADDR,
// 127.0.0.1:8080 by default, and its provider on PROVIDER_ADDR, 127.0.0.1:9998 by
// default. Browsers reach both by the name "localhost".
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/examples/social/provider"
	"github.com/mandate-auth/mandate/localmongo"
	"github.com/mandate-auth/mandate/manifest"
)

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
	own, err := listen(ctx, "ADDR", "127.0.0.1:8080")
	if err != nil {
		return err
	}
	defer own.Close()
	others, err := listen(ctx, "PROVIDER_ADDR", "127.0.0.1:9998")
	if err != nil {
		return err
	}
	defer others.Close()

	s := newSettings(localhost(own), localhost(others))
	p, err := provider.New(s.provider())
	if err != nil {
		return err
	}
	box := &mailbox{}
	eng, err := engine.New(ctx, db, &engine.Options{SecretKeys: secretKeys(), Mailer: box})
	if err != nil {
		return err
	}
	defer eng.Close(context.WithoutCancel(ctx))
	m, err := manifest.Parse(manifestJSON, &manifest.Options{LookupEnv: s.lookup})
	if err != nil {
		return err
	}
	app, err := eng.Load(ctx, m)
	if err != nil {
		return err
	}
	fmt.Printf(`
Social is serving on %[1]s

  open   %[1]s/         a page with every way to sign in
  mails  %[1]s/mails    what the service has sent
  Local  %[2]s          the provider of "Sign in with Local"

`, s.url, s.issuer)
	return serve(ctx, map[net.Listener]http.Handler{own: routes(app, box), others: p})
}

func listen(ctx context.Context, name, address string) (net.Listener, error) {
	var config net.ListenConfig
	return config.Listen(ctx, "tcp", cmp.Or(os.Getenv(name), address))
}

// localhost returns the URL of a listener as browsers write it: a name, because
// cookies and providers know loopback by it.
func localhost(l net.Listener) string {
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return "http://localhost:" + port
}

// connect returns a database: on the server of MONGODB_URI, or on localmongo.
func connect(ctx context.Context) (*mongo.Database, func(), error) {
	if uri := os.Getenv("MONGODB_URI"); uri != "" {
		client, err := mongo.Connect(ctx, options.Client().ApplyURI(uri))
		if err != nil {
			return nil, nil, err
		}
		return client.Database("mandate_social"), func() { _ = client.Disconnect(context.WithoutCancel(ctx)) }, nil
	}
	server, err := localmongo.Start(ctx, nil)
	if err != nil {
		return nil, nil, err
	}
	return server.Client().Database("mandate_social"), func() { _ = server.Close(context.WithoutCancel(ctx)) }, nil
}

// serve answers on the listeners until ctx ends.
func serve(ctx context.Context, handlers map[net.Listener]http.Handler) error {
	var servers []*http.Server
	ended := make(chan error, len(handlers))
	for listener, handler := range handlers {
		server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
		servers = append(servers, server)
		go func() { ended <- server.Serve(listener) }()
	}
	var err error
	select {
	case err = <-ended:
	case <-ctx.Done():
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	for _, server := range servers {
		if e := server.Shutdown(closing); !errors.Is(e, context.DeadlineExceeded) {
			err = errors.Join(err, e)
		}
	}
	return err
}
