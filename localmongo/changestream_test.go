package localmongo_test

import (
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"
)

type change struct {
	Type string `bson:"operationType"`
	Key  struct {
		ID any `bson:"_id"`
	} `bson:"documentKey"`
	Full bson.D `bson:"fullDocument"`
}

func next(t *testing.T, stream *mongo.ChangeStream) change {
	t.Helper()
	ctx := t.Context()
	if !stream.Next(ctx) {
		t.Fatalf("the stream ended: %v", stream.Err())
	}
	var c change
	if err := stream.Decode(&c); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestChangeStream(t *testing.T) {
	t.Parallel()
	ctx, db := setup(t, nil)
	c, other := db.Collection("c"), db.Collection("other")
	stream, err := c.Watch(ctx, mongo.Pipeline{}, options.ChangeStream().SetFullDocument(options.UpdateLookup))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close(ctx)
	insert(ctx, t, other, d("_id", "not watched"))
	insert(ctx, t, c, d("_id", "a", "n", int32(1)))
	if got := next(t, stream); got.Type != "insert" || got.Key.ID != "a" {
		t.Errorf("got %+v, want the insert of a", got)
	}
	token := stream.ResumeToken()
	if _, err := c.UpdateOne(ctx, d("_id", "a"), d("$set", d("n", int32(2)))); err != nil {
		t.Fatal(err)
	}
	if got := next(t, stream); got.Type != "update" || len(got.Full) != 2 || got.Full[1].Value != int32(2) {
		t.Errorf("got %+v, want the update with its document", got)
	}
	if _, err := c.DeleteOne(ctx, d("_id", "a")); err != nil {
		t.Fatal(err)
	}
	resumed, err := c.Watch(ctx, mongo.Pipeline{d("$match", d("operationType", "delete"))}, options.ChangeStream().SetResumeAfter(token))
	if err != nil {
		t.Fatal(err)
	}
	defer resumed.Close(ctx)
	if got := next(t, resumed); got.Type != "delete" || got.Key.ID != "a" {
		t.Errorf("got %+v after the token, filtered, want the delete of a", got)
	}
}

// An empty batch has to come back within maxAwaitTime and move the token: the
// feed of revocations counts on it as a sign of life.
func TestChangeStreamEmptyBatch(t *testing.T) {
	t.Parallel()
	ctx, db := setup(t, nil)
	stream, err := db.Collection("c").Watch(ctx, mongo.Pipeline{}, options.ChangeStream().SetMaxAwaitTime(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close(ctx)
	before := stream.ResumeToken()
	insert(ctx, t, db.Collection("elsewhere"), d("_id", 1))
	for string(stream.ResumeToken()) == string(before) {
		if stream.TryNext(ctx) {
			t.Fatal("an event of another collection was delivered")
		}
		if err := stream.Err(); err != nil {
			t.Fatalf("the token did not move with an empty batch: %v", err)
		}
	}
}

func TestChangeStreamRefusals(t *testing.T) {
	t.Parallel()
	ctx, db := setup(t, nil)
	c := db.Collection("c")
	if _, err := c.Watch(ctx, mongo.Pipeline{d("$project", d("a", 1))}); !hasCode(err, 20) {
		t.Errorf("a stage other than $match: got %v", err)
	}
	if _, err := c.Watch(ctx, mongo.Pipeline{}, options.ChangeStream().SetResumeAfter(d("_data", "zz"))); !hasCode(err, 260) {
		t.Errorf("a foreign token: got %v", err)
	}
	stream, err := c.Watch(ctx, mongo.Pipeline{})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close(ctx)
	noise := make([]any, 9000)
	for i := range noise {
		noise[i] = d("_id", i)
	}
	insert(ctx, t, db.Collection("noise"), noise...)
	if stream.Next(ctx) || !hasCode(stream.Err(), 286) {
		t.Errorf("a stream behind the history: got %v, want code 286", stream.Err())
	}
}

func TestDropInvalidates(t *testing.T) {
	t.Parallel()
	ctx, db := setup(t, nil)
	c := db.Collection("c")
	insert(ctx, t, c, d("_id", 1))
	stream, err := c.Watch(ctx, mongo.Pipeline{})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close(ctx)
	if err := c.Drop(ctx); err != nil {
		t.Fatal(err)
	}
	if got := next(t, stream); got.Type != "drop" {
		t.Errorf("got %q, want drop", got.Type)
	}
	if got := next(t, stream); got.Type != "invalidate" {
		t.Errorf("got %q, want invalidate", got.Type)
	}
}
