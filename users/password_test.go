package users_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"golang.org/x/crypto/bcrypt"

	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/tokens/secret"
	"github.com/mandate-auth/mandate/users"
)

func TestCheckPassword(t *testing.T) {
	t.Parallel()
	mfa := users.Policy{MinLength: 8}
	tests := []struct {
		password string
		policy   users.Policy
		code     string
	}{
		{"fourteen chars", users.Policy{}, users.CodeTooShort},
		{"fifteen chars !", users.Policy{}, ""},
		{"seven c", mfa, users.CodeTooShort},
		{"zvqkfmwb", mfa, ""},
		{"password", mfa, users.CodeCommon},
		{"passwordpassword", users.Policy{}, users.CodeCommon},
		{"password12345678", users.Policy{}, users.CodeCommon},
		{"123456789012345", users.Policy{}, users.CodeCommon},
		{"aaaaaaaaaaaaaaa", users.Policy{}, users.CodeCommon},
		{"qwertyuiopasdfgh", users.Policy{}, users.CodeCommon},
		{"qwertyuiopasdfgh", users.Policy{AllowCommon: true}, ""},
		{"lovelace-bookshop", users.Policy{}, users.CodeCommon},
		{"lovelace-bookshop", users.Policy{AllowContext: true}, ""},
		{"correct horse battery staple", users.Policy{}, ""},
		{strings.Repeat("a", 32) + "xK9#mQ2$vL5", users.Policy{}, ""},
		{strings.Repeat("4@8({[<369&#!1/|0$5+7%2", 11), users.Policy{}, ""},
		{"correct horse battery staple", users.Policy{MinEntropyBits: 90}, users.CodeCommon},
		{strings.Repeat("🦊", 14), users.Policy{AllowCommon: true}, users.CodeTooShort},
		{strings.Repeat("ab c", 65), users.Policy{AllowCommon: true}, users.CodeTooLong},
		{"not \xff UTF-8 at all", users.Policy{}, users.CodeInvalidField},
	}
	for _, tt := range tests {
		r := users.CheckPassword(tt.policy, tt.password, "bookshop", "ada.lovelace@example.com")
		got := ""
		if len(r.Reasons) > 0 {
			got = r.Reasons[0].Code
		}
		if got != tt.code || r.OK != (tt.code == "") {
			t.Errorf("CheckPassword(%q, %+v) = %+v, want %q", tt.password, tt.policy, r, tt.code)
		}
	}
	if r := users.CheckPassword(users.Policy{}, "password"); len(r.Reasons) != 2 {
		t.Errorf("all reasons are told at once, got %+v", r.Reasons)
	}
}

type breaches struct {
	found bool
	err   error
}

func (b breaches) Breached(context.Context, string) (bool, error) { return b.found, b.err }

func TestBreachCheck(t *testing.T) {
	t.Parallel()
	tests := []struct {
		mode    users.BreachMode
		checker breaches
		code    string
	}{
		{users.BreachRefuse, breaches{found: true}, users.CodeBreached},
		{users.BreachRefuse, breaches{found: false}, ""},
		{users.BreachRefuse, breaches{err: errors.New("away")}, ""},
		{users.BreachWarn, breaches{found: true}, ""},
	}
	for i, tt := range tests {
		b := setup(t, func(c *users.Config) { c.Password.Breach, c.Breach = tt.mode, tt.checker })
		_, err := b.Create(t.Context(), users.NewUser{Email: "ada@example.com", Password: password})
		if tt.code == "" && err != nil {
			t.Errorf("case %d: %v", i, err)
		} else if tt.code != "" {
			wantField(t, err, "password", tt.code)
		}
	}
}

func TestHashesAreRenewed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	u := b.create(t, "ada@example.com")
	plain, err := bcrypt.GenerateFromPassword([]byte("an imported passphrase"), bcrypt.MinCost+1)
	if err != nil {
		t.Fatal(err)
	}
	stored := func() string {
		var doc struct {
			Hash string `bson:"password_hash"`
		}
		if err := b.db.Collection("users").FindOne(t.Context(), bson.M{"_id": u.ID}).Decode(&doc); err != nil {
			t.Fatal(err)
		}
		return doc.Hash
	}
	for _, prefix := range []string{"$2a$", "$2b$", "$2y$"} {
		if _, err := b.db.Collection("users").UpdateOne(t.Context(), bson.M{"_id": u.ID},
			bson.M{"$set": bson.M{"password_hash": prefix + string(plain[4:])}}); err != nil {
			t.Fatal(err)
		}
		proof, err := b.Authenticate(t.Context(), users.Credentials{Email: "ada@example.com", Password: "an imported passphrase"})
		if err != nil {
			t.Fatalf("%s: %v", prefix, err)
		}
		if _, err := b.Confirm(t.Context(), proof); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(stored(), "$mandate$p=0$2a$04$") {
			t.Errorf("%s: the hash was not renewed: %s", prefix, stored())
		}
		if err := b.login(t, "ada@example.com", "an imported passphrase"); err != nil {
			t.Errorf("after the renewal: %v", err)
		}
	}
}

func TestPlainHashesMatchWhole(t *testing.T) {
	t.Parallel()
	h, err := users.NewHasher(users.HasherConfig{})
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 72)
	for password, wrong := range map[string]string{long: long + "y", "secretpw": "secretpw\x00secretpw", "a": "a\x00a"} {
		plain, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := h.Verify(t.Context(), string(plain), password); !ok || err != nil {
			t.Errorf("%.10q: %t, %v", password, ok, err)
		}
		if ok, _ := h.Verify(t.Context(), string(plain), wrong); ok {
			t.Errorf("%.10q matches %.20q", password, wrong)
		}
	}
	if ok, err := h.Verify(t.Context(), "plain text", "plain text"); ok || err == nil {
		t.Errorf("a stored text that is no hash: %t, %v", ok, err)
	}
}

