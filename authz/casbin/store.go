package casbin

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/casbin/casbin/v2/persist"
	mongodbadapter "github.com/casbin/mongodb-adapter/v3"
	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/internal/store"
)

// DefaultCollection is the default collection of policies.
const DefaultCollection = "casbin_policies"

// Store is a collection of policies, which any number of apps share. It is safe
// for concurrent use.
//
// Rules are written by Casbin's adapter for MongoDB, in the form that stock
// Casbin reads, and read here: the adapter parses values again as CSV, and can
// return a part of the rules without an error.
type Store struct {
	coll    *mongo.Collection
	adapter persist.BatchAdapter
}

// indexes are those of a policies collection. The first is the adapter's own; it
// makes a rule exist once.
var indexes = []store.Index{
	{
		Name: "ptype_1_v0_1_v1_1_v2_1_v3_1_v4_1_v5_1", Unique: true,
		Keys: bson.D{
			{Key: "ptype", Value: 1},
			{Key: "v0", Value: 1},
			{Key: "v1", Value: 1},
			{Key: "v2", Value: 1},
			{Key: "v3", Value: 1},
			{Key: "v4", Value: 1},
			{Key: "v5", Value: 1},
		},
	},
	// The rules of an app, in the order in which they are listed.
	{Name: "app_policies", Keys: bson.D{
		{Key: "v1", Value: 1}, {Key: "ptype", Value: 1}, {Key: "v0", Value: 1}, {Key: "v2", Value: 1}, {Key: "v3", Value: 1}, {Key: "v4", Value: 1},
	}},
	// The assignments of an app, in the order in which the members of a role are
	// listed.
	{Name: "app_groupings", Keys: bson.D{
		{Key: "v2", Value: 1}, {Key: "ptype", Value: 1}, {Key: "v1", Value: 1}, {Key: "v0", Value: 1},
	}},
}

// Open makes sure of the collection's indexes. The service keeps the client:
// nothing here ever disconnects it.
func Open(ctx context.Context, db *mongo.Database, collection string) (*Store, error) {
	if collection == "" {
		collection = DefaultCollection
	}
	coll := store.Handle(db).Collection(collection)
	if _, err := store.Indexes(ctx, coll, indexes); err != nil {
		return nil, err
	}
	adapter, err := newAdapter(ctx, db.Client(), &mongodbadapter.AdapterConfig{
		DatabaseName: db.Name(), CollectionName: collection, Timeout: store.CallTimeout,
	})
	if err != nil {
		return nil, store.Error("open the policies", err)
	}
	return &Store{coll: coll, adapter: adapter}, nil
}

