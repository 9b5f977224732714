package localmongo_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"
)

// Arrays in filters: every element counts, as on a server.
func TestFiltersLookIntoArrays(t *testing.T) {
	t.Parallel()
	ctx, db := setup(t, nil)
	c := db.Collection("c")
	insert(ctx, t, c,
		d("_id", "two", "v", bson.A{"x", "y"}, "live", bson.A{d("sid", "a"), d("sid", "b")}),
		d("_id", "one", "v", bson.A{"z"}, "live", bson.A{}),
		d("_id", "none"),
		d("_id", "null", "v", nil),
	)
	tests := []struct {
		name   string
		filter doc
		want   []string
	}{
		{"ne is true where no element equals", d("v", d("$ne", "x")), []string{"none", "null", "one"}},
		{"ne of null wants a value", d("v", d("$ne", nil)), []string{"one", "two"}},
		{"ne inside of documents", d("live.sid", d("$ne", "b")), []string{"none", "null", "one"}},
		{"nin", d("v", d("$nin", bson.A{"z", "q"})), []string{"none", "null", "two"}},
		{"exists inside of documents", d("live.sid", d("$exists", true)), []string{"two"}},
		{"exists takes numbers", d("live.sid", d("$exists", 0)), []string{"none", "null", "one"}},
		{"an empty array exists", d("live", d("$exists", true)), []string{"one", "two"}},
		{"null is a value or its absence", d("v", nil), []string{"none", "null"}},
		{"not", d("v", d("$not", d("$in", bson.A{"x"}))), []string{"none", "null", "one"}},
		{"nor", d("$nor", bson.A{d("v", "x"), d("v", "z")}), []string{"none", "null"}},
		{"whole array", d("v", bson.A{"x", "y"}), []string{"two"}},
		{"elemMatch on two fields", d("live", d("$elemMatch", d("sid", d("$gt", "a"), "at", d("$exists", false)))), []string{"two"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := []string{}
			for _, found := range all(ctx, t, c, tt.filter, options.Find().SetSort(d("_id", 1))) {
				got = append(got, found[0].Value.(string))
			}
			if !cmp.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// What is not supported must be refused even where no document would come to
// it, or a test passes here and fails on a server.
func TestRefusedWithoutDocuments(t *testing.T) {
	t.Parallel()
	ctx, db := setup(t, nil)
	empty := db.Collection("empty")
	long := strings.Repeat("a.", 500) + "a"
	for _, tt := range []struct {
		filter doc
		code   int
	}{
		{d("a", 1, "b", d("$regex", "x")), 2},
		{d("a", 1, "b", primitive.Regex{Pattern: "x"}), 2},
		{d("a", d("$in", bson.A{primitive.Regex{Pattern: "x"}})), 2},
		{d("a", 1, "$where", "true"), 2},
		{d("$or", bson.A{d("a", 1), d("$expr", doc{})}), 2},
		{d("$or", bson.A{}), 2},
		{d("$and", bson.A{1}), 2},
		{d("a", d("$gt", 1, "b", 2)), 2},
		{d("a", d("$elemMatch", d("$or", bson.A{doc{}}))), 2},
		{d("a", d("$elemMatch", 1)), 2},
		{d("a", d("$in", 1)), 2},
		{d("a", d("$in", bson.A{d("$gt", 1)})), 2},
		{d("a", d("$not", 1)), 2},
		{d("a", d("$exists", "x")), 2},
		{d("a", d("$size", "x")), 2},
		{d("a", d("$type", "nothing")), 2},
		{d("a", primitive.MinKey{}), 2},
		{d(long, 1), 15},
	} {
		if _, err := empty.Find(ctx, tt.filter); !hasCode(err, tt.code) {
			t.Errorf("find %v: got %v, want code %d", tt.filter, err, tt.code)
		}
		if _, err := empty.DeleteMany(ctx, tt.filter); !hasCode(err, tt.code) {
			t.Errorf("delete %v: got %v, want code %d", tt.filter, err, tt.code)
		}
	}
	for _, tt := range []struct {
		update doc
		code   int
	}{
		{d("$bit", d("a", 1)), 9},
		{d("$set", d("a", 1), "b", 2), 9},
		{d("$set", 1), 9},
		{d("$set", d("a.b", 1), "$unset", d("a", "")), 40},
		{d("$set", d("a", 1), "$setOnInsert", d("a", 1)), 40},
		{d("$rename", d("a", "b"), "$set", d("b", 1)), 40},
		{d("$set", d("a.$.b", 1)), 2},
		{d("$set", d("$a", 1)), 52},
		{d("$set", d("a..b", 1)), 56},
		{d("$set", d(long, 1)), 15},
	} {
		if _, err := empty.UpdateOne(ctx, d("_id", 1), tt.update); !hasCode(err, tt.code) {
			t.Errorf("update %v: got %v, want code %d", tt.update, err, tt.code)
		}
	}
}

// No request may cost memory or stack without bound, or leave a document
// behind that later requests fail on.
func TestHostileWrites(t *testing.T) {
	t.Parallel()
	ctx, db := setup(t, nil)
	c := db.Collection("c")
	insert(ctx, t, c, d("_id", 1, "v", bson.A{"x"}, "n", "text"))
	deep := any(1)
	for range 190 {
		deep = d("d", deep)
	}
	path := strings.TrimSuffix(strings.Repeat("a.", 100), ".")
	nested := any(1)
	for range 100 {
		nested = d("d", nested)
	}
	big := strings.Repeat("x", 9<<20)
	if _, err := c.UpdateOne(ctx, d("_id", 1), d("$set", d("big", big))); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		update doc
		code   int
	}{
		"an index far beyond the array": {d("$set", d("v.2000000000", 1)), 2},
		"a document too deep by itself": {d("$set", d("a", deep)), 15},
		"a document too deep by path":   {d("$set", d(path, nested)), 15},
		"a document too large":          {d("$set", d("more", big)), 10334},
		"a type that does not compare":  {d("$set", d("k", primitive.MaxKey{})), 2},
		"a field of a string":           {d("$set", d("n.x", 1)), 28},
		"an increment of a string":      {d("$inc", d("n", 1)), 14},
		"an increment by a string":      {d("$inc", d("m", "1")), 14},
		"the _id taken away":            {d("$unset", d("_id", "")), 66},
	} {
		if _, err := c.UpdateOne(ctx, d("_id", 1), tt.update); !hasCode(err, tt.code) {
			t.Errorf("%s: got %v, want code %d", name, err, tt.code)
		}
	}
	for name, tt := range map[string]struct {
		doc  doc
		code int
	}{
		"array as _id":      {d("_id", bson.A{1}), 53},
		"regex as _id":      {d("_id", primitive.Regex{Pattern: "x"}), 53},
		"operator as field": {d("_id", 2, "$set", 1), 52},
		"unsupported type":  {d("_id", 2, "a", bson.A{primitive.JavaScript("x")}), 2},
	} {
		if _, err := c.InsertOne(ctx, tt.doc); !hasCode(err, tt.code) {
			t.Errorf("%s: got %v, want code %d", name, err, tt.code)
		}
	}
	if got := all(ctx, t, c, doc{}, options.Find().SetProjection(d("big", 0))); !cmp.Equal(got, []doc{d("_id", int32(1), "v", bson.A{"x"}, "n", "text")}) {
		t.Errorf("a refused write left something behind: %v", got)
	}
}

// The kinds of _id that compare only by content.
func TestDocumentsAndBinariesAsID(t *testing.T) {
	t.Parallel()
	ctx, db := setup(t, nil)
	c := db.Collection("c")
	for i, id := range []any{d("a", int32(1), "b", "x"), primitive.Binary{Subtype: 4, Data: []byte("0123456789abcdef")}} {
		insert(ctx, t, c, d("n", int32(i), "_id", id))
		if _, err := c.InsertOne(ctx, d("_id", id)); !mongo.IsDuplicateKeyError(err) {
			t.Errorf("%v: inserted twice: %v", id, err)
		}
		if res, err := c.UpdateOne(ctx, d("_id", id), d("$set", d("k", "v"))); err != nil || res.ModifiedCount != 1 {
			t.Errorf("%v: update: %+v, %v", id, res, err)
		}
		if res, err := c.ReplaceOne(ctx, d("_id", id), d("_id", id, "only", true)); err != nil || res.ModifiedCount != 1 {
			t.Errorf("%v: replace: %+v, %v", id, res, err)
		}
		if got := all(ctx, t, c, d("_id", id)); !cmp.Equal(got, []doc{d("_id", id, "only", true)}) {
			t.Errorf("%v: got %v", id, got)
		}
	}
}

// A statement that fails leaves indexes and documents as they were.
func TestFailedUpdateOfManyChangesNothing(t *testing.T) {
	t.Parallel()
	ctx, db := setup(t, nil)
	c := db.Collection("c")
	_, err := c.Indexes().CreateOne(ctx, mongo.IndexModel{Keys: d("k", 1), Options: options.Index().SetName("k").SetUnique(true)})
	if err != nil {
		t.Fatal(err)
	}
	insert(ctx, t, c, d("_id", int32(1), "k", int32(1)), d("_id", int32(2), "k", int32(2)), d("_id", int32(3), "k", int32(3)))
	_, err = c.UpdateMany(ctx, doc{}, d("$set", d("k", int32(9))))
	if !mongo.IsDuplicateKeyError(err) {
		t.Fatalf("three documents with one key: %v", err)
	}
	want := "E11000 duplicate key error collection: test.c index: k dup key: { k: 9 }"
	if !strings.Contains(err.Error(), want) {
		t.Errorf("got %q, want it to say %q", err, want)
	}
	got := all(ctx, t, c, doc{}, options.Find().SetSort(d("_id", 1)))
	if len(got) != 3 || got[0][1].Value != int32(1) || got[2][1].Value != int32(3) {
		t.Errorf("the failed update left %v", got)
	}
	// Every key is still taken, and no other is.
	for k := range int32(10) {
		_, err := c.InsertOne(ctx, d("_id", 100+k, "k", k))
		if taken := k >= 1 && k <= 3; mongo.IsDuplicateKeyError(err) != taken {
			t.Errorf("key %d: %v", k, err)
		}
	}
	// Keys may move among the documents of one statement.
	if _, err := c.UpdateMany(ctx, d("_id", d("$lte", 3)), d("$inc", d("k", int32(100)))); err != nil {
		t.Errorf("moving three keys: %v", err)
	}
}

func TestProjectionOfArrays(t *testing.T) {
	t.Parallel()
	ctx, db := setup(t, nil)
	c := db.Collection("c")
	insert(ctx, t, c, d("_id", "a", "live", bson.A{d("sid", "x", "at", int32(1)), d("sid", "y", "at", int32(2)), "scalar"}, "n", int32(1)))
	for _, tt := range []struct {
		name   string
		fields doc
		want   doc
	}{
		{"one field of each", d("live.sid", 1), d("_id", "a", "live", bson.A{d("sid", "x"), d("sid", "y")})},
		{"all but one field of each", d("live.sid", 0), d("_id", "a", "live", bson.A{d("at", int32(1)), d("at", int32(2)), "scalar"}, "n", int32(1))},
		{"the document's own order", d("n", 1, "live.at", true), d("_id", "a", "live", bson.A{d("at", int32(1)), d("at", int32(2))}, "n", int32(1))},
		{"slice keeps the other fields", d("live", d("$slice", -1)), d("_id", "a", "live", bson.A{"scalar"}, "n", int32(1))},
		{"slice of an included field", d("live", d("$slice", 1), "_id", 0, "z", 1), d("live", bson.A{d("sid", "x", "at", int32(1))})},
		{"only _id", d("_id", 1), d("_id", "a")},
		{"all but _id", d("_id", 0, "live", 0), d("n", int32(1))},
	} {
		if got := all(ctx, t, c, doc{}, options.Find().SetProjection(tt.fields)); !cmp.Equal(got, []doc{tt.want}) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
	for _, tt := range []struct {
		fields doc
		code   int
	}{
		{d("n", 0, "live", 1), 31253},
		{d("live", 1, "live.sid", 1), 31249},
		{d("live.sid", 1, "live", 1), 31250},
		{d("live", d("$elemMatch", doc{})), 2},
		{d("n", "$live"), 2},
		{d("live.$", 1), 2},
		{d("live", d("$slice", "x")), 14},
	} {
		if _, err := c.Find(ctx, doc{}, options.Find().SetProjection(tt.fields)); !hasCode(err, tt.code) {
			t.Errorf("%v: got %v, want code %d", tt.fields, err, tt.code)
		}
		// The answer of a findAndModify is checked before it writes.
		err := c.FindOneAndUpdate(ctx, doc{}, d("$inc", d("n", 1)), options.FindOneAndUpdate().SetProjection(tt.fields)).Err()
		if !hasCode(err, tt.code) {
			t.Errorf("findAndModify %v: got %v, want code %d", tt.fields, err, tt.code)
		}
	}
	if n, err := c.CountDocuments(ctx, d("n", 1)); err != nil || n != 1 {
		t.Errorf("a refused findAndModify has written: %d, %v", n, err)
	}
}
