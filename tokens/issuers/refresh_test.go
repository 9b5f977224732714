package issuers_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/issuers"
)

func accept(t *testing.T, i *issuers.Issuer, name, token string) {
	t.Helper()
	if v, err := i.Verify(t.Context(), token); err != nil || v == nil {
		t.Errorf("%s: %v", name, err)
	}
}

func unavailable(t *testing.T, i *issuers.Issuer, name, token string) {
	t.Helper()
	v, err := i.Verify(t.Context(), token)
	if v != nil || !errors.Is(err, issuers.ErrUnavailable) || errors.Is(err, tokens.ErrInvalid) {
		t.Errorf("%s: got %v, %v, want ErrUnavailable", name, v, err)
	}
}

// A new key is accepted as soon as somebody uses it, and an old one no longer than it
// is published (CVE-2025-22149), not even for a token that it verified before.
func TestRotation(t *testing.T) {
	t.Parallel()
	m, e := material(), newEvil(t)
	first, second := jwk(t, "e1", m.p256, nil), jwk(t, "e2", m.otherP256, nil)
	e.serve("/jwks", jwks(t, first))
	i, c := open(t, e)
	old, fresh := esBy(t, m.p256, "e1"), esBy(t, m.otherP256, "e2")
	accept(t, i, "the first key", old)
	refuse(t, i, "a key that is not published", fresh)

	e.serve("/jwks", jwks(t, first, second))
	refuse(t, i, "a new key within the pause", fresh)
	c.Move(30 * time.Second)
	accept(t, i, "a new key after the pause", fresh)
	accept(t, i, "the old one beside it", old)
	if n := e.count("/jwks"); n != 2 {
		t.Errorf("%d fetches, want 2", n)
	}

	e.serve("/jwks", jwks(t, second))
	accept(t, i, "the old one while the keys are fresh", old)
	c.Move(10 * time.Minute)
	refuse(t, i, "the old one, remembered", old)
	refuse(t, i, "the old one, again", old)
	accept(t, i, "the new one", fresh)

	e.serve("/jwks", jwks(t))
	c.Move(10 * time.Minute)
	refuse(t, i, "a key of an empty set", fresh)
}

// An id that comes back with another key is another key.
func TestReusedKeyID(t *testing.T) {
	t.Parallel()
	m, e := material(), newEvil(t)
	e.serve("/jwks", jwks(t, jwk(t, "e1", m.p256, nil)))
	i, c := open(t, e)
	old, fresh := esBy(t, m.p256, "e1"), esBy(t, m.otherP256, "e1")
	accept(t, i, "before", old)
	e.serve("/jwks", jwks(t, jwk(t, "e1", m.otherP256, nil)))
	c.Move(10 * time.Minute)
	refuse(t, i, "the old key under its old id", old)
	accept(t, i, "the new key under that id", fresh)
}

// A busy service does not wait for keys: they are renewed before they are old.
func TestBackgroundRenewal(t *testing.T) {
	t.Parallel()
	m, e := material(), newEvil(t)
	release := make(chan struct{})
	i, c := open(t, e)
	token := es(t, good())
	accept(t, i, "first", token)
	body := jwks(t, jwk(t, "e2", m.otherP256, nil))
	e.handle("/jwks", func(w http.ResponseWriter, _ *http.Request) {
		<-release
		_, _ = w.Write(body)
	})
	c.Move(8 * time.Minute)
	accept(t, i, "while the renewal runs", token) // would hang if it waited
	close(release)
	i.Settle()
	refuse(t, i, "after the renewal", token)
	if n := e.count("/jwks"); n != 2 {
		t.Errorf("%d fetches, want 2", n)
	}
}

// Whatever comes, the issuer is asked once in a pause.
func TestFloodOfUnknownKeys(t *testing.T) {
	t.Parallel()
	e := newEvil(t)
	i, c := open(t, e)
	token := es(t, good())
	for round := range 3 {
		var wg sync.WaitGroup
		for n := range 200 {
			wg.Go(func() {
				_, err := i.Verify(t.Context(), esBy(t, material().p256, fmt.Sprintf("x-%d-%d", round, n)))
				if !errors.Is(err, tokens.ErrUnknownKey) {
					t.Errorf("an unknown key: %v", err)
				}
				if n%50 == 0 {
					accept(t, i, "a good token meanwhile", token)
				}
			})
		}
		wg.Wait()
		if got := e.count("/jwks"); got != round+1 {
			t.Errorf("%d fetches after %d rounds", got, round+1)
		}
		c.Move(30 * time.Second)
	}
	if i.Remembered() != 1 {
		t.Errorf("%d tokens are remembered, want the good one", i.Remembered())
	}
}

