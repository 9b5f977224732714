package invitation_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/mail"
	"github.com/mandate-auth/mandate/users"
	"github.com/mandate-auth/mandate/users/invitation"
	"github.com/mandate-auth/mandate/users/recovery"
)

// An app without one of the parts that decide does not start, nor one whose invitations
// live for ever.
func TestNewRefuses(t *testing.T) {
	t.Parallel()
	db := storetest.Database(t)
	for name, edit := range map[string]func(*invitation.Config){
		"app":    func(c *invitation.Config) { c.App = "" },
		"users":  func(c *invitation.Config) { c.Users = nil },
		"tokens": func(c *invitation.Config) { c.Tokens = nil },
		"keys":   func(c *invitation.Config) { c.Keys = nil },
		"outbox": func(c *invitation.Config) { c.Outbox = nil },
		"mails":  func(c *invitation.Config) { c.Mails = nil },
		"grant":  func(c *invitation.Config) { c.Grant = nil },
		"past":   func(c *invitation.Config) { c.Life = -time.Second },
		"long":   func(c *invitation.Config) { c.Life = 90*24*time.Hour + time.Second },
	} {
		b := &bench{outbox: &outbox{}, events: &events{}}
		config := b.config(t, db, "shop")
		edit(&config)
		if _, err := invitation.New(db, config); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestCreate(t *testing.T) {
	t.Parallel()
	b := setup(t)
	before := b.now()
	made, err := b.Create(t.Context(), invitation.NewInvitation{Email: "Ada@Example.com", Role: "editor", InvitedBy: "usr_clerk", From: recovery.From{Language: "de"}})
	if err != nil {
		t.Fatal(err)
	}
	if !store.ValidID(made.ID, "inv_") || made.Email != "Ada@Example.com" || made.Role != "editor" || made.InvitedBy != "usr_clerk" || made.State != invitation.Pending ||
		made.UserID != "" || made.ExpiresAt.Sub(made.CreatedAt) != 7*24*time.Hour || made.CreatedAt.Before(before.Truncate(time.Millisecond)) {
		t.Errorf("%+v", made)
	}
	job := b.outbox.last(t)
	if job.To != "Ada@Example.com" || job.Kind != "invitation" || job.Lang != "de" || !job.NotAfter.Equal(made.ExpiresAt) {
		t.Errorf("%+v", job)
	}
	if listed := b.find(t, made.ID); listed != *made {
		t.Errorf("listed as %+v", listed)
	}
	if b.events.count(event.InvitationCreated) != 1 {
		t.Error("nobody was told")
	}
	var f *users.FieldError
	if _, err := b.Create(t.Context(), invitation.NewInvitation{Email: "nobody"}); !errors.As(err, &f) || f.Field != "email" {
		t.Errorf("no address: %v", err)
	}
}

// An invitation that is good for longer than mails are kept is mailed all the same.
func TestCreateForLong(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *invitation.Config) { c.Life = 90 * 24 * time.Hour })
	made, token := b.invite(t, ada, "")
	if job := b.outbox.last(t); job.NotAfter.Sub(made.CreatedAt) != mail.MaxLife {
		t.Errorf("it is tried for %s", job.NotAfter.Sub(made.CreatedAt))
	}
	b.move(89 * 24 * time.Hour)
	if _, _, err := b.Accept(t.Context(), token, newcomer()); err != nil {
		t.Errorf("on the last day: %v", err)
	}
}

// What could not be mailed is in nobody's hands and is taken back.
func TestCreateUnmailed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, fail := range []error{store.ErrUnavailable, mail.ErrInvalidJob} {
		b.outbox.fail = fail
		_, err := b.Create(t.Context(), invitation.NewInvitation{Email: ada})
		var f *users.FieldError
		if errors.Is(fail, mail.ErrInvalidJob) != (errors.As(err, &f) && f.Field == "email") || (f == nil && !errors.Is(err, fail)) {
			t.Errorf("%v: got %v", fail, err)
		}
	}
	page, err := b.List(t.Context(), invitation.ListOptions{})
	if err != nil || len(page.Invitations) != 2 || page.Invitations[0].State != invitation.Revoked || page.Invitations[1].State != invitation.Revoked {
		t.Errorf("%+v, %v", page, err)
	}
}

// The mail says who invites, in the language that was asked for or the app's, and is the
// same when it is composed again.
func TestCompose(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *invitation.Config) { c.Language = "de" })
	clerk, err := b.users.Create(t.Context(), users.NewUser{Email: "clerk@example.com", Password: password})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Create(t.Context(), invitation.NewInvitation{Email: ada, InvitedBy: clerk.ID}); err != nil {
		t.Fatal(err)
	}
	job := b.outbox.last(t)
	first, err := b.Compose(t.Context(), job)
	if err != nil || !strings.Contains(first.Text, "clerk@example.com") || first.To != ada || job.Lang != "de" {
		t.Fatalf("%+v, %v", first, err)
	}
	if again, err := b.Compose(t.Context(), job); err != nil || again.Text != first.Text {
		t.Errorf("composed again it is %+v, %v", again, err)
	}
}

