package oauth2_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/internal/tokenstest"
	"github.com/mandate-auth/mandate/tokens/oauth2"
)

// The database goes away: nobody gets in by it, and what is remembered is trusted no
// longer than the blacklist is.
func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	db, link := storetest.Linked(t)
	b := setupOn(t, db, option{Config: tokenstest.Config{List: func(c *tokens.BlacklistConfig) { c.MaxStaleness = 100 * time.Millisecond }, Feed: tokenstest.Polling}})
	c, other := b.create(t, "worker", "read"), b.create(t, "other")
	b.auth(t, c.ID, c.Secret, nil)
	link.Cut()
	b.auth(t, other.ID, other.Secret, store.ErrUnavailable)
	until(t, "the view to be stale", func() bool {
		got, err := b.Authenticate(t.Context(), c.ID, c.Secret)
		if err != nil && (got != nil || !errors.Is(err, tokens.ErrStale) || !errors.Is(err, store.ErrUnavailable)) {
			t.Errorf("got %v, %v, want ErrStale", got, err)
		}
		return err != nil
	})
	calls := map[string]func() error{
		"Create":       func() error { _, err := b.Create(t.Context(), oauth2.NewClient{Name: "x"}); return err },
		"Ensure":       func() error { _, err := b.Ensure(t.Context(), initial(strings.Repeat("1", 32))); return err },
		"List":         func() error { _, err := b.List(t.Context(), oauth2.ListOptions{}); return err },
		"Get":          func() error { _, err := b.Get(t.Context(), c.ID); return err },
		"Rotate":       func() error { _, err := b.Rotate(t.Context(), c.ID); return err },
		"RemoveSecret": func() error { return b.RemoveSecret(t.Context(), c.ID, "sec_x") },
		"Disable":      func() error { return b.Disable(t.Context(), c.ID, "x") },
		"Enable":       func() error { return b.Enable(t.Context(), c.ID) },
		"SetScopes":    func() error { return b.SetScopes(t.Context(), c.ID, nil) },
		"Delete":       func() error { return b.Delete(t.Context(), c.ID) },
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
		_, err := b.Authenticate(t.Context(), c.ID, c.Secret)
		return err == nil
	})
	b.auth(t, other.ID, other.Secret, nil)
}

// world is what an operation finds: a client with two secrets, of which the older
// one is removed.
type world struct {
	client        *oauth2.Created
	second, third string
}

func (b *bench) world(t *testing.T, name string) *world {
	t.Helper()
	c := b.create(t, name, "read", "write")
	return &world{client: c, second: b.rotate(t, c.ID)}
}

// operations are what a fault can meet, and how what was answered is judged.
var operations = map[string]struct {
	call  func(b *bench, w *world) error
	judge func(b *bench, w *world) error
}{
	"Authenticate": {
		func(b *bench, w *world) error {
			_, err := b.Authenticate(context.Background(), w.client.ID, w.second)
			return err
		},
		alive,
	},
	"Create": {
		func(b *bench, w *world) error {
			_, err := b.Create(context.Background(), oauth2.NewClient{Name: "new " + w.client.Name})
			return err
		},
		alive,
	},
	"Rotate": {
		func(b *bench, w *world) (err error) {
			w.third, err = b.Rotate(context.Background(), w.client.ID)
			return err
		},
		// The one that is in use is never pushed out, however often it is made again.
		func(b *bench, w *world) error {
			if _, err := b.Authenticate(context.Background(), w.client.ID, w.third); err != nil {
				return fmt.Errorf("the new secret: %w", err)
			}
			return alive(b, w)
		},
	},
	"RemoveSecret": {
		func(b *bench, w *world) error {
			return b.RemoveSecret(context.Background(), w.client.ID, w.client.Secrets[0].ID)
		},
		func(b *bench, w *world) error {
			if _, err := b.Authenticate(context.Background(), w.client.ID, w.client.Secret); !errors.Is(err, oauth2.ErrInvalidClient) {
				return fmt.Errorf("the removed secret: %w", err)
			}
			return errors.Join(alive(b, w), ended(b, w))
		},
	},
	"Disable": {
		func(b *bench, w *world) error { return b.Disable(context.Background(), w.client.ID, "test") },
		func(b *bench, w *world) error {
			if _, err := b.Authenticate(context.Background(), w.client.ID, w.second); !errors.Is(err, oauth2.ErrInvalidClient) {
				return fmt.Errorf("the disabled client: %w", err)
			}
			return ended(b, w)
		},
	},
	"Delete": {
		func(b *bench, w *world) error {
			err := b.Delete(context.Background(), w.client.ID)
			if errors.Is(err, oauth2.ErrNotFound) {
				return nil // the call before was carried out, and its answer lost
			}
			return err
		},
		ended,
	},
	"List": {
		func(b *bench, _ *world) error {
			page, err := b.List(context.Background(), oauth2.ListOptions{})
			if err == nil && len(page.Clients) == 0 {
				return errors.New("a part of the clients was taken for all")
			}
			return err
		},
		alive,
	},
}

// alive reports why the client's secret that is in use would not be accepted.
func alive(b *bench, w *world) error {
	_, err := b.Authenticate(context.Background(), w.client.ID, w.second)
	return err
}

