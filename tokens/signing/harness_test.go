package signing_test

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/keys"
	"github.com/mandate-auth/mandate/tokens/secret"
	"github.com/mandate-auth/mandate/tokens/signing"
)

func TestMain(m *testing.M) { storetest.Main(m) }

const (
	rotation = 24 * time.Hour
	ttl      = 15 * time.Minute
	lead     = 10 * time.Minute
	margin   = 5 * time.Minute // how long a key outlives its last token
)

var (
	salt  = bytes.Repeat([]byte{7}, 32)
	start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

// clock is a clock that stands still until it is moved.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time       { return start.Add(time.Duration(c.offset.Load())) }
func (c *clock) move(d time.Duration) { c.offset.Add(int64(d)) }

// recorder keeps the events: "type kid reason".
type recorder struct {
	mu   sync.Mutex
	list []event.Event
}

func (r *recorder) Record(_ context.Context, e event.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, e)
}

func (r *recorder) count(kind event.Type, kid string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, e := range r.list {
		if e.Type == kind && (kid == "" || e.Metadata["kid"] == kid) {
			n++
		}
	}
	return n
}

// bench is a database with a clock and a sink that instances share.
type bench struct {
	clock
	recorder
	db *mongo.Database
}

func setup(tb testing.TB) *bench {
	tb.Helper()
	return &bench{db: storetest.Database(tb)}
}

// derived returns the keys of the app under secrets of one letter each.
func derived(tb testing.TB, app string, secrets ...string) *keys.App {
	tb.Helper()
	var values []secret.Value
	for _, s := range secrets {
		values = append(values, secret.FromString(strings.Repeat(s, 32)))
	}
	ring, err := keys.NewRing(values)
	if err != nil {
		tb.Fatal(err)
	}
	a, err := ring.App(app, salt, 1)
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

// instance returns a store on the bench's database as one instance has it.
func (b *bench) instance(tb testing.TB, edit ...func(*signing.Config)) *signing.Store {
	tb.Helper()
	return b.instanceOn(tb, b.db, edit...)
}

func (b *bench) instanceOn(tb testing.TB, db *mongo.Database, edit ...func(*signing.Config)) *signing.Store {
	tb.Helper()
	config := signing.Config{
		App: "shop", Algorithm: tokens.EdDSA, Keys: derived(tb, "shop", "s"), Salt: salt, KeysEpoch: 1,
		Rotation: rotation, TokenTTL: ttl, Now: b.now, Events: &b.recorder,
	}
	for _, f := range edit {
		f(&config)
	}
	s, err := signing.New(db, config)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := s.EnsureIndexes(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	return s
}

// loaded is instance and Load.
func (b *bench) loaded(tb testing.TB, edit ...func(*signing.Config)) *signing.Store {
	tb.Helper()
	s := b.instance(tb, edit...)
	load(tb, s)
	return s
}

func load(tb testing.TB, stores ...*signing.Store) {
	tb.Helper()
	for _, s := range stores {
		if err := s.Load(tb.Context()); err != nil {
			tb.Fatal(err)
		}
	}
}

// documents returns what is stored, by kid.
func (b *bench) documents(tb testing.TB) map[string]bson.M {
	tb.Helper()
	cursor, err := b.db.Collection(signing.Collection).Find(tb.Context(), bson.M{})
	if err != nil {
		tb.Fatal(err)
	}
	var docs []bson.M
	if err := cursor.All(tb.Context(), &docs); err != nil {
		tb.Fatal(err)
	}
	out := map[string]bson.M{}
	for _, d := range docs {
		out[d["_id"].(string)] = d
	}
	return out
}

// edit changes the stored document of a key by hand.
func (b *bench) edit(tb testing.TB, kid string, update bson.M) {
	tb.Helper()
	res, err := b.db.Collection(signing.Collection).UpdateOne(tb.Context(), bson.M{"_id": kid}, update)
	if err != nil || res.MatchedCount != 1 {
		tb.Fatalf("edit %s: %v, %v", kid, res, err)
	}
}

// published returns the kids of the key set.
func published(tb testing.TB, s *signing.Store) []string {
	tb.Helper()
	var set struct {
		Keys []map[string]any `json:"keys"`
	}
	if err := json.Unmarshal(s.JWKS(), &set); err != nil {
		tb.Fatal(err)
	}
	var out []string
	for _, k := range set.Keys {
		out = append(out, k["kid"].(string))
	}
	return out
}

// accepted returns the kids that are accepted, and fails unless they are those
// that are published.
func accepted(tb testing.TB, s *signing.Store) []string {
	tb.Helper()
	set := s.Current()
	var out []string
	for i, k := range set.Accepted {
		out = append(out, k.ID)
		if (k.Private != nil) != (i == 0 && k.ID == set.Signing.ID) {
			tb.Errorf("key %d of the accepted ones has a private part: %t", i, k.Private != nil)
		}
	}
	if got := published(tb, s); !slices.Equal(got, out) {
		tb.Errorf("published are %v, accepted %v", got, out)
	}
	return out
}

// states returns the states of all keys, the newest first.
func states(tb testing.TB, s *signing.Store) []signing.State {
	tb.Helper()
	list, err := s.List(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	var out []signing.State
	for _, k := range list {
		out = append(out, k.State)
	}
	return out
}

// sign makes a token as package tokens does.
func sign(tb testing.TB, k tokens.SigningKey) string {
	tb.Helper()
	token := jwt.NewWithClaims(jwt.GetSigningMethod(k.Algorithm), jwt.MapClaims{"sub": "usr_1"})
	token.Header["kid"] = k.ID
	text, err := token.SignedString(k.Private)
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

// verifies reports whether the instance's accepted keys verify the token.
func verifies(s *signing.Store, text string) bool {
	_, err := jwt.Parse(text, func(t *jwt.Token) (any, error) {
		for _, k := range s.Current().Accepted {
			if k.ID == t.Header["kid"] && k.Algorithm == t.Method.Alg() {
				return k.Public, nil
			}
		}
		return nil, jwt.ErrTokenUnverifiable
	})
	return err == nil
}

// want fails unless got is want.
func want[T comparable](tb testing.TB, what string, got, want []T) {
	tb.Helper()
	if !slices.Equal(got, want) {
		tb.Errorf("%s: %v, want %v", what, got, want)
	}
}
