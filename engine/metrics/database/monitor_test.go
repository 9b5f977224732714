package database_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/event"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/engine/metrics"
	"github.com/mandate-auth/mandate/engine/metrics/database"
	"github.com/mandate-auth/mandate/internal/store/storetest"
)

func TestMonitorCountsCommands(t *testing.T) {
	t.Parallel()
	c := metrics.New(metrics.Config{})
	db := storetest.Monitored(t, database.Monitor(c, nil))
	c.Reset() // what setting up the database took is not of interest
	ctx := t.Context()
	for range 3 {
		if _, err := db.Collection("things").InsertOne(ctx, bson.M{"app": "shop"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Collection("things").FindOne(ctx, bson.M{"app": "shop"}).Err(); err != nil {
		t.Fatal(err)
	}
	if err := db.RunCommand(ctx, bson.D{{Key: "noSuchCommand", Value: 1}}).Err(); err == nil {
		t.Fatal("the server knows a command that does not exist")
	}
	got := map[string]uint64{}
	for command, h := range c.Report().Database {
		got[command] = h.Count
		if h.Sum <= 0 {
			t.Errorf("%s took %v", command, h.Sum)
		}
	}
	// A failed command took its time like any other.
	if d := cmp.Diff(map[string]uint64{"insert": 3, "find": 1, "noSuchCommand": 1}, got); d != "" {
		t.Error(d)
	}
}

// A client has one monitor: taking its place must not silence the service's own.
func TestMonitorPassesEventsOn(t *testing.T) {
	t.Parallel()
	var started, succeeded, failed atomic.Int64
	c := metrics.New(metrics.Config{})
	m := database.Monitor(c, &event.CommandMonitor{
		Started:   func(context.Context, *event.CommandStartedEvent) { started.Add(1) },
		Succeeded: func(context.Context, *event.CommandSucceededEvent) { succeeded.Add(1) },
		Failed:    func(context.Context, *event.CommandFailedEvent) { failed.Add(1) },
	})
	finished := event.CommandFinishedEvent{CommandName: "find", Duration: time.Second}
	m.Started(t.Context(), &event.CommandStartedEvent{})
	m.Succeeded(t.Context(), &event.CommandSucceededEvent{CommandFinishedEvent: finished})
	m.Failed(t.Context(), &event.CommandFailedEvent{CommandFinishedEvent: finished})
	if started.Load() != 1 || succeeded.Load() != 1 || failed.Load() != 1 {
		t.Errorf("%d started, %d succeeded, %d failed", started.Load(), succeeded.Load(), failed.Load())
	}
	if h := c.Report().Database["find"]; h.Count != 2 || h.Sum != 2*time.Second {
		t.Errorf("%+v", h)
	}
}

func ExampleMonitor() {
	c := metrics.New(metrics.Config{})
	_ = options.Client().ApplyURI("mongodb://127.0.0.1:27017").SetMonitor(database.Monitor(c, nil))
}
