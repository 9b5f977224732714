package store

import (
	"context"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"
)

const (
	defaultPage = 50
	maxPage     = 500
)

// Cursors makes the cursors of pages and reads them. keys.App does.
type Cursors interface {
	SealPosition(scope string, at time.Time, id string) string
	OpenPosition(scope, cursor string) (at time.Time, id string, ok bool)
}

// List is a list of documents in the order of created_at and _id.
type List[T any] struct {
	// Op names the call in errors.
	Op         string
	Collection *mongo.Collection
	// Filter chooses the documents; "$or" and "_id" are not in it.
	Filter bson.D
	// Hidden are fields that are not read.
	Hidden []string
	// Position returns created_at and _id.
	Position func(*T) (at time.Time, id string)
	Cursors  Cursors
	// Scope names the list: a cursor of another one is Invalid.
	Scope   string
	Invalid error
}

// Page returns the documents that follow cursor, "" for the first ones, and the cursor of
// the next page, "" on the last. limit is 1 to 500, 0 for 50.
func (l *List[T]) Page(ctx context.Context, limit int, cursor string) (items []T, next string, err error) {
	if limit <= 0 {
		limit = defaultPage
	}
	limit = min(limit, maxPage)
	filter := l.Filter
	if cursor != "" {
		at, id, ok := l.Cursors.OpenPosition(l.Scope, cursor)
		if !ok {
			return nil, "", fmt.Errorf("%w: ask for the first page again", l.Invalid)
		}
		filter = append(filter[:len(filter):len(filter)], bson.E{Key: "$or", Value: bson.A{
			bson.D{{Key: "created_at", Value: bson.D{{Key: "$gt", Value: at}}}},
			bson.D{{Key: "created_at", Value: at}, {Key: "_id", Value: bson.D{{Key: "$gt", Value: id}}}},
		}})
	}
	find := options.Find().SetSort(bson.D{{Key: "created_at", Value: 1}, {Key: "_id", Value: 1}}).SetLimit(int64(limit) + 1)
	if len(l.Hidden) > 0 {
		hidden := bson.D{}
		for _, field := range l.Hidden {
			hidden = append(hidden, bson.E{Key: field, Value: 0})
		}
		find.SetProjection(hidden)
	}
	ctx, cancel := Context(ctx)
	defer cancel()
	found, err := l.Collection.Find(ctx, filter, find)
	if err != nil {
		return nil, "", Error(l.Op, err)
	}
	items = []T{}
	if err := found.All(ctx, &items); err != nil {
		return nil, "", Error(l.Op, err)
	}
	if len(items) > limit {
		items = items[:limit]
		at, id := l.Position(&items[limit-1])
		next = l.Cursors.SealPosition(l.Scope, at, id)
	}
	return items, next, nil
}
