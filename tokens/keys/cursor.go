package keys

import (
	"encoding/base64"
	"strconv"
	"strings"
	"time"
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

// SealPosition returns a cursor for what follows a document in a list by creation:
// by the millisecond, and by the id among those of one.
func (a *App) SealPosition(scope string, at time.Time, id string) string {
	return a.SealCursor(scope, strconv.FormatInt(at.UnixMilli(), 10)+"."+id)
}

// OpenPosition returns the place that [App.SealPosition] made a cursor for.
func (a *App) OpenPosition(scope, cursor string) (at time.Time, id string, ok bool) {
	position, ok := a.OpenCursor(scope, cursor)
	digits, id, _ := strings.Cut(position, ".")
	millis, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil {
		return time.Time{}, "", false
	}
	return time.UnixMilli(millis).UTC(), id, true
}

// cursorText is what the MAC is about. The text holds no zero byte, so that it
// is told from the scope before it.
func cursorText(scope, text string) []byte { return []byte(scope + "\x00" + text) }
