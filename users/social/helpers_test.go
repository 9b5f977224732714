package social_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/tokens/keys"
	"github.com/mandate-auth/mandate/tokens/secret"
	"github.com/mandate-auth/mandate/users/social"
	"github.com/mandate-auth/mandate/users/social/socialtest"
)

// clock is a clock that the test moves.
type clock struct{ offset atomic.Int64 }

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func (c *clock) Now() time.Time       { return epoch.Add(time.Duration(c.offset.Load())) }
func (c *clock) Move(d time.Duration) { c.offset.Add(int64(d)) }

// sink keeps events.
type sink struct {
	mu     sync.Mutex
	events []event.Event
}

func (s *sink) Record(_ context.Context, e event.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
}

func (s *sink) all() []event.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.events
}

// buffer is a log that many write to.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// env is a provider, and a service that signs in by it under the name "corp".
type env struct {
	*clock
	provider *socialtest.Provider
	config   social.Config
	set      *social.Set
	once     *socialtest.Once
	events   *sink
	log      *buffer
}

// alice is the account that signs in.
func alice() socialtest.User {
	return socialtest.User{
		Claims: map[string]any{
			"sub": "alice-1", "email": "alice@example.com", "email_verified": true, "name": "Alice A.", "given_name": "Alice",
			"family_name": "A.", "picture": "https://id.example/a.png", "locale": "de-AT",
		},
		GitHub: map[string]any{"id": 583231, "login": "alice", "name": "Alice A.", "email": "shown@example.com", "avatar_url": "https://id.example/a.png"},
		Emails: []any{
			map[string]any{"email": "old@example.com", "primary": false, "verified": true},
			map[string]any{"email": "alice@example.com", "primary": true, "verified": true},
		},
	}
}

func appKeys(tb testing.TB, slug string) *keys.App {
	tb.Helper()
	ring, err := keys.NewRing([]secret.Value{secret.FromString(strings.Repeat("k", keys.MinSecretLength))})
	if err != nil {
		tb.Fatal(err)
	}
	app, err := ring.App(slug, bytes.Repeat([]byte{7}, 16), 0)
	if err != nil {
		tb.Fatal(err)
	}
	return app
}

// oidc is the configuration of the provider as it discovers itself.
func oidc(p *socialtest.Provider, name string) social.ProviderConfig {
	return social.ProviderConfig{Name: name, Issuer: p.URL, ClientID: p.ClientID, ClientSecret: secret.FromString(p.ClientSecret)}
}

// setup starts a provider and a service. edit changes the configuration before.
func setup(tb testing.TB, edit ...func(e *env, c *social.ProviderConfig)) *env {
	tb.Helper()
	e := &env{clock: &clock{}, once: &socialtest.Once{}, events: &sink{}, log: &buffer{}}
	e.provider = socialtest.NewProvider(tb, socialtest.Options{Now: e.Now})
	e.provider.RegisterUser(alice())
	e.config = social.Config{
		App: "shop", Keys: appKeys(tb, "shop"), RedirectBase: "https://shop.example/auth/oauth/", Once: e.once, Events: e.events, Now: e.Now,
		Logger: slog.New(slog.NewTextHandler(e.log, nil)),
	}
	corp := oidc(e.provider, "corp")
	for _, f := range edit {
		f(e, &corp)
	}
	e.config.Providers = append([]social.ProviderConfig{corp}, e.config.Providers...)
	e.set = open(tb, e.config)
	return e
}

func open(tb testing.TB, c social.Config) *social.Set {
	tb.Helper()
	set, err := social.New(c)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := set.Close(context.WithoutCancel(tb.Context())); err != nil {
			tb.Error(err)
		}
	})
	return set
}

// begin begins a sign-in and goes to the provider with it.
func (e *env) begin(tb testing.TB, o social.BeginOptions) (*social.Flow, url.Values) {
	tb.Helper()
	f, err := e.set.Begin(tb.Context(), "corp", o)
	if err != nil {
		tb.Fatal(err)
	}
	return f, e.provider.Follow(tb, f.URL)
}

func (e *env) finish(tb testing.TB, query url.Values, cookie string) (*social.Result, error) {
	tb.Helper()
	return e.set.Finish(tb.Context(), "corp", query, cookie)
}

// signIn goes the whole way.
func (e *env) signIn(tb testing.TB) (*social.Result, error) {
	tb.Helper()
	f, query := e.begin(tb, social.BeginOptions{})
	return e.finish(tb, query, f.Cookie)
}

func (e *env) mustSignIn(tb testing.TB) *social.Result {
	tb.Helper()
	r, err := e.signIn(tb)
	if err != nil {
		tb.Fatalf("%v\n%s", err, e.log)
	}
	return r
}

// refused checks that a sign-in was refused, with this kind and reason.
func refused(tb testing.TB, r *social.Result, err, kind error, reason string) {
	tb.Helper()
	if r != nil || err == nil {
		tb.Fatalf("accepted: %+v, %v", r, err)
	}
	var e *social.Error
	if !errors.Is(err, kind) || !errors.As(err, &e) || e.Reason != reason {
		tb.Errorf("got %v (%v), want %q of %v", err, errors.Unwrap(err), reason, kind)
	}
}

// rsaKey and ecKey are made once: that is slow.
var (
	rsaKey = sync.OnceValue(func() socialtest.Key { return socialtest.NewKey(maker{}, "RS256", "r1") })
	ecKey  = sync.OnceValue(func() socialtest.Key { return socialtest.NewKey(maker{}, "ES256", "e1") })
)

// maker stands for the test in what tests share.
type maker struct{ testing.TB }

func (maker) Helper()           {}
func (maker) Fatal(args ...any) { panic(args) }

// payload returns the claims of a token as they stand.
func payload(token string) json.RawMessage {
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		panic(err)
	}
	return raw
}
