package users

import (
	"context"
	"errors"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/engine/event"
	"github.com/mandate-auth/mandate/internal/store"
	"github.com/mandate-auth/mandate/tokens/keys"
)

const (
	// maxStreak is how many failures in a row an identifier may ever have (NIST
	// SP 800-63B-4 section 3.2.2). After it only a device that is known, a new
	// password set by the service, or [Store.Unlock] lets the user in.
	maxStreak = 100
	// An attempt that waits while all others are under way looks again after
	// attemptPause, then after twice as long each time, up to maxAttemptPause.
	attemptPause    = 20 * time.Millisecond
	maxAttemptPause = 160 * time.Millisecond
	// lockedForever is what a client is told to wait after maxStreak.
	lockedForever = 24 * time.Hour
)

// counter is what is known about the attempts at one identifier.
type counter struct {
	Budget     int       `bson:"budget"`
	Failures   int       `bson:"failures"`
	Streak     int       `bson:"streak"`
	WindowEnds time.Time `bson:"window_ends"`
}

// attempt is one try that has been reserved: its result has to be reported.
type attempt struct {
	id string
}

// identifierID is where the attempts at a normalised identifier are counted.
// The same name is used whether or not it belongs to a user.
func (s *Store) identifierID(norm string) string {
	return s.config.App + "|" + s.config.Keys.Identifiers(keys.Attempt, "id/"+norm)[0]
}

// deviceID is where the attempts of a known device of a user are counted.
func (s *Store) deviceID(userID, device string) string {
	return s.config.App + "|" + s.config.Keys.Identifiers(keys.Attempt, "device/"+userID+"/"+device)[0]
}

