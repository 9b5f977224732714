package apikey_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/apikey"
	"github.com/mandate-auth/mandate/tokens/internal/tokenstest"
)

func TestCreateRefuses(t *testing.T) {
	t.Parallel()
	errRights := errors.New("the policy is away")
	b := setup(t, with(func(c *apikey.Config) {
		c.MaxTTL, c.AllowedScopes = 24*time.Hour, []string{"may:read", "must:not", "may:ask"}
		c.Rights = func(ctx context.Context, user, scope string) (bool, error) {
			if scope == "may:ask" {
				return true, errRights
			}
			return only(ctx, user, scope)
		}
	}))
	guest, gone, away := store.NewID("usr_"), store.NewID("usr_"), store.NewID("usr_")
	b.set(guest, authz.KindAnonymous, nil)
	b.set(gone, "", apikey.ErrGone)
	b.set(away, "", store.ErrUnavailable)
	many := make([]string, authz.MaxScopes+1)
	for i := range many {
		many[i] = "may:" + strings.Repeat("x", i+1)
	}
	for _, test := range []struct {
		name  string
		edit  func(*apikey.NewKey)
		want  error
		field string
	}{
		{"no name", func(n *apikey.NewKey) { n.Name = "" }, nil, "name"},
		{"long name", func(n *apikey.NewKey) { n.Name = strings.Repeat("é", 65) }, nil, "name"},
		{"name with a line break", func(n *apikey.NewKey) { n.Name = "a\nb" }, nil, "name"},
		{"name with a space at its end", func(n *apikey.NewKey) { n.Name = "a " }, nil, "name"},
		{"name that is no UTF-8", func(n *apikey.NewKey) { n.Name = "a\xff" }, nil, "name"},
		{"negative life", func(n *apikey.NewKey) { n.TTL = -1 }, nil, "ttl"},
		{"life over the maximum", func(n *apikey.NewKey) { n.TTL = 25 * time.Hour }, nil, "ttl"},
		{"too many scopes", func(n *apikey.NewKey) { n.Scopes = many }, nil, "scopes"},
		{"a scope that is two", func(n *apikey.NewKey) { n.Scopes = []string{"may:read may:write"} }, nil, "scope"},
		{"a scope of no key", func(n *apikey.NewKey) { n.Scopes = []string{"may:read", "may:write"} }, apikey.ErrScope, ""},
		{"a scope wider than the owner", func(n *apikey.NewKey) { n.Scopes = []string{"may:read", "must:not"} }, apikey.ErrScope, ""},
		{"rights unknown", func(n *apikey.NewKey) { n.Scopes = []string{"may:ask"} }, errRights, ""},
		{"a guest", func(n *apikey.NewKey) { n.UserID = guest }, apikey.ErrOwner, ""},
		{"gone", func(n *apikey.NewKey) { n.UserID = gone }, apikey.ErrOwner, ""},
		{"account unknown", func(n *apikey.NewKey) { n.UserID = away }, store.ErrUnavailable, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			n := apikey.NewKey{UserID: b.user, Name: "nightly", Scopes: []string{"may:read"}}
			test.edit(&n)
			c, err := b.Create(t.Context(), n)
			var fault *authz.ValueError
			if c != nil || err == nil || (test.want != nil && !errors.Is(err, test.want)) ||
				(test.field != "" && (!errors.As(err, &fault) || fault.Field != test.field)) {
				t.Errorf("got %v, %v, want %v about %q", c, err, test.want, test.field)
			}
		})
	}
	t.Cleanup(func() {
		if n, err := b.db.Collection("api_keys").CountDocuments(context.Background(), bson.M{}); n != 0 || err != nil {
			t.Errorf("%d keys are stored, %v: a refusal left something behind", n, err)
		}
	})
}

