package audit

import (
	"encoding/base64"

	"github.com/mandate-auth/mandate/tokens/keys"
)

// Signer makes and checks the MACs of chains. Its keys must not be in the database.
type Signer interface {
	// Sign returns the MAC of data and the name of its key.
	Sign(data []byte) (keyID string, mac []byte)
	// Verify reports, in constant time, whether mac is that of data by the key of
	// that name. A key that is not known verifies nothing.
	Verify(keyID string, data, mac []byte) bool
}

// Cursors authenticates page cursors. [keys.App] does.
type Cursors interface {
	SealCursor(scope, position string) string
	OpenCursor(scope, cursor string) (position string, ok bool)
}

// SignWith returns the signer that uses the app's keys of the purpose, which must be
// for nothing else: the newest signs, all verify, so chains outlive a change of the
// secret for as long as the older one is configured.
func SignWith(app *keys.App, purpose keys.Purpose) Signer {
	return appSigner{app: app, purpose: purpose}
}

type appSigner struct {
	app     *keys.App
	purpose keys.Purpose
}

func (s appSigner) Sign(data []byte) (string, []byte) {
	key := s.app.Newest(s.purpose)
	return key.ID, key.MAC(data)
}

func (s appSigner) Verify(keyID string, data, mac []byte) bool {
	key, ok := s.app.ByID(s.purpose, keyID)
	return ok && key.Verify(data, mac)
}

// sign returns the MAC of a canonical text as it is stored, and the name of its key.
func (t *Trail) sign(canonical []byte) (keyID, mac string) {
	keyID, raw := t.config.Signer.Sign(canonical)
	return keyID, base64.RawURLEncoding.EncodeToString(raw)
}

// genuine reports whether the text is signed by the key of that name.
func (t *Trail) genuine(keyID, mac string, canonical []byte) bool {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(mac)
	return err == nil && len(raw) > 0 && t.config.Signer.Verify(keyID, canonical, raw)
}
