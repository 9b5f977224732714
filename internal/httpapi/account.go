package httpapi

import (
	"net/http"

	"github.com/mandate-auth/mandate/cookies"
	"github.com/mandate-auth/mandate/users"
)

// patchMe changes the caller's profile. Nothing else of an account can be
// reached from here.
func (a *API) patchMe(w http.ResponseWriter, r *http.Request) error {
	p, err := a.account(r)
	if err != nil {
		return err
	}
	var profile map[string]any
	if err := decode(w, r, fields{"profile": &profile}); err != nil {
		return err
	}
	if profile == nil {
		return invalidRequest("profile", "is required")
	}
	user, err := a.config.Users.UpdateProfile(r.Context(), p.ID, profile)
	if err != nil {
		return err
	}
	write(w, http.StatusOK, struct {
		User *users.User `json:"user"`
	}{user})
	return nil
}

func (a *API) password(w http.ResponseWriter, r *http.Request) error {
	p, err := a.account(r)
	if err != nil {
		return err
	}
	if err := a.limit(w, r, LimitPassword, p.ID, ""); err != nil {
		return err
	}
	c := users.PasswordChange{KeepSession: p.SessionID}
	if err := decode(w, r, fields{"current_password": &c.Current, "new_password": &c.New}); err != nil {
		return err
	}
	if err := required("current_password", c.Current); err != nil {
		return err
	}
	if err := required("new_password", c.New); err != nil {
		return err
	}
	if a.cookieTransport() {
		if c.DeviceToken, err = a.config.Jar.Read(r, cookies.Device, a.secure(r)); err != nil {
			return err
		}
	}
	if err := a.config.Users.ChangePassword(r.Context(), p.ID, c); err != nil {
		return err
	}
	if a.config.Recovery != nil {
		a.untold(r.Context(), "password_changed", a.config.Recovery.PasswordChanged(r.Context(), p.ID, a.from(r)))
	}
	nothing(w)
	return nil
}
