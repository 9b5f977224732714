// Package storetest gives a test a database of its own: on localmongo, or on
// the server that MONGODB_URI names. It is imported by tests only.
package storetest

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/event"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/localmongo"
)

var (
	once   sync.Once
	shared *mongo.Client
	broken error
)

// Client returns the client that all tests of one binary share. With
// MONGODB_URI it is connected to that server, otherwise to one localmongo.
// MANDATE_REQUIRE_DB=1 makes a test without MONGODB_URI fail, so that a run
// meant for a real server cannot pass by accident on the stand-in.
func Client(tb testing.TB) *mongo.Client {
	tb.Helper()
	if os.Getenv("MONGODB_URI") == "" && os.Getenv("MANDATE_REQUIRE_DB") == "1" {
		tb.Fatal("MANDATE_REQUIRE_DB=1 and no MONGODB_URI: set it to the server to test on")
	}
	once.Do(func() {
		if os.Getenv("MONGODB_URI") != "" {
			shared, broken = connect(nil)
			return
		}
		server, err := localmongo.Start(context.Background(), &localmongo.Options{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			broken = err
			return
		}
		shared = server.Client()
	})
	if broken != nil {
		tb.Fatalf("no database to test on: %v", broken)
	}
	return shared
}

func connect(monitor *event.CommandMonitor) (*mongo.Client, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	opts := options.Client().ApplyURI(os.Getenv("MONGODB_URI"))
	if monitor != nil {
		opts.SetMonitor(monitor)
	}
	client, err := mongo.Connect(ctx, opts)
	if err != nil {
		return nil, err
	}
	return client, client.Ping(ctx, nil)
}

// Database returns an empty database that is dropped when the test ends.
func Database(tb testing.TB) *mongo.Database {
	tb.Helper()
	return database(tb, Client(tb))
}

func database(tb testing.TB, client *mongo.Client) *mongo.Database {
	tb.Helper()
	db := client.Database("mandate_test_" + strings.TrimPrefix(store.NewID(""), "_"))
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := db.Drop(ctx); err != nil && client == shared {
			tb.Errorf("drop %s: %v", db.Name(), err)
		}
	})
	return db
}
