package oauth2_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/internal/tokenstest"
	"github.com/mandate-auth/mandate/tokens/oauth2"
	"github.com/mandate-auth/mandate/tokens/secret"
)

// Two secrets live: the new and the previous one. Tokens are not touched.
func TestRotate(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.create(t, "worker")
	b.auth(t, c.ID, c.Secret, nil)
	second := b.rotate(t, c.ID)
	b.auth(t, c.ID, c.Secret, nil)
	b.auth(t, c.ID, second, nil)
	third := b.rotate(t, c.ID)
	b.auth(t, c.ID, c.Secret, oauth2.ErrInvalidClient)
	b.auth(t, c.ID, second, nil)
	after := b.auth(t, c.ID, third, nil)
	if after.Epoch != c.Epoch || len(after.Secrets) != 2 {
		t.Errorf("epoch %d after %d, %d secrets: a rotation ends no tokens", after.Epoch, c.Epoch, len(after.Secrets))
	}
	if found, _, err := b.list.Contains(t.Context(), tokens.RevokedClient, c.ID); found || err != nil {
		t.Errorf("the client is on the blacklist, %v: a rotation ends no tokens", err)
	}
}

// Twenty rotate at once over two instances: two of their secrets live, and those
// are the ones that the client is said to have.
func TestRotateInARace(t *testing.T) {
	t.Parallel()
	b := setup(t)
	instances := []*bench{b, b.on(t, storetest.Second(t, b.db, nil))}
	c := b.create(t, "worker")
	b.auth(t, c.ID, c.Secret, nil)
	secrets := make([]string, 20)
	var wg sync.WaitGroup
	for i := range secrets {
		wg.Go(func() {
			text, err := instances[i%2].Rotate(context.Background(), c.ID)
			if err != nil {
				t.Errorf("Rotate: %v", err)
			}
			secrets[i] = text
		})
	}
	wg.Wait()
	living := 0
	for _, text := range append(secrets, c.Secret) {
		if _, err := b.Authenticate(t.Context(), c.ID, text); err == nil {
			living++
		} else if !errors.Is(err, oauth2.ErrInvalidClient) {
			t.Errorf("got %v, want ErrInvalidClient", err)
		}
	}
	if n := len(b.get(t, c.ID).Secrets); living != 2 || n != 2 {
		t.Errorf("%d secrets live and %d are shown, want 2", living, n)
	}
}

// Another instance that remembers a secret refuses it within the bound once it was
// rotated out.
func TestRotationReachesOthers(t *testing.T) {
	t.Parallel()
	for name, opt := range map[string]option{"feed": {}, "polling": {Config: tokenstest.Config{Feed: tokenstest.Polling}}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, opt)
			other := b.on(t, storetest.Second(t, b.db, nil), opt)
			c := b.create(t, "worker")
			other.auth(t, c.ID, c.Secret, nil)
			second := b.rotate(t, c.ID)
			other.auth(t, c.ID, second, nil)
			b.rotate(t, c.ID)
			b.auth(t, c.ID, c.Secret, oauth2.ErrInvalidClient)
			until(t, "the rotation to arrive", func() bool {
				_, err := other.Authenticate(t.Context(), c.ID, c.Secret)
				return errors.Is(err, oauth2.ErrInvalidClient)
			})
			other.auth(t, c.ID, second, nil)
		})
	}
}

func TestRemoveSecret(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.create(t, "worker")
	first := c.Secrets[0].ID
	if err := b.RemoveSecret(t.Context(), c.ID, first); !errors.Is(err, oauth2.ErrLastSecret) {
		t.Errorf("the last secret: got %v, want ErrLastSecret", err)
	}
	second := b.rotate(t, c.ID)
	b.auth(t, c.ID, c.Secret, nil)
	for range 2 {
		must(t, b.RemoveSecret(t.Context(), c.ID, first))
		b.auth(t, c.ID, c.Secret, oauth2.ErrInvalidClient)
	}
	after := b.auth(t, c.ID, second, nil)
	if found, epoch, err := b.list.Contains(t.Context(), tokens.RevokedClient, c.ID); !found || epoch <= c.Epoch || after.Epoch < epoch || err != nil {
		t.Errorf("the blacklist has %v, epoch %d, %v: the tokens of who has the secret live on", found, epoch, err)
	}
	if err := b.RemoveSecret(t.Context(), c.ID, after.Secrets[0].ID); !errors.Is(err, oauth2.ErrLastSecret) {
		t.Errorf("the last secret: got %v, want ErrLastSecret", err)
	}
}