// An outage of the issuer is bridged, but not for ever.
func TestOutage(t *testing.T) {
	t.Parallel()
	e := newEvil(t)
	keys := jwks(t, jwk(t, "e1", material().p256, nil))
	e.serve("/jwks", keys)
	i, c := open(t, e)
	token := es(t, with("exp", epoch.Add(5*time.Hour).Unix()))
	accept(t, i, "before", token)
	e.fail("/jwks")
	for range 58 {
		c.Move(time.Minute)
		accept(t, i, "during the outage", token)
		i.Settle()
	}
	if n := e.count("/jwks"); n > 60 || n < 40 {
		t.Errorf("%d attempts in 58 minutes", n)
	}
	// Whether an unknown key is a new one cannot be known.
	unavailable(t, i, "an unknown key", esBy(t, material().p256, "new"))
	c.Move(2 * time.Minute)
	unavailable(t, i, "a remembered token when the keys are too old", token)
	unavailable(t, i, "a new token when the keys are too old", es(t, with("exp", epoch.Add(4*time.Hour).Unix())))
	before := e.count("/jwks")
	for range 50 {
		unavailable(t, i, "again", token)
	}
	if n := e.count("/jwks"); n > before {
		t.Errorf("%d more attempts within the pause", n-before)
	}
	e.serve("/jwks", keys)
	c.Move(5 * time.Second)
	accept(t, i, "after the outage", token)
}

// Keys that are old because nobody asked are fetched before anything is believed.
func TestOldKeysAreFetchedFirst(t *testing.T) {
	t.Parallel()
	e := newEvil(t)
	i, c := open(t, e)
	token := es(t, good())
	accept(t, i, "before", token)
	e.serve("/jwks", jwks(t))
	c.Move(40 * time.Minute)
	refuse(t, i, "with a key that was withdrawn meanwhile", token)
}

// What is no good set of keys is none: nothing is accepted because of it, and what
// was there stays.
func TestBadAnswers(t *testing.T) {
	t.Parallel()
	good := jwks(t, jwk(t, "e1", material().p256, nil))
	padding := bytes.Repeat([]byte(" "), 600<<10)
	answers := map[string]http.HandlerFunc{
		"404": http.NotFound,
		"500 with keys": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = w.Write(good)
		},
		"201 with keys": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated); _, _ = w.Write(good) },
		"redirect":      func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/other", http.StatusFound) },
		"kept redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/other", http.StatusPermanentRedirect)
		},
		"redirect + keys": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/other")
			w.WriteHeader(http.StatusSeeOther)
			_, _ = w.Write(good)
		},
		"too large": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(good); _, _ = w.Write(padding) },
		"cut short": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(good)))
			_, _ = w.Write(good[:len(good)-1])
		},
		"garbage":    func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("\x00\x01\x02")) },
		"HTML":       func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) },
		"nothing":    func(http.ResponseWriter, *http.Request) {},
		"disconnect": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"endless": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(padding); err != nil {
					return
				}
			}
		},
	}
	for name, answer := range answers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEvil(t)
			e.serve("/other", good)
			e.handle("/jwks", answer)
			i, c := open(t, e)
			token := es(t, with("exp", epoch.Add(5*time.Hour).Unix()))
			unavailable(t, i, "first", token)
			e.serve("/jwks", good)
			c.Move(5 * time.Second)
			accept(t, i, "once it is right", token)
			e.handle("/jwks", answer)
			c.Move(11 * time.Minute)
			accept(t, i, "with the keys of before", token)
			if e.count("/other") != 0 {
				t.Error("a redirect was followed")
			}
		})
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// What trips over an answer refuses it; the service goes on.
func TestPanicIsRefusal(t *testing.T) {
	t.Parallel()
	e := newEvil(t)
	transport := e.server.Client().Transport
	var calls int
	i, c := open(t, e, func(c *issuers.Config) {
		c.Client = &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			if calls++; calls == 1 {
				panic("hostile")
			}
			return transport.RoundTrip(r)
		})}
	})
	unavailable(t, i, "panic", es(t, good()))
	c.Move(5 * time.Second)
	accept(t, i, "afterwards", es(t, good()))
}

// Time is bounded, whatever the issuer or the caller does.
func TestSlowIssuer(t *testing.T) {
	t.Parallel()
	for name, slow := range map[string]func(w http.ResponseWriter){
		"before the header": func(http.ResponseWriter) {},
		"in the body": func(w http.ResponseWriter) {
			_, _ = w.Write([]byte(`{"keys":`))
			_ = http.NewResponseController(w).Flush()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEvil(t)
			e.handle("/jwks", func(w http.ResponseWriter, r *http.Request) {
				slow(w)
				<-r.Context().Done()
			})
			i, _ := open(t, e, func(c *issuers.Config) { c.Timeout = 50 * time.Millisecond })
			unavailable(t, i, "slow", es(t, good()))
		})
	}
}

