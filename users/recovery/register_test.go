package recovery_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/mail"
	"github.com/mandate-auth/mandate/users"
	"github.com/mandate-auth/mandate/users/recovery"
)

// verifying is an app where addresses have to be verified.
func verifying(t *testing.T) *bench {
	t.Helper()
	return setupOn(t, storetest.Database(t), []string{"s"}, true)
}

// registers prepares and hands in a registration, and returns its job.
func (b *bench) registers(t *testing.T, n users.NewUser) mail.Job {
	t.Helper()
	if n.Password == "" {
		n.Password = password
	}
	p, err := b.users.Prepare(t.Context(), n)
	must(t, err)
	must(t, b.Register(t.Context(), p, recovery.From{}))
	return b.take(t)
}

// verifies uses the link of a mail.
func (b *bench) verifies(t *testing.T, m *mail.Message) (*users.User, error) {
	t.Helper()
	found := tokenIn.FindStringSubmatch(m.Text)
	if found == nil {
		t.Fatalf("no link: %s", m.Text)
	}
	return b.VerifyEmail(t.Context(), found[1])
}

// An account is made when the link is used, and once: a job that is composed again mails
// the same link.
func TestRegister(t *testing.T) {
	t.Parallel()
	b := verifying(t)
	job := b.registers(t, users.NewUser{Email: "Ada@Example.com", Profile: map[string]any{"nickname": "Ada"}})
	first, err := b.Compose(t.Context(), job)
	must(t, err)
	again, err := b.Compose(t.Context(), job)
	if err != nil || again.Text != first.Text {
		t.Errorf("again: %v, %v", again, err)
	}
	if _, err := b.users.GetByEmail(t.Context(), ada); !errors.Is(err, users.ErrNotFound) {
		t.Errorf("the account is there before: %v", err)
	}
	u, err := b.verifies(t, first)
	if err != nil || u.Email != "Ada@Example.com" || !u.EmailVerified || u.Profile["nickname"] != "Ada" || first.To != "Ada@Example.com" {
		t.Fatalf("%+v, %v, to %s", u, err, first.To)
	}
	if _, err := b.verifies(t, first); !errors.Is(err, recovery.ErrInvalid) {
		t.Errorf("used again: %v", err)
	}
	if page, err := b.users.List(t.Context(), users.ListOptions{}); err != nil || len(page.Users) != 1 {
		t.Errorf("%+v, %v", page, err)
	}
}

// What a registration holds is sealed on its way, for this job alone.
func TestRegisterSealed(t *testing.T) {
	t.Parallel()
	b := verifying(t)
	job := b.registers(t, users.NewUser{Email: ada, Profile: map[string]any{"nickname": "canary"}})
	raw, err := json.Marshal(job)
	must(t, err)
	if text := string(raw); strings.Contains(text, "canary") || strings.Contains(text, "$2") {
		t.Errorf("it can be read: %s", text)
	}
	other := b.registers(t, users.NewUser{Email: ben})
	mixed := other
	mixed.Data = job.Data
	none := other
	none.Data = nil
	for name, job := range map[string]mail.Job{"another's": mixed, "nothing": none} {
		if msg, err := b.Compose(t.Context(), job); err == nil || msg != nil {
			t.Errorf("%s: composed %v", name, msg)
		}
	}
}

// The largest profile that an account can have can be registered with.
func TestRegisterLargestProfile(t *testing.T) {
	t.Parallel()
	b := verifying(t)
	profile := map[string]any{}
	for i := range 15 {
		profile[fmt.Sprintf("member_%02d", i)] = strings.Repeat("<", 177) // six bytes each as JSON
	}
	profile["rest"] = ""
	raw, err := json.Marshal(profile)
	must(t, err)
	profile["rest"] = strings.Repeat("x", 16<<10-len(raw))
	local := strings.Repeat("a", 64)
	address := local + "@" + strings.Repeat(strings.Repeat("b", 59)+".", 3) + "example"
	job := b.registers(t, users.NewUser{Email: address, Profile: profile, Guest: b.guest(t)})
	msg, err := b.Compose(t.Context(), job)
	must(t, err)
	u, err := b.verifies(t, msg)
	if err != nil || u.Email != address || len(u.Profile) != len(profile) {
		t.Errorf("%v", err)
	}
}

// Whoever has an address that somebody registers with is told, without a link.
func TestRegisterTaken(t *testing.T) {
	t.Parallel()
	b := verifying(t)
	owner := b.person(t, ada, true)
	job := b.registers(t, users.NewUser{Email: ada, Password: fresh})
	msg, err := b.Compose(t.Context(), job)
	if err != nil || tokenIn.MatchString(msg.Text) || !strings.Contains(strings.ToLower(msg.Subject+msg.Text), "account") {
		t.Errorf("%+v, %v", msg, err)
	}
	if u, err := b.users.GetByEmail(t.Context(), ada); err != nil || u.ID != owner.ID {
		t.Errorf("%+v, %v", u, err)
	}
	must(t, b.users.Disable(t.Context(), owner.ID, ""))
	if msg, err := b.Compose(t.Context(), job); msg != nil || err != nil {
		t.Errorf("a disabled account is told: %v, %v", msg, err)
	}
}

// A guest who registers is a guest until the address is verified, and then the person.
func TestRegisterGuest(t *testing.T) {
	t.Parallel()
	b := verifying(t)
	guest := b.guest(t)
	msg, err := b.Compose(t.Context(), b.registers(t, users.NewUser{Email: ada, Guest: guest}))
	must(t, err)
	if u, err := b.users.Get(t.Context(), guest); err != nil || u.Email != "" || u.Kind != authz.KindAnonymous {
		t.Errorf("before: %+v, %v", u, err)
	}
	u, err := b.verifies(t, msg)
	if err != nil || u.ID != guest || u.Kind != authz.KindHuman || !u.EmailVerified {
		t.Errorf("after: %+v, %v", u, err)
	}
}

// A guest who is somebody by now stays that: who registered is somebody else.
func TestRegisterGuestGone(t *testing.T) {
	t.Parallel()
	b := verifying(t)
	guest := b.guest(t)
	job := b.registers(t, users.NewUser{Email: ada, Guest: guest})
	if _, err := b.users.Create(t.Context(), users.NewUser{Email: ben, Password: password, Guest: guest, Verified: true}); err != nil {
		t.Fatal(err)
	}
	msg, err := b.Compose(t.Context(), job)
	must(t, err)
	if u, err := b.verifies(t, msg); err != nil || u.ID == guest || u.Email != ada {
		t.Errorf("%+v, %v", u, err)
	}
	if u, err := b.users.Get(t.Context(), guest); err != nil || u.Email != ben {
		t.Errorf("%+v, %v", u, err)
	}
}
