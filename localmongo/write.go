package localmongo

import (
	"go.mongodb.org/mongo-driver/bson"

	"github.com/256dpi/lungo/bsonkit"
)

// maxBatch is the number of writes that one command may carry, as a server of
// MongoDB announces it.
const maxBatch = 100_000

// batch runs the n writes of one command and collects their errors.
func (c *session) batch(a *args, n int, one func(t *tx, i int) error) (bson.D, error) {
	if n == 0 || n > maxBatch {
		return nil, failf(codeInvalidLength, "Write batch sizes must be between 1 and %d. Got %d operations.", maxBatch, n)
	}
	ordered, err := a.flag("ordered", true)
	if err != nil {
		return nil, err
	}
	failures := bson.A{}
	err = c.server.data.write(func(t *tx) error {
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
	handle, err := a.writable()
	if err != nil {
		return nil, err
	}
	docs, err := a.docs("documents")
	if err != nil {
		return nil, err
	}
	var inserted int32
	out, err := c.batch(a, len(docs), func(t *tx, i int) error {
		if err := t.insert(handle, &docs[i]); err != nil {
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

func runUpdate(c *session, a *args) (bson.D, error) {
	handle, err := a.writable()
	if err != nil {
		return nil, err
	}
	statements, err := a.docs("updates")
	if err != nil {
		return nil, err
	}
	var matched, changed int32
	upserted := bson.A{}
	out, err := c.batch(a, len(statements), func(t *tx, i int) error {
		ch, err := parseUpdate(a, statements[i])
		if err != nil {
			return err
		}
		res, err := ch.apply(t, handle)
		if err != nil {
			return err
		}
		matched += int32(len(res.before)) //nolint:gosec // bounded by the collection in memory
		changed += res.changed
		if res.upserted != nil {
			matched++
			upserted = append(upserted, bson.D{
				{Key: "index", Value: int32(i)}, //nolint:gosec // at most 100,000
				{Key: "_id", Value: bsonkit.Get(res.upserted, "_id")},
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

func parseUpdate(a *args, statement bson.D) (*change, error) {
	s, err := a.sub("updates", statement, "q", "u", "multi", "upsert", "arrayFilters")
	if err != nil {
		return nil, err
	}
	if err := s.required("q", "u"); err != nil {
		return nil, err
	}
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
	return ch, nil
}

func runDelete(c *session, a *args) (bson.D, error) {
	handle, err := a.writable()
	if err != nil {
		return nil, err
	}
	statements, err := a.docs("deletes")
	if err != nil {
		return nil, err
	}
	var deleted int32
	out, err := c.batch(a, len(statements), func(t *tx, i int) error {
		s, err := a.sub("deletes", statements[i], "q", "limit")
		if err != nil {
			return err
		}
		if err := s.required("q", "limit"); err != nil {
			return err
		}
		q, err := parseQuery(s, "q")
		if err != nil {
			return err
		}
		if q.limit > 1 {
			return failf(codeFailedToParse, "The limit field in delete objects must be 0 or 1. Got %d", q.limit)
		}
		list, err := q.run(t.catalog.Namespaces[handle])
		if err != nil {
			return err
		}
		deleted += int32(len(list)) //nolint:gosec // bounded by the collection in memory
		return t.remove(handle, list)
	})
	if err != nil {
		return nil, err
	}
	return append(bson.D{{Key: "n", Value: deleted}}, out...), nil
}
