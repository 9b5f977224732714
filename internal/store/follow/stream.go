package follow

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"
	"go.mongodb.org/mongo-driver/mongo/readconcern"

	"github.com/mandate-auth/mandate/internal/store"
)

// run follows the collection until ctx ends.
func (f *Follower) run(ctx context.Context) {
	streamable := !f.config.DisableChangeStream
	for ctx.Err() == nil {
		pollFor := streamRetry
		if streamable {
			err := f.follow(ctx)
			f.stream.Store(false)
			if ctx.Err() != nil {
				return
			}
			if errors.Is(err, errUnsupported) {
				streamable = false
			} else {
				f.config.Logger.Warn("a change stream ended; polling", slog.String("of", f.config.Name), slog.Any("error", err))
			}
		}
		if !streamable {
			pollFor = 0
		}
		f.pollUntil(ctx, pollFor)
	}
}

// pollUntil polls for the given time, or until ctx ends when it is 0.
func (f *Follower) pollUntil(ctx context.Context, limit time.Duration) {
	began := Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	// After a stream that failed, everything is read again first.
	reloaded := time.Duration(-1)
	failing := false
	for limit == 0 || Now()-began < limit {
		var err error
		if reloaded < 0 || Now()-reloaded >= reloadInterval {
			if err = f.timed(ctx, f.config.Load); err == nil {
				reloaded = Now()
			}
		} else {
			err = f.timed(ctx, f.config.Poll)
		}
		if failing != (err != nil) && ctx.Err() == nil {
			failing = err != nil
			f.logOutage(err)
		}
		timer.Reset(time.Duration(f.interval.Load()))
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
	}
}

func (f *Follower) logOutage(err error) {
	collection := slog.String("collection", f.config.Collection.Name())
	if err != nil {
		f.config.Logger.Error(f.config.Name+" cannot be read; guarded requests are refused once they are too old", collection, slog.Any("error", err))
		return
	}
	f.config.Logger.Info(f.config.Name+" are read again", collection)
}

// follow follows the collection by a change stream until that fails. The order
// is open, load, apply, so that no entry falls between the load and the stream.
func (f *Follower) follow(ctx context.Context) error {
	// A server refuses a change stream with any other read concern.
	coll, err := f.config.Collection.Clone(options.Collection().SetReadConcern(readconcern.Majority()))
	if err != nil {
		return err
	}
	stream, err := coll.Watch(ctx, mongo.Pipeline{
		{{Key: "$match", Value: bson.M{"operationType": bson.M{"$in": bson.A{"insert", "update", "replace", "invalidate"}}}}},
	}, options.ChangeStream().SetFullDocument(options.UpdateLookup).SetMaxAwaitTime(streamAwait))
	if err != nil {
		if streamsUnsupported(err) {
			return errUnsupported
		}
		return err
	}
	defer func() {
		// The context is over when the feed closes; the cursor should still go.
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = stream.Close(closing)
	}()
	// The first answer is the one that opened the stream, from before now: it
	// proves nothing about this moment.
	if _, err := f.advance(ctx, stream); err != nil {
		return err
	}
	if err := f.timed(ctx, f.config.Load); err != nil {
		return err
	}
	f.stream.Store(true)
	reloaded, began, events := Now(), time.Duration(0), 0
	for {
		if stream.RemainingBatchLength() == 0 {
			began, events = Now(), 0 // the next one is asked for now
		}
		delivered, err := f.advance(ctx, stream)
		if err != nil {
			return err
		}
		if delivered {
			events++
		}
		if stream.RemainingBatchLength() == 0 && events < fullBatch {
			// A batch, also one without events, holds whatever was written before it
			// was asked for, unless there was more than fits.
			f.freshSince(began)
		}
		if Now()-reloaded >= reloadInterval {
			if err := f.timed(ctx, f.config.Load); err != nil {
				return err
			}
			reloaded = Now()
		}
	}
}

// advance takes the next event, or fetches a batch and finds none in it.
func (f *Follower) advance(ctx context.Context, stream *mongo.ChangeStream) (delivered bool, err error) {
	ctx, cancel := store.Context(ctx)
	defer cancel()
	if !stream.TryNext(ctx) {
		if err := stream.Err(); err != nil {
			return false, err
		}
		if stream.ID() == 0 {
			return false, errors.New("the change stream was closed by the server")
		}
		return false, nil
	}
	var event struct {
		Type string   `bson:"operationType"`
		Full bson.Raw `bson:"fullDocument"`
	}
	if err := stream.Decode(&event); err != nil {
		return false, err
	}
	if event.Type == "invalidate" {
		return false, errors.New("the collection was dropped or renamed")
	}
	// An update whose document is already gone again has nothing to say.
	if len(event.Full) == 0 {
		return true, nil
	}
	return true, f.config.Apply(event.Full)
}

// streamsUnsupported recognises a stand-alone server (40573) and servers that
// know no such stage.
func streamsUnsupported(err error) bool {
	var server mongo.ServerError
	return errors.As(err, &server) && (server.HasErrorCode(40573) || server.HasErrorCode(40324) ||
		server.HasErrorCode(59) || server.HasErrorCode(115) || server.HasErrorCode(238))
}
