// Package database feeds [metrics.Collector] with what the commands of a MongoDB
// client take. It stands apart from engine/metrics because it needs the driver.
package database

import (
	"context"

	"go.mongodb.org/mongo-driver/event"

	"github.com/mandate-auth/mandate/engine/metrics"
)

// Monitor returns a monitor that counts every command by its name in c, successful
// and failed ones, to be set in the options of the service's client:
//
//	options.Client().ApplyURI(uri).SetMonitor(database.Monitor(c, nil))
//
// A client belongs to no app, so c is best a collector of its own, without a name.
// A client has one monitor: one that it has already is passed as next, and sees every
// event too. Commands that wait for changes, getMore above all, take as long as
// nothing changes.
func Monitor(c *metrics.Collector, next *event.CommandMonitor) *event.CommandMonitor {
	if next == nil {
		next = &event.CommandMonitor{}
	}
	succeeded, failed := next.Succeeded, next.Failed
	return &event.CommandMonitor{
		Started: next.Started,
		Succeeded: func(ctx context.Context, e *event.CommandSucceededEvent) {
			c.DatabaseLatency(e.CommandName, e.Duration)
			if succeeded != nil {
				succeeded(ctx, e)
			}
		},
		Failed: func(ctx context.Context, e *event.CommandFailedEvent) {
			c.DatabaseLatency(e.CommandName, e.Duration)
			if failed != nil {
				failed(ctx, e)
			}
		},
	}
}
