package localmongo

import (
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"

	"github.com/256dpi/lungo"
	"github.com/256dpi/lungo/bsonkit"
	"github.com/256dpi/lungo/mongokit"
)

// expireInterval is how often expired documents are removed. MongoDB does it
// once a minute; nothing may rely on either.
const expireInterval = time.Second

// data is the catalog of all collections. Readers take the published catalog,
// which never changes; one writer at a time makes the next one.
//
// lungo's own engine is not used: its expiry goroutine outlives it.
type data struct {
	mu      sync.Mutex // held by the writer
	path    string     // "" means memory only
	catalog atomic.Pointer[lungo.Catalog]
	history *history
	cursors cursors
}

func openData(path string) (*data, error) {
	d := &data{path: path, history: newHistory()}
	catalog := lungo.NewCatalog()
	if path != "" {
		var err error
		if catalog, err = loadFile(path); err != nil {
			return nil, err
		}
	}
	d.catalog.Store(catalog)
	return d, nil
}

// collection returns the published state of a collection, nil when there is
// none.
func (d *data) collection(h lungo.Handle) *mongokit.Collection {
	return d.catalog.Load().Namespaces[h]
}

// write runs fn on the newest catalog and publishes what it leaves, whole.
// When fn or the file fails, nothing has happened.
func (d *data) write(fn func(t *tx) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := newTx(d.catalog.Load())
	if err := fn(t); err != nil {
		return err
	}
	if !t.dirty {
		return nil
	}
	if d.path != "" {
		if err := saveFile(d.path, t.catalog); err != nil {
			return failf(codeInternal, "write the data file: %v", err)
		}
	}
	// The data comes before its events: who reads an event finds its document.
	d.catalog.Store(t.catalog)
	d.history.append(t.events)
	return nil
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
		if err := d.write(func(t *tx) error { return t.expire(time.Now()) }); err != nil {
			logger.Error("localmongo: remove expired documents", slog.Any("error", err))
		}
	}
}

// expire removes what the TTL indexes say is over at now.
func (t *tx) expire(now time.Time) error {
	for h, c := range t.catalog.Namespaces {
		var gone bsonkit.List
		for _, index := range c.Indexes {
			config := index.Config()
			if config.Expiry <= 0 {
				continue
			}
			filter := bson.D{{Key: (*config.Key)[0].Key, Value: bson.D{
				// Only dates compare with a date.
				{Key: "$lt", Value: primitive.NewDateTimeFromTime(now.Add(-config.Expiry))},
			}}}
			over, err := mongokit.Filter(c.Documents.List, &filter, 0)
			if err == nil && config.Partial != nil {
				over, err = mongokit.Filter(over, config.Partial, 0)
			}
			if err != nil {
				return err
			}
			gone = append(gone, over...)
		}
		slices.SortFunc(gone, func(a, b bsonkit.Doc) int { return c.Documents.Index[a] - c.Documents.Index[b] })
		if err := t.remove(h, slices.Compact(gone)); err != nil {
			return err
		}
	}
	return nil
}
