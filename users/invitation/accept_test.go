package invitation_test

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/users"
	"github.com/mandate-auth/mandate/users/invitation"
)

// Whoever accepts has an account with the address, verified, and the role.
func TestAccept(t *testing.T) {
	t.Parallel()
	b := setup(t)
	made, token := b.invite(t, ada, "editor")
	user, _, err := b.Accept(t.Context(), token, newcomer())
	if err != nil {
		t.Fatal(err)
	}
	if user.Email != ada || !user.EmailVerified || user.Kind != authz.KindHuman {
		t.Errorf("%+v", user)
	}
	if g := b.granted(); len(g) != 1 || g[0] != user.ID+" editor" {
		t.Errorf("granted %v", g)
	}
	if got := b.find(t, made.ID); got.State != invitation.Accepted || got.UserID != user.ID {
		t.Errorf("%+v", got)
	}
	if _, _, err := b.Accept(t.Context(), token, newcomer()); !errors.Is(err, invitation.ErrInvalid) {
		t.Errorf("a second time: %v", err)
	}
	if _, err := b.users.Authenticate(t.Context(), users.Credentials{Email: ada, Password: password}); err != nil {
		t.Errorf("signing in: %v", err)
	}
	if b.events.count(event.InvitationUsed) != 1 {
		t.Error("nobody was told")
	}
}

// Whoever has no role to get gets none; the address may be said, in any spelling of it.
func TestAcceptWithAddress(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, token := b.invite(t, ada, "")
	n := newcomer()
	for _, other := range []string{"ben@example.com", "ada@example.com.evil.example", "nonsense"} {
		n.Email = other
		var f *users.FieldError
		if _, _, err := b.Accept(t.Context(), token, n); !errors.As(err, &f) || f.Field != "email" {
			t.Errorf("%s: %v", other, err)
		}
	}
	n.Email = "ADA@Example.com"
	user, _, err := b.Accept(t.Context(), token, n)
	if err != nil || user.Email != "ADA@Example.com" || len(b.granted()) != 0 {
		t.Errorf("%+v, %v, granted %v", user, err, b.granted())
	}
}

// What is wrong with the account leaves the invitation as it is.
func TestAcceptField(t *testing.T) {
	t.Parallel()
	b := setup(t)
	made, token := b.invite(t, ada, "editor")
	for field, n := range map[string]users.NewUser{
		"password": {Password: "short"}, "profile": {Password: password, Profile: map[string]any{"a.b": 1}},
	} {
		var f *users.FieldError
		if _, _, err := b.Accept(t.Context(), token, n); !errors.As(err, &f) || f.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	if got := b.find(t, made.ID); got.State != invitation.Pending || len(b.granted()) != 0 {
		t.Errorf("%+v, granted %v", got, b.granted())
	}
	if _, _, err := b.Accept(t.Context(), token, newcomer()); err != nil {
		t.Errorf("and then: %v", err)
	}
}

// A token that is nothing, or of another app, or too late, is refused with one error.
func TestAcceptRefuses(t *testing.T) {
	t.Parallel()
	db := storetest.Database(t)
	b, other := setupOn(t, db, "shop"), setupOn(t, db, "other")
	_, foreign := other.invite(t, ada, "")
	_, late := b.invite(t, ada, "")
	b.move(7 * 24 * time.Hour)
	for name, token := range map[string]string{
		"nothing": "", "nonsense": "x", "unknown": "mot_" + strings.Repeat("a", 43), "another app's": foreign, "late": late,
	} {
		if _, _, err := b.Accept(t.Context(), token, newcomer()); !errors.Is(err, invitation.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if page, err := b.users.List(t.Context(), users.ListOptions{}); err != nil || len(page.Users) != 0 {
		t.Errorf("there are accounts: %+v, %v", page, err)
	}
}

// Of twenty who accept at once one has the account.
func TestAcceptOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	made, token := b.invite(t, ada, "editor")
	var in atomic.Int32
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			_, _, err := b.Accept(t.Context(), token, newcomer())
			switch {
			case err == nil:
				in.Add(1)
			case !errors.Is(err, invitation.ErrInvalid) && !errors.Is(err, users.ErrEmailTaken):
				t.Errorf("%v", err)
			}
		})
	}
	wg.Wait()
	page, err := b.users.List(t.Context(), users.ListOptions{})
	if err != nil || len(page.Users) != 1 || in.Load() != 1 {
		t.Fatalf("%d accepted, %+v, %v", in.Load(), page, err)
	}
	if got := b.find(t, made.ID); got.State != invitation.Accepted {
		t.Errorf("%+v", got)
	}
}

