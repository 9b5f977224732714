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
	// maxCursors bounds what clients that never finish can hold on to: the one
	// that was used longest ago is given up first.
	maxCursors = 4096
)

// cursor holds what a client has not fetched yet: the rest of a result, or a
// change stream.
type cursor struct {
	ns     string
	rest   bson.A
	stream *changeStream

	used   int64 // the time of the last use, counted in uses
	busy   bool  // a request works on it
	killed chan struct{}
}

// cursors are the open cursors of all connections: a client may fetch over
// another connection than the one that opened.
type cursors struct {
	mu   sync.Mutex
	next int64
	uses int64
	open map[int64]*cursor
}

func (cs *cursors) add(c *cursor) int64 {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.open == nil {
		cs.open = map[int64]*cursor{}
	}
	if len(cs.open) >= maxCursors {
		cs.evict()
	}
	cs.next++
	cs.uses++
	c.used, c.killed = cs.uses, make(chan struct{})
	cs.open[cs.next] = c
	return cs.next
}

func (cs *cursors) evict() {
	var oldest int64
	for id, c := range cs.open {
		if oldest == 0 || c.used < cs.open[oldest].used {
			oldest = id
		}
	}
	close(cs.open[oldest].killed)
	delete(cs.open, oldest)
}

// take gives the cursor to one request, until release.
func (cs *cursors) take(id int64) (*cursor, error) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c := cs.open[id]
	if c == nil {
		return nil, failf(codeCursorNotFound, "cursor id %d not found", id)
	}
	if c.busy {
		return nil, failf(codeCursorInUse, "cursor id %d is already in use", id)
	}
	cs.uses++
	c.busy, c.used = true, cs.uses
	return c, nil
}

// release brings back a cursor that was taken, or forgets it when it is done.
func (cs *cursors) release(id int64, done bool) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if c := cs.open[id]; c != nil {
		c.busy = false
		if done {
			delete(cs.open, id)
		}
	}
}

// kill ends the cursor and wakes the request that waits on it.
func (cs *cursors) kill(id int64) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c := cs.open[id]
	if c == nil {
		return false
	}
	delete(cs.open, id)
	close(c.killed)
	return true
}

// cut splits docs into a batch of at most size documents and the rest.
func cut(docs bson.A, size int64) (batch, rest bson.A) {
	bytes := 0
	for i, d := range docs {
		if int64(i) >= size {
			return docs[:i], docs[i:]
		}
		if raw, err := bson.Marshal(d); err == nil {
			bytes += len(raw)
		}
		if i > 0 && bytes > batchBytes {
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

// size returns the member batchSize.
func (a *args) size(fallback int64) (int64, error) {
	n, err := a.number("batchSize", fallback)
	if err == nil && n < 0 {
		err = failf(codeBadValue, "BSON field 'batchSize' value must be >= 0, actual value '%d'", n)
	}
	return n, err
}

func runGetMore(c *session, a *args) (answer bson.D, err error) {
	id, err := a.number("getMore", 0)
	if err != nil {
		return nil, err
	}
	size, err := a.size(maxBatch)
	if err != nil {
		return nil, err
	}
	if size == 0 {
		size = maxBatch
	}
	open := &c.server.data.cursors
	cur, err := open.take(id)
	if err != nil {
		return nil, err
	}
	done := true
	defer func() { open.release(id, done) }()
	if cur.stream != nil {
		answer, done, err = c.moreEvents(a, id, cur, size)
		return answer, err
	}
	var batch bson.A
	if batch, cur.rest = cut(cur.rest, size); len(cur.rest) == 0 {
		return cursorAnswer("nextBatch", batch, 0, cur.ns), nil
	}
	done = false
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
		if c.server.data.cursors.kill(id) {
			killed = append(killed, id)
		} else {
			missing = append(missing, id)
		}
	}
	return bson.D{
		{Key: "cursorsKilled", Value: killed},
		{Key: "cursorsNotFound", Value: missing},
		{Key: "cursorsAlive", Value: bson.A{}},
		{Key: "cursorsUnknown", Value: bson.A{}},
	}, nil
}
