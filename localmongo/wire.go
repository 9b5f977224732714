package localmongo

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/x/bsonx/bsoncore"
)

// Limits of the wire protocol, as a server of MongoDB announces them.
const (
	maxMessage  = 48_000_000
	maxDocument = 16 << 20
	// maxInternal is the size of a document within a message: a command has a
	// little more than the largest document that it carries.
	maxInternal = maxDocument + 16<<10
	// maxDepth is how deep a message may nest, maxStoredDepth a stored document.
	maxDepth       = 200
	maxStoredDepth = 180
	// maxElements bounds the fields of all documents of a message: the smallest
	// take three bytes on the wire and a hundred in memory.
	maxElements = 4_000_000
	headerSize  = 16
)

// Opcodes of the wire protocol.
const (
	opReply      = 1
	opQuery      = 2004
	opCompressed = 2012
	opMsg        = 2013
)

// Flags of OP_MSG.
const (
	flagChecksum   = 1 << 0
	flagMoreToCome = 1 << 1
	// flagsRequired are the bits that a receiver must know or refuse.
	flagsRequired = 0xFFFF
)

var (
	errMessageSize = errors.New("message length out of range")
	errMalformed   = errors.New("malformed message")
)

// message is one request.
type message struct {
	id     int32
	opcode int32
	// body is the command, with the sequences of an OP_MSG as arrays in it.
	body bson.D
	// noReply is set when the client does not wait for an answer.
	noReply bool
	// answerable is set when the message is of a kind that has an answer, even
	// if its contents are refused.
	answerable bool
	elements   int
}

// readMessage reads one message. It believes the announced length only as far
// as bytes arrive, so that a header alone costs no memory.
func readMessage(r io.Reader) (*message, error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return nil, err
	}
	length := int32(binary.LittleEndian.Uint32(header[0:])) //nolint:gosec // a negative length is refused below
	if length < headerSize || length > maxMessage {
		return nil, fmt.Errorf("%w: %d", errMessageSize, length)
	}
	var body bytes.Buffer
	if n, err := io.CopyN(&body, r, int64(length)-headerSize); err != nil {
		if errors.Is(err, io.EOF) && n < int64(length)-headerSize {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return parseMessage(header, body.Bytes())
}

func parseMessage(header [headerSize]byte, body []byte) (*message, error) {
	m := &message{
		id:     int32(binary.LittleEndian.Uint32(header[4:])),  //nolint:gosec // an opaque number
		opcode: int32(binary.LittleEndian.Uint32(header[12:])), //nolint:gosec // compared with constants
	}
	switch m.opcode {
	case opMsg:
		m.answerable = true
		return m, m.parseMsg(header, body)
	case opQuery:
		m.answerable = true
		return m, m.parseQuery(body)
	case opCompressed:
		return nil, fmt.Errorf("%w: compressed messages are not supported by localmongo", errMalformed)
	default:
		return nil, fmt.Errorf("%w: opcode %d", errMalformed, m.opcode)
	}
}

func (m *message) parseMsg(header [headerSize]byte, body []byte) error {
	if len(body) < 5 {
		return errMalformed
	}
	flags := binary.LittleEndian.Uint32(body)
	if flags&flagsRequired&^(flagChecksum|flagMoreToCome) != 0 {
		return fmt.Errorf("%w: unknown flags %#x", errMalformed, flags)
	}
	rest := body[4:]
	if flags&flagChecksum != 0 {
		if len(rest) < 4 {
			return errMalformed
		}
		want := binary.LittleEndian.Uint32(rest[len(rest)-4:])
		sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
		_, _ = sum.Write(header[:])
		_, _ = sum.Write(body[:len(body)-4])
		if sum.Sum32() != want {
			return fmt.Errorf("%w: checksum", errMalformed)
		}
		rest = rest[:len(rest)-4]
	}
	m.noReply = flags&flagMoreToCome != 0
	return m.parseSections(rest)
}

// sequence is a section of kind 1: documents that belong into the command
// under its name.
type sequence struct {
	name string
	docs bson.A
}

func (m *message) parseSections(rest []byte) error {
	var sequences []sequence
	seen := false
	for len(rest) > 0 {
		kind := rest[0]
		rest = rest[1:]
		switch kind {
		case 0:
			if seen {
				return fmt.Errorf("%w: two bodies", errMalformed)
			}
			doc, tail, err := m.readDocument(rest)
			if err != nil {
				return err
			}
			m.body, rest, seen = doc, tail, true
		case 1:
			s, tail, err := m.readSequence(rest)
			if err != nil {
				return err
			}
			sequences, rest = append(sequences, s), tail
		default:
			return fmt.Errorf("%w: section kind %d", errMalformed, kind)
		}
	}
	if !seen {
		return fmt.Errorf("%w: no body", errMalformed)
	}
	for _, s := range sequences {
		for _, e := range m.body {
			if e.Key == s.name {
				return fmt.Errorf("%w: %q twice", errMalformed, s.name)
			}
		}
		m.body = append(m.body, bson.E{Key: s.name, Value: s.docs})
	}
	return nil
}

func (m *message) readSequence(data []byte) (sequence, []byte, error) {
	var s sequence
	if len(data) < 4 {
		return s, nil, errMalformed
	}
	size := int64(binary.LittleEndian.Uint32(data))
	if size < 5 || size > int64(len(data)) {
		return s, nil, errMalformed
	}
	section, tail := data[4:size], data[size:]
	name, docs, err := readCString(section)
	if err != nil {
		return s, nil, err
	}
	s.name, s.docs = name, bson.A{}
	for len(docs) > 0 {
		doc, rest, err := m.readDocument(docs)
		if err != nil {
			return s, nil, err
		}
		s.docs, docs = append(s.docs, doc), rest
	}
	return s, tail, nil
}

func (m *message) parseQuery(body []byte) error {
	if len(body) < 4 {
		return errMalformed
	}
	name, rest, err := readCString(body[4:])
	if err != nil {
		return err
	}
	if len(rest) < 8 {
		return errMalformed
	}
	doc, _, err := m.readDocument(rest[8:])
	if err != nil {
		return err
	}
	db, _, ok := cutLast(name, ".$cmd")
	if !ok {
		return fmt.Errorf("%w: OP_QUERY is understood for commands only", errMalformed)
	}
	m.body = append(doc, bson.E{Key: "$db", Value: db})
	return nil
}

func cutLast(s, suffix string) (before, after string, ok bool) {
	if len(s) < len(suffix) || s[len(s)-len(suffix):] != suffix {
		return s, "", false
	}
	return s[:len(s)-len(suffix)], suffix, true
}

func readCString(data []byte) (string, []byte, error) {
	end := bytes.IndexByte(data, 0)
	if end < 0 {
		return "", nil, errMalformed
	}
	return string(data[:end]), data[end+1:], nil
}

// readDocument reads the BSON document at the start of data.
func (m *message) readDocument(data []byte) (bson.D, []byte, error) {
	if len(data) < 5 {
		return nil, nil, errMalformed
	}
	size := int64(binary.LittleEndian.Uint32(data))
	if size < 5 || size > int64(len(data)) {
		return nil, nil, fmt.Errorf("%w: document length", errMalformed)
	}
	if size > maxInternal {
		return nil, nil, failf(codeBSONObjectTooLarge, "BSONObj size: %d is invalid. Size must be between 0 and %d", size, maxInternal)
	}
	if err := m.check(data[:size], 0); err != nil {
		return nil, nil, err
	}
	var doc bson.D
	if err := bson.Unmarshal(data[:size], &doc); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errMalformed, err)
	}
	return doc, data[size:], nil
}

