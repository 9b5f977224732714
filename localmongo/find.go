package localmongo

import (
	"go.mongodb.org/mongo-driver/bson"

	"github.com/256dpi/lungo"
	"github.com/256dpi/lungo/bsonkit"
	"github.com/256dpi/lungo/mongokit"
)

func runFind(c *session, a *args) (bson.D, error) {
	name, err := a.collection()
	if err != nil {
		return nil, err
	}
	q, err := parseQuery(a, "filter")
	if err != nil {
		return nil, err
	}
	if q.sort, err = a.doc("sort"); err != nil {
		return nil, err
	}
	fields, err := a.doc("projection")
	if err != nil {
		return nil, err
	}
	handle := lungo.Handle{a.db, name}
	list, err := q.run(c.server.data.read(), handle)
	if err != nil {
		return nil, err
	}
	docs, err := projectAll(list, fields)
	if err != nil {
		return nil, err
	}
	size, err := a.number("batchSize", defaultBatch)
	if err != nil {
		return nil, err
	}
	single, err := a.flag("singleBatch", false)
	if err != nil {
		return nil, err
	}
	return c.server.data.cursors.openResult(handle.String(), docs, size, single), nil
}

// query is what find, count and distinct have in common.
type query struct {
	filter, sort bson.D
	skip, limit  int64
}

func parseQuery(a *args, filterKey string) (*query, error) {
	var q query
	var err error
	if q.filter, err = a.doc(filterKey); err != nil {
		return nil, err
	}
	if err := checkFilter(&q.filter); err != nil {
		return nil, err
	}
	if q.skip, err = a.number("skip", 0); err != nil {
		return nil, err
	}
	if q.limit, err = a.number("limit", 0); err != nil {
		return nil, err
	}
	if q.skip < 0 {
		return nil, failf(codeBadValue, "BSON field 'skip' value must be >= 0, actual value '%d'", q.skip)
	}
	if q.limit < 0 {
		q.limit = -q.limit
	}
	return &q, nil
}

func (q *query) run(t *lungo.Transaction, handle lungo.Handle) (bsonkit.List, error) {
	var sort bsonkit.Doc
	if len(q.sort) > 0 {
		sort = &q.sort
	}
	res, err := t.Find(handle, &q.filter, sort, int(q.skip), int(q.limit))
	if err != nil {
		return nil, storageError(err, t, handle, nil)
	}
	return res.Matched, nil
}

func runCount(c *session, a *args) (bson.D, error) {
	name, err := a.collection()
	if err != nil {
		return nil, err
	}
	q, err := parseQuery(a, "query")
	if err != nil {
		return nil, err
	}
	list, err := q.run(c.server.data.read(), lungo.Handle{a.db, name})
	if err != nil {
		return nil, err
	}
	return bson.D{{Key: "n", Value: int32(len(list))}}, nil //nolint:gosec // bounded by the collection in memory
}

func runDistinct(c *session, a *args) (bson.D, error) {
	name, err := a.collection()
	if err != nil {
		return nil, err
	}
	key, err := a.str("key")
	if err != nil {
		return nil, err
	}
	q, err := parseQuery(a, "query")
	if err != nil {
		return nil, err
	}
	list, err := q.run(c.server.data.read(), lungo.Handle{a.db, name})
	if err != nil {
		return nil, err
	}
	return bson.D{{Key: "values", Value: mongokit.Distinct(list, key)}}, nil
}

func projectAll(list bsonkit.List, fields bson.D) (bson.A, error) {
	out := make(bson.A, len(list))
	for i, doc := range list {
		p, err := project(doc, fields)
		if err != nil {
			return nil, err
		}
		out[i] = p
	}
	return out, nil
}

// project applies a projection. Exclusion is done here: lungo's keeps only the
// last excluded field.
func project(doc bsonkit.Doc, fields bson.D) (bson.D, error) {
	if len(fields) == 0 {
		return *doc, nil
	}
	excluded, err := exclusions(fields)
	if err != nil {
		return nil, err
	}
	if excluded == nil {
		res, err := mongokit.Project(doc, &fields)
		if err != nil {
			return nil, failf(codeBadValue, "%s (not supported by localmongo)", err)
		}
		return *res, nil
	}
	res := bsonkit.Clone(doc)
	for _, path := range excluded {
		bsonkit.Unset(res, path)
	}
	return *res, nil
}

// exclusions returns the excluded paths when the projection is one that only
// excludes, and nil otherwise.
func exclusions(fields bson.D) ([]string, error) {
	var out []string
	including := false
	for _, f := range fields {
		off, plain := isOff(f.Value)
		switch {
		case !plain:
			including = true // an expression: left to lungo
		case off:
			out = append(out, f.Key)
		case f.Key != "_id":
			including = true
		}
	}
	if !including {
		return out, nil
	}
	for _, path := range out {
		if path != "_id" {
			return nil, failf(31254, "Cannot do exclusion on field %s in inclusion projection", path)
		}
	}
	return nil, nil
}

// isOff reports whether v switches a field off, and whether it is a plain
// switch at all.
func isOff(v any) (off, plain bool) {
	switch x := v.(type) {
	case bool:
		return !x, true
	case int32:
		return x == 0, true
	case int64:
		return x == 0, true
	case float64:
		return x == 0, true
	default:
		return false, false
	}
}