func TestLife(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name               string
		deflt, limit, want time.Duration
		ask                time.Duration
	}{
		{"for ever", 0, 0, 0, 0},
		{"as asked", 0, 0, time.Hour, time.Hour},
		{"by default", 2 * time.Hour, 0, 2 * time.Hour, 0},
		{"longer than by default", 2 * time.Hour, 0, 3 * time.Hour, 3 * time.Hour},
		{"never without an end where there is a maximum", 0, time.Hour, time.Hour, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, with(func(c *apikey.Config) { c.DefaultTTL, c.MaxTTL = test.deflt, test.limit }))
			c := b.create(t, func(n *apikey.NewKey) { n.TTL = test.ask })
			var got time.Duration
			if !c.ExpiresAt.IsZero() {
				got = c.ExpiresAt.Sub(c.CreatedAt)
			}
			if got != test.want {
				t.Errorf("the key lives for %s, want %s", got, test.want)
			}
		})
	}
}

// Fifty try at once over two instances: as many as allowed have a key, the others
// are told why not.
func TestLimitHoldsInARace(t *testing.T) {
	t.Parallel()
	const limit, tries = 5, 50
	five := with(func(c *apikey.Config) { c.MaxPerUser = limit })
	b := setup(t, five)
	instances := []*bench{b, b.on(t, storetest.Second(t, b.db, nil), five)}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var made []*apikey.Created
	for i := range tries {
		wg.Go(func() {
			c, err := instances[i%2].Create(context.Background(), apikey.NewKey{UserID: b.user, Name: "race"})
			switch {
			case err == nil:
				mu.Lock()
				made = append(made, c)
				mu.Unlock()
			case !errors.Is(err, apikey.ErrLimit):
				t.Errorf("got %v, want ErrLimit", err)
			}
		})
	}
	wg.Wait()
	if len(made) != limit {
		t.Fatalf("%d keys were made, want %d", len(made), limit)
	}
	for _, c := range made {
		b.verify(t, c.Key, nil)
	}
	page, err := b.List(t.Context(), b.user, apikey.ListOptions{})
	if err != nil || len(page.Keys) != limit {
		t.Errorf("List: %d keys, %v", len(page.Keys), err)
	}
	// The limit is each user's own.
	b.create(t, func(n *apikey.NewKey) { n.UserID = store.NewID("usr_") })
}

// Keys are made and revoked at once: the limit holds at every moment.
func TestLimitHoldsWhileKeysEnd(t *testing.T) {
	t.Parallel()
	const limit = 3
	b := setup(t, with(func(c *apikey.Config) { c.MaxPerUser = limit }))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				c, err := b.Create(context.Background(), apikey.NewKey{UserID: b.user, Name: "race"})
				if errors.Is(err, apikey.ErrLimit) {
					continue
				}
				if err != nil {
					t.Errorf("Create: %v", err)
					return
				}
				n, err := b.db.Collection("api_keys").CountDocuments(context.Background(), bson.M{"owner": b.user, "revoked_at": bson.M{"$exists": false}})
				if n > limit || err != nil {
					t.Errorf("%d keys live, %v", n, err)
				}
				if err := b.Revoke(context.Background(), b.user, c.ID, "race"); err != nil {
					t.Errorf("Revoke: %v", err)
				}
			}
		})
	}
	wg.Wait()
}

// What has ended makes room; what lives does not.
func TestRoom(t *testing.T) {
	t.Parallel()
	b := setup(t, with(func(c *apikey.Config) { c.MaxPerUser = 2 }))
	short := b.create(t, func(n *apikey.NewKey) { n.TTL = time.Hour })
	long := b.create(t)
	full := func() {
		t.Helper()
		if _, err := b.Create(t.Context(), apikey.NewKey{UserID: b.user, Name: "one more"}); !errors.Is(err, apikey.ErrLimit) {
			t.Fatalf("got %v, want ErrLimit", err)
		}
	}
	full()
	b.move(time.Hour)
	b.create(t)
	full()
	if err := b.Revoke(t.Context(), b.user, long.ID, "test"); err != nil {
		t.Fatal(err)
	}
	b.create(t)
	full()
	// To revoke what has expired makes no room a second time.
	if err := b.Revoke(t.Context(), b.user, short.ID, "test"); err != nil {
		t.Fatal(err)
	}
	full()
}

