package localmongo

import (
	"encoding/hex"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"

	"github.com/256dpi/lungo"
	"github.com/256dpi/lungo/bsonkit"
	"github.com/256dpi/lungo/mongokit"
)

// defaultAwait is how long a getMore waits for events when the client names no
// maxTimeMS.
const defaultAwait = time.Second

// changeStream is a position in lungo's history of changes.
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
	opts := &args{name: "$changeStream", values: map[string]any{}}
	var err error
	if opts, err = opts.sub("options", spec, "fullDocument", "fullDocumentBeforeChange", "resumeAfter", "startAfter",
		"startAtOperationTime", "allChangesForCluster", "showExpandedEvents"); err != nil {
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
	case "updateLookup", "whenAvailable":
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
	id := c.server.data.cursors.add(&cursor{ns: ns, stream: stream})
	return streamAnswer("firstBatch", nil, id, ns, stream.last), nil
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
	for _, key := range []string{"resumeAfter", "startAfter"} {
		if _, ok := opts.values[key]; !ok {
			continue
		}
		token, err := opts.doc(key)
		if err != nil {
			return primitive.Timestamp{}, err
		}
		return parseToken(token)
	}
	if v, ok := opts.values["startAtOperationTime"]; ok {
		ts, ok := v.(primitive.Timestamp)
		if !ok {
			return primitive.Timestamp{}, opts.wrongType("startAtOperationTime", "timestamp", v)
		}
		return before(ts), nil
	}
	return c.server.data.operationTime(), nil
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

func tokenOf(ts primitive.Timestamp) bson.D {
	return bson.D{{Key: "_data", Value: fmt.Sprintf("%08x%08x", ts.T, ts.I)}}
}

func parseToken(token bson.D) (primitive.Timestamp, error) {
	bad := failf(codeInvalidResumeToken, "resume token is not one of this server")
	if len(token) != 1 || token[0].Key != "_data" {
		return primitive.Timestamp{}, bad
	}
	text, _ := token[0].Value.(string)
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != 8 {
		return primitive.Timestamp{}, bad
	}
	word := func(b []byte) uint32 {
		return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	}
	return primitive.Timestamp{T: word(raw), I: word(raw[4:])}, nil
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
		if err := checkFilter(&filter); err != nil {
			return nil, err
		}
		out = append(out, filter)
	}
	return out, nil
}

func streamAnswer(key string, batch bson.A, id int64, ns string, last primitive.Timestamp) bson.D {
	if batch == nil {
		batch = bson.A{}
	}
	return bson.D{{Key: "cursor", Value: bson.D{
		{Key: key, Value: batch},
		{Key: "postBatchResumeToken", Value: tokenOf(last)},
		{Key: "id", Value: id},
		{Key: "ns", Value: ns},
	}}}
}

// moreEvents waits until there are events for the stream, or until the time
// that the client gave is over. An empty batch moves the resume token as well.
func (c *session) moreEvents(a *args, id int64, cur *cursor, size int64) (bson.D, error) {
	millis, err := a.number("maxTimeMS", int64(defaultAwait/time.Millisecond))
	if err != nil {
		return nil, err
	}
	timer := time.NewTimer(time.Duration(millis) * time.Millisecond)
	defer timer.Stop()
	d, stream := c.server.data, cur.stream
	for {
		// The channel is fetched before the history is read, so that no change
		// falls between.
		changed := d.changed()
		batch, err := stream.read(d, size)
		if err != nil {
			return nil, err
		}
		if stream.invalidated {
			return streamAnswer("nextBatch", batch, 0, cur.ns, stream.last), nil
		}
		if len(batch) > 0 {
			d.cursors.put(id, cur)
			return streamAnswer("nextBatch", batch, id, cur.ns, stream.last), nil
		}
		select {
		case <-changed:
		case <-timer.C:
			d.cursors.put(id, cur)
			return streamAnswer("nextBatch", nil, id, cur.ns, stream.last), nil
		case <-c.server.stop:
			return nil, failf(codeShutdown, "localmongo is shutting down")
		}
	}
}

// read returns the events after the position and moves it.
func (s *changeStream) read(d *data, size int64) (bson.A, error) {
	list := d.catalog.Load().Namespaces[lungo.Oplog].Documents.List
	d.cutMu.Lock()
	lost := s.last.Compare(d.cut) < 0
	d.cutMu.Unlock()
	if lost {
		return nil, failf(codeHistoryLost, "the history of changes does not go back to the stream's position")
	}
	first := len(list)
	for first > 0 && eventTime(list[first-1]).Compare(s.last) > 0 {
		first--
	}
	var batch bson.A
	for _, event := range list[first:] {
		if int64(len(batch)) >= size {
			break
		}
		s.last = eventTime(event)
		out, err := s.deliver(event)
		if err != nil {
			return nil, err
		}
		batch = append(batch, out...)
		if s.invalidated {
			break
		}
	}
	return batch, nil
}

// deliver returns event as the client sees it, or nothing when it is not for
// this stream.
func (s *changeStream) deliver(event bsonkit.Doc) (bson.A, error) {
	if s.db != "" && bsonkit.Get(event, "ns.db") != s.db {
		return nil, nil
	}
	kind, _ := bsonkit.Get(event, "operationType").(string)
	coll := bsonkit.Get(event, "ns.coll")
	if s.coll != "" && coll != s.coll && kind != "dropDatabase" {
		return nil, nil
	}
	ts := eventTime(event)
	doc := bson.D{{Key: "_id", Value: tokenOf(ts)}}
	for _, key := range []string{"operationType", "clusterTime", "ns", "documentKey", "fullDocument", "updateDescription"} {
		v := bsonkit.Get(event, key)
		if v == bsonkit.Missing || (key == "fullDocument" && kind == "update" && !s.lookup) {
			continue
		}
		doc = append(doc, bson.E{Key: key, Value: v})
	}
	var out bson.A
	matched, err := s.matches(doc)
	if err != nil {
		return nil, err
	}
	if matched {
		out = append(out, doc)
	}
	if (s.coll != "" && kind == "drop") || (s.db != "" && kind == "dropDatabase") {
		s.invalidated = true
		out = append(out, bson.D{
			{Key: "_id", Value: tokenOf(ts)},
			{Key: "operationType", Value: "invalidate"},
			{Key: "clusterTime", Value: ts},
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
