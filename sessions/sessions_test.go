package sessions_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/event"

	"github.com/mandate-auth/mandate/authz"
	mevent "github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/sessions"
	"github.com/mandate-auth/mandate/tokens/secret"
)

func TestSignInRefreshAndEnd(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first := b.signIn(t)
	if first.Epoch != 0 || first.Remember || first.AccessExpiresAt.After(b.now().Add(15*time.Minute)) {
		t.Errorf("issued: %+v", first)
	}
	second := b.refresh(t, first.RefreshToken, nil)
	if second.SessionID != first.SessionID || second.RefreshToken == first.RefreshToken || !second.AuthTime.Equal(first.AuthTime) {
		t.Errorf("a refresh has to rotate the token and keep session and auth_time: %+v", second)
	}
	list := b.live(t)
	if len(list) != 1 || list[0].ID != first.SessionID || list[0].DeviceName != "laptop" || list[0].FirstIP != "192.0.2.1" {
		t.Errorf("List: %+v", list)
	}
	if kind, err := b.Check(b.ctx(), b.user, first.SessionID); err != nil || kind != authz.KindHuman {
		t.Errorf("Check: %v, %v", kind, err)
	}
	if err := b.End(b.ctx(), store.NewID("usr_"), first.SessionID, "test"); !errors.Is(err, sessions.ErrNotFound) {
		t.Errorf("another user ended the session: %v", err)
	}
	for range 2 { // ending what has ended succeeds
		if err := b.EndByToken(b.ctx(), first.RefreshToken, "logout"); err != nil {
			t.Fatal(err)
		}
	}
	if !b.revoked(first.SessionID) || len(b.live(t)) != 0 {
		t.Error("the ended session is not on the blacklist, or still listed")
	}
	b.refresh(t, second.RefreshToken, sessions.ErrExpired)
	if _, err := b.Check(b.ctx(), b.user, first.SessionID); !errors.Is(err, sessions.ErrExpired) {
		t.Errorf("Check of an ended session: %v", err)
	}
}

// 50 refreshes of one token at once: one successor, and nobody is signed out.
func TestParallelRefreshes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first := b.signIn(t)
	var mu sync.Mutex
	successors := map[string]bool{}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			issued, err := b.Refresh(b.ctx(), first.RefreshToken, laptop)
			if err != nil {
				t.Errorf("a refresh that lost the race was refused: %v", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			successors[issued.RefreshToken] = true
		})
	}
	wg.Wait()
	if len(successors) != 1 || b.count(mevent.SessionRefreshed) != 1 || b.count(mevent.RefreshReused) != 0 {
		t.Errorf("%d successors, %d rotations, %d reuses; want 1, 1, 0", len(successors), b.count(mevent.SessionRefreshed), b.count(mevent.RefreshReused))
	}
	for token := range successors {
		b.refresh(t, token, nil)
	}
}

func TestReuseEndsTheSession(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name      string
		rotations int
		wait      time.Duration
		want      error
	}{
		{"one behind, within the grace", 1, 9 * time.Second, nil},
		{"one behind, after the grace", 1, 11 * time.Second, sessions.ErrReused},
		{"two behind, within the grace", 2, 0, sessions.ErrReused},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			first := b.signIn(t)
			current := first
			for range tt.rotations {
				current = b.refresh(t, current.RefreshToken, nil)
			}
			b.move(tt.wait)
			again := b.refresh(t, first.RefreshToken, tt.want)
			if tt.want == nil {
				if again.RefreshToken != current.RefreshToken || again.AccessExpiresAt.After(current.AccessExpiresAt) {
					t.Errorf("within the grace the current token is answered and nothing is prolonged: %+v, %+v", again, current)
				}
				return
			}
			if !b.revoked(first.SessionID) || b.count(mevent.RefreshReused) != 1 {
				t.Error("a reused token left its session alive or unreported")
			}
			b.refresh(t, current.RefreshToken, sessions.ErrExpired)
		})
	}
}