// ended reports why tokens of the client would live on.
func ended(b *bench, w *world) error {
	found, epoch, err := b.list.Contains(context.Background(), tokens.RevokedClient, w.client.ID)
	if err == nil && (!found || epoch <= w.client.Epoch) {
		return errors.New("the tokens of the client live on")
	}
	return err
}

// Every command of every operation meets every fault. The operation succeeds whole
// or says that nothing answered; made again it succeeds; and what was answered holds.
func TestFaults(t *testing.T) {
	t.Parallel()
	for name := range operations {
		for _, fault := range []storetest.Fault{storetest.Before, storetest.BeforeTwice, storetest.AfterCommit, storetest.Timeout} {
			if fault == storetest.Timeout && name != "Authenticate" && name != "Rotate" && name != "Disable" {
				continue // each costs two seconds; the others are made of the same calls
			}
			t.Run(fmt.Sprint(name, "/", fault), func(t *testing.T) {
				t.Parallel()
				sweep(t, name, fault)
			})
		}
	}
}

// sweep lets each command of an operation meet the fault.
func sweep(t *testing.T, name string, fault storetest.Fault) {
	t.Helper()
	op := operations[name]
	faults := &storetest.Faults{Counts: counts}
	sound := setup(t)
	b := sound.on(t, storetest.Faulty(t, sound.db, faults))
	w := sound.world(t, "sample")
	faults.Watch()
	must(t, op.call(b, w))
	steps, _ := faults.Disarm()
	if len(steps) == 0 {
		t.Fatal("no command was seen: the test watches nothing")
	}
	for _, step := range steps {
		label := fmt.Sprintf("%s, %s at %s", name, fault, step)
		w := sound.world(t, label)
		faults.Arm(fault, step, nil)
		err := op.call(b, w)
		if _, hits := faults.Disarm(); hits == 0 {
			t.Errorf("%s: the fault hit nothing", label)
		}
		if err != nil && !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%s: got %v, want ErrUnavailable", label, err)
		}
		if err != nil {
			if err := op.call(sound, w); err != nil {
				t.Errorf("%s: made again: %v", label, err)
			}
		}
		if err := op.judge(sound, w); err != nil {
			t.Errorf("%s: afterwards: %v", label, err)
		}
	}
}

// counts chooses the commands that operations send: on the clients, and the writes
// of the blacklist.
func counts(command bson.Raw) bool {
	elements, err := command.Elements()
	if err != nil || len(elements) == 0 {
		return false
	}
	switch coll, _ := elements[0].Value().StringValueOK(); coll {
	case "oauth_clients":
		return elements[0].Key() != "createIndexes" && elements[0].Key() != "listIndexes"
	case "token_blacklist":
		return elements[0].Key() == "update"
	default:
		return false
	}
}

// Whoever administers and leaves in the middle does not leave half of it.
func TestCallerLeaves(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.create(t, "worker", "read")
	b.auth(t, c.ID, c.Secret, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := b.Create(ctx, oauth2.NewClient{Name: "other"})
	must(t, err)
	_, err = b.Rotate(ctx, c.ID)
	must(t, err)
	must(t, b.RemoveSecret(ctx, c.ID, c.Secrets[0].ID))
	must(t, b.SetScopes(ctx, c.ID, nil))
	must(t, b.Disable(ctx, c.ID, "test"))
	must(t, b.Delete(ctx, c.ID))
	if _, err := b.Authenticate(ctx, c.ID, c.Secret); !errors.Is(err, context.Canceled) {
		t.Errorf("Authenticate: got %v, want context.Canceled", err)
	}
}

// No secret is found anywhere but in the answer that hands it out.
func TestSecretsStaySecret(t *testing.T) {
	t.Parallel()
	b := setup(t)
	planted := "planted-canary-0123456789abcdefghij"
	c := b.create(t, "worker", "read")
	second := b.rotate(t, c.ID)
	own, err := b.Ensure(t.Context(), oauth2.Initial{Name: "own", Secret: initial(planted).Secret})
	must(t, err)
	b.auth(t, own.ID, planted, nil)
	b.auth(t, c.ID, second, nil)
	_, refused := b.Authenticate(t.Context(), c.ID, second+"x")
	_, misplaced := b.Authenticate(t.Context(), second, c.ID)
	_, conflict := b.Ensure(t.Context(), oauth2.Initial{ID: store.NewID("cli_"), Name: "own", Secret: initial(planted).Secret})
	must(t, b.Disable(t.Context(), c.ID, "test"))
	var places strings.Builder
	fmt.Fprintln(&places, refused, misplaced, conflict, fmt.Sprintf("%+v", b.get(t, c.ID)))
	for _, e := range b.all() {
		fmt.Fprintf(&places, "%+v\n", e)
	}
	for _, coll := range []string{"oauth_clients", "token_blacklist"} {
		cursor, err := b.db.Collection(coll).Find(t.Context(), bson.M{})
		must(t, err)
		for cursor.Next(t.Context()) {
			fmt.Fprintln(&places, cursor.Current)
		}
		_ = cursor.Close(t.Context())
	}
	if !strings.Contains(places.String(), c.ID) {
		t.Fatal("the client's id is nowhere: the test looks at nothing")
	}
	for _, part := range []string{c.Secret[4:], second[4:], second[4:20], planted, planted[:16]} {
		if strings.Contains(places.String(), part) {
			t.Errorf("%q of a secret is in %s", part, places.String())
		}
	}
}
