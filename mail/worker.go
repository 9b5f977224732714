package mail

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strconv"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
)

// The reasons of mail_failed.
const (
	reasonRefused  = "refused"  // for good, by the mailer
	reasonInvalid  = "invalid"  // the message cannot be made, or be sent as it is
	reasonAttempts = "attempts" // tried often enough
	reasonExpired  = "expired"  // of no use any more
)

// Pauses while the database fails.
const (
	firstPause = time.Second
	lastPause  = 15 * time.Second
)

// Start begins to send, from goroutines that end with [Outbox.Close]. It may be called
// again.
func (o *Outbox) Start() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.started && !o.closed {
		o.started = true
		o.ended.Go(o.run)
	}
}

// Close ends the work: no job is claimed any more, and what is being sent is finished.
// When ctx ends first that is given up, and sent by another instance once its lease has
// ended; the error wraps that of ctx. It may be called again.
func (o *Outbox) Close(ctx context.Context) error {
	o.shut()
	defer o.stop()
	if err := store.Wait(ctx, &o.ended); err != nil {
		return fmt.Errorf("mail: a message was not sent to the end: %w", err)
	}
	return nil
}

func (o *Outbox) shut() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closed {
		o.closed = true
		close(o.closing)
	}
}

// poke says that something may be due.
func (o *Outbox) poke() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// run claims jobs, each once there is a slot for it, until the outbox is closed.
func (o *Outbox) run() {
	failures := 0
	for {
		select {
		case o.slots <- struct{}{}:
		case <-o.closing:
			return
		}
		select {
		case <-o.closing: // when both were ready
			return
		default:
		}
		ctx, cancel := context.WithTimeout(o.work, time.Duration(float64(o.config.Lease)*sendPart))
		claimed, err := o.claim(ctx)
		if err == nil && claimed != nil {
			failures = 0
			o.ended.Go(func() {
				defer func() { <-o.slots }()
				defer cancel()
				o.handle(ctx, claimed)
			})
			continue
		}
		cancel()
		<-o.slots
		if err == nil {
			failures = 0
			if !o.idle() {
				return
			}
			continue
		}
		failures++
		o.config.Logger.Error("the mail outbox cannot be read", slog.String("app", o.config.App), slog.Int("failures", failures), slog.Any("error", err))
		if !o.pause(failures, o.closing) {
			return
		}
	}
}

// idle waits until something may be due. It returns false when the outbox is closed.
func (o *Outbox) idle() bool {
	timer := time.NewTimer(o.config.Poll + random(o.config.Poll/5))
	defer timer.Stop()
	select {
	case <-o.wake:
	case <-timer.C:
	case <-o.closing:
		return false
	}
	return true
}

// pause waits after the given number of failures in a row, whatever wakes it. It returns
// false when end is closed.
func (o *Outbox) pause(failures int, end <-chan struct{}) bool {
	timer := time.NewTimer(pauseAfter(failures))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-end:
		return false
	}
}

func pauseAfter(failures int) time.Duration {
	if failures > 5 {
		return lastPause
	}
	return min(firstPause<<(failures-1), lastPause)
}

// claim takes the job that has been due for longest, nil where none is. One that has
// expired is claimed, too: who claims it drops and reports it.
func (o *Outbox) claim(ctx context.Context) (*record, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	now := store.Time(o.config.Now())
	var r record
	err := o.coll.FindOneAndUpdate(ctx,
		bson.D{{Key: "app", Value: o.config.App}, {Key: "next_at", Value: bson.D{{Key: "$lte", Value: now}}}},
		bson.D{
			{Key: "$set", Value: bson.D{{Key: "next_at", Value: now.Add(o.config.Lease)}, {Key: "holder", Value: store.NewID("lse_")}}},
			{Key: "$inc", Value: bson.D{{Key: "attempts", Value: 1}}},
		},
		options.FindOneAndUpdate().SetSort(bson.D{{Key: "next_at", Value: 1}}).SetReturnDocument(options.After),
	).Decode(&r)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil, nil
	}
	return &r, store.Error("claim mail", err)
}

// handle brings one claimed job as far as it comes.
func (o *Outbox) handle(ctx context.Context, r *record) {
	if o.wasSent(r.ID) {
		o.remove(r) //nolint:contextcheck // what is written about a job has time of its own
		return
	}
	if !r.NotAfter.After(o.config.Now()) {
		o.drop(r, reasonExpired, nil)
		return
	}
	if r.Attempts > o.config.MaxAttempts {
		o.drop(r, reasonAttempts, nil) // who had the last attempt did not live to say so
		return
	}
	sent, err := o.deliver(ctx, r.job())
	var permanent *PermanentError
	switch {
	case err == nil:
		o.finish(r, sent) //nolint:contextcheck // what is written about a job has time of its own
	case o.work.Err() != nil: // given up by Close: the lease ends by itself
	case errors.As(err, &permanent):
		o.drop(r, reasonRefused, err)
	case errors.Is(err, ErrInvalidMessage):
		o.drop(r, reasonInvalid, err)
	case r.Attempts >= o.config.MaxAttempts:
		o.drop(r, reasonAttempts, err)
	default:
		o.postpone(r, err) //nolint:contextcheck // what is written about a job has time of its own
	}
}