// Knowing a session's id is not enough to touch it, and costs no database call.
func TestForgedTokensDoNothing(t *testing.T) {
	t.Parallel()
	var commands atomic.Int64
	db := storetest.Monitored(t, &event.CommandMonitor{Started: func(context.Context, *event.CommandStartedEvent) { commands.Add(1) }})
	b := setupOn(t, db)
	first := b.signIn(t)
	parts := strings.Split(first.RefreshToken, ".")
	replace := func(i int, s string) string {
		p := append([]string(nil), parts...)
		p[i] = s
		return strings.Join(p, ".")
	}
	forged := map[string]string{
		"random mac":     replace(4, strings.Repeat("A", len(parts[4]))),
		"cut mac":        replace(4, parts[4][:10]),
		"other user's":   replace(2, "ses_"+strings.TrimPrefix(store.NewID("usr_"), "usr_")+store.NewID("")),
		"generation up":  replace(3, "2"),
		"unknown key":    replace(1, "AAAAAAAAAAA"),
		"other version":  replace(0, "mrt2"),
		"line break":     first.RefreshToken + "\n",
		"empty":          "",
		"too long":       first.RefreshToken + strings.Repeat("x", 300),
		"extra segment":  first.RefreshToken + ".x",
		"operator":       `{"$ne":""}`,
		"leading zero":   replace(3, "01"),
		"bare session":   first.SessionID,
		"negative":       replace(3, "-1"),
		"of another app": strings.Replace(first.RefreshToken, parts[1], parts[1][1:]+"A", 1),
	}
	before := commands.Load()
	for name, token := range forged {
		if _, err := b.Refresh(b.ctx(), token, laptop); !errors.Is(err, sessions.ErrTokenInvalid) {
			t.Errorf("%s: got %v, want ErrTokenInvalid", name, err)
		}
		if err := b.EndByToken(b.ctx(), token, "x"); !errors.Is(err, sessions.ErrTokenInvalid) {
			t.Errorf("logout with %s: got %v, want ErrTokenInvalid", name, err)
		}
	}
	if n := commands.Load() - before; n != 0 {
		t.Errorf("forged tokens cost %d commands", n)
	}
	before = commands.Load()
	b.refresh(t, first.RefreshToken, nil)
	if n := commands.Load() - before; n != 2 {
		t.Errorf("a refresh cost %d commands besides the account's, want 2", n)
	}
}

func TestLimit(t *testing.T) {
	t.Parallel()
	for _, mode := range []sessions.OnLimit{sessions.EndOldest, sessions.Refuse} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			b := setup(t, func(c *sessions.Config) { c.MaxPerUser, c.OnLimit = 5, mode })
			var admitted, refused atomic.Int64
			var wg sync.WaitGroup
			for range 50 {
				wg.Go(func() {
					_, err := b.trySignIn(sessions.CreateOptions{Kind: authz.KindHuman})
					switch {
					case err == nil:
						admitted.Add(1)
					case errors.Is(err, sessions.ErrLimit):
						refused.Add(1)
					default:
						t.Errorf("sign-in: %v", err)
					}
				})
			}
			wg.Wait()
			var head struct{ Live []struct{ SID string } }
			if err := b.db.Collection("session_heads").FindOne(b.ctx(), bson.M{"_id": b.user}).Decode(&head); err != nil {
				t.Fatal(err)
			}
			if len(head.Live) != 5 || len(b.live(t)) != 5 {
				t.Errorf("%d sessions in the head, %d listed, want 5", len(head.Live), len(b.live(t)))
			}
			wantAdmitted := int64(50)
			if mode == sessions.Refuse {
				wantAdmitted = 5
			}
			if admitted.Load() != wantAdmitted || refused.Load() != 50-wantAdmitted {
				t.Errorf("%d admitted, %d refused", admitted.Load(), refused.Load())
			}
			if mode == sessions.EndOldest && len(b.fakes.sessions) != 45 {
				t.Errorf("%d evicted sessions are on the blacklist, want 45", len(b.fakes.sessions))
			}
		})
	}
}

// Sessions that are over by themselves must neither hold a place nor push a
// living one out.
func TestExpiredSessionsHoldNoPlace(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *sessions.Config) { c.MaxPerUser, c.OnLimit, c.IdleTimeout = 2, sessions.Refuse, time.Hour })
	kept := b.signIn(t)
	b.signIn(t)
	b.move(40 * time.Minute)
	kept = b.refresh(t, kept.RefreshToken, nil)
	if _, err := b.trySignIn(sessions.CreateOptions{}); !errors.Is(err, sessions.ErrLimit) {
		t.Fatalf("two live sessions: got %v, want ErrLimit", err)
	}
	b.move(40 * time.Minute)
	b.signIn(t)
	b.refresh(t, kept.RefreshToken, nil)
}

