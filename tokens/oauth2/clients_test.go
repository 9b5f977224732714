package oauth2_test

import (
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/tokens/internal/tokenstest"
	"github.com/mandate-auth/mandate/tokens/oauth2"
)

func TestCreate(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.create(t, "worker", "write", "read", "write")
	if !store.ValidID(c.ID, "cli_") || !regexp.MustCompile(`^mcs_[0-9A-Za-z]{43}$`).MatchString(c.Secret) {
		t.Errorf("id %q, secret %q", c.ID, c.Secret)
	}
	if c.Status != oauth2.Active || c.TokenTTL != 15*time.Minute || !slices.Equal(c.Scopes, []string{"read", "write"}) || len(c.Secrets) != 1 {
		t.Errorf("client %+v", c.Client)
	}
	if diff := cmp.Diff(&c.Client, b.get(t, c.ID)); diff != "" {
		t.Errorf("Get (-created +got):\n%s", diff)
	}
	if diff := cmp.Diff(&c.Client, b.auth(t, c.ID, c.Secret, nil)); diff != "" {
		t.Errorf("Authenticate (-created +got):\n%s", diff)
	}
	short, err := b.Create(t.Context(), oauth2.NewClient{Name: "short", TokenTTL: time.Minute})
	must(t, err)
	if short.TokenTTL != time.Minute || b.get(t, short.ID).TokenTTL != time.Minute {
		t.Errorf("tokens of %s, want a minute", short.TokenTTL)
	}
}

func TestCreateRefuses(t *testing.T) {
	t.Parallel()
	b := setup(t, with(func(c *oauth2.Config) { c.AllowedScopes = []string{"read"} }))
	b.create(t, "taken", "read")
	many := make([]string, authz.MaxScopes+1)
	for i := range many {
		many[i] = "s" + strconv.Itoa(i)
	}
	for _, test := range []struct {
		name  string
		n     oauth2.NewClient
		want  error
		field string
	}{
		{"no name", oauth2.NewClient{}, nil, "name"},
		{"long name", oauth2.NewClient{Name: strings.Repeat("é", 65)}, nil, "name"},
		{"name with a line break", oauth2.NewClient{Name: "a\nb"}, nil, "name"},
		{"name that is no UTF-8", oauth2.NewClient{Name: "\xff"}, nil, "name"},
		{"name that begins with a space", oauth2.NewClient{Name: " a"}, nil, "name"},
		{"negative life", oauth2.NewClient{Name: "a", TokenTTL: -time.Second}, nil, "token_ttl"},
		{"life over a day", oauth2.NewClient{Name: "a", TokenTTL: 25 * time.Hour}, nil, "token_ttl"},
		{"life of parts of a second", oauth2.NewClient{Name: "a", TokenTTL: time.Millisecond}, nil, "token_ttl"},
		{"too many scopes", oauth2.NewClient{Name: "a", Scopes: many}, nil, "scopes"},
		{"a scope that is two", oauth2.NewClient{Name: "a", Scopes: []string{"a b"}}, nil, "scope"},
		{"a scope of no client", oauth2.NewClient{Name: "a", Scopes: []string{"read", "write"}}, nil, "scopes"},
		{"a name that is taken", oauth2.NewClient{Name: "taken"}, oauth2.ErrNameTaken, ""},
	} {
		c, err := b.Create(t.Context(), test.n)
		var fault *authz.ValueError
		if c != nil || err == nil || (test.want != nil && !errors.Is(err, test.want)) ||
			(test.field != "" && (!errors.As(err, &fault) || fault.Field != test.field)) {
			t.Errorf("%s: got %v, %v, want %v about %q", test.name, c, err, test.want, test.field)
		}
	}
	if page, err := b.List(t.Context(), oauth2.ListOptions{}); err != nil || len(page.Clients) != 1 {
		t.Errorf("%v, %v: a refusal left something behind", page, err)
	}
}

// Pages follow one another without a gap, and a cursor is good for its app only.
func TestListInPages(t *testing.T) {
	t.Parallel()
	b := setup(t)
	other := b.on(t, b.db, with(func(c *oauth2.Config) { c.App = "blog" }))
	other.create(t, "c2")
	for _, name := range []string{"c3", "c1", "c5", "c2", "c4"} {
		b.create(t, name)
	}
	var got []string
	for opts := (oauth2.ListOptions{Limit: 2}); ; {
		page, err := b.List(t.Context(), opts)
		must(t, err)
		for _, c := range page.Clients {
			got = append(got, c.Name)
		}
		if opts.Cursor = page.Next; page.Next == "" {
			break
		}
		if _, err := other.List(t.Context(), opts); !errors.Is(err, oauth2.ErrInvalidCursor) {
			t.Errorf("the cursor of another app: got %v, want ErrInvalidCursor", err)
		}
		for i := range page.Next {
			broken := []byte(page.Next)
			broken[i] ^= 1
			if _, err := b.List(t.Context(), oauth2.ListOptions{Cursor: string(broken)}); !errors.Is(err, oauth2.ErrInvalidCursor) {
				t.Fatalf("a cursor with byte %d changed: got %v, want ErrInvalidCursor", i, err)
			}
		}
	}
	if want := []string{"c1", "c2", "c3", "c4", "c5"}; !slices.Equal(got, want) {
		t.Errorf("listed %v, want %v", got, want)
	}
}

