// Package enginetest lets a service that embeds Mandate test its own handlers. It
// is for tests only.
//
//	func TestDocuments(t *testing.T) {
//		env := enginetest.New(t, nil)
//		server := httptest.NewServer(myservice.Routes(env.App, env.DB))
//		defer server.Close()
//
//		env.SignIn(t, server.Client(), enginetest.User{Email: "ada@example.com", Roles: []string{"admin"}})
//		res, err := server.Client().Get(server.URL + "/documents")
//		…
//		env.Clock.Advance(16 * time.Minute) // the access token is over now
//	}
//
// Each [New] has a database of its own, in memory, or on the server that
// MONGODB_URI names. With MANDATE_REQUIRE_DB=1 a missing MONGODB_URI ends the test,
// so that a run meant for a real server cannot pass in memory. Passwords are hashed
// at the least cost.
package enginetest

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/localmongo"
	"github.com/mandate-auth/mandate/manifest"
)

// DefaultManifest is the manifest of [New] without another one: guests, the roles
// user and admin, in development.
const DefaultManifest = `{
  "slug": "test",
  "environment": "development",
  "auth": {
    "policy": { "allow_anonymous": true },
    "users": { "allow_anonymous_users": true }
  }
}`

// Options configures an [Env]. The zero value is fit for most tests.
type Options struct {
	// Manifest is the text of the app's manifest. Default [DefaultManifest].
	Manifest string
	// ManifestFile is the file of the app's manifest, instead of Manifest.
	ManifestFile string
	// LookupEnv finds the environment variables of the manifest. Default
	// os.LookupEnv.
	LookupEnv func(string) (string, bool)
	// Configure changes the options of the engine before it is made: its
	// providers, its claims. Clock, events and the secret key are set already.
	Configure func(*engine.Options)
}

// Env is an engine with an app, and what a test needs to look at it.
type Env struct {
	Engine *engine.Engine
	App    *engine.App
	DB     *mongo.Database
	// Clock is the engine's clock.
	Clock *Clock
	// Events are what the engine has reported.
	Events *Events
	// Commands are what has reached the database.
	Commands *Commands

	lookup func(string) (string, bool)
}

// closeTimeout bounds how long the end of a test waits for the engine.
const closeTimeout = 10 * time.Second

// New returns an engine with one app. Everything is closed when the test ends; a
// failure ends the test.
func New(tb testing.TB, opts *Options) *Env {
	tb.Helper()
	if opts == nil {
		opts = &Options{}
	}
	e := &Env{Clock: NewClock(), Events: &Events{}, Commands: &Commands{}, lookup: opts.LookupEnv}
	e.DB = database(tb, e.Commands)
	config := &engine.Options{
		SecretKeys:       []engine.Secret{engine.NewSecret(rand.Text() + rand.Text())},
		InsecureHashCost: 4,
		Now:              e.Clock.Now,
		Logger:           slog.New(slog.DiscardHandler),
		Sinks:            []event.Sink{e.Events},
		LookupEnv:        opts.LookupEnv,
	}
	if opts.Configure != nil {
		opts.Configure(config)
	}
	var err error
	if e.Engine, err = engine.New(tb.Context(), e.DB, config); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		if err := e.Engine.Close(ctx); err != nil {
			tb.Errorf("close the engine: %v", err)
		}
	})
	text := DefaultManifest
	switch {
	case opts.ManifestFile != "":
		raw, err := os.ReadFile(opts.ManifestFile)
		if err != nil {
			tb.Fatal(err)
		}
		text = string(raw)
	case opts.Manifest != "":
		text = opts.Manifest
	}
	e.App = e.Load(tb, text)
	return e
}

// Load loads another app into the engine, from the text of its manifest.
func (e *Env) Load(tb testing.TB, text string) *engine.App {
	tb.Helper()
	m, err := manifest.Parse([]byte(text), &manifest.Options{LookupEnv: e.lookup})
	if err != nil {
		tb.Fatal(err)
	}
	app, err := e.Engine.Load(tb.Context(), m)
	if err != nil {
		tb.Fatal(err)
	}
	return app
}

// database returns an empty database that is gone when the test ends.
func database(tb testing.TB, commands *Commands) *mongo.Database {
	tb.Helper()
	uri := os.Getenv("MONGODB_URI")
	if uri == "" {
		if os.Getenv("MANDATE_REQUIRE_DB") == "1" {
			tb.Fatal("MANDATE_REQUIRE_DB=1 and no MONGODB_URI: set it to the server to test on")
		}
		server, err := localmongo.Start(tb.Context(), &localmongo.Options{Listen: true, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			tb.Fatal(err)
		}
		ending(tb, server.Close)
		uri = server.URI()
	}
	client, err := mongo.Connect(tb.Context(), options.Client().ApplyURI(uri).
		SetServerSelectionTimeout(2*time.Second).SetMonitor(commands.Monitor()))
	if err != nil {
		tb.Fatal(err)
	}
	ending(tb, client.Disconnect)
	db := client.Database("mandate_" + strings.ToLower(rand.Text()))
	ending(tb, db.Drop)
	return db
}

// ending calls f when the test ends.
func ending(tb testing.TB, f func(context.Context) error) {
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		if err := f(ctx); err != nil {
			tb.Error(fmt.Errorf("at the end of the test: %w", err))
		}
	})
}