// newAdapter returns the adapter without its finalizer, which would disconnect
// the service's client once nobody holds the adapter any more. It creates an
// index without a deadline, so it is not waited for longer than a call may take.
func newAdapter(ctx context.Context, client *mongo.Client, config *mongodbadapter.AdapterConfig) (persist.BatchAdapter, error) {
	type result struct {
		adapter persist.BatchAdapter
		err     error
	}
	made := make(chan result, 1)
	go func() {
		a, err := mongodbadapter.NewAdapterByDB(client, config)
		if err == nil {
			runtime.SetFinalizer(a, nil)
		}
		made <- result{a, err}
	}()
	ctx, cancel := store.Context(ctx)
	defer cancel()
	select {
	case r := <-made:
		return r.adapter, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// add writes rows. One that is there already is not written again.
func (s *Store) add(app string, rows []row) error {
	return s.each(app, rows, func(ptype string, values [][]string) error {
		for part := range slices.Chunk(values, insertBatch) {
			if err := s.insert(ptype, part); err != nil {
				return err
			}
		}
		return nil
	})
}

// insertBatch is how many rows are written by one command, which has to be done
// within [store.CallTimeout].
const insertBatch = 500

func (s *Store) insert(ptype string, values [][]string) error {
	err := s.adapter.AddPolicies(ptype, ptype, values)
	if !mongo.IsDuplicateKeyError(err) {
		return err
	}
	// The rows behind the first duplicate were not written.
	for _, v := range values {
		if err := s.adapter.AddPolicy(ptype, ptype, v); err != nil && !mongo.IsDuplicateKeyError(err) {
			return err
		}
	}
	return nil
}

// remove removes rows. One that is gone already is no error.
func (s *Store) remove(app string, rows []row) error {
	return s.each(app, rows, func(ptype string, values [][]string) error {
		return s.adapter.RemovePolicies(ptype, ptype, values)
	})
}

func (s *Store) each(app string, rows []row, do func(ptype string, values [][]string) error) error {
	byType := map[string][][]string{}
	for _, r := range rows {
		byType[r.ptype()] = append(byType[r.ptype()], r.values(app))
	}
	for _, ptype := range []string{ptypePolicy, ptypeGrouping} {
		if len(byType[ptype]) == 0 {
			continue
		}
		if err := do(ptype, byType[ptype]); err != nil {
			return store.Error("write the policy", err)
		}
	}
	return nil
}

// document is a row with its place in the collection.
type document struct {
	row
	id any
}

// loadTimeout bounds the reading of all rules of an app, besides the bound of each
// call.
const loadTimeout = 30 * time.Second

// read returns the rows that match one of the filters: all of them, or an error.
func (s *Store) read(ctx context.Context, app string, g *grammar, filters ...bson.M) ([]document, error) {
	var out []document
	words := map[string]string{}
	intern := func(word *string) {
		if known, ok := words[*word]; ok {
			*word = known
		} else {
			words[*word] = *word
		}
	}
	for _, filter := range filters {
		cursor, err := s.find(ctx, filter)
		if err != nil {
			return nil, store.Error("read the policy", err)
		}
		for next(ctx, cursor) {
			r, err := decode(cursor.Current, app, g)
			id := cursor.Current.Lookup("_id")
			if err != nil {
				closeCursor(ctx, cursor)
				return nil, &DamagedError{Collection: s.coll.Name(), ID: id, Message: err.Error()}
			}
			// Roles, objects and actions are few and repeat; subjects do not.
			intern(&r.object)
			intern(&r.action)
			var value any
			if err := id.Unmarshal(&value); err != nil {
				value = nil
			}
			out = append(out, document{row: r, id: value})
		}
		// A cursor that was lost half way ends like one that is through.
		err = cursor.Err()
		closeCursor(ctx, cursor)
		if err != nil {
			return nil, store.Error("read the policy", err)
		}
	}
	return out, nil
}

// find and next bound each call by [store.CallTimeout]: a server that hangs holds up
// everybody who waits for the rules, however many there are.
func (s *Store) find(ctx context.Context, filter bson.M) (*mongo.Cursor, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	return s.coll.Find(ctx, filter, options.Find().SetBatchSize(readBatch))
}

// readBatch is how many rules are read by one call.
const readBatch = 5000

func next(ctx context.Context, cursor *mongo.Cursor) bool {
	if cursor.RemainingBatchLength() == 0 {
		var cancel context.CancelFunc
		ctx, cancel = store.Context(ctx)
		defer cancel()
	}
	return cursor.Next(ctx)
}

func closeCursor(ctx context.Context, cursor *mongo.Cursor) {
	ctx, cancel := store.Context(context.WithoutCancel(ctx))
	defer cancel()
	_ = cursor.Close(ctx)
}

// all reads every row of the app.
func (s *Store) all(ctx context.Context, app string, g *grammar) ([]document, error) {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	filters := []bson.M{{"v1": app, "ptype": ptypePolicy}}
	if g.roles {
		filters = append(filters, bson.M{"v2": app, "ptype": ptypeGrouping})
	}
	return s.read(ctx, app, g, filters...)
}

// errSlow says that what was asked for takes longer than one call may.
var errSlow = errors.New("the database takes too long for it in one call")

// touched reads the rows of the keys. The error wraps [errSlow] when it took too
// long, and [errors.ErrUnsupported] for a key of a later version.
func (s *Store) touched(outer context.Context, app string, g *grammar, keys [][]string) ([]document, error) {
	ctx, cancel := store.Context(outer)
	defer cancel()
	var filters bson.A
	for _, key := range keys {
		of := keyFilters(app, g, key)
		if len(of) == 0 {
			return nil, fmt.Errorf("%w: the log of changes names a rule that this version does not know", errors.ErrUnsupported)
		}
		for _, filter := range of {
			filters = append(filters, filter)
		}
	}
	if len(filters) == 0 {
		return nil, nil
	}
	rows, err := s.read(ctx, app, g, bson.M{"$or": filters})
	if err != nil && ctx.Err() != nil && outer.Err() == nil {
		err = fmt.Errorf("%w: %w", errSlow, err)
	}
	return rows, err
}

// removeDocuments removes documents that the adapter does not recognise: stock
// tools leave values out that the adapter writes as "".
func (s *Store) removeDocuments(ctx context.Context, app string, list []document) error {
	for _, d := range list {
		filter := bson.M{"_id": d.id, "v1": app}
		if d.grouping {
			filter = bson.M{"_id": d.id, "v2": app}
		}
		err := func() error {
			ctx, cancel := store.Context(ctx)
			defer cancel()
			_, err := s.coll.DeleteOne(ctx, filter)
			return err
		}()
		if err != nil {
			return store.Error("remove a rule", err)
		}
	}
	return nil
}
