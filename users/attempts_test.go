package users_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/event"

	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/users"
)

// Nobody may learn whether an address is known: not by the error, not by the
// number of hashes, not by the commands.
func TestUnknownAndWrongAreAlike(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var commands []string
	db := storetest.Monitored(t, &event.CommandMonitor{Started: func(_ context.Context, e *event.CommandStartedEvent) {
		mu.Lock()
		defer mu.Unlock()
		collection, _ := e.Command.Lookup(e.CommandName).StringValueOK()
		commands = append(commands, e.CommandName+" "+collection)
	}})
	b := setupOn(t, db)
	disabled := b.create(t, "disabled@example.com")
	if err := b.Disable(t.Context(), disabled.ID, "test"); err != nil {
		t.Fatal(err)
	}
	b.create(t, "known@example.com")
	if _, err := b.Anonymous(t.Context(), users.NewDeviceID()); err != nil {
		t.Fatal(err)
	}
	var first []string
	for round := range 2 { // the first attempt opens a window, the second does not
		for i, email := range []string{"known@example.com", "unknown@example.com", "disabled@example.com", "no address", "x@y@z"} {
			mu.Lock()
			commands = nil
			mu.Unlock()
			before := b.hashes.Load()
			err := b.login(t, email, "wrong password, quite long")
			if !errors.Is(err, users.ErrInvalidCredentials) || err.Error() != users.ErrInvalidCredentials.Error() {
				t.Errorf("%s: got %v", email, err)
			}
			if n := b.hashes.Load() - before; n != 1 {
				t.Errorf("%s: %d hashes, want 1", email, n)
			}
			mu.Lock()
			if i == 0 {
				first = commands
			} else if fmt.Sprint(commands) != fmt.Sprint(first) {
				t.Errorf("round %d, %s: commands %v, for a known address %v", round, email, commands, first)
			}
			mu.Unlock()
		}
	}
	if err := b.login(t, "disabled@example.com", password); !errors.Is(err, users.ErrDisabled) {
		t.Errorf("disabled, with the right password: got %v", err)
	}
}

// 500 wrong passwords at once cost exactly as many hashes as the limit says.
func TestParallelGuessesCostTenHashes(t *testing.T) {
	t.Parallel()
	for _, email := range []string{"known@example.com", "unknown@example.com"} {
		t.Run(email, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.create(t, "known@example.com")
			b.hashes.Store(0)
			var wrong, locked atomic.Int64
			var wg sync.WaitGroup
			for i := range 500 {
				wg.Go(func() {
					_, err := b.Authenticate(t.Context(), users.Credentials{Email: email, Password: fmt.Sprint("guess ", i)})
					var lock *users.LockedError
					switch {
					case errors.Is(err, users.ErrInvalidCredentials):
						wrong.Add(1)
					case errors.As(err, &lock) && lock.RetryAfter > 0 && lock.RetryAfter <= 15*time.Minute:
						locked.Add(1)
					default:
						t.Errorf("guess: %v", err)
					}
				})
			}
			wg.Wait()
			if b.hashes.Load() != 10 || wrong.Load() != 10 || locked.Load() != 490 {
				t.Errorf("%d hashes, %d wrong, %d locked; want 10, 10, 490", b.hashes.Load(), wrong.Load(), locked.Load())
			}
			var lock *users.LockedError
			if err := b.login(t, email, password); !errors.As(err, &lock) {
				t.Errorf("the right password while locked: got %v, want the same refusal", err)
			}
		})
	}
}

func TestParallelRightPasswordsAllEnter(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.create(t, "ada@example.com")
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if err := b.login(t, "ada@example.com", password); err != nil {
				t.Errorf("a right password among others: %v", err)
			}
		})
	}
	wg.Wait()
}

func TestLockoutEnds(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *users.Config) {
		c.Lockout = users.Lockout{MaxFailures: 3, Window: 10 * time.Minute, Duration: time.Hour}
	})
	u := b.create(t, "ada@example.com")
	fail := func(n int) {
		t.Helper()
		for range n {
			if err := b.login(t, "ada@example.com", "wrong"); !errors.Is(err, users.ErrInvalidCredentials) {
				t.Fatalf("a wrong password: %v", err)
			}
		}
	}
	var lock *users.LockedError
	fail(2)
	if err := b.login(t, "ada@example.com", password); err != nil {
		t.Fatal(err)
	}
	fail(2) // a success has reset the count
	b.move(10 * time.Minute)
	fail(3) // the window is over
	if err := b.login(t, "ada@example.com", password); !errors.As(err, &lock) || lock.RetryAfter < 59*time.Minute {
		t.Fatalf("locked: %v", err)
	}
	token := b.devices.Issue(u.ID)
	if _, err := b.Authenticate(t.Context(), users.Credentials{Email: "ada@example.com", Password: password, DeviceToken: token}); err != nil {
		t.Errorf("the owner on a known device: %v", err)
	}
	if err := b.login(t, "ada@example.com", password); !errors.As(err, &lock) {
		t.Errorf("elsewhere it stays locked: %v", err)
	}
	for range 3 {
		_, err := b.Authenticate(t.Context(), users.Credentials{Email: "ada@example.com", Password: "wrong", DeviceToken: token})
		if !errors.Is(err, users.ErrInvalidCredentials) {
			t.Fatalf("a wrong password on a known device: %v", err)
		}
	}
	if _, err := b.Authenticate(t.Context(), users.Credentials{Email: "ada@example.com", Password: password, DeviceToken: token}); !errors.As(err, &lock) {
		t.Errorf("a known device guesses without limit: %v", err)
	}
	b.move(time.Hour)
	if err := b.login(t, "ada@example.com", password); err != nil {
		t.Errorf("after the lock: %v", err)
	}
	fail(3)
	if err := b.Unlock(t.Context(), "ADA@example.com"); err != nil {
		t.Fatal(err)
	}
	if err := b.login(t, "ada@example.com", password); err != nil {
		t.Errorf("after Unlock: %v", err)
	}
}

// However slowly somebody guesses, a hundred failures in a row are the end.
func TestStreakIsBounded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	u := b.create(t, "ada@example.com")
	b.hashes.Store(0)
	for range 15 {
		for range 12 {
			_ = b.login(t, "ada@example.com", "wrong")
		}
		b.move(time.Hour)
	}
	if n := b.hashes.Load(); n != 100 {
		t.Errorf("%d wrong passwords were hashed in a row, want 100 at most", n)
	}
	var lock *users.LockedError
	if err := b.login(t, "ada@example.com", password); !errors.As(err, &lock) {
		t.Errorf("after a hundred failures: %v", err)
	}
	if err := b.SetPassword(t.Context(), u.ID, "another long passphrase"); err != nil {
		t.Fatal(err)
	}
	if err := b.login(t, "ada@example.com", "another long passphrase"); err != nil {
		t.Errorf("after a new password: %v", err)
	}
}

// Asking for addresses that nobody has must not fill the database for long.
func TestCountersOfStrangersExpire(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.create(t, "ada@example.com")
	_ = b.login(t, "ada@example.com", "wrong")
	_ = b.login(t, "nobody@example.com", "wrong")
	b.move(2 * time.Hour)
	if n, err := b.Sweep(t.Context()); n != 1 || err != nil {
		t.Errorf("%d counters were removed, %v, want that of the unknown address", n, err)
	}
}