// The role is there before the account: nobody new is let in without it. A call that
// failed there is made again with the same token.
func TestAcceptAfterFailure(t *testing.T) {
	t.Parallel()
	b := setup(t)
	made, token := b.invite(t, ada, "editor")
	b.refuse = errors.New("no roles today")
	if _, _, err := b.Accept(t.Context(), token, newcomer()); !errors.Is(err, b.refuse) {
		t.Fatalf("%v", err)
	}
	if _, err := b.users.GetByEmail(t.Context(), ada); !errors.Is(err, users.ErrNotFound) {
		t.Errorf("an account without its role: %v", err)
	}
	b.refuse = nil
	user, _, err := b.Accept(t.Context(), token, newcomer())
	if err != nil {
		t.Fatalf("again: %v", err)
	}
	if got := b.find(t, made.ID); got.UserID != user.ID {
		t.Errorf("%+v, user %s", got, user.ID)
	}
}

// A guest gets the role as the person, or else a guest who becomes another one would have
// it. Where that failed the owner of the password gets it by the same token, once, and
// nobody else by knowing the link.
func TestAcceptGuestAfterFailure(t *testing.T) {
	t.Parallel()
	b := setup(t)
	made, token := b.invite(t, ada, "editor")
	n := newcomer()
	n.Guest = b.guest(t)
	b.refuse = errors.New("no roles today")
	if _, _, err := b.Accept(t.Context(), token, n); !errors.Is(err, b.refuse) {
		t.Fatalf("%v", err)
	}
	if u, err := b.users.GetByEmail(t.Context(), ada); err != nil || u.ID != n.Guest {
		t.Errorf("%+v, %v", u, err)
	}
	if err := b.Revoke(t.Context(), made.ID); !errors.Is(err, invitation.ErrNotFound) {
		t.Errorf("revoked with an account: %v", err)
	}
	b.refuse = nil
	wrong := n
	wrong.Password = "another fine passphrase"
	if _, _, err := b.Accept(t.Context(), token, wrong); !errors.Is(err, users.ErrEmailTaken) || len(b.granted()) != 0 {
		t.Errorf("by another password: %v, granted %v", err, b.granted())
	}
	user, proof, err := b.Accept(t.Context(), token, n)
	if err != nil || user.ID != n.Guest || user.Kind != authz.KindHuman || proof.UserID() != n.Guest {
		t.Fatalf("again: %+v, %v", user, err)
	}
	if g := b.granted(); len(g) != 1 || g[0] != n.Guest+" editor" {
		t.Errorf("granted %v", g)
	}
}

// A guest who accepts becomes the person.
func TestAcceptGuest(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, token := b.invite(t, ada, "editor")
	n := newcomer()
	n.Guest = b.guest(t)
	user, _, err := b.Accept(t.Context(), token, n)
	if err != nil || user.ID != n.Guest || user.Kind != authz.KindHuman || !user.EmailVerified {
		t.Errorf("%+v, %v", user, err)
	}
	if g := b.granted(); len(g) != 1 || g[0] != n.Guest+" editor" {
		t.Errorf("granted %v", g)
	}
}

// An address that has an account that was verified makes none, and nobody gets the role: neither the
// account nor the guest who tried.
func TestAcceptTaken(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if _, err := b.users.Create(t.Context(), users.NewUser{Email: ada, Password: password, Verified: true}); err != nil {
		t.Fatal(err)
	}
	made, token := b.invite(t, ada, "editor")
	for _, guest := range []string{"", b.guest(t)} {
		n := newcomer()
		n.Guest = guest
		if _, _, err := b.Accept(t.Context(), token, n); !errors.Is(err, users.ErrEmailTaken) {
			t.Errorf("guest %q: %v", guest, err)
		}
	}
	if g := b.granted(); len(g) != 0 {
		t.Errorf("granted %v", g)
	}
	if got := b.find(t, made.ID); got.State != invitation.Pending {
		t.Errorf("%+v", got)
	}
}

// The role of an invitation is for the account that it makes, not for one that is named
// as a guest and is none.
func TestAcceptNoGuest(t *testing.T) {
	t.Parallel()
	b := setup(t)
	person, err := b.users.Create(t.Context(), users.NewUser{Email: "ben@example.com", Password: password})
	if err != nil {
		t.Fatal(err)
	}
	_, token := b.invite(t, ada, "editor")
	for _, guest := range []string{person.ID, store.NewID("usr_"), "usr_nobody"} {
		n := newcomer()
		n.Guest = guest
		if _, _, err := b.Accept(t.Context(), token, n); !errors.Is(err, users.ErrNotGuest) {
			t.Errorf("%s: %v", guest, err)
		}
	}
	if g := b.granted(); len(g) != 0 {
		t.Errorf("granted %v", g)
	}
}

