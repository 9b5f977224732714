package apikey_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/apikey"
	"github.com/mandate-auth/mandate/tokens/internal/tokenstest"
)

// The database goes away: nothing is taken for an answer about a key, and what is
// remembered is trusted no longer than the blacklist is.
func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	db, link := storetest.Linked(t)
	b := setupOn(t, db, option{Config: tokenstest.Config{List: func(c *tokens.BlacklistConfig) { c.MaxStaleness = 100 * time.Millisecond }, Feed: tokenstest.Polling}})
	remembered, other := b.create(t), b.create(t)
	b.verify(t, remembered.Key, nil)
	link.Cut()
	b.verify(t, other.Key, store.ErrUnavailable)
	until(t, "the view to be stale", func() bool {
		p, err := b.Verify(t.Context(), remembered.Key)
		if err != nil && (p != nil || !errors.Is(err, tokens.ErrStale) || !errors.Is(err, store.ErrUnavailable)) {
			t.Errorf("got %v, %v, want ErrStale", p, err)
		}
		return err != nil
	})
	calls := map[string]func() error{
		"Create": func() error {
			_, err := b.Create(t.Context(), apikey.NewKey{UserID: b.user, Name: "x"})
			return err
		},
		"List":      func() error { _, err := b.List(t.Context(), b.user, apikey.ListOptions{}); return err },
		"Get":       func() error { _, err := b.Get(t.Context(), b.user, other.ID); return err },
		"Revoke":    func() error { return b.Revoke(t.Context(), b.user, other.ID, "x") },
		"RevokeAll": func() error { return b.RevokeAll(t.Context(), b.user, "x") },
		"Sweep":     func() error { _, err := b.Sweep(t.Context()); return err },
	}
	var wg sync.WaitGroup
	for name, call := range calls {
		wg.Go(func() {
			if err := call(); !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("%s without a database: got %v, want ErrUnavailable", name, err)
			}
		})
	}
	wg.Wait()
	link.Restore()
	until(t, "the database to be back", func() bool {
		_, err := b.Verify(t.Context(), remembered.Key)
		return err == nil
	})
	b.verify(t, other.Key, nil)
}

// operations are what a fault can meet. Each has a key of its own that nobody has
// looked up yet.
var operations = map[string]func(b *bench, key *apikey.Created) error{
	"Verify": func(b *bench, key *apikey.Created) error {
		p, err := b.Verify(context.Background(), key.Key)
		if err == nil && p.TokenID != key.ID {
			return fmt.Errorf("the principal is %+v", p)
		}
		return err
	},
	"Create": func(b *bench, _ *apikey.Created) error {
		c, err := b.Create(context.Background(), apikey.NewKey{UserID: b.user, Name: "second"})
		if err == nil && c.Key == "" {
			return errors.New("no key and no error")
		}
		return err
	},
	"Revoke": func(b *bench, key *apikey.Created) error {
		return b.Revoke(context.Background(), b.user, key.ID, "test")
	},
	"RevokeAll": func(b *bench, _ *apikey.Created) error { return b.RevokeAll(context.Background(), b.user, "test") },
	"List": func(b *bench, key *apikey.Created) error {
		page, err := b.List(context.Background(), b.user, apikey.ListOptions{})
		if err == nil && !slices.Contains(ids(page), key.ID) {
			return errors.New("a part of the keys was taken for all")
		}
		return err
	},
	"Get": func(b *bench, key *apikey.Created) error {
		_, err := b.Get(context.Background(), b.user, key.ID)
		return err
	},
}

// Every command of every operation meets every fault. The operation succeeds whole
// or says that nothing answered; made again it succeeds; and a revocation that was
// answered is one.
func TestFaults(t *testing.T) {
	t.Parallel()
	for name, call := range operations {
		for _, fault := range []storetest.Fault{storetest.Before, storetest.BeforeTwice, storetest.AfterCommit, storetest.Timeout} {
			if fault == storetest.Timeout && name != "Verify" && name != "Create" && name != "Revoke" {
				continue // each costs two seconds; the others are made of the same calls
			}
			t.Run(fmt.Sprint(name, "/", fault), func(t *testing.T) {
				t.Parallel()
				sweep(t, name, call, fault)
			})
		}
	}
}

