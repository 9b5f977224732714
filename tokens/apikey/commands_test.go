package apikey_test

import (
	"testing"
	"time"

	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/tokens/apikey"
)

// No command leaves the app out, or uses what not every server has.
func TestEveryCommandNamesTheApp(t *testing.T) {
	t.Parallel()
	watch, monitor := storetest.WatchOneApp(t, "shop", "api_keys")
	db := storetest.Monitored(t, monitor)
	b := setupOn(t, db, with(func(c *apikey.Config) { c.MaxPerUser = 1 }))
	b.create(t, func(n *apikey.NewKey) { n.TTL = time.Minute })
	b.move(time.Hour)
	c := b.create(t) // takes the slot of the one that expired
	b.verify(t, c.Key, nil)
	if err := b.Close(t.Context()); err != nil { // notes the use
		t.Fatal(err)
	}
	page, err := b.List(t.Context(), b.user, apikey.ListOptions{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.List(t.Context(), b.user, apikey.ListOptions{Cursor: page.Next}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Get(t.Context(), b.user, c.ID); err != nil {
		t.Fatal(err)
	}
	if err := b.Revoke(t.Context(), b.user, c.ID, "test"); err != nil {
		t.Fatal(err)
	}
	if err := b.RevokeAll(t.Context(), b.user, "test"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	watch.Saw("find", "update", "delete", "insert")
}
