package apikey_test

import (
	"context"
	"errors"
	"hash/crc32"
	"math/big"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/event"

	"github.com/mandate-auth/mandate/authz"
	mevent "github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/apikey"
)

// withSum appends the checksum as a scanner computes it.
func withSum(text string) string {
	sum := new(big.Int).SetUint64(uint64(crc32.ChecksumIEEE([]byte(text)))).Text(62)
	return text + strings.Repeat("0", 6-len(sum)) + sum
}

// forge makes a text of the right form that no store has made.
func forge(prefix, fill string) string { return withSum(prefix + "_" + strings.Repeat(fill, 43)) }

// A key has the form that secret scanners look for, and says whom it acts for.
func TestKeyVerifies(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.create(t, func(n *apikey.NewKey) {
		n.Scopes, n.TTL = []string{"may:write", "may:read", "may:write"}, time.Hour
	})
	if !regexp.MustCompile(`^mdk_[0-9A-Za-z]{49}$`).MatchString(c.Key) {
		t.Errorf("the documented expression does not find the key %q", c.Key)
	}
	if c.Key != withSum(c.Key[:47]) {
		t.Errorf("the key %q does not end in its checksum", c.Key)
	}
	if c.Hint != c.Key[4:8] || c.Prefix != "mdk" {
		t.Errorf("hint %q and prefix %q are not the beginning of the key", c.Hint, c.Prefix)
	}
	want := &authz.Principal{
		ID: b.user, Kind: authz.KindAPIKey, App: "shop", TokenID: c.ID, Credential: authz.CredentialAPIKey,
		ExpiresAt: c.ExpiresAt, Scopes: []string{"may:read", "may:write"},
	}
	for _, from := range []string{"the database", "memory"} {
		p := b.verify(t, c.Key, nil)
		if diff := cmp.Diff(want, p); diff != "" {
			t.Errorf("from %s (-want +got):\n%s", from, diff)
		}
		if !p.IsM2M() || p.IsHuman() {
			t.Errorf("from %s: a key counts as a person", from)
		}
	}
	if !b.Owns(c.Key) || b.Owns("eyJhbGciOiJIUzI1NiJ9.e30.x") || b.Owns("mdkx_") || b.Owns("") {
		t.Error("Owns does not go by the prefix")
	}
}

// No text but the key itself is accepted: no prefix, no change of a character.
func TestVerifyRefusesEveryChange(t *testing.T) {
	t.Parallel()
	b := setup(t)
	key := b.create(t).Key
	b.verify(t, key, nil)
	for i := range key {
		b.verify(t, key[:i], tokens.ErrMalformed)
		for _, c := range []byte{key[i] ^ 1, key[i] ^ 0x20, 'A', '_', 0, 0xff} {
			if c != key[i] {
				b.verify(t, key[:i]+string([]byte{c})+key[i+1:], tokens.ErrMalformed)
			}
		}
	}
	for _, text := range []string{"", " " + key, key + " ", key + "\n", key + "0", strings.ToUpper(key), forge("mdl", "x"), strings.Repeat("a", 1<<16)} {
		b.verify(t, text, tokens.ErrMalformed)
	}
	if types := b.types(); len(types) != 1 {
		t.Errorf("events %v: a text that is no key is none, and a flood of them no news", types)
	}
	b.verify(t, forge("mdk", "x"), tokens.ErrInvalid)
	if e := b.recorder.events[1]; e.Type != mevent.APIKeyRefused || e.Reason != "unknown" || e.UserID != "" || e.Metadata != nil {
		t.Errorf("event %+v of an unknown key", e)
	}
}