func TestExpiry(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *sessions.Config) { c.IdleTimeout, c.RefreshTTL = 10*time.Hour, 24*time.Hour })
	idle := b.signIn(t)
	b.move(10*time.Hour + time.Second)
	b.refresh(t, idle.RefreshToken, sessions.ErrExpired)

	sliding := b.signIn(t)
	for range 2 {
		b.move(9 * time.Hour)
		sliding = b.refresh(t, sliding.RefreshToken, nil)
	}
	b.move(5*time.Hour + 50*time.Minute)
	last := b.refresh(t, sliding.RefreshToken, nil)
	if left := last.AccessExpiresAt.Sub(b.now()); left > 10*time.Minute {
		t.Errorf("the access token outlives the session by %v", left-10*time.Minute)
	}
	b.move(11 * time.Minute)
	b.refresh(t, last.RefreshToken, sessions.ErrExpired)

	remembered, err := b.trySignIn(sessions.CreateOptions{Remember: true})
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		b.move(9 * time.Hour)
		remembered = b.refresh(t, remembered.RefreshToken, nil)
	}
	if !remembered.Remember {
		t.Error("a refresh forgot that the sign-in is remembered")
	}
	b.move(4 * time.Hour)
	b.refresh(t, remembered.RefreshToken, sessions.ErrExpired)
}

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

// Whoever signs in while all or all other sessions are being ended lives: only
// sessions that began before are ended.
func TestSignInDuringAnEnd(t *testing.T) {
	t.Parallel()
	ends := map[string]func(b *bench) error{
		"EndAll":    func(b *bench) error { return b.EndAll(b.ctx(), b.user, "x") },
		"EndOthers": func(b *bench) error { return b.EndOthers(b.ctx(), b.user, "ses_none", "x") },
	}
	for name, end := range ends {
		b := setup(t)
		old := b.signIn(t)
		var during *sessions.Issued
		b.onRevoke = func() {
			b.onRevoke = nil
			during = b.signIn(t)
		}
		if err := end(b); err != nil {
			t.Fatal(err)
		}
		if during == nil {
			t.Fatalf("%s revoked nothing", name)
		}
		b.refresh(t, old.RefreshToken, sessions.ErrExpired)
		b.refresh(t, during.RefreshToken, nil)
		if b.revoked(during.SessionID) {
			t.Errorf("%s revoked a session that began after it", name)
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
			if !b.revoked(issued.SessionID) && b.users[b.user] == 0 {
				t.Error("after the repetition nothing is on the blacklist")
			}
		})
	}
}

// The process dies after a stolen session was ended and before its revocation was
// stored: the next try of the thief, or of the owner, stores it.
func TestRevocationIsMadeUpFor(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first := b.signIn(t)
	b.refresh(t, first.RefreshToken, nil)
	b.move(time.Minute)
	b.fail.Store(true)
	b.refresh(t, first.RefreshToken, errFake)
	b.fail.Store(false)
	if b.revoked(first.SessionID) {
		t.Fatal("the blacklist did not fail")
	}
	b.refresh(t, first.RefreshToken, sessions.ErrExpired)
	if !b.revoked(first.SessionID) {
		t.Error("the access tokens of a stolen session live on")
	}
}

func TestDisabledAccountCannotRefresh(t *testing.T) {
	t.Parallel()
	b := setup(t)
	issued := b.signIn(t)
	b.gone.Store(true)
	b.refresh(t, issued.RefreshToken, sessions.ErrExpired)
	b.gone.Store(false)
	b.refresh(t, issued.RefreshToken, sessions.ErrExpired)
	if !b.revoked(issued.SessionID) {
		t.Error("the session of an account that is gone was not ended")
	}
}

