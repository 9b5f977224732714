package identity_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/users"
	"github.com/mandate-auth/mandate/users/identity"
)

// While somebody is signed in any identity of theirs is linked where the policy says so,
// and its owner is told once.
func TestLink(t *testing.T) {
	t.Parallel()
	b := setup(t, policy(identity.LinkSignedIn))
	owner := b.person(t, ada, false)
	for range 2 { // linking it again changes nothing
		must(t, b.Link(t.Context(), b.state(t, owner.ID), claimed("1", ben)))
	}
	if in := b.arrives(t, acme("1", "")); in.UserID != owner.ID || in.New {
		t.Errorf("%+v", in)
	}
	if len(b.told) != 1 || b.told[0] != "linked acme "+owner.ID || b.count(event.IdentityLinked) != 1 {
		t.Errorf("told %v", b.told)
	}
}

// The policy of verified addresses holds while somebody is signed in as well.
func TestLinkVerified(t *testing.T) {
	t.Parallel()
	b := setup(t)
	known, unknown := b.person(t, ada, true), b.person(t, ben, false)
	for name, c := range map[string]struct {
		id string
		a  identity.Arrival
	}{
		"another address": {known.ID, acme("1", ben)}, "a claimed address": {known.ID, claimed("1", ada)}, "no address": {known.ID, acme("1", "")},
		"an account that is not verified": {unknown.ID, acme("1", ben)},
	} {
		wantErr(t, name, b.Link(t.Context(), b.state(t, c.id), c.a), identity.ErrLinkForbidden)
	}
	must(t, b.Link(t.Context(), b.state(t, known.ID), acme("1", "ADA@example.com")))
	never := setup(t, policy(identity.LinkNever))
	owner := never.person(t, ada, true)
	wantErr(t, "never", never.Link(t.Context(), never.state(t, owner.ID), acme("1", ada)), identity.ErrLinkForbidden)
}

// An identity that signs in elsewhere is not taken away from there, and the state of before
// is worth nothing once the account has another owner.
func TestLinkRefuses(t *testing.T) {
	t.Parallel()
	b := setup(t, policy(identity.LinkSignedIn))
	other := b.arrives(t, acme("1", ""))
	owner := b.person(t, ada, false)
	st := b.state(t, owner.ID)
	wantErr(t, "another's", b.Link(t.Context(), st, acme("1", "")), identity.ErrTaken)
	if got := b.state(t, owner.ID); len(got.Links) != 0 || b.arrives(t, acme("1", "")).UserID != other.UserID {
		t.Errorf("%+v", got)
	}
	for i := range users.MaxLinks {
		must(t, b.Link(t.Context(), st, acme(fmt.Sprintf("mine-%d", i), "")))
	}
	full := b.state(t, owner.ID)
	wantErr(t, "one too many", b.Link(t.Context(), full, acme("x", "")), users.ErrLinkLimit)
	must(t, b.Link(t.Context(), full, acme("mine-3", "")))
	if _, err := b.users.Reclaim(t.Context(), full); err != nil {
		t.Fatal(err)
	}
	wantErr(t, "of the owner before", b.Link(t.Context(), st, acme("x", "")), users.ErrChanged)
	if list := b.listed(t, owner.ID); len(list) != 0 {
		t.Errorf("%v", list)
	}
}

// An identity whose account does not know it any more is free, also where the account that
// links it has named it before.
func TestLinkStale(t *testing.T) {
	t.Parallel()
	for _, named := range []bool{false, true} {
		b := setup(t, policy(identity.LinkSignedIn))
		in := b.arrives(t, acme("1", ""))
		must(t, b.users.AddLink(t.Context(), b.state(t, in.UserID), "spare|1"))
		must(t, b.users.RemoveLink(t.Context(), in.UserID, "acme|1", false)) // and the call died
		owner := b.person(t, ada, false)
		if named {
			must(t, b.users.AddLink(t.Context(), b.state(t, owner.ID), "acme|1")) // and that one too
		}
		must(t, b.Link(t.Context(), b.state(t, owner.ID), acme("1", "")))
		if again := b.arrives(t, acme("1", "")); again.UserID != owner.ID || again.New {
			t.Errorf("named %v: it signs in %+v", named, again)
		}
	}
}

// What an account has named is linked by the next call, at the limit as well.
func TestLinkAfterDeath(t *testing.T) {
	t.Parallel()
	b := setup(t, policy(identity.LinkSignedIn))
	owner := b.person(t, ada, false)
	st := b.state(t, owner.ID)
	for i := range users.MaxLinks {
		must(t, b.users.AddLink(t.Context(), st, fmt.Sprintf("acme|%d", i)))
	}
	must(t, b.Link(t.Context(), b.state(t, owner.ID), acme("1", "")))
	if in := b.arrives(t, acme("1", "")); in.UserID != owner.ID {
		t.Errorf("%+v", in)
	}
}

