package audit

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"strconv"
	"time"

	"github.com/oklog/ulid/v2"
	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
)

// The writer is one goroutine, which alone knows the chain. A record gets its
// identifier, its number and its MAC when it is sealed, before the first attempt to
// store it, and a sealed record is never given up while the trail is open: so a
// repeated write finds itself, and a chain has no holes.

// gatherFor is how long records are gathered after a write where nobody waits for
// them: a steady stream is a few inserts a second, and a record that comes alone is
// written at once.
const gatherFor = 20 * time.Millisecond

const (
	firstWait = 50 * time.Millisecond
	lastWait  = 5 * time.Second
)

// chain is the state of the instance's own chain.
type chain struct {
	id        string
	seq       int64
	mac       string
	expiresAt time.Time // of the last record
	dirty     bool      // the stored head is behind
	witnessed map[string]int64
}

func newEntropy() io.Reader { return ulid.Monotonic(rand.Reader, 0) }

// run writes until the trail is closed and nothing waits.
func (t *Trail) run(ctx context.Context) {
	ticker := time.NewTicker(t.config.CheckpointEvery)
	defer ticker.Stop()
	var reported uint64 // losses that the trail has recorded
	var headDue, gathered <-chan time.Time
	for {
		closing := false
		select {
		case <-t.queue.wake:
			if gathered != nil && !t.config.Synchronous {
				select {
				case <-gathered:
				case <-t.queue.hurry:
				case <-t.closing:
				}
				gathered = nil
			}
		case <-headDue:
			headDue = nil
			t.tryHead(ctx)
		case <-ticker.C:
			_ = t.checkpoint(ctx) // logged; the next hour is another chance
		case <-t.closing:
			closing = true
		}
		for more := true; more; more = more && closing {
			if reported, more = t.drain(ctx, reported); more {
				gathered = time.After(gatherFor)
			}
		}
		if closing {
			t.finish(ctx, reported)
			return
		}
		if headDue == nil && t.chain != nil && t.chain.dirty {
			headDue = time.After(headDelay)
		}
	}
}

// drain writes what waits now; more says that there was something. reported is how
// many losses the trail has recorded, before and after.
func (t *Trail) drain(ctx context.Context, reported uint64) (after uint64, more bool) {
	taken := t.queue.take()
	for rest := taken; len(rest) > 0; {
		n := 1
		if rest[0].mark != markNone {
			reported = t.sayLost(ctx, reported)
			rest[0].answer(t.obey(ctx, rest[0].mark))
		} else {
			n = records(rest, t.config.Batch)
			reported = t.write(ctx, rest[:n], reported)
		}
		rest = rest[n:]
		t.queue.progress(n)
	}
	t.queue.settle(taken)
	// What was lost after the last of these had been sealed is recorded with what
	// comes next; where nothing does, nobody would learn of it.
	if t.queue.waiting() == 0 {
		reported = t.sayLost(ctx, reported)
	}
	return reported, len(taken) > 0
}

// sayLost records losses that the trail has not recorded yet, as write does.
func (t *Trail) sayLost(ctx context.Context, reported uint64) uint64 {
	if t.dropped.Load() == reported || ctx.Err() != nil {
		return reported
	}
	return t.write(ctx, nil, reported)
}

// records returns how many entries, at most limit, come before the first mark.
func records(entries []entry, limit int) int {
	n := 0
	for n < len(entries) && n < limit && entries[n].mark == markNone {
		n++
	}
	return n
}

func (t *Trail) obey(ctx context.Context, m mark) error {
	if t.chain == nil {
		return nil
	}
	if m == markCheckpoint {
		return t.checkpoint(ctx)
	}
	return t.writeHead(ctx, false)
}

// write stores the records of entries, answers them, and before them says what was
// lost since the last time.
func (t *Trail) write(ctx context.Context, entries []entry, reported uint64) uint64 {
	sealed, dropped, err := t.seal(ctx, entries, reported)
	if err == nil {
		err = t.insert(ctx, sealed)
	}
	if err != nil {
		t.lost(len(entries), err)
		dropped = reported
	}
	for i := range entries {
		entries[i].answer(err)
	}
	return dropped
}

// seal gives each record what it needs to be stored. The first of all opens the
// chain.
func (t *Trail) seal(ctx context.Context, entries []entry, reported uint64) (sealed []stored, dropped uint64, err error) {
	sealed = make([]stored, 0, len(entries)+2)
	if t.config.TamperEvident && t.chain == nil {
		opening, err := t.open(ctx)
		if err != nil {
			return nil, reported, err
		}
		sealed = append(sealed, opening)
	}
	if dropped = t.dropped.Load(); dropped > reported {
		sealed = append(sealed, t.link(Record{
			Type: event.AuditLost, Result: event.Failure,
			Metadata: map[string]string{"events": strconv.FormatUint(dropped-reported, 10)},
		}, nil))
	}
	for i := range entries {
		sealed = append(sealed, t.link(entries[i].record, nil))
	}
	return sealed, dropped, nil
}

