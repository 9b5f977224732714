package signing

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/tokens"
)

// Rotate makes the next key. It signs after Config.Lead; until then it is
// published. Where the next key is there already, that one is returned and none is
// made.
func (s *Store) Rotate(ctx context.Context) (*KeyInfo, error) { return s.rotate(ctx, s.config.Lead) }

// RotateNow makes a key that signs at once, or makes the published one do so.
// Verifiers that keep the key set meet a kid that they do not know, and other
// instances do until they have loaded: the former have to fetch the set for it,
// the latter do by [Store.RefreshUnknown]. Use Rotate where there is no hurry.
func (s *Store) RotateNow(ctx context.Context) (*KeyInfo, error) { return s.rotate(ctx, 0) }

func (s *Store) rotate(ctx context.Context, lead time.Duration) (*KeyInfo, error) {
	unlock, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	for range maxTries {
		p, err := s.read(ctx)
		if err != nil {
			return nil, err
		}
		next := p.next
		switch {
		case p.signing == nil:
			next, err = s.create(ctx, p, whyFirst, p.now)
		case next == nil:
			next, err = s.create(ctx, p, whyCommand, p.now.Add(lead))
		case lead == 0:
			_, err = s.promote(ctx, p, next)
		}
		if errors.Is(err, store.ErrDuplicate) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return s.finishRotation(ctx, next.ID)
	}
	return nil, errRace
}

// finishRotation makes the stored change known and says what the key is now.
func (s *Store) finishRotation(ctx context.Context, kid string) (*KeyInfo, error) {
	if err := errors.Join(s.announce(ctx), s.load(ctx)); err != nil {
		return nil, fmt.Errorf("signing key %s is stored, but not in use everywhere yet: %w", kid, err)
	}
	p, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	r := p.find(kid)
	if r == nil {
		return nil, ErrUnknown // an epoch was raised meanwhile
	}
	info := p.info(r)
	return &info, nil
}

// promote makes a published key sign at once.
func (s *Store) promote(ctx context.Context, p *plan, r *record) (bool, error) {
	return s.update(ctx, r.ID, bson.M{"revoked_at": bson.M{"$exists": false}}, bson.M{"$min": bson.M{"active_from": store.Time(p.now)}})
}

func (s *Store) announce(ctx context.Context) error {
	if s.config.Announce == nil {
		return nil
	}
	if err := s.config.Announce(ctx); err != nil {
		return fmt.Errorf("tell the other instances: %w", err)
	}
	return nil
}

// Revoke ends the key of the kid, which somebody else may have: its tokens are
// refused and it is published no more. If it was the one that signs, the published
// one takes its place at once, or a new one does, as with [Store.RotateNow]. The
// private part is destroyed.
//
// When it returns nil, this instance refuses the key, and the others have been
// told by Config.Announce. On an error the call may be repeated; it is nothing new
// for a key that is revoked already. An unknown kid is [ErrUnknown].
func (s *Store) Revoke(ctx context.Context, kid string) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.revoke(ctx, kid); err != nil {
		return err
	}
	announced := s.announce(ctx)
	loaded := s.load(ctx)
	if loaded != nil {
		s.drop(kid)
	}
	if err := errors.Join(announced, loaded); err != nil {
		return fmt.Errorf("signing key %s is revoked here, but: %w", kid, err)
	}
	return nil
}

func (s *Store) revoke(ctx context.Context, kid string) error {
	if !validKid(kid) {
		return ErrUnknown
	}
	for range maxTries {
		p, err := s.read(ctx)
		if err != nil {
			return err
		}
		r := p.find(kid)
		if r == nil {
			return ErrUnknown
		}
		if !r.RevokedAt.IsZero() {
			return nil
		}
		if r != p.signing {
			return s.mark(ctx, p, r)
		}
		// The successor comes first: an instance that loads in between has to find a
		// key to sign with.
		if err := s.succeed(ctx, p); err != nil && !errors.Is(err, store.ErrDuplicate) {
			return err
		}
	}
	return errRace
}

// succeed makes another key than the signing one sign at once.
func (s *Store) succeed(ctx context.Context, p *plan) error {
	if p.next == nil {
		_, err := s.create(ctx, p, whyRevoked, p.now)
		return err
	}
	done, err := s.promote(ctx, p, p.next)
	if done {
		s.report(ctx, event.SigningKeyActivated, p.next, whyRevoked)
	}
	return err
}

