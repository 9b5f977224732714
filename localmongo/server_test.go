package localmongo_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/localmongo"
)

func start(t *testing.T, opts localmongo.Options) *localmongo.Server {
	t.Helper()
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	s, err := localmongo.Start(t.Context(), &opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func TestSaysOnceThatItIsNotForProduction(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	s := start(t, localmongo.Options{Logger: slog.New(slog.NewTextHandler(&out, nil))})
	if s.URI() != "" {
		t.Errorf("without a listener the URI is %q", s.URI())
	}
	if first := s.Client(); s.Client() != first {
		t.Error("Client is another one each time")
	}
	if err := s.Client().Ping(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "not for production"); n != 1 {
		t.Errorf("it was said %d times: %s", n, &out)
	}
}

func TestCloseEndsEverything(t *testing.T) {
	t.Parallel()
	s := start(t, localmongo.Options{Listen: true})
	other, err := mongo.Connect(t.Context(), options.Client().ApplyURI(s.URI()).SetServerSelectionTimeout(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Disconnect(context.Background())
	stream, err := other.Database("test").Collection("c").Watch(t.Context(), mongo.Pipeline{}, options.ChangeStream().SetMaxAwaitTime(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	var waiting sync.WaitGroup
	waiting.Go(func() {
		if stream.Next(context.Background()) {
			t.Error("an event came from a closed server")
		}
	})
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	waiting.Wait()
	if err := s.Close(t.Context()); err != nil {
		t.Errorf("closing twice: %v", err)
	}
	if err := s.Client().Ping(t.Context(), nil); err == nil {
		t.Error("the client works after Close")
	}
	if err := other.Ping(t.Context(), nil); err == nil {
		t.Error("a foreign client works after Close")
	}
}

func TestStartRefusesBadFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	damaged := filepath.Join(dir, "damaged")
	if err := os.WriteFile(damaged, []byte("this is no data"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"damaged file": damaged, "folder": dir, "missing folder": filepath.Join(dir, "no", "data"), "file as folder": filepath.Join(damaged, "data"),
	} {
		s, err := localmongo.Start(t.Context(), &localmongo.Options{Path: path})
		if err == nil {
			_ = s.Close(t.Context())
			t.Errorf("%s: it started", name)
		} else if !strings.Contains(err.Error(), path) {
			t.Errorf("%s: the error does not name the file: %v", name, err)
		}
	}
	if text, err := os.ReadFile(damaged); err != nil || string(text) != "this is no data" {
		t.Errorf("the damaged file was touched: %q, %v", text, err)
	}
}

// Everything that can be stored comes back from the file: names with dots, all
// types, indexes with their options.
func TestFileKeepsEverything(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "data.bson")
	const name = "fs.files%2E"
	want := d("_id", bson.D{{Key: "a", Value: int64(1)}}, "f", 1.5, "i", int32(1), "l", int64(2), "s", "x", "b", true,
		"n", nil, "t", time.Now().UTC().Truncate(time.Millisecond), "d", d("a", bson.A{int32(1), d("b", int64(2))}))
	raw, err := bson.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	index := mongo.IndexModel{Keys: d("t", -1), Options: options.Index().SetName("t").SetUnique(true).
		SetExpireAfterSeconds(1000).SetPartialFilterExpression(d("s", d("$gt", "")))}

	first := start(t, localmongo.Options{Path: path})
	c := first.Client().Database("test").Collection(name)
	insert(t.Context(), t, c, raw)
	if _, err := c.Indexes().CreateOne(t.Context(), index); err != nil {
		t.Fatal(err)
	}
	stream, err := c.Watch(t.Context(), mongo.Pipeline{})
	if err != nil {
		t.Fatal(err)
	}
	token := stream.ResumeToken()
	if err := stream.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(t.Context()); err != nil {
		t.Fatal(err)
	}

	second := start(t, localmongo.Options{Path: path})
	c = second.Client().Database("test").Collection(name)
	got, err := c.FindOne(t.Context(), doc{}).Raw()
	if err != nil || !bytes.Equal(got, raw) {
		t.Errorf("got %v, %v, want %v", got, err, bson.Raw(raw))
	}
	if _, err := c.Indexes().CreateOne(t.Context(), index); err != nil {
		t.Errorf("the index is not the same: %v", err)
	}
	specs, err := c.Indexes().ListSpecifications(t.Context())
	if err != nil || len(specs) != 2 || *specs[1].ExpireAfterSeconds != 1000 || !*specs[1].Unique {
		t.Errorf("indexes: %v, %v", specs, err)
	}
	if _, err := c.Watch(t.Context(), mongo.Pipeline{}, options.ChangeStream().SetResumeAfter(token)); !hasCode(err, 286) {
		t.Errorf("a resume token of the last run: got %v, want code 286", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v, want it readable by its owner only", info, err)
	}
}

// A write that the disk refuses has not happened.
func TestFileThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s := start(t, localmongo.Options{Path: filepath.Join(dir, "data.bson")})
	c := s.Client().Database("test").Collection("c")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := c.InsertOne(t.Context(), d("_id", 1)); !hasCode(err, 1) {
		t.Errorf("got %v, want code 1", err)
	}
	if n, err := c.CountDocuments(t.Context(), doc{}); err != nil || n != 0 {
		t.Errorf("%d documents, %v: a write that failed is visible", n, err)
	}
}

// A raw connection: what the server refuses, it answers, and goes on.
func TestWireAnswersRefusals(t *testing.T) {
	t.Parallel()
	s := start(t, localmongo.Options{Listen: true})
	u, err := url.Parse(s.URI())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	deep := any(1)
	for range 300 {
		deep = d("d", deep)
	}
	ask := func(cmd doc) bson.Raw {
		t.Helper()
		raw, err := bson.Marshal(cmd)
		if err != nil {
			t.Fatal(err)
		}
		body := append(make([]byte, 5), raw...)
		head := []byte{byte(16 + len(body)), byte((16 + len(body)) >> 8), 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0xdd, 0x07, 0, 0}
		if _, err := conn.Write(append(head, body...)); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 16)
		if _, err := io.ReadFull(conn, answer); err != nil {
			t.Fatal(err)
		}
		if answer[8] != 7 {
			t.Errorf("the answer is to request %d, want 7", answer[8])
		}
		rest := make([]byte, int(answer[0])|int(answer[1])<<8-16)
		if _, err := io.ReadFull(conn, rest); err != nil {
			t.Fatal(err)
		}
		return rest[5:]
	}
	if code := ask(d("ping", 1, "$db", "x", "deep", deep)).Lookup("code").AsInt64(); code != 15 {
		t.Errorf("nested too deep: code %d, want 15", code)
	}
	if code := ask(d("ping", 1, "$db", "x", "$db", "y")).Lookup("code").AsInt64(); code != 9 {
		t.Errorf("a field twice: code %d, want 9", code)
	}
	if ok := ask(d("ping", 1, "$db", "x")).Lookup("ok").AsInt64(); ok != 1 {
		t.Errorf("a ping afterwards: ok = %d", ok)
	}
	// A compressed message ends the connection: there is no reading on.
	if _, err := conn.Write([]byte{16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xdc, 0x07, 0, 0}); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("a compressed message was answered")
	}
}

func TestOneCursorOneRequest(t *testing.T) {
	t.Parallel()
	s := start(t, localmongo.Options{})
	db := s.Client().Database("test")
	var opened struct {
		Cursor struct{ ID int64 }
	}
	watch := d("aggregate", "c", "pipeline", bson.A{d("$changeStream", doc{})}, "cursor", doc{})
	if err := db.RunCommand(t.Context(), watch).Decode(&opened); err != nil {
		t.Fatal(err)
	}
	id := opened.Cursor.ID
	more := d("getMore", id, "collection", "c", "maxTimeMS", 60_000)
	ended := make(chan error, 1)
	wait := func() { ended <- db.RunCommand(t.Context(), more).Err() }
	go wait()
	// Of two requests, the one that comes second is refused, whichever it is.
	quick := d("getMore", id, "collection", "c", "maxTimeMS", 1)
	for refused := false; !refused; {
		err := db.RunCommand(t.Context(), quick).Err()
		refused = hasCode(err, 12051)
		if err != nil && !refused {
			t.Fatalf("two requests on one cursor: got %v, want code 12051", err)
		}
		select {
		case err := <-ended:
			if !hasCode(err, 12051) {
				t.Fatalf("the request that waits: got %v, want code 12051", err)
			}
			refused = false
			go wait()
		default:
		}
	}
	var killed struct{ CursorsKilled []int64 }
	if err := db.RunCommand(t.Context(), d("killCursors", "c", "cursors", bson.A{id, int64(12345)})).Decode(&killed); err != nil {
		t.Fatal(err)
	}
	if len(killed.CursorsKilled) != 1 || killed.CursorsKilled[0] != id {
		t.Errorf("killed %v, want %d", killed.CursorsKilled, id)
	}
	if err := <-ended; !hasCode(err, 237) {
		t.Errorf("the request that waited: got %v, want code 237 at once", err)
	}
	if err := db.RunCommand(t.Context(), quick).Err(); !hasCode(err, 43) {
		t.Errorf("after the kill: got %v, want code 43", err)
	}
}

// Cursors that nobody finishes do not pile up: the oldest is given up.
func TestAbandonedCursorsAreBounded(t *testing.T) {
	t.Parallel()
	s := start(t, localmongo.Options{})
	db := s.Client().Database("test")
	insert(t.Context(), t, db.Collection("c"), d("_id", 1), d("_id", 2))
	open := func() int64 {
		var out struct {
			Cursor struct{ ID int64 }
		}
		if err := db.RunCommand(t.Context(), d("find", "c", "batchSize", 1)).Decode(&out); err != nil {
			t.Fatal(err)
		}
		return out.Cursor.ID
	}
	first, second := open(), open()
	for range 4095 {
		open()
	}
	if err := db.RunCommand(t.Context(), d("getMore", first, "collection", "c")).Err(); !hasCode(err, 43) {
		t.Errorf("the oldest cursor: got %v, want code 43", err)
	}
	if err := db.RunCommand(t.Context(), d("getMore", second, "collection", "c")).Err(); err != nil {
		t.Errorf("the next one: %v", err)
	}
}