func TestPeppers(t *testing.T) {
	t.Parallel()
	pepper := func(id, key string) users.Pepper {
		return users.Pepper{ID: id, Key: secret.FromString(strings.Repeat(key, 32))}
	}
	hasher := func(p ...users.Pepper) *users.Hasher {
		h, err := users.NewHasher(users.HasherConfig{Peppers: p})
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	old, both, other := hasher(pepper("1", "a")), hasher(pepper("2", "b"), pepper("1", "a")), hasher(pepper("1", "c"))
	stored, err := old.Hash(t.Context(), bcrypt.MinCost, "x")
	if err != nil {
		t.Fatal(err)
	}
	if ok, _ := both.Verify(t.Context(), stored, "x"); !ok || !both.NeedsRehash(stored, bcrypt.MinCost) || old.NeedsRehash(stored, bcrypt.MinCost) {
		t.Error("a hash of an older pepper has to verify and to be renewed")
	}
	if ok, _ := other.Verify(t.Context(), stored, "x"); ok {
		t.Error("a hash verifies under another pepper")
	}
	for name, p := range map[string][]users.Pepper{
		"short": {{ID: "1", Key: secret.FromString("x")}}, "reserved": {pepper("0", "a")}, "twice": {pepper("1", "a"), pepper("1", "b")}, "bad id": {pepper("a$b", "a")},
	} {
		if _, err := users.NewHasher(users.HasherConfig{Peppers: p}); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// A crowd that the machine cannot hash is turned away, not queued for ever.
func TestHasherIsBounded(t *testing.T) {
	t.Parallel()
	h, err := users.NewHasher(users.HasherConfig{Slots: 1, QueuePerSlot: 1, QueueDeadline: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	results := make(chan error, 20)
	for range cap(results) {
		go func() {
			_, err := h.Hash(context.Background(), 10, "x")
			results <- err
		}()
	}
	busy := 0
	for range cap(results) {
		if err := <-results; err != nil {
			busy++
			if !errors.Is(err, users.ErrBusy) || !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("got %v, want ErrBusy", err)
			}
		}
	}
	if busy == 0 || busy == cap(results) {
		t.Errorf("%d of %d were turned away", busy, cap(results))
	}
}

func TestNormalizeEmail(t *testing.T) {
	t.Parallel()
	good := map[string]string{
		"Ada@Example.COM":         "ada@example.com",
		"straße@bücher.example":   "straße@xn--bcher-kva.example",
		"ADA@BÜCHER.example":      "ada@xn--bcher-kva.example",
		"STRASSE@example.com":     "strasse@example.com",
		"ΣΊΣΥΦΟΣ@example.com":     "σίσυφοσ@example.com",
		"İstanbul@example.com":    "İstanbul@example.com",
		"a.b+tag@sub.example.com": "a.b+tag@sub.example.com",
		"o'brien@example.com":     "o'brien@example.com",
		"cafe\u0301@example.com":  "café@example.com",
		"admin@localhost":         "admin@localhost",
		"x_y-z!#$%&*@example.com": "x_y-z!#$%&*@example.com",
		"ada@EXAMPLE。com":         "ada@example.com",
	}
	for in, want := range good {
		if got, err := users.NormalizeEmail(in); got != want || err != nil {
			t.Errorf("NormalizeEmail(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
	bad := []string{
		"", "ada", "@example.com", "ada@", "a@b@c", "a@b,c@d", "a@b.example;c@d.example", " ada@example.com", "ada@example.com ",
		"ada@example.com\r\nBcc: x@y", "\"ada x\"@example.com", "<ada@example.com>", "Ada <ada@example.com>", "ada@[127.0.0.1]",
		".ada@example.com", "ada.@example.com", "a..b@example.com", "ada@example.com.", "ada@.example.com", "ada@exa mple.com",
		"ada\x00@example.com", "ada@exam\u200bple.com\u202e", strings.Repeat("a", 65) + "@example.com", "a@" + strings.Repeat("b", 300), "ada@-x.example", "\xff@example.com",
		// Letters that are others to Unicode can be other mailboxes.
		"ａｄａ@example.com", "\u212Aate@example.com", "\u017Fam@example.com", "ﬀ@example.com", "①@example.com", "\u2126@example.com",
	}
	for _, in := range bad {
		if got, err := users.NormalizeEmail(in); err == nil {
			t.Errorf("NormalizeEmail(%q) = %q, want a refusal", in, got)
		}
	}
}

func FuzzNormalizeEmail(f *testing.F) {
	for _, s := range []string{"Ada@Example.COM", "straße@bücher.example", "a@b,c@d", "ﬀ@ß.example", "İ@example.com"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		once, err := users.NormalizeEmail(in)
		if err != nil {
			return
		}
		twice, err := users.NormalizeEmail(once)
		if err != nil || twice != once {
			t.Errorf("NormalizeEmail(%q) = %q, and again %q, %v", in, once, twice, err)
		}
		if strings.Count(once, "@") != 1 || strings.ContainsAny(once, " ,;<>\r\n\x00") {
			t.Errorf("NormalizeEmail(%q) = %q", in, once)
		}
	})
}
