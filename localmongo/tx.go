package localmongo

import (
	"bytes"
	"fmt"
	"slices"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"

	"github.com/256dpi/lungo"
	"github.com/256dpi/lungo/bsonkit"
	"github.com/256dpi/lungo/mongokit"
)

// tx is the work of one command on a private copy of the catalog. Each of its
// methods either succeeds or changes nothing, so that one statement of a batch
// can fail alone. Stored documents never change: they are replaced.
//
// lungo's own transactions are not used: they copy a collection for every
// statement, cannot update a document whose _id is binary, and do not say which
// document was the duplicate.
type tx struct {
	catalog *lungo.Catalog
	own     map[lungo.Handle]bool // collections that are copies already
	events  []event
	dirty   bool
}

func newTx(c *lungo.Catalog) *tx {
	return &tx{catalog: c.Clone(), own: map[lungo.Handle]bool{}}
}

// mutable returns the collection, created or copied when it has to be.
func (t *tx) mutable(h lungo.Handle) *mongokit.Collection {
	c := t.catalog.Namespaces[h]
	switch {
	case c == nil:
		c = mongokit.NewCollection(true)
	case t.own[h]:
		return c
	default:
		c = c.Clone()
	}
	t.catalog.Namespaces[h], t.own[h] = c, true
	return c
}

func (t *tx) emit(kind string, h lungo.Handle, doc bsonkit.Doc, changes *mongokit.Changes) {
	e := event{kind: kind, ns: h}
	if doc != nil {
		e.key = bsonkit.Get(doc, "_id")
		if kind != "delete" {
			e.full = doc
		}
	}
	if changes != nil {
		e.changed = changes.Changed
	}
	t.events = append(t.events, e)
	t.dirty = true
}

// insert adds doc, which it keeps. A missing _id is made, and _id comes first,
// as on a server.
func (t *tx) insert(h lungo.Handle, doc bsonkit.Doc) error {
	if i := slices.IndexFunc(*doc, func(e bson.E) bool { return e.Key == "_id" }); i < 0 {
		*doc = slices.Insert(slices.Clone(*doc), 0, bson.E{Key: "_id", Value: primitive.NewObjectID()})
	} else if i > 0 {
		id := (*doc)[i]
		*doc = slices.Insert(slices.Delete(slices.Clone(*doc), i, i+1), 0, id)
	}
	if err := checkStored(*doc); err != nil {
		return err
	}
	c := t.mutable(h)
	if err := checkUnique(h, c, doc); err != nil {
		return err
	}
	if err := addToIndexes(c, doc); err != nil {
		return err
	}
	c.Documents.Add(doc)
	t.emit("insert", h, doc, nil)
	return nil
}

// replacement is one document before and after a change.
type replacement struct {
	before, after bsonkit.Doc
	changes       *mongokit.Changes // nil when the whole document was replaced
}

// replace puts the documents in the place of others, all or none.
func (t *tx) replace(h lungo.Handle, list []replacement) error {
	for _, r := range list {
		if bsonkit.Compare(bsonkit.Get(r.before, "_id"), bsonkit.Get(r.after, "_id")) != 0 {
			return failf(codeImmutableField, "Performing an update on the path '_id' would modify the immutable field '_id'")
		}
		if err := checkStored(*r.after); err != nil {
			return err
		}
	}
	if len(list) == 0 {
		return nil
	}
	c := t.mutable(h)
	for _, r := range list {
		if err := removeFromIndexes(c, r.before); err != nil {
			return err
		}
	}
	for i, r := range list {
		if err := checkUnique(h, c, r.after); err != nil {
			return errorsOr(err, restore(c, list, i))
		}
		if err := addToIndexes(c, r.after); err != nil {
			return err
		}
	}
	for _, r := range list {
		c.Documents.Replace(r.before, r.after)
		kind := "update"
		if r.changes == nil {
			kind = "replace"
		}
		t.emit(kind, h, r.after, r.changes)
	}
	return nil
}

// restore puts the indexes back after the first done documents of list have
// been exchanged.
func restore(c *mongokit.Collection, list []replacement, done int) error {
	for _, r := range list[:done] {
		if err := removeFromIndexes(c, r.after); err != nil {
			return err
		}
	}
	for _, r := range list {
		if err := addToIndexes(c, r.before); err != nil {
			return err
		}
	}
	return nil
}

