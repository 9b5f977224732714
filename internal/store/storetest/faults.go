package storetest

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"testing"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
)

// FaultMode says what happens to a command.
type FaultMode string

// The modes.
const (
	// BreakBefore breaks the connection; the command never arrives.
	BreakBefore FaultMode = "break before"
	// BreakAfter breaks the connection when the command was carried out; its
	// answer never arrives.
	BreakAfter FaultMode = "break after"
	// Swallow lets the command disappear; nothing ever answers.
	Swallow FaultMode = "swallow"
	// CancelBefore cancels the caller's context; the command is carried out.
	CancelBefore FaultMode = "cancel before"
)

// FaultModes are all of them.
var FaultModes = []FaultMode{BreakBefore, BreakAfter, Swallow, CancelBefore}

// Faults is a network between a test and its database that does something to one
// command.
type Faults struct {
	// Counts says which commands are counted.
	Counts func(command bson.Raw) bool

	mu     sync.Mutex
	left   int // how many counted commands come before the one that is hit
	mode   FaultMode
	cancel context.CancelFunc
	armed  bool
	hit    bool
}

// Faulty returns an empty database behind f.
func Faulty(tb testing.TB, f *Faults) *mongo.Database {
	tb.Helper()
	return own(tb, newName(), nil, f)
}

// Arm makes the n-th counted command, from 1, meet the mode. cancel is called by
// CancelBefore.
func (f *Faults) Arm(n int, mode FaultMode, cancel context.CancelFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left, f.mode, f.cancel, f.armed, f.hit = n-1, mode, cancel, true, false
}

// Disarm lets everything through again and reports whether a command was hit.
func (f *Faults) Disarm() (hit bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.armed = false
	return f.hit
}

// restore implements network.
func (f *Faults) restore() { f.Disarm() }

// next decides about a message.
func (f *Faults) next(message []byte) (mode FaultMode, cancel context.CancelFunc) {
	command := commandOf(message)
	if command == nil || !f.Counts(command) {
		return "", nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.armed {
		return "", nil
	}
	if f.left > 0 {
		f.left--
		return "", nil
	}
	f.armed, f.hit = false, true
	return f.mode, f.cancel
}

// commandOf returns the command of an OP_MSG, nil for anything else. The driver
// writes each message whole.
func commandOf(message []byte) bson.Raw {
	const header, flagsAndKind, opMsg = 16, 5, 2013
	if len(message) < header+flagsAndKind+4 || binary.LittleEndian.Uint32(message[12:]) != opMsg || message[header+4] != 0 {
		return nil
	}
	body := message[header+flagsAndKind:]
	if n := binary.LittleEndian.Uint32(body); int(n) <= len(body) {
		return bson.Raw(body[:n])
	}
	return nil
}

// DialContext implements the driver's dialer.
func (f *Faults) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &faultyConn{Conn: conn, faults: f}, nil
}

type faultyConn struct {
	net.Conn
	faults *Faults
	// breaking is set between the command and its answer, which are one after the
	// other on a connection.
	breaking bool
}

var errBroken = errors.New("the connection broke")

func (c *faultyConn) Write(message []byte) (int, error) {
	switch mode, cancel := c.faults.next(message); mode {
	case BreakBefore:
		_ = c.Close()
		return 0, errBroken
	case BreakAfter:
		c.breaking = true
	case Swallow:
		return len(message), nil
	case CancelBefore:
		cancel()
	}
	return c.Conn.Write(message)
}

func (c *faultyConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.breaking && err == nil {
		_ = c.Close()
		return 0, errBroken
	}
	return n, err
}
