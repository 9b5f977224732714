package oauth2_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.mongodb.org/mongo-driver/bson"
	mevent "go.mongodb.org/mongo-driver/event"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/tokens/internal/tokenstest"
	"github.com/mandate-auth/mandate/tokens/oauth2"
)

// Whatever is wrong, the answer is the same error, and says nothing else.
func TestAuthenticateRefusesAlike(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c, other, off := b.create(t, "worker"), b.create(t, "other"), b.create(t, "off")
	must(t, b.Disable(t.Context(), off.ID, "test"))
	b.auth(t, c.ID, c.Secret, nil)
	for name, pair := range map[string][2]string{
		"unknown client":       {store.NewID("cli_"), c.Secret},
		"wrong secret":         {c.ID, other.Secret},
		"disabled":             {off.ID, off.Secret},
		"no secret":            {c.ID, ""},
		"no id":                {"", c.Secret},
		"secret cut":           {c.ID, c.Secret[:len(c.Secret)-1]},
		"secret longer":        {c.ID, c.Secret + "0"},
		"secret and a NUL":     {c.ID, c.Secret + "\x00"},
		"secret in lower case": {c.ID, strings.ToLower(c.Secret)},
		"very long secret":     {c.ID, strings.Repeat("a", 1<<16)},
		"moved boundary":       {c.ID + c.Secret[:1], c.Secret[1:]},
		"id of another kind":   {"usr" + c.ID[3:], c.Secret},
		"filter as an id":      {`{"$ne":""}`, c.Secret},
	} {
		got, err := b.Authenticate(t.Context(), pair[0], pair[1])
		if got != nil || err != error(oauth2.ErrInvalidClient) { //nolint:errorlint // nothing may be wrapped around it
			t.Errorf("%s: got %v, %v, want ErrInvalidClient alone", name, got, err)
		}
	}
	reasons := map[string]int{}
	for _, e := range b.all() {
		if e.Type == event.ClientRefused {
			reasons[e.Reason]++
			if e.ClientID != "" && !store.ValidID(e.ClientID, "cli_") {
				t.Errorf("an event carries %q, which the caller chose", e.ClientID)
			}
		}
	}
	if reasons["unknown_client"] == 0 || reasons["wrong_secret"] == 0 || reasons["client_disabled"] != 1 {
		t.Errorf("reasons %v", reasons)
	}
}

// A secret that comes again costs no command; an unknown client costs as many as a
// wrong secret. Nothing is ever written.
func TestCommandsOfAuthenticate(t *testing.T) {
	t.Parallel()
	var finds, writes atomic.Int64
	db := storetest.Monitored(t, &mevent.CommandMonitor{Started: func(_ context.Context, e *mevent.CommandStartedEvent) {
		if coll, _ := e.Command.Lookup(e.CommandName).StringValueOK(); coll == "oauth_clients" {
			if e.CommandName == "find" {
				finds.Add(1)
			} else {
				writes.Add(1)
			}
		}
	}})
	b := setupOn(t, db)
	c := b.create(t, "worker")
	writes.Store(0)
	for step, test := range []struct {
		id, secret string
		want       error
		cost       int64
	}{
		{c.ID, c.Secret, nil, 1},
		{c.ID, c.Secret, nil, 0},
		{c.ID, "wrong", oauth2.ErrInvalidClient, 1},
		{c.ID, "wrong", oauth2.ErrInvalidClient, 1},
		{store.NewID("cli_"), "wrong", oauth2.ErrInvalidClient, 1},
		{"garbage", "wrong", oauth2.ErrInvalidClient, 0},
	} {
		finds.Store(0)
		b.auth(t, test.id, test.secret, test.want)
		if got := finds.Load(); got != test.cost {
			t.Errorf("step %d: %d commands, want %d", step, got, test.cost)
		}
	}
	if n := writes.Load(); n != 0 {
		t.Errorf("%d commands that write", n)
	}
}

