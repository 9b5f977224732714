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
		if dir, ok := direction(k.Value); !ok {
			return nil, failf(codeCannotCreateIndex, "index key %q: only 1 and -1 are supported by localmongo, got %v", k.Key, dir)
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
		if err := checkFilter(&partial); err != nil {
			return nil, err
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

func direction(v any) (any, bool) {
	return v, bsonkit.Compare(v, int32(1)) == 0 || bsonkit.Compare(v, int32(-1)) == 0
}

func runCreateIndexes(c *session, a *args) (bson.D, error) {
	name, err := a.collection()
	if err != nil {
		return nil, err
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	docs, err := a.docs("indexes")
	if err != nil {
		return nil, err
	}
	handle := lungo.Handle{a.db, name}
	var before, after int32
	created := false
	err = c.server.data.write(func(t *lungo.Transaction) error {
		created = t.Catalog().Namespaces[handle] == nil
		if err := t.Create(handle); err != nil {
			return storageError(err, t, handle, nil)
		}
		before = indexCount(t, handle)
		for _, doc := range docs {
			spec, err := parseIndex(a, doc)
			if err != nil {
				return err
			}
			if err := createIndex(t, handle, spec); err != nil {
				return err
			}
		}
		after = indexCount(t, handle)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return bson.D{
		{Key: "numIndexesBefore", Value: before},
		{Key: "numIndexesAfter", Value: after},
		{Key: "createdCollectionAutomatically", Value: created},
	}, nil
}

func indexCount(t *lungo.Transaction, handle lungo.Handle) int32 {
	coll := t.Catalog().Namespaces[handle]
	if coll == nil {
		return 0
	}
	return int32(len(coll.Indexes)) //nolint:gosec // a handful
}

// createIndex does what lungo leaves out: to tell an index that is there from
// one that contradicts.
func createIndex(t *lungo.Transaction, handle lungo.Handle, spec *indexSpec) error {
	for name, x := range t.Catalog().Namespaces[handle].Indexes {
		config := x.Config()
		sameKey := bsonkit.Compare(*config.Key, *spec.config.Key) == 0
		switch {
		case name == "_id_" && sameKey:
			return nil
		case name == spec.name && !sameKey:
			return failf(codeIndexKeySpecs, "An existing index has the same name as the requested index: %s; the keys are %v and %v", name, *config.Key, *spec.config.Key)
		case name == spec.name && !config.Equal(spec.config):
			return failf(codeIndexKeySpecs, "An existing index has the same name as the requested index and other options: %s", name)
		case name == spec.name:
			return nil
		case sameKey:
			return failf(codeIndexOptions, "Index already exists with a different name: %s", name)
		}
	}
	_, err := t.CreateIndex(handle, spec.name, spec.config)
	if err != nil && duplicateIndex.MatchString(err.Error()) {
		return &commandError{
			code:    codeDuplicateKey,
			message: "E11000 duplicate key error collection: " + handle.String() + " index: " + spec.name + " (the collection holds duplicates)",
			extra:   bson.D{{Key: "keyPattern", Value: *spec.config.Key}},
		}
	}
	return storageError(err, t, handle, nil)
}

func runListIndexes(c *session, a *args) (bson.D, error) {
	name, err := a.collection()
	if err != nil {
		return nil, err
	}
	handle := lungo.Handle{a.db, name}
	t := c.server.data.read()
	if t.Catalog().Namespaces[handle] == nil {
		return nil, failf(codeNamespaceNotFound, "ns does not exist: %s", handle)
	}
	list, err := t.ListIndexes(handle)
	if err != nil {
		return nil, storageError(err, t, handle, nil)
	}
	return firstBatch(handle.String(), list), nil
}

func runDropIndexes(c *session, a *args) (bson.D, error) {
	name, err := a.collection()
	if err != nil {
		return nil, err
	}
	index, err := a.str("index")
	if err != nil {
		return nil, err
	}
	handle := lungo.Handle{a.db, name}
	var before int32
	err = c.server.data.write(func(t *lungo.Transaction) error {
		coll := t.Catalog().Namespaces[handle]
		if coll == nil {
			return failf(codeNamespaceNotFound, "ns not found %s", handle)
		}
		before = indexCount(t, handle)
		switch {
		case index == "_id_":
			return failf(codeInvalidOptions, "cannot drop _id index")
		case index == "*":
			return storageError(t.DropIndex(handle, ""), t, handle, nil)
		case coll.Indexes[index] == nil:
			return failf(codeIndexNotFound, "index not found with name [%s]", index)
		default:
			return storageError(t.DropIndex(handle, index), t, handle, nil)
		}
	})
	if err != nil {
		return nil, err
	}
	return bson.D{{Key: "nIndexesWas", Value: before}}, nil
}
