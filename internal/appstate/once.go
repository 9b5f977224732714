package appstate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/internal/store"
)

const (
	// lease is how long an instance has for what is done once. One that died
	// keeps the others waiting for so long.
	lease = 10 * time.Second
	// leaseWork is what it takes of that at most: the rest is for clocks that
	// are apart.
	leaseWork = 5 * time.Second
	// leasePoll is how often the others look.
	leasePoll = 50 * time.Millisecond
)

// ErrBusy says that another instance was doing what is done once, and did not
// end in time. It wraps [store.ErrUnavailable]: trying again helps.
var ErrBusy = fmt.Errorf("another instance is seeding the app: %w", store.ErrUnavailable)

// Once does what has not been done before in the life of the app: do is called
// with those of the names that are not recorded, and they are recorded when it
// returns nil. Of many instances that start at once one does it and the others
// wait. do has to bear being repeated, for an instance that died before it could
// record.
func (s *Store) Once(ctx context.Context, slug string, names []string, do func(ctx context.Context, missing []string) error) error {
	done, err := s.turn(ctx, slug)
	if err != nil {
		return err
	}
	defer done()
	nonce := store.NewID("")
	state, err := s.lease(ctx, slug, nonce, names)
	if err != nil || state == nil {
		return err
	}
	missing := absent(names, state.Seeded)
	update := bson.M{"$unset": bson.M{"seeding": ""}}
	if len(missing) > 0 {
		work, cancel := context.WithTimeout(ctx, leaseWork)
		err = do(work, missing)
		cancel()
		if err == nil {
			update["$addToSet"] = bson.M{"seeded": bson.M{"$each": missing}}
		}
	}
	// Also when the caller has gone: the others should not wait for the lease.
	ctx, cancel := store.Context(context.WithoutCancel(ctx))
	defer cancel()
	_, ended := s.coll.UpdateOne(ctx, bson.M{"_id": slug, "seeding.by": nonce}, update)
	return errors.Join(err, store.Error("record what was seeded", ended))
}

// turn waits for the other calls of this instance. Whoever has it knows that a
// lease of the instance is one that a call could not give back.
func (s *Store) turn(ctx context.Context, slug string) (done func(), err error) {
	s.mu.Lock()
	turn := s.turns[slug]
	if turn == nil {
		turn = make(chan struct{}, 1)
		s.turns[slug] = turn
	}
	s.mu.Unlock()
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// lease waits for the other instances. The state is nil when there is nothing left to do.
func (s *Store) lease(ctx context.Context, slug, nonce string, names []string) (*State, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*lease, ErrBusy)
	defer cancel()
	fields := bson.M{"seeded": 1}
	tick := time.NewTicker(leasePoll)
	defer tick.Stop()
	for {
		var state State
		now := s.now()
		err := s.change(ctx, bson.M{"_id": slug, "$or": bson.A{
			bson.M{"seeding": bson.M{"$exists": false}},
			bson.M{"seeding.until": bson.M{"$lt": now}},
			bson.M{"seeding.instance": s.instance},
		}}, bson.M{"$set": bson.M{"seeding": bson.M{"by": nonce, "instance": s.instance, "until": store.Time(now.Add(lease))}}},
			options.FindOneAndUpdate().SetProjection(fields), &state)
		if err = store.Error("seed the app", err); err == nil {
			return &state, nil
		}
		if !errors.Is(err, store.ErrNotFound) {
			return nil, err
		}
		read, cancel := store.Context(ctx)
		err = s.coll.FindOne(read, bson.M{"_id": slug}, options.FindOne().SetProjection(fields)).Decode(&state)
		cancel()
		if err != nil {
			return nil, store.Error("read what was seeded", err)
		}
		if len(absent(names, state.Seeded)) == 0 {
			return nil, nil //nolint:nilnil // somebody else has done it
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// absent returns the names that are not in the list.
func absent(names, list []string) []string {
	var out []string
	for _, name := range names {
		if !slices.Contains(list, name) {
			out = append(out, name)
		}
	}
	return out
}
