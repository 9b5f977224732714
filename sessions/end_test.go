package sessions_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/sessions"
)

func TestEndAllAndOthers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	kept, other := b.signIn(t), b.signIn(t)
	if err := b.EndOthers(b.ctx(), b.user, kept.SessionID, "test"); err != nil {
		t.Fatal(err)
	}
	if !b.revoked(other.SessionID) || b.revoked(kept.SessionID) || len(b.users) != 0 {
		t.Error("ending the others has to revoke each of them and nothing of the kept one")
	}
	b.refresh(t, other.RefreshToken, sessions.ErrExpired)
	kept = b.refresh(t, kept.RefreshToken, nil)
	if kept.Epoch != 1 {
		t.Errorf("epoch %d after ending the others, want 1", kept.Epoch)
	}
	if err := b.EndAll(b.ctx(), b.user, "test"); err != nil {
		t.Fatal(err)
	}
	if b.users[b.user] != 2 {
		t.Errorf("tokens below epoch %d are revoked, want 2", b.users[b.user])
	}
	b.refresh(t, kept.RefreshToken, sessions.ErrExpired)
	next := b.signIn(t)
	if next.Epoch != 2 {
		t.Errorf("a sign-in right after has epoch %d, want 2: it would be revoked with the rest", next.Epoch)
	}
	b.refresh(t, next.RefreshToken, nil)
	if err := b.Forget(b.ctx(), b.user); err != nil {
		t.Fatal(err)
	}
	if n, _ := b.coll().CountDocuments(b.ctx(), bson.M{}); n != 0 {
		t.Errorf("%d sessions are left of a forgotten user", n)
	}
}

// A sign-in that began before all sessions were ended must not survive it.
func TestSignInMeetsEndAll(t *testing.T) {
	t.Parallel()
	for _, signedInBefore := range []bool{false, true} {
		b := setup(t)
		if signedInBefore {
			b.signIn(t)
		}
		start, err := b.Begin(b.ctx(), b.user)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.EndAll(b.ctx(), b.user, "test"); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Create(b.ctx(), start, sessions.CreateOptions{}); !errors.Is(err, sessions.ErrEpochChanged) {
			t.Errorf("signed in before %t: got %v, want ErrEpochChanged", signedInBefore, err)
		}
		if len(b.live(t)) != 0 {
			t.Error("a session lives that began before the end of all")
		}
	}
}

// The process dies, or the blacklist fails, between any two steps: the call is
// not answered, and when it is repeated everything is dead.
func TestEndsCanBeRepeated(t *testing.T) {
	t.Parallel()
	calls := map[string]func(b *bench, i *sessions.Issued) error{
		"End":        func(b *bench, i *sessions.Issued) error { return b.End(b.ctx(), b.user, i.SessionID, "x") },
		"EndByToken": func(b *bench, i *sessions.Issued) error { return b.EndByToken(b.ctx(), i.RefreshToken, "x") },
		"EndAll":     func(b *bench, _ *sessions.Issued) error { return b.EndAll(b.ctx(), b.user, "x") },
		"EndOthers":  func(b *bench, _ *sessions.Issued) error { return b.EndOthers(b.ctx(), b.user, "ses_none", "x") },
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			issued := b.signIn(t)
			b.fail.Store(true)
			if err := call(b, issued); !errors.Is(err, errFake) {
				t.Fatalf("a revocation that was not stored: got %v, want an error", err)
			}
			if _, err := b.Refresh(b.ctx(), issued.RefreshToken, laptop); err == nil {
				t.Error("the session was refreshed after its end had begun")
			}
			b.fail.Store(false)
			if err := call(b, issued); err != nil {
				t.Fatalf("repeated: %v", err)
			}
			if !b.kills(issued) {
				t.Error("after the repetition nothing is on the blacklist")
			}
		})
	}
}

// An ended session gives its place in the head back at once.
func TestEndFreesThePlace(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *sessions.Config) { c.MaxPerUser, c.OnLimit = 1, sessions.Refuse })
	issued := b.signIn(t)
	if err := b.End(b.ctx(), b.user, issued.SessionID, "x"); err != nil {
		t.Fatal(err)
	}
	if n := len(b.head(t)); n != 0 {
		t.Errorf("the head names %d sessions after the only one has ended", n)
	}
	b.signIn(t)
}

