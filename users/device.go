package users

import (
	"context"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/internal/store"
)

// renewDevice stores the device under the newest secret key, so that an older one
// can be dropped once its guests have come back. It is compared and set; when it
// fails, or another user has that hash, the next visit tries again.
func (s *Store) renewDevice(ctx context.Context, r *record, newest string) {
	if r.DeviceHash == newest {
		return
	}
	ctx, cancel := store.Context(ctx)
	defer cancel()
	_, _ = s.users.UpdateOne(ctx, bson.M{"_id": r.ID, "app": s.config.App, "device_hash": r.DeviceHash},
		bson.M{"$set": bson.M{"device_hash": newest}})
}
