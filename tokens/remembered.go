package tokens

import (
	"context"
	"errors"
	"sync/atomic"
)

// ErrOutdated says that something was revoked since a [Remembered] credential was
// looked up: the database has to be asked again.
var ErrOutdated = errors.New("credential has to be looked up again")

// Remembered is what was found out about a credential that is no token, an API key
// or a client's secret, and is kept in memory so that presenting it again costs no
// round trip. It is immutable but for its own bookkeeping and safe for concurrent
// use.
type Remembered struct {
	// Kind is [RevokedAPIKey] or [RevokedClient], and ID what entries name it by.
	Kind RevocationKind
	ID   string
	// Epoch is the client's epoch as it was stored: an entry of a higher one
	// outdates what is remembered. Any entry outdates an API key.
	Epoch int64
	// UserID is the account that the credential acts for, "" for none. UserEpoch is
	// [Blacklist.UserEpoch] from before the look-up: whatever was revoked of the
	// account since then outdates what is remembered.
	UserID    string
	UserEpoch int64

	clean atomic.Uint64
}

// UserEpoch returns the epoch below which this instance knows the user's tokens to
// be revoked, 0 when none is.
func (b *Blacklist) UserEpoch(userID string) int64 {
	b.view.mu.RLock()
	defer b.view.mu.RUnlock()
	return b.view.entries[RevokedUser][userID].epoch
}

// CheckRemembered returns nil while what m says still holds, [ErrOutdated] when it
// has to be looked up again, and an error that wraps [ErrStale] when this instance
// cannot know. It touches the database as seldom as [Blacklist.Check] does.
func (b *Blacklist) CheckRemembered(ctx context.Context, m *Remembered) error {
	if err := b.fresh(ctx); err != nil {
		return err
	}
	version := b.view.version.Load() + 1
	if m.clean.Load() == version {
		return nil
	}
	if b.view.outdates(m) {
		return ErrOutdated
	}
	m.clean.Store(version)
	return nil
}

func (w *view) outdates(m *Remembered) bool {
	w.mu.RLock()
	defer w.mu.RUnlock()
	e, found := w.entries[m.Kind][m.ID]
	if found && (m.Kind == RevokedAPIKey || e.epoch > m.Epoch) {
		return true
	}
	return m.UserID != "" && w.entries[RevokedUser][m.UserID].epoch > m.UserEpoch
}
