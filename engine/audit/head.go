package audit

import (
	"context"
	"log/slog"
	"time"

	"github.com/oklog/ulid/v2"
	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
)

// Head says how far a chain goes: that it has a record Seq with this MAC. Kept
// outside of the database it lets [Trail.Verify] find that the chain was put back.
type Head struct {
	// Chain names the chain. It is a ULID of the time when the chain began.
	Chain string `bson:"chain" json:"chain"`
	// Seq is the number of its newest record, 0 for one that has none yet.
	Seq int64 `bson:"seq" json:"seq"`
	// MAC is that record's, in base64url.
	MAC string `bson:"mac" json:"mac"`
	// ExpiresAt is when that record expires. After it the head proves nothing.
	ExpiresAt time.Time `bson:"expires_at" json:"expires_at"`
}

const (
	// headType is the type of the documents that are heads. They are no records: no
	// query shows them.
	headType = "audit_head"
	// headMargin is how much longer than its newest record a head is kept.
	headMargin = 24 * time.Hour
	// maxWitness bounds the heads that one record repeats, newest chains first. Older
	// ones were witnessed by chains that are among them.
	maxWitness = 64
)

// headDocument is a head as it is stored. Its numbers have names of their own, so
// that it is in no query of records.
type headDocument struct {
	ID        string    `bson:"_id"`
	App       string    `bson:"app"`
	Type      string    `bson:"type"`
	Chain     string    `bson:"chain"`
	Seq       int64     `bson:"head_seq"`
	Last      string    `bson:"head_mac"`
	LastUntil time.Time `bson:"head_expires_at"`
	Closed    bool      `bson:"closed"`
	KeyID     string    `bson:"kid"`
	MAC       string    `bson:"mac"`
	CreatedAt time.Time `bson:"created_at"`
	ExpiresAt time.Time `bson:"expires_at"`
}

// headID is the identifier of a chain's head. It sorts after every ULID, so that
// records are told from heads by a bound on the identifier, and among the app's by
// the chain's age.
func headID(app, chain string) string { return "head|" + app + "|" + chain }

// pastRecords is above every ULID, whose first character is 0 to 7, and below
// every headID.
const pastRecords = "8"

func (h *headDocument) canonical() []byte {
	e := make(encoder, 0, 256)
	e.text(headDomain)
	e.text(h.ID)
	e.text(h.App)
	e.text(h.Type)
	e.text(h.Chain)
	e.number(h.Seq)
	e.text(h.Last)
	e.time(h.LastUntil)
	e.flag(h.Closed)
	e.time(h.CreatedAt)
	e.time(h.ExpiresAt)
	return e
}

func (h *headDocument) head() Head {
	return Head{Chain: h.Chain, Seq: h.Seq, MAC: h.Last, ExpiresAt: h.LastUntil}
}

// valid reports whether the head is the one of its chain and signed.
func (t *Trail) valid(h *headDocument) bool {
	return h.App == t.config.App && h.ID == headID(h.App, h.Chain) && h.Type == headType && t.genuine(h.KeyID, h.MAC, h.canonical())
}

// open begins the instance's chain and returns its first record. The head comes
// before it, so that there is no moment with records and without a head.
func (t *Trail) open(ctx context.Context) (stored, error) {
	now := store.Time(t.config.Now())
	c := &chain{id: t.newID(now), witnessed: map[string]int64{}}
	var others []Head
	err := t.retry(ctx, "open an audit chain", func(ctx context.Context) error {
		var err error
		if others, err = t.others(ctx, c); err != nil {
			return err
		}
		return t.storeHead(ctx, c, false)
	})
	if err != nil {
		return stored{}, err
	}
	t.chain = c
	return t.witness(event.AuditStarted, others), nil
}

// witness makes the record that signs the heads of others.
func (t *Trail) witness(kind event.Type, others []Head) stored {
	s := t.link(Record{Type: kind}, others)
	for _, h := range others {
		t.chain.witnessed[h.Chain] = h.Seq
	}
	return s
}

