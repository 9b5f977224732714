package identity_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/users"
	"github.com/mandate-auth/mandate/users/identity"
)

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for name, c := range map[string]identity.Config{
		"app": {Users: b.users, Keys: b.keys}, "users": {App: "shop", Keys: b.keys}, "keys": {App: "shop", Users: b.users},
		"policy": {App: "shop", Users: b.users, Keys: b.keys, Link: "always"},
	} {
		if _, err := identity.New(b.db, c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// Somebody who arrives gets an account once, and comes back to it by the subject alone.
func TestArrive(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in := b.arrives(t, acme("1", "Ada@Example.com"))
	u, err := b.users.Get(t.Context(), in.UserID)
	if err != nil || !in.New || in.Reclaimed || u.Email != "Ada@Example.com" || !u.EmailVerified || u.Kind != authz.KindHuman || u.Profile["name"] != "Ada" {
		t.Fatalf("%+v, %+v, %v", in, u, err)
	}
	for name, a := range map[string]identity.Arrival{
		"the same": acme("1", ada), "another address": acme("1", ben), "no address": acme("1", ""), "an address that is claimed": claimed("1", ben),
	} {
		if again := b.arrives(t, a); again.UserID != in.UserID || again.New || again.Reclaimed {
			t.Errorf("%s: %+v", name, again)
		}
	}
	if again, err := b.users.Get(t.Context(), in.UserID); err != nil || again.Email != "Ada@Example.com" {
		t.Errorf("the address followed the provider's: %+v, %v", again, err)
	}
	bolt := acme("1", ben)
	bolt.Provider = "bolt"
	if other := b.arrives(t, bolt); other.UserID == in.UserID {
		t.Error("the subject of another provider is the same person")
	}
}

// An address that a provider merely claims is nobody's: it neither finds an account nor
// keeps its owner out.
func TestArriveUnverified(t *testing.T) {
	t.Parallel()
	b := setup(t)
	owner := b.person(t, ada, true)
	for i, a := range []identity.Arrival{claimed("1", ada), acme("2", ""), {Provider: "acme", Issuer: issuer, Subject: "3", EmailVerified: true}, acme("4", "no address"), claimed("5", ben)} {
		in := b.arrives(t, a)
		if u, err := b.users.Get(t.Context(), in.UserID); err != nil || !in.New || in.UserID == owner.ID || u.Email != "" || u.EmailVerified {
			t.Errorf("%d: %+v, %+v, %v", i, in, u, err)
		}
	}
	b.person(t, ben, true)
}

// An account whose owner is known by both sides is linked, and its owner is told.
func TestArriveLinks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	owner := b.person(t, ada, true)
	in := b.arrives(t, acme("1", "ADA@example.com"))
	if in.UserID != owner.ID || in.New || in.Reclaimed {
		t.Errorf("%+v", in)
	}
	if st := b.state(t, owner.ID); !st.HasPassword || st.Owner != 0 || fmt.Sprint(b.listed(t, owner.ID)) != "[acme 1]" {
		t.Errorf("%+v, %v", st, b.listed(t, owner.ID))
	}
	if len(b.told) != 1 || b.told[0] != "linked acme "+owner.ID || b.count(event.IdentityLinked) != 1 {
		t.Errorf("told %v", b.told)
	}
}

// An account whose address nobody has verified belongs to whom the address belongs to, who
// gets it without the password and the identities of whoever made it.
func TestArriveReclaims(t *testing.T) {
	t.Parallel()
	b := setup(t, policy(identity.LinkVerified))
	squatter := b.person(t, ada, false)
	must(t, b.users.AddLink(t.Context(), b.state(t, squatter.ID), users.LinkOf("acme", "evil")))
	in := b.arrives(t, acme("1", ada))
	if in.UserID != squatter.ID || !in.Reclaimed || in.New {
		t.Errorf("%+v", in)
	}
	if st := b.state(t, in.UserID); st.HasPassword || !st.User.EmailVerified || len(st.Links) != 1 || st.Links[0] != "acme|1" {
		t.Errorf("%+v", st)
	}
	_, err := b.users.Confirm(t.Context(), users.ProveByLink(squatter.ID, "acme|evil"))
	wantErr(t, "the identity of before", err, users.ErrChanged)
}

// The other policies let nobody into an account that is there.
func TestArrivePolicies(t *testing.T) {
	t.Parallel()
	for _, p := range []identity.Policy{identity.LinkSignedIn, identity.LinkNever} {
		for _, verified := range []bool{true, false} {
			b := setup(t, policy(p))
			owner := b.person(t, ada, verified)
			_, err := b.Arrive(t.Context(), acme("1", ada))
			wantErr(t, string(p), err, identity.ErrAccountExists)
			if st := b.state(t, owner.ID); len(st.Links) != 0 || st.User.EmailVerified != verified || st.Owner != 0 {
				t.Errorf("%s: %+v", p, st)
			}
		}
	}
}

func TestArriveRefuses(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *identity.Config) { c.CreateUsers = false })
	for _, a := range []identity.Arrival{acme("1", ada), acme("1", ""), claimed("1", ada)} {
		_, err := b.Arrive(t.Context(), a)
		wantErr(t, "where nobody is made", err, identity.ErrNoAccount)
	}
	owner := b.person(t, ada, true)
	b.arrives(t, acme("1", ada)) // an account that is there is linked all the same
	must(t, b.users.Disable(t.Context(), owner.ID, ""))
	_, err := b.Arrive(t.Context(), acme("2", ada))
	wantErr(t, "a disabled account", err, users.ErrDisabled)
	moved := acme("1", ada)
	moved.Issuer = "https://other.example"
	_, err = b.Arrive(t.Context(), moved)
	wantErr(t, "another issuer under the provider's name", err, identity.ErrIssuer)
	wantErr(t, "linking that", b.Link(t.Context(), b.state(t, owner.ID), moved), identity.ErrIssuer)
	if b.accounts(t) != 1 {
		t.Errorf("%d accounts", b.accounts(t))
	}
}

