package localmongo

import (
	"sync"

	"go.mongodb.org/mongo-driver/bson"
)

const (
	// defaultBatch is MongoDB's size of a first batch.
	defaultBatch = 101
	// batchBytes bounds one batch, below what a message may hold.
	batchBytes = 16 << 20
	// maxCursors bounds what clients that never finish can hold on to: the
	// oldest cursor is given up first.
	maxCursors = 4096
)

// cursor holds what a client has not fetched yet: the rest of a result, or a
// change stream.
type cursor struct {
	ns     string
	rest   bson.A
	stream *changeStream
}

// cursors are the open cursors of all connections: a client may fetch over
// another connection than the one that opened.
type cursors struct {
	mu   sync.Mutex
	next int64
	open map[int64]*cursor
	age  []int64
}

func (cs *cursors) add(c *cursor) int64 {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.open == nil {
		cs.open = map[int64]*cursor{}
	}
	cs.next++
	cs.open[cs.next] = c
	cs.age = append(cs.age, cs.next)
	for len(cs.open) > maxCursors {
		delete(cs.open, cs.age[0])
		cs.age = cs.age[1:]
	}
	if len(cs.age) > 2*maxCursors {
		cs.compact()
	}
	return cs.next
}

// compact forgets the age of cursors that are gone.
func (cs *cursors) compact() {
	kept := cs.age[:0]
	for _, id := range cs.age {
		if cs.open[id] != nil {
			kept = append(kept, id)
		}
	}
	cs.age = kept
}

// take removes the cursor, so that one request at a time works on it.
func (cs *cursors) take(id int64) (*cursor, error) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c := cs.open[id]
	if c == nil {
		return nil, failf(codeCursorNotFound, "cursor id %d not found", id)
	}
	delete(cs.open, id)
	return c, nil
}

// put brings back a cursor that was taken.
func (cs *cursors) put(id int64, c *cursor) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.open[id] = c
}

// cut splits docs into a batch of at most size documents and the rest.
func cut(docs bson.A, size int64) (batch, rest bson.A) {
	bytes := 0
	for i, d := range docs {
		raw, err := bson.Marshal(d)
		if err == nil {
			bytes += len(raw)
		}
		if int64(i) >= size || (i > 0 && bytes > batchBytes) {
			return docs[:i], docs[i:]
		}
	}
	return docs, nil
}

// openResult answers with the first batch of docs and keeps the rest.
func (cs *cursors) openResult(ns string, docs bson.A, size int64, single bool) bson.D {
	batch, rest := cut(docs, size)
	var id int64
	if len(rest) > 0 && !single {
		id = cs.add(&cursor{ns: ns, rest: rest})
	}
	return cursorAnswer("firstBatch", batch, id, ns)
}

func cursorAnswer(key string, batch bson.A, id int64, ns string) bson.D {
	if batch == nil {
		batch = bson.A{}
	}
	return bson.D{{Key: "cursor", Value: bson.D{
		{Key: key, Value: batch},
		{Key: "id", Value: id},
		{Key: "ns", Value: ns},
	}}}
}

func runGetMore(c *session, a *args) (bson.D, error) {
	id, err := a.number("getMore", 0)
	if err != nil {
		return nil, err
	}
	size, err := a.number("batchSize", maxBatch)
	if err != nil {
		return nil, err
	}
	if size <= 0 {
		size = maxBatch
	}
	open := &c.server.data.cursors
	cur, err := open.take(id)
	if err != nil {
		return nil, err
	}
	if cur.stream != nil {
		return c.moreEvents(a, id, cur, size)
	}
	batch, rest := cut(cur.rest, size)
	if len(rest) == 0 {
		return cursorAnswer("nextBatch", batch, 0, cur.ns), nil
	}
	cur.rest = rest
	open.put(id, cur)
	return cursorAnswer("nextBatch", batch, id, cur.ns), nil
}

func runKillCursors(c *session, a *args) (bson.D, error) {
	list, ok := a.values["cursors"].(bson.A)
	if !ok {
		return nil, failf(codeFailedToParse, "killCursors needs an array of cursors")
	}
	killed, missing := bson.A{}, bson.A{}
	for _, v := range list {
		id, ok := v.(int64)
		if !ok {
			return nil, failf(codeTypeMismatch, "killCursors: a cursor is a long")
		}
		if _, err := c.server.data.cursors.take(id); err != nil {
			missing = append(missing, id)
		} else {
			killed = append(killed, id)
		}
	}
	return bson.D{
		{Key: "cursorsKilled", Value: killed},
		{Key: "cursorsNotFound", Value: missing},
		{Key: "cursorsAlive", Value: bson.A{}},
		{Key: "cursorsUnknown", Value: bson.A{}},
	}, nil
}
