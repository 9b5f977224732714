package localmongo

import (
	"go.mongodb.org/mongo-driver/bson"

	"github.com/256dpi/lungo"
	"github.com/256dpi/lungo/bsonkit"
)

func runFindAndModify(c *session, a *args) (bson.D, error) {
	name, err := a.collection()
	if err != nil {
		return nil, err
	}
	remove, err := a.flag("remove", false)
	if err != nil {
		return nil, err
	}
	_, updates := a.values["update"]
	if remove == updates {
		return nil, failf(codeFailedToParse, "Either an update or remove=true must be specified")
	}
	fields, err := a.doc("fields")
	if err != nil {
		return nil, err
	}
	handle := lungo.Handle{a.db, name}
	var value bsonkit.Doc
	var info bson.D
	err = c.server.data.write(func(t *lungo.Transaction) error {
		var err error
		if remove {
			value, info, err = findAndRemove(t, handle, a)
		} else {
			value, info, err = findAndUpdate(t, handle, a)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	answer := bson.D{{Key: "lastErrorObject", Value: info}}
	if value == nil {
		return append(answer, bson.E{Key: "value", Value: nil}), nil
	}
	projected, err := project(value, fields)
	if err != nil {
		return nil, err
	}
	return append(answer, bson.E{Key: "value", Value: projected}), nil
}

func findAndRemove(t *lungo.Transaction, handle lungo.Handle, a *args) (bsonkit.Doc, bson.D, error) {
	query, err := a.doc("query")
	if err != nil {
		return nil, nil, err
	}
	if err := checkFilter(&query); err != nil {
		return nil, nil, err
	}
	sort, err := a.doc("sort")
	if err != nil {
		return nil, nil, err
	}
	res, err := t.Delete(handle, &query, &sort, 0, 1)
	if err != nil {
		return nil, nil, storageError(err, t, handle, nil)
	}
	if len(res.Matched) == 0 {
		return nil, bson.D{{Key: "n", Value: int32(0)}}, nil
	}
	return res.Matched[0], bson.D{{Key: "n", Value: int32(1)}}, nil
}

func findAndUpdate(t *lungo.Transaction, handle lungo.Handle, a *args) (bsonkit.Doc, bson.D, error) {
	ch, err := parseChange(a, "query", "update")
	if err != nil {
		return nil, nil, err
	}
	ch.limit = 1
	if ch.sort, err = a.doc("sort"); err != nil {
		return nil, nil, err
	}
	after, err := a.flag("new", false)
	if err != nil {
		return nil, nil, err
	}
	res, err := ch.apply(t, handle)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case res.Upserted != nil:
		info := bson.D{
			{Key: "n", Value: int32(1)},
			{Key: "updatedExisting", Value: false},
			{Key: "upserted", Value: bsonkit.Get(res.Upserted, "_id")},
		}
		if after {
			return res.Upserted, info, nil
		}
		return nil, info, nil
	case len(res.Matched) == 0:
		return nil, bson.D{{Key: "n", Value: int32(0)}, {Key: "updatedExisting", Value: false}}, nil
	default:
		info := bson.D{{Key: "n", Value: int32(1)}, {Key: "updatedExisting", Value: true}}
		if after {
			return res.Modified[0], info, nil
		}
		return res.Matched[0], info, nil
	}
}
