package casbin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/internal/appstate"
	"github.com/mandate-auth/mandate/internal/store"
)

const (
	// maxReread is how many rules are read one by one after changes. Beyond that
	// all are read.
	maxReread = 256
	// loadAttempts is how often all rules are read again because more changes
	// came meanwhile than the log keeps.
	loadAttempts = 3
	// dropAfter is after how many minutes without a question the rules leave the
	// memory.
	dropAfter = 10
)

// Age returns how old what is decided by is at most: how long ago the installed
// rules were surely the current ones.
func (p *Provider) Age() time.Duration { return p.watch.Age() }

// current returns the snapshot that may decide now. As long as it is known to be
// fresh this is two atomic loads and a look at the clock.
func (p *Provider) current(ctx context.Context) (*snapshot, error) {
	if p.idle.Load() != 0 {
		p.idle.Store(0)
	}
	if s := p.fresh(); s != nil {
		return s, nil
	}
	return p.wait(ctx)
}

// fresh returns the snapshot if it may decide now, and nil otherwise.
func (p *Provider) fresh() *snapshot {
	if s := p.snapshot.Load(); s != nil && p.watch.Age() <= p.config.MaxStaleness {
		return s
	}
	return nil
}

// wait makes the snapshot fresh, or fails within [store.CallTimeout]. Everybody
// who waits shares one read.
func (p *Provider) wait(ctx context.Context) (*snapshot, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	// A refresh that was under way may have begun before the newest change.
	for range loadAttempts {
		if p.snapshot.Load() != nil && !p.watch.Outdated() {
			if err := p.watch.Renew(ctx); err != nil {
				return nil, unavailable(err)
			}
		} else if err := p.shared(ctx); err != nil {
			return nil, unavailable(err)
		}
		if s := p.fresh(); s != nil {
			return s, nil
		}
	}
	return nil, unavailable(errors.New("the rules changed faster than they could be read"))
}

// unavailable says that nothing can be decided now.
func unavailable(err error) error {
	var damaged *DamagedError
	if errors.As(err, &damaged) {
		return err // waiting does not cure it
	}
	return fmt.Errorf("%w: %w", authz.ErrUnavailable, err)
}

// shared waits for a refresh that may be somebody else's. It goes on when the
// one who asked for it has gone.
func (p *Provider) shared(ctx context.Context) error {
	done := p.flight.DoChan("refresh", func() (any, error) {
		if !p.enter() {
			return nil, errClosed
		}
		defer p.ended.Done()
		return nil, p.refresh(p.run, nil)
	})
	select {
	case r := <-done:
		return r.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

var errClosed = errors.New("the provider is closed")

// enter begins something that Close waits for. When it returns true the caller
// has to call p.ended.Done.
func (p *Provider) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.ended.Add(1)
	}
	return !p.closed
}

// kick refreshes in the background because a newer version has been seen.
// Notices that come before it has begun to read are covered by it.
func (p *Provider) kick() {
	if p.snapshot.Load() == nil {
		return // nobody has asked yet
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kicked || p.closed {
		return
	}
	p.kicked = true
	p.ended.Go(func() {
		p.mu.Lock()
		p.kicked = false
		p.mu.Unlock()
		if err := p.refresh(p.run, nil); err != nil && p.run.Err() == nil {
			p.config.Logger.Error("a changed policy cannot be read; checks are refused once the old one is too old",
				slog.String("app", p.config.App), slog.Any("error", err))
		}
	})
}

// refresh installs the newest policy: by reading the rules that were touched
// since the installed one, or all of them. seen is a version that was read just
// now, or nil. One refresh runs at a time; who waited finds it done.
func (p *Provider) refresh(ctx context.Context, seen *appstate.Policy) error {
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	began := p.watch.Now()
	if seen == nil {
		if p.snapshot.Load() != nil && !p.watch.Outdated() {
			return nil // who had the turn before has done it
		}
		var err error
		if seen, err = p.config.State.Policy(ctx, p.config.App); err != nil {
			return err
		}
	}
	installed := p.snapshot.Load()
	if installed == nil {
		return p.load(ctx)
	}
	if !installed.version.Outdated(seen.Version) {
		if installed.version.Epoch == seen.Epoch {
			p.watch.Install(installed.version, began)
		}
		return nil
	}
	next, err := p.reread(ctx, installed, seen)
	if err != nil {
		return err
	}
	if next == nil {
		return p.load(ctx)
	}
	p.install(next)
	p.watch.Install(next.version, began)
	return nil
}

// install makes the snapshot decide, nil for none, and returns the one before.
// Nothing is installed once the provider is closed: nobody would let it go.
func (p *Provider) install(next *snapshot) (before *snapshot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		next = nil
	}
	return p.config.Memory.install(p, next)
}