// A caller that gives up gets its answer and leaves the fetch to the others.
func TestCallerGivesUp(t *testing.T) {
	t.Parallel()
	e := newEvil(t)
	asked, release := make(chan struct{}), make(chan struct{})
	keys := jwks(t, jwk(t, "e1", material().p256, nil))
	e.handle("/jwks", func(w http.ResponseWriter, _ *http.Request) {
		close(asked)
		<-release
		_, _ = w.Write(keys)
	})
	i, _ := open(t, e)
	token := es(t, good())
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error)
	go func() {
		_, err := i.Verify(ctx, token)
		first <- err
	}()
	<-asked
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) || !errors.Is(err, issuers.ErrUnavailable) {
		t.Errorf("the one that gave up: %v", err)
	}
	second := make(chan error)
	go func() {
		_, err := i.Verify(t.Context(), token)
		second <- err
	}()
	close(release)
	if err := <-second; err != nil {
		t.Errorf("the other one: %v", err)
	}
	if n := e.count("/jwks"); n != 1 {
		t.Errorf("%d fetches, want one for both", n)
	}
}

func TestClose(t *testing.T) {
	t.Parallel()
	e := newEvil(t)
	asked := make(chan struct{}, 1)
	e.handle("/jwks", func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-r.Context().Done()
	})
	i, c := open(t, e)
	token := es(t, good())
	result := make(chan error)
	go func() {
		_, err := i.Verify(t.Context(), token)
		result <- err
	}()
	<-asked
	if err := i.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-result; !errors.Is(err, issuers.ErrUnavailable) {
		t.Errorf("a caller that waits: %v", err)
	}
	c.Move(time.Hour)
	unavailable(t, i, "after Close", token)
	if _, err := i.Verify(t.Context(), token); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("after Close: %v, want an error that says why", err)
	}
	if err := i.Close(t.Context()); err != nil {
		t.Errorf("closing twice: %v", err)
	}
	if n := e.count("/jwks"); n != 1 {
		t.Errorf("%d fetches, want none after Close", n)
	}
}

// "Cache-Control" shortens the life of keys, within the bounds, and never prolongs it.
func TestCacheControl(t *testing.T) {
	t.Parallel()
	for header, fresh := range map[string]time.Duration{
		"":                               10 * time.Minute,
		"max-age=120":                    2 * time.Minute,
		"public, Max-Age=\"120\", x=y":   2 * time.Minute,
		"max-age=999999":                 10 * time.Minute,
		"max-age=0":                      30 * time.Second,
		"no-store":                       30 * time.Second,
		"max-age=120, no-cache":          30 * time.Second,
		"max-age=-1":                     10 * time.Minute,
		"max-age=99999999999999999999":   10 * time.Minute,
		"max-age=x":                      10 * time.Minute,
		strings.Repeat("max-age=60,", 5): time.Minute,
	} {
		e := newEvil(t)
		keys := jwks(t, jwk(t, "e1", material().p256, nil))
		e.handle("/jwks", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", header)
			_, _ = w.Write(keys)
		})
		i, c := open(t, e)
		token := es(t, good())
		accept(t, i, header, token)
		e.serve("/jwks", jwks(t))
		c.Move(fresh*4/5 - time.Second)
		accept(t, i, header+" before the renewal", token)
		if n := e.count("/jwks"); n != 1 {
			t.Errorf("%q: fetched again while fresh", header)
		}
		c.Move(fresh/5 + time.Second)
		refuse(t, i, header+" after", token)
	}
}

// Everything at once: rotation, removal, new and remembered tokens; for -race.
func TestConcurrency(t *testing.T) {
	t.Parallel()
	m, e := material(), newEvil(t)
	sets := [][]byte{jwks(t, jwk(t, "e1", m.p256, nil)), jwks(t, jwk(t, "e1", m.p256, nil), jwk(t, "e2", m.otherP256, nil))}
	e.serve("/jwks", sets[0])
	i, c := open(t, e, func(c *issuers.Config) { c.CacheSize = 16 })
	set, err := issuers.NewSet(i)
	if err != nil {
		t.Fatal(err)
	}
	always, sometimes := esBy(t, m.p256, "e1"), esBy(t, m.otherP256, "e2")
	forged := esBy(t, m.otherP256, "e1")
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			for round := range 60 {
				if n == 0 {
					e.serve("/jwks", sets[round%2])
					c.Move(20 * time.Second)
				}
				if _, err := set.Verify(t.Context(), always); err != nil {
					t.Errorf("a key that is always there: %v", err)
				}
				if _, err := set.Verify(t.Context(), sometimes); err != nil && !errors.Is(err, tokens.ErrUnknownKey) {
					t.Errorf("a key that comes and goes: %v", err)
				}
				if v, err := set.Verify(t.Context(), forged); v != nil || !errors.Is(err, tokens.ErrInvalid) {
					t.Errorf("a forged token: %v", err)
				}
			}
		})
	}
	wg.Wait()
}
