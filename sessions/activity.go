package sessions

import (
	"context"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/internal/store"
)

const (
	// activityQueue is how many notes of activity may wait, in 5 KiB for each app.
	// What does not fit is dropped: the next request of the session brings
	// another one.
	activityQueue = 128
	// activityBatch is how many notes are written with one command.
	activityBatch = 100
	// activityMemory bounds how many sessions the writer remembers.
	activityMemory = 16 << 10
	// ActivityInterval is how often one session's last_seen_at is written at
	// most. A caller that keeps to it spares the queue.
	ActivityInterval = time.Minute
)

type activity struct {
	sessionID string
	at        time.Time
}

// Seen notes that the session was used now. It neither blocks nor writes: a
// goroutine writes last_seen_at later, at most once in [ActivityInterval] for a
// session. After Close it does nothing.
func (m *Manager) Seen(sessionID string) {
	select {
	case m.seen <- activity{sessionID: sessionID, at: store.Time(m.config.Now())}:
	default:
	}
}

// recordActivity writes the notes until Close, and those that wait then.
func (m *Manager) recordActivity(ctx context.Context) {
	noted := map[string]time.Time{}
	for {
		select {
		case a := <-m.seen:
			_ = m.touch(ctx, m.collect(a, noted)) // the next note brings it again
		case <-m.closing:
			m.flush(ctx, noted)
			return
		}
	}
}

// flush writes what waits, and gives up with the first failure: a database that
// is away must not hold up a shutdown for the sake of a convenience.
func (m *Manager) flush(ctx context.Context, noted map[string]time.Time) {
	for {
		select {
		case a := <-m.seen:
			if err := m.touch(ctx, m.collect(a, noted)); err != nil {
				return
			}
		default:
			return
		}
	}
}

// collect takes what waits besides first, and leaves out the sessions that were
// noted within the interval.
func (m *Manager) collect(first activity, noted map[string]time.Time) map[string]time.Time {
	if len(noted) >= activityMemory {
		clear(noted)
	}
	batch := map[string]time.Time{}
	for a, more := first, true; more; {
		if last, ok := noted[a.sessionID]; !ok || a.at.Sub(last) >= ActivityInterval {
			batch[a.sessionID], noted[a.sessionID] = a.at, a.at
		}
		if len(batch) == activityBatch {
			return batch
		}
		select {
		case a = <-m.seen:
		default:
			more = false
		}
	}
	return batch
}

// touch writes a batch of notes. Its conditions keep the interval across
// instances too. Whoever calls does not report a failure: a database that is
// away is reported by everything else.
func (m *Manager) touch(ctx context.Context, batch map[string]time.Time) error {
	if len(batch) == 0 {
		return nil
	}
	writes := make([]mongo.WriteModel, 0, len(batch))
	for id, at := range batch {
		writes = append(writes, mongo.NewUpdateOneModel().
			SetFilter(m.byID(id, bson.E{Key: "state", Value: stateActive},
				bson.E{Key: "last_seen_at", Value: bson.D{{Key: "$lte", Value: at.Add(-ActivityInterval)}}})).
			SetUpdate(bson.D{{Key: "$set", Value: bson.D{{Key: "last_seen_at", Value: at}}}}))
	}
	ctx, cancel := store.Context(ctx)
	defer cancel()
	_, err := m.sessions.BulkWrite(ctx, writes, options.BulkWrite().SetOrdered(false))
	return store.Error("note activity", err)
}

// Close writes what is still to be written about activity and ends the
// goroutine. When ctx ends first the rest is dropped and the error wraps that of
// ctx. It may be called again.
func (m *Manager) Close(ctx context.Context) error {
	m.closed.Do(func() { close(m.closing) })
	defer m.stop()
	if err := store.Wait(ctx, &m.ended); err != nil {
		return fmt.Errorf("sessions: activity was not written to the end: %w", err)
	}
	return nil
}
