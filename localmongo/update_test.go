package localmongo_test

import (
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"
)

// Each update must leave what MongoDB leaves, or refuse with its code.
func TestUpdateOperators(t *testing.T) {
	t.Parallel()
	ctx, db := setup(t, nil)
	entry := func(sid string, at int32) doc { return d("sid", sid, "at", at) }
	tests := []struct {
		name          string
		before, apply doc
		after         doc
		code          int
	}{
		{"set and unset", d("a", int32(1), "b", int32(2)), d("$set", d("a", int32(5)), "$unset", d("b", "")), d("a", int32(5)), 0},
		{"inc makes a field", doc{}, d("$inc", d("n", int64(1))), d("n", int64(1)), 0},
		{"inc grows to 64 bits", d("n", int32(math.MaxInt32)), d("$inc", d("n", int32(1))), d("n", int64(1)<<31), 0},
		{"inc by nothing", d("n", int32(5)), d("$inc", d("n", int32(0))), d("n", int32(5)), 0},
		{"inc downwards", d("n", int64(math.MinInt64+1)), d("$inc", d("n", int32(-1))), d("n", int64(math.MinInt64)), 0},
		{"inc beyond 64 bits", d("n", int64(math.MaxInt64)), d("$inc", d("n", int32(1))), nil, 2},
		{"inc by a fraction", d("n", int32(1)), d("$inc", d("n", 0.5)), d("n", 1.5), 0},
		{"mul grows to 64 bits", d("n", int32(1<<20)), d("$mul", d("n", int32(1<<20))), d("n", int64(1)<<40), 0},
		{"mul beyond 64 bits", d("n", int64(1)<<40), d("$mul", d("n", int64(1)<<40)), nil, 2},
		{"mul of the least by -1", d("n", int64(math.MinInt64)), d("$mul", d("n", int32(-1))), nil, 2},
		{"max keeps the greater", d("n", int32(5)), d("$max", d("n", int32(3))), d("n", int32(5)), 0},
		{
			"push each, sort, slice from the end", d("live", bson.A{entry("a", 1), entry("b", 3)}),
			d("$push", d("live", d("$each", bson.A{entry("c", 2)}, "$sort", d("at", 1), "$slice", -2))),
			d("live", bson.A{entry("c", 2), entry("b", 3)}), 0,
		},
		{
			"push sorts values and keeps the first", d("v", bson.A{int32(3), int32(1)}),
			d("$push", d("v", d("$each", bson.A{int32(2)}, "$sort", -1, "$slice", 2))), d("v", bson.A{int32(3), int32(2)}), 0,
		},
		{
			"push at a position", d("v", bson.A{int32(1), int32(3)}),
			d("$push", d("v", d("$each", bson.A{int32(2)}, "$position", 1))), d("v", bson.A{int32(1), int32(2), int32(3)}), 0,
		},
		{"push a document", doc{}, d("$push", d("v", d("x", int32(1)))), d("v", bson.A{d("x", int32(1))}), 0},
		{"push onto a number", d("v", int32(1)), d("$push", d("v", int32(2))), nil, 2},
		{"pull by document", d("live", bson.A{entry("a", 1), entry("b", 3)}), d("$pull", d("live", d("sid", "a"))), d("live", bson.A{entry("b", 3)}), 0},
		{"pull by comparison", d("v", bson.A{int32(1), int32(5)}), d("$pull", d("v", d("$lt", 3))), d("v", bson.A{int32(5)}), 0},
		{"pull by value", d("v", bson.A{"x", "y"}), d("$pull", d("v", "x")), d("v", bson.A{"y"}), 0},
		{"pullAll", d("v", bson.A{"x", "y", "z"}), d("$pullAll", d("v", bson.A{"x", "z"})), d("v", bson.A{"y"}), 0},
		{"addToSet", d("v", bson.A{"x"}), d("$addToSet", d("v", d("$each", bson.A{"x", "y"}))), d("v", bson.A{"x", "y"}), 0},
		{"conflicting paths", d("a", int32(1)), d("$set", d("a", int32(2)), "$inc", d("a", int32(1))), nil, 40},
		{"unknown operator", doc{}, d("$bit", d("a", d("and", 1))), nil, 9},
		{"positional operator", d("v", bson.A{int32(1)}), d("$set", d("v.$", int32(2))), nil, 2},
		{"changed _id", doc{}, d("$set", d("_id", "other")), nil, 66},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			id := fmt.Sprint(i)
			c := db.Collection("c")
			insert(ctx, t, c, append(d("_id", id), tt.before...))
			_, err := c.UpdateOne(ctx, d("_id", id), tt.apply)
			if tt.code != 0 {
				if !hasCode(err, tt.code) {
					t.Fatalf("got %v, want code %d", err, tt.code)
				}
				tt.after = tt.before
			} else if err != nil {
				t.Fatal(err)
			}
			got := all(ctx, t, c, d("_id", id))
			if want := append(d("_id", id), tt.after...); !cmp.Equal(got, []doc{want}) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

func TestUpdateCountsAndUpsert(t *testing.T) {
	t.Parallel()
	ctx, db := setup(t, nil)
	c := db.Collection("c")
	insert(ctx, t, c, d("_id", 1, "n", 1), d("_id", 2, "n", 1))

	res, err := c.UpdateMany(ctx, d("n", 1), d("$set", d("n", 1)))
	if err != nil || res.MatchedCount != 2 || res.ModifiedCount != 0 {
		t.Errorf("an update that changes nothing: got %+v, %v, want 2 matched and 0 modified", res, err)
	}
	res, err = c.UpdateOne(ctx, d("_id", "new", "app", "a"), d("$setOnInsert", d("k", "v"), "$currentDate", d("at", true)), options.Update().SetUpsert(true))
	if err != nil || res.UpsertedID != "new" {
		t.Fatalf("upsert: got %+v, %v", res, err)
	}
	got := all(ctx, t, c, d("_id", "new", "app", "a", "k", "v", "at", d("$gt", time.Now().Add(-time.Minute))))
	if len(got) != 1 {
		t.Errorf("the upserted document has not the filter's fields and the update's: %v", all(ctx, t, c, doc{}))
	}
	replaced, err := c.ReplaceOne(ctx, d("_id", 1), d("only", true))
	if err != nil || replaced.ModifiedCount != 1 {
		t.Fatalf("replace: %+v, %v", replaced, err)
	}
	if got := all(ctx, t, c, d("_id", 1)); !cmp.Equal(got, []doc{d("_id", int32(1), "only", true)}) {
		t.Errorf("replace left %v", got)
	}
	if _, err := c.ReplaceOne(ctx, d("_id", 1), d("_id", d("x", 1))); !hasCode(err, 66) {
		t.Errorf("replace with another _id: got %v, want code 66", err)
	}
}

func TestFindAndModify(t *testing.T) {
	t.Parallel()
	ctx, db := setup(t, nil)
	c := db.Collection("c")
	insert(ctx, t, c, d("_id", "a", "n", int32(1)), d("_id", "b", "n", int32(2)))
	inc := d("$inc", d("n", int32(10)))
	var got doc
	if err := c.FindOneAndUpdate(ctx, doc{}, inc, options.FindOneAndUpdate().SetSort(d("n", -1))).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if !cmp.Equal(got, d("_id", "b", "n", int32(2))) {
		t.Errorf("the image before: got %v", got)
	}
	err := c.FindOneAndUpdate(ctx, d("_id", "b", "n", int32(12)), inc,
		options.FindOneAndUpdate().SetReturnDocument(options.After).SetProjection(d("n", 1, "_id", 0))).Decode(&got)
	if err != nil || !cmp.Equal(got, d("n", int32(22))) {
		t.Errorf("the image after, projected: got %v, %v", got, err)
	}
	if err := c.FindOneAndUpdate(ctx, d("_id", "b", "n", int32(12)), inc).Err(); !errors.Is(err, mongo.ErrNoDocuments) {
		t.Errorf("a condition that no longer holds: got %v, want ErrNoDocuments", err)
	}
	if err := c.FindOneAndDelete(ctx, d("_id", "a")).Decode(&got); err != nil || got[0].Value != "a" {
		t.Errorf("delete: got %v, %v", got, err)
	}
	if n, err := c.CountDocuments(ctx, doc{}); err != nil || n != 1 {
		t.Errorf("CountDocuments after the delete: got %d, %v, want 1", n, err)
	}
}
