package oauth2_test

import (
	"strings"
	"testing"

	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/tokens/oauth2"
)

// No command leaves the app out, or uses what not every server has.
func TestEveryCommandNamesTheApp(t *testing.T) {
	t.Parallel()
	watch, monitor := storetest.WatchOneApp(t, "shop", "oauth_clients")
	db := storetest.Monitored(t, monitor)
	b := setupOn(t, db)
	for name, op := range operations {
		must(t, op.call(b, b.world(t, name)))
	}
	c, err := b.Ensure(t.Context(), initial(strings.Repeat("1", 32), "read"))
	must(t, err)
	_, err = b.Ensure(t.Context(), initial(strings.Repeat("2", 32)))
	must(t, err)
	must(t, b.Enable(t.Context(), c.ID))
	must(t, b.SetScopes(t.Context(), c.ID, []string{"write"}))
	page, err := b.List(t.Context(), oauth2.ListOptions{Limit: 1})
	must(t, err)
	_, err = b.List(t.Context(), oauth2.ListOptions{Cursor: page.Next})
	must(t, err)
	b.list.fail.Store(true)
	if _, err := b.Rotate(t.Context(), c.ID); err == nil { // takes the secret away again
		t.Error("a rotation that could not be told was answered")
	}
	watch.Saw("find", "findAndModify", "update", "delete", "insert")
}