func TestVerifyRefuses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		change func(*testing.T, *bench, *apikey.Created)
		want   error
	}{
		{"expired", func(_ *testing.T, b *bench, _ *apikey.Created) { b.move(time.Hour) }, tokens.ErrExpired},
		{"expired while it is remembered", func(t *testing.T, b *bench, c *apikey.Created) {
			b.move(time.Hour - 10*time.Second)
			b.verify(t, c.Key, nil)
			b.move(10 * time.Second)
		}, tokens.ErrExpired},
		{"revoked", func(t *testing.T, b *bench, c *apikey.Created) {
			if err := b.Revoke(t.Context(), b.user, c.ID, "test"); err != nil {
				t.Fatal(err)
			}
		}, tokens.ErrRevoked},
		{"owner gone", func(t *testing.T, b *bench, _ *apikey.Created) {
			b.set(b.user, "", apikey.ErrGone)
			if err := b.list.AddUser(t.Context(), b.user, 1, "disabled"); err != nil {
				t.Fatal(err)
			}
		}, tokens.ErrRevoked},
		{"owner became a guest", func(_ *testing.T, b *bench, _ *apikey.Created) {
			b.set(b.user, authz.KindAnonymous, nil)
			b.move(apikey.Remembered)
		}, tokens.ErrRevoked},
		{"owner unknown", func(_ *testing.T, b *bench, _ *apikey.Created) {
			b.set(b.user, "", store.ErrUnavailable)
			b.move(apikey.Remembered)
		}, store.ErrUnavailable},
		{"removed", func(t *testing.T, b *bench, c *apikey.Created) {
			if _, err := b.db.Collection("api_keys").DeleteOne(t.Context(), bson.M{"_id": c.ID}); err != nil {
				t.Fatal(err)
			}
			b.move(apikey.Remembered)
		}, tokens.ErrInvalid},
		{"the clock went back", func(t *testing.T, b *bench, c *apikey.Created) {
			if _, err := b.db.Collection("api_keys").DeleteOne(t.Context(), bson.M{"_id": c.ID}); err != nil {
				t.Fatal(err)
			}
			b.move(-time.Second)
		}, tokens.ErrInvalid},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			c := b.create(t, func(n *apikey.NewKey) { n.TTL = time.Hour })
			b.verify(t, c.Key, nil) // remembered
			test.change(t, b, c)
			for range 2 {
				b.verify(t, c.Key, test.want)
			}
			b.on(t, b.db).verify(t, c.Key, test.want) // and where it is not
		})
	}
}

// The key of an account that is opened again works again: it was not revoked.
func TestOwnerReturns(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.create(t)
	b.verify(t, c.Key, nil)
	b.set(b.user, "", apikey.ErrGone)
	if err := b.list.AddUser(t.Context(), b.user, 7, "disabled"); err != nil {
		t.Fatal(err)
	}
	b.verify(t, c.Key, tokens.ErrRevoked)
	b.set(b.user, authz.KindHuman, nil)
	asked := b.asked.Load()
	for range 3 {
		b.verify(t, c.Key, nil)
	}
	if n := b.asked.Load() - asked; n != 1 {
		t.Errorf("the account was read %d times: an entry of the user makes its keys unforgettable", n)
	}
}

// Garbage costs the database nothing, and neither does a key that comes again. An
// unknown key costs one command however often it comes.
func TestCommandsOfVerify(t *testing.T) {
	t.Parallel()
	var finds atomic.Int64
	db := storetest.Monitored(t, &event.CommandMonitor{Started: func(_ context.Context, e *event.CommandStartedEvent) {
		if coll, ok := e.Command.Lookup(e.CommandName).StringValueOK(); ok && coll == "api_keys" && e.CommandName == "find" {
			finds.Add(1)
		}
	}})
	b := setupOn(t, db)
	key := b.create(t).Key
	finds.Store(0)
	for step, want := range []struct {
		text string
		err  error
		cost int64
	}{
		{"mdk_garbage", tokens.ErrMalformed, 0},
		{key[:len(key)-1] + "!", tokens.ErrMalformed, 0},
		{key, nil, 1},
		{key, nil, 0},
		{forge("mdk", "x"), tokens.ErrInvalid, 1},
		{forge("mdk", "x"), tokens.ErrInvalid, 1},
		{key, nil, 0},
	} {
		finds.Store(0)
		b.verify(t, want.text, want.err)
		if got := finds.Load(); got != want.cost {
			t.Errorf("step %d: %d commands, want %d", step, got, want.cost)
		}
	}
}