// reread makes the snapshot of the policy out of an older one by reading the
// rules that were touched in between. What is read is at least as new as the
// policy; what is newer is touched again later. The snapshot is nil when all
// rules have to be read.
func (p *Provider) reread(ctx context.Context, from *snapshot, to *appstate.Policy) (*snapshot, error) {
	keys, ok := to.Since(from.version.Epoch)
	if !ok || len(keys) > maxReread {
		return nil, nil //nolint:nilnil // described above
	}
	rows, err := p.store.touched(ctx, p.config.App, p.grammar, keys)
	// What is too much for one call would be so each time, and nothing be decided.
	// All rules are read by many calls.
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, errSlow) {
		return nil, nil //nolint:nilnil,nilerr // described above
	}
	if err != nil {
		return nil, err
	}
	b := build(from)
	present := map[row]bool{}
	for _, d := range rows {
		present[d.row] = true
	}
	for _, key := range keys {
		for _, r := range keyRows(from, key) {
			if !present[r] {
				b.remove(r)
			}
		}
	}
	for r := range present {
		b.add(r)
	}
	return b.done(to.Version)
}

// load reads all rules and installs them. What is written meanwhile is in the
// log of changes by the time it is acknowledged, and read again.
func (p *Provider) load(ctx context.Context) error {
	for range loadAttempts {
		before, err := p.config.State.Policy(ctx, p.config.App)
		if err != nil {
			return err
		}
		rows, err := p.store.all(ctx, p.config.App, p.grammar)
		if err != nil {
			return err
		}
		b := build(&snapshot{grammar: p.grammar, hierarchy: p.config.Hierarchy})
		for _, d := range rows {
			b.add(d.row)
		}
		read, err := b.done(before.Version)
		if err != nil {
			return err
		}
		began := p.watch.Now()
		after, err := p.config.State.Policy(ctx, p.config.App)
		if err != nil {
			return err
		}
		next, err := p.reread(ctx, read, after)
		if err != nil {
			return err
		}
		if next != nil {
			p.replace(next)
			p.watch.Install(next.version, began)
			if p.watch.Outdated() {
				p.kick() // a change was noticed when there was nothing to refresh yet
			}
			return nil
		}
	}
	return errors.New("more changes came while the rules were read than the log keeps")
}

// replace installs what was read whole, and says so when it shows that somebody
// has written past Mandate.
func (p *Provider) replace(next *snapshot) {
	old := p.install(next)
	if old != nil && old.version.Epoch == next.version.Epoch && (old.rows != next.rows || old.digest != next.digest) {
		p.config.Logger.Warn("the rules were changed by somebody else than Mandate; the change decides from now on",
			slog.String("app", p.config.App), slog.Int("rules", next.rows))
	}
}

// Upkeep compares the rules in memory with those in the database, or lets them
// go when nobody has asked for ten minutes. The engine calls it once a minute: a
// tool that writes to the collection is noticed by that at the latest.
func (p *Provider) Upkeep(ctx context.Context) error {
	if p.snapshot.Load() == nil {
		return nil
	}
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if p.idle.Add(1) > dropAfter {
		p.install(nil)
		return nil
	}
	return p.load(ctx)
}