// link makes r the next record of the chain.
func (t *Trail) link(r Record, witness []Head) stored {
	now := t.config.Now()
	if r.Time.IsZero() {
		r.Time = store.Time(now)
	}
	if r.Result == "" {
		r.Result = event.Success
	}
	r.ID = t.newID(r.Time)
	s := stored{Record: r, App: t.config.App, Witness: witness, ExpiresAt: store.Time(now.Add(t.config.Retention))}
	c := t.chain
	if c == nil {
		return s
	}
	// A clock that goes back must not make a record expire before its predecessor.
	if s.ExpiresAt.Before(c.expiresAt) {
		s.ExpiresAt = c.expiresAt
	}
	s.Chain, s.Seq, s.Prev, s.PrevExpiresAt = c.id, c.seq+1, c.mac, c.expiresAt
	s.KeyID, s.MAC = t.sign(s.canonical())
	c.seq, c.mac, c.expiresAt, c.dirty = s.Seq, s.MAC, s.ExpiresAt, true
	return s
}

// newID returns a ULID of the time, which grows within a millisecond.
func (t *Trail) newID(at time.Time) string {
	ms := uint64(at.UnixMilli())
	id, err := ulid.New(ms, t.entropy)
	if err != nil {
		// So many within one millisecond that its random part is used up.
		t.entropy = newEntropy()
		id = ulid.MustNew(ms, t.entropy)
	}
	return id.String()
}

// insert stores the sealed records, in order, once each. It ends when they are there
// or ctx is over.
func (t *Trail) insert(ctx context.Context, sealed []stored) error {
	err := t.retry(ctx, "store audit records", func(ctx context.Context) error {
		var err error
		sealed, err = t.attempt(ctx, sealed)
		return err
	})
	return err
}

// attempt stores what it can and returns what is left. Inserts are ordered, so what
// an earlier attempt has stored comes first.
func (t *Trail) attempt(ctx context.Context, sealed []stored) ([]stored, error) {
	err := t.insertOnce(ctx, sealed)
	if !errors.Is(err, store.ErrDuplicate) {
		if err == nil {
			t.written.Add(uint64(len(sealed)))
			sealed = nil
		}
		return sealed, err
	}
	// An identifier that is there is our own: nobody can guess one. Whether its record
	// will stay is what a majority says.
	left, err := t.missing(ctx, sealed)
	if err != nil {
		return sealed, err
	}
	t.written.Add(uint64(len(sealed) - len(left))) //nolint:gosec // left is a part of sealed
	switch {
	case len(left) == 0:
		return nil, nil
	case len(left) == len(sealed):
		return sealed, store.Error("store audit records", errUnconfirmed)
	default:
		return t.attempt(ctx, left)
	}
}

var errUnconfirmed = errors.New("stored, and not confirmed by a majority yet")

func (t *Trail) insertOnce(ctx context.Context, sealed []stored) error {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	docs := make([]any, len(sealed))
	for i := range sealed {
		docs[i] = &sealed[i]
	}
	_, err := t.events.InsertMany(ctx, docs, options.InsertMany().SetOrdered(true))
	return store.Error("store audit records", err)
}

// missing returns the records that a majority does not have.
func (t *Trail) missing(ctx context.Context, sealed []stored) ([]stored, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	ids := make([]string, len(sealed))
	for i := range sealed {
		ids[i] = sealed[i].ID
	}
	cursor, err := t.confirmed.Find(ctx,
		bson.D{{Key: "app", Value: t.config.App}, {Key: "_id", Value: bson.D{{Key: "$in", Value: ids}}}},
		options.Find().SetProjection(bson.D{{Key: "_id", Value: 1}}))
	if err != nil {
		return nil, store.Error("look for audit records", err)
	}
	var found []struct {
		ID string `bson:"_id"`
	}
	if err := cursor.All(ctx, &found); err != nil {
		return nil, store.Error("look for audit records", err)
	}
	there := make(map[string]bool, len(found))
	for _, f := range found {
		there[f.ID] = true
	}
	var left []stored
	for i := range sealed {
		if !there[sealed[i].ID] {
			left = append(left, sealed[i])
		}
	}
	return left, nil
}

// retry repeats an idempotent call until it succeeds or ctx is over, waiting longer
// each time. The queue bounds what gathers meanwhile.
func (t *Trail) retry(ctx context.Context, what string, call func(context.Context) error) error {
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		err := call(ctx)
		if err == nil {
			return nil
		}
		if n := t.failures.Add(1); powerOfTwo(n) {
			t.config.Logger.Error(what, slog.String("app", t.config.App), slog.Uint64("failures", n), slog.Any("error", err))
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return errors.Join(ctx.Err(), err)
		}
	}
}