// What is remembered is forgotten after a minute, also without a revocation.
func TestRememberedForAMinute(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.create(t, "worker")
	b.auth(t, c.ID, c.Secret, nil)
	if _, err := b.db.Collection("oauth_clients").DeleteOne(t.Context(), bson.M{"_id": c.ID}); err != nil {
		t.Fatal(err)
	}
	b.move(oauth2.Remembered - 1e9)
	b.auth(t, c.ID, c.Secret, nil)
	b.move(2e9)
	b.auth(t, c.ID, c.Secret, oauth2.ErrInvalidClient)
}

// Once Disable has answered nobody gets in any more here, also those whose look-up
// was under way; another instance follows within its bound.
func TestDisableDuringAuthenticate(t *testing.T) {
	t.Parallel()
	b := setup(t)
	other := b.on(t, storetest.Second(t, b.db, nil), option{Config: tokenstest.Config{Feed: tokenstest.Polling}})
	for i := range 10 {
		c := b.create(t, "worker"+string(rune('a'+i)))
		other.auth(t, c.ID, c.Secret, nil)
		var disabled atomic.Bool
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 200 {
					before := disabled.Load()
					got, err := b.Authenticate(context.Background(), c.ID, c.Secret)
					if before && !errors.Is(err, oauth2.ErrInvalidClient) {
						t.Errorf("after Disable: got %v, %v, want ErrInvalidClient", got, err)
						return
					}
				}
			})
		}
		must(t, b.Disable(t.Context(), c.ID, "test"))
		disabled.Store(true)
		wg.Wait()
		until(t, "the other instance to refuse", func() bool {
			_, err := other.Authenticate(t.Context(), c.ID, c.Secret)
			return errors.Is(err, oauth2.ErrInvalidClient)
		})
	}
}

// The client of one app is nothing to another one in the same collection.
func TestIsolation(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.create(t, "worker")
	b.auth(t, c.ID, c.Secret, nil)
	other := b.on(t, b.db, with(func(config *oauth2.Config) { config.App = "blog" }))
	other.auth(t, c.ID, c.Secret, oauth2.ErrInvalidClient)
	calls := map[string]error{
		"Disable": other.Disable(t.Context(), c.ID, "x"), "Delete": other.Delete(t.Context(), c.ID),
		"SetScopes": other.SetScopes(t.Context(), c.ID, nil), "RemoveSecret": other.RemoveSecret(t.Context(), c.ID, "x"),
	}
	_, calls["Get"] = other.Get(t.Context(), c.ID)
	_, calls["Rotate"] = other.Rotate(t.Context(), c.ID)
	for name, err := range calls {
		if !errors.Is(err, oauth2.ErrNotFound) {
			t.Errorf("%s in another app: got %v, want ErrNotFound", name, err)
		}
	}
	twin := other.create(t, "worker") // the name is each app's own
	b.auth(t, twin.ID, twin.Secret, oauth2.ErrInvalidClient)
	b.auth(t, c.ID, c.Secret, nil)
}

func TestGrantScopes(t *testing.T) {
	t.Parallel()
	client := &oauth2.Client{Scopes: []string{"admin", "read", "write"}}
	for _, test := range []struct {
		requested string
		want      []string
	}{
		{"", []string{"admin", "read", "write"}},
		{"read", []string{"read"}},
		{"write read write", []string{"read", "write"}},
		{"delete", nil},
		{"read delete", nil},
		{" ", nil},
		{"read ", nil},
		{"read  write", nil},
		{"read\twrite", nil},
		{"READ", nil},
		{strings.Repeat("read ", 64) + "read", nil},
	} {
		got, err := oauth2.GrantScopes(client, test.requested)
		if !slices.Equal(got, test.want) || (test.want == nil) != errors.Is(err, oauth2.ErrInvalidScope) {
			t.Errorf("%q: got %v, %v, want %v", test.requested, got, err, test.want)
		}
	}
	all, err := oauth2.GrantScopes(client, "")
	must(t, err)
	all[0] = "changed"
	if client.Scopes[0] != "admin" {
		t.Error("the scopes of a token share memory with the client, which all requests share")
	}
}
