package invitation_test

import (
	"bytes"
	"context"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/mongo"
	"golang.org/x/crypto/bcrypt"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/mail"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/keys"
	"github.com/mandate-auth/mandate/tokens/onetime"
	"github.com/mandate-auth/mandate/tokens/secret"
	"github.com/mandate-auth/mandate/users"
	"github.com/mandate-auth/mandate/users/invitation"
	"github.com/mandate-auth/mandate/users/recovery"
)

func TestMain(m *testing.M) { storetest.Main(m) }

const (
	ada      = "ada@example.com"
	password = "a fine long passphrase"
	page     = "https://shop.example/invitation"
)

// nobody has no sessions that could end.
type nobody struct{}

func (nobody) EndAll(context.Context, string, string) error              { return nil }
func (nobody) EndOthers(context.Context, string, string, string) error   { return nil }
func (nobody) Check(context.Context, string, string) (authz.Kind, error) { return authz.KindHuman, nil }
func (nobody) Forget(context.Context, string) error                      { return nil }

// leaving tells the invitations of accounts that go.
type leaving struct{ *bench }

func (leaving) Welcome(context.Context, string, string, bool) error { return nil }
func (leaving) Verified(context.Context, string, string) error      { return nil }
func (leaving) Dispossess(context.Context, string) error            { return nil }
func (l leaving) Forget(ctx context.Context, id string) error       { return l.Store.Forget(ctx, id) }

// outbox keeps jobs, or fails.
type outbox struct {
	mu   sync.Mutex
	jobs []mail.Job
	fail error
	now  func() time.Time
}

func (o *outbox) Enqueue(_ context.Context, job mail.Job) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.fail != nil {
		return o.fail
	}
	job.CreatedAt = o.now() // as the real one does
	o.jobs = append(o.jobs, job)
	return nil
}

func (o *outbox) last(t *testing.T) mail.Job {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.jobs) == 0 {
		t.Fatal("nothing was mailed")
	}
	return o.jobs[len(o.jobs)-1]
}

// events keeps what happened.
type events struct {
	mu   sync.Mutex
	list []event.Event
}

func (e *events) Record(_ context.Context, x event.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, x)
}

func (e *events) count(kind event.Type) (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, x := range e.list {
		if x.Type == kind {
			n++
		}
	}
	return n
}

// bench is an app that invites.
type bench struct {
	*invitation.Store
	db     *mongo.Database
	users  *users.Store
	keys   *keys.App
	outbox *outbox
	events *events
	offset atomic.Int64
	// grants are the roles that accounts got, as "id role".
	mu     sync.Mutex
	grants []string
	refuse error
	// over are those who may not invite any more.
	over   []string
	unsure error
}

func (b *bench) now() time.Time       { return time.Now().Add(time.Duration(b.offset.Load())) }
func (b *bench) move(d time.Duration) { b.offset.Add(int64(d)) }

func (b *bench) grant(_ context.Context, userID, role string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refuse != nil {
		return b.refuse
	}
	b.grants = append(b.grants, userID+" "+role)
	return nil
}

func (b *bench) mayInvite(_ context.Context, by, _ string) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !slices.Contains(b.over, by), b.unsure
}

// refusing makes granting roles fail, or not.
func (b *bench) refusing(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refuse = err
}

func (b *bench) granted() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.grants...)
}

func setup(t *testing.T, edit ...func(*invitation.Config)) *bench {
	t.Helper()
	return setupOn(t, storetest.Database(t), "shop", edit...)
}

func setupOn(t *testing.T, db *mongo.Database, slug string, edit ...func(*invitation.Config)) *bench {
	t.Helper()
	b := &bench{db: db, outbox: &outbox{}, events: &events{}}
	b.outbox.now = b.now
	config := b.config(t, db, slug)
	for _, f := range edit {
		f(&config)
	}
	var err error
	if b.Store, err = invitation.New(db, config); err != nil {
		t.Fatal(err)
	}
	if _, err := b.EnsureIndexes(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

// config is what New needs, all of it.
func (b *bench) config(t *testing.T, db *mongo.Database, slug string) invitation.Config {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ring, err := keys.NewRing([]secret.Value{secret.FromString(strings.Repeat("s", 32))})
	must(err)
	b.keys, err = ring.App(slug, bytes.Repeat([]byte{1}, 32), 1)
	must(err)
	hasher, err := users.NewHasher(users.HasherConfig{Slots: 2, QueuePerSlot: 1000, QueueDeadline: 20 * time.Second})
	must(err)
	b.users, err = users.New(db, users.Config{
		App: slug, BcryptCost: bcrypt.MinCost, Hasher: hasher, Keys: b.keys, Devices: tokens.NewDevices(b.keys), Sessions: nobody{}, Now: b.now,
		Roles: leaving{b},
	})
	must(err)
	_, err = b.users.EnsureIndexes(t.Context())
	must(err)
	once, err := onetime.New(db, onetime.Config{App: slug, Keys: b.keys, Now: b.now})
	must(err)
	_, err = once.EnsureIndexes(t.Context())
	must(err)
	templates, err := mail.NewTemplates(nil)
	must(err)
	mails, err := recovery.New(recovery.Config{
		App: slug, Name: "Shop", Users: b.users, Tokens: once, Sessions: nobody{}, Keys: b.keys, Templates: templates, From: "no-reply@shop.example", Now: b.now,
	})
	must(err)
	mails.Use(b.outbox, nil)
	return invitation.Config{
		App: slug, Users: b.users, Tokens: once, Keys: b.keys, Outbox: b.outbox, Mails: mails, Page: page,
		Grant: b.grant, MayInvite: b.mayInvite, Events: b.events, Now: b.now,
	}
}

// invite invites somebody and returns the invitation and the token of its link.
func (b *bench) invite(t *testing.T, email, role string) (*invitation.Invitation, string) {
	t.Helper()
	made, err := b.Create(t.Context(), invitation.NewInvitation{Email: email, Role: role, InvitedBy: "usr_clerk"})
	if err != nil {
		t.Fatal(err)
	}
	return made, b.token(t, b.outbox.last(t))
}

var tokenIn = regexp.MustCompile(`\Qhttps://shop.example/invitation#token=\E(mot_[0-9A-Za-z]{43})`)

// token is the token in the mail of a job.
func (b *bench) token(t *testing.T, job mail.Job) string {
	t.Helper()
	msg, err := b.Compose(t.Context(), job)
	if err != nil || msg == nil {
		t.Fatalf("composed %v, %v", msg, err)
	}
	found := tokenIn.FindStringSubmatch(msg.Text)
	if found == nil {
		t.Fatalf("no link in %s", msg.Text)
	}
	return found[1]
}

// find returns an invitation as the list shows it.
func (b *bench) find(t *testing.T, id string) invitation.Invitation {
	t.Helper()
	page, err := b.List(t.Context(), invitation.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range page.Invitations {
		if i.ID == id {
			return i
		}
	}
	t.Fatalf("%s is not listed", id)
	return invitation.Invitation{}
}

func newcomer() users.NewUser { return users.NewUser{Password: password} }

// guest makes a guest and returns the id.
func (b *bench) guest(t *testing.T) string {
	t.Helper()
	u, err := b.users.Anonymous(t.Context(), store.NewID("")+store.NewID(""))
	if err != nil {
		t.Fatal(err)
	}
	return u.ID
}
