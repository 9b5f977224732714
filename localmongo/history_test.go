package localmongo

import (
	"testing"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"

	"github.com/256dpi/lungo"
)

func events(n int) []event {
	out := make([]event, n)
	for i := range out {
		out[i] = event{kind: "insert", ns: lungo.Handle{"d", "c"}, key: int32(i), full: &bson.D{}}
	}
	return out
}

// Streams order and resume by these times: two events may never share one,
// however many there are in a second or whatever the clock does.
func TestHistoryTimesOnlyGrow(t *testing.T) {
	t.Parallel()
	h := newHistory()
	h.last.T += 1000 // as after a clock that was set back
	start := h.now()
	h.append(events(100))
	h.append(events(100))
	list, _, err := h.after(start)
	if err != nil || len(list) != 200 {
		t.Fatalf("%d events, %v, want 200", len(list), err)
	}
	last := start
	for _, e := range list {
		if e.at.Compare(last) <= 0 {
			t.Fatalf("the time %v follows %v", e.at, last)
		}
		last = e.at
	}
	if rest, _, err := h.after(list[149].at); err != nil || len(rest) != 50 || rest[0].key != int32(50) {
		t.Errorf("after the 150th: %d events, %v", len(rest), err)
	}
}

func TestHistoryIsBoundedAndSaysSo(t *testing.T) {
	t.Parallel()
	h := newHistory()
	start := h.now()
	_, more, err := h.after(start)
	if err != nil {
		t.Fatal(err)
	}
	h.append(events(3 * historyKeep))
	select {
	case <-more:
	default:
		t.Error("nobody was woken")
	}
	if n := len(h.events); n > 2*historyKeep {
		t.Errorf("%d events are held", n)
	}
	if _, _, err := h.after(start); err == nil || asCommandError(err).code != codeHistoryLost {
		t.Errorf("a lost position: got %v", err)
	}
	if list, _, err := h.after(h.cut); err != nil || len(list) != len(h.events) {
		t.Errorf("the oldest position that is held: %d events, %v", len(list), err)
	}
}

func TestResumeTokens(t *testing.T) {
	t.Parallel()
	h := newHistory()
	ts := primitive.Timestamp{T: 0xfedcba98, I: 7}
	if got, err := h.position(h.token(ts)); err != nil || got != ts {
		t.Errorf("got %v, %v, want %v", got, err, ts)
	}
	for name, tt := range map[string]struct {
		token bson.D
		code  int32
	}{
		"of another run": {newHistory().token(ts), codeHistoryLost},
		"empty":          {bson.D{}, codeInvalidResumeToken},
		"other field":    {bson.D{{Key: "x", Value: "y"}}, codeInvalidResumeToken},
		"not a string":   {bson.D{{Key: "_data", Value: 1}}, codeInvalidResumeToken},
		"not hex":        {bson.D{{Key: "_data", Value: "zzzzzzzzzzzzzzzz" + h.run}}, codeInvalidResumeToken},
	} {
		if _, err := h.position(tt.token); err == nil || asCommandError(err).code != tt.code {
			t.Errorf("%s: got %v, want code %d", name, err, tt.code)
		}
	}
}

func TestUpdateDescription(t *testing.T) {
	t.Parallel()
	d, err := openData("")
	if err != nil {
		t.Fatal(err)
	}
	registerOperators()
	h := lungo.Handle{"d", "c"}
	start := d.history.now()
	change := func(update bson.D) {
		t.Helper()
		ch, err := parseChange(&args{values: map[string]any{"u": update, "upsert": true}}, "q", "u")
		if err != nil {
			t.Fatal(err)
		}
		if err := d.write(func(t *tx) error { _, err := ch.apply(t, h); return err }); err != nil {
			t.Fatal(err)
		}
	}
	set := func(k string, v any) bson.E { return bson.E{Key: "$set", Value: bson.D{{Key: k, Value: v}}} }
	change(bson.D{set("a", int32(1))})
	change(bson.D{set("b.c", "x"), {Key: "$unset", Value: bson.D{{Key: "a", Value: ""}}}})
	change(bson.D{set("b.c", "x")}) // changes nothing
	list, _, err := d.history.after(start)
	if err != nil || len(list) != 2 {
		t.Fatalf("%d events, %v, want an insert and an update", len(list), err)
	}
	raw, err := bson.Marshal(list[1].document(false))
	if err != nil {
		t.Fatal(err)
	}
	doc := bson.Raw(raw)
	if got := doc.Lookup("updateDescription", "updatedFields").String(); got != `{"b.c": "x"}` {
		t.Errorf("updated: %s", got)
	}
	if got := doc.Lookup("updateDescription", "removedFields").String(); got != `["a"]` {
		t.Errorf("removed: %s", got)
	}
	if _, err := doc.LookupErr("fullDocument"); err == nil {
		t.Error("an update has its document without having been asked for it")
	}
}
