package users

import (
	"context"
	"fmt"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/internal/store"
)

// ListOptions choose a page of users.
type ListOptions struct {
	// Limit is the size of the page, 1 to 500. Default 50.
	Limit int
	// Cursor is the Next of the page before. Empty means the first page.
	Cursor string
	// Status and Kind select users; empty means all.
	Status Status
	Kind   authz.Kind
}

// Page is a page of users in the order of their creation.
type Page struct {
	Users []User
	// Next is the cursor of the next page, empty on the last.
	Next string
}

// List returns a page of the app's users. The error is [ErrInvalidCursor] for
// a cursor of another app or another selection.
func (s *Store) List(ctx context.Context, opts ListOptions) (*Page, error) {
	if opts.Limit <= 0 {
		opts.Limit = 50
	}
	opts.Limit = min(opts.Limit, 500)
	filter := bson.M{"app": s.config.App}
	if opts.Status != "" {
		filter["status"] = opts.Status
	}
	if opts.Kind != "" {
		filter["kind"] = opts.Kind
	}
	scope := "users/" + string(opts.Status) + "/" + string(opts.Kind)
	if opts.Cursor != "" {
		at, id, ok := s.config.Keys.OpenPosition(scope, opts.Cursor)
		if !ok {
			return nil, fmt.Errorf("%w: ask for the first page again", ErrInvalidCursor)
		}
		filter["$or"] = store.CreatedAfter(at, id)
	}
	ctx, cancel := store.Context(ctx)
	defer cancel()
	cursor, err := s.users.Find(ctx, filter, options.Find().
		SetSort(bson.D{{Key: "created_at", Value: 1}, {Key: "_id", Value: 1}}).
		SetLimit(int64(opts.Limit)+1).SetProjection(bson.M{"password_hash": 0, "device_hash": 0, "email_norm": 0}))
	if err != nil {
		return nil, store.Error("list users", err)
	}
	page := &Page{Users: []User{}}
	if err := cursor.All(ctx, &page.Users); err != nil {
		return nil, store.Error("list users", err)
	}
	if len(page.Users) > opts.Limit {
		page.Users = page.Users[:opts.Limit]
		last := page.Users[opts.Limit-1]
		page.Next = s.config.Keys.SealPosition(scope, last.CreatedAt, last.ID)
	}
	return page, nil
}
