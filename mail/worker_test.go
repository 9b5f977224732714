package mail_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store/storetest"
	"github.com/mandate-auth/mandate/mail"
)

// Three instances share 200 jobs that come through all of them: each goes out once.
func TestOnceAcrossInstances(t *testing.T) {
	t.Parallel()
	b := setup(t)
	outboxes := []*mail.Outbox{b.outbox()}
	for range 2 {
		outboxes = append(outboxes, b.outboxOn(storetest.Second(t, b.db, nil), func(c *mail.OutboxConfig) { c.Workers = 4 }))
	}
	const jobs = 200
	var wg sync.WaitGroup
	for i := range jobs {
		wg.Go(func() {
			o := outboxes[i%3]
			if err := o.Enqueue(context.Background(), mail.Job{Kind: "magic_link", To: fmt.Sprintf("u%d@example.com", i)}); err != nil {
				t.Error(err)
			}
			outboxes[(i+1)%3].Poke()
		})
	}
	wg.Wait()
	for range jobs {
		b.next(event.MailSent, "")
	}
	b.empty()
	for _, o := range outboxes {
		b.must(o.Close(t.Context()))
	}
	b.none()
	recipients := map[string]int{}
	for _, m := range b.post.messages() {
		recipients[m.To]++
	}
	if len(recipients) != jobs || len(b.post.messages()) != jobs || b.post.overlaps != 0 {
		t.Errorf("%d messages to %d recipients, %d at the same time", len(b.post.messages()), len(recipients), b.post.overlaps)
	}
}

// An instance dies with a job in its hands: another sends it when the lease has ended,
// under the same name, and no sooner.
func TestCrash(t *testing.T) {
	t.Parallel()
	b := setup(t)
	reached, dead := make(chan struct{}), make(chan struct{})
	dying := b.outbox(func(c *mail.OutboxConfig) {
		c.Workers = 1
		c.Mailer = &post{underWay: map[string]int{}, send: func(context.Context, *mail.Message) error {
			close(reached)
			<-dead
			return errEarly
		}}
		c.Backoff = func(int) time.Duration { return 0 }
	})
	id := b.enqueue(dying)
	<-reached
	polled := b.outbox(func(c *mail.OutboxConfig) { c.Poll = time.Millisecond })
	b.clock.move(59 * time.Second)
	if p, err := polled.Pending(t.Context()); err != nil || p.Overdue != 0 || p.Retried != 1 {
		t.Errorf("under a lease: %+v, %v", p, err)
	}
	if len(b.post.messages()) != 0 {
		t.Fatal("a job was taken from under its lease")
	}
	b.clock.move(2 * time.Second)
	if e := b.next(event.MailSent, ""); e.Metadata["attempts"] != "2" || e.Metadata["mail_id"] != id {
		t.Errorf("the event %+v", e)
	}
	b.empty()
	// The dead one comes back to life with a failure to report: the job is not its own
	// any more.
	close(dead)
	b.must(dying.Close(t.Context()))
	b.none()
	if n := len(b.post.messages()); n != 1 || len(b.stored()) != 0 {
		t.Errorf("%d messages, %d jobs", n, len(b.stored()))
	}
}

// An instance that is late with a failure does not take the job from who holds it now.
func TestLateFailure(t *testing.T) {
	t.Parallel()
	for name, failure := range map[string]error{"temporary": errEarly, "for good": &mail.PermanentError{Code: 550}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			holding := func(answer error) (*mail.Outbox, chan struct{}, chan struct{}) {
				reached, release := make(chan struct{}), make(chan struct{})
				return b.outbox(func(c *mail.OutboxConfig) {
					c.Workers = 1
					c.Backoff = func(int) time.Duration { return 0 }
					c.Mailer = &post{underWay: map[string]int{}, send: func(context.Context, *mail.Message) error {
						close(reached)
						<-release
						return answer
					}}
				}), reached, release
			}
			late, lateReached, lateRelease := holding(failure)
			b.enqueue(late)
			<-lateReached
			b.clock.move(time.Minute)
			second, reached, release := holding(nil)
			second.Poke()
			<-reached
			before := fmt.Sprint(b.stored())
			close(lateRelease)
			b.must(late.Close(t.Context()))
			if after := fmt.Sprint(b.stored()); after != before {
				t.Errorf("the job was %s and is %s", before, after)
			}
			close(release)
			b.next(event.MailSent, "")
			b.must(second.Close(t.Context()))
			b.none()
		})
	}
}

