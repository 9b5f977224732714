package localmongo

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"

	"github.com/256dpi/lungo"
	"github.com/256dpi/lungo/bsonkit"
)

// historyKeep is the number of events that are kept at least, for change
// streams to fall behind by.
const historyKeep = 4096

// event is one change of the data.
type event struct {
	at      primitive.Timestamp
	kind    string // MongoDB's operationType
	ns      lungo.Handle
	key     any         // the _id of the document
	full    bsonkit.Doc // the document after the change
	changed map[string]any
}

// document is the event as a client sees it, without its resume token.
func (e *event) document(lookup bool) bson.D {
	ns := bson.D{{Key: "db", Value: e.ns[0]}}
	if e.ns[1] != "" {
		ns = append(ns, bson.E{Key: "coll", Value: e.ns[1]})
	}
	out := bson.D{
		{Key: "operationType", Value: e.kind},
		{Key: "clusterTime", Value: e.at},
		{Key: "ns", Value: ns},
	}
	if e.key != nil {
		out = append(out, bson.E{Key: "documentKey", Value: bson.D{{Key: "_id", Value: e.key}}})
	}
	if e.full != nil && (e.kind != "update" || lookup) {
		out = append(out, bson.E{Key: "fullDocument", Value: *e.full})
	}
	if e.kind == "update" {
		out = append(out, bson.E{Key: "updateDescription", Value: e.description()})
	}
	return out
}

func (e *event) description() bson.D {
	updated, removed := bson.D{}, bson.A{}
	for path, v := range e.changed {
		if v == any(bsonkit.Missing) {
			removed = append(removed, path)
		} else {
			updated = append(updated, bson.E{Key: path, Value: v})
		}
	}
	slices.SortFunc(updated, func(a, b bson.E) int { return strings.Compare(a.Key, b.Key) })
	slices.SortFunc(removed, bsonkit.Compare)
	return bson.D{
		{Key: "updatedFields", Value: updated},
		{Key: "removedFields", Value: removed},
		{Key: "truncatedArrays", Value: bson.A{}},
	}
}

// history is what change streams read: the newest events, each with a time of
// its own that only grows. It does not outlive the process.
type history struct {
	run string // tells this run's resume tokens from those of another

	mu     sync.Mutex
	events []event
	last   primitive.Timestamp // of the newest event
	cut    primitive.Timestamp // of the newest event that is no longer held
	wake   chan struct{}       // closed and replaced at every change
}

func newHistory() *history {
	start := primitive.Timestamp{T: seconds(), I: 1}
	return &history{run: rand.Text()[:8], last: start, cut: start, wake: make(chan struct{})}
}

func seconds() uint32 { return uint32(time.Now().Unix()) } //nolint:gosec // BSON has 32 bits for it

// append gives the events their times and wakes those who wait.
func (h *history) append(events []event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range events {
		if now := seconds(); now > h.last.T {
			h.last = primitive.Timestamp{T: now, I: 1}
		} else {
			h.last.I++
		}
		e.at = h.last
		h.events = append(h.events, e)
	}
	if n := len(h.events) - historyKeep; n > historyKeep {
		h.cut = h.events[n-1].at
		h.events = slices.Clone(h.events[n:])
	}
	close(h.wake)
	h.wake = make(chan struct{})
}

// now is the time of the newest event.
func (h *history) now() primitive.Timestamp {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last
}

// after returns the events after ts and a channel that is closed when there
// are more. It fails when some are no longer held.
func (h *history) after(ts primitive.Timestamp) ([]event, <-chan struct{}, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if ts.Compare(h.cut) < 0 {
		return nil, nil, failf(codeHistoryLost, "the history of changes does not go back to the stream's position")
	}
	first, _ := slices.BinarySearchFunc(h.events, ts, func(e event, ts primitive.Timestamp) int {
		if e.at.Compare(ts) > 0 {
			return 1
		}
		return -1
	})
	return h.events[first:len(h.events):len(h.events)], h.wake, nil
}

// token is the resume token after the event of ts.
func (h *history) token(ts primitive.Timestamp) bson.D {
	return bson.D{{Key: "_data", Value: fmt.Sprintf("%08x%08x", ts.T, ts.I) + h.run}}
}

// position is the time of a resume token.
func (h *history) position(token bson.D) (primitive.Timestamp, error) {
	bad := failf(codeInvalidResumeToken, "the resume token is not one of localmongo's")
	var ts primitive.Timestamp
	if len(token) != 1 || token[0].Key != "_data" {
		return ts, bad
	}
	text, _ := token[0].Value.(string)
	if len(text) != 16+len(h.run) {
		return ts, bad
	}
	raw, err := hex.DecodeString(text[:16])
	if err != nil {
		return ts, bad
	}
	if text[16:] != h.run {
		return ts, failf(codeHistoryLost, "the resume token is of an earlier run: localmongo keeps no history over a restart")
	}
	word := func(b []byte) uint32 {
		return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	}
	return primitive.Timestamp{T: word(raw), I: word(raw[4:])}, nil
}
