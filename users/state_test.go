package users_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/tokens/keys"
	"github.com/mandate-auth/mandate/tokens/secret"
	"github.com/mandate-auth/mandate/users"
)

// withSecrets gives the app secret keys of one letter each, newest first.
func withSecrets(t *testing.T, letters ...string) func(*users.Config) {
	t.Helper()
	var list []secret.Value
	for _, letter := range letters {
		list = append(list, secret.FromString(strings.Repeat(letter, 32)))
	}
	ring, err := keys.NewRing(list)
	must(t, err)
	app, err := ring.App("shop", bytes.Repeat([]byte{1}, 32), 1)
	must(t, err)
	return func(c *users.Config) { c.Keys = app }
}

func TestState(t *testing.T) {
	t.Parallel()
	b, _ := kept(t)
	u := b.known(t, "Ada@Example.com")
	must(t, b.AddLink(t.Context(), b.state(t, u.ID), "acme|1"))
	st, err := b.StateByEmail(t.Context(), "ada@EXAMPLE.com")
	must(t, err)
	if st.User.ID != u.ID || !st.HasPassword || st.EmailNorm != ada || st.Owner != 0 || len(st.Links) != 1 || st.Links[0] != "acme|1" || st.Stamp == "" {
		t.Errorf("%+v", st)
	}
	if by := b.state(t, u.ID); by.Stamp != st.Stamp {
		t.Error("two stamps of one account")
	}
	for _, known := range []string{ada, "acme", u.ID, "Ada"} {
		if strings.Contains(st.Stamp, known) {
			t.Errorf("the stamp tells %q", known)
		}
	}
	_, err = b.State(t.Context(), "usr_nobody")
	wantErr(t, "nobody", err, users.ErrNotFound)
	_, err = b.StateByEmail(t.Context(), ben)
	wantErr(t, "nobody's address", err, users.ErrNotFound)
	_, err = b.StateByEmail(t.Context(), "nobody")
	wantField(t, err, "email", users.CodeInvalidField)
	other := setupOn(t, b.db, func(c *users.Config) { c.App = "other" })
	_, err = other.State(t.Context(), u.ID)
	wantErr(t, "another app's", err, users.ErrNotFound)
}

// The stamp is another one after each change that ends what was mailed, and after no
// other.
func TestStamp(t *testing.T) {
	t.Parallel()
	b, _ := kept(t)
	u := b.person(t, ada)
	last := b.state(t, u.ID)
	for _, c := range []struct {
		name    string
		changes bool
		do      func() error
	}{
		{"the profile", false, func() error {
			_, err := b.UpdateProfile(t.Context(), u.ID, map[string]any{"nickname": "Ada"})
			return err
		}},
		{"an identity", false, func() error { return b.AddLink(t.Context(), last, "acme|1") }},
		{"the password", true, func() error {
			return b.ChangePassword(t.Context(), u.ID, users.PasswordChange{Current: password, New: fresh})
		}},
		{"the verification", false, func() error {
			_, err := b.VerifyEmail(t.Context(), u.ID, ada)
			return err
		}},
		{"the address", true, func() error {
			_, err := b.ChangeEmail(t.Context(), u.ID, users.EmailChange{From: ada, To: ben, Stamp: last.Stamp})
			return err
		}},
	} {
		must(t, c.do())
		now := b.state(t, u.ID)
		if (now.Stamp != last.Stamp) != c.changes {
			t.Errorf("%s: changed is %v", c.name, now.Stamp != last.Stamp)
		}
		_, err := b.Confirm(t.Context(), users.ProveByMail(u.ID, last.Stamp))
		if (err == nil) == c.changes || !now.Stamped(now.Stamp) || now.Stamped(last.Stamp) == c.changes {
			t.Errorf("%s: what was mailed before: %v", c.name, err)
		}
		last = now
	}
}

// Two accounts never have one stamp, nor do two apps.
func TestStampApart(t *testing.T) {
	t.Parallel()
	b, _ := kept(t)
	one, two := b.guest1(t), b.guest1(t)
	if b.state(t, one).Stamp == b.state(t, two).Stamp {
		t.Error("two accounts have one stamp")
	}
	_, err := b.Confirm(t.Context(), users.ProveByMail(two, b.state(t, one).Stamp))
	wantErr(t, "another's stamp", err, users.ErrChanged)
	for name, proof := range map[string]*users.Proof{
		"no stamp": users.ProveByMail(one, ""), "no identity": users.ProveByLink(one, ""), "an identity of nobody": users.ProveByLink(one, "acme|1"), "nobody": users.ProveByMail("usr_nobody", "x"),
	} {
		_, err := b.Confirm(t.Context(), proof)
		wantErr(t, name, err, users.ErrChanged)
	}
}

func (b *bench) guest1(t *testing.T) string {
	t.Helper()
	id, _ := b.guest(t)
	return id
}

// What was mailed under an older secret key is good while that key is configured.
func TestStampOfAnOlderKey(t *testing.T) {
	t.Parallel()
	db := storetest.Database(t)
	before := setupOn(t, db, withSecrets(t, "a"))
	u := before.known(t, ada)
	was := before.mailed(t, u.ID)
	both, after := setupOn(t, db, withSecrets(t, "b", "a")), setupOn(t, db, withSecrets(t, "b"))
	if st := both.state(t, u.ID); st.Stamp == was.Stamp || !st.Stamped(was.Stamp) || st.Stamped("") || st.Stamped("x") {
		t.Error("the stamp of the older key is not known, or anything is")
	}
	if _, err := both.Confirm(t.Context(), users.ProveByMail(u.ID, was.Stamp)); err != nil {
		t.Errorf("a sign-in: %v", err)
	}
	_, err := after.Confirm(t.Context(), users.ProveByMail(u.ID, was.Stamp))
	wantErr(t, "a key that is gone", err, users.ErrChanged)
	_, err = after.ResetPassword(t.Context(), u.ID, was, fresh)
	wantErr(t, "a reset under a key that is gone", err, users.ErrChanged)
	got, err := both.ResetPassword(t.Context(), u.ID, was, fresh)
	wantPerson(t, got, err)
}
