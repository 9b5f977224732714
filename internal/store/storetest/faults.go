package storetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/x/bsonx/bsoncore"
)

// Fault is what happens to one command on its way to the database or back.
type Fault int

// The faults.
const (
	// Before breaks the connection before the command has left.
	Before Fault = iota + 1
	// BeforeTwice breaks it again when the driver sends the same command anew.
	BeforeTwice
	// AfterCommit lets the database carry the command out, throws its answer
	// away and breaks the connection.
	AfterCommit
	// Timeout swallows the command: no answer ever comes.
	Timeout
	// Cancel calls back before the command leaves.
	Cancel
	// AfterCommitCancel calls back once the database has carried the command
	// out, and then delivers the answer.
	AfterCommitCancel
)

// AllFaults are the faults there are.
var AllFaults = []Fault{Before, BeforeTwice, AfterCommit, Timeout, Cancel, AfterCommitCancel}

func (f Fault) String() string {
	return [...]string{"none", "Before", "BeforeTwice", "AfterCommit", "Timeout", "Cancel", "AfterCommitCancel"}[f]
}

// Step is one command of an operation: the Nth of that name and collection. The
// commands that an operation sends side by side come in any order, so that a
// number alone would not name the same one twice.
type Step struct {
	Command string // "find users"
	Nth     int    // from 1
}

func (s Step) String() string { return fmt.Sprintf("%s #%d", s.Command, s.Nth) }

// Faults is a network between a test and its database that does harm to one
// command. It reads what the driver sends, so that it knows commands from one
// another and where each ends. Neither compression nor TLS may be in use.
type Faults struct {
	// Counts chooses the commands that are steps: those in the foreground, not
	// those that the driver or a goroutine sends whenever it likes. It is given
	// the command with its document sequences as arrays in it.
	Counts func(command bson.Raw) bool

	mu     sync.Mutex
	on     bool
	fault  Fault
	at     Step
	act    func()
	seen   map[string]int
	trace  []Step
	struck []byte // the command that was hit
	hits   int
}

// Watch begins to list steps and does no harm.
func (f *Faults) Watch() { f.Arm(0, Step{}, nil) }

// Arm begins to list steps and does harm to the one at. act is what [Cancel] and
// [AfterCommitCancel] call.
func (f *Faults) Arm(fault Fault, at Step, act func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.on, f.fault, f.at, f.act = true, fault, at, act
	f.seen, f.trace, f.struck, f.hits = map[string]int{}, nil, nil, 0
}

// Disarm ends what Arm began. It returns the steps that were seen and how often
// the fault hit: once, or twice for [BeforeTwice] where the driver tried again.
func (f *Faults) Disarm() (trace []Step, hits int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.on = false
	return f.trace, f.hits
}

// restore implements network.
func (f *Faults) restore() { f.Disarm() }

