package oauth2_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"log/slog"

	"github.com/mandate-auth/mandate/localmongo"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/keys"
	"github.com/mandate-auth/mandate/tokens/oauth2"
	"github.com/mandate-auth/mandate/tokens/secret"
)

// exampleStore returns the clients of an app on a database in memory, and what
// closes it.
func exampleStore(ctx context.Context) (*oauth2.Store, func()) {
	quiet := slog.New(slog.DiscardHandler)
	server, err := localmongo.Start(ctx, &localmongo.Options{Logger: quiet})
	if err != nil {
		log.Fatal(err)
	}
	db := server.Client().Database("example")
	feed, err := tokens.NewFeed(ctx, db.Collection("token_blacklist"), tokens.FeedConfig{Logger: quiet})
	if err != nil {
		log.Fatal(err)
	}
	blacklist, err := feed.App(tokens.BlacklistConfig{App: "shop"})
	if err != nil {
		log.Fatal(err)
	}
	ring, err := keys.NewRing([]secret.Value{secret.Random(32)})
	if err != nil {
		log.Fatal(err)
	}
	app, err := ring.App("shop", bytes.Repeat([]byte{1}, 32), 1)
	if err != nil {
		log.Fatal(err)
	}
	store, err := oauth2.New(db, oauth2.Config{App: "shop", Blacklist: blacklist, Keys: app})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := store.EnsureIndexes(ctx); err != nil {
		log.Fatal(err)
	}
	return store, func() {
		if err := errors.Join(feed.Close(ctx), server.Close(ctx)); err != nil {
			log.Fatal(err)
		}
	}
}

// The client's part of a token endpoint.
func Example() {
	ctx := context.Background()
	store, closeAll := exampleStore(ctx)
	defer closeAll()
	worker, err := store.Create(ctx, oauth2.NewClient{Name: "worker", Scopes: []string{"orders:read", "orders:write"}})
	if err != nil {
		log.Fatal(err)
	}

	answer := func(authorization, body string) {
		request, err := oauth2.ParseTokenRequest(body)
		if err != nil {
			refuse(err)
			return
		}
		id, secret, err := request.Credentials(authorization)
		if err != nil {
			refuse(err)
			return
		}
		client, err := store.Authenticate(ctx, id, secret)
		if err != nil {
			refuse(err)
			return
		}
		scopes, err := oauth2.GrantScopes(client, request.Scope)
		if err != nil {
			refuse(err)
			return
		}
		fmt.Println("a token for", client.Name, "with", scopes, "for", client.TokenTTL)
	}
	header := basic(worker.ID + ":" + worker.Secret)
	answer(header, "grant_type=client_credentials&scope=orders:read")
	answer(header, "grant_type=client_credentials&scope=orders:delete")
	answer(basic(worker.ID+":guessed"), "grant_type=client_credentials")
	if err := store.Disable(ctx, worker.ID, "leaked"); err != nil {
		log.Fatal(err)
	}
	answer(header, "grant_type=client_credentials")
	// Output:
	// a token for worker with [orders:read] for 15m0s
	// 400 {"error":"invalid_scope","error_description":"the scope is malformed or exceeds what the client may have"}
	// 401 {"error":"invalid_client","error_description":"client authentication failed"}
	// 401 {"error":"invalid_client","error_description":"client authentication failed"}
}

// refuse writes the error as an endpoint does. One of the database is 503.
func refuse(err error) {
	var answer *oauth2.Error
	if !errors.As(err, &answer) {
		answer = oauth2.ErrTemporarilyUnavailable
	}
	body, err := json.Marshal(answer)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(answer.Status, string(body))
}
