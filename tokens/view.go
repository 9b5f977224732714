package tokens

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mandate-auth/mandate/authz"
)

// entry is a revocation as it is kept in memory.
type entry struct {
	epoch   int64
	expires time.Time
}

// view is what this instance knows of one app's revocations. Entries are only
// added and raised until they expire: what is revoked stays dead.
type view struct {
	// version is raised after every entry that changes an answer.
	version atomic.Uint64
	mu      sync.RWMutex
	entries map[RevocationKind]map[string]entry
}

func newView() *view {
	return &view{entries: map[RevocationKind]map[string]entry{
		RevokedToken: {}, RevokedSession: {}, RevokedUser: {}, RevokedClient: {}, RevokedAPIKey: {},
	}}
}

// apply adds an entry or raises the one that is there.
func (w *view) apply(kind RevocationKind, id string, e entry) {
	w.mu.Lock()
	byID := w.entries[kind]
	if byID == nil {
		w.mu.Unlock()
		return // a kind of a later version
	}
	old, ok := byID[id]
	if ok && old.epoch >= e.epoch && !old.expires.Before(e.expires) {
		w.mu.Unlock()
		return
	}
	e.epoch = max(e.epoch, old.epoch)
	if old.expires.After(e.expires) {
		e.expires = old.expires
	}
	byID[id] = e
	w.mu.Unlock()
	w.version.Add(1)
}

// revokes reports whether an entry is about the token.
func (w *view) revokes(c *claims) bool {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if _, ok := w.entries[RevokedToken][c.id]; ok {
		return true
	}
	if _, ok := w.entries[RevokedSession][c.session]; ok {
		return true
	}
	owner := RevokedUser
	if c.kind == authz.KindService {
		owner = RevokedClient
	}
	e, ok := w.entries[owner][c.subject]
	return ok && c.epoch < e.epoch
}

// purge forgets the entries that expired before now.
func (w *view) purge(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, byID := range w.entries {
		for id, e := range byID {
			if e.expires.Before(now) {
				delete(byID, id)
			}
		}
	}
}

func (w *view) len() int {
	w.mu.RLock()
	defer w.mu.RUnlock()
	n := 0
	for _, byID := range w.entries {
		n += len(byID)
	}
	return n
}

// splitEntryID takes the "_id" of an entry apart.
func splitEntryID(key string) (app string, kind RevocationKind, id string, ok bool) {
	app, rest, ok := strings.Cut(key, "|")
	if !ok {
		return "", "", "", false
	}
	k, id, ok := strings.Cut(rest, "|")
	return app, RevocationKind(k), id, ok && app != "" && id != ""
}
