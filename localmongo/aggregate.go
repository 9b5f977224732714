package localmongo

import (
	"go.mongodb.org/mongo-driver/bson"

	"github.com/256dpi/lungo/bsonkit"
	"github.com/256dpi/lungo/mongokit"
)

func runAggregate(c *session, a *args) (bson.D, error) {
	pipeline, err := a.docs("pipeline")
	if err != nil {
		return nil, err
	}
	options, err := a.doc("cursor")
	if err != nil {
		return nil, err
	}
	cursorArgs, err := a.sub("cursor", options, "batchSize")
	if err != nil {
		return nil, err
	}
	size, err := cursorArgs.size(defaultBatch)
	if err != nil {
		return nil, err
	}
	if len(pipeline) > 0 && len(pipeline[0]) == 1 && pipeline[0][0].Key == "$changeStream" {
		return c.watch(a, pipeline)
	}
	handle, err := a.target()
	if err != nil {
		return nil, err
	}
	var list bsonkit.List
	if coll := c.server.data.collection(handle); coll != nil {
		list = coll.Documents.List
	}
	for _, stage := range pipeline {
		if list, err = runStage(list, stage); err != nil {
			return nil, err
		}
	}
	var everything *projection
	return c.server.data.cursors.openResult(handle.String(), everything.applyAll(list), size, false), nil
}

// runStage applies one stage of a pipeline. The list stays as it is.
func runStage(list bsonkit.List, stage bson.D) (bsonkit.List, error) {
	if len(stage) != 1 {
		return nil, failf(40323, "A pipeline stage specification object must contain exactly one field.")
	}
	s := &args{name: stage[0].Key, values: map[string]any{"value": stage[0].Value}}
	switch stage[0].Key {
	case "$match":
		return stageMatch(list, s)
	case "$sort":
		by, err := s.doc("value")
		if err != nil {
			return nil, err
		}
		if len(by) == 0 {
			return nil, failf(15976, "$sort stage must have at least one sort key")
		}
		return sortDocs(list, by)
	case "$skip", "$limit":
		return stageCut(list, s)
	case "$project":
		return stageProject(list, s)
	case "$group":
		return stageGroup(list, s)
	default:
		return nil, failf(codeUnknownStage, "Unrecognized pipeline stage name: '%s' (not supported by localmongo)", stage[0].Key)
	}
}

func stageMatch(list bsonkit.List, s *args) (bsonkit.List, error) {
	filter, err := s.doc("value")
	if err != nil {
		return nil, err
	}
	if err := checkFilter(filter); err != nil {
		return nil, err
	}
	out, err := mongokit.Filter(list, &filter, 0)
	if err != nil {
		return nil, failf(codeBadValue, "%s", err)
	}
	return out, nil
}

func stageCut(list bsonkit.List, s *args) (bsonkit.List, error) {
	n, err := s.number("value", 0)
	if err != nil {
		return nil, err
	}
	if n < 0 || (n == 0 && s.name == "$limit") {
		return nil, failf(codeBadValue, "the %s must be positive", s.name)
	}
	n = min(n, int64(len(list)))
	if s.name == "$limit" {
		return list[:n], nil
	}
	return list[n:], nil
}

func stageProject(list bsonkit.List, s *args) (bsonkit.List, error) {
	spec, err := s.doc("value")
	if err != nil {
		return nil, err
	}
	if len(spec) == 0 {
		return nil, failf(51272, "projection specification must have at least one field")
	}
	fields, err := parseProjection(spec)
	if err != nil {
		return nil, err
	}
	out := make(bsonkit.List, len(list))
	for i, d := range list {
		p := fields.apply(d)
		out[i] = &p
	}
	return out, nil
}

// stageGroup knows the one group that the driver's CountDocuments sends:
// {_id: 1, n: {$sum: 1}}.
func stageGroup(list bsonkit.List, s *args) (bsonkit.List, error) {
	spec, err := s.doc("value")
	if err != nil {
		return nil, err
	}
	one := func(v any) bool { return bsonkit.Compare(v, int32(1)) == 0 }
	if len(spec) == 2 && spec[0].Key == "_id" && (spec[0].Value == nil || one(spec[0].Value)) {
		sum, ok := spec[1].Value.(bson.D)
		if ok && len(sum) == 1 && sum[0].Key == "$sum" && one(sum[0].Value) {
			if len(list) == 0 {
				return nil, nil
			}
			n := int32(len(list)) //nolint:gosec // bounded by the collection in memory
			return bsonkit.List{&bson.D{{Key: "_id", Value: spec[0].Value}, {Key: spec[1].Key, Value: n}}}, nil
		}
	}
	return nil, failf(codeUnknownStage, "$group is understood only as CountDocuments sends it (not supported by localmongo)")
}
