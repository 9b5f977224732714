package recovery_test

import (
	"bytes"
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"go.mongodb.org/mongo-driver/mongo"

	"github.com/mandate-auth/mandate/authz"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/mail"
	"github.com/mandate-auth/mandate/tokens"
	"github.com/mandate-auth/mandate/tokens/keys"
	"github.com/mandate-auth/mandate/tokens/onetime"
	"github.com/mandate-auth/mandate/tokens/secret"
	"github.com/mandate-auth/mandate/users"
	"github.com/mandate-auth/mandate/users/recovery"
)

func TestMain(m *testing.M) { storetest.Main(m) }

const (
	ada      = "ada@example.com"
	ben      = "ben@example.com"
	password = "a fine long passphrase"
	fresh    = "a new and better passphrase"
	site     = "https://shop.example/"
)

// sessions notes what was ended.
type sessions struct {
	mu    sync.Mutex
	ended []string
	// fail is what comes after so many calls that work.
	fail  error
	works int
}

func (s *sessions) note(text string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		if s.works == 0 {
			return s.fail
		}
		s.works--
	}
	s.ended = append(s.ended, text)
	return nil
}

func (s *sessions) EndAll(_ context.Context, id, reason string) error {
	return s.note(id + " all " + reason)
}

// over is the id of a session that has ended.
const over = "ses_over"

func (s *sessions) Check(_ context.Context, _, id string) (authz.Kind, error) {
	if id == over {
		return "", errors.New("the session is over")
	}
	return authz.KindHuman, nil
}

func (s *sessions) EndOthers(_ context.Context, id, keep, reason string) error {
	return s.note(id + " but " + keep + " " + reason)
}
func (s *sessions) Forget(_ context.Context, id string) error { return s.note(id + " forget") }

func (s *sessions) has(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.ended, text)
}

// outbox keeps jobs as the real one does: it refuses what that refuses.
type outbox struct {
	*mail.Outbox
	mu   sync.Mutex
	jobs []mail.Job
	fail error
	now  func() time.Time
}

func (o *outbox) Enqueue(ctx context.Context, job mail.Job) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.fail != nil {
		return o.fail
	}
	if err := o.Outbox.Enqueue(ctx, job); err != nil {
		return err
	}
	job.CreatedAt = o.now() // as the real one does
	o.jobs = append(o.jobs, job)
	return nil
}

// unsent is a mailer for an outbox that is not started.
type unsent struct{}

func (unsent) Send(context.Context, *mail.Message) error { return errors.New("never") }

type bench struct {
	*recovery.Service
	db       *mongo.Database
	users    *users.Store
	tokens   *onetime.Store
	sessions *sessions
	outbox   *outbox
	config   recovery.Config
	keys     *keys.App
	offset   atomic.Int64
}

func (b *bench) now() time.Time       { return time.Now().Add(time.Duration(b.offset.Load())) }
func (b *bench) move(d time.Duration) { b.offset.Add(int64(d)) }

func setup(t *testing.T, edit ...func(*recovery.Config)) *bench {
	t.Helper()
	return setupOn(t, storetest.Database(t), []string{"s"}, false, edit...)
}

