package mail_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/mail"
)

// The instance that enqueues sends at once: no poll comes within the hour.
func TestSendsAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o := b.outbox()
	id := b.enqueue(o)
	e := b.next(event.MailSent, "")
	if e.Result != event.Success || e.UserID != "usr_1" || e.Metadata["mail_id"] != id || e.Metadata["kind"] != "verify_email" || e.Metadata["attempts"] != "1" {
		t.Errorf("the event %+v", e)
	}
	b.empty()
	got := b.post.messages()
	if len(got) != 1 || got[0].ID != id || got[0].To != "ann@example.com" {
		t.Errorf("sent %+v", got)
	}
	for _, part := range []string{"ann@example.com", "secret-of"} {
		if strings.Contains(fmt.Sprint(e), part) || strings.Contains(b.logs.String(), part) {
			t.Errorf("%q is in the event or in the log", part)
		}
	}
}

// What is at rest is an intent: the message and what is secret in it are nowhere.
func TestNothingSecretAtRest(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o, err := mail.NewOutbox(b.db, b.config()) // not started
	b.must(err)
	before := b.clock.Now()
	id := b.enqueue(o)
	docs := b.stored()
	if len(docs) != 1 {
		t.Fatalf("%d documents", len(docs))
	}
	var names []string
	for name := range docs[0] {
		names = append(names, name)
	}
	slices.Sort(names)
	want := []string{"_id", "app", "attempts", "created_at", "data", "expires_at", "kind", "lang", "next_at", "not_after", "to", "user_id"}
	if !slices.Equal(names, want) || docs[0]["_id"] != id || docs[0]["app"] != "shop" || strings.Contains(fmt.Sprint(docs[0]), "secret-of") {
		t.Errorf("stored is %v", docs[0])
	}
	at := func(name string) time.Duration {
		return docs[0][name].(interface{ Time() time.Time }).Time().Sub(before)
	}
	if at("created_at") != 0 || at("next_at") != 0 || at("not_after") != mail.DefaultLife || at("expires_at") != mail.DefaultLife+24*time.Hour {
		t.Errorf("times: %v", docs[0])
	}
	b.must(o.Close(t.Context()))
	b.must(o.Close(t.Context()))
	o.Start() // does nothing any more
	b.enqueue(o)
	if len(b.stored()) != 2 || len(b.post.messages()) != 0 {
		t.Error("a closed outbox sends, or does not keep for others")
	}
}

func TestJobIsPassedOn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	jobs := make(chan mail.Job, 1)
	o := b.outbox(func(c *mail.OutboxConfig) {
		c.Compose = func(_ context.Context, job mail.Job) (*mail.Message, error) {
			jobs <- job
			return nil, nil
		}
	})
	end := b.clock.Now().Add(time.Hour)
	id := b.enqueue(o, func(j *mail.Job) { j.NotAfter = end })
	got := <-jobs
	want := mail.Job{ID: id, Kind: "verify_email", To: "ann@example.com", UserID: "usr_1", Lang: "de", Data: map[string]string{"ip": "192.0.2.1"}, CreatedAt: b.clock.Now(), NotAfter: end}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("composed from %+v, want %+v", got, want)
	}
	// Nothing to send: the job is done, and nobody is told.
	b.empty()
	b.must(o.Close(t.Context()))
	b.none()
	if len(b.post.messages()) != 0 || strings.Contains(b.logs.String(), "level=") {
		t.Errorf("sent %v, logged %s", b.post.messages(), b.logs)
	}
}

func TestEnqueueRefuses(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o := b.outbox()
	members := func(n int) map[string]string {
		out := map[string]string{}
		for i := range n {
			out[fmt.Sprintf("m%d", i)] = "v"
		}
		return out
	}
	bad := map[string]func(*mail.Job){
		"id":         func(j *mail.Job) { j.ID = "mine" },
		"id of kind": func(j *mail.Job) { j.ID = store.NewID("usr_") },
		"no kind":    func(j *mail.Job) { j.Kind = "" },
		"kind":       func(j *mail.Job) { j.Kind = "Verify email" },
		"no to":      func(j *mail.Job) { j.To = "" },
		"list":       func(j *mail.Job) { j.To = "ann@example.com,evil@evil.example" },
		"user":       func(j *mail.Job) { j.UserID = strings.Repeat("x", 129) },
		"language":   func(j *mail.Job) { j.Lang = "de\r\n" },
		"over":       func(j *mail.Job) { j.NotAfter = b.clock.Now() },
		"too late":   func(j *mail.Job) { j.NotAfter = b.clock.Now().Add(mail.MaxLife + time.Second) },
		"members":    func(j *mail.Job) { j.Data = members(17) },
		"$name":      func(j *mail.Job) { j.Data = map[string]string{"$where": "x"} },
		"a.b":        func(j *mail.Job) { j.Data = map[string]string{"a.b": "x"} },
		"no name":    func(j *mail.Job) { j.Data = map[string]string{"": "x"} },
		"value":      func(j *mail.Job) { j.Data = map[string]string{"a": strings.Repeat("x", 32<<10+1)} },
		"not UTF-8":  func(j *mail.Job) { j.Data = map[string]string{"a": "\xff"} },
	}
	for name, change := range bad {
		job := mail.Job{Kind: "verify_email", To: "ann@example.com"}
		change(&job)
		err := o.Enqueue(t.Context(), job)
		if !errors.Is(err, mail.ErrInvalidJob) || strings.Contains(err.Error(), "evil") {
			t.Errorf("%s: got %v, want ErrInvalidJob", name, err)
		}
	}
	b.enqueue(o, func(j *mail.Job) { j.Data = members(16) })
	b.next(event.MailSent, "")
	b.empty()
}

