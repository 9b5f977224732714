package issuers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mandate-auth/mandate/internal/strictjwt"
	"github.com/mandate-auth/mandate/tokens"
)

// retryWithout is how long after a failure the keys are asked for again while there
// are none.
const retryWithout = 5 * time.Second

// source keeps an issuer's keys and decides when they are fetched. However many
// callers wait, one fetch runs at a time, and it is nobody's in particular: a caller
// that gives up does not end it for the others.
type source struct {
	config    *Config
	client    *http.Client
	transport *http.Transport // ours to close, or nil
	ctx       context.Context
	cancel    context.CancelFunc
	running   sync.WaitGroup
	set       atomic.Pointer[keySet]

	mu        sync.Mutex
	closed    bool
	flight    *flight   // the fetch that runs, or nil
	attempted time.Time // when the last one began
	failed    error     // how it ended
}

// flight is one fetch.
type flight struct {
	done chan struct{}
	err  error // to be read after done
}

func newSource(c *Config) *source {
	s := &source{config: c}
	s.client, s.transport = newClient(c)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// current returns the keys to verify with at now. It fetches them where they are
// not fresh any more; what it returns is not dead.
func (s *source) current(ctx context.Context, now time.Time) (*keySet, error) {
	set := s.set.Load()
	if set != nil && now.Before(set.soft) {
		return set, nil
	}
	f, failed := s.start(now)
	switch alive := set != nil && now.Before(set.dead); {
	case alive && (now.Before(set.stale) || failed != nil || f == nil):
		// In the background. An issuer that could not be reached a while ago is not
		// waited for either.
		return set, nil
	case f == nil:
		return nil, unavailable(failed)
	}
	err := f.wait(ctx)
	if ctx.Err() != nil && err != nil {
		return nil, err
	}
	if set = s.set.Load(); set == nil || !now.Before(set.dead) {
		return nil, cmp.Or(err, ErrUnavailable)
	}
	return set, nil
}

// find returns the key of a token, and the set that it is in. An id that is not
// there may be new: then the keys are fetched, but seldom.
func (s *source) find(ctx context.Context, now time.Time, id, algorithm string) (*keySet, *strictjwt.Key, error) {
	set, err := s.current(ctx, now)
	if err != nil {
		return nil, nil, err
	}
	k, unambiguous := set.find(id, algorithm)
	if k == nil && unambiguous {
		f, failed := s.start(now)
		switch {
		case f != nil:
			if err := f.wait(ctx); err != nil {
				return nil, nil, err
			}
			set = s.set.Load()
			k, unambiguous = set.find(id, algorithm)
		case failed != nil:
			// Whether the key is a new one cannot be known.
			return nil, nil, unavailable(failed)
		}
	}
	switch {
	case k != nil:
		return set, k, nil
	case !unambiguous:
		return nil, nil, fmt.Errorf("%w: several keys could be its", tokens.ErrInvalid)
	default:
		return nil, nil, tokens.ErrUnknownKey
	}
}

// start returns the fetch that runs, or begins one. It returns nil when the last
// attempt is too young. failed is how the last one that ended has failed, nil if it
// has not.
func (s *source) start(now time.Time) (f *flight, failed error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flight != nil {
		return s.flight, s.failed
	}
	pause := s.config.MinRefresh
	if set := s.set.Load(); set == nil || !now.Before(set.dead) {
		pause = min(pause, retryWithout)
	}
	if s.closed {
		return nil, errClosed
	}
	if !s.attempted.IsZero() && now.Sub(s.attempted) < pause {
		return nil, s.failed
	}
	f = &flight{done: make(chan struct{})}
	failed = s.failed
	s.flight, s.attempted = f, now
	s.running.Go(func() { s.run(f, now) })
	return f, failed
}

// errClosed is why nothing is fetched after Close.
var errClosed = errors.New("the issuer is closed")

func (s *source) run(f *flight, now time.Time) {
	set, err := s.fetch(s.ctx, now)
	if err != nil {
		s.config.Logger.LogAttrs(s.ctx, slog.LevelWarn, "the keys of an issuer could not be fetched",
			slog.String("issuer", s.config.Name), slog.Any("error", err))
	}
	s.mu.Lock()
	if err == nil {
		s.set.Store(set)
	}
	s.flight, s.failed, f.err = nil, err, err
	s.mu.Unlock()
	close(f.done)
}

// wait waits for the end of the fetch, or of ctx. The error wraps [ErrUnavailable].
func (f *flight) wait(ctx context.Context) error {
	select {
	case <-f.done:
		if f.err != nil {
			return unavailable(f.err)
		}
		return nil
	case <-ctx.Done():
		return unavailable(ctx.Err())
	}
}

func unavailable(cause error) error {
	if cause == nil {
		return ErrUnavailable
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, cause)
}

// report says when the keys change, and when there is none that can be used.
func (s *source) report(keys []strictjwt.Key, ignored int) {
	level, old := slog.LevelDebug, s.set.Load()
	switch {
	case len(keys) == 0:
		level = slog.LevelWarn
	case old == nil || len(old.keys) != len(keys):
		level = slog.LevelInfo
	}
	s.config.Logger.LogAttrs(s.ctx, level, "fetched the keys of an issuer",
		slog.String("issuer", s.config.Name), slog.Int("keys", len(keys)), slog.Int("ignored", ignored))
}

func (s *source) close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	done := make(chan struct{})
	go func() {
		s.running.Wait()
		if s.transport != nil {
			s.transport.CloseIdleConnections()
		}
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("issuers: closing issuer %q: %w", s.config.Name, ctx.Err())
	}
}
