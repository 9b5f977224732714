package localmongo

import (
	"go.mongodb.org/mongo-driver/bson"

	"github.com/256dpi/lungo/mongokit"
)

func runFind(c *session, a *args) (bson.D, error) {
	handle, err := a.target()
	if err != nil {
		return nil, err
	}
	q, err := parseQuery(a, "filter")
	if err != nil {
		return nil, err
	}
	spec, err := a.doc("projection")
	if err != nil {
		return nil, err
	}
	fields, err := parseProjection(spec)
	if err != nil {
		return nil, err
	}
	size, err := a.size(defaultBatch)
	if err != nil {
		return nil, err
	}
	single, err := a.flag("singleBatch", false)
	if err != nil {
		return nil, err
	}
	list, err := q.run(c.server.data.collection(handle))
	if err != nil {
		return nil, err
	}
	return c.server.data.cursors.openResult(handle.String(), fields.applyAll(list), size, single), nil
}

func runCount(c *session, a *args) (bson.D, error) {
	handle, err := a.target()
	if err != nil {
		return nil, err
	}
	q, err := parseQuery(a, "query")
	if err != nil {
		return nil, err
	}
	list, err := q.run(c.server.data.collection(handle))
	if err != nil {
		return nil, err
	}
	return bson.D{{Key: "n", Value: int32(len(list))}}, nil //nolint:gosec // bounded by the collection in memory
}

func runDistinct(c *session, a *args) (bson.D, error) {
	handle, err := a.target()
	if err != nil {
		return nil, err
	}
	key, err := a.str("key")
	if err != nil {
		return nil, err
	}
	if key == "" {
		return nil, failf(codeMissingRequired, "BSON field 'distinct.key' is missing but a required field")
	}
	q, err := parseQuery(a, "query")
	if err != nil {
		return nil, err
	}
	list, err := q.run(c.server.data.collection(handle))
	if err != nil {
		return nil, err
	}
	return bson.D{{Key: "values", Value: mongokit.Distinct(list, key)}}, nil
}