// A caller who got no answer asks again: there is one message all the same.
func TestEnqueueAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o, err := mail.NewOutbox(b.db, b.config())
	b.must(err)
	id := b.enqueue(o)
	b.enqueue(o, func(j *mail.Job) { j.ID = id })
	if n := len(b.stored()); n != 1 {
		t.Errorf("%d jobs", n)
	}
	b.must(o.Close(t.Context()))
}

func TestPendingAndSweep(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.post.decide(func(context.Context, *mail.Message) error { return errEarly })
	o := b.outbox(func(c *mail.OutboxConfig) { c.Backoff = func(int) time.Duration { return time.Minute } })
	if p, err := o.Pending(t.Context()); err != nil || p != (mail.Pending{}) {
		t.Errorf("of nothing: %+v, %v", p, err)
	}
	b.enqueue(o)
	b.attempts(1)
	if p, err := o.Pending(t.Context()); err != nil || p != (mail.Pending{Jobs: 1, Retried: 1}) {
		t.Errorf("of one that waits: %+v, %v", p, err)
	}
	b.clock.move(3 * time.Minute)
	if p, err := o.Pending(t.Context()); err != nil || p != (mail.Pending{Jobs: 1, Retried: 1, Overdue: 2 * time.Minute}) {
		t.Errorf("of one that is overdue: %+v, %v", p, err)
	}
	b.clock.move(mail.DefaultLife + 23*time.Hour)
	if n, err := o.Sweep(t.Context()); n != 0 || err != nil {
		t.Errorf("before its time: %d, %v", n, err)
	}
	b.clock.move(time.Hour)
	if n, err := o.Sweep(t.Context()); n != 1 || err != nil {
		t.Errorf("swept %d, %v, want 1", n, err)
	}
}

// Another app's jobs are nobody's business.
func TestOtherApps(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o, err := mail.NewOutbox(b.db, b.config())
	b.must(err)
	b.enqueue(o)
	other := b.outbox(func(c *mail.OutboxConfig) { c.App = "blog" })
	other.Poke()
	b.clock.move(10 * 24 * time.Hour)
	if n, err := other.Sweep(t.Context()); n != 0 || err != nil {
		t.Errorf("swept %d of another app, %v", n, err)
	}
	if p, err := other.Pending(t.Context()); err != nil || p.Jobs != 0 {
		t.Errorf("another app's: %+v, %v", p, err)
	}
	b.must(other.Close(t.Context()))
	if len(b.stored()) != 1 || len(b.post.messages()) != 0 {
		t.Error("the job of another app was touched")
	}
	b.must(o.Close(t.Context()))
}

// No command leaves the app out, or uses what not every server has; and a job costs one
// insert whatever it is.
func TestEveryCommandNamesTheApp(t *testing.T) {
	t.Parallel()
	watch, monitor := storetest.WatchOneApp(t, "shop", mail.Collection)
	b := setupOn(t, storetest.Monitored(t, monitor))
	fail := true
	b.post.decide(func(context.Context, *mail.Message) error {
		if fail {
			fail = false
			return errEarly
		}
		return nil
	})
	o := b.outbox(func(c *mail.OutboxConfig) { c.Workers = 1; c.Backoff = func(int) time.Duration { return 0 } })
	b.enqueue(o)
	b.next(event.MailSent, "")
	b.post.decide(func(context.Context, *mail.Message) error { return &mail.PermanentError{Code: 550} })
	b.enqueue(o)
	b.next(event.MailFailed, "refused")
	_, err := o.Pending(t.Context())
	b.must(err)
	_, err = o.Sweep(t.Context())
	b.must(err)
	watch.Saw("insert", "findAndModify", "update", "delete", "find")
}

func TestClaimIsServedByTheIndex(t *testing.T) {
	t.Parallel()
	b := setup(t)
	cursor, err := b.db.Collection(mail.Collection).Indexes().List(t.Context())
	b.must(err)
	var found []struct {
		Name string `bson:"name"`
		Key  bson.D `bson:"key"`
	}
	b.must(cursor.All(t.Context(), &found))
	for _, x := range found {
		if x.Name == "app_next" && len(x.Key) == 2 && x.Key[0].Key == "app" && x.Key[1].Key == "next_at" {
			return
		}
	}
	t.Errorf("the indexes are %v", found)
}

func TestOutboxConfig(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bad := map[string]func(*mail.OutboxConfig){
		"app":      func(c *mail.OutboxConfig) { c.App = "" },
		"mailer":   func(c *mail.OutboxConfig) { c.Mailer = nil },
		"compose":  func(c *mail.OutboxConfig) { c.Compose = nil },
		"lease":    func(c *mail.OutboxConfig) { c.Lease = -1 },
		"poll":     func(c *mail.OutboxConfig) { c.Poll = -1 },
		"workers":  func(c *mail.OutboxConfig) { c.Workers = -1 },
		"attempts": func(c *mail.OutboxConfig) { c.MaxAttempts = -1 },
	}
	for name, change := range bad {
		c := b.config()
		change(&c)
		if _, err := mail.NewOutbox(b.db, c); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	if _, err := mail.NewOutbox(nil, b.config()); err == nil {
		t.Error("no database is accepted")
	}
}
