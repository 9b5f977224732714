package localmongo

import (
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"

	"github.com/256dpi/lungo/mongokit"
)

const (
	// defaultAwait is how long a getMore waits for events when the client names
	// no maxTimeMS.
	defaultAwait = time.Second
	// maxAwait is the longest that it waits: the client may have gone, which is
	// seen only when there is something to write. An empty batch costs nothing.
	maxAwait = time.Minute
)

// changeStream is a position in the history of changes.
type changeStream struct {
	db, coll string // empty means any
	lookup   bool   // deliver the document with updates
	filters  []bson.D
	last     primitive.Timestamp
	// invalidated is set once the watched collection is gone: the stream ends.
	invalidated bool
}

// watch opens a change stream.
func (c *session) watch(a *args, pipeline []bson.D) (bson.D, error) {
	spec, ok := pipeline[0][0].Value.(bson.D)
	if !ok {
		return nil, failf(codeTypeMismatch, "$changeStream must be an object")
	}
	opts, err := (&args{name: "$changeStream"}).sub("options", spec,
		"fullDocument", "resumeAfter", "startAfter", "startAtOperationTime", "allChangesForCluster")
	if err != nil {
		return nil, err
	}
	stream := &changeStream{}
	if stream.coll, stream.db, err = watched(a, opts); err != nil {
		return nil, err
	}
	full, err := opts.str("fullDocument")
	if err != nil {
		return nil, err
	}
	switch full {
	case "", "default":
	case "updateLookup":
		stream.lookup = true
	default:
		return nil, failf(codeBadValue, "fullDocument %q is not supported by localmongo", full)
	}
	if stream.last, err = c.startAt(opts); err != nil {
		return nil, err
	}
	if stream.filters, err = streamFilters(pipeline[1:]); err != nil {
		return nil, err
	}
	ns := a.db + "." + stream.coll
	if stream.coll == "" {
		ns = a.db + ".$cmd.aggregate"
	}
	id := c.server.data.cursors.add(&cursor{ns: ns, stream: stream})
	return c.streamAnswer("firstBatch", nil, id, ns, stream.last), nil
}

// watched returns what the stream is about: a collection, a database, or all.
func watched(a, opts *args) (coll, db string, err error) {
	all, err := opts.flag("allChangesForCluster", false)
	if err != nil || all {
		return "", "", err
	}
	if n, ok := a.values[a.name].(int32); ok && n == 1 {
		return "", a.db, nil
	}
	coll, err = a.collection()
	return coll, a.db, err
}

// startAt returns the time after which events are delivered.
func (c *session) startAt(opts *args) (primitive.Timestamp, error) {
	history := c.server.data.history
	var at primitive.Timestamp
	given := 0
	for _, key := range []string{"resumeAfter", "startAfter"} {
		if _, ok := opts.values[key]; !ok {
			continue
		}
		token, err := opts.doc(key)
		if err != nil {
			return at, err
		}
		if at, err = history.position(token); err != nil {
			return at, err
		}
		given++
	}
	if v, ok := opts.values["startAtOperationTime"]; ok {
		ts, ok := v.(primitive.Timestamp)
		if !ok {
			return at, opts.wrongType("startAtOperationTime", "timestamp", v)
		}
		at = before(ts)
		given++
	}
	switch given {
	case 0:
		return history.now(), nil
	case 1:
		_, _, err := history.after(at)
		return at, err
	default:
		return at, failf(40674, "Only one of resumeAfter, startAfter and startAtOperationTime may be given")
	}
}

// before returns the last moment before ts: startAtOperationTime includes its
// own time.
func before(ts primitive.Timestamp) primitive.Timestamp {
	if ts.I > 0 {
		return primitive.Timestamp{T: ts.T, I: ts.I - 1}
	}
	if ts.T == 0 {
		return ts
	}
	return primitive.Timestamp{T: ts.T - 1, I: ^uint32(0)}
}

