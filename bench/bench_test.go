package bench_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/event"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/engine"
	mevent "github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/localmongo"
	"github.com/mandate-auth/mandate/manifest"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/keys"
	"github.com/mandate-auth/mandate/tokens/secret"
)

// connect returns a client on MONGODB_URI or on a localmongo of its own.
func connect(b *testing.B, monitor *event.CommandMonitor) *mongo.Client {
	b.Helper()
	uri := os.Getenv("MONGODB_URI")
	if uri == "" {
		server, err := localmongo.Start(b.Context(), &localmongo.Options{Listen: true, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = server.Close(context.Background()) })
		uri = server.URI()
	}
	client, err := mongo.Connect(b.Context(), options.Client().ApplyURI(uri).SetMonitor(monitor))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = client.Disconnect(context.Background()) })
	return client
}

func load(b *testing.B, db *mongo.Database) *engine.App {
	b.Helper()
	eng, err := engine.New(b.Context(), db, &engine.Options{
		SecretKeys: []engine.Secret{engine.NewSecret(strings.Repeat("k", 32))}, InsecureHashCost: 4,
		Logger: slog.New(slog.DiscardHandler), Sinks: []mevent.Sink{mevent.Discard{}},
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = eng.Close(context.Background()) })
	m, err := manifest.Parse([]byte(`{"slug":"bench","auth":{"sessions":{"max_per_user":1000},"users":{"allow_anonymous_users":true},"policy":{"allow_anonymous":true}}}`), nil)
	if err != nil {
		b.Fatal(err)
	}
	app, err := eng.Load(b.Context(), m)
	if err != nil {
		b.Fatal(err)
	}
	return app
}

func database(b *testing.B, monitor *event.CommandMonitor) *mongo.Database {
	b.Helper()
	db := connect(b, monitor).Database("mandate_bench_" + strings.ToLower(time.Now().Format("150405.000000")[7:]))
	b.Cleanup(func() { _ = db.Drop(context.Background()) })
	return db
}

func signIn(b *testing.B, app *engine.App) *engine.Grant {
	b.Helper()
	user, err := app.Users().Anonymous(b.Context(), strings.Repeat("d", 40))
	if err != nil {
		b.Fatal(err)
	}
	g, err := app.StartSession(b.Context(), user.ID, engine.Device{}, false)
	if err != nil {
		b.Fatal(err)
	}
	return g
}

// same signs the claims of a token of ours with a key that golang-jwt gets.
func same(b *testing.B, token string) (string, []byte) {
	b.Helper()
	u, err := tokens.Inspect(token)
	if err != nil {
		b.Fatal(err)
	}
	key := []byte(strings.Repeat("k", 32))
	t := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims(u.Claims))
	t.Header["kid"], t.Header["typ"] = u.KeyID, u.Type
	text, err := t.SignedString(key)
	if err != nil {
		b.Fatal(err)
	}
	return text, key
}

func benchmarkJWT(b *testing.B, token string) {
	text, key := same(b, token)
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"HS256"}))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parser.Parse(text, func(*jwt.Token) (any, error) { return key, nil }); err != nil {
			b.Fatal(err)
		}
	}
}

// P1: the guard on a repeated token, against golang-jwt on the same token.
func BenchmarkP1(b *testing.B) {
	app := load(b, database(b, nil))
	g := signIn(b, app)
	b.Run("golang-jwt", func(b *testing.B) { benchmarkJWT(b, g.Access.Token) })
	b.Run("guard", func(b *testing.B) {
		passed := 0
		h := app.RequireUser().Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if engine.PrincipalFrom(r.Context()) != nil {
				passed++
			}
		}))
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", "Bearer "+g.Access.Token)
		w := httptest.NewRecorder()
		b.ReportAllocs()
		n := 0
		for b.Loop() {
			h.ServeHTTP(w, r)
			n++
		}
		if passed != n {
			b.Fatalf("%d of %d requests passed", passed, n)
		}
	})
}

