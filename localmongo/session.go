package localmongo

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"slices"

	"go.mongodb.org/mongo-driver/bson"
)

// session serves one connection: one request after the other, as the wire
// protocol has it.
type session struct {
	server *Server
	conn   net.Conn
	id     int32
	nextID int32
}

func (c *session) run() {
	r := bufio.NewReaderSize(c.conn, 64<<10)
	for {
		m, err := readMessage(r)
		if err != nil && (m == nil || !m.answerable) {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.ErrClosedPipe) {
				c.server.logger.Debug("localmongo: connection ended", slog.Any("error", err))
			}
			return
		}
		var answer bson.D
		if err != nil {
			// The message is whole, only what is in it is wrong: say so and go on.
			if errors.Is(err, errMalformed) {
				err = failf(codeFailedToParse, "%s", err)
			}
			answer = asCommandError(err).document()
		} else {
			answer = c.answer(m)
		}
		if m.noReply {
			continue
		}
		c.nextID++
		out, err := m.encode(c.nextID, answer)
		if err != nil {
			out, err = m.encode(c.nextID, asCommandError(failf(codeInternal, "encode the answer: %v", err)).document())
		}
		if err != nil {
			return
		}
		if _, err := c.conn.Write(out); err != nil {
			return
		}
	}
}

// answer runs the command. A panic below is a defect of the translation or of
// lungo: it ends the command, not the process.
func (c *session) answer(m *message) (doc bson.D) {
	defer func() {
		if p := recover(); p != nil {
			name := ""
			if len(m.body) > 0 {
				name = m.body[0].Key
			}
			c.server.logger.Error("localmongo: command failed", slog.String("command", name), slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
			doc = asCommandError(failf(codeInternal, "localmongo: internal error in %s: %v", name, p)).document()
		}
	}()
	out, err := c.dispatch(m.body)
	if err != nil {
		doc = asCommandError(err).document()
	} else {
		doc = append(out, bson.E{Key: "ok", Value: float64(1)})
	}
	return append(doc, bson.E{Key: "operationTime", Value: c.server.data.history.now()})
}

// handler runs one command.
type handler func(c *session, a *args) (bson.D, error)

// command is one entry of the table of commands.
type command struct {
	run handler
	// fields are the members that the command understands besides its own name
	// and the generic ones.
	fields []string
}

// genericFields come with every command and mean nothing here.
var genericFields = map[string]bool{
	"$db": true, "lsid": true, "$clusterTime": true, "$readPreference": true, "readConcern": true,
	"writeConcern": true, "maxTimeMS": true, "comment": true, "apiVersion": true, "apiStrict": true,
	"apiDeprecationErrors": true, "txnNumber": true, "$client": true, "bypassDocumentValidation": true,
}

func (c *session) dispatch(body bson.D) (bson.D, error) {
	if len(body) == 0 {
		return nil, failf(codeFailedToParse, "empty command")
	}
	name := body[0].Key
	cmd, ok := commandTable[name]
	if !ok {
		return nil, failf(codeCommandNotFound, "no such command: '%s' (not supported by localmongo)", name)
	}
	a := &args{name: name, values: make(map[string]any, len(body))}
	for i, e := range body {
		if _, twice := a.values[e.Key]; twice {
			return nil, failf(codeFailedToParse, "%s: field %q is given twice", name, e.Key)
		}
		a.values[e.Key] = e.Value
		if e.Key == "startTransaction" || e.Key == "autocommit" {
			return nil, failf(codeIllegalOperation, "Transaction numbers are only allowed on a replica set member or mongos")
		}
		if i > 0 && !genericFields[e.Key] && !slices.Contains(cmd.fields, e.Key) {
			return nil, failf(codeUnknownField, "BSON field '%s.%s' is not supported by localmongo", name, e.Key)
		}
	}
	var err error
	if a.db, err = a.str("$db"); err != nil {
		return nil, err
	}
	return cmd.run(c, a)
}

// args are the members of a command.
type args struct {
	name   string
	db     string
	values map[string]any
}

func (a *args) wrongType(field, want string, v any) error {
	return failf(codeTypeMismatch, "BSON field '%s.%s' is the wrong type '%T', expected %s", a.name, field, v, want)
}

// str returns a string member, "" when it is absent.
func (a *args) str(field string) (string, error) {
	v, ok := a.values[field]
	if !ok {
		return "", nil
	}
	s, ok := v.(string)
	if !ok {
		return "", a.wrongType(field, "string", v)
	}
	return s, nil
}

// doc returns a document member, an empty one when it is absent.
func (a *args) doc(field string) (bson.D, error) {
	v, ok := a.values[field]
	if !ok || v == nil {
		return bson.D{}, nil
	}
	d, ok := v.(bson.D)
	if !ok {
		return nil, a.wrongType(field, "object", v)
	}
	return d, nil
}

// docs returns an array of documents, nil when it is absent.
func (a *args) docs(field string) ([]bson.D, error) {
	v, ok := a.values[field]
	if !ok || v == nil {
		return nil, nil
	}
	list, ok := v.(bson.A)
	if !ok {
		return nil, a.wrongType(field, "array", v)
	}
	out := make([]bson.D, len(list))
	for i, item := range list {
		if out[i], ok = item.(bson.D); !ok {
			return nil, a.wrongType(fmt.Sprintf("%s.%d", field, i), "object", item)
		}
	}
	return out, nil
}

// number returns an integer member, fallback when it is absent.
func (a *args) number(field string, fallback int64) (int64, error) {
	v, ok := a.values[field]
	if !ok || v == nil {
		return fallback, nil
	}
	switch n := v.(type) {
	case int32:
		return int64(n), nil
	case int64:
		return n, nil
	case float64:
		return int64(n), nil
	default:
		return 0, a.wrongType(field, "number", v)
	}
}

// flag returns a boolean member, fallback when it is absent. Numbers count, as
// they do for MongoDB.
func (a *args) flag(field string, fallback bool) (bool, error) {
	v, ok := a.values[field]
	if !ok || v == nil {
		return fallback, nil
	}
	if b, ok := v.(bool); ok {
		return b, nil
	}
	n, err := a.number(field, 0)
	if err != nil {
		return false, a.wrongType(field, "bool", v)
	}
	return n != 0, nil
}

// collection returns the name of the collection that the command is about.
func (a *args) collection() (string, error) {
	name, err := a.str(a.name)
	if err != nil {
		return "", err
	}
	if name == "" || a.db == "" {
		return "", failf(codeInvalidNamespace, "Invalid namespace specified '%s.%s'", a.db, name)
	}
	return name, nil
}

// sub makes the arguments of one statement of a batch.
func (a *args) sub(field string, doc bson.D, allowed ...string) (*args, error) {
	s := &args{name: a.name + "." + field, db: a.db, values: make(map[string]any, len(doc))}
	for _, e := range doc {
		if !slices.Contains(allowed, e.Key) {
			return nil, failf(codeUnknownField, "BSON field '%s.%s' is not supported by localmongo", s.name, e.Key)
		}
		s.values[e.Key] = e.Value
	}
	return s, nil
}

// required refuses a statement without the fields.
func (a *args) required(fields ...string) error {
	for _, f := range fields {
		if _, ok := a.values[f]; !ok {
			return failf(codeMissingRequired, "BSON field '%s.%s' is missing but a required field", a.name, f)
		}
	}
	return nil
}
