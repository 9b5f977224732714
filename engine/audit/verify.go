package audit

import (
	"context"
	"maps"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/internal/store"
)

const (
	verifyPage   = 500
	maxUnchained = 10_000
	// clockMargin is how far the database's clock, which removes what has expired, may
	// be ahead of ours.
	clockMargin = 5 * time.Minute
)

// Verify reads the app's trail whole, chain by chain, and reports the first broken
// record of each. It may run while instances write. known are heads that were
// kept outside of the database, those of an earlier [Report]: what they name and
// what has not expired has to be there.
//
// A trail that was tampered with is no error: see [Report.Intact]. The error is
// [ErrNotTamperEvident], or that the database could not be read, so that nothing is
// known. It reads every record once, in pages of 500, each within two seconds.
func (t *Trail) Verify(ctx context.Context, known ...Head) (Report, error) {
	if !t.config.TamperEvident {
		return Report{}, ErrNotTamperEvident
	}
	v := &verifier{Trail: t, due: t.config.Now().Add(clockMargin), promised: map[string]Head{}}
	for _, h := range known {
		v.promise(h)
	}
	for name := ""; ; {
		next, malformed, err := v.next(ctx, name)
		if err != nil {
			return Report{}, err
		}
		if malformed != nil {
			// Nothing orders what comes after a name that is no text.
			v.report.Chains = append(v.report.Chains, ChainReport{Break: malformed})
			break
		}
		if next == "" {
			break
		}
		if err := v.chain(ctx, next); err != nil {
			return Report{}, err
		}
		name = next
	}
	if err := v.settle(ctx); err != nil {
		return Report{}, err
	}
	var err error
	v.report.Unchained, err = v.unchained(ctx)
	return v.report, err
}

// verifier is one run of Verify.
type verifier struct {
	*Trail
	due      time.Time // what expires before it may be missing
	promised map[string]Head
	report   Report
}

// promise remembers that a chain has to go as far as h.
func (v *verifier) promise(h Head) {
	if h.Seq > v.promised[h.Chain].Seq {
		v.promised[h.Chain] = h
	}
}

// walk is how far a chain has been verified.
type walk struct {
	ChainReport
	id      string // of the last record
	mac     string
	expires time.Time
	live    bool // it has a record that cannot have expired
}

func (w *walk) broken(fault Fault, seq int64, id string) {
	if w.Break == nil {
		w.Break = &Break{Fault: fault, Seq: seq, RecordID: id}
	}
}

// gone returns which record to name of those that are missing, of which last is the
// newest: the oldest one that cannot have expired, as far as that is known.
func (w *walk) gone(last int64) int64 {
	if w.live {
		return w.Last + 1
	}
	return last
}

// chain verifies one chain. Its head is read first: what is written meanwhile only
// makes the chain longer than it says.
func (v *verifier) chain(ctx context.Context, name string) error {
	w := &walk{}
	w.Chain = name
	head, err := v.headOf(ctx, w)
	if err != nil {
		return err
	}
	for more := w.Break == nil; more; {
		if more, err = v.page(ctx, w); err != nil {
			return err
		}
	}
	switch {
	case w.Break != nil:
	case head == nil && w.live:
		w.broken(HeadMissing, 0, "")
	case head != nil && head.Seq > w.Last && head.LastUntil.After(v.due):
		w.broken(Missing, w.gone(head.Seq), "")
	case head != nil && head.Seq == w.Last && head.Last != w.mac:
		w.broken(Unlinked, w.Last, w.id)
	}
	w.Head = Head{Chain: name, Seq: w.Last, MAC: w.mac, ExpiresAt: w.expires}
	if head != nil {
		w.Closed = head.Closed
		if head.Seq > w.Last {
			w.Head = head.head()
		}
	}
	v.report.Chains = append(v.report.Chains, w.ChainReport)
	return nil
}

// page verifies the next records of a chain and reports whether there may be more. It
// begins with the last one of the page before, to see a second one of that number.
func (v *verifier) page(ctx context.Context, w *walk) (more bool, err error) {
	raws, err := v.read(ctx, bson.D{
		{Key: "app", Value: v.config.App},
		{Key: "chain", Value: w.Chain},
		{Key: "seq", Value: bson.D{{Key: "$gte", Value: max(w.Last, 1)}}},
	}, bson.D{{Key: "seq", Value: 1}}, verifyPage)
	if err != nil {
		return false, err
	}
	for _, raw := range raws {
		v.record(w, raw)
		if w.Break != nil {
			return false, nil
		}
	}
	return len(raws) == verifyPage, nil
}

// record verifies one record of a chain.
func (v *verifier) record(w *walk, raw bson.Raw) {
	var s stored
	if err := bson.Unmarshal(raw, &s); err != nil {
		w.broken(Malformed, 0, identifier(raw))
		return
	}
	switch {
	case s.ID == w.id && s.Seq == w.Last:
		return // seen at the end of the page before
	case !v.genuine(s.KeyID, s.MAC, s.canonical()):
		w.broken(Altered, s.Seq, s.ID)
		return
	case s.Seq == w.Last:
		w.broken(Doubled, s.Seq, s.ID)
		return
	case s.Seq == w.Last+1:
		if s.Prev != w.mac || !s.PrevExpiresAt.Equal(w.expires) {
			w.broken(Unlinked, s.Seq, s.ID)
			return
		}
	case s.PrevExpiresAt.After(v.due):
		// Its predecessor has not expired, and expiry never falls along a chain.
		w.broken(Missing, w.gone(s.Seq-1), s.ID)
		return
	}
	if w.First == 0 {
		w.First = s.Seq
	}
	w.Records++
	w.Last, w.id, w.mac, w.expires = s.Seq, s.ID, s.MAC, s.ExpiresAt
	w.live = w.live || s.ExpiresAt.After(v.due)
	for _, h := range s.Witness {
		v.promise(h)
	}
}

