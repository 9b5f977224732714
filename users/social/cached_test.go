package social_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/users/social"
	"github.com/mandate-auth/mandate/users/social/socialtest"
)

// A provider changes its keys as it likes: tokens of a new one sign in at once, and a
// withdrawn one signs nobody in once the set is ten minutes old, even while its id is
// used again.
func TestKeysRotate(t *testing.T) {
	t.Parallel()
	e := setup(t)
	old := e.provider.Key()
	e.mustSignIn(t)
	e.Move(time.Minute)
	next := socialtest.NewKey(t, "EdDSA", "k2")
	e.provider.SetKeys(next, old)
	e.mustSignIn(t)
	if got := e.provider.Calls(socialtest.JWKS); got != 2 {
		t.Errorf("%d fetches, want 2", got)
	}

	// The provider gives the old key up; somebody has it.
	e.provider.SetKeys(next)
	forged := func(token string) string {
		return old.Sign(map[string]any{"alg": "EdDSA", "kid": old.ID}, payload(token))
	}
	e.Move(10 * time.Minute)
	e.provider.ChangeIDToken(forged)
	r, err := e.signIn(t)
	refused(t, r, err, social.ErrProvider, "id_token")

	same := socialtest.NewKey(t, "EdDSA", old.ID)
	e.provider.SetKeys(same)
	e.Move(10 * time.Minute)
	r, err = e.signIn(t)
	refused(t, r, err, social.ErrProvider, "id_token")
	e.provider.ChangeIDToken(nil)
	e.mustSignIn(t)
}

// Tokens of unknown keys must not make the service call the provider as often as
// somebody likes.
func TestUnknownKeysAreAskedForSeldom(t *testing.T) {
	t.Parallel()
	e := setup(t)
	e.mustSignIn(t)
	e.provider.ChangeHeader(func(h map[string]any) { h["kid"] = "k9" })
	e.Move(time.Minute)
	for range 5 {
		r, err := e.signIn(t)
		refused(t, r, err, social.ErrProvider, "id_token")
	}
	if got := e.provider.Calls(socialtest.JWKS); got != 2 {
		t.Errorf("%d fetches, want 2", got)
	}
	e.Move(30 * time.Second)
	r, err := e.signIn(t)
	refused(t, r, err, social.ErrProvider, "id_token")
	if got := e.provider.Calls(socialtest.JWKS); got != 3 {
		t.Errorf("%d fetches, want 3", got)
	}
}

// The document serves an hour. A failure is remembered for five seconds, so that a dead
// provider is not asked by everybody, and nothing old serves in its place.
func TestDiscoveryIsFetchedSeldom(t *testing.T) {
	t.Parallel()
	e := setup(t)
	begin := func() error {
		_, err := e.set.Begin(t.Context(), "corp", social.BeginOptions{})
		return err
	}
	fetches := func(want int) {
		t.Helper()
		if got := e.provider.Calls(socialtest.Discovery); got != want {
			t.Errorf("%d fetches, want %d", got, want)
		}
	}
	for range 3 {
		if err := begin(); err != nil {
			t.Fatal(err)
		}
	}
	fetches(1)
	e.Move(time.Hour - 1)
	if err := begin(); err != nil {
		t.Fatal(err)
	}
	fetches(1)
	e.Move(1)
	e.provider.Change(socialtest.Discovery, status(http.StatusServiceUnavailable))
	for range 3 {
		refused(t, nil, begin(), social.ErrProviderUnavailable, "provider_unavailable")
	}
	fetches(2)
	e.provider.Change(socialtest.Discovery, nil)
	e.Move(5*time.Second - 1)
	refused(t, nil, begin(), social.ErrProviderUnavailable, "provider_unavailable")
	e.Move(1)
	if err := begin(); err != nil {
		t.Fatal(err)
	}
	fetches(3)
}

// While keys cannot be fetched, nobody knows whether an unknown one is new: that is no
// refusal of the token.
func TestUnknownKeyWhileTheProviderIsAway(t *testing.T) {
	t.Parallel()
	e := setup(t)
	e.mustSignIn(t)
	e.Move(time.Minute)
	e.provider.SetKeys(socialtest.NewKey(t, "EdDSA", "k2"))
	e.provider.Change(socialtest.JWKS, status(http.StatusBadGateway))
	r, err := e.signIn(t)
	refused(t, r, err, social.ErrProviderUnavailable, "provider_unavailable")
}

// However many sign in, one fetch runs; who gives up does not end it for the others.
func TestOneFetchForAll(t *testing.T) {
	t.Parallel()
	e := setup(t)
	entered, release := make(chan struct{}, 50), make(chan struct{})
	e.provider.Change(socialtest.Discovery, func(*http.Request, *socialtest.Answer) {
		entered <- struct{}{}
		<-release
	})
	impatient, giveUp := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := e.set.Begin(impatient, "corp", social.BeginOptions{})
		first <- err
	}()
	<-entered
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := e.set.Begin(t.Context(), "corp", social.BeginOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	giveUp()
	refused(t, nil, <-first, social.ErrProviderUnavailable, "provider_unavailable")
	close(release)
	wg.Wait()
	if got := e.provider.Calls(socialtest.Discovery); got != 1 {
		t.Errorf("%d fetches", got)
	}
}

// A set that is closed ends what it waits for and calls nobody any more.
func TestClose(t *testing.T) {
	t.Parallel()
	e := setup(t)
	entered := make(chan struct{}, 1)
	e.provider.Change(socialtest.Discovery, func(r *http.Request, _ *socialtest.Answer) {
		entered <- struct{}{}
		<-r.Context().Done()
	})
	waiting := make(chan error, 1)
	go func() {
		_, err := e.set.Begin(t.Context(), "corp", social.BeginOptions{})
		waiting <- err
	}()
	<-entered
	if err := e.set.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	refused(t, nil, <-waiting, social.ErrProviderUnavailable, "provider_unavailable")
	e.Move(time.Minute)
	e.provider.Change(socialtest.Discovery, nil)
	_, err := e.set.Begin(t.Context(), "corp", social.BeginOptions{})
	refused(t, nil, err, social.ErrProviderUnavailable, "provider_unavailable")
	if got := e.provider.Calls(socialtest.Discovery); got != 1 {
		t.Errorf("%d fetches", got)
	}
	if err := e.set.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// The service's own client speaks TLS to a server that it can name, and to no other.
func TestCertificatesAreChecked(t *testing.T) {
	t.Parallel()
	e := setup(t)
	p := socialtest.NewProvider(t, socialtest.Options{Now: e.Now, TLS: true})
	p.RegisterUser(alice())
	config := e.config
	config.Providers = []social.ProviderConfig{oidc(p, "corp")}
	_, err := open(t, config).Begin(t.Context(), "corp", social.BeginOptions{})
	refused(t, nil, err, social.ErrProviderUnavailable, "provider_unavailable")

	config.Client = p.Client()
	set := open(t, config)
	f, err := set.Begin(t.Context(), "corp", social.BeginOptions{})
	if err != nil || !strings.HasPrefix(f.URL, "https://") {
		t.Fatal(f, err)
	}
	if r, err := set.Finish(t.Context(), "corp", p.Follow(t, f.URL), f.Cookie); err != nil || r.Issuer != p.URL {
		t.Errorf("%v, %v", r, err)
	}
}
