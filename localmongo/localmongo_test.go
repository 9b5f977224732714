package localmongo_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"
	"go.uber.org/goleak"

	"github.com/mandate-auth/mandate/localmongo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type doc = bson.D

// d makes a document of keys and values in turn.
func d(pairs ...any) doc {
	out := make(doc, 0, len(pairs)/2)
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, bson.E{Key: pairs[i].(string), Value: pairs[i+1]})
	}
	return out
}

func setup(t *testing.T, opts *localmongo.Options) (context.Context, *mongo.Database) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	if opts == nil {
		opts = &localmongo.Options{}
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	s, err := localmongo.Start(ctx, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
		cancel()
	})
	return ctx, s.Client().Database("test")
}

func hasCode(err error, code int) bool {
	var server mongo.ServerError
	return errors.As(err, &server) && server.HasErrorCode(code)
}

func insert(ctx context.Context, t *testing.T, c *mongo.Collection, docs ...any) {
	t.Helper()
	if _, err := c.InsertMany(ctx, docs); err != nil {
		t.Fatal(err)
	}
}

func all(ctx context.Context, t *testing.T, c *mongo.Collection, filter any, opts ...*options.FindOptions) []doc {
	t.Helper()
	cursor, err := c.Find(ctx, filter, opts...)
	if err != nil {
		t.Fatal(err)
	}
	out := []doc{}
	if err := cursor.All(ctx, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestFind(t *testing.T) {
	t.Parallel()
	ctx, db := setup(t, nil)
	c := db.Collection("c")
	insert(ctx, t, c,
		d("_id", "a", "n", int32(3), "o", d("x", 1, "y", 2), "live", bson.A{d("sid", "s1"), d("sid", "s2")}),
		d("_id", "b", "n", int32(1), "s", "text"),
		d("_id", "c", "n", int32(2), "s", ""),
	)
	ids := func(filter any, opts ...*options.FindOptions) []string {
		out := []string{}
		for _, found := range all(ctx, t, c, filter, opts...) {
			out = append(out, found[0].Value.(string))
		}
		return out
	}
	byN := options.Find().SetSort(d("n", 1))
	tests := []struct {
		name   string
		filter doc
		opts   *options.FindOptions
		want   []string
	}{
		{"everything sorted", doc{}, byN, []string{"b", "c", "a"}},
		{"skip and limit", doc{}, options.Find().SetSort(d("n", -1)).SetSkip(1).SetLimit(1), []string{"c"}},
		{"equality", d("n", 2), byN, []string{"c"}},
		{"greater than the empty string", d("s", d("$gt", "")), byN, []string{"b"}},
		{"in", d("_id", d("$in", bson.A{"a", "c", "z"})), byN, []string{"c", "a"}},
		{"or", d("$or", bson.A{d("n", 1), d("n", 3)}), byN, []string{"b", "a"}},
		{"missing field", d("s", d("$exists", false)), byN, []string{"a"}},
		{"missing array element", d("live.1", d("$exists", false)), byN, []string{"b", "c"}},
		{"field of an array element", d("live.sid", "s2"), byN, []string{"a"}},
		{"elemMatch", d("live", d("$elemMatch", d("sid", "s1"))), byN, []string{"a"}},
		{"not equal", d("n", d("$ne", 2)), byN, []string{"b", "a"}},
		{"range of another type matches nothing", d("n", d("$gt", "")), byN, []string{}},
		{"nothing", d("_id", "z"), byN, []string{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := ids(tt.filter, tt.opts); !cmp.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestProjection(t *testing.T) {
	t.Parallel()
	ctx, db := setup(t, nil)
	c := db.Collection("c")
	insert(ctx, t, c, d("_id", "a", "n", int32(3), "m", int32(4), "o", d("x", int32(1), "y", int32(2))))
	tests := []struct {
		name   string
		fields doc
		want   doc
	}{
		{"inclusion keeps _id", d("n", 1), d("_id", "a", "n", int32(3))},
		{"inclusion without _id", d("n", 1, "_id", 0), d("n", int32(3))},
		{"dotted inclusion", d("o.x", 1), d("_id", "a", "o", d("x", int32(1)))},
		{"exclusion of several", d("n", 0, "o", 0, "_id", 0), d("m", int32(4))},
		{"dotted exclusion", d("o.x", 0, "m", 0), d("_id", "a", "n", int32(3), "o", d("y", int32(2)))},
		{"only _id off", d("_id", 0, "n", 0, "m", 0), d("o", d("x", int32(1), "y", int32(2)))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := all(ctx, t, c, doc{}, options.Find().SetProjection(tt.fields))
			if !cmp.Equal(got, []doc{tt.want}) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
	if _, err := c.Find(ctx, doc{}, options.Find().SetProjection(d("n", 1, "m", 0))); !hasCode(err, 31254) {
		t.Errorf("mixed projection: got %v, want code 31254", err)
	}
}

func TestErrorCodes(t *testing.T) {
	t.Parallel()
	ctx, db := setup(t, nil)
	c := db.Collection("c")
	insert(ctx, t, c, d("_id", "a", "k", "x"), d("_id", "b", "k", "x"))
	run := func(cmd doc) error { return db.RunCommand(ctx, cmd).Err() }
	index := func(name string, key doc, unique bool) doc {
		return d("createIndexes", "c", "indexes", bson.A{d("key", key, "name", name, "unique", unique)})
	}
	if err := run(index("n_1", d("n", 1), false)); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		cmd  doc
		code int
	}{
		{"unknown command", d("mapReduce", "c"), 59},
		{"unknown option", d("find", "c", "collation", d("locale", "de")), 40415},
		{"wrong type", d("find", "c", "filter", "x"), 14},
		{"unknown query operator", d("find", "c", "filter", d("k", d("$regex", "x"))), 2},
		{"unknown stage", d("aggregate", "c", "pipeline", bson.A{d("$lookup", doc{})}, "cursor", doc{}), 40324},
		{"pipeline update", d("findAndModify", "c", "query", doc{}, "update", bson.A{d("$set", d("a", 1))}), 9},
		{"transaction", d("find", "c", "txnNumber", int64(1), "startTransaction", true, "autocommit", false), 20},
		{"create what exists", d("create", "c"), 48},
		{"bad collection name", d("create", "a$b"), 73},
		{"drop what is missing", d("drop", "nope"), 26},
		{"list indexes of what is missing", d("listIndexes", "nope"), 26},
		{"drop a missing index", d("dropIndexes", "c", "index", "nope"), 27},
		{"drop the _id index", d("dropIndexes", "c", "index", "_id_"), 72},
		{"same key, other name", index("other", d("n", 1), false), 85},
		{"same name, other key", index("n_1", d("m", 1), false), 86},
		{"same name, other options", index("n_1", d("n", 1), true), 85},
		{"unique over duplicates", index("k_1", d("k", 1), true), 11000},
		{"text index", d("createIndexes", "c", "indexes", bson.A{d("key", d("k", "text"), "name", "t")}), 67},
		{"cursor that is not there", d("getMore", int64(99), "collection", "c"), 43},
		{"empty batch", d("insert", "c", "documents", bson.A{}), 16},
		{"neither update nor remove", d("findAndModify", "c", "query", doc{}), 9},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := run(tt.cmd); !hasCode(err, tt.code) {
				t.Errorf("got %v, want code %d", err, tt.code)
			}
		})
	}
}

func TestUniqueAndPartialIndexes(t *testing.T) {
	t.Parallel()
	ctx, db := setup(t, nil)
	c := db.Collection("users")
	_, err := c.Indexes().CreateOne(ctx, mongo.IndexModel{
		Keys:    d("app", 1, "email_norm", 1),
		Options: options.Index().SetName("email").SetUnique(true).SetPartialFilterExpression(d("email_norm", d("$gt", ""))),
	})
	if err != nil {
		t.Fatal(err)
	}
	insert(ctx, t, c, d("_id", 1, "app", "a"), d("_id", 2, "app", "a"), d("_id", 3, "app", "a", "email_norm", "x"), d("_id", 4, "app", "b", "email_norm", "x"))
	if _, err := c.InsertOne(ctx, d("_id", 5, "app", "a", "email_norm", "x")); !mongo.IsDuplicateKeyError(err) {
		t.Errorf("insert of a taken address: got %v", err)
	}
	if _, err := c.UpdateOne(ctx, d("_id", 1), d("$set", d("email_norm", "x"))); !mongo.IsDuplicateKeyError(err) {
		t.Errorf("update to a taken address: got %v", err)
	}
	_, err = c.InsertMany(ctx, []any{d("_id", 6), d("_id", 6), d("_id", 7)}, options.InsertMany().SetOrdered(false))
	var bulk mongo.BulkWriteException
	if !errors.As(err, &bulk) || len(bulk.WriteErrors) != 1 || bulk.WriteErrors[0].Index != 1 {
		t.Errorf("unordered insert: got %v, want one error at index 1", err)
	}
	if n, _ := c.CountDocuments(ctx, d("_id", d("$gte", 6))); n != 2 {
		t.Errorf("unordered insert kept %d documents, want 2", n)
	}
	if _, err = c.InsertMany(ctx, []any{d("_id", 8), d("_id", 8), d("_id", 9)}); !mongo.IsDuplicateKeyError(err) {
		t.Errorf("ordered insert: got %v", err)
	}
	if n, _ := c.CountDocuments(ctx, d("_id", 9)); n != 0 {
		t.Error("an ordered insert went on after its error")
	}
}

func TestConcurrentWrites(t *testing.T) {
	t.Parallel()
	ctx, db := setup(t, nil)
	c := db.Collection("c")
	const workers, rounds = 20, 10
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for range rounds {
				_, err := c.UpdateOne(ctx, d("_id", "counter"), d("$inc", d("n", int32(1))), options.Update().SetUpsert(true))
				if err != nil && !mongo.IsDuplicateKeyError(err) {
					t.Errorf("worker %d: %v", w, err)
				}
			}
		})
	}
	wg.Wait()
	got := all(ctx, t, c, doc{})
	if want := []doc{d("_id", "counter", "n", int32(workers*rounds))}; !cmp.Equal(got, want) {
		t.Errorf("got %v, want %v: increments were lost", got, want)
	}
}

func TestCursorsPage(t *testing.T) {
	t.Parallel()
	ctx, db := setup(t, nil)
	c := db.Collection("c")
	docs := make([]any, 250)
	for i := range docs {
		docs[i] = d("_id", int32(i))
	}
	insert(ctx, t, c, docs...)
	got := all(ctx, t, c, doc{}, options.Find().SetBatchSize(7).SetSort(d("_id", 1)))
	if len(got) != len(docs) {
		t.Fatalf("got %d documents in batches, want %d", len(got), len(docs))
	}
	for i, found := range got {
		if found[0].Value != int32(i) {
			t.Fatalf("document %d is %v", i, found)
		}
	}
	values, err := c.Distinct(ctx, "_id", d("_id", d("$lt", 3)))
	if err != nil || len(values) != 3 {
		t.Errorf("Distinct: got %v, %v", values, err)
	}
}

func TestFileKeepsData(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "data.bson")
	write := func(id int) {
		ctx := context.Background()
		s, err := localmongo.Start(ctx, &localmongo.Options{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		c := s.Client().Database("test").Collection("c")
		insert(ctx, t, c, d("_id", id))
		_, err = c.Indexes().CreateOne(ctx, mongo.IndexModel{Keys: d("at", 1), Options: options.Index().SetName("ttl").SetExpireAfterSeconds(0)})
		if err != nil {
			t.Fatalf("the index of the last run is not the same: %v", err)
		}
		if err := s.Close(ctx); err != nil {
			t.Fatal(err)
		}
	}
	write(1)
	write(2)
	ctx, db := setup(t, &localmongo.Options{Path: path})
	if n, err := db.Collection("c").CountDocuments(ctx, doc{}); err != nil || n != 2 {
		t.Errorf("got %d documents, %v, want 2", n, err)
	}
}

func TestExpiry(t *testing.T) {
	t.Parallel()
	ctx, db := setup(t, nil)
	c := db.Collection("c")
	_, err := c.Indexes().CreateOne(ctx, mongo.IndexModel{Keys: d("at", 1), Options: options.Index().SetExpireAfterSeconds(0)})
	if err != nil {
		t.Fatal(err)
	}
	stream, err := c.Watch(ctx, mongo.Pipeline{d("$match", d("operationType", "delete"))})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close(ctx)
	insert(ctx, t, c, d("_id", "old", "at", time.Now().Add(-time.Hour)), d("_id", "new", "at", time.Now().Add(time.Hour)), d("_id", "none"))
	if !stream.Next(ctx) {
		t.Fatalf("no document expired: %v", stream.Err())
	}
	if n, _ := c.CountDocuments(ctx, doc{}); n != 2 {
		t.Errorf("%d documents are left, want the two that have not expired", n)
	}
}

func TestListener(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s, err := localmongo.Start(ctx, &localmongo.Options{Listen: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(ctx)
	other, err := mongo.Connect(ctx, options.Client().ApplyURI(s.URI()))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Disconnect(ctx)
	insert(ctx, t, other.Database("test").Collection("c"), d("_id", 1))
	names, err := s.Client().ListDatabaseNames(ctx, doc{})
	if err != nil || !cmp.Equal(names, []string{"test"}) {
		t.Errorf("databases seen through the pipe: %v, %v", names, err)
	}
	collections, err := s.Client().Database("test").ListCollectionNames(ctx, doc{})
	if err != nil || !cmp.Equal(collections, []string{"c"}) {
		t.Errorf("collections seen through the pipe: %v, %v", collections, err)
	}
}
