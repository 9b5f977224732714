package localmongo_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"
)

func TestAggregate(t *testing.T) {
	t.Parallel()
	ctx, db := setup(t, nil)
	c := db.Collection("c")
	for i := range 6 {
		insert(ctx, t, c, d("_id", int32(i), "k", int32(i%2), "x", "y"))
	}
	run := func(stages ...doc) ([]doc, error) {
		cursor, err := c.Aggregate(ctx, stages, options.Aggregate().SetBatchSize(2))
		if err != nil {
			return nil, err
		}
		out := []doc{}
		return out, cursor.All(ctx, &out)
	}
	got, err := run(d("$match", d("k", 1)), d("$sort", d("_id", -1)), d("$skip", 1), d("$limit", 5), d("$project", d("x", 0)))
	want := []doc{d("_id", int32(3), "k", int32(1)), d("_id", int32(1), "k", int32(1))}
	if err != nil || !cmp.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if got, err := run(); err != nil || len(got) != 6 {
		t.Errorf("an empty pipeline: %d documents, %v", len(got), err)
	}
	for _, tt := range []struct {
		stage doc
		code  int
	}{
		{d("$group", d("_id", "$k", "n", d("$sum", 1))), 40324},
		{d("$limit", 0), 2},
		{d("$skip", -1), 2},
		{d("$match", 1), 14},
		{d("$match", d("k", d("$regex", "x"))), 2},
		{d("$match", doc{}, "$sort", doc{}), 40323},
	} {
		if _, err := run(tt.stage); !hasCode(err, tt.code) {
			t.Errorf("%v: got %v, want code %d", tt.stage, err, tt.code)
		}
	}
	if n, err := c.CountDocuments(ctx, d("k", 0), options.Count().SetSkip(1).SetLimit(5)); err != nil || n != 2 {
		t.Errorf("CountDocuments with skip and limit: %d, %v", n, err)
	}
	if n, err := c.CountDocuments(ctx, d("k", 9)); err != nil || n != 0 {
		t.Errorf("CountDocuments of nothing: %d, %v", n, err)
	}
	if n, err := c.EstimatedDocumentCount(ctx); err != nil || n != 6 {
		t.Errorf("EstimatedDocumentCount: %d, %v", n, err)
	}
}

func TestServerCommands(t *testing.T) {
	t.Parallel()
	ctx, db := setup(t, nil)
	for _, name := range []string{"buildInfo", "ping", "hello", "isMaster"} {
		var out bson.M
		if err := db.RunCommand(ctx, d(name, 1)).Decode(&out); err != nil || out["ok"] != 1.0 {
			t.Errorf("%s: %v, %v", name, out, err)
		}
	}
	c := db.Collection("c")
	insert(ctx, t, c, d("_id", 1))
	if err := db.RunCommand(ctx, d("find", "c", "filter", "text")).Err(); !hasCode(err, 14) {
		t.Errorf("a filter that is a string: %v", err)
	}
	for _, cmd := range []doc{
		d("find", "c", "limit", "x"), d("find", "c", "singleBatch", "x"), d("delete", "c", "deletes", bson.A{1}), d("find", 1),
		d("findAndModify", "c", "query", doc{}, "update", d("$set", d("a", 1)), "upsert", "x"),
	} {
		if err := db.RunCommand(ctx, cmd).Err(); err == nil {
			t.Errorf("%v was accepted", cmd)
		}
	}
	if err := db.RunCommand(ctx, d("update", "c", "updates", bson.A{d("q", doc{}, "u", d("a", 1), "multi", true)})).Err(); !hasCode(err, 9) {
		t.Errorf("a replacement of many: %v", err)
	}
	if err := db.RunCommand(ctx, d("find", "c", "limit", int64(-1), "singleBatch", 1.0)).Err(); err != nil {
		t.Errorf("numbers as MongoDB takes them: %v", err)
	}
	if err := db.Drop(ctx); err != nil {
		t.Fatal(err)
	}
	if names, err := db.ListCollectionNames(ctx, doc{}); err != nil || len(names) != 0 {
		t.Errorf("after dropDatabase: %v, %v", names, err)
	}
}

func TestCurrentDate(t *testing.T) {
	t.Parallel()
	ctx, db := setup(t, nil)
	c := db.Collection("c")
	insert(ctx, t, c, d("_id", 1))
	before := time.Now().Add(-time.Second)
	if _, err := c.UpdateOne(ctx, d("_id", 1), d("$currentDate", d("a", true, "b", d("$type", "date"), "c", d("$type", "timestamp")))); err != nil {
		t.Fatal(err)
	}
	got := map[string]any{}
	for _, e := range all(ctx, t, c, d("_id", 1))[0] {
		got[e.Key] = e.Value
	}
	for _, name := range []string{"a", "b"} {
		if at, ok := got[name].(primitive.DateTime); !ok || at.Time().Before(before) {
			t.Errorf("%s = %v", name, got[name])
		}
	}
	if _, ok := got["c"].(primitive.Timestamp); !ok {
		t.Errorf("c = %v", got["c"])
	}
	for _, bad := range []any{d("$type", "x"), d("x", 1), "now"} {
		if _, err := c.UpdateOne(ctx, d("_id", 1), d("$currentDate", d("a", bad))); !hasCode(err, 2) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func TestChangeStreamStartsAtATime(t *testing.T) {
	t.Parallel()
	ctx, db := setup(t, nil)
	c := db.Collection("c")
	var out struct {
		OperationTime primitive.Timestamp `bson:"operationTime"`
	}
	insert(ctx, t, c, d("_id", "before"))
	insert(ctx, t, c, d("_id", "at"))
	if err := db.RunCommand(ctx, d("ping", 1)).Decode(&out); err != nil {
		t.Fatal(err)
	}
	insert(ctx, t, c, d("_id", "after"))
	for name, watch := range map[string]func() (*mongo.ChangeStream, error){
		"collection": func() (*mongo.ChangeStream, error) {
			return c.Watch(ctx, mongo.Pipeline{}, options.ChangeStream().SetStartAtOperationTime(&out.OperationTime))
		},
		"database": func() (*mongo.ChangeStream, error) {
			return db.Watch(ctx, mongo.Pipeline{}, options.ChangeStream().SetStartAtOperationTime(&out.OperationTime))
		},
		"everything": func() (*mongo.ChangeStream, error) {
			return db.Client().Watch(ctx, mongo.Pipeline{}, options.ChangeStream().SetStartAtOperationTime(&out.OperationTime))
		},
	} {
		stream, err := watch()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, want := range []string{"at", "after"} {
			if got := next(t, stream); got.Key.ID != want {
				t.Errorf("%s: got %v, want %s", name, got.Key.ID, want)
			}
		}
		if err := stream.Close(ctx); err != nil {
			t.Error(err)
		}
	}
}
