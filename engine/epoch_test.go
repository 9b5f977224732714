package engine_test

import (
	"testing"

	"go.mongodb.org/mongo-driver/bson"
)

// Raising keys_epoch, by whatever means, ends every token of an app that runs or is
// loaded again, and nothing else: passwords, device tokens and guests stay.
func TestKeysEpochEndsEveryToken(t *testing.T) {
	t.Parallel()
	w := setup(t, `"users":{"allow_anonymous_users":true,"lockout":{"max_failures":1}}`)
	first, guest := w.register(), w.want(w.do("POST", "/auth/anonymous", nil), 200, "")
	res, err := w.db.Collection("app_state").UpdateOne(t.Context(), bson.M{"_id": "shop"}, bson.M{"$inc": bson.M{"keys_epoch": 1}})
	if err != nil || res.ModifiedCount != 1 {
		t.Fatal(res, err)
	}
	until(t, "the app follows", func() bool { return w.me(first.text("access_token")).code() == "token_invalid" })
	if err := w.app.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if w.app, err = w.eng.Load(t.Context(), w.app.Manifest()); err != nil {
		t.Fatal(err)
	}
	w.want(w.me(first.text("access_token")), 401, "token_invalid")
	w.want(w.do("POST", "/auth/refresh", obj("refresh_token", first.text("refresh_token"))), 401, "token_invalid")
	again := w.want(w.do("POST", "/auth/anonymous", obj("device_id", guest.text("device_id"))), 200, "")
	if again.at("user", "id") != guest.at("user", "id") {
		t.Error("the guest of the device is another one")
	}
	w.want(w.do("POST", "/auth/login", with(account, "password", "wrong")), 401, "invalid_credentials")
	w.want(w.do("POST", "/auth/login", account), 429, "account_locked")
	w.want(w.do("POST", "/auth/login", with(account, "device_token", first.text("device_token"))), 200, "")
}
