// Package storetest gives a test a database of its own: on localmongo, or on
// the server that MONGODB_URI names. It is imported by tests only.
package storetest

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/event"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/localmongo"
)

// server is the one database server that the tests of a binary share.
var server = sync.OnceValues(func() (uri string, err error) {
	if uri := os.Getenv("MONGODB_URI"); uri != "" {
		return uri, nil
	}
	s, err := localmongo.Start(context.Background(), &localmongo.Options{
		Listen: true, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return "", err
	}
	return s.URI(), nil
})

// client is the client that tests without wishes of their own share.
var client = sync.OnceValues(func() (*mongo.Client, error) { return connect(nil, nil) })

// URI returns the connection string of the server. With MANDATE_REQUIRE_DB=1 a
// test without MONGODB_URI fails, so that a run meant for a real server cannot
// pass on the stand-in.
func URI(tb testing.TB) string {
	tb.Helper()
	if os.Getenv("MONGODB_URI") == "" && os.Getenv("MANDATE_REQUIRE_DB") == "1" {
		tb.Fatal("MANDATE_REQUIRE_DB=1 and no MONGODB_URI: set it to the server to test on")
	}
	uri, err := server()
	if err != nil {
		tb.Fatalf("no database to test on: %v", err)
	}
	return uri
}

// network is a dialer that a test can make fail.
type network interface {
	options.ContextDialer
	restore()
}

func connect(monitor *event.CommandMonitor, link network) (*mongo.Client, error) {
	uri, err := server()
	if err != nil {
		return nil, err
	}
	opts := options.Client().ApplyURI(uri).SetServerSelectionTimeout(store.CallTimeout)
	if monitor != nil {
		opts.SetMonitor(monitor)
	}
	if link != nil {
		opts.SetDialer(link)
	}
	if _, ok := link.(*Link); ok {
		opts.SetHeartbeatInterval(500 * time.Millisecond) // a restored link is noticed soon
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return mongo.Connect(ctx, opts)
}

// Database returns an empty database that is dropped when the test ends.
func Database(tb testing.TB) *mongo.Database {
	tb.Helper()
	URI(tb)
	c, err := client()
	if err != nil {
		tb.Fatal(err)
	}
	return named(tb, c, newName())
}

// Monitored returns an empty database whose commands are shown to monitor.
func Monitored(tb testing.TB, monitor *event.CommandMonitor) *mongo.Database {
	tb.Helper()
	return own(tb, newName(), monitor, nil)
}

// Linked returns an empty database behind a link that the test can cut.
func Linked(tb testing.TB) (*mongo.Database, *Link) {
	tb.Helper()
	link := &Link{}
	return own(tb, newName(), nil, link), link
}

// LinkedAndMonitored is Linked with its commands shown to monitor.
func LinkedAndMonitored(tb testing.TB, monitor *event.CommandMonitor) (*mongo.Database, *Link) {
	tb.Helper()
	link := &Link{}
	return own(tb, newName(), monitor, link), link
}

// Second returns the same database as db through a client of its own and,
// when link is not nil, behind a link.
func Second(tb testing.TB, db *mongo.Database, link *Link) *mongo.Database {
	tb.Helper()
	if link == nil {
		return own(tb, db.Name(), nil, nil)
	}
	return own(tb, db.Name(), nil, link)
}

// Faulty returns the same database as db through a client of its own whose
// commands f does harm to.
func Faulty(tb testing.TB, db *mongo.Database, f *Faults) *mongo.Database {
	tb.Helper()
	return own(tb, db.Name(), nil, f)
}

func own(tb testing.TB, name string, monitor *event.CommandMonitor, link network) *mongo.Database {
	tb.Helper()
	URI(tb)
	c, err := connect(monitor, link)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if link != nil {
			link.restore()
		}
		_ = c.Disconnect(context.Background())
	})
	db := named(tb, nil, name)
	return c.Database(db.Name())
}

func newName() string { return store.NewID("mandate_test_") }

// named drops the database when the test ends, through the shared client: the
// test's own may be cut off.
func named(tb testing.TB, c *mongo.Client, name string) *mongo.Database {
	tb.Helper()
	if c == nil {
		var err error
		if c, err = client(); err != nil {
			tb.Fatal(err)
		}
	}
	db := c.Database(name)
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := db.Drop(ctx); err != nil {
			tb.Errorf("drop %s: %v", name, err)
		}
	})
	return db
}