// settle holds the chains against what was promised of them.
func (v *verifier) settle(ctx context.Context) error {
	found := make(map[string]int, len(v.report.Chains))
	for i, c := range v.report.Chains {
		found[c.Chain] = i
	}
	for _, name := range slices.Sorted(maps.Keys(v.promised)) {
		h := v.promised[name]
		i, ok := found[name]
		if !h.ExpiresAt.After(v.due) || (ok && v.kept(h, &v.report.Chains[i])) {
			continue
		}
		written, err := v.writtenMeanwhile(ctx, h)
		if err != nil {
			return err
		}
		if written {
			continue
		}
		if !ok {
			i = len(v.report.Chains)
			v.report.Chains = append(v.report.Chains, ChainReport{Chain: name, Head: h})
		}
		v.report.Chains[i].Break = &Break{Fault: Forgotten, Seq: h.Seq}
	}
	return nil
}

// kept reports whether a chain goes as far as was promised, or is known to be broken.
func (v *verifier) kept(h Head, c *ChainReport) bool {
	return c.Break != nil || c.Last > h.Seq || (c.Last == h.Seq && c.Head.MAC == h.MAC)
}

// writtenMeanwhile looks for a record that was promised by a chain that was read
// after the record's own.
func (v *verifier) writtenMeanwhile(ctx context.Context, h Head) (bool, error) {
	raws, err := v.read(ctx, bson.D{
		{Key: "app", Value: v.config.App}, {Key: "chain", Value: h.Chain}, {Key: "seq", Value: h.Seq},
	}, bson.D{{Key: "seq", Value: 1}}, 2)
	if err != nil || len(raws) != 1 {
		return false, err
	}
	var s stored
	if err := bson.Unmarshal(raws[0], &s); err != nil {
		return false, nil //nolint:nilerr // a document that is no record is not the promised one
	}
	return s.MAC == h.MAC && v.genuine(s.KeyID, s.MAC, s.canonical()), nil
}

// headOf returns the head of a chain, nil where there is none, and sees to it that
// nothing else is in the chain that has no number.
func (v *verifier) headOf(ctx context.Context, w *walk) (*headDocument, error) {
	raws, err := v.read(ctx, bson.D{
		{Key: "app", Value: v.config.App},
		{Key: "chain", Value: w.Chain},
		{Key: "seq", Value: bson.D{{Key: "$not", Value: bson.D{{Key: "$gte", Value: 1}}}}},
	}, bson.D{{Key: "seq", Value: 1}}, verifyPage)
	if err != nil {
		return nil, err
	}
	var head *headDocument
	for _, raw := range raws {
		id := identifier(raw)
		if id != headID(v.config.App, w.Chain) {
			w.broken(Stray, 0, id)
			continue
		}
		var h headDocument
		if err := bson.Unmarshal(raw, &h); err != nil || !v.valid(&h) {
			w.broken(HeadAltered, 0, id)
			continue
		}
		head = &h
	}
	return head, nil
}

// next returns the name of the chain after another, "" after the last. malformed
// says that there is a document whose chain is no text.
func (v *verifier) next(ctx context.Context, after string) (name string, malformed *Break, err error) {
	raws, err := v.read(ctx, bson.D{
		{Key: "app", Value: v.config.App}, {Key: "chain", Value: bson.D{{Key: "$gt", Value: after}}},
	}, bson.D{{Key: "chain", Value: 1}, {Key: "seq", Value: 1}}, 1)
	if err != nil || len(raws) == 0 {
		return "", nil, err
	}
	name, ok := raws[0].Lookup("chain").StringValueOK()
	if !ok {
		return "", &Break{Fault: Malformed, RecordID: identifier(raws[0])}, nil
	}
	return name, nil, nil
}

// unchained counts the documents whose chain is no name.
func (v *verifier) unchained(ctx context.Context) (int64, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	n, err := v.events.CountDocuments(ctx, bson.D{
		{Key: "app", Value: v.config.App},
		{Key: "chain", Value: bson.D{{Key: "$not", Value: bson.D{{Key: "$gt", Value: ""}}}}},
	}, options.Count().SetLimit(maxUnchained))
	return n, store.Error("count audit records", err)
}

// read returns documents as they are. What has expired is not left out: while it is
// there it has to be genuine.
func (t *Trail) read(ctx context.Context, filter, sort bson.D, limit int64) ([]bson.Raw, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	cursor, err := t.events.Find(ctx, filter, options.Find().SetSort(sort).SetLimit(limit).SetBatchSize(int32(limit))) //nolint:gosec // at most verifyPage
	if err != nil {
		return nil, store.Error("read the audit trail", err)
	}
	var raws []bson.Raw
	if err := cursor.All(ctx, &raws); err != nil {
		return nil, store.Error("read the audit trail", err)
	}
	return raws, nil
}

// identifier returns a document's _id for a report.
func identifier(raw bson.Raw) string {
	id := raw.Lookup("_id")
	if s, ok := id.StringValueOK(); ok {
		return text(s)
	}
	return text(id.String())
}
