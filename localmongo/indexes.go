package localmongo

import (
	"time"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/256dpi/lungo"
	"github.com/256dpi/lungo/bsonkit"
	"github.com/256dpi/lungo/mongokit"
)

// ttlZero stands for expireAfterSeconds 0: to lungo, zero means no TTL at all.
const ttlZero = time.Nanosecond

// indexSpec is one index of a createIndexes command.
type indexSpec struct {
	name   string
	config mongokit.IndexConfig
}

func parseIndex(a *args, doc bson.D) (*indexSpec, error) {
	s, err := a.sub("indexes", doc, "key", "name", "unique", "partialFilterExpression", "expireAfterSeconds", "v", "background", "ns")
	if err != nil {
		return nil, err
	}
	key, err := s.doc("key")
	if err != nil {
		return nil, err
	}
	var spec indexSpec
	if spec.name, err = s.str("name"); err != nil {
		return nil, err
	}
	if len(key) == 0 || spec.name == "" {
		return nil, failf(codeCannotCreateIndex, "an index needs a key and a name")
	}
	for _, k := range key {
		if !isDirection(k.Value) {
			return nil, failf(codeCannotCreateIndex, "index key %q: only 1 and -1 are supported by localmongo, got %v", k.Key, k.Value)
		}
	}
	spec.config.Key = &key
	if spec.config.Unique, err = s.flag("unique", false); err != nil {
		return nil, err
	}
	if _, ok := s.values["partialFilterExpression"]; ok {
		partial, err := s.doc("partialFilterExpression")
		if err != nil {
			return nil, err
		}
		if err := checkFilter(partial); err != nil {
			return nil, failf(codeCannotCreateIndex, "partialFilterExpression: %v", err)
		}
		spec.config.Partial = &partial
	}
	return &spec, spec.parseTTL(s, key)
}

func (spec *indexSpec) parseTTL(s *args, key bson.D) error {
	seconds, err := s.number("expireAfterSeconds", -1)
	if err != nil {
		return err
	}
	if _, ok := s.values["expireAfterSeconds"]; !ok {
		return nil
	}
	if len(key) != 1 || seconds < 0 || seconds > 1<<31-1 {
		return failf(codeCannotCreateIndex, "TTL indexes are single-field indexes with expireAfterSeconds between 0 and 2147483647")
	}
	spec.config.Expiry = time.Duration(seconds) * time.Second
	if seconds == 0 {
		spec.config.Expiry = ttlZero
	}
	return nil
}

func isDirection(v any) bool {
	switch v.(type) {
	case int32, int64, float64:
		return bsonkit.Compare(v, int32(1)) == 0 || bsonkit.Compare(v, int32(-1)) == 0
	default:
		return false
	}
}

func runCreateIndexes(c *session, a *args) (bson.D, error) {
	handle, err := a.writable()
	if err != nil {
		return nil, err
	}
	docs, err := a.docs("indexes")
	if err != nil {
		return nil, err
	}
	if len(docs) == 0 {
		return nil, failf(codeBadValue, "Must specify at least one index to create")
	}
	specs := make([]*indexSpec, len(docs))
	for i, doc := range docs {
		if specs[i], err = parseIndex(a, doc); err != nil {
			return nil, err
		}
	}
	var before, after int
	created := false
	err = c.server.data.write(func(t *tx) error {
		created = t.catalog.Namespaces[handle] == nil
		coll := t.mutable(handle)
		before = len(coll.Indexes)
		for _, spec := range specs {
			if err := createIndex(handle, coll, spec); err != nil {
				return err
			}
		}
		after = len(coll.Indexes)
		t.dirty = t.dirty || created || after != before
		return nil
	})
	if err != nil {
		return nil, err
	}
	return bson.D{
		{Key: "numIndexesBefore", Value: int32(before)}, //nolint:gosec // a handful
		{Key: "numIndexesAfter", Value: int32(after)},   //nolint:gosec // a handful
		{Key: "createdCollectionAutomatically", Value: created},
	}, nil
}

// createIndex builds the index, unless it is there or contradicts one that is.
func createIndex(h lungo.Handle, c *mongokit.Collection, spec *indexSpec) error {
	for name, x := range c.Indexes {
		config := x.Config()
		sameKey := bsonkit.Compare(*config.Key, *spec.config.Key) == 0
		switch {
		case sameKey && (name == "_id_" || (name == spec.name && config.Equal(spec.config))):
			return nil
		case sameKey && name != spec.name:
			return failf(codeIndexOptions, "Index already exists with a different name: %s", name)
		case name != spec.name:
		case sameKey && samePartial(config, spec.config):
			return failf(codeIndexOptions, "An equivalent index already exists with the same name but different options: %s", name)
		default:
			return failf(codeIndexKeySpecs, "An existing index has the same name as the requested index: %s; the keys are %v and %v", name, *config.Key, *spec.config.Key)
		}
	}
	index, err := mongokit.CreateIndex(spec.config)
	if err != nil {
		return failf(codeCannotCreateIndex, "%s", err)
	}
	for _, doc := range c.Documents.List {
		ok, err := index.Add(doc)
		if err != nil {
			return failf(codeBadValue, "%s", err)
		}
		if !ok {
			return duplicate(h, spec.name, *spec.config.Key, doc)
		}
	}
	c.Indexes[spec.name] = index
	return nil
}

func samePartial(a, b mongokit.IndexConfig) bool {
	if a.Partial == nil || b.Partial == nil {
		return a.Partial == b.Partial
	}
	return bsonkit.Compare(*a.Partial, *b.Partial) == 0
}

func runListIndexes(c *session, a *args) (bson.D, error) {
	handle, err := a.target()
	if err != nil {
		return nil, err
	}
	catalog := c.server.data.catalog.Load()
	if catalog.Namespaces[handle] == nil {
		return nil, failf(codeNamespaceNotFound, "ns does not exist: %s", handle)
	}
	list, err := lungo.NewTransaction(catalog).ListIndexes(handle)
	if err != nil {
		return nil, failf(codeBadValue, "%s", err)
	}
	return firstBatch(handle.String(), list), nil
}

func runDropIndexes(c *session, a *args) (bson.D, error) {
	handle, err := a.writable()
	if err != nil {
		return nil, err
	}
	var before int
	err = c.server.data.write(func(t *tx) error {
		if t.catalog.Namespaces[handle] == nil {
			return failf(codeNamespaceNotFound, "ns not found %s", handle)
		}
		coll := t.mutable(handle)
		before = len(coll.Indexes)
		name, err := indexName(a, coll)
		if err != nil {
			return err
		}
		for x := range coll.Indexes {
			if x != "_id_" && (x == name || name == "*") {
				delete(coll.Indexes, x)
				t.dirty = true
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return bson.D{{Key: "nIndexesWas", Value: int32(before)}}, nil //nolint:gosec // a handful
}

// indexName returns the name of the index to drop, which the client gives by
// its name or its key, or "*".
func indexName(a *args, c *mongokit.Collection) (string, error) {
	if key, ok := a.values["index"].(bson.D); ok {
		for name, x := range c.Indexes {
			if bsonkit.Compare(*x.Config().Key, key) == 0 && name != "_id_" {
				return name, nil
			}
		}
		return "", failf(codeIndexNotFound, "can't find index with key: %v", key)
	}
	name, err := a.str("index")
	switch {
	case err != nil:
		return "", err
	case name == "_id_":
		return "", failf(codeInvalidOptions, "cannot drop _id index")
	case name != "*" && c.Indexes[name] == nil:
		return "", failf(codeIndexNotFound, "index not found with name [%s]", name)
	default:
		return name, nil
	}
}
