package httpapi

import (
	"math"
	"net/http"
	"time"

	"github.com/mandate-auth/mandate/cookies"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/sessions"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/users"
)

// answer is the body of a sign-in and of a refresh.
type answer struct {
	User     *users.User `json:"user,omitempty"`
	DeviceID string      `json:"device_id,omitempty"`
	// PreviousGuest is the id of the guest that the caller was until now, where the
	// sign-in was to another account.
	PreviousGuest    string    `json:"previous_guest,omitempty"`
	AccessToken      string    `json:"access_token,omitempty"`
	RefreshToken     string    `json:"refresh_token,omitempty"`
	TokenType        string    `json:"token_type,omitempty"`
	ExpiresIn        int64     `json:"expires_in"`
	RefreshExpiresAt time.Time `json:"refresh_expires_at"`
	RefreshExpiresIn int64     `json:"refresh_expires_in"`
	DeviceToken      string    `json:"device_token,omitempty"`
	// Next is the path of the service that a mailed link was asked for with.
	Next string `json:"next,omitempty"`
}

// answer hands a sign-in to the client.
func (a *API) answer(w http.ResponseWriter, r *http.Request, status int, t Transport, g *Grant, deviceID string) error {
	return a.answerWith(w, r, status, t, g, &answer{DeviceID: deviceID})
}

// answerNext is answer for a mailed link.
func (a *API) answerNext(w http.ResponseWriter, r *http.Request, t Transport, g *Grant, next string) error {
	return a.answerWith(w, r, http.StatusOK, t, g, &answer{Next: next})
}

func (a *API) answerWith(w http.ResponseWriter, r *http.Request, status int, t Transport, g *Grant, more *answer) error {
	out := a.tokens(g.Session, g.Access)
	out.User, out.DeviceID, out.Next = g.User, more.DeviceID, more.Next
	out.PreviousGuest = g.previous
	device := ""
	if g.User.Email != "" {
		device = a.config.Devices.Issue(g.User.DeviceSubject())
	}
	if t == TransportCookie {
		if err := a.SetCookies(w, r, g.Session, g.Access, device); err != nil {
			return err
		}
		out.AccessToken, out.RefreshToken, out.TokenType = "", "", ""
	} else {
		out.DeviceToken = device
	}
	write(w, status, out)
	return nil
}

// replace ends the session that the browser had before a sign-in by cookie (ASVS
// 7.2.4): its cookies are about to be overwritten, so nobody could sign it out
// any more. Whoever had planted it is left with nothing. It comes before the new
// session, which would push another device out of the limit otherwise.
func (a *API) replace(r *http.Request, t Transport) error {
	if t != TransportCookie {
		return nil
	}
	return a.endCookies(r, "replaced")
}

func (a *API) tokens(s *sessions.Issued, access *tokens.Issued) *answer {
	now := store.Time(a.config.Now())
	return &answer{
		AccessToken: access.Token, RefreshToken: s.RefreshToken, TokenType: "Bearer",
		ExpiresIn:        int64(math.Ceil(access.TimeLeft(now).Seconds())),
		RefreshExpiresAt: s.RefreshExpiresAt, RefreshExpiresIn: int64(math.Ceil(s.RefreshExpiresAt.Sub(now).Seconds())),
	}
}

// SetCookies hands a session to a browser. Unless the sign-in asked to be
// remembered the session's cookies end with the browser.
func (a *API) SetCookies(w http.ResponseWriter, r *http.Request, s *sessions.Issued, access *tokens.Issued, device string) error {
	secure := a.secure(r)
	var accessEnds, refreshEnds time.Time
	if s.Remember {
		accessEnds, refreshEnds = access.ExpiresAt, s.RefreshExpiresAt
	}
	if err := a.config.Jar.Set(w, cookies.Access, secure, access.Token, accessEnds); err != nil {
		return err
	}
	if err := a.config.Jar.Set(w, cookies.Refresh, secure, s.RefreshToken, refreshEnds); err != nil {
		return err
	}
	if device == "" {
		return nil
	}
	return a.config.Jar.Set(w, cookies.Device, secure, device, a.config.Now().Add(deviceLife))
}

// ClearCookies takes the session's cookies away. The device token stays: it is
// what lets the owner in while others are locked out.
func (a *API) ClearCookies(w http.ResponseWriter, r *http.Request) {
	secure := a.secure(r)
	a.config.Jar.Clear(w, cookies.Access, secure)
	a.config.Jar.Clear(w, cookies.Refresh, secure)
}
