package signing

import (
	"cmp"
	"slices"
	"time"
)

// plan is what the documents of an app mean at one moment. It is made from the
// documents and the clock alone, without any secret, so that every instance
// comes to the same one.
type plan struct {
	now   time.Time
	ttl   time.Duration
	epoch int64
	// keys are the keys of the epoch, the highest number first, the revoked and
	// the dead included.
	keys []*record
	// signing is the key that signs now, nil where none can.
	signing *record
	// next is the key that signs after it, nil where none is stored yet.
	next *record
	// outlived says that there are keys of a lower epoch, and foreign names the
	// documents that are none of the app's keys.
	outlived bool
	foreign  []string
}

// newPlan reads the documents of the app.
func newPlan(c *Config, docs []record, now time.Time) *plan {
	p := &plan{now: now, ttl: c.TokenTTL, epoch: c.KeysEpoch}
	var own []*record
	for i := range docs {
		r := &docs[i]
		switch {
		case r.N < 1 || r.App != c.App || r.ID != kid(c.Salt, c.App, r.Algorithm, r.KeysEpoch, r.N):
			// Of an app that had the slug before, or moved here by hand.
			p.foreign = append(p.foreign, r.ID)
		case r.Algorithm == c.Algorithm:
			own = append(own, r)
			if r.RevokedAt.IsZero() {
				// An instance that has not learnt yet that the epoch was raised must
				// not keep the ended keys alive.
				p.epoch = max(p.epoch, r.KeysEpoch)
			}
		}
	}
	for _, r := range own {
		if r.KeysEpoch == p.epoch {
			p.keys = append(p.keys, r)
		} else if r.KeysEpoch < p.epoch {
			p.outlived = true
		}
	}
	slices.SortFunc(p.keys, func(a, b *record) int { return cmp.Compare(b.N, a.N) })
	p.choose()
	return p
}

// choose finds the key that signs and its successor.
func (p *plan) choose() {
	var first *record // the one that becomes active before all others
	for _, r := range p.keys {
		if !r.maySign() {
			continue
		}
		if !r.ActiveFrom.After(p.now) {
			p.signing = r
			return
		}
		if first == nil || !r.ActiveFrom.After(first.ActiveFrom) {
			first = r
		}
		p.next = r
	}
	// Nothing is active by this clock, which may be a little late: the first key of
	// an app, or one that has taken over already elsewhere.
	p.signing, p.next = first, nil
}

// maySign reports whether the key signs, has yet to, or stopped without anybody
// having noticed.
func (r *record) maySign() bool { return r.RevokedAt.IsZero() && r.RetireAt.IsZero() }

// last returns the highest number that is taken.
func (p *plan) last() int64 {
	if len(p.keys) == 0 {
		return 0
	}
	return p.keys[0].N
}

// replacedAt returns when a later key began to sign in place of r, the zero time
// where none has.
func (p *plan) replacedAt(r *record) time.Time {
	var at time.Time
	for _, later := range p.keys {
		if later.N <= r.N {
			break
		}
		// One that was revoked before its time has never taken over.
		if later.ActiveFrom.After(p.now) || (!later.RevokedAt.IsZero() && later.RevokedAt.Before(later.ActiveFrom)) {
			continue
		}
		if at.IsZero() || later.ActiveFrom.Before(at) {
			at = later.ActiveFrom
		}
	}
	return at
}

// retireAt returns when nobody needs r any more, the zero time while it signs or
// has yet to.
func (p *plan) retireAt(r *record) time.Time {
	at := r.RetireAt
	if replaced := p.replacedAt(r); !replaced.IsZero() {
		if end := replaced.Add(p.life(r) + margin); end.After(at) {
			at = end
		}
	}
	return at
}

// life returns the longest life of a token that r signed.
func (p *plan) life(r *record) time.Duration {
	return max(p.ttl, time.Duration(r.TokenLife)*time.Millisecond)
}

// accepts reports whether tokens of r are accepted and r is published.
func (p *plan) accepts(r *record) bool {
	if !r.RevokedAt.IsZero() {
		return false
	}
	if r == p.signing {
		return true
	}
	at := p.retireAt(r)
	return at.IsZero() || p.now.Before(at)
}

// accepted returns those keys, the signing one first.
func (p *plan) accepted() []*record {
	out := make([]*record, 0, len(p.keys))
	if p.signing != nil {
		out = append(out, p.signing)
	}
	for _, r := range p.keys {
		if r != p.signing && p.accepts(r) {
			out = append(out, r)
		}
	}
	return out
}

// find returns the key of the kid, or nil.
func (p *plan) find(kid string) *record {
	for _, r := range p.keys {
		if r.ID == kid {
			return r
		}
	}
	return nil
}

// State says where in its life a key stands.
type State string

// The states.
const (
	// Published is a key that is known and accepted, and does not sign yet.
	Published State = "published"
	// Signing is the key that signs.
	Signing State = "signing"
	// Retired is a key that has stopped to sign. Its tokens are accepted.
	Retired State = "retired"
	// Revoked is a key that a command has ended.
	Revoked State = "revoked"
)

// KeyInfo describes a key. It holds nothing secret.
type KeyInfo struct {
	ID        string    `json:"kid"`
	Algorithm string    `json:"alg"`
	State     State     `json:"state"`
	CreatedAt time.Time `json:"created_at"`
	// ActiveFrom is when it begins to sign, or began.
	ActiveFrom time.Time `json:"active_from"`
	// RetireAt is when it is accepted and published no more, zero while it signs or
	// has yet to. A revoked key is forgotten then.
	RetireAt time.Time `json:"retire_at,omitzero"`
	// RevokedAt is when it was revoked, zero if it was not.
	RevokedAt time.Time `json:"revoked_at,omitzero"`
}

func (p *plan) info(r *record) KeyInfo {
	info := KeyInfo{
		ID: r.ID, Algorithm: r.Algorithm, CreatedAt: r.CreatedAt.UTC(), ActiveFrom: r.ActiveFrom.UTC(),
		RetireAt: p.retireAt(r).UTC(), RevokedAt: r.RevokedAt.UTC(),
	}
	switch {
	case !r.RevokedAt.IsZero():
		info.State = Revoked
	case r == p.signing:
		info.State = Signing
	case info.RetireAt.IsZero():
		info.State = Published
	default:
		info.State = Retired
	}
	return info
}
