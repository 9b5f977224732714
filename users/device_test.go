package users_test

import (
	"bytes"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/tokens/keys"
	"github.com/mandate-auth/mandate/tokens/secret"
	"github.com/mandate-auth/mandate/users"
)

// under configures the secret keys, newest first.
func under(tb testing.TB, secrets ...string) func(*users.Config) {
	tb.Helper()
	values := make([]secret.Value, len(secrets))
	for i, s := range secrets {
		values[i] = secret.FromString(strings.Repeat(s, 32))
	}
	ring, err := keys.NewRing(values)
	if err != nil {
		tb.Fatal(err)
	}
	app, err := ring.App("shop", bytes.Repeat([]byte{1}, 32), 1)
	if err != nil {
		tb.Fatal(err)
	}
	return func(c *users.Config) { c.Keys = app }
}

// Whoever drops an old secret key must not lose the guests that came back since the
// new one was the first.
func TestGuestsSurviveASecretKey(t *testing.T) {
	t.Parallel()
	faults := &storetest.Faults{Counts: func(bson.Raw) bool { return true }}
	db := storetest.Database(t)
	before, both := setupOn(t, db, under(t, "a")), setupOn(t, storetest.Faulty(t, db, faults), under(t, "b", "a"))
	after := setupOn(t, db, under(t, "b"))
	hash := func(id string) string {
		t.Helper()
		var doc struct {
			Hash string `bson:"device_hash"`
		}
		if err := db.Collection("users").FindOne(t.Context(), bson.M{"_id": id}).Decode(&doc); err != nil {
			t.Fatal(err)
		}
		return doc.Hash
	}
	device := users.NewDeviceID()
	guest, err := before.Anonymous(t.Context(), device)
	if err != nil {
		t.Fatal(err)
	}
	demo, err := before.Demo(t.Context(), device)
	if err != nil {
		t.Fatal(err)
	}
	old := hash(guest.ID)
	if again, err := before.Anonymous(t.Context(), device); err != nil || again.ID != guest.ID || hash(guest.ID) != old {
		t.Errorf("a visit under the same key: %v, %v", again, err)
	}

	faults.Arm(storetest.BeforeTwice, storetest.Step{Command: "update users", Nth: 1}, nil)
	if again, err := both.Anonymous(t.Context(), device); err != nil || again.ID != guest.ID {
		t.Errorf("a renewal that fails fails the visit: %v, %v", again, err)
	}
	if _, hits := faults.Disarm(); hits == 0 || hash(guest.ID) != old {
		t.Errorf("%d renewals were met", hits)
	}
	for range 2 {
		if again, err := both.Anonymous(t.Context(), device); err != nil || again.ID != guest.ID || hash(guest.ID) == old {
			t.Errorf("a visit under both keys: %v, %v", again, err)
		}
	}
	if again, err := after.Anonymous(t.Context(), device); err != nil || again.ID != guest.ID {
		t.Errorf("after the old key is gone: %v, %v, want the guest %s", again, err, guest.ID)
	}
	if again, err := after.Demo(t.Context(), device); err != nil || again.ID == demo.ID {
		t.Errorf("a demo user that did not come back in time: %v, %v", again, err)
	}
}

// Two instances with keys in a different order can make two users of one device.
// That must not fail a visit.
func TestTwoGuestsOfOneDevice(t *testing.T) {
	t.Parallel()
	db := storetest.Database(t)
	before, after, both := setupOn(t, db, under(t, "a")), setupOn(t, db, under(t, "b")), setupOn(t, db, under(t, "b", "a"))
	device := users.NewDeviceID()
	for _, b := range []*bench{before, after} {
		if _, err := b.Anonymous(t.Context(), device); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		if _, err := both.Anonymous(t.Context(), device); err != nil {
			t.Errorf("a visit of a device that has two guests: %v", err)
		}
	}
}