// Of many accounts that link one identity at once one has it, and no other names it.
func TestLinkOnce(t *testing.T) {
	t.Parallel()
	b := setup(t, policy(identity.LinkSignedIn))
	var ids []string
	for i := range 8 {
		ids = append(ids, b.person(t, fmt.Sprintf("%d@example.com", i), false).ID)
	}
	var won atomic.Int32
	var wg sync.WaitGroup
	for _, id := range ids {
		st := b.state(t, id)
		wg.Go(func() {
			switch err := b.Link(t.Context(), st, acme("1", "")); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, identity.ErrTaken):
				t.Errorf("%v", err)
			}
		})
	}
	wg.Wait()
	named := 0
	for _, id := range ids {
		named += len(b.state(t, id).Links)
	}
	if won.Load() != 1 || named != 1 {
		t.Errorf("%d have it, %d name it", won.Load(), named)
	}
}

// An owner who cannot be told hears of it as a failure of the call, which may be repeated.
func TestUntold(t *testing.T) {
	t.Parallel()
	b := setup(t, policy(identity.LinkSignedIn))
	owner := b.person(t, ada, false)
	b.fail = errors.New("no mail today")
	wantErr(t, "linking", b.Link(t.Context(), b.state(t, owner.ID), acme("1", "")), b.fail)
	wantErr(t, "unlinking", b.Unlink(t.Context(), owner.ID, "acme", "1"), b.fail)
	b.fail = nil
	must(t, b.Link(t.Context(), b.state(t, owner.ID), acme("1", "")))
	must(t, b.Unlink(t.Context(), owner.ID, "acme", "1"))
	silent := setup(t, policy(identity.LinkSignedIn), func(c *identity.Config) { c.Linked, c.Removed = nil, nil })
	quiet := silent.person(t, ada, false)
	must(t, silent.Link(t.Context(), silent.state(t, quiet.ID), acme("1", "")))
	must(t, silent.Unlink(t.Context(), quiet.ID, "acme", "1"))
}

func TestUnlink(t *testing.T) {
	t.Parallel()
	b := setup(t, policy(identity.LinkSignedIn))
	in := b.arrives(t, acme("1", ""))
	wantErr(t, "the last way in", b.Unlink(t.Context(), in.UserID, "acme", "1"), users.ErrLastCredential)
	wantErr(t, "what it does not have", b.Unlink(t.Context(), in.UserID, "acme", "2"), users.ErrNotFound)
	wantErr(t, "another provider's", b.Unlink(t.Context(), in.UserID, "bolt", "1"), users.ErrNotFound)
	other := b.person(t, ada, false)
	wantErr(t, "another's", b.Unlink(t.Context(), other.ID, "acme", "1"), users.ErrNotFound)
	must(t, b.Link(t.Context(), b.state(t, in.UserID), acme("2", "")))
	must(t, b.Unlink(t.Context(), in.UserID, "acme", "1"))
	if list := b.listed(t, in.UserID); fmt.Sprint(list) != "[acme 2]" || b.count(event.IdentityRemoved) != 1 || b.told[len(b.told)-1] != "removed acme "+in.UserID {
		t.Errorf("%v, told %v", list, b.told)
	}
	if again := b.arrives(t, acme("1", "")); again.UserID == in.UserID || !again.New {
		t.Errorf("it still signs in: %+v", again)
	}
}

// Whoever can sign in by mail needs no identity.
func TestUnlinkByMail(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *identity.Config) { c.SignsInByMail = true })
	known, unknown := b.arrives(t, acme("1", ada)), b.arrives(t, acme("2", ""))
	must(t, b.Unlink(t.Context(), known.UserID, "acme", "1"))
	wantErr(t, "without an address", b.Unlink(t.Context(), unknown.UserID, "acme", "2"), users.ErrLastCredential)
}

// Of the two last ways in, unlinked at once, one stays; a call that died is finished.
func TestUnlinkOnce(t *testing.T) {
	t.Parallel()
	b := setup(t, policy(identity.LinkSignedIn))
	in := b.arrives(t, acme("1", ""))
	must(t, b.Link(t.Context(), b.state(t, in.UserID), acme("2", "")))
	var won atomic.Int32
	var wg sync.WaitGroup
	for _, subject := range []string{"1", "2"} {
		wg.Go(func() {
			switch err := b.Unlink(t.Context(), in.UserID, "acme", subject); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, users.ErrLastCredential):
				t.Errorf("%v", err)
			}
		})
	}
	wg.Wait()
	if list := b.listed(t, in.UserID); won.Load() != 1 || len(list) != 1 {
		t.Fatalf("%d were unlinked, %v are left", won.Load(), list)
	}
	must(t, b.Link(t.Context(), b.state(t, in.UserID), acme("3", "")))
	must(t, b.users.RemoveLink(t.Context(), in.UserID, "acme|3", false)) // and the call died
	must(t, b.Unlink(t.Context(), in.UserID, "acme", "3"))
	wantErr(t, "once more", b.Unlink(t.Context(), in.UserID, "acme", "3"), users.ErrNotFound)
}

