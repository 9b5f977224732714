package audit_test

import (
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"

	"github.com/mandate-auth/mandate/engine/audit"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/tokens/keys"
)

// tampering is what an attacker with the database and without the key does to a
// chain of one opening and five records, and where it has to be noticed first.
var tampering = map[string]struct {
	do    func(*bench)
	fault audit.Fault
	seq   int64
}{
	"edit a field":   {func(b *bench) { b.update(seq(3), set("user_id", "usr_other")) }, audit.Altered, 3},
	"edit metadata":  {func(b *bench) { b.update(seq(3), set("metadata.operation", "other")) }, audit.Altered, 3},
	"empty metadata": {func(b *bench) { b.update(seq(3), set("metadata", bson.D{})) }, audit.Altered, 3},
	"take a field away": {func(b *bench) {
		b.update(seq(3), bson.D{{Key: "$unset", Value: bson.D{{Key: "actor", Value: ""}}}})
	}, audit.Altered, 3},
	"edit and sign with another key": {func(b *bench) { b.update(seq(3), set("kid", "other")) }, audit.Altered, 3},
	"take the MAC away": {func(b *bench) {
		b.update(seq(3), bson.D{{Key: "$unset", Value: bson.D{{Key: "mac", Value: ""}}}})
	}, audit.Altered, 3},
	"spell the MAC in another way": {func(b *bench) {
		mac, _ := field(b.document(seq(3)), "mac").(string)
		b.update(seq(3), set("mac", mac+"="))
	}, audit.Altered, 3},
	"change a type":        {func(b *bench) { b.update(seq(3), set("user_id", 7)) }, audit.Malformed, 0},
	"delete in the middle": {func(b *bench) { b.remove(seq(3)) }, audit.Missing, 3},
	"delete several":       {func(b *bench) { b.remove(bson.D{{Key: "seq", Value: bson.D{{Key: "$in", Value: bson.A{2, 3, 4}}}}}) }, audit.Missing, 2},
	"delete the oldest":    {func(b *bench) { b.remove(seq(1)) }, audit.Missing, 1},
	"delete the newest":    {func(b *bench) { b.remove(seq(6)) }, audit.Missing, 6},
	"delete all but the head": {func(b *bench) {
		b.remove(bson.D{{Key: "seq", Value: bson.D{{Key: "$gte", Value: 1}}}})
	}, audit.Missing, 6},
	"delete the newest and the head": {func(b *bench) { b.remove(seq(6)); b.remove(isHead()) }, audit.HeadMissing, 0},
	"delete the newest and edit the head": {func(b *bench) {
		mac := field(b.document(seq(5)), "mac")
		b.remove(seq(6))
		b.update(isHead(), bson.D{{Key: "$set", Value: bson.D{{Key: "head_seq", Value: 5}, {Key: "head_mac", Value: mac}}}})
	}, audit.HeadAltered, 0},
	"swap two numbers": {func(b *bench) {
		b.update(seq(3), set("seq", 100))
		b.update(seq(4), set("seq", 3))
		b.update(seq(100), set("seq", 4))
	}, audit.Altered, 3},
	"swap two contents": {func(b *bench) {
		x, y := b.document(seq(3)), b.document(seq(4))
		b.remove(seq(3))
		b.remove(seq(4))
		b.insert(with(x, "_id", field(y, "_id")))
		b.insert(with(y, "_id", field(x, "_id")))
	}, audit.Altered, 3},
	"forge the next": {func(b *bench) {
		d := b.document(seq(6))
		b.insert(with(with(with(d, "_id", "01JTZZZZZZZZZZZZZZZZZZZZZZ"), "seq", 7), "prev", field(d, "mac")))
	}, audit.Altered, 7},
	"repeat one under another id": {func(b *bench) {
		b.insert(with(b.document(seq(3)), "_id", "01JTZZZZZZZZZZZZZZZZZZZZZZ"))
	}, audit.Altered, 3},
	"shorten a life":               {func(b *bench) { b.update(seq(6), set("expires_at", b.clock.Now().Add(time.Hour))) }, audit.Altered, 6},
	"shorten the life before one":  {func(b *bench) { b.remove(seq(1)); b.update(seq(2), set("prev_expires_at", b.clock.Now())) }, audit.Altered, 2},
	"say that the chain has ended": {func(b *bench) { b.update(isHead(), set("closed", true)) }, audit.HeadAltered, 0},
	"hide one from the walk": {func(b *bench) {
		b.update(seq(6), set("seq", "6"))
	}, audit.Stray, 0},
	"put a document with half a number in": {func(b *bench) { b.insert(with(with(b.document(seq(3)), "_id", "x"), "seq", 3.5)) }, audit.Malformed, 0},
	"a head for another chain":             {func(b *bench) { b.update(isHead(), set("chain", "elsewhere")) }, audit.HeadMissing, 0},
}

