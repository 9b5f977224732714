package audit

import (
	"time"

	"github.com/mandate-auth/mandate/engine/event"
)

// Record is one entry of the trail. Fields without a value are zero and absent in
// JSON, except is_m2m. Its texts have at most 256 bytes, are valid UTF-8 and hold
// no control characters; a path holds no query.
type Record struct {
	// ID is a ULID: its first ten characters are Time, so that identifiers sort by
	// time. The trail gives it.
	ID string `bson:"_id" json:"id"`
	// Time is when it happened, in UTC and whole milliseconds.
	Time time.Time `bson:"created_at" json:"timestamp"`
	// Type and Result say what happened and how it ended.
	Type   event.Type   `bson:"type" json:"type"`
	Result event.Result `bson:"result" json:"result"`
	// UserID is the account concerned; Actor is who did it, where that is somebody
	// else.
	UserID string `bson:"user_id,omitempty" json:"user_id,omitempty"`
	// ClientID is the machine client concerned, and IsM2M says that a machine did it.
	ClientID string `bson:"client_id,omitempty" json:"client_id,omitempty"`
	IsM2M    bool   `bson:"is_m2m" json:"is_m2m"`
	Actor    string `bson:"actor,omitempty" json:"actor,omitempty"`
	// SessionID is the session concerned.
	SessionID string `bson:"session_id,omitempty" json:"session_id,omitempty"`
	// Reason says in a stable word why.
	Reason string `bson:"reason,omitempty" json:"reason,omitempty"`
	// Path, Method and StatusCode are those of the HTTP request.
	Path       string `bson:"path,omitempty" json:"path,omitempty"`
	Method     string `bson:"method,omitempty" json:"method,omitempty"`
	StatusCode int    `bson:"status_code,omitempty" json:"status_code,omitempty"`
	// IP is the client's address, and UserAgent the client's own word.
	IP        string `bson:"ip,omitempty" json:"ip,omitempty"`
	UserAgent string `bson:"user_agent,omitempty" json:"user_agent,omitempty"`
	// RequestID is the request's identifier, as in error answers.
	RequestID string `bson:"request_id,omitempty" json:"request_id,omitempty"`
	// Metadata says more, within the bounds of [event.Event].
	Metadata map[string]string `bson:"metadata,omitempty" json:"metadata,omitempty"`
	// Chain and Seq are the record's place in a tamper-evident trail, from 1. The
	// trail gives them.
	Chain string `bson:"chain,omitempty" json:"chain,omitempty"`
	Seq   int64  `bson:"seq,omitempty" json:"seq,omitempty"`
}

// ToMap returns the record's members by their names in JSON, for encoders of other
// forms. Those without a value are absent, except is_m2m.
func (r Record) ToMap() map[string]any {
	m := map[string]any{
		"id": r.ID, "timestamp": r.Time, "type": string(r.Type), "result": string(r.Result), "is_m2m": r.IsM2M,
	}
	for name, value := range map[string]string{
		"user_id": r.UserID, "client_id": r.ClientID, "actor": r.Actor, "session_id": r.SessionID, "reason": r.Reason,
		"path": r.Path, "method": r.Method, "ip": r.IP, "user_agent": r.UserAgent, "request_id": r.RequestID, "chain": r.Chain,
	} {
		if value != "" {
			m[name] = value
		}
	}
	if r.StatusCode != 0 {
		m["status_code"] = r.StatusCode
	}
	if r.Seq != 0 {
		m["seq"] = r.Seq
	}
	if len(r.Metadata) > 0 {
		members := make(map[string]any, len(r.Metadata))
		for name, value := range r.Metadata {
			members[name] = value
		}
		m["metadata"] = members
	}
	return m
}

// recordOf describes e, whose request is given apart.
func recordOf(e *event.Event, q *event.Request) Record {
	return Record{
		Time: e.Time, Type: e.Type, Result: e.Result, UserID: e.UserID, ClientID: e.ClientID, IsM2M: e.IsM2M,
		Actor: e.Actor, SessionID: e.SessionID, Reason: e.Reason, StatusCode: e.StatusCode, Metadata: e.Metadata,
		Path: q.Path, Method: q.Method, IP: q.IP, UserAgent: q.UserAgent, RequestID: q.ID,
	}
}

// inRequest fills in what the record does not say of its request.
func (r *Record) inRequest(q event.Request) {
	for _, f := range []struct {
		to   *string
		from string
	}{{&r.Path, q.Path}, {&r.Method, q.Method}, {&r.IP, q.IP}, {&r.UserAgent, q.UserAgent}, {&r.RequestID, q.ID}} {
		if *f.to == "" {
			*f.to = f.from
		}
	}
}