// The list has what signs in, in the order in which it was linked, and nothing secret.
func TestList(t *testing.T) {
	t.Parallel()
	b := setup(t, policy(identity.LinkSignedIn))
	owner := b.person(t, ada, false)
	for _, subject := range []string{"b", "a", "c"} {
		a := acme(subject, ben)
		a.Tokens = []byte("canary")
		must(t, b.Link(t.Context(), b.state(t, owner.ID), a))
	}
	must(t, b.users.RemoveLink(t.Context(), owner.ID, "acme|a", false))
	if got := b.listed(t, owner.ID); fmt.Sprint(got) != "[acme b acme c]" {
		t.Errorf("%v", got)
	}
	list, err := b.List(t.Context(), owner.ID)
	if first := list[0]; err != nil || first.Issuer != issuer || first.Email != ben || !first.EmailVerified || first.Profile["name"] != "Ada" || first.LinkedAt.IsZero() {
		t.Errorf("%+v, %v", first, err)
	}
	_, err = b.List(t.Context(), "usr_nobody")
	wantErr(t, "nobody", err, users.ErrNotFound)
	if empty, err := b.List(t.Context(), b.person(t, ben, false).ID); err != nil || empty == nil || len(empty) != 0 {
		t.Errorf("%v, %v", empty, err)
	}
}

// What a provider has issued is sealed where it is kept, for this identity alone.
func TestTokens(t *testing.T) {
	t.Parallel()
	b := setup(t)
	a := acme("1", ada)
	a.Tokens = []byte("canary one")
	in := b.arrives(t, a)
	read := func() (string, error) {
		raw, err := b.Tokens(t.Context(), in.UserID, "acme", "1")
		return string(raw), err
	}
	if got, err := read(); err != nil || got != "canary one" {
		t.Errorf("%q, %v", got, err)
	}
	a.Tokens = []byte("canary two")
	must(t, b.KeepTokens(t.Context(), in.UserID, a))
	if got, err := read(); err != nil || got != "canary two" {
		t.Errorf("%q, %v", got, err)
	}
	must(t, b.KeepTokens(t.Context(), "usr_nobody", identity.Arrival{Provider: "acme", Subject: "1", Tokens: []byte("another's")}))
	if got, err := read(); err != nil || got != "canary two" {
		t.Errorf("somebody else has changed them: %q, %v", got, err)
	}
	without := b.arrives(t, acme("2", ben))
	_, err := b.Tokens(t.Context(), without.UserID, "acme", "2")
	wantErr(t, "none", err, identity.ErrNoTokens)
	_, err = b.Tokens(t.Context(), without.UserID, "acme", "1")
	wantErr(t, "another's", err, users.ErrNotFound)

	coll := b.db.Collection(identity.Collection)
	raw, err := coll.FindOne(t.Context(), bson.M{"_id": "shop|acme|1"}).Raw()
	must(t, err)
	if strings.Contains(raw.String(), "canary") {
		t.Errorf("they can be read: %s", raw)
	}
	if _, err := coll.UpdateOne(t.Context(), bson.M{"_id": "shop|acme|2"}, bson.M{"$set": bson.M{"tokens": raw.Lookup("tokens").StringValue()}}); err != nil {
		t.Fatal(err)
	}
	if got, err := b.Tokens(t.Context(), without.UserID, "acme", "2"); err == nil {
		t.Errorf("those of another identity open: %s", got)
	}
}

// An account that goes leaves no identity: who arrives then is somebody new.
func TestForget(t *testing.T) {
	t.Parallel()
	b := setup(t)
	in := b.arrives(t, acme("1", ada))
	stays := b.arrives(t, acme("2", ben))
	must(t, b.users.Delete(t.Context(), in.UserID))
	if again := b.arrives(t, acme("1", ada)); again.UserID == in.UserID || !again.New {
		t.Errorf("%+v", again)
	}
	if again := b.arrives(t, acme("2", ben)); again.UserID != stays.UserID {
		t.Errorf("another's went too: %+v", again)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	must(t, b.Store.Forget(ctx, stays.UserID)) // what was begun is finished
	if n, err := b.db.Collection(identity.Collection).CountDocuments(t.Context(), bson.M{"user_id": stays.UserID}); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}
