package localmongo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/256dpi/lungo"
)

// lungo splits a name in its file at the dot, so the dots within the name of a
// collection are written otherwise.
var (
	escapeDots   = strings.NewReplacer("%", "%25", ".", "%2E")
	unescapeDots = strings.NewReplacer("%25", "%", "%2E", ".")
)

// loadFile reads the file, or starts an empty catalog when there is none yet.
func loadFile(path string) (*lungo.Catalog, error) {
	info, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%s: %w", filepath.Dir(path), errors.New("not a folder"))
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: not a regular file", fs.ErrInvalid)
	}
	stored, err := lungo.NewFileStore(path, 0o600).Load()
	if err != nil {
		return nil, fmt.Errorf("read the data (move the file away to start afresh): %w", err)
	}
	catalog := lungo.NewCatalog()
	for h, c := range stored.Namespaces {
		if h != lungo.Oplog {
			catalog.Namespaces[lungo.Handle{h[0], unescapeDots.Replace(h[1])}] = c
		}
	}
	return catalog, nil
}

// saveFile replaces the file with the catalog, at once.
func saveFile(path string, catalog *lungo.Catalog) error {
	stored := lungo.NewCatalog()
	for h, c := range catalog.Namespaces {
		if h != lungo.Oplog {
			stored.Namespaces[lungo.Handle{h[0], escapeDots.Replace(h[1])}] = c
		}
	}
	return lungo.NewFileStore(path, 0o600).Store(stored)
}
