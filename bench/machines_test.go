package bench_test

import (
	"context"
	"encoding/base64"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"go.mongodb.org/mongo-driver/event"

	"github.com/mandate-auth/mandate/engine"
	mevent "github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/manifest"
	"github.com/mandate-auth/mandate/tokens/apikey"
	"github.com/mandate-auth/mandate/tokens/oauth2"
	"github.com/mandate-auth/mandate/users"
)

// P1 for machines: the guard on a repeated API key, client token and client secret,
// against golang-jwt on a client token.
func BenchmarkP1Machines(b *testing.B) {
	var commands atomic.Int64
	db := database(b, &event.CommandMonitor{Started: func(context.Context, *event.CommandStartedEvent) { commands.Add(1) }})
	eng, err := engine.New(b.Context(), db, &engine.Options{
		SecretKeys: []engine.Secret{engine.NewSecret(strings.Repeat("k", 32))}, InsecureHashCost: 4,
		Logger: slog.New(slog.DiscardHandler), Sinks: []mevent.Sink{mevent.Discard{}}, DisableChangeStreams: true,
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = eng.Close(context.Background()) })
	m, err := manifest.Parse([]byte(`{"slug":"bench","auth":{"tokens":{"issuer":"https://bench.example","revocation":{"poll_interval":"30s","max_staleness":"1m"}},
		"api_keys":{"enabled":true,"scopes":["read"]},"clients":{"enabled":true}}}`), nil)
	if err != nil {
		b.Fatal(err)
	}
	app, err := eng.Load(b.Context(), m)
	if err != nil {
		b.Fatal(err)
	}
	user, err := app.Users().Create(b.Context(), users.NewUser{Email: "ada@example.com", Password: "a passphrase for benchmarks"})
	if err != nil {
		b.Fatal(err)
	}
	key, err := app.APIKeys().Create(b.Context(), apikey.NewKey{UserID: user.ID, Name: "bench", Scopes: []string{"read"}})
	if err != nil {
		b.Fatal(err)
	}
	client, err := app.Clients().Create(b.Context(), oauth2.NewClient{Name: "bench", Scopes: []string{"read"}})
	if err != nil {
		b.Fatal(err)
	}
	token, _, err := app.IssueClientToken(b.Context(), client.ID)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("golang-jwt", func(b *testing.B) { benchmarkJWT(b, token) })
	for name, header := range map[string][2]string{
		"key": {"X-Api-Key", key.Key}, "key-bearer": {"Authorization", "Bearer " + key.Key}, "token": {"Authorization", "Bearer " + token},
		"secret": {"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte(client.ID+":"+client.Secret))},
	} {
		b.Run(name, func(b *testing.B) {
			passed, n := 0, 0
			h := app.RequireUser().Func(func(http.ResponseWriter, *http.Request) { passed++ })
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.Header.Set(header[0], header[1])
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			n++
			commands.Store(0)
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(w, r)
				n++
			}
			if passed != n {
				b.Fatalf("%d of %d requests passed: %s", passed, n, w.Body)
			}
			b.ReportMetric(float64(commands.Load())/float64(b.N), "commands/op")
		})
	}
}