// A guest who arrives is the person; an account that is there is entered as it is.
func TestArriveGuest(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for i, email := range []string{ada, ""} {
		a := acme(fmt.Sprint(i), email)
		a.Guest = b.guest(t)
		if in := b.arrives(t, a); in.UserID != a.Guest || !in.New {
			t.Errorf("%q: %+v", email, in)
		}
	}
	again := acme("0", ada)
	again.Guest = b.guest(t)
	if in := b.arrives(t, again); in.UserID == again.Guest || in.New {
		t.Errorf("%+v", in)
	}
	gone := acme("5", ben)
	gone.Guest = b.person(t, "eve@example.com", true).ID
	if in := b.arrives(t, gone); in.UserID == gone.Guest || !in.New {
		t.Errorf("a person as a guest: %+v", in)
	}
}

// Subjects are compared as they are: none is a path, an operator or another's.
func TestSubjects(t *testing.T) {
	t.Parallel()
	db := storetest.Database(t)
	b, other := setupOn(t, db, "shop"), setupOn(t, db, "other")
	seen := map[string]string{}
	for _, subject := range []string{"1", "1 ", "1|2", "|1", "$ne", `{"$gt":""}`, "a.b", "A.b", "é", "e\u0301", "\x00", "00000000-0000-0000-0000-000000000000"} {
		in := b.arrives(t, acme(subject, ""))
		if who, there := seen[in.UserID]; there || !in.New {
			t.Errorf("%q is %q", subject, who)
		}
		seen[in.UserID] = subject
		if again := b.arrives(t, acme(subject, "")); again.UserID != in.UserID {
			t.Errorf("%q does not come back", subject)
		}
		if foreign := other.arrives(t, acme(subject, "")); !foreign.New {
			t.Errorf("%q is known in another app", subject)
		}
		must(t, b.users.AddLink(t.Context(), b.state(t, in.UserID), "spare|"+subject))
		must(t, b.Unlink(t.Context(), in.UserID, "acme", subject))
	}
}

