package localmongo

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.mongodb.org/mongo-driver/bson/primitive"

	"github.com/256dpi/lungo"
	"github.com/256dpi/lungo/bsonkit"
)

const (
	// expireInterval is how often expired documents are removed. MongoDB does
	// it once a minute; nothing may rely on either.
	expireInterval = time.Second
	// The history of changes is cut to logKeep events when it has logMax.
	// Every write copies it.
	logMax  = 1024
	logKeep = 512
)

// data is the catalog of all collections. Readers take the published catalog,
// which never changes; one writer at a time makes the next one.
//
// lungo's own engine is not used: its expiry goroutine outlives it.
type data struct {
	mu      sync.Mutex // held by the writer
	store   lungo.Store
	catalog atomic.Pointer[lungo.Catalog]

	wakeMu sync.Mutex
	wake   chan struct{} // closed and replaced at every change

	cursors cursors

	cutMu sync.Mutex
	cut   primitive.Timestamp // the newest event that was cut from the history
}

func openData(path string) (*data, error) {
	d := &data{wake: make(chan struct{})}
	if path == "" {
		d.store = lungo.NewMemoryStore()
	} else {
		d.store = lungo.NewFileStore(path, 0o600)
	}
	catalog, err := d.store.Load()
	if err != nil {
		return nil, err
	}
	d.catalog.Store(catalog)
	if list := catalog.Namespaces[lungo.Oplog].Documents.List; len(list) > 0 {
		// What came before the oldest event that a file holds is not known.
		d.cut = before(eventTime(list[0]))
	}
	return d, nil
}

// read returns a snapshot.
func (d *data) read() *lungo.Transaction {
	return lungo.NewTransaction(d.catalog.Load())
}

// write runs fn on the newest catalog and publishes what it leaves, whole.
// When fn or the file fails, nothing has happened.
func (d *data) write(fn func(t *lungo.Transaction) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := lungo.NewTransaction(d.catalog.Load())
	if err := fn(t); err != nil {
		return err
	}
	if !t.Dirty() {
		return nil
	}
	next := t.Catalog()
	d.trim(next)
	if err := d.store.Store(next); err != nil {
		return failf(codeInternal, "write the data file: %v", err)
	}
	d.catalog.Store(next)
	d.wakeMu.Lock()
	close(d.wake)
	d.wake = make(chan struct{})
	d.wakeMu.Unlock()
	return nil
}

// trim cuts the history of changes.
func (d *data) trim(c *lungo.Catalog) {
	log := c.Namespaces[lungo.Oplog]
	list := log.Documents.List
	if len(list) < logMax {
		return
	}
	d.cutMu.Lock()
	d.cut = eventTime(list[len(list)-logKeep-1])
	d.cutMu.Unlock()
	kept := log.Clone()
	kept.Documents = bsonkit.NewSet(append(bsonkit.List(nil), list[len(list)-logKeep:]...))
	c.Namespaces[lungo.Oplog] = kept
}

// changed returns a channel that is closed at the next change.
func (d *data) changed() <-chan struct{} {
	d.wakeMu.Lock()
	defer d.wakeMu.Unlock()
	return d.wake
}

// operationTime is the time of the newest change.
func (d *data) operationTime() primitive.Timestamp {
	list := d.catalog.Load().Namespaces[lungo.Oplog].Documents.List
	if len(list) == 0 {
		return primitive.Timestamp{T: 1, I: 1}
	}
	return eventTime(list[len(list)-1])
}

func eventTime(event bsonkit.Doc) primitive.Timestamp {
	ts, _ := bsonkit.Get(event, "clusterTime").(primitive.Timestamp)
	return ts
}

// expire removes documents whose TTL has passed, until stop is closed.
func (d *data) expire(stop <-chan struct{}, logger *slog.Logger) {
	ticker := time.NewTicker(expireInterval)
	defer ticker.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
		}
		err := d.write(func(t *lungo.Transaction) error { return t.Expire() })
		if err != nil {
			logger.Error("localmongo: remove expired documents", slog.Any("error", err))
		}
	}
}