// Whatever is changed in the database is found, and at the right place.
func TestTamperingIsFound(t *testing.T) {
	t.Parallel()
	for name, tt := range tampering {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.record(b.trail(), 5)
			b.intact()
			tt.do(b)
			report := b.verify()
			if report.Intact() || len(report.Chains) == 0 {
				t.Fatalf("not noticed: %s", show(report))
			}
			at := report.Chains[0].Break
			if at == nil || at.Fault != tt.fault || (tt.seq > 0 && at.Seq != tt.seq) {
				t.Errorf("got %s, want %s at %d", show(report), tt.fault, tt.seq)
			}
			for _, h := range report.Heads() {
				if h.Chain == report.Chains[0].Chain {
					t.Error("the head of a broken chain is one to be kept")
				}
			}
		})
	}
}

// Every single field of a record and of a head is covered, also those that are added
// to documents later.
func TestEveryFieldIsSigned(t *testing.T) {
	t.Parallel()
	b := setup(t)
	other := b.trail()
	b.record(other, 1)
	trail := b.trail()
	b.record(trail, 3) // its first record has witnesses
	for _, filter := range []bson.D{{{Key: "seq", Value: 3}}, {{Key: "witness.0.seq", Value: 2}}, isHead()} {
		d := b.document(filter)
		for _, e := range d {
			if e.Key == "_id" || e.Key == "app" || e.Key == "chain" {
				continue // moved: see below
			}
			var to any
			switch v := e.Value.(type) {
			case string:
				to = v + "x"
			case bool:
				to = !v
			case int32:
				to = v + 100
			case int64:
				to = v + 100
			case primitive.DateTime:
				to = v + 1
			case bson.D:
				to = append(append(bson.D{}, v...), bson.E{Key: "more", Value: "x"})
			case bson.A:
				to = bson.A{}
			default:
				t.Fatalf("no other value of %s (%T)", e.Key, e.Value)
			}
			id := bson.D{{Key: "_id", Value: field(d, "_id")}}
			b.update(id, set(e.Key, to))
			if report := b.verify(); report.Intact() {
				t.Errorf("%s of %v is not covered", e.Key, filter)
			}
			b.update(id, set(e.Key, e.Value))
		}
	}
	b.intact()
}

// A record of another app or chain is genuine there only.
func TestRecordsCannotMove(t *testing.T) {
	t.Parallel()
	b := setup(t)
	k := appKeys(t, "bank", "s")
	bank := b.trail(func(c *audit.Config) { c.App, c.Signer, c.Cursors = "bank", audit.SignWith(k, keys.Audit), k })
	b.must(bank.Log(t.Context(), audit.Record{Type: "transfer"}))
	b.must(bank.Flush(t.Context()))
	one, two := b.trail(), b.trail()
	b.record(one, 3)
	b.record(two, 3)
	report := b.intact()
	first, second := report.Chains[0].Chain, report.Chains[1].Chain
	of := func(app, chain string, n int) bson.D {
		return bson.D{{Key: "app", Value: app}, {Key: "chain", Value: chain}, {Key: "seq", Value: n}}
	}
	bankChain, _ := field(b.document(bson.D{{Key: "app", Value: "bank"}, {Key: "seq", Value: 1}}), "chain").(string)
	for name, from := range map[string]bson.D{"another chain": of("shop", second, 3), "another app": of("bank", bankChain, 2)} {
		kept, moved := b.document(of("shop", first, 3)), b.document(from)
		b.remove(of("shop", first, 3))
		moved = with(with(with(moved, "app", "shop"), "chain", first), "seq", 3)
		b.insert(with(moved, "_id", field(kept, "_id")))
		if c := b.verify().Chains[0]; c.Break == nil || c.Break.Fault != audit.Altered || c.Break.Seq != 3 {
			t.Errorf("a record of %s stands in the chain: %+v", name, c.Break)
		}
		b.remove(of("shop", first, 3))
		b.insert(kept)
	}
	b.intact()
	// A reader of one app neither sees nor verifies the other.
	for _, r := range b.all(one, audit.Filter{}) {
		if r.Type == "transfer" {
			t.Error("a record of another app is shown")
		}
	}
}

