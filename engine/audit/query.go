package audit

import (
	"context"
	"fmt"
	"time"

	"github.com/oklog/ulid/v2"
	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
)

// Filter chooses records. Fields without a value choose all. Each field is served by
// an index of its own; where several are given, one of them is, and the others
// are looked at in what it finds.
type Filter struct {
	UserID   string
	ClientID string
	// IP is an address as it is recorded.
	IP     string
	Type   event.Type
	Result event.Result
	// From and Until bound the time: from From on, before Until.
	From, Until time.Time
}

// The limits of one page of Query.
const (
	DefaultLimit = 50
	MaxLimit     = 500
)

// Query returns a page of the records that filter chooses, newest first by their
// time, and the cursor of the next page, "" after the last. cursor is "" for the
// first page; one that was not made by this app for this filter is
// [ErrInvalidCursor]. limit is [DefaultLimit] where it is 0 or less, and at most
// [MaxLimit].
//
// Records that come while pages are read are on none of them. What waits in the
// queue of any instance is not found yet: see [Trail.Flush].
func (t *Trail) Query(ctx context.Context, filter Filter, limit int, cursor string) (records []Record, next string, err error) {
	if limit <= 0 {
		limit = DefaultLimit
	}
	limit = min(limit, MaxLimit)
	scope := filter.scope()
	before := ""
	if cursor != "" {
		if before, err = t.position(scope, cursor); err != nil {
			return nil, "", err
		}
	}
	page, err := t.find(ctx, t.choose(filter, before), limit+1, nil)
	if err != nil {
		return nil, "", err
	}
	if len(page) > limit {
		page = page[:limit]
		next = t.config.Cursors.SealCursor(scope, page[limit-1].ID)
	}
	return page, next, nil
}

// position opens a cursor.
func (t *Trail) position(scope, cursor string) (string, error) {
	id, ok := t.config.Cursors.OpenCursor(scope, cursor)
	if !ok {
		return "", ErrInvalidCursor
	}
	if _, err := ulid.ParseStrict(id); err != nil {
		return "", ErrInvalidCursor
	}
	return id, nil
}

// scope names the list that a cursor belongs to. Texts are quoted, so that no two
// filters have one name.
func (f *Filter) scope() string {
	return fmt.Sprintf("audit %q %q %q %q %q %s %s", f.UserID, f.ClientID, f.IP, f.Type, f.Result, bound(f.From), bound(f.Until))
}

// bound is the least identifier of the time, "-" for none.
func bound(at time.Time) string {
	if at.IsZero() {
		return "-"
	}
	var id ulid.ULID
	ms := min(max(at.UnixMilli(), 0), int64(ulid.MaxTime())) //nolint:gosec // 48 bits
	_ = id.SetTime(uint64(ms))                               //nolint:gosec // not negative; within what a ULID holds
	return id.String()
}

// choose translates a filter. The bound on the identifier leaves heads out and keeps
// the time, so that there is no other range in a query than that and expiry.
func (t *Trail) choose(f Filter, before string) bson.D {
	upper, ids := pastRecords, bson.D{}
	if !f.Until.IsZero() {
		upper = bound(f.Until)
	}
	if before != "" {
		upper = min(upper, before)
	}
	ids = append(ids, bson.E{Key: "$lt", Value: upper})
	if !f.From.IsZero() {
		ids = append(ids, bson.E{Key: "$gte", Value: bound(f.From)})
	}
	d := bson.D{{Key: "app", Value: t.config.App}}
	for _, c := range []struct{ field, value string }{
		{"user_id", f.UserID}, {"client_id", f.ClientID}, {"ip", f.IP}, {"type", string(f.Type)}, {"result", string(f.Result)},
	} {
		if c.value != "" {
			d = append(d, bson.E{Key: c.field, Value: c.value})
		}
	}
	return append(d, bson.E{Key: "_id", Value: ids},
		bson.E{Key: "expires_at", Value: bson.D{{Key: "$gt", Value: t.config.Now()}}})
}

// find returns the newest records of a filter.
func (t *Trail) find(ctx context.Context, filter bson.D, limit int, fields bson.D) ([]Record, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	opts := options.Find().SetSort(bson.D{{Key: "_id", Value: -1}}).SetLimit(int64(limit)).SetBatchSize(int32(limit)) //nolint:gosec // a page
	if fields != nil {
		opts.SetProjection(fields)
	}
	cursor, err := t.events.Find(ctx, filter, opts)
	if err != nil {
		return nil, store.Error("query the audit trail", err)
	}
	var records []Record
	if err := cursor.All(ctx, &records); err != nil {
		return nil, store.Error("query the audit trail", err)
	}
	return records, nil
}