// deliver composes and sends. sent is false where there was nothing to send. A panic is a
// temporary failure: its value may hold what the message says, so only its type is told.
func (o *Outbox) deliver(ctx context.Context, job Job) (sent bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("mail: composing or sending panicked with a %T", p)
			o.config.Logger.Error("mail: panic", o.about(job.ID, job.Kind), slog.String("stack", string(debug.Stack())))
		}
	}()
	m, err := o.config.Compose(ctx, job)
	if m == nil || err != nil {
		return false, err
	}
	m.ID = job.ID
	return true, o.config.Mailer.Send(ctx, m)
}

func (o *Outbox) about(id, kind string) slog.Attr {
	return slog.Group("mail", slog.String("app", o.config.App), slog.String("id", id), slog.String("kind", kind))
}

// finish reports a message that was handed on, and removes its job.
func (o *Outbox) finish(r *record, sent bool) {
	if sent {
		o.report(event.MailSent, r, "", nil)
	}
	o.mu.Lock()
	o.sent[r.ID] = true
	o.mu.Unlock()
	o.remove(r)
}

func (o *Outbox) wasSent(id string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.sent[id]
}

// lastRemovals is how often it is tried while the outbox is being closed to remove a job.
const lastRemovals = 4

// remove removes a job whose message was handed on, whoever holds it by now: nobody must
// send it again. It ends when that is done or Close gives up, and soon after Close began.
func (o *Outbox) remove(r *record) {
	last := lastRemovals
	for failures := 1; ; failures++ {
		// Also when Close has given up this is tried once.
		_, err := o.delete(context.WithoutCancel(o.work), o.byID(r))
		if err == nil {
			o.mu.Lock()
			delete(o.sent, r.ID)
			o.mu.Unlock()
			return
		}
		o.config.Logger.Error("a sent mail cannot be removed from the outbox, and may be sent again", o.about(r.ID, r.Kind), slog.Any("error", err))
		select {
		case <-o.closing:
			if last--; last == 0 {
				return
			}
			failures = 1
		default:
		}
		if !o.pause(failures, o.work.Done()) {
			return
		}
	}
}

// drop removes a job whose message is not sent, if it is still ours, and reports it. One
// that cannot be removed comes up again when the lease has ended.
func (o *Outbox) drop(r *record, reason string, cause error) {
	attrs := []any{o.about(r.ID, r.Kind), slog.String("reason", reason), slog.Int("attempts", r.Attempts)}
	if cause != nil {
		attrs = append(attrs, slog.Any("error", cause))
	}
	removed, err := o.delete(o.work, o.held(r))
	if err != nil {
		o.config.Logger.Error("a mail cannot be dropped from the outbox", append(attrs, slog.Any("removal", err))...)
		return
	}
	if removed {
		o.config.Logger.Warn("mail dropped", attrs...)
		o.report(event.MailFailed, r, reason, cause)
	}
}

// postpone makes the job due again later, if it is still ours.
func (o *Outbox) postpone(r *record, cause error) {
	wait := o.config.Backoff(r.Attempts)
	next := store.Time(o.config.Now().Add(wait))
	if !next.Before(r.NotAfter) {
		o.drop(r, reasonExpired, cause)
		return
	}
	o.config.Logger.Warn("mail not sent for now", o.about(r.ID, r.Kind), slog.Int("attempts", r.Attempts), slog.Any("error", cause))
	ctx, cancel := store.Context(o.work)
	defer cancel()
	_, err := o.coll.UpdateOne(ctx, o.held(r), bson.D{
		{Key: "$set", Value: bson.D{{Key: "next_at", Value: next}}},
		{Key: "$unset", Value: bson.D{{Key: "holder", Value: ""}}},
	})
	if err != nil {
		// The lease ends by itself.
		o.config.Logger.Error("a mail cannot be put off", o.about(r.ID, r.Kind), slog.Any("error", store.Error("put off mail", err)))
		return
	}
	if wait < o.config.Poll {
		time.AfterFunc(wait, o.poke)
	}
}

func (o *Outbox) byID(r *record) bson.D {
	return bson.D{{Key: "_id", Value: r.ID}, {Key: "app", Value: o.config.App}}
}

// held matches the job as long as nobody has claimed it after us.
func (o *Outbox) held(r *record) bson.D {
	return append(o.byID(r), bson.E{Key: "holder", Value: r.Holder})
}

func (o *Outbox) delete(ctx context.Context, filter bson.D) (removed bool, err error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	res, err := o.coll.DeleteOne(ctx, filter)
	if err != nil {
		return false, store.Error("remove mail", err)
	}
	return res.DeletedCount == 1, nil
}

func (o *Outbox) report(kind event.Type, r *record, reason string, cause error) {
	e := event.Event{
		Type: kind, Result: event.Success, App: o.config.App, Time: o.config.Now(), UserID: r.UserID, Reason: reason,
		Metadata: map[string]string{"mail_id": r.ID, "kind": r.Kind, "attempts": strconv.Itoa(r.Attempts)},
	}
	if kind == event.MailFailed {
		e.Result = event.Failure
	}
	var permanent *PermanentError
	if errors.As(cause, &permanent) && permanent.Code != 0 {
		e.Metadata["code"] = strconv.Itoa(permanent.Code)
	}
	o.config.Events.Record(o.work, e)
}
