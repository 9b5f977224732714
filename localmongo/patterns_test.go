package localmongo_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"
)

// The push of a session into its head: bounded, ordered, with the one that it
// displaces in the image before.
func TestBoundedPush(t *testing.T) {
	t.Parallel()
	ctx, db := setup(t, nil)
	c := db.Collection("heads")
	insert(ctx, t, c, d("_id", "u", "app", "a", "epoch", int32(0)))
	at := time.Now().Truncate(time.Millisecond)
	push := func(i int) doc {
		entry := d("sid", fmt.Sprint(i), "at", at.Add(time.Duration(i)*time.Second))
		return d("$push", d("live", d("$each", bson.A{entry}, "$sort", d("at", 1), "$slice", -5)))
	}
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			if _, err := c.UpdateOne(ctx, d("_id", "u", "app", "a", "epoch", 0), push(i)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	var head struct {
		Live []struct{ Sid string }
	}
	if err := c.FindOne(ctx, d("_id", "u")).Decode(&head); err != nil {
		t.Fatal(err)
	}
	if len(head.Live) != 5 || head.Live[0].Sid != "45" || head.Live[4].Sid != "49" {
		t.Errorf("after 50 pushes: %v, want the newest five in order", head.Live)
	}
	// With room asked for, a full head admits nobody.
	room := append(d("_id", "u", "app", "a"), d("live.4", d("$exists", false))...)
	if res, err := c.UpdateOne(ctx, room, push(99)); err != nil || res.MatchedCount != 0 {
		t.Errorf("a push into a full head: %+v, %v", res, err)
	}
	if _, err := c.UpdateOne(ctx, d("_id", "u"), d("$pull", d("live", d("sid", "47")))); err != nil {
		t.Fatal(err)
	}
	if res, err := c.UpdateOne(ctx, room, push(99)); err != nil || res.ModifiedCount != 1 {
		t.Errorf("a push after one was pulled: %+v, %v", res, err)
	}
}

// A rate limit in one upsert: the filter decides, and a refusal is a duplicate
// key that writes nothing.
func TestSlidingWindowUpsert(t *testing.T) {
	t.Parallel()
	ctx, db := setup(t, nil)
	c := db.Collection("limits")
	const most = 3
	now := time.Now().Truncate(time.Millisecond)
	hit := func(at time.Time) error {
		filter := d("_id", "a|r|k", "app", "a", "$or", bson.A{
			d(fmt.Sprintf("hits.%d", most-1), d("$exists", false)), d("hits.0", d("$lte", at.Add(-time.Minute))),
		})
		update := d("$push", d("hits", d("$each", bson.A{at}, "$sort", 1, "$slice", -most)), "$max", d("expires_at", at.Add(time.Minute)))
		return c.FindOneAndUpdate(ctx, filter, update, options.FindOneAndUpdate().SetUpsert(true).SetReturnDocument(options.After)).Err()
	}
	var passed atomic.Int32
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			switch err := hit(now); {
			case err == nil:
				passed.Add(1)
			case !mongo.IsDuplicateKeyError(err):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if passed.Load() != most {
		t.Errorf("%d of 20 passed at once, want %d", passed.Load(), most)
	}
	if err := hit(now.Add(59 * time.Second)); !mongo.IsDuplicateKeyError(err) {
		t.Errorf("within the window: %v", err)
	}
	if err := hit(now.Add(time.Minute)); err != nil {
		t.Errorf("after the window: %v", err)
	}
	var out struct {
		App     string
		Hits    []time.Time
		Expires time.Time `bson:"expires_at"`
	}
	if err := c.FindOne(ctx, d("_id", "a|r|k")).Decode(&out); err != nil {
		t.Fatal(err)
	}
	if out.App != "a" || len(out.Hits) != most || !out.Expires.Equal(now.Add(2*time.Minute)) {
		t.Errorf("got %+v, want app a, %d hits, the later expiry", out, most)
	}
}

func TestConcurrentUniqueInserts(t *testing.T) {
	t.Parallel()
	ctx, db := setup(t, nil)
	c := db.Collection("users")
	_, err := c.Indexes().CreateOne(ctx, mongo.IndexModel{Keys: d("app", 1, "email", 1), Options: options.Index().SetUnique(true)})
	if err != nil {
		t.Fatal(err)
	}
	var won atomic.Int32
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			_, err := c.InsertOne(ctx, d("_id", i, "app", "a", "email", "x"))
			switch {
			case err == nil:
				won.Add(1)
			case !mongo.IsDuplicateKeyError(err):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n, err := c.CountDocuments(ctx, doc{}); err != nil || n != 1 || won.Load() != 1 {
		t.Errorf("%d inserts succeeded, %d documents, %v; want one of each", won.Load(), n, err)
	}
}

// Paging by (created_at, _id), where many share a time.
func TestCursorPaging(t *testing.T) {
	t.Parallel()
	ctx, db := setup(t, nil)
	c := db.Collection("c")
	at := time.Now().Truncate(time.Millisecond)
	docs := make([]any, 25)
	for i := range docs {
		docs[(i*7)%25] = d("_id", fmt.Sprintf("%02d", i), "app", "a", "created_at", at.Add(time.Duration(i/10)*time.Second))
	}
	insert(ctx, t, c, docs...)
	type row struct {
		ID string    `bson:"_id"`
		At time.Time `bson:"created_at"`
	}
	filter, got := d("app", "a"), []string{}
	for range len(docs) {
		cursor, err := c.Find(ctx, filter, options.Find().SetSort(d("created_at", 1, "_id", 1)).SetLimit(4))
		if err != nil {
			t.Fatal(err)
		}
		var page []row
		if err := cursor.All(ctx, &page); err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		for _, r := range page {
			got = append(got, r.ID)
		}
		last := page[len(page)-1]
		filter = d("app", "a", "$or", bson.A{d("created_at", d("$gt", last.At)), d("created_at", last.At, "_id", d("$gt", last.ID))})
	}
	for i, id := range got {
		if id != fmt.Sprintf("%02d", i) {
			t.Fatalf("paged %v: out of order at %d", got, i)
		}
	}
	if len(got) != len(docs) {
		t.Errorf("paged over %d documents, want %d", len(got), len(docs))
	}
}
