package mail

import (
	"context"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/internal/store"
)

// maxPending bounds what [Outbox.Pending] reads.
const maxPending = 1000

// Pending is what waits in an outbox.
type Pending struct {
	// Jobs is how many there are; 1,000 means that or more.
	Jobs int
	// Retried is how many of them were tried before, or are under way.
	Retried int
	// Overdue is for how long the first of them has been due, zero where none is. More
	// than Poll and Lease together says that nobody sends.
	Overdue time.Duration
}

// Pending returns what waits, of all instances.
func (o *Outbox) Pending(ctx context.Context) (Pending, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	cursor, err := o.coll.Find(ctx, bson.D{{Key: "app", Value: o.config.App}}, options.Find().
		SetSort(bson.D{{Key: "next_at", Value: 1}}).SetLimit(maxPending).
		SetProjection(bson.D{{Key: "next_at", Value: 1}, {Key: "attempts", Value: 1}}))
	if err != nil {
		return Pending{}, store.Error("read the mail outbox", err)
	}
	var found []record
	if err := cursor.All(ctx, &found); err != nil {
		return Pending{}, store.Error("read the mail outbox", err)
	}
	p := Pending{Jobs: len(found)}
	for i := range found {
		if found[i].Attempts > 0 {
			p.Retried++
		}
	}
	if len(found) > 0 {
		p.Overdue = max(0, o.config.Now().Sub(found[0].NextAt))
	}
	return p, nil
}
