// Package tokenstest is what the tests of the packages below tokens have in common.
package tokenstest

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/mongo"

	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/keys"
	"github.com/mandate-auth/mandate/tokens/secret"
)

// AppKeys returns the derived keys of the app, the same each time.
func AppKeys(tb testing.TB, app string) *keys.App {
	tb.Helper()
	ring, err := keys.NewRing([]secret.Value{secret.FromString(strings.Repeat("s", 32))})
	if err != nil {
		tb.Fatal(err)
	}
	k, err := ring.App(app, bytes.Repeat([]byte{1}, 32), 1)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

// Config changes what [Blacklist] makes. Either may be nil.
type Config struct {
	Feed func(*tokens.FeedConfig)
	List func(*tokens.BlacklistConfig)
}

// Polling makes the feed poll on every server.
func Polling(c *tokens.FeedConfig) { c.DisableChangeStream = true }

// Blacklist returns the app's part of a feed on db, which is closed with the test.
func Blacklist(tb testing.TB, db *mongo.Database, app string, changes ...Config) *tokens.Blacklist {
	tb.Helper()
	fc := tokens.FeedConfig{PollInterval: 50 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)}
	bc := tokens.BlacklistConfig{App: app}
	for _, c := range changes {
		if c.Feed != nil {
			c.Feed(&fc)
		}
		if c.List != nil {
			c.List(&bc)
		}
	}
	feed, err := tokens.NewFeed(context.Background(), db.Collection("token_blacklist"), fc)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := feed.Close(context.Background()); err != nil {
			tb.Errorf("close the feed: %v", err)
		}
	})
	list, err := feed.App(bc)
	if err != nil {
		tb.Fatal(err)
	}
	return list
}