// setupOn is an app on the database, with secret keys of one letter each, newest first.
func setupOn(t *testing.T, db *mongo.Database, secrets []string, verified bool, edit ...func(*recovery.Config)) *bench {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	b := &bench{db: db, sessions: &sessions{}}
	var list []secret.Value
	for _, letter := range secrets {
		list = append(list, secret.FromString(strings.Repeat(letter, 32)))
	}
	ring, err := keys.NewRing(list)
	must(err)
	b.keys, err = ring.App("shop", bytes.Repeat([]byte{1}, 32), 1)
	must(err)
	hasher, err := users.NewHasher(users.HasherConfig{Slots: 2, QueuePerSlot: 1000, QueueDeadline: 20 * time.Second})
	must(err)
	b.users, err = users.New(db, users.Config{
		App: "shop", BcryptCost: bcrypt.MinCost, Hasher: hasher, Keys: b.keys, Devices: tokens.NewDevices(b.keys), Sessions: b.sessions, RequireVerified: verified, Now: b.now,
	})
	must(err)
	_, err = b.users.EnsureIndexes(t.Context())
	must(err)
	b.tokens, err = onetime.New(db, onetime.Config{App: "shop", Keys: b.keys, Now: b.now})
	must(err)
	_, err = b.tokens.EnsureIndexes(t.Context())
	must(err)
	templates, err := mail.NewTemplates(nil)
	must(err)
	b.config = recovery.Config{
		App: "shop", Name: "Shop", Users: b.users, Tokens: b.tokens, Sessions: b.sessions, Keys: b.keys, Templates: templates,
		From: "Shop <no-reply@shop.example>", ReplyTo: "help@shop.example", MagicLink: true, EmailCode: true, Now: b.now,
		Links: recovery.Links{VerifyEmail: site + "verify", ResetPassword: site + "reset", ChangeEmail: site + "change", MagicLink: site + "magic", Invitation: site + "in"},
	}
	for _, f := range edit {
		f(&b.config)
	}
	b.Service, err = recovery.New(b.config)
	must(err)
	real, err := mail.NewOutbox(db, mail.OutboxConfig{App: "shop", Mailer: unsent{}, Compose: b.Compose, Now: b.now})
	must(err)
	b.outbox = &outbox{Outbox: real, now: b.now}
	b.Use(b.outbox, nil)
	return b
}

// person makes an account, whose address is verified or not.
func (b *bench) person(t *testing.T, email string, verified bool) *users.User {
	t.Helper()
	u, err := b.users.Create(t.Context(), users.NewUser{Email: email, Password: password, Verified: verified})
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// take returns the job that was enqueued last, and takes it away.
func (b *bench) take(t *testing.T) mail.Job {
	t.Helper()
	b.outbox.mu.Lock()
	defer b.outbox.mu.Unlock()
	if len(b.outbox.jobs) == 0 {
		t.Fatal("nothing was enqueued")
	}
	job := b.outbox.jobs[len(b.outbox.jobs)-1]
	b.outbox.jobs = b.outbox.jobs[:len(b.outbox.jobs)-1]
	return job
}

func (b *bench) waiting() int {
	b.outbox.mu.Lock()
	defer b.outbox.mu.Unlock()
	return len(b.outbox.jobs)
}

// message composes the job that was enqueued last.
func (b *bench) message(t *testing.T) *mail.Message {
	t.Helper()
	msg, err := b.Compose(t.Context(), b.take(t))
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

var (
	tokenIn = regexp.MustCompile(`#token=(mot_[0-9A-Za-z]{43})`)
	codeIn  = regexp.MustCompile(`\b[0-9]{6}\b`)
)

// token is the token in the next message.
func (b *bench) token(t *testing.T) string {
	t.Helper()
	msg := b.message(t)
	if msg == nil {
		t.Fatal("nothing is mailed")
	}
	found := tokenIn.FindStringSubmatch(msg.Text)
	if found == nil {
		t.Fatalf("no link in %s", msg.Text)
	}
	return found[1]
}

// guest makes a guest and returns the id.
func (b *bench) guest(t *testing.T) string {
	t.Helper()
	u, err := b.users.Anonymous(t.Context(), users.NewDeviceID())
	if err != nil {
		t.Fatal(err)
	}
	return u.ID
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantInvalid(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, recovery.ErrInvalid) {
		t.Errorf("%s: got %v, want ErrInvalid", what, err)
	}
}

func wantField(t *testing.T, what string, err error, field string) {
	t.Helper()
	var f *users.FieldError
	if !errors.As(err, &f) || f.Field != field {
		t.Errorf("%s: got %v, want a fault of %q", what, err, field)
	}
}

var errAway = store.ErrUnavailable

// stamp is that of an account as it is.
func (b *bench) stamp(t *testing.T, id string) string {
	t.Helper()
	st, err := b.users.State(t.Context(), id)
	must(t, err)
	return st.Stamp
}
