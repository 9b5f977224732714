package localmongo

import (
	"go.mongodb.org/mongo-driver/bson"

	"github.com/256dpi/lungo"
	"github.com/256dpi/lungo/bsonkit"
)

// maxBatch is the number of writes that one command may carry, as a server of
// MongoDB announces it.
const maxBatch = 100_000

// batch runs the n writes of one command and collects their errors.
func (c *session) batch(a *args, n int, one func(t *lungo.Transaction, i int) error) (bson.D, error) {
	if n == 0 || n > maxBatch {
		return nil, failf(codeInvalidLength, "Write batch sizes must be between 1 and %d. Got %d operations.", maxBatch, n)
	}
	ordered, err := a.flag("ordered", true)
	if err != nil {
		return nil, err
	}
	failures := bson.A{}
	err = c.server.data.write(func(t *lungo.Transaction) error {
		for i := range n {
			if err := one(t, i); err != nil {
				failures = append(failures, asCommandError(err).writeError(i))
				if ordered {
					break
				}
			}
		}
		return nil
	})
	if err != nil || len(failures) == 0 {
		return nil, err
	}
	return bson.D{{Key: "writeErrors", Value: failures}}, nil
}

func runInsert(c *session, a *args) (bson.D, error) {
	name, err := a.collection()
	if err != nil {
		return nil, err
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	docs, err := a.docs("documents")
	if err != nil {
		return nil, err
	}
	handle := lungo.Handle{a.db, name}
	var inserted int32
	out, err := c.batch(a, len(docs), func(t *lungo.Transaction, i int) error {
		if err := insertOne(t, handle, docs[i]); err != nil {
			return err
		}
		inserted++
		return nil
	})
	if err != nil {
		return nil, err
	}
	return append(bson.D{{Key: "n", Value: inserted}}, out...), nil
}

func insertOne(t *lungo.Transaction, handle lungo.Handle, doc bson.D) error {
	if err := checkDocument(doc); err != nil {
		return err
	}
	res, err := t.Insert(handle, bsonkit.List{&doc}, true)
	if err == nil {
		err = res.Error
	}
	return storageError(err, t, handle, &doc)
}

// checkDocument refuses what no stored document may be.
func checkDocument(doc bson.D) error {
	raw, err := bson.Marshal(doc)
	if err != nil {
		return failf(codeBadValue, "%v", err)
	}
	if len(raw) > maxDocument {
		return failf(codeBSONObjectTooLarge, "object to insert too large. size in bytes: %d, max size: %d", len(raw), maxDocument)
	}
	for _, e := range doc {
		if e.Key == "_id" {
			if _, isArray := e.Value.(bson.A); isArray {
				return failf(codeBadValue, "can't use an array for _id")
			}
		} else if len(e.Key) > 0 && e.Key[0] == '$' {
			return failf(codeFailedToParse, "field name %q may not start with '$'", e.Key)
		}
	}
	return nil
}

// change is one statement of an update command, or the update of a
// findAndModify.
type change struct {
	query, update, sort bson.D
	replacement         bool
	upsert              bool
	filters             bsonkit.List
	limit               int
}

// parseChange reads the update document under key.
func parseChange(a *args, queryKey, updateKey string) (*change, error) {
	var ch change
	var err error
	if ch.query, err = a.doc(queryKey); err != nil {
		return nil, err
	}
	if err := checkFilter(&ch.query); err != nil {
		return nil, err
	}
	if _, isPipeline := a.values[updateKey].(bson.A); isPipeline {
		return nil, failf(codeFailedToParse, "updates given as pipelines are not supported by localmongo")
	}
	if ch.update, err = a.doc(updateKey); err != nil {
		return nil, err
	}
	ch.replacement = len(ch.update) == 0 || len(ch.update[0].Key) == 0 || ch.update[0].Key[0] != '$'
	if ch.replacement {
		if err := checkDocument(ch.update); err != nil {
			return nil, err
		}
	}
	if ch.upsert, err = a.flag("upsert", false); err != nil {
		return nil, err
	}
	filters, err := a.docs("arrayFilters")
	if err != nil {
		return nil, err
	}
	for i := range filters {
		ch.filters = append(ch.filters, &filters[i])
	}
	return &ch, nil
}

// apply runs the change and returns the documents before and after it. The
// identifier of an upserted document is reported apart.
func (ch *change) apply(t *lungo.Transaction, handle lungo.Handle) (*lungo.Result, error) {
	var sort bsonkit.Doc
	if len(ch.sort) > 0 {
		sort = &ch.sort
	}
	if err := ch.checkID(t, handle, sort); err != nil {
		return nil, err
	}
	var res *lungo.Result
	var err error
	if ch.replacement {
		res, err = t.Replace(handle, &ch.query, sort, &ch.update, ch.upsert)
	} else {
		res, err = t.Update(handle, &ch.query, sort, &ch.update, 0, ch.limit, ch.upsert, ch.filters)
	}
	if err != nil {
		return nil, storageError(err, t, handle, nil)
	}
	return res, nil
}

// checkID refuses a replacement with another _id. lungo compares the two with
// !=, which panics on an _id that is a document.
func (ch *change) checkID(t *lungo.Transaction, handle lungo.Handle, sort bsonkit.Doc) error {
	if !ch.replacement {
		return nil
	}
	id := bsonkit.Get(&ch.update, "_id")
	if id == bsonkit.Missing {
		return nil
	}
	res, err := t.Find(handle, &ch.query, sort, 0, 1)
	if err != nil {
		return storageError(err, t, handle, nil)
	}
	if len(res.Matched) == 0 {
		return nil
	}
	if bsonkit.Compare(id, bsonkit.Get(res.Matched[0], "_id")) != 0 {
		return failf(codeImmutableField, "the (immutable) field '_id' was found to have been altered")
	}
	// The same _id may come as another numeric type; the stored one stays.
	var rest bson.D
	for _, e := range ch.update {
		if e.Key != "_id" {
			rest = append(rest, e)
		}
	}
	ch.update = rest
	return nil
}

// modified counts the documents that an update really changed.
func modified(res *lungo.Result) int32 {
	var n int32
	for i, doc := range res.Modified {
		if i >= len(res.Matched) || bsonkit.Compare(*res.Matched[i], *doc) != 0 {
			n++
		}
	}
	return n
}

func runUpdate(c *session, a *args) (bson.D, error) {
	name, err := a.collection()
	if err != nil {
		return nil, err
	}
	statements, err := a.docs("updates")
	if err != nil {
		return nil, err
	}
	handle := lungo.Handle{a.db, name}
	var matched, changed int32
	upserted := bson.A{}
	out, err := c.batch(a, len(statements), func(t *lungo.Transaction, i int) error {
		s, err := a.sub("updates", statements[i], "q", "u", "multi", "upsert", "arrayFilters", "c")
		if err != nil {
			return err
		}
		res, err := updateOne(t, handle, s)
		if err != nil {
			return err
		}
		matched += int32(len(res.Matched)) //nolint:gosec // bounded by the collection in memory
		changed += modified(res)
		if res.Upserted != nil {
			matched++
			upserted = append(upserted, bson.D{
				{Key: "index", Value: int32(i)}, //nolint:gosec // at most 100,000
				{Key: "_id", Value: bsonkit.Get(res.Upserted, "_id")},
			})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	answer := bson.D{{Key: "n", Value: matched}, {Key: "nModified", Value: changed}}
	if len(upserted) > 0 {
		answer = append(answer, bson.E{Key: "upserted", Value: upserted})
	}
	return append(answer, out...), nil
}

func updateOne(t *lungo.Transaction, handle lungo.Handle, s *args) (*lungo.Result, error) {
	ch, err := parseChange(s, "q", "u")
	if err != nil {
		return nil, err
	}
	multi, err := s.flag("multi", false)
	if err != nil {
		return nil, err
	}
	if multi && ch.replacement {
		return nil, failf(codeFailedToParse, "multi update is not supported for replacement-style update")
	}
	if !multi {
		ch.limit = 1
	}
	return ch.apply(t, handle)
}

func runDelete(c *session, a *args) (bson.D, error) {
	name, err := a.collection()
	if err != nil {
		return nil, err
	}
	statements, err := a.docs("deletes")
	if err != nil {
		return nil, err
	}
	handle := lungo.Handle{a.db, name}
	var deleted int32
	out, err := c.batch(a, len(statements), func(t *lungo.Transaction, i int) error {
		s, err := a.sub("deletes", statements[i], "q", "limit")
		if err != nil {
			return err
		}
		query, err := s.doc("q")
		if err != nil {
			return err
		}
		if err := checkFilter(&query); err != nil {
			return err
		}
		limit, err := s.number("limit", 0)
		if err != nil {
			return err
		}
		res, err := t.Delete(handle, &query, nil, 0, int(limit))
		if err != nil {
			return storageError(err, t, handle, nil)
		}
		deleted += int32(len(res.Matched)) //nolint:gosec // bounded by the collection in memory
		return nil
	})
	if err != nil {
		return nil, err
	}
	return append(bson.D{{Key: "n", Value: deleted}}, out...), nil
}