// What changes a client ends its tokens, by a higher epoch, and its remembered
// secrets at once.
func TestChangesCountAtOnce(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		change func(*bench, string) error
		want   error
		event  event.Type
	}{
		{"disable", func(b *bench, id string) error { return b.Disable(t.Context(), id, "test") }, oauth2.ErrInvalidClient, event.ClientDisabled},
		{"scopes", func(b *bench, id string) error { return b.SetScopes(t.Context(), id, []string{"read"}) }, nil, event.ClientUpdated},
		{"delete", func(b *bench, id string) error { return b.Delete(t.Context(), id) }, oauth2.ErrInvalidClient, event.ClientDeleted},
		{"enable", func(b *bench, id string) error { return b.Enable(t.Context(), id) }, nil, event.ClientEnabled},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			c := b.create(t, "worker", "read", "write")
			b.auth(t, c.ID, c.Secret, nil)
			must(t, test.change(b, c.ID))
			after := b.auth(t, c.ID, c.Secret, test.want)
			if found, epoch, err := b.list.Contains(t.Context(), "client", c.ID); !found || epoch <= c.Epoch || err != nil {
				t.Errorf("the blacklist has %v, epoch %d, %v: tokens of epoch %d live on", found, epoch, err, c.Epoch)
			} else if after != nil && after.Epoch != epoch {
				t.Errorf("new tokens carry %d, what is revoked is below %d", after.Epoch, epoch)
			}
			if test.name == "scopes" && !slices.Equal(after.Scopes, []string{"read"}) {
				t.Errorf("scopes %v after they were narrowed", after.Scopes)
			}
			events := b.all()
			if last := events[slices.IndexFunc(events, func(e event.Event) bool { return e.Type == test.event })]; last.ClientID != c.ID || last.App != "shop" {
				t.Errorf("event %+v does not name the client", last)
			}
		})
	}
}

func TestDisableAndEnable(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.create(t, "worker")
	must(t, b.Disable(t.Context(), c.ID, "test"))
	must(t, b.Disable(t.Context(), c.ID, "test"))
	b.auth(t, c.ID, c.Secret, oauth2.ErrInvalidClient)
	if b.get(t, c.ID).Status != oauth2.Disabled {
		t.Error("the client is not shown as disabled")
	}
	must(t, b.Enable(t.Context(), c.ID))
	if after := b.auth(t, c.ID, c.Secret, nil); after.Epoch <= c.Epoch {
		t.Errorf("epoch %d after %d: old tokens live again", after.Epoch, c.Epoch)
	}
}

func TestUnknownClients(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, id := range []string{store.NewID("cli_"), "", "x"} {
		calls := map[string]error{
			"Disable": b.Disable(t.Context(), id, "x"), "Enable": b.Enable(t.Context(), id),
			"Delete": b.Delete(t.Context(), id), "SetScopes": b.SetScopes(t.Context(), id, nil),
			"RemoveSecret": b.RemoveSecret(t.Context(), id, "sec_x"),
		}
		_, calls["Get"] = b.Get(t.Context(), id)
		_, calls["Rotate"] = b.Rotate(t.Context(), id)
		for name, err := range calls {
			if !errors.Is(err, oauth2.ErrNotFound) {
				t.Errorf("%s of %q: got %v, want ErrNotFound", name, id, err)
			}
		}
	}
}

// A client that is made anew is another one, and the name is free again.
func TestDeletedNameIsFree(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.create(t, "worker")
	must(t, b.Delete(t.Context(), c.ID))
	if err := b.Delete(t.Context(), c.ID); !errors.Is(err, oauth2.ErrNotFound) {
		t.Errorf("deleted twice: got %v, want ErrNotFound", err)
	}
	again := b.create(t, "worker")
	b.auth(t, again.ID, again.Secret, nil)
	b.auth(t, c.ID, c.Secret, oauth2.ErrInvalidClient)
}

// Documents hold the fields of the design, and none that has no value.
func TestDocument(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.create(t, "worker")
	var doc bson.M
	must(t, b.db.Collection("oauth_clients").FindOne(t.Context(), bson.M{"_id": c.ID}).Decode(&doc))
	var got []string
	for field := range doc {
		got = append(got, field)
	}
	slices.Sort(got)
	if want := []string{"_id", "app", "created_at", "epoch", "name", "secrets", "secrets_epoch", "status"}; !slices.Equal(got, want) {
		t.Errorf("fields %v, want %v", got, want)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	db := storetest.Database(t)
	list := tokenstest.Blacklist(t, db, "shop")
	for _, test := range []struct {
		name string
		edit func(*oauth2.Config)
	}{
		{"no app", func(c *oauth2.Config) { c.App = "" }},
		{"no blacklist", func(c *oauth2.Config) { c.Blacklist = nil }},
		{"no keys", func(c *oauth2.Config) { c.Keys = nil }},
		{"negative cache", func(c *oauth2.Config) { c.CacheSize = -1 }},
		{"negative life", func(c *oauth2.Config) { c.DefaultTokenTTL = -1 }},
		{"life over a day", func(c *oauth2.Config) { c.DefaultTokenTTL = 25 * time.Hour }},
		{"a scope that is none", func(c *oauth2.Config) { c.AllowedScopes = []string{"a b"} }},
	} {
		config := oauth2.Config{App: "shop", Blacklist: list, Keys: tokenstest.AppKeys(t, "shop")}
		test.edit(&config)
		if _, err := oauth2.New(db, config); err == nil {
			t.Errorf("%s is accepted", test.name)
		}
	}
	if _, err := oauth2.New(nil, oauth2.Config{}); err == nil {
		t.Error("no database is accepted")
	}
}
