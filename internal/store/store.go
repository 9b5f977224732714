// Package store holds what every package that owns a MongoDB collection needs
// and none of them should decide for itself: how the service's handle is
// re-derived, how long a call may take, which errors it can end in, how an
// index is declared and checked, and how an identifier is made.
//
// It knows no collection: each is declared by the package that owns it.
package store

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"
	"go.mongodb.org/mongo-driver/mongo/readconcern"
	"go.mongodb.org/mongo-driver/mongo/readpref"
	"go.mongodb.org/mongo-driver/mongo/writeconcern"
)

// CallTimeout bounds one call to MongoDB, the choice of a server included.
const CallTimeout = 2 * time.Second

// Conditions that a call can end in. Test for them with [errors.Is].
var (
	// ErrUnavailable says that MongoDB did not answer, or not in time, so that
	// the outcome of a write is unknown. The caller may repeat the call.
	ErrUnavailable = errors.New("database unavailable")
	// ErrDuplicate says that a unique index refused the write (code 11000).
	ErrDuplicate = errors.New("duplicate key")
	// ErrNotFound says that no document matched.
	ErrNotFound = errors.New("not found")
)

// Handle returns db with the guarantees that revocation rests on: writes are
// acknowledged by a majority and journaled, reads go to the primary. A write
// acknowledged by one node can be rolled back in a failover, and a revoked
// session would live again.
func Handle(db *mongo.Database) *mongo.Database {
	journal := true
	return db.Client().Database(db.Name(), options.Database().
		SetWriteConcern(&writeconcern.WriteConcern{W: "majority", Journal: &journal}).
		SetReadConcern(readconcern.Local()).
		SetReadPreference(readpref.Primary()))
}

// Context returns ctx bounded by [CallTimeout]. The returned function must be
// called when the call is over.
func Context(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, CallTimeout)
}

// Error describes err as the outcome of the operation op. The result wraps
// [ErrNotFound], [ErrDuplicate] or [ErrUnavailable] where one of them applies,
// and always wraps err. A nil err stays nil.
//
// A caller that gave up is not told that the database is away: an error of a
// cancelled context wraps [context.Canceled] and nothing else.
func Error(op string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, mongo.ErrNoDocuments):
		return fmt.Errorf("%s: %w", op, ErrNotFound)
	case mongo.IsDuplicateKeyError(err):
		return fmt.Errorf("%s: %w: %w", op, ErrDuplicate, err)
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s: %w", op, err)
	case unavailable(err):
		return fmt.Errorf("%s: %w: %w", op, ErrUnavailable, err)
	default:
		return fmt.Errorf("%s: %w", op, err)
	}
}

// unavailable reports whether err leaves the outcome open or says that no
// server would take the call now.
func unavailable(err error) bool {
	if mongo.IsTimeout(err) || mongo.IsNetworkError(err) ||
		errors.Is(err, mongo.ErrClientDisconnected) || errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	var concern mongo.WriteException
	if errors.As(err, &concern) && concern.WriteConcernError != nil && len(concern.WriteErrors) == 0 {
		return true
	}
	var server mongo.ServerError
	if !errors.As(err, &server) {
		// Errors of the driver itself (pool cleared, selection failed) carry no
		// code. They say that no server answered.
		var command mongo.CommandError
		return !errors.As(err, &command) && !isBSON(err)
	}
	for _, code := range retryableCodes {
		if server.HasErrorCode(code) {
			return true
		}
	}
	return server.HasErrorLabel("RetryableWriteError") || server.HasErrorLabel("TransientTransactionError")
}

// retryableCodes are the server's words for "not now": a step-down, a
// shutdown, an interrupted or timed-out operation.
var retryableCodes = []int{6, 7, 43, 50, 64, 89, 91, 189, 262, 9001, 10107, 11600, 11602, 13435, 13436}

// isBSON reports whether err came from decoding, which is a defect or foreign
// data and not an outage.
func isBSON(err error) bool {
	var mode mongo.MarshalError
	return errors.As(err, &mode) || errors.Is(err, bson.ErrDecodeToNil)
}

// idEncoding is Crockford-like: lower case, no padding, safe in URLs, cookies
// and file names.
var idEncoding = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// NewID returns prefix followed by 128 random bits in 26 characters of base32.
// The prefix ("usr_", "ses_") keeps identifiers of one kind from being taken
// for another.
func NewID(prefix string) string {
	var raw [16]byte
	// crypto/rand.Read never fails: it ends the process where there is no
	// randomness.
	_, _ = rand.Read(raw[:])
	return prefix + idEncoding.EncodeToString(raw[:])
}

// ValidID reports whether id is one that [NewID] could have made with prefix.
func ValidID(id, prefix string) bool {
	if len(id) != len(prefix)+26 || id[:len(prefix)] != prefix {
		return false
	}
	for i := len(prefix); i < len(id); i++ {
		c := id[i]
		digit := c >= '0' && c <= '9'
		letter := c >= 'a' && c <= 'z' && c != 'i' && c != 'l' && c != 'o' && c != 'u'
		if !digit && !letter {
			return false
		}
	}
	return true
}

// Wait waits for the goroutines of wg to end, or for ctx.
func Wait(ctx context.Context, wg *sync.WaitGroup) error {
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Time returns t as MongoDB keeps it: UTC, whole milliseconds. A value that is
// compared with one read back must pass through here before it is written.
func Time(t time.Time) time.Time {
	return t.UTC().Truncate(time.Millisecond)
}
