package identity_test

import (
	"context"
	"errors"
	"testing"

	"github.com/mandate-auth/mandate/users"
	"github.com/mandate-auth/mandate/users/identity"
)

// An identity that is linked again while it is being unlinked is there, and it is a way
// in like any other.
func TestLinkDuringUnlink(t *testing.T) {
	t.Parallel()
	var again func(id string)
	b := setup(t, policy(identity.LinkSignedIn), func(c *identity.Config) {
		c.Removed = func(_ context.Context, id, _ string) error {
			if f := again; f != nil {
				again = nil
				f(id)
			}
			return nil
		}
	})
	in := b.arrives(t, acme("1", ""))
	must(t, b.Link(t.Context(), b.state(t, in.UserID), acme("2", "")))
	again = func(id string) { must(t, b.Link(t.Context(), b.state(t, id), acme("1", ""))) }
	must(t, b.Unlink(t.Context(), in.UserID, "acme", "1"))
	if list := b.listed(t, in.UserID); len(list) != 2 || len(b.state(t, in.UserID).Links) != 2 {
		t.Errorf("the account names %q and has %q", b.state(t, in.UserID).Links, list)
	}
	must(t, b.Unlink(t.Context(), in.UserID, "acme", "2"))
	if r := b.arrives(t, acme("1", "")); r.UserID != in.UserID {
		t.Errorf("nothing signs in to %s any more", in.UserID)
	}
}

// Whoever is disabled is told so, also where the call that linked the identity died.
func TestDisabledHalfWay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	owner := b.person(t, ada, true)
	must(t, b.users.AddLink(t.Context(), b.state(t, owner.ID), "acme|1"))
	must(t, b.users.Disable(t.Context(), owner.ID, ""))
	_, err := b.Arrive(t.Context(), acme("1", ada))
	wantErr(t, "disabled", err, users.ErrDisabled)
}

// What an identity that was unlinked has left behind is nobody's.
func TestTokensHalfWay(t *testing.T) {
	t.Parallel()
	b := setup(t, policy(identity.LinkSignedIn))
	owner := b.person(t, ada, true)
	a := acme("1", "")
	a.Tokens = []byte("{}")
	must(t, b.Link(t.Context(), b.state(t, owner.ID), a))
	b.fail = errors.New("no mail today")
	wantErr(t, "unlinking dies half way", b.Unlink(t.Context(), owner.ID, "acme", "1"), b.fail)
	_, err := b.Tokens(t.Context(), owner.ID, "acme", "1")
	wantErr(t, "tokens", err, users.ErrNotFound)
}

// A guest whose arrival makes no account has no identity either.
func TestGuestWithoutAccount(t *testing.T) {
	t.Parallel()
	b := setup(t)
	a := acme("1", "")
	a.Guest = b.guest(t)
	a.Profile = map[string]any{"$bad": 1}
	var field *users.FieldError
	if _, err := b.Arrive(t.Context(), a); !errors.As(err, &field) {
		t.Errorf("got %v", err)
	}
	a.Profile, a.Guest = nil, ""
	if in := b.arrives(t, a); !in.New {
		t.Errorf("the identity was somebody's already: %+v", in)
	}
}
