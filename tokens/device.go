package tokens

import (
	"crypto/rand"
	"encoding/base64"
	"strings"

	"github.com/mandate-auth/mandate/tokens/keys"
)

// devicePrefix begins every device token and names its version.
const devicePrefix = "mdt1"

// Devices makes and checks device tokens: what a browser keeps after a sign-in
// to show that the account has been used from it before. Its owner is let in
// while others are locked out for guessing.
//
// A device token is no credential: it opens nothing by itself.
type Devices struct {
	keys *keys.App
}

// NewDevices returns the device tokens of the app whose keys are given.
func NewDevices(k *keys.App) *Devices { return &Devices{keys: k} }

// Issue returns a new device token for the subject, the id of an account or what else
// names it: "mdt1.<kid>.<id>.<mac>".
func (d *Devices) Issue(subject string) string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails: see crypto/rand.Read
	return d.sign(subject, base64.RawURLEncoding.EncodeToString(id[:]))
}

func (d *Devices) sign(subject, id string) string {
	key := d.keys.Newest(keys.Device)
	mac := key.MAC(deviceData(subject, id))
	return devicePrefix + "." + key.ID + "." + id + "." + base64.RawURLEncoding.EncodeToString(mac)
}

// Verify returns the device's id when token is one that was issued for the subject,
// and "" otherwise.
func (d *Devices) Verify(subject, token string) string {
	if len(token) > 256 {
		return ""
	}
	parts := strings.Split(token, ".")
	if len(parts) != 4 || parts[0] != devicePrefix {
		return ""
	}
	key, ok := d.keys.ByID(keys.Device, parts[1])
	if !ok {
		return ""
	}
	id, err := decodeSegment(parts[2])
	if err != nil || len(id) != 16 {
		return ""
	}
	mac, err := decodeSegment(parts[3])
	if err != nil || !key.Verify(deviceData(subject, parts[2]), mac) {
		return ""
	}
	return parts[2]
}

// deviceData is what the MAC is over. The id has a fixed length and comes
// first, so that no two pairs give one text.
func deviceData(subject, id string) []byte {
	return []byte("device token/" + id + "/" + subject)
}
