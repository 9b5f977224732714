package users_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"golang.org/x/crypto/bcrypt"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/keys"
	"github.com/mandate-auth/mandate/tokens/secret"
	"github.com/mandate-auth/mandate/users"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// ender records which sessions were ended, and fails on demand.
type ender struct {
	mu    sync.Mutex
	calls []string
	fail  atomic.Bool
}

var errEnder = errors.New("sessions could not be ended")

func (e *ender) note(call string) error {
	if e.fail.Load() {
		return errEnder
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calls = append(e.calls, call)
	return nil
}

func (e *ender) EndAll(_ context.Context, id, reason string) error {
	return e.note("all " + id + " " + reason)
}

func (e *ender) EndOthers(_ context.Context, id, keep, _ string) error {
	return e.note("others " + id + " " + keep)
}
func (e *ender) Forget(_ context.Context, id string) error { return e.note("forget " + id) }

type bench struct {
	*users.Store
	ender   *ender
	db      *mongo.Database
	devices *tokens.Devices
	hashes  atomic.Int64
	offset  atomic.Int64
}

func (b *bench) now() time.Time       { return time.Now().Add(time.Duration(b.offset.Load())) }
func (b *bench) move(d time.Duration) { b.offset.Add(int64(d)) }

func setupOn(tb testing.TB, db *mongo.Database, edit ...func(*users.Config)) *bench {
	tb.Helper()
	b := &bench{ender: &ender{}, db: db}
	ring, err := keys.NewRing([]secret.Value{secret.FromString(strings.Repeat("s", 32))})
	if err != nil {
		tb.Fatal(err)
	}
	app, err := ring.App("shop", bytes.Repeat([]byte{1}, 32), 1)
	if err != nil {
		tb.Fatal(err)
	}
	hasher, err := users.NewHasher(users.HasherConfig{Slots: 2, QueuePerSlot: 1000, QueueDeadline: 20 * time.Second, OnHash: func() { b.hashes.Add(1) }})
	if err != nil {
		tb.Fatal(err)
	}
	b.devices = tokens.NewDevices(app)
	config := users.Config{
		App: "shop", BcryptCost: bcrypt.MinCost, Lockout: users.Lockout{Wait: time.Minute}, Hasher: hasher, Keys: app, Devices: b.devices, Sessions: b.ender, Now: b.now,
	}
	for _, f := range edit {
		f(&config)
	}
	if b.Store, err = users.New(db, config); err != nil {
		tb.Fatal(err)
	}
	if _, err := b.EnsureIndexes(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	return b
}

func setup(tb testing.TB, edit ...func(*users.Config)) *bench {
	tb.Helper()
	return setupOn(tb, storetest.Database(tb), edit...)
}

const password = "a fine long passphrase"

func (b *bench) create(tb testing.TB, email string) *users.User {
	tb.Helper()
	u, err := b.Create(tb.Context(), users.NewUser{Email: email, Password: password})
	if err != nil {
		tb.Fatal(err)
	}
	return u
}

func (b *bench) login(tb testing.TB, email, pw string) error {
	tb.Helper()
	_, err := b.Authenticate(tb.Context(), users.Credentials{Email: email, Password: pw})
	return err
}

func wantField(tb testing.TB, err error, field, code string) {
	tb.Helper()
	var f *users.FieldError
	if !errors.As(err, &f) || f.Field != field || f.Code != code {
		tb.Errorf("got %v, want a fault of %q with code %q", err, field, code)
	}
}

func TestCreateAndAuthenticate(t *testing.T) {
	t.Parallel()
	b := setup(t)
	u := b.create(t, "Ada.Lovelace@Example.COM")
	if u.Email != "Ada.Lovelace@Example.COM" || u.Kind != authz.KindHuman || u.Status != users.Active || u.EmailVerified {
		t.Errorf("created: %+v", u)
	}
	proof, err := b.Authenticate(t.Context(), users.Credentials{Email: "ada.lovelace@EXAMPLE.com", Password: password})
	if err != nil || proof.UserID() != u.ID {
		t.Fatalf("sign-in with another spelling: %v", err)
	}
	if confirmed, err := b.Confirm(t.Context(), proof); err != nil || confirmed.ID != u.ID {
		t.Errorf("Confirm: %v", err)
	}
	if _, err := b.Create(t.Context(), users.NewUser{Email: "ada.lovelace@example.com", Password: password}); !errors.Is(err, users.ErrEmailTaken) {
		t.Errorf("a taken address: %v", err)
	}
	if got, err := b.GetByEmail(t.Context(), "ADA.lovelace@example.com"); err != nil || got.ID != u.ID {
		t.Errorf("GetByEmail: %v", err)
	}
	raw, err := json.Marshal(u)
	if err != nil || strings.Contains(string(raw), "hash") || strings.Contains(string(raw), "mandate") {
		t.Errorf("the user as JSON: %s, %v", raw, err)
	}
	for _, bad := range []string{"", "a fine long passphras", "a fine long passphrase ", "A fine long passphrase"} {
		if err := b.login(t, "ada.lovelace@example.com", bad); !errors.Is(err, users.ErrInvalidCredentials) {
			t.Errorf("password %q: got %v", bad, err)
		}
	}
}

func TestParallelRegistrations(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var created, taken atomic.Int64
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			email := "ada@example.com"
			if i%2 == 0 {
				email = "ADA@Example.com"
			}
			_, err := b.Create(t.Context(), users.NewUser{Email: email, Password: password})
			switch {
			case err == nil:
				created.Add(1)
			case errors.Is(err, users.ErrEmailTaken):
				taken.Add(1)
			default:
				t.Errorf("register: %v", err)
			}
		})
	}
	wg.Wait()
	if created.Load() != 1 || taken.Load() != 19 || b.hashes.Load() != 20 {
		t.Errorf("%d created, %d taken, %d hashes; want 1, 19, 20", created.Load(), taken.Load(), b.hashes.Load())
	}
}