// P2: a token that was not seen before, against golang-jwt.
func BenchmarkP2(b *testing.B) {
	ring, err := keys.NewRing([]secret.Value{secret.FromString(strings.Repeat("k", 32))})
	if err != nil {
		b.Fatal(err)
	}
	k, err := ring.App("bench", []byte(strings.Repeat("s", 32)), 1)
	if err != nil {
		b.Fatal(err)
	}
	s, err := tokens.New(tokens.Config{App: "bench", Issuer: "bench", Audience: "bench", AccessTTL: time.Hour, Keys: k, CacheSize: 1})
	if err != nil {
		b.Fatal(err)
	}
	texts := make([]string, 1024)
	for i := range texts {
		issued, err := s.Issue(tokens.Grant{Subject: "usr_0123456789abcdefghjkmnpqrs", Kind: "human", SessionID: "ses_0123456789abcdefghjkmnpqrs0123456789abcdefghjkmnpqrs", AuthTime: time.Now()})
		if err != nil {
			b.Fatal(err)
		}
		texts[i] = issued.Token
	}
	b.Run("golang-jwt", func(b *testing.B) { benchmarkJWT(b, texts[0]) })
	b.Run("new", func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			i++
			if _, err := s.Verify(texts[i%len(texts)]); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// counter counts commands that are not the feed's.
func counter() (*event.CommandMonitor, *atomic.Int64) {
	var n atomic.Int64
	return &event.CommandMonitor{Started: func(_ context.Context, e *event.CommandStartedEvent) {
		if e.CommandName != "getMore" && e.CommandName != "hello" && e.CommandName != "aggregate" {
			n.Add(1)
		}
	}}, &n
}

// P7: a refresh, against one bare findOneAndUpdate on the same server.
func BenchmarkP7(b *testing.B) {
	monitor, commands := counter()
	db := database(b, monitor)
	app := load(b, db)
	g := signIn(b, app)
	b.Run("findOneAndUpdate", func(b *testing.B) {
		c := db.Collection("user_sessions")
		for b.Loop() {
			if err := c.FindOneAndUpdate(b.Context(), bson.M{"_id": g.Session.SessionID}, bson.M{"$set": bson.M{"x": true}}).Err(); err != nil {
				b.Fatal(err)
			}
		}
	})
	token := g.Session.RefreshToken
	b.Run("refresh", func(b *testing.B) {
		before, n := commands.Load(), 0
		for b.Loop() {
			next, err := app.Refresh(b.Context(), token, engine.Device{})
			if err != nil {
				b.Fatal(err)
			}
			token = next.Session.RefreshToken
			n++
		}
		b.ReportMetric(float64(commands.Load()-before)/float64(n), "commands/op")
	})
}

// P8: a sign-out: the session, its head and the blacklist.
func BenchmarkP8(b *testing.B) {
	monitor, commands := counter()
	app := load(b, database(b, monitor))
	var used int64
	n := 0
	for b.Loop() {
		b.StopTimer()
		g := signIn(b, app)
		b.StartTimer()
		before := commands.Load()
		if err := app.Logout(b.Context(), g.Session.RefreshToken); err != nil {
			b.Fatal(err)
		}
		used += commands.Load() - before
		n++
	}
	b.ReportMetric(float64(used)/float64(n), "commands/op")
}

// P8: how long another instance accepts what was revoked here.
func BenchmarkP8Visible(b *testing.B) {
	name := "mandate_bench_visible_" + time.Now().Format("150405000000")
	client := connect(b, nil)
	b.Cleanup(func() { _ = client.Database(name).Drop(context.Background()) })
	here, there := load(b, client.Database(name)), load(b, client.Database(name))
	var took []time.Duration
	for b.Loop() {
		g := signIn(b, here)
		if _, err := there.Verify(b.Context(), g.Access.Token); err != nil {
			b.Fatal(err)
		}
		if err := here.Logout(b.Context(), g.Session.RefreshToken); err != nil {
			b.Fatal(err)
		}
		if _, err := here.Verify(b.Context(), g.Access.Token); err == nil {
			b.Fatal("accepted where it was revoked")
		}
		began := time.Now()
		for {
			if _, err := there.Verify(b.Context(), g.Access.Token); err != nil {
				break
			}
			time.Sleep(100 * time.Microsecond)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
}

// P14: an engine and its first app, on an empty database.
func BenchmarkP14(b *testing.B) {
	client := connect(b, nil)
	i := 0
	for b.Loop() {
		i++
		db := client.Database("mandate_bench_start_" + time.Now().Format("150405000000"))
		app := load(b, db)
		b.StopTimer()
		if app.Slug() != "bench" {
			b.Fatal("no app")
		}
		_ = db.Drop(b.Context())
		b.StartTimer()
	}
}
