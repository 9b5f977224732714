package signing_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/mongo"

	"github.com/mandate-auth/mandate/localmongo"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/keys"
	"github.com/mandate-auth/mandate/tokens/secret"
	"github.com/mandate-auth/mandate/tokens/signing"
)

// An app with keys of its own, without the engine: load at the start and once a
// minute, hand the keys to the tokens, publish them.
func Example() {
	ctx := context.Background()
	server, err := localmongo.Start(ctx, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = server.Close(ctx) }()
	if err := publish(ctx, server.Client().Database("example")); err != nil {
		fmt.Println(err)
	}
	// Output:
	// EdDSA keys: [signing]
	// EdDSA keys: [published signing]
}

func publish(ctx context.Context, db *mongo.Database) error {
	salt := secret.Random(32).Reveal()
	ring, err := keys.NewRing([]secret.Value{secret.Random(32)})
	if err != nil {
		return err
	}
	derived, err := ring.App("shop", salt, 1)
	if err != nil {
		return err
	}
	store, err := signing.New(db, signing.Config{
		App: "shop", Algorithm: tokens.EdDSA, Keys: derived, Salt: salt, KeysEpoch: 1,
		Rotation: 90 * 24 * time.Hour, TokenTTL: 15*time.Minute + 30*time.Second,
		OnChange: func(set signing.Set) {
			fmt.Print(set.Signing.Algorithm, " keys: ") // service.UseKeys(set.Accepted)
		},
	})
	if err != nil {
		return err
	}
	if _, err := store.EnsureIndexes(ctx); err != nil {
		return err
	}
	if err := store.Load(ctx); err != nil { // and about once a minute
		return err
	}
	http.NewServeMux().Handle("GET /.well-known/jwks.json", store.Handler())
	if err := printStates(ctx, store); err != nil {
		return err
	}
	if _, err := store.Rotate(ctx); err != nil {
		return err
	}
	return printStates(ctx, store)
}

func printStates(ctx context.Context, store *signing.Store) error {
	list, err := store.List(ctx)
	if err != nil {
		return err
	}
	var states []signing.State
	for _, key := range list {
		states = append(states, key.State)
	}
	fmt.Println(states)
	return nil
}

// The zero clock, logger and sink are the defaults.
func TestDefaults(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s, err := signing.New(b.db, signing.Config{App: "shop", Algorithm: tokens.EdDSA, Keys: derived(t, "shop", "s"), Salt: salt, TokenTTL: ttl})
	if err != nil {
		t.Fatal(err)
	}
	load(t, s)
	info, err := s.Rotate(t.Context())
	if err != nil || info.ActiveFrom.Sub(info.CreatedAt) != lead {
		t.Errorf("the default lead: %+v, %v", info, err)
	}
}