// Who had the last attempt died with it: the job ends, with a report.
func TestCrashInTheLastAttempt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	reached := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	dying, err := mail.NewOutbox(b.db, with(b.config(), func(c *mail.OutboxConfig) {
		c.MaxAttempts, c.Workers = 1, 1
		c.Mailer = &post{underWay: map[string]int{}, send: func(ctx context.Context, _ *mail.Message) error {
			close(reached)
			<-ctx.Done()
			return ctx.Err()
		}}
	}))
	b.must(err)
	dying.Start()
	b.enqueue(dying)
	<-reached
	cancel()
	if err := dying.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that of the context", err)
	}
	b.must(dying.Close(t.Context()))
	if len(b.stored()) != 1 {
		t.Fatal("a job that was given up is gone")
	}
	b.clock.move(time.Minute)
	b.outbox(func(c *mail.OutboxConfig) { c.MaxAttempts = 1 }).Poke()
	b.next(event.MailFailed, "attempts")
	b.empty()
	if len(b.post.messages()) != 0 {
		t.Error("it was tried more often than it may be")
	}
}

func with(c mail.OutboxConfig, change func(*mail.OutboxConfig)) mail.OutboxConfig {
	change(&c)
	return c
}

func TestBackoffAndAttempts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.post.decide(func(context.Context, *mail.Message) error { return errEarly })
	o := b.outbox(func(c *mail.OutboxConfig) { c.MaxAttempts = 4; c.Poll = 24 * time.Hour })
	id := b.enqueue(o)
	for attempt := 1; attempt < 4; attempt++ {
		wait, whole := b.attempts(attempt), 5*time.Second<<(attempt-1)
		if wait > whole || wait < whole/2-time.Millisecond {
			t.Errorf("after attempt %d it waits %s, want %s less up to a half", attempt, wait, whole)
		}
		b.clock.move(wait - time.Millisecond)
		o.Poke()
		b.clock.move(time.Millisecond)
		o.Poke()
	}
	e := b.next(event.MailFailed, "attempts")
	if e.Result != event.Failure || e.UserID != "usr_1" || e.Metadata["mail_id"] != id || e.Metadata["attempts"] != "4" {
		t.Errorf("the event %+v", e)
	}
	b.empty()
	if log := b.logs.String(); !strings.Contains(log, "try later") || !strings.Contains(log, "mail dropped") {
		t.Errorf("logged %s", log)
	}
}

func TestDefaultBackoff(t *testing.T) {
	t.Parallel()
	for attempt, whole := range map[int]time.Duration{
		1: 5 * time.Second, 2: 10 * time.Second, 5: 80 * time.Second, 8: 640 * time.Second, 9: 15 * time.Minute, 100: 15 * time.Minute, 1 << 40: 15 * time.Minute,
	} {
		seen := map[time.Duration]bool{}
		for range 100 {
			d := mail.DefaultBackoff(attempt)
			if d > whole || d < whole/2 {
				t.Errorf("after attempt %d: %s, want %s less up to a half", attempt, d, whole)
			}
			seen[d] = true
		}
		if len(seen) < 50 {
			t.Errorf("after attempt %d all instances come together: %d different waits of 100", attempt, len(seen))
		}
	}
	for failures, want := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 4: 8 * time.Second, 5: 15 * time.Second, 1 << 40: 15 * time.Second} {
		if got := mail.PauseAfter(failures); got != want {
			t.Errorf("after %d failures of the database: %s, want %s", failures, got, want)
		}
	}
}

// A retry comes by itself, without a poll.
func TestRetriesByItself(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var n atomic.Int64
	b.post.decide(func(context.Context, *mail.Message) error {
		if n.Add(1) < 3 {
			return errEarly
		}
		return nil
	})
	o := b.outbox(func(c *mail.OutboxConfig) {
		c.Now = time.Now
		c.Backoff = func(int) time.Duration { return 5 * time.Millisecond }
	})
	b.enqueue(o)
	if e := b.next(event.MailSent, ""); e.Metadata["attempts"] != "3" {
		t.Errorf("the event %+v", e)
	}
}

