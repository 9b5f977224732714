package storetest

import (
	"context"
	"encoding/binary"
	"net"
	"sync"
	"testing"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
)

// Answers answers some commands in the place of the database, with what a server says and
// localmongo does not.
type Answers struct {
	// Answer returns the reply, or nil for a command that goes to the database.
	Answer func(command bson.Raw) bson.D
}

func (*Answers) restore() {}

// DialContext implements the driver's dialer.
func (a *Answers) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &answering{Conn: c, a: a}, nil
}

// answering is a connection whose driver reads what Answers say before what comes in.
type answering struct {
	net.Conn
	a  *Answers
	mu sync.Mutex
	in []byte
}

// Write takes one message, as the driver writes it.
func (c *answering) Write(b []byte) (int, error) {
	command := commandOf(b)
	if command == nil {
		return c.Conn.Write(b)
	}
	reply := c.a.Answer(command)
	if reply == nil {
		return c.Conn.Write(b)
	}
	raw, err := bson.Marshal(reply)
	if err != nil {
		return 0, err
	}
	// An OP_MSG without flags and with one section of kind 0, to the request's id.
	m := append(make([]byte, headerSize+5, headerSize+5+len(raw)), raw...)
	binary.LittleEndian.PutUint32(m, uint32(len(m)))
	copy(m[8:12], b[4:8])
	binary.LittleEndian.PutUint32(m[12:], opMsg)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.in = m
	return len(b), nil
}

func (c *answering) Read(b []byte) (int, error) {
	c.mu.Lock()
	if len(c.in) > 0 {
		n := copy(b, c.in)
		c.in = c.in[n:]
		c.mu.Unlock()
		return n, nil
	}
	c.mu.Unlock()
	return c.Conn.Read(b)
}

// Answering returns the database db, some of whose commands a answers.
func Answering(tb testing.TB, db *mongo.Database, a *Answers) *mongo.Database {
	tb.Helper()
	return own(tb, db.Name(), nil, a)
}
