package audit

import (
	"encoding/binary"
	"slices"
	"time"
)

// stored is a record as it is kept, with its place in a chain.
type stored struct {
	Record `bson:",inline"`
	App    string `bson:"app"`
	// Prev is the MAC of the chain's record before, "" for the first.
	Prev string `bson:"prev,omitempty"`
	// PrevExpiresAt is when that record expires.
	PrevExpiresAt time.Time `bson:"prev_expires_at,omitempty"`
	// Witness are heads of other chains.
	Witness []Head `bson:"witness,omitempty"`
	// KeyID names the key of MAC, which is over all the other fields. Another name
	// is another key, and MAC is none of that one.
	KeyID     string    `bson:"kid,omitempty"`
	MAC       string    `bson:"mac,omitempty"`
	ExpiresAt time.Time `bson:"expires_at"`
}

// The first part of what is signed says what it is, so that a record cannot stand
// for a head.
const (
	recordDomain = "mandate/audit/record/v1"
	headDomain   = "mandate/audit/head/v1"
)

// canonical returns the one text that stands for the record in its MAC: each part
// in a fixed order, texts with their length in front, so that no two records have
// the same. A field that is absent is the same as an empty one, as in MongoDB.
func (s *stored) canonical() []byte {
	e := make(encoder, 0, 1024)
	e.text(recordDomain)
	e.text(s.App)
	e.text(s.Chain)
	e.number(s.Seq)
	e.text(s.Prev)
	e.time(s.PrevExpiresAt)
	e.time(s.ExpiresAt)
	e.text(s.ID)
	e.time(s.Time)
	for _, t := range []string{
		string(s.Type), string(s.Result), s.UserID, s.ClientID, s.Actor, s.SessionID, s.Reason,
		s.Path, s.Method, s.IP, s.UserAgent, s.RequestID,
	} {
		e.text(t)
	}
	e.flag(s.IsM2M)
	e.number(int64(s.StatusCode))
	e.members(s.Metadata)
	e.number(int64(len(s.Witness)))
	for _, h := range s.Witness {
		e.text(h.Chain)
		e.number(h.Seq)
		e.text(h.MAC)
		e.time(h.ExpiresAt)
	}
	return e
}

// encoder builds a canonical text.
type encoder []byte

func (e *encoder) text(s string) {
	*e = binary.BigEndian.AppendUint32(*e, uint32(len(s))) //nolint:gosec // texts are bounded far below
	*e = append(*e, s...)
}

func (e *encoder) number(n int64) {
	*e = binary.BigEndian.AppendUint64(*e, uint64(n)) //nolint:gosec // the bits are what counts
}

// time encodes whole milliseconds, which is what MongoDB keeps.
func (e *encoder) time(t time.Time) { e.number(t.UnixMilli()) }

func (e *encoder) flag(b bool) {
	if b {
		*e = append(*e, 1)
		return
	}
	*e = append(*e, 0)
}

func (e *encoder) members(m map[string]string) {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	e.number(int64(len(names)))
	for _, name := range names {
		e.text(name)
		e.text(m[name])
	}
}
