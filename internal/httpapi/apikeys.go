package httpapi

import (
	"errors"
	"math"
	"net/http"
	"time"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/tokens/apikey"
)

// listAPIKeys answers a page of the caller's keys, without their secrets.
func (a *API) listAPIKeys(w http.ResponseWriter, r *http.Request) error {
	p, err := a.account(r)
	if err != nil {
		return err
	}
	page, err := pageOf(r, nil)
	if err != nil {
		return err
	}
	list, err := a.config.APIKeys.List(r.Context(), p.ID, apikey.ListOptions{Limit: page.Limit, Cursor: page.After})
	if err != nil {
		return err
	}
	write(w, http.StatusOK, list)
	return nil
}

// createAPIKey makes a key of the caller. Whose it is follows from the session
// alone: no member of the body names an owner.
func (a *API) createAPIKey(w http.ResponseWriter, r *http.Request) error {
	p, err := a.account(r)
	if err != nil {
		return err
	}
	n := apikey.NewKey{UserID: p.ID}
	var seconds int64
	if err := decode(w, r, fields{"name": &n.Name, "scopes": &n.Scopes, "expires_in": &seconds}); err != nil {
		return err
	}
	if err := required("name", n.Name); err != nil {
		return err
	}
	if seconds < 0 || seconds > math.MaxInt32 {
		return &authz.ValueError{Field: "expires_in", Message: "must be a number of seconds"}
	}
	n.TTL = time.Duration(seconds) * time.Second
	if err := a.limit(w, r, LimitAPIKeys, p.ID, ""); err != nil {
		return err
	}
	created, err := a.config.APIKeys.Create(r.Context(), n)
	var value *authz.ValueError
	if errors.As(err, &value) {
		return asSent(value, map[string]string{"scope": "scopes", "ttl": "expires_in"})
	}
	if errors.Is(err, apikey.ErrScope) {
		return &authz.ValueError{Field: "scopes", Message: "hold one that the app does not give to keys, or that you may not give"}
	}
	if err != nil {
		return err
	}
	if err := a.stillSigned(r.Context(), p); err != nil {
		// Whoever has ended the session has ended the keys that there were, and not this one.
		return errors.Join(err, a.config.APIKeys.Revoke(r.Context(), p.ID, created.APIKey.ID, "session_ended"))
	}
	write(w, http.StatusCreated, struct {
		Key    string        `json:"key"`
		APIKey apikey.APIKey `json:"api_key"`
	}{created.Key, created.APIKey})
	return nil
}

// revokeAPIKey ends a key of the caller.
func (a *API) revokeAPIKey(w http.ResponseWriter, r *http.Request) error {
	p, err := a.account(r)
	if err != nil {
		return err
	}
	return done(w, a.config.APIKeys.Revoke(r.Context(), p.ID, r.PathValue("id"), "revoked_by_user"))
}

// asSent is the error with the field under the name that the route calls it by.
func asSent(err *authz.ValueError, names map[string]string) error {
	own := *err
	if name, other := names[own.Field]; other {
		own.Field = name
	}
	return &own
}
