package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"
)

// ErrIndexConflict says that a collection has an index of the declared name or
// key with another definition. Somebody has to decide which one is right, so
// the app does not start.
var ErrIndexConflict = errors.New("index conflict")

// Index declares one index of a collection. Its owner declares it next to the
// collection, and nowhere else.
type Index struct {
	// Name is the index's name, required: it is what an operator sees.
	Name string
	// Keys are the indexed fields in order, 1 or -1 each.
	Keys bson.D
	// Unique makes the index refuse a second document with the same keys.
	Unique bool
	// Partial restricts the index to the documents that match it.
	Partial bson.D
	// TTL removes a document once the date in the one indexed field has passed.
	// It only cleans up: expiry is also part of every query.
	TTL bool
}

func (x Index) model() mongo.IndexModel {
	opts := options.Index().SetName(x.Name)
	if x.Unique {
		opts.SetUnique(true)
	}
	if x.Partial != nil {
		opts.SetPartialFilterExpression(x.Partial)
	}
	if x.TTL {
		opts.SetExpireAfterSeconds(0)
	}
	return mongo.IndexModel{Keys: x.Keys, Options: opts}
}

func (x Index) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s on %s", x.Name, keysText(x.Keys))
	if x.Unique {
		b.WriteString(" unique")
	}
	if x.Partial != nil {
		fmt.Fprintf(&b, " where %v", x.Partial)
	}
	if x.TTL {
		b.WriteString(" TTL")
	}
	return b.String()
}

func keysText(keys bson.D) string {
	parts := make([]string, len(keys))
	for i, k := range keys {
		parts[i] = fmt.Sprintf("%s:%v", k.Key, k.Value)
	}
	return "(" + strings.Join(parts, ", ") + ")"
}

// Indexes makes the declared indexes of coll exist and checks that they are
// what was declared. Several instances may call it at once.
//
// A definition that differs is [ErrIndexConflict] and names both. A TTL index
// that the server cannot build is not an error: ttl is false then and the
// owner has to sweep.
func Indexes(ctx context.Context, coll *mongo.Collection, declared []Index) (ttl bool, err error) {
	ttl = true
	for _, x := range declared {
		if err := create(ctx, coll, x); err != nil {
			if x.TTL && ttlUnsupported(err) {
				ttl = false
				continue
			}
			return false, err
		}
	}
	return ttl, verify(ctx, coll, declared, ttl)
}

// buildTimeout bounds the making of one index: on a collection that holds data
// already it takes longer than any other call.
const buildTimeout = time.Minute

func create(ctx context.Context, coll *mongo.Collection, x Index) error {
	ctx, cancel := context.WithTimeout(ctx, buildTimeout)
	defer cancel()
	_, err := coll.Indexes().CreateOne(ctx, x.model())
	if err == nil {
		return nil
	}
	var server mongo.ServerError
	if errors.As(err, &server) && (server.HasErrorCode(85) || server.HasErrorCode(86)) {
		return fmt.Errorf("%w on collection %q: declared is %s, and MongoDB says: %w; drop or rename the other index",
			ErrIndexConflict, coll.Name(), x, err)
	}
	if mongo.IsDuplicateKeyError(err) {
		return fmt.Errorf("collection %q holds documents that break the unique index %s; remove the duplicates first: %w", coll.Name(), x, err)
	}
	return Error("create index "+x.Name, err)
}

// ttlUnsupported recognises servers that speak MongoDB's protocol and have no
// TTL indexes.
func ttlUnsupported(err error) bool {
	var server mongo.ServerError
	return errors.As(err, &server) && (server.HasErrorCode(67) || server.HasErrorCode(72) ||
		server.HasErrorCode(115) || server.HasErrorCode(238))
}

type storedIndex struct {
	Name    string `bson:"name"`
	Keys    bson.D `bson:"key"`
	Unique  bool   `bson:"unique"`
	Partial bson.D `bson:"partialFilterExpression"`
	Expire  *int64 `bson:"expireAfterSeconds"`
}

// verify reads the indexes back. createIndexes answers "already there" for
// some definitions that differ in options, and a missing unique index would
// let two users share one address.
func verify(ctx context.Context, coll *mongo.Collection, declared []Index, ttl bool) error {
	ctx, cancel := Context(ctx)
	defer cancel()
	cursor, err := coll.Indexes().List(ctx)
	if err != nil {
		return Error("list indexes of "+coll.Name(), err)
	}
	var all []storedIndex
	if err := cursor.All(ctx, &all); err != nil {
		return Error("list indexes of "+coll.Name(), err)
	}
	found := make(map[string]storedIndex, len(all))
	for _, s := range all {
		found[s.Name] = s
	}
	for _, x := range declared {
		s, ok := found[x.Name]
		if !ok {
			if x.TTL && !ttl {
				continue
			}
			return fmt.Errorf("%w: collection %q has no index %s", ErrIndexConflict, coll.Name(), x)
		}
		if !x.matches(s) {
			return fmt.Errorf("%w on collection %q: declared is %s, found is %s on %s unique=%t where %v",
				ErrIndexConflict, coll.Name(), x, s.Name, keysText(s.Keys), s.Unique, s.Partial)
		}
	}
	return nil
}

func (x Index) matches(s storedIndex) bool {
	// A server answers key directions as int32, int64 or double.
	if len(x.Keys) != len(s.Keys) || x.Unique != s.Unique || x.TTL != (s.Expire != nil && *s.Expire == 0) {
		return false
	}
	for i := range x.Keys {
		if x.Keys[i].Key != s.Keys[i].Key || fmt.Sprint(x.Keys[i].Value) != fmt.Sprint(s.Keys[i].Value) {
			return false
		}
	}
	return fmt.Sprint(x.Partial) == fmt.Sprint(s.Partial)
}

// Sweep removes the documents of the app that have expired by a field, as a TTL index
// would, and returns how many.
func Sweep(ctx context.Context, op string, coll *mongo.Collection, app, field string, now time.Time) (int64, error) {
	ctx, cancel := Context(ctx)
	defer cancel()
	res, err := coll.DeleteMany(ctx, bson.D{{Key: "app", Value: app}, {Key: field, Value: bson.D{{Key: "$lt", Value: now}}}})
	if err != nil {
		return 0, Error(op, err)
	}
	return res.DeletedCount, nil
}