// bcrypt alone stops at 72 bytes and repeats at NUL: what differs must differ.
func TestLongAndOddPasswords(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *users.Config) { c.Password.AllowCommon, c.Password.MinLength = true, 8 })
	long := strings.Repeat("0123456789abcdef", 16)
	tests := []struct{ name, password, wrong string }{
		{"72 bytes", long[:72], long[:73]},
		{"73 bytes", long[:73], long[:72]},
		{"256 bytes", long, long[:255]},
		{"64 emoji", strings.Repeat("🦊", 63) + "🐻", strings.Repeat("🦊", 64)},
		{"NUL at the end", "secretpw\x00", "secretpw"},
		{"NUL and a repetition", "secretpw", "secretpw\x00secretpw"},
		{"spaces at the ends", " secret pw ", "secret pw"},
		{"case", "SECRETpw", "secretpw"},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			email := fmt.Sprintf("u%d@example.com", i)
			if _, err := b.Create(t.Context(), users.NewUser{Email: email, Password: tt.password}); err != nil {
				t.Fatal(err)
			}
			if err := b.login(t, email, tt.password); err != nil {
				t.Errorf("the password itself: %v", err)
			}
			if err := b.login(t, email, tt.wrong); !errors.Is(err, users.ErrInvalidCredentials) {
				t.Errorf("a password that differs: got %v", err)
			}
		})
	}
	if _, err := b.Create(t.Context(), users.NewUser{Email: "nfd@example.com", Password: "cafe\u0301 au lait"}); err != nil {
		t.Fatal(err)
	}
	if err := b.login(t, "nfd@example.com", "caf\u00e9 au lait"); err != nil {
		t.Errorf("the same text from another keyboard: %v", err)
	}
}

func TestChangePassword(t *testing.T) {
	t.Parallel()
	b := setup(t)
	u := b.create(t, "ada@example.com")
	proof, err := b.Authenticate(t.Context(), users.Credentials{Email: "ada@example.com", Password: password})
	if err != nil {
		t.Fatal(err)
	}
	change := func(current, next string) error {
		return b.ChangePassword(t.Context(), u.ID, users.PasswordChange{Current: current, New: next, KeepSession: "ses_1"})
	}
	if err := change("wrong", "another long passphrase"); !errors.Is(err, users.ErrInvalidCredentials) {
		t.Errorf("a wrong current password: %v", err)
	}
	wantField(t, change(password, "short"), "new_password", users.CodeTooShort)
	if err := change(password, "another long passphrase"); err != nil {
		t.Fatal(err)
	}
	if want := "others " + u.ID + " ses_1"; len(b.ender.calls) != 2 || b.ender.calls[0] != want || b.ender.calls[1] != want {
		t.Errorf("ended: %v, want %q before and after", b.ender.calls, want)
	}
	if _, err := b.Confirm(t.Context(), proof); !errors.Is(err, users.ErrChanged) {
		t.Errorf("a sign-in that began before: got %v, want ErrChanged", err)
	}
	if err := b.login(t, "ada@example.com", password); !errors.Is(err, users.ErrInvalidCredentials) {
		t.Errorf("the old password: %v", err)
	}
	for range 8 {
		_ = change("wrong", "yet another passphrase")
	}
	_ = change("wrong", "yet another passphrase")
	var lock *users.LockedError
	if err := change("another long passphrase", "yet another passphrase"); !errors.As(err, &lock) {
		t.Errorf("guessing by the change of password is not limited: %v", err)
	}
}