// sweep lets each command of an operation meet the fault.
func sweep(t *testing.T, name string, call func(*bench, *apikey.Created) error, fault storetest.Fault) {
	t.Helper()
	faults := &storetest.Faults{Counts: counts}
	sound := setup(t)
	b := sound.on(t, storetest.Faulty(t, sound.db, faults))
	key := sound.create(t)
	faults.Watch()
	if err := call(b, key); err != nil {
		t.Fatal(err)
	}
	steps, _ := faults.Disarm()
	if len(steps) == 0 {
		t.Fatal("no command was seen: the test watches nothing")
	}
	for _, step := range steps {
		b.user = store.NewID("usr_")
		sound.user = b.user
		key := sound.create(t)
		faults.Arm(fault, step, nil)
		err := call(b, key)
		label := fmt.Sprintf("%s, %s at %s", name, fault, step)
		if _, hits := faults.Disarm(); hits == 0 {
			t.Errorf("%s: the fault hit nothing", label)
		}
		settle(t, sound, label, name, key, err, call)
	}
}

// counts chooses the commands that operations send: on the keys, and the writes of
// the blacklist.
func counts(command bson.Raw) bool {
	elements, err := command.Elements()
	if err != nil || len(elements) == 0 {
		return false
	}
	switch coll, _ := elements[0].Value().StringValueOK(); coll {
	case "api_keys":
		// The use of keys is noted in the background: an update of a date (0x09).
		noted := elements[0].Key() == "update" && bytes.Contains(command, []byte("\x09last_used_at\x00"))
		return !noted && elements[0].Key() != "createIndexes" && elements[0].Key() != "listIndexes"
	case "token_blacklist":
		return elements[0].Key() == "update"
	default:
		return false
	}
}

// settle judges what a fault has left behind, on an instance that meets none.
func settle(t *testing.T, sound *bench, label, name string, key *apikey.Created, err error, call func(*bench, *apikey.Created) error) {
	t.Helper()
	if err != nil && !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("%s: got %v, want ErrUnavailable", label, err)
	}
	if err != nil {
		if err := call(sound, key); err != nil {
			t.Errorf("%s: made again: %v", label, err)
		}
	}
	page, err := sound.List(context.Background(), sound.user, apikey.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, verr := sound.Verify(context.Background(), key.Key)
	switch name {
	case "Revoke", "RevokeAll":
		if !errors.Is(verr, tokens.ErrRevoked) {
			t.Errorf("%s: afterwards %v, want ErrRevoked", label, verr)
		}
	case "Create":
		if verr != nil || len(page.Keys) != 2 {
			t.Errorf("%s: afterwards %d keys, %v, want 2: a key that nobody knows stayed", label, len(page.Keys), verr)
		}
	default:
		if verr != nil {
			t.Errorf("%s: afterwards %v", label, verr)
		}
	}
}

// A client that leaves in the middle of a revocation or the making of a key does not
// leave half of it.
func TestClientLeaves(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.create(t)
	b.verify(t, c.Key, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Revoke(ctx, b.user, c.ID, "test"); err != nil {
		t.Errorf("Revoke: %v", err)
	}
	b.verify(t, c.Key, tokens.ErrRevoked)
	if _, err := b.Create(ctx, apikey.NewKey{UserID: b.user, Name: "x"}); err != nil {
		t.Errorf("Create: %v", err)
	}
	if _, err := b.Verify(ctx, forge("mdk", "x")); !errors.Is(err, context.Canceled) {
		t.Errorf("Verify: got %v, want context.Canceled", err)
	}
}

// Neither a key nor the checksum's part of it is found anywhere but in the answer.
func TestSecretsStaySecret(t *testing.T) {
	t.Parallel()
	var logs bytes.Buffer
	b := setup(t, with(func(c *apikey.Config) { c.Logger = slog.New(slog.NewTextHandler(&logs, nil)) }))
	c := b.create(t)
	b.verify(t, c.Key, nil)
	_, err := b.Verify(t.Context(), c.Key+"x")
	if err := b.Revoke(t.Context(), b.user, c.ID, "test"); err != nil {
		t.Fatal(err)
	}
	_, revoked := b.Verify(t.Context(), c.Key)
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	var places strings.Builder
	fmt.Fprintln(&places, err, revoked, logs.String())
	for _, e := range b.recorder.events {
		fmt.Fprintf(&places, "%+v\n", e)
	}
	for _, coll := range []string{"api_keys", "token_blacklist"} {
		cursor, err := b.db.Collection(coll).Find(t.Context(), bson.M{})
		if err != nil {
			t.Fatal(err)
		}
		for cursor.Next(t.Context()) {
			fmt.Fprintln(&places, cursor.Current)
		}
		_ = cursor.Close(t.Context())
	}
	if !strings.Contains(places.String(), c.ID) {
		t.Fatal("the key's id is nowhere: the test looks at nothing")
	}
	for _, part := range []string{c.Key, c.Key[4:], c.Key[8:24], c.Key[24:47]} {
		if strings.Contains(places.String(), part) {
			t.Errorf("%q of the key is in %s", part, places.String())
		}
	}
}