// A mail about what is over is not sent.
func TestComposeOver(t *testing.T) {
	t.Parallel()
	b := setup(t)
	made, token := b.invite(t, ada, "")
	job := b.outbox.last(t)
	gone := job
	gone.Data = map[string]string{"invitation": "inv_nothing"}
	other, _ := b.invite(t, "ben@example.com", "")
	revoked := b.outbox.last(t)
	if err := b.Revoke(t.Context(), other.ID); err != nil {
		t.Fatal(err)
	}
	_, _ = b.invite(t, "eve@example.com", "")
	expired := b.outbox.last(t)
	if _, _, err := b.Accept(t.Context(), token, newcomer()); err != nil {
		t.Fatal(err)
	}
	nothing := func(name string, job mail.Job) {
		t.Helper()
		if msg, err := b.Compose(t.Context(), job); msg != nil || err != nil {
			t.Errorf("%s: %v, %v", name, msg, err)
		}
	}
	nothing("unknown", gone)
	nothing("revoked", revoked)
	nothing("accepted", job)
	b.move(7 * 24 * time.Hour)
	nothing("expired", expired)
	if b.find(t, made.ID).State != invitation.Accepted {
		t.Error("composing changed it")
	}
}

func TestRevoke(t *testing.T) {
	t.Parallel()
	b := setup(t)
	made, token := b.invite(t, ada, "")
	for range 2 { // a call that was not answered is made again
		if err := b.Revoke(t.Context(), made.ID); err != nil {
			t.Errorf("revoke: %v", err)
		}
	}
	if _, _, err := b.Accept(t.Context(), token, newcomer()); !errors.Is(err, invitation.ErrInvalid) {
		t.Errorf("accepted after that: %v", err)
	}
	if b.find(t, made.ID).State != invitation.Revoked || b.events.count(event.InvitationRevoked) != 2 {
		t.Error("it is not shown as revoked")
	}
	accepted, token := b.invite(t, "ben@example.com", "")
	if _, _, err := b.Accept(t.Context(), token, newcomer()); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"inv_nothing", accepted.ID, ""} {
		if err := b.Revoke(t.Context(), id); !errors.Is(err, invitation.ErrNotFound) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

// Pages hold everything once, in the order of creation, and a cursor is worth something
// in its own app and list only.
func TestList(t *testing.T) {
	t.Parallel()
	db := storetest.Database(t)
	b, other := setupOn(t, db, "shop"), setupOn(t, db, "other")
	var made []string
	for i := range 5 {
		one, _ := b.invite(t, fmt.Sprintf("%d@example.com", i), "")
		made = append(made, one.ID)
		b.move(time.Duration(i%2) * time.Second) // some share a moment
	}
	slices.SortStableFunc(made, func(x, y string) int {
		one, two := b.find(t, x), b.find(t, y)
		if c := one.CreatedAt.Compare(two.CreatedAt); c != 0 {
			return c
		}
		return strings.Compare(x, y)
	})
	for range 3 {
		_, _ = other.invite(t, ada, "")
	}
	var seen []string
	opts := invitation.ListOptions{Limit: 2}
	for pages := 0; ; pages++ {
		page, err := b.List(t.Context(), opts)
		if err != nil || pages > 3 {
			t.Fatalf("page %d: %v", pages, err)
		}
		for _, i := range page.Invitations {
			seen = append(seen, i.ID)
		}
		if opts.Cursor = page.Next; page.Next == "" {
			break
		}
	}
	if !slices.Equal(seen, made) {
		t.Errorf("%v, want %v", seen, made)
	}
	page, err := other.List(t.Context(), invitation.ListOptions{Limit: 1})
	if err != nil || page.Next == "" {
		t.Fatalf("%+v, %v", page, err)
	}
	for name, cursor := range map[string]string{
		"another app's": page.Next, "another list's": b.keys.SealPosition("users", b.now(), made[0]), "nonsense": "x", "changed": page.Next + "A",
	} {
		if _, err := b.List(t.Context(), invitation.ListOptions{Cursor: cursor}); !errors.Is(err, invitation.ErrInvalidCursor) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if empty, err := setupOn(t, db, "third").List(t.Context(), invitation.ListOptions{Limit: 100_000}); err != nil || empty.Invitations == nil || len(empty.Invitations) != 0 {
		t.Errorf("an empty list: %+v, %v", empty, err)
	}
}

// What was over for 30 days goes, and nothing of another app.
func TestSweep(t *testing.T) {
	t.Parallel()
	db := storetest.Database(t)
	b, other := setupOn(t, db, "shop"), setupOn(t, db, "other")
	_, _ = b.invite(t, ada, "")
	_, _ = other.invite(t, ada, "")
	b.move(37*24*time.Hour - time.Minute)
	if n, err := b.Sweep(t.Context()); n != 0 || err != nil {
		t.Errorf("too early: %d, %v", n, err)
	}
	b.move(2 * time.Minute)
	if n, err := b.Sweep(t.Context()); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if page, err := other.List(t.Context(), invitation.ListOptions{}); err != nil || len(page.Invitations) != 1 {
		t.Errorf("the other app has %+v, %v", page, err)
	}
}