// Of sixteen who arrive at once as one new person there is one account.
func TestArriveAtOnce(t *testing.T) {
	t.Parallel()
	for name, a := range map[string]identity.Arrival{"a verified address": acme("1", ada), "no address": acme("1", ""), "a claimed one": claimed("1", ada)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			var mu sync.Mutex
			ids := map[string]int{}
			var wg sync.WaitGroup
			for range 16 {
				wg.Go(func() {
					in, err := b.Arrive(t.Context(), a)
					if err != nil {
						t.Errorf("%v", err)
						return
					}
					mu.Lock()
					defer mu.Unlock()
					ids[in.UserID]++
				})
			}
			wg.Wait()
			if len(ids) != 1 || b.accounts(t) != 1 {
				t.Errorf("they are %v, of %d accounts", ids, b.accounts(t))
			}
			b.arrives(t, a)
		})
	}
}

// Of many arrivals at an account that somebody squats on at least one enters it, nobody
// enters another, and whoever comes again is let in.
func TestReclaimAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	squatter := b.person(t, ada, false)
	var in atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			switch got, err := b.Arrive(t.Context(), acme("1", ada)); {
			case err == nil && got.UserID == squatter.ID:
				in.Add(1)
			case !errors.Is(err, users.ErrChanged):
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
	wg.Wait()
	if st := b.state(t, squatter.ID); in.Load() == 0 || st.Owner == 0 || st.HasPassword || !st.User.EmailVerified || len(st.Links) != 1 {
		t.Errorf("%d are in, %+v", in.Load(), st)
	}
	b.arrives(t, acme("1", ada))
}

// A call that died between the account and the identity is finished by the next arrival.
func TestArriveAfterDeath(t *testing.T) {
	t.Parallel()
	b := setup(t, policy(identity.LinkSignedIn))
	owner := b.person(t, ada, true)
	must(t, b.users.AddLink(t.Context(), b.state(t, owner.ID), "acme|1"))
	if in := b.arrives(t, acme("1", ada)); in.UserID != owner.ID || in.New {
		t.Errorf("%+v", in)
	}
	if fmt.Sprint(b.listed(t, owner.ID)) != "[acme 1]" {
		t.Errorf("%v", b.listed(t, owner.ID))
	}
}

// An identity whose account does not know it is forgotten; one that signs in is not.
func TestStale(t *testing.T) {
	t.Parallel()
	b := setup(t)
	a := acme("1", ada)
	in := b.arrives(t, a)
	if gone, err := b.Stale(t.Context(), a, in.UserID); gone || err != nil {
		t.Errorf("one that signs in: %v, %v", gone, err)
	}
	must(t, b.users.AddLink(t.Context(), b.state(t, in.UserID), "spare|1"))
	must(t, b.users.RemoveLink(t.Context(), in.UserID, "acme|1", false)) // and the call died
	again, err := b.Arrive(t.Context(), a)
	must(t, err)
	_, err = b.users.Confirm(t.Context(), again.Proof)
	wantErr(t, "one that was unlinked", err, users.ErrChanged)
	if gone, err := b.Stale(t.Context(), a, in.UserID); !gone || err != nil {
		t.Errorf("%v, %v", gone, err)
	}
	if n, err := b.db.Collection(identity.Collection).CountDocuments(t.Context(), bson.M{}); n != 0 || err != nil {
		t.Errorf("%d are left, %v", n, err)
	}
	nobody, err := b.Stale(t.Context(), a, "usr_nobody")
	if !nobody || err != nil {
		t.Errorf("of nobody: %v, %v", nobody, err)
	}
}

// Of many arrivals of one guest at once, by an identity without an address, all enter one
// account.
func TestGuestAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	a := acme("1", "")
	a.Guest = b.guest(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	ids := map[string]bool{}
	for range 8 {
		wg.Go(func() {
			in, err := b.Arrive(t.Context(), a)
			if err != nil {
				t.Errorf("%v", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			ids[in.UserID] = true
		})
	}
	wg.Wait()
	if len(ids) != 1 {
		t.Errorf("they are %v", ids)
	}
}