func TestDisableEnableDelete(t *testing.T) {
	t.Parallel()
	b := setup(t)
	u := b.create(t, "ada@example.com")
	proof, err := b.Authenticate(t.Context(), users.Credentials{Email: "ada@example.com", Password: password})
	if err != nil {
		t.Fatal(err)
	}
	b.ender.fail.Store(true)
	if err := b.Disable(t.Context(), u.ID, "test"); !errors.Is(err, errEnder) {
		t.Fatalf("Disable whose sessions could not be ended: %v", err)
	}
	if _, err := b.Confirm(t.Context(), proof); !errors.Is(err, users.ErrDisabled) {
		t.Errorf("a sign-in under way, after the first step: %v", err)
	}
	b.ender.fail.Store(false)
	if err := b.Disable(t.Context(), u.ID, "test"); err != nil {
		t.Fatalf("Disable, repeated: %v", err)
	}
	if _, err := b.Active(t.Context(), u.ID); !errors.Is(err, users.ErrDisabled) {
		t.Errorf("Active: %v", err)
	}
	if err := b.Enable(t.Context(), u.ID); err != nil {
		t.Fatal(err)
	}
	if err := b.login(t, "ada@example.com", password); err != nil {
		t.Errorf("after Enable: %v", err)
	}
	if err := b.Delete(t.Context(), u.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Get(t.Context(), u.ID); !errors.Is(err, users.ErrNotFound) {
		t.Errorf("after Delete: %v", err)
	}
	again := b.create(t, "ada@example.com")
	if again.ID == u.ID {
		t.Error("a new user of the address inherits the id")
	}
	for _, call := range []func(context.Context, string) error{
		b.Enable, b.Delete, func(ctx context.Context, id string) error { return b.Disable(ctx, id, "x") },
	} {
		if err := call(t.Context(), u.ID); !errors.Is(err, users.ErrNotFound) {
			t.Errorf("of a user that is gone: %v", err)
		}
	}
}

func TestGuestsAndDemo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	device := users.NewDeviceID()
	ids := map[string]bool{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			u, err := b.Anonymous(t.Context(), device)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			ids[u.ID] = true
		})
	}
	wg.Wait()
	if len(ids) != 1 {
		t.Errorf("one device became %d guests", len(ids))
	}
	demo, err := b.Demo(t.Context(), device)
	if err != nil || ids[demo.ID] || demo.Kind != authz.KindDemo {
		t.Errorf("the demo user of the device: %+v, %v", demo, err)
	}
	if n, _ := b.db.Collection("users").CountDocuments(t.Context(), bson.M{"device_hash": device}); n != 0 {
		t.Error("the device id is stored as it is")
	}
	for _, bad := range []string{"", "short", strings.Repeat("x", 129), strings.Repeat("x", 40) + "!", `{"$ne":""}`} {
		_, err := b.Anonymous(t.Context(), bad)
		wantField(t, err, "device_id", users.CodeInvalidField)
	}
	if err := b.Disable(t.Context(), demo.ID, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Demo(t.Context(), device); !errors.Is(err, users.ErrDisabled) {
		t.Errorf("a disabled demo user: %v", err)
	}
}

func TestSeedDemo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, pw := range []string{"one", "one", "two"} {
		if err := b.SeedDemo(t.Context(), []users.DemoUser{{Email: "admin@example.com", Password: pw}}); err != nil {
			t.Fatal(err)
		}
		if err := b.login(t, "admin@example.com", pw); err != nil {
			t.Errorf("the demo user with password %q: %v", pw, err)
		}
	}
	b.create(t, "ada@example.com")
	if err := b.SeedDemo(t.Context(), []users.DemoUser{{Email: "ada@example.com", Password: "x"}}); !errors.Is(err, users.ErrEmailTaken) {
		t.Errorf("a manifest gave a person another password: %v", err)
	}
}

