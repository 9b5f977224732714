package sessions_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"time"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/localmongo"
	"github.com/mandate-auth/mandate/sessions"
	"github.com/mandate-auth/mandate/tokens/keys"
	"github.com/mandate-auth/mandate/tokens/secret"
)

// everybody is a blacklist that forgets and accounts that are all active. A
// service has tokens.Blacklist and users.Store in their place.
type everybody struct{}

func (everybody) AddSession(context.Context, string, time.Time, string) error { return nil }
func (everybody) AddUser(context.Context, string, int64, string) error        { return nil }
func (everybody) Active(context.Context, string) (authz.Kind, error)          { return authz.KindHuman, nil }
func (everybody) Exists(context.Context, string) (bool, error)                { return true, nil }

// exampleManager returns a manager on a database in memory, and what closes
// both.
func exampleManager(ctx context.Context) (*sessions.Manager, func()) {
	server, err := localmongo.Start(ctx, &localmongo.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	client := server.Client()
	ring, err := keys.NewRing([]secret.Value{secret.Random(32)})
	if err != nil {
		log.Fatal(err)
	}
	app, err := ring.App("shop", bytes.Repeat([]byte{1}, 32), 1)
	if err != nil {
		log.Fatal(err)
	}
	manager, err := sessions.New(client.Database("example"), sessions.Config{
		App: "shop", Keys: app, Revoker: everybody{}, Accounts: everybody{}, RotationGrace: 10 * time.Second,
	})
	if err != nil {
		log.Fatal(err)
	}
	return manager, func() {
		if err := errors.Join(manager.Close(ctx), server.Close(ctx)); err != nil {
			log.Fatal(err)
		}
	}
}

func Example() {
	ctx := context.Background()
	manager, closeAll := exampleManager(ctx)
	defer closeAll()
	if _, err := manager.EnsureIndexes(ctx); err != nil {
		log.Fatal(err)
	}

	userID := "usr_0123456789abcdefghjkmnpqrs" // as users.Service makes them
	start, err := manager.Begin(ctx, userID)   // before the user is read for the last time
	if err != nil {
		log.Fatal(err)
	}
	issued, err := manager.Create(ctx, start, sessions.CreateOptions{
		Device: sessions.Device{Name: "laptop", UserAgent: "Browser/1.0"},
	})
	if err != nil {
		log.Fatal(err)
	}

	next, err := manager.Refresh(ctx, issued.RefreshToken, sessions.Device{UserAgent: "Browser/1.1"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("same session:", next.SessionID == issued.SessionID)
	fmt.Println("new token:", next.RefreshToken != issued.RefreshToken)

	list, err := manager.List(ctx, userID)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("signed in on:", list[0].DeviceName)

	if err := manager.EndByToken(ctx, next.RefreshToken, "logout"); err != nil {
		log.Fatal(err)
	}
	_, err = manager.Refresh(ctx, next.RefreshToken, sessions.Device{})
	fmt.Println("after the logout:", err)
	// Output:
	// same session: true
	// new token: true
	// signed in on: laptop
	// after the logout: session expired
}
