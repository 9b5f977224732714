package appstate

import (
	"context"
	"sync"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/internal/store"
)

// KeysVersion says which keys of an app are meant.
type KeysVersion struct {
	// Epoch is part of every key that tokens are signed with.
	Epoch int64 `bson:"keys_epoch"`
	// Version counts the changes of the stored signing keys.
	Version int64 `bson:"keys_version"`
}

// After reports whether v says something that other does not.
func (v KeysVersion) After(other KeysVersion) bool {
	return v.Epoch > other.Epoch || v.Version > other.Version
}

// With returns the newest of what both say.
func (v KeysVersion) With(other KeysVersion) KeysVersion {
	return KeysVersion{Epoch: max(v.Epoch, other.Epoch), Version: max(v.Version, other.Version)}
}

// RaiseKeysEpoch ends every token of the app: it returns the new epoch, which
// every instance learns.
func (s *Store) RaiseKeysEpoch(ctx context.Context, slug string) (int64, error) {
	v, err := s.changeKeys(ctx, slug, "keys_epoch")
	return v.Epoch, err
}

// KeysChanged makes every instance read the stored signing keys again.
func (s *Store) KeysChanged(ctx context.Context, slug string) error {
	_, err := s.changeKeys(ctx, slug, "keys_version")
	return err
}

func (s *Store) changeKeys(ctx context.Context, slug, field string) (v KeysVersion, err error) {
	err = s.change(ctx, bson.M{"_id": slug}, bson.M{
		"$inc": bson.M{field: int64(1)}, "$currentDate": bson.M{"changed_at": true},
	}, options.FindOneAndUpdate().SetProjection(bson.M{"keys_epoch": 1, "keys_version": 1}), &v)
	return v, store.Error("record a change of keys", err)
}

// keysWatch tells one app of changes of its keys.
type keysWatch struct {
	changed func(KeysVersion)

	mu     sync.Mutex
	latest KeysVersion
}

// WatchKeys calls changed, which must not block, when the keys of the app are seen
// to have changed since the version from.
func (w *Watcher) WatchKeys(slug string, from KeysVersion, changed func(KeysVersion)) {
	w.keys.Store(slug, &keysWatch{changed: changed, latest: from})
}

// ForgetKeys ends the watch of the app's keys.
func (w *Watcher) ForgetKeys(slug string) { w.keys.Delete(slug) }

func (k *keysWatch) observe(v KeysVersion) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if v.After(k.latest) {
		k.latest = k.latest.With(v)
		k.changed(v) // before another reader takes it for done
	}
}
