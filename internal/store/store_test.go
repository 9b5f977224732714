package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"

	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
)

func TestIDs(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 1000 {
		id := store.NewID("usr_")
		if seen[id] || !store.ValidID(id, "usr_") {
			t.Fatalf("id %q", id)
		}
		seen[id] = true
	}
	id := store.NewID("usr_")
	for _, bad := range []string{"", "usr_", id + "0", id[:len(id)-1], "ses_" + id[4:], strings.ToUpper(id), "usr_" + strings.Repeat("u", 26), "usr_" + strings.Repeat("$", 26)} {
		if store.ValidID(bad, "usr_") {
			t.Errorf("%q passes for an id", bad)
		}
	}
}

func TestError(t *testing.T) {
	t.Parallel()
	command := func(code int32) error { return mongo.CommandError{Code: code, Message: "x"} }
	tests := []struct {
		name string
		err  error
		want error
	}{
		{"none", nil, nil},
		{"no document", mongo.ErrNoDocuments, store.ErrNotFound},
		{"duplicate", command(11000), store.ErrDuplicate},
		{"deadline", context.DeadlineExceeded, store.ErrUnavailable},
		{"step-down", command(10107), store.ErrUnavailable},
		{"shutdown", command(91), store.ErrUnavailable},
		{"cursor lost", command(43), store.ErrUnavailable},
		{"time limit", command(50), store.ErrUnavailable},
		{"client gone", mongo.ErrClientDisconnected, store.ErrUnavailable},
		{"not a majority", mongo.WriteException{WriteConcernError: &mongo.WriteConcernError{Code: 64}}, store.ErrUnavailable},
		{"the driver's own", errors.New("server selection error"), store.ErrUnavailable},
		{"cancelled", context.Canceled, context.Canceled},
		{"bad value", command(2), nil},
	}
	for _, tt := range tests {
		got := store.Error("op", tt.err)
		if (tt.err == nil) != (got == nil) || (tt.want != nil && !errors.Is(got, tt.want)) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
		if tt.name == "cancelled" && errors.Is(got, store.ErrUnavailable) {
			t.Error("a caller that gave up is told that the database is away")
		}
		if tt.name == "bad value" && errors.Is(got, store.ErrUnavailable) {
			t.Error("a defect is reported as an outage")
		}
	}
}

func TestIndexes(t *testing.T) {
	t.Parallel()
	c := storetest.Database(t).Collection("c")
	declared := []store.Index{
		{Name: "k", Keys: bson.D{{Key: "app", Value: 1}, {Key: "k", Value: -1}}, Unique: true, Partial: bson.D{{Key: "k", Value: bson.D{{Key: "$gt", Value: ""}}}}},
		{Name: "ttl", Keys: bson.D{{Key: "at", Value: 1}}, TTL: true},
	}
	for range 2 {
		if ttl, err := store.Indexes(t.Context(), c, declared); err != nil || !ttl {
			t.Fatalf("declared indexes: %t, %v", ttl, err)
		}
	}
	conflicts := map[string]store.Index{
		"not unique":     {Name: "k", Keys: declared[0].Keys, Partial: declared[0].Partial},
		"no partial":     {Name: "k", Keys: declared[0].Keys, Unique: true},
		"other keys":     {Name: "k", Keys: bson.D{{Key: "k", Value: 1}}, Unique: true},
		"other name":     {Name: "k2", Keys: declared[1].Keys, TTL: true},
		"no longer TTL":  {Name: "ttl", Keys: declared[1].Keys},
		"other order":    {Name: "k", Keys: bson.D{{Key: "k", Value: -1}, {Key: "app", Value: 1}}, Unique: true, Partial: declared[0].Partial},
		"other ordering": {Name: "k", Keys: bson.D{{Key: "app", Value: 1}, {Key: "k", Value: 1}}, Unique: true, Partial: declared[0].Partial},
	}
	for name, x := range conflicts {
		_, err := store.Indexes(t.Context(), c, []store.Index{x})
		if !errors.Is(err, store.ErrIndexConflict) || !strings.Contains(err.Error(), x.Name) {
			t.Errorf("%s: got %v, want ErrIndexConflict", name, err)
		}
	}
}

func TestUniqueIndexOverDuplicates(t *testing.T) {
	t.Parallel()
	c := storetest.Database(t).Collection("c")
	for range 2 {
		if _, err := c.InsertOne(t.Context(), bson.M{"k": "x"}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := store.Indexes(t.Context(), c, []store.Index{{Name: "k", Keys: bson.D{{Key: "k", Value: 1}}, Unique: true}})
	if err == nil || !strings.Contains(err.Error(), "duplicates") {
		t.Errorf("got %v, want a message about the duplicates", err)
	}
}

func TestHandleAndTime(t *testing.T) {
	t.Parallel()
	db := store.Handle(storetest.Database(t))
	if db.WriteConcern() == nil || fmt.Sprint(db.WriteConcern().W) != "majority" || db.ReadPreference().Mode().String() != "primary" {
		t.Errorf("write concern %+v, read preference %v", db.WriteConcern(), db.ReadPreference())
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 678_901_234, time.FixedZone("x", 3600))
	if got := store.Time(at); got.Nanosecond() != 678_000_000 || got.Location() != time.UTC || !got.Before(at) {
		t.Errorf("stored as %v", got)
	}
}