// Two remove one each of the two secrets at once: one stays.
func TestRemoveSecretInARace(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for i := range 10 {
		c := b.create(t, "worker"+string(rune('a'+i)))
		b.rotate(t, c.ID)
		var wg sync.WaitGroup
		for _, s := range b.get(t, c.ID).Secrets {
			wg.Go(func() {
				if err := b.RemoveSecret(context.Background(), c.ID, s.ID); err != nil && !errors.Is(err, oauth2.ErrLastSecret) {
					t.Errorf("got %v, want ErrLastSecret", err)
				}
			})
		}
		wg.Wait()
		if n := len(b.get(t, c.ID).Secrets); n != 1 {
			t.Fatalf("%d secrets are left, want 1", n)
		}
	}
}

// A change that could not be told to the others is not answered; made again it is,
// and what was remembered is dead.
func TestChangeHalfWay(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		call func(*bench, *oauth2.Client) error
		dead bool
	}{
		"Rotate": {func(b *bench, c *oauth2.Client) error { _, err := b.Rotate(context.Background(), c.ID); return err }, true},
		"RemoveSecret": {func(b *bench, c *oauth2.Client) error {
			return b.RemoveSecret(context.Background(), c.ID, c.Secrets[0].ID)
		}, true},
		"Disable": {func(b *bench, c *oauth2.Client) error { return b.Disable(context.Background(), c.ID, "test") }, true},
		"SetScopes": {func(b *bench, c *oauth2.Client) error {
			return b.SetScopes(context.Background(), c.ID, []string{"read"})
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			c := b.create(t, "worker", "read", "write")
			second := b.rotate(t, c.ID)
			b.auth(t, c.ID, c.Secret, nil)
			client := b.auth(t, c.ID, second, nil)
			b.list.fail.Store(true)
			if err := test.call(b, client); !errors.Is(err, errLists) {
				t.Fatalf("got %v, want the failure of the blacklist", err)
			}
			if name == "Rotate" && len(b.get(t, c.ID).Secrets) != 1 {
				t.Error("the secret that nobody was told stayed")
			}
			b.list.fail.Store(false)
			must(t, test.call(b, client))
			if test.dead {
				b.auth(t, c.ID, c.Secret, oauth2.ErrInvalidClient)
			} else if after := b.auth(t, c.ID, c.Secret, nil); len(after.Scopes) != 1 {
				t.Errorf("scopes %v after they were narrowed", after.Scopes)
			}
			if name == "Rotate" {
				b.auth(t, c.ID, second, nil) // the one that is in use was not pushed out
			}
		})
	}
}

func initial(text string, scopes ...string) oauth2.Initial {
	return oauth2.Initial{Name: "worker", Secret: secret.FromString(text), Scopes: scopes}
}