func TestDropped(t *testing.T) {
	t.Parallel()
	refuse := func(err error) func(*mail.OutboxConfig) {
		return func(c *mail.OutboxConfig) {
			c.Mailer = &post{underWay: map[string]int{}, send: func(context.Context, *mail.Message) error { return err }}
		}
	}
	compose := func(m *mail.Message, err error) func(*mail.OutboxConfig) {
		return func(c *mail.OutboxConfig) {
			c.Compose = func(context.Context, mail.Job) (*mail.Message, error) { return m, err }
		}
	}
	tests := []struct {
		name   string
		change func(*mail.OutboxConfig)
		reason string
		code   string
	}{
		{"refused for good", refuse(fmt.Errorf("x: %w", &mail.PermanentError{Code: 550, Reason: "no"})), "refused", "550"},
		{"refused without a server", refuse(&mail.PermanentError{Reason: "no"}), "refused", ""},
		{"composed wrongly", compose(&mail.Message{To: "a,b@x.example"}, nil), "invalid", ""},
		{"not to be composed", compose(nil, fmt.Errorf("x: %w", mail.ErrInvalidMessage)), "invalid", ""},
		{"refused by who composes", compose(nil, &mail.PermanentError{Reason: "no"}), "refused", ""},
		{"no time for another attempt", with2(refuse(errEarly), func(c *mail.OutboxConfig) { c.Backoff = func(int) time.Duration { return mail.DefaultLife } }), "expired", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.enqueue(b.outbox(tt.change))
			if e := b.next(event.MailFailed, tt.reason); e.Metadata["code"] != tt.code || e.Metadata["attempts"] != "1" || strings.Contains(fmt.Sprint(e), "@") {
				t.Errorf("the event %+v", e)
			}
			b.empty()
		})
	}
}

func with2(changes ...func(*mail.OutboxConfig)) func(*mail.OutboxConfig) {
	return func(c *mail.OutboxConfig) {
		for _, change := range changes {
			change(c)
		}
	}
}

// Nobody was there while the message was of use.
func TestExpired(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o, err := mail.NewOutbox(b.db, b.config())
	b.must(err)
	b.enqueue(o, func(j *mail.Job) { j.NotAfter = b.clock.Now().Add(time.Minute) })
	b.must(o.Close(t.Context()))
	b.clock.move(time.Minute)
	b.outbox().Poke()
	b.next(event.MailFailed, "expired")
	b.empty()
	if len(b.post.messages()) != 0 {
		t.Error("it was sent all the same")
	}
}

// A panic of a mailer or of who composes is one failure of one job.
func TestPanic(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var n atomic.Int64
	b.post.decide(func(_ context.Context, m *mail.Message) error {
		if n.Add(1) == 1 {
			panic("about " + m.Text)
		}
		return nil
	})
	composed := b.config().Compose
	o := b.outbox(func(c *mail.OutboxConfig) {
		c.Backoff = func(int) time.Duration { return 0 }
		c.Compose = func(ctx context.Context, job mail.Job) (*mail.Message, error) {
			if job.Kind == "broken" {
				panic(errEarly)
			}
			return composed(ctx, job)
		}
		c.MaxAttempts = 2
	})
	b.enqueue(o)
	b.next(event.MailSent, "")
	b.enqueue(o, func(j *mail.Job) { j.Kind = "broken" })
	b.next(event.MailFailed, "attempts")
	if log := b.logs.String(); !strings.Contains(log, "panicked") || !strings.Contains(log, "worker_test.go") || strings.Contains(log, "secret-of") {
		t.Errorf("logged %s", log)
	}
}

// A mailer that is slower than the lease is stopped before the lease ends.
func TestSlowMailer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const lease = 400 * time.Millisecond
	took := make(chan time.Duration, 8)
	slow := func(ctx context.Context, _ *mail.Message) error {
		start := time.Now()
		<-ctx.Done()
		took <- time.Since(start)
		return ctx.Err()
	}
	b.post.decide(slow)
	change := func(c *mail.OutboxConfig) {
		c.Now, c.Lease, c.MaxAttempts, c.Poll = time.Now, lease, 2, time.Millisecond
		c.Backoff = func(int) time.Duration { return 0 }
	}
	o := b.outbox(change)
	b.outboxOn(storetest.Second(t, b.db, nil), change)
	b.enqueue(o)
	b.next(event.MailFailed, "attempts")
	for range 2 {
		if d := <-took; d > lease*3/4+lease/8 {
			t.Errorf("it was let run for %s of a lease of %s", d, lease)
		}
	}
	if b.post.overlaps != 0 {
		t.Error("two instances sent one job at the same time")
	}
}