// Records outside of any chain are proven by nothing. To take them for intact would
// let anybody write history.
func TestUnchainedRecordsAreCounted(t *testing.T) {
	t.Parallel()
	for name, chain := range map[string]any{"none": nil, "empty": "", "a number": 7, "a document": bson.D{{Key: "a", Value: 1}}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.record(b.trail(), 1)
			b.insert(bson.D{
				{Key: "_id", Value: "01JTZZZZZZZZZZZZZZZZZZZZZZ"},
				{Key: "app", Value: "shop"},
				{Key: "type", Value: "login_succeeded"},
				{Key: "chain", Value: chain},
				{Key: "seq", Value: 1},
				{Key: "expires_at", Value: b.clock.Now().Add(time.Hour)},
			})
			if report := b.verify(); report.Intact() || report.Unchained != 1 {
				t.Errorf("got %s, want one record in no chain", show(report))
			}
		})
	}
	b := setup(t)
	b.record(b.trail(), 1)
	b.insert(with(b.document(seq(2)), "_id", "x"))
	b.update(bson.D{{Key: "_id", Value: "x"}}, set("chain", bson.A{"zzz"}))
	if report := b.verify(); report.Intact() {
		t.Error("a record whose chain is an array hides from the walk")
	}
}

// What only the secret can make is refused when the secret is another, and accepted
// while an old one is still configured.
func TestSecretsRotate(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.record(b.trail(), 2)
	with := func(secrets ...string) *audit.Trail {
		k := appKeys(t, "shop", secrets...)
		return b.trail(func(c *audit.Config) { c.Signer, c.Cursors = audit.SignWith(k, keys.Audit), k })
	}
	b.record(with("n", "s"), 2)
	report, err := with("n", "s").Verify(t.Context())
	b.must(err)
	if !report.Intact() || len(report.Chains) != 2 {
		t.Errorf("with both secrets: %s", show(report))
	}
	if report, err = with("n").Verify(t.Context()); err != nil || report.Intact() {
		t.Errorf("without the old secret: %s, %v", show(report), err)
	}
}

// An attacker who can put the newest chain back to an earlier state is found by
// whoever has seen more: another chain, or a head kept elsewhere.
func TestWitnesses(t *testing.T) {
	t.Parallel()
	back := func(b *bench, trail *audit.Trail) (putBack func()) {
		b.record(trail, 2)
		head := b.document(isHead())
		b.record(trail, 2)
		return func() {
			chain := bson.E{Key: "chain", Value: field(head, "chain")}
			b.remove(bson.D{chain, {Key: "seq", Value: bson.D{{Key: "$gt", Value: 3}}}})
			b.remove(bson.D{{Key: "_id", Value: field(head, "_id")}})
			b.insert(head)
		}
	}
	t.Run("the next start", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		putBack := back(b, b.trail())
		b.record(b.trail(), 1)
		b.intact()
		putBack()
		c := b.verify().Chains[0]
		if c.Break == nil || c.Break.Fault != audit.Forgotten || c.Break.Seq != 5 {
			t.Errorf("got %+v", c.Break)
		}
	})
	t.Run("the next checkpoint", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		watching := b.trail()
		b.record(watching, 1)
		trail := b.trail()
		b.record(trail, 2)
		b.must(watching.Checkpoint(t.Context()))
		b.must(watching.Checkpoint(t.Context())) // nothing new
		if n := len(b.all(watching, audit.Filter{Type: event.AuditCheckpoint})); n != 1 {
			t.Errorf("%d checkpoints were written, want the one that says something", n)
		}
		b.remove(bson.D{{Key: "chain", Value: b.intact().Chains[1].Chain}})
		report := b.verify()
		if len(report.Chains) != 2 || report.Chains[1].Break == nil || report.Chains[1].Break.Fault != audit.Forgotten {
			t.Errorf("a chain that is gone whole is not missed: %s", show(report))
		}
	})
	t.Run("a head kept elsewhere", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		putBack := back(b, b.trail())
		report := b.intact()
		putBack()
		b.intact() // nobody else has seen it: documented
		if len(report.Heads()) != 1 || b.verify(report.Heads()...).Intact() {
			t.Error("the head does not help")
		}
	})
	t.Run("a forged head is not signed by others", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.record(b.trail(), 1)
		b.update(isHead(), set("head_seq", int64(50)))
		b.record(b.trail(), 1)
		if !strings.Contains(b.logs.String(), "not genuine") {
			t.Error("the forged head is not logged")
		}
		if report := b.verify(); len(report.Chains) != 2 || report.Chains[0].Break.Fault != audit.HeadAltered || report.Chains[1].Break != nil {
			t.Errorf("got %s", show(report))
		}
	})
}
