package httpapi

import (
	"context"
	"fmt"
	"net/http"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/sessions"
	"github.com/mandate-auth/mandate/users"
)

// guest returns the id of the guest who asks, "" for anybody else. A credential that is
// refused is nobody's: whoever signs in need not have one.
func (a *API) guest(r *http.Request) string {
	if p := a.guestOf(r); p != nil {
		return p.ID
	}
	return ""
}

// guestOf is guest with the session.
func (a *API) guestOf(r *http.Request) *authz.Principal {
	if !a.config.Guests {
		return nil
	}
	p, err := a.authenticate(r, false)
	if err != nil || p == nil || p.Kind != authz.KindAnonymous || !store.ValidID(p.ID, "usr_") {
		return nil
	}
	return p
}

// stillGuest returns the guest who began a sign-in by another provider, "" for none or
// for one whose session has ended since.
func (a *API) stillGuest(ctx context.Context, i *intent) (string, error) {
	if i.Guest == "" {
		return "", nil
	}
	_, err := a.config.Sessions.Check(ctx, i.Guest, i.Session)
	if is(err, sessions.ErrExpired) {
		return "", nil
	}
	return i.Guest, err
}

// leaveGuest tells the service that somebody has signed in to an account who was a guest
// until now: two accounts, one of which nobody may come back to. It returns the guest that
// was left, "" for none.
func (a *API) leaveGuest(ctx context.Context, guest, userID string) (left string, err error) {
	if guest == "" || guest == userID {
		return "", nil
	}
	switch st, err := a.config.Users.State(ctx, guest); {
	case is(err, users.ErrNotFound):
		return "", nil
	case err != nil:
		return "", err
	case st.User.Kind != authz.KindAnonymous:
		return "", nil // its token has outlived that it became a person, whose things stay where they are
	}
	if a.config.GuestSignedIn != nil {
		if err := a.config.GuestSignedIn(ctx, guest, userID); err != nil {
			p := refuse(CodeConflict)
			p.Detail = "What the guest has could not be moved to the account."
			p.cause = fmt.Errorf("guest signed in: %w", err)
			return "", p
		}
	}
	a.config.Events.Record(ctx, event.Event{
		Type: event.GuestSignedIn, Result: event.Success, App: a.config.App, Time: a.config.Now(), UserID: userID,
		Metadata: map[string]string{"guest": guest}, Request: event.RequestFrom(ctx),
	})
	return guest, nil
}