// reserve takes one attempt out of the budget before anything is hashed, so
// that parallel guesses cannot pass the limit. While all that is left is under
// way it waits: an honest crowd gets in one after the other.
//
// The error is a [LockedError] when the identifier is locked, and [ErrBusy]
// when the wait was in vain.
func (s *Store) reserve(ctx context.Context, id string, known bool) (*attempt, error) {
	timer := time.NewTimer(s.config.Lockout.Wait)
	defer timer.Stop()
	for pause := attemptPause; ; pause = min(2*pause, maxAttemptPause) {
		took, err := s.tryReserve(ctx, id, known)
		if err != nil {
			return nil, err
		}
		if took {
			return &attempt{id: id}, nil
		}
		select {
		case <-time.After(pause):
		case <-timer.C:
			return nil, ErrBusy
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// tryReserve takes an attempt if there is one. It reports false when all that is
// left is under way.
func (s *Store) tryReserve(ctx context.Context, id string, known bool) (bool, error) {
	for {
		c, err := s.counter(ctx, id)
		if err != nil {
			return false, err
		}
		now := s.config.Now()
		var took bool
		switch {
		case c != nil && c.Streak >= maxStreak:
			return false, &LockedError{RetryAfter: lockedForever}
		case c == nil || !now.Before(c.WindowEnds):
			// Neither a window nor a budget yet, or an old one: open a new window.
			took, err = s.open(ctx, id, now, known)
		case c.Failures >= s.config.Lockout.MaxFailures:
			return false, &LockedError{RetryAfter: c.WindowEnds.Sub(now)}
		case c.Budget <= 0:
			// A crowd that waits reads, and does not write.
			return false, nil
		default:
			took, err = s.take(ctx, id)
		}
		if took || err != nil {
			return took, err
		}
		// Another attempt was faster: what it has left is in the counter.
	}
}

func (s *Store) take(ctx context.Context, id string) (bool, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	res, err := s.attempts.UpdateOne(ctx, bson.M{
		"_id": id, "app": s.config.App, "budget": bson.M{"$gt": 0},
		"failures": bson.M{"$lt": s.config.Lockout.MaxFailures}, "streak": bson.M{"$lt": maxStreak},
		"window_ends": bson.M{"$gt": s.config.Now()},
	}, bson.M{"$inc": bson.M{"budget": -1}})
	if err != nil {
		return false, store.Error("reserve the attempt", err)
	}
	return res.MatchedCount == 1, nil
}

func (s *Store) counter(ctx context.Context, id string) (*counter, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	var c counter
	err := s.attempts.FindOne(ctx, bson.M{"_id": id, "app": s.config.App}).Decode(&c)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil, nil //nolint:nilnil // no counter is an answer, not an error
	}
	if err != nil {
		return nil, store.Error("read the attempts", err)
	}
	return &c, nil
}

// open begins a new window and takes the first attempt of it. It reports false
// when another attempt was faster.
func (s *Store) open(ctx context.Context, id string, now time.Time, known bool) (bool, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	ends := store.Time(now.Add(s.config.Lockout.Window))
	_, err := s.attempts.UpdateOne(ctx,
		bson.M{"_id": id, "app": s.config.App, "window_ends": bson.M{"$lte": now}},
		bson.M{
			"$set": bson.M{
				"budget": s.config.Lockout.MaxFailures - 1, "failures": 0, "window_ends": ends,
				"expires_at": store.Time(now.Add(s.counterLife(known))),
			},
			"$setOnInsert": bson.M{"streak": 0, "created_at": store.Time(now)},
		}, options.Update().SetUpsert(true))
	if mongo.IsDuplicateKeyError(err) {
		return false, nil
	}
	if err != nil {
		return false, store.Error("open a window of attempts", err)
	}
	return true, nil
}

// counterLife is how long a counter is kept. That of an account has to remember
// its streak far beyond the window. One for an identifier that nobody has, which
// anybody can make by asking, goes once it no longer counts.
func (s *Store) counterLife(known bool) time.Duration {
	if known {
		return 365 * 24 * time.Hour
	}
	return s.config.Lockout.Window + s.config.Lockout.Duration
}

// failed counts a wrong password and reports whether it locked the identifier.
func (s *Store) failed(ctx context.Context, a *attempt) (locked bool, err error) {
	ctx = context.WithoutCancel(ctx)
	c, err := s.count(ctx, a)
	if err != nil || c == nil {
		return false, err
	}
	if c.Failures < s.config.Lockout.MaxFailures {
		return false, nil
	}
	ctx, cancel := store.Context(ctx)
	defer cancel()
	ends := store.Time(s.config.Now().Add(s.config.Lockout.Duration))
	_, err = s.attempts.UpdateOne(ctx,
		bson.M{"_id": a.id, "app": s.config.App, "failures": bson.M{"$gte": s.config.Lockout.MaxFailures}},
		bson.M{"$max": bson.M{"window_ends": ends}})
	return true, store.Error("lock the identifier", err)
}

func (s *Store) count(ctx context.Context, a *attempt) (*counter, error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	var c counter
	err := s.attempts.FindOneAndUpdate(ctx, bson.M{"_id": a.id, "app": s.config.App},
		bson.M{"$inc": bson.M{"failures": 1, "streak": 1}},
		options.FindOneAndUpdate().SetReturnDocument(options.After)).Decode(&c)
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil, nil //nolint:nilnil // a success elsewhere has reset the counter
	}
	if err != nil {
		return nil, store.Error("count the failure", err)
	}
	return &c, nil
}

// succeeded resets the counter after the right password.
func (s *Store) succeeded(ctx context.Context, id string) error {
	ctx, cancel := store.Context(context.WithoutCancel(ctx))
	defer cancel()
	_, err := s.attempts.UpdateOne(ctx, bson.M{"_id": id, "app": s.config.App},
		bson.M{"$set": bson.M{"budget": s.config.Lockout.MaxFailures, "failures": 0, "streak": 0}})
	return store.Error("reset the attempts", err)
}

// Unlock forgets the failed attempts at an e-mail address, whether or not it
// belongs to a user.
func (s *Store) Unlock(ctx context.Context, email string) error {
	norm, err := NormalizeEmail(email)
	if err != nil {
		return err
	}
	return s.unlock(ctx, norm)
}

func (s *Store) unlock(ctx context.Context, norm string) error {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	_, err := s.attempts.DeleteOne(ctx, bson.M{"_id": s.identifierID(norm), "app": s.config.App})
	return store.Error("unlock", err)
}

// giveBack returns an attempt that was reserved and told nobody anything, because
// no password was compared. An overload would lock people out otherwise. When it
// cannot be stored the attempt is lost until the window ends.
func (s *Store) giveBack(ctx context.Context, a *attempt) {
	ctx, cancel := store.Context(context.WithoutCancel(ctx))
	defer cancel()
	_, _ = s.attempts.UpdateOne(ctx, bson.M{"_id": a.id, "app": s.config.App, "budget": bson.M{"$lt": s.config.Lockout.MaxFailures}},
		bson.M{"$inc": bson.M{"budget": 1}})
}

// giveUp reports the failure of an attempt and returns what the caller answers.
func (s *Store) giveUp(ctx context.Context, a *attempt, userID string) error {
	locked, err := s.failed(ctx, a)
	if err != nil {
		return err
	}
	s.report(ctx, event.LoginFailed, event.Failure, userID, "invalid_credentials")
	if locked {
		s.report(ctx, event.AccountLocked, event.Failure, userID, "")
	}
	return ErrInvalidCredentials
}
