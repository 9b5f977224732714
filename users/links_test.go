package users_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/users"
)

func TestCreateLinked(t *testing.T) {
	t.Parallel()
	b, k := kept(t)
	st, err := b.CreateLinked(t.Context(), users.LinkedUser{Email: "Ada@Example.com", Link: "acme|1", Profile: map[string]any{"name": "Ada"}})
	must(t, err)
	if st.User.Email != "Ada@Example.com" || !st.User.EmailVerified || st.User.Kind != authz.KindHuman || st.HasPassword || st.User.Profile["name"] != "Ada" || len(st.Links) != 1 {
		t.Errorf("%+v", st)
	}
	if !k.has("welcome trusted " + st.User.ID + " " + ada) {
		t.Errorf("%v", k.calls)
	}
	u, err := b.Confirm(t.Context(), users.ProveByLink(st.User.ID, "acme|1"))
	wantPerson(t, u, err)
	wantErr(t, "a password", b.login(t, ada, ""), users.ErrInvalidCredentials)

	without, err := b.CreateLinked(t.Context(), users.LinkedUser{Link: "acme|2"})
	if err != nil || without.User.Email != "" || without.User.EmailVerified || !k.has("welcome "+without.User.ID+" ") {
		t.Errorf("%+v, %v, %v", without, err, k.calls)
	}
}

func TestCreateLinkedRefuses(t *testing.T) {
	t.Parallel()
	b, k := kept(t)
	b.person(t, ada)
	_, err := b.CreateLinked(t.Context(), users.LinkedUser{Email: "ADA@example.com", Link: "acme|1"})
	wantErr(t, "a taken address", err, users.ErrEmailTaken)
	_, err = b.CreateLinked(t.Context(), users.LinkedUser{Email: "nobody", Link: "acme|1"})
	wantField(t, err, "email", users.CodeInvalidField)
	_, err = b.CreateLinked(t.Context(), users.LinkedUser{Link: "acme|1", Profile: map[string]any{"$set": 1}})
	wantField(t, err, "profile", users.CodeInvalidField)
	_, err = b.CreateLinked(t.Context(), users.LinkedUser{Link: "acme|1", Guest: "usr_nobody"})
	wantErr(t, "no guest", err, users.ErrNotGuest)
	k.failing(errKeeper)
	_, err = b.CreateLinked(t.Context(), users.LinkedUser{Link: "acme|1"})
	wantErr(t, "without roles", err, errKeeper)
	if page, err := b.List(t.Context(), users.ListOptions{}); err != nil || len(page.Users) != 1 {
		t.Errorf("%+v, %v", page, err)
	}
}

// An account that nobody could enter is not made: where addresses have to be verified,
// who comes without one would never be let in. A guest stays one.
func TestCreateLinkedUnverified(t *testing.T) {
	t.Parallel()
	b, _ := kept(t, verifying)
	guest, _ := b.guest(t)
	for _, id := range []string{"", guest} {
		_, err := b.CreateLinked(t.Context(), users.LinkedUser{Link: "acme|1", Guest: id})
		wantErr(t, "guest "+id, err, users.ErrUnverified)
	}
	if page, err := b.List(t.Context(), users.ListOptions{}); err != nil || len(page.Users) != 1 || len(b.state(t, guest).Links) != 0 {
		t.Errorf("%+v, %v", page, err)
	}
	st, err := b.CreateLinked(t.Context(), users.LinkedUser{Email: ada, Link: "acme|1", Guest: guest})
	if err != nil || st.User.ID != guest || st.User.Kind != authz.KindHuman {
		t.Errorf("%+v, %v", st, err)
	}
}

func TestAddLink(t *testing.T) {
	t.Parallel()
	b, _ := kept(t)
	u := b.person(t, ada)
	st := b.state(t, u.ID)
	for range 2 { // adding it again changes nothing
		must(t, b.AddLink(t.Context(), st, "acme|1"))
	}
	if got := b.state(t, u.ID); len(got.Links) != 1 {
		t.Errorf("%v", got.Links)
	}
	if _, err := b.Confirm(t.Context(), users.ProveByLink(u.ID, "acme|1")); err != nil {
		t.Errorf("%v", err)
	}
	after, err := b.Reclaim(t.Context(), b.state(t, u.ID))
	must(t, err)
	wantErr(t, "of the owner before", b.AddLink(t.Context(), st, "acme|2"), users.ErrChanged)
	b.disable(t, u.ID)
	wantErr(t, "disabled", b.AddLink(t.Context(), after, "acme|2"), users.ErrChanged)
	st.User.ID = "usr_nobody"
	wantErr(t, "nobody", b.AddLink(t.Context(), st, "acme|2"), users.ErrChanged)
}

