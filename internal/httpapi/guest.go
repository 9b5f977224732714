package httpapi

import (
	"context"
	"fmt"
	"log/slog"
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

// entering is what belongs to a sign-in besides the session.
type entering struct {
	// before is done when it is certain who signs in, and after when the session has begun:
	// where that fails, the session ends.
	before func(userID string) error
	after  func(*Grant) error
}

// first is the entering with one thing more to do before.
func (e entering) first(do func(userID string) error) entering {
	then := e.before
	e.before = func(userID string) error {
		if err := do(userID); err != nil || then == nil {
			return err
		}
		return then(userID)
	}
	return e
}

// entering ends the session that the browser has, and leaves the guest whose it is. A
// guest's goes when the person's has begun: whoever is refused is a guest still. Any other
// goes first, and makes room for the next.
//
// The service is asked before a session begins that takes another one's place, and after
// one that could have been refused for want of a place: so what it refuses costs nobody a
// session, and what it has moved is not refused.
func (a *API) entering(r *http.Request, t Transport, guest string) entering {
	asked, left := "", ""
	leave := func(userID string) (err error) {
		if asked != userID {
			left, err = a.leaveGuest(r.Context(), guest, userID)
		}
		if err == nil {
			asked = userID
		}
		return err
	}
	return entering{
		before: func(userID string) error {
			switch {
			case guest == "" || guest == userID:
				return a.replace(r, t)
			case a.config.Sessions.Refuses():
				return nil
			default:
				return leave(userID)
			}
		},
		after: func(g *Grant) error {
			if guest == "" || guest == g.User.ID {
				return nil
			}
			if err := leave(g.User.ID); err != nil {
				return err
			}
			if err := a.replace(r, t); err != nil || left == "" {
				return err
			}
			g.previous = left
			a.config.Events.Record(r.Context(), event.Event{
				Type: event.GuestSignedIn, Result: event.Success, App: a.config.App, Time: a.config.Now(), UserID: g.User.ID,
				Metadata: map[string]string{"guest": left}, Request: event.RequestFrom(r.Context()),
			})
			return nil
		},
	}
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
			a.config.Logger.LogAttrs(ctx, slog.LevelError, "the service refused what a guest leaves behind", slog.String("app", a.config.App),
				slog.String("guest", guest), slog.String("user", userID), slog.Any("error", err))
			p := refuse(CodeConflict)
			p.Detail = "What the guest has could not be moved to the account."
			p.cause = fmt.Errorf("guest signed in: %w", err)
			return "", p
		}
	}
	return guest, nil
}