// checkpoint witnesses the chains that have grown since the last time, and renews
// the own head, also that of a chain where nothing happens: it must not expire.
func (t *Trail) checkpoint(ctx context.Context) error {
	if t.chain == nil {
		return nil
	}
	others, err := t.others(ctx, t.chain)
	if err != nil {
		t.config.Logger.Warn("witness the audit chains", slog.String("app", t.config.App), slog.Any("error", err))
		return err
	}
	if len(others) > 0 {
		if err := t.insert(ctx, []stored{t.witness(event.AuditCheckpoint, others)}); err != nil {
			return err
		}
	}
	return t.writeHead(ctx, false)
}

// others returns the newest heads of the app's other chains that c has not witnessed
// as they are. One that is not genuine is left out: to sign it would make it so.
func (t *Trail) others(ctx context.Context, c *chain) ([]Head, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	cursor, err := t.events.Find(ctx, bson.D{
		{Key: "app", Value: t.config.App},
		{Key: "type", Value: headType},
		{Key: "_id", Value: bson.D{{Key: "$ne", Value: headID(t.config.App, c.id)}}},
		{Key: "expires_at", Value: bson.D{{Key: "$gt", Value: t.config.Now()}}},
	}, options.Find().SetSort(bson.D{{Key: "_id", Value: -1}}).SetLimit(maxWitness))
	if err != nil {
		return nil, store.Error("read audit heads", err)
	}
	var raws []bson.Raw
	if err := cursor.All(ctx, &raws); err != nil {
		return nil, store.Error("read audit heads", err)
	}
	var heads []Head
	for _, raw := range raws {
		var h headDocument
		if err := bson.Unmarshal(raw, &h); err != nil || !t.valid(&h) {
			t.config.Logger.Error("the head of an audit chain is not genuine: verify the trail",
				slog.String("app", t.config.App), slog.String("id", raw.Lookup("_id").String()))
			continue
		}
		if c.witnessed[h.Chain] != h.Seq {
			heads = append(heads, h.head())
		}
	}
	return heads, nil
}

// tryHead writes the head if that succeeds at once; it is tried again soon.
func (t *Trail) tryHead(ctx context.Context) {
	if t.chain == nil || !t.chain.dirty {
		return
	}
	if err := t.writeHead(ctx, false); err != nil {
		if n := t.failures.Add(1); powerOfTwo(n) {
			t.config.Logger.Error("store the head of the audit chain", slog.String("app", t.config.App),
				slog.Uint64("failures", n), slog.Any("error", err))
		}
	}
}

func (t *Trail) writeHead(ctx context.Context, closed bool) error {
	if err := t.storeHead(ctx, t.chain, closed); err != nil {
		return err
	}
	t.chain.dirty = false
	return nil
}

// storeHead stores what is known of the chain. To repeat it changes nothing.
func (t *Trail) storeHead(ctx context.Context, c *chain, closed bool) error {
	began, err := ulid.ParseStrict(c.id)
	if err != nil {
		return err
	}
	h := headDocument{
		ID: headID(t.config.App, c.id), App: t.config.App, Type: headType, Chain: c.id,
		Seq: c.seq, Last: c.mac, LastUntil: c.expiresAt, Closed: closed,
		CreatedAt: store.Time(began.Timestamp()),
		ExpiresAt: store.Time(t.config.Now().Add(t.config.Retention + headMargin)),
	}
	h.KeyID, h.MAC = t.sign(h.canonical())
	ctx, cancel := store.Context(ctx)
	defer cancel()
	_, err = t.events.ReplaceOne(ctx, bson.D{{Key: "_id", Value: h.ID}, {Key: "app", Value: h.App}}, &h,
		options.Replace().SetUpsert(true))
	return store.Error("store the head of the audit chain", err)
}

// finish ends the chain in order, and what cannot be written any more is lost.
func (t *Trail) finish(ctx context.Context, reported uint64) {
	t.sayLost(ctx, reported)
	if t.chain == nil {
		return
	}
	if err := t.retry(ctx, "end the audit chain", func(ctx context.Context) error { return t.writeHead(ctx, true) }); err != nil {
		t.config.Logger.Error("the audit chain was not ended in order", slog.String("app", t.config.App), slog.Any("error", err))
	}
}
