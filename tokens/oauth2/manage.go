package oauth2

import (
	"context"
	"errors"
	"fmt"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
)

// Get returns a client. The error is [ErrNotFound] when there is none.
func (s *Store) Get(ctx context.Context, id string) (*Client, error) {
	r, err := s.read(ctx, id)
	if err != nil {
		return nil, err
	}
	return s.client(r), nil
}

// GetByName returns the client of the name, which is unique in the app. The error is
// [ErrNotFound] when there is none.
func (s *Store) GetByName(ctx context.Context, name string) (*Client, error) {
	r, err := s.findOne(ctx, bson.D{{Key: "app", Value: s.config.App}, {Key: "name", Value: name}})
	if err != nil {
		return nil, err
	}
	return s.client(r), nil
}

func (s *Store) read(ctx context.Context, id string) (*record, error) {
	return s.findOne(ctx, s.byID(id))
}

func (s *Store) findOne(ctx context.Context, filter bson.D) (*record, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	var r record
	err := s.coll.FindOne(ctx, filter).Decode(&r)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, store.Error("read the client", err)
	}
	return &r, nil
}

// ListOptions choose a page of clients.
type ListOptions struct {
	// Limit is the size of the page, 1 to 500. Default 50.
	Limit int
	// Cursor is the Next of the page before. Empty means the first page.
	Cursor string
}

// Page is a page of clients in the order of their names.
type Page struct {
	Clients []Client `json:"clients"`
	// Next is the cursor of the next page, empty on the last.
	Next string `json:"next,omitempty"`
}

// cursorScope names the list that cursors are of.
const cursorScope = "oauth_clients"

// List returns a page of the app's clients. The error is [ErrInvalidCursor] for a
// cursor of another app.
func (s *Store) List(ctx context.Context, opts ListOptions) (*Page, error) {
	if opts.Limit <= 0 {
		opts.Limit = 50
	}
	opts.Limit = min(opts.Limit, 500)
	filter := bson.D{{Key: "app", Value: s.config.App}}
	if opts.Cursor != "" {
		name, ok := s.config.Keys.OpenCursor(cursorScope, opts.Cursor)
		if !ok {
			return nil, fmt.Errorf("%w: ask for the first page again", ErrInvalidCursor)
		}
		filter = append(filter, bson.E{Key: "name", Value: bson.D{{Key: "$gt", Value: name}}})
	}
	ctx, cancel := store.Context(ctx)
	defer cancel()
	cursor, err := s.coll.Find(ctx, filter, options.Find().
		SetSort(bson.D{{Key: "name", Value: 1}}).SetLimit(int64(opts.Limit)+1))
	if err != nil {
		return nil, store.Error("list clients", err)
	}
	var found []record
	if err := cursor.All(ctx, &found); err != nil {
		return nil, store.Error("list clients", err)
	}
	page := &Page{Clients: []Client{}}
	if len(found) > opts.Limit {
		found = found[:opts.Limit]
		page.Next = s.config.Keys.SealCursor(cursorScope, found[opts.Limit-1].Name)
	}
	for i := range found {
		page.Clients = append(page.Clients, *s.client(&found[i]))
	}
	return page, nil
}

// Disable closes the client: it gets no tokens, and those that it has are dead when
// the call returns nil. A call that fails half way is repeated whole.
func (s *Store) Disable(ctx context.Context, id, reason string) error {
	return s.change(ctx, id, setting("status", Disabled), event.ClientDisabled, reason)
}

// Enable opens the client again. Tokens that were ended stay ended.
func (s *Store) Enable(ctx context.Context, id string) error {
	return s.change(ctx, id, setting("status", Active), event.ClientEnabled, "")
}

// SetScopes gives the client other scopes. Its tokens are dead when the call returns
// nil: what was narrowed counts at once. A call that fails half way is repeated
// whole.
func (s *Store) SetScopes(ctx context.Context, id string, scopes []string) error {
	scopes, err := s.checkScopes(scopes)
	if err != nil {
		return err
	}
	return s.change(ctx, id, setting("scopes", scopes), event.ClientUpdated, "")
}

// setting is the update that gives a field its value.
func setting(field string, value any) bson.D {
	return bson.D{{Key: "$set", Value: bson.D{{Key: field, Value: value}}}}
}

// change updates a client in a new epoch and ends what was issued before it.
func (s *Store) change(ctx context.Context, id string, update bson.D, kind event.Type, reason string) error {
	ctx = context.WithoutCancel(ctx)
	after, err := s.modify(ctx, s.byID(id), append(update, bson.E{Key: "$inc", Value: bson.D{{Key: "epoch", Value: int64(1)}}}))
	if err != nil {
		return err
	}
	s.report(ctx, kind, id, reason)
	return s.config.Blacklist.AddClient(ctx, id, after.Epoch, string(kind))
}

// Delete removes the client. It is disabled first, so that a call that fails half
// way leaves nothing that can be used; it is repeated whole. The name is free
// afterwards. The error is [ErrNotFound] for a client that is not there.
func (s *Store) Delete(ctx context.Context, id string) error {
	if err := s.Disable(ctx, id, "deleted"); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	bounded, cancel := store.Context(ctx)
	defer cancel()
	if _, err := s.coll.DeleteOne(bounded, s.byID(id)); err != nil {
		return store.Error("delete the client", err)
	}
	s.report(ctx, event.ClientDeleted, id, "")
	return nil
}
