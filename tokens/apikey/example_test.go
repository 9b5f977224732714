package apikey_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/localmongo"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/apikey"
	"github.com/mandate-auth/mandate/tokens/keys"
	"github.com/mandate-auth/mandate/tokens/secret"
)

// everybody are accounts that are all active. A service has users.Store in their
// place.
type everybody struct{}

func (everybody) Active(context.Context, string) (authz.Kind, error) { return authz.KindHuman, nil }

// exampleStore returns the keys of an app on a database in memory, and what closes
// them.
func exampleStore(ctx context.Context) (*apikey.Store, func()) {
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
	store, err := apikey.New(db, apikey.Config{
		App: "shop", Blacklist: blacklist, Accounts: everybody{}, Keys: app,
		Rights: func(_ context.Context, _, scope string) (bool, error) { return scope != "orders:delete", nil },
	})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := store.EnsureIndexes(ctx); err != nil {
		log.Fatal(err)
	}
	return store, func() {
		if err := errors.Join(store.Close(ctx), feed.Close(ctx), server.Close(ctx)); err != nil {
			log.Fatal(err)
		}
	}
}

func Example() {
	ctx := context.Background()
	store, closeAll := exampleStore(ctx)
	defer closeAll()

	userID := "usr_0123456789abcdefghjkmnpqrs" // as users.Store makes them
	_, err := store.Create(ctx, apikey.NewKey{UserID: userID, Name: "nightly", Scopes: []string{"orders:delete"}})
	fmt.Println("too wide:", errors.Is(err, apikey.ErrScope))

	created, err := store.Create(ctx, apikey.NewKey{UserID: userID, Name: "nightly", Scopes: []string{"orders:read"}})
	if err != nil {
		log.Fatal(err)
	}
	// created.Key is shown to the user, once.

	principal, err := store.Verify(ctx, created.Key)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("acts for its owner:", principal.ID == userID)
	fmt.Println("is a machine:", principal.IsM2M())
	fmt.Println("scopes:", principal.Scopes)

	if err := store.Revoke(ctx, userID, created.ID, "leaked"); err != nil {
		log.Fatal(err)
	}
	_, err = store.Verify(ctx, created.Key)
	fmt.Println("afterwards:", err)
	// Output:
	// too wide: true
	// acts for its owner: true
	// is a machine: true
	// scopes: [orders:read]
	// afterwards: token revoked
}