func streamFilters(stages []bson.D) ([]bson.D, error) {
	var out []bson.D
	for _, stage := range stages {
		if len(stage) != 1 || stage[0].Key != "$match" {
			return nil, failf(codeIllegalOperation, "only $match may follow $changeStream (not supported by localmongo): %v", stage)
		}
		filter, ok := stage[0].Value.(bson.D)
		if !ok {
			return nil, failf(codeTypeMismatch, "the match filter must be an object")
		}
		if err := checkFilter(filter); err != nil {
			return nil, err
		}
		out = append(out, filter)
	}
	return out, nil
}

func (c *session) streamAnswer(key string, batch bson.A, id int64, ns string, last primitive.Timestamp) bson.D {
	if batch == nil {
		batch = bson.A{}
	}
	return bson.D{{Key: "cursor", Value: bson.D{
		{Key: key, Value: batch},
		{Key: "postBatchResumeToken", Value: c.server.data.history.token(last)},
		{Key: "id", Value: id},
		{Key: "ns", Value: ns},
	}}}
}

// moreEvents waits until there are events for the stream, or until the time
// that the client gave is over. An empty batch moves the resume token as well.
// It reports whether the stream has ended.
func (c *session) moreEvents(a *args, id int64, cur *cursor, size int64) (answer bson.D, done bool, err error) {
	millis, err := a.number("maxTimeMS", int64(defaultAwait/time.Millisecond))
	if err != nil {
		return nil, true, err
	}
	timer := time.NewTimer(time.Duration(min(max(0, millis), int64(maxAwait/time.Millisecond))) * time.Millisecond)
	defer timer.Stop()
	stream := cur.stream
	for {
		batch, changed, err := stream.read(c.server.data.history, size)
		if err != nil {
			return nil, true, err
		}
		if stream.invalidated {
			return c.streamAnswer("nextBatch", batch, 0, cur.ns, stream.last), true, nil
		}
		if len(batch) > 0 {
			return c.streamAnswer("nextBatch", batch, id, cur.ns, stream.last), false, nil
		}
		select {
		case <-changed:
		case <-timer.C:
			return c.streamAnswer("nextBatch", nil, id, cur.ns, stream.last), false, nil
		case <-cur.killed:
			return nil, true, failf(codeCursorKilled, "cursor id %d was killed", id)
		case <-c.server.stop:
			return nil, true, failf(codeShutdown, "localmongo is shutting down")
		}
	}
}

// read returns the events after the position and moves it, with a channel that
// is closed when there are more.
func (s *changeStream) read(h *history, size int64) (bson.A, <-chan struct{}, error) {
	events, changed, err := h.after(s.last)
	if err != nil {
		return nil, nil, err
	}
	var batch bson.A
	bytes := 0
	for i := range events {
		if int64(len(batch)) >= size || bytes > batchBytes {
			break
		}
		s.last = events[i].at
		out, err := s.deliver(h, &events[i])
		if err != nil {
			return nil, nil, err
		}
		for _, doc := range out {
			if raw, err := bson.Marshal(doc); err == nil {
				bytes += len(raw)
			}
			batch = append(batch, doc)
		}
		if s.invalidated {
			break
		}
	}
	return batch, changed, nil
}

// deliver returns the event as the client sees it, or nothing when it is not
// for this stream.
func (s *changeStream) deliver(h *history, e *event) ([]bson.D, error) {
	if (s.db != "" && e.ns[0] != s.db) || (s.coll != "" && e.ns[1] != s.coll) {
		return nil, nil
	}
	doc := append(bson.D{{Key: "_id", Value: h.token(e.at)}}, e.document(s.lookup)...)
	var out []bson.D
	matched, err := s.matches(doc)
	if err != nil {
		return nil, err
	}
	if matched {
		out = append(out, doc)
	}
	if (s.coll != "" && e.kind == "drop") || (s.db != "" && e.kind == "dropDatabase") {
		s.invalidated = true
		out = append(out, bson.D{
			{Key: "_id", Value: h.token(e.at)},
			{Key: "operationType", Value: "invalidate"},
			{Key: "clusterTime", Value: e.at},
		})
	}
	return out, nil
}

func (s *changeStream) matches(doc bson.D) (bool, error) {
	for i := range s.filters {
		ok, err := mongokit.Match(&doc, &s.filters[i])
		if err != nil {
			return false, failf(codeBadValue, "%s", err)
		}
		if !ok {
			return false, nil
		}
	}
	return true, nil
}