// Who may not invite any more gives nothing, neither an account nor a role, and what
// cannot be found out is no yes.
func TestAcceptOfNobody(t *testing.T) {
	t.Parallel()
	b := setup(t)
	made, token := b.invite(t, ada, "editor")
	b.unsure = store.ErrUnavailable
	if _, _, err := b.Accept(t.Context(), token, newcomer()); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("not known: %v", err)
	}
	b.unsure, b.over = nil, []string{"usr_clerk"}
	if _, _, err := b.Accept(t.Context(), token, newcomer()); !errors.Is(err, invitation.ErrInvalid) {
		t.Errorf("not any more: %v", err)
	}
	if _, err := b.users.GetByEmail(t.Context(), ada); !errors.Is(err, users.ErrNotFound) || len(b.granted()) != 0 || b.find(t, made.ID).State != invitation.Pending {
		t.Errorf("%v, granted %v", err, b.granted())
	}
	b.over = nil
	if _, _, err := b.Accept(t.Context(), token, newcomer()); err != nil {
		t.Errorf("and again: %v", err)
	}
}

// An account that somebody else has made with the address goes to who was invited, whole,
// and a guest who accepts stays the guest.
func TestAcceptReclaims(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const theirs = "what the squatter knows"
	squatter, err := b.users.Register(t.Context(), users.NewUser{Email: ada, Password: theirs, Profile: map[string]any{"name": "Mallory", "photo": "x"}})
	if err != nil {
		t.Fatal(err)
	}
	st, err := b.users.State(t.Context(), squatter.ID)
	if err == nil {
		err = b.users.AddLink(t.Context(), st, users.LinkOf("acme", "1"))
	}
	if err != nil {
		t.Fatal(err)
	}
	made, token := b.invite(t, ada, "editor")
	n := newcomer()
	n.Guest, n.Profile = b.guest(t), map[string]any{"name": "Ada"}
	bad := n
	bad.Password = "short"
	var f *users.FieldError
	if _, _, err := b.Accept(t.Context(), token, bad); !errors.As(err, &f) || f.Field != "password" || b.find(t, made.ID).State != invitation.Pending {
		t.Errorf("a short password: %v", err)
	}
	user, proof, err := b.Accept(t.Context(), token, n)
	if err != nil || user.ID != squatter.ID || !user.EmailVerified || len(user.Profile) != 1 || user.Profile["name"] != "Ada" {
		t.Fatalf("%+v, %v", user, err)
	}
	if _, err := b.users.Confirm(t.Context(), proof); err != nil {
		t.Errorf("who was invited: %v", err)
	}
	if _, err := b.users.Authenticate(t.Context(), users.Credentials{Email: ada, Password: theirs}); !errors.Is(err, users.ErrInvalidCredentials) {
		t.Errorf("the squatter's password: %v", err)
	}
	if after, err := b.users.State(t.Context(), user.ID); err != nil || len(after.Links) != 0 || after.Owner == st.Owner {
		t.Errorf("%+v, %v", after, err)
	}
	if g := b.granted(); len(g) != 1 || g[0] != user.ID+" editor" {
		t.Errorf("granted %v", g)
	}
	if guest, err := b.users.Get(t.Context(), n.Guest); err != nil || guest.Kind != authz.KindAnonymous {
		t.Errorf("the guest is %+v, %v", guest, err)
	}
	if got := b.find(t, made.ID); got.UserID != user.ID {
		t.Errorf("%+v", got)
	}
}

// An account that was disabled is opened by no invitation.
func TestAcceptDisabled(t *testing.T) {
	t.Parallel()
	b := setup(t)
	u, err := b.users.Register(t.Context(), users.NewUser{Email: ada, Password: password})
	if err == nil {
		err = b.users.Disable(t.Context(), u.ID, "")
	}
	if err != nil {
		t.Fatal(err)
	}
	_, token := b.invite(t, ada, "editor")
	if _, _, err := b.Accept(t.Context(), token, newcomer()); !errors.Is(err, users.ErrEmailTaken) || len(b.granted()) != 0 {
		t.Errorf("%v, granted %v", err, b.granted())
	}
}
