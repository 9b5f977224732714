package audit_test

import (
	"fmt"
	"testing"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/engine/audit"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store/storetest"
)

// onceEvents are written in batches of onceBatch, from one goroutine.
const (
	onceEvents = 6
	onceBatch  = 3
)

// steps are the commands of the trail's writer when nothing goes wrong. The insert
// after a lost answer, and the search for what it wrote, are steps of their own
// that come when one of these is hit.
var steps = []storetest.Step{
	{Command: "find audit_events", Nth: 1},   // the heads of others
	{Command: "update audit_events", Nth: 1}, // the own head
	{Command: "insert audit_events", Nth: 1},
	{Command: "insert audit_events", Nth: 2},
	{Command: "update audit_events", Nth: 2}, // the head again
}

func countsAudit(command bson.Raw) bool {
	elements, err := command.Elements()
	if err != nil || len(elements) == 0 {
		return false
	}
	collection, ok := elements[0].Value().StringValueOK()
	return ok && collection == audit.Collection
}

// Whatever happens to a command on its way there or back, every event is one record,
// and the chain is whole.
func TestExactlyOnce(t *testing.T) {
	t.Parallel()
	for _, synchronous := range []bool{false, true} {
		for _, fault := range []storetest.Fault{storetest.Before, storetest.BeforeTwice, storetest.AfterCommit, storetest.Timeout} {
			for _, step := range steps {
				t.Run(fmt.Sprintf("synchronous=%t/%s/%s", synchronous, fault, step), func(t *testing.T) {
					t.Parallel()
					once(t, synchronous, fault, step)
				})
			}
		}
	}
}

func once(t *testing.T, synchronous bool, fault storetest.Fault, step storetest.Step) {
	t.Helper()
	b := setup(t)
	faults := &storetest.Faults{Counts: countsAudit}
	trail := b.trailIn(storetest.Faulty(t, b.db, faults), func(c *audit.Config) { c.Batch, c.Synchronous = onceBatch, synchronous })
	faults.Arm(fault, step, nil)
	for i := range onceEvents {
		// A synchronous one may be late: it is written all the same.
		if err := trail.Write(t.Context(), sample(i)); err != nil && !synchronous {
			t.Error(err)
		}
		if synchronous && i == onceBatch {
			_ = trail.Flush(t.Context())
		}
	}
	_ = trail.Flush(t.Context()) // the head may be what is hit
	b.must(trail.Flush(t.Context()))
	if _, hits := faults.Disarm(); hits == 0 {
		t.Fatal("the fault has hit nothing")
	}
	seen := map[string]int{}
	for _, r := range b.all(b.trail(), audit.Filter{Type: event.LoginFailed}) {
		seen[r.UserID]++
	}
	for i := range onceEvents {
		if n := seen[fmt.Sprintf("usr_%d", i)]; n != 1 {
			t.Errorf("event %d is there %d times", i, n)
		}
	}
	report := b.intact()
	if len(report.Chains) != 1 || report.Chains[0].Records != onceEvents+1 {
		t.Errorf("got %s", show(report))
	}
	if s := trail.Stats(); s.Written != onceEvents+1 || s.Dropped != 0 {
		t.Errorf("got %+v", s)
	}
}

// An instance that dies right before or right after any command leaves a whole chain,
// never one with a hole that looks like tampering, and the next start goes on.
func TestDeathLeavesAWholeChain(t *testing.T) {
	t.Parallel()
	for _, step := range steps {
		for _, moment := range []storetest.Fault{storetest.Cancel, storetest.AfterCommitCancel} {
			t.Run(fmt.Sprintf("%s/%s", moment, step), func(t *testing.T) {
				t.Parallel()
				b := setup(t)
				faults := &storetest.Faults{Counts: countsAudit}
				dying := b.trailIn(storetest.Faulty(t, b.db, faults), func(c *audit.Config) { c.Batch = onceBatch })
				others := b.trail()
				asked := 0
				faults.Arm(moment, step, func() {
					asked++
					// This is all that there is if the process ends here.
					report, err := others.Verify(t.Context())
					if err != nil || !report.Intact() {
						t.Errorf("got %s, %v", show(report), err)
					}
					if err := others.Log(t.Context(), audit.Record{Type: "started_again"}); err != nil {
						t.Error(err)
					}
					if err := others.Flush(t.Context()); err != nil {
						t.Error(err)
					}
					if report, err = others.Verify(t.Context(), report.Heads()...); err != nil || !report.Intact() {
						t.Errorf("after the next start: %s, %v", show(report), err)
					}
				})
				for i := range onceEvents {
					b.must(dying.Write(t.Context(), sample(i)))
				}
				b.must(dying.Flush(t.Context()))
				if faults.Disarm(); asked != 1 {
					t.Errorf("looked %d times", asked)
				}
			})
		}
	}
}

// What one chain says of another that was read before it, and has grown since, is no
// sign of tampering.
func TestVerifyWhileChainsGrow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	older, younger := b.trail(), b.trail()
	b.record(older, 2)
	b.record(younger, 1)
	faults := &storetest.Faults{Counts: countsAudit}
	reader := b.trailIn(storetest.Faulty(t, b.db, faults))
	// Six finds: the name, the head and the records of each chain.
	faults.Arm(storetest.Cancel, storetest.Step{Command: "find audit_events", Nth: 6}, func() {
		if err := older.Write(t.Context(), sample(1)); err != nil {
			t.Error(err)
		}
		for _, trail := range []*audit.Trail{older, younger} {
			if err := trail.Checkpoint(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
	report, err := reader.Verify(t.Context())
	b.must(err)
	if _, hits := faults.Disarm(); hits != 1 || !report.Intact() || report.Chains[0].Last != 3 || report.Chains[1].Last != 3 {
		t.Errorf("hit %d times, got %s", hits, show(report))
	}
	// The same, and what was promised is not there.
	b.remove(bson.D{{Key: "chain", Value: report.Chains[0].Chain}, {Key: "seq", Value: bson.D{{Key: "$gt", Value: 3}}}})
	if b.verify().Intact() {
		t.Error("not noticed")
	}
}
