package sessions

import (
	"context"
	"time"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/internal/store"
)

const (
	// activityQueue is how many notes of activity may wait. What does not fit is
	// dropped: the next request of the session brings another one.
	activityQueue = 1024
	// ActivityInterval is how often one session's last_seen_at is written at
	// most. Callers of Seen keep to it.
	ActivityInterval = time.Minute
)

type activity struct {
	sessionID string
	at        time.Time
}

// Seen notes that the session was used now. It neither blocks nor writes: a
// goroutine writes last_seen_at later.
func (m *Manager) Seen(sessionID string) {
	select {
	case m.seen <- activity{sessionID: sessionID, at: store.Time(m.config.Now())}:
	default:
	}
}

// recordActivity writes the notes until Close, and those that wait then.
func (m *Manager) recordActivity() {
	for {
		select {
		case a := <-m.seen:
			m.touch(a)
		case <-m.closing:
			for {
				select {
				case a := <-m.seen:
					m.touch(a)
				default:
					return
				}
			}
		}
	}
}

// touch writes one note. A failure is not reported: the note is a convenience,
// and a database that is away is reported by everything else.
func (m *Manager) touch(a activity) {
	ctx, cancel := store.Context(context.Background())
	defer cancel()
	_, _ = m.sessions.UpdateOne(ctx, bson.M{"_id": a.sessionID, "app": m.config.App, "state": stateActive},
		bson.M{"$max": bson.M{"last_seen_at": a.at}})
}

// Close writes what is still to be written about activity and ends the
// goroutine, or gives up with ctx.
func (m *Manager) Close(ctx context.Context) error {
	m.closed.Do(func() { close(m.closing) })
	return store.Wait(ctx, &m.ended)
}
