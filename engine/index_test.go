package engine_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/engine/enginetest"
	"github.com/mandate-auth/mandate/internal/store/storetest"
)

// Every query goes by _id or begins like an index, so that its cost does not
// grow with the collection. On a real server its own plan has to agree.
func TestEveryQueryIsServedByAnIndex(t *testing.T) {
	t.Parallel()
	commands := &enginetest.Commands{}
	w := driven(t, storetest.Monitored(t, commands.Monitor()))
	seen := map[string]bool{}
	for _, c := range commands.All() {
		for _, filter := range c.Filters() {
			names := fieldsOf(filter)
			if slices.Equal(names, []string{"$or"}) {
				// Each branch is a query of its own, and all of one shape.
				names = fieldsOf(filter.Lookup("$or", "0").Document())
			}
			key := c.Name + " " + c.Collection + " " + strings.Join(names, ",")
			if seen[key] {
				continue
			}
			seen[key] = true
			if sort, ok := c.Raw.Lookup("sort").DocumentOK(); ok {
				names = append(names, fieldsOf(sort)...)
			}
			if !slices.Contains(names, "_id") && !w.indexed(c.Collection, names) {
				t.Errorf("no index begins with fields of %s", key)
			}
			if c.Name == "find" && os.Getenv("MONGODB_URI") != "" {
				w.explain(c)
			}
		}
	}
	if len(seen) < 50 {
		t.Errorf("only %d kinds of queries were seen", len(seen))
	}
}

func fieldsOf(d bson.Raw) []string {
	elements, err := d.Elements()
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range elements {
		out = append(out, e.Key())
	}
	slices.Sort(out)
	return out
}

// indexed reports whether an index of the collection begins with two of the
// names, or with the one that it has.
func (w *world) indexed(collection string, names []string) bool {
	w.t.Helper()
	specs, err := w.db.Collection(collection).Indexes().ListSpecifications(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, spec := range specs {
		keys, err := spec.KeysDocument.Elements()
		if err != nil {
			w.t.Fatal(err)
		}
		served := true
		for _, k := range keys[:min(2, len(keys))] {
			served = served && slices.Contains(names, k.Key())
		}
		if served {
			return true
		}
	}
	return false
}

// explain asks the server for its plan of a find.
func (w *world) explain(c enginetest.Command) {
	w.t.Helper()
	find := bson.D{{Key: "find", Value: c.Collection}}
	for _, field := range []string{"filter", "sort", "limit", "projection"} {
		if v := c.Raw.Lookup(field); v.Type != 0 {
			find = append(find, bson.E{Key: field, Value: v})
		}
	}
	var plan bson.M
	err := w.db.RunCommand(w.t.Context(), bson.D{{Key: "explain", Value: find}, {Key: "verbosity", Value: "queryPlanner"}}).Decode(&plan)
	if err != nil {
		w.t.Fatal(err)
	}
	raw, err := bson.MarshalExtJSON(plan["queryPlanner"], false, false)
	if err != nil {
		w.t.Fatal(err)
	}
	winning, _, _ := strings.Cut(string(raw), "rejectedPlans")
	if strings.Contains(winning, "COLLSCAN") {
		w.t.Errorf("the server scans the collection for %s", c)
	}
}
