package audit

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
)

// Record implements [event.Sink]: it is Write for those who can do nothing about an
// error. What is lost is counted and logged.
func (t *Trail) Record(ctx context.Context, e event.Event) { _ = t.Write(ctx, e) }

// Write records e. Events of other apps are passed over; one without an app concerns
// all.
//
// In a synchronous trail nil means stored. An error that wraps [store.ErrUnavailable]
// says that it was not within two seconds: the record is kept and written later.
// That the caller gives up does not shorten this. In any other trail nil means
// queued. Both return [ErrQueueFull] or [ErrClosed] for an event that is lost.
func (t *Trail) Write(ctx context.Context, e event.Event) error {
	if e.App != "" && e.App != t.config.App {
		return nil
	}
	q := e.Request
	if q == (event.Request{}) {
		q = event.RequestFrom(ctx)
	}
	return t.add(recordOf(&e, &q))
}

// Log records an event of the service's own, or one that its own code has found.
// Type is a word of the service, such as "sensitive_operation", in the form of
// [event.Type]; Result is [event.Success] unless it is given. Time, and what is not
// said of the request, come from the clock and from ctx ([event.WithRequest]).
// ID, Chain and Seq are given by the trail.
//
// [ErrInvalidRecord] says that the type has another form or begins with "audit_",
// that Result is neither of the two, or that Metadata is beyond the bounds of
// [event.Event]. Other errors are those of Write.
func (t *Trail) Log(ctx context.Context, r Record) error {
	if r.Result == "" {
		r.Result = event.Success
	}
	if err := r.check(); err != nil {
		return err
	}
	r.inRequest(event.RequestFrom(ctx))
	return t.add(r)
}

// LogAuthSuccess records that a user, or a machine, has signed in by means of the
// service's own: [event.AuthSuccess].
func (t *Trail) LogAuthSuccess(ctx context.Context, userID string, isM2M bool, metadata map[string]string) error {
	return t.Log(ctx, Record{Type: event.AuthSuccess, UserID: userID, IsM2M: isM2M, Metadata: metadata})
}

// LogAuthFailure records that a sign-in by means of the service's own has failed:
// [event.AuthFailure].
func (t *Trail) LogAuthFailure(ctx context.Context, reason string, metadata map[string]string) error {
	return t.Log(ctx, Record{Type: event.AuthFailure, Result: event.Failure, Reason: reason, Metadata: metadata})
}

// LogAccessDenied records that the service itself has refused userID the path:
// [event.AccessDenied].
func (t *Trail) LogAccessDenied(ctx context.Context, userID, path, reason string, metadata map[string]string) error {
	return t.Log(ctx, Record{Type: event.AccessDenied, Result: event.Failure, UserID: userID, Path: path, Reason: reason, Metadata: metadata})
}

// ownPrefix begins the types of the trail itself.
const ownPrefix = "audit_"

func (r *Record) check() error {
	if !validType(string(r.Type)) {
		return fmt.Errorf("%w: type %q is not a lower-case letter with up to 63 letters, digits and _", ErrInvalidRecord, text(string(r.Type)))
	}
	if strings.HasPrefix(string(r.Type), ownPrefix) {
		return fmt.Errorf("%w: types that begin with %q are the trail's own", ErrInvalidRecord, ownPrefix)
	}
	if r.Result != event.Success && r.Result != event.Failure {
		return fmt.Errorf("%w: result is neither %q nor %q", ErrInvalidRecord, event.Success, event.Failure)
	}
	if len(r.Metadata) > event.MaxMetadata {
		return fmt.Errorf("%w: %d members of metadata, %d are allowed", ErrInvalidRecord, len(r.Metadata), event.MaxMetadata)
	}
	for name, value := range r.Metadata {
		if !event.ValidMetadataName(name) {
			return fmt.Errorf("%w: metadata name %q does not match ^[A-Za-z0-9_]{1,64}$", ErrInvalidRecord, text(name))
		}
		if len(value) > event.MaxMetadataValue {
			return fmt.Errorf("%w: metadata %s has %d bytes, %d are allowed", ErrInvalidRecord, name, len(value), event.MaxMetadataValue)
		}
	}
	return nil
}

func validType(s string) bool {
	if s == "" || len(s) > 64 || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return true
}

// add cleans the record, queues it, and waits for it where the trail is synchronous.
func (t *Trail) add(r Record) error {
	r.clean(t.config.Now())
	r.ID, r.Chain, r.Seq = "", "", 0
	e := entry{record: r}
	if t.config.Synchronous {
		e.done = make(chan error, 1)
	}
	if err := t.queue.put(e); err != nil {
		t.lost(1, err)
		signal(t.queue.wake) // it may have looked for losses just before this one
		return err
	}
	if e.done == nil {
		return nil
	}
	timer := time.NewTimer(store.CallTimeout)
	defer timer.Stop()
	select {
	case err := <-e.done:
		return err
	case <-timer.C:
		n := t.late.Add(1)
		if powerOfTwo(n) {
			t.config.Logger.Warn("audit records are not stored yet: the database does not answer",
				slog.String("app", t.config.App), slog.Uint64("late", n))
		}
		return store.Error("store the audit record", context.DeadlineExceeded)
	}
}

// lost counts events that no trail will have. Logging each would make an overload
// worse, so only powers of two are logged.
func (t *Trail) lost(n int, why error) {
	if n == 0 {
		return
	}
	after := t.dropped.Add(uint64(n)) //nolint:gosec // a count of entries
	if n > 1 || powerOfTwo(after) {
		t.config.Logger.Error("audit events lost", slog.String("app", t.config.App), slog.Uint64("lost", after), slog.Any("error", why))
	}
}

func powerOfTwo(n uint64) bool { return n&(n-1) == 0 }