func TestBinding(t *testing.T) {
	t.Parallel()
	update := laptop
	update.UserAgent = "Browser/13.0 (Linux)"
	phone := laptop
	phone.UserAgent = "Phone/1"
	elsewhere := laptop
	elsewhere.IP, elsewhere.Network = "198.51.100.7", "198.51.100.7"
	tests := []struct {
		name   string
		device sessions.Binding
		ip     sessions.Binding
		from   sessions.Device
		want   error
		event  mevent.Type
	}{
		{"same", sessions.BindRefuse, sessions.BindRefuse, laptop, nil, ""},
		{"updated browser", sessions.BindRefuse, sessions.BindRefuse, update, nil, ""},
		{"other browser refused", sessions.BindRefuse, sessions.BindOff, phone, sessions.ErrExpired, ""},
		{"other browser logged", sessions.BindLog, sessions.BindOff, phone, nil, mevent.DeviceChanged},
		{"other address refused", sessions.BindOff, sessions.BindRefuse, elsewhere, sessions.ErrExpired, ""},
		{"other address logged", sessions.BindOff, sessions.BindLog, elsewhere, nil, mevent.AddressChanged},
		{"unbound", sessions.BindOff, sessions.BindOff, phone, nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, func(c *sessions.Config) { c.BindDevice, c.BindIP = tt.device, tt.ip })
			issued := b.signIn(t)
			_, err := b.Refresh(b.ctx(), issued.RefreshToken, tt.from)
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if tt.event != "" && b.count(tt.event) != 1 {
				t.Errorf("%s was reported %d times", tt.event, b.count(tt.event))
			}
			if tt.want != nil {
				b.refresh(t, issued.RefreshToken, nil) // the owner is not harmed
			}
		})
	}
}

func TestActivityIsWrittenLater(t *testing.T) {
	t.Parallel()
	b := setup(t)
	issued := b.signIn(t)
	b.move(time.Hour)
	b.Seen(issued.SessionID)
	if err := b.Close(b.ctx()); err != nil {
		t.Fatal(err)
	}
	if seen := b.live(t)[0].LastSeenAt; b.now().Sub(seen) > time.Minute {
		t.Errorf("last seen %v ago", b.now().Sub(seen))
	}
}

func TestAppsAreApart(t *testing.T) {
	t.Parallel()
	db := storetest.Database(t)
	a := setupOn(t, db)
	other := setupOn(t, db, func(c *sessions.Config) { c.App = "other" })
	other.user = a.user
	issued := a.signIn(t)
	if err := other.End(other.ctx(), a.user, issued.SessionID, "x"); !errors.Is(err, sessions.ErrNotFound) {
		t.Errorf("another app ended the session: %v", err)
	}
	if list := other.live(t); len(list) != 0 {
		t.Errorf("another app lists %v", list)
	}
	if _, err := other.Refresh(other.ctx(), issued.RefreshToken, laptop); !errors.Is(err, sessions.ErrExpired) {
		t.Errorf("another app with the same keys refreshed the session: %v", err)
	}
	a.refresh(t, issued.RefreshToken, nil)
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	if _, err := sessions.New(storetest.Database(t), sessions.Config{}); err == nil {
		t.Error("an empty configuration was accepted")
	}
}

func FuzzRefreshToken(f *testing.F) {
	// A key of its own for each process: a token that another one found is
	// foreign here.
	b := setup(f, func(c *sessions.Config) { c.Keys = appKeys(f, secret.Random(32)) })
	token := b.signIn(f).RefreshToken
	f.Add(token)
	f.Add("mrt1.a.b.1.c")
	f.Fuzz(func(t *testing.T, in string) {
		if in == token {
			return
		}
		if err := b.EndByToken(b.ctx(), in, "x"); !errors.Is(err, sessions.ErrTokenInvalid) {
			t.Errorf("EndByToken(%q) = %v", in, err)
		}
	})
}

// BenchmarkRefresh is P7; BenchmarkFindOneAndUpdate is what it is compared with.
func BenchmarkRefresh(b *testing.B) {
	s := setup(b)
	token := s.signIn(b).RefreshToken
	for b.Loop() {
		issued, err := s.Refresh(s.ctx(), token, laptop)
		if err != nil {
			b.Fatal(err)
		}
		token = issued.RefreshToken
	}
}

func BenchmarkFindOneAndUpdate(b *testing.B) {
	s := setup(b)
	id := s.signIn(b).SessionID
	for b.Loop() {
		if err := s.coll().FindOneAndUpdate(s.ctx(), bson.M{"_id": id}, bson.M{"$inc": bson.M{"generation": int64(1)}}).Err(); err != nil {
			b.Fatal(err)
		}
	}
}
