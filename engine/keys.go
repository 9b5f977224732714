package engine

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/appstate"
	"github.com/mandate-auth/mandate/manifest"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/keys"
	"github.com/mandate-auth/mandate/tokens/signing"
)

// ErrSymmetric says that the app signs with HS256: its keys follow from the secret
// key, and are changed with it.
var ErrSymmetric = errors.New("the app's keys are derived from the secret key; change Options.SecretKeys")

// SigningKey describes one of the keys that an app signs its tokens with.
type SigningKey = signing.KeyInfo

// Keys are what an app signs its tokens with. It is safe for concurrent use.
type Keys struct {
	app    *App
	derive *keys.App
	salt   []byte
	// stored are the keys of an asymmetric algorithm, nil with HS256. It is replaced
	// when keys_epoch is raised.
	stored atomic.Pointer[signing.Store]
	mu     sync.Mutex // held while the epoch is raised, and while keys are put to use
	behind follower
}

func newKeys(app *App, derive *keys.App) *Keys {
	return &Keys{app: app, derive: derive}
}

// Keys returns what the app signs its tokens with.
func (app *App) Keys() *Keys { return app.keys }

// List returns the app's signing keys, the next, the current and those that are
// still published because tokens of theirs live. The error is [ErrSymmetric] for
// an app with HS256.
func (k *Keys) List(ctx context.Context) ([]SigningKey, error) {
	s := k.stored.Load()
	if s == nil {
		return nil, ErrSymmetric
	}
	return s.List(ctx)
}

// Rotate makes the next key, which is published at once and signs ten minutes
// later, once everybody who keeps the published keys knows it. The schedule
// (auth.tokens.key_rotation) begins anew with it.
func (k *Keys) Rotate(ctx context.Context) (*SigningKey, error) {
	s := k.stored.Load()
	if s == nil {
		return nil, ErrSymmetric
	}
	return s.Rotate(ctx)
}

// RotateNow is Rotate with a key that signs at once. Whoever has fetched the
// published keys within the last five minutes meets a key that it does not know
// until it fetches them again.
func (k *Keys) RotateNow(ctx context.Context) (*SigningKey, error) {
	s := k.stored.Load()
	if s == nil {
		return nil, ErrSymmetric
	}
	return s.RotateNow(ctx)
}

// Revoke ends a key that somebody else may have: its tokens are refused from now
// on, and another one signs.
func (k *Keys) Revoke(ctx context.Context, kid string) error {
	s := k.stored.Load()
	if s == nil {
		return ErrSymmetric
	}
	return s.Revoke(ctx, kid)
}

// EndAllTokens ends every access and refresh token of the app, whatever it is
// signed with, by raising keys_epoch: everybody has to sign in again. What is
// stored stays readable. Other instances follow within
// auth.tokens.revocation.max_staleness.
func (k *Keys) EndAllTokens(ctx context.Context) error {
	e := k.app.engine
	epoch, err := e.states.RaiseKeysEpoch(ctx, k.app.slug)
	if err != nil {
		return err
	}
	k.app.events.Record(ctx, event.Event{
		Type: event.KeysEpochRaised, Result: event.Success, App: k.app.slug, Time: e.opts.Now(), Request: event.RequestFrom(ctx),
	})
	k.observe(appstate.KeysVersion{Epoch: epoch})
	if err := k.catchUp(ctx); err != nil {
		return err
	}
	return k.load(ctx)
}

// raise leaves the keys of lower epochs behind. Nothing that they signed is accepted
// from now on, whether or not the new ones can be had.
func (k *Keys) raise(epoch int64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.derive.Epoch() >= epoch {
		return nil
	}
	var next *signing.Store
	if k.stored.Load() != nil {
		var err error
		if next, err = k.store(epoch); err != nil {
			return err
		}
	}
	if err := k.derive.SetEpoch(epoch); err != nil {
		return err
	}
	if next == nil {
		return k.app.tokens.UseDerivedKeys()
	}
	k.stored.Store(next)
	return k.app.tokens.UseKeys(nil)
}

// store returns the stored keys of an epoch.
func (k *Keys) store(epoch int64) (*signing.Store, error) {
	app, e := k.app, k.app.engine
	t := &app.manifest.Auth.Tokens
	life := max(time.Duration(t.AccessTTL), longestClientToken(app.manifest))
	return signing.New(e.db, signing.Config{
		App: app.slug, Algorithm: t.Algorithm, Keys: k.derive, Salt: k.salt, KeysEpoch: epoch, Rotation: time.Duration(t.KeyRotation),
		TokenTTL: life + time.Duration(t.Leeway), Now: e.opts.Now, Logger: e.opts.Logger, Events: app.events,
		Announce: func(ctx context.Context) error { return e.states.KeysChanged(ctx, app.slug) },
		OnChange: func(set signing.Set) {
			k.mu.Lock()
			defer k.mu.Unlock()
			if k.derive.Epoch() != epoch {
				return // a load that was under way when the epoch was raised
			}
			if err := app.tokens.UseKeys(set.Accepted); err != nil {
				e.opts.Logger.Error("use the signing keys", slog.String("app", app.slug), slog.Any("error", err))
			}
		},
	})
}

// longestClientToken is the longest life that a client's token can have: one that
// an administrator sets, too.
func longestClientToken(m *manifest.Manifest) time.Duration {
	if !m.Auth.Clients.Enabled {
		return 0
	}
	return tokens.MaxAccessTTL
}

// upkeep rotates keys when it is their time.
func (k *Keys) upkeep(ctx context.Context) {
	if err := k.load(ctx); err != nil && !errors.Is(err, context.Canceled) {
		k.app.engine.opts.Logger.Error("look after the signing keys", slog.String("app", k.app.slug), slog.Any("error", err))
	}
}

// newKey looks for a key that another instance has made just now.
func (k *Keys) newKey(ctx context.Context, kid string) (bool, error) {
	s := k.stored.Load()
	if s == nil {
		return false, nil
	}
	return s.RefreshUnknown(ctx, kid)
}

// published serves the keys that verify the app's tokens, nil where there are none
// to publish.
func (k *Keys) published() http.Handler {
	if k.stored.Load() == nil {
		return nil
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { k.stored.Load().Handler().ServeHTTP(w, r) })
}
