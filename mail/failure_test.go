package mail_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/mail"
)

// What is being sent when the outbox is closed is finished; nothing more is begun.
func TestCloseFinishes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	reached, release := make(chan struct{}, 8), make(chan struct{})
	b.post.decide(func(context.Context, *mail.Message) error {
		reached <- struct{}{}
		<-release
		return nil
	})
	o := b.outbox(func(c *mail.OutboxConfig) { c.Workers = 1 })
	b.enqueue(o)
	<-reached
	b.enqueue(o)
	closed := make(chan error, 1)
	go func() { closed <- o.Close(context.Background()) }()
	select {
	case err := <-closed:
		t.Fatalf("Close did not wait: %v", err)
	case release <- struct{}{}:
	}
	b.must(<-closed)
	b.next(event.MailSent, "")
	if len(b.post.messages()) != 1 || len(b.stored()) != 1 {
		t.Errorf("%d sent, %d kept, want one each", len(b.post.messages()), len(b.stored()))
	}
	b.none()
}

// A database that refuses at once is asked again after a pause, however often something
// wakes the outbox.
func TestFailingDatabase(t *testing.T) {
	t.Parallel()
	b := setup(t)
	db := storetest.Second(t, b.db, nil)
	b.must(db.Client().Disconnect(t.Context()))
	o := b.outboxOn(db)
	b.until("the first failure", func() bool { return strings.Contains(b.logs.String(), "cannot be read") })
	for range 1000 {
		o.Poke()
		runtime.Gosched()
	}
	if n := strings.Count(b.logs.String(), "cannot be read"); n > 2 {
		t.Errorf("the database was asked %d times at once", n)
	}
}

// The database goes away, and when it is back all goes on. A message that
// was accepted meanwhile is not sent again by who sent it.
func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	db, link := storetest.Linked(t)
	b := setupOn(t, db)
	b.post.decide(func(context.Context, *mail.Message) error {
		link.Cut()
		return nil
	})
	o := b.outbox(func(c *mail.OutboxConfig) { c.Lease = 10 * time.Second })
	b.enqueue(o)
	b.next(event.MailSent, "")
	b.until("the removal to fail", func() bool { return strings.Contains(b.logs.String(), "cannot be removed") })
	if err := o.Enqueue(t.Context(), mail.Job{Kind: "x", To: "ann@example.com"}); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("Enqueue without a database: got %v, want ErrUnavailable", err)
	}
	if _, err := o.Pending(t.Context()); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("Pending without a database: got %v, want ErrUnavailable", err)
	}
	if _, err := o.Sweep(t.Context()); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("Sweep without a database: got %v, want ErrUnavailable", err)
	}
	b.clock.move(time.Minute) // the lease has ended: the own instance may claim it again
	b.post.decide(func(context.Context, *mail.Message) error { t.Error("the accepted message was sent again"); return nil })
	link.Restore()
	b.empty()
	b.none()
	if len(b.post.messages()) != 1 {
		t.Errorf("%d messages", len(b.post.messages()))
	}
}

// The removal of a sent message fails, and the lease ends before the next attempt at it:
// the instance that sent it does not do so again.
func TestSentAndNotRemoved(t *testing.T) {
	t.Parallel()
	b := setup(t)
	faults := &storetest.Faults{Counts: func(command bson.Raw) bool {
		_, err := command.LookupErr("delete")
		return err == nil
	}}
	o := b.outboxOn(storetest.Faulty(t, b.db, faults))
	faults.Arm(storetest.BeforeTwice, storetest.Step{Command: "delete " + mail.Collection, Nth: 1}, nil)
	b.enqueue(o)
	b.next(event.MailSent, "")
	b.until("the removal to fail", func() bool { return strings.Contains(b.logs.String(), "cannot be removed") })
	b.clock.move(time.Minute)
	o.Poke()
	b.empty()
	b.must(o.Close(t.Context()))
	b.none()
	if n := len(b.post.messages()); n != 1 {
		t.Errorf("it was sent %d times", n)
	}
}
