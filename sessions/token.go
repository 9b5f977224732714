package sessions

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/tokens/keys"
)

const (
	// refreshPrefix begins every refresh token and names its version.
	refreshPrefix = "mrt1"
	// maxRefreshLength bounds what is looked at, in bytes.
	maxRefreshLength = 256
	idPrefix         = "ses_"
	userPrefix       = "usr_"
	// idPart is the length of the random part of an id.
	idPart = 26
)

// newSessionID makes an id for a session of userID. It carries the user's id
// besides 128 random bits of its own, so that a refresh knows whose head to
// read without asking the session first.
func newSessionID(userID string) string {
	return idPrefix + strings.TrimPrefix(userID, userPrefix) + store.NewID("")
}

// userOf returns the user that the session id belongs to, "" for a text that is
// no session id.
func userOf(sessionID string) string {
	if len(sessionID) != len(idPrefix)+2*idPart || !strings.HasPrefix(sessionID, idPrefix) {
		return ""
	}
	user, own := sessionID[len(idPrefix):len(idPrefix)+idPart], sessionID[len(idPrefix)+idPart:]
	if !store.ValidID(user, "") || !store.ValidID(own, "") {
		return ""
	}
	return userPrefix + user
}

// refreshToken is what a refresh token says.
type refreshToken struct {
	sessionID  string
	userID     string
	generation int64
}

// sign returns the refresh token of a generation. It follows from the session
// and the key alone, so that an answer that was lost can be given again.
func (m *Manager) sign(sessionID string, generation int64) string {
	key := m.config.Keys.Newest(keys.Refresh)
	text := refreshPrefix + "." + key.ID + "." + sessionID + "." + strconv.FormatInt(generation, 10)
	return text + "." + base64.RawURLEncoding.EncodeToString(key.MAC([]byte(text)))
}

// Owner returns the session that a refresh token is of and its user, "" for a text
// that is no token of the app. It says nothing about the session.
func (m *Manager) Owner(token string) (userID, sessionID string) {
	t, err := m.parse(token)
	if err != nil {
		return "", ""
	}
	return t.userID, t.sessionID
}

// parse checks the form and the MAC of a refresh token. Nothing is read from
// the database: knowing a session's id is not enough to touch it.
func (m *Manager) parse(text string) (*refreshToken, error) {
	if len(text) > maxRefreshLength {
		return nil, fmt.Errorf("%w: too long", ErrTokenInvalid)
	}
	parts := strings.Split(text, ".")
	if len(parts) != 5 || parts[0] != refreshPrefix {
		return nil, fmt.Errorf("%w: form", ErrTokenInvalid)
	}
	key, ok := m.config.Keys.ByID(keys.Refresh, parts[1])
	if !ok {
		return nil, fmt.Errorf("%w: key", ErrTokenInvalid)
	}
	mac, err := base64.RawURLEncoding.Strict().DecodeString(parts[4])
	if err != nil || strings.ContainsAny(parts[4], "\r\n") {
		return nil, fmt.Errorf("%w: form", ErrTokenInvalid)
	}
	if !key.Verify([]byte(text[:strings.LastIndexByte(text, '.')]), mac) {
		return nil, fmt.Errorf("%w: mac", ErrTokenInvalid)
	}
	t := &refreshToken{sessionID: parts[2], userID: userOf(parts[2])}
	t.generation, err = strconv.ParseInt(parts[3], 10, 64)
	if err != nil || t.generation < 1 || t.userID == "" {
		return nil, fmt.Errorf("%w: form", ErrTokenInvalid)
	}
	return t, nil
}
