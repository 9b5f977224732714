package socialtest

import (
	"context"
	"sync"
	"time"

	"github.com/mandate-auth/mandate/users/social"
)

// Once is a [social.Once] in memory, for one process. The zero value is ready.
type Once struct {
	mu      sync.Mutex
	claimed map[string]bool
	// Fail is what Claim returns, if it is not nil.
	Fail error
}

// Claim implements [social.Once].
func (o *Once) Claim(_ context.Context, purpose, id string, _ time.Time) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.Fail != nil:
		return o.Fail
	case o.claimed[purpose+" "+id]:
		return social.ErrReplayed
	case o.claimed == nil:
		o.claimed = map[string]bool{}
	}
	o.claimed[purpose+" "+id] = true
	return nil
}

// Claimed counts what was claimed.
func (o *Once) Claimed() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.claimed)
}
