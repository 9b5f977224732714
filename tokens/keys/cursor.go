package keys

import (
	"encoding/base64"
	"strings"
)

// maxCursor bounds a cursor in bytes: the longest position is that of a rule with
// four values of 256 bytes each, escaped.
const maxCursor = 16 << 10

// SealCursor returns a cursor of the list named by scope for the position: an
// opaque text "<kid>.<position>.<mac>" that only [App.OpenCursor] of the same app
// and scope takes.
func (a *App) SealCursor(scope, position string) string {
	key := a.Newest(Cursor)
	text := key.ID + "." + base64.RawURLEncoding.EncodeToString([]byte(position))
	return text + "." + base64.RawURLEncoding.EncodeToString(key.MAC(cursorText(scope, text)))
}

// OpenCursor returns the position that a cursor was made for. ok is false for one
// of another app or scope, and for any other text.
func (a *App) OpenCursor(scope, cursor string) (position string, ok bool) {
	if len(cursor) > maxCursor {
		return "", false
	}
	parts := strings.Split(cursor, ".")
	if len(parts) != 3 {
		return "", false
	}
	key, ok := a.ByID(Cursor, parts[0])
	if !ok {
		return "", false
	}
	mac, err := base64.RawURLEncoding.Strict().DecodeString(parts[2])
	if err != nil || !key.Verify(cursorText(scope, parts[0]+"."+parts[1]), mac) {
		return "", false
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(parts[1])
	return string(raw), err == nil
}

// cursorText is what the MAC is about. The text holds no zero byte, so that it
// is told from the scope before it.
func cursorText(scope, text string) []byte { return []byte(scope + "\x00" + text) }
