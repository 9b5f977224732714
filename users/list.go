package users

import (
	"context"
	"time"

	"go.mongodb.org/mongo-driver/bson"

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
	filter := bson.D{{Key: "app", Value: s.config.App}}
	if opts.Status != "" {
		filter = append(filter, bson.E{Key: "status", Value: opts.Status})
	}
	if opts.Kind != "" {
		filter = append(filter, bson.E{Key: "kind", Value: opts.Kind})
	}
	list := store.List[User]{
		Op: "list users", Collection: s.users, Filter: filter, Hidden: []string{"password_hash", "device_hash", "email_norm"},
		Cursors: s.config.Keys, Scope: "users/" + string(opts.Status) + "/" + string(opts.Kind), Invalid: ErrInvalidCursor,
		Position: func(u *User) (time.Time, string) { return u.CreatedAt, u.ID },
	}
	users, next, err := list.Page(ctx, opts.Limit, opts.Cursor)
	if err != nil {
		return nil, err
	}
	return &Page{Users: users, Next: next}, nil
}
