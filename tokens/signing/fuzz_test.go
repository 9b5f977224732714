package signing

import (
	"bytes"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/keys"
	"github.com/mandate-auth/mandate/tokens/secret"
)

// FuzzDocument reads stored documents of any kind. None panics, and none gives a
// key but the one that was made.
func FuzzDocument(f *testing.F) {
	ring, err := keys.NewRing([]secret.Value{secret.New(bytes.Repeat([]byte("s"), 32))})
	if err != nil {
		f.Fatal(err)
	}
	salt := bytes.Repeat([]byte{7}, 32)
	app, err := ring.App("shop", salt, 1)
	if err != nil {
		f.Fatal(err)
	}
	config := Config{App: "shop", Algorithm: tokens.EdDSA, Keys: app, Salt: salt, KeysEpoch: 1, TokenTTL: time.Hour}
	for _, algorithm := range []string{tokens.EdDSA, tokens.ES256} {
		c := config
		c.Algorithm = algorithm
		r, err := newRecord(&c, 1, 1)
		if err != nil {
			f.Fatal(err)
		}
		for _, edit := range []func(){
			func() {}, func() { r.Private = "" }, func() { r.Public = nil }, func() { r.TokenLife = -1 << 63 }, func() { r.N = 1 << 62 }, func() { r.KeysEpoch = -1 },
		} {
			edit()
			raw, err := bson.Marshal(r)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(raw)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var r record
		if bson.Unmarshal(raw, &r) != nil {
			return
		}
		p := newPlan(&config, []record{r}, time.Unix(1_700_000_000, 0))
		for _, k := range p.accepted() {
			key, err := k.open(app)
			if err != nil {
				continue
			}
			set, err := newKeySet([]tokens.SigningKey{{ID: key.ID, Algorithm: key.Algorithm, Public: key.Public}})
			if err != nil || k.ID != kid(salt, "shop", tokens.EdDSA, p.epoch, k.N) || bytes.Contains(set.raw, []byte(`"d"`)) {
				t.Fatalf("%s opens: %v, %s", k.ID, err, set.raw)
			}
		}
		for _, k := range p.keys {
			_ = p.info(k)
			_ = p.forgotten(k)
		}
	})
}