// strike decides what happens to a command.
func (f *Faults) strike(command bson.Raw) (Fault, func()) {
	if command == nil || !f.Counts(command) {
		return 0, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.on {
		return 0, nil
	}
	name := stepName(command)
	f.seen[name]++
	step := Step{Command: name, Nth: f.seen[name]}
	f.trace = append(f.trace, step)
	switch {
	case f.fault == 0:
		return 0, nil
	case f.hits == 0 && step == f.at:
		f.hits, f.struck = 1, identity(command)
		return f.fault, f.act
	case f.hits == 1 && f.fault == BeforeTwice && bytes.Equal(f.struck, identity(command)):
		f.hits = 2
		return f.fault, f.act
	default:
		return 0, nil
	}
}

// stepName is the command's name and collection.
func stepName(command bson.Raw) string {
	elements, err := command.Elements()
	if err != nil || len(elements) == 0 {
		return ""
	}
	name := elements[0].Key()
	if collection, ok := elements[0].Value().StringValueOK(); ok {
		name += " " + collection
	}
	return name
}

// identity is what a command and its repetition by the driver have in common:
// all but the cluster's time. The session's id is the same in both and differs
// between commands that are under way at once.
func identity(command bson.Raw) []byte {
	var out []byte
	elements, err := command.Elements()
	if err != nil {
		return nil
	}
	for _, e := range elements {
		if e.Key() != "$clusterTime" {
			out = append(out, e...)
		}
	}
	return out
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

// faultyConn is one connection. The driver writes to it and reads from it in
// turn, and closes it at any time.
type faultyConn struct {
	net.Conn
	faults *Faults
	broken atomic.Bool
	// out is what was written of a message that is not whole yet.
	out []byte
	// pending is what happens to the next answer, in what is left of an answer
	// that has been read whole.
	pending Fault
	act     func()
	in      []byte
}

var errBroken = errors.New("the connection is broken")

// Write passes whole messages on.
func (c *faultyConn) Write(b []byte) (int, error) {
	if c.broken.Load() {
		return 0, errBroken
	}
	c.out = append(c.out, b...)
	for len(c.out) >= headerSize {
		size := int(binary.LittleEndian.Uint32(c.out))
		if size < headerSize {
			return 0, fmt.Errorf("a message of %d bytes", size)
		}
		if len(c.out) < size {
			break
		}
		if err := c.send(c.out[:size]); err != nil {
			return 0, err
		}
		c.out = c.out[size:]
	}
	return len(b), nil
}

func (c *faultyConn) send(message []byte) error {
	fault, act := c.faults.strike(commandOf(message))
	switch fault {
	case Before, BeforeTwice:
		c.hangUp()
		return nil // the driver learns it when it reads, as from a peer that is gone
	case Timeout:
		return nil
	case Cancel:
		act()
	case AfterCommit, AfterCommitCancel:
		c.pending, c.act = fault, act
	}
	_, err := c.Conn.Write(message)
	return err
}

func (c *faultyConn) hangUp() {
	c.broken.Store(true)
	_ = c.Close()
}

func (c *faultyConn) Read(b []byte) (int, error) {
	if c.broken.Load() {
		return 0, io.EOF
	}
	if fault := c.pending; fault != 0 {
		c.pending = 0
		// Only the answer proves that the command was carried out.
		answer, err := readMessage(c.Conn)
		if err != nil {
			return 0, err
		}
		if fault == AfterCommit {
			c.hangUp()
			return 0, io.EOF
		}
		c.act()
		c.in = answer
	}
	if len(c.in) > 0 {
		n := copy(b, c.in)
		c.in = c.in[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

// The parts of the wire protocol that are needed here:
// https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/
const (
	headerSize   = 16
	opMsg        = 2013
	flagChecksum = 1
)

func readMessage(r io.Reader) ([]byte, error) {
	message := make([]byte, headerSize)
	if _, err := io.ReadFull(r, message); err != nil {
		return nil, err
	}
	size := int(binary.LittleEndian.Uint32(message))
	if size < headerSize {
		return nil, fmt.Errorf("a message of %d bytes", size)
	}
	message = append(message, make([]byte, size-headerSize)...)
	_, err := io.ReadFull(r, message[headerSize:])
	return message, err
}

// commandOf returns the command of an OP_MSG with its document sequences as
// arrays in it, nil for any other message.
func commandOf(message []byte) bson.Raw {
	if len(message) < headerSize+5 || binary.LittleEndian.Uint32(message[12:]) != opMsg {
		return nil
	}
	sections := message[headerSize+4:]
	if binary.LittleEndian.Uint32(message[headerSize:])&flagChecksum != 0 {
		sections = sections[:len(sections)-4]
	}
	start, out := bsoncore.AppendDocumentStart(nil)
	var sequences []byte
	for len(sections) > 5 {
		size := int(binary.LittleEndian.Uint32(sections[1:]))
		if size < 5 || 1+size > len(sections) {
			return nil
		}
		section := sections[1 : 1+size]
		if sections[0] == 0 {
			out = append(out, section[4:size-1]...)
		} else {
			sequences = appendSequence(sequences, section[4:])
		}
		sections = sections[1+size:]
	}
	out, err := bsoncore.AppendDocumentEnd(append(out, sequences...), start)
	if err != nil {
		return nil
	}
	return bson.Raw(out)
}

// appendSequence appends a document sequence, its name and its documents, as an
// array.
func appendSequence(out, section []byte) []byte {
	name, docs, _ := bytes.Cut(section, []byte{0})
	start, out := bsoncore.AppendArrayElementStart(out, string(name))
	for i := 0; ; i++ {
		doc, rest, ok := bsoncore.ReadDocument(docs)
		if !ok {
			break
		}
		out = bsoncore.AppendDocumentElement(out, strconv.Itoa(i), doc)
		docs = rest
	}
	out, _ = bsoncore.AppendArrayEnd(out, start)
	return out
}
