package apikey

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/internal/store"
)

const (
	// UseInterval is how often one key's last_used_at is written at most.
	UseInterval = time.Minute
	// useQueue is how many notes may wait. What does not fit is dropped: the next use
	// of the key brings another one.
	useQueue = 256
	// useBatch is how many notes are written with one command.
	useBatch = 100
)

// use is a note that a key was used.
type use struct {
	keyID string
	at    time.Time
}

// use notes that the key was used now. It neither blocks nor writes, and does
// nothing within [UseInterval] of the last note.
func (s *Store) use(e *entry, now time.Time) {
	last, at := e.used.Load(), now.UnixMilli()
	if at-last < UseInterval.Milliseconds() || !e.used.CompareAndSwap(last, at) {
		return
	}
	select {
	case s.uses <- use{keyID: e.ID, at: store.Time(now)}:
	default:
		e.used.CompareAndSwap(at, last)
	}
}

// recordUses writes the notes until Close, and those that wait then.
func (s *Store) recordUses(ctx context.Context) {
	for {
		select {
		case u := <-s.uses:
			if err := s.touch(ctx, s.collect(u)); err != nil {
				s.config.Logger.WarnContext(ctx, "the use of API keys was not noted", slog.String("app", s.config.App), slog.Any("error", err))
			}
		case <-s.closing:
			s.flush(ctx)
			return
		}
	}
}

// flush writes what waits, and gives up with the first failure: a database that is
// away must not hold up a shutdown for the sake of a convenience.
func (s *Store) flush(ctx context.Context) {
	for {
		select {
		case u := <-s.uses:
			if err := s.touch(ctx, s.collect(u)); err != nil {
				return
			}
		default:
			return
		}
	}
}

// collect takes what waits besides first.
func (s *Store) collect(first use) map[string]time.Time {
	batch := map[string]time.Time{first.keyID: first.at}
	for len(batch) < useBatch {
		select {
		case u := <-s.uses:
			batch[u.keyID] = u.at
		default:
			return batch
		}
	}
	return batch
}

// touch writes a batch of notes. Its conditions keep the interval across instances
// too.
func (s *Store) touch(ctx context.Context, batch map[string]time.Time) error {
	writes := make([]mongo.WriteModel, 0, len(batch))
	for id, at := range batch {
		writes = append(writes, mongo.NewUpdateOneModel().
			SetFilter(bson.D{
				{Key: "_id", Value: id},
				{Key: "app", Value: s.config.App},
				{Key: "$or", Value: bson.A{
					bson.D{{Key: "last_used_at", Value: bson.D{{Key: "$exists", Value: false}}}},
					bson.D{{Key: "last_used_at", Value: bson.D{{Key: "$lte", Value: at.Add(-UseInterval)}}}},
				}},
			}).
			SetUpdate(bson.D{{Key: "$set", Value: bson.D{{Key: "last_used_at", Value: at}}}}))
	}
	ctx, cancel := store.Context(ctx)
	defer cancel()
	_, err := s.coll.BulkWrite(ctx, writes, options.BulkWrite().SetOrdered(false))
	return store.Error("note the use of API keys", err)
}

// Close writes what is still to be written about the use of keys and ends the
// goroutine. When ctx ends first the rest is dropped and the error wraps that of
// ctx. It may be called again.
func (s *Store) Close(ctx context.Context) error {
	s.closed.Do(func() { close(s.closing) })
	defer s.stop()
	if err := store.Wait(ctx, &s.ended); err != nil {
		return fmt.Errorf("apikey: the use of keys was not written to the end: %w", err)
	}
	return nil
}
