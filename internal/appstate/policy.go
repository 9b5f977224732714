package appstate

import (
	"context"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/internal/store"
)

const (
	// maxLog is how many changes an app's log keeps. Who is further behind reads
	// everything.
	maxLog = 64
	// maxLogged bounds the keys of one change, in bytes: the log is part of a
	// document that every change of a policy writes. With [maxLog] it stays below
	// 256 KiB.
	maxLogged = 4 << 10
)

// Version says which policy of an app is meant.
type Version struct {
	// Epoch counts the changes.
	Epoch int64 `bson:"policy_epoch"`
	// ChangedAt is when the document was changed last, by the server's clock.
	ChangedAt time.Time `bson:"changed_at"`
}

// Outdated reports whether other is a later version. The higher epoch is the later
// one, whatever the clocks of two primaries say. A lower one that was written later
// comes from a database that was set back.
func (v Version) Outdated(other Version) bool {
	return other.Epoch > v.Epoch || (other.Epoch < v.Epoch && other.ChangedAt.After(v.ChangedAt))
}

// Change is an entry of the log: which rules were touched. What became of them
// is read from the rules themselves, so that the order in which two writers
// record their changes does not matter.
type Change struct {
	// Keys are the rules. Without keys any rule may have changed.
	Keys [][]string `bson:"keys,omitempty"`
}

// Policy is the version of an app's policy and its latest changes.
type Policy struct {
	Version `bson:",inline"`
	Log     []Change `bson:"policy_log"`
}

// Since returns the keys of the rules that were touched after the epoch. ok is
// false when the log does not say.
func (p *Policy) Since(epoch int64) (keys [][]string, ok bool) {
	n := p.Epoch - epoch
	if n < 0 || n > int64(len(p.Log)) {
		return nil, false
	}
	for _, c := range p.Log[int64(len(p.Log))-n:] {
		if len(c.Keys) == 0 {
			return nil, false
		}
		keys = append(keys, c.Keys...)
	}
	return keys, true
}

var policyFields = bson.M{"policy_epoch": 1, "policy_log": 1, "changed_at": 1}

// Policy reads the version and the log of an app's policy. The error wraps
// [store.ErrNotFound] for an app that no instance has loaded.
func (s *Store) Policy(ctx context.Context, slug string) (*Policy, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	var p Policy
	err := s.coll.FindOne(ctx, bson.M{"_id": slug}, options.FindOne().SetProjection(policyFields)).Decode(&p)
	if err != nil {
		return nil, store.Error("read the policy's version", err)
	}
	return &p, nil
}

// Touched records that the rules of the keys have been written: one update that
// raises the epoch and names the rules. It comes after the writes, so that
// whoever sees the epoch reads what was written.
func (s *Store) Touched(ctx context.Context, slug string, keys [][]string) (*Policy, error) {
	size := 0
	for _, key := range keys {
		for _, value := range key {
			size += len(value) + 8
		}
	}
	entry := bson.M{}
	if size <= maxLogged {
		entry["keys"] = keys
	}
	var p Policy
	err := s.change(ctx, bson.M{"_id": slug}, bson.M{
		"$inc":         bson.M{"policy_epoch": int64(1)},
		"$push":        bson.M{"policy_log": bson.M{"$each": bson.A{entry}, "$slice": -maxLog}},
		"$currentDate": bson.M{"changed_at": true},
	}, options.FindOneAndUpdate().SetProjection(policyFields), &p)
	if err != nil {
		return nil, store.Error("record a change of the policy", err)
	}
	return &p, nil
}