// More sessions than are ended in one go.
func TestEndOthersEndsAllOfThem(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *sessions.Config) { c.MaxPerUser = 250 })
	keep := b.signIn(t)
	var others []*sessions.Issued
	for range 230 {
		others = append(others, b.signIn(t))
	}
	if err := b.EndOthers(b.ctx(), b.user, keep.SessionID, "x"); err != nil {
		t.Fatal(err)
	}
	for _, o := range others {
		if !b.kills(o) {
			t.Fatal("one of many other sessions was left on its own")
		}
	}
	if n, err := b.coll().CountDocuments(b.ctx(), bson.M{"state": "active"}); err != nil || n != 1 {
		t.Errorf("%d sessions are active, %v; want the kept one", n, err)
	}
}

// The app is moved to a shorter life of access tokens while one of the longer
// life is out: its revocation has to outlast it.
func TestRevocationOutlastsTheLongestAccessToken(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *sessions.Config) { c.AccessTTL = 24 * time.Hour })
	long := b.signIn(t)
	lowered := b.on(t, b.db)
	lowered.refresh(t, long.RefreshToken, nil)
	if err := lowered.End(b.ctx(), b.user, long.SessionID, "x"); err != nil {
		t.Fatal(err)
	}
	if !b.kills(long) {
		t.Error("the revocation is forgotten before the first access token ends: it would live again")
	}
}

func TestEndsRefuseWhatIsNotTheirs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	issued := b.signIn(t)
	for _, user := range []string{"", "usr_", "admin", issued.SessionID, strings.ToUpper(b.user)} {
		if err := b.EndAll(b.ctx(), user, "x"); !errors.Is(err, sessions.ErrNotFound) {
			t.Errorf("EndAll(%q): got %v, want ErrNotFound", user, err)
		}
		if err := b.End(b.ctx(), user, issued.SessionID, "x"); !errors.Is(err, sessions.ErrNotFound) {
			t.Errorf("End of the session as %q: got %v, want ErrNotFound", user, err)
		}
		if _, err := b.Begin(b.ctx(), user); err == nil {
			t.Errorf("a sign-in of %q began", user)
		}
	}
	unknown := issued.SessionID[:len(issued.SessionID)-26] + store.NewID("")
	for _, id := range []string{"", "ses_", unknown, issued.SessionID + "0", `{"$ne":""}`} {
		if err := b.End(b.ctx(), b.user, id, "x"); !errors.Is(err, sessions.ErrNotFound) {
			t.Errorf("End(%q): got %v, want ErrNotFound", id, err)
		}
	}
	b.refresh(t, issued.RefreshToken, nil)
}

// A sign-in while all or all other sessions are being ended lives.
func TestSignInDuringAnEnd(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(b *bench) error{
		"EndAll":    func(b *bench) error { return b.EndAll(b.ctx(), b.user, "x") },
		"EndOthers": func(b *bench) error { return b.EndOthers(b.ctx(), b.user, "ses_none", "x") },
	} {
		b := setup(t)
		old := b.signIn(t)
		revoking, hold, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		ending, p, _ := b.watched(t)
		at := map[string]string{"EndAll": "AddUser", "EndOthers": "AddSession"}[name]
		p.arm(at, func() {
			close(revoking)
			<-hold
		})
		go func() { ended <- end(ending) }()
		<-revoking
		during := b.signIn(t)
		close(hold)
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		b.refresh(t, old.RefreshToken, sessions.ErrExpired)
		b.refresh(t, during.RefreshToken, nil)
		if b.kills(during) {
			t.Errorf("%s revoked a session that began after it", name)
		}
	}
}

// A session that began as a guest's is no recent sign-in, whatever time is given for it and
// whatever the guest has become.
func TestGuestsProveNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, at := range []time.Time{{}, b.now()} {
		start, err := b.Begin(b.ctx(), b.user)
		if err != nil {
			t.Fatal(err)
		}
		guest, err := b.Create(b.ctx(), start, sessions.CreateOptions{Kind: authz.KindAnonymous, AuthTime: at})
		if err != nil {
			t.Fatal(err)
		}
		person, err := b.Refresh(b.ctx(), guest.RefreshToken, sessions.Device{})
		if err != nil || person.Kind != authz.KindHuman {
			t.Fatalf("%+v, %v", person, err)
		}
		for _, s := range []*sessions.Issued{guest, person} {
			if s.AuthTime.Unix() != 1 {
				t.Errorf("a %s has proved something at %v", s.Kind, s.AuthTime)
			}
		}
	}
	if s := b.signIn(t); time.Since(s.AuthTime) > time.Hour {
		t.Errorf("a person's sign-in is of %v", s.AuthTime)
	}
}