// The manifest's client is there after any number of starts, with the secret of the
// environment and the one before.
func TestEnsure(t *testing.T) {
	t.Parallel()
	b := setup(t)
	one, two := strings.Repeat("1", 32), strings.Repeat("2", 32)
	c, err := b.Ensure(t.Context(), initial(one, "read"))
	must(t, err)
	for range 2 {
		again, err := b.Ensure(t.Context(), initial(one, "read"))
		must(t, err)
		if again.ID != c.ID || again.Epoch != c.Epoch || len(again.Secrets) != 1 {
			t.Fatalf("started again: %+v, want %+v", again, c)
		}
	}
	b.auth(t, c.ID, one, nil)
	c, err = b.Ensure(t.Context(), initial(two, "read"))
	must(t, err)
	b.auth(t, c.ID, one, nil)
	b.auth(t, c.ID, two, nil)
	// An instance that still has the older secret changes nothing.
	old, err := b.Ensure(t.Context(), initial(one, "read"))
	must(t, err)
	if old.Secrets[1] != c.Secrets[1] {
		t.Error("an instance with the old environment pushed the new secret back")
	}
	wider := initial(two, "write", "read")
	wider.TokenTTL = 60e9
	c, err = b.Ensure(t.Context(), wider)
	must(t, err)
	if len(c.Scopes) != 2 || c.TokenTTL != 60e9 || c.Epoch <= old.Epoch {
		t.Errorf("client %+v after the manifest changed", c)
	}
	c, err = b.Ensure(t.Context(), initial(two))
	must(t, err)
	if len(c.Scopes) != 0 || c.TokenTTL == 60e9 {
		t.Errorf("client %+v after the manifest changed back", c)
	}
	must(t, b.Disable(t.Context(), c.ID, "test"))
	c, err = b.Ensure(t.Context(), initial(two))
	must(t, err)
	if c.Status != oauth2.Disabled {
		t.Error("a start opened a client that was disabled")
	}
}

// Twenty instances start at once, with a new client and with a new secret: one
// client, each secret once.
func TestEnsureInARace(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for round, text := range []string{strings.Repeat("1", 32), strings.Repeat("2", 32)} {
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if c, err := b.Ensure(context.Background(), initial(text)); err != nil || len(c.Secrets) != round+1 {
					t.Errorf("Ensure: %+v, %v", c, err)
				}
			})
		}
		wg.Wait()
	}
	page, err := b.List(t.Context(), oauth2.ListOptions{})
	if err != nil || len(page.Clients) != 1 || len(page.Clients[0].Secrets) != 2 {
		t.Errorf("%+v, %v, want one client with two secrets", page, err)
	}
}

func TestEnsureWithID(t *testing.T) {
	t.Parallel()
	b := setup(t)
	text := strings.Repeat("1", 32)
	named := initial(text)
	named.ID = store.NewID("cli_")
	c, err := b.Ensure(t.Context(), named)
	must(t, err)
	if c.ID != named.ID {
		t.Errorf("id %s, want %s", c.ID, named.ID)
	}
	other := named
	other.ID = store.NewID("cli_")
	if _, err := b.Ensure(t.Context(), other); !errors.Is(err, oauth2.ErrConflict) {
		t.Errorf("another id: got %v, want ErrConflict", err)
	}
	other = named
	other.Name = "else"
	if _, err := b.Ensure(t.Context(), other); !errors.Is(err, oauth2.ErrConflict) {
		t.Errorf("the id with another name: got %v, want ErrConflict", err)
	}
	// Made anew under its id it is not caught by the revocation of the one before.
	must(t, b.Delete(t.Context(), c.ID))
	b.move(60e9)
	again, err := b.Ensure(t.Context(), named)
	must(t, err)
	if _, epoch, err := b.list.Contains(t.Context(), tokens.RevokedClient, c.ID); again.Epoch < epoch || err != nil {
		t.Errorf("epoch %d, revoked is below %d, %v", again.Epoch, epoch, err)
	}
	b.auth(t, c.ID, text, nil)
}

func TestEnsureRefuses(t *testing.T) {
	t.Parallel()
	b := setup(t)
	good := strings.Repeat("1", 32)
	for _, test := range []struct {
		field   string
		initial oauth2.Initial
	}{
		{"secret", initial(good[1:])},
		{"secret", initial("")},
		{"secret", initial(strings.Repeat("1", 513))},
		{"name", oauth2.Initial{Secret: secret.FromString(good)}},
		{"scope", initial(good, "a b")},
		{"id", oauth2.Initial{ID: "worker", Name: "worker", Secret: secret.FromString(good)}},
		{"id", oauth2.Initial{ID: store.NewID("usr_"), Name: "worker", Secret: secret.FromString(good)}},
	} {
		c, err := b.Ensure(t.Context(), test.initial)
		var fault *authz.ValueError
		if c != nil || !errors.As(err, &fault) || fault.Field != test.field {
			t.Errorf("got %v, %v, want an error about %q", c, err, test.field)
		}
	}
}
