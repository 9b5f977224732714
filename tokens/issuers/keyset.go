package issuers

import (
	"slices"
	"time"

	"github.com/mandate-auth/mandate/internal/strictjwt"
)

// keySet is what an issuer's keys are at one time. It is immutable.
type keySet struct {
	keys []strictjwt.Key
	// Until soft the set is as good as new, until stale it is fresh, and from dead on
	// it verifies nothing.
	soft, stale, dead time.Time
}

func (s *keySet) find(id, algorithm string) (found *strictjwt.Key, unambiguous bool) {
	return strictjwt.Find(s.keys, id, algorithm)
}

func (s *keySet) has(print strictjwt.Fingerprint) bool {
	return slices.ContainsFunc(s.keys, func(k strictjwt.Key) bool { return k.Print == print })
}
