package localmongo

import (
	"go.mongodb.org/mongo-driver/bson"

	"github.com/256dpi/lungo"
	"github.com/256dpi/lungo/bsonkit"
)

// modification is a findAndModify.
type modification struct {
	handle lungo.Handle
	change *change // nil when the document is removed
	query  *query
	after  bool // answer with the document after the change
	fields *projection
}

func parseModification(a *args) (*modification, error) {
	var m modification
	var err error
	if m.handle, err = a.writable(); err != nil {
		return nil, err
	}
	remove, err := a.flag("remove", false)
	if err != nil {
		return nil, err
	}
	if m.after, err = a.flag("new", false); err != nil {
		return nil, err
	}
	upsert, err := a.flag("upsert", false)
	if err != nil {
		return nil, err
	}
	_, update := a.values["update"]
	switch {
	case remove == update:
		return nil, failf(codeFailedToParse, "Either an update or remove=true must be specified")
	case remove && m.after:
		return nil, failf(codeFailedToParse, "Cannot specify both new=true and remove=true; 'remove' always returns the deleted document")
	case remove && upsert:
		return nil, failf(codeFailedToParse, "Cannot specify both upsert=true and remove=true")
	}
	spec, err := a.doc("fields")
	if err != nil {
		return nil, err
	}
	if m.fields, err = parseProjection(spec); err != nil {
		return nil, err
	}
	if remove {
		if m.query, err = parseQuery(a, "query"); err != nil {
			return nil, err
		}
	} else {
		if m.change, err = parseChange(a, "query", "update"); err != nil {
			return nil, err
		}
		m.query = &m.change.query
	}
	m.query.limit = 1
	return &m, nil
}

func runFindAndModify(c *session, a *args) (bson.D, error) {
	m, err := parseModification(a)
	if err != nil {
		return nil, err
	}
	var doc bsonkit.Doc
	var info bson.D
	err = c.server.data.write(func(t *tx) error {
		var err error
		if m.change == nil {
			doc, info, err = m.remove(t)
		} else {
			doc, info, err = m.update(t)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	var value any
	if doc != nil {
		value = m.fields.apply(doc)
	}
	return bson.D{{Key: "lastErrorObject", Value: info}, {Key: "value", Value: value}}, nil
}

func (m *modification) remove(t *tx) (bsonkit.Doc, bson.D, error) {
	list, err := m.query.run(t.catalog.Namespaces[m.handle])
	if err != nil || len(list) == 0 {
		return nil, bson.D{{Key: "n", Value: int32(0)}}, err
	}
	return list[0], bson.D{{Key: "n", Value: int32(1)}}, t.remove(m.handle, list)
}

func (m *modification) update(t *tx) (bsonkit.Doc, bson.D, error) {
	res, err := m.change.apply(t, m.handle)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case res.upserted != nil:
		info := bson.D{
			{Key: "n", Value: int32(1)},
			{Key: "updatedExisting", Value: false},
			{Key: "upserted", Value: bsonkit.Get(res.upserted, "_id")},
		}
		if !m.after {
			return nil, info, nil
		}
		return res.upserted, info, nil
	case len(res.before) == 0:
		return nil, bson.D{{Key: "n", Value: int32(0)}, {Key: "updatedExisting", Value: false}}, nil
	default:
		info := bson.D{{Key: "n", Value: int32(1)}, {Key: "updatedExisting", Value: true}}
		if !m.after {
			return res.before[0], info, nil
		}
		return res.after[0], info, nil
	}
}