// A limit that was lowered counts for new keys; those that are there live on.
func TestLoweredLimit(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var made []*apikey.Created
	for range 6 {
		made = append(made, b.create(t))
	}
	low := b.on(t, b.db, with(func(c *apikey.Config) { c.MaxPerUser = 3 }))
	living := 6
	for i, c := range made {
		low.verify(t, c.Key, nil)
		if err := low.Revoke(t.Context(), b.user, c.ID, "test"); err != nil {
			t.Fatal(err)
		}
		living--
		if living >= 3 {
			if _, err := low.Create(t.Context(), apikey.NewKey{UserID: b.user, Name: "one more"}); !errors.Is(err, apikey.ErrLimit) {
				t.Fatalf("with %d keys (step %d): got %v, want ErrLimit", living, i, err)
			}
		}
	}
	for range 3 {
		low.create(t)
	}
}

// Documents hold the fields of the design, and none that has no value.
func TestDocument(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.create(t, func(n *apikey.NewKey) { n.Scopes = nil })
	b.create(t, func(n *apikey.NewKey) { n.TTL = time.Hour })
	cursor, err := b.db.Collection("api_keys").Find(t.Context(), bson.M{})
	if err != nil {
		t.Fatal(err)
	}
	var docs []bson.M
	if err := cursor.All(t.Context(), &docs); err != nil {
		t.Fatal(err)
	}
	always := []string{"_id", "app", "created_at", "hash", "hint", "name", "owner", "prefix", "slot"}
	for _, doc := range docs {
		want := slices.Clone(always)
		if doc["expires_at"] != nil {
			want = append(want, "expires_at", "purge_at", "scopes")
		}
		slices.Sort(want)
		var got []string
		for field := range doc {
			got = append(got, field)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("fields %v, want %v", got, want)
		}
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	db := storetest.Database(t)
	list := tokenstest.Blacklist(t, db, "shop")
	for _, test := range []struct {
		name string
		edit func(*apikey.Config)
	}{
		{"no app", func(c *apikey.Config) { c.App = "" }},
		{"no rights", func(c *apikey.Config) { c.Rights = nil }},
		{"no accounts", func(c *apikey.Config) { c.Accounts = nil }},
		{"no blacklist", func(c *apikey.Config) { c.Blacklist = nil }},
		{"no keys", func(c *apikey.Config) { c.Keys = nil }},
		{"prefix of one letter", func(c *apikey.Config) { c.Prefix = "m" }},
		{"prefix with an underscore", func(c *apikey.Config) { c.Prefix = "my_app" }},
		{"prefix that begins with a digit", func(c *apikey.Config) { c.Prefix = "1pass" }},
		{"prefix with a capital", func(c *apikey.Config) { c.Prefix = "mDk" }},
		{"prefix of 17", func(c *apikey.Config) { c.Prefix = "abcdefghijklmnopq" }},
		{"limit too high", func(c *apikey.Config) { c.MaxPerUser = 1001 }},
		{"negative limit", func(c *apikey.Config) { c.MaxPerUser = -1 }},
		{"negative life", func(c *apikey.Config) { c.DefaultTTL = -1 }},
		{"default over the maximum", func(c *apikey.Config) { c.DefaultTTL, c.MaxTTL = 2, 1 }},
		{"a scope that is none", func(c *apikey.Config) { c.AllowedScopes = []string{"a b"} }},
	} {
		config := apikey.Config{App: "shop", Rights: only, Accounts: &accounts{}, Blacklist: list, Keys: tokenstest.AppKeys(t, "shop")}
		test.edit(&config)
		if s, err := apikey.New(db, config); err == nil {
			t.Errorf("%s is accepted", test.name)
			_ = s.Close(t.Context())
		}
	}
	if _, err := apikey.New(nil, apikey.Config{}); err == nil {
		t.Error("no database is accepted")
	}
}

// An app with another prefix has keys of that prefix, and takes no others.
func TestPrefix(t *testing.T) {
	t.Parallel()
	b := setup(t, with(func(c *apikey.Config) { c.Prefix = "abcdefghijklmn01" }))
	c := b.create(t)
	if !strings.HasPrefix(c.Key, "abcdefghijklmn01_") {
		t.Errorf("the key is %q", c.Key)
	}
	b.verify(t, c.Key, nil)
	b.verify(t, forge("mdk", "x"), tokens.ErrMalformed)
}