// mark writes that the key is revoked. It is remembered for as long as its tokens
// could live, and its number for as long as it is the highest.
func (s *Store) mark(ctx context.Context, p *plan, r *record) error {
	until := p.now.Add(p.life(r) + margin)
	if r.RetireAt.After(until) {
		until = r.RetireAt
	}
	first, err := s.update(ctx, r.ID, bson.M{"revoked_at": bson.M{"$exists": false}}, bson.M{
		"$set":   bson.M{"revoked_at": store.Time(p.now), "retire_at": store.Time(until)},
		"$unset": bson.M{"private": ""},
	})
	if first {
		s.report(ctx, event.SigningKeyRevoked, r, "")
	}
	return err
}

// drop takes the key out of the current set where the set could not be loaded
// again. Rather no key signs than one that is known to somebody else.
func (s *Store) drop(kid string) {
	old := s.set.Load()
	set := *old
	set.Accepted = slices.DeleteFunc(slices.Clone(old.Accepted), func(k tokens.SigningKey) bool { return k.ID == kid })
	if old.Signing.ID == kid {
		set.Signing = tokens.SigningKey{}
	}
	published, err := newKeySet(set.Accepted)
	if err != nil {
		published = emptyKeySet
	}
	set.jwks = published
	s.replace(&set)
}

// List returns the keys of the app's epoch, the newest first, as they are stored:
// also those that cannot be opened. Those that nobody needs any more are left out.
func (s *Store) List(ctx context.Context) ([]KeyInfo, error) {
	p, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]KeyInfo, 0, len(p.keys))
	for _, r := range p.keys {
		if p.accepts(r) || !r.RevokedAt.IsZero() {
			out = append(out, p.info(r))
		}
	}
	return out, nil
}

// attempt is one load that several callers may wait for.
type attempt struct {
	done chan struct{}
	err  error
}

// RefreshUnknown reads the keys again because of a token whose kid the current set
// does not have, and reports whether the key is accepted now, also by who follows
// OnChange. It makes no keys.
//
// It reads at most once in two seconds, whatever it is asked, and never for a kid
// that is known and dead or that is not one of the next: kids follow from the app's
// salt, so who sends made-up tokens, or such that have ended, gets no load on the
// database for them. Callers that come while a read is under way
// share it. The error is that of the read, also of one just now that failed, or
// [ErrTooSoon] for a kid that one just now did not find.
func (s *Store) RefreshUnknown(ctx context.Context, kid string) (bool, error) {
	if set := s.given.Load(); set.known[kid] || !s.mayBeNew(set, kid) {
		return set.accepts(kid), nil
	}
	a, leads, err := s.join()
	if err != nil {
		if s.given.Load().accepts(kid) {
			return true, nil
		}
		return false, err
	}
	if leads {
		s.lead(ctx, a)
		return s.given.Load().accepts(kid), a.err
	}
	select {
	case <-a.done:
		return s.given.Load().accepts(kid), a.err
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// join returns the load that is under way, or a new one that the caller has to
// lead, or an error when the last was just now.
func (s *Store) join() (a *attempt, leads bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.attempt != nil {
		return s.attempt, false, nil
	}
	now := s.config.Now()
	if since := now.Sub(s.attempted); since >= 0 && since < unknownInterval {
		return nil, false, cmp.Or(s.failed, ErrTooSoon)
	}
	s.attempt, s.attempted = &attempt{done: make(chan struct{})}, now
	return s.attempt, true, nil
}

// lead carries out the load. It does not end with the caller, for whom the others
// cannot be blamed.
func (s *Store) lead(ctx context.Context, a *attempt) {
	ctx, cancel := store.Context(context.WithoutCancel(ctx))
	defer cancel()
	a.err = s.Follow(ctx)
	s.mu.Lock()
	s.attempt, s.failed = nil, a.err
	s.mu.Unlock()
	close(a.done)
}

// Follow reads the keys again because others have changed them. It makes no keys, and
// does nothing else that Load does.
func (s *Store) Follow(ctx context.Context) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	p, err := s.read(ctx)
	if err != nil {
		return err
	}
	return s.install(ctx, p)
}

func (set *Set) accepts(kid string) bool {
	return slices.ContainsFunc(set.Accepted, func(k tokens.SigningKey) bool { return k.ID == kid })
}