func TestProfile(t *testing.T) {
	t.Parallel()
	b := setup(t)
	u := b.create(t, "ada@example.com")
	if _, err := b.UpdateProfile(t.Context(), u.ID, map[string]any{"nick": "ada", "tags": []any{"x", map[string]any{"n": 1.0}}}); err != nil {
		t.Fatal(err)
	}
	got, err := b.UpdateProfile(t.Context(), u.ID, map[string]any{"nick": nil, "city": "London"})
	if err != nil || got.Profile["nick"] != nil || got.Profile["city"] != "London" || got.Profile["tags"] == nil {
		t.Errorf("after a merge patch: %+v, %v", got, err)
	}
	nested := map[string]any{"a": map[string]any{"b": []any{map[string]any{"c": 1.0}}}}
	for range 2 { // the second time it is checked as it was stored
		if _, err := b.UpdateProfile(t.Context(), u.ID, nested); err != nil {
			t.Errorf("a nested profile: %v", err)
		}
		if _, err := b.UpdateProfile(t.Context(), u.ID, map[string]any{"other": true}); err != nil {
			t.Errorf("beside a nested profile: %v", err)
		}
	}
	deep := map[string]any{"a": map[string]any{"b": map[string]any{"c": map[string]any{"d": map[string]any{"e": 1.0}}}}}
	many := map[string]any{}
	for i := range 65 {
		many[fmt.Sprint("k", i)] = 1.0
	}
	for name, bad := range map[string]map[string]any{
		"operator": {"$set": 1.0}, "path": {"a.b": 1.0}, "nested operator": {"a": map[string]any{"$where": "x"}}, "empty name": {"": 1.0},
		"too deep": deep, "too many": many, "too large": {"a": strings.Repeat("x", 17<<10)}, "no JSON": {"a": func() {}}, "NUL name": {"a\x00": 1.0},
	} {
		_, err := b.UpdateProfile(t.Context(), u.ID, bad)
		var f *users.FieldError
		if !errors.As(err, &f) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			if _, err := b.UpdateProfile(t.Context(), u.ID, map[string]any{fmt.Sprint("p", i): true}); err != nil && !errors.Is(err, users.ErrChanged) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestList(t *testing.T) {
	t.Parallel()
	b := setup(t)
	want := map[string]bool{}
	for i := range 7 {
		want[b.create(t, fmt.Sprintf("u%d@example.com", i)).ID] = true
	}
	got := map[string]bool{}
	opts := users.ListOptions{Limit: 3}
	for pages := 1; ; pages++ {
		page, err := b.List(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range page.Users {
			got[u.ID] = true
		}
		if page.Next == "" {
			if pages != 3 {
				t.Errorf("%d pages, want 3", pages)
			}
			break
		}
		opts.Cursor = page.Next
	}
	if len(got) != 7 {
		t.Errorf("%d users in all pages, want 7", len(got))
	}
	for name, bad := range map[string]users.ListOptions{
		"forged": {Cursor: opts.Cursor[:len(opts.Cursor)-2] + "AA"}, "of another selection": {Cursor: opts.Cursor, Status: users.Disabled},
		"no cursor": {Cursor: "x.y"}, "operator": {Cursor: `{"$gt":""}`},
	} {
		if _, err := b.List(t.Context(), bad); !errors.Is(err, users.ErrInvalidCursor) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestAppsAreApart(t *testing.T) {
	t.Parallel()
	db := storetest.Database(t)
	a, other := setupOn(t, db), setupOn(t, db, func(c *users.Config) { c.App = "other" })
	u := a.create(t, "ada@example.com")
	other.create(t, "ada@example.com")
	if _, err := other.Get(t.Context(), u.ID); !errors.Is(err, users.ErrNotFound) {
		t.Errorf("Get of another app's user: %v", err)
	}
	if err := other.Delete(t.Context(), u.ID); !errors.Is(err, users.ErrNotFound) {
		t.Errorf("Delete of another app's user: %v", err)
	}
	page, err := other.List(t.Context(), users.ListOptions{})
	if err != nil || len(page.Users) != 1 || page.Users[0].ID == u.ID {
		t.Errorf("List: %+v, %v", page, err)
	}
	for range 10 {
		_ = a.login(t, "ada@example.com", "wrong")
	}
	if err := other.login(t, "ada@example.com", password); err != nil {
		t.Errorf("failures in one app locked another: %v", err)
	}
}