// errorsOr returns worse when there is one, and err otherwise.
func errorsOr(err, worse error) error {
	if worse != nil {
		return worse
	}
	return err
}

// remove deletes the documents.
func (t *tx) remove(h lungo.Handle, list bsonkit.List) error {
	if len(list) == 0 {
		return nil
	}
	c := t.mutable(h)
	gone := make(map[bsonkit.Doc]bool, len(list))
	for _, doc := range list {
		if err := removeFromIndexes(c, doc); err != nil {
			return err
		}
		gone[doc] = true
		t.emit("delete", h, doc, nil)
	}
	// One pass: the set's own removal moves everything behind the document.
	kept := make(bsonkit.List, 0, len(c.Documents.List)-len(gone))
	for _, doc := range c.Documents.List {
		if !gone[doc] {
			kept = append(kept, doc)
		}
	}
	c.Documents = bsonkit.NewSet(kept)
	return nil
}

// drop removes a collection.
func (t *tx) drop(h lungo.Handle) {
	delete(t.catalog.Namespaces, h)
	delete(t.own, h)
	t.emit("drop", h, nil, nil)
}

// checkUnique returns the error of the first unique index that holds the keys
// of doc already.
func checkUnique(h lungo.Handle, c *mongokit.Collection, doc bsonkit.Doc) error {
	for name, index := range c.Indexes {
		taken, err := index.Has(doc)
		if err != nil {
			return failf(codeBadValue, "%s", err)
		}
		if taken {
			return duplicate(h, name, *index.Config().Key, doc)
		}
	}
	return nil
}

func addToIndexes(c *mongokit.Collection, doc bsonkit.Doc) error {
	for name, index := range c.Indexes {
		if ok, err := index.Add(doc); err != nil || !ok {
			return failf(codeInternal, "index %s: add: %v", name, err)
		}
	}
	return nil
}

func removeFromIndexes(c *mongokit.Collection, doc bsonkit.Doc) error {
	for name, index := range c.Indexes {
		if ok, err := index.Remove(doc); err != nil || !ok {
			return failf(codeInternal, "index %s: remove: %v", name, err)
		}
	}
	return nil
}

// same reports whether the documents are equal to the byte: for a comparison
// alone, 1 and 1.0 are equal.
func same(a, b bsonkit.Doc) bool {
	if bsonkit.Compare(*a, *b) != 0 {
		return false
	}
	x, errX := bson.Marshal(a)
	y, errY := bson.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// checkStored refuses what no stored document may be.
func checkStored(doc bson.D) error {
	if err := checkValue(doc, 0); err != nil {
		return err
	}
	raw, err := bson.Marshal(doc)
	if err != nil {
		return failf(codeBadValue, "%v", err)
	}
	if len(raw) > maxDocument {
		return failf(codeBSONObjectTooLarge, "object to insert too large. size in bytes: %d, max size: %d", len(raw), maxDocument)
	}
	for _, e := range doc {
		if e.Key == "_id" {
			switch e.Value.(type) {
			case bson.A, primitive.Regex:
				return failf(codeInvalidIDField, "The '_id' value cannot be of type %T", e.Value)
			}
		} else if len(e.Key) > 0 && e.Key[0] == '$' {
			return failf(codeDollarPrefixed, "The dollar ($) prefixed field '%s' is not valid for storage.", e.Key)
		}
	}
	return nil
}

// checkValue refuses deep nesting and the types that lungo cannot compare.
func checkValue(v any, depth int) error {
	if depth > maxStoredDepth {
		return failf(codeOverflow, "the document is nested deeper than %d", maxStoredDepth)
	}
	switch x := v.(type) {
	case bson.D:
		for _, e := range x {
			if err := checkValue(e.Value, depth+1); err != nil {
				return err
			}
		}
	case bson.A:
		for _, item := range x {
			if err := checkValue(item, depth+1); err != nil {
				return err
			}
		}
	case primitive.Decimal128:
		if _, _, err := x.BigInt(); err != nil {
			return failf(codeBadValue, "the decimal %s is not supported by localmongo", x)
		}
	case nil, primitive.Null, bool, int32, int64, float64, string, primitive.ObjectID, primitive.DateTime,
		primitive.Timestamp, primitive.Binary, primitive.Regex:
	default:
		return failf(codeBadValue, "values of the type %s are not supported by localmongo", fmt.Sprintf("%T", v))
	}
	return nil
}