// Fifty at once never exceed what an account may have.
func TestAddLinkLimit(t *testing.T) {
	t.Parallel()
	b, _ := kept(t)
	u := b.person(t, ada)
	st := b.state(t, u.ID)
	var won atomic.Int32
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			switch err := b.AddLink(t.Context(), st, fmt.Sprintf("acme|%d", i)); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, users.ErrChanged) && !errors.Is(err, users.ErrLinkLimit):
				t.Errorf("%v", err)
			}
		})
	}
	wg.Wait()
	full := b.state(t, u.ID)
	if won.Load() != users.MaxLinks || len(full.Links) != users.MaxLinks {
		t.Errorf("%d were added, %d are there", won.Load(), len(full.Links))
	}
	wantErr(t, "one more", b.AddLink(t.Context(), full, "acme|x"), users.ErrLinkLimit)
	must(t, b.AddLink(t.Context(), full, full.Links[3]))
	if again := b.state(t, u.ID); len(again.Links) != users.MaxLinks {
		t.Errorf("%d are there", len(again.Links))
	}
}

func TestRemoveLink(t *testing.T) {
	t.Parallel()
	b, _ := kept(t)
	st, err := b.CreateLinked(t.Context(), users.LinkedUser{Email: ada, Link: "acme|1"})
	must(t, err)
	id := st.User.ID
	remove := func(link string, mail bool) error { return b.RemoveLink(t.Context(), id, link, mail) }
	wantErr(t, "the last way in", remove("acme|1", false), users.ErrLastCredential)
	wantErr(t, "one that it does not have", remove("acme|2", true), users.ErrNotFound)
	wantErr(t, "of nobody", b.RemoveLink(t.Context(), "usr_nobody", "acme|1", true), users.ErrNotFound)
	must(t, b.AddLink(t.Context(), st, "acme|2"))
	must(t, remove("acme|1", false))
	_, err = b.Confirm(t.Context(), users.ProveByLink(id, "acme|1"))
	wantErr(t, "the one that is gone", err, users.ErrChanged)
	wantErr(t, "again", remove("acme|1", false), users.ErrNotFound)
	// Whoever signs in by mail, or by a password, needs no identity.
	must(t, remove("acme|2", true))
	must(t, b.AddLink(t.Context(), st, "acme|3"))
	if _, err := b.ResetPassword(t.Context(), id, b.mailed(t, id), fresh); err != nil {
		t.Fatal(err)
	}
	must(t, remove("acme|3", false))
	// An address that nobody has verified is no way in.
	none, err := b.CreateLinked(t.Context(), users.LinkedUser{Link: "acme|4"})
	must(t, err)
	wantErr(t, "without an address", b.RemoveLink(t.Context(), none.User.ID, "acme|4", true), users.ErrLastCredential)
}

// Of the two last ways in, removed at once, one stays.
func TestRemoveLinkOnce(t *testing.T) {
	t.Parallel()
	b, _ := kept(t)
	for i := range 20 {
		links := []string{fmt.Sprintf("acme|%d", i), fmt.Sprintf("bolt|%d", i)}
		st, err := b.CreateLinked(t.Context(), users.LinkedUser{Link: links[0]})
		must(t, err)
		must(t, b.AddLink(t.Context(), st, links[1]))
		var won, last atomic.Int32
		var wg sync.WaitGroup
		for _, link := range links {
			wg.Go(func() {
				switch err := b.RemoveLink(t.Context(), st.User.ID, link, false); {
				case err == nil:
					won.Add(1)
				case errors.Is(err, users.ErrLastCredential):
					last.Add(1)
				default:
					t.Errorf("%v", err)
				}
			})
		}
		wg.Wait()
		if got := b.state(t, st.User.ID); won.Load() != 1 || last.Load() != 1 || len(got.Links) != 1 {
			t.Fatalf("%d were removed, %v are left", won.Load(), got.Links)
		}
	}
}

// A subject is a text: none of it is a path or an operator, and no two are one.
func TestLinkOf(t *testing.T) {
	t.Parallel()
	b, _ := kept(t)
	st, err := b.CreateLinked(t.Context(), users.LinkedUser{Email: ada, Link: users.LinkOf("acme", "1")})
	must(t, err)
	for _, subject := range []string{"a|b", "$ne", "{\"$gt\":\"\"}", "a.b", "\x00", "É", "", "1 "} {
		link := users.LinkOf("acme", subject)
		must(t, b.AddLink(t.Context(), st, link))
		if _, err := b.Confirm(t.Context(), users.ProveByLink(st.User.ID, link)); err != nil {
			t.Errorf("%q: %v", subject, err)
		}
		must(t, b.RemoveLink(t.Context(), st.User.ID, link, false))
	}
	if got := b.state(t, st.User.ID).Links; len(got) != 1 || got[0] != "acme|1" {
		t.Errorf("%q", got)
	}
}
