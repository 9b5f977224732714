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
		"other spelling": first.RefreshToken[:len(first.RefreshToken)-1] + spelledOtherwise(first.RefreshToken[len(first.RefreshToken)-1]),
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

func FuzzRefreshToken(f *testing.F) {
	// A key of its own for each process: a token that another one found is
	// foreign here.
	b := setup(f, func(c *sessions.Config) { c.Keys = appKeys(f, "shop", secret.Random(32)) })
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

// spelledOtherwise is another last character that stands for the same bits: of
// the 43 characters of a MAC the last carries four.
func spelledOtherwise(c byte) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return string(alphabet[strings.IndexByte(alphabet, c)^1])
}

// The database was restored from a backup: the token is ahead of it. That is no
// theft, and nothing may be ended for it.
func TestTokenFromTheFuture(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first := b.signIn(t)
	second := b.refresh(t, first.RefreshToken, nil)
	if _, err := b.coll().UpdateOne(b.ctx(), bson.M{"_id": first.SessionID}, bson.M{"$set": bson.M{"generation": int64(1)}}); err != nil {
		t.Fatal(err)
	}
	b.refresh(t, second.RefreshToken, sessions.ErrTokenInvalid)
	if b.kills(first) {
		t.Error("a token from the future ended the session")
	}
	b.refresh(t, first.RefreshToken, nil)
}

// A stolen token that comes back from elsewhere is reuse all the same.
func TestReuseFromElsewhere(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *sessions.Config) { c.BindIP = sessions.BindRefuse })
	first := b.signIn(t)
	b.refresh(t, first.RefreshToken, nil)
	b.move(time.Minute)
	elsewhere := laptop
	elsewhere.Network = "198.51.100.7"
	if _, err := b.Refresh(b.ctx(), first.RefreshToken, elsewhere); !errors.Is(err, sessions.ErrReused) || !b.kills(first) {
		t.Errorf("got %v, want ErrReused and the session ended", err)
	}
}

// What the accounts cannot tell now is no answer about the session.
func TestAccountsUnavailable(t *testing.T) {
	t.Parallel()
	b := setup(t)
	issued := b.signIn(t)
	broken := b.on(t, b.db, func(c *sessions.Config) { c.Accounts = brokenAccounts{} })
	broken.refresh(t, issued.RefreshToken, store.ErrUnavailable)
	if _, err := broken.Check(b.ctx(), b.user, issued.SessionID); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("Check: got %v, want ErrUnavailable", err)
	}
	b.refresh(t, issued.RefreshToken, nil) // within the grace: nothing is lost
}

type brokenAccounts struct{}

func (brokenAccounts) Active(context.Context, string) (authz.Kind, error) {
	return "", store.ErrUnavailable
}

func (brokenAccounts) Exists(context.Context, string) (bool, error) {
	return false, store.ErrUnavailable
}

// The service's secret is changed: tokens of the old one are accepted as long as
// it is in the ring, and their successors come under the new one.
func TestSecretIsChanged(t *testing.T) {
	t.Parallel()
	before, after := secret.Random(32), secret.Random(32)
	b := setup(t, func(c *sessions.Config) { c.Keys = appKeys(t, "shop", before) })
	first := b.signIn(t)
	both := b.on(t, b.db, func(c *sessions.Config) { c.Keys = appKeys(t, "shop", after, before) })
	second := both.refresh(t, first.RefreshToken, nil)
	alone := b.on(t, b.db, func(c *sessions.Config) { c.Keys = appKeys(t, "shop", after) })
	alone.refresh(t, first.RefreshToken, sessions.ErrTokenInvalid)
	alone.refresh(t, second.RefreshToken, nil)
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
