package localmongo

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"runtime"
	"testing"

	"go.mongodb.org/mongo-driver/bson"
)

func request(flags uint32, sections ...[]byte) []byte {
	body := binary.LittleEndian.AppendUint32(nil, flags)
	for _, s := range sections {
		body = append(body, s...)
	}
	return append(appendHeader(nil, headerSize+len(body), 1, 0, opMsg), body...)
}

func kind0(d bson.D) []byte {
	raw, err := bson.Marshal(d)
	if err != nil {
		panic(err)
	}
	return append([]byte{0}, raw...)
}

func TestReadMessageRefuses(t *testing.T) {
	t.Parallel()
	ping := kind0(bson.D{{Key: "ping", Value: 1}})
	tests := map[string][]byte{
		"length below the header":  {4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"length above the limit":   append([]byte{0, 0, 0, 0x7f}, make([]byte, 12)...),
		"negative length":          append([]byte{0xff, 0xff, 0xff, 0xff}, make([]byte, 12)...),
		"cut off":                  request(0, ping)[:20],
		"unknown flag":             request(1<<5, ping),
		"no body":                  request(0),
		"two bodies":               request(0, ping, ping),
		"unknown section":          request(0, []byte{7}, ping),
		"document length too long": request(0, []byte{0, 0xff, 0, 0, 0, 0}),
		"bad checksum":             request(flagChecksum, ping, []byte{1, 2, 3, 4}),
		"compressed":               appendHeader(nil, headerSize, 1, 0, opCompressed),
	}
	for name, data := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := readMessage(bytes.NewReader(data)); err == nil {
				t.Error("the message was accepted")
			}
		})
	}
}

// A header alone must not make the server reserve what it announces.
func TestReadMessageMemory(t *testing.T) {
	var header bytes.Buffer
	header.Write(appendHeader(nil, maxMessage, 1, 0, opMsg))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := readMessage(&header); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("got %v, want an unexpected end", err)
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20 {
		t.Errorf("a header that announces %d bytes cost %d", maxMessage, grown)
	}
}

func TestReadMessageDepth(t *testing.T) {
	t.Parallel()
	d := bson.D{}
	for range maxDepth + 5 {
		d = bson.D{{Key: "d", Value: d}}
	}
	if _, err := readMessage(bytes.NewReader(request(0, kind0(d)))); asCommandError(err).code != codeOverflow {
		t.Errorf("nesting beyond the limit: got %v", err)
	}
}

func FuzzWire(f *testing.F) {
	ping := kind0(bson.D{{Key: "ping", Value: 1}, {Key: "$db", Value: "d"}})
	f.Add(request(0, ping))
	f.Add(request(flagMoreToCome, ping))
	f.Add(request(0, ping, append([]byte{1, 13, 0, 0, 0, 'd', 'o', 'c', 0}, 5, 0, 0, 0, 0)))
	f.Add(request(0, kind0(bson.D{{Key: "find", Value: "c"}, {Key: "filter", Value: bson.D{{Key: "a", Value: bson.A{1, "x"}}}}, {Key: "$db", Value: "d"}})))
	f.Add(request(0, kind0(bson.D{{Key: "findAndModify", Value: "c"}, {Key: "update", Value: bson.D{{Key: "$push", Value: bson.D{
		{Key: "a.b", Value: bson.D{{Key: "$each", Value: bson.A{1}}, {Key: "$slice", Value: -1}}},
	}}}}, {Key: "upsert", Value: true}, {Key: "$db", Value: "d"}})))
	f.Add(request(0, kind0(bson.D{{Key: "aggregate", Value: "c"}, {Key: "pipeline", Value: bson.A{
		bson.D{{Key: "$changeStream", Value: bson.D{{Key: "fullDocument", Value: "updateLookup"}}}},
	}}, {Key: "cursor", Value: bson.D{}}, {Key: "$db", Value: "d"}})))
	registerOperators()
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := openData("")
		if err != nil {
			t.Fatal(err)
		}
		// A panic that a command's own guard catches is a defect as well.
		logged := &bytes.Buffer{}
		server := &Server{data: d, stop: make(chan struct{}), logger: slog.New(slog.NewTextHandler(logged, nil))}
		m, err := readMessage(bytes.NewReader(data))
		if err != nil {
			return
		}
		if len(m.body) > 0 && m.body[0].Key == "getMore" {
			return // may wait
		}
		c := &session{server: server}
		answer := c.answer(m)
		if logged.Len() > 0 {
			t.Errorf("%v: %s", m.body, logged)
		}
		out, err := m.encode(1, answer)
		if err != nil {
			return
		}
		if len(out) < headerSize || int(binary.LittleEndian.Uint32(out)) != len(out) {
			t.Errorf("the answer's length does not match its header")
		}
	})
}
