package engine

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/mandate-auth/mandate/internal/appstate"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/tokens"
)

// follower is what an instance knows of what others do to an app's keys.
type follower struct {
	mu sync.Mutex
	// wanted is the newest version that is known, and installed the one that is in
	// use.
	wanted, installed appstate.KeysVersion
	// outdated says that they differ, and current when the installed one was last
	// known to be the newest, as [tokens.Freshness] counts.
	outdated atomic.Bool
	current  atomic.Int64

	running bool // whether a goroutine installs what is wanted
	once    singleflight.Group
	tasks   sync.WaitGroup
	ctx     context.Context // of what runs in the background, ended by close
	stop    context.CancelFunc
}

// start makes the app's keys usable, and follows what other instances do to them.
func (k *Keys) start(ctx context.Context, state *appstate.State) error {
	app := k.app
	e := app.engine
	k.salt = state.Salt
	e.watcher.PollAtLeastEvery(time.Duration(app.manifest.Auth.Tokens.Revocation.PollInterval))
	k.behind.wanted, k.behind.installed = state.Keys, state.Keys
	k.behind.ctx, k.behind.stop = context.WithCancel(context.WithoutCancel(ctx))
	if app.manifest.Auth.Tokens.Algorithm != tokens.HS256 {
		s, err := k.store(state.Keys.Epoch)
		if err != nil {
			return err
		}
		if err := e.index(ctx, "signing_keys", s.EnsureIndexes); err != nil {
			return err
		}
		k.stored.Store(s)
	}
	e.watcher.WatchKeys(app.slug, state.Keys, k.observe)
	if err := k.load(ctx); err != nil {
		return err
	}
	// What was done since the state was read is known now.
	return keysFreshness{k}.Renew(ctx)
}

// observe takes note of what an instance did, and follows it in the background.
func (k *Keys) observe(v appstate.KeysVersion) {
	b := &k.behind
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wanted = b.wanted.With(v)
	if !b.wanted.After(b.installed) {
		return
	}
	if !b.outdated.Load() {
		b.current.Store(int64(k.app.engine.watcher.FreshAt()))
		b.outdated.Store(true)
	}
	if !b.running && b.ctx.Err() == nil {
		b.running = true
		b.tasks.Go(k.follow)
	}
}

// keysFreshness is how old an instance's keys are. It implements [tokens.Freshness].
type keysFreshness struct{ *Keys }

// FreshAt is when this instance learnt last what others did, and does not become
// younger before that is followed.
func (k keysFreshness) FreshAt() time.Duration {
	at := k.app.engine.watcher.FreshAt() // first: what it read is observed before it is fresh
	if k.behind.outdated.Load() {
		return min(at, time.Duration(k.behind.current.Load()))
	}
	return at
}

// Renew learns what others did, and follows it. All who wait share one look.
func (k keysFreshness) Renew(ctx context.Context) error {
	if err := k.app.engine.watcher.Renew(ctx); err != nil {
		return err
	}
	ctx, cancel := store.Context(ctx)
	defer cancel()
	return store.Error("follow a change of keys", k.catchUp(ctx))
}

// catchUp installs what is wanted, until nothing newer is.
func (k *Keys) catchUp(ctx context.Context) error {
	for k.behind.outdated.Load() {
		result := k.behind.once.DoChan("install", func() (any, error) { return nil, k.task() })
		select {
		case r := <-result:
			if r.Err != nil {
				return r.Err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// task is install as close waits for it.
func (k *Keys) task() error {
	b := &k.behind
	b.mu.Lock()
	if err := b.ctx.Err(); err != nil {
		b.mu.Unlock()
		return err
	}
	b.tasks.Add(1)
	b.mu.Unlock()
	defer b.tasks.Done()
	return k.install(b.ctx)
}

// install makes this instance use the keys of the version that is wanted.
func (k *Keys) install(ctx context.Context) error {
	b := &k.behind
	b.mu.Lock()
	v, current := b.wanted, k.app.engine.watcher.FreshAt()
	b.mu.Unlock()
	if err := k.raise(v.Epoch); err != nil {
		return err
	}
	if s := k.stored.Load(); s != nil {
		if err := s.Follow(ctx); err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.installed = b.installed.With(v)
	b.current.Store(int64(current))
	b.outdated.Store(b.wanted.After(b.installed))
	return nil
}

// load makes the stored keys what they have to be: it makes the first and the next one.
func (k *Keys) load(ctx context.Context) error {
	if s := k.stored.Load(); s != nil {
		return s.Load(ctx)
	}
	return nil
}

// keysRetry is how long a change that could not be followed is left alone.
const keysRetry = time.Second

// follow installs what instances did, until nothing newer is wanted.
func (k *Keys) follow() {
	b := &k.behind
	for {
		err := k.catchUp(b.ctx)
		if err == nil {
			err = k.load(b.ctx)
		}
		b.mu.Lock()
		if b.ctx.Err() != nil || (err == nil && !b.outdated.Load()) {
			b.running = false
			b.mu.Unlock()
			return
		}
		b.mu.Unlock()
		if err == nil {
			continue // something newer has come meanwhile
		}
		k.app.engine.opts.Logger.Error("follow a change of keys", slog.String("app", k.app.slug), slog.Any("error", err))
		select {
		case <-b.ctx.Done():
		case <-time.After(keysRetry):
		}
	}
}

// close ends what runs in the background, or gives up with ctx.
func (k *Keys) close(ctx context.Context) error {
	if k.behind.stop == nil {
		return nil // never started
	}
	k.app.engine.watcher.ForgetKeys(k.app.slug)
	k.behind.mu.Lock()
	k.behind.stop() // nothing begins after that
	k.behind.mu.Unlock()
	return store.Wait(ctx, &k.behind.tasks)
}