// check walks the document before it is decoded: the decoder recurses as deep
// and allocates as much as its input says.
func (m *message) check(doc bsoncore.Document, depth int) error {
	if depth > maxDepth {
		return failf(codeOverflow, "BSONObj exceeds the maximum nested object depth: %d", maxDepth)
	}
	if len(doc) < 5 || int64(binary.LittleEndian.Uint32(doc)) != int64(len(doc)) || doc[len(doc)-1] != 0 {
		return failf(codeInvalidBSON, "malformed BSON document")
	}
	for rest := doc[4 : len(doc)-1]; len(rest) > 0; {
		e, tail, ok := bsoncore.ReadElement(rest)
		if !ok {
			return failf(codeInvalidBSON, "malformed BSON element")
		}
		rest = tail
		if m.elements++; m.elements > maxElements {
			return failf(codeOverflow, "the message has more than %d fields", maxElements)
		}
		value, err := e.ValueErr()
		if err != nil {
			return failf(codeInvalidBSON, "malformed BSON: %v", err)
		}
		if inner, isDoc := value.DocumentOK(); isDoc {
			err = m.check(inner, depth+1)
		} else if inner, isArray := value.ArrayOK(); isArray {
			err = m.check(bsoncore.Document(inner), depth+1)
		} else if value.Type == bson.TypeCodeWithScope {
			err = failf(codeBadValue, "code with scope is not supported by localmongo")
		} else if invalid := value.Validate(); invalid != nil {
			err = failf(codeInvalidBSON, "malformed BSON: %v", invalid)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// encode writes the answer doc to the request m.
func (m *message) encode(id int32, doc bson.D) ([]byte, error) {
	body, err := bson.Marshal(doc)
	if err != nil {
		return nil, err
	}
	if m.opcode == opQuery {
		return encodeReply(id, m.id, body), nil
	}
	out := make([]byte, 0, headerSize+5+len(body))
	out = appendHeader(out, headerSize+5+len(body), id, m.id, opMsg)
	out = append(out, 0, 0, 0, 0, 0) // no flags, section of kind 0
	return append(out, body...), nil
}

func encodeReply(id, to int32, body []byte) []byte {
	out := make([]byte, 0, headerSize+20+len(body))
	out = appendHeader(out, headerSize+20+len(body), id, to, opReply)
	out = append(out, make([]byte, 16)...) // flags, cursor, start
	out = append(out, 1, 0, 0, 0)          // one document
	return append(out, body...)
}

func appendHeader(out []byte, size int, id, to, opcode int32) []byte {
	for _, v := range []int32{int32(size), id, to, opcode} { //nolint:gosec // size is bounded by the batch limits
		out = binary.LittleEndian.AppendUint32(out, uint32(v)) //nolint:gosec // the bits are what is sent
	}
	return out
}