// The key of one app is nothing to another one, though they share prefix,
// collection and database.
func TestIsolation(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.create(t)
	other := b.on(t, b.db, with(func(config *apikey.Config) { config.App = "blog" }))
	other.verify(t, c.Key, tokens.ErrInvalid)
	b.verify(t, c.Key, nil)
	other.verify(t, c.Key, tokens.ErrInvalid)
	if err := other.Revoke(t.Context(), b.user, c.ID, "test"); !errors.Is(err, apikey.ErrNotFound) {
		t.Errorf("Revoke in another app: got %v, want ErrNotFound", err)
	}
	if _, err := other.Get(t.Context(), b.user, c.ID); !errors.Is(err, apikey.ErrNotFound) {
		t.Errorf("Get in another app: got %v, want ErrNotFound", err)
	}
	if err := other.RevokeAll(t.Context(), b.user, "test"); err != nil {
		t.Errorf("RevokeAll in another app: %v", err)
	}
	if page, err := other.List(t.Context(), b.user, apikey.ListOptions{}); err != nil || len(page.Keys) != 0 {
		t.Errorf("List in another app: %v, %v", page, err)
	}
	other.move(365 * 24 * time.Hour)
	if _, err := other.Sweep(t.Context()); err != nil {
		t.Error(err)
	}
	b.verify(t, c.Key, nil)
}

// The use of a key is noted, at most once a minute whichever instance sees it.
func TestLastUse(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.create(t)
	lastUse := func() time.Time {
		k, err := b.Get(t.Context(), b.user, c.ID)
		if err != nil {
			t.Fatal(err)
		}
		return k.LastUsedAt
	}
	if !lastUse().IsZero() {
		t.Error("a key that nobody used has a last use")
	}
	before := store.Time(b.now())
	b.verify(t, c.Key, nil)
	until(t, "the first use", func() bool { return !lastUse().IsZero() })
	first := lastUse()
	if first.Before(before) {
		t.Errorf("last use %s is before the use at %s", first, before)
	}
	// A second instance has not seen the first use in its own memory.
	b.move(30 * time.Second)
	second := b.on(t, b.db)
	b.verify(t, c.Key, nil)
	second.verify(t, c.Key, nil)
	if err := errors.Join(second.Close(t.Context()), second.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	if got := lastUse(); !got.Equal(first) {
		t.Errorf("noted again within the minute: %s after %s", got, first)
	}
	b.move(31 * time.Second)
	b.verify(t, c.Key, nil)
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := lastUse(); got.Sub(first) < apikey.UseInterval {
		t.Errorf("Close did not write the use that waited: %s after %s", got, first)
	}
}

// An instance that does not know of a note that another one wrote does not write
// its own within the minute.
func TestLastUseOverInstances(t *testing.T) {
	t.Parallel()
	b := setup(t)
	second := b.on(t, b.db)
	c := b.create(t)
	noted := func() time.Time {
		k, err := b.Get(t.Context(), b.user, c.ID)
		if err != nil {
			t.Fatal(err)
		}
		return k.LastUsedAt
	}
	b.verify(t, c.Key, nil)
	until(t, "the first use", func() bool { return !noted().IsZero() })
	first := noted()
	b.move(30 * time.Second)
	second.verify(t, c.Key, nil) // remembers the first use
	b.move(31 * time.Second)
	b.verify(t, c.Key, nil)
	until(t, "the second use", func() bool { return noted().After(first) })
	want := noted()
	b.move(10 * time.Second)
	second.verify(t, c.Key, nil) // a minute after the first, by what it remembers
	if err := second.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := noted(); !got.Equal(want) {
		t.Errorf("noted at %s and again at %s", want, got)
	}
}

// A use that is noted late, with the clock of a slower instance, does not move the
// time back.
func TestLastUseNeverGoesBack(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.create(t)
	future := store.Time(b.now().Add(time.Hour))
	if _, err := b.db.Collection("api_keys").UpdateOne(t.Context(), bson.M{"_id": c.ID}, bson.M{"$set": bson.M{"last_used_at": future}}); err != nil {
		t.Fatal(err)
	}
	b.verify(t, c.Key, nil)
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if k, err := b.Get(t.Context(), b.user, c.ID); err != nil || !k.LastUsedAt.Equal(future) {
		t.Errorf("last use is %v, %v, want %s", k, err, future)
	}
}
