package engine_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/engine"
	"github.com/mandate-auth/mandate/internal/store/storetest"
)

// withEdDSA is machines for an app with keys of its own.
var withEdDSA = strings.Replace(machines, `"issuer":"https://shop.example"`, `"issuer":"https://shop.example","algorithm":"EdDSA","transport":"both"`, 1)

// polls makes an engine learn by reading once a second.
func polls(o *engine.Options) { o.DisableChangeStreams = true }

// Two changes that are seen in the other order are both followed.
func TestChangesOfKeysOutOfOrder(t *testing.T) {
	t.Parallel()
	w := setup(t, ``)
	_, token := w.newUser(email)
	now := w.app.KeysEpoch()
	w.app.ObserveKeys(now+1, 1)
	w.app.ObserveKeys(now, 2)
	until(t, "the epoch is raised", func() bool { return w.app.KeysEpoch() == now+1 })
	w.want(w.do("GET", "/auth/me", nil, token), 401, "token_invalid")
}

// While an epoch is raised no keys of the one before are put to use.
func TestKeysAreUsedUnderTheLock(t *testing.T) {
	t.Parallel()
	w := setup(t, withEdDSA)
	release := w.app.HoldKeys()
	done := make(chan error, 1)
	go func() {
		_, err := w.app.Keys().RotateNow(t.Context())
		done <- err
	}()
	select {
	case err := <-done:
		t.Errorf("the new key was put to use: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	release()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A token of a key that this instance does not know yet can be ended here.
func TestEndingTokensOfNewKeys(t *testing.T) {
	t.Parallel()
	m := manifestOf(t, "shop", withEdDSA)
	a := newWorld(t, storetest.Database(t), m, polls)
	b := newWorld(t, storetest.Second(t, a.db, nil), m)
	client, secret := a.makeClient("worker")
	id, _ := a.newUser(email)
	if _, err := b.app.Keys().RotateNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	token, _, err := b.app.IssueClientToken(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	g, err := b.app.StartSession(t.Context(), id, engine.Device{}, false)
	if err != nil {
		t.Fatal(err)
	}
	if r := a.do("POST", "/auth/oauth2/revoke", form("token", token), asForm, basicAuth(client, secret)); r.status != 200 {
		t.Errorf("revoke: %d %s", r.status, r.raw)
	}
	a.want(a.me(token), 401, "token_revoked")
	if _, err := b.app.Keys().RotateNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	if g, err = b.app.StartSession(t.Context(), id, engine.Device{}, false); err != nil {
		t.Fatal(err)
	}
	logout := func() *response {
		return a.do("POST", "/auth/logout", obj(), header("Cookie", "__Host-shop_access="+g.Access.Token), header("X-Requested-With", "x"))
	}
	// It has just looked for keys, and does not say that it has ended what it could not.
	a.want(logout(), 503, "unavailable")
	until(t, "it knows the key", func() bool { return logout().status == 204 })
	a.want(a.me(g.Access.Token), 401, "token_revoked")
}

// An instance that cannot learn of keys refuses as one that cannot learn of
// revocations does.
func TestStaleKeysRefuse(t *testing.T) {
	t.Parallel()
	db, link := storetest.Linked(t)
	m := manifestOf(t, "shop", `"tokens":{"revocation":{"max_staleness":"1s","poll_interval":"200ms"}}`)
	a, b := newWorld(t, db, m), newWorld(t, storetest.Second(t, db, nil), m)
	_, token := a.newUser(email)
	h := a.app.RequireUser().Handler(ok)
	a.want(do(t, h, "GET", "/", nil, token), 200, "")
	link.Cut()
	defer link.Restore()
	until(t, "it refuses", func() bool { return do(t, h, "GET", "/", nil, token).status == 503 })
	if r := a.do("GET", "/auth/health", nil); r.status != 503 {
		t.Errorf("health: %d %s", r.status, r.raw)
	}
	link.Restore()
	if err := b.app.Keys().EndAllTokens(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Whatever the order in which it learns, the token is let through no more.
	for range 50 {
		if r := do(t, h, "GET", "/", nil, token); r.status == 200 {
			t.Fatal("let through after the outage")
		}
	}
	until(t, "it knows", func() bool { return do(t, h, "GET", "/", nil, token).code() == "token_invalid" })
}

// A document that is damaged holds up no app but its own.
func TestDamagedStateOfAnotherApp(t *testing.T) {
	t.Parallel()
	m := manifestOf(t, "shop", ``)
	a := newWorld(t, storetest.Database(t), m, polls)
	b := newWorld(t, storetest.Second(t, a.db, nil), m)
	_, token := a.newUser(email)
	for id, doc := range map[any]bson.M{
		"other": {"keys_epoch": "x", "changed_at": time.Now()}, 7: {"policy_epoch": bson.A{}, "changed_at": time.Now()},
		"third": {"keys_version": bson.M{}, "changed_at": time.Now()},
	} {
		doc["_id"] = id
		if _, err := a.db.Collection("app_state").InsertOne(t.Context(), doc); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.app.Keys().EndAllTokens(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "the other instance follows", func() bool { return a.do("GET", "/auth/me", nil, token).code() == "token_invalid" })
}

// Signing keys that cannot be read are no reason to go on with those that were.
func TestChangeThatCannotBeFollowed(t *testing.T) {
	t.Parallel()
	m := manifestOf(t, "shop", strings.Replace(withEdDSA, `"transport":"both"`, `"transport":"both","revocation":{"max_staleness":"1s","poll_interval":"200ms"}`, 1))
	w := newWorld(t, storetest.Database(t), m)
	_, token := w.newUser(email)
	h := w.app.RequireUser().Handler(ok)
	many := make([]any, 1001)
	for i := range many {
		many[i] = bson.M{"app": "shop", "junk": true}
	}
	if _, err := w.db.Collection("signing_keys").InsertMany(t.Context(), many); err != nil {
		t.Fatal(err)
	}
	w.want(do(t, h, "GET", "/", nil, token), 200, "")
	_, err := w.db.Collection("app_state").UpdateByID(t.Context(), "shop", bson.M{"$inc": bson.M{"keys_version": 1}, "$currentDate": bson.M{"changed_at": true}})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "it refuses", func() bool { return do(t, h, "GET", "/", nil, token).status == 503 })
	if _, err := w.db.Collection("signing_keys").DeleteMany(t.Context(), bson.M{"junk": true}); err != nil {
		t.Fatal(err)
	}
	until(t, "it goes on", func() bool { return do(t, h, "GET", "/", nil, token).status == 200 })
}

// A token of a new key is not taken for a forged one because the database is away,
// which would sign its owner out.
func TestNewKeysDuringAnOutage(t *testing.T) {
	t.Parallel()
	m := manifestOf(t, "shop", strings.Replace(withEdDSA, `"transport":"both"`, `"transport":"both","revocation":{"max_staleness":"1m"}`, 1))
	db, link := storetest.Linked(t)
	a, b := newWorld(t, db, m, polls), newWorld(t, storetest.Second(t, db, nil), m)
	id, _ := a.newUser(email)
	if _, err := b.app.Keys().RotateNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	g, err := b.app.StartSession(t.Context(), id, engine.Device{}, false)
	if err != nil {
		t.Fatal(err)
	}
	link.Cut()
	defer link.Restore()
	for range 3 {
		a.want(a.me(g.Access.Token), 503, "unavailable")
	}
}

// People whose cookies are of keys that have ended sign in and out at once, however
// many they are.
func TestSigningInAfterEndAllTokens(t *testing.T) {
	t.Parallel()
	for _, auth := range []string{withEdDSA, strings.Replace(withEdDSA, `"EdDSA"`, `"HS256"`, 1)} {
		w := setup(t, auth)
		id, _ := w.newUser(email)
		g, err := w.app.StartSession(t.Context(), id, engine.Device{}, false)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.app.Keys().EndAllTokens(t.Context()); err != nil {
			t.Fatal(err)
		}
		old := header("Cookie", "__Host-shop_access="+g.Access.Token)
		for range 3 {
			w.want(w.do("GET", "/auth/me", nil, old), 401, "token_invalid")
			w.want(w.do("POST", "/auth/login", with(account, "transport", "cookie"), old, header("X-Requested-With", "x")), 200, "")
			w.want(w.do("POST", "/auth/logout", obj(), old, header("X-Requested-With", "x")), 204, "")
		}
	}
}

// A refresh that was under way when everything ended brings no tokens that live.
func TestRefreshDuringEndAllTokens(t *testing.T) {
	t.Parallel()
	var raise atomic.Pointer[func()]
	w := newWorld(t, storetest.Database(t), manifestOf(t, "shop", machines), func(o *engine.Options) {
		o.Claims = func(context.Context, string, string) (map[string]any, error) {
			if f := raise.Swap(nil); f != nil {
				(*f)()
			}
			return nil, nil
		}
	})
	in := w.register()
	end := func() {
		if err := w.app.Keys().EndAllTokens(t.Context()); err != nil {
			t.Error(err)
		}
	}
	raise.Store(&end)
	w.want(w.do("POST", "/auth/refresh", obj("refresh_token", in.text("refresh_token"))), 401, "token_invalid")
}

// A date that is ahead does not hide what comes after it.
func TestDatesThatAreAhead(t *testing.T) {
	t.Parallel()
	m := manifestOf(t, "shop", ``)
	a := newWorld(t, storetest.Database(t), m, polls)
	b := newWorld(t, storetest.Second(t, a.db, nil), m)
	_, first := a.newUser(email)
	id, second := a.newUser("bob@example.com")
	ahead := time.Now().AddDate(1000, 0, 0)
	if _, err := a.db.Collection("app_state").InsertOne(t.Context(), bson.M{"_id": "other", "changed_at": ahead}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.db.Collection("token_blacklist").InsertOne(t.Context(), bson.M{"_id": "other|user|x", "app": "other", "revoked_at": ahead, "expires_at": ahead}); err != nil {
		t.Fatal(err)
	}
	// What is done after that arrives by a poll which has met the dates.
	third, sign := a.newUser("eve@example.com")
	if err := b.app.Users().Disable(t.Context(), third, "test"); err != nil {
		t.Fatal(err)
	}
	until(t, "a poll of the revocations", func() bool { return a.do("GET", "/auth/me", nil, sign).code() == "token_revoked" })
	if err := b.app.Authz().AddRules(t.Context(), rule(id, "documents", "read")); err != nil {
		t.Fatal(err)
	}
	reads := a.app.RequirePermission("documents", "read").Handler(ok)
	until(t, "a poll of the versions", func() bool { return do(t, reads, "GET", "/", nil, second).status == 200 })
	if err := b.app.Users().Disable(t.Context(), id, "test"); err != nil {
		t.Fatal(err)
	}
	until(t, "the revocation arrives", func() bool { return a.do("GET", "/auth/me", nil, second).code() == "token_revoked" })
	if err := b.app.Keys().EndAllTokens(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "the epoch arrives", func() bool { return a.do("GET", "/auth/me", nil, first).code() == "token_invalid" })
}
