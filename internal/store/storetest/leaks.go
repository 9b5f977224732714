package storetest

import (
	"testing"

	"go.uber.org/goleak"
)

// Main runs the tests and fails when a goroutine outlives them, apart from those
// of the database and the client that all tests share.
func Main(m *testing.M) {
	const driver, local = "go.mongodb.org/mongo-driver/x/mongo/driver/topology.", "github.com/mandate-auth/mandate/localmongo."
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction(local+"(*Server).listen.func1"),
		goleak.IgnoreAnyFunction(local+"(*data).expire"),
		goleak.IgnoreAnyFunction(local+"(*session).run"),
		goleak.IgnoreAnyFunction(driver+"(*pool).maintain"),
		goleak.IgnoreAnyFunction(driver+"(*pool).createConnections"),
		goleak.IgnoreAnyFunction(driver+"(*rttMonitor).start"),
		goleak.IgnoreAnyFunction(driver+"(*Server).update"),
		goleak.IgnoreAnyFunction(driver+"(*pool).clearImpl.func1"),
		goleak.IgnoreAnyFunction(driver+"(*Topology).pollSRVRecords"),
		goleak.IgnoreAnyFunction(driver+"bgRead"),
		// A server of MongoDB is watched by a heartbeat that waits for its answer.
		goleak.IgnoreAnyFunction(driver+"(*cancellListener).Listen"),
	)
}
